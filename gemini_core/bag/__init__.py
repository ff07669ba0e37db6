"""Bags of ROS 2 without ROS: reading, writing, converting from KITTI, and looking at what is inside."""

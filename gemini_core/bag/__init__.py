"""Bags of ROS 2 without ROS: read, written, salvaged, converted from KITTI."""

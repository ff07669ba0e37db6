"""ROS messages to samples, one file per sensor.

Every function takes any object that has the message's fields, so rclpy's and rosbags' messages alike, reads large data where
it lies and copies only what has to change. What cannot be read is a DecodeError; nothing else is raised.
"""

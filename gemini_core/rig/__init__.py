"""What is known of the robot: cameras, the transform tree, motion, calibration."""

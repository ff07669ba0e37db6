"""Whether the sensors of a rig really lie on each other: calibration checked against what they saw."""

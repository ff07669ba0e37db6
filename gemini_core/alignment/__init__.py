"""Extrinsic calibration check: whether the sensors of a rig lie on each other, judged by what they saw."""

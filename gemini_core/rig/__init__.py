"""The rig: intrinsics, extrinsics, transform tree, motion."""

"""Metrics: mean IoU of masks, average precision (AP) of 3D boxes."""

"""Projection: frames to aligned grids, every modality on the network's pixels, one file per modality."""

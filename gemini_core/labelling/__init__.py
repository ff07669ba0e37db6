"""Frames out of bags for people to label, and their labels back into bags (docs/training.md, "Labelling frames")."""

"""Samples become frames: what every sensor saw at the stamp of one reference image."""

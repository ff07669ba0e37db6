"""Synchronization of samples into frames: what every sensor saw at the stamp of one reference image."""

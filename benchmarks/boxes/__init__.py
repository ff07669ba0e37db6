"""Benchmark of the 3D detector: what the image brings to it, and what it costs."""

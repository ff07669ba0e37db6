"""The detector of boxes: what the image brings to it, and what it costs."""

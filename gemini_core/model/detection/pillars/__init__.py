"""The default detector: pillars, on the backbone of the masks."""

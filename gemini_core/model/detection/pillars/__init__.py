"""The default detector: pillars in BEV, on the backbone of the masks."""

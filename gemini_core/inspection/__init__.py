"""Inspection: what is in a bag, and what the pipeline makes of it."""

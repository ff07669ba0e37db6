"""Drives through a procedural street, recorded as bags with ground truth: :func:`gemini_core.simulation.record.simulate`."""

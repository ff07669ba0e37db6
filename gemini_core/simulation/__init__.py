"""Simulated drives through procedural streets and rooms, as bags with ground truth (``record.record``)."""

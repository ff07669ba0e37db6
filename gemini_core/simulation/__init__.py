"""Simulation: four sensors in procedural streets and rooms, recorded as bags with ground truth (docs/simulation.md)."""

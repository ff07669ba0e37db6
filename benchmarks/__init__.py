"""Measurements; each prints a table, and README.md in this folder keeps the last one with the machine it was made on."""

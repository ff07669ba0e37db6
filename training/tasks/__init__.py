"""Training tasks: a contract (``interface``), its implementations, and the one place that chooses among them (``choose``)."""

"""gemini_core: the GeminiFusion perception pipeline without ROS (docs/architecture.md)."""

__version__ = "0.1.0"

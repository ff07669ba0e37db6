"""The validated configuration: one YAML file for the node, for replay and for training.

The engine (``engine.py``, ``files.py``) knows no option: training declares its own with it. ``sections.py`` declares those of
the node, ``fusion.py`` puts them together. What a program around the core needs of it is offered here.
"""

from gemini_core.config.fusion import FusionConfig, from_flat, load_config

__all__ = ["FusionConfig", "from_flat", "load_config"]

"""The validated configuration: one YAML file for the node, for replay and for training.

The engine (``engine.py``, ``files.py``) knows no option: training declares its own with it. ``sections.py`` declares those of
the node, ``fusion.py`` puts them together.
"""

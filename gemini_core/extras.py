"""Optional packages: imported where they are needed, named with the extra that brings them where they are absent."""

from __future__ import annotations

import importlib
from types import ModuleType

from gemini_core.errors import ConfigError


def need(module: str, what: str, asked_by: str, extra: str = "") -> ModuleType:
    """Import a module that not everyone has; ``what`` names its package, ``asked_by`` the option or the work that takes it.

    Raises:
        ConfigError: it is not installed; names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        hint = f" (pip install 'gemini_ros[{extra}]')" if extra else ""
        msg = f"{asked_by}: expected {what} to be installed{hint}, got no module {module!r}"
        raise ConfigError(msg) from None

"""The extra ``labelling``: packages that only labelling needs."""

from __future__ import annotations

import importlib
from types import ModuleType

from gemini_core.errors import DataError


def need(module: str, package: str, what: str) -> ModuleType:
    """Import a module of a package that not everyone has; ``what`` cannot be done without it.

    Raises:
        DataError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        msg = f"expected the package {package} for {what}, got none installed; pip install 'gemini_ros[labelling]'"
        raise DataError(msg) from None

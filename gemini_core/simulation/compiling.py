"""Compilation (numba) of the simulator's loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gemini_core import compiling

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """Compile with numba when it is first called, with fast arithmetic; kept on disk, since it takes seconds."""
    return compiling.compiled(error_model="numpy", fastmath=True)(function)

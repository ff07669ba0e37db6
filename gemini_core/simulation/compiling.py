"""How the simulator's loops are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """Compile with numba; kept on disk, since it takes seconds.

    numba looks at the date of the function's own file only. So what compiled functions call, and the constants they use,
    stand in the same file.
    """
    return cast("_Function", numba.njit(cache=True, fastmath=True, error_model="numpy")(function))

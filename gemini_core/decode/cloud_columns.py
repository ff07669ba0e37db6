"""Compiled loops (numba) of cloud decoding: each reads a column where it lies in the message and keeps what counts of it.

A column is a strided (N,) view of the message, aligned or not. An output has room for N; the kept values come first, in their
order. No branch depends on what is kept, so holes cost nothing; indices are unsigned, which spares a test for negative ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gemini_core.compiling import compiled
from gemini_core.types import F32, I64, U8, U16, Bool

Column = npt.NDArray[Any]

_LARGEST = np.iinfo(np.int64).max


def as_type(column: Column, kind: type[np.generic]) -> Column:
    """Turn a column into another type, or this machine's byte order; what does not fit becomes infinite, or wraps."""
    with np.errstate(over="ignore", invalid="ignore"):
        return column.astype(kind, copy=False)


def _column(kind: str) -> str:
    return f"Array({kind}, 1, 'A', readonly=True, aligned=False)"


_F32 = _column("float32")


@compiled(f"int64({_F32}, {_F32}, {_F32}, float32[::1], float32[::1], float32[::1], b1[::1])")
def keep_positions(  # noqa: PLR0917 - compiled functions take arguments by position
    x: F32, y: F32, z: F32, x_out: F32, y_out: F32, z_out: F32, kept: Bool
) -> int:
    """Keep the finite positions that are not (0, 0, 0); say in ``kept`` which they are, and how many."""
    zero, infinite = np.float32(0.0), np.float32(np.inf)
    count = np.uint64(0)
    for i in range(np.uint64(kept.shape[0])):
        a, b, c = x[i], y[i], z[i]
        x_out[count], y_out[count], z_out[count] = a, b, c
        finite = (abs(a) < infinite) & (abs(b) < infinite) & (abs(c) < infinite)  # NaN fails
        kept[i] = finite & ((a != zero) | (b != zero) | (c != zero))
        count += np.uint64(kept[i])
    return int(count)


@compiled(f"void({_F32}, b1[::1], float32[::1])")
def keep_intensity(values: F32, kept: Bool, out: F32) -> None:
    """Keep intensities; one that is not finite becomes 0."""
    zero, infinite = np.float32(0.0), np.float32(np.inf)
    count = np.uint64(0)
    for i in range(np.uint64(kept.shape[0])):
        value = values[i]
        out[count] = value if abs(value) < infinite else zero
        count += np.uint64(kept[i])


@compiled([f"void({_column(kind)}, b1[::1], uint16[::1])" for kind in ("uint8", "uint16")])
def keep_ring(values: U8 | U16, kept: Bool, out: U16) -> None:
    """Keep rings."""
    count = np.uint64(0)
    for i in range(np.uint64(kept.shape[0])):
        out[count] = values[i]
        count += np.uint64(kept[i])


_SPAN = "UniTuple(int64, 2)"


@compiled([f"{_SPAN}({_column(kind)}, b1[::1], int64, int64[::1])" for kind in ("uint32", "int64")])
def keep_whole_times(values: Column, kept: Bool, stamp: int, out: I64) -> tuple[int, int]:
    """Keep stamp + value; say the least and largest value kept."""
    count = np.uint64(0)
    least, largest = _LARGEST, -_LARGEST
    for i in range(np.uint64(kept.shape[0])):
        value = np.int64(values[i])
        out[count] = stamp + value
        least, largest = min(least, value if kept[i] else least), max(largest, value if kept[i] else largest)
        count += np.uint64(kept[i])
    return least, largest


@compiled(
    [f"{_SPAN}({_column(kind)}, b1[::1], float64, int64, int64, int64, int64[::1])" for kind in ("float32", "float64")],
)
def keep_times(  # noqa: PLR0917 - compiled functions take arguments by position
    values: Column, kept: Bool, unit_ns: float, base: int, stamp: int, farthest: int, out: I64
) -> tuple[int, int]:
    """Keep base + value * unit_ns, rounded; say the least and largest kept.

    Ends at the first that is not within ``farthest`` ns of the stamp, and says (1, 0) then.
    """
    count = np.uint64(0)
    origin, limit = np.float64(stamp - base), np.float64(farthest)
    least, largest = np.inf, -np.inf
    for i in range(np.uint64(kept.shape[0])):
        time = values[i] * unit_ns
        near = abs(time - origin) <= limit  # NaN fails
        if kept[i] and not near:
            return 1, 0
        time = np.rint(time) if near else origin
        out[count] = base + np.int64(time)
        least, largest = min(least, time if kept[i] else least), max(largest, time if kept[i] else largest)
        count += np.uint64(kept[i])
    return base + np.int64(least), base + np.int64(largest)

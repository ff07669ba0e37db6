"""Point times of a sweep: the unit and clock of a time field, and which of its values are no times.

Nothing in a PointCloud2 says what its times are, so type, name and size of the values decide, and only where they do. Values
that no sweep could have been measured at (NaN, a wrapped difference, a 0 among absolute times) are unknown, one by one: such
a point counts as measured at the median of the others, and neither begins nor ends the sweep.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from gemini_core.decode.cloud_columns import Column, as_type, keep_times, keep_whole_times
from gemini_core.types import F64, I64, Bool

TIME_NAMES = (
    "t",
    "time",
    "timestamp",
    "time_stamp",
    "offset_time",
    "time_offset",
    "timeoffset",
    "time_offset_ns",
)
"""Names that drivers give to the time of a point, in any case; the first that a cloud has is read."""

_ABSOLUTE_NAMES = frozenset({"timestamp", "time_stamp"})  # a float64 of this name is taken for absolute first

_FARTHEST_NS = 2_000_000_000
"""From a stamp to the middle of its sweep, at most: beyond, the times are in another unit or of another clock."""

_LONG_NS = 250_000_000
"""No spinning LiDAR turns slower than 5 Hz, so a sweep lasts 200 ms, and a quarter more for stamps of packets. A point farther
than that from the median is looked at: it is a stray, unless the middle 80 % of the points last as long."""

_LONGEST_NS = 1_000_000_000
"""From the median to a point, at most: half of the longest sweep, 2 s (of scanners that gather points as they are asked to)."""

_SHORTEST_NS = 400_000
"""The middle 80 % of a cloud of many points take longer (a single packet: 0.6 ms), so whole numbers that took less as
nanoseconds are micro- or milliseconds, where that makes a sweep."""

_FEW = 50  # points, which may have been cut out of a sweep: they say nothing of its length
_SAMPLE = 101  # points that tell how long a sweep lasts where nothing else is wrong with it

_NAMED_NS = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}
_WORDS = {1.0: "nanoseconds", 1e3: "microseconds", 1e6: "milliseconds", 1e9: "seconds"}


@dataclass(frozen=True, slots=True)
class TimeReading:
    """How to read the times: options ``lidar.time_field`` and ``lidar.time_unit``, and the time between sweeps where known."""

    field: str = ""
    unit: str = "auto"
    period_ns: int | None = None


@dataclass(frozen=True, slots=True)
class PointTimes:
    """Absolute nanoseconds of each kept point (N,), None where there are none; what the sweep covers.

    ``unknown`` of the points have no time of their own, and the median of the others here. ``taken_for`` says for people what
    the values were taken for, or why for nothing.
    """

    time_ns: I64 | None
    start_ns: int
    end_ns: int
    unknown: int
    taken_for: str


class SweepPeriod:
    """The time between sweeps, from the last stamps: of eight, the median of those differences that miss no sweep."""

    def __init__(self) -> None:
        self._stamps: deque[int] = deque(maxlen=9)

    def forget(self) -> None:
        """Begin anew with the next stamp."""
        self._stamps.clear()

    def take(self, stamp_ns: int) -> int | None:
        """Take up a stamp; None before two, or where they do not advance."""
        self._stamps.append(stamp_ns)
        steps = [step for step in np.diff(list(self._stamps)).tolist() if step > 0]
        whole = [step for step in steps if step <= 1.5 * min(steps)]
        return round(float(np.median(whole))) if whole else None


@dataclass(frozen=True, slots=True)
class _Unit:
    """One way to read values; one that is not ``sure`` has to make a sweep that begins or ends near the stamp."""

    unit_ns: float
    absolute: bool
    sure: bool
    words: str


def point_times(column: Column, name: str, kept: tuple[Bool, int], stamp_ns: int, reading: TimeReading) -> PointTimes:
    """Read the times of a cloud out of the column (M,) of one of its fields; ``kept`` is which points count, and how many."""
    if reading.unit == "none":
        return PointTimes(None, stamp_ns, stamp_ns, 0, "no times, as lidar.time_unit says")
    which, count = kept
    if count == 0:
        return PointTimes(np.empty(0, np.int64), stamp_ns, stamp_ns, 0, "")
    if reading.unit == "auto":
        found = _whole(column, name, kept, stamp_ns) if column.dtype.kind in "iu" else _floats(column, name, kept, stamp_ns)
        if found is not None:
            return found
    return _robust(column[which].astype(np.float64), column.dtype, name, stamp_ns, reading)


# --------------------------------------------------------------------------------------------------------------------
# Where all is well: one pass over the column


def _whole(column: Column, name: str, kept: tuple[Bool, int], stamp_ns: int) -> PointTimes | None:
    which, count = kept
    out = np.empty(which.size, np.int64)
    values = as_type(column, np.uint32 if column.dtype.kind == "u" else np.int64)
    least, largest = keep_whole_times(values, which, stamp_ns, out)
    if max(-least, largest) > _FARTHEST_NS or largest - least > _LONG_NS:
        return None
    times = out[:count]
    if least < largest and count >= _FEW:
        sample = np.sort(times[:: max(count // _SAMPLE, 1)])
        if sample[-1 - sample.size // 10] - sample[sample.size // 10] < _SHORTEST_NS:
            return None
    return PointTimes(times, stamp_ns + least, stamp_ns + largest, 0, _words(name, 1.0, absolute=False))


def _floats(column: Column, name: str, kept: tuple[Bool, int], stamp_ns: int) -> PointTimes | None:
    which, count = kept
    out = np.empty(which.size, np.int64)
    values = as_type(column, np.float32 if _single(column.dtype) else np.float64)
    for absolute in _clocks(column.dtype, name):
        for unit_ns in (1e9, 1e6, 1e3, 1.0) if absolute else (1e9,):
            base_ns = 0 if absolute else stamp_ns
            first, last = keep_times(values, which, unit_ns, base_ns, stamp_ns, _FARTHEST_NS, out)
            if first <= last:
                words = _words(name, unit_ns, absolute=absolute)
                times = PointTimes(out[:count], first, last, 0, words)
                return times if last - first <= _LONG_NS else None
    return None


def _single(dtype: np.dtype[np.generic]) -> bool:
    return dtype.itemsize == np.dtype(np.float32).itemsize  # too coarse for an absolute time


def _clocks(dtype: np.dtype[np.generic], name: str) -> tuple[bool, ...]:
    """Whether the times are absolute, in the order in which it is tried."""
    if dtype.kind in "iu" or _single(dtype):
        return (False,)
    return (True, False) if name.lower() in _ABSOLUTE_NAMES else (False, True)


# --------------------------------------------------------------------------------------------------------------------
# Where it is not: by the median and the middle of the values, which wrong ones at either end do not move


@dataclass(frozen=True, slots=True)
class _Spread:
    """Of the values that tell something, the median and where a share of them at either end is left out."""

    low: float
    middle: float
    high: float
    share: float

    def length_ns(self, unit: _Unit) -> float:
        """How long the middle 80 % take."""
        return (self.high - self.low) * unit.unit_ns * 0.8 / (1.0 - 2.0 * self.share)

    def fits(self, unit: _Unit, stamp_ns: int) -> bool:
        """Whether values make a sweep at the stamp."""
        origin = float(stamp_ns) if unit.absolute else 0.0
        first, last = self.low * unit.unit_ns - origin, self.high * unit.unit_ns - origin
        whole = 1.25 * self.length_ns(unit)
        near = abs(self.middle * unit.unit_ns - origin) <= _FARTHEST_NS and last - first <= _FARTHEST_NS
        return near and (unit.sure or first - whole <= 0.0 <= last + whole)


def _robust(values: F64, dtype: np.dtype[np.generic], name: str, stamp_ns: int, reading: TimeReading) -> PointTimes:
    if reading.unit == "fraction" and reading.period_ns is None:
        return _none(stamp_ns, "no times: fractions of a sweep need the time between two of them, and this is the first")
    finite = np.isfinite(values)
    told = values[finite & (values != 0.0)]  # 0 is what drivers write where they know nothing
    if 2 * told.size < np.count_nonzero(finite):
        told = values[finite]
    if not told.size:
        return _none(stamp_ns, f"no times: those of {name} are no numbers")
    for share in (0.1, 0.25):  # that may be wrong at either end; the smaller one says more of how long a sweep lasts
        found = _by_middle(values, _spread(told, share), told, dtype, name, stamp_ns, reading)
        if found is not None:
            return found
    spread = _spread(told, 0.25)
    within = f"{spread.low:.10g} to {spread.high:.10g}, but for a quarter at either end"
    return _none(stamp_ns, f"no times: those of {name} ({within}) are none around the stamp, {stamp_ns / 1e9:.9f} s")


def _spread(told: F64, share: float) -> _Spread:
    low, middle, high = (float(value) for value in np.quantile(told, (share, 0.5, 1.0 - share), method="nearest"))
    return _Spread(low, middle, high, share)


def _by_middle(  # noqa: PLR0917 - what it takes is one sweep and how to read it
    values: F64, spread: _Spread, told: F64, dtype: np.dtype[np.generic], name: str, stamp_ns: int, reading: TimeReading
) -> PointTimes | None:
    """Read the values in the first unit that makes their middle a sweep; None where none does."""
    units = [unit for unit in _units(dtype, name, reading) if spread.fits(unit, stamp_ns)]
    if reading.unit == "auto" and dtype.kind in "iu" and values.size >= _FEW:
        units.sort(key=lambda unit: 0.0 < spread.length_ns(unit) < _SHORTEST_NS)  # the last choice
    for unit in units:
        if reading.unit == "auto" and _could_be_fractions(unit, spread, told):
            return _fractions_or_seconds(values, unit, name, stamp_ns, reading.period_ns)
        found = _times(values, unit, spread, stamp_ns)
        if 2 * (values.size - found.unknown) >= told.size:
            return found
    return None


def _units(dtype: np.dtype[np.generic], name: str, reading: TimeReading) -> list[_Unit]:
    if reading.unit == "fraction":
        return [_of_sweep(name, reading.period_ns)] if reading.period_ns else []
    clocks = _clocks(dtype, name)
    if reading.unit in _NAMED_NS:
        order: tuple[float, ...] = (_NAMED_NS[reading.unit],)
    else:
        order = (1.0, 1e3, 1e6) if dtype.kind in "iu" else (1e9, 1e6, 1e3, 1.0)
    return [
        _Unit(unit_ns, absolute, absolute or unit_ns == order[0], _words(name, unit_ns, absolute=absolute))
        for absolute in clocks
        for unit_ns in order
    ]


def _times(values: F64, unit: _Unit, spread: _Spread, stamp_ns: int) -> PointTimes:
    reach_ns = min(max(spread.length_ns(unit), _LONG_NS), _LONGEST_NS)
    with np.errstate(over="ignore"):
        times = values * unit.unit_ns
    known: Bool = np.abs(times - spread.middle * unit.unit_ns) <= reach_ns  # NaN fails
    found = np.empty(times.size, np.int64)
    found[known] = np.rint(times[known]).astype(np.int64) + (0 if unit.absolute else stamp_ns)
    good = found[known]
    found[~known] = np.sort(good)[good.size // 2]
    return PointTimes(found, int(good.min()), int(good.max()), times.size - good.size, unit.words)


# --------------------------------------------------------------------------------------------------------------------
# From 0 to 1: fractions of a sweep, or the seconds of one that lasts a second


def _could_be_fractions(unit: _Unit, spread: _Spread, told: F64) -> bool:
    if unit.absolute or unit.unit_ns != _NAMED_NS["s"] or not spread.low >= 0.0 or not 0.7 <= spread.high <= 1.0:  # noqa: PLR2004
        return False
    return bool(np.count_nonzero((told >= 0.0) & (told <= 1.0)) >= 0.99 * told.size)


def _fractions_or_seconds(values: F64, unit: _Unit, name: str, stamp_ns: int, period_ns: int | None) -> PointTimes:
    """Seconds cannot last longer than from sweep to sweep; where sweeps come once a second, both are the same."""
    told = values[(values >= 0.0) & (values <= 1.0)]
    spread = _spread(told, 0.1)
    if period_ns is not None and spread.length_ns(unit) > 1.25 * period_ns:
        return _times(values, _of_sweep(name, period_ns), spread, stamp_ns)
    if period_ns is not None and abs(period_ns - unit.unit_ns) <= 0.1 * unit.unit_ns:
        return _times(values, unit, spread, stamp_ns)
    return _none(
        stamp_ns,
        f"no times: those of {name}, 0 to 1, are fractions of a sweep or seconds (lidar.time_unit: fraction or s says which)",
    )


def _of_sweep(name: str, period_ns: int) -> _Unit:
    return _Unit(float(period_ns), False, True, f"{name} as fractions of a sweep of {period_ns / 1e6:.1f} ms")


def _none(stamp_ns: int, why: str) -> PointTimes:
    return PointTimes(None, stamp_ns, stamp_ns, 0, why)


def _words(name: str, unit_ns: float, *, absolute: bool) -> str:
    return f"{name} as absolute {_WORDS[unit_ns]}" if absolute else f"{name} as {_WORDS[unit_ns]} after the stamp"

"""Events as sensor_msgs/PointCloud2: a point for each event, with fields x, y, its time and its polarity."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gemini_core.decode.cloud_columns import Column
from gemini_core.decode.cloud_fields import CLOUD_FIELDS, PointCloud2, column_reader, fields_by_name
from gemini_core.decode.event_reading import EventReading, SensorEvents
from gemini_core.decode.message import require_fields, stamp_ns
from gemini_core.errors import DecodeError
from gemini_core.types import I64

TIME_NAMES = ("t", "ts", "time", "timestamp", "time_stamp")
POLARITY_NAMES = ("p", "polarity", "pol")
"""Names that a field may have; the first that a cloud has is read."""

_LARGEST_SIZE = 1 << 16  # columns and rows that uint16 can address
_HALF = 0.5  # a pixel's centre is a whole number
_LONGEST_NS = 2_000_000_000  # times farther from the stamp are in another unit or of another clock
_SECOND_NS = 1_000_000_000
_UNITS_NS = (_SECOND_NS, 1_000_000, 1_000, 1)  # of an absolute time: seconds to nanoseconds


def read_event_cloud(message: PointCloud2, topic: str) -> EventReading:
    """Read a cloud.

    x and y may be whole numbers or floating point (rounded), also those of sub-pixel drivers; a polarity above 0 is brighter
    (so 0 and 1 as well as -1 and 1). Whole-number times are nanoseconds after the header's stamp, or absolute; floating-point
    ones seconds after it (before it where negative), or, in 64 bits, absolute: whichever lies within two seconds of the stamp,
    absolute ones in seconds, milliseconds, microseconds or nanoseconds. Points without a place that uint16 can say, or without
    a finite time, are left out. A cloud does not tell the sensor's size: the CameraInfo has to.

    Raises:
        DecodeError: wrong type, a field that is missing or outside of its point, rows shorter than their points, data
            shorter than the cloud, or times that are neither after the stamp nor absolute.
    """
    require_fields(message, CLOUD_FIELDS, "sensor_msgs/PointCloud2", topic)
    known = fields_by_name(message)
    names = tuple(next((name for name in group if name in known), "") for group in (("x",), ("y",), TIME_NAMES, POLARITY_NAMES))
    if not all(names):
        msg = (
            f"expected fields x, y, a time ({', '.join(TIME_NAMES)}) and a polarity ({', '.join(POLARITY_NAMES)}) in the "
            f"cloud of events on topic {topic!r}, got {', '.join(sorted(known)) or 'none'}"
        )
        raise DecodeError(reason="no_events", message=msg)
    column = column_reader(message, names, topic)
    x, y, time, polarity = (column(name) for name in names)
    stamp = stamp_ns(message.header)
    kept = _inside(x) & _inside(y) & np.isfinite(time)
    time_ns = _times_ns(time[kept], stamp)
    if time_ns is None:
        msg = (
            f"expected times within {_LONGEST_NS / 1e9:g} s of the stamp, after it or absolute, in field {names[2]!r} of "
            f"the cloud of events on topic {topic!r}, got {time[kept].min()} to {time[kept].max()}"
        )
        raise DecodeError(reason="unknown_time", message=msg)
    events = SensorEvents(
        x=np.rint(x[kept]).astype(np.uint16),
        y=np.rint(y[kept]).astype(np.uint16),
        polarity=(polarity[kept] > 0).view(np.uint8),
        time_ns=time_ns,
        last_ns=int(time_ns.max()) if time_ns.size else None,
        outside=int(kept.size - np.count_nonzero(kept)),
    )
    return EventReading(stamp, message.header.frame_id, 0, 0, events, on_ros_clock=True)


def _inside(column: Column) -> npt.NDArray[np.bool_]:
    """Which coordinates uint16 can say once rounded; NaN is none."""
    inside: npt.NDArray[np.bool_] = (column > -_HALF) & (column < _LARGEST_SIZE - _HALF)
    return inside


def _times_ns(column: Column, stamp: int) -> I64 | None:
    """Absolute nanoseconds, None where the values cannot be times near the stamp."""
    if column.size == 0:
        return np.empty(0, np.int64)
    least, largest = column.min(), column.max()
    whole = column.dtype.kind in "iu"

    def near(unit_ns: int, base_ns: int) -> bool:
        ends = (int(least), int(largest)) if whole else (float(least), float(largest))
        return all(abs(end * unit_ns + base_ns - stamp) <= _LONGEST_NS for end in ends)

    if near(1 if whole else _SECOND_NS, stamp):
        return _scaled(column, 1 if whole else _SECOND_NS) + stamp
    if column.dtype.itemsize == np.dtype(np.float32).itemsize and not whole:
        return None  # too coarse for an absolute time
    for unit_ns in _UNITS_NS:
        if near(unit_ns, 0):
            return _scaled(column, unit_ns)
    return None


def _scaled(column: Column, unit_ns: int) -> I64:
    if column.dtype.kind in "iu":
        time_ns: I64 = column.astype(np.int64) * unit_ns
        return time_ns
    seconds: npt.NDArray[Any] = column.astype(np.float64) * unit_ns
    rounded: I64 = np.rint(seconds).astype(np.int64)
    return rounded

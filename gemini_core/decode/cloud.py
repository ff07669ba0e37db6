"""sensor_msgs/PointCloud2 to a cloud sample, read by field names."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gemini_core.decode.cloud_columns import (
    Column,
    keep_intensity,
    keep_positions,
    keep_ring,
    keep_times,
    keep_whole_times,
)
from gemini_core.decode.cloud_fields import CLOUD_FIELDS, DATATYPES, PointCloud2, PointField, column_reader, fields_by_name
from gemini_core.decode.message import require_fields, stamp_ns
from gemini_core.errors import DecodeError
from gemini_core.types import F32, I64, U16, Bool, CloudSample

_POSITION = ("x", "y", "z")
INTENSITY_NAMES = ("intensity", "i", "intensities", "reflectivity", "reflectance")
RING_NAMES = ("ring", "line", "channel")
TIME_NAMES = ("t", "time", "timestamp", "time_stamp", "offset_time")
"""Names that drivers give to a field; the first that a cloud has is read."""

_LONGEST_SWEEP_NS = 2_000_000_000  # point times farther from the stamp are in another unit or of another clock
_UNITS_NS = (1e9, 1e6, 1e3, 1.0)  # seconds, milliseconds, microseconds, nanoseconds


def decode_cloud(message: PointCloud2, topic: str) -> CloudSample:
    """Read a cloud: x, y, z (float32 or float64), and where there are such fields intensity, ring and the points' times.

    Fields are found by name, at any offset, aligned or not, in either byte order, rows padded or not; each is read once,
    where it lies in the message (after one copy where rows are padded or the byte order is not this machine's). Points
    without a finite position, and those at exactly (0, 0, 0), which drivers write for "no return", are left out; an
    intensity that is not finite becomes 0.

    Of the alternatives the first that the cloud has counts, whatever its type:

    * intensity: intensity, i, intensities, reflectivity, reflectance; colours (rgb, rgba) are none;
    * ring: ring, line (Livox), channel; whole numbers only;
    * time: t, time, timestamp, time_stamp, offset_time.

    The unit of the times follows from type, name and size. Whole numbers are nanoseconds after the header's stamp (Ouster).
    float32 are seconds after it, negative where the stamp is that of the sweep's end (Velodyne). float64 are the same, or
    absolute seconds (Hesai) to nanoseconds (Livox), whichever lies within two seconds of the stamp; a "timestamp" is taken
    for absolute first. Times after the stamp that are too large for seconds are milliseconds, microseconds or nanoseconds
    where this makes a sweep that begins or ends near the stamp (by no more than its own length). Others are of another
    clock, and no times (``time_ns`` is None).

    Raises:
        DecodeError: wrong type, x y z missing or not floating point, a field outside of its point, rows shorter than their
            points, or data shorter than the cloud.
    """
    require_fields(message, CLOUD_FIELDS, "sensor_msgs/PointCloud2", topic)
    fields = fields_by_name(message)
    _check_position(fields, topic)
    intensity_name, ring_name, time_name = (
        next((name for name in names if name in fields), "") for names in (INTENSITY_NAMES, RING_NAMES, TIME_NAMES)
    )
    column = column_reader(message, tuple(filter(None, (*_POSITION, intensity_name, ring_name, time_name))), topic)

    points, kept = _points(column("x"), column("y"), column("z"))
    count = points.shape[1]
    stamp = stamp_ns(message.header)
    times = _point_times(column(time_name), time_name, kept, stamp, count) if time_name else None
    time_ns, start, end = (None, stamp, stamp) if times is None else times
    return CloudSample(
        stamp_ns=stamp,
        frame_id=message.header.frame_id,
        points=points,
        intensity=_intensity(column(intensity_name), kept, count) if intensity_name else np.zeros(count, np.float32),
        ring=_ring(column(ring_name), kept, count) if ring_name else None,
        time_ns=time_ns,
        start_ns=start,
        end_ns=end,
    )


def _check_position(fields: Mapping[str, PointField], topic: str) -> None:
    missing = [name for name in _POSITION if name not in fields]
    if missing:
        known = ", ".join((*INTENSITY_NAMES, *RING_NAMES, *TIME_NAMES))
        msg = (
            f"expected fields x, y, z in the cloud on topic {topic!r} (known beside them: {known}), got "
            f"{', '.join(sorted(fields)) or 'none'}"
        )
        raise DecodeError(reason="no_position", message=msg)
    for name in _POSITION:
        if DATATYPES.get(fields[name].datatype) not in {"f4", "f8"}:
            msg = (
                f"expected {name} of the cloud on topic {topic!r} as float32 or float64 (datatype 7 or 8), got datatype "
                f"{fields[name].datatype}"
            )
            raise DecodeError(reason="unknown_datatype", message=msg)


# --------------------------------------------------------------------------------------------------------------------
# Columns: as the loops of cloud_columns take them, (N,) in this machine's byte order, read in place where they are that


def _as(column: Column, kind: type[np.generic]) -> Column:
    """Turn a column into another type, or this machine's byte order; what does not fit becomes infinite, or wraps."""
    with np.errstate(over="ignore", invalid="ignore"):
        return column.astype(kind, copy=False)


def _points(x: Column, y: Column, z: Column) -> tuple[F32, Bool]:
    """The positions (3, N) that are some, and which of all they are."""
    size = x.size
    flat, kept = np.empty(3 * size, np.float32), np.empty(size, np.bool_)
    rows = flat.reshape(3, size)
    x, y, z = (_as(column, np.float32) for column in (x, y, z))
    count = keep_positions(x, y, z, rows[0], rows[1], rows[2], kept)
    if count < size:  # close up the rows
        for row in (1, 2):
            flat[row * count : (row + 1) * count] = flat[row * size : row * size + count]
    return flat[: 3 * count].reshape(3, count), kept


def _intensity(column: Column, kept: Bool, count: int) -> F32:
    out = np.empty(kept.size, np.float32)
    keep_intensity(_as(column, np.float32), kept, out)
    return out[:count]


def _ring(column: Column, kept: Bool, count: int) -> U16 | None:
    if column.dtype.kind not in "iu":
        return None
    out = np.empty(kept.size, np.uint16)
    keep_ring(_as(column, np.uint8 if column.dtype.itemsize == 1 else np.uint16), kept, out)
    return out[:count]


# --------------------------------------------------------------------------------------------------------------------
# Times

_Times = tuple[I64, int, int]
"""Absolute nanoseconds of each point, and the first and the last of them."""


def _point_times(column: Column, name: str, kept: Bool, stamp: int, count: int) -> _Times | None:
    """The times of the kept points, None where the values cannot be times of this sweep."""
    if count == 0:
        return np.empty(0, np.int64), stamp, stamp
    out = np.empty(kept.size, np.int64)
    if column.dtype.kind in "iu":
        values = _as(column, np.uint32 if column.dtype.kind == "u" else np.int64)
        least, largest = keep_whole_times(values, kept, stamp, out)
        if least < -_LONGEST_SWEEP_NS or largest > _LONGEST_SWEEP_NS:
            return None
        return out[:count], stamp + least, stamp + largest
    single = column.dtype.itemsize == np.dtype(np.float32).itemsize  # too coarse for an absolute time
    values = _as(column, np.float32 if single else np.float64)
    bases = (stamp,) if single else ((0, stamp) if name in {"timestamp", "time_stamp"} else (stamp, 0))
    for base in bases:
        for unit_ns in _UNITS_NS:
            first, last = keep_times(values, kept, unit_ns, base, stamp, _LONGEST_SWEEP_NS, out)
            certain = base == 0 or unit_ns == _UNITS_NS[0]
            if first <= last and (certain or first - (last - first) <= stamp <= last + (last - first)):
                return out[:count], first, last
    return None

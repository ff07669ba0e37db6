"""sensor_msgs/PointCloud2 to a cloud sample, read by field names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gemini_core.decode.message import Header, as_bytes, require_fields, stamp_ns
from gemini_core.errors import DecodeError
from gemini_core.types import F32, F64, I64, U8, U16, CloudSample

# sensor_msgs/PointField's INT8 = 1 ... FLOAT64 = 8
_DATATYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
_POSITION = ("x", "y", "z")
_TIME_NAMES = ("t", "time", "timestamp", "time_stamp", "offset_time")
_LONGEST_SWEEP_NS = 2_000_000_000  # point times farther from the stamp are in another unit or of another clock
_UNITS_NS = (1e9, 1e6, 1e3, 1.0)  # seconds, milliseconds, microseconds, nanoseconds

_FIELDS = ("header", "height", "width", "fields", "is_bigendian", "point_step", "row_step", "data")

Column = npt.NDArray[Any]


class PointField(Protocol):
    """The fields of sensor_msgs/PointField."""

    name: str
    offset: int
    datatype: int
    count: int


class PointCloud2(Protocol):
    """The fields of sensor_msgs/PointCloud2."""

    header: Header
    height: int
    width: int
    fields: Sequence[PointField]
    is_bigendian: bool
    point_step: int
    row_step: int
    data: Any


def decode_cloud(message: PointCloud2, topic: str) -> CloudSample:
    """Read a cloud: x, y, z (float32 or float64), and where there are such fields intensity, ring and the points' times.

    Points without a finite position, and those at exactly (0, 0, 0), which drivers write for "no return", are left out;
    an intensity that is not finite becomes 0. The time of a point comes from the first of the fields t, time, timestamp,
    time_stamp, offset_time: whole numbers are nanoseconds after the header's stamp; float32 seconds after it (before it
    where negative); float64 the same, or absolute seconds to nanoseconds, whichever lies near the stamp (a "timestamp" is
    taken for absolute first). Times more than two seconds from the stamp, of another clock, are no times (``time_ns`` is None).

    Raises:
        DecodeError: wrong type, x y z missing or not floating point, a field outside of its point, rows shorter than their
            points, or data shorter than the cloud.
    """
    require_fields(message, _FIELDS, "sensor_msgs/PointCloud2", topic)
    fields = {field.name: field for field in reversed(message.fields)}
    _check_position(fields, topic)
    time_name = next((name for name in _TIME_NAMES if name in fields), "")
    for name in (*_POSITION, "intensity", "ring", time_name):
        if name in fields:
            _check_field(fields[name], message.point_step, topic)
    data, row_step = _checked_data(message, topic)

    def column(name: str) -> Column:
        field = fields[name]
        dtype = np.dtype((">" if message.is_bigendian else "<") + _DATATYPES[field.datatype])
        shape, strides = (message.height, message.width), (row_step, message.point_step)
        if 0 in shape:
            return np.empty(0, dtype)
        values: Column = np.ndarray(shape, dtype, buffer=data, offset=field.offset, strides=strides)
        return values.reshape(-1)

    points = np.empty((3, message.height * message.width), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # a float64 too large for float32 becomes infinite and is left out
        for row, name in enumerate(_POSITION):
            points[row] = column(name)
    kept = _with_position(points)
    points = np.ascontiguousarray(points[:, kept])
    stamp = stamp_ns(message.header)
    intensity = _intensity(column("intensity")[kept]) if "intensity" in fields else np.zeros(points.shape[1], np.float32)
    ring: U16 | None = None
    if "ring" in fields and _DATATYPES[fields["ring"].datatype][0] in "iu":
        ring = column("ring")[kept].astype(np.uint16)
    time_ns = _point_times(column(time_name)[kept], time_name, stamp) if time_name else None
    start, end = (int(time_ns.min()), int(time_ns.max())) if time_ns is not None and time_ns.size else (stamp, stamp)
    return CloudSample(
        stamp_ns=stamp,
        frame_id=message.header.frame_id,
        points=points,
        intensity=intensity,
        ring=ring,
        time_ns=time_ns,
        start_ns=start,
        end_ns=end,
    )


def _check_position(fields: dict[str, PointField], topic: str) -> None:
    missing = [name for name in _POSITION if name not in fields]
    if missing:
        msg = f"expected fields x, y, z in the cloud on topic {topic!r}, got {', '.join(sorted(fields)) or 'none'}"
        raise DecodeError(reason="no_position", message=msg)
    for name in _POSITION:
        if _DATATYPES.get(fields[name].datatype) not in {"f4", "f8"}:
            msg = (
                f"expected {name} of the cloud on topic {topic!r} as float32 or float64 (datatype 7 or 8), got datatype "
                f"{fields[name].datatype}"
            )
            raise DecodeError(reason="unknown_datatype", message=msg)


def _check_field(field: PointField, point_step: int, topic: str) -> None:
    if field.datatype not in _DATATYPES:
        msg = f"expected datatype 1 to 8 for field {field.name!r} on topic {topic!r}, got {field.datatype}"
        raise DecodeError(reason="unknown_datatype", message=msg)
    end = field.offset + np.dtype(_DATATYPES[field.datatype]).itemsize
    if end > point_step:
        msg = f"expected a point_step of at least {end} for field {field.name!r} on topic {topic!r}, got {point_step}"
        raise DecodeError(reason="short_point_step", message=msg)


def _checked_data(message: PointCloud2, topic: str) -> tuple[U8, int]:
    """The bytes of the cloud and the distance of its rows; one row needs no row_step, and some drivers leave it out."""
    width, height = message.width, message.height
    row_bytes = width * message.point_step
    row_step = message.row_step if height > 1 else row_bytes
    if row_step < row_bytes:
        msg = (
            f"expected a row_step of at least {row_bytes} for {width} points of {message.point_step} bytes in the cloud on "
            f"topic {topic!r}, got {row_step}"
        )
        raise DecodeError(reason="short_row_step", message=msg)
    data = as_bytes(message.data, topic)
    needed = max(height - 1, 0) * row_step + row_bytes if height and width else 0
    if data.size < needed:
        msg = f"expected {needed} bytes for {width} x {height} points in the cloud on topic {topic!r}, got {data.size}"
        raise DecodeError(reason="short_data", message=msg)
    return data, row_step


def _with_position(points: F32) -> slice | npt.NDArray[np.bool_]:
    """Which points to keep: a slice of all where all are good, so that nothing is copied."""
    x, y, z = points
    kept: npt.NDArray[np.bool_] = np.isfinite(x) & np.isfinite(y) & np.isfinite(z)
    kept &= (x != 0) | (y != 0) | (z != 0)
    return slice(None) if kept.all() else kept


def _intensity(column: Column) -> F32:
    with np.errstate(over="ignore", invalid="ignore"):
        intensity = column.astype(np.float32)
    intensity[~np.isfinite(intensity)] = 0.0
    return intensity


def _point_times(column: Column, name: str, stamp: int) -> I64 | None:
    """Absolute nanoseconds of each point, None where the values cannot be times of this sweep."""
    if column.size == 0:
        return np.empty(0, np.int64)
    if column.dtype.kind in "iu":
        after = column.astype(np.int64)
        return after + stamp if _near(after) else None
    with np.errstate(over="ignore", invalid="ignore"):
        value: F64 = column.astype(np.float64)
        if column.dtype.itemsize == np.dtype(np.float32).itemsize:
            return _after_stamp(value, stamp)  # too coarse for an absolute time
        readings = (_absolute, _after_stamp) if name in {"timestamp", "time_stamp"} else (_after_stamp, _absolute)
        preferred = readings[0](value, stamp)
        return readings[1](value, stamp) if preferred is None else preferred


def _near(after_stamp: npt.NDArray[Any]) -> bool:
    """Whether all values, NaN not among them, are times of one sweep."""
    return bool(after_stamp.min() >= -_LONGEST_SWEEP_NS and after_stamp.max() <= _LONGEST_SWEEP_NS)


def _after_stamp(seconds: F64, stamp: int) -> I64 | None:
    after = seconds * 1e9
    if not _near(after):
        return None
    time_ns: I64 = np.rint(after, out=after).astype(np.int64)
    time_ns += stamp
    return time_ns


def _absolute(value: F64, stamp: int) -> I64 | None:
    for unit_ns in _UNITS_NS:
        time = value * unit_ns
        if _near(time - stamp):
            return np.rint(time).astype(np.int64)
    return None

"""sensor_msgs/PointCloud2 to a cloud sample, read by field names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from gemini_core.decode.cloud_columns import Column, as_type, keep_intensity, keep_positions, keep_ring
from gemini_core.decode.cloud_fields import CLOUD_FIELDS, DATATYPES, PointCloud2, PointField, column_reader, fields_by_name
from gemini_core.decode.cloud_times import TIME_NAMES, PointTimes, SweepPeriod, TimeReading, point_times
from gemini_core.decode.message import require_fields, stamp_ns
from gemini_core.errors import DecodeError
from gemini_core.types import F32, U16, Bool, CloudSample

_POSITION = ("x", "y", "z")
INTENSITY_NAMES = ("intensity", "i", "intensities", "reflectivity", "reflectance")
RING_NAMES = ("ring", "line", "channel")
"""Names that drivers give to a field; the first that a cloud has is read."""

_AUTO = TimeReading()


class CloudDecoder:
    """Decodes the clouds of one topic, with the options of the LiDAR's times; knows how often sweeps come."""

    def __init__(self, time_field: str = "", time_unit: str = "auto") -> None:
        self._reading = TimeReading(time_field, time_unit)
        self._period = SweepPeriod()

    def decode(self, message: PointCloud2, topic: str) -> CloudSample:
        """Read a cloud; see :func:`decode_cloud`."""
        require_fields(message, CLOUD_FIELDS, "sensor_msgs/PointCloud2", topic)
        period_ns = self._period.take(stamp_ns(message.header))
        return decode_cloud(message, topic, replace(self._reading, period_ns=period_ns))

    def reset(self) -> None:
        """Start anew after the clock jumped back."""
        self._period.forget()


def decode_cloud(message: PointCloud2, topic: str, reading: TimeReading = _AUTO) -> CloudSample:
    """Read a cloud: x, y, z (float32 or float64), and where there are such fields intensity, ring and the points' times.

    Fields are found by name, at any offset, aligned or not, in either byte order, rows padded or not; each is read once,
    where it lies in the message (after one copy where rows are padded or the byte order is not this machine's). Points
    without a finite position, and those at exactly (0, 0, 0), which drivers write for "no return", are left out; an
    intensity that is not finite becomes 0.

    Of the alternatives the first that the cloud has counts, whatever its type:

    * intensity: intensity, i, intensities, reflectivity, reflectance; colours (rgb, rgba) are none;
    * ring: ring, line (Livox), channel; whole numbers only;
    * time: those of ``cloud_times.TIME_NAMES``, in any case; or ``reading.field`` alone.

    The unit of the times follows from type, name and size, unless ``reading.unit`` says it. Whole numbers are nanoseconds
    after the header's stamp (Ouster), or micro- or milliseconds where a sweep of as many nanoseconds would be too short.
    float32 are seconds after it, negative where the stamp is that of the sweep's end (Velodyne). float64 are the same, or
    absolute seconds (Hesai) to nanoseconds (Livox), whichever lies within two seconds of the stamp; a "timestamp" is taken
    for absolute first. Times after the stamp that are too large for seconds are milliseconds, microseconds or nanoseconds
    where this makes a sweep that begins or ends near the stamp (by no more than its own length). From 0 to 1, they are
    fractions of a sweep where sweeps come too often to last a second. Others are of another clock, and no times
    (``time_ns`` is None).

    Of a sweep whose times are known, those that it cannot have lasted to, and those that are no numbers, are unknown: counted
    in ``times_unknown``, taken for the median of the others, and no part of what the sweep covers.

    Raises:
        DecodeError: wrong type, x y z missing or not floating point, no ``reading.field``, a field outside of its point, rows
            shorter than their points, or data shorter than the cloud.
    """
    require_fields(message, CLOUD_FIELDS, "sensor_msgs/PointCloud2", topic)
    fields = fields_by_name(message)
    _check_position(fields, topic)
    intensity_name, ring_name = (
        next((name for name in names if name in fields), "") for names in (INTENSITY_NAMES, RING_NAMES)
    )
    time_name = _time_name(fields, reading.field, topic)
    column = column_reader(message, tuple(filter(None, (*_POSITION, intensity_name, ring_name, time_name))), topic)

    points, kept = _points(column("x"), column("y"), column("z"))
    count = points.shape[1]
    stamp = stamp_ns(message.header)
    times = PointTimes(None, stamp, stamp, 0, "")
    if time_name:
        times = point_times(column(time_name), time_name, (kept, count), stamp, reading)
    return CloudSample(
        stamp_ns=stamp,
        frame_id=message.header.frame_id,
        points=points,
        intensity=_intensity(column(intensity_name), kept, count) if intensity_name else np.zeros(count, np.float32),
        ring=_ring(column(ring_name), kept, count) if ring_name else None,
        time_ns=times.time_ns,
        start_ns=times.start_ns,
        end_ns=times.end_ns,
        times_unknown=times.unknown,
        times_taken_for=times.taken_for,
    )


def _time_name(fields: Mapping[str, PointField], wanted: str, topic: str) -> str:
    """Find the field of the times, "" where there is none."""
    if wanted and wanted not in fields:
        msg = (
            f"expected the field {wanted!r} (lidar.time_field) in the cloud on topic {topic!r}, got "
            f"{', '.join(sorted(fields)) or 'none'}"
        )
        raise DecodeError(reason="no_time_field", message=msg)
    names = {name.lower(): name for name in reversed(list(fields))}
    return wanted or next((names[name] for name in TIME_NAMES if name in names), "")


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


def _points(x: Column, y: Column, z: Column) -> tuple[F32, Bool]:
    """The positions (3, N) that are some, and which of all they are."""
    size = x.size
    flat, kept = np.empty(3 * size, np.float32), np.empty(size, np.bool_)
    rows = flat.reshape(3, size)
    x, y, z = (as_type(column, np.float32) for column in (x, y, z))
    count = keep_positions(x, y, z, rows[0], rows[1], rows[2], kept)
    if count < size:  # close up the rows
        for row in (1, 2):
            flat[row * count : (row + 1) * count] = flat[row * size : row * size + count]
    return flat[: 3 * count].reshape(3, count), kept


def _intensity(column: Column, kept: Bool, count: int) -> F32:
    out = np.empty(kept.size, np.float32)
    keep_intensity(as_type(column, np.float32), kept, out)
    return out[:count]


def _ring(column: Column, kept: Bool, count: int) -> U16 | None:
    if column.dtype.kind not in "iu":
        return None
    out = np.empty(kept.size, np.uint16)
    keep_ring(as_type(column, np.uint8 if column.dtype.itemsize == 1 else np.uint16), kept, out)
    return out[:count]

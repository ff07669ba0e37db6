"""Fields of a sensor_msgs/PointCloud2: found by name, checked, shown as columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from gemini_core.decode.cloud_columns import Column
from gemini_core.decode.message import Header, as_bytes
from gemini_core.errors import DecodeError
from gemini_core.types import U8

# sensor_msgs/PointField's INT8 = 1 ... FLOAT64 = 8
DATATYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
_DATATYPE_NAMES = "1 int8, 2 uint8, 3 int16, 4 uint16, 5 int32, 6 uint32, 7 float32, 8 float64"

CLOUD_FIELDS = ("header", "height", "width", "fields", "is_bigendian", "point_step", "row_step", "data")


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


def fields_by_name(message: PointCloud2) -> dict[str, PointField]:
    """Name the fields of a cloud; of two with the same name the first."""
    return {field.name: field for field in reversed(message.fields)}


def column_reader(message: PointCloud2, names: tuple[str, ...], topic: str) -> Callable[[str], Column]:
    """Check these fields of a cloud, which it must have; what is given back reads one: (N,), a view unless rows are padded.

    Raises:
        DecodeError: a datatype that there is not, a field outside of its point, rows shorter than their points, or data
            shorter than the cloud.
    """
    fields = fields_by_name(message)
    for name in names:
        _check_field(fields[name], message.point_step, topic)
    data, row_step = _checked_data(message, topic)

    def column(name: str) -> Column:
        field = fields[name]
        dtype = np.dtype((">" if message.is_bigendian else "<") + DATATYPES[field.datatype])
        shape, strides = (message.height, message.width), (row_step, message.point_step)
        if 0 in shape:
            return np.empty(0, dtype)
        values: Column = np.ndarray(shape, dtype, buffer=data, offset=field.offset, strides=strides)
        return values.reshape(-1)

    return column


def _check_field(field: PointField, point_step: int, topic: str) -> None:
    if field.datatype not in DATATYPES:
        msg = f"expected a datatype of {_DATATYPE_NAMES} for field {field.name!r} on topic {topic!r}, got {field.datatype}"
        raise DecodeError(reason="unknown_datatype", message=msg)
    end = field.offset + np.dtype(DATATYPES[field.datatype]).itemsize
    if end > point_step:
        msg = f"expected a point_step of at least {end} for field {field.name!r} on topic {topic!r}, got {point_step}"
        raise DecodeError(reason="short_point_step", message=msg)


def _checked_data(message: PointCloud2, topic: str) -> tuple[U8, int]:
    """The bytes of the cloud and the distance of its rows.

    Drivers leave row_step out, or write the size of the whole cloud; where the data are as long as all points without gaps, no
    row_step but that can be right.
    """
    width, height = message.width, message.height
    row_bytes = width * message.point_step
    data = as_bytes(message.data, topic)
    row_step = row_bytes if height <= 1 or lies_tight(message, data.size) else message.row_step
    if row_step < row_bytes:
        msg = (
            f"expected a row_step of at least {row_bytes} for {width} points of {message.point_step} bytes in the cloud on "
            f"topic {topic!r}, got {row_step}, and {data.size} bytes, which are not those of {height} rows without gaps"
        )
        raise DecodeError(reason="short_row_step", message=msg)
    needed = max(height - 1, 0) * row_step + row_bytes if height and width else 0
    if data.size < needed:
        msg = f"expected {needed} bytes for {width} x {height} points in the cloud on topic {topic!r}, got {data.size}"
        raise DecodeError(reason="short_data", message=msg)
    return data, row_step


def lies_tight(message: PointCloud2, size: int) -> bool:
    """Whether ``size`` bytes are all points of a cloud without gaps, whatever its row_step says."""
    return size == message.height * message.width * message.point_step

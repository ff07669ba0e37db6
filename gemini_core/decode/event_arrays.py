"""dvs_msgs/EventArray and prophesee_event_msgs/EventArray, the same fields, out of the bytes of the message.

As objects, one for each event, they would cost many times what the rest of the pipeline does. In CDR (OMG DDS-RTPS 2.5, 10.2)
a number stands at a multiple of its own size, counted from behind the four bytes of the encapsulation. An event is::

    uint16 x, uint16 y, int32 sec, uint32 nanosec, bool polarity

The array begins at a multiple of 4, behind its length, so the first event's numbers follow one another without a gap and end
after 13 bytes. The next x stands at 14, and its sec, after two bytes of padding, at 20: from there on every event is 16 bytes
long. Seen from 2 bytes before the array, all events have their time and polarity at the same places (6, 10, 14), and all but
the first, which has no padding, their x and y (0, 2).
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from gemini_core.decode.event_reading import EventReading, SensorEvents
from gemini_core.decode.message import RAW_TYPES, RawMessage, as_bytes
from gemini_core.errors import DecodeError
from gemini_core.types import U8

_ENCAPSULATION = 4
_LARGEST_SIZE = 1 << 16  # columns and rows that uint16 can address
_FIRST, _EACH = 13, 16  # bytes of the first event and of every other one
_NEAR_NS = 2_000_000_000


def read_event_array(message: RawMessage | object, topic: str) -> EventReading:
    """Read an array out of its bytes.

    Times of the first event within two seconds of the stamp are on the ROS clock, others on the sensor's own.

    Raises:
        DecodeError: the bytes of another type, no plain CDR, cut short, or without the sensor's size.
    """
    if not isinstance(message, RawMessage) or message.type not in RAW_TYPES:
        got = f"those of {message.type}" if isinstance(message, RawMessage) else type(message).__name__
        msg = f"expected the bytes of {' or '.join(RAW_TYPES)} on topic {topic!r}, got {got}"
        raise DecodeError(reason="wrong_type", message=msg)
    data = as_bytes(message.data, topic)
    order = _byte_order(data, topic)
    body = data[_ENCAPSULATION:]
    try:
        sec, nanosec, length = struct.unpack_from(f"{order}iII", body.data)
        after_name = -(-(12 + length) // 4) * 4
        height, width, count = struct.unpack_from(f"{order}III", body.data, after_name)
    except struct.error:
        msg = f"expected a whole {message.type} on topic {topic!r}, got {data.size} bytes, which end in its header"
        raise DecodeError(reason="short_data", message=msg) from None
    if not 0 < width <= _LARGEST_SIZE or not 0 < height <= _LARGEST_SIZE:
        msg = f"expected the sensor's size, at most 65536 x 65536, in {message.type} on topic {topic!r}, got {width} x {height}"
        raise DecodeError(reason="no_size", message=msg)
    start = after_name + 12
    needed = start + _FIRST + _EACH * (count - 1) if count else start
    if body.size < needed:
        msg = f"expected {_ENCAPSULATION + needed} bytes for {count} events on topic {topic!r}, got {data.size}"
        raise DecodeError(reason="short_data", message=msg)
    frame_id = body[12 : 12 + length].tobytes().rstrip(b"\0").decode("utf-8", errors="replace")
    stamp = sec * 1_000_000_000 + nanosec
    events = _events(body, order, start, count, (width, height))
    near = not events.time_ns.size or abs(int(events.time_ns[0]) - stamp) <= _NEAR_NS
    return EventReading(stamp, frame_id, width, height, events, on_ros_clock=near)


def _byte_order(data: U8, topic: str) -> str:
    """The byte order of plain CDR, as struct and numpy write it."""
    orders = {b"\0\0": ">", b"\0\1": "<"}
    order = orders.get(data[:2].tobytes())
    if order is None or data.size < _ENCAPSULATION:
        got = data[:_ENCAPSULATION].tobytes().hex(" ") or "nothing"
        msg = f"expected a message that begins with 00 00 or 00 01 (plain CDR) on topic {topic!r}, got {got}"
        raise DecodeError(reason="unknown_encapsulation", message=msg)
    return order


def _events(body: U8, order: str, start: int, count: int, size: tuple[int, int]) -> SensorEvents:
    """The events of an array that begins at byte ``start`` of ``body``, which holds them whole; ``size``: width and height."""

    def column(kind: str, place: int) -> np.ndarray[Any, np.dtype[Any]]:
        if not count:
            return np.empty(0, order + kind)
        values: np.ndarray[Any, np.dtype[Any]] = np.ndarray((count,), order + kind, body, start - 2 + place, (_EACH,))
        return values

    x, y = column("u2", 0).astype(np.uint16), column("u2", 2).astype(np.uint16)
    if count:
        x[0], y[0] = np.ndarray((2,), order + "u2", body, start)
    time_ns = column("i4", 6).astype(np.int64)
    time_ns *= 1_000_000_000
    time_ns += column("u4", 10)
    polarity = (column("u1", 14) != 0).view(np.uint8)
    inside = (x < size[0]) & (y < size[1])
    if not inside.all():
        x, y, polarity, time_ns = x[inside], y[inside], polarity[inside], time_ns[inside]
    return SensorEvents(x, y, polarity, time_ns, int(time_ns.max()) if time_ns.size else None, outside=count - x.size)

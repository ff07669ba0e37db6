"""Fields, stamp and bytes of a message: what all decoders need."""

from __future__ import annotations

import array
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from gemini_core.errors import DecodeError
from gemini_core.types import U8


class Stamp(Protocol):
    """The fields of builtin_interfaces/Time."""

    sec: int
    nanosec: int


class Header(Protocol):
    """The fields of std_msgs/Header."""

    stamp: Stamp
    frame_id: str


@dataclass(frozen=True, slots=True)
class RawMessage:
    """A message as it came off the wire, for types that cost too much as objects (event arrays).

    ``type`` is its name, such as "dvs_msgs/msg/EventArray"; ``data`` its CDR bytes, the four of the encapsulation included.
    """

    type: str
    data: bytes | memoryview


RAW_TYPES = ("dvs_msgs/msg/EventArray", "prophesee_event_msgs/msg/EventArray")
"""Types that bag readers and the node hand over as ``RawMessage``."""

_STAMP_END = 12  # behind the 4 bytes of the CDR encapsulation: int32 sec, uint32 nanosec


def require_fields(message: object, names: tuple[str, ...], expected: str, topic: str) -> None:
    """Check that a message is of the type that its topic should carry.

    Raises:
        DecodeError: "wrong_type", a field is missing.
    """
    for name in names:
        if not hasattr(message, name):
            kind = message.type if isinstance(message, RawMessage) else type(message).__name__
            msg = f"expected {expected} on topic {topic!r}, got {kind}, which has no field {name!r}"
            raise DecodeError(reason="wrong_type", message=msg)


def stamp_ns(header: Header) -> int:
    """Nanoseconds of a header's stamp."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def message_stamp_ns(message: object) -> int | None:
    """Nanoseconds of the stamp of any message that begins with a header; None where it has none, or was cut off before."""
    if isinstance(message, RawMessage):
        head = bytes(message.data[:_STAMP_END])
        if len(head) < _STAMP_END:
            return None
        order: Literal["little", "big"] = "little" if head[1] & 1 else "big"
        return int.from_bytes(head[4:8], order, signed=True) * 1_000_000_000 + int.from_bytes(head[8:12], order)
    header = getattr(message, "header", None)
    return None if header is None else stamp_ns(header)


def as_bytes(data: Any, topic: str) -> U8:  # noqa: ANN401 - each client library has its own kind of byte array
    """Show a message's uint8[] as a (N,) uint8 array, without copying where it lies in one piece.

    Raises:
        DecodeError: "unreadable_data", not an array of bytes (a list, say, which would take seconds for an image).
    """
    if isinstance(data, bytes | bytearray) or (isinstance(data, array.array) and data.itemsize == 1):
        return np.frombuffer(data, np.uint8)
    if isinstance(data, memoryview):
        data = np.asarray(data)
    if isinstance(data, np.ndarray) and data.dtype == np.uint8:
        return np.ascontiguousarray(data).reshape(-1)
    msg = f"expected the data on topic {topic!r} as an array of bytes, got {type(data).__name__}"
    raise DecodeError(reason="unreadable_data", message=msg)

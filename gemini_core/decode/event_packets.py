"""event_camera_msgs/EventPacket: events as the sensor wrote them, in one of several encodings."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

import numpy.typing as npt

from gemini_core.decode.event_reading import Codec, EventReading
from gemini_core.decode.evt2 import Evt2
from gemini_core.decode.evt3 import Evt3
from gemini_core.decode.libcaer import Libcaer, LibcaerCompressed
from gemini_core.decode.message import Header, as_bytes, require_fields, stamp_ns
from gemini_core.decode.mono import Mono
from gemini_core.errors import DecodeError

_FIELDS = ("header", "height", "width", "seq", "time_base", "encoding", "is_bigendian", "events")
_LATEST_BASE_NS = 1 << 62  # the year 2116; beyond it the sum with an event's time may not fit


class EventPacket(Protocol):
    """The fields of event_camera_msgs/EventPacket."""

    header: Header
    height: int
    width: int
    seq: int
    time_base: int
    encoding: str
    is_bigendian: bool
    events: Any


CODECS: dict[str, type[Codec]] = {
    "evt3": Evt3,
    "evt2": Evt2,
    "mono": Mono,
    "libcaer": Libcaer,
    "libcaer_cmp": LibcaerCompressed,
}


class PacketReader:
    """The packets of one topic in their order; what their encoding remembers runs on while none is missing.

    Args:
        counts: where lost packets and restarts are counted.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self.reset()

    def reset(self) -> None:
        """Forget all packets."""
        self._encoding = ""
        self._codec: Codec = Mono()
        self._seq: int | None = None

    def forget(self) -> None:
        """Forget what the encoding knows, but not which packet was the last."""
        self._encoding = ""

    def read(self, message: EventPacket, topic: str) -> EventReading:
        """Read the next packet.

        Raises:
            DecodeError: wrong type, unknown encoding, no sensor size or one that the encoding cannot address, a time base out
                of range, or bytes that are no whole events; the packet is then a lost one.
        """
        require_fields(message, _FIELDS, "event_camera_msgs/EventPacket", topic)
        words = _words(message, topic)
        self._follow(int(message.seq))
        if message.encoding != self._encoding:
            self._encoding, self._codec = message.encoding, CODECS[message.encoding]()
        width, height = int(message.width), int(message.height)
        events = self._codec.read(words, width, height, int(message.time_base))
        return EventReading(stamp_ns(message.header), message.header.frame_id, width, height, events, on_ros_clock=False)

    def _follow(self, seq: int) -> None:
        """See whether packets are missing; a ``seq`` that stands still comes from a driver that does not count."""
        last, self._seq = self._seq, seq
        if last is None or seq in {last, last + 1}:
            return
        if seq > last:
            self._codec.skip()
            self._counts["lost_packets"] += seq - last - 1
        else:
            self.forget()
            self._counts["restarts"] += 1


def _words(message: EventPacket, topic: str) -> npt.NDArray[Any]:
    codec = CODECS.get(message.encoding)
    if codec is None:
        msg = f"expected encoding {', '.join(CODECS)} on topic {topic!r}, got {message.encoding!r}"
        raise DecodeError(reason="unknown_encoding", message=msg)
    if message.width == 0 or message.height == 0:
        msg = f"expected the sensor's size in the packet on topic {topic!r}, got {message.width} x {message.height}"
        raise DecodeError(reason="no_size", message=msg)
    if message.width > codec.addressable or message.height > codec.addressable:
        msg = (
            f"expected a sensor of at most {codec.addressable} x {codec.addressable}, all that {message.encoding} can address, "
            f"on topic {topic!r}, got {message.width} x {message.height}"
        )
        raise DecodeError(reason="wrong_size", message=msg)
    if message.time_base > _LATEST_BASE_NS:
        msg = f"expected a time_base of nanoseconds up to {_LATEST_BASE_NS} on topic {topic!r}, got {message.time_base}"
        raise DecodeError(reason="wrong_time_base", message=msg)
    data = as_bytes(message.events, topic)
    size = codec.event_bytes or codec.dtype.itemsize
    if data.size % size:
        msg = f"expected whole {8 * size}-bit words of {message.encoding} on topic {topic!r}, got {data.size} bytes"
        raise DecodeError(reason="odd_length", message=msg)
    words: npt.NDArray[Any] = data.view(codec.dtype.newbyteorder(">" if message.is_bigendian else "<"))
    return words.astype(codec.dtype, copy=False)

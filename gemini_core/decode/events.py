"""event_camera_msgs/EventPacket, encoding "evt3", to event samples.

EVT3 (Prophesee) is a stream of 16-bit words, the code in bits 15 to 12:

====  ===========  =====================================================================================
code  name         meaning of the lower 12 bits
====  ===========  =====================================================================================
0     ADDR_Y       y (bits 0 to 10)
2     ADDR_X       x (bits 0 to 10), polarity (bit 11): one event
3     VECT_BASE_X  x and polarity of the vectors that follow
4     VECT_12      an event for each set bit i, at base + i; then base += 12
5     VECT_8       the same with 8 bits; then base += 8
6     TIME_LOW     microseconds, lower 12 bits
8     TIME_HIGH    microseconds, upper 12 bits: the time wraps every 16.78 s
====  ===========  =====================================================================================

Other codes (triggers, continuations) are skipped. The state runs on from word to word and from packet to packet.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from numba import njit

from gemini_core.decode.message import Header, as_bytes, require_fields, stamp_ns
from gemini_core.errors import DecodeError
from gemini_core.types import I64, U8, U16, Count, EventSample

ENCODINGS = ("evt3",)

_FIELDS = ("header", "height", "width", "seq", "encoding", "is_bigendian", "events")
_CLOCK_STEP_NS = 5_000_000  # a larger change between sensor time and stamps is a clock that was set, not jitter
_LONGEST_PACKET_NS = 2_000_000_000
_JITTER = 10  # sensors step back by this many TIME_HIGH; a larger step back is the wrap

_ADDR_Y, _ADDR_X, _VECT_BASE_X, _VECT_12, _VECT_8, _TIME_LOW, _TIME_HIGH = 0, 2, 3, 4, 5, 6, 8
_COORDINATE = 0x7FF
_LARGEST_SIZE = _COORDINATE + 1
_HIGH_STEPS = 4096  # values of TIME_HIGH before it wraps
_UNKNOWN = -1
_NO_TIME = np.iinfo(np.int64).min

# What the decoder knows from the words before: TIME_HIGH, TIME_LOW, wraps of TIME_HIGH, y, base x and polarity of vectors
_START = (_UNKNOWN, _UNKNOWN, 0, _UNKNOWN, _UNKNOWN, 0)


class EventPacket(Protocol):
    """The fields of event_camera_msgs/EventPacket."""

    header: Header
    height: int
    width: int
    seq: int
    encoding: str
    is_bigendian: bool
    events: Any


@njit("int64(Array(uint16, 1, 'C', readonly=True, aligned=False))", cache=True)
def _most_events(words: U16) -> int:
    """Count the events that the words make if none has to be dropped."""
    count = 0
    for word in words:
        code = word >> 12
        if code == _ADDR_X:
            count += 1
        elif code in (_VECT_12, _VECT_8):
            mask = word & (0xFFF if code == _VECT_12 else 0xFF)
            while mask:
                count += 1
                mask &= mask - 1
    return count


@njit(
    "UniTuple(int64, 5)(Array(uint16, 1, 'C', readonly=True, aligned=False), int64, int64, int64[::1],"
    " uint16[::1], uint16[::1], uint8[::1], int64[::1])",
    cache=True,
)
def _decode(  # noqa: C901, PLR0912, PLR0915, PLR0917 - one state machine, kept in one place
    words: U16, width: int, height: int, state: I64, xs: U16, ys: U16, polarities: U8, times_us: I64
) -> tuple[int, int, int, int, int]:
    """Run the words through ``state`` and write the events.

    Returns the number of events written, dropped outside the sensor, dropped before the state was known; the time of the
    first event and the last time known, sensor microseconds (_NO_TIME where there is none).
    """
    high, low, wraps, y, base_x, base_polarity = state
    time = (((wraps * _HIGH_STEPS) + high) << 12) + low
    first, last = _NO_TIME, time if low >= 0 else _NO_TIME
    count = outside = unknown = 0
    for word in words:
        code, value = np.int64(word >> 12), np.int64(word & 0xFFF)
        # First the two codes that most words have, by the shortest way; single events need none of the bit loop below.
        if code == _ADDR_X:
            x = value & _COORDINATE
            if low < 0 or y < 0:
                unknown += 1
            elif x >= width or y >= height:
                outside += 1
            else:
                xs[count], ys[count], polarities[count], times_us[count] = x, y, value >> 11, time
                if count == 0:
                    first = time
                count += 1
            continue
        if code == _ADDR_Y:
            y = value & _COORDINATE
            continue
        mask = x = polarity = 0
        if code == _VECT_BASE_X:
            base_x, base_polarity = value & _COORDINATE, value >> 11
        elif code in (_VECT_12, _VECT_8):
            size = 12 if code == _VECT_12 else 8
            mask, x, polarity = value & ((1 << size) - 1), base_x, base_polarity
            if base_x >= 0:
                base_x += size
        elif code == _TIME_LOW and high >= 0:
            low = value
        elif code == _TIME_HIGH:
            if high >= 0 and value < high - _JITTER:
                wraps += 1
            elif high >= 0 and value >= high + _HIGH_STEPS - _JITTER:
                wraps -= 1  # a step back over the wrap
            if low >= 0 and value != high:
                low = 0  # the old lower bits belonged to the old upper ones; the new ones follow
            high = value
        if low >= 0 and code in (_TIME_LOW, _TIME_HIGH):
            time = (((wraps * _HIGH_STEPS) + high) << 12) + low
            last = max(last, time)
        known = low >= 0 and y >= 0 and x >= 0
        while mask:
            if mask & 1:
                if not known:
                    unknown += 1
                elif x >= width or y >= height:
                    outside += 1
                else:
                    xs[count], ys[count], polarities[count], times_us[count] = x, y, polarity, time
                    if count == 0:
                        first = time
                    count += 1
            mask >>= 1
            x += 1
    state[0], state[1], state[2], state[3], state[4], state[5] = high, low, wraps, y, base_x, base_polarity
    return count, outside, unknown, first, last


class Evt3Decoder:
    """The decoder of one event camera's packets; its state runs on from packet to packet.

    Events are dropped, and counted, until TIME_HIGH, TIME_LOW, y (and for vectors their base) are known. When packets are
    missing (by their ``seq``) what is known is forgotten, since it may be wrong.

    Sensor time becomes ROS time by the offset between the stamp of the first packet with events, which belongs to its first
    event, and that event's sensor time. The offset is kept, since sensor clocks are steadier than stamps, until a packet
    shows one that differs by more than 5 ms; then that one is taken, and counted. Where the sensor's time leaps to more than
    ``longest_packet_ns`` after the stamp (the sensor began anew, a word was damaged), those events are dropped and what is
    known is forgotten, both counted: such a packet would seem to cover all the time up to there.
    """

    def __init__(self, longest_packet_ns: int = _LONGEST_PACKET_NS) -> None:
        self._longest_packet_ns = longest_packet_ns
        self._counts: Counter[str] = Counter()
        self.reset()

    def reset(self) -> None:
        """Forget all packets, as after a jump of the clock; counts stay."""
        self._forget()
        self._seq: int | None = None

    def counts(self) -> tuple[Count, ...]:
        """Events, dropped events, lost packets and clock steps since the start."""
        return tuple(Count(f"event.packets.{what}", number) for what, number in sorted(self._counts.items()))

    def decode(self, message: EventPacket, topic: str) -> EventSample:
        """Read the next packet; one without events still tells how far time has come.

        ``end_ns`` is the last time known in the packet, at least its stamp.

        Raises:
            DecodeError: wrong type, unknown encoding, no sensor size or one that EVT3 cannot address, or an odd number of
                bytes; the packet is then a lost one.
        """
        require_fields(message, _FIELDS, "event_camera_msgs/EventPacket", topic)
        words = _words(message, topic)
        self._follow(int(message.seq))
        most = _most_events(words)
        x, y = np.empty(most, np.uint16), np.empty(most, np.uint16)
        polarity, time_ns = np.empty(most, np.uint8), np.empty(most, np.int64)
        count, outside, unknown, first_us, last_us = _decode(
            words, int(message.width), int(message.height), self._state, x, y, polarity, time_ns
        )
        self._count("dropped.outside_sensor", outside)
        self._count("dropped.unsynchronized", unknown)
        stamp = end = stamp_ns(message.header)
        if count:
            self._set_offset(stamp - first_us * 1000)
        x, y, polarity, time_ns = x[:count], y[:count], polarity[:count], time_ns[:count]
        time_ns *= 1000
        if self._offset_ns is not None:
            time_ns += self._offset_ns
            end = max(stamp, last_us * 1000 + self._offset_ns) if last_us != _NO_TIME else stamp
        if end - stamp > self._longest_packet_ns:
            kept = time_ns <= stamp + self._longest_packet_ns
            x, y, polarity, time_ns = x[kept], y[kept], polarity[kept], time_ns[kept]
            end = max(stamp, int(time_ns.max())) if time_ns.size else stamp
            self._forget()
            self._count("time_jumps", 1)
            self._count("dropped.time_jump", count - time_ns.size)
        self._count("events", time_ns.size)
        return EventSample(
            stamp_ns=stamp,
            frame_id=message.header.frame_id,
            width=int(message.width),
            height=int(message.height),
            x=x,
            y=y,
            polarity=polarity,
            time_ns=time_ns,
            end_ns=end,
        )

    def _forget(self) -> None:
        self._state = np.array(_START, np.int64)
        self._offset_ns: int | None = None

    def _follow(self, seq: int) -> None:
        """Start anew where packets are missing; a ``seq`` that stands still comes from a driver that does not count."""
        last, self._seq = self._seq, seq
        if last is None or seq in {last, last + 1}:
            return
        self._forget()
        if seq > last:
            self._count("lost_packets", seq - last - 1)
        else:
            self._count("restarts", 1)

    def _set_offset(self, offset_ns: int) -> None:
        if self._offset_ns is not None and abs(offset_ns - self._offset_ns) <= _CLOCK_STEP_NS:
            return
        self._count("clock_steps", int(self._offset_ns is not None))
        self._offset_ns = offset_ns

    def _count(self, what: str, number: int) -> None:
        if number:
            self._counts[what] += number


def _words(message: EventPacket, topic: str) -> npt.NDArray[np.uint16]:
    if message.encoding not in ENCODINGS:
        msg = f"expected encoding {', '.join(ENCODINGS)} on topic {topic!r}, got {message.encoding!r}"
        raise DecodeError(reason="unknown_encoding", message=msg)
    if message.width == 0 or message.height == 0:
        msg = f"expected the sensor's size in the packet on topic {topic!r}, got {message.width} x {message.height}"
        raise DecodeError(reason="no_size", message=msg)
    if message.width > _LARGEST_SIZE or message.height > _LARGEST_SIZE:
        msg = (
            f"expected a sensor of at most {_LARGEST_SIZE} x {_LARGEST_SIZE}, all that evt3 can address, on topic {topic!r}, "
            f"got {message.width} x {message.height}"
        )
        raise DecodeError(reason="wrong_size", message=msg)
    data = as_bytes(message.events, topic)
    if data.size % 2:
        msg = f"expected whole 16-bit words of evt3 on topic {topic!r}, got {data.size} bytes"
        raise DecodeError(reason="odd_length", message=msg)
    words = data.view(">u2" if message.is_bigendian else "<u2")
    return words.astype(np.uint16, copy=False)

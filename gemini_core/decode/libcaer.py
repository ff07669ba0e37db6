"""Event encodings "libcaer" and "libcaer_cmp" (iniVation); times are nanoseconds after the packet's ``time_base``.

libcaer: 64 bits an event, first uint32 with the polarity in bit 1, y in bits 2 to 16, x in bits 17 to 31, then int32
microseconds, which wrap within a packet after 2**31.

libcaer_cmp: a stream of 16-bit words, the code in bits 15 to 12; everything begins anew with each packet, the time with 0:

====  ===========  ================================================================
code  name         meaning of the lower 12 bits
====  ===========  ================================================================
0     TIME_HIGH    microseconds, upper 12 bits
1     TIME_LOW     microseconds, lower 12 bits
2     ADDR_X       x (bits 0 to 10)
3     ADDR_Y       y (bits 0 to 10), polarity (bit 11): one event
4     VECT_BASE_Y  y and polarity of the vectors that follow
5     VECT_8       an event for each set bit i of 8, at base + i; then base += 8
====  ===========  ================================================================

Other codes are skipped.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gemini_core.compiling import compiled
from gemini_core.decode.event_reading import NO_TIME, Codec, SensorEvents, sensor_events
from gemini_core.types import I64, U8, U16

_WRAP_US = 1 << 31
_TIME_HIGH, _TIME_LOW, _ADDR_X, _ADDR_Y, _VECT_BASE_Y, _VECT_8 = range(6)
_COORDINATE = 0x7FF
_VECTOR = 8
_UNKNOWN = -1


class Libcaer(Codec):
    """Packets of one sensor."""

    dtype = np.dtype(np.uint32)
    addressable = 1 << 15
    event_bytes = 8

    def read(self, words: npt.NDArray[np.uint32], width: int, height: int, time_base_ns: int) -> SensorEvents:
        """Read the words (2 N,) of a packet."""
        total = words.size // 2
        room = total + 1
        x, y = np.empty(room, np.uint16), np.empty(room, np.uint16)
        polarity, time_ns = np.empty(room, np.uint8), np.empty(room, np.int64)
        count, last_ns = _decode(words, width, height, time_base_ns, x, y, polarity, time_ns)
        return sensor_events(x, y, polarity, time_ns, count, last_ns, total - count, 0)


class LibcaerCompressed(Codec):
    """Packets of one sensor, as libcaer_cmp; events without an x or a base before them are left out."""

    dtype = np.dtype(np.uint16)
    addressable = _COORDINATE + 1

    def read(self, words: U16, width: int, height: int, time_base_ns: int) -> SensorEvents:
        """Read the words (N,) of a packet."""
        room = _count(words) + 1
        x, y = np.empty(room, np.uint16), np.empty(room, np.uint16)
        polarity, time_ns = np.empty(room, np.uint8), np.empty(room, np.int64)
        count, unknown, last_ns = _decode_compressed(words, width, height, time_base_ns, x, y, polarity, time_ns)
        return sensor_events(x, y, polarity, time_ns, count, last_ns, room - 1 - count - unknown, unknown)


@compiled(
    "UniTuple(int64, 2)(Array(uint32, 1, 'C', readonly=True, aligned=False), int64, int64, int64,"
    " uint16[::1], uint16[::1], uint8[::1], int64[::1])",
)
def _decode(  # noqa: PLR0917 - compiled functions take arguments by position
    words: npt.NDArray[np.uint32],
    width: int,
    height: int,
    time_base_ns: int,
    xs: U16,
    ys: U16,
    polarities: U8,
    times_ns: I64,
) -> tuple[int, int]:
    """Write the events (room for one more than there are); their number and the latest time among them."""
    count, last = np.uint64(0), np.int64(NO_TIME)
    wraps, before_us = np.int64(0), np.int64(0)
    for i in range(words.shape[0] // 2):
        word, low_us = np.int64(words[2 * i]), np.int64(np.int32(words[2 * i + 1]))
        if low_us < before_us - _WRAP_US // 2:  # less is a step back, as sensors make them
            wraps += 1
        elif low_us > before_us + _WRAP_US // 2 and wraps > 0:
            wraps -= 1
        before_us = low_us
        x, y, time = word >> 17, (word >> 2) & 0x7FFF, time_base_ns + (wraps * _WRAP_US + low_us) * 1000
        xs[count], ys[count], polarities[count], times_ns[count] = x, y, (word >> 1) & 1, time
        inside = (x < width) & (y < height)
        count += np.uint64(inside)
        if inside:
            last = max(last, time)
    return np.int64(count), last


@compiled("int64(Array(uint16, 1, 'C', readonly=True, aligned=False))")
def _count(words: U16) -> int:
    """Count the events that the words make if none is left out."""
    count = 0
    for word in words:
        if word >> 12 == _ADDR_Y:
            count += 1
        elif word >> 12 == _VECT_8:
            mask = word & 0xFF
            while mask:
                count += 1
                mask &= mask - 1
    return count


@compiled(
    "UniTuple(int64, 3)(Array(uint16, 1, 'C', readonly=True, aligned=False), int64, int64, int64,"
    " uint16[::1], uint16[::1], uint8[::1], int64[::1])",
)
def _decode_compressed(  # noqa: C901, PLR0917 - one state machine; compiled functions take arguments by position
    words: U16, width: int, height: int, time_base_ns: int, xs: U16, ys: U16, polarities: U8, times_ns: I64
) -> tuple[int, int, int]:
    """Write the events (room for one more than there are); their number, those without x or base, the latest time known."""
    high = low = np.int64(0)
    x = base_y = np.int64(_UNKNOWN)
    polarity = np.int64(0)
    time, last = time_base_ns, np.int64(NO_TIME)
    count, unknown = np.uint64(0), 0
    for i in range(words.shape[0]):
        code, value = np.int64(words[i] >> 12), np.int64(words[i] & 0xFFF)
        if code == _ADDR_Y:
            y = value & _COORDINATE
            xs[count], ys[count], polarities[count], times_ns[count] = x, y, value >> 11, time
            unknown += x < 0
            count += np.uint64((0 <= x < width) & (y < height))
        elif code == _ADDR_X:
            x = value & _COORDINATE
        elif code == _VECT_8:
            for j in range(_VECTOR):
                if (value >> j) & 1:
                    xs[count], ys[count], polarities[count], times_ns[count] = x, base_y + j, polarity, time
                    unknown += (x < 0) | (base_y < 0)
                    count += np.uint64((0 <= x < width) & (base_y >= 0) & (base_y + j < height))
            if base_y >= 0:
                base_y += _VECTOR
        elif code == _VECT_BASE_Y:
            base_y, polarity = value & _COORDINATE, value >> 11
        elif code in (_TIME_HIGH, _TIME_LOW):
            if code == _TIME_HIGH:
                high = value
            else:
                low = value
            time = time_base_ns + ((high << 12) | low) * 1000
            last = max(last, time)
    if count > 0:
        last = max(last, time_base_ns)
    return np.int64(count), unknown, last

"""Event encoding EVT3 (Prophesee): a stream of 16-bit words, the code in bits 15 to 12.

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

Other codes (triggers, continuations) are skipped. The state runs on from word to word and from packet to packet. Sensors step
back a little in time; TIME_HIGH that falls by more than 10 is the wrap.
"""

from __future__ import annotations

import numpy as np

from gemini_core.compiling import compiled
from gemini_core.decode.event_reading import NO_TIME, Codec, SensorEvents, sensor_events
from gemini_core.types import I64, U8, U16

ADDRESSABLE = 2048
"""Columns and rows that 11 bits can address."""

_JITTER = 10
_ADDR_Y, _ADDR_X, _VECT_BASE_X, _VECT_12, _VECT_8, _TIME_LOW, _TIME_HIGH = 0, 2, 3, 4, 5, 6, 8
_COORDINATE = 0x7FF
_HIGH_STEPS = 4096  # values of TIME_HIGH before it wraps
_VECTOR = 12  # the longest one
_UNKNOWN = -1
_ONE = np.uint64(1)

# What the decoder knows from the words before: TIME_HIGH, TIME_LOW, wraps of TIME_HIGH, y, base x and polarity of vectors,
# and whether TIME_HIGH was seen since packets were lost.
_START = (_UNKNOWN, _UNKNOWN, 0, _UNKNOWN, _UNKNOWN, 0, 0)
_HIGH, _LOW, _WRAPS, _Y, _BASE, _POLARITY, _SEEN_HIGH = range(7)


class Evt3(Codec):
    """Words of one sensor in their order; events are left out until TIME_HIGH, TIME_LOW, y and for vectors their base came."""

    dtype = np.dtype(np.uint16)
    addressable = ADDRESSABLE

    def __init__(self) -> None:
        self._state = np.array(_START, np.int64)

    def skip(self) -> None:
        """Packets are missing: what they may have changed is unknown; the count of wraps goes on."""
        self._state[[_LOW, _Y, _BASE]] = _UNKNOWN
        self._state[_SEEN_HIGH] = 0

    def read(self, words: U16, width: int, height: int, time_base_ns: int) -> SensorEvents:  # noqa: ARG002 - EVT3 has no base
        """Read the words (N,) of the next packet."""
        total = _count(words)
        room = total + _VECTOR  # vectors are written in whole and then cut
        x, y = np.empty(room, np.uint16), np.empty(room, np.uint16)
        polarity, time_ns = np.empty(room, np.uint8), np.empty(room, np.int64)
        count, first_known, without_base, last_ns = _decode(words, width, height, self._state, x, y, polarity, time_ns)
        unknown = _count(words[:first_known]) + without_base
        return sensor_events(x, y, polarity, time_ns, count, last_ns, total - count - unknown, unknown)


def _events_of_words() -> U8:
    """Count the events that each of the 65536 words stands for."""
    words = np.arange(1 << 16)
    kept = np.select([words >> 12 == code for code in (_ADDR_X, _VECT_12, _VECT_8)], [1, words & 0xFFF, words & 0xFF], 0)
    counts: U8 = ((kept[:, None] >> np.arange(_VECTOR)) & 1).sum(axis=1).astype(np.uint8)
    return counts


_EVENTS_OF_WORD = _events_of_words()


@compiled("int64(Array(uint16, 1, 'C', readonly=True, aligned=False))")
def _count(words: U16) -> int:
    """Count the events that the words make if none is left out."""
    count = 0
    for word in words:
        count += _EVENTS_OF_WORD[word]
    return count


@compiled(
    "UniTuple(int64, 4)(Array(uint16, 1, 'C', readonly=True, aligned=False), int64, int64, int64[::1],"
    " uint16[::1], uint16[::1], uint8[::1], int64[::1])",
)
def _decode(  # noqa: C901, PLR0912, PLR0915, PLR0917 - one state machine, kept in one place
    words: U16, width: int, height: int, state: I64, xs: U16, ys: U16, polarities: U8, times_ns: I64
) -> tuple[int, int, int, int]:
    """Run the words through ``state`` and write the events; the arrays have room for all of them and one vector more.

    An event outside the sensor is written too, but not counted, so that the next one takes its place: that is cheaper than a
    branch. Returns the number of events; the place of the word with which time and y were first known; events of vectors
    without a base after it; the latest time known (NO_TIME where there is none).
    """
    high, low, wraps, y, base_x = state[0], state[1], state[2], state[3], state[4]
    base_polarity, seen_high = state[5], state[6]
    timed = seen_high == 1 and low >= 0
    time = ((((wraps * _HIGH_STEPS) + high) << 12) + low) * 1000
    last = time if timed else NO_TIME
    # Columns that count as inside; none while the row is outside the sensor or time or row are not known.
    columns = width if timed and 0 <= y < height else 0
    first_known = 0 if timed and y >= 0 else words.shape[0]
    count, without_base = np.uint64(0), 0
    for i in range(words.shape[0]):
        word = np.int64(words[i])
        code, value = word >> 12, word & 0xFFF
        if code == _ADDR_X:
            x = value & _COORDINATE
            xs[count], ys[count], polarities[count], times_ns[count] = x, y, value >> 11, time
            count += np.uint64(x < columns)
        elif code == _ADDR_Y:
            y = value & _COORDINATE
            columns = width if timed and y < height else 0
            if timed and i < first_known:
                first_known = i
        elif code in (_VECT_12, _VECT_8):
            size = 12 if code == _VECT_12 else 8
            mask = value & ((1 << size) - 1)
            if base_x >= 0:
                mask &= (1 << min(max(columns - base_x, 0), _VECTOR)) - 1
                for j in range(_VECTOR):
                    ys[count + np.uint64(j)] = y
                for j in range(_VECTOR):
                    polarities[count + np.uint64(j)] = base_polarity
                for j in range(_VECTOR):
                    times_ns[count + np.uint64(j)] = time
                for j in range(_VECTOR):
                    xs[count] = base_x + j
                    count += np.uint64((mask >> j) & 1)
                base_x += size
            elif i >= first_known:
                while mask:
                    without_base += 1
                    mask &= mask - 1
        elif code == _VECT_BASE_X:
            base_x, base_polarity = value & _COORDINATE, value >> 11
        elif code in (_TIME_LOW, _TIME_HIGH):
            if code == _TIME_HIGH:
                if high >= 0 and value < high - _JITTER:
                    wraps += 1
                elif high >= 0 and value >= high + _HIGH_STEPS - _JITTER:
                    wraps -= 1  # a step back over the wrap
                if low >= 0 and value != high:
                    low = 0  # the old lower bits belonged to the old upper ones; the new ones follow
                high, seen_high = value, 1
            elif seen_high == 1:
                low = value
            if low >= 0:
                time = ((((wraps * _HIGH_STEPS) + high) << 12) + low) * 1000
                last = max(last, time)
                if not timed:
                    timed = True
                    columns = width if 0 <= y < height else 0
                    if y >= 0:
                        first_known = i
    state[0], state[1], state[2], state[3], state[4] = high, low, wraps, y, base_x
    state[5], state[6] = base_polarity, seen_high
    return np.int64(count), first_known, without_base, last

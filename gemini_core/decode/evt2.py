"""Event encoding EVT2 (Prophesee): a stream of 32-bit words, the type in bits 31 to 28.

====  =========  ======================================================================
type  name       meaning of the lower 28 bits
====  =========  ======================================================================
0     CD_OFF     time (bits 22 to 27), x (11 to 21), y (0 to 10): one event, darker
1     CD_ON      the same, brighter
8     TIME_HIGH  microseconds >> 6, until the next one: the time wraps every 4.77 hours
====  =========  ======================================================================

Other types (triggers, what vendors add) are skipped. The state runs on from packet to packet.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gemini_core.compiling import compiled
from gemini_core.decode.event_reading import NO_TIME, Codec, SensorEvents, sensor_events
from gemini_core.types import I64, U8, U16

_U32 = npt.NDArray[np.uint32]

_TIME_HIGH = 8
_HIGH_STEPS = 1 << 28
_COORDINATE = 0x7FF
_HIGH, _WRAPS, _SEEN_HIGH = range(3)


class Evt2(Codec):
    """Words of one sensor in their order; events are left out until a TIME_HIGH came."""

    dtype = np.dtype(np.uint32)
    addressable = _COORDINATE + 1

    def __init__(self) -> None:
        self._state = np.zeros(3, np.int64)

    def skip(self) -> None:
        """Packets are missing: events wait for the next TIME_HIGH; the count of wraps goes on."""
        self._state[_SEEN_HIGH] = 0

    def read(self, words: _U32, width: int, height: int, time_base_ns: int) -> SensorEvents:  # noqa: ARG002 - EVT2 has no base
        """Read the words (N,) of the next packet."""
        room = words.size + 1
        x, y = np.empty(room, np.uint16), np.empty(room, np.uint16)
        polarity, time_ns = np.empty(room, np.uint8), np.empty(room, np.int64)
        count, outside, unknown, last_ns = _decode(words, width, height, self._state, x, y, polarity, time_ns)
        return sensor_events(x, y, polarity, time_ns, count, last_ns, outside, unknown)


@compiled(
    "UniTuple(int64, 4)(Array(uint32, 1, 'C', readonly=True, aligned=False), int64, int64, int64[::1],"
    " uint16[::1], uint16[::1], uint8[::1], int64[::1])",
)
def _decode(  # noqa: PLR0917 - compiled functions take arguments by position
    words: _U32, width: int, height: int, state: I64, xs: U16, ys: U16, polarities: U8, times_ns: I64
) -> tuple[int, int, int, int]:
    """Run the words through ``state`` and write the events; the arrays have room for one more than there are words.

    An event outside the sensor is written too, but not counted, so that the next one takes its place. Returns the number of
    events; those outside the sensor; those before the first TIME_HIGH; the latest time known (NO_TIME where there is none).
    """
    high, wraps, timed = state[0], state[1], state[2] == 1
    base_us = (wraps * _HIGH_STEPS + high) << 6
    last_us = base_us if timed else np.int64(-1)
    count, events, unknown = np.uint64(0), 0, 0
    for i in range(words.shape[0]):
        word = np.int64(words[i])
        code = word >> 28
        if code <= 1:
            x, y, time_us = (word >> 11) & _COORDINATE, word & _COORDINATE, base_us + ((word >> 22) & 0x3F)
            xs[count], ys[count], polarities[count], times_ns[count] = x, y, code, time_us * 1000
            events += 1
            if timed:
                inside = (x < width) & (y < height)
                count += np.uint64(inside)
                last_us = max(last_us, time_us if inside else base_us)
            else:
                unknown += 1
        elif code == _TIME_HIGH:
            value = word & (_HIGH_STEPS - 1)
            if value < high - _HIGH_STEPS // 2:
                wraps += 1
            elif value > high + _HIGH_STEPS // 2 and wraps > 0:
                wraps -= 1  # a step back over the wrap
            high, timed = value, True
            base_us = (wraps * _HIGH_STEPS + high) << 6
            last_us = max(last_us, base_us)
    state[0], state[1], state[2] = high, wraps, np.int64(timed)
    last_ns = last_us * 1000 if last_us >= 0 else np.int64(NO_TIME)
    return np.int64(count), events - np.int64(count) - unknown, unknown, last_ns

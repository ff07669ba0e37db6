"""Event encoding "mono": one 64-bit word an event, its time in nanoseconds after the packet's ``time_base``.

Bit 63 is the polarity, bits 48 to 62 y, bits 32 to 47 x, bits 0 to 31 the time. Nothing runs on from packet to packet.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gemini_core.compiling import compiled
from gemini_core.decode.event_reading import NO_TIME, Codec, SensorEvents, sensor_events
from gemini_core.types import I64, U8, U16

_U64 = npt.NDArray[np.uint64]


class Mono(Codec):
    """Packets of one sensor."""

    dtype = np.dtype(np.uint64)
    addressable = 1 << 15

    def read(self, words: _U64, width: int, height: int, time_base_ns: int) -> SensorEvents:
        """Read the words (N,) of a packet."""
        room = words.size + 1
        x, y = np.empty(room, np.uint16), np.empty(room, np.uint16)
        polarity, time_ns = np.empty(room, np.uint8), np.empty(room, np.int64)
        count, last_ns = _decode(words, width, height, time_base_ns, x, y, polarity, time_ns)
        return sensor_events(x, y, polarity, time_ns, count, last_ns, words.size - count, 0)


@compiled(
    "UniTuple(int64, 2)(Array(uint64, 1, 'C', readonly=True, aligned=False), int64, int64, int64,"
    " uint16[::1], uint16[::1], uint8[::1], int64[::1])",
)
def _decode(  # noqa: PLR0917 - compiled functions take arguments by position
    words: _U64, width: int, height: int, time_base_ns: int, xs: U16, ys: U16, polarities: U8, times_ns: I64
) -> tuple[int, int]:
    """Write the events (room for one more than there are words); their number and the latest time among them."""
    count, last = np.uint64(0), np.int64(NO_TIME)
    for i in range(words.shape[0]):
        low, upper = np.int64(words[i] & np.uint64(0xFFFF_FFFF)), np.int64(words[i] >> np.uint64(32))
        x, y, time = upper & 0xFFFF, (upper >> 16) & 0x7FFF, time_base_ns + low
        xs[count], ys[count], polarities[count], times_ns[count] = x, y, upper >> 31, time
        inside = (x < width) & (y < height)
        count += np.uint64(inside)
        if inside:
            last = max(last, time)
    return np.int64(count), last

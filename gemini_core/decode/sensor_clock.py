"""Clock synchronisation of a sensor: offset, drift and jitter between its own clock and the ROS clock of the stamps.

A packet's stamp belongs to its first event, but is taken late: by the transfer and by the driver's turn. So stamp minus sensor
time is the offset between the clocks plus a delay that is never negative, and the lower envelope of it is the truth. The
envelope is a straight line, since two crystals differ by a rate: its slope is the median of the slopes between the lowest
points of the last blocks of a second (Theil 1950, Sen 1968), its height the lowest line of that slope through them.
"""

from __future__ import annotations

import itertools
import statistics
from collections import deque
from dataclasses import dataclass

_STEP_NS = 5_000_000  # a larger change between sensor time and stamps is a clock that was set, or a delay
_LONGEST_DELAY_NS = 1_000_000_000
_PATIENCE_NS = 500_000_000
_BLOCK_NS = 1_000_000_000
_BLOCKS = 32
_BLOCKS_FOR_A_SLOPE = 4  # fewer say more of the delays than of the clocks


@dataclass(frozen=True, slots=True)
class ClockState:
    """How a sensor's clock goes against the ROS clock of its stamps.

    ``offset_ns``: ROS time minus sensor time, now; ``drift_ppm``: by how many microseconds a second it grows, 0 for the first
    four seconds; ``jitter_ns``: by how much stamps are later than the soonest ones, on average over a second, median of the
    last seconds; ``steps``: how often one of the clocks was set.
    """

    offset_ns: int
    drift_ppm: float
    jitter_ns: int
    steps: int


@dataclass(slots=True)
class _Block:
    """What one second of packets showed; all relative to the first packet of all: sensor time, offset, nanoseconds."""

    start_ns: int
    lowest_at_ns: int
    lowest_ns: int
    sum_ns: int = 0
    number: int = 0

    def take(self, at_ns: int, offset_ns: int) -> None:
        if offset_ns < self.lowest_ns:
            self.lowest_ns, self.lowest_at_ns = offset_ns, at_ns
        self.sum_ns += offset_ns
        self.number += 1


class _Track:
    """What the packets since the clocks were last set have shown."""

    def __init__(self, first_ns: int, offset_ns: int) -> None:
        self.offset_ns = offset_ns
        self.slope = 0.0
        self._level = 0.0  # of the line, relative to the origin
        self._origin_ns, self._origin_offset_ns = first_ns, offset_ns
        self._reached_ns = first_ns + offset_ns
        self._late_since_ns: int | None = None
        self._block = _Block(0, 0, 0)
        self._lowest: deque[tuple[int, int]] = deque(maxlen=_BLOCKS)
        self._jitters: deque[float] = deque(maxlen=_BLOCKS)
        self.late_ns = 0

    def line_ns(self, at_ns: int) -> int:
        return self._origin_offset_ns + round(self._level + self.slope * (at_ns - self._origin_ns))

    def jitter_ns(self) -> int:
        return round(statistics.median(self._jitters)) if self._jitters else 0

    def stays_late(self, first_ns: int, observed_ns: int) -> bool:
        """Whether stamps are late for so long that it is no delay; then ``late_ns`` is the offset that they show."""
        if self._late_since_ns is None:
            self._late_since_ns, self.late_ns = first_ns, observed_ns
        self.late_ns = min(self.late_ns, observed_ns)
        return first_ns - self._late_since_ns >= _PATIENCE_NS

    def learn(self, first_ns: int, observed_ns: int) -> None:
        self._late_since_ns = None
        at_ns, offset_ns = first_ns - self._origin_ns, observed_ns - self._origin_offset_ns
        self._level += min(observed_ns - self.line_ns(first_ns), 0)
        if at_ns - self._block.start_ns >= _BLOCK_NS:
            self._close_block()
            self._block = _Block(at_ns, at_ns, offset_ns)
        self._block.take(at_ns, offset_ns)

    def follow(self, first_ns: int) -> None:
        """Move the offset to the line; downwards no farther than what was reached already."""
        lowest_ns = min(self.offset_ns, self._reached_ns - first_ns)
        self.offset_ns = max(self.line_ns(first_ns), lowest_ns)

    def reach(self, last_ns: int) -> None:
        self._reached_ns = max(self._reached_ns, last_ns + self.offset_ns)

    def _close_block(self) -> None:
        block = self._block
        self._lowest.append((block.lowest_at_ns, block.lowest_ns))
        if len(self._lowest) >= _BLOCKS_FOR_A_SLOPE:
            pairs = itertools.combinations(self._lowest, 2)
            slopes = [(two[1] - one[1]) / (two[0] - one[0]) for one, two in pairs if two[0] != one[0]]
            self.slope = statistics.median(slopes)
        self._level = min(offset_ns - self.slope * at_ns for at_ns, offset_ns in self._lowest)
        if block.number:
            delay = block.sum_ns / block.number - block.lowest_ns
            self._jitters.append(max(0.0, delay - abs(self.slope) * _BLOCK_NS / 2))  # what the drift itself makes of it


class SensorClock:
    """Follows one sensor's clock; only the packets' order counts, and a packet costs the same however many came before.

    * A stamp earlier than the line allows lowers it, since delays are not negative.
    * A stamp up to 5 ms later than the line is a delay. More than that is one too, unless it stays for half a second of sensor
      time, or is more than a second: then a clock was set. So is it when a stamp comes more than 5 ms too early.
    * The offset in use follows the line, but never so fast that events of one packet would come before those of the last.
    """

    def __init__(self) -> None:
        self._track: _Track | None = None
        self._steps = 0

    def forget(self) -> None:
        """Begin anew with the next packet; the number of steps stays."""
        self._track = None

    @property
    def offset_ns(self) -> int | None:
        """ROS time minus sensor time; None before the first packet."""
        return None if self._track is None else self._track.offset_ns

    @property
    def steps(self) -> int:
        """How often one of the clocks was set."""
        return self._steps

    def state(self) -> ClockState | None:
        """Say how the clocks go together; None before the first packet."""
        track = self._track
        if track is None:
            return None
        return ClockState(track.offset_ns, round(track.slope * 1e6, 3), track.jitter_ns(), self._steps)

    def observe(self, first_ns: int, stamp_ns: int) -> None:
        """Take up a packet with this stamp, whose first event has the sensor time ``first_ns``; ``offset_ns`` is for it."""
        observed_ns, track = stamp_ns - first_ns, self._track
        if track is None:
            self._track = _Track(first_ns, observed_ns)
            return
        late_ns = observed_ns - track.line_ns(first_ns)
        if abs(late_ns) <= _STEP_NS:
            track.learn(first_ns, observed_ns)
            track.follow(first_ns)
        elif late_ns < 0 or late_ns > _LONGEST_DELAY_NS:
            self._step(first_ns, observed_ns)
        elif track.stays_late(first_ns, observed_ns):
            self._step(first_ns, track.late_ns)

    def reached(self, last_ns: int) -> None:
        """Take up that events up to the sensor time ``last_ns`` have got their ROS time."""
        if self._track is not None:
            self._track.reach(last_ns)

    def _step(self, first_ns: int, offset_ns: int) -> None:
        self._steps += 1
        self._track = _Track(first_ns, offset_ns)

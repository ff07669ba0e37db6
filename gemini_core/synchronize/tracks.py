"""The buffer of one modality's samples, and the rule by which a frame takes from it (docs/synchronization.md has the rules).

What a frame gets of a modality depends only on that topic's own sequence: its samples are looked at in their order, up to the
first one that settles the question. So it does not matter what else has come already.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np

from gemini_core.types import (
    I64,
    U8,
    U16,
    CloudSample,
    DepthSample,
    EventSample,
    EventWindow,
    ImageSample,
    MissingReason,
    Modality,
    ModalityStatus,
    Placement,
)

_IMAGES_PER_S, _FEWEST_IMAGES = 100, 64
_PACKETS_PER_S, _FEWEST_PACKETS = 5000, 1000
"""Samples that are kept of one topic: of rates that no sensor has, over the time that a frame may need them; or some more."""

_LATEST_FRAMES = 20


_Sample = TypeVar("_Sample", DepthSample, CloudSample, EventSample)


@dataclass(slots=True, eq=False)
class _Kept(Generic[_Sample]):
    """One kept sample and the time that it covers, both ends included."""

    sample: _Sample
    start_ns: int
    end_ns: int
    used: bool = False

    def distance_ns(self, stamp_ns: int) -> int:
        return max(self.start_ns - stamp_ns, stamp_ns - self.end_ns, 0)


class Track(ABC, Generic[_Sample]):
    """The kept samples of one modality, in the order of their stamps; ``most`` at a time.

    ``nearest_ns``: of the latest frames that took something, or looked for it in vain, how far the nearest sample was ahead
    of the frame; negative where it was behind.
    """

    def __init__(self, modality: Modality, most: int, slop_ns: int) -> None:
        self.modality = modality
        self.slop_ns = slop_ns
        self.used = 0
        self.nearest_ns: list[int] = []
        self._most = most
        self._kept: deque[_Kept[_Sample]] = deque()
        self._first_ns: int | None = None
        self._first_stamp_ns: int | None = None
        self._reach_ns: int | None = None

    @abstractmethod
    def settled(self, stamp_ns: int) -> bool:
        """Whether later samples cannot change what a frame at this stamp gets."""

    @abstractmethod
    def placement(self, image: ImageSample) -> Placement | None:
        """Say of which sensor and time is what the frame of this image gets, None where it gets nothing."""

    @abstractmethod
    def forget(self, floor_ns: int) -> int:
        """Drop what no stamp from ``floor_ns`` on can use; how many of them were never used."""

    def crowd_out(self) -> int:
        """Drop the oldest of too many; how many of them were never used."""
        return int(not self._kept.popleft().used) if len(self._kept) > self._most else 0

    def take_back(self, stamp_ns: int) -> int:
        """Drop what is stamped then or later; how many of them were never used."""
        unused = 0
        while self._kept and self._kept[-1].sample.stamp_ns >= stamp_ns:
            unused += not self._kept.pop().used
        if self._first_stamp_ns is not None and self._first_stamp_ns >= stamp_ns:
            self._first_ns = self._first_stamp_ns = None
        self._reach_ns = max((kept.end_ns for kept in self._kept), default=None)
        return unused

    def clear(self) -> int:
        """Drop everything; how many were never used."""
        unused = self.waiting()
        self._kept.clear()
        self._first_ns = self._first_stamp_ns = self._reach_ns = None
        self.nearest_ns.clear()
        return unused

    def waiting(self) -> int:
        """How many samples are kept that no frame has used yet."""
        return sum(not kept.used for kept in self._kept)

    def _keep(self, sample: _Sample, start_ns: int, end_ns: int) -> None:
        if self._first_ns is None:
            self._first_ns, self._first_stamp_ns = start_ns, sample.stamp_ns
        self._reach_ns = end_ns if self._reach_ns is None else max(self._reach_ns, end_ns)
        self._kept.append(_Kept(sample, start_ns, end_ns))

    def _use(self, kept: _Kept[_Sample]) -> None:
        self.used += not kept.used
        kept.used = True


_Nearest = TypeVar("_Nearest", DepthSample, CloudSample)


class NearestTrack(Track[_Nearest]):
    """Depth images and sweeps: the first that covers the stamp, else the nearest; the earlier one where two are as near."""

    def __init__(self, modality: Modality, slop_ns: int, min_interval_ns: int, max_wait_ns: int) -> None:
        super().__init__(modality, max(_FEWEST_IMAGES, _IMAGES_PER_S * 2 * (max_wait_ns + slop_ns) // 10**9), slop_ns)
        self._min_interval_ns = min_interval_ns

    def add(self, sample: _Nearest, start_ns: int, end_ns: int) -> bool:
        """Keep a sample; True when it breaks the promise that samples are never closer than the configured interval."""
        too_close = bool(self._kept) and start_ns - self._kept[-1].start_ns < self._min_interval_ns
        self._keep(sample, start_ns, end_ns)
        return too_close

    def settled(self, stamp_ns: int) -> bool:
        """Whether a sample has come that proves which one is the nearest."""
        return self._choose(stamp_ns)[1]

    def placement(self, image: ImageSample) -> Placement | None:
        """Say of which sensor and time the nearest sample is, None where there is none within the slop."""
        kept, _ = self._choose(image.stamp_ns)
        if kept is None or kept.distance_ns(image.stamp_ns) > self.slop_ns:
            return None
        return Placement.of(kept.sample, image)

    def take(self, stamp_ns: int) -> tuple[_Nearest | None, ModalityStatus]:
        """Give what a frame at this stamp gets, None with the reason where it gets nothing."""
        kept, settled = self._choose(stamp_ns)
        if kept is not None:
            distance_ns = kept.distance_ns(stamp_ns)
            self.nearest_ns.append(distance_ns if kept.start_ns > stamp_ns else -distance_ns)
            del self.nearest_ns[:-_LATEST_FRAMES]
        if kept is None or kept.distance_ns(stamp_ns) > self.slop_ns:
            return None, self._missing(stamp_ns, kept, settled)
        self._use(kept)
        skew_ns = kept.sample.stamp_ns - stamp_ns if kept.distance_ns(stamp_ns) else 0
        return kept.sample, ModalityStatus(self.modality, present=True, reason="", skew_ns=skew_ns)

    def forget(self, floor_ns: int) -> int:
        """Drop what no stamp from ``floor_ns`` on can use, but the last of it: it says how far away the nearest one was.

        A sweep may end later than the one after it, where a point has a wrong time; then it stays, and what follows with it.
        """
        unused = 0
        while len(self._kept) > 1 and max(self._kept[0].end_ns, self._kept[1].end_ns) + self.slop_ns < floor_ns:
            unused += not self._kept.popleft().used
        return unused

    def _choose(self, stamp_ns: int) -> tuple[_Kept[_Nearest] | None, bool]:
        """Find the nearest sample, up to the one that settles it; and whether one did."""
        best: _Kept[_Nearest] | None = None
        for kept in self._kept:
            if best is None or kept.distance_ns(stamp_ns) < best.distance_ns(stamp_ns):
                best = kept
            if kept.end_ns >= stamp_ns or self._next_is_farther(kept, stamp_ns, best.distance_ns(stamp_ns)):
                return best, True
        return best, False

    def _next_is_farther(self, kept: _Kept[_Nearest], stamp_ns: int, distance_ns: int) -> bool:
        """Whether the promised interval proves that what follows ``kept`` is no nearer than a sample already found."""
        if not self._min_interval_ns or distance_ns > self.slop_ns:
            return False
        return kept.start_ns + self._min_interval_ns - stamp_ns >= distance_ns

    def _missing(self, stamp_ns: int, nearest: _Kept[_Nearest] | None, settled: bool) -> ModalityStatus:
        if nearest is None or self._first_ns is None or self._first_ns > stamp_ns + self.slop_ns:
            return _missing(self.modality, "never_seen", f"no {self.modality} sample up to this stamp since the start")
        away_ms = nearest.distance_ns(stamp_ns) / 1e6
        if not settled:
            return _missing(
                self.modality, "late", f"the newest {self.modality} sample is {away_ms:.1f} ms older than the image"
            )
        slop_ms, later = self.slop_ns / 1e6, "later" if nearest.start_ns > stamp_ns else "earlier"
        return _missing(
            self.modality,
            "outside_slop",
            f"expected a {self.modality} sample within {slop_ms:g} ms of the image, the nearest is {away_ms:.1f} ms {later}",
        )


class WindowTrack(Track[EventSample]):
    """Events: those of a window that ends at the stamp, out of the packets up to the first that reaches to or past it.

    Sensor times may run backwards by some microseconds, and a packet's stamp may lie after its first events, so events are
    picked by their own time, not by their place. What a later packet still brings from before the stamp is left out: only so
    does it not matter whether it has come already.

    A window by count keeps the last ``most_events`` of these, in the order of the sensor.
    """

    def __init__(self, window_ns: int, most_events: int | None, max_wait_ns: int) -> None:
        super().__init__("event", max(_FEWEST_PACKETS, _PACKETS_PER_S * (window_ns + 2 * max_wait_ns) // 10**9), window_ns)
        self._window_ns = window_ns
        self._most_events = most_events

    def add(self, sample: EventSample) -> None:
        """Keep a packet."""
        self._keep(sample, *covered_ns(sample))

    def settled(self, stamp_ns: int) -> bool:
        """Whether a packet has come that reaches to or past the stamp."""
        return self._reach_ns is not None and self._reach_ns >= stamp_ns

    def placement(self, image: ImageSample) -> Placement | None:
        """Say of which sensor the window is, None where no packet reaches into it; it ends at the image's stamp."""
        packets = self._overlapping(image.stamp_ns)
        return Placement.of(packets[-1].sample, image) if packets else None

    def take(self, stamp_ns: int) -> tuple[EventWindow | None, ModalityStatus]:
        """Give the window that ends at this stamp, None with the reason where no packet reaches into it."""
        packets = self._overlapping(stamp_ns)
        if not packets:
            return None, self._missing(stamp_ns)
        return self._join(packets, stamp_ns), ModalityStatus("event", present=True, reason="", skew_ns=0)

    def forget(self, floor_ns: int) -> int:
        """Drop what no window that ends at ``floor_ns`` or later can use; how many of them were never used."""
        unused = 0
        while self._kept and self._kept[0].end_ns < floor_ns - self._window_ns:
            unused += not self._kept.popleft().used
        return unused

    def _overlapping(self, stamp_ns: int) -> list[_Kept[EventSample]]:
        """Packets that reach into the window, up to the first one that settles it; one sensor's, the newest's."""
        found = []
        for packet in self._kept:
            if packet.end_ns >= stamp_ns - self._window_ns and packet.start_ns < stamp_ns:
                found.append(packet)
            if packet.end_ns >= stamp_ns:
                break
        return [packet for packet in found if _sensor(packet.sample) == _sensor(found[-1].sample)]

    def _join(self, packets: list[_Kept[EventSample]], stamp_ns: int) -> EventWindow:
        start_ns, last = stamp_ns - self._window_ns, packets[-1].sample
        parts, room = [], self._most_events
        for packet in reversed(packets):
            if room == 0:
                break
            part = _inside(packet, start_ns, stamp_ns, room)
            parts.append(part)
            room = None if room is None else room - part[0].size
            self._use(packet)
        x, y, polarity, time_ns = (np.concatenate(arrays) for arrays in zip(*reversed(parts), strict=True))
        if room == 0:
            start_ns = int(time_ns.min())
        return EventWindow(start_ns, stamp_ns, last.frame_id, last.width, last.height, x, y, polarity, time_ns)

    def _missing(self, stamp_ns: int) -> ModalityStatus:
        if self._first_ns is None or self._first_ns >= stamp_ns:
            return _missing("event", "never_seen", "no event packet up to this stamp since the start")
        if not self.settled(stamp_ns):
            return _missing(
                "event", "late", f"no event packet reaches into the {self._window_ns / 1e6:g} ms before the image yet"
            )
        return _missing("event", "outside_slop", f"no event packet lies in the {self._window_ns / 1e6:g} ms before the image")


AnyTrack: TypeAlias = NearestTrack[DepthSample] | NearestTrack[CloudSample] | WindowTrack


def covered_ns(sample: EventSample) -> tuple[int, int]:
    """Start and end of what a packet covers, its first and last event included.

    A stamp may lie after the last event, by what the driver took to send; it does not mean that all events up to it have come.
    """
    start_ns, end_ns = min(sample.stamp_ns, sample.end_ns), sample.end_ns
    if not sample.time_ns.size:
        return start_ns, end_ns
    return min(start_ns, int(sample.time_ns.min())), max(end_ns, int(sample.time_ns.max()))


_EventArrays = tuple[U16, U16, U8, I64]


def _inside(packet: _Kept[EventSample], start_ns: int, end_ns: int, most: int | None) -> _EventArrays:
    """x, y, polarity and time of the last ``most`` events of a packet that lie in the window (None: of all)."""
    sample = packet.sample
    inside: slice | I64 = slice(None)
    if packet.start_ns < start_ns or packet.end_ns >= end_ns:  # whole packets go through without a look at each event
        inside = np.flatnonzero((sample.time_ns >= start_ns) & (sample.time_ns < end_ns))
    x, y, polarity, time_ns = sample.x[inside], sample.y[inside], sample.polarity[inside], sample.time_ns[inside]
    if most is None or time_ns.size <= most:
        return x, y, polarity, time_ns
    return x[-most:], y[-most:], polarity[-most:], time_ns[-most:]


def _sensor(sample: EventSample) -> tuple[str, int, int]:
    return sample.frame_id, sample.width, sample.height


def _missing(modality: Modality, reason: MissingReason, detail: str) -> ModalityStatus:
    return ModalityStatus(modality, present=False, reason=reason, skew_ns=None, detail=detail)

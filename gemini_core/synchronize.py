"""Sensor samples become frames: what every sensor saw at the stamp of one reference image.

The rules stand in docs/architecture.md, "How a frame comes to be". Two thoughts carry this file:

* What a frame gets of a modality depends only on that topic's own sequence: its samples are looked at in their order, up to
  the first one that settles the question. So the interleaving of topics cannot change what a frame holds, as long as every
  sample that it could use arrives before the newest stamp of any topic has passed the frame's by ``sync.max_wait_ms``.
  (Only the word for an absence can differ: "outside_slop" when a later sample proved it in time, "late" when none did.)
* Time passes by the stamps of sensor samples alone. Transforms do not move it, since localisation dates them into the
  future (tf2's transform tolerance), nor does /tf_static, which may be as old as the robot.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from gemini_core.config import FusionConfig
from gemini_core.types import (
    Bool,
    CloudSample,
    Count,
    DepthSample,
    EventSample,
    EventWindow,
    ImageSample,
    MissingReason,
    Modality,
    ModalityStatus,
    SensorFrame,
    SensorSample,
)

Calibrated = Callable[[Modality, str, str, int], bool]
"""(modality, its frame_id, the reference's frame_id, stamp_ns) -> whether intrinsics and transforms are known."""


def always_calibrated(_modality: Modality, _frame_id: str, _reference_frame_id: str, _stamp_ns: int) -> bool:
    """Stand in for a calibration where only the synchronisation is looked at."""
    return True


class Synchronizer:
    """Turns samples into frames; push them in the order in which they arrive.

    Args:
        config: which modalities there are, and their rules.
        calibrated: whether a modality's data can be placed in the reference camera; a frame waits for it as it waits for
            samples.
    """

    def __init__(self, config: FusionConfig, calibrated: Calibrated = always_calibrated) -> None:
        self._calibrated = calibrated
        self._modalities = config.modalities
        self._max_wait_ns = _ns(config.sync.max_wait_ms)
        self._max_pending = config.sync.max_pending_frames
        self._reset_jump_ns = _ns(config.sync.reset_jump_ms)
        self._depth = _NearestTrack[DepthSample]("depth", _ns(config.depth.slop_ms), _ns(config.depth.min_interval_ms))
        self._lidar = _NearestTrack[CloudSample]("lidar", _ns(config.lidar.slop_ms), _ns(config.lidar.min_interval_ms))
        self._event = _WindowTrack(_ns(config.event.window_ms))
        tracks: tuple[_Track, ...] = (self._depth, self._lidar, self._event)
        self._tracks = {track.modality: track for track in tracks if track.modality in self._modalities}
        self._pending: deque[ImageSample] = deque()
        self._topic_newest_ns: dict[Modality, int] = {}
        self._newest_ns = 0
        self._index = 0
        self._tally: Counter[str] = Counter()

    @property
    def resets(self) -> int:
        """How often the clock jumped back so far."""
        return self._tally["resets"]

    def push(self, sample: SensorSample) -> list[SensorFrame]:
        """Take one sample and give back the frames that it closes, in the order of their stamps.

        When the sample shows that the clock jumped back, everything begins anew with it (see ``restart``).
        """
        closed = self.restart() if self.jumped_back(sample) else []
        if self._accept(sample):
            closed += self.recheck()
        return closed

    def recheck(self) -> list[SensorFrame]:
        """Give back the frames that can close now; to be called when calibration may have become known."""
        closed = []
        while self._pending and (how := self._closing(self._pending[0])):
            self._tally[f"frames.{how}"] += 1
            closed.append(self._close(self._pending.popleft()))
        self._forget()
        return closed

    def flush(self) -> list[SensorFrame]:
        """Close every frame that waits, with what it has."""
        self._tally["frames.flushed"] += len(self._pending)
        closed = [self._close(image) for image in self._pending]
        self._pending.clear()
        self._forget()
        return closed

    def jumped_back(self, sample: SensorSample) -> bool:
        """Whether the sample is older than the newest of its topic by more than ``sync.reset_jump_ms``."""
        newest = self._topic_newest_ns.get(_modality(sample))
        return newest is not None and newest - sample.stamp_ns > self._reset_jump_ns

    def restart(self) -> list[SensorFrame]:
        """Begin anew because the clock jumped back: close what waits with what it has, forget the rest, count a reset."""
        closed = self.flush()
        self.clear()
        self._tally["resets"] += 1
        return closed

    def clear(self) -> None:
        """Forget all samples and stamps; what waited is counted as dropped. The counts and the frame index run on."""
        self._tally["rgb.dropped.reset"] += len(self._pending)
        self._pending.clear()
        for modality, track in self._tracks.items():
            self._tally[f"{modality}.dropped.reset"] += track.clear()
        self._topic_newest_ns.clear()

    def counts(self) -> tuple[Count, ...]:
        """Everything counted since the start, by stable keys.

        For every modality ``received`` equals ``used`` plus ``waiting`` plus every ``dropped.*``, at any moment.
        """
        totals = self._tally + Counter({"rgb.waiting": len(self._pending)})
        for modality, track in self._tracks.items():
            totals += Counter({f"{modality}.used": track.used, f"{modality}.waiting": track.waiting()})
        return tuple(Count(what, number) for what, number in sorted(totals.items()))

    def _accept(self, sample: SensorSample) -> bool:
        """File one sample; False when it had to be dropped."""
        modality = _modality(sample)
        self._tally[f"{modality}.received"] += 1
        newest = self._topic_newest_ns.get(modality)
        reason = ""
        if modality not in self._modalities:
            reason = "not_configured"
        elif newest is not None and sample.stamp_ns <= newest:
            reason = "duplicate" if sample.stamp_ns == newest else "out_of_order"
        if reason:
            self._tally[f"{modality}.dropped.{reason}"] += 1
            return False
        self._newest_ns = max(self._newest_ns, sample.stamp_ns) if self._topic_newest_ns else sample.stamp_ns
        self._topic_newest_ns[modality] = sample.stamp_ns
        if isinstance(sample, ImageSample):
            self._pending.append(sample)
        elif isinstance(sample, DepthSample):
            self._tally["depth.closer_than_min_interval"] += self._depth.add(sample, sample.stamp_ns, sample.stamp_ns)
        elif isinstance(sample, CloudSample):
            self._tally["lidar.closer_than_min_interval"] += self._lidar.add(sample, sample.start_ns, sample.end_ns)
        else:
            self._event.add(sample)
        return True

    def _closing(self, image: ImageSample) -> str:
        """By which rule the oldest waiting frame closes now, "" while it has to wait."""
        if all(track.settled(image.stamp_ns) for track in self._tracks.values()) and self._all_calibrated(image):
            return "settled"
        if self._newest_ns - image.stamp_ns >= self._max_wait_ns:
            return "forced"
        return "crowded_out" if len(self._pending) > self._max_pending else ""

    def _all_calibrated(self, image: ImageSample) -> bool:
        frame_ids: list[tuple[Modality, str | None]] = [("rgb", image.frame_id)]
        frame_ids += [(modality, track.frame_id(image.stamp_ns)) for modality, track in self._tracks.items()]
        return all(
            self._calibrated(modality, frame_id, image.frame_id, image.stamp_ns)
            for modality, frame_id in frame_ids
            if frame_id is not None
        )

    def _close(self, image: ImageSample) -> SensorFrame:
        stamp_ns = image.stamp_ns
        depth, depth_status = self._depth.take(stamp_ns)
        lidar, lidar_status = self._lidar.take(stamp_ns)
        event, event_status = self._event.take(stamp_ns)
        by_modality = {"depth": depth_status, "lidar": lidar_status, "event": event_status}
        by_modality["rgb"] = ModalityStatus("rgb", present=True, reason="", skew_ns=0)
        status = tuple(by_modality[modality] for modality in self._modalities)
        self._index += 1
        self._tally["rgb.used"] += 1
        self._tally["frames.closed"] += 1
        self._tally["frames.complete"] += all(entry.present for entry in status)
        return SensorFrame(self._index - 1, stamp_ns, image.frame_id, image, depth, lidar, event, status)

    def _forget(self) -> None:
        """Drop what no frame can use any more: neither one that waits nor a reference image that arrives in time."""
        if not self._topic_newest_ns:
            return
        if self._pending:
            floor_ns = self._pending[0].stamp_ns
        else:
            earliest_ns = self._newest_ns - self._max_wait_ns
            floor_ns = max(self._topic_newest_ns.get("rgb", earliest_ns), earliest_ns)
        for modality, track in self._tracks.items():
            self._tally[f"{modality}.dropped.unused"] += track.forget(floor_ns)


# --------------------------------------------------------------------------------------------------------------------
# Tracks: the waiting samples of one modality and its rule


class _Track(Protocol):
    """What the synchronizer asks of every modality but the reference."""

    modality: Modality
    used: int

    def settled(self, stamp_ns: int) -> bool:
        """Whether later samples cannot change what a frame at this stamp gets."""

    def frame_id(self, stamp_ns: int) -> str | None:
        """Give the frame of the data that a frame at this stamp gets, None where it gets none."""

    def forget(self, floor_ns: int) -> int:
        """Drop what no stamp from ``floor_ns`` on can use; how many of them were never used."""

    def clear(self) -> int:
        """Drop everything; how many were never used."""

    def waiting(self) -> int:
        """How many samples are kept that no frame has used yet."""


_Sample = TypeVar("_Sample", DepthSample, CloudSample)


@dataclass(slots=True, eq=False)
class _Entry(Generic[_Sample]):
    """One kept sample and the time that it covers."""

    sample: _Sample
    start_ns: int
    end_ns: int
    used: bool = False

    def distance_ns(self, stamp_ns: int) -> int:
        return max(self.start_ns - stamp_ns, stamp_ns - self.end_ns, 0)


class _NearestTrack(Generic[_Sample]):
    """Depth images and sweeps: the first that covers the stamp, else the nearest; the earlier one where two are as near."""

    def __init__(self, modality: Modality, slop_ns: int, min_interval_ns: int) -> None:
        self.modality = modality
        self.used = 0
        self._slop_ns = slop_ns
        self._min_interval_ns = min_interval_ns
        self._entries: deque[_Entry[_Sample]] = deque()
        self._first_ns: int | None = None

    def add(self, sample: _Sample, start_ns: int, end_ns: int) -> bool:
        """Keep a sample; True when it breaks the promise that samples are never closer than the configured interval."""
        if self._first_ns is None:
            self._first_ns = start_ns
        too_close = bool(self._entries) and start_ns - self._entries[-1].start_ns < self._min_interval_ns
        self._entries.append(_Entry(sample, start_ns, end_ns))
        return too_close

    def settled(self, stamp_ns: int) -> bool:
        return self._choose(stamp_ns)[1]

    def frame_id(self, stamp_ns: int) -> str | None:
        entry, _ = self._choose(stamp_ns)
        return entry.sample.frame_id if entry is not None and entry.distance_ns(stamp_ns) <= self._slop_ns else None

    def take(self, stamp_ns: int) -> tuple[_Sample | None, ModalityStatus]:
        """Give what a frame at this stamp gets, None with the reason where it gets nothing."""
        entry, settled = self._choose(stamp_ns)
        if entry is None or entry.distance_ns(stamp_ns) > self._slop_ns:
            return None, self._missing(stamp_ns, entry, settled)
        self.used += not entry.used
        entry.used = True
        skew_ns = entry.sample.stamp_ns - stamp_ns if entry.distance_ns(stamp_ns) else 0
        return entry.sample, ModalityStatus(self.modality, present=True, reason="", skew_ns=skew_ns)

    def forget(self, floor_ns: int) -> int:
        unused = 0
        # The last sample out of reach stays: it says how far away the nearest one was.
        while len(self._entries) > 1 and self._entries[1].end_ns + self._slop_ns < floor_ns:
            unused += not self._entries.popleft().used
        return unused

    def clear(self) -> int:
        unused = self.waiting()
        self._entries.clear()
        self._first_ns = None
        return unused

    def waiting(self) -> int:
        return sum(not entry.used for entry in self._entries)

    def _choose(self, stamp_ns: int) -> tuple[_Entry[_Sample] | None, bool]:
        """Find the nearest sample, up to the one that settles it; and whether one did."""
        best: _Entry[_Sample] | None = None
        for entry in self._entries:
            if best is None or entry.distance_ns(stamp_ns) < best.distance_ns(stamp_ns):
                best = entry
            if entry.end_ns >= stamp_ns or self._next_is_farther(entry, stamp_ns, best.distance_ns(stamp_ns)):
                return best, True
        return best, False

    def _next_is_farther(self, entry: _Entry[_Sample], stamp_ns: int, distance_ns: int) -> bool:
        """Whether the promised interval proves that what follows ``entry`` is no nearer than a sample already found."""
        if not self._min_interval_ns or distance_ns > self._slop_ns:
            return False
        return entry.start_ns + self._min_interval_ns - stamp_ns >= distance_ns

    def _missing(self, stamp_ns: int, nearest: _Entry[_Sample] | None, settled: bool) -> ModalityStatus:
        if nearest is None or self._first_ns is None or self._first_ns > stamp_ns + self._slop_ns:
            return _missing(self.modality, "never_seen", f"no {self.modality} sample up to this stamp since the start")
        away_ms = nearest.distance_ns(stamp_ns) / 1e6
        if not settled:
            return _missing(
                self.modality, "late", f"the newest {self.modality} sample is {away_ms:.1f} ms older than the image"
            )
        slop_ms = self._slop_ns / 1e6
        return _missing(
            self.modality,
            "outside_slop",
            f"expected a {self.modality} sample within {slop_ms:g} ms of the image, the nearest is {away_ms:.1f} ms away",
        )


@dataclass(slots=True, eq=False)
class _Packet:
    """One kept event packet and the time that it covers, its last event or ``end_ns`` included."""

    sample: EventSample
    start_ns: int
    end_ns: int
    used: bool = False


class _WindowTrack:
    """Events: those of a window that ends at the stamp, out of the packets up to the first that reaches to or past it.

    Sensor times may run backwards by some microseconds, and a packet's stamp may lie after its first events, so events are
    picked by their own time, not by their place. What a later packet still brings from before the stamp is left out: only so
    does it not matter whether it has come already.
    """

    modality: Modality = "event"

    def __init__(self, window_ns: int) -> None:
        self.used = 0
        self._window_ns = window_ns
        self._packets: deque[_Packet] = deque()
        self._first_ns: int | None = None
        self._reach_ns: int | None = None

    def add(self, sample: EventSample) -> None:
        """Keep a packet."""
        start_ns, end_ns = sample.stamp_ns, max(sample.end_ns, sample.stamp_ns)
        if sample.time_ns.size:
            start_ns, end_ns = min(start_ns, int(sample.time_ns.min())), max(end_ns, int(sample.time_ns.max()))
        if self._first_ns is None:
            self._first_ns = start_ns
        self._reach_ns = end_ns if self._reach_ns is None else max(self._reach_ns, end_ns)
        self._packets.append(_Packet(sample, start_ns, end_ns))

    def settled(self, stamp_ns: int) -> bool:
        return self._reach_ns is not None and self._reach_ns >= stamp_ns

    def frame_id(self, stamp_ns: int) -> str | None:
        packets = self._overlapping(stamp_ns)
        return packets[-1].sample.frame_id if packets else None

    def take(self, stamp_ns: int) -> tuple[EventWindow | None, ModalityStatus]:
        """Give the window that ends at this stamp, None with the reason where no packet reaches into it."""
        packets = self._overlapping(stamp_ns)
        if not packets:
            return None, self._missing(stamp_ns)
        for packet in packets:
            self.used += not packet.used
            packet.used = True
        return self._join(packets, stamp_ns), ModalityStatus("event", present=True, reason="", skew_ns=0)

    def forget(self, floor_ns: int) -> int:
        unused = 0
        while self._packets and self._packets[0].end_ns < floor_ns - self._window_ns:
            unused += not self._packets.popleft().used
        return unused

    def clear(self) -> int:
        unused = self.waiting()
        self._packets.clear()
        self._first_ns = self._reach_ns = None
        return unused

    def waiting(self) -> int:
        return sum(not packet.used for packet in self._packets)

    def _overlapping(self, stamp_ns: int) -> list[_Packet]:
        """Packets that reach into the window, up to the first one that settles it; one sensor's, the newest's."""
        found = []
        for packet in self._packets:
            if packet.end_ns >= stamp_ns - self._window_ns and packet.start_ns < stamp_ns:
                found.append(packet)
            if packet.end_ns >= stamp_ns:
                break
        return [packet for packet in found if _sensor(packet.sample) == _sensor(found[-1].sample)]

    def _join(self, packets: list[_Packet], stamp_ns: int) -> EventWindow:
        start_ns = stamp_ns - self._window_ns
        inside = [_inside(packet, start_ns, stamp_ns) for packet in packets]
        last = packets[-1].sample
        return EventWindow(
            start_ns=start_ns,
            end_ns=stamp_ns,
            frame_id=last.frame_id,
            width=last.width,
            height=last.height,
            x=np.concatenate([packet.sample.x[part] for packet, part in zip(packets, inside, strict=True)]),
            y=np.concatenate([packet.sample.y[part] for packet, part in zip(packets, inside, strict=True)]),
            polarity=np.concatenate([packet.sample.polarity[part] for packet, part in zip(packets, inside, strict=True)]),
            time_ns=np.concatenate([packet.sample.time_ns[part] for packet, part in zip(packets, inside, strict=True)]),
        )

    def _missing(self, stamp_ns: int) -> ModalityStatus:
        if self._first_ns is None or self._first_ns >= stamp_ns:
            return _missing("event", "never_seen", "no event packet up to this stamp since the start")
        if not self.settled(stamp_ns):
            return _missing(
                "event", "late", f"no event packet reaches into the {self._window_ns / 1e6:g} ms before the image yet"
            )
        return _missing("event", "outside_slop", f"no event packet lies in the {self._window_ns / 1e6:g} ms before the image")


def _inside(packet: _Packet, start_ns: int, end_ns: int) -> slice | Bool:
    """Which of a packet's events lie in the window; whole packets go through without a look at each event."""
    if packet.start_ns >= start_ns and packet.end_ns < end_ns:
        return slice(None)
    time_ns = packet.sample.time_ns
    inside: Bool = (time_ns >= start_ns) & (time_ns < end_ns)
    return inside


def _sensor(sample: EventSample) -> tuple[str, int, int]:
    return sample.frame_id, sample.width, sample.height


def _missing(modality: Modality, reason: MissingReason, detail: str) -> ModalityStatus:
    return ModalityStatus(modality, present=False, reason=reason, skew_ns=None, detail=detail)


def _modality(sample: SensorSample) -> Modality:
    if isinstance(sample, ImageSample):
        return "rgb"
    if isinstance(sample, DepthSample):
        return "depth"
    return "lidar" if isinstance(sample, CloudSample) else "event"


def _ns(milliseconds: float) -> int:
    return round(milliseconds * 1e6)

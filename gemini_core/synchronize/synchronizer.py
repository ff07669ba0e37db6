"""Synchronization of samples into frames: what every sensor saw at the stamp of one reference image.

The rules stand in docs/synchronization.md. Two thoughts carry this file:

* What a frame gets of a modality depends only on that topic's own sequence (``tracks``). So the interleaving of topics cannot
  change what a frame holds, as long as every sample that it could use arrives before the newest stamp of any topic has passed
  the frame's by ``sync.max_wait_ms``. (Only the word for an absence can differ: "outside_slop" when a later sample proved it
  in time, "late" when none did.)
* Time passes by the stamps of sensor samples alone (``clock``). Transforms do not move it, since localisation dates them
  into the future (tf2's transform tolerance), nor does /tf_static, which may be as old as the robot.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from gemini_core.config.fusion import FusionConfig
from gemini_core.synchronize.clock import StreamTime
from gemini_core.synchronize.clock_offset import SINCE_1970_NS, ClockOffsets
from gemini_core.synchronize.tracks import AnyTrack, NearestTrack, WindowTrack
from gemini_core.types import (
    CloudSample,
    Count,
    DepthSample,
    Doubt,
    FrameHeader,
    ImageSample,
    Modality,
    ModalityStatus,
    Placement,
    SensorFrame,
    SensorSample,
)

Ready = Callable[[Placement], bool]
"""Whether what is known is enough to bring this data to the reference camera; a frame waits for it."""


def always_ready(_data: Placement) -> bool:
    """Stand in for a calibration where only the synchronisation is looked at."""
    return True


@dataclass(slots=True, eq=False)
class _Waiting:
    """A reference image that waits, and the topics that were ahead of it when it came, with their stamps of then."""

    image: ImageSample
    ahead: dict[Modality, int] = field(default_factory=dict)


class Synchronizer:
    """Turns samples into frames; push them in the order in which they arrive.

    Args:
        config: which modalities there are, and their rules.
        ready: whether calibration and odometry let a modality's data be placed in the reference camera; a frame waits for
            them as it waits for samples.
    """

    def __init__(self, config: FusionConfig, ready: Ready = always_ready) -> None:
        self._ready = ready
        self._modalities = config.modalities
        self._max_wait_ns = max_wait_ns = _ns(config.sync.max_wait_ms)
        self._max_pending = config.sync.max_pending_frames
        depth, lidar, event = config.depth, config.lidar, config.event
        self._depth = NearestTrack[DepthSample]("depth", _ns(depth.slop_ms), _ns(depth.min_interval_ms), max_wait_ns)
        self._lidar = NearestTrack[CloudSample]("lidar", _ns(lidar.slop_ms), _ns(lidar.min_interval_ms), max_wait_ns)
        most_events = event.count if event.window == "count" else None
        self._event = WindowTrack(_ns(event.window_ms), most_events, max_wait_ns)
        tracks: tuple[AnyTrack, ...] = (self._depth, self._lidar, self._event)
        self._tracks = {track.modality: track for track in tracks if track.modality in self._modalities}
        self._pending: deque[_Waiting] = deque()
        self._time = StreamTime(max_wait_ns, _ns(config.sync.reset_jump_ms))
        self._clocks = ClockOffsets(max_wait_ns)
        self._index = 0
        self._tally: Counter[str] = Counter()

    @property
    def resets(self) -> int:
        """How often the clock jumped back so far."""
        return self._tally["resets"]

    def push(self, sample: SensorSample) -> list[SensorFrame]:
        """Take one sample and give back the frames that it closes, in the order of their stamps.

        Whoever pushes asks before whether the clock ``jumped_back`` and calls ``restart`` then, since more than this has to
        begin anew.
        """
        return self.recheck() if self._accept(sample) else []

    def recheck(self) -> list[SensorFrame]:
        """Give back the frames that can close now; to be called when calibration may have become known."""
        closed = []
        while self._pending and (how := self._closing(self._pending[0])):
            self._tally[f"frames.{how}"] += 1
            closed.append(self._close(self._pending.popleft().image))
        self._forget()
        return closed

    def flush(self) -> list[SensorFrame]:
        """Close every frame that waits, with what it has."""
        self._tally["frames.flushed"] += len(self._pending)
        closed = [self._close(waiting.image) for waiting in self._pending]
        self._pending.clear()
        self._forget()
        return closed

    def jumped_back(self, sample: SensorSample) -> bool:
        """Whether the sample shows that the clock jumped back (see ``StreamTime``)."""
        modality = _modality(sample)
        return not self._is_unstamped(modality, sample.stamp_ns) and self._time.jumped_back(modality, sample.stamp_ns)

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
        self._time.clear()
        self._clocks.clear()

    def doubts(self) -> tuple[Doubt, ...]:
        """What the latest stamps say of the clocks of the sensors."""
        return self._clocks.doubts()

    def counts(self) -> tuple[Count, ...]:
        """Everything counted since the start, by stable keys.

        For every modality ``received`` equals ``used`` plus ``waiting`` plus every ``dropped.*``, at any moment.
        """
        totals = self._tally + Counter({"rgb.waiting": len(self._pending)})
        for modality, track in self._tracks.items():
            totals += Counter({f"{modality}.used": track.used, f"{modality}.waiting": track.waiting()})
        return tuple(Count(what, number) for what, number in sorted(totals.items()))

    # ----------------------------------------------------------------------------------------------------------------
    # Samples

    def _accept(self, sample: SensorSample) -> bool:
        """File one sample; False when it had to be dropped."""
        modality = _modality(sample)
        self._tally[f"{modality}.received"] += 1
        self._clocks.received(modality, sample.stamp_ns)
        if self._is_unstamped(modality, sample.stamp_ns):
            self._tally[f"{modality}.dropped.no_stamp"] += 1
            return False
        wrong_from_ns = self._time.takes_back(modality, sample.stamp_ns)
        if wrong_from_ns is not None:
            self._take_back(modality, wrong_from_ns)
        reason = self._refusal(modality, sample.stamp_ns)
        if reason:
            self._tally[f"{modality}.dropped.{reason}"] += 1
            return False
        self._begin_or_go_on(modality, sample.stamp_ns)
        self._clocks.accepted(modality, sample.stamp_ns)
        if isinstance(sample, ImageSample):
            ahead = self._time.ahead(sample.stamp_ns)
            self._tally.update(f"{topic}.ahead_of_images" for topic in ahead)
            self._pending.append(_Waiting(sample, ahead))
        elif isinstance(sample, DepthSample):
            self._tally["depth.closer_than_min_interval"] += self._depth.add(sample, sample.stamp_ns, sample.stamp_ns)
        elif isinstance(sample, CloudSample):
            self._tally["lidar.closer_than_min_interval"] += self._lidar.add(sample, sample.start_ns, sample.end_ns)
        else:
            self._event.add(sample)
        if modality in self._tracks:
            self._tally[f"{modality}.dropped.too_many"] += self._tracks[modality].crowd_out()
        return True

    def _is_unstamped(self, modality: Modality, stamp_ns: int) -> bool:
        return stamp_ns == 0 and (self._time.newest(modality) or 0) >= SINCE_1970_NS

    def _refusal(self, modality: Modality, stamp_ns: int) -> str:
        """Why a sample has to be dropped, "" where it can be used."""
        if modality not in self._modalities:
            return "not_configured"
        newest_ns = self._time.newest(modality)
        if newest_ns is not None and stamp_ns <= newest_ns:
            return "duplicate" if stamp_ns == newest_ns else "out_of_order"
        return ""

    def _begin_or_go_on(self, modality: Modality, stamp_ns: int) -> None:
        if self._time.newest(modality) is None:
            for waiting in self._pending:
                if stamp_ns - waiting.image.stamp_ns >= self._max_wait_ns:
                    waiting.ahead[modality] = stamp_ns
        self._time.accept(modality, stamp_ns)

    def _take_back(self, modality: Modality, stamp_ns: int) -> None:
        """Drop what a topic stamped wrong from some stamp on."""
        self._time.take_back(modality)
        dropped = 0
        if modality == "rgb":
            while self._pending and self._pending[-1].image.stamp_ns >= stamp_ns:
                self._pending.pop()
                dropped += 1
        else:
            dropped = self._tracks[modality].take_back(stamp_ns)
        self._tally[f"{modality}.dropped.stamp_taken_back"] += dropped

    # ----------------------------------------------------------------------------------------------------------------
    # Frames

    def _closing(self, waiting: _Waiting) -> str:
        """By which rule the oldest waiting frame closes now, "" while it has to wait."""
        image = waiting.image
        settled = all(
            track.settled(image.stamp_ns) and not self._time.in_doubt(modality) for modality, track in self._tracks.items()
        )
        if settled and all(map(self._ready, self._data(image))):
            return "settled"
        if self._time.has_passed(image.stamp_ns, waiting.ahead):
            return "forced"
        return "crowded_out" if len(self._pending) > self._max_pending else ""

    def _data(self, image: ImageSample) -> Iterator[Placement]:
        """What the frame of an image would take."""
        yield Placement.of(image, image)
        for track in self._tracks.values():
            if (data := track.placement(image)) is not None:
                yield data

    def _close(self, image: ImageSample) -> SensorFrame:
        stamp_ns = image.stamp_ns
        depth, depth_status = self._depth.take(stamp_ns)
        lidar, lidar_status = self._lidar.take(stamp_ns)
        event, event_status = self._event.take(stamp_ns)
        by_modality = {"depth": depth_status, "lidar": lidar_status, "event": event_status}
        by_modality["rgb"] = ModalityStatus("rgb", present=True, reason="", skew_ns=0)
        status = tuple(self._explained(by_modality[modality]) for modality in self._modalities)
        self._index += 1
        self._tally["rgb.used"] += 1
        self._tally["frames.closed"] += 1
        self._tally["frames.complete"] += all(entry.present for entry in status)
        header = FrameHeader(self._index - 1, stamp_ns, image.frame_id, status)
        return SensorFrame(header, image, depth, lidar, event)

    def _explained(self, status: ModalityStatus) -> ModalityStatus:
        """Add what stamps say of a sensor's clock, where a frame has no data of it."""
        if status.present:
            return status
        track = self._tracks[status.modality]
        why = self._clocks.explain(status.modality, track.nearest_ns, track.slop_ns)
        return replace(status, detail=f"{status.detail}; {why}") if why else status

    def _forget(self) -> None:
        """Drop what no frame can use any more: neither one that waits nor a reference image that arrives in time.

        Such an image is newer than the last one, and no topic has passed it by ``sync.max_wait_ms``. Stamps that may still be
        taken back do not count.
        """
        newest_image_ns = self._time.told("rgb")
        for modality, track in self._tracks.items():
            if (newest_ns := self._time.told(modality)) is None:
                continue
            floor_ns = newest_ns - self._max_wait_ns
            if newest_image_ns is not None:
                floor_ns = max(newest_image_ns, floor_ns)
            if self._pending:
                floor_ns = min(self._pending[0].image.stamp_ns, floor_ns)
            if unused := track.forget(floor_ns):
                self._tally[f"{modality}.dropped.unused"] += unused


def _modality(sample: SensorSample) -> Modality:
    if isinstance(sample, ImageSample):
        return "rgb"
    if isinstance(sample, DepthSample):
        return "depth"
    return "lidar" if isinstance(sample, CloudSample) else "event"


def _ns(milliseconds: float) -> int:
    return round(milliseconds * 1e6)

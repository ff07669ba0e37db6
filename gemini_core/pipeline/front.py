"""The front half of the pipeline: messages in, complete frames out (decode, synchronize, resolve calibration).

It owns everything that goes with the clock, so that a jump back makes all of it begin anew at one place: the decoders, the
synchronizer, and what is known of the robot's motion. ``Back`` makes perceptions of the frames; the two share nothing that
changes, so each may have a thread of its own.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping

from gemini_core.config import FusionConfig
from gemini_core.decode.intake import Intake, Refusal
from gemini_core.decode.message import Message
from gemini_core.decode.sensor_clock import ClockState
from gemini_core.pipeline.published_boxes import NO_POINTS, why_no_boxes
from gemini_core.rig.axes import axes_doubts
from gemini_core.rig.calibration import CalibrationStore
from gemini_core.synchronize.shared_topics import SharedTopics
from gemini_core.synchronize.synchronizer import Synchronizer
from gemini_core.types import (
    CameraInfoSample,
    Count,
    Doubt,
    ImageSample,
    Role,
    Sample,
    SensorFrame,
    StageTime,
    TransformSample,
)


class Front:
    """Takes messages as they arrive and gives frames, in the order of the reference stamps.

    Args:
        config: the configuration.
        types: the message type of a role, where it is known better than the configuration knows it (``Intake``).
        clock: nanoseconds of any steady clock, to time the stages by; None: frames have no timings.
    """

    def __init__(
        self, config: FusionConfig, types: Mapping[Role, str] | None = None, clock: Callable[[], int] | None = None
    ) -> None:
        self._clock = clock
        self._intake = Intake(config, types)
        self._calibration = CalibrationStore(config)
        self._synchronizer = Synchronizer(config, lambda data: not self._calibration.must_wait(data))
        topics = config.topics_by_role()
        self._shared = SharedTopics(
            {
                "rgb": topics.get("rgb.image", "rgb"),
                "depth": topics.get("depth.image", "depth"),
                "event": topics.get("event.packets", "event"),
                "lidar": topics.get("lidar.points", "lidar"),
            }
        )
        self._axes: tuple[Doubt, ...] = ()
        self._tally: Counter[str] = Counter()
        self._spent_ns = {"decode": 0, "synchronize": 0}

    @property
    def resets(self) -> int:
        """How often the clock jumped back so far."""
        return self._synchronizer.resets

    def push(self, role: Role, message: Message) -> list[SensorFrame]:
        """Take one message and give back the frames that it closes, complete with their calibration.

        What cannot be read is counted and closes nothing (``last_refusals``).
        """
        began_ns = self._now()
        sample = self.decode(role, message)
        decoded_ns = self._now()
        self._spent_ns["decode"] += decoded_ns - began_ns
        if sample is None:
            return []
        closed = self.push_sample(sample)
        self._spent_ns["synchronize"] += self._now() - decoded_ns
        return self._timed(closed)

    def decode(self, role: Role, message: Message) -> Sample | None:
        """Do the first step of ``push`` alone, for whoever times it by role; ``push_sample`` takes what comes out."""
        return self._intake.accept(role, message)

    def push_sample(self, sample: Sample) -> list[SensorFrame]:
        """Take what is decoded already, like ``push``; such frames have no timings."""
        if isinstance(sample, CameraInfoSample | TransformSample):
            self._calibration.push(sample)
            return self._resolved(self._synchronizer.recheck())
        self._shared.saw(sample)
        before = self._begin_anew() if self._synchronizer.jumped_back(sample) else []
        if isinstance(sample, ImageSample):
            self._calibration.begin(sample.stamp_ns)
        return before + self._resolved(self._synchronizer.push(sample))

    def finish(self) -> list[SensorFrame]:
        """Close the frames that wait, with what they have, as at the end of a bag; the stream may go on afterwards."""
        return self._timed(self._resolved(self._synchronizer.flush()))

    def expects_motion(self, frame: SensorFrame) -> bool:
        """Whether the transforms so far say that the frame's camera may move."""
        return self._calibration.expects_motion(frame.frame_id)

    def last_refusals(self) -> tuple[Refusal, ...]:
        """The latest message that was refused, of every role and reason."""
        return self._intake.last_refusals()

    def doubts(self) -> tuple[Doubt, ...]:
        """What is probably wrong with the latest data, that frames took all the same or not."""
        return (*self._synchronizer.doubts(), *self._shared.doubts(), *self._calibration.doubts(), *self._axes)

    def clocks(self) -> tuple[tuple[Role, ClockState], ...]:
        """How the clocks of sensors that have their own go against the ROS clock; none before their first data."""
        return self._intake.clocks()

    def counts(self) -> tuple[Count, ...]:
        """Everything counted since the start.

        The intake's, the synchronizer's and the calibration's counts, ``<modality>.missing.<reason>`` (closed frames without
        the modality), ``<modality>.motion.<note>`` (closed frames by what was done about motion), and
        ``detections.missing.no_transform`` and ``detections.missing.no_points`` (frames whose boxes cannot be made or placed).
        """
        tally = tuple(Count(what, number) for what, number in sorted(self._tally.items()))
        return (*self._intake.counts(), *self._synchronizer.counts(), *self._calibration.counts(), *tally)

    def _begin_anew(self) -> list[SensorFrame]:
        """The clock jumped back: close what waits by what was known, then forget samples, stamps and moving transforms."""
        closed = self._resolved(self._synchronizer.restart())
        self._calibration.clear()
        self._intake.reset()
        return closed

    def _resolved(self, frames: list[SensorFrame]) -> list[SensorFrame]:
        resolved = [self._calibration.resolve(frame) for frame in frames]
        for frame in resolved:
            self._axes = axes_doubts(frame)
            self._tally.update(f"{entry.modality}.missing.{entry.reason}" for entry in frame.status if not entry.present)
            self._tally.update(f"{entry.modality}.motion.{entry.motion}" for entry in frame.status if entry.motion)
            if lack := why_no_boxes(frame):
                self._tally[f"detections.missing.{'no_points' if lack == NO_POINTS else 'no_transform'}"] += 1
        return resolved

    def _timed(self, frames: list[SensorFrame]) -> list[SensorFrame]:
        """Give the first frame what the stages cost since the frame before, and those that close with it nothing."""
        if self._clock is None:
            return frames
        timed = []
        for frame in frames:
            timings = tuple(StageTime(stage, spent_ns) for stage, spent_ns in self._spent_ns.items())
            timed.append(dataclasses.replace(frame, timings=timings))
            self._spent_ns = dict.fromkeys(self._spent_ns, 0)
        return timed

    def _now(self) -> int:
        return 0 if self._clock is None else self._clock()

"""The whole program: samples in, perceptions out.

``push`` is the replay tool's way. A live node calls the two halves of it on two threads: ``advance`` and ``finish`` where
messages arrive, ``process`` on its worker. The halves share nothing that changes: a frame is complete in itself, and each
half has its own counters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np

from gemini_core.config.fusion import FusionConfig
from gemini_core.pipeline.published_boxes import NO_POINTS, why_no_boxes
from gemini_core.project.projector import Projector
from gemini_core.rig.calibration import CalibrationStore
from gemini_core.synchronize.synchronizer import Synchronizer
from gemini_core.types import (
    U8,
    UNLABELLED,
    AlignedGrids,
    CameraInfoSample,
    Count,
    Detection3D,
    ImageSample,
    Perception,
    Sample,
    SensorFrame,
    StageTime,
    TransformSample,
)


class PredictionLike(Protocol):
    """What the pipeline takes from a prediction (``gemini_core.predictor.Prediction``)."""

    @property
    def mask(self) -> U8:
        """(H, W) uint8 at the size of the reference image."""

    @property
    def detections(self) -> tuple[Detection3D, ...]:
        """Boxes in the reference's frame."""


class PredictorLike(Protocol):
    """What the pipeline asks of a predictor; a protocol, so that a pipeline without a network does not load torch."""

    def predict(self, grids: AlignedGrids) -> PredictionLike:
        """Say what is in the grids."""


_Result = TypeVar("_Result")


class Pipeline:
    """Synchronize, resolve calibration, project, predict.

    Args:
        config: the configuration.
        predictor: the network; None (no ``FusionConfig.predicts``): masks are all ``UNLABELLED``, and there are no boxes.
        clock: nanoseconds of any steady clock, to time the stages by; None: no timings, and the output depends on nothing
            but the samples.
    """

    def __init__(
        self, config: FusionConfig, predictor: PredictorLike | None = None, clock: Callable[[], int] | None = None
    ) -> None:
        self._class_names = config.model.classes
        self._rectifies = config.rgb.rectify
        self._predictor = predictor
        self._clock = clock
        self._calibration = CalibrationStore(config)
        self._synchronizer = Synchronizer(config, lambda data: not self._calibration.must_wait(data))
        self._projector = Projector(config)
        self._tally: Counter[str] = Counter()
        self._processed = 0
        self._not_rectified = 0
        self._not_finite = 0

    @property
    def resets(self) -> int:
        """How often the clock jumped back so far; the event decoder has to begin anew then, too (``Intake``)."""
        return self._synchronizer.resets

    def push(self, sample: Sample) -> list[Perception]:
        """Take one sample and give back what it lets the pipeline say, in the order of the reference stamps."""
        return [self.process(frame) for frame in self.advance(sample)]

    def flush(self) -> list[Perception]:
        """Process the frames that still wait, with what they have; at the end of a bag."""
        return [self.process(frame) for frame in self.finish()]

    def advance(self, sample: Sample) -> list[SensorFrame]:
        """Take one sample and give back the frames that it closes, complete with their calibration."""
        if isinstance(sample, CameraInfoSample | TransformSample):
            self._calibration.push(sample)
            return self._resolve(self._synchronizer.recheck())
        before: list[SensorFrame] = []
        if self._synchronizer.jumped_back(sample):
            before = self._resolve(self._synchronizer.restart())
            self._calibration.clear()
        if isinstance(sample, ImageSample):
            self._calibration.begin(sample.stamp_ns)
        return before + self._resolve(self._synchronizer.push(sample))

    def finish(self) -> list[SensorFrame]:
        """Close the frames that wait, with what they have; the stream may go on afterwards."""
        return self._resolve(self._synchronizer.flush())

    def expects_motion(self, frame: SensorFrame) -> bool:
        """Whether the transforms so far say that the frame's camera may move; to be asked where ``advance`` is called."""
        return self._calibration.expects_motion(frame.frame_id)

    def process(self, frame: SensorFrame, *, with_points: bool = False) -> Perception:
        """Rectify the image if so configured, project one closed frame and predict from it.

        ``with_points`` makes ``Perception.grids.points`` also where no boxes are asked for.
        """
        timings: list[StageTime] = []
        if self._rectifies:
            frame = self._rectified(frame, timings)
        grids = self._timed("project", timings, lambda: self._projector.project(frame, with_points=with_points))
        self._not_finite += 0 if grids.points is None else grids.points.dropped
        predictor = self._predictor
        if predictor is None:
            mask: U8 = np.full(frame.rgb.pixels.shape[:2], UNLABELLED, np.uint8)
            detections: tuple[Detection3D, ...] = ()
        else:
            prediction = self._timed("predict", timings, lambda: predictor.predict(grids))
            mask, detections = prediction.mask, prediction.detections
        self._processed += 1
        return Perception(
            index=frame.index,
            stamp_ns=frame.stamp_ns,
            frame_id=frame.frame_id,
            mask=mask,
            class_names=self._class_names,
            detections=detections,
            status=frame.status,
            grids=grids,
            image=frame.rgb.pixels,
            timings=tuple(timings),
            detection_frames=None if frame.calibration is None else frame.calibration.detections,
        )

    def reset(self) -> None:
        """Forget samples, stamps and moving transforms; intrinsics, fixed transforms and counts stay."""
        self._synchronizer.clear()
        self._calibration.clear()

    def counts(self) -> tuple[Count, ...]:
        """Everything counted since the start.

        The synchronizer's and the calibration's counts, ``<modality>.missing.<reason>`` (closed frames without the modality),
        ``<modality>.motion.<note>`` (closed frames by what was done about motion), ``rgb.not_rectified`` (frames that
        ``rgb.rectify`` had no intrinsics for), ``points.dropped.not_finite`` (points for the detector whose place is not a
        number), ``detections.missing.no_transform`` and ``detections.missing.no_points`` (frames whose boxes could not be made
        or placed, and why) and ``frames.processed``.
        """
        tally = (Count(what, number) for what, number in sorted(self._tally.items()))
        rare = {"rgb.not_rectified": self._not_rectified, "points.dropped.not_finite": self._not_finite}
        happened = (Count(what, number) for what, number in rare.items() if number)
        processed = Count("frames.processed", self._processed)
        return (*self._synchronizer.counts(), *self._calibration.counts(), *tally, *happened, processed)

    def _rectified(self, frame: SensorFrame, timings: list[StageTime]) -> SensorFrame:
        if frame.calibration is None or frame.calibration.reference is None:
            self._not_rectified += 1
            return frame
        return self._timed("rectify", timings, lambda: self._projector.rectified(frame))

    def _resolve(self, frames: list[SensorFrame]) -> list[SensorFrame]:
        resolved = [self._calibration.resolve(frame) for frame in frames]
        for frame in resolved:
            self._tally.update(f"{entry.modality}.missing.{entry.reason}" for entry in frame.status if not entry.present)
            self._tally.update(f"{entry.modality}.motion.{entry.motion}" for entry in frame.status if entry.motion)
            if lack := why_no_boxes(frame):
                self._tally[f"detections.missing.{'no_points' if lack == NO_POINTS else 'no_transform'}"] += 1
        return resolved

    def _timed(self, stage: str, timings: list[StageTime], work: Callable[[], _Result]) -> _Result:
        if self._clock is None:
            return work()
        started_ns = self._clock()
        result = work()
        timings.append(StageTime(stage, self._clock() - started_ns))
        return result

"""The back half of the pipeline: complete frames in, perceptions out (rectify, project, predict)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np

from gemini_core.config import FusionConfig
from gemini_core.project.projector import Projector
from gemini_core.types import U8, UNLABELLED, AlignedGrids, Count, Detection3D, Perception, SensorFrame, StageTime


class PredictionLike(Protocol):
    """What the pipeline takes from a prediction (``gemini_core.predictor.Prediction``)."""

    @property
    def mask(self) -> U8:
        """(H, W) uint8 at the size of the reference image."""

    @property
    def detections(self) -> tuple[Detection3D, ...]:
        """Boxes in the base frame, as the grids' points are."""


class PredictorLike(Protocol):
    """What the pipeline asks of a predictor; a protocol, so that a pipeline without a network does not load torch."""

    def predict(self, grids: AlignedGrids) -> PredictionLike:
        """Say what is in the grids."""


_Result = TypeVar("_Result")


class Back:
    """Makes perceptions of the frames that ``Front`` gives.

    Args:
        config: the configuration.
        predictor: the network; None (no ``FusionConfig.predicts``): masks are all ``UNLABELLED``, and there are no boxes.
        clock: nanoseconds of any steady clock, to time the stages by; None: no timings, and the output depends on nothing
            but the frame.
    """

    def __init__(
        self, config: FusionConfig, predictor: PredictorLike | None = None, clock: Callable[[], int] | None = None
    ) -> None:
        self._class_names = config.model.classes
        self._rectifies = config.rgb.rectify
        self._predictor = predictor
        self._clock = clock
        self._projector = Projector(config)
        self._processed = 0
        self._not_rectified = 0
        self._not_finite = 0

    def process(self, frame: SensorFrame, *, with_points: bool = False) -> Perception:
        """Rectify the image if so configured, project the frame and predict from it.

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
            header=frame.header,
            mask=mask,
            class_names=self._class_names,
            detections=detections,
            grids=grids,
            image=frame.rgb.pixels,
            timings=tuple(timings),
            detection_frames=None if frame.calibration is None else frame.calibration.detections,
        )

    def counts(self) -> tuple[Count, ...]:
        """Everything counted since the start.

        ``rgb.not_rectified`` (frames that ``rgb.rectify`` had no intrinsics for), ``points.dropped.not_finite`` (points for the
        detector whose place is not a number) and ``frames.processed``.
        """
        rare = {"rgb.not_rectified": self._not_rectified, "points.dropped.not_finite": self._not_finite}
        happened = (Count(what, number) for what, number in rare.items() if number)
        return (*happened, Count("frames.processed", self._processed))

    def _rectified(self, frame: SensorFrame, timings: list[StageTime]) -> SensorFrame:
        if frame.calibration is None or frame.calibration.reference is None:
            self._not_rectified += 1
            return frame
        return self._timed("rectify", timings, lambda: self._projector.rectified(frame))

    def _timed(self, stage: str, timings: list[StageTime], work: Callable[[], _Result]) -> _Result:
        if self._clock is None:
            return work()
        started_ns = self._clock()
        result = work()
        timings.append(StageTime(stage, self._clock() - started_ns))
        return result

"""Input of the 3D detection metrics: the labelled and the found boxes of a frame.

Boxes are as in ``gemini_core/model/detection/boxes.py``: (N, 7) x, y, z, length, width, height (metres), yaw (radians), in a
frame with x forward, y left, z up, whose origin is where ranges are measured from. The measures are in ``detection_kitti.py``
and ``detection_distance.py``, KITTI's files in ``detection_labels.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gemini_core.errors import DataError, ShapeError
from gemini_core.model.detection.boxes import BOX_SIZE
from gemini_core.types import F32, I64, Bool

EVERYWHERE = (0.0, float("inf"))
"""A range, metres along the ground from the origin to a box's centre: from the first number on, below the second."""


@dataclass(frozen=True, slots=True, eq=False)
class TruthFrame:
    """The labelled objects of one frame.

    ``boxes`` (N, 7) float32 and ``class_names``, whose case does not matter. What a label does not say is None:
    ``image_boxes`` (N, 4) float32 left, top, right, bottom in pixels (None: no object is too small to count);
    ``truncation`` (N,) float32, the share outside the image (None: all 0);
    ``occlusion`` (N,) int64, 0 visible, 1 partly, 2 largely hidden, 3 unknown (None: all 0).
    ``dont_care`` (K, 4) float32 are parts of the image where objects have no label (None: nowhere).

    Raises:
        ShapeError: arrays that do not belong together.
        DataError: a number that is none.
    """

    boxes: F32
    class_names: tuple[str, ...]
    image_boxes: F32 | None = None
    truncation: F32 | None = None
    occlusion: I64 | None = None
    dont_care: F32 | None = None

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        count = len(self.class_names)
        _check("boxes", self.boxes, (count, BOX_SIZE))
        _check("image_boxes", self.image_boxes, (count, 4))
        _check("truncation", self.truncation, (count,))
        _check("occlusion", self.occlusion, (count,))
        if self.dont_care is not None:
            _check("dont_care", self.dont_care, (len(self.dont_care), 4))


@dataclass(frozen=True, slots=True, eq=False)
class FoundFrame:
    """The boxes that a detector found in one frame.

    ``boxes`` (N, 7) float32, ``class_names``, whose case does not matter, ``scores`` (N,) float32, higher is surer;
    ``image_boxes`` (N, 4) float32 left, top, right, bottom in pixels (None: no box is too small to count).

    Raises:
        ShapeError: arrays that do not belong together.
        DataError: a number that is none.
    """

    boxes: F32
    class_names: tuple[str, ...]
    scores: F32
    image_boxes: F32 | None = None

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        count = len(self.class_names)
        _check("boxes", self.boxes, (count, BOX_SIZE))
        _check("scores", self.scores, (count,))
        _check("image_boxes", self.image_boxes, (count, 4))


def _check(name: str, values: npt.NDArray[np.generic] | None, shape: tuple[int, ...]) -> None:
    if values is None:
        return
    if values.shape != shape:
        msg = f"{name}: expected shape {shape}, one row per class name, got {values.shape}"
        raise ShapeError(msg)
    if not np.isfinite(values.astype(np.float64)).all():
        msg = f"{name}: expected finite numbers, got NaN or infinity"
        raise DataError(msg)


def is_class(class_names: Sequence[str], wanted: Iterable[str]) -> Bool:
    """Say which names are among the wanted ones, whatever their case: (N,) bool."""
    low = {name.lower() for name in wanted}
    return np.array([name.lower() in low for name in class_names], np.bool_)


def in_range(boxes: F32, range_m: tuple[float, float]) -> Bool:
    """Say which centres of (N, 7) boxes are, along the ground, from the first distance on and below the second: (N,) bool."""
    distance = np.hypot(boxes[:, 0].astype(np.float64), boxes[:, 1].astype(np.float64))
    return np.asarray((distance >= range_m[0]) & (distance < range_m[1]), np.bool_)

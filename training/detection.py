"""Matching found boxes with labelled ones, by the rule that all of training and evaluation share.

A labelled box counts where it has enough points in it and its centre is in the camera's view and the detector's range; the
others are neither missed nor wrong to find. What is found outside of the view, where nothing is labelled, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from gemini_core.evaluate.detection import EVERYWHERE, FoundFrame, TruthFrame
from gemini_core.evaluate.detection_kitti import ClassRule, Difficulty, KittiScore, View, kitti_scores
from gemini_core.model.detection.interface import IGNORED, BoxDetector, BoxesConfig, Found
from training.data import LabelledClouds

_Maps = TypeVar("_Maps")

MIN_IOU = 0.5
"""Of right boxes, seen from above."""

MIN_SCORE = 0.02
"""Found boxes below it change no average precision that matters, and only cost time."""

_COUNTED = Difficulty("counted", float("-inf"), 0, 1.0)
_HIDDEN = 3


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """One frame: what is there, what was found, and the label boxes' classes, ``IGNORED`` for those that do not count."""

    truth: TruthFrame
    found: FoundFrame


def scored(labelled: LabelledClouds, detector: BoxDetector[_Maps], maps: _Maps) -> Scored:
    """Find the boxes in the maps of one frame, and put them beside its labelled ones."""
    found = detector.find(maps, min_score=MIN_SCORE)[0]
    return beside(labelled, found, detector.config)


def beside(labelled: LabelledClouds, found: Found, config: BoxesConfig) -> Scored:
    """Put found boxes beside labelled ones, of which those in range count; ``IGNORED`` labels may be of any class."""
    classes = config.classes
    x, y, _, x_end, y_end, _ = config.range_m
    places = labelled.boxes[:, :2]
    in_range = ((places >= places.new_tensor((x, y))) & (places < places.new_tensor((x_end, y_end)))).all(1)
    reachable = labelled.field_of_view.holds(places) & in_range
    named = labelled.classes.numpy()
    counts = reachable.numpy() & (named != IGNORED)
    # An ignored label has lost its class; it stands once for each, so that a find of any class may take it.
    rows = [(row, classes[named[row]], 0) for row in np.flatnonzero(counts)]
    rows += [(row, name, _HIDDEN) for row in np.flatnonzero(~counts) for name in classes]
    boxes = labelled.boxes.numpy()[[row for row, _, _ in rows]].reshape(-1, 7).astype(np.float32)
    occlusion = np.array([hidden for _, _, hidden in rows], np.int64)
    truth = TruthFrame(boxes, tuple(name for _, name, _ in rows), occlusion=occlusion)
    kept = labelled.field_of_view.holds(found.boxes[:, :2].cpu())
    names = tuple(classes[index] for index in found.classes.cpu()[kept].tolist())
    return Scored(truth, FoundFrame(_numpy(found.boxes.cpu()[kept]), names, _numpy(found.scores.cpu()[kept])))


def bev_scores(
    frames: Sequence[Scored],
    classes: Sequence[str],
    range_m: tuple[float, float] = EVERYWHERE,
    views: Sequence[View] = ("bev",),
    min_iou: float = MIN_IOU,
) -> tuple[KittiScore, ...]:
    """Give KITTI's average precision of each class, in the order of the classes, for each view."""
    pairs = [(frame.truth, frame.found) for frame in frames]
    return kitti_scores(pairs, [ClassRule(name, min_iou) for name in classes], (_COUNTED,), views, range_m=range_m)


def mean_precision(scores: Sequence[KittiScore]) -> float:
    """The mean R40 of the classes that are there, 0 to 1; 0 where none is."""
    known = [score.r40 / 100 for score in scores if not math.isnan(score.r40)]
    return sum(known) / len(known) if known else 0.0


def _numpy(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return tensor.float().numpy().astype(np.float32)

"""nuScenes' average precision (AP) of 3D detection: boxes matched by the distance of centres.

The protocol of Caesar et al., "nuScenes: A multimodal dataset for autonomous driving", CVPR 2020, section 3.1, "Average
Precision": from the highest score on, a found box is right when the nearest object of its class and frame that no box before it
took has its centre, along the ground, nearer than a threshold. Precision is taken at 101 equally spaced recalls (linear between
those that occur, 0 beyond the last). What of recall or precision is not above 0.1 is left out, and the rest normalised: the
mean over recalls 0.11 to 1 of (precision - 0.1) / 0.9, at least 0. Size and heading of a box do not matter.

Boxes of equal score are counted together, so that the order of frames does not matter; within a frame the first goes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gemini_core.evaluate.detection import EVERYWHERE, FoundFrame, TruthFrame, in_range, is_class
from gemini_core.types import F32, F64, Bool

DISTANCES_M = (0.5, 1.0, 2.0, 4.0)

_RECALLS = 101
_LEFT_OUT = 0.1  # of recall and of precision


@dataclass(frozen=True, slots=True)
class DistanceScore:
    """Average precisions in percent, one per distance in metres, and their mean; NaN where there is no object."""

    class_name: str
    distances_m: tuple[float, ...]
    ap: tuple[float, ...]
    mean_ap: float
    objects: int


def distance_scores(
    frames: Sequence[tuple[TruthFrame, FoundFrame]],
    class_names: Sequence[str],
    distances_m: tuple[float, ...] = DISTANCES_M,
    *,
    range_m: tuple[float, float] = EVERYWHERE,
) -> tuple[DistanceScore, ...]:
    """Give the average precision of each class.

    Args:
        frames: labelled and found boxes, frame by frame; the order of frames does not matter. Only boxes, class names and
            scores are looked at.
        class_names: what to look at.
        distances_m: nearer than this, along the ground, a box is right.
        range_m: objects and found boxes whose centre is nearer or farther along the ground are left out.
    """
    return tuple(_class_score(frames, name, distances_m, range_m) for name in class_names)


def _class_score(
    frames: Sequence[tuple[TruthFrame, FoundFrame]], name: str, distances_m: tuple[float, ...], range_m: tuple[float, float]
) -> DistanceScore:
    objects = 0
    scores: list[F32] = []
    right: list[Bool] = []
    for truth, found in frames:
        labelled = truth.boxes[is_class(truth.class_names, (name,)) & in_range(truth.boxes, range_m)]
        some = is_class(found.class_names, (name,)) & in_range(found.boxes, range_m)
        order = np.argsort(-found.scores[some], kind="stable")
        objects += len(labelled)
        scores.append(found.scores[some][order])
        right.append(_right(labelled, found.boxes[some][order], distances_m))
    all_scores = np.concatenate([np.zeros(0), *scores])
    all_right = np.concatenate([np.zeros((len(distances_m), 0), np.bool_), *right], axis=1)
    ap = tuple(average_precision(all_scores, each, objects) for each in all_right)
    return DistanceScore(name, distances_m, ap, float(np.mean(ap)), objects)


def _right(labelled: F32, found: F32, distances_m: tuple[float, ...]) -> Bool:
    """Which found boxes of one frame and class, the best first, are right: (distances, D) bool."""
    right = np.zeros((len(distances_m), len(found)), np.bool_)
    apart = found[:, None, :2].astype(np.float64) - labelled[None, :, :2].astype(np.float64)
    distance = np.hypot(apart[..., 0], apart[..., 1])
    if len(labelled):
        for row, limit_m in zip(right, distances_m, strict=True):
            free = distance.copy()
            for index, each in enumerate(free):
                nearest = int(each.argmin())
                if each[nearest] < limit_m:
                    row[index] = True
                    free[:, nearest] = np.inf
    return right


def average_precision(scores: F64, right: Bool, objects: int) -> float:
    """Average precision in percent of found boxes over all frames, NaN without objects.

    Args:
        scores: (N,) in any order.
        right: (N,) whether each is right.
        objects: how many there are to find.
    """
    if not objects:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(right[order])
    last = np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]  # of each group of equal scores
    if not len(ordered) or not hits[-1]:
        return 0.0
    recall, precision = hits[last] / objects, hits[last] / (np.flatnonzero(last) + 1)
    sampled = np.interp(np.linspace(0.0, 1.0, _RECALLS), recall, precision, right=0.0)
    kept = sampled[round(_LEFT_OUT * (_RECALLS - 1)) + 1 :]
    return 100.0 * float(np.maximum((kept - _LEFT_OUT) / (1.0 - _LEFT_OUT), 0.0).mean())

"""KITTI's average precision (AP) of 3D detection, in BEV and in 3D: boxes matched by IoU.

The protocol of Geiger et al., "Are we ready for autonomous driving?", CVPR 2012, as the benchmark's development kit counts:

- An object of a class counts where it is tall enough in the image and not too hidden or cut off for the difficulty. The others
  of its class, and those of a neighbouring class, are ignored: neither missed when not found, nor false positives when found.
  A difficulty includes the easier ones.
- A found box that is too low in the image for the difficulty is ignored too, of whatever class it is.
- An object takes a found box whose IoU with it is above the class's threshold: the one with the highest score to find out which
  scores matter, the one with the highest IoU at each of these; objects take in the order of the labels, each box once.
- Of the scores of right boxes, those nearest to 41 equally spaced recalls (0, 1/40, ... 1) are used as thresholds; the
  precision at each is raised to the highest at any later one; recalls that are never reached have precision 0.
- R40 is the mean over recalls 1/40 to 1, R11 over 0, 0.1, ... 1.

As each right box reaches one recall at most, fewer than 41 objects cannot give 100 percent: N objects, all found and nothing
else, give R40 = (N - 1) / 40. ``KittiScore.objects`` says how many there were.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from gemini_core.compiling import compiled
from gemini_core.evaluate.detection import EVERYWHERE, FoundFrame, TruthFrame, in_range, is_class
from gemini_core.model.detection.boxes import iou_3d, iou_bev
from gemini_core.types import F64, I64, Bool

RECALLS = 41

View: TypeAlias = Literal["bev", "3d"]
Frames: TypeAlias = Sequence[tuple[TruthFrame, FoundFrame]]

_MEASURES: dict[View, Callable[[Tensor, Tensor], Tensor]] = {"bev": iou_bev, "3d": iou_3d}


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Which objects count: taller than ``min_height_px`` in the image, hidden and cut off by no more than the others."""

    name: str
    min_height_px: float
    max_occlusion: int
    max_truncation: float


@dataclass(frozen=True, slots=True)
class ClassRule:
    """A class, the IoU above which a box is right, and the classes that are so like it that they are ignored."""

    name: str
    min_iou: float
    neighbours: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KittiScore:
    """Average precisions in percent, NaN where no object counts.

    ``precision`` has :data:`RECALLS` values 0 to 1; ``found`` is the share, 0 to 1, of the counted ``objects`` that a box of
    any score found (NaN without objects).
    """

    class_name: str
    view: View
    difficulty: str
    min_iou: float
    r11: float
    r40: float
    precision: tuple[float, ...]
    objects: int
    found: float


DIFFICULTIES = (Difficulty("easy", 40.0, 0, 0.15), Difficulty("moderate", 25.0, 1, 0.3), Difficulty("hard", 25.0, 2, 0.5))
ANY_OBJECT = Difficulty("any", float("-inf"), 3, 1.0)
"""Every object counts, whatever its label says."""
CLASSES = (
    ClassRule("car", 0.7, ("van",)),
    ClassRule("pedestrian", 0.5, ("person_sitting",)),
    ClassRule("cyclist", 0.5),
)


def kitti_scores(
    frames: Frames,
    classes: Sequence[ClassRule] = CLASSES,
    difficulties: Sequence[Difficulty] = DIFFICULTIES,
    views: Sequence[View] = ("bev", "3d"),
    *,
    range_m: tuple[float, float] = EVERYWHERE,
    dont_care_areas: bool = False,
) -> tuple[KittiScore, ...]:
    """Give the average precision for each class, in it for each difficulty, in it for each view.

    Args:
        frames: labelled and found boxes, frame by frame; the order of frames does not matter.
        classes: what to look at.
        difficulties: which objects count.
        views: BEV ("bev"), in 3D ("3d").
        range_m: objects whose centre is nearer or farther along the ground are ignored; a found box there may be right, when
            an object in range takes it, but is no false positive. Not part of KITTI's protocol.
        dont_care_areas: whether a box of which more than the class's IoU threshold lies in one DontCare area of the image is no
            false positive. That is KITTI's rule for boxes in the image. In the views here the development kit does not apply
            it, as these areas have no place in space, so published numbers are with False.
    """
    overlaps = {view: [_overlap(truth, found, view) for truth, found in frames] for view in views}
    scores = []
    for rule in classes:
        for difficulty in difficulties:
            sides = [
                _sides(truth, found, rule, difficulty, range_m=range_m, dont_care_areas=dont_care_areas)
                for truth, found in frames
            ]
            for view in views:
                cases = [side.case(overlap) for side, overlap in zip(sides, overlaps[view], strict=True)]
                scores.append(_score(cases, rule, view, difficulty))
    return tuple(scores)


def score_thresholds(right: F64, objects: int) -> F64:
    """Choose the scores at which precision is taken: for each of 41 recalls, the first score that comes nearest to it.

    Going down the scores of right boxes, the n-th has recall n / objects. A score is passed over when the next one's recall is
    nearer to the recall that is looked for; the last never is. Recalls that too few right boxes reach get none.

    Args:
        right: (N,) scores of right boxes, in any order, at most ``objects``.
        objects: how many there are to find.

    Returns:
        (K,) scores, K <= 41, the highest first.
    """
    ordered = np.sort(right)[::-1]
    chosen: list[float] = []
    wanted = 0.0  # grows by steps, as the development kit's does: equal distances are decided by how it is rounded
    for number, score in enumerate(ordered, start=1):
        nearer_next = (number + 1) / objects - wanted < wanted - number / objects
        if nearer_next and number < len(ordered):
            continue
        chosen.append(float(score))
        wanted += 1.0 / (RECALLS - 1.0)
    return np.array(chosen, np.float64)


def _score(cases: Sequence[_Case], rule: ClassRule, view: View, difficulty: Difficulty) -> KittiScore:
    objects = sum(int(np.count_nonzero(~case.ignored)) for case in cases)
    right = [_right_scores(case.overlap, case.ignored, case.low, case.scores, rule.min_iou) for case in cases]
    all_right = np.concatenate([np.zeros(0), *right])
    thresholds = score_thresholds(all_right, objects)
    counts = np.zeros((len(thresholds), 2), np.int64)
    for case in cases:
        _count(case.overlap, case.ignored, case.low, case.excused, case.scores, rule.min_iou, thresholds, counts)
    precision = np.zeros(RECALLS)
    precision[: len(thresholds)] = counts[:, 0] / np.maximum(counts.sum(axis=1), 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    nothing = float("nan")
    return KittiScore(
        class_name=rule.name,
        view=view,
        difficulty=difficulty.name,
        min_iou=rule.min_iou,
        r11=100.0 * float(precision[::4].mean()) if objects else nothing,
        r40=100.0 * float(precision[1:].mean()) if objects else nothing,
        precision=tuple(float(each) for each in precision),
        objects=objects,
        found=len(all_right) / objects if objects else nothing,
    )


# --------------------------------------------------------------------------------------------------------------------
# What counts in a frame


@dataclass(frozen=True, slots=True, eq=False)
class _Case:
    """One frame for one class, view and difficulty: G objects that count or are ignored, and D found boxes.

    ``overlap`` (G, D) IoU; ``ignored`` (G,) objects; ``low`` (D,) boxes that are ignored for their height; ``excused`` (D,)
    boxes that are no false positives; ``scores`` (D,).
    """

    overlap: F64
    ignored: Bool
    low: Bool
    excused: Bool
    scores: F64


@dataclass(frozen=True, slots=True, eq=False)
class _Sides:
    """A case before the view is known: which of a frame's objects and found boxes take part, and what of them is ignored."""

    objects: Bool
    boxes: Bool
    ignored: Bool
    low: Bool
    excused: Bool
    scores: F64

    def case(self, overlap: F64) -> _Case:
        part = np.ascontiguousarray(overlap[self.objects][:, self.boxes])
        return _Case(part, self.ignored, self.low, self.excused, self.scores)


def _overlap(truth: TruthFrame, found: FoundFrame, view: View) -> F64:
    """IoU of each labelled with each found box."""
    labelled, guessed = (torch.from_numpy(each.boxes.astype(np.float64)) for each in (truth, found))
    return np.asarray(_MEASURES[view](labelled, guessed).numpy(), np.float64)


def _sides(
    truth: TruthFrame,
    found: FoundFrame,
    rule: ClassRule,
    difficulty: Difficulty,
    *,
    range_m: tuple[float, float],
    dont_care_areas: bool,
) -> _Sides:
    counted = is_class(truth.class_names, (rule.name,)) & ~_too_hard(truth, difficulty) & in_range(truth.boxes, range_m)
    objects = is_class(truth.class_names, (rule.name, *rule.neighbours))
    low = _heights_px(found) < difficulty.min_height_px
    boxes = low | is_class(found.class_names, (rule.name,))
    excused = ~in_range(found.boxes, range_m)
    if dont_care_areas:
        excused |= _shares_in_areas(found, truth) > rule.min_iou
    return _Sides(objects, boxes, ~counted[objects], low[boxes], excused[boxes], found.scores[boxes].astype(np.float64))


def _too_hard(truth: TruthFrame, difficulty: Difficulty) -> Bool:
    """Which objects are ignored for what their label says; one without a volume cannot be found, so it is too."""
    hard = (_heights_px(truth) <= difficulty.min_height_px) | (truth.boxes[:, 3:6] <= 0).any(axis=1)
    if truth.occlusion is not None:
        hard |= truth.occlusion > difficulty.max_occlusion
    if truth.truncation is not None:
        hard |= truth.truncation > difficulty.max_truncation
    return np.asarray(hard, np.bool_)


def _heights_px(frame: TruthFrame | FoundFrame) -> F64:
    if frame.image_boxes is None:
        return np.full(len(frame.class_names), np.inf)
    return (frame.image_boxes[:, 3] - frame.image_boxes[:, 1]).astype(np.float64)


def _shares_in_areas(found: FoundFrame, truth: TruthFrame) -> F64:
    """How much of each found box's own area in the image lies in the DontCare area that holds most of it: (D,) 0 to 1."""
    if found.image_boxes is None or truth.dont_care is None:
        return np.zeros(len(found.class_names))
    boxes, areas = found.image_boxes.astype(np.float64)[:, None], truth.dont_care.astype(np.float64)[None]
    sides = np.minimum(boxes[..., 2:], areas[..., 2:]) - np.maximum(boxes[..., :2], areas[..., :2])
    shared = np.prod(np.maximum(sides, 0.0), axis=2)
    own = np.prod(boxes[..., 2:] - boxes[..., :2], axis=2)
    return np.asarray((shared / np.where(own > 0, own, np.inf)).max(axis=1, initial=0.0), np.float64)


# --------------------------------------------------------------------------------------------------------------------
# Who finds what


@compiled("float64[::1](float64[:,::1], b1[::1], b1[::1], float64[::1], float64)")
def _right_scores(overlap: F64, ignored: Bool, low: Bool, scores: F64, min_iou: float) -> F64:
    """Scores of the boxes that counted objects take when each takes the one with the highest score."""
    objects, boxes = overlap.shape
    taken = np.zeros(boxes, np.bool_)
    right = np.empty(objects, np.float64)
    count = 0
    for i in range(objects):
        best = -1
        for j in range(boxes):
            if not taken[j] and overlap[i, j] > min_iou and (best < 0 or scores[j] > scores[best]):
                best = j
        if best < 0:
            continue
        taken[best] = True
        if not ignored[i] and not low[best]:
            right[count] = scores[best]
            count += 1
    return right[:count]


@compiled(
    "void(float64[:,::1], b1[::1], b1[::1], b1[::1], float64[::1], float64, float64[::1], int64[:,::1])",
)
def _count(  # noqa: PLR0917 - compiled functions take arguments by position
    overlap: F64, ignored: Bool, low: Bool, excused: Bool, scores: F64, min_iou: float, thresholds: F64, counts: I64
) -> None:
    """Add to (K, 2) ``counts`` how many boxes are right and how many wrong, among those of at least each threshold's score.

    The kit lets an object without another box take a low one; as that makes neither right nor wrong, low ones are left out.
    """
    for k in range(len(thresholds)):
        free = (scores >= thresholds[k]) & ~low
        for i in range(len(overlap)):
            best = -1
            for j in range(len(scores)):
                if free[j] and overlap[i, j] > min_iou and (best < 0 or overlap[i, j] > overlap[i, best]):
                    best = j
            if best >= 0:
                free[best] = False
                counts[k, 0] += not ignored[i]
        counts[k, 1] += np.count_nonzero(free & ~excused)

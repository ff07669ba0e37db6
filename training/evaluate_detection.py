"""Score the detector of trained weights on labelled bags: ``python -m training.evaluate --task detection ...``.

Boxes are found in every frame with each subset of the sensors, as the node does it when a sensor is missing, and with points
alone. Which labelled boxes count is said in ``training/detection.py``. Writes ``detection.json`` and ``index.html``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from gemini_core.errors import WeightsError
from gemini_core.evaluate.box_pictures import (
    TRUTH_COLOR,
    Wedge,
    birds_eye,
    box_colors,
    draw_boxes_in_image,
    found_boxes,
    truth_boxes,
)
from gemini_core.evaluate.detection import EVERYWHERE, FoundFrame, TruthFrame
from gemini_core.evaluate.detection_distance import distance_scores
from gemini_core.model.detection.boxes import iou_bev
from gemini_core.model.detection.interface import BoxesConfig
from gemini_core.types import F32, U8, Bool, CameraModel, PointSource
from training.box_finders import BoxFinder, Subset, load_box_finder
from training.cache import CachedBag
from training.data import FrameDataset, plain_batches
from training.detection import MIN_IOU, Scored, bev_scores
from training.points_and_boxes import SOURCES, GridCamera, PointsAndBoxes
from training.report import ALL, write_panels, write_report

MIN_POINTS = 5
"""Points in a labelled box from which on it counts, if nothing else is said."""

NEAR_M = 30.0
SHOWN_SCORE = 0.3
"""Found boxes below it are left out of pictures; what ``detections.min_score`` is by default."""

IGNORED_COLOR = (170, 175, 182)
_ABOVE_PX = 640
_IMAGE_PX = 960  # of the image's width, about


@dataclass(frozen=True, slots=True)
class Precision:
    """Average precisions, 0 to 1, of one class or their mean over classes; NaN where no object counts.

    ``bev`` is seen from above and ``space`` in 3D, both KITTI's at the page's IoU, over 40 and 11 recalls; ``distance`` is the
    mean of nuScenes' over its distances of centres.
    """

    objects: int
    bev_r40: float
    bev_r11: float
    space_r40: float
    space_r11: float
    distance: float


@dataclass(frozen=True, slots=True)
class ClassPrecision:
    """The scores of one class: all objects, and those near (along the ground)."""

    name: str
    everywhere: Precision
    near: Precision


@dataclass(frozen=True, slots=True)
class DetectionScores:
    """The scores of one group of frames with one subset; ``mean`` is over the classes that the group has."""

    group: str
    subset: str
    frames: int
    classes: tuple[ClassPrecision, ...]
    mean: ClassPrecision


@dataclass(frozen=True, slots=True)
class BoxPicture:
    """One frame on the page: its title, what is in it, and the files of its panels by caption."""

    title: str
    labelled: int
    found: int
    panels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class DetectionEvaluation:
    """Everything that the page says."""

    weights: str
    description: str
    classes: tuple[str, ...]
    modalities: tuple[str, ...]
    min_points: int
    min_iou: float
    near_m: float
    shown_score: float
    groups: tuple[str, ...]
    subsets: dict[str, Subset]
    results: tuple[DetectionScores, ...]
    pictures: tuple[BoxPicture, ...]

    def result(self, group: str, subset: str) -> DetectionScores:
        """Look up one result."""
        return next(each for each in self.results if (each.group, each.subset) == (group, subset))


def evaluate_detection(
    weights: Path,
    bags: tuple[CachedBag, ...],
    out: Path,
    *,
    every: int = 1,
    subsets: bool = True,
    workers: int = 0,
    points: str = "auto",
    given: tuple[str, ...] = (),
    min_points: int = MIN_POINTS,
) -> DetectionEvaluation:
    """Score the detector of a weights file on every ``every``-th frame of cached bags; pictures of some frames go to ``out``.

    Args:
        weights: safetensors file.
        bags: whose frames have boxes.
        out: where pictures go.
        every: of how many frames one is scored.
        subsets: score each subset of the sensors; otherwise all of them together only.
        workers: processes that load frames.
        points: "lidar", "depth" or "auto" (``detection.points`` of the training). Anything but "auto" is the only subset.
        given: modalities that the network is given; some are the only subset, none: all of them.
        min_points: points in a labelled box from which on it counts.

    Raises:
        ConfigError: ``given`` are none of the network's modalities.
        WeightsError: the weights cannot be read, have no detector, or were trained for other classes or modalities.
        DataError: frames that cannot be read, or pictures that cannot be written.
    """
    finder = load_box_finder(weights, bags[0].box_classes if bags else ())
    _check_bags(weights, finder, bags)
    sources = [each for each in SOURCES if all(each in bag.modalities for bag in bags)]
    wanted = finder.subsets(sources, points, given)
    wanted = wanted if subsets else {ALL: wanted[ALL]}
    return score_boxes(finder, bags, out, wanted, weights=weights.name, every=every, workers=workers, min_points=min_points)


def score_boxes(
    finder: BoxFinder,
    bags: tuple[CachedBag, ...],
    out: Path,
    subsets: dict[str, Subset],
    *,
    weights: str,
    every: int,
    workers: int,
    min_points: int,
) -> DetectionEvaluation:
    """Score a finder of boxes with these subsets of the sensors; ``weights`` is its name, the others as above.

    Raises:
        DataError: frames that cannot be read, or pictures that cannot be written.
    """
    dataset = FrameDataset(bags, finder.modalities, finder.info.normalization, min_points=min_points)
    found = _find_all(finder, dataset, subsets, every, workers)
    groups = sorted({group for group, _ in found.frames}, key=lambda group: (group != ALL, group))
    return DetectionEvaluation(
        weights=weights,
        description=finder.info.description,
        classes=finder.config.classes,
        modalities=finder.modalities,
        min_points=min_points,
        min_iou=MIN_IOU,
        near_m=NEAR_M,
        shown_score=SHOWN_SCORE,
        groups=tuple(groups),
        subsets=subsets,
        results=tuple(
            scores_of(found.frames[group, subset], finder.config.classes, group, subset)
            for group in tqdm(groups, desc="scores", unit="group")
            for subset in subsets
        ),
        pictures=tuple(
            _picture(
                shown,
                dataset.reader.points_and_boxes(shown.number),
                points=subsets[ALL].points,
                config=finder.config,
                mask_classes=bags[0].classes,
                out=out,
            )
            for _, shown in sorted(found.shown.items())
        ),
    )


def _check_bags(weights: Path, finder: BoxFinder, bags: tuple[CachedBag, ...]) -> None:
    """Refuse bags of other classes than the first one, or without a modality that the network takes."""
    classes = bags[0].box_classes if bags else ()
    for bag in bags:
        if bag.box_classes != classes or set(finder.modalities) - set(bag.modalities):
            wanted = f"boxes of {', '.join(bag.box_classes) or 'no class'} and some of {', '.join(bag.modalities)} ({bag.bag})"
            msg = f"{weights}: expected weights for {wanted}, got {', '.join(classes)} and {', '.join(finder.modalities)}"
            raise WeightsError(msg)


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """A frame that is shown on the page: its title, its number, what was found with all sensors, and its image."""

    title: str
    number: int
    frame: FoundBoxes
    image: U8


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """What was found: frames by group and subset, and the frame that is shown under each title."""

    frames: dict[tuple[str, str], list[FoundBoxes]]
    shown: dict[str, _Shown]


def _find_all(finder: BoxFinder, dataset: FrameDataset, subsets: dict[str, Subset], every: int, workers: int) -> _Found:
    """Find the boxes of every ``every``-th frame with each subset of the sensors."""
    found = _Found({}, {})
    count = len(range(0, len(dataset), every))
    for batch in tqdm(plain_batches(dataset, 1, workers, every), total=count, desc="evaluate", unit="frame"):
        number = int(batch.number[0])
        tags = dataset.reader.bag_of(number).tags
        title = " ".join(tags.values()) or "frame"
        for name, subset in subsets.items():
            frame = FoundBoxes.of(finder.find(batch, subset))
            for group in (ALL, *(f"{key}={value}" for key, value in tags.items())):
                found.frames.setdefault((group, name), []).append(frame)
            if name == ALL and _better_shown(frame, found.shown.get(title)):
                found.shown[title] = _Shown(title, number, frame, dataset.image(batch, 0))
    return found


def _better_shown(frame: FoundBoxes, instead_of: _Shown | None) -> bool:
    """The first frame of a title is shown, or the first one in which there is something."""
    return instead_of is None or (len(frame.truth.boxes) > 0 and not len(instead_of.frame.truth.boxes))


# --------------------------------------------------------------------------------------------------------------------
# Scores


@dataclass(frozen=True, slots=True, eq=False)
class FoundBoxes:
    """One frame: with ignored labels, and (``truth``, ``found``) without them, for measures that know none."""

    scored: Scored
    truth: TruthFrame
    found: FoundFrame

    @classmethod
    def of(cls, one: Scored) -> FoundBoxes:
        """Leave out ignored labels, and found boxes that lie on one of them more than on one that counts."""
        truth, found = one.truth, one.found
        counted = _counted(truth)
        boxes = torch.from_numpy(found.boxes)
        on = [_overlap(boxes, torch.from_numpy(truth.boxes[which])) for which in (counted, ~counted)]
        kept = ~((on[1] > 0) & (on[1] > on[0]))
        names = [tuple(np.array(each.class_names, object)[which]) for each, which in ((truth, counted), (found, kept))]
        return cls(one, TruthFrame(truth.boxes[counted], names[0]), FoundFrame(found.boxes[kept], names[1], found.scores[kept]))


def _counted(truth: TruthFrame) -> Bool:
    """Which labels are not ignored."""
    count = len(truth.class_names)
    return np.ones(count, np.bool_) if truth.occlusion is None else truth.occlusion == 0


def _overlap(boxes: torch.Tensor, others: torch.Tensor) -> F32:
    """The largest IoU seen from above of each box with any of the others: (N,), 0 where there is none."""
    if not len(boxes) or not len(others):
        return np.zeros(len(boxes), np.float32)
    largest: F32 = iou_bev(boxes, others).amax(dim=1).numpy()
    return largest


def scores_of(frames: Sequence[FoundBoxes], classes: Sequence[str], group: str, subset: str) -> DetectionScores:
    """Score found boxes by all measures, for each class and in the mean of the classes that there are."""
    by_range = [_precisions(frames, classes, range_m) for range_m in (EVERYWHERE, (0.0, NEAR_M))]
    named = tuple(ClassPrecision(name, *both) for name, *both in zip(classes, *by_range, strict=True))
    return DetectionScores(group, subset, len(frames), named, ClassPrecision("mean", *(_mean(each) for each in by_range)))


def _precisions(frames: Sequence[FoundBoxes], classes: Sequence[str], range_m: tuple[float, float]) -> list[Precision]:
    kitti = bev_scores([frame.scored for frame in frames], classes, range_m, ("bev", "3d"))
    distance = distance_scores([(frame.truth, frame.found) for frame in frames], classes, range_m=range_m)
    return [
        Precision(
            objects=bev.objects,
            bev_r40=bev.r40 / 100,
            bev_r11=bev.r11 / 100,
            space_r40=space.r40 / 100,
            space_r11=space.r11 / 100,
            distance=near.mean_ap / 100,
        )
        for bev, space, near in zip(kitti[::2], kitti[1::2], distance, strict=True)
    ]


def _mean(precisions: Sequence[Precision]) -> Precision:
    """The mean over the classes that have objects; their objects in all."""
    known = [each for each in precisions if each.objects]

    def mean(name: str) -> float:
        return sum(getattr(each, name) for each in known) / len(known) if known else math.nan

    names = ("bev_r40", "bev_r11", "space_r40", "space_r11", "distance")
    return Precision(sum(each.objects for each in known), *(mean(name) for name in names))


# --------------------------------------------------------------------------------------------------------------------
# The page


def _picture(
    shown: _Shown, frame: PointsAndBoxes, *, points: PointSource, config: BoxesConfig, mask_classes: Sequence[str], out: Path
) -> BoxPicture:
    """Draw a frame's labelled and found boxes in its image and from above."""
    found, truth = shown.frame.scored.found, shown.frame.scored.truth
    sure = found.scores >= SHOWN_SCORE
    names = tuple(name for name, kept in zip(found.class_names, sure, strict=True) if kept)
    indices = np.array([config.classes.index(name) for name in names], np.int64)
    colors = box_colors(config.classes, mask_classes)
    drawn = (
        truth_boxes(truth.boxes[~_counted(truth)], IGNORED_COLOR),
        truth_boxes(shown.frame.truth.boxes),
        found_boxes(found.boxes[sure], indices, found.scores[sure], config.classes, colors),
    )
    image, camera = _enlarged(shown.image, frame.camera)
    x, y, _, x_end, y_end, _ = config.range_m
    seen = frame.field_of_view
    wedge = Wedge(seen.x_m, seen.y_m, seen.middle_rad, seen.half_rad)
    panels = {
        "image": draw_boxes_in_image(image, drawn, camera, frame.camera.reference_from_base),
        "above": birds_eye(frame.cloud(points).points.numpy(), drawn, (x, y, x_end, y_end), _ABOVE_PX, wedge),
    }
    return BoxPicture(shown.title, len(shown.frame.truth.boxes), len(names), write_panels(shown.title, panels, out))


def _enlarged(image: U8, camera: GridCamera) -> tuple[U8, CameraModel]:
    """Repeat the pixels of a small image, since lines and letters need room; with the camera that sees it so."""
    factor = max(round(_IMAGE_PX / image.shape[1]), 1)
    image = np.ascontiguousarray(image.repeat(factor, axis=0).repeat(factor, axis=1))
    cx, cy = ((each + 0.5) * factor - 0.5 for each in (camera.cx, camera.cy))
    return image, CameraModel(image.shape[1], image.shape[0], camera.fx * factor, camera.fy * factor, cx, cy)


def write_detection(evaluation: DetectionEvaluation, mask_classes: Sequence[str], out: Path) -> None:
    """Write ``detection.json`` and ``index.html``.

    Args:
        evaluation: what to write.
        mask_classes: whose colours the boxes' classes share.
        out: the folder.

    Raises:
        WeightsError: they cannot be written.
    """
    colors = box_colors(evaluation.classes, mask_classes)
    legend = [(name, _hex(tuple(color))) for name, color in zip(evaluation.classes, colors.tolist(), strict=True)]
    legend += [("labelled, counted", _hex(TRUTH_COLOR)), ("labelled, not counted", _hex(IGNORED_COLOR))]
    write_report(evaluation, out / "detection.json", "detection.html", legend=legend)


def _hex(color: tuple[int, ...]) -> str:
    return f"#{bytes(color).hex()}"

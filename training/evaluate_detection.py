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

from gemini_core.errors import ConfigError, WeightsError
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
from gemini_core.model import checkpoints
from gemini_core.model.checkpoints import CheckpointInfo
from gemini_core.model.detection.boxes import iou_bev
from gemini_core.model.detection.interface import BoxesConfig
from gemini_core.model.detection.mvxnet.checkpoint import load_mvxnet
from gemini_core.model.detection.mvxnet.image import to_caffe
from gemini_core.model.detection.mvxnet.network import MvxNet
from gemini_core.model.segmentation import Segmenter
from gemini_core.types import F32, U8, Bool, CameraModel, PointSource
from training.cache import CachedBag
from training.data import Batch, FrameDataset, plain_batches
from training.detection import MIN_IOU, Scored, bev_scores, scored
from training.report import ALL, write_panels, write_report
from training.space import SOURCES, Space

MIN_POINTS = 5
"""Points in a labelled box from which on it counts, if nothing else is said."""

NEAR_M = 30.0
SHOWN_SCORE = 0.3
"""Found boxes below it are left out of pictures; what ``detections.min_score`` is by default."""

_SOURCE_NAMES: dict[PointSource, str] = {"lidar": "the LiDAR", "depth": "depth"}
IGNORED_COLOR = (170, 175, 182)
_ABOVE_PX = 640
_IMAGE_PX = 960  # of the image's width, about


@dataclass(frozen=True, slots=True)
class Subset:
    """What the network gets: ``modalities`` (none: there is no image, points do alone), and whose points."""

    modalities: tuple[str, ...]
    points: PointSource


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


def load_detector(weights: Path, box_classes: Sequence[str]) -> tuple[Segmenter | MvxNet, BoxesConfig, CheckpointInfo]:
    """Read weights that find boxes of these classes; gives what the detector among them is made of as well.

    Raises:
        WeightsError: the weights cannot be read, have no detector, or one of other classes.
    """
    network: Segmenter | MvxNet
    if checkpoints.network_of(weights) == checkpoints.MVXNET:
        network, info = load_mvxnet(weights, runtime="torch")
    else:
        network, info = checkpoints.load(weights)
    config = network.config if isinstance(network, MvxNet) else network.config.detector
    if config is None:
        msg = f"{weights}: expected weights with a detector of boxes (detection.enabled in training), got some without"
        raise WeightsError(msg)
    if config.classes != tuple(box_classes):
        wanted, got = ", ".join(box_classes) or "none", ", ".join(config.classes)
        msg = f"{weights}: expected a detector of the classes {wanted} (detections.classes), got {got}"
        raise WeightsError(msg)
    return network, config, info


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
    """Score the detector on every ``every``-th frame of cached bags; pictures of some frames go to ``out``.

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
    box_classes = bags[0].box_classes if bags else ()
    network, config, info = load_detector(weights, box_classes)
    modalities = ("rgb",) if isinstance(network, MvxNet) else network.config.modalities
    for bag in bags:
        if bag.box_classes != box_classes or set(modalities) - set(bag.modalities):
            wanted = f"boxes of {', '.join(bag.box_classes) or 'no class'} and some of {', '.join(bag.modalities)} ({bag.bag})"
            msg = f"{weights}: expected weights for {wanted}, got {', '.join(box_classes)} and {', '.join(modalities)}"
            raise WeightsError(msg)
    if isinstance(network, MvxNet):
        wanted_subsets = mvxnet_subsets(
            [each for each in SOURCES if all(each in bag.modalities for bag in bags)], points, given
        )
    else:
        wanted_subsets = detection_subsets(modalities, points, given)
    if not subsets:
        wanted_subsets = {ALL: wanted_subsets[ALL]}
    dataset = FrameDataset(bags, modalities, info.normalization, min_points=min_points)
    frames: dict[tuple[str, str], list[_Frame]] = {}
    counts: dict[str, int] = {}
    chosen: dict[str, tuple[int, _Frame, U8]] = {}
    count = len(range(0, len(dataset), every))
    for batch in tqdm(plain_batches(dataset, 1, workers, every), total=count, desc="evaluate", unit="frame"):
        number = int(batch.number[0])
        tags = dataset.reader.bag_of(number).tags
        groups = (ALL, *(f"{key}={value}" for key, value in tags.items()))
        for group in groups:
            counts[group] = counts.get(group, 0) + 1
        for name, subset in wanted_subsets.items():
            one = _Frame.of(find(network, batch, subset))
            for group in groups:
                frames.setdefault((group, name), []).append(one)
            title = " ".join(tags.values()) or "frame"
            # the first frame in which there is something
            fits = title not in chosen or (len(one.truth.boxes) > 0 and not len(chosen[title][1].truth.boxes))
            if name == ALL and fits:
                chosen[title] = (number, one, dataset.image(batch, 0))
    names = sorted(counts, key=lambda group: (group != ALL, group))
    return DetectionEvaluation(
        weights=weights.name,
        description=info.description,
        classes=config.classes,
        modalities=modalities,
        min_points=min_points,
        min_iou=MIN_IOU,
        near_m=NEAR_M,
        shown_score=SHOWN_SCORE,
        groups=tuple(names),
        subsets=wanted_subsets,
        results=tuple(
            scores_of(frames[group, subset], config.classes, group, subset)
            for group in tqdm(names, desc="scores", unit="group")
            for subset in wanted_subsets
        ),
        pictures=tuple(
            _picture(
                title,
                one,
                image,
                dataset.reader.space(number),
                points=wanted_subsets[ALL].points,
                config=config,
                mask_classes=bags[0].classes,
                out=out,
            )
            for title, (number, one, image) in sorted(chosen.items())
        ),
    )


def detection_subsets(modalities: tuple[str, ...], points: str = "auto", given: tuple[str, ...] = ()) -> dict[str, Subset]:
    """The subsets that are scored, by name; only "all" where ``points`` or ``given`` say what the network was trained with.

    Where the LiDAR is taken away, points come of depth, as in training.

    Raises:
        ConfigError: ``given`` do not begin with rgb or are none of the modalities.
    """
    kept = _kept(modalities, given)
    if points != "auto":
        return {ALL: Subset(kept, "depth" if points == "depth" else "lidar")}
    if given:
        return {ALL: Subset(kept, _source(modalities, kept))}
    reference, *extras = modalities
    subsets = {ALL: Subset(modalities, _source(modalities, modalities))}
    for extra in extras if len(extras) > 1 else ():
        left = tuple(each for each in modalities if each != extra)
        if extra != "lidar" or "depth" in left:
            subsets[f"without {extra}"] = Subset(left, _source(modalities, left))
    source: PointSource = "lidar" if "lidar" in extras else "depth"
    name = _SOURCE_NAMES[source]
    subsets[f"{reference}, points of {name}"] = Subset((reference,), source)
    subsets[f"points of {name} alone"] = Subset((), source)
    if {"depth", "lidar"} <= set(extras):
        subsets[f"{reference}+depth"] = Subset((reference, "depth"), "depth")
    first = {subset: name for name, subset in reversed(subsets.items())}  # each once, by the first of its names
    return {name: subset for name, subset in subsets.items() if first[subset] == name}


def mvxnet_subsets(sources: Sequence[PointSource], points: str = "auto", given: tuple[str, ...] = ()) -> dict[str, Subset]:
    """The subsets that MVX-Net is scored with, by name: each of the sources of points, with the image and without it.

    ``points`` and ``given`` as of ``detection_subsets``.

    Raises:
        ConfigError: ``given`` is more than rgb.
    """
    image = _kept(("rgb",), given)
    if points != "auto":
        return {ALL: Subset(image, "depth" if points == "depth" else "lidar")}
    first, *others = sources or SOURCES[:1]
    subsets = {ALL: Subset(image, first)}
    if given:
        return subsets
    for source in others:
        subsets[f"rgb, points of {_SOURCE_NAMES[source]}"] = Subset(image, source)
    for source in (first, *others):
        subsets[f"points of {_SOURCE_NAMES[source]} alone"] = Subset((), source)
    return subsets


def _kept(modalities: tuple[str, ...], given: tuple[str, ...]) -> tuple[str, ...]:
    """The modalities that are given, all where nothing is said."""
    if given and (given[0] != modalities[0] or not set(given) <= set(modalities)):
        msg = f"--given: expected {modalities[0]} and others of {', '.join(modalities)}, got {', '.join(given)}"
        raise ConfigError(msg)
    return given or modalities


def _source(modalities: tuple[str, ...], kept: tuple[str, ...]) -> PointSource:
    return "depth" if "lidar" in modalities and "lidar" not in kept else "lidar"


@torch.inference_mode()
def find(network: Segmenter | MvxNet, batch: Batch, subset: Subset) -> Scored:
    """Find the boxes of the one frame of a batch, with what the subset has of it, and put them beside its labelled ones."""
    space = batch.spaces[0]
    cloud = space.clouds[SOURCES.index(subset.points)]
    if isinstance(network, MvxNet):
        return scored(space, network, network([cloud], to_caffe(batch.images[0]) if subset.modalities else None))
    detector = network.detector
    assert detector is not None  # noqa: S101 - load_detector's business
    if not subset.modalities:
        return scored(space, detector, detector([cloud]))
    there = batch.present[:, 0].tolist()
    present = [flag and name in subset.modalities for flag, name in zip(there, network.config.modalities, strict=True)]
    maps = network.quarter_logits(tuple(batch.images), present, clouds=[cloud], masks=False).boxes
    assert maps is not None  # noqa: S101 - points were given
    return scored(space, detector, maps)


# --------------------------------------------------------------------------------------------------------------------
# Scores


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """One frame: with ignored labels, and (``truth``, ``found``) without them, for measures that know none."""

    scored: Scored
    truth: TruthFrame
    found: FoundFrame

    @classmethod
    def of(cls, one: Scored) -> _Frame:
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


def scores_of(frames: Sequence[_Frame], classes: Sequence[str], group: str, subset: str) -> DetectionScores:
    """Score found boxes by all measures, for each class and in the mean of the classes that there are."""
    by_range = [_precisions(frames, classes, range_m) for range_m in (EVERYWHERE, (0.0, NEAR_M))]
    named = tuple(ClassPrecision(name, *both) for name, *both in zip(classes, *by_range, strict=True))
    return DetectionScores(group, subset, len(frames), named, ClassPrecision("mean", *(_mean(each) for each in by_range)))


def _precisions(frames: Sequence[_Frame], classes: Sequence[str], range_m: tuple[float, float]) -> list[Precision]:
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
    title: str,
    one: _Frame,
    image: U8,
    space: Space,
    *,
    points: PointSource,
    config: BoxesConfig,
    mask_classes: Sequence[str],
    out: Path,
) -> BoxPicture:
    """Draw a frame's labelled and found boxes in its image and from above."""
    sure = one.scored.found.scores >= SHOWN_SCORE
    names = tuple(name for name, kept in zip(one.scored.found.class_names, sure, strict=True) if kept)
    indices = np.array([config.classes.index(name) for name in names], np.int64)
    found = found_boxes(
        one.scored.found.boxes[sure],
        indices,
        one.scored.found.scores[sure],
        config.classes,
        box_colors(config.classes, mask_classes),
    )
    ignored = truth_boxes(one.scored.truth.boxes[~_counted(one.scored.truth)], IGNORED_COLOR)
    shown = (ignored, truth_boxes(one.truth.boxes), found)
    rig, view = space.rig, space.view
    factor = max(round(_IMAGE_PX / image.shape[1]), 1)  # lines and letters need room
    image = np.ascontiguousarray(image.repeat(factor, axis=0).repeat(factor, axis=1))
    centre = [(each + 0.5) * factor - 0.5 for each in (rig.cx, rig.cy)]
    camera = CameraModel(image.shape[1], image.shape[0], rig.fx * factor, rig.fy * factor, centre[0], centre[1])
    x, y, _, x_end, y_end, _ = config.range_m
    above = birds_eye(
        space.cloud(points).points.numpy(),
        shown,
        (x, y, x_end, y_end),
        _ABOVE_PX,
        Wedge(view.x_m, view.y_m, view.middle_rad, view.half_rad),
    )
    panels = {"image": draw_boxes_in_image(image, shown, camera, rig.reference_from_base), "above": above}
    return BoxPicture(title, len(one.truth.boxes), len(names), write_panels(title, panels, out))


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

"""Labelled frames of a bag: the node's own decode, synchronize and project, and the label on the same pixels."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gemini_core.bag.labels import LABELS_SUFFIX, BagLabels, LabelTopics
from gemini_core.bag.reader import BagReader, is_storage_file
from gemini_core.config import FusionConfig
from gemini_core.errors import BagError, ConfigError, DataError
from gemini_core.project.points import points_of_depth
from gemini_core.project.projector import Projector
from gemini_core.replay import Replay
from gemini_core.types import F32, I64, U8, UNLABELLED, AlignedGrids, DetectionFrames, GridGeometry
from training.box_labels import BoxLabels
from training.points_and_boxes import PointsAndBoxes, points_and_boxes_of


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFrame:
    """One frame on the network's pixels and ``label`` (h, w) uint8 on the same ones, ``UNLABELLED`` where nothing is known.

    ``points_and_boxes`` are there where boxes were asked for.
    """

    grids: AlignedGrids
    label: U8
    points_and_boxes: PointsAndBoxes | None = None


def find_bags(patterns: tuple[str, ...], key: str) -> tuple[Path, ...]:
    """Find the bags that paths, folders of bags and patterns name, in the order given, each once.

    Raises:
        ConfigError: one of them names no bag; ``key`` is the option that they come from.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        paths = [Path(name) for name in sorted(glob.glob(pattern))]  # noqa: PTH207 - patterns may be absolute
        bags = [bag for path in paths for bag in _bags_in(path)]
        if not bags:
            msg = f"{key}: expected bags at {pattern!r}, got none"
            raise ConfigError(msg)
        found.update(dict.fromkeys(bags))
    return tuple(found)


def _bags_in(path: Path) -> list[Path]:
    if is_storage_file(path) or (path / "metadata.yaml").is_file():
        return [path]
    inside = sorted(path.iterdir()) if path.is_dir() else []
    bags = [each for each in inside if is_storage_file(each) or (each / "metadata.yaml").is_file()]
    return [bag for bag in bags if not bag.stem.endswith(LABELS_SUFFIX)]


def labelled_frames(path: Path, config: FusionConfig, topics: LabelTopics, boxes: str = "") -> Iterator[LabelledFrame]:
    """Give the frames of a bag that have a label, in the order of their stamps.

    Labels are images of one channel (mono8, 8UC1, mono16 or 16UC1) of the reference image's size and stamp, in the bag itself
    or in one beside it. A frame without a label, such as one between labelled key frames, is left out.

    Args:
        path: the bag.
        config: by which frames are made; with ``boxes``, one whose ``detections.enabled`` is true.
        topics: of the label images; no topic of images: there are none, and all pixels are ``UNLABELLED``.
        boxes: topic of labelled boxes (vision_msgs/Detection3DArray), which a frame has to have as well; empty: none wanted.

    Raises:
        BagError: the bag cannot be read, is damaged, or has no labels that belong to its frames.
        DataError: a label has another size than its image, values that are no class, or boxes in an unknown frame.
    """
    images = BagLabels(path, config.model.classes, topics) if topics.images else None
    box_labels = BoxLabels(path, config.detections, boxes) if boxes else None
    projector = Projector(config)
    used, unplaced = 0, ""
    with BagReader(path) as bag:
        run = Replay(bag, config)
        for frame in run.frames():
            image = images.at(frame.stamp_ns) if images else None
            if images and image is None:
                continue
            grids = projector.project(projector.rectified(frame))
            points_and_boxes = None
            if box_labels is not None:
                frames = None if frame.calibration is None else frame.calibration.detections
                if frames is None or not frames.known or grids.camera is None:
                    unplaced = "the reference's intrinsics" if frames is None or frames.known else frames.detail
                    continue
                labels = box_labels.at(frame.stamp_ns, frame.frame_id, frames)
                points_and_boxes = _points_and_boxes(grids, labels, frames, config)
                if points_and_boxes is None:
                    continue
            used += 1
            label = np.full((grids.geometry.height, grids.geometry.width), UNLABELLED, np.uint8)
            if image is not None:
                label = label_on_grid(image, grids.geometry, f"{path}: label at {frame.stamp_ns} ns")
            yield LabelledFrame(grids, label, points_and_boxes)
        if run.damage:
            raise BagError(run.damage)
    if not used:
        wanted = " and ".join(name for name in (topics.images, boxes) if name)
        lack = f"got none that can be placed ({unplaced})" if unplaced else "got none that fits"
        msg = f"{path}: expected labels on {wanted} with the stamps of its {run.closed} frames, {lack}"
        raise BagError(msg)


def _points_and_boxes(
    grids: AlignedGrids, labels: tuple[F32, I64] | None, frames: DetectionFrames, config: FusionConfig
) -> PointsAndBoxes | None:
    """Points and boxes of a frame; None without labelled boxes. Points of depth are made beside those of a LiDAR."""
    if labels is None or grids.camera is None or frames.reference_from_base is None:
        return None
    points = {} if grids.points is None else {grids.points.source: grids.points}
    depth = grids.grid("depth")
    if "depth" not in points and depth is not None:
        stride = config.detections.depth_stride
        points["depth"] = points_of_depth(depth, grids.camera, frames.reference_from_base, stride)
    return points_and_boxes_of(points, *labels, grids.camera, frames.reference_from_base)


def label_on_grid(label: U8, geometry: GridGeometry, where: str) -> U8:
    """Bring a label (H, W) of the reference image's size to the grid: the value at each grid pixel's centre.

    Raises:
        DataError: another size; ``where`` says whose.
    """
    if label.shape != (geometry.reference_height, geometry.reference_width):
        msg = (
            f"{where}: expected the image's {geometry.reference_width} x {geometry.reference_height}, got {label.shape[1]} x "
            f"{label.shape[0]}"
        )
        raise DataError(msg)
    rows = geometry.top + _centres(geometry.height, geometry.crop_height)
    columns = geometry.left + _centres(geometry.width, geometry.crop_width)
    return label[rows[:, None], columns[None, :]]


def _centres(count: int, source: int) -> npt.NDArray[np.int64]:
    """For ``count`` pixels that cover ``source`` pixels: the source pixel in which the centre of each lies."""
    return (2 * np.arange(count, dtype=np.int64) + 1) * source // (2 * count)

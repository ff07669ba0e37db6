"""A bag becomes labelled frames: the node's own decode, synchronize and project, and the label on the same pixels."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gemini_core.bag.labels import LABELS_SUFFIX, BagLabels, LabelTopics
from gemini_core.bag.reader import STORAGE_SUFFIXES, BagReader
from gemini_core.config import FusionConfig
from gemini_core.errors import BagError, ConfigError, DataError
from gemini_core.project.projector import Projector
from gemini_core.replay import Replay
from gemini_core.types import U8, AlignedGrids, GridGeometry


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFrame:
    """One frame on the network's pixels and ``label`` (h, w) uint8 on the same ones, ``UNLABELLED`` where nothing is known."""

    grids: AlignedGrids
    label: U8


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
    if path.suffix in STORAGE_SUFFIXES or (path / "metadata.yaml").is_file():
        return [path]
    inside = sorted(path.iterdir()) if path.is_dir() else []
    bags = [each for each in inside if each.suffix in STORAGE_SUFFIXES or (each / "metadata.yaml").is_file()]
    return [bag for bag in bags if not bag.stem.endswith(LABELS_SUFFIX)]


def labelled_frames(path: Path, config: FusionConfig, topics: LabelTopics) -> Iterator[LabelledFrame]:
    """Give the frames of a bag that have a label, in the order of their stamps.

    Labels are images of one channel (mono8, 8UC1, mono16 or 16UC1) of the reference image's size and stamp, in the bag itself
    or in one beside it. A frame without a label, such as one between labelled key frames, is left out.

    Raises:
        BagError: the bag cannot be read, is damaged, or has no labels that belong to its frames.
        DataError: a label has another size than its image, or values that are no class.
    """
    labels = BagLabels(path, config.model.classes, topics)
    projector = Projector(config)
    used = 0
    with BagReader(path) as bag:
        run = Replay(bag, config)
        for frame in run.frames():
            image = labels.at(frame.stamp_ns)
            if image is None:
                continue
            used += 1
            grids = projector.project(frame)
            yield LabelledFrame(grids, label_on_grid(image, grids.geometry, f"{path}: label at {frame.stamp_ns} ns"))
        if run.damage:
            raise BagError(run.damage)
    if not used:
        msg = f"{path}: expected labels on {topics.images} with the stamps of its {run.closed} frames, got none that fits"
        raise BagError(msg)


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

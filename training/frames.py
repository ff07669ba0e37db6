"""A bag becomes labelled frames: the node's own decode, synchronize and project, and the label on the same pixels."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gemini_core.bag.messages import Message
from gemini_core.bag.reader import STORAGE_SUFFIXES, BagReader
from gemini_core.config import FusionConfig
from gemini_core.errors import BagError, ConfigError, DataError
from gemini_core.project.projector import Projector
from gemini_core.replay import Replay
from gemini_core.types import U8, UNLABELLED, AlignedGrids, GridGeometry

LABELS_SUFFIX = "-labels"
"""A bag beside a bag: labels of ``drive`` may stand in ``drive-labels``."""

_NAMES_OF_NOTHING = ("unlabelled", "unlabeled", "ignore", "void", "background")


@dataclass(frozen=True, slots=True)
class LabelTopics:
    """Where labels are: images of class values, and the topic that names the values ("": they are indices of classes)."""

    images: str
    names: str


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
    labels = _Labels(path, config.model.classes, topics)
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


class _Labels:
    """All labels of a bag, by stamp; kept as PNG, since a bag may hold thousands."""

    def __init__(self, path: Path, classes: tuple[str, ...], topics: LabelTopics) -> None:
        beside = (
            path.with_name(path.stem + LABELS_SUFFIX)
            if path.suffix in STORAGE_SUFFIXES
            else path.with_name(path.name + LABELS_SUFFIX)
        )
        self._path = beside if beside.exists() else path
        self._topics = topics
        self._classes = classes
        self._images: dict[int, bytes] = {}
        with BagReader(self._path) as bag:
            names = {topic.name for topic in bag.topics()}
            missing = [name for name in (topics.images, topics.names) if name and name not in names]
            if missing:
                images = [topic.name for topic in bag.topics() if topic.type == "sensor_msgs/msg/Image"]
                msg = (
                    f"{self._path}: expected labels on topic {missing[0]!r}, got no such topic; images: "
                    f"{', '.join(sorted(images)) or 'none'}"
                )
                raise BagError(msg)
            values = self._values(bag)
            for stored in bag.messages((topics.images,)):
                stamp = stored.message.header.stamp
                image = self._read(stored.message, values)
                self._images[stamp.sec * 1_000_000_000 + stamp.nanosec] = cv2.imencode(".png", image)[1].tobytes()

    def at(self, stamp_ns: int) -> U8 | None:
        """The label (H, W) of the image with this stamp, None where there is none."""
        encoded = self._images.get(stamp_ns)
        if encoded is None:
            return None
        return np.asarray(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED), np.uint8)

    def _values(self, bag: BagReader) -> npt.NDArray[np.int16]:
        """The class of every value that a label may have; -1 for values that are no class."""
        values = np.full(1 << 16, -1, np.int16)
        if not self._topics.names:
            values[: len(self._classes)] = np.arange(len(self._classes))
            values[UNLABELLED] = UNLABELLED
            return values
        values[UNLABELLED] = UNLABELLED
        stored = next(bag.messages((self._topics.names,)), None)
        entries: list[Any] = [] if stored is None else list(stored.message.class_map)
        unknown = [entry.class_name for entry in entries if entry.class_name not in (*self._classes, *_NAMES_OF_NOTHING)]
        if not entries or unknown:
            got = f"{', '.join(unknown)} besides" if unknown else "none"
            msg = (
                f"{self._path}: expected the names on {self._topics.names} among the classes {', '.join(self._classes)} "
                f"(model.classes), got {got}"
            )
            raise DataError(msg)
        for entry in entries:
            known = entry.class_name in self._classes
            values[entry.class_id] = self._classes.index(entry.class_name) if known else UNLABELLED
        return values

    def _read(self, message: Message, values: npt.NDArray[np.int16]) -> U8:
        stamp = f"{message.header.stamp.sec}.{message.header.stamp.nanosec:09d}"
        widths = {"mono8": "u1", "8UC1": "u1", "mono16": "u2", "16UC1": "u2"}
        where = f"{self._path}: label at {stamp} s"
        if message.encoding not in widths:
            msg = f"{where}: expected encoding {', '.join(widths)}, got {message.encoding!r}"
            raise DataError(msg)
        dtype = np.dtype((">" if message.is_bigendian else "<") + widths[message.encoding])
        if message.step < message.width * dtype.itemsize or len(message.data) < message.step * message.height:
            msg = f"{where}: expected {message.height} rows of {message.width} values, got {len(message.data)} bytes"
            raise DataError(msg)
        rows = np.frombuffer(message.data, np.uint8)[: message.step * message.height].reshape(message.height, message.step)
        raw = np.ascontiguousarray(rows[:, : message.width * dtype.itemsize]).view(dtype)
        image = values[raw]
        if (image < 0).any():
            wrong = Counter(raw[image < 0].tolist()).most_common(1)[0]
            msg = (
                f"{where}: expected values of {len(self._classes)} classes or {UNLABELLED}, got {wrong[0]} at {wrong[1]} pixels"
            )
            raise DataError(msg)
        label: U8 = image.astype(np.uint8)
        return label

"""The labels of a bag: topics in the bag itself, or in a bag beside it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gemini_core.bag.messages import Message
from gemini_core.bag.reader import BagReader, bag_name
from gemini_core.errors import BagError, DataError
from gemini_core.types import U8, UNLABELLED

LABELS_SUFFIX = "-labels"
"""A bag beside a bag: labels of ``drive`` may stand in ``drive-labels``."""

NAMES_OF_NOTHING = ("unlabelled", "unlabeled", "ignore", "void", "background")
"""Names that mean "not labelled", where they are not classes."""


@dataclass(frozen=True, slots=True)
class LabelTopics:
    """Where labels are: images of class values, and the topic that names the values ("": they are indices of classes)."""

    images: str
    names: str


GROUND_TRUTH = LabelTopics("/ground_truth/segmentation", "/ground_truth/label_info")
"""Where the simulator and the import of labels write them."""


def bag_beside(path: Path) -> Path:
    """Name the bag beside a bag that its labels may stand in; ``path`` is a bag's folder or its one file."""
    if path.name in ("", ".."):  # the folder where one is
        path = path.resolve()
    return path.with_name(bag_name(path) + LABELS_SUFFIX)


def where_labels_are(path: Path) -> Path:
    """Find the bag that the labels of a bag stand in: the one beside it where there is one, else the bag itself."""
    beside = bag_beside(path)
    try:
        return beside if beside.exists() else path
    except (OSError, ValueError):  # a name that is too long with the ending
        return path


class BagLabels:
    """All labels of a bag, by stamp; kept as PNG, since a bag may hold thousands.

    Labels are images of one channel (mono8, 8UC1, mono16 or 16UC1) with the stamps of the reference images.

    Raises:
        BagError: on construction, a topic is missing, or the bag cannot be read.
        DataError: on construction, a name or a value is no class, or an image is of another kind.
    """

    def __init__(self, path: Path, classes: tuple[str, ...], topics: LabelTopics) -> None:
        self._path = where_labels_are(path)
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
        unknown = [entry.class_name for entry in entries if entry.class_name not in (*self._classes, *NAMES_OF_NOTHING)]
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

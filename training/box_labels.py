"""Labelled 3D boxes of a bag (vision_msgs/Detection3DArray), in the frame that the detector works in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gemini_core.bag.labels import where_labels_are
from gemini_core.bag.messages import read_detections
from gemini_core.bag.reader import BagReader
from gemini_core.config.sections import DetectionsConfig
from gemini_core.errors import BagError, DataError
from gemini_core.evaluate.detection_labels import level_boxes
from gemini_core.rig.geometry import invert_transform
from gemini_core.rig.transform_tree import frame_name
from gemini_core.types import F32, F64, I64, Detection3D, DetectionFrames

_TYPE = "vision_msgs/msg/Detection3DArray"


@dataclass(frozen=True, slots=True)
class _Labels:
    frame_id: str
    boxes: tuple[Detection3D, ...]


class BoxLabels:
    """All labelled boxes of a bag, by stamp.

    Boxes are in the frame of the reference image, in ``detections.base_frame`` or in ``detections.frame``, as each message's
    header says; their class is that of the first hypothesis. Boxes of other classes than ``detections.classes`` are left out
    and counted by name in ``others``.

    Raises:
        BagError: on construction, the topic is missing, or the bag cannot be read.
        DataError: on construction, a box without a class.
    """

    def __init__(self, path: Path, config: DetectionsConfig, topic: str) -> None:
        self._path = where_labels_are(path)
        self._config = config
        self._labels: dict[int, _Labels] = {}
        self.others: dict[str, int] = {}
        with BagReader(self._path) as bag:
            topics = {each.name: each.type for each in bag.topics()}
            if topics.get(topic) != _TYPE:
                arrays = ", ".join(sorted(name for name, kind in topics.items() if kind == _TYPE)) or "none"
                got = f"one of {topics[topic]}" if topic in topics else "no such topic"
                msg = f"{self._path}: expected boxes ({_TYPE}) on topic {topic!r}, got {got}; boxes: {arrays}"
                raise BagError(msg)
            for stored in bag.messages((topic,)):
                header = stored.message.header
                stamp_ns = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
                if not all(len(each.results) for each in stored.message.detections):
                    msg = f"{self._path}: expected a hypothesis with a class for each box, got none at {stamp_ns} ns"
                    raise DataError(msg)
                boxes = read_detections(stored.message)
                for box in boxes:
                    if box.class_name not in config.classes:
                        self.others[box.class_name] = self.others.get(box.class_name, 0) + 1
                kept = tuple(box for box in boxes if box.class_name in config.classes)
                self._labels[stamp_ns] = _Labels(header.frame_id, kept)

    def at(self, stamp_ns: int, reference: str, frames: DetectionFrames) -> tuple[F32, I64] | None:
        """Give the boxes (M, 7) in the base frame and classes (M,) of the image with this stamp; None without a label.

        Args:
            stamp_ns: of the image.
            reference: its frame.
            frames: where its boxes are made and go to, known.

        Raises:
            DataError: the boxes are in another frame.
        """
        labels = self._labels.get(stamp_ns)
        if labels is None:
            return None
        base_from_labels = self._base_from(labels.frame_id, reference, frames)
        if base_from_labels is None:
            known = ", ".join(dict.fromkeys((reference, self._config.base_frame or reference, frames.output_frame_id)))
            msg = f"{self._path}: expected boxes at {stamp_ns} ns in one of the frames {known}, got {labels.frame_id!r}"
            raise DataError(msg)
        classes = np.array([self._config.classes.index(box.class_name) for box in labels.boxes], np.int64)
        return level_boxes(labels.boxes, base_from_labels), classes

    def _base_from(self, frame_id: str, reference: str, frames: DetectionFrames) -> F64 | None:
        """The transform (4, 4) from the labels' frame to the base frame."""
        base_from_reference = invert_transform(np.asarray(frames.reference_from_base))
        name = frame_name(frame_id)
        if name == frame_name(reference):
            return base_from_reference
        if self._config.base_frame and name == frame_name(self._config.base_frame):
            return np.eye(4)
        if name == frame_name(frames.output_frame_id) and frames.output_from_reference is not None:
            moved: F64 = base_from_reference @ invert_transform(frames.output_from_reference)
            return moved
        return None

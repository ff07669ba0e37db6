"""3D box labels as JSON: ``{"NAME": [{"class": ..., "center_m": ..., "size_m": ..., "orientation_xyzw": ...}, ...], ...}``.

NAME is a frame's. Centre (x, y, z), size along the box's own x, y, z and orientation (a unit quaternion) are in the optical
frame of the reference camera: x right, y down, z forward. A frame with an empty list has no box; one that is left out is not
labelled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gemini_core.bag.labels import where_labels_are
from gemini_core.bag.reader import BagReader
from gemini_core.documents import read_json
from gemini_core.errors import DataError, nearest_names
from gemini_core.labelling.index import BOXES, Index
from gemini_core.types import Detection3D

BOXES_TOPIC = "/ground_truth/detections"
_NANOSECONDS = 1_000_000_000
_FARTHEST_M = 1e6
_UNIT = 1e-3  # how far a quaternion's length may be from 1: numbers typed with three digits


def read_boxes(folder: Path, index: Index) -> dict[str, tuple[Detection3D, ...]]:
    """Read ``boxes.json``: the boxes of each frame by its name; nothing where there is no such file.

    Raises:
        DataError: the file is not as said above, or names a frame or class that is not there.
    """
    path = folder / BOXES
    if not path.exists():
        return {}
    content = read_json(path, DataError)
    if not isinstance(content, dict) or not all(isinstance(boxes, list) for boxes in content.values()):
        msg = f"{path}: expected an object with a list of boxes for each frame, got {str(content)[:80]}"
        raise DataError(msg)
    return {
        index.frame(name, str(path)).name: tuple(
            _box(box, index.box_classes, f"{path}, box {number} (from 0) of {name}") for number, box in enumerate(boxes)
        )
        for name, boxes in content.items()
    }


def boxes_json(boxes: Sequence[Detection3D]) -> list[dict[str, object]]:
    """The boxes of one frame as they stand in the file."""
    return [
        {
            "class": box.class_name,
            "center_m": list(box.center_m),
            "size_m": list(box.size_m),
            "orientation_xyzw": list(box.orientation_xyzw),
        }
        for box in boxes
    ]


def boxes_of_bag(bag: Path) -> dict[int, tuple[Detection3D, ...]]:
    """The labelled boxes of a bag, or of the one beside it, by stamp; nothing where it has none.

    Raises:
        BagError: the bag cannot be read.
    """
    with BagReader(where_labels_are(bag)) as reader:
        if BOXES_TOPIC not in {topic.name for topic in reader.topics()}:
            return {}
        found = {}
        for stored in reader.messages((BOXES_TOPIC,)):
            stamp = stored.message.header.stamp
            boxes = tuple(_of_message(each) for each in stored.message.detections)
            found[stamp.sec * _NANOSECONDS + stamp.nanosec] = boxes
    return found


def _of_message(detection: Any) -> Detection3D:  # noqa: ANN401 - a message, whose class is made at run time
    center, size = detection.bbox.center, detection.bbox.size
    return Detection3D(
        class_name=detection.results[0].hypothesis.class_id if detection.results else "",
        score=1.0,
        center_m=(center.position.x, center.position.y, center.position.z),
        size_m=(size.x, size.y, size.z),
        orientation_xyzw=(center.orientation.x, center.orientation.y, center.orientation.z, center.orientation.w),
    )


def _box(box: object, classes: Sequence[str], where: str) -> Detection3D:
    if not isinstance(box, dict) or set(box) != {"class", "center_m", "size_m", "orientation_xyzw"}:
        msg = f"{where}: expected class, center_m, size_m and orientation_xyzw, got {str(box)[:80]}"
        raise DataError(msg)
    if box["class"] not in classes:
        msg = f"{where}: expected a class of frames.json, got {box['class']!r} ({nearest_names(str(box['class']), classes)})"
        raise DataError(msg)
    x, y, z = _numbers(box, "center_m", 3, where)
    length, width, height = _numbers(box, "size_m", 3, where)
    if min(length, width, height) <= 0:
        msg = f"{where}: expected a size above 0, got {box['size_m']}"
        raise DataError(msg)
    orientation = _numbers(box, "orientation_xyzw", 4, where)
    norm = math.hypot(*orientation)
    if abs(norm - 1.0) > _UNIT:
        msg = f"{where}: expected a quaternion of length 1, got {box['orientation_xyzw']} of length {norm:g}"
        raise DataError(msg)
    qx, qy, qz, qw = (part / norm for part in orientation)
    return Detection3D(str(box["class"]), 1.0, (x, y, z), (length, width, height), (qx, qy, qz, qw))


def _numbers(box: Mapping[str, object], key: str, count: int, where: str) -> list[float]:
    values = box[key]
    if (
        not isinstance(values, list)
        or len(values) != count
        or not all(type(value) in (int, float) and abs(value) <= _FARTHEST_M for value in values)
    ):
        msg = f"{where}: expected {count} numbers within a million for {key}, got {values}"
        raise DataError(msg)
    return [float(value) for value in values]

"""Mask labels as COCO: https://cocodataset.org/#format-data, object detection with segmentations.

Run lengths count pixels column by column, those outside the mask first. Compressed ones are the same numbers as text: from
the fourth on each as its difference from the last but one before it, in groups of five bits, the lowest first, as characters
from "0" on; 32 in a character says that more follow, and 16 in the last one that the number is negative.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from gemini_core.documents import read_json
from gemini_core.errors import DataError
from gemini_core.extras import need
from gemini_core.labelling.index import COCO, Index, IndexedFrame
from gemini_core.labelling.masks import LabelReader, class_value
from gemini_core.types import U8, UNLABELLED, Bool

_CHARACTERS = range(48, 48 + 64)  # of compressed run lengths
_LONGEST = 7  # characters of a number below 2**32 with its sign
_FEWEST = 6  # coordinates of a polygon


# --------------------------------------------------------------------------------------------------------------------
# Writing


class CocoWriter:
    """Collects images and their labels, one annotation for each class that an image has."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._images: list[dict[str, object]] = []
        self._annotations: list[dict[str, object]] = []

    def add(self, file_name: str, width: int, height: int, label: U8 | None) -> None:
        """Add an image, and its label (H, W) where it has one."""
        image_id = len(self._images) + 1
        self._images.append({"id": image_id, "width": width, "height": height, "file_name": file_name})
        if label is None:
            return
        for value in np.unique(label[label != UNLABELLED]).tolist():
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": image_id,
                    "category_id": value + 1,
                    "iscrowd": 1,  # COCO's word for a mask that is not one thing; its run lengths are not compressed
                    **_shape(label == value),
                }
            )

    def content(self) -> dict[str, object]:
        """What the file holds; category k + 1 is class k."""
        return {
            "licenses": [],
            "info": {"description": "frames for labelling", "version": "1.0"},
            "categories": [{"id": index, "name": name, "supercategory": ""} for index, name in enumerate(self._classes, 1)],
            "images": self._images,
            "annotations": self._annotations,
        }


def _shape(mask: Bool) -> dict[str, object]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return {
        "segmentation": {"size": list(mask.shape), "counts": run_lengths(mask)},
        "area": int(mask.sum()),
        "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
    }


def run_lengths(mask: Bool) -> list[int]:
    """COCO's run lengths of a mask (H, W)."""
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    lengths: list[int] = np.diff(changes, prepend=0, append=pixels.size).tolist()
    return [0, *lengths] if pixels[0] else lengths


# --------------------------------------------------------------------------------------------------------------------
# Reading


def open_coco(folder: Path, index: Index) -> LabelReader | None:
    """Find the labels in ``annotations/instances_default.json``; None where there is no annotation.

    Images belong to frames by the names of their files. Where annotations overlap, the later one in the file wins; pixels
    without any are unlabelled.

    Raises:
        DataError: the file is not COCO, or an annotation is of an unknown category or frame, or of an image of another size;
            from the reader: a segmentation that is not as the format wants it.
    """
    path = folder / COCO
    if not path.exists():
        return None
    content = read_json(path, DataError)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in _TABLES):
        msg = f"{path}: expected COCO with lists {', '.join(_TABLES)}, got {_found(content)}"
        raise DataError(msg)
    images, categories = (_by_id(content[key], path, key) for key in _TABLES[:2])
    by_frame: dict[str, list[tuple[str, int, object]]] = {}
    for number, annotation in enumerate(content["annotations"]):
        where = _where(path, annotation, number)
        frame = _frame(images, annotation, index, where)
        category = _referred(categories, annotation, "category_id", where)
        value = class_value(str(category.get("name")), index.classes, where)
        by_frame.setdefault(frame.name, []).append((where, value, annotation.get("segmentation")))

    def read(frame: IndexedFrame) -> U8 | None:
        if frame.name not in by_frame:
            return None
        label = np.full((frame.height, frame.width), UNLABELLED, np.uint8)
        for where, value, segmentation in by_frame[frame.name]:
            label[_decode(segmentation, frame, where)] = value
        return label

    return read if by_frame else None


_TABLES = ("images", "categories", "annotations")


def _found(content: object) -> str:
    return f"only {', '.join(map(str, content)) or 'nothing'}" if isinstance(content, dict) else type(content).__name__


def _by_id(rows: Sequence[object], path: Path, table: str) -> dict[object, Mapping[str, Any]]:
    found: dict[object, Mapping[str, Any]] = {}
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("id"), int | str):
            msg = f"{path}: expected an id for each of the {table}, got {str(row)[:80]}"
            raise DataError(msg)
        if row["id"] in found:
            msg = f"{path}: expected each id of the {table} once, got {row['id']} twice"
            raise DataError(msg)
        found[row["id"]] = row
    return found


def _where(path: Path, annotation: object, number: int) -> str:
    if not isinstance(annotation, dict):
        msg = f"{path}: expected annotation {number} (from 0) to be an object, got {str(annotation)[:80]}"
        raise DataError(msg)
    return f"{path}, annotation {annotation.get('id', number)}"


def _referred(
    rows: Mapping[object, Mapping[str, Any]], annotation: Mapping[str, Any], key: str, where: str
) -> Mapping[str, Any]:
    number = annotation.get(key)
    if not isinstance(number, int | str) or number not in rows:
        msg = f"{where}: expected {key} to be an id that the file has, got {number!r}"
        raise DataError(msg)
    return rows[number]


def _frame(images: Mapping[object, Mapping[str, Any]], annotation: Mapping[str, Any], index: Index, where: str) -> IndexedFrame:
    image = _referred(images, annotation, "image_id", where)
    name = str(image.get("file_name"))
    frame = index.frame(Path(name.replace("\\", "/")).stem, f"{where}: image {name!r}")
    size = image.get("width"), image.get("height")
    if size != (frame.width, frame.height):
        msg = f"{where}: expected image {name!r} of {frame.width} x {frame.height} pixels, got {size[0]} x {size[1]}"
        raise DataError(msg)
    return frame


def _decode(segmentation: object, frame: IndexedFrame, where: str) -> Bool:
    """The mask (H, W) of one annotation."""
    if isinstance(segmentation, dict):
        return _from_runs(segmentation, frame, where)
    if isinstance(segmentation, list) and segmentation:
        return _from_polygons(segmentation, frame, where)
    msg = f"{where}: expected polygons or run lengths as segmentation, got {segmentation!r} (a box alone is no mask)"
    raise DataError(msg)


def _from_runs(segmentation: Mapping[str, object], frame: IndexedFrame, where: str) -> Bool:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [frame.height, frame.width]:
        msg = f"{where}: expected run lengths of size [{frame.height}, {frame.width}] (height, width), got {size}"
        raise DataError(msg)
    if isinstance(counts, str):
        counts = _decompress(counts)
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        msg = f"{where}: expected run lengths as whole numbers or as compressed text, got others"
        raise DataError(msg)
    pixels = frame.height * frame.width
    if sum(counts) != pixels:
        msg = f"{where}: expected run lengths of {pixels} pixels in all, got {sum(counts)}"
        raise DataError(msg)
    runs = np.arange(len(counts)) % 2 == 1
    return np.repeat(runs, counts).reshape((frame.height, frame.width), order="F")


def _decompress(text: str) -> list[int] | None:
    """Read compressed run lengths, None where they break off or have other characters.

    pycocotools could, but gives memory that nobody has written where they are too short.
    """
    counts: list[int] = []
    number = bits = 0
    for character in text:
        if ord(character) not in _CHARACTERS or bits == 5 * _LONGEST:
            return None
        group = ord(character) - _CHARACTERS[0]
        number |= (group & 31) << bits
        bits += 5
        if group & 32:
            continue
        if group & 16:
            number -= 1 << bits
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))  # noqa: PLR2004 - the first three are whole
        number = bits = 0
    return counts if not bits else None


def _from_polygons(polygons: Sequence[object], frame: IndexedFrame, where: str) -> Bool:
    """The pixels inside any of the polygons; (0, 0) is the image's corner, and not the first pixel's centre."""
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < _FEWEST or len(polygon) % 2:
            msg = f"{where}: expected polygons as lists of three or more x, y, got {str(polygon)[:80]}"
            raise DataError(msg)
        for place, limit in zip(polygon, (frame.width, frame.height) * (len(polygon) // 2), strict=True):
            if type(place) not in (int, float) or not -limit <= place <= 2 * limit:
                msg = f"{where}: expected a polygon in an image of {frame.width} x {frame.height}, got a corner at {place}"
                raise DataError(msg)
    tool = need("pycocotools.mask", "pycocotools", "polygons", "labelling")
    merged = tool.merge(tool.frPyObjects(polygons, frame.height, frame.width))
    return cast("Bool", tool.decode(merged) != 0)

"""Import from labelling tools: what they give back becomes a bag of labels beside the bag."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from gemini_core.bag import messages
from gemini_core.bag.labels import GROUND_TRUTH, bag_beside
from gemini_core.bag.reader import BagReader
from gemini_core.bag.writer import BagWriter, Storage
from gemini_core.errors import BagError, DataError
from gemini_core.labelling.boxes import BOXES_TOPIC, read_boxes
from gemini_core.labelling.coco import open_coco
from gemini_core.labelling.index import BOXES, COCO, COLORED_MASKS, MASKS, Index, IndexedFrame, read_index
from gemini_core.labelling.masks import LabelReader, open_colored_masks, open_masks
from gemini_core.types import U8, UNLABELLED, Detection3D

Source = Literal["masks", "coco", "cvat"]
SOURCES: tuple[Source, ...] = get_args(Source)

_OPEN: Mapping[Source, Callable[[Path, Index], LabelReader | None]] = {
    "masks": open_masks,
    "coco": open_coco,
    "cvat": open_colored_masks,
}
_PLACES: Mapping[Source, str] = {"masks": f"{MASKS}/*.png", "coco": str(COCO), "cvat": f"{COLORED_MASKS}/*.png"}


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import wrote to ``path``: ``labelled`` of ``frames`` have a label, ``boxed`` have boxes.

    ``source`` is what the labels are from, None without any; ``labelled_share`` of these frames' pixels have a class.
    """

    path: Path
    frames: int
    source: Source | None
    labelled: int
    labelled_share: float
    boxed: int


def import_labels(
    bag: Path, folder: Path, source: Source | None = None, storage: Storage = "mcap", *, overwrite: bool = False
) -> Imported:
    """Read labels back from a folder that frames were exported to, and write them as a bag beside ``bag``.

    Without ``source`` the labels must stand in one form only: the pre-annotations of an export stand in two. Frames without any
    labelled pixel get no label. The bag is there whole or not at all.

    Raises:
        DataError: there are no labels, or in several forms; a file that is not as it should be.
        BagError: ``bag`` cannot be read or is not the one that the frames are of; the new one cannot be written.
    """
    index = read_index(folder)
    boxes = read_boxes(folder, index)
    source, read = _open(folder, index, source, needed=not boxes)
    _check_bag(bag, index)
    labelled, pixels, classified = 0, 0, 0
    path = bag_beside(bag)
    with BagWriter(path, storage, overwrite=overwrite) as labels:
        for frame in index.frames.values():
            label = read(frame) if read is not None else None
            if label is not None and (label != UNLABELLED).any():
                if not labelled:
                    names = messages.label_info(index.classes, frame.stamp_ns, frame.frame_id)
                    labels.write(GROUND_TRUTH.names, names, frame.stamp_ns)
                _write_label(labels, frame, label)
                labelled += 1
                pixels += label.size
                classified += int(np.count_nonzero(label != UNLABELLED))
            if frame.name in boxes:
                _write_boxes(labels, frame, boxes[frame.name])
        if not labelled and not boxes:
            raise _nothing(folder)
    return Imported(path, len(index.frames), source if labelled else None, labelled, classified / max(pixels, 1), len(boxes))


def _open(folder: Path, index: Index, source: Source | None, *, needed: bool) -> tuple[Source | None, LabelReader | None]:
    """Find the labels in the form asked for, or in the one form that they are in."""
    readers = {name: _OPEN[name](folder, index) for name in ((source,) if source else SOURCES)}
    found = {name: read for name, read in readers.items() if read is not None}
    if len(found) > 1:
        places = " and in ".join(_PLACES[name] for name in found)
        msg = f"{folder}: expected labels in one form, got them in {places}; say which with --from {' or '.join(found)}"
        raise DataError(msg)
    if not found:
        if needed or source:
            raise _nothing(folder, *((source,) if source else SOURCES))
        return None, None
    return next(iter(found.items()))


def _nothing(folder: Path, *sources: Source) -> DataError:
    places = ", ".join(_PLACES[name] for name in sources or SOURCES)
    archive = next(iter(sorted(folder.glob("*.zip"))), None)
    hint = "" if archive is None else f"; unpack {archive.name} there first"
    return DataError(f"{folder}: expected labels in {places} or {BOXES}, got none with a labelled pixel or a box{hint}")


def _check_bag(bag: Path, index: Index) -> None:
    """See that the bag has the images that were exported."""
    waiting = {frame.stamp_ns for frame in index.frames.values()}
    with BagReader(bag) as reader:
        if index.image_topic not in {topic.name for topic in reader.topics()}:
            msg = f"{bag}: expected the bag that the frames are of, with images on {index.image_topic}, got no such topic"
            raise BagError(msg)
        for stored in reader.messages((index.image_topic,)):
            stamp = stored.message.header.stamp
            waiting.discard(stamp.sec * messages.NANOSECONDS + stamp.nanosec)
            if not waiting:
                return
    msg = f"{bag}: expected the bag that the frames are of, got one without {len(waiting)} of their {len(index.frames)} stamps"
    raise BagError(msg)


def _write_label(labels: BagWriter, frame: IndexedFrame, label: U8) -> None:
    labels.write(GROUND_TRUTH.images, messages.mask(label, frame.stamp_ns, frame.frame_id), frame.stamp_ns)


def _write_boxes(labels: BagWriter, frame: IndexedFrame, boxes: tuple[Detection3D, ...]) -> None:
    labels.write(BOXES_TOPIC, messages.detections(boxes, frame.stamp_ns, frame.frame_id), frame.stamp_ns)

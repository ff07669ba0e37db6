"""The labelling folder: its layout, and ``frames.json``, which says what is in it.

======================================== ==============================================================================
``frames.json``                          the frames: stamp, files, camera, LiDAR, sensors
``images/NAME.png``                      the reference image, which labels belong to
``images/related_images/NAME_png/*.png`` what the other sensors saw, on the same pixels (where CVAT looks for such pictures)
``masks/NAME.png``                       labels as a PNG of class indices
``annotations/instances_default.json``   labels as COCO
``labelmap.txt``, ``SegmentationClass/`` labels as CVAT's "Segmentation mask 1.1"
``boxes.json``                           boxes in 3D
``cvat_labels.json``                     the classes, for CVAT's label constructor
======================================== ==============================================================================

NAME is the stamp, seconds and nanoseconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemini_core.errors import DataError, nearest_names

INDEX = Path("frames.json")
IMAGES = Path("images")
RELATED = IMAGES / "related_images"
MASKS = Path("masks")
COCO = Path("annotations", "instances_default.json")
LABEL_MAP = Path("labelmap.txt")
COLORED_MASKS = Path("SegmentationClass")
BOXES = Path("boxes.json")
CVAT_LABELS = Path("cvat_labels.json")

FORMAT = 1
_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class IndexedFrame:
    """One frame of ``frames.json``, as far as labels need it; ``width`` x ``height`` is its image."""

    name: str
    stamp_ns: int
    frame_id: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Index:
    """``frames.json``: ``image_topic`` is the bag's topic that the images are from; ``frames`` by name, in order of stamps.

    ``box_classes`` are ``classes`` and those of boxes that the bag had already.
    """

    image_topic: str
    classes: tuple[str, ...]
    box_classes: tuple[str, ...]
    frames: Mapping[str, IndexedFrame]

    def frame(self, name: str, where: str) -> IndexedFrame:
        """The frame of this name; ``where`` says what names it.

        Raises:
            DataError: there is no such frame.
        """
        found = self.frames.get(name)
        if found is None:
            msg = f"{where}: expected a frame of {INDEX}, got {name!r} ({nearest_names(name, self.frames)})"
            raise DataError(msg)
        return found


def name_of(stamp_ns: int) -> str:
    """What a frame's files are called."""
    seconds, nanoseconds = divmod(stamp_ns, _NANOSECONDS)
    return f"{seconds}_{nanoseconds:09d}"


def read_json(path: Path, where: str) -> Any:  # noqa: ANN401 - whatever stands in the file
    """Read a JSON file; ``where`` is the name to call it by.

    Raises:
        DataError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{where}: expected a file that can be read, got {getattr(error, 'strerror', None) or error}"
        raise DataError(msg) from None
    except (ValueError, RecursionError) as error:
        msg = f"{where}: expected JSON, got a file that breaks off or is none ({error})"
        raise DataError(msg) from None


def read_index(folder: Path) -> Index:
    """Read ``frames.json`` of a folder that frames were exported to.

    Raises:
        DataError: the folder is none of those, or the file was changed to something else.
    """
    if folder.is_file():
        msg = f"{folder}: expected the folder that 'frames export' wrote, got a file; unpack an archive into that folder first"
        raise DataError(msg)
    path = folder / INDEX
    if not path.is_file():
        msg = f"{folder}: expected the folder that 'frames export' wrote, got one without {INDEX}"
        raise DataError(msg)
    content = read_json(path, str(path))
    try:
        if content["format"] != FORMAT:
            msg = f"{path}: expected format {FORMAT}, got {content['format']!r}; export the frames again"
            raise DataError(msg)
        frames = [
            IndexedFrame(
                str(entry["name"]), int(entry["stamp_ns"]), str(entry["frame_id"]), int(entry["width"]), int(entry["height"])
            )
            for entry in content["frames"]
        ]
        classes, box_classes = (tuple(str(name) for name in content[key]) for key in ("classes", "box_classes"))
        return Index(str(content["image_topic"]), classes, box_classes, {frame.name: frame for frame in frames})
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{path}: expected what 'frames export' wrote, got {type(error).__name__} {error}"
        raise DataError(msg) from None

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

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gemini_core.documents import read_json
from gemini_core.errors import DataError, nearest_names, shown
from gemini_core.files import is_file

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
MOST_PIXELS = 1 << 28
"""Of one image: 268 million, more than any camera has; a mask of as many takes 256 MiB."""


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


def read_index(folder: Path) -> Index:
    """Read ``frames.json`` of a folder that frames were exported to.

    Raises:
        DataError: the folder is none of those, or the file was changed to something else.
    """
    if is_file(folder):
        msg = f"{folder}: expected the folder that 'frames export' wrote, got a file; unpack an archive into that folder first"
        raise DataError(msg)
    path = folder / INDEX
    if not is_file(path):
        msg = f"{folder}: expected the folder that 'frames export' wrote, got one without {INDEX}"
        raise DataError(msg)
    content = read_json(path, DataError)
    try:
        if content["format"] != FORMAT:
            msg = f"{path}: expected format {FORMAT}, got {shown(content['format'])}; export the frames again"
            raise DataError(msg)
        frames = [
            IndexedFrame(
                str(entry["name"]), int(entry["stamp_ns"]), str(entry["frame_id"]), int(entry["width"]), int(entry["height"])
            )
            for entry in content["frames"]
        ]
        for frame in frames:
            if min(frame.width, frame.height) < 1 or frame.width * frame.height > MOST_PIXELS:
                size = f"{shown(frame.width)} x {shown(frame.height)}"
                msg = f"{path}: expected images of 1 to {MOST_PIXELS} pixels, got {size} of {shown(frame.name)}"
                raise DataError(msg)
        classes, box_classes = (tuple(str(name) for name in content[key]) for key in ("classes", "box_classes"))
        return Index(str(content["image_topic"]), classes, box_classes, {frame.name: frame for frame in frames})
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        msg = f"{path}: expected what 'frames export' wrote, got {type(error).__name__} {shown(str(error))}"
        raise DataError(msg) from None

"""Export for labelling tools: frames of a bag as pictures and JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gemini_core.bag.labels import BagLabels, LabelTopics, where_labels_are
from gemini_core.bag.reader import BagReader
from gemini_core.config.fusion import FusionConfig
from gemini_core.config.sections import GridConfig
from gemini_core.errors import BagError, DataError
from gemini_core.files import whole_folder
from gemini_core.labelling import index
from gemini_core.labelling.boxes import boxes_json, boxes_of_bag
from gemini_core.labelling.coco import CocoWriter
from gemini_core.labelling.masks import encode_mask
from gemini_core.project.projector import Projector
from gemini_core.render import grid_image, palette
from gemini_core.replay import Replay
from gemini_core.types import U8, Detection3D, SensorFrame


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote: ``frames`` of the ``seen`` ones, of these with a label and with boxes of the bag.

    ``repeated`` frames were left out since they have the stamp of another one, as in a bag that was recorded in a loop: labels
    belong to stamps. ``damage`` is "" or says how the bag ends early.
    """

    frames: int
    seen: int
    labelled: int
    boxed: int
    repeated: int
    damage: str


def export_frames(
    bag: Path,
    config: FusionConfig,
    folder: Path,
    topics: LabelTopics,
    *,
    every: int = 1,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write every ``every``-th frame of a bag to a folder (:mod:`gemini_core.labelling.index` says what is in it).

    Labels that the bag, or the one beside it, has already come along. The folder is there whole or not at all; ``overwrite``
    replaces one that an export made, with what people labelled in it, and nothing else.

    Raises:
        BagError: the bag cannot be read, or has no frames.
        DataError: labels of the bag that cannot be used, a folder that is in the way or cannot be written, Pillow missing.
    """
    with BagReader(bag) as reader:
        run = Replay(reader, config, progress=progress)
        labels, boxes = _labels(bag, config, topics), boxes_of_bag(bag)
        _check_folder(folder.absolute(), overwrite=overwrite)
        with whole_folder(folder) as building:
            writer = _Writer(building, config, labels, boxes)
            for number, frame in enumerate(run.frames()):
                if number % every == 0:
                    writer.add(frame)
            if not run.closed:
                msg = f"{bag}: expected reference images that can be used, got none" + "".join(
                    f"; {each}" for each in run.last_refusals()
                )
                raise BagError(msg)
            topic = next(entry.topic for entry in run.rig if entry.role == "rgb.image")
            writer.finish(bag.resolve().name, topic)
    return Exported(
        frames=len(writer.frames),
        seen=run.closed,
        labelled=writer.labelled,
        boxed=len(writer.boxes),
        repeated=writer.repeated,
        damage=run.damage,
    )


def _labels(bag: Path, config: FusionConfig, topics: LabelTopics) -> BagLabels | None:
    with BagReader(where_labels_are(bag)) as reader:
        if topics.images not in {topic.name for topic in reader.topics()}:
            return None
    return BagLabels(bag, config.model.classes, topics)


class _Writer:
    """Writes one frame after the other, and at the end the files that are about all of them."""

    def __init__(
        self, folder: Path, config: FusionConfig, labels: BagLabels | None, boxes: dict[int, tuple[Detection3D, ...]]
    ) -> None:
        self.frames: dict[str, dict[str, object]] = {}
        self.boxes: dict[str, list[dict[str, object]]] = {}
        self.labelled = 0
        self.repeated = 0
        self._folder = folder
        self._config = config
        self._labels = labels
        self._boxes_of_bag = boxes
        self._coco = CocoWriter(config.model.classes)

    def add(self, frame: SensorFrame) -> None:
        name = index.name_of(frame.stamp_ns)
        if name in self.frames:
            self.repeated += 1
            return
        height, width = frame.rgb.pixels.shape[:2]
        # what is labelled is the image at its own size, and the other sensors are shown on just these pixels
        grid = GridConfig(height=height, width=width, resize="stretch")
        projector = Projector(dataclasses.replace(self._config, grid=grid))
        frame = projector.rectified(frame)
        label = None if self._labels is None else self._labels.at(frame.stamp_ns)
        if label is not None and label.shape != (height, width):
            msg = f"label of frame {name}: expected the image's {width} x {height}, got {label.shape[1]} x {label.shape[0]}"
            raise DataError(msg)
        image = index.IMAGES / f"{name}.png"
        _write(self._folder / image, _png(frame.rgb.pixels))
        if label is not None:
            self.labelled += 1
            _write(self._folder / index.MASKS / f"{name}.png", encode_mask(label, self._config.model.classes))
        if frame.stamp_ns in self._boxes_of_bag:
            self.boxes[name] = boxes_json(self._boxes_of_bag[frame.stamp_ns])
        self._coco.add(image.name, width, height, label)
        self.frames[name] = _entry(name, frame, image, self._write_related(name, frame, projector))

    def finish(self, bag: str, image_topic: str) -> None:
        classes = self._config.model.classes
        boxed = {str(box["class"]) for boxes in self.boxes.values() for box in boxes}
        content = {
            "format": index.FORMAT,
            "bag": bag,
            "image_topic": image_topic,
            "rectified": self._config.rgb.rectify,
            "classes": classes,
            "box_classes": [*classes, *sorted(boxed.difference(classes))],
            "frames": list(self.frames.values()),
        }
        colors = palette(classes).tolist()
        cvat = [
            {"name": name, "color": "#{:02x}{:02x}{:02x}".format(*colors[i]), "attributes": []}
            for i, name in enumerate(classes)
        ]
        if self.boxes:
            _write(self._folder / index.BOXES, _json(self.boxes))
        _write(self._folder / index.COCO, json.dumps(self._coco.content()).encode())
        _write(self._folder / index.CVAT_LABELS, _json(cvat))
        _write(self._folder / index.INDEX, _json(content))

    def _write_related(self, name: str, frame: SensorFrame, projector: Projector) -> dict[str, str]:
        grids = projector.project(frame)
        pictures = {}
        for grid in grids.grids:
            if grid.modality != "rgb":
                path = index.RELATED / f"{name}_png" / f"{grid.modality}.png"
                _write(self._folder / path, _png(grid_image(grids, grid)))
                pictures[str(grid.modality)] = path.as_posix()
        return pictures


def _entry(name: str, frame: SensorFrame, image: Path, related: dict[str, str]) -> dict[str, object]:
    """One frame of ``frames.json``."""
    height, width = frame.rgb.pixels.shape[:2]
    calibration = frame.calibration
    camera = None if calibration is None else calibration.reference
    lidar = None if calibration is None else calibration.reference_from_lidar
    return {
        "name": name,
        "stamp_ns": frame.stamp_ns,
        "frame_id": frame.frame_id,
        "width": width,
        "height": height,
        "image": image.as_posix(),
        "related": related,
        "camera": None if camera is None else dataclasses.asdict(camera),
        "lidar_frame_id": None if frame.lidar is None else frame.lidar.frame_id,
        "reference_from_lidar": None if lidar is None else lidar.tolist(),
        "modalities": [dataclasses.asdict(status) for status in frame.status],
    }


def _png(pixels: U8) -> bytes:
    encoded: npt.NDArray[Any] = np.asarray(cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1])
    return encoded.tobytes()


def _json(content: object) -> bytes:
    return json.dumps(content, indent=1).encode()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _check_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse to write over anything but exported frames that are to be replaced.

    Raises:
        DataError: something else is in the way.
    """
    if folder.exists() and not folder.is_dir():
        msg = f"{folder}: expected the name of a folder, got that of a file"
        raise DataError(msg)
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            msg = f"{folder}: expected an empty folder or none, got one with files in it (overwriting was not asked for)"
            raise DataError(msg)
        if not (folder / index.INDEX).is_file():
            msg = f"{folder}: expected exported frames to replace, got a folder with other files in it"
            raise DataError(msg)

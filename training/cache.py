"""Cache of labelled frames: every bag becomes a folder of safetensors shards on first use.

A folder is named after the bag and after a hash of all that its frames depend on, so another configuration, or a bag that
has changed, makes another folder. A folder is made under another name first, so what has its own is complete.

Channels are kept as 8 bits where that loses nothing (pictures, polarity), as 16 bits otherwise (an error of 1/131070 of the
range), and as one channel where all three are equal.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from gemini_core import __version__
from gemini_core.bag.labels import LabelTopics
from gemini_core.config.engine import to_flat
from gemini_core.config.fusion import FusionConfig
from gemini_core.documents import read_json
from gemini_core.errors import DataError, shown
from gemini_core.files import is_file
from gemini_core.simulation.clip import describe
from gemini_core.types import F32, U8, UNLABELLED, AlignedGrids
from training.config import DataConfig
from training.frames import LabelledFrame, find_bags, labelled_frames
from training.points_and_boxes import PointsAndBoxes, pack_points_and_boxes, unpack_points_and_boxes

FORMAT = 2
SHARD_FRAMES = 32
_FRAME_SECTIONS = ("modalities", "topics.", "sync.", "motion.", "rgb.", "depth.", "lidar.", "event.", "grid.", "model.classes")
_BOX_OPTIONS = ("detections.classes", "detections.base_frame", "detections.frame", "detections.depth_stride")
_EIGHT, _SIXTEEN = 255, 65535
_ROUNDING = 1e-6  # of float32 numbers up to 1

Packed: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class CachedBag:
    """One bag's frames: ``shards`` are (file name, frames, CRC-32 of the file); ``class_pixels`` counts label values.

    ``tags`` say how the bag was made, such as {"condition": "night"}; empty for most. ``box_classes`` name the labelled boxes'
    classes, none where frames have no boxes.
    """

    folder: Path
    bag: str
    frames: int
    height: int
    width: int
    classes: tuple[str, ...]
    modalities: tuple[str, ...]
    tags: Mapping[str, str]
    shards: tuple[tuple[str, int, int], ...]
    class_pixels: tuple[int, ...]
    box_classes: tuple[str, ...] = ()


def cache_bag(
    bag: Path,
    config: FusionConfig,
    topics: LabelTopics,
    cache: Path,
    progress: Callable[[int], None] | None = None,
    *,
    boxes: str = "",
) -> CachedBag:
    """Open the cached frames of a bag, or make them.

    Args:
        bag: where it is.
        config: by which frames are made.
        topics: of its labels.
        cache: the folder of all cached bags.
        progress: is told the number of frames after each.
        boxes: topic of labelled boxes; empty: frames have no points and boxes.

    Raises:
        BagError: the bag cannot be read or has no labels.
        DataError: its labels cannot be used, or the cache cannot be written.
    """
    if boxes:
        config = dataclasses.replace(config, detections=dataclasses.replace(config.detections, enabled=True))
    folder = cache / f"{bag.stem}-{_key(bag, config, topics, boxes)}"
    if is_file(folder / "index.json"):
        return open_cached(folder)
    building = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        building.mkdir(parents=True)
        _build(bag, config, topics, building, progress, boxes)
        if not folder.exists():  # another process may have been faster
            building.replace(folder)
    except OSError as error:
        msg = f"{folder}: expected a place to write aligned frames to, got {error.strerror or error}"
        raise DataError(msg) from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return open_cached(folder)


def cached(
    data: DataConfig, fusion: FusionConfig, patterns: tuple[str, ...], key: str, *, boxes: bool = False
) -> tuple[CachedBag, ...]:
    """Open the cached frames of all bags that ``patterns`` of the option ``key`` name, making what is missing.

    ``boxes``: frames with points and labelled boxes.

    Raises:
        GeminiError: no bag, or one that cannot be used.
    """
    topics = LabelTopics(data.labels, data.label_info if data.labels else "")
    with tqdm(find_bags(patterns, key), desc=f"frames of {key}", unit="bag") as bags:
        return tuple(cache_bag(bag, fusion, topics, Path(data.cache), boxes=data.boxes if boxes else "") for bag in bags)


def open_cached(folder: Path) -> CachedBag:
    """Read the index of a folder that ``cache_bag`` made.

    Raises:
        DataError: it is not what this version writes.
    """
    try:
        index = read_json(folder / "index.json", DataError)
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in index.items() if key != "format"
        }
        fields["shards"] = tuple(tuple(shard) for shard in index["shards"])
        cached = CachedBag(folder=folder, **fields)
    except (DataError, ValueError, TypeError, LookupError, AttributeError) as error:
        broken = error if isinstance(error, DataError) else f"{type(error).__name__} {shown(str(error))}"
        msg = f"{folder}: expected aligned frames of format {FORMAT}, got {broken}; delete the folder"
        raise DataError(msg) from None
    if index["format"] != FORMAT:
        msg = f"{folder}: expected aligned frames of format {FORMAT}, got {index['format']}; delete the folder"
        raise DataError(msg)
    return cached


class ShardReader:
    """Frames of cached bags by number; a shard is checked against its checksum when it is first opened."""

    def __init__(self, bags: tuple[CachedBag, ...]) -> None:
        self.bags = bags
        self._places = [
            (bag, shard, row) for bag in bags for shard in range(len(bag.shards)) for row in range(bag.shards[shard][1])
        ]
        self._checked: set[Path] = set()

    def __len__(self) -> int:
        """Frames of all bags."""
        return len(self._places)

    def bag_of(self, index: int) -> CachedBag:
        """The bag that a frame is from."""
        return self._places[index][0]

    def read(self, index: int, modalities: tuple[str, ...]) -> tuple[dict[str, F32], U8]:
        """Read one frame: (3, h, w) float32 in [0, 1] of each modality that it has, and its label (h, w) uint8.

        Raises:
            DataError: the shard is damaged or gone.
        """
        bag, shard, row = self._places[index]
        path = self._checked_path(bag, shard)
        try:
            with safe_open(path, framework="pt") as file:
                label: U8 = file.get_slice("label")[row].numpy()
                present = file.get_tensor("present")[row]
                channels = {
                    modality: unpack(file.get_slice(modality)[row])
                    for modality in modalities
                    if present[bag.modalities.index(modality)]
                }
        except (OSError, ValueError, SafetensorError) as error:
            raise self._damaged(path, str(error)) from None
        return channels, label

    def points_and_boxes(self, index: int) -> PointsAndBoxes:
        """Read one frame's points and boxes.

        Raises:
            DataError: the shard is damaged or gone, or has none.
        """
        bag, shard, row = self._places[index]
        path = self._checked_path(bag, shard)
        try:
            with safe_open(path, framework="pt") as file:
                points_and_boxes = unpack_points_and_boxes(file, row, bag.width, bag.height)
        except (OSError, ValueError, SafetensorError) as error:
            raise self._damaged(path, str(error)) from None
        if points_and_boxes is None:
            raise self._damaged(path, "no points and boxes")
        return points_and_boxes

    def labelled_boxes(self) -> list[tuple[int, int, int, int]]:
        """List the boxes of all frames: the frame, the box's row in it, its class, and how many points are in it.

        Raises:
            DataError: a shard is damaged or gone, or has none.
        """
        found = []
        for index, (starts, classes, counts) in self._of_shards("boxes.at", "box_classes", "box_counts"):
            for frame, (start, end) in enumerate(pairwise(starts.tolist())):
                found += [(index + frame, box - start, int(classes[box]), int(counts[box])) for box in range(start, end)]
        return found

    def boxes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Give the boxes of all frames: (N, 7), their classes (N,), and how many points are in each (N,).

        Raises:
            DataError: a shard is damaged or gone, or has none.
        """
        parts = [own for _, own in self._of_shards("boxes", "box_classes", "box_counts")]
        boxes, classes, counts = (torch.cat(each) for each in zip(*parts, strict=True))
        return boxes, classes, counts

    def _of_shards(self, *names: str) -> Iterator[tuple[int, list[Tensor]]]:
        """Give the first frame and some tensors of each shard."""
        for index, (bag, shard, row) in enumerate(self._places):
            if row:
                continue  # the first frame of a shard stands for all of them
            path = self._checked_path(bag, shard)
            try:
                with safe_open(path, framework="pt") as file:
                    tensors = [file.get_tensor(name) for name in names]
            except (OSError, SafetensorError) as error:
                raise self._damaged(path, str(error)) from None
            yield index, tensors

    def _checked_path(self, bag: CachedBag, shard: int) -> Path:
        name, _, checksum = bag.shards[shard]
        path = bag.folder / name
        if path not in self._checked:
            try:
                if _crc(path) != checksum:
                    raise self._damaged(path, "other bytes than were written")
            except OSError as error:
                raise self._damaged(path, str(error)) from None
            self._checked.add(path)
        return path

    @staticmethod
    def _damaged(path: Path, what: str) -> DataError:
        return DataError(f"{path}: expected the shard as it was written, got {what}; delete {path.parent} to make it anew")


def pack(channels: F32) -> Packed:
    """Make (3, h, w) float32 in [0, 1] small: (1 or 3, h, w) uint8 or uint16."""
    if np.array_equal(channels[0], channels[1]) and np.array_equal(channels[0], channels[2]):
        channels = channels[:1]
    eight: F32 = np.rint(channels * np.float32(_EIGHT))
    if np.allclose(eight / np.float32(_EIGHT), channels, rtol=0.0, atol=_ROUNDING):
        return eight.astype(np.uint8)
    sixteen: Packed = np.rint(channels * np.float32(_SIXTEEN)).astype(np.uint16)
    return sixteen


def unpack(packed: Tensor) -> F32:
    """Undo ``pack``: (3, h, w) float32."""
    whole = _EIGHT if packed.dtype == torch.uint8 else _SIXTEEN
    channels: F32 = packed.numpy().astype(np.float32) / np.float32(whole)
    return np.repeat(channels, 3, axis=0) if channels.shape[0] == 1 else channels


def _key(bag: Path, config: FusionConfig, topics: LabelTopics, boxes: str) -> str:
    """Hash all that the frames depend on: format, version, configuration, labels, and the bag's files."""
    sections = (*_FRAME_SECTIONS, *(_BOX_OPTIONS if boxes else ()))
    options = {key: value for key, value in to_flat(config).items() if key.startswith(sections)}
    beside = [path for path in (bag, bag.with_name(bag.stem + "-labels"), bag.with_name(bag.name + "-labels")) if path.exists()]
    files = [file for path in beside for file in (sorted(path.rglob("*")) if path.is_dir() else [path]) if file.is_file()]
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    content = json.dumps(
        [FORMAT, __version__, options, dataclasses.astuple(topics), boxes, str(bag.resolve()), states], default=list
    )
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _build(  # noqa: PLR0917 - one caller
    bag: Path,
    config: FusionConfig,
    topics: LabelTopics,
    folder: Path,
    progress: Callable[[int], None] | None,
    boxes: str,
) -> None:
    shards: list[tuple[str, int, int]] = []
    waiting: list[LabelledFrame] = []
    pixels = np.zeros(len(config.model.classes), np.int64)
    frames = 0

    def write() -> None:
        name = f"shard-{len(shards):04d}.safetensors"
        _write_shard(waiting, config.modalities, folder / name)
        shards.append((name, len(waiting), _crc(folder / name)))
        waiting.clear()

    for frame in labelled_frames(bag, config, topics, boxes):
        waiting.append(frame)
        frames += 1
        pixels += np.bincount(frame.label[frame.label != UNLABELLED], minlength=len(pixels))[: len(pixels)]
        if len(waiting) == SHARD_FRAMES:
            write()
        if progress is not None:
            progress(frames)
    if waiting:
        write()
    index = {
        "format": FORMAT,
        "bag": str(bag),
        "frames": frames,
        "height": config.grid.height,
        "width": config.grid.width,
        "classes": config.model.classes,
        "modalities": config.modalities,
        "tags": _tags(bag),
        "shards": shards,
        "class_pixels": pixels.tolist(),
        "box_classes": config.detections.classes if boxes else (),
    }
    (folder / "index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")


def _tags(bag: Path) -> dict[str, str]:
    clip = describe(bag)
    return {} if clip is None else {"world": clip.world, "condition": clip.condition, "failure": clip.failure}


def _write_shard(frames: list[LabelledFrame], modalities: tuple[str, ...], path: Path) -> None:
    tensors = {
        "label": torch.from_numpy(np.stack([frame.label for frame in frames])),
        "present": torch.tensor(
            [[any(grid.modality == modality for grid in frame.grids.grids) for modality in modalities] for frame in frames]
        ),
        "stamp_ns": torch.tensor([frame.grids.stamp_ns for frame in frames]),
    }
    for modality in modalities:
        tensors[modality] = torch.from_numpy(_stacked([frame.grids for frame in frames], modality))
    labelled = [frame.points_and_boxes for frame in frames if frame.points_and_boxes is not None]
    if labelled:
        tensors |= pack_points_and_boxes(labelled)
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        raise OSError(str(error)) from None


def _stacked(frames: list[AlignedGrids], modality: str) -> Packed:
    """The packed channels of all frames, zeros where one lacks the modality: (n, 1 or 3, h, w)."""
    grids = [next((grid for grid in frame.grids if grid.modality == modality), None) for frame in frames]
    packed = [None if grid is None else pack(grid.channels) for grid in grids]
    there = [each for each in packed if each is not None]
    channels = max((each.shape[0] for each in there), default=1)
    dtype = max((each.dtype for each in there), default=np.dtype(np.uint8), key=lambda each: each.itemsize)
    geometry = frames[0].geometry
    stacked = np.zeros((len(frames), channels, geometry.height, geometry.width), dtype)
    for row, each in enumerate(packed):
        if each is not None:
            stacked[row] = each.astype(np.uint16) * np.uint16(_SIXTEEN // _EIGHT) if each.dtype != dtype else each
    return stacked


def _crc(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum

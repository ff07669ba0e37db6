"""Data loading: cached frames as batches of tensors, whose order and augmentation follow from seed and step alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gemini_core.errors import DataError, GeminiError
from gemini_core.model.checkpoints import Normalization
from gemini_core.model.detection.interface import IGNORED, Cloud
from gemini_core.types import U8
from training.augment import augment
from training.cache import CachedBag, ShardReader
from training.config import AugmentConfig
from training.paste import Sample, label_values, paste
from training.points_and_boxes import SOURCES, FieldOfView, PointsAndBoxes


class Batch(NamedTuple):
    """Frames of one micro-batch.

    ``images`` (M, B, 3, h, w) float32, normalised, zeros for what a frame lacks; ``present`` (M, B) bool; ``label`` (B, h, w)
    int64; ``number`` (B,) int64, which frames these are; ``labelled_clouds`` of each frame, where boxes are
    wanted.
    """

    images: Tensor
    present: Tensor
    label: Tensor
    number: Tensor
    labelled_clouds: tuple[LabelledClouds, ...] = ()


class LabelledClouds(NamedTuple):
    """Point clouds and labelled boxes of one frame, as tensors.

    ``clouds``, one for each of ``SOURCES`` (of the other source where the frame lacks one); ``boxes`` (M, 7) float32 and
    ``classes`` (M,) int64, ``IGNORED`` for those with too few points; ``field_of_view``: what the camera sees of the ground.
    """

    clouds: tuple[Cloud, ...]
    boxes: Tensor
    classes: Tensor
    field_of_view: FieldOfView


class FrameDataset(Dataset[Batch]):
    """Frames of cached bags, augmented when ``augmentation`` is given.

    An item is asked for by (frame, seed), so the same item is the same whoever loads it, and when.
    """

    def __init__(
        self,
        bags: tuple[CachedBag, ...],
        modalities: tuple[str, ...],
        normalization: tuple[Normalization, ...],
        augmentation: AugmentConfig | None = None,
        *,
        min_points: int | None = None,
    ) -> None:
        """Open the frames.

        Args:
            bags: where they are.
            modalities: that a network takes.
            normalization: of each.
            augmentation: what is done to each frame.
            min_points: points that a box has at least to be asked for; None: no boxes and points are wanted.

        Raises:
            DataError: things are to be pasted, and a shard is damaged or has no boxes.
        """
        self.reader = ShardReader(bags)
        self._min_points = min_points
        self._donors = (
            Donors(self.reader, augmentation) if augmentation and augmentation.paste and min_points is not None else None
        )
        self._modalities = modalities
        self._mean = np.array([item.mean for item in normalization], np.float32)[:, :, None, None]  # (M, 3, 1, 1)
        self._std = np.array([item.std for item in normalization], np.float32)[:, :, None, None]
        self._augmentation = augmentation

    def __len__(self) -> int:
        """Frames of all bags."""
        return len(self.reader)

    def __getitem__(self, item: tuple[int, int]) -> Batch:
        """Give one frame, without the batch's dimension."""
        index, seed = item
        frame, label = self.reader.read(index, self._modalities)
        points_and_boxes = None if self._min_points is None else self.reader.points_and_boxes(index)
        if self._augmentation is not None:
            rng = np.random.default_rng(seed)
            if points_and_boxes is not None and self._donors is not None:
                host = Sample(frame, label, points_and_boxes)
                host = self._donors.paste(index, host, self._modalities, np.random.default_rng([5, seed]))
                frame, label, points_and_boxes = host.frame, host.label, host.points_and_boxes
            classes = self.reader.bag_of(index).classes
            focus = [classes.index(name) for name in self._augmentation.focus_classes]
            frame, label, points_and_boxes = augment(frame, label, self._augmentation, rng, points_and_boxes, focus)
        images = np.zeros((len(self._modalities), 3, *label.shape), np.float32)
        for place, modality in enumerate(self._modalities):
            if modality in frame:
                images[place] = (frame[modality] - self._mean[place]) / self._std[place]
        present = torch.tensor([modality in frame for modality in self._modalities])
        clouds = () if points_and_boxes is None else (self._tensors(points_and_boxes),)
        return Batch(torch.from_numpy(images), present, torch.from_numpy(label.astype(np.int64)), torch.tensor(index), clouds)

    def _tensors(self, frame: PointsAndBoxes) -> LabelledClouds:
        classes = np.where(frame.counts >= (self._min_points or 0), frame.classes, IGNORED)
        clouds = tuple(frame.cloud(source) for source in SOURCES)
        return LabelledClouds(clouds, torch.from_numpy(frame.boxes), torch.from_numpy(classes), frame.field_of_view)

    def image(self, batch: Batch, place: int) -> U8:
        """The first frame of a batch as the modality at ``place`` gives it: (h, w, 3) uint8."""
        channels = batch.images[place, 0].numpy() * self._std[place] + self._mean[place]
        picture: U8 = np.rint(np.clip(channels, 0.0, 1.0) * 255.0).astype(np.uint8).transpose(1, 2, 0)
        return np.ascontiguousarray(picture)


class Donors:
    """The things that can be pasted, by how their frames were made: things of the night are not put into the day."""

    def __init__(self, reader: ShardReader, config: AugmentConfig) -> None:
        self._reader = reader
        self._most = config.paste
        bags = [reader.bag_of(index) for index in range(len(reader))]
        self._kinds = [(bag.tags.get("world"), bag.tags.get("condition")) for bag in bags]
        self._values = {bag.box_classes: label_values(bag.box_classes, bag.classes) for bag in bags}
        self._things: dict[object, dict[int, list[tuple[int, int]]]] = {}
        for frame, row, named, count in reader.labelled_boxes():
            if count >= config.paste_points:
                self._things.setdefault(self._kinds[frame], {}).setdefault(named, []).append((frame, row))

    def paste(self, index: int, host: Sample, modalities: tuple[str, ...], rng: np.random.Generator) -> Sample:
        """Put up to ``augment.paste`` things into frame ``index``; each class is as likely."""
        things = self._things.get(self._kinds[index], {})
        for _ in range(int(rng.integers(self._most + 1)) if things else 0):
            named = sorted(things)[int(rng.integers(len(things)))]
            frame, row = things[named][int(rng.integers(len(things[named])))]
            bag = self._reader.bag_of(frame)
            donor = Sample(*self._reader.read(frame, modalities), self._reader.points_and_boxes(frame))
            host = paste(host, donor, row, self._values[bag.box_classes][named])
        return host


class Order(torch.utils.data.Sampler[list[tuple[int, int]]]):
    """Which frames each micro-batch of one process gets: a permutation per epoch, split evenly among the processes.

    Frames that do not fill a micro-batch of all processes are left out of that epoch.
    """

    def __init__(self, frames: int, batch: int, seed: int, *, rank: int = 0, world: int = 1) -> None:
        self._frames, self._batch, self._seed = frames, batch, seed
        self._rank, self._world = rank, world
        self.per_epoch = frames // (batch * world)
        self.limit(0, self.per_epoch)

    def limit(self, first: int, last: int) -> None:
        """Give the micro-batches from ``first`` to before ``last``, counted over all epochs."""
        self._first, self._last = first, last

    def __len__(self) -> int:
        """Micro-batches."""
        return self._last - self._first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Give (frame, seed) of the frames of each micro-batch."""
        epoch, order = -1, np.empty(0, np.int64)
        for number in range(self._first, self._last):
            if number // self.per_epoch != epoch:
                epoch = number // self.per_epoch
                order = np.random.default_rng([self._seed, 1, epoch]).permutation(self._frames)
            start = ((number % self.per_epoch) * self._world + self._rank) * self._batch
            yield [
                (int(index), int(np.random.default_rng([self._seed, 2, epoch, int(index)]).integers(1 << 62)))
                for index in order[start : start + self._batch]
            ]


def training_batches(dataset: FrameDataset, order: Order, workers: int, *, pinned: bool) -> Iterator[Batch]:
    """Load micro-batches in order, ahead of the training where there are workers.

    Raises:
        DataError: a frame cannot be read; in this process, whoever loads it.
    """
    return _batches(dataset, order, workers, pinned=pinned, ahead=4)


def plain_batches(dataset: FrameDataset, batch: int, workers: int, every: int = 1) -> Iterator[Batch]:
    """Load every frame, or every ``every``-th one, once, as it is, in order.

    Raises:
        DataError: a frame cannot be read; in this process, whoever loads it.
    """
    frames = [(number, 0) for number in range(0, len(dataset), every)]
    batches = [frames[start : start + batch] for start in range(0, len(frames), batch)]
    return _batches(dataset, batches, workers, pinned=False, ahead=2)


def _batches(
    dataset: FrameDataset, order: Iterable[list[tuple[int, int]]], workers: int, *, pinned: bool, ahead: int
) -> Iterator[Batch]:
    loader = DataLoader(
        _Reported(dataset),
        batch_sampler=order,
        num_workers=workers,
        collate_fn=_collate_reported,
        pin_memory=pinned,
        prefetch_factor=ahead if workers else None,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # a loader draws one number, not from those of the network
    )
    for batch in _started(loader):
        if isinstance(batch, DataError):
            raise batch
        yield batch


def _started(loader: DataLoader[Batch | DataError]) -> Iterator[Batch | DataError]:
    """Start a loader's processes. OpenCV's threads are not there in a forked process, which would wait for them for ever."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # ends them; also what the processes begin with
    try:
        return iter(loader)
    finally:
        cv2.setNumThreads(threads)


class _Reported(Dataset["Batch | DataError"]):
    """Frames, or what is wrong with them: a loader would turn what its workers raise into a traceback."""

    def __init__(self, dataset: FrameDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, item: tuple[int, int]) -> Batch | DataError:
        try:
            return self._dataset[item]
        except GeminiError as error:
            return DataError(str(error))


def _collate_reported(items: list[Batch | DataError]) -> Batch | DataError:
    wrong = next((item for item in items if isinstance(item, DataError)), None)
    return wrong or collate([item for item in items if isinstance(item, Batch)])


def collate(items: list[Batch]) -> Batch:
    """Put frames into one batch; modalities stay the first dimension."""
    return Batch(
        torch.stack([item.images for item in items], dim=1),
        torch.stack([item.present for item in items], dim=1),
        torch.stack([item.label for item in items]),
        torch.stack([item.number for item in items]),
        tuple(frame for item in items for frame in item.labelled_clouds),
    )


def _start_worker(_number: int) -> None:
    torch.set_num_threads(1)  # the training has the cores

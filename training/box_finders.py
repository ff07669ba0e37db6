"""Box finders: trained weights that find 3D boxes, whichever network they are of, with the subsets of the sensors to score.

``load_box_finder`` is the one place that chooses among them, by what the weights file says it is of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from gemini_core.errors import ConfigError, WeightsError
from gemini_core.model import checkpoints
from gemini_core.model.checkpoints import CheckpointInfo
from gemini_core.model.detection.interface import BoxesConfig
from gemini_core.model.detection.mvxnet.checkpoint import load_mvxnet
from gemini_core.model.detection.mvxnet.image import to_caffe
from gemini_core.model.detection.mvxnet.network import MvxNet
from gemini_core.model.detection.pillars.detector import Detector
from gemini_core.model.segmentation import Segmenter
from gemini_core.types import PointSource
from training.data import Batch
from training.detection import Scored, scored
from training.points_and_boxes import SOURCES
from training.report import ALL

_SOURCE_NAMES: dict[PointSource, str] = {"lidar": "the LiDAR", "depth": "depth"}


@dataclass(frozen=True, slots=True)
class Subset:
    """What the network gets: ``modalities`` (none: there is no image, points do alone), and whose points."""

    modalities: tuple[str, ...]
    points: PointSource


class BoxFinder(Protocol):
    """Weights that find boxes."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """The images that it takes."""

    @property
    def config(self) -> BoxesConfig:
        """Which boxes it finds, and where."""

    @property
    def info(self) -> CheckpointInfo:
        """What the weights file says."""

    def subsets(self, sources: Sequence[PointSource], points: str = "auto", given: tuple[str, ...] = ()) -> dict[str, Subset]:
        """Give the subsets that are scored, by name.

        Args:
            sources: of points that all frames have.
            points: "lidar", "depth" or "auto", as it was trained. Anything but "auto" is the only subset.
            given: modalities that it was trained with; some are the only subset, none: all of them.

        Raises:
            ConfigError: ``given`` are none of its modalities, or do not begin with rgb.
        """

    def find(self, batch: Batch, subset: Subset) -> Scored:
        """Find the boxes of the one frame of a batch, with what the subset has of it, and put them beside its labelled ones."""


def load_box_finder(weights: Path, box_classes: Sequence[str]) -> BoxFinder:
    """Read weights that find boxes of these classes.

    Raises:
        WeightsError: the weights cannot be read, have no detector, or one of other classes.
    """
    finder: BoxFinder
    if checkpoints.network_of(weights) == checkpoints.MVXNET:
        finder = MvxNetFinder(*load_mvxnet(weights, runtime="torch"))
    else:
        segmenter, info = checkpoints.load(weights)
        if segmenter.detector is None:
            msg = f"{weights}: expected weights with a detector of boxes (detection.enabled in training), got some without"
            raise WeightsError(msg)
        finder = PillarFinder(segmenter, segmenter.detector, info)
    if finder.config.classes != tuple(box_classes):
        wanted, got = ", ".join(box_classes) or "none", ", ".join(finder.config.classes)
        msg = f"{weights}: expected a detector of the classes {wanted} (detections.classes), got {got}"
        raise WeightsError(msg)
    return finder


class PillarFinder:
    """The pillar detector on the backbone of the masks."""

    def __init__(self, segmenter: Segmenter, detector: Detector, info: CheckpointInfo) -> None:
        self._segmenter, self._detector, self.info = segmenter, detector, info
        self.modalities, self.config = segmenter.config.modalities, detector.config

    def subsets(
        self,
        sources: Sequence[PointSource],  # noqa: ARG002 - of the contract; whose points there are follows from its modalities
        points: str = "auto",
        given: tuple[str, ...] = (),
    ) -> dict[str, Subset]:
        """As the node does it when a sensor is missing."""
        return pillar_subsets(self.modalities, points, given)

    @torch.inference_mode()
    def find(self, batch: Batch, subset: Subset) -> Scored:
        """Without an image, the detector does alone."""
        frame = batch.labelled_clouds[0]
        cloud = frame.clouds[SOURCES.index(subset.points)]
        if not subset.modalities:
            return scored(frame, self._detector, self._detector([cloud]))
        there = batch.present[:, 0].tolist()
        present = [flag and name in subset.modalities for flag, name in zip(there, self.modalities, strict=True)]
        maps = self._segmenter.quarter_logits(tuple(batch.images), present, clouds=[cloud], masks=False).boxes
        assert maps is not None  # noqa: S101 - points were given
        return scored(frame, self._detector, maps)


class MvxNetFinder:
    """MVX-Net, which takes the image and points of either source."""

    def __init__(self, network: MvxNet, info: CheckpointInfo) -> None:
        self._network, self.info = network, info
        self.modalities, self.config = ("rgb",), network.config

    def subsets(self, sources: Sequence[PointSource], points: str = "auto", given: tuple[str, ...] = ()) -> dict[str, Subset]:
        """Each source of points, with the image and without it."""
        return mvxnet_subsets(sources, points, given)

    @torch.inference_mode()
    def find(self, batch: Batch, subset: Subset) -> Scored:
        """Its image is the grid as it is."""
        frame = batch.labelled_clouds[0]
        cloud = frame.clouds[SOURCES.index(subset.points)]
        maps = self._network([cloud], to_caffe(batch.images[0]) if subset.modalities else None)
        return scored(frame, self._network, maps)


# --------------------------------------------------------------------------------------------------------------------
# Subsets


def pillar_subsets(modalities: tuple[str, ...], points: str = "auto", given: tuple[str, ...] = ()) -> dict[str, Subset]:
    """The subsets that are scored, by name; only "all" where ``points`` or ``given`` say what the network was trained with.

    Where the LiDAR is taken away, points come of depth, as in training.

    Raises:
        ConfigError: ``given`` do not begin with rgb or are none of the modalities.
    """
    kept = _kept(modalities, given)
    if points != "auto":
        return {ALL: Subset(kept, "depth" if points == "depth" else "lidar")}
    if given:
        return {ALL: Subset(kept, _source(modalities, kept))}
    reference, *extras = modalities
    subsets = {ALL: Subset(modalities, _source(modalities, modalities))}
    for extra in extras if len(extras) > 1 else ():
        left = tuple(each for each in modalities if each != extra)
        if extra != "lidar" or "depth" in left:
            subsets[f"without {extra}"] = Subset(left, _source(modalities, left))
    source: PointSource = "lidar" if "lidar" in extras else "depth"
    name = _SOURCE_NAMES[source]
    subsets[f"{reference}, points of {name}"] = Subset((reference,), source)
    subsets[f"points of {name} alone"] = Subset((), source)
    if {"depth", "lidar"} <= set(extras):
        subsets[f"{reference}+depth"] = Subset((reference, "depth"), "depth")
    first = {subset: name for name, subset in reversed(subsets.items())}  # each once, by the first of its names
    return {name: subset for name, subset in subsets.items() if first[subset] == name}


def mvxnet_subsets(sources: Sequence[PointSource], points: str = "auto", given: tuple[str, ...] = ()) -> dict[str, Subset]:
    """The subsets that MVX-Net is scored with, by name: each of the sources of points, with the image and without it.

    ``points`` and ``given`` as of ``pillar_subsets``.

    Raises:
        ConfigError: ``given`` is more than rgb.
    """
    image = _kept(("rgb",), given)
    if points != "auto":
        return {ALL: Subset(image, "depth" if points == "depth" else "lidar")}
    first, *others = sources or SOURCES[:1]
    subsets = {ALL: Subset(image, first)}
    if given:
        return subsets
    for source in others:
        subsets[f"rgb, points of {_SOURCE_NAMES[source]}"] = Subset(image, source)
    for source in (first, *others):
        subsets[f"points of {_SOURCE_NAMES[source]} alone"] = Subset((), source)
    return subsets


def _kept(modalities: tuple[str, ...], given: tuple[str, ...]) -> tuple[str, ...]:
    """The modalities that are given, all where nothing is said."""
    if given and (given[0] != modalities[0] or not set(given) <= set(modalities)):
        msg = f"--given: expected {modalities[0]} and others of {', '.join(modalities)}, got {', '.join(given)}"
        raise ConfigError(msg)
    return given or modalities


def _source(modalities: tuple[str, ...], kept: tuple[str, ...]) -> PointSource:
    return "depth" if "lidar" in modalities and "lidar" not in kept else "lidar"

"""The task of 3D boxes by MVX-Net: with anchors like the labelled boxes, or on somebody's weights with their anchors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import nn

from gemini_core.config.fusion import FusionConfig
from gemini_core.errors import ConfigError
from gemini_core.model.checkpoints import Normalization
from gemini_core.model.detection.boxes import real_boxes
from gemini_core.model.detection.mvxnet.checkpoint import load_mvxnet, save_mvxnet
from gemini_core.model.detection.mvxnet.config import MvxNetConfig
from gemini_core.model.detection.mvxnet.head import make_anchors, nearest_iou
from gemini_core.model.detection.mvxnet.image import to_caffe
from gemini_core.model.detection.mvxnet.network import MvxNet
from gemini_core.model.detection.mvxnet.sparse import choose_runtime
from training.cache import CachedBag, ShardReader
from training.config import AugmentConfig, TrainingConfig
from training.data import Batch, FrameDataset, plain_batches
from training.detection import scored
from training.losses import anchors_loss
from training.optimizer import ParameterGroup, parameter_groups
from training.tasks.inputs import autocast, modality_presence, point_clouds, validation_presence
from training.tasks.interface import Loss, Scores, Task
from training.tasks.scores import box_scores

POINT_ENCODING = "lidar.max_intensity"
"""The only option of the node's encodings that changes points."""


class MvxNetTask(Task[MvxNet]):
    """Boxes of points and the image, by a network that shares nothing with the masks."""

    def __init__(self, config: TrainingConfig, fusion: FusionConfig, device: torch.device) -> None:
        self._config, self._fusion, self._device = config, fusion, device

    def dataset(self, bags: tuple[CachedBag, ...], augmentation: AugmentConfig | None = None) -> FrameDataset:
        """Give frames with boxes, and images as they are: the network normalizes them itself."""
        modalities = self._config.model.modalities
        normalization = (Normalization(),) * len(modalities)
        return FrameDataset(bags, modalities, normalization, augmentation, min_points=self._config.detection.min_points)

    def build(self, frames: FrameDataset) -> MvxNet:
        """Make an MVX-Net for the boxes of these frames, or go on with the one of ``model.weights``."""
        return make_mvxnet(self._config, self._fusion.detections.classes, frames.reader, self._device).train()

    def parameter_groups(self, network: MvxNet) -> Sequence[ParameterGroup]:
        """The image branch is the backbone; everything else learns faster."""
        faster = {"pts_": self._config.detection.lr_factor}
        return parameter_groups(network, faster, self._config.optimizer.weight_decay)

    def loss(self, network: MvxNet, forward: nn.Module, batch: Batch, number: int) -> Loss:
        """The anchors' loss, at ``detection.weight``."""
        clouds = point_clouds(self._config, batch, modality_presence(self._config, number), self._device)
        with autocast(self._config, self._device):
            maps = forward(clouds, to_caffe(batch.images[0].to(self._device, non_blocking=True)))
        of_boxes = anchors_loss(maps, batch.labelled_clouds, network).total
        return Loss((self._config.detection.weight * of_boxes,), {"boxes_loss": of_boxes})

    @torch.inference_mode()
    def validate(self, network: MvxNet, frames: FrameDataset) -> Scores:
        """Average precision of the boxes seen from above."""
        found = []
        for batch in plain_batches(frames, 1, self._config.data.workers):  # one by one, as the node meets them
            clouds = point_clouds(self._config, batch, validation_presence(self._config, batch), self._device)
            found.append(scored(batch.labelled_clouds[0], network, network(clouds, to_caffe(batch.images[0].to(self._device)))))
        return box_scores(found, network.config.classes)

    def save(self, network: MvxNet, path: Path, description: str) -> None:
        """Write the network, with the encodings of the points that it takes."""
        encodings = {key: value for key, value in self._fusion.encodings().items() if key == POINT_ENCODING}
        half = self._config.run.half
        save_mvxnet(network, path, trained=True, description=description, encodings=encodings, half=half)


def make_mvxnet(config: TrainingConfig, classes: tuple[str, ...], reader: ShardReader, device: torch.device) -> MvxNet:
    """Make an MVX-Net for the frames of ``reader``, or continue the one of ``model.weights``.

    Raises:
        ConfigError: the weights are of another configuration than wanted, or a class has no box that tells its anchors, or is
            too small for the distance between them.
        WeightsError: the weights cannot be read, or are not of MVX-Net.
        DataError: a shard is damaged or gone, or has no boxes.
    """
    runtime = choose_runtime(config.detection.sparse, device)
    path = config.model.weights
    if not path:
        made = config.mvxnet(classes, *mean_anchors(reader, classes, config.detection.min_points))
        _check_spacing(made)
        return MvxNet(made, runtime=runtime)
    begun, _ = load_mvxnet(path, runtime=runtime)
    theirs = begun.config
    if theirs.classes != classes:
        wanted, got = ", ".join(classes), ", ".join(theirs.classes)
        msg = f"model.weights: expected an MVX-Net of the classes {wanted} (detections.classes), got {got} in {path}"
        raise ConfigError(msg)
    ours = replace(
        config.mvxnet(classes, theirs.anchor_sizes_m, theirs.anchor_bottoms_m),
        positive_ious=theirs.positive_ious,
        negative_ious=theirs.negative_ious,
    )
    for name in (field.name for field in fields(ours) if field.name != "image_frozen"):
        if getattr(theirs, name) != getattr(ours, name):
            msg = f"model.weights: expected an MVX-Net with {name} {getattr(ours, name)}, got {getattr(theirs, name)} in {path}"
            raise ConfigError(msg)
    network = MvxNet(ours, runtime=runtime)
    network.load_state_dict(begun.state_dict())
    return network


def mean_anchors(
    reader: ShardReader, classes: Sequence[str], min_points: int
) -> tuple[tuple[tuple[float, float, float], ...], tuple[float, ...]]:
    """Give length, width and height of each class's anchors, and the height of their lower faces: metres, to the millimetre.

    They are the means of the labelled boxes with at least ``min_points`` points in them.

    Raises:
        ConfigError: a class has no such box.
        DataError: a shard is damaged or gone, or has no boxes.
    """
    boxes, named, counts = reader.boxes()
    counted = real_boxes(boxes) & (counts >= min_points)
    sizes, bottoms = [], []
    for index, name in enumerate(classes):
        own = boxes[counted & (named == index)].double()
        if not len(own):
            msg = (
                "data.train: expected labelled boxes of every class of detections.classes with detection.min_points points, "
                f"since mvxnet's anchors are like them, got none of {name}"
            )
            raise ConfigError(msg)
        length, width, height, bottom = torch.column_stack((own[:, 3:6], own[:, 2] - own[:, 5] / 2)).mean(0).tolist()
        sizes.append((round(length, 3), round(width, 3), round(height, 3)))
        bottoms.append(round(bottom, 3))
    return tuple(sizes), tuple(bottoms)


def _check_spacing(config: MvxNetConfig) -> None:
    """Refuse classes of which a box right between anchors would be none of them, and so never be learnt.

    Raises:
        ConfigError: there is one.
    """
    anchors = make_anchors(config, torch.zeros(0))[:2, :2, :, 0]  # (2, 2, K, 7), of all yaws the first
    for name, least, own in zip(config.classes, config.negative_ious, anchors.unbind(2), strict=True):
        between = own.flatten(0, 1).mean(0, keepdim=True)
        if float(nearest_iou(between, own.flatten(0, 1)).max()) < least:
            length, width = own[0, 0, 3:5].tolist()
            msg = (
                "detection.voxel_m: expected anchors, one in 8 voxels, near enough to each other for "
                f"{name} of {length:.1f} x {width:.1f} m, got {config.voxel_m[0]:g} m"
            )
            raise ConfigError(msg)

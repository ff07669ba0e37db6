"""The MVX-Net that a run begins with: with anchors like the labelled boxes, or with somebody's weights and their anchors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import torch

from gemini_core.errors import ConfigError
from gemini_core.model.detection.boxes import real_boxes
from gemini_core.model.detection.mvxnet.checkpoint import load_mvxnet
from gemini_core.model.detection.mvxnet.config import MvxNetConfig
from gemini_core.model.detection.mvxnet.head import make_anchors, nearest_iou
from gemini_core.model.detection.mvxnet.network import MvxNet
from gemini_core.model.detection.mvxnet.sparse import choose_runtime
from training.cache import ShardReader
from training.config import TrainingConfig


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

"""The task of segmentation masks, with or without the pillar detector of boxes on the same backbone (``Segmenter``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gemini_core.config.fusion import FusionConfig
from gemini_core.errors import ConfigError
from gemini_core.evaluate.segmentation import ConfusionMatrix
from gemini_core.model import checkpoints
from gemini_core.model.checkpoints import default_normalization
from gemini_core.model.segmentation import Segmenter, SegmenterConfig, rgb_alone, upsample
from training.cache import CachedBag
from training.config import AugmentConfig, TrainingConfig
from training.data import Batch, FrameDataset, plain_batches
from training.detection import Scored, scored
from training.losses import boxes_loss, class_weights, segmentation_loss
from training.optimizer import ParameterGroup, parameter_groups
from training.tasks.inputs import autocast, modality_presence, point_clouds, validation_presence
from training.tasks.interface import Loss, Scores, Task
from training.tasks.scores import box_scores, mask_scores, mean_scores


class MasksTask(Task[Segmenter]):
    """Masks, masks and boxes (``detection.enabled``), or boxes alone on masks that stay (``detection.alone``)."""

    def __init__(self, config: TrainingConfig, fusion: FusionConfig, bags: tuple[CachedBag, ...], device: torch.device) -> None:
        self._config, self._fusion, self._device = config, fusion, device
        self._masks, self._boxes = not config.detection.alone, config.detection.enabled
        pixels = torch.tensor([bag.class_pixels for bag in bags]).sum(dim=0)
        weights = class_weights(pixels, config.optimizer.class_balance)
        self._class_weights = None if weights is None else weights.to(device)

    def dataset(self, bags: tuple[CachedBag, ...], augmentation: AugmentConfig | None = None) -> FrameDataset:
        """Give frames with the backbone's normalization, and with boxes where they are trained."""
        modalities = self._config.model.modalities
        min_points = self._config.detection.min_points if self._boxes else None
        return FrameDataset(bags, modalities, default_normalization(modalities), augmentation, min_points=min_points)

    def build(self, frames: FrameDataset) -> Segmenter:  # noqa: ARG002 - of the contract; nothing here is like the labels
        """Make a segmenter, or go on with the one of ``model.weights``."""
        segmenter = make_segmenter(self._config, len(self._fusion.model.classes), self._fusion.detections.classes).train()
        if not self._masks:
            _freeze_all_but_detector(segmenter)
        return segmenter

    def parameter_groups(self, network: Segmenter) -> Sequence[ParameterGroup]:
        """The head and the detector learn faster than the backbone."""
        faster = {"detector.": self._config.detection.lr_factor}
        faster |= dict.fromkeys(("head.", "stream_weights"), self._config.optimizer.head_lr_factor)
        return parameter_groups(network, faster, self._config.optimizer.weight_decay)

    def loss(self, network: Segmenter, forward: nn.Module, batch: Batch, number: int) -> Loss:
        """The masks' loss and that of the boxes, which counts ``detection.weight`` beside it."""
        keep = modality_presence(self._config, number)
        clouds = point_clouds(self._config, batch, keep, self._device) if self._boxes else None
        with autocast(self._config, self._device):
            output = forward(*_inputs(batch, keep, self._device), clouds, masks=self._masks)
        terms, logged = [], {}
        if self._masks:
            label = batch.label.to(self._device)
            terms.append(segmentation_loss(output, label, self._config.optimizer, self._class_weights))
        if network.detector is not None:
            logged["boxes_loss"] = boxes_loss(output.boxes, batch.labelled_clouds, network.detector).total
            terms.append(self._config.detection.weight * logged["boxes_loss"])
        return Loss(tuple(terms), logged)

    @torch.inference_mode()
    def validate(self, network: Segmenter, frames: FrameDataset) -> Scores:
        """Mean IoU of the masks, average precision of the boxes seen from above, or the mean of both."""
        matrix = ConfusionMatrix(len(self._fusion.model.classes))
        found: list[Scored] = []
        for batch in plain_batches(frames, 1, self._config.data.workers):  # one by one, as the node meets them
            present = validation_presence(self._config, batch)
            clouds = point_clouds(self._config, batch, present, self._device) if self._boxes else None
            output = network(tuple(batch.images.to(self._device)), present, clouds=clouds, masks=self._masks)
            if self._masks:
                prediction = upsample(output.ensemble, batch.label.shape[1:]).argmax(dim=1)
                matrix.add(batch.label[0].numpy().astype(np.uint8), prediction[0].to(torch.uint8).cpu().numpy())
            if network.detector is not None:
                found.append(scored(batch.labelled_clouds[0], network.detector, output.boxes))
        scores = [mask_scores(matrix.scores())] if self._masks else []
        scores += [] if network.detector is None else [box_scores(found, network.detector.config.classes)]
        return mean_scores(scores)

    def save(self, network: Segmenter, path: Path, description: str) -> None:
        """Write the segmenter with its classes, and with the encodings of the grids that it takes."""
        classes, modalities = self._fusion.model.classes, network.config.modalities
        encodings = {key: value for key, value in self._fusion.encodings().items() if key.startswith(modalities)}
        half = self._config.run.half
        checkpoints.save(network, path, classes, trained=True, description=description, encodings=encodings, half=half)


def make_segmenter(config: TrainingConfig, num_classes: int, box_classes: tuple[str, ...]) -> Segmenter:
    """Make a segmenter, or go on with the one of ``model.weights``, whose detector begins anew where it is another one.

    Raises:
        ConfigError: the weights are of another network.
        WeightsError: they cannot be read.
    """
    segmenter = Segmenter(config.segmenter(num_classes, box_classes))
    if config.model.weights:
        begun, _ = checkpoints.load(config.model.weights)
        theirs = begun.config
        if segmenter.config.modalities == ("rgb",):
            begun = rgb_alone(begun)
        if _differ(begun.config, segmenter.config):
            msg = f"model.weights: expected weights of {segmenter.config}, got {theirs} in {config.model.weights}"
            raise ConfigError(msg)
        same = begun.config.detector == segmenter.config.detector
        fresh = {} if same else {key: value for key, value in segmenter.state_dict().items() if key.startswith("detector.")}
        kept = {key: value for key, value in begun.state_dict().items() if same or not key.startswith("detector.")}
        segmenter.load_state_dict(kept | fresh)
    return segmenter


def _differ(begun: SegmenterConfig, wanted: SegmenterConfig) -> bool:
    """Whether two networks have different weights; rates matter for training alone, and how to fuse where there is a second."""
    names = ["backbone_config", "modalities", "num_classes", "head_width"]
    if len(wanted.modalities) > 1:
        names += ["fusion", "fused_blocks"]
    return any(getattr(begun, name) != getattr(wanted, name) for name in names)


def _freeze_all_but_detector(segmenter: Segmenter) -> None:
    """Leave everything but the detector as it is, noise of training included."""
    for name, module in segmenter.named_children():
        if name != "detector":
            module.requires_grad_(requires_grad=False).eval()
    if segmenter.stream_weights is not None:
        segmenter.stream_weights.requires_grad = False


def _inputs(
    batch: Batch, keep: Sequence[bool], device: torch.device
) -> tuple[tuple[Tensor, ...], list[bool], list[Tensor] | None]:
    """What the network takes of a batch: images, the modalities that ``keep`` and the frames leave, and validity.

    There are masks only where some frames of the batch have a modality that others lack.
    """
    images = batch.images.to(device, non_blocking=True)  # (M, B, 3, h, w)
    present = [bool(flag and there.any()) for flag, there in zip(keep, batch.present, strict=True)]
    mixed = any(flag and not there.all() for flag, there in zip(present, batch.present, strict=True))
    shape = (images.shape[1], 1, *images.shape[3:])
    valid = [there.to(device)[:, None, None, None].expand(shape) for there in batch.present] if mixed else None
    return tuple(images), present, valid

"""Training losses: of each stream's logits and the ensemble's (cross-entropy, OHEM), and of boxes."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor

from gemini_core.model.detection.mvxnet.head import MvxLoss, MvxMaps
from gemini_core.model.detection.mvxnet.network import MvxNet
from gemini_core.model.detection.pillars.codec import BevMaps
from gemini_core.model.detection.pillars.detector import Detector
from gemini_core.model.detection.pillars.losses import DetectionLoss, detection_loss
from gemini_core.model.segmentation import SegmentationOutput, upsample
from gemini_core.types import UNLABELLED
from training.config import OptimizerConfig
from training.data import LabelledClouds
from training.points_and_boxes import in_view


def segmentation_loss(
    output: SegmentationOutput, label: Tensor, config: OptimizerConfig, class_weights: Tensor | None = None
) -> Tensor:
    """Sum the losses of the streams and of the ensemble (the paper's; the ensemble trains its two weights only).

    Args:
        output: logits (B, K, h, w) of any size, which are brought to the label's.
        label: (B, H, W) int64, ``UNLABELLED`` where nothing is known.
        config: which loss.
        class_weights: (K,) float32.
    """
    logits = [*output.streams] if len(output.streams) == 1 else [*output.streams, output.ensemble]
    losses = [_loss(upsample(each.float(), label.shape[1:]), label, config, class_weights) for each in logits]
    return torch.stack(losses).sum()


def boxes_loss(maps: BevMaps, labelled: tuple[LabelledClouds, ...], detector: Detector) -> DetectionLoss:
    """Compare maps with labelled boxes. Where the camera does not look, labels say nothing, and no box found there is wrong.

    Args:
        maps: of the batch.
        labelled: of the same frames.
        detector: whose maps they are.
    """
    device = maps.heat.device
    boxes, classes = [each.boxes.to(device) for each in labelled], [each.classes.to(device) for each in labelled]
    targets = detector.targets(boxes, classes)
    seen = in_view([each.field_of_view for each in labelled], detector.config.head_grid, targets.counted)
    counted = targets.counted * torch.maximum(seen, (targets.heat.amax(1, keepdim=True) == 1).to(seen.dtype))
    return detection_loss(maps, targets._replace(counted=counted), detector.config.head_grid.cell_m)


def anchors_loss(maps: MvxMaps, labelled: tuple[LabelledClouds, ...], detector: MvxNet) -> MvxLoss:
    """Do what ``boxes_loss`` does for the maps of an MVX-Net."""
    device = maps.scores.device
    boxes, classes = [each.boxes.to(device) for each in labelled], [each.classes.to(device) for each in labelled]
    return detector.loss(maps, boxes, classes, [each.field_of_view.holds for each in labelled])


def _loss(logits: Tensor, label: Tensor, config: OptimizerConfig, class_weights: Tensor | None) -> Tensor:
    if config.loss == "ohem":
        return _ohem(logits, label, config, class_weights)
    each = F.cross_entropy(logits, label, class_weights, ignore_index=UNLABELLED, reduction="none")
    known = label != UNLABELLED
    # The mean over what is known; torch's own mean divides by zero where nothing is, and by the classes' weights.
    return each.sum() / known.sum().clamp(min=1)


def _ohem(logits: Tensor, label: Tensor, config: OptimizerConfig, class_weights: Tensor | None) -> Tensor:
    """Cross-entropy over the hard pixels alone (Shrivastava et al., CVPR 2016).

    Hard are those whose class has a probability below ``ohem_threshold``; at least ``ohem_least`` of all known pixels count.
    """
    each = F.cross_entropy(logits, label, class_weights, ignore_index=UNLABELLED, reduction="none").flatten()
    known = (label != UNLABELLED).flatten()
    with torch.no_grad():
        surprise = F.cross_entropy(logits, label, ignore_index=UNLABELLED, reduction="none").flatten()
        surprise = surprise[known]  # minus the logarithm of the probability
        least = max(int(config.ohem_least * surprise.numel()), 1)
        limit = -torch.log(torch.tensor(max(config.ohem_threshold, 1e-12)))
        if surprise.numel() and int((surprise > limit).sum()) < least:
            limit = surprise.topk(min(least, surprise.numel())).values[-1]
    hard = each[known][surprise >= limit]
    return hard.sum() / max(hard.numel(), 1)


def class_weights(pixels: Tensor, power: float) -> Tensor | None:
    """Weights of classes by how rare they are: share^-power, 1 on the average pixel; None for a power of 0.

    Args:
        pixels: (K,) how many pixels each class has; one without any weighs nothing.
        power: 0 to 1.
    """
    if not power:
        return None
    share = pixels.double() / pixels.sum().clamp(min=1)
    weights = torch.where(share > 0, share.clamp(min=1e-6) ** -power, 0.0)
    return (weights / (weights * share).sum()).float()

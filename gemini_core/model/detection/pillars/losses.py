"""Training losses of the pillar detector: focal loss of heatmaps, smooth L1 of boxes, likelihood of variances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor

from gemini_core.errors import ConfigError
from gemini_core.model.detection.pillars.codec import BevMaps, Targets

_SMOOTH = 0.1  # smooth L1 is square below this
_LOG_VARIANCES = (-12.0, 8.0)  # from millimetres to what covers any range


@dataclass(frozen=True, slots=True)
class LossWeights:
    """What each part counts: where and how large boxes are, their axes, which way is forward, the variances."""

    heat: float = 1.0
    box: float = 2.0
    axis: float = 2.0
    heading: float = 0.4
    variance: float = 0.1

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: a weight below 0.
        """
        for name in self.__slots__:
            if not getattr(self, name) >= 0:
                msg = f"loss weight {name}: expected 0 or more, got {getattr(self, name)}"
                raise ConfigError(msg)


class DetectionLoss(NamedTuple):
    """``total``, the weighted sum, and its parts before weighting, all scalars; see ``LossWeights``."""

    total: Tensor
    heat: Tensor
    box: Tensor
    axis: Tensor
    heading: Tensor
    variance: Tensor


def detection_loss(maps: BevMaps, targets: Targets, cell_m: float, weights: LossWeights | None = None) -> DetectionLoss:
    """Compare what the head says with what it is to say.

    Args:
        maps: of the head.
        targets: of ``encode`` on the same grid.
        cell_m: side of the grid's cells.
        weights: of the parts; None: the default ones.
    """
    weights = LossWeights() if weights is None else weights
    boxes, weight = maps.boxes.float(), targets.weight
    per_number = F.smooth_l1_loss(boxes, targets.boxes, reduction="none", beta=_SMOOTH) * weight
    share = 1 / weight.sum().clamp(min=1.0)
    box, axis, heading = (per_number[:, part].sum() * share for part in (slice(0, 6), slice(6, 8), slice(8, 10)))
    heat = heat_loss(maps.heat, targets.heat, targets.counted)
    variance = heat.new_zeros(())
    if maps.log_variance is not None:
        likelihood = _variance_loss(maps.log_variance.float(), boxes.detach(), targets.boxes, cell_m)
        variance = (likelihood * weight).sum() * share
    total = weights.heat * heat + weights.box * box + weights.axis * axis
    total = total + weights.heading * heading + weights.variance * variance
    return DetectionLoss(total, heat, box, axis, heading, variance)


def heat_loss(logits: Tensor, heat: Tensor, counted: Tensor) -> Tensor:
    """Focal loss for heat that falls off around centres (CornerNet, Law and Deng, ECCV 2018), per centre.

    At a centre -(1 - p)^2 log p; elsewhere -(1 - heat)^4 p^2 log(1 - p), so that cells beside a centre hardly count.

    Args:
        logits: (B, K, rows, columns).
        heat: of the same shape, 1 at centres.
        counted: (B, 1, rows, columns), 0 where nothing counts.
    """
    logits = logits.float()
    share = logits.sigmoid()
    centre = heat == 1
    at_centres = (1 - share).square() * F.logsigmoid(logits)
    elsewhere = (1 - heat).pow(4) * share.square() * F.logsigmoid(-logits)
    summed = (torch.where(centre, at_centres, elsewhere) * counted).sum()
    return -summed / centre.sum().clamp(min=1)


def _variance_loss(log_variance: Tensor, boxes: Tensor, wanted: Tensor, cell_m: float) -> Tensor:
    """Negative log-likelihood of what a box's x, y, z and yaw are off by, if that is normal: (B, 1, rows, columns).

    The yaw counts modulo half a turn: which way is forward is no small deviation.
    """
    low, high = _LOG_VARIANCES
    log_variance = log_variance.clamp(low, high)
    off = torch.cat(((boxes[:, :2] - wanted[:, :2]) * cell_m, boxes[:, 2:3] - wanted[:, 2:3]), dim=1)
    sin, cos, sin_wanted, cos_wanted = (each[:, index] for each in (boxes, wanted) for index in (6, 7))
    turned = torch.atan2(sin * cos_wanted - cos * sin_wanted, cos * cos_wanted + sin * sin_wanted) / 2
    off = torch.cat((off, turned[:, None]), dim=1)
    return (off.square() * torch.exp(-log_variance) + log_variance).sum(1, keepdim=True) / 2

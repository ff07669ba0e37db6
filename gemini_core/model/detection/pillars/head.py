"""The BEV head: at every cell, how likely a centre of each class is there, and the box around it (CenterPoint's form).

Centres (Yin et al., CVPR 2021, arXiv 2006.11275) and no anchors, for three reasons. An anchor head gives one positive a class,
size and direction only where an anchor overlaps enough, so that with few frames most of its outputs see hardly any positive;
here every box trains the same ten numbers, whatever its class. Nothing is to be tuned to the sizes of the classes, which
differ from cars to chairs. And a cell has K + 10 outputs instead of 2 K (7 + 2 + K), which a CPU notices.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from gemini_core.model.detection.pillars.bev import conv_norm
from gemini_core.model.detection.pillars.codec import BOX_NUMBERS, UNCERTAIN, BevMaps

_PRIOR = 0.02  # heat of an untrained head: nearly everywhere is nothing, and a loss that says so should be small from the start


class CentreHead(nn.Module):
    """Maps (B, width, rows, columns) to ``BevMaps``."""

    def __init__(self, width: int, num_classes: int, *, covariance: bool = False) -> None:
        """Build the head; with ``covariance`` it also gives the variance of a box's place and yaw."""
        super().__init__()
        self.heat = nn.Sequential(conv_norm(width, width), nn.Conv2d(width, num_classes, 1))
        self.boxes = nn.Sequential(conv_norm(width, width), nn.Conv2d(width, BOX_NUMBERS, 1))
        self.log_variance = nn.Conv2d(width, UNCERTAIN, 1) if covariance else None
        bias = self.heat[1].bias
        if isinstance(bias, Tensor):
            nn.init.constant_(bias, math.log(_PRIOR / (1 - _PRIOR)))

    def forward(self, features: Tensor) -> BevMaps:
        """Say what is where."""
        # The variance must not shape what it is the variance of.
        log_variance = None if self.log_variance is None else self.log_variance(features.detach())
        return BevMaps(self.heat(features), self.boxes(features), log_variance)

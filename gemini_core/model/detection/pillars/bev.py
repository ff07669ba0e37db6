"""The BEV backbone: three strides down, joined again at the first (SECOND's backbone, an FPN's sums).

SECOND: Yan et al., Sensors 2018; FPN: Lin et al., CVPR 2017, arXiv 1612.03144.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn

BEV_STRIDE = 2
"""How many pillars a side a cell of the result has."""


def conv_norm(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3),
        nn.ReLU(inplace=True),
    )


class BevNetwork(nn.Module):
    """Maps (B, C, rows, columns) of pillars to (B, width, rows / 2, columns / 2), sizes rounded up."""

    def __init__(self, inputs: int, widths: Sequence[int], depths: Sequence[int], width: int) -> None:
        """Build the network.

        Args:
            inputs: C.
            widths: channels of each stage; each has half the size of what comes before it.
            depths: convolutions of each stage behind its first, which halves the size.
            width: channels of the result.
        """
        super().__init__()
        stages = []
        for own, depth in zip(widths, depths, strict=True):
            stages.append(nn.Sequential(conv_norm(inputs, own, stride=2), *(conv_norm(own, own) for _ in range(depth))))
            inputs = own
        self.stages = nn.ModuleList(stages)
        self.laterals = nn.ModuleList(nn.Conv2d(own, width, 1) for own in widths)

    def forward(self, pillars: Tensor) -> Tensor:
        """Run the stages down and their sums up again."""
        maps = []
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            pillars = stage(pillars)
            maps.append(lateral(pillars))
        joined: Tensor = maps.pop()
        while maps:
            finer = maps.pop()
            joined = finer + F.interpolate(joined, size=finer.shape[2:], mode="bilinear", align_corners=False)
        return F.relu(joined)

"""MVX-Net's image branch: ResNet (He et al., CVPR 2016) in Caffe's style, and a feature pyramid (Lin et al., CVPR 2017).

Module names are those of mmdetection, since released weights carry them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn

EXPANSION = 4
"""How many times the inner channels of a bottleneck its output has."""

PADDED_TO = 32
"""Images are filled up at the right and at the bottom to multiples of this, the stride of the last stage."""

_CAFFE_MEAN_BGR = (102.9801, 115.9465, 122.7717)  # of detectron's models, for pixels of 0 to 255


def to_caffe(rgb: Tensor) -> Tensor:
    """Give images the form that Caffe's weights take: (B, 3, H, W) RGB of 0 to 1 to BGR of 0 to 255 less the mean."""
    return 255 * rgb.flip(1) - rgb.new_tensor(_CAFFE_MEAN_BGR)[:, None, None]


def pad(images: Tensor) -> Tensor:
    """Fill (B, 3, H, W) up with zeros (the mean colour), at the right and at the bottom."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % PADDED_TO, 0, -height % PADDED_TO))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolution with a shortcut; in Caffe's style, the first 1 x 1 has the stride."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = inner * EXPANSION
        self.conv1 = nn.Conv2d(inputs, inner, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, values: Tensor) -> Tensor:
        """Map (B, inputs, h, w) to (B, 4 * inner, h / stride, w / stride)."""
        shortcut = values if self.downsample is None else self.downsample(values)
        values = F.relu(self.bn1(self.conv1(values)))
        values = F.relu(self.bn2(self.conv2(values)))
        return F.relu(self.bn3(self.conv3(values)) + shortcut)


class ResNet(nn.Module):
    """Bottlenecks in stages ``layer1``, ``layer2``, ... of strides 4, 8, 16, 32."""

    def __init__(self, depths: Sequence[int], base: int, *, frozen: bool) -> None:
        """Build the network.

        Args:
            depths: blocks of each stage.
            base: channels of the stem; stage i has base * 2^i inside its blocks and four times that behind them.
            frozen: the stem, the first stage and all norms are not trained, and norms keep the statistics that they have.
        """
        super().__init__()
        self.frozen = frozen
        self.conv1 = nn.Conv2d(3, base, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        self.widths: list[int] = []
        inputs = base
        for stage, depth in enumerate(depths):
            inner = base * 2**stage
            blocks = []
            for block in range(depth):
                blocks.append(Bottleneck(inputs, inner, 2 if stage > 0 and block == 0 else 1))
                inputs = inner * EXPANSION
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            self.widths.append(inputs)
        if frozen:
            freeze_norms(self)
            for part in (self.conv1, self.get_submodule("layer1")):
                part.requires_grad_(requires_grad=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) to one tensor for each stage."""
        values = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, 2, padding=1)
        levels = []
        for stage in range(len(self.widths)):
            values = self.get_submodule(f"layer{stage + 1}")(values)
            levels.append(values)
        return levels

    def train(self, mode: bool = True) -> ResNet:
        """Set the mode; frozen norms stay in evaluation."""
        super().train(mode)
        if self.frozen:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


def freeze_norms(module: nn.Module) -> None:
    """Take the norms' weights out of training; their statistics are another matter."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.requires_grad_(requires_grad=False)


class ConvNorm(nn.Module):
    """A convolution that keeps the size, with a norm behind it or with a bias of its own, and no activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, norm: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=not norm)
        self.bn = nn.BatchNorm2d(outputs) if norm else None

    def forward(self, values: Tensor) -> Tensor:
        """Map (B, inputs, h, w) to (B, outputs, h, w)."""
        values = self.conv(values)
        return values if self.bn is None else self.bn(values)


class FeaturePyramid(nn.Module):
    """Brings levels to one width, adds coarser ones onto finer ones, and makes further levels by leaving out cells."""

    def __init__(self, inputs: Sequence[int], width: int, levels: int, *, frozen: bool) -> None:
        """Build the pyramid.

        Args:
            inputs: channels of the backbone's levels.
            width: channels of all results.
            levels: how many results there are, at least as many as inputs.
            frozen: the norms' weights are not trained.
        """
        super().__init__()
        self.levels = levels
        self.lateral_convs = nn.ModuleList(ConvNorm(own, width, 1) for own in inputs)
        self.fpn_convs = nn.ModuleList(ConvNorm(width, width, 3) for _ in inputs)
        if frozen:
            freeze_norms(self)

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Map levels of the backbone, the finest first, to ``levels`` of (B, width, h, w)."""
        laterals: list[Tensor] = [conv(own) for conv, own in zip(self.lateral_convs, inputs, strict=True)]
        for level in range(len(laterals) - 1, 0, -1):
            size = laterals[level - 1].shape[-2:]
            laterals[level - 1] = laterals[level - 1] + F.interpolate(laterals[level], size=size, mode="nearest")
        results: list[Tensor] = [conv(own) for conv, own in zip(self.fpn_convs, laterals, strict=True)]
        while len(results) < self.levels:
            results.append(results[-1][:, :, ::2, ::2])
        return results

"""MVX-Net's dynamic voxel feature encoder (Zhou et al., CoRL 2019, arXiv 1910.06528), fused with the image after each layer.

Points are packed: those of all samples in one tensor (N, ...), the first sample's first. Every point counts, whatever the
number in its voxel. Names are those of the released model, but for the inside of the fusion (``importing.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn

from gemini_core.model.detection.mvxnet.config import MvxNetConfig
from gemini_core.model.detection.mvxnet.image import ConvNorm
from gemini_core.model.detection.point_fusion import PointFusion, PointNorm

MOMENTUM = 0.01
"""How much a batch moves the statistics of norms, as the released model was trained."""


class Voxels(NamedTuple):
    """Points in their voxels.

    ``points`` (N, F); ``voxel`` (N,) int64, the row of ``places`` that a point lies in; ``places`` (V, 4) int64, sample and
    index along z, y, x of every voxel with a point in it, each once.
    """

    points: Tensor
    voxel: Tensor
    places: Tensor


class SeenPoints(NamedTuple):
    """What the image has to do with packed points.

    ``levels`` (B, C, h, w) of the pyramid; ``seen`` (N,) bool; ``pixels`` (S, 2), u and v of the S seen points; ``counts``, how
    many of them each sample has; ``size`` (H, W) of the image.
    """

    levels: Sequence[Tensor]
    seen: Tensor
    pixels: Tensor
    counts: Sequence[int]
    size: tuple[int, int]


def place_points(points: Tensor, config: MvxNetConfig) -> tuple[Tensor, Tensor]:
    """Find the voxels of points (N, F).

    Returns:
        (N, 3) int64 index along z, y, x, and (N,) bool whether the point is in range (one that is not finite is not); an index
        of a point outside of it is 0.
    """
    low, side = points.new_tensor(config.range_m[:3]), points.new_tensor(config.voxel_m)
    index = ((points[:, :3] - low) / side).floor().flip(1)  # z, y, x
    inside = ((index >= 0) & (index < index.new_tensor(config.voxels))).all(1)  # NaN is in no range
    return torch.where(inside[:, None], index, 0.0).long(), inside


def fill_voxels(points: Tensor, index: Tensor, sample: Tensor, config: MvxNetConfig) -> Voxels:
    """Put points (N, F) that are all in range, with ``index`` (N, 3) and ``sample`` (N,), into voxels."""
    depth, rows, columns = config.sparse_shape
    z, y, x = index.unbind(1)
    key = ((sample * depth + z) * rows + y) * columns + x
    filled, voxel = torch.unique(key, return_inverse=True)
    parts = (filled // (depth * rows * columns), filled // (rows * columns) % depth, filled // columns % rows, filled % columns)
    return Voxels(torch.where(points.isfinite(), points, 0.0), voxel, torch.stack(parts, dim=1))


class LevelFusion(nn.Module):
    """A convolution for each level of the pyramid, whose results at a point's pixel are fused with its own features.

    Where it samples is the released model's choice, since its weights know no other, and not that of ``sampling.sample``: pixel
    u of W lies at u w / W - 0.5 cells of a level of w cells, counted from the centre of the first (half a pixel further to the
    left and up than its centre lies), and beyond the outermost centres values fall off to zero.
    """

    def __init__(self, levels: int, image_width: int, point_width: int, width: int, heads: int) -> None:
        """Build the layer.

        Args:
            levels: of the pyramid.
            image_width: channels of each.
            point_width: channels of the points.
            width: channels of each level's convolution, of the fusion and of the result.
            heads: of the fusion's attention.
        """
        super().__init__()
        self.lateral_convs = nn.ModuleList(ConvNorm(image_width, width, 3, norm=False) for _ in range(levels))
        self.fusion = PointFusion(levels * width, point_width, width, heads=heads)
        for module in self.fusion.modules():
            if isinstance(module, PointNorm):
                module.momentum = MOMENTUM

    def forward(self, points: Tensor, image: SeenPoints | None) -> Tensor:
        """Fuse (N, point_width) to (N, width); points that the image does not see go through their own branch alone."""
        if image is None:
            return self.fusion.alone(points)
        order = torch.cat((image.seen.nonzero(), (~image.seen).nonzero())).flatten()
        fused = self.fusion.fuse(points[order], self.image_at_points(image).to(points.dtype))
        return torch.empty_like(fused).index_copy(0, order, fused)

    def image_at_points(self, image: SeenPoints) -> Tensor:
        """Give what the fusion's linear map makes of all levels at the seen points: (S, width).

        Sampling and the map are both linear, and there are fewer cells than points: each level goes through its own part of the
        map first.
        """
        linear = self.fusion.image_map
        if linear is None:  # never: image_width is above 0
            return image.pixels.new_zeros(len(image.pixels), 0)
        height, width = image.size
        places = 2 * image.pixels / image.pixels.new_tensor([width, height]) - 1
        parts = linear.weight.chunk(len(self.lateral_convs), dim=1)
        result = linear.bias.expand(len(places), -1)
        for conv, part, level in zip(self.lateral_convs, parts, image.levels, strict=True):
            mapped = F.conv2d(conv(level), part[:, :, None, None])
            result = result + torch.cat(
                [
                    F.grid_sample(own[None], at[None, :, None].to(own.dtype), padding_mode="zeros", align_corners=False)[
                        0, :, :, 0
                    ].T
                    for own, at in zip(mapped, torch.split(places, list(image.counts)), strict=True)
                ]
            )
        return result


class VoxelEncoder(nn.Module):
    """Features of points, fused with the image, and the largest of each voxel, twice.

    A point's own numbers are its columns, its place from the mean of its voxel's points and from the voxel's centre. Behind
    each layer but the last, a point also gets the largest features of its voxel.
    """

    def __init__(self, config: MvxNetConfig) -> None:
        super().__init__()
        self.config = config
        layers, fusions = [], []
        inputs = config.point_columns + 6
        for width, fused in zip(config.voxel_widths, config.fused_widths, strict=True):
            layers.append(nn.Sequential(nn.Linear(inputs, width, bias=False), norm(width), nn.ReLU()))
            fusions.append(LevelFusion(config.image_levels, config.image_width, width, fused, config.fusion_heads))
            inputs = 2 * fused
        self.vfe_layers = nn.ModuleList(layers)
        self.fusion_layer = nn.ModuleList(fusions)

    def forward(self, voxels: Voxels, image: SeenPoints | None) -> Tensor:
        """Describe each voxel: (V, fused_width)."""
        features = largest = self.own_features(voxels)
        for number, (layer, fusion) in enumerate(zip(self.vfe_layers, self.fusion_layer, strict=True)):
            if number > 0:
                features = torch.cat((features, largest[voxels.voxel]), dim=1)
            features = fusion(layer(features), image)
            index = voxels.voxel[:, None].expand(features.shape)
            # Features are at least 0 (ReLU), so zeros to start from change no maximum.
            largest = features.new_zeros(len(voxels.places), features.shape[1]).scatter_reduce(0, index, features, "amax")
        return largest

    def own_features(self, voxels: Voxels) -> Tensor:
        """Describe points by (N, F + 6)."""
        xyz = voxels.points[:, :3]
        counted = torch.cat((xyz, torch.ones_like(xyz[:, :1])), dim=1)
        sums = counted.new_zeros(len(voxels.places), 4).index_add(0, voxels.voxel, counted)
        mean = sums[:, :3] / sums[:, 3:]
        side, low = xyz.new_tensor(self.config.voxel_m), xyz.new_tensor(self.config.range_m[:3])
        centre = (voxels.places[:, 1:].flip(1) + 0.5) * side + low
        return torch.cat((voxels.points, xyz - mean[voxels.voxel], xyz - centre[voxels.voxel]), dim=1)


def norm(width: int) -> PointNorm:
    """Make a norm over points or voxels."""
    made = PointNorm(width)
    made.momentum = MOMENTUM
    return made

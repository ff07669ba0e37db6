"""Image features at points: several levels of a backbone, mapped to one width and sampled at the points' pixels.

A level (B, C, h, w) divides the network's grid of W x H pixels into w x h cells of equal area, as it does where the
segmentation head brings it up to full size. Pixels are those of ``GridGeometry``: the centre of the first is at 0, its left
edge at -0.5. So pixel u lies at (u + 0.5) w / W - 0.5 cells, counted from the centre of the first. Values between centres of
cells are bilinear; between the outermost centres and the picture's edge they are those of the outermost.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn


def sample(level: Tensor, pixels: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Sample one level of one image.

    Args:
        level: (C, h, w).
        pixels: (N, 2), u and v on the network's grid; those outside take the value of the nearest edge.
        image_size: (H, W) of that grid.

    Returns:
        (N, C).
    """
    height, width = image_size
    # grid_sample without align_corners: -1 is the left edge of the picture and 1 its right one, whatever the size of the level.
    places = (2 * pixels + 1) / pixels.new_tensor([width, height]) - 1
    # In the pixels' type: bf16 has steps of more than a pixel at the edges of a picture of 640.
    sampled = F.grid_sample(
        level.to(places.dtype)[None], places[None, :, None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled[0, :, :, 0].T


def map_and_sample(
    levels: Sequence[Tensor], image_map: nn.Linear, pixels: Tensor, counts: Sequence[int], image_size: tuple[int, int]
) -> Tensor:
    """Give ``image_map`` of every level at each pixel (``sample``), joined, for a batch of images and for less work.

    Sampling and mapping are both linear, so each level is mapped first, at its own size, by its part of the matrix. There are
    far fewer cells than points, and far fewer channels to sample afterwards.

    Args:
        levels: (B, C_l, h_l, w_l).
        image_map: from the sum of C_l to C.
        pixels: (N, 2), of the first image's points first.
        counts: B numbers of points, N together.
        image_size: (H, W) of the grid that the pixels lie on.

    Returns:
        (N, C).
    """
    parts = torch.split(image_map.weight, [level.shape[1] for level in levels], dim=1)
    mapped = [F.conv2d(level, part[:, :, None, None]) for level, part in zip(levels, parts, strict=True)]
    sampled = []
    for index, own in enumerate(torch.split(pixels, list(counts))):
        at_points = [sample(level[index], own, image_size) for level in mapped]
        sampled.append(sum(at_points[1:], at_points[0]))
    return torch.cat(sampled) + image_map.bias

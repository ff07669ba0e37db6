"""MVX-Net small enough for tests, and inputs and released tensors for it."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from gemini_core.model.detection.interface import Cloud
from gemini_core.model.detection.mvxnet.config import MvxNetConfig
from gemini_core.model.detection.mvxnet.head import make_anchors
from gemini_core.model.detection.mvxnet.importing import released_shapes
from gemini_core.model.detection.mvxnet.network import MvxNet
from networks import randomize

SMALL = {
    "classes": ("pedestrian", "car"),
    "anchor_sizes_m": ((0.8, 0.6, 1.7), (2.0, 1.0, 1.0)),
    "anchor_bottoms_m": (-1.5, -1.5),
    "positive_ious": (0.35, 0.5),
    "negative_ious": (0.2, 0.35),
    "range_m": (0.0, -3.2, -1.6, 6.4, 3.2, 1.6),
    "voxel_m": (0.1, 0.1, 0.1),
    "voxel_widths": (8, 8),
    "fused_width": 12,
    "fusion_heads": 4,
    "image_depths": (1, 1, 1, 1),
    "image_base": 4,
    "image_width": 8,
    "sparse_base": 4,
    "sparse_widths": ((4,), (8, 8), (8,), (8,)),
    "sparse_output": 16,
    "plane_widths": (16, 24),
    "plane_depths": (1, 1),
    "plane_outputs": (16, 16),
    "image_frozen": False,
}
PEDESTRIAN, CAR = 0, 1
SIZE = (60, 90)
needs_spconv = pytest.mark.skipif(
    importlib.util.find_spec("spconv") is None, reason="spconv is not installed (pip install 'gemini_ros[mvxnet]')"
)


def config(**changes):
    return MvxNetConfig(**{**SMALL, **changes})


def small(seed=0, runtime="torch", **changes):
    torch.manual_seed(seed)
    return MvxNet(config(**changes), runtime=runtime)


def lively(runtime="torch", **changes):
    """A network whose norms have seen data, so that no part of it drowns in another; in evaluation mode."""
    model = small(**changes).train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        model([random_cloud(800, seed=5), random_cloud(800, seed=6)], random_images(2, seed=5))
    randomize(model.pts_bbox_head, std=0.5)
    model.eval()
    if runtime == "torch":
        return model
    other = small(runtime=runtime, **changes).eval()
    other.load_state_dict(model.state_dict())
    return other


def random_cloud(count=400, seed=0, visible=0.7):
    """Points all over the range and a little beyond, some of them seen."""
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor([-0.2, -3.4, -1.8, 0.0]), torch.tensor([6.6, 3.4, 1.8, 1.0])
    points = low + (high - low) * torch.rand(count, 4, generator=generator)
    pixels = torch.rand(count, 2, generator=generator) * torch.tensor([SIZE[1] - 1.0, SIZE[0] - 1.0])
    return Cloud(points, pixels, torch.rand(count, generator=generator) < visible)


def random_images(batch=1, seed=0):
    return torch.randn(batch, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def released_tensors(numbers, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.ones(shape, dtype=torch.long)
        if name.endswith("tracked")
        else torch.rand(shape, generator=generator) * 0.5 + 0.1
        for name, shape in released_shapes(numbers).items()
    }


def assert_same_maps(got, expected, tolerance=1e-5):
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def all_cells(batch, shape):
    """Every place of a grid, as (sample, *place) rows."""
    return torch.cartesian_prod(*(torch.arange(size) for size in (batch, *shape)))


def on_anchor(row, column, kind, turn=0, shift=0.0):
    """The anchor of a cell as a box, moved by ``shift`` metres along x."""
    box = make_anchors(config(), torch.zeros(0))[row, column, kind, turn].clone()
    box[0] += shift
    return box


def a_scene():
    """Two boxes near anchors, and their classes."""
    boxes = torch.stack((on_anchor(2, 5, CAR, shift=0.2), on_anchor(6, 1, PEDESTRIAN)))
    boxes[0, 6], boxes[1, 6] = 2.9, -0.3
    boxes[:, 2] += 0.2
    boxes[0, 3:6] *= 1.1
    return boxes, torch.tensor([CAR, PEDESTRIAN])

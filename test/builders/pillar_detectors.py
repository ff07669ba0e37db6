"""A pillar detector small enough for tests, and points, features, targets and maps for it."""

from __future__ import annotations

import math

import torch

from gemini_core.model.detection.interface import Cloud
from gemini_core.model.detection.pillars import codec
from gemini_core.model.detection.pillars.detector import Detector, DetectorConfig, Image
from gemini_core.model.detection.pillars.encoder import BevGrid

WIDTHS = (8, 16, 24, 32)  # of the tiny backbone
SIZE = (64, 96)
CLASSES = ("car", "pedestrian")
SMALL = {
    "classes": CLASSES,
    "range_m": (0.0, -9.6, -3.0, 19.2, 9.6, 2.0),
    "cell_m": 0.2,
    "point_widths": (16, 16),
    "bev_widths": (16, 24),
    "bev_depths": (1, 1),
    "head_width": 24,
}
GRID = BevGrid(-3.0, -8.0, 0.4, 60, 40)  # of the targets


def small(seed=0, **changes):
    """A detector with seeded weights; ``changes`` go into its configuration."""
    torch.manual_seed(seed)
    return Detector(DetectorConfig(**{**SMALL, **changes}), WIDTHS)


def features(batch=1, streams=2, seed=0):
    """Random features of every stage of the tiny backbone, for images of ``SIZE``."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(math.ceil(SIZE[0] / stride), math.ceil(SIZE[1] / stride)) for stride in (4, 8, 16, 32)]
    levels = [
        torch.randn(streams * batch, width, *size, generator=generator) for width, size in zip(WIDTHS, sizes, strict=True)
    ]
    return Image(levels, SIZE)


def random_cloud(count=500, seed=0, visible=0.5):
    """Points all over the range and beyond, some of them seen."""
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor([-2.0, -11.0, -4.0, 0.0]), torch.tensor([21.0, 11.0, 3.0, 1.0])
    points = low + (high - low) * torch.rand(count, 4, generator=generator)
    pixels = torch.rand(count, 2, generator=generator) * torch.tensor([SIZE[1] - 1.0, SIZE[0] - 1.0])
    return Cloud(points, pixels, torch.rand(count, generator=generator) < visible)


def assert_same_maps(got, expected, tolerance=1e-5):
    for one, other in zip(got, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=0.0, atol=tolerance)


def as_boxes(*rows):
    """Rows of seven numbers as boxes (N, 7)."""
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 7)


def perfect(targets, log_variance=None):
    """What a head would say that knows everything."""
    return codec.BevMaps(torch.logit(targets.heat, eps=1e-6), targets.boxes, log_variance)

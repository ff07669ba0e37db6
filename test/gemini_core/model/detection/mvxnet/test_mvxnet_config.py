"""MVX-Net's configuration: the released grid, and what cannot be."""

from __future__ import annotations

import math
import sys

import pytest

from gemini_core.errors import ConfigError
from gemini_core.model.detection.mvxnet.config import MvxNetConfig
from gemini_core.model.detection.mvxnet.network import MvxNet
from mvxnets import config


def test_the_default_grid_is_that_of_the_released_model():
    released = MvxNetConfig()
    assert released.sparse_shape == (41, 1600, 1408)
    assert (released.depth_out, released.map_shape, released.anchors_per_cell) == (2, (200, 176), 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("car", "car")}, "classes"),
        ({"classes": ("car",)}, "anchor_sizes_m: expected one for each of the 1 classes"),
        ({"anchor_sizes_m": ((1.0, 1.0, 1.0), (1.0, 0.0, 1.0))}, "anchor_sizes_m"),
        ({"anchor_bottoms_m": (0.0, math.nan)}, "anchor_bottoms_m"),
        ({"anchor_yaws": ()}, "anchor_yaws"),
        ({"negative_ious": (0.4, 0.2)}, "negative_ious"),
        ({"range_m": (0.0, 0.0, 0.0, 1.0, 1.0)}, "range_m"),
        ({"range_m": (0.0, 3.2, -1.6, 6.4, 3.2, 1.6)}, "the least y below the largest"),
        ({"range_m": (0.0, -3.2, -0.8, 6.4, 3.2, 0.8)}, "enough voxels along z"),
        ({"voxel_m": (0.1, 0.0, 0.1)}, "voxel_m"),
        ({"voxel_m": (0.2, 0.128, 0.1)}, r"multiples of 16 voxels along x and y, got \(32, 50\)"),
        ({"voxel_m": (1e-5, 1e-5, 0.1)}, "at most"),
        ({"point_columns": 2}, "point_columns"),
        ({"voxel_widths": (8, 0)}, "voxel_widths"),
        ({"sparse_widths": ((4,), ())}, "sparse_widths"),
        ({"plane_depths": (1,)}, "plane_depths"),
        ({"plane_depths": (1, -1)}, "plane_depths"),
        ({"image_levels": 3}, "image_levels: expected at least one for each of the 4 stages"),
        ({"fusion_heads": 3}, "fusion_heads: expected a divisor of the width 8"),
    ],
)
def test_configurations_that_cannot_be(changes, message):
    with pytest.raises(ConfigError, match=f"^detector .*{message}"):
        config(**changes)


def test_spconv_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "spconv", None)
    monkeypatch.setitem(sys.modules, "spconv.pytorch", None)
    with pytest.raises(ConfigError, match=r"MVX-Net: expected spconv to be installed \(pip install 'gemini_ros\[mvxnet\]'\)"):
        MvxNet(config())
    with pytest.raises(ConfigError, match="runtime: expected one of spconv, torch, got 'cuda'"):
        MvxNet(config(), runtime="cuda")

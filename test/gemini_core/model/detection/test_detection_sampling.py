"""Image features at points: where a pixel's centre lies, and at the edges."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gemini_core.model.detection.sampling import map_and_sample, sample
from pillar_detectors import SIZE, WIDTHS, features


def test_places_keep_their_digits_where_features_are_bf16():
    columns = torch.arange(160.0).expand(1, 90, 160)  # each of them exact in bf16
    pixels = torch.stack((torch.linspace(10.0, 628.0, 500), torch.full((500,), 180.0)), dim=1)
    got = sample(columns.bfloat16(), pixels, (360, 640))[:, 0]
    torch.testing.assert_close(got, (pixels[:, 0] + 0.5) / 4 - 0.5, rtol=0.0, atol=1e-3)


def test_a_pixel_is_sampled_where_its_centre_lies():
    """A level that holds the pixel coordinates of its cells' centres gives pixels back, up to the outermost centres."""
    u, v = torch.meshgrid(torch.arange(24) * 4 + 1.5, torch.arange(16) * 4 + 1.5, indexing="xy")
    pixels = torch.tensor([[1.5, 1.5], [47.0, 20.25], [93.5, 61.5], [10.0, 60.0]])
    torch.testing.assert_close(sample(torch.stack((u, v)), pixels, SIZE), pixels, rtol=0, atol=1e-4)


def test_outside_of_the_outermost_cells_their_values_hold():
    level = torch.arange(6.0).view(1, 2, 3)
    corners = torch.tensor([[-0.5, -0.5], [95.4, -0.4], [-0.5, 63.4], [95.4, 63.4], [-50.0, 500.0]])
    assert sample(level, corners, SIZE)[:, 0].tolist() == pytest.approx([0.0, 2.0, 3.0, 5.0, 3.0], abs=1e-5)


def test_mapping_before_sampling_changes_nothing():
    image, linear = features(batch=2, streams=1), nn.Linear(sum(WIDTHS), 8)
    pixels = torch.rand(50, 2) * torch.tensor([95.0, 63.0])
    counts = [20, 30]
    expected = torch.cat(
        [
            linear(torch.cat([sample(level[index], own, SIZE) for level in image.features], dim=1))
            for index, own in enumerate(pixels.split(counts))
        ]
    )
    torch.testing.assert_close(map_and_sample(image.features, linear, pixels, counts, SIZE), expected)

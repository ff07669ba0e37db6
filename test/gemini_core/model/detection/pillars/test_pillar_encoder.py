"""Pillars hold the largest of their points."""

from __future__ import annotations

import torch

from gemini_core.model.detection.pillars.encoder import BevGrid, PillarEncoder, Points
from networks import randomize


def test_a_pillar_holds_the_largest_of_its_points():
    torch.manual_seed(0)
    grid = BevGrid(0.0, -1.0, 0.5, 6, 4)
    encoder = randomize(PillarEncoder(grid, (-1.0, 1.0), 4, (8, 8))).eval()
    points = torch.rand(60, 4) * torch.tensor([4.0, 3.0, 3.0, 1.0]) + torch.tensor([-0.5, -1.5, -1.5, 0.0])
    sample_of = torch.arange(60) % 2
    with torch.no_grad():
        got = encoder(Points(points[:25], sample_of[:25]), Points(points[25:], sample_of[25:]), None, 2)
    assert got.shape == (2, 8, 4, 6)
    expected = torch.zeros_like(got)
    for index in range(2):
        for row in range(4):
            for column in range(6):
                low = torch.tensor([column * 0.5, -1.0 + row * 0.5, -1.0])
                high = low + torch.tensor([0.5, 0.5, 2.0])
                own = points[(sample_of == index) & ((points[:, :3] >= low) & (points[:, :3] < high)).all(1)]
                if len(own) == 0:
                    continue
                scaled = (own[:, :3] - torch.tensor([0.0, -1.0, -1.0])) / torch.tensor([3.0, 2.0, 2.0])
                from_centre = (own[:, :2] - low[:2]) / 0.5 - 0.5
                from_mean = (own[:, :3] - own[:, :3].mean(0)) / torch.tensor([0.5, 0.5, 1.0])
                described = torch.cat((scaled, from_centre, from_mean, own[:, 3:]), dim=1)
                with torch.no_grad():
                    expected[index, :, row, column] = encoder.fusion.alone(encoder.point_layer(described)).amax(0)
    assert expected.count_nonzero() > 50
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)

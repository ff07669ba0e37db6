"""MVX-Net's voxels and the fusion of its points with the image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name

from gemini_core.model.detection.mvxnet.points import LevelFusion, SeenPoints, VoxelEncoder, fill_voxels, place_points
from mvxnets import config, random_cloud
from networks import randomize


def voxels_of(points, sample=None, **changes):
    numbers = config(**changes)
    index, inside = place_points(points, numbers)
    assert inside.all()
    sample = torch.zeros(len(points), dtype=torch.long) if sample is None else sample
    return fill_voxels(points, index, sample, numbers)


def test_points_are_placed_by_z_y_x():
    points = torch.tensor([[0.05, -3.15, -1.55, 0.5], [6.35, 3.15, 1.55, 0.5], [1.05, 0.05, 0.35, 0.5]])
    index, inside = place_points(points, config())
    assert index.tolist() == [[0, 0, 0], [31, 63, 63], [19, 32, 10]]
    assert inside.all()


def test_points_out_of_range_or_not_finite_are_in_no_voxel():
    edge = [[6.4, 0, 0, 1], [-0.01, 0, 0, 1], [1, 3.2, 0, 1], [1, 0, 1.6, 1], [math.nan, 0, 0, 1], [1, math.inf, 0, 1]]
    _, inside = place_points(torch.tensor([*edge, [0.0, -3.2, -1.6, 1.0]]), config())
    assert inside.tolist() == [False] * 6 + [True]


def test_voxels_of_samples_are_apart():
    points = torch.tensor([[1.05, 0.05, 0.35, 0.5], [1.06, 0.06, 0.36, 0.1], [1.05, 0.05, 0.35, math.nan]])
    voxels = voxels_of(points, torch.tensor([0, 0, 1]))
    assert voxels.places.tolist() == [[0, 19, 32, 10], [1, 19, 32, 10]]
    assert voxels.voxel.tolist() == [0, 0, 1]
    assert voxels.points[2, 3] == 0  # what else is not finite is not known


def test_a_points_own_numbers():
    points = torch.tensor([[1.01, 0.02, 0.33, 0.5], [1.05, 0.08, 0.37, 0.1], [2.05, 0.05, 0.35, 0.7]])
    own = VoxelEncoder(config()).own_features(voxels_of(points))
    mean, centre = torch.tensor([1.03, 0.05, 0.35]), torch.tensor([1.05, 0.05, 0.35])
    torch.testing.assert_close(own[:, :4], points)
    torch.testing.assert_close(own[:2, 4:7], points[:2, :3] - mean, atol=1e-6, rtol=0)
    torch.testing.assert_close(own[:2, 7:], points[:2, :3] - centre, atol=1e-6, rtol=0)
    torch.testing.assert_close(own[2, 4:], torch.zeros(6), atol=1e-6, rtol=0)


def test_voxels_hold_the_largest_of_their_points_and_points_learn_of_it():
    encoder = randomize(VoxelEncoder(config())).eval()
    points = torch.rand(40, 4) * torch.tensor([0.3, 0.3, 0.3, 1.0]) + torch.tensor([1.0, 0.0, 0.3, 0.0])
    voxels = voxels_of(points)
    got = encoder(voxels, None)
    features = encoder.own_features(voxels)
    for number, (layer, fusion) in enumerate(zip(encoder.vfe_layers, encoder.fusion_layer, strict=True)):
        features = fusion.fusion.alone(layer(features))
        largest = torch.stack([features[voxels.voxel == row].amax(0) for row in range(len(voxels.places))])
        if number == 0:
            features = torch.cat((features, largest[voxels.voxel]), 1)
    torch.testing.assert_close(got, largest)
    assert (got > 0).any()


def test_pixels_are_sampled_where_the_released_model_does():
    """Pixel u of W at u w / W - 0.5 cells, zeros beyond; a level that holds its cells' numbers gives the places back."""
    layer = LevelFusion(1, 1, 4, 2, 1).eval()
    with torch.no_grad():
        layer.lateral_convs[0].conv.weight.zero_()
        layer.lateral_convs[0].conv.weight[:, 0, 1, 1] = 1.0
        layer.lateral_convs[0].conv.bias.zero_()
        layer.fusion.image_map.weight.copy_(torch.eye(2))
        layer.fusion.image_map.bias.copy_(torch.tensor([0.0, 100.0]))
        level = torch.arange(12.0).expand(1, 1, 8, 12)  # of a picture of 64 x 96
        pixels = torch.tensor([[4.0, 4.0], [48.0, 30.0], [91.9, 30.0], [2.0, 30.0], [95.0, 30.0]])
        got = layer.image_at_points(SeenPoints([level], torch.ones(5, dtype=torch.bool), pixels, [5], (64, 96)))
    places = pixels[:, 0] / 8 - 0.5
    expected = torch.tensor([0.0, 5.5, 10.9875, 0.0, 11 * (12 - places[4])])
    torch.testing.assert_close(got[:, 0], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(got[:, 1], expected + 100, atol=1e-4, rtol=0)


def test_mapping_before_sampling_changes_nothing():
    torch.manual_seed(0)
    layer = randomize(LevelFusion(2, 3, 4, 8, 4)).eval()
    levels = [torch.randn(2, 3, 8, 12), torch.randn(2, 3, 4, 6)]
    pixels = torch.rand(9, 2) * torch.tensor([95.0, 63.0])
    got = layer.image_at_points(SeenPoints(levels, torch.ones(9, dtype=torch.bool), pixels, [4, 5], (64, 96)))
    laterals = [conv(level) for conv, level in zip(layer.lateral_convs, levels, strict=True)]
    grid = (2 * pixels / torch.tensor([96.0, 64.0]) - 1)[None, :, None]
    parts = []
    for sample, some in ((0, slice(0, 4)), (1, slice(4, 9))):
        at = [F.grid_sample(own[sample : sample + 1], grid[:, some], align_corners=False)[0, :, :, 0].T for own in laterals]
        parts.append(torch.cat(at, 1))
    torch.testing.assert_close(got, layer.fusion.image_map(torch.cat(parts)), atol=1e-5, rtol=1e-5)


def test_half_a_million_points():
    encoder = VoxelEncoder(config()).eval()
    cloud = random_cloud(500_000)
    index, inside = place_points(cloud.points, encoder.config)
    points = cloud.points[inside]
    voxels = fill_voxels(points, index[inside], torch.zeros(len(points), dtype=torch.long), encoder.config)
    with torch.no_grad():
        features = encoder(voxels, None)
    assert features.shape == (len(voxels.places), 12)
    assert features.isfinite().all()
    assert torch.bincount(voxels.voxel).sum() == inside.sum() > 350_000

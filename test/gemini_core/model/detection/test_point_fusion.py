"""Fusion of points with image features: the released code's numbers, and points that the image does not see."""

from __future__ import annotations

import pytest
import torch

from gemini_core.errors import WeightsError
from gemini_core.model.detection.importing import load_released
from gemini_core.model.detection.point_fusion import PointFusion
from golden import GOLDEN, read_tensors
from networks import randomize


@pytest.fixture(scope="module")
def recorded():
    return read_tensors(GOLDEN / "point_fusion.safetensors")[0]


def test_point_fusion_equals_the_released_code(recorded):
    fusion = load_released(recorded, "weights", "here")
    with torch.no_grad():
        output = fusion(recorded["input.point_features"], recorded["input.image_features_at_points"])
    expected = recorded["output"]
    assert output.shape == expected.shape == (500, 128)
    assert (output - expected).abs().max() <= 1e-5 * expected.std()


def test_released_point_fusion_is_taken_whole_or_not_at_all(recorded):
    missing = {name: tensor for name, tensor in recorded.items() if name != "weights.alpha"}
    with pytest.raises(WeightsError, match=r"1 \(weights.alpha\) missing"):
        load_released(missing, "weights", "here")
    with pytest.raises(WeightsError, match=r"1 \(weights.beta\) unknown"):
        load_released({**recorded, "weights.beta": torch.ones(2)}, "weights", "here")
    with pytest.raises(WeightsError, match=r"here: expected point_norm.weight of shape \(128,\), got \(64,\)"):
        load_released({**recorded, "weights.pts_transform.1.weight": torch.ones(64)}, "weights", "here")


@pytest.mark.parametrize("joining", ["gemini", "none"])
def test_points_that_the_image_does_not_see_are_alone(joining):
    fusion = randomize(PointFusion(12, 6, 8, heads=4, joining=joining)).eval()
    points, image, visible = torch.randn(40, 6), torch.randn(40, 12), torch.arange(40) % 3 == 0
    mixed, seen = fusion(points, image, visible), fusion(points, image)
    torch.testing.assert_close(mixed[visible], seen[visible])
    torch.testing.assert_close(mixed[~visible], fusion.alone(points)[~visible])
    torch.testing.assert_close(fusion(points, torch.randn(40, 12), visible)[~visible], mixed[~visible], rtol=0, atol=0)
    assert not torch.allclose(seen, fusion.alone(points))


def test_a_point_alone_is_fused_with_itself():
    """What the fusion gives where the other side is the point itself plus noise, without the share of the image."""
    fusion = randomize(PointFusion(12, 6, 8, heads=4)).eval()
    points = torch.randn(20, 6)
    own = fusion.point_norm(fusion.point_map(points))
    other = own + fusion.fusion.value_noise[0]
    expected = fusion.fusion(torch.stack((own, other))[:, None])[0, 0].relu()
    torch.testing.assert_close(fusion.alone(points), expected)


def test_without_fusion_both_sides_are_averaged():
    fusion = randomize(PointFusion(12, 6, 8, joining="none")).eval()
    points, image = torch.randn(20, 6), torch.randn(20, 12)
    own, other = fusion.point_norm(fusion.point_map(points)), fusion.image_norm(fusion.image_map(image))
    torch.testing.assert_close(fusion(points, image), (0.5 * (own + other)).relu())


def test_in_training_too_a_point_alone_does_not_depend_on_how_many_are_seen():
    """Norms see all points at once: of some alone they would learn something that is true of neither group."""
    fusion = randomize(PointFusion(12, 6, 8, heads=4)).train()
    points = torch.randn(40, 6) + torch.arange(40)[:, None] / 10
    expected = fusion.alone(points)
    for seen in (0, 2, 30):
        torch.testing.assert_close(fusion.fuse(points, torch.randn(seen, 8))[seen:], expected[seen:])


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_points_can_be_trained_on(count):
    fusion = PointFusion(12, 6, 8, heads=4).train()
    before = fusion.point_norm.running_mean.clone()
    assert fusion(torch.randn(count, 6), torch.randn(count, 12)).shape == (count, 8)
    assert torch.equal(fusion.point_norm.running_mean, before)

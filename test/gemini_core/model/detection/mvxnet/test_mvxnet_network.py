"""The whole of MVX-Net: shapes, batches, bad input, and a scene learnt by heart."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import nn

from gemini_core.errors import ShapeError
from gemini_core.model.detection.interface import Cloud
from gemini_core.model.detection.mvxnet.head import MvxMaps
from mvxnets import a_scene, all_cells, assert_same_maps, config, lively, random_cloud, random_images, small

# --------------------------------------------------------------------------------------------------------------------
# Losses and boxes out of maps


def test_a_scene_without_boxes_still_trains_the_scores():
    model = small().train()
    maps = model([random_cloud()], random_images())
    loss = model.loss(maps, [torch.zeros(0, 7)], [torch.zeros(0, dtype=torch.long)])
    assert (loss.boxes, loss.directions, loss.positives) == (0, 0, 0)
    assert loss.total > 0
    loss.total.backward()
    assert model.pts_bbox_head.conv_cls.weight.grad.abs().sum() > 0


# --------------------------------------------------------------------------------------------------------------------
# The whole


def test_maps_have_their_shapes():
    maps = small().eval()([random_cloud(), random_cloud(seed=1)], random_images(2))
    assert [tuple(part.shape) for part in maps] == [(2, 8, 8, 8), (2, 28, 8, 8), (2, 8, 8, 8)]


def test_norms_are_the_released_models():
    model = small()
    for name, norm in model.named_modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            assert (norm.eps, norm.momentum) == ((1e-5, 0.1) if name.startswith("img_") else (1e-3, 0.01)), name


def test_an_untrained_head_finds_nothing():
    maps = small().eval()([random_cloud()], random_images())
    assert (maps.scores.sigmoid() - 0.01).abs().max() < 0.005
    assert not len(small().find(maps)[0].boxes)


def test_the_sparse_part_stays_in_single_precision():
    model = lively()
    places = all_cells(1, config().sparse_shape)[::97]
    features = torch.randn(len(places), 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.pts_middle_encoder(features, places, 1)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(model.pts_middle_encoder(features, places, 1), expected)
            assert model.pts_middle_encoder(features.bfloat16(), places, 1).dtype == torch.float32
            assert all(part.isfinite().all() for part in model([random_cloud()], random_images()))


def test_samples_of_a_batch_do_not_see_each_other():
    model = lively()
    clouds, images = [random_cloud(), random_cloud(100, seed=1)], random_images(2)
    with torch.no_grad():
        both = model(clouds, images)
        alone = [model([cloud], image[None]) for cloud, image in zip(clouds, images, strict=True)]
    assert both.boxes[0].sub(both.boxes[1]).abs().max() > 0.1
    assert_same_maps(both, MvxMaps(*(torch.cat(parts) for parts in zip(*alone, strict=True))), 1e-4)


def test_an_image_of_any_size_is_one_that_is_filled_up():
    model, cloud, images = lively(), random_cloud(), random_images()
    with torch.no_grad():
        assert_same_maps(model([cloud], images), model([cloud], F.pad(images, (0, 6, 0, 4))))


def test_order_and_bad_points_change_nothing():
    model = lively()
    cloud, images = random_cloud(), random_images()
    order = torch.randperm(len(cloud.points))
    bad = torch.tensor([[math.nan, 0, 0, 0], [1, math.inf, 0, 0], [99, 0, 0, 0]])
    pixels = torch.tensor([[math.nan, 0], [5, 5], [5.0, 5]])
    more = Cloud(
        torch.cat((cloud.points[order], bad)),
        torch.cat((cloud.pixels[order], pixels)),
        torch.cat((cloud.visible[order], torch.ones(3).bool())),
    )
    with torch.no_grad():
        assert_same_maps(model([more], images), model([cloud], images), 1e-4)


def test_points_outside_the_image_are_alone():
    model = lively()
    cloud, images = random_cloud(visible=1.0), random_images()
    with torch.no_grad():
        seen, unseen = model([cloud], images), model([cloud._replace(visible=None)], images)
        outside = model([cloud._replace(pixels=cloud.pixels + 1000)], images)
        assert_same_maps(model([cloud]), unseen)
        assert_same_maps(outside, unseen)
        assert_same_maps(model([Cloud(cloud.points)], images), unseen)
    assert (seen.boxes - unseen.boxes).abs().max() > 0.1


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_points(count, training):
    model = small().train(training)
    maps = model([random_cloud(count), random_cloud(0)], random_images(2))
    assert all(part.isfinite().all() for part in maps)
    assert len(model.find(maps)) == 2


def test_wrong_shapes_are_named():
    model, cloud = small().eval(), random_cloud(10)
    for clouds, images, message in (
        ([], None, "clouds: expected one for each sample"),
        ([Cloud(torch.zeros(5, 3))], None, r"points: expected \(5, 4\), got \(5, 3\)"),
        ([cloud._replace(pixels=torch.zeros(9, 2))], None, r"pixels: expected \(10, 2\), got \(9, 2\)"),
        ([cloud._replace(visible=torch.zeros(9))], None, r"visible: expected \(10,\), got \(9,\)"),
        ([cloud], random_images(2), r"images: expected \(1, 3, H, W\), got \(2, 3, 60, 90\)"),
    ):
        with pytest.raises(ShapeError, match=f"^detector {message}"):
            model(clouds, images)


def scene_cloud(boxes, seed=0):
    """Points on the ground and inside of boxes."""
    generator = torch.Generator().manual_seed(seed)
    ground = torch.rand(300, 3, generator=generator) * torch.tensor([6.4, 6.4, 0.05]) + torch.tensor([0.0, -3.2, -1.55])
    parts = [ground]
    for x, y, z, length, width, height, yaw in boxes.tolist():
        own = (torch.rand(120, 3, generator=generator) - 0.5) * torch.tensor([length, width, height])
        turn = torch.tensor([[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1.0]])
        parts.append(own @ turn.T + torch.tensor([x, y, z]))
    points = torch.cat(parts)
    pixels = torch.stack((45 - 12 * points[:, 1], 30 - 15 * points[:, 2]), 1)
    return Cloud(torch.cat((points, torch.ones(len(points), 1)), 1), pixels, torch.ones(len(points), dtype=torch.bool))


def test_a_scene_is_learnt_by_heart():
    torch.manual_seed(0)
    model = small().train()
    boxes, classes = a_scene()
    cloud, images = scene_cloud(boxes), random_images()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(35):
        loss = model.loss(model([cloud], images), [boxes], [classes])
        optimizer.zero_grad()
        loss.total.backward()
        losses.append(loss.total.item())
        if len(losses) == 1:
            silent = [name for name, own in model.named_parameters() if own.grad is None or not own.grad.any()]
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]
    (found,) = model.find(model([cloud], images), min_score=0.4)
    order = found.classes.argsort(descending=True)
    assert found.classes[order].tolist() == classes.tolist()
    assert (found.boxes[order][:, :3] - boxes[:, :3]).norm(dim=1).max() < 0.3
    assert not silent

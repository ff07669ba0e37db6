"""The pillar detector beside masks: one backbone, and what the masks paint."""

from __future__ import annotations

import math

import pytest
import torch

from gemini_core.errors import ConfigError, ShapeError
from gemini_core.model.detection.pillars.detector import Detector, DetectorConfig, Image, paint
from gemini_core.model.segmentation import Segmenter, SegmenterConfig
from networks import randomize, tiny
from pillar_detectors import SIZE, SMALL, WIDTHS, assert_same_maps, features, random_cloud, small


def test_both_networks_share_a_backbone():
    segmenter = tiny(3).eval()
    detector = small().eval()
    images = torch.randn(3, 3, *SIZE)
    with torch.no_grad():
        seen = segmenter.backbone(images)
        assert detector([random_cloud()], Image(seen, SIZE)).heat.isfinite().all()
        alone = segmenter.backbone(images[:1], (0,))
        assert detector([random_cloud()], Image(alone, SIZE)).heat.isfinite().all()


@pytest.mark.parametrize("painted", [False, True])
@pytest.mark.parametrize("fusion", ["lidar", "none", "gemini"])
def test_boxes_are_the_same_where_no_masks_are_wanted(fusion, painted):
    segmenter = tiny(2, detector=DetectorConfig(**{**SMALL, "fusion": fusion, "painted": painted})).eval()
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(1, 3, *SIZE, generator=generator) for _ in range(2)]
    both = segmenter(images, clouds=[random_cloud()])
    if fusion == "lidar" or not painted:
        segmenter.head.forward = None  # what is not wanted is not computed
    if fusion == "lidar":
        segmenter.backbone.forward = None
    boxes = segmenter(images, clouds=[random_cloud()], masks=False)
    assert boxes.streams == ()
    assert boxes.ensemble.shape == (1, segmenter.config.num_classes, 0, 0)
    for ours, theirs in zip(boxes.boxes, both.boxes, strict=True):
        if ours is not None:
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("modalities", [1, 3])
@pytest.mark.parametrize("painted", [False, True])
def test_what_the_masks_say_reaches_the_boxes_of_a_painted_detector_alone(painted, modalities):
    segmenter = randomize(tiny(modalities, detector=DetectorConfig(**{**SMALL, "painted": painted})), std=0.2).eval()
    images = [torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(modality)) for modality in range(modalities)]
    clouds = [random_cloud(), random_cloud(seed=1)]
    with torch.no_grad():
        before = segmenter(images, clouds=clouds)
        segmenter.head.classifier.bias[0] += 3.0
        after = segmenter(images, clouds=clouds)
        alone = segmenter(images, [True] + [False] * (modalities - 1), clouds=clouds)
    assert torch.equal(before.boxes.heat, after.boxes.heat) == (not painted)
    assert alone.boxes.heat.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_paint_is_the_logarithm_of_probabilities_above_a_thousandth(dtype):
    shares = torch.tensor([0.9, 0.0991, 0.0009])
    got = paint((shares.log() + 5.0)[None, :, None, None].to(dtype))[0, :, 0, 0]
    assert got.dtype == torch.float32
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(got, torch.tensor([math.log(900), math.log(99.1), 0.0]), rtol=tolerance, atol=tolerance)


def test_a_painted_detector_samples_the_paint_of_the_ensemble():
    segmenter = randomize(tiny(2, detector=DetectorConfig(**{**SMALL, "painted": True})), std=0.2).eval()
    images = [torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(modality)) for modality in range(2)]
    cloud = random_cloud()
    logits = 5 * torch.randn(2, segmenter.config.num_classes, SIZE[0] // 4, SIZE[1] // 4)  # streams that differ much
    segmenter.head.forward = lambda features: logits[: len(features[0])]
    with torch.no_grad():
        segmenter.detector.pillars.fusion.image_map.weight *= 20.0
        output = segmenter.quarter_logits(images, clouds=[cloud])
        seen = segmenter.backbone(torch.cat(images))
        expected = segmenter.detector([cloud], Image(seen, SIZE, paint(output.ensemble)))
        other = segmenter.detector([cloud], Image(seen, SIZE, paint(output.streams[1])))
        alone = segmenter.quarter_logits(images, [True, False], clouds=[cloud])
        expected_alone = segmenter.detector([cloud], Image(segmenter.backbone(images[0], (0,)), SIZE, paint(logits[:1])))
    assert_same_maps(output.boxes, expected)
    assert (other.heat - expected.heat).abs().max() > 1e-3
    assert_same_maps(alone.boxes, expected_alone)


def test_boxes_teach_masks_nothing_by_painting():
    segmenter = tiny(1, detector=DetectorConfig(**{**SMALL, "painted": True}))
    boxes = segmenter([torch.randn(2, 3, *SIZE)], clouds=[random_cloud(), random_cloud(seed=1)], masks=False).boxes
    boxes.heat.sum().backward()
    assert all(parameter.grad is None for parameter in segmenter.head.parameters())
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in segmenter.backbone.parameters())


@pytest.mark.parametrize(
    ("painted", "shape", "message"),
    [
        (True, None, r"expected \(1, 5, 16, 24\), got none"),
        (True, (2, 5, 16, 24), r"expected \(1, 5, 16, 24\), got \(2, 5, 16, 24\)"),
        (True, (1, 4, 16, 24), r"expected \(1, 5, 16, 24\), got \(1, 4, 16, 24\)"),
        (True, (1, 5, 16), r"expected \(1, 5, 16, 24\), got \(1, 5, 16\)"),
        (True, (1, 5, 64, 96), r"expected \(1, 5, 16, 24\), got \(1, 5, 64, 96\)"),
        (False, (1, 5, 16, 24), r"expected none, got \(1, 5, 16, 24\)"),
    ],
)
def test_paint_of_another_shape_is_refused(painted, shape, message):
    detector = Detector(DetectorConfig(**{**SMALL, "painted": painted}), WIDTHS, 5)
    image = features()._replace(paint=None if shape is None else torch.zeros(shape))
    with pytest.raises(ShapeError, match="detector paint of the masks: " + message):
        detector([random_cloud()], image)


def test_a_painted_detector_needs_the_number_of_classes():
    message = "detector num_classes: expected those of the masks for a painted detector, got 0"
    with pytest.raises(ConfigError, match=message):
        Detector(DetectorConfig(**{**SMALL, "painted": True}), WIDTHS)
    Detector(DetectorConfig(**{**SMALL, "painted": True, "fusion": "lidar"}))  # to which paint is nothing


def test_a_checkpoint_of_both_is_small():
    segmenter = Segmenter(SegmenterConfig("mit_b0", ("rgb", "depth", "event", "lidar"), 13))
    config = DetectorConfig(("car", "pedestrian", "truck", "two_wheeler", "table", "chair", "cabinet"), covariance=True)
    detector = Detector(config, segmenter.config.backbone_config.widths)
    numbers = sum(tensor.numel() for module in (segmenter, detector) for tensor in module.state_dict().values())
    assert 2 * numbers < 25e6

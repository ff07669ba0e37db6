"""Configurations of runs that cannot be."""

from __future__ import annotations

import pytest

from gemini_core.errors import ConfigError


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"detection__enabled": False, "detection__alone": True}, "detection.alone: expected detection.enabled, got false"),
        ({"data__labels": ""}, "data.labels: expected a topic of label images, but for detection.alone, got none"),
        (
            {"detection__alone": True, "detection__painted": True, "model__weights": ""},
            "detection.painted: expected model.weights with detection.alone, which leaves the masks as they are, got none",
        ),
        ({"model__given": ["depth"]}, "model.given: expected rgb and others of rgb, depth, lidar, got depth"),
        ({"model__given": ["rgb", "event"]}, "model.given: expected rgb and others of rgb, depth, lidar, got rgb, event"),
        ({"detection__z_min_m": 3.0}, "range_m: expected the least z below the largest"),
        ({"augment__modality_rates": "lidar"}, "augment.modality_rates: expected 'modality:rate', got 'lidar'"),
        ({"augment__modality_rates": "rgb:0.1"}, "augment.modality_rates: expected a modality of model.modalities without rgb"),
        ({"augment__modality_rates": "lidar:0.95"}, "augment.modality_rates: expected a rate from 0 to 0.9 after the modality"),
    ],
)
def test_a_run_that_cannot_be_is_refused(boxed_recipe, options, words):
    with pytest.raises(ConfigError, match=words):
        boxed_recipe(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"detection__detector": "voxels"}, "detection.detector: expected one of pillars, mvxnet, got 'voxels'"),
        (
            {"detection__alone": False, "data__labels": "/labels"},
            "detection.detector: expected detection.alone for mvxnet, which shares nothing with the masks, got false",
        ),
        ({"detection__fusion": "none"}, "detection.fusion: expected gemini for mvxnet, which knows no other, got none"),
        ({"detection__painted": True}, "detection.painted: expected false for mvxnet, which shares nothing with the masks"),
        ({"detection__covariance": True}, "detection.covariance: expected false for mvxnet, which gives no variances"),
        ({"detection__voxel_m": 0.06}, "detector voxel_m: expected multiples of 16 voxels along x and y"),
        ({"detection__z_max_m": -1.0}, "enough voxels along z"),
    ],
)
def test_an_mvxnet_that_cannot_be_is_refused(mvxnet_recipe, options, words):
    with pytest.raises(ConfigError, match=words):
        mvxnet_recipe(**options)

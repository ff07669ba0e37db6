"""Modality dropout, and whose points a network gets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gemini_core.model import checkpoints
from training.data import FrameDataset, collate
from training.tasks.inputs import modality_presence, point_clouds


@pytest.mark.parametrize(
    ("points", "lidar", "source"),
    [("auto", True, "lidar"), ("auto", False, "depth"), ("lidar", False, "lidar"), ("depth", True, "depth")],
)
def test_points_are_those_of_depth_where_the_lidar_is_taken_away(boxed_recipe, boxed, points, lidar, source):
    config = boxed_recipe(detection__points=points)
    normalization = checkpoints.default_normalization(config.model.modalities)
    dataset = FrameDataset((boxed,), config.model.modalities, normalization, min_points=1)
    batch = collate([dataset[0, 0], dataset[1, 0]])
    clouds = point_clouds(config, batch, [True, True, lidar], torch.device("cpu"))
    expected = [dataset.reader.points_and_boxes(index).points[source].values for index in range(2)]
    for cloud, values in zip(clouds, expected, strict=True):
        np.testing.assert_array_equal(cloud.points.numpy(), values)


def test_a_modality_is_left_out_at_its_own_rate(boxed_recipe):
    config = boxed_recipe(augment__modality_dropout=0.1, augment__modality_rates="lidar:0.5")
    kept = np.array([modality_presence(config, number) for number in range(2000)]).mean(axis=0)
    np.testing.assert_allclose(kept, [1.0, 0.9, 0.5], atol=0.03)  # rgb, depth, lidar

"""Weights that find boxes: subsets of the sensors, and what the network gets of each."""

from __future__ import annotations

import pytest
import torch

from boxed_networks import boxed_info, boxed_segmenter
from gemini_core.errors import ConfigError
from networks import ORDER
from training.box_finders import PillarFinder, Subset, mvxnet_subsets, pillar_subsets
from training.data import FrameDataset, collate


def test_the_subsets_of_four_sensors():
    assert pillar_subsets(ORDER) == {
        "all": Subset(ORDER, "lidar"),
        "without depth": Subset(("rgb", "event", "lidar"), "lidar"),
        "without event": Subset(("rgb", "depth", "lidar"), "lidar"),
        "without lidar": Subset(("rgb", "depth", "event"), "depth"),
        "rgb, points of the LiDAR": Subset(("rgb",), "lidar"),
        "points of the LiDAR alone": Subset((), "lidar"),
        "rgb+depth": Subset(("rgb", "depth"), "depth"),
    }


def test_the_same_subset_is_scored_once():
    three = pillar_subsets(("rgb", "depth", "lidar"))
    assert list(three) == ["all", "without depth", "without lidar", "rgb, points of the LiDAR", "points of the LiDAR alone"]
    assert list(pillar_subsets(("rgb", "lidar"))) == ["all", "rgb, points of the LiDAR", "points of the LiDAR alone"]
    # without a LiDAR there is no camera without depth to take its points from
    assert list(pillar_subsets(("rgb", "depth"))) == ["all", "rgb, points of depth", "points of depth alone"]


def test_a_contender_is_scored_with_what_it_was_trained_with():
    assert pillar_subsets(ORDER, "lidar", ("rgb",)) == {"all": Subset(("rgb",), "lidar")}
    assert pillar_subsets(ORDER, "auto", ("rgb",)) == {"all": Subset(("rgb",), "depth")}
    assert pillar_subsets(ORDER, "depth") == {"all": Subset(ORDER, "depth")}
    for given in (("depth",), ("rgb", "radar")):
        with pytest.raises(ConfigError, match=r"--given: expected rgb and others of rgb, depth, event, lidar, got"):
            pillar_subsets(ORDER, "auto", given)


def test_subsets_are_those_of_the_points():
    image = ("rgb",)
    assert mvxnet_subsets(("lidar", "depth")) == {
        "all": Subset(image, "lidar"),
        "rgb, points of depth": Subset(image, "depth"),
        "points of the LiDAR alone": Subset((), "lidar"),
        "points of depth alone": Subset((), "depth"),
    }
    assert mvxnet_subsets(("depth",)) == {"all": Subset(image, "depth"), "points of depth alone": Subset((), "depth")}
    assert mvxnet_subsets(("lidar", "depth"), "depth") == {"all": Subset(image, "depth")}
    assert mvxnet_subsets(("lidar", "depth"), "auto", image) == {"all": Subset(image, "lidar")}


def test_the_network_gets_what_the_subset_has(boxed):
    segmenter = boxed_segmenter()
    finder = PillarFinder(segmenter, segmenter.detector, boxed_info())
    seen = []
    segmenter.detector.register_forward_pre_hook(lambda _module, given: seen.append(given))
    batch = collate([FrameDataset((boxed,), finder.modalities, finder.info.normalization, min_points=1)[0, 0]])
    lidar, depth = (cloud.points for cloud in batch.labelled_clouds[0].clouds)
    for subset in finder.subsets(("lidar", "depth")).values():
        finder.find(batch, subset)
        (cloud,), *image = seen.pop()
        assert torch.equal(cloud.points, lidar if subset.points == "lidar" else depth)
        assert bool(image) == bool(subset.modalities)
        if image:
            streams = 2 if len(subset.modalities) > 1 else 1
            assert len(image[0].features[0]) == streams

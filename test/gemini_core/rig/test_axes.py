"""A camera whose frame has body axes is said; optical frames, and LiDAR clouds in them, are not doubted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gemini_core.pipeline.front import Front
from gemini_core.rig.geometry import transform_matrix
from gemini_core.types import Doubt, StampedTransform, TransformSample
from small_rig import TURN, config, depth, info, rgb, sweep

BODY = (0.0, 0.0, 0.0, 1.0)
OPTICAL = (-0.5, 0.5, -0.5, 0.5)  # base_from_optical
AHEAD = np.array([[x, y, z] for x in (4, 8) for y in np.linspace(-2, 2, 10) for z in np.linspace(-1, 1, 10)], np.float32).T


def doubts(turns: dict[str, tuple[float, ...]], points: np.ndarray = AHEAD) -> tuple[Doubt, ...]:
    """Of one frame, where base_link has the children ``turns`` (base_from_child)."""
    front = Front(config("depth", "lidar", motion__fixed_frame=""))
    edges = tuple(
        StampedTransform(0, "base_link", name, transform_matrix((0.0, 0.0, 1.0), turn)) for name, turn in turns.items()
    )
    cloud = dataclasses.replace(sweep(100), points=points, intensity=np.ones(points.shape[1], np.float32))
    samples = [info("rgb"), info("depth"), TransformSample(0, True, edges), depth(100), cloud, rgb(100)]
    for sample in samples:
        front.push_sample(sample)
    front.finish()
    return front.doubts()


def test_optical_frames_raise_no_doubt() -> None:
    assert doubts({"camera": OPTICAL, "depth": OPTICAL, "lidar": BODY}) == ()


def test_the_reference_in_body_axes() -> None:
    (doubt,) = doubts({"camera": BODY, "depth": OPTICAL, "lidar": BODY})
    assert (doubt.about, doubt.reason) == ("rgb", "body_axes")
    assert "no point of the sweep in 'lidar' falls into the image of 'camera'" in doubt.detail
    assert "does 'camera' have body axes" in doubt.detail
    (both,) = doubts({"camera": BODY, "depth": BODY, "lidar": BODY})
    assert both == doubt


def test_the_depth_camera_in_body_axes() -> None:
    (doubt,) = doubts({"camera": OPTICAL, "depth": BODY, "lidar": BODY})
    assert (doubt.about, doubt.reason) == ("depth", "body_axes")
    assert "does 'depth' have body axes" in doubt.detail


def test_a_cloud_in_an_optical_frame_is_as_good() -> None:
    turned = np.stack([-AHEAD[1], -AHEAD[2], AHEAD[0]])
    assert doubts({"camera": OPTICAL, "depth": OPTICAL, "lidar": OPTICAL}, turned) == ()


def test_a_lidar_behind_the_camera_is_outside_its_image() -> None:
    (doubt,) = doubts({"camera": OPTICAL, "depth": OPTICAL, "lidar": (0.0, 0.0, 1.0, 0.0)})
    assert (doubt.about, doubt.reason) == ("lidar", "outside_image")
    assert "'lidar'" in doubt.detail
    assert "'camera'" in doubt.detail


@pytest.mark.parametrize("few", [0, 50])
def test_few_points_say_nothing(few: int) -> None:
    assert doubts({"camera": OPTICAL, "depth": OPTICAL, "lidar": TURN}, AHEAD[:, :few]) == ()

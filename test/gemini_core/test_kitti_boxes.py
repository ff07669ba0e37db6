"""The shipped weights on real recordings, which they were not trained for: the path runs, and its output is well formed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gemini_core.bag import kitti
from gemini_core.bag.reader import BagReader
from gemini_core.config.fusion import from_flat
from gemini_core.pipeline.published_boxes import outgoing_boxes
from gemini_core.predictor import Predictor
from gemini_core.replay import Replay

FRAMES = 3


def config(**options):
    """The demo's network on KITTI's rig, whose LiDAR stands for the robot's place: it is 1.7 m too high for these weights."""
    return from_flat(
        {
            "model.weights": "shipped:simulated",
            "grid.width": 320,
            "grid.height": 96,
            "lidar.point_size_px": 3,
            "lidar.slop_ms": 60.0,
            "detections.enabled": True,
            "detections.base_frame": kitti.LIDAR_FRAME,
            "detections.min_score": 0.05,
            **options,
        }
    )


@pytest.fixture(scope="module")
def bags(real_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kitti")
    kitti.from_kitti_raw(real_dir / "kitti_raw", folder / "raw")
    kitti.from_kitti_object(real_dir / "kitti_object", folder / "object")
    return folder


@pytest.mark.parametrize("name", ["raw", "object"])
def test_boxes_come_out_of_a_real_drive(bags, name):
    settings = config()
    with BagReader(bags / name) as bag:
        run = Replay(bag, settings, Predictor(settings))
        seen = list(itertools.islice(run.perceptions(), FRAMES))
    assert len(seen) == min(FRAMES, 2 if name == "object" else FRAMES)
    for perception in seen:
        assert {entry.modality for entry in perception.status if entry.present} == {"rgb", "lidar"}
        assert perception.grids.points.source == "lidar"
        outgoing = outgoing_boxes(perception, settings.detections)
        assert outgoing.frame_id == kitti.CAMERA_FRAME
        for box in outgoing.boxes:
            assert np.isfinite([*box.center_m, *box.size_m, *box.orientation_xyzw, *box.covariance]).all()
            assert min(box.size_m) > 0
            assert box.center_m[2] > -1.0  # ahead, along the camera's z: the detector's range begins at the LiDAR
            assert np.linalg.eigvalsh(np.reshape(box.covariance, (6, 6))).min() > -1e-6


def test_no_boxes_are_claimed_without_points(bags):
    """Neither sweep nor depth: there is nothing that boxes could be made from."""
    settings = config(**{"topics.lidar.points": "somewhere/else"})
    with BagReader(bags / "object") as bag:
        run = Replay(bag, settings, Predictor(settings))
        seen = list(run.perceptions())
    assert seen
    assert all(outgoing_boxes(perception, settings.detections) is None for perception in seen)
    assert {count.what: count.number for count in run.counts()}["detections.missing.no_points"] == len(seen)

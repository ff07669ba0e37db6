"""What odometry does to depth and to sweeps: against a known motion, and which frames count on it."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gemini_core.config.fusion import from_flat
from gemini_core.rig.geometry import transform_matrix
from gemini_core.rig.motion import Motion
from gemini_core.rig.transform_tree import TransformTree
from gemini_core.types import Placement, StampedTransform

MS = 1_000_000
T0 = 1_700_000_000_000_000_000
BASE_FROM_CAMERA = transform_matrix((1.5, 0.1, 1.2), (-0.5, 0.5, -0.5, 0.5))
BASE_FROM_LIDAR = transform_matrix((0.8, -0.2, 1.9), Rotation.from_euler("zyx", [20, 5, -3], degrees=True).as_quat())


def pose(stamp_ns):
    """Odometry of a robot on a bumpy curve: up to 1.3 rad/s of yaw, rolling at 2 Hz, 5 m/s."""
    t = (stamp_ns - T0) * 1e-9
    yaw, roll = 1.0 * t + 0.1 * np.sin(3.0 * t), 0.02 * np.sin(2 * np.pi * 2.0 * t)
    return transform_matrix((5.0 * t, 0.3 * np.sin(t), 0.0), Rotation.from_euler("ZX", [yaw, roll]).as_quat())


def rig(start_ms=-1000, end_ms=1000, step_ms=20, **options):
    """A tree with odometry over a time, and what asks it."""
    tree = TransformTree()
    for child, matrix in (("camera", BASE_FROM_CAMERA), ("lidar", BASE_FROM_LIDAR), ("depth", BASE_FROM_CAMERA)):
        tree.add(StampedTransform(T0, "base", child, matrix), static=True)
    drive(tree, start_ms, end_ms, step_ms)
    return tree, Motion(from_flat(options), tree)


def drive(tree, start_ms, end_ms, step_ms=20):
    for stamp_ns in range(T0 + start_ms * MS, T0 + end_ms * MS + 1, step_ms * MS):
        tree.add(StampedTransform(stamp_ns, "odom", "base", pose(stamp_ns)), static=False)


def data(modality="lidar", start_ms=0, end_ms=None, stamp_ms=0):
    end_ms = start_ms if end_ms is None else end_ms
    return Placement(modality, modality, T0 + start_ms * MS, T0 + end_ms * MS, None, "camera", T0 + stamp_ms * MS)


def test_depth_comes_from_its_own_stamp_to_the_camera_s():
    _, motion = rig(step_ms=20)
    found = motion.reference_from_sensor(data("depth", start_ms=-40, stamp_ms=0), np.array([T0 - 40 * MS]))[0]
    world_from_camera, world_from_depth = pose(T0) @ BASE_FROM_CAMERA, pose(T0 - 40 * MS) @ BASE_FROM_CAMERA
    np.testing.assert_allclose(found, np.linalg.inv(world_from_camera) @ world_from_depth, atol=1e-12)


@pytest.mark.parametrize("step_ms", [5, 20, 100])
def test_blending_between_the_poses_of_a_sweep_errs_below_a_millimetre_at_100_m(step_ms):
    _, motion = rig(step_ms=step_ms)
    sweep = data(start_ms=-47, end_ms=53)
    poses = motion.sweep(sweep)
    assert poses.stamps_ns[0] == sweep.start_ns
    assert poses.stamps_ns[-1] == sweep.end_ns
    assert np.all(np.diff(poses.stamps_ns) > 0)
    assert 14 <= poses.stamps_ns.size <= 40
    points = np.concatenate([np.random.default_rng(1).normal(size=(3, 200)), np.ones((1, 200))])
    points[:3] *= 100.0 / np.linalg.norm(points[:3], axis=0)
    stamps = np.linspace(-47, 53, 1001)
    exact = motion.reference_from_sensor(sweep, T0 + np.round(stamps * MS).astype(np.int64))
    for stamp_ms, matrix in zip(stamps, exact, strict=True):
        after = np.clip(np.searchsorted(poses.stamps_ns, T0 + round(stamp_ms * MS)), 1, poses.stamps_ns.size - 1)
        first, last = poses.stamps_ns[after - 1 : after + 1]
        share = (T0 + round(stamp_ms * MS) - first) / (last - first)
        blended = (1 - share) * poses.reference_from_lidar[after - 1] + share * poses.reference_from_lidar[after]
        assert np.abs((blended - matrix) @ points).max() < 1e-3
    # and the path itself is that of the robot, as far as straight lines between its stamps can be
    world = pose(T0 + 13 * MS) @ BASE_FROM_LIDAR @ points
    seen = exact[600] @ points
    error = np.linalg.norm((pose(T0) @ BASE_FROM_CAMERA @ seen - world)[:3], axis=0).max()
    assert error < {5: 0.005, 20: 0.05, 100: 1.0}[step_ms]


def test_a_robot_at_rest_needs_two_poses():
    tree = TransformTree()
    for child in ("odom", "camera", "lidar"):
        tree.add(StampedTransform(0, "base", child, np.eye(4)), static=True)
    poses = Motion(from_flat({}), tree).sweep(data(start_ms=-50, end_ms=50))
    assert poses.stamps_ns.tolist() == [T0 - 50 * MS, T0 + 50 * MS]
    np.testing.assert_array_equal(poses.reference_from_lidar, np.tile(np.eye(4), (2, 1, 1)))


def test_all_poses_of_a_frame_cost_less_than_a_millisecond():
    _, motion = rig(start_ms=-9000, step_ms=5)
    depth, sweep = data("depth", -8), data(start_ms=-50, end_ms=50)
    motion.begin(T0 - 5000 * MS)
    spent = []
    for _ in range(40):
        began = time.thread_time()
        assert not motion.must_wait(depth)
        assert not motion.must_wait(sweep)
        assert motion.lack(depth) == motion.lack(sweep) == ""
        motion.reference_from_sensor(depth, np.array([depth.start_ns]))
        motion.sweep(sweep)
        spent.append(time.thread_time() - began)
    assert min(spent) < 1e-3


# --------------------------------------------------------------------------------------------------------------------
# Which frames count on odometry (max_wait_ms 150)


def test_what_was_measured_at_the_image_s_stamp_and_events_need_none():
    _, motion = rig(0, -1)
    for each in (data("depth"), data("lidar"), data("event", -50, 0)):
        assert not motion.must_wait(each)
        assert motion.lack(each) == ""
    off = rig(0, -1, **{"motion.fixed_frame": ""})[1]
    assert not off.must_wait(data("depth", -10))


def test_odometry_must_cover_the_whole_sweep_and_the_image():
    _, motion = rig(-1000, 40)
    assert not motion.must_wait(data(start_ms=-60, end_ms=40))
    for sweep in (data(start_ms=-60, end_ms=41), data(start_ms=0, end_ms=20, stamp_ms=41), data(start_ms=-1001, end_ms=0)):
        assert motion.must_wait(sweep)
        assert "'base' to 'odom'" in motion.lack(sweep)


def test_a_rig_without_odometry_waits_for_it_at_the_start_alone():
    _, motion = rig(0, -1)
    motion.begin(T0)
    motion.begin(T0 + 1000 * MS)  # not the first
    for stamp_ms, waits in ((0, True), (299, True), (300, False), (5000, False)):
        assert motion.must_wait(data("depth", stamp_ms - 10, stamp_ms=stamp_ms)) == waits
    assert "no frame 'odom'" in motion.lack(data("depth", 4990, stamp_ms=5000))
    motion.clear()
    motion.begin(T0 + 9000 * MS)
    assert motion.must_wait(data("depth", 9000, stamp_ms=9100))


def test_odometry_that_begins_late_counts_once_every_order_of_arrival_has_it():
    tree, motion = rig(0, -1)
    motion.begin(T0)
    drive(tree, 1000, 2000)
    early, in_time = data("depth", 1120, stamp_ms=1149), data("depth", 1120, stamp_ms=1150)
    assert not motion.must_wait(early)
    assert "from at least 150 ms before the image" in motion.lack(early)
    assert motion.lack(in_time) == ""


def test_odometry_that_ended_is_no_longer_waited_for_after_ten_seconds():
    _, motion = rig(0, 1000)
    motion.begin(T0)
    assert motion.must_wait(data("depth", 11140, stamp_ms=11150))
    assert not motion.must_wait(data("depth", 11141, stamp_ms=11151))
    assert "only" in motion.lack(data("depth", 11141, stamp_ms=11151))

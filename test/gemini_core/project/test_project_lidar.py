"""The LiDAR on the grid: motion undone, encodings, gaps filled, odd clouds, and counts known of real recordings."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from gemini_core.config.fusion import FusionConfig
from gemini_core.config.sections import GridConfig, LidarConfig
from gemini_core.project.densify import densify
from gemini_core.project.deskew import deskew_points
from gemini_core.project.lidar import align_lidar
from gemini_core.project.projector import Projector
from gemini_core.rig.geometry import invert_transform, project_points, transform_points
from gemini_core.types import CameraModel, CloudSample, FrameCalibration, ImageSample, ModalityStatus, SensorFrame, SweepMotion

CAMERA = CameraModel(320, 240, 200.0, 200.0, 159.5, 119.5)
# LiDAR x forward, y left, z up; the camera looks along x
CAMERA_FROM_LIDAR = np.array([[0.0, -1.0, 0.0, 0.1], [0.0, 0.0, -1.0, -0.2], [1.0, 0.0, 0.0, -0.3], [0.0, 0.0, 0.0, 1.0]])
SWEEP_NS = 100_000_000
EPOCH = 1_714_506_077_250_967_979
RNG = np.random.default_rng(0)


def cloud(points, intensity=None, time_ns=None):
    points = np.ascontiguousarray(points, np.float32)
    intensity = np.zeros(points.shape[1]) if intensity is None else intensity
    start, end = (0, 0) if time_ns is None else (int(time_ns.min()), int(time_ns.max()))
    return CloudSample(start, "lidar", points, np.asarray(intensity, np.float32), None, time_ns, start, end)


def pose(x, y, yaw):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("z", yaw).as_matrix()
    matrix[:2, 3] = x, y
    return matrix


# --------------------------------------------------------------------------------------------------------------------
# Motion


class Drive:
    """A robot on a circle (speed in m/s, turn in rad/s) with a spinning LiDAR that sees a wall at y = 4 m and poles."""

    poles = ((12.0, -3.0), (25.0, 2.0), (60.0, -8.0))

    def __init__(self, speed, turn):
        self.speed, self.turn = speed, turn

    def world_from_lidar(self, seconds):
        radius, angle = self.speed / self.turn, self.turn * seconds
        return pose(radius * math.sin(angle), radius * (1 - math.cos(angle)), angle)

    def sweep(self, count=3600):
        """Points (3, N) as measured, the time of each, and which of the poles it hit (-1: the wall)."""
        points, times, hits = [], [], []
        for i in range(count):
            seconds = (i / count) * SWEEP_NS / 1e9
            lidar_from_world = invert_transform(self.world_from_lidar(seconds))
            # Each firing sees a different place of the wall and of each pole.
            targets = [(-1, (80.0 * i / count, 4.0, 2.0 * math.sin(i)))]
            targets += [(k, (*pole, 3.0 * i / count)) for k, pole in enumerate(self.poles)]
            for hit, target in targets:
                points.append((lidar_from_world @ (*target, 1.0))[:3])
                times.append(EPOCH + round(seconds * 1e9))
                hits.append(hit)
        return np.array(points, np.float32).T.copy(), np.array(times), np.array(hits)

    def motion(self, knots, reference_s):
        seconds = np.linspace(0.0, SWEEP_NS / 1e9, knots)
        reference_from_world = CAMERA_FROM_LIDAR @ invert_transform(self.world_from_lidar(reference_s))
        poses = np.stack([reference_from_world @ self.world_from_lidar(s) for s in seconds])
        return SweepMotion(EPOCH + np.rint(seconds * 1e9).astype(np.int64), poses)


def errors_m(drive, reference_s, points):
    """How far points in the reference's frame lie from the wall, and from the poles' axes."""
    world_from_reference = drive.world_from_lidar(reference_s) @ invert_transform(CAMERA_FROM_LIDAR)
    x, y, _ = transform_points(world_from_reference, points).astype(np.float64)
    return np.abs(y - 4.0), [np.hypot(x - pole[0], y - pole[1]) for pole in drive.poles]


@pytest.mark.parametrize(("speed", "turn"), [(15.0, 0.3), (2.0, -1.5), (30.0, 0.02)])
@pytest.mark.parametrize("reference_s", [0.0, 0.05, 0.13])
def test_a_wall_and_poles_seen_from_a_turning_robot_are_where_they_stand(speed, turn, reference_s):
    drive = Drive(speed, turn)
    points, times, hits = drive.sweep(900)
    knots = 1 + math.ceil(abs(turn) * 0.1 / 8e-3)  # 8 mrad between two: how far motion.py spaces them
    deskewed = deskew_points(points, times, drive.motion(max(knots, 3), reference_s))
    rigid = transform_points(CAMERA_FROM_LIDAR, points)
    wall, poles = errors_m(drive, reference_s, deskewed)
    assert wall[hits == -1].max() < 1e-3
    assert max(pole[hits == k].max() for k, pole in enumerate(poles)) < 1e-3
    _, poles = errors_m(drive, reference_s, rigid)
    assert min(pole[hits == k].max() for k, pole in enumerate(poles)) > 0.1


@pytest.mark.parametrize("turn", [0.05, 0.2, 1.0])
def test_the_blend_errs_by_the_bound_that_it_names(turn):
    """``r θ² / 8`` in the middle between two knots, θ apart; nothing at the knots."""
    radius = 80.0
    poses = np.stack([pose(0.0, 0.0, 0.0), pose(0.0, 0.0, turn)])
    times = np.linspace(0, SWEEP_NS, 201).astype(np.int64)
    points = np.tile(np.array([[radius], [0.0], [1.0]], np.float32), (1, times.size))
    moved = deskew_points(points, times, SweepMotion(np.array([0, SWEEP_NS]), poses))
    angle = turn * times / SWEEP_NS
    error = np.hypot(moved[0] - radius * np.cos(angle), moved[1] - radius * np.sin(angle))
    assert error[[0, -1]].max() < 1e-4
    assert 0.95 * radius * turn**2 / 8 < error.max() <= radius * turn**2 / 8 + 1e-4


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 9), st.booleans(), st.integers(0, 2**32 - 1))
def test_any_motion_blends_between_the_knots_around_each_point(knots, is_sorted, seed):
    """Uneven knots, points in any order, before the first knot and after the last one."""
    rng = np.random.default_rng(seed)
    stamps = EPOCH + np.cumsum(rng.integers(1, 10**8, knots) ** rng.integers(1, 3) // 10**6 + 1)
    poses = np.tile(np.eye(4), (knots, 1, 1))
    poses[:, :3, :3] = Rotation.random(knots, random_state=seed).as_matrix()
    poses[:, :3, 3] = rng.normal(size=(knots, 3)) * 5
    times = rng.integers(stamps[0] - 10**6, stamps[-1] + 10**6, 200)
    times[:knots] = stamps
    if is_sorted:
        times.sort()
    points = rng.normal(size=(3, 200)).astype(np.float32) * 30
    every = np.einsum("kij,jn->kin", poses[:, :3], np.vstack([points, np.ones(200)]))  # (K, 3, N)
    expected = [
        [np.interp(float(t - EPOCH), (stamps - EPOCH).astype(float), every[:, row, i]) for i, t in enumerate(times)]
        for row in range(3)
    ]
    moved = deskew_points(points, times, SweepMotion(stamps, poses))
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, expected, atol=2e-4)


def test_motion_that_stands_still_is_the_one_transform():
    points = RNG.normal(size=(3, 500)).astype(np.float32) * 20
    times = EPOCH + RNG.integers(0, SWEEP_NS, 500)
    motion = SweepMotion(np.array([EPOCH, EPOCH + SWEEP_NS]), np.stack([CAMERA_FROM_LIDAR] * 2))
    expected = transform_points(CAMERA_FROM_LIDAR, points)
    np.testing.assert_allclose(deskew_points(points, times, motion), expected, atol=1e-5)
    assert deskew_points(points[:, :0], times[:0], motion).shape == (3, 0)


def test_a_grid_shows_the_deskewed_points_with_the_range_that_was_measured():
    drive = Drive(10.0, 0.5)
    motion = drive.motion(21, 0.0)
    at = np.array([12.0, 1.0, 0.5, 1.0])  # in the world, seen at the end of the sweep
    seen = (invert_transform(drive.world_from_lidar(0.1)) @ at)[:3, None]
    sample = cloud(seen, [51.0], np.array([EPOCH + SWEEP_NS]))
    config = LidarConfig(max_m=50.0, min_height_m=0.0, max_height_m=1.0)
    grid = align_lidar(sample, CAMERA, CAMERA_FROM_LIDAR, config, motion)
    in_camera = CAMERA_FROM_LIDAR @ at
    column, row = (np.rint(CAMERA.fx * in_camera[:2] / in_camera[2] + [CAMERA.cx, CAMERA.cy])).astype(int)
    assert np.argwhere(grid.valid).tolist() == [[row, column]]
    assert grid.depth_m[row, column] == pytest.approx(in_camera[2], abs=1e-3)
    expected = [np.linalg.norm(seen) / 50, 0.5, 0.2]
    np.testing.assert_allclose(grid.channels[:, row, column], expected, rtol=1e-5)
    # Without point times the sweep is one piece, whatever the motion.
    timeless = align_lidar(cloud(seen, [51.0]), CAMERA, CAMERA_FROM_LIDAR, config, motion)
    rigid = align_lidar(cloud(seen, [51.0]), CAMERA, CAMERA_FROM_LIDAR, config)
    np.testing.assert_array_equal(timeless.channels, rigid.channels)
    assert not timeless.valid[row, column]


def test_the_projector_hands_the_motion_on():
    sample = cloud(np.array([[10.0], [0.0], [0.0]]), time_ns=np.array([EPOCH]))
    moved = np.stack([pose(0, 1.0, 0), pose(0, 1.0, 0)])
    calibration = FrameCalibration(
        CAMERA,
        reference_from_lidar=CAMERA_FROM_LIDAR,
        lidar_motion=SweepMotion(np.array([EPOCH, EPOCH + 1]), CAMERA_FROM_LIDAR @ moved),
    )
    status = tuple(ModalityStatus(name, True, "", 0) for name in ("rgb", "lidar"))
    rgb = ImageSample(EPOCH, "camera", np.zeros((240, 320, 3), np.uint8))
    frame = SensorFrame(0, EPOCH, "camera", rgb, None, sample, None, status, calibration)
    config = FusionConfig(modalities=("rgb", "lidar"), grid=GridConfig(240, 320))
    grid = Projector(config).project(frame).grid("lidar")
    in_camera = CAMERA_FROM_LIDAR @ [10.0, 1.0, 0.0, 1.0]
    assert np.argwhere(grid.valid)[0, 1] == round(CAMERA.fx * in_camera[0] / in_camera[2] + CAMERA.cx)


def test_slerp_between_two_stamps_of_odometry_is_the_arc_that_the_knots_follow():
    """The blend against SE(3) interpolation itself: 30 m away, knots 8 mrad apart."""
    ends = Rotation.from_euler("zyx", [[0.0, 0.0, 0.0], [0.24, 0.02, -0.03]])
    slerp = Slerp([0.0, 1.0], ends)

    def poses(shares):
        out = np.tile(np.eye(4), (len(shares), 1, 1))
        out[:, :3, :3] = slerp(shares).as_matrix()
        out[:, 0, 3] = 2.0 * np.asarray(shares)
        return out

    knots = np.linspace(0, 1, 32)
    shares = RNG.uniform(0, 1, 2000)
    points = RNG.normal(size=(3, 2000))
    points *= 30.0 / np.linalg.norm(points, axis=0)
    motion = SweepMotion(np.rint(knots * SWEEP_NS).astype(np.int64), poses(knots))
    moved = deskew_points(points.astype(np.float32), np.rint(shares * SWEEP_NS).astype(np.int64), motion)
    exact = np.einsum("nij,jn->in", poses(shares), np.vstack([points, np.ones(2000)]))[:3]
    assert np.linalg.norm(moved - exact, axis=0).max() < 5e-4


# --------------------------------------------------------------------------------------------------------------------
# Encodings


def test_grey_is_the_range_three_times():
    points = RNG.uniform([[3], [-4], [-3]], [[60], [4], [3]], (3, 300))
    config = LidarConfig(max_m=40.0, encoding="grey")
    grid = align_lidar(cloud(points, RNG.uniform(0, 255, 300)), CAMERA, CAMERA_FROM_LIDAR, config)
    plain = align_lidar(cloud(points), CAMERA, CAMERA_FROM_LIDAR, LidarConfig(max_m=40.0))
    assert grid.valid.any()
    for channel in grid.channels:
        np.testing.assert_array_equal(channel, plain.channels[0])
    assert grid.channels.max() == 1.0
    np.testing.assert_array_equal(grid.depth_m, plain.depth_m)


def nearest_by_hand(index, z, radius):
    expected = index.copy()
    rows, columns = np.nonzero(index >= 0)
    for row, column in np.argwhere(index < 0):
        squared = (rows - row) ** 2 + (columns - column) ** 2
        near = [(squared[i], z[index[rows[i], columns[i]]], index[rows[i], columns[i]]) for i in range(rows.size)]
        best = min(near, default=(np.inf, 0, -1))
        expected[row, column] = best[2] if best[0] <= radius**2 else -1
    return expected


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 8), st.floats(0, 0.3), st.integers(0, 2**32 - 1))
def test_gaps_take_the_nearest_point(height, width, radius, share, seed):
    rng = np.random.default_rng(seed)
    count = height * width
    index = np.where(rng.random((height, width)) < share, rng.permutation(count).reshape(height, width), -1).astype(np.int32)
    z = rng.integers(1, 4, count).astype(np.float32)  # with many ties
    np.testing.assert_array_equal(densify(index, z, radius), nearest_by_hand(index, z, radius))


def test_a_dense_grid_keeps_its_points_and_says_where_it_is_filled():
    points = np.array([[10.0, 12.0], [0.0, -0.6], [0.0, 0.0]])
    sparse = align_lidar(cloud(points, [100.0, 200.0]), CAMERA, CAMERA_FROM_LIDAR, LidarConfig())
    dense = align_lidar(cloud(points, [100.0, 200.0]), CAMERA, CAMERA_FROM_LIDAR, LidarConfig(densify_px=3))
    assert sparse.valid.sum() == 2
    disc = sum(x * x + y * y <= 9 for x in range(-3, 4) for y in range(-3, 4))
    assert dense.valid.sum() == 2 * disc
    for values, kept in ((dense.channels, sparse.channels), (dense.depth_m[None], sparse.depth_m[None])):
        np.testing.assert_array_equal(values[:, sparse.valid], kept[:, sparse.valid])
        assert set(np.unique(values[:, dense.valid])) == set(np.unique(kept[:, sparse.valid]))
    assert np.isnan(dense.depth_m[~dense.valid]).all()
    assert not dense.channels[:, ~dense.valid].any()


# --------------------------------------------------------------------------------------------------------------------
# Odd clouds


@pytest.mark.parametrize("densify_px", [0, 2])
@pytest.mark.parametrize(
    "points",
    [
        np.empty((3, 0)),
        np.array([[-5.0, -1.0], [0.0, 1.0], [0.0, 0.0]]),
        np.full((3, 4), 3e38),
        np.full((3, 4), np.nan),
        np.array([[np.inf], [0.0], [0.0]]),
        np.array([[1e-38], [0.0], [0.0]]),
    ],
    ids=["empty", "behind", "huge", "nan", "infinite", "at the centre"],
)
def test_clouds_with_nothing_to_see_give_an_empty_grid(points, densify_px):
    times = np.full(points.shape[1], EPOCH)
    motion = SweepMotion(np.array([EPOCH, EPOCH + 1]), np.stack([CAMERA_FROM_LIDAR] * 2))
    sample = CloudSample(EPOCH, "lidar", points.astype(np.float32), times.astype(np.float32), None, times, EPOCH, EPOCH)
    config = LidarConfig(densify_px=densify_px)
    for lens in (CAMERA, CameraModel(320, 240, 200.0, 200.0, 159.5, 119.5, "plumb_bob", (-0.3, 0.1, 0.0, 0.0))):
        for given_motion in (None, motion):
            grid = align_lidar(sample, lens, CAMERA_FROM_LIDAR, config, given_motion)
            assert grid.coverage == 0.0
            assert not grid.channels.any()
            assert np.isnan(grid.depth_m).all()


def test_far_points_straight_ahead_are_seen():
    grid = align_lidar(cloud(np.array([[1e18], [0.0], [0.0]])), CAMERA, CAMERA_FROM_LIDAR, LidarConfig())
    assert grid.valid.sum() == 1
    assert grid.channels[0].max() == 1.0
    assert np.isfinite(grid.channels).all()


def test_one_point_per_ring():
    rings = np.linspace(-0.4, 0.4, 64)
    points = 10.0 * np.stack([np.cos(rings), np.zeros(64), np.sin(rings)])
    grid = align_lidar(cloud(points), CAMERA, CAMERA_FROM_LIDAR, LidarConfig(max_m=20.0))
    middle = CAMERA.cx + 200 * 0.1 / (10 * np.cos(rings) - 0.3)
    assert set(np.nonzero(grid.valid)[1]) == set(np.floor(middle + 0.5))
    assert grid.valid.sum() == 64
    np.testing.assert_allclose(grid.channels[0][grid.valid], 0.5, rtol=1e-6)


def test_half_a_million_points_show_the_nearest_of_each_pixel():
    points = RNG.uniform([[1], [-30], [-20]], [[60], [30], [20]], (3, 500_000)).astype(np.float32)
    grid = align_lidar(cloud(points), CAMERA, CAMERA_FROM_LIDAR, LidarConfig())
    pixels, z, visible = project_points(CAMERA, transform_points(CAMERA_FROM_LIDAR, points))
    column, row = np.floor(pixels[:, visible] + 0.5).astype(int)
    nearest = np.full((240, 320), np.inf, np.float32)
    np.minimum.at(nearest, (row, column), z[visible])
    np.testing.assert_array_equal(grid.depth_m, np.where(np.isinf(nearest), np.nan, nearest))


# --------------------------------------------------------------------------------------------------------------------
# Real recordings


def points_in_box(points, lidar_from_box, size):
    """How many of the points (3, N) lie in a box (length, width, height) around its centre, borders included."""
    inside = np.abs(invert_transform(lidar_from_box)[:3] @ np.vstack([points, np.ones(points.shape[1])]))
    return int((inside <= np.array(size)[:, None] / 2).all(axis=0).sum())


def upright_box(bbox, world_from_lidar):
    """The frame of a nuScenes box, whose seven numbers hold one angle only: of its length in the LiDAR's x-y plane.

    The annotated boxes stand upright in the world, not in the LiDAR's tilted frame, so the angle ψ about the world's z is the
    one whose direction (cos ψ, sin ψ, 0), seen by the LiDAR, has that angle: a (cos ψ) + b (sin ψ) = 0 with the two vectors
    below.
    """
    x, y, z, length, width, height, yaw = bbox
    lidar_from_world = world_from_lidar[:3, :3].T
    across = np.array([-math.sin(yaw), math.cos(yaw), 0.0]) @ lidar_from_world  # no part of the length points this way
    heading = math.atan2(-across[0], across[1])
    along = lidar_from_world @ (math.cos(heading), math.sin(heading), 0.0)
    if along[:2] @ (math.cos(yaw), math.sin(yaw)) < 0:
        heading += math.pi
    lidar_from_box = np.eye(4)
    lidar_from_box[:3, :3] = lidar_from_world @ Rotation.from_euler("z", heading).as_matrix()
    lidar_from_box[:3, 3] = x, y, z
    return lidar_from_box, (length, width, height)


def test_nuscenes_boxes_hold_as_many_points_as_annotated(real_dir):
    folder = real_dir / "nuscenes"
    sample = json.loads((folder / "sample.json").read_text())["sample"]
    (sweep,) = folder.glob("*LIDAR_TOP*")
    points = np.fromfile(sweep, np.float32).reshape(-1, 5)[:, :3].T.astype(np.float64)
    assert points.shape == (3, 34_688)
    world_from_lidar = np.array(sample["ego2global"]) @ np.array(sample["lidar_points"]["lidar2ego"])
    counted = [points_in_box(points, *upright_box(box["bbox_3d"], world_from_lidar)) for box in sample["instances"]]
    annotated = [box["num_lidar_pts"] for box in sample["instances"]]
    assert len(annotated) == 69
    assert counted == annotated


def road_scene(folder):
    open3d = pytest.importorskip("open3d")
    sweep = open3d.t.io.read_point_cloud(str(folder / "calib.pcd")).point
    rows = dict(line.split(":") for line in (folder / "calib.txt").read_text().splitlines() if line.strip())
    k, d, t = (np.array(rows[name].split(), float) for name in "KDT")
    camera = CameraModel(1920, 1200, k[0], k[4], k[2], k[5], "plumb_bob", tuple(d))
    camera_from_lidar = np.vstack([t.reshape(3, 4), [0, 0, 0, 1]])
    time_ns = np.rint(sweep["timestamp"].numpy().ravel() * 1e9).astype(np.int64)
    points = np.ascontiguousarray(sweep["positions"].numpy().T)
    grey = cv2.cvtColor(cv2.imread(str(folder / "calib.jpg")), cv2.COLOR_BGR2GRAY).astype(np.float32)
    return camera, camera_from_lidar, points, time_ns, sweep["ring"].numpy().ravel(), cv2.GaussianBlur(grey, (0, 0), 1.5)


def test_edges_of_a_road_scene_line_up(real_dir):
    camera, camera_from_lidar, points, time_ns, ring, grey = road_scene(real_dir / "road_camera_lidar")
    assert points.shape == (3, 101_340)
    assert 90e6 < time_ns.max() - time_ns.min() < 110e6  # one turn in 0.1 s
    pixels, z, visible = project_points(camera, transform_points(camera_from_lidar, points))
    # A tree trunk 19 m away: its sides are where the image turns bright and dark again.
    u, v = pixels
    trunk = visible & (np.abs(u - 1800) < 60) & (np.abs(v - 630) < 70) & (np.abs(z - 19.5) < 1.0)
    assert np.count_nonzero(trunk) == 89
    slope = np.gradient(grey[560:700, 1740:1860].mean(axis=0))
    assert abs(u[trunk].min() - (1740 + slope.argmax())) < 8
    assert abs(u[trunk].max() - (1740 + slope.argmin())) < 8
    # Where depth jumps along a ring, grey does too: more than anywhere up to 40 pixels (1 degree) beside it.
    edges_u, edges_v = [], []
    for number in range(64):
        of_ring = np.flatnonzero(visible & (ring == number))
        of_ring = of_ring[np.argsort(u[of_ring])]
        jump = (np.abs(np.diff(z[of_ring])) > 4) & (np.diff(u[of_ring]) < 25)
        jump &= np.minimum(z[of_ring][1:], z[of_ring][:-1]) < 50
        edges_u.append((u[of_ring][1:] + u[of_ring][:-1])[jump] / 2)
        edges_v.append((v[of_ring][1:] + v[of_ring][:-1])[jump] / 2)
    edges_u, edges_v = np.concatenate(edges_u)[None], np.concatenate(edges_v)[None]
    steepness = np.abs(cv2.Sobel(grey, cv2.CV_32F, 1, 0))
    shifts = np.arange(-40, 41, 4)
    found = [cv2.remap(steepness, edges_u + np.float32(shift), edges_v, cv2.INTER_LINEAR).mean() for shift in shifts]
    assert edges_u.size > 500
    assert abs(shifts[int(np.argmax(found))]) <= 8
    assert max(found) > 1.2 * np.median(found)

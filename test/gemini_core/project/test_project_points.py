"""Points for a detector: where they lie in space and on the grid, which the camera sees; the labels that a mask gives them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from gemini_core.bag.kitti import from_kitti_raw
from gemini_core.bag.reader import BagReader
from gemini_core.config.fusion import FusionConfig, from_flat
from gemini_core.decode.intake import Intake
from gemini_core.pipeline.pipeline import Pipeline
from gemini_core.project import lidar as lidar_module
from gemini_core.project.points import LABELLED_POINT, label_points, labelled_sweep
from gemini_core.project.projector import Projector
from gemini_core.replay import Replay
from gemini_core.rig.geometry import OPTICAL_FROM_BODY, invert_transform, project_points, transform_points
from gemini_core.simulation.clip import Clip
from gemini_core.simulation.record import Simulation
from gemini_core.types import (
    UNLABELLED,
    CameraModel,
    CloudSample,
    DepthSample,
    DetectionFrames,
    FrameCalibration,
    ImageSample,
    ModalityStatus,
    Perception,
    SensorFrame,
    SweepMotion,
)

CAMERA = CameraModel(320, 240, 200.0, 200.0, 159.5, 119.5)
LENS = CameraModel(320, 240, 200.0, 200.0, 157.0, 121.0, "plumb_bob", (-0.2, 0.05, 1e-3, -2e-3, 0.0))
EPOCH = 1_700_000_000_000_000_000


def pose(x=0.0, y=0.0, z=0.0, *, roll=0.0, pitch=0.0, yaw=0.0):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("ZYX", (yaw, pitch, roll)).as_matrix()
    matrix[:3, 3] = x, y, z
    return matrix


def cloud(points, intensity=None, time_ns=None):
    """A sweep of points (N, 3)."""
    points = np.ascontiguousarray(np.asarray(points, np.float32).reshape(-1, 3).T)
    intensity = np.zeros(points.shape[1]) if intensity is None else intensity
    start, end = (EPOCH, EPOCH) if time_ns is None else (int(time_ns.min()), int(time_ns.max()))
    return CloudSample(EPOCH, "lidar", points, np.asarray(intensity, np.float32), None, time_ns, start, end)


def frame(camera=CAMERA, lidar=None, depth=None, frames=None, reference_from_lidar=OPTICAL_FROM_BODY, **calibration):
    height, width = camera.height, camera.width
    calibration = FrameCalibration(
        reference=camera,
        depth=camera if depth is not None else None,
        reference_from_depth=np.eye(4) if depth is not None else None,
        reference_from_lidar=reference_from_lidar if lidar is not None else None,
        detections=frames,
        **calibration,
    )
    depth = None if depth is None else DepthSample(EPOCH, "camera", depth)
    status = (ModalityStatus("rgb", True, "", 0),)
    image = ImageSample(EPOCH, "camera", np.zeros((height, width, 3), np.uint8))
    return SensorFrame(0, EPOCH, "camera", image, depth, lidar, None, status, calibration)


def config(camera=CAMERA, **options):
    dotted = {key.replace("__", "."): value for key, value in options.items()}
    base = {"grid.width": camera.width, "grid.height": camera.height, "detections.enabled": True, "detections.depth_stride": 1}
    return from_flat({**base, **dotted})


def based(reference_from_base):
    return DetectionFrames(reference_from_base, "camera", np.eye(4))


def points_of(seen, settings_=None):
    found = Projector(settings_ or config()).project(seen).points
    assert found is not None
    return found


# --------------------------------------------------------------------------------------------------------------------
# Where they are


def test_points_on_a_wall_lie_at_the_pixels_and_places_that_a_hand_works_out():
    # A level camera 1.5 m above base_link and 0.5 m ahead, a LiDAR 0.2 m above the camera, a wall 10.5 m ahead of base_link
    base_from_camera = pose(0.5, 0.0, 1.5) @ invert_transform(OPTICAL_FROM_BODY)
    camera_from_lidar = invert_transform(base_from_camera) @ pose(0.5, 0.0, 1.7)
    wall = [(10.0, 0.0, -0.2), (10.0, 2.0, -0.2), (10.0, 0.0, 1.8), (-10.0, 0.0, 0.0)]  # in the LiDAR; the last one is behind
    found = points_of(
        frame(
            lidar=cloud(wall, [0.0, 51.0, 255.0, 700.0]),
            frames=based(invert_transform(base_from_camera)),
            reference_from_lidar=camera_from_lidar,
        )
    )
    assert (found.source, found.dropped) == ("lidar", 0)
    np.testing.assert_allclose(
        found.points_m, [(10.5, 0.0, 1.5), (10.5, 2.0, 1.5), (10.5, 0.0, 3.5), (-9.5, 0.0, 1.7)], atol=1e-5
    )
    # u = cx - f y / x, v = cy - f (z - 1.5) / x with 10 m to the wall
    np.testing.assert_allclose(found.pixels, [(159.5, 119.5), (119.5, 119.5), (159.5, 79.5), (-1.0, -1.0)], atol=1e-3)
    assert found.visible.tolist() == [True, True, True, False]
    np.testing.assert_allclose(found.intensity, [0.0, 0.2, 1.0, 1.0], atol=1e-6)
    assert found.rows.tolist() == [0, 1, 2, 3]
    assert [array.dtype for array in (found.points_m, found.intensity, found.pixels, found.rows)] == [
        *[np.dtype(np.float32)] * 3,
        np.dtype(np.int32),
    ]


def test_without_a_base_frame_it_is_the_cameras_place_with_body_axes():
    found = points_of(frame(lidar=cloud([(5.0, -1.0, 2.0)]), frames=based(OPTICAL_FROM_BODY), reference_from_lidar=np.eye(4)))
    # optical z is x, minus optical x is y, minus optical y is z
    np.testing.assert_allclose(found.points_m, [(2.0, -5.0, 1.0)], atol=1e-6)
    np.testing.assert_array_equal(found.reference_from_base @ (1, 0, 0, 1), (0, 0, 1, 1))
    np.testing.assert_array_equal(found.reference_from_base @ (0, 1, 0, 1), (-1, 0, 0, 1))
    np.testing.assert_array_equal(found.reference_from_base @ (0, 0, 1, 1), (0, -1, 0, 1))


def test_the_ground_of_a_tilted_camera_is_level_in_the_base_frame():
    """The camera looks down by 20 degrees, rolled by 5; the ground that it sees keeps z = 0."""
    base_from_camera = pose(0.3, -0.1, 1.4, roll=math.radians(5), pitch=math.radians(20)) @ invert_transform(OPTICAL_FROM_BODY)
    base_from_lidar = pose(0.0, 0.0, 1.9, pitch=math.radians(-3))
    rng = np.random.default_rng(1)
    ground = np.column_stack([rng.uniform(2, 15, 400), rng.uniform(-4, 4, 400), np.zeros(400)]).astype(np.float32)
    in_lidar = transform_points(invert_transform(base_from_lidar), ground.T).T
    found = points_of(
        frame(
            lidar=cloud(in_lidar),
            frames=based(invert_transform(base_from_camera)),
            reference_from_lidar=invert_transform(base_from_camera) @ base_from_lidar,
        )
    )
    np.testing.assert_allclose(found.points_m, ground, atol=1e-5)
    in_camera = transform_points(invert_transform(base_from_camera), ground.T)
    pixels, _, inside = project_points(CAMERA, in_camera)
    assert 50 < inside.sum() < 400
    np.testing.assert_allclose(found.pixels[inside], pixels.T[inside], atol=1e-3)
    assert (found.pixels[~inside] == -1).all()


@pytest.mark.parametrize("rectify", [False, True])
def test_pixels_are_those_of_the_grid_whatever_lens_and_crop(rectify):
    settings_ = config(rgb__rectify=rectify, grid__width=128, grid__height=64)
    seen = frame(
        LENS, lidar=cloud(np.random.default_rng(2).uniform((2, -6, -4), (12, 6, 4), (500, 3))), frames=based(OPTICAL_FROM_BODY)
    )
    grids = Projector(settings_).project(seen)
    found, lidar = grids.points, grids.grid("lidar")
    assert found.visible.sum() > 50
    rounded = np.floor(found.pixels[found.visible] + 0.5).astype(int)
    assert lidar.valid[rounded[:, 1], rounded[:, 0]].all()
    along_z = transform_points(found.reference_from_base, found.points_m.T)[2]
    assert (along_z[found.visible] >= lidar.depth_m[rounded[:, 1], rounded[:, 0]] - 1e-4).all()  # the nearest one has the pixel


def test_a_sweep_is_deskewed_once_for_the_grid_and_the_points(monkeypatch):
    """A robot at 10 m/s: points of one pole, measured over 0.1 s, come together at its place at the reference stamp."""
    calls = []
    deskew = lidar_module.deskew_points
    monkeypatch.setattr(lidar_module, "deskew_points", lambda *given: calls.append(1) or deskew(*given))
    seconds = np.linspace(0.0, 0.1, 11)
    time_ns = EPOCH + np.rint(seconds * 1e9).astype(np.int64)
    as_measured = np.column_stack([12.0 - 10.0 * seconds, np.ones(11), np.zeros(11)])
    poses = np.stack([OPTICAL_FROM_BODY @ pose(10.0 * s) for s in (0.0, 0.1)])
    motion = SweepMotion(np.array([time_ns[0], time_ns[-1]]), poses)
    found = points_of(frame(lidar=cloud(as_measured, time_ns=time_ns), frames=based(OPTICAL_FROM_BODY), lidar_motion=motion))
    np.testing.assert_allclose(found.points_m, np.tile((12.0, 1.0, 0.0), (11, 1)), atol=1e-5)
    assert calls == [1]


# --------------------------------------------------------------------------------------------------------------------
# From depth


def test_points_from_depth_where_there_is_no_sweep():
    depth_m = np.full((240, 320), np.nan, np.float32)
    depth_m[119, 159], depth_m[10, 300] = 4.0, 7.0
    depth_m[0, 0], depth_m[0, 1] = np.inf, -np.inf  # too far, too near: no places
    base_from_camera = pose(0.0, 0.0, 1.0) @ invert_transform(OPTICAL_FROM_BODY)
    found = points_of(frame(depth=depth_m, frames=based(invert_transform(base_from_camera))))
    assert found.source == "depth"
    assert found.rows.tolist() == [10 * 320 + 300, 119 * 320 + 159]
    assert found.pixels.tolist() == [[300.0, 10.0], [159.0, 119.0]]
    assert found.visible.all()
    assert not found.intensity.any()
    expected = [(7.0, -7.0 * (300 - 159.5) / 200, 1.0 - 7.0 * (10 - 119.5) / 200), (4.0, 0.01, 1.01)]
    np.testing.assert_allclose(found.points_m, expected, atol=1e-4)


def test_points_from_depth_are_thinned_by_rows_and_columns():
    depth_m = np.full((240, 320), 3.0, np.float32)
    given = frame(depth=depth_m, frames=based(OPTICAL_FROM_BODY))
    points = Projector(config(**{"detections.depth_stride": 3})).project(given).points
    assert points.rows.tolist() == [row * 320 + column for row in range(0, 240, 3) for column in range(0, 320, 3)]
    assert points.pixels[:2].tolist() == [[0.0, 0.0], [3.0, 0.0]]


def test_the_sweep_counts_where_there_are_both_and_depth_where_the_sweep_is_empty():
    depth_m = np.full((240, 320), 3.0, np.float32)
    both = points_of(frame(lidar=cloud([(5.0, 0.0, 0.0)]), depth=depth_m, frames=based(OPTICAL_FROM_BODY)))
    assert (both.source, both.rows.size) == ("lidar", 1)
    blind = points_of(frame(lidar=cloud([]), depth=depth_m, frames=based(OPTICAL_FROM_BODY)))
    assert (blind.source, blind.rows.size) == ("depth", 240 * 320)
    alone = points_of(frame(lidar=cloud([]), frames=based(OPTICAL_FROM_BODY)))
    assert (alone.source, alone.points_m.shape, alone.pixels.shape) == ("lidar", (0, 3), (0, 2))
    assert Projector(config()).project(frame(frames=based(OPTICAL_FROM_BODY))).points is None


@pytest.fixture(scope="module")
def street():
    """One frame of a simulated street (its truth as well) through the pipeline, with the LiDAR and with depth alone."""
    simulation = Simulation(Clip(seed=3, seconds=0.2))
    truth = list(simulation.frames())
    roles = {topic.lstrip("/"): role for role, topic in FusionConfig().topics_by_role().items()}
    return simulation, truth, list(simulation.messages()), roles


def run(street, *modalities, **options):
    """The perceptions of the simulated messages, with the frames that they are of."""
    _, _, logged, roles = street
    settings_ = from_flat({"modalities": ["rgb", *modalities], "model.enabled": False, "lidar.max_intensity": 255.0, **options})
    intake, pipeline, frames = Intake(settings_), Pipeline(settings_), []
    for topic, message, _ in logged:
        role = roles.get(topic.lstrip("/"))
        if role in settings_.topics_by_role():
            sample = intake.accept(role, message)
            frames += [] if sample is None else pipeline.advance(sample)
    frames += pipeline.finish()
    return [(each, pipeline.process(each, with_points=True)) for each in frames]


def test_points_of_the_lidar_and_of_depth_lie_on_the_same_simulated_surfaces(street):
    options = {"detections.enabled": True, "detections.base_frame": "base_link"}
    ((_, lidar), *_), ((_, depth), *_) = run(street, "lidar", **options), run(street, "depth", **options)
    lidar, depth = lidar.grids.points, depth.grids.points
    assert (lidar.source, depth.source) == ("lidar", "depth")
    np.testing.assert_array_equal(lidar.reference_from_base, depth.reference_from_base)
    near = lidar.visible & (np.linalg.norm(lidar.points_m, axis=1) < 8.0)  # depth's noise grows with the square of the distance
    distance, _ = cKDTree(depth.points_m).query(lidar.points_m[near])
    assert near.sum() > 200
    assert np.median(distance) < 0.05
    assert np.quantile(distance, 0.9) < 0.25
    # the road below the robot is at z = 0 of base_link for both (it is not perfectly flat, and both sensors have noise)
    for points in (lidar.points_m, depth.points_m):
        ahead = points[(points[:, 0] > 3) & (points[:, 0] < 7) & (np.abs(points[:, 1]) < 1)]
        assert len(ahead) > 20
        assert abs(np.median(ahead[:, 2])) < 0.08


# --------------------------------------------------------------------------------------------------------------------
# What the camera sees


def wall(x, y, z, step):
    """Points of a wall across the view at ``x`` ahead, between two y and two z."""
    across, up = np.meshgrid(np.arange(*y, step), np.arange(*z, step))
    return np.column_stack([np.full(across.size, x), across.ravel(), up.ravel()])


def test_a_surface_hides_what_lies_behind_although_its_points_leave_gaps():
    """Two walls; the LiDAR 1 m above the camera saw both. At 200 px a radian the front one's points are 2 px apart."""
    front, behind = wall(5.0, (-1.0, 1.0), (-1.0, 1.0), 0.05), wall(10.0, (-5.0, 5.0), (-3.0, 3.0), 0.13)
    points = points_of(frame(lidar=cloud(np.vstack([front, behind])), frames=based(OPTICAL_FROM_BODY)))
    seen_front, seen_behind = points.visible[: len(front)], points.visible[len(front) :]
    assert seen_front.all()
    shadow = np.abs(behind[:, 1:]).max(axis=1) < 1.9  # the front wall covers 2 m of the one at twice its distance
    outside = np.abs(behind[:, 1:]).max(axis=1) > 2.1 + 10.0 * 1.5 / 200  # and the reach, of one pixel here, further out
    assert shadow.sum() > 100
    assert not seen_behind[shadow].any()
    assert seen_behind[outside].all()


def test_a_road_does_not_hide_itself():
    """Rings of a LiDAR with 64 beams 1.7 m above the road, in a camera 1.5 m above it, up to 50 m."""
    down = np.radians(np.arange(2.0, 24.0, 0.4))
    azimuth = np.radians(np.arange(-30, 30, 0.35))
    ranges = 1.7 / np.tan(down)
    road = np.array([(r * np.cos(a), r * np.sin(a), -1.5) for r in ranges for a in azimuth])
    points = points_of(frame(lidar=cloud(road), frames=based(OPTICAL_FROM_BODY)))
    inside = points.pixels[:, 0] >= 0
    assert inside.sum() > 1000
    assert points.visible[inside].all()


@pytest.mark.parametrize(("behind_m", "hidden"), [(0.25, False), (0.35, True)])
def test_nearer_means_by_more_than_the_tolerance(behind_m, hidden):
    """At 2 m the 0.3 m count, not the tenth."""
    points = points_of(frame(lidar=cloud([(2.0, 0.0, 0.0), (2.0 + behind_m, 0.0, 0.0)]), frames=based(OPTICAL_FROM_BODY)))
    assert points.visible.tolist() == [True, not hidden]


def test_large_points_of_the_grid_do_not_change_what_is_hidden():
    rng = np.random.default_rng(4)
    seen = frame(lidar=cloud(rng.uniform((3, -4, -3), (20, 4, 3), (3000, 3))), frames=based(OPTICAL_FROM_BODY))
    camera = config(grid__width=1280, grid__height=960, lidar__point_size_px=1)
    fine, large = points_of(seen, camera), points_of(seen, config(grid__width=1280, grid__height=960, lidar__point_size_px=5))
    assert 0.3 < fine.visible.sum() / (fine.pixels[:, 0] >= 0).sum() < 0.9
    np.testing.assert_array_equal(fine.visible, large.visible)


def test_most_of_what_a_simulated_camera_cannot_see_is_found(street):
    """The simulator knows the depth of every pixel and the class of every return."""
    _, truth, _, _ = street
    frames = run(street, "lidar")
    (seen, perception) = frames[1]
    real = truth[1]
    points = perception.grids.points
    assert seen.stamp_ns == real.stamp_ns
    inside = points.pixels[:, 0] >= 0
    u, v = np.floor(points.pixels[inside] + 0.5).astype(int).T
    along_z = transform_points(points.reference_from_base, points.points_m.T)[2][inside]
    behind = along_z > 1.05 * real.view.depth_m[v, u] + 0.3
    hidden = ~points.visible[inside]
    assert (hidden & behind).sum() > 0.8 * behind.sum()
    assert (hidden & ~behind).sum() < 0.08 * (~behind).sum()
    # so labels from the picture's own classes are right where points are seen, and worse without the rule
    labels = label_points(points, seen.lidar.intensity.size, real.view.label, perception.grids.geometry)
    returned = real.sweep.label[_same_points(real, seen)]
    given_ = labels != UNLABELLED
    right = (labels == returned)[given_].mean()
    row = points.rows[inside]
    all_right = (real.view.label[v, u] == returned[row]).mean()
    assert right > 0.98
    assert right > all_right + 0.01


def _same_points(real, seen):
    """Which of the sweep's points the decoded cloud holds: all but those without a position."""
    found = np.flatnonzero(np.any([real.sweep.points[axis] != 0 for axis in "xyz"], axis=0))
    assert found.size == seen.lidar.intensity.size
    return found


def test_the_road_of_a_real_recording_lies_as_far_below_the_camera_as_its_makers_say(real_dir, tmp_path):
    """KITTI's cameras are 1.65 m above the ground (Geiger et al. 2013, figure 3); its LiDAR sees next to what they see."""
    from_kitti_raw(real_dir / "kitti_raw", tmp_path / "bag")
    settings_ = from_flat({"modalities": ["rgb", "lidar"], "model.enabled": False, "detections.enabled": True})
    with BagReader(tmp_path / "bag") as bag:
        points = next(iter(Replay(bag, settings_).perceptions())).grids.points
    x, y, z = points.points_m.T
    road = (x > 8) & (x < 20) & (np.abs(y) < 2) & (z < -1)
    assert road.sum() > 500
    assert np.median(z[road]) == pytest.approx(-1.65, abs=0.1)
    inside = points.pixels[:, 0] >= 0
    assert inside.sum() > 5000
    assert points.visible[inside].mean() > 0.9  # LiDAR and camera are 0.3 m apart; only edges are doubtful


# --------------------------------------------------------------------------------------------------------------------
# Odd clouds


def test_points_without_a_finite_place_are_left_out_and_counted():
    rough = [(5.0, 0.0, 0.0), (np.nan, 1.0, 1.0), (6.0, 0.0, 0.0), (np.inf, 0.0, 0.0), (3e38, 3e38, 3e38), (7.0, 0.0, 0.5)]
    found = points_of(
        frame(lidar=cloud(rough, [np.nan, 1, np.inf, 1, 1, -5.0]), frames=based(pose(yaw=1.0) @ OPTICAL_FROM_BODY))
    )
    assert found.rows.tolist() in ([0, 2, 5], [0, 2, 4, 5])
    assert found.dropped == 6 - found.rows.size
    assert np.isfinite(found.points_m).all()
    assert found.intensity[[0, 1, -1]].tolist() == [0.0, 1.0, 0.0]


def test_what_decoding_lets_through_but_no_place_holds_is_counted_by_the_pipeline():
    huge = np.float32(3.3e38)
    sweep = cloud([(5.0, 0.0, 0.0), (huge, huge, huge)])
    settings_ = config(modalities=["rgb", "lidar"], motion__fixed_frame="")
    pipeline = Pipeline(settings_)
    perception = pipeline.process(frame(lidar=sweep, frames=based(OPTICAL_FROM_BODY), reference_from_lidar=pose(yaw=0.7)))
    counted = {count.what: count.number for count in pipeline.counts()}
    assert perception.grids.points.rows.tolist() == [0]
    assert counted["points.dropped.not_finite"] == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 300), st.integers(0, 2**32 - 1))
def test_any_cloud_gives_finite_numbers_in_range(count, seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, 3)) * 10.0 ** rng.integers(-3, 38, (count, 1))
    points[rng.random((count, 3)) < 0.05] = rng.choice([np.nan, np.inf, -np.inf, 0.0])
    with np.errstate(over="ignore"):
        sample = cloud(points, rng.normal(size=count) * 1000)
    found = points_of(frame(LENS, lidar=sample, frames=based(OPTICAL_FROM_BODY)), config(LENS))
    assert found.rows.size + found.dropped == count
    assert (np.diff(found.rows) > 0).all()
    assert np.isfinite(found.points_m).all()
    assert ((found.intensity >= 0) & (found.intensity <= 1)).all()
    outside = (found.pixels == -1).all(axis=1)
    assert not (found.visible & outside).any()
    inside = found.pixels[~outside]
    assert ((inside >= -0.5) & (inside < (LENS.width - 0.5, LENS.height - 0.5))).all()


def test_half_a_million_points():
    rng = np.random.default_rng(5)
    found = points_of(frame(lidar=cloud(rng.uniform(-50, 50, (500_000, 3))), frames=based(OPTICAL_FROM_BODY)))
    assert found.rows.size == 500_000
    assert 0 < found.visible.sum() < 240 * 320


# --------------------------------------------------------------------------------------------------------------------
# Whether they are made


def test_points_are_made_only_where_they_are_wanted():
    seen = frame(lidar=cloud([(5.0, 0.0, 0.0)]))
    off = Projector(config(detections__enabled=False))
    assert off.project(seen).points is None
    assert off.project(seen, with_points=True).points.rows.tolist() == [0]
    unknown = dataclasses.replace(based(OPTICAL_FROM_BODY), reference_from_base=None, detail="no base")
    assert Projector(config()).project(frame(lidar=cloud([(5.0, 0.0, 0.0)]), frames=unknown)).points is None


def test_without_intrinsics_there_are_none():
    seen = frame(lidar=None, frames=based(OPTICAL_FROM_BODY))
    blind = dataclasses.replace(seen, calibration=FrameCalibration(reference=None, detections=based(OPTICAL_FROM_BODY)))
    assert Projector(config()).project(blind).points is None


# --------------------------------------------------------------------------------------------------------------------
# Labels


def perceived(seen, mask, settings_):
    grids = Projector(settings_).project(seen, with_points=True)
    return Perception(0, EPOCH, "camera", mask, ("a",), (), seen.status, grids, seen.rgb.pixels)


@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_points_get_the_class_of_their_pixel_and_255_outside_and_hidden(resize):
    """A mask that says of each pixel of the image where it is, in cells of 32 x 24; a grid of another shape and size."""
    settings_ = config(grid__width=160, grid__height=80, grid__resize=resize, detections__enabled=False)
    v, u = np.mgrid[:240, :320]
    mask = (v // 24 * 10 + u // 32).astype(np.uint8)
    shown = slice(40, 200) if resize == "crop" else slice(0, 240)
    decided = np.full_like(mask, UNLABELLED)
    decided[shown] = mask[shown]
    rng = np.random.default_rng(6)
    points = np.vstack(
        [rng.uniform((4.6, -4.5, -3.5), (5, 4.5, 3.5), (600, 3)), [(-5.0, 0.0, 0.0), (20.0, 0.0, 0.0), (np.nan, 0, 0)]]
    )
    points[599] = 5.0, 0.0, 0.0  # hides the one at 20 m
    seen = frame(lidar=cloud(points, np.arange(603)))
    labelled = labelled_sweep(seen.lidar, perceived(seen, decided, settings_))
    assert labelled.dtype == LABELLED_POINT
    assert labelled.dtype.itemsize == 20
    for axis, column in zip("xyz", points.T, strict=True):
        np.testing.assert_array_equal(labelled[axis], column.astype(np.float32))
    np.testing.assert_array_equal(labelled["intensity"], np.arange(603, dtype=np.float32))
    pixels, _, inside = project_points(CAMERA, transform_points(OPTICAL_FROM_BODY, cloud(points).points))
    pixels, inside = pixels.T[:600], inside[:600]
    # near a cell's edge the grid's pixels, which are up to 3 of the image, decide; away from it the cell is certain
    certain = (np.abs((pixels + 0.5) % (32, 24) - (16, 12)) < (13, 9)).all(axis=1)
    sure = inside & certain
    column, row = np.floor(pixels[sure] + 0.5).astype(int).T
    got = labelled["label"][:600]
    assert sure.sum() > 150
    np.testing.assert_array_equal(got[sure], decided[row, column])
    assert (got[~inside] == UNLABELLED).all()
    assert (~inside).sum() > 20
    assert labelled["label"][600:].tolist() == [UNLABELLED] * 3  # behind, hidden, nowhere
    assert got[599] != UNLABELLED


def test_no_labelled_sweep_without_a_sweep():
    settings_ = config(detections__enabled=False)
    depth = frame(depth=np.full((240, 320), 3.0, np.float32))
    mask = np.zeros((240, 320), np.uint8)
    assert labelled_sweep(None, perceived(depth, mask, settings_)) is None
    blind = frame(lidar=cloud([]), depth=np.full((240, 320), 3.0, np.float32))
    assert labelled_sweep(blind.lidar, perceived(blind, mask, settings_)) is None  # points are depth's
    empty = frame(lidar=cloud([]))
    assert labelled_sweep(empty.lidar, perceived(empty, mask, settings_)).size == 0

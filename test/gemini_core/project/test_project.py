from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gemini_core.config.fusion import FusionConfig, from_flat
from gemini_core.config.sections import DepthConfig, EventConfig, GridConfig, LidarConfig
from gemini_core.errors import CalibrationError
from gemini_core.project.color import align_color
from gemini_core.project.depth import align_depth
from gemini_core.project.event import align_events, map_by_plane, map_by_size
from gemini_core.project.grid import grid_camera, grid_geometry
from gemini_core.project.lidar import align_lidar
from gemini_core.project.projector import Projector
from gemini_core.rig.geometry import project_points, transform_points
from gemini_core.types import (
    AlignedGrid,
    CameraModel,
    CloudSample,
    DepthSample,
    EventWindow,
    FrameCalibration,
    ImageSample,
    ModalityStatus,
    SensorFrame,
)

CAMERA = CameraModel(320, 240, 250.0, 250.0, 159.5, 119.5)
# Camera axes (right, down, forward) from LiDAR axes (forward, left, up).
CAMERA_FROM_LIDAR = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], np.float64)


def moved(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


def plane(z: float, camera: CameraModel = CAMERA) -> np.ndarray:
    return np.full((camera.height, camera.width), z, np.float32)


def registered(depth_m: np.ndarray, reference_from_depth: np.ndarray, camera: CameraModel = CAMERA) -> AlignedGrid:
    sample = DepthSample(0, "depth", depth_m.astype(np.float32))
    grid = align_depth(sample, camera, CAMERA, reference_from_depth, DepthConfig())
    assert grid.depth_m is not None
    np.testing.assert_array_equal(np.isnan(grid.depth_m), ~grid.valid)
    assert not grid.channels[:, ~grid.valid].any()
    return grid


def cloud(points: np.ndarray, intensity: np.ndarray | None = None) -> CloudSample:
    points = np.asarray(points, np.float32)
    intensity = np.zeros(points.shape[1]) if intensity is None else intensity
    return CloudSample(0, "lidar", points, np.asarray(intensity, np.float32), None, None, 0, 0)


def window(x: list[int], y: list[int], polarity: list[int], width: int = 320, height: int = 240) -> EventWindow:
    columns, rows = np.array(x, np.uint16), np.array(y, np.uint16)
    return EventWindow(0, 1, "event", width, height, columns, rows, np.array(polarity, np.uint8), np.zeros(len(x), np.int64))


# --------------------------------------------------------------------------------------------------------------------
# Geometry


@pytest.mark.parametrize(
    ("size", "grid", "crop"),
    [
        ((1242, 375), GridConfig(width=640, height=480), (371, 0, 500, 375)),
        ((375, 1242), GridConfig(width=640, height=480), (0, 480, 375, 281)),
        ((640, 480), GridConfig(width=640, height=480), (0, 0, 640, 480)),
        ((1242, 375), GridConfig(width=640, height=480, resize="stretch"), (0, 0, 1242, 375)),
        ((2, 1000), GridConfig(width=8000, height=32), (0, 499, 2, 1)),
    ],
)
def test_where_the_grid_lies(size: tuple[int, int], grid: GridConfig, crop: tuple[int, int, int, int]) -> None:
    geometry = grid_geometry(grid, *size)
    assert (geometry.left, geometry.top, geometry.crop_width, geometry.crop_height) == crop


@st.composite
def cameras(draw: st.DrawFn) -> CameraModel:
    width, height = draw(st.integers(40, 2000)), draw(st.integers(40, 2000))
    focal = draw(st.floats(0.4, 2.0)) * width
    small = st.floats(-0.05, 0.05)
    model = draw(st.sampled_from(["none", "plumb_bob", "equidistant"]))
    numbers = {"none": 0, "plumb_bob": 5, "equidistant": 4}[model]
    distortion = tuple(draw(st.lists(small, min_size=numbers, max_size=numbers)))
    center = draw(st.floats(0.3, 0.7)) * width, draw(st.floats(0.3, 0.7)) * height
    return CameraModel(width, height, focal, focal * draw(st.floats(0.8, 1.2)), *center, model, distortion)


@settings(max_examples=100, deadline=None)
@given(cameras(), st.integers(32, 1000), st.integers(32, 1000), st.sampled_from(["crop", "stretch"]), st.integers(0, 10**6))
def test_the_grid_camera_sees_what_the_resized_image_shows(
    camera: CameraModel, width: int, height: int, resize: str, seed: int
) -> None:
    geometry = grid_geometry(GridConfig(width=width, height=height, resize=resize), camera.width, camera.height)
    points = np.random.default_rng(seed).uniform([[-1], [-1], [1]], [[1], [1], [5]], (3, 200)).astype(np.float32)
    in_image, _, seen = project_points(camera, points)
    in_grid, _, seen_in_grid = project_points(grid_camera(camera, geometry), points)
    left_top, scale = np.array([[geometry.left], [geometry.top]]), np.array([[geometry.scale_x], [geometry.scale_y]])
    expected = (in_image - left_top + 0.5) * scale - 0.5
    both = seen & seen_in_grid
    tolerance = 1e-3 * max(1.0, float(scale.max()))  # of a pixel of the coarser side; float32 carries no more
    np.testing.assert_allclose(in_grid[:, both], expected[:, both], atol=tolerance)
    inside = (expected > 0).all(axis=0) & (expected[0] < width - 1) & (expected[1] < height - 1)
    assert seen_in_grid[seen & inside].all()
    back = (expected + 0.5) / scale + left_top - 0.5  # GridGeometry's own formula
    np.testing.assert_allclose(back[:, both], in_image[:, both], atol=1e-3)


# --------------------------------------------------------------------------------------------------------------------
# Colour


def test_an_image_of_the_grids_size_goes_through_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    grid = align_color(ImageSample(0, "camera", pixels), grid_geometry(GridConfig(width=48, height=32), 48, 32))
    np.testing.assert_array_equal(grid.channels, (pixels.astype(np.float32) / np.float32(255)).transpose(2, 0, 1))
    assert grid.channels.flags.c_contiguous
    assert grid.coverage == 1.0


def test_shrinking_averages_and_cuts() -> None:
    pixels = np.zeros((64, 200, 3), np.uint8)
    pixels[:, 36:164:2, 0] = 100  # every other column of the centred 128 x 64
    grid = align_color(ImageSample(0, "camera", pixels), grid_geometry(GridConfig(width=64, height=32), 200, 64))
    np.testing.assert_allclose(grid.channels[0], 50 / 255, atol=1e-6)


def test_colour_lands_where_geometry_says() -> None:
    # The centroid of a bright disc moves as the grid camera's pixels do.
    for resize in ("crop", "stretch"):
        for size in ((300, 150), (64, 100)):
            pixels = np.zeros((size[1], size[0], 3), np.uint8)
            cv2.circle(pixels, (size[0] // 2 - 5, size[1] // 2 + 7), 9, (255, 255, 255), -1)
            geometry = grid_geometry(GridConfig(width=160, height=96, resize=resize), *size)
            grid = align_color(ImageSample(0, "camera", pixels), geometry).channels[0]
            rows, columns = np.indices(grid.shape)
            u, v = (columns * grid).sum() / grid.sum(), (rows * grid).sum() / grid.sum()
            assert (u + 0.5) / geometry.scale_x + geometry.left - 0.5 == pytest.approx(size[0] // 2 - 5, abs=0.05)
            assert (v + 0.5) / geometry.scale_y + geometry.top - 0.5 == pytest.approx(size[1] // 2 + 7, abs=0.05)


@pytest.mark.parametrize("resize", ["crop", "stretch"])
@pytest.mark.parametrize("size", [(1280, 720), (641, 479), (333, 517), (1242, 375), (97, 131)])
def test_points_of_light_keep_their_places(size: tuple[int, int], resize: str) -> None:
    """Any sizes, odd ones too: what a resize makes of one pixel lies around where the geometry has its centre."""
    geometry = grid_geometry(GridConfig(width=320, height=240, resize=resize), *size)
    rng = np.random.default_rng(0)
    off = []
    for _ in range(40):
        u = int(rng.integers(geometry.left + 3, geometry.left + geometry.crop_width - 3))
        v = int(rng.integers(geometry.top + 3, geometry.top + geometry.crop_height - 3))
        pixels = np.zeros((size[1], size[0], 3), np.uint8)
        pixels[v, u] = 255
        light = align_color(ImageSample(0, "camera", pixels), geometry).channels[0]
        (rows, columns), share = np.nonzero(light), light[light > 0] / light.sum()
        expected_u = (u - geometry.left + 0.5) * geometry.scale_x - 0.5
        expected_v = (v - geometry.top + 0.5) * geometry.scale_y - 0.5
        off.append((columns @ share - expected_u, rows @ share - expected_v))
    assert np.abs(off).max() <= 0.5 + 1e-4  # light falls into whole grid pixels
    assert np.abs(np.mean(off, axis=0)).max() < 0.15


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 400), st.integers(1, 400), st.integers(32, 300), st.integers(32, 300), st.sampled_from(["crop", "stretch"])
)
def test_a_ramp_stays_the_ramp_that_the_geometry_says(width: int, height: int, columns: int, rows: int, resize: str) -> None:
    """Red rises with u and green with v, so each grid pixel's colour says from where in the image it came."""
    geometry = grid_geometry(GridConfig(width=columns, height=rows, resize=resize), width, height)
    steps = 250 / max(width - 1, 1), 250 / max(height - 1, 1)
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    pixels = np.rint(np.stack([u * steps[0], v * steps[1], np.full(u.shape, 255)], axis=2)).astype(np.uint8)
    grid = align_color(ImageSample(0, "camera", pixels), geometry)
    np.testing.assert_allclose(grid.channels[2], 1.0, atol=1e-6)
    assert grid.channels.max() <= 1.0
    # Beyond the first and last pixel's centres there is nothing to go on to; an area average of whole pixels is off by an
    # eighth of their step at most.
    first, last = (
        (geometry.left, geometry.top),
        (geometry.left + geometry.crop_width - 1, geometry.top + geometry.crop_height - 1),
    )
    places = (np.arange(columns) + 0.5) / geometry.scale_x, (np.arange(rows)[:, None] + 0.5) / geometry.scale_y
    for axis in range(2):
        at = np.clip(places[axis] + first[axis] - 0.5, first[axis], last[axis])
        expected = np.broadcast_to(at * steps[axis], grid.valid.shape)
        np.testing.assert_allclose(grid.channels[axis] * 255, expected, atol=0.51 + steps[axis] / 8)


def test_resizing_is_opencv_s_to_its_rounding() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (375, 1242, 3), dtype=np.uint8)
    for grid, interpolation in (
        (GridConfig(width=256, height=96), cv2.INTER_AREA),
        (GridConfig(width=1400, height=423), cv2.INTER_LINEAR),
    ):
        geometry = grid_geometry(dataclasses.replace(grid, resize="stretch"), 1242, 375)
        ours = align_color(ImageSample(0, "camera", pixels), geometry).channels.transpose(1, 2, 0) * 255
        theirs = cv2.resize(pixels, (grid.width, grid.height), interpolation=interpolation)
        assert np.abs(ours - theirs).max() <= 1.0


# --------------------------------------------------------------------------------------------------------------------
# Depth


def test_a_registered_image_stays_as_it_is() -> None:
    depth_m = np.random.default_rng(1).uniform(0.5, 30, (240, 320)).astype(np.float32)
    grid = registered(depth_m, np.eye(4))
    np.testing.assert_allclose(grid.depth_m, depth_m, rtol=1e-6)
    np.testing.assert_allclose(grid.channels[1], np.minimum(depth_m / 20, 1), rtol=1e-6)


def test_a_plane_moves_by_its_disparity() -> None:
    # Depth camera 10 cm to the right: f t / z = 250 * 0.1 / 2 = 12.5 pixels to the right in the reference.
    depth_m = plane(2.0)
    depth_m[:, 100:] = 5.0  # 5 pixels
    grid = registered(depth_m, moved(x=0.1))
    assert grid.depth_m is not None
    row = grid.depth_m[120]
    assert np.isnan(row[:12]).all()
    np.testing.assert_allclose(row[13:112], 2.0, rtol=1e-6)
    np.testing.assert_allclose(row[113:], 5.0, rtol=1e-6)


def test_the_near_hides_the_far_and_what_was_not_seen_stays_empty() -> None:
    depth_m = plane(5.0)
    depth_m[60:180, 100:200] = 1.0
    grid = registered(depth_m, moved(x=0.1))  # near: 25 pixels to the right, far: 5
    assert grid.depth_m is not None
    np.testing.assert_allclose(grid.depth_m[62:178, 126:224], 1.0, rtol=1e-6)
    assert not grid.valid[62:178, 106:124].any()
    np.testing.assert_allclose(grid.depth_m[62:178, 226:], 5.0, rtol=1e-6)
    np.testing.assert_allclose(grid.depth_m[62:178, 6:104], 5.0, rtol=1e-6)


@pytest.mark.parametrize("factor", [2, 4])
def test_a_coarse_depth_camera_leaves_no_holes(factor: int) -> None:
    coarse = CameraModel(320 // factor, 240 // factor, 250 / factor, 250 / factor, 160 / factor - 0.5, 120 / factor - 0.5)
    depth_m = plane(3.0, coarse)
    depth_m[:, : 160 // factor] = 2.0
    grid = registered(depth_m, np.eye(4), coarse)
    assert grid.coverage == 1.0
    np.testing.assert_allclose(grid.channels[0, :, :160], 0.1, rtol=1e-6)
    np.testing.assert_allclose(grid.channels[0, :, 162:], 0.15, rtol=1e-6)


def test_a_scene_seen_from_farther_away_leaves_no_holes() -> None:
    assert registered(plane(3.0), moved(z=-2.0)).coverage == 1.0
    slanted = plane(2.0) + np.linspace(0, 3, 320, dtype=np.float32)
    assert registered(slanted, moved(x=0.1)).valid[:, 15:-5].all()


def test_only_readings_count() -> None:
    depth_m = plane(1.0)
    depth_m[0, :5] = [np.nan, np.inf, -np.inf, 0.0, -1.0]
    grid = registered(depth_m, np.eye(4))
    assert not grid.valid[0, :5].any()
    assert grid.valid[1:].all()


def test_depth_of_another_size_than_its_camera_is_refused() -> None:
    with pytest.raises(CalibrationError, match="expected a depth image of the camera's 320 x 240, got 8 x 6"):
        registered(np.ones((6, 8)), np.eye(4))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_every_depth_on_the_grid_is_one_that_was_measured(seed: int) -> None:
    rng = np.random.default_rng(seed)
    depth_m = rng.uniform(1, 8, (240, 320)).astype(np.float32)
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(rng.uniform(-0.2, 0.2, 3)).as_matrix()
    pose[:3, 3] = rng.uniform(-0.3, 0.3, 3)
    grid = registered(depth_m, pose)
    rays = np.stack([*(np.indices((240, 320))[::-1] - np.array([[[159.5]], [[119.5]]])) / 250, np.ones((240, 320))])
    z = pose[2, :3] @ (rays * depth_m).reshape(3, -1) + pose[2, 3]
    assert grid.depth_m is not None
    place = np.clip(np.searchsorted(np.sort(z), grid.depth_m[grid.valid]), 1, z.size - 1)
    nearest = np.minimum(
        abs(np.sort(z)[place] - grid.depth_m[grid.valid]), abs(np.sort(z)[place - 1] - grid.depth_m[grid.valid])
    )
    assert nearest.max() < 1e-4


# --------------------------------------------------------------------------------------------------------------------
# LiDAR


@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_a_point_on_the_optical_axis_lands_on_the_principal_point(resize: str) -> None:
    camera = CameraModel(640, 240, 300.0, 310.0, 330.0, 110.0)
    geometry = grid_geometry(GridConfig(width=160, height=96, resize=resize), 640, 240)
    small = grid_camera(camera, geometry)
    grid = align_lidar(cloud(np.array([[10.0], [0.0], [0.0]])), small, CAMERA_FROM_LIDAR, LidarConfig())
    ((row, column),) = np.argwhere(grid.valid)
    assert (column, row) == (round((330 - geometry.left + 0.5) * geometry.scale_x - 0.5), round(110.5 * geometry.scale_y - 0.5))
    assert grid.depth_m is not None
    assert grid.depth_m[row, column] == 10.0


def test_lidar_channels() -> None:
    points = np.array([[3.0, 4.0, 100.0, 5.0], [0.1, 2.1, 1.0, -2.11], [-0.5, 0.0, 30.1, -1.0]])
    config = LidarConfig(max_m=50.0, min_height_m=-1.0, max_height_m=3.0, max_intensity=100.0)
    grid = align_lidar(cloud(points, np.array([25.0, 400.0, 50.0, -3.0])), CAMERA, CAMERA_FROM_LIDAR, config)
    pixels, z, _ = project_points(CAMERA, transform_points(CAMERA_FROM_LIDAR, points.astype(np.float32)))
    columns, rows = np.rint(pixels).astype(int)
    distance = np.minimum(np.linalg.norm(points, axis=0) / 50, 1)
    expected = [distance, [0.125, 0.25, 1.0, 0.0], [0.25, 1.0, 0.5, 0.0]]
    np.testing.assert_allclose(grid.channels[:, rows, columns], expected, atol=1e-6)
    assert np.count_nonzero(grid.valid) == 4
    assert not grid.channels[:, ~grid.valid].any()
    assert grid.depth_m is not None
    np.testing.assert_allclose(grid.depth_m[rows, columns], z)


def test_the_nearest_point_wins_and_what_is_behind_is_left_out() -> None:
    points = np.array([[9.0, 3.0, 6.0, -4.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    grid = align_lidar(cloud(points), CAMERA, CAMERA_FROM_LIDAR, LidarConfig(point_size_px=3))
    assert grid.depth_m is not None
    assert np.count_nonzero(grid.valid) == 9
    assert set(grid.depth_m[grid.valid]) == {3.0}
    empty = align_lidar(cloud(np.empty((3, 0))), CAMERA, CAMERA_FROM_LIDAR, LidarConfig())
    assert empty.coverage == 0.0


def test_kitti_points_in_the_image(real_dir: Path) -> None:
    folder = real_dir / "kitti_raw"
    calib = json.loads((folder / "calib.json").read_text(encoding="utf-8"))
    intrinsics = np.array(calib["P_rect"])
    rectified = np.eye(4)
    rectified[:3, :3] = calib["R_rect"]
    reference_from_lidar = rectified @ np.array(calib["camera0_from_velodyne"])
    width, height = calib["image_size"]
    camera = CameraModel(width, height, intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2])
    points = np.fromfile(folder / "velodyne" / "0000000000.bin", np.float32).reshape(-1, 4).T
    sweep = cloud(points[:3], points[3])
    full = grid_camera(camera, grid_geometry(GridConfig(width=width, height=height), width, height))
    _, _, visible = project_points(full, transform_points(reference_from_lidar, sweep.points))
    assert np.count_nonzero(visible) == pytest.approx(16_430, rel=0.01)
    grid = align_lidar(sweep, full, reference_from_lidar, LidarConfig(max_intensity=1.0))
    assert 0.9 * np.count_nonzero(visible) < np.count_nonzero(grid.valid) <= np.count_nonzero(visible)


# --------------------------------------------------------------------------------------------------------------------
# Events


def test_polarity_channels() -> None:
    event_map = map_by_plane(CAMERA, CAMERA, np.eye(4), 10.0)
    grid = align_events(window([1, 2, 2, 319], [3, 4, 4, 239], [1, 0, 1, 0]), event_map, 240, 320, EventConfig())
    assert grid.channels[:, 3, 1].tolist() == [0, 0, 1]
    assert grid.channels[:, 4, 2].tolist() == [1, 0, 1]
    assert grid.channels[:, 239, 319].tolist() == [1, 0, 0]
    assert grid.channels.sum() == 4
    assert grid.coverage == 1.0


def test_a_rotation_moves_events_by_its_homography_at_any_distance() -> None:
    event = CameraModel(200, 180, 220.0, 215.0, 99.0, 92.0)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("yxz", [4.0, -2.0, 3.0], degrees=True).as_matrix()
    homography = CAMERA.matrix @ turn[:3, :3] @ np.linalg.inv(event.matrix)
    for plane_m in (0.5, 10.0, 1000.0):
        event_map = map_by_plane(event, CAMERA, turn, plane_m)
        for x, y in ((5, 9), (100, 90), (190, 170)):
            u, v, w = homography @ [x, y, 1.0]
            grid = align_events(window([x], [y], [1], 200, 180), event_map, 240, 320, EventConfig())
            rows, columns = np.nonzero(grid.channels[2])
            assert rows.size >= 1
            assert abs(columns - u / w).max() < 1.2
            assert abs(rows - v / w).max() < 1.2
            assert grid.channels[2, round(v / w), round(u / w)] == 1.0


def test_a_shift_moves_events_by_the_planes_disparity() -> None:
    event_map = map_by_plane(CAMERA, CAMERA, moved(x=0.2), 5.0)  # 250 * 0.2 / 5 = 10 pixels
    grid = align_events(window([50, 315], [60, 60], [0, 0]), event_map, 240, 320, EventConfig())
    assert np.argwhere(grid.channels[0]).tolist() == [[60, 60]]
    assert not grid.valid[:, :10].any()
    assert grid.valid[:, 10:].all()


def test_distorted_lenses_are_part_of_the_map() -> None:
    bent = dataclasses.replace(CAMERA, distortion_model="plumb_bob", distortion=(-0.2, 0.03, 1e-3, -1e-3, 0.0))
    same = map_by_plane(bent, bent, np.eye(4), 3.0)
    np.testing.assert_array_equal(same.event_from_grid, np.arange(320 * 240))
    np.testing.assert_array_equal(same.grid_from_event, np.arange(320 * 240))
    straight = map_by_plane(bent, CAMERA, np.eye(4), 3.0)
    ray = np.array([[60.5 / 250 * 3], [-79.5 / 250 * 3], [3.0]], np.float32)  # grid pixel (220, 40)
    pixels, _, _ = project_points(bent, ray)
    column, row = np.rint(pixels[:, 0]).astype(int)
    assert straight.event_from_grid[40 * 320 + 220] == row * 320 + column


def test_a_point_of_the_plane_is_one_pixel_to_the_other_in_both_cameras() -> None:
    """Two lenses, a turn and a shift between them, and a crop that is not centred on a pixel; the truth is OpenCV's."""
    event = CameraModel(320, 240, 260.0, 262.0, 158.0, 121.0, "plumb_bob", (-0.2, 0.05, 1e-3, -5e-4, 0.0))
    reference = CameraModel(641, 479, 500.0, 505.0, 322.0, 238.0, "equidistant", (0.01, 2e-3, 0.0, 0.0))
    reference_from_event = moved(0.2, -0.05, 0.1)
    reference_from_event[:3, :3] = Rotation.from_euler("xyz", [2.0, -3.0, 1.0], degrees=True).as_matrix()
    geometry = grid_geometry(GridConfig(), 641, 479)
    event_map = map_by_plane(event, grid_camera(reference, geometry), reference_from_event, 10.0)
    x, y = np.meshgrid(np.linspace(-4.0, 4.0, 60), np.linspace(-2.5, 2.5, 40))
    points = np.stack([x.ravel(), y.ravel(), np.full(x.size, 10.0)])  # (3, N) in the event camera's frame
    there = reference_from_event[:3, :3] @ points + reference_from_event[:3, 3:]
    zero = np.zeros(3)
    u_event, v_event = cv2.projectPoints(points.T, zero, zero, event.matrix, np.array(event.distortion))[0].reshape(-1, 2).T
    pixels = cv2.fisheye.projectPoints(there.T[:, None], zero, zero, reference.matrix, np.array(reference.distortion))[0]
    u_grid = (pixels[:, 0, 0] + 0.5 - geometry.left) * 640 / geometry.crop_width - 0.5
    v_grid = (pixels[:, 0, 1] + 0.5 - geometry.top) * 480 / geometry.crop_height - 0.5
    back = event_map.event_from_grid[np.rint(v_grid).astype(int) * 640 + np.rint(u_grid).astype(int)]
    assert np.abs(back % 320 - u_event).max() < 1.0  # half a pixel of the grid and half a one of the sensor
    assert np.abs(back // 320 - v_event).max() < 1.0
    forth = event_map.grid_from_event[np.rint(v_event).astype(int) * 320 + np.rint(u_event).astype(int)]
    assert np.abs(forth % 640 - u_grid).max() < 1.8
    assert np.abs(forth // 640 - v_grid).max() < 1.8


def test_no_event_is_lost_in_a_coarser_grid_and_no_hole_stays_in_a_finer_one() -> None:
    fine = CameraModel(1280, 960, 1000.0, 1000.0, 639.5, 479.5)
    event_map = map_by_plane(fine, CAMERA, np.eye(4), 10.0)
    rng = np.random.default_rng(2)
    for x, y in zip(rng.integers(0, 1280, 50).tolist(), rng.integers(0, 960, 50).tolist(), strict=True):
        grid = align_events(window([x], [y], [1], 1280, 960), event_map, 240, 320, EventConfig())
        assert np.argwhere(grid.channels[2]).tolist() == [[y // 4, x // 4]]
    coarse = CameraModel(80, 60, 62.5, 62.5, 39.5, 29.5)
    event_map = map_by_plane(coarse, CAMERA, np.eye(4), 10.0)
    grid = align_events(window([10], [20], [0], 80, 60), event_map, 240, 320, EventConfig())
    rows, columns = np.nonzero(grid.channels[0])
    assert (rows.min(), rows.max(), columns.min(), columns.max(), rows.size) == (80, 83, 40, 43, 16)


@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_a_shared_lens_needs_sizes_only(resize: str) -> None:
    geometry = grid_geometry(GridConfig(width=160, height=96, resize=resize), 640, 240)
    by_size = map_by_size(288, 108, geometry)
    camera = CameraModel(640, 240, 500.0, 500.0, 319.5, 119.5)
    event = CameraModel(288, 108, 225.0, 225.0, 143.5, 53.5)
    by_plane = map_by_plane(event, grid_camera(camera, geometry), np.eye(4), 10.0)
    for one, other in (
        (by_size.grid_from_event, by_plane.grid_from_event),
        (by_size.event_from_grid, by_plane.event_from_grid),
    ):
        assert np.count_nonzero(one != other) < 0.03 * one.size  # pixel centres on an edge may round either way


def test_events_outside_the_sensor_are_left_out() -> None:
    event_map = map_by_plane(CAMERA, CAMERA, np.eye(4), 10.0)
    grid = align_events(window([320, 5, 65535], [0, 240, 65535], [1, 1, 1]), event_map, 240, 320, EventConfig())
    assert not grid.channels.any()


# --------------------------------------------------------------------------------------------------------------------
# Projector


def frame_of(*modalities: str, calibration: FrameCalibration | None) -> SensorFrame:
    return SensorFrame(
        index=3,
        stamp_ns=7,
        frame_id="camera",
        rgb=ImageSample(7, "camera", np.full((240, 320, 3), 51, np.uint8)),
        depth=DepthSample(7, "depth", plane(4.0)) if "depth" in modalities else None,
        lidar=cloud(np.array([[10.0], [0.0], [0.0]])) if "lidar" in modalities else None,
        event=window([9], [9], [1]) if "event" in modalities else None,
        status=tuple(
            ModalityStatus(name, name in modalities, "" if name in modalities else "late", 0)
            for name in ("rgb", "depth", "event", "lidar")
        ),
        calibration=calibration,
    )


KNOWN = FrameCalibration(CAMERA, CAMERA, CAMERA, np.eye(4), np.eye(4), CAMERA_FROM_LIDAR)


@pytest.mark.parametrize("present", [(), ("depth",), ("event",), ("lidar",), ("depth", "event", "lidar")])
def test_what_a_frame_lacks_has_no_grid(present: tuple[str, ...]) -> None:
    projector = Projector(FusionConfig(grid=GridConfig(width=160, height=128)))
    grids = projector.project(frame_of("rgb", *present, calibration=KNOWN))
    assert tuple(grid.modality for grid in grids.grids) == ("rgb", *present)
    assert (grids.index, grids.stamp_ns, grids.frame_id) == (3, 7, "camera")
    assert grids.camera is not None
    assert (grids.camera.width, grids.camera.height, grids.geometry.crop_width) == (160, 128, 300)
    for grid in grids.grids:
        assert grid.channels.shape == (3, 128, 160)
        assert grid.channels.dtype == np.float32
        assert grid.valid.shape == (128, 160)
        assert 0.0 <= grid.channels.min() <= grid.channels.max() <= 1.0


def test_without_intrinsics_of_the_reference_colour_is_left_and_events_of_a_shared_lens() -> None:
    shared = from_flat({"event.alignment": "same_view"})
    grids = Projector(shared).project(frame_of("rgb", "event", calibration=FrameCalibration(None)))
    assert grids.camera is None
    assert [grid.modality for grid in grids.grids] == ["rgb", "event"]


@pytest.mark.parametrize("modality", ["depth", "event", "lidar"])
def test_data_without_calibration_is_an_error(modality: str) -> None:
    with pytest.raises(CalibrationError, match=f"frame 3: expected .* place {modality} in the reference camera"):
        Projector(FusionConfig()).project(frame_of("rgb", modality, calibration=None))

"""Depth registration against ray casting, what REP 118 tells apart, the encodings, and real depth images."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gemini_core.config.sections import DepthConfig, GridConfig
from gemini_core.project.depth import align_depth
from gemini_core.project.grid import grid_camera, grid_geometry
from gemini_core.rig.geometry import invert_transform, project_points, ray_table
from gemini_core.types import NO_READING, READING, TOO_FAR, TOO_NEAR, AlignedGrid, CameraModel, DepthSample

CAMERA = CameraModel(320, 240, 250.0, 250.0, 159.5, 119.5)
WIDE = CameraModel(320, 240, 210.0, 212.0, 161.0, 118.0)
BENT = dataclasses.replace(CAMERA, distortion_model="plumb_bob", distortion=(-0.1, 0.02, 1e-3, -5e-4, 0.0))
FISHEYE = CameraModel(320, 240, 240.0, 241.0, 160.0, 119.0, "equidistant", (0.01, 2e-3, 0.0, 0.0))


def pose(
    x: float = 0.0, y: float = 0.0, z: float = 0.0, rotation_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", rotation_deg, degrees=True).as_matrix()
    matrix[:3, 3] = x, y, z
    return matrix


def register(
    depth_m: np.ndarray,
    reference_from_depth: np.ndarray,
    camera: CameraModel = CAMERA,
    reference: CameraModel = CAMERA,
    config: DepthConfig | None = None,
) -> AlignedGrid:
    sample = DepthSample(0, "depth", depth_m.astype(np.float32))
    grid = align_depth(sample, camera, reference, reference_from_depth, config or DepthConfig())
    assert grid.depth_m is not None
    assert grid.reading is not None
    np.testing.assert_array_equal(grid.valid, grid.reading == READING)
    np.testing.assert_array_equal(np.isnan(grid.depth_m), ~grid.valid)
    assert not grid.channels[:, ~grid.valid].any()
    assert 0.0 <= grid.channels.min() <= grid.channels.max() <= 1.0
    return grid


# --------------------------------------------------------------------------------------------------------------------
# Registration against ray casting: a scene of rectangles (corner, side, side) in the reference's frame

Patch = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]

WALL: Patch = ((-6.0, -5.0, 4.0), (12.0, 0.0, 0.0), (0.0, 10.0, 0.0))
POLE: Patch = ((-0.03, -3.0, 1.5), (0.06, 0.0, 0.0), (0.0, 6.0, 0.0))
BOX: Patch = ((0.35, -0.2, 2.0), (0.5, 0.0, 0.0), (0.0, 0.6, 0.0))
DOOR: Patch = ((-0.9, -0.5, 2.6), (0.45, 0.0, -1.9), (0.0, 1.0, 0.0))  # slanted: stretched in one of the two cameras
FLOOR: Patch = ((-6.0, 0.5, 0.3), (12.0, 0.0, 0.0), (0.0, 0.0, 3.7))


def cast(patches: list[Patch], origin: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance in units of the directions (3, N) and number of the patch that each ray meets first; inf and -1 for none."""
    nearest, which = np.full(directions.shape[1], np.inf), np.full(directions.shape[1], -1)
    for number, (corner, side, other) in enumerate(patches):
        to_patch = np.linalg.inv(np.column_stack([side, other, np.cross(side, other)]))
        start, slope = to_patch @ (origin - np.array(corner)), to_patch @ directions
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = -start[2] / slope[2]
            a, b = start[0] + distance * slope[0], start[1] + distance * slope[1]
            hit = (distance > 1e-9) & (distance < nearest - 1e-9) & (a >= 0) & (a <= 1) & (b >= 0) & (b <= 1)
        nearest[hit], which[hit] = distance[hit], number
    return nearest, which


def expected(
    patches: list[Patch], camera: CameraModel, reference: CameraModel, reference_from_depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The depth image, and of each reference pixel its true depth and the patch that both cameras see there.

    -1: both see that nothing is there; -2: it is hidden from the depth camera; -3: it is outside its image, so whether
    something stands before what it does see cannot be known.
    """
    rotation, position = reference_from_depth[:3, :3], reference_from_depth[:3, 3]
    depth_m, _ = cast(patches, position, rotation @ ray_table(camera).reshape(3, -1))
    rays = ray_table(reference).reshape(3, -1).astype(float)
    truth, which = cast(patches, np.zeros(3), rays)
    points = rays * np.where(np.isfinite(truth), truth, 1e4)
    back = points - position[:, None]
    blocked, first = cast(patches, position, back)
    seen = (first == which) & ((which == -1) | (abs(blocked - 1.0) < 1e-6))
    in_depth = rotation.T @ back
    _, _, inside = project_points(camera, in_depth.astype(np.float32))
    shape = reference.height, reference.width
    both = np.where(inside, np.where(seen, which, -2), -3)
    return depth_m.reshape(camera.height, camera.width), truth.reshape(shape), both.reshape(shape)


def away_from_edges(labels: np.ndarray, reach: int) -> np.ndarray:
    """Pixels whose neighbourhood, as far as ``reach``, has the same label, and which are not at the image's border."""
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    values = labels.astype(np.float32)
    same = cv2.erode(values, kernel) == cv2.dilate(values, kernel)
    same[:reach], same[-reach:], same[:, :reach], same[:, -reach:] = False, False, False, False
    return same


SCENES = {
    "pole before a wall": [WALL, POLE],
    "pole before nothing": [POLE],
    "boxes and a slanted door": [WALL, POLE, BOX, DOOR],
    "slanted door before nothing": [DOOR],
    "floor": [WALL, FLOOR, BOX],
}
VIEWS = {
    "right": pose(0.12),
    "left and lower": pose(-0.1, 0.15),
    "turned": pose(0.05, -0.02, 0.03, (3.0, -4.0, 8.0)),
    "behind": pose(0.4, 0.0, -1.0),  # what is near covers twice as many pixels of the reference
    "near the floor": pose(0.0, 0.3),  # which it sees at a third of the reference's angle
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("reference", [WIDE, BENT])
def test_holes_where_the_depth_camera_could_not_see_and_no_ghosts(scene: str, view: str, reference: CameraModel) -> None:
    patches, reference_from_depth = SCENES[scene], VIEWS[view]
    depth_m, truth, both = expected(patches, CAMERA, reference, reference_from_depth)
    grid = register(depth_m, reference_from_depth, CAMERA, reference)
    assert grid.depth_m is not None
    assert grid.reading is not None
    sure = away_from_edges(both, 2 if view == "behind" else 1)  # a pixel of the depth camera
    assert np.count_nonzero(sure) > 0.6 * sure.size
    readings = sure & (both >= 0)
    assert (grid.reading[readings] == READING).all()  # no holes on what both see
    error = abs(grid.depth_m - truth)[readings]
    slope = np.hypot(*np.gradient(np.where(np.isfinite(truth), truth, 0.0)))[readings]
    assert (error <= 1e-4 + 3.0 * slope).all()  # no ghosts: the surface in front, to half a footprint along it
    assert (grid.reading[sure & (both == -1)] == TOO_FAR).all()
    hidden = sure & (both == -2)
    assert (grid.reading[hidden] == NO_READING).all()  # what the depth camera could not see stays empty
    if scene.startswith("pole") and view != "near the floor":
        assert np.count_nonzero(hidden) > 100


@pytest.mark.parametrize("quarter", [90.0, 180.0, -90.0, 45.0])
def test_a_rolled_depth_camera_leaves_no_gaps(quarter: float) -> None:
    """Rows of the one camera are columns, or diagonals, of the other."""
    rolled = pose(0.05, 0.02, -0.6, (0.0, 0.0, quarter))
    depth_m, truth, both = expected([WALL, POLE], CAMERA, WIDE, rolled)
    grid = register(depth_m, rolled, CAMERA, WIDE)
    sure = away_from_edges(both, 1)
    np.testing.assert_allclose(
        np.where(sure & (both >= 0), grid.depth_m, 0.0), np.where(sure & (both >= 0), truth, 0.0), rtol=1e-4
    )
    assert not grid.valid[sure & (both == -2)].any()
    assert np.count_nonzero(sure & (both == 1)) > 1000


@pytest.mark.parametrize("factor", [2, 4])
def test_a_coarse_depth_camera_shows_an_edge_to_one_of_its_pixels(factor: int) -> None:
    coarse = CameraModel(320 // factor, 240 // factor, 250 / factor, 250 / factor, 160 / factor - 0.5, 120 / factor - 0.5)
    depth_m, truth, both = expected([WALL, BOX], coarse, CAMERA, VIEWS["right"])
    grid = register(depth_m, VIEWS["right"], coarse)
    sure = away_from_edges(both, factor)
    assert grid.depth_m is not None
    np.testing.assert_allclose(grid.depth_m[sure & (both >= 0)], truth[sure & (both >= 0)], rtol=1e-4)
    assert not grid.valid[sure & (both == -2)].any()


def test_one_pixel_that_stands_alone_stays_one_pixel() -> None:
    depth_m = np.full((240, 320), np.nan)
    depth_m[100, 100] = 2.0
    grid = register(depth_m, pose(0.08))  # 10 pixels
    assert np.argwhere(grid.valid).tolist() == [[100, 110]]


def test_what_stands_right_before_the_reference_camera_costs_and_covers_no_more_than_it_may() -> None:
    """Every point lands within a millimetre of the reference camera: footprints have a bound, and numbers do not overflow."""
    for gap in (1e-3, 1e-6, 1e-30, 0.0):
        grid = register(np.full((240, 320), 1.0), pose(z=-1.0 + gap))
        assert np.isfinite(grid.depth_m[grid.valid]).all()
    depth_m = np.full((240, 320), np.nan)
    depth_m[120, 160] = 1.0
    grid = register(depth_m, pose(z=-0.999))
    assert np.count_nonzero(grid.valid) <= 81  # 8 times as wide as a pixel
    assert not register(np.full((240, 320), 1.0), pose(z=-2.0)).valid.any()


# --------------------------------------------------------------------------------------------------------------------
# REP 118


def test_what_rep_118_tells_apart_stays_apart() -> None:
    depth_m = np.full((240, 320), 2.0)
    depth_m[:60], depth_m[60:120], depth_m[120:180] = np.nan, np.inf, -np.inf
    grid = register(depth_m, np.eye(4))
    assert grid.reading is not None
    assert grid.reading.dtype == np.uint8
    for rows, value in (
        (slice(0, 60), NO_READING),
        (slice(60, 120), TOO_FAR),
        (slice(120, 180), TOO_NEAR),
        (slice(180, 240), READING),
    ):
        assert (grid.reading[rows] == value).all()


def test_too_far_is_placed_by_rotation_alone_and_hidden_by_every_reading() -> None:
    turn = pose(5.0, -3.0, 2.0, (0.0, 2.0, 0.0))  # 8.7 to 12.4 pixels; the shift does not matter at infinity
    grid = register(np.full((240, 320), np.inf), turn)
    assert grid.reading is not None
    assert (grid.reading[10:-10, 14:] == TOO_FAR).all()
    assert (grid.reading[:, :8] == NO_READING).all()
    depth_m = np.full((240, 320), np.inf)
    depth_m[:, 100:140] = 50.0
    grid = register(depth_m, pose(2.0))  # 10 pixels: the far pixels stay where they are
    assert grid.reading is not None
    assert grid.reading[120, 90:160].tolist() == [TOO_FAR] * 10 + [NO_READING] * 10 + [READING] * 40 + [TOO_FAR] * 10


def test_too_near_is_placed_at_the_nearest_depth_and_hides_every_reading() -> None:
    depth_m = np.full((240, 320), 5.0)
    depth_m[100:120, 100:120] = -np.inf
    grid = register(depth_m, pose(0.02), config=DepthConfig(min_m=0.5))  # 10 pixels at 0.5 m, 1 pixel at 5 m
    assert grid.reading is not None
    assert (grid.reading[100:120, 110:130] == TOO_NEAR).all()
    assert (grid.reading[102:118, 103:109] == NO_READING).all()
    assert np.count_nonzero(grid.reading == TOO_NEAR) == 400


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["linear", "inverse", "hha"]), st.sampled_from([CAMERA, BENT, FISHEYE]))
def test_any_depth_image_gives_channels_from_0_to_1_and_0_without_a_reading(
    seed: int, encoding: str, reference: CameraModel
) -> None:
    rng = np.random.default_rng(seed)
    camera = CameraModel(64, 48, 52.0, 50.0, 31.0, 24.5)
    depth_m = rng.choice([1e-30, 0.2, 1.0, 3.0, 70.0, 1e30, np.nan, np.inf, -np.inf, 0.0, -1.0], (48, 64)).astype(np.float32)
    shift = rng.choice([0.0, 0.1, -3.0, 1e6], 3)
    turned = pose(*shift, tuple(rng.uniform(-180.0, 180.0, 3) * rng.choice([0.0, 1.0])))
    register(depth_m, turned, camera, reference, DepthConfig(encoding=encoding))


# --------------------------------------------------------------------------------------------------------------------
# Encodings


def test_linear_and_inverse_by_hand() -> None:
    depth_m = np.full((240, 320), np.nan)
    depth_m[0, :5] = [0.2, 0.5, 1.0, 4.0, 9.0]
    linear = register(depth_m, np.eye(4), config=DepthConfig(min_m=0.5, max_m=4.0))
    np.testing.assert_allclose(linear.channels[:, 0, :5], [[0.05, 0.125, 0.25, 1.0, 1.0]] * 3, rtol=1e-6)
    inverse = register(depth_m, np.eye(4), config=DepthConfig(min_m=0.5, max_m=4.0, encoding="inverse"))
    np.testing.assert_allclose(inverse.channels[:, 0, :5], [[1.0, 1.0, 0.75 / 1.75, 0.0, 0.0]] * 3, atol=1e-6)


ROOM: list[Patch] = [
    ((-2.0, 1.2, 0.1), (4.0, 0.0, 0.0), (0.0, 0.0, 6.0)),  # floor, 1.2 m below the camera
    ((-2.0, -1.3, 4.0), (4.0, 0.0, 0.0), (0.0, 2.5, 0.0)),  # wall
    ((-2.0, -1.3, 0.1), (4.0, 0.0, 0.0), (0.0, 0.0, 6.0)),  # ceiling, 2.5 m above the floor
]


@pytest.mark.parametrize("tilt_deg", [(0.0, 0.0, 0.0), (-20.0, 0.0, 0.0), (-15.0, 0.0, 10.0)])
@pytest.mark.parametrize("camera", [WIDE, FISHEYE])
def test_a_room_has_the_height_and_the_angles_it_has(tilt_deg: tuple[float, float, float], camera: CameraModel) -> None:
    """Gravity is found, so neither the camera's pitch and roll nor its lens change what the channels say."""
    room_from_camera = pose(rotation_deg=tilt_deg)
    rays = room_from_camera[:3, :3] @ ray_table(camera).reshape(3, -1)
    distance, which = cast(ROOM, np.zeros(3), rays)
    distance[which < 0] = np.nan
    shape = camera.height, camera.width
    depth_m, height_m = distance.reshape(shape), (1.2 - rays[1] * distance).reshape(shape)
    angle_deg = np.choose(which, [0.0, 90.0, 180.0], mode="clip").reshape(shape)
    config = DepthConfig(encoding="hha", min_m=0.5, max_m=8.0)
    grid = register(depth_m, np.eye(4), camera, camera, config)
    inside = away_from_edges(which.reshape(shape), 4) & grid.valid
    assert np.count_nonzero(inside) > 0.5 * grid.valid.size
    assert {0, 1} <= set(which[inside.ravel()])
    disparity = (1 / depth_m - 1 / 8.0) / (1 / 0.5 - 1 / 8.0)
    np.testing.assert_allclose(grid.channels[0][inside], disparity[inside].clip(0, 1), atol=1e-5)
    np.testing.assert_allclose(grid.channels[1][inside] * 2.55, height_m[inside], atol=0.03)
    np.testing.assert_allclose(grid.channels[2][inside] * 255 - 38, angle_deg[inside], atol=0.5)


def test_normals_stop_at_the_edge_of_a_surface() -> None:
    """A box before a wall: both face the camera up to their very edges."""
    depth_m = np.full((240, 320), 4.0)
    depth_m[80:160, 100:200] = 2.0
    grid = register(depth_m, np.eye(4), config=DepthConfig(encoding="hha"))
    np.testing.assert_allclose(grid.channels[2] * 255 - 38, 90.0, atol=0.1)


# --------------------------------------------------------------------------------------------------------------------
# Real depth images

SEVEN_SCENES = CameraModel(640, 480, 585.0, 585.0, 320.0, 240.0)
NYU = CameraModel(640, 480, 518.86, 519.47, 325.58, 253.74)  # the data set's own toolbox


def seven_scenes(folder: Path, number: int) -> tuple[np.ndarray, np.ndarray]:
    millimetres = cv2.imread(str(folder / f"frame-{number:06d}.depth.png"), cv2.IMREAD_UNCHANGED)
    depth_m = np.where((millimetres == 0) | (millimetres == 65535), np.nan, millimetres / 1000).astype(np.float32)
    return depth_m, np.loadtxt(folder / f"frame-{number:06d}.pose.txt")


def test_real_depth_that_is_registered_already_stays_as_it_is_bit_for_bit(real_dir: Path) -> None:
    depth_m, _ = seven_scenes(real_dir / "seven_scenes", 150)
    geometry = grid_geometry(GridConfig(), 640, 480)
    for camera, image in ((SEVEN_SCENES, depth_m), (NYU, np.load(real_dir / "nyuv2" / "depth_0.npy"))):
        grid = register(image, np.eye(4), camera, grid_camera(camera, geometry))
        assert grid.depth_m is not None
        assert grid.depth_m.tobytes() == np.where(np.isnan(image), grid.depth_m, image).astype(np.float32).tobytes()
        np.testing.assert_array_equal(grid.valid, np.isfinite(image))
        assert grid.coverage > 0.85


def test_real_depth_warped_by_the_poses_agrees_with_what_was_measured_there(real_dir: Path) -> None:
    before, world_from_before = seven_scenes(real_dir / "seven_scenes", 150)
    after, world_from_after = seven_scenes(real_dir / "seven_scenes", 160)
    grid = register(before, invert_transform(world_from_after) @ world_from_before, SEVEN_SCENES, SEVEN_SCENES)
    both = grid.valid & np.isfinite(after)
    error = abs(grid.depth_m - after)[both]
    unmoved = abs(before - after)[np.isfinite(before) & np.isfinite(after)]
    assert both.mean() > 0.6
    assert np.median(error) < 0.012
    assert np.median(error) < 0.3 * np.median(unmoved)
    assert np.percentile(error, 90) < 0.1


def test_a_real_room_in_hha(real_dir: Path) -> None:
    depth_m = np.load(real_dir / "nyuv2" / "depth_0.npy")
    config = DepthConfig(encoding="hha", min_m=1.0, max_m=10.0)
    grid = register(depth_m, np.eye(4), NYU, NYU, config)
    angle_deg = grid.channels[2][grid.valid] * 255 - 38
    upright = np.mean((abs(angle_deg - 90) < 15) | (angle_deg < 15) | (angle_deg > 165))
    assert upright > 0.6  # of an indoor scene, most is floor, wall or table

"""Projection against OpenCV and by hand, its inverse, and the z-buffer."""

from __future__ import annotations

import dataclasses
import json
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_core.errors import CalibrationError
from gemini_core.rig.geometry import (
    _lens,
    _undistorted,
    invert_transform,
    project_points,
    ray_table,
    transform_points,
    z_buffer,
)
from gemini_core.types import CameraModel

SECOND = 1_000_000_000
EPOCH = 1_714_506_077_250_967_979  # a stamp that float64 cannot hold to the nanosecond


# --------------------------------------------------------------------------------------------------------------------
# Projection

PINHOLE = CameraModel(640, 480, 500.0, 510.0, 320.0, 240.0)
PLUMB_BOB = CameraModel(640, 480, 500.0, 510.0, 320.0, 240.0, "plumb_bob", (-0.3, 0.1, 0.001, -0.002, -0.01))
RATIONAL = CameraModel(
    640, 480, 500.0, 510.0, 320.0, 240.0, "rational_polynomial", (0.5, -2.6, 0.001, -0.0003, 1.5, 0.4, -2.4, 1.4)
)
FISHEYE = CameraModel(640, 480, 280.0, 285.0, 320.0, 240.0, "equidistant", (0.01, -0.02, 0.003, -0.001))
PRISM = dataclasses.replace(RATIONAL, distortion=(*RATIONAL.distortion, 0.002, -0.001, -0.003, 0.0005))
TILTED = dataclasses.replace(RATIONAL, distortion=(*PRISM.distortion, 0.03, -0.05))
ONLY_TILTED = dataclasses.replace(RATIONAL, distortion=(*[0.0] * 12, -0.2, 0.15))
SKEWED = dataclasses.replace(PINHOLE, skew=4.0)
SKEWED_TILTED = dataclasses.replace(TILTED, skew=-3.0)
SKEWED_PLUMB_BOB = dataclasses.replace(PLUMB_BOB, skew=2.5)
SKEWED_FISHEYE = dataclasses.replace(FISHEYE, skew=5.0)
RARE = [PRISM, TILTED, ONLY_TILTED, SKEWED, SKEWED_TILTED, SKEWED_PLUMB_BOB, SKEWED_FISHEYE]


def test_a_point_by_hand():
    pixels, z, visible = project_points(PINHOLE, np.array([[1.0], [-0.5], [4.0]], np.float32))
    np.testing.assert_allclose(pixels[:, 0], [320 + 500 / 4, 240 - 510 * 0.5 / 4], rtol=1e-6)
    assert z[0] == 4.0
    assert visible[0]


@pytest.mark.parametrize("camera", [PINHOLE, PLUMB_BOB, RATIONAL, FISHEYE, *RARE])
def test_points_behind_have_no_pixel_and_the_axis_has_the_principal_point(camera):
    points = np.array([[0, 0, 0, 0, np.nan], [0, 0, 0, 0, 0], [1, 0, -1, -1e-30, 1]], np.float32)
    pixels, _, visible = project_points(camera, points)
    assert visible.tolist() == [True, False, False, False, False]
    np.testing.assert_allclose(pixels[:, 0], [320, 240])
    assert np.isnan(pixels[:, 1:4]).all()


def test_the_image_ends_half_a_pixel_beyond_its_outer_centres():
    camera = CameraModel(4, 3, 1.0, 1.0, 0.0, 0.0)
    u = np.array([-0.51, -0.5, 3.49, 3.5, 1e30], np.float32)
    pixels, _, visible = project_points(camera, np.stack([u, np.zeros_like(u), np.ones_like(u)]))
    assert visible.tolist() == [False, True, True, False, False]
    inside = np.rint(pixels[0, visible]).astype(int)
    assert inside.min() >= 0
    assert inside.max() <= 3


@pytest.mark.parametrize("camera", [PINHOLE, PLUMB_BOB, RATIONAL, FISHEYE, *RARE])
def test_projection_equals_opencv(camera):
    points = np.random.default_rng(0).uniform([[-2], [-1.5], [3]], [[2], [1.5], [9]], (3, 1000)).astype(np.float32)
    pixels, _, _ = project_points(camera, points)
    rows, zero, distortion = points.T.astype(np.float64)[:, None], np.zeros(3), np.array(camera.distortion)
    straight = dataclasses.replace(camera, skew=0.0)  # cv2.projectPoints does not look at K[0, 1]; its fisheye takes skew / fx
    if camera.distortion_model == "equidistant":
        alpha = camera.skew / camera.fx
        expected, _ = cv2.fisheye.projectPoints(rows, zero, zero, straight.matrix, distortion, alpha=alpha)
        expected = expected.reshape(-1, 2).T
    else:
        expected = cv2.projectPoints(rows, zero, zero, straight.matrix, distortion)[0].reshape(-1, 2).T
        expected[0] += camera.skew * (expected[1] - camera.cy) / camera.fy
    np.testing.assert_allclose(pixels, expected, atol=1e-4)


def coefficients(*limits):
    return st.tuples(*(st.floats(-limit, limit) for limit in limits))


lenses = st.one_of(
    st.tuples(st.just("none"), st.just(())),
    st.tuples(st.just("plumb_bob"), coefficients(0.5, 0.3, 0.01, 0.01, 0.1)),
    st.tuples(st.just("plumb_bob"), coefficients(0.5, 0.3, 0.01, 0.01)),
    st.tuples(st.just("rational_polynomial"), coefficients(0.6, 3.0, 0.003, 0.003, 2.0, 0.6, 3.0, 2.0)),
    st.tuples(
        st.just("rational_polynomial"), coefficients(0.6, 3.0, 0.003, 0.003, 2.0, 0.6, 3.0, 2.0, 0.005, 0.005, 0.005, 0.005)
    ),
    st.tuples(
        st.just("rational_polynomial"),
        coefficients(0.6, 3.0, 0.003, 0.003, 2.0, 0.6, 3.0, 2.0, 0.005, 0.005, 0.005, 0.005, 0.2, 0.2),
    ),
    st.tuples(st.just("equidistant"), coefficients(0.1, 0.05, 0.02, 0.01)),
)
cameras = st.tuples(lenses, st.one_of(st.just(0.0), st.floats(-2, 2))).map(
    lambda drawn: CameraModel(48, 36, 30.0, 31.0, 24.3, 17.1, *drawn[0], drawn[1])
)


@settings(max_examples=150, deadline=None)
@given(cameras)
def test_a_pixel_s_ray_projects_to_the_pixel(camera):
    rays = ray_table.__wrapped__(camera)
    pixels, _, visible = project_points(camera, (rays * 3.0).reshape(3, -1))
    reached = np.isfinite(rays[0]).ravel()
    v, u = np.mgrid[: camera.height, : camera.width]
    error = np.abs(pixels - np.stack([u.ravel(), v.ravel()]))[:, reached]
    assert reached[v.ravel() * camera.width + u.ravel() == 17 * camera.width + 24].all()
    assert error.max() < 1e-3
    # On the very border of the range, rounding the ray to float32 may fall outside.
    assert np.count_nonzero(~visible[reached]) <= 2


@settings(max_examples=100, deadline=None)
@given(cameras, st.integers(0, 2**32 - 1))
def test_what_is_visible_has_no_second_origin(camera, seed):
    points = np.random.default_rng(seed).uniform([[-9], [-9], [0.1]], [[9], [9], [3]], (3, 300)).astype(np.float32)
    pixels, _, visible = project_points(camera, points)
    limit = _parts(camera)[2]
    border = math.tan(min(limit, 1.57)) if camera.distortion_model == "equidistant" else math.sqrt(limit)
    for (u, v), (x, y, z) in zip(pixels[:, visible].T.astype(float), points[:, visible].T.astype(float), strict=True):
        a, b = _undistorted((u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, *(_parts(camera)))
        if math.isnan(a):  # within a rounding error of the border of the range, and nowhere else
            assert math.hypot(x, y) / z > 0.99 * border
            continue
        again, _, _ = project_points(camera, np.array([[a], [b], [1.0]], np.float32))
        assert np.abs(again[:, 0] - (u, v)).max() < 1e-3
        assert math.hypot(a - x / z, b - y / z) < 0.05 * (1 + math.hypot(x, y) / z)


def _parts(camera):
    lens = _lens(camera)
    return lens.kind, lens.coefficients, lens.limit


def test_points_far_outside_do_not_fold_back_into_a_barrel_image():
    camera = CameraModel(640, 480, 500.0, 500.0, 320.0, 240.0, "plumb_bob", (-0.3, 0.0, 0.0, 0.0, 0.0))
    x = np.linspace(0.0, 3.0, 3001, dtype=np.float32)
    pixels, _, visible = project_points(camera, np.stack([x, np.zeros_like(x), np.ones_like(x)]))
    turn = 1 / math.sqrt(0.9)  # 1 - 3 * 0.3 r² = 0
    folded = (x > turn) & (pixels[0] > 0) & (pixels[0] < 639)
    assert folded.any(), "this lens would show points twice"
    assert not visible[folded].any()
    assert visible[x < 0.6].all()


@pytest.mark.parametrize(
    ("model", "distortion", "words"),
    [("brown", (), "plumb_bob"), ("plumb_bob", (0.1,), "4 or 5"), ("equidistant", (0.1,) * 5, "4 distortion")],
)
def test_an_unknown_lens_is_an_error(model, distortion, words):
    camera = CameraModel(64, 48, 50.0, 50.0, 32.0, 24.0, model, distortion)
    with pytest.raises(CalibrationError, match=words):
        project_points(camera, np.zeros((3, 1), np.float32))


def test_arrays_may_be_read_only_strided_or_unaligned():
    points = np.random.default_rng(1).uniform(1, 2, (3, 50)).astype(np.float32)
    expected = project_points(PINHOLE, points)[0]
    frozen = points.copy()
    frozen.flags.writeable = False
    unaligned = np.frombuffer(b"x" + points.tobytes(), np.float32, offset=1).reshape(3, 50)
    for same in (frozen, unaligned, np.asfortranarray(points)):
        np.testing.assert_array_equal(project_points(PINHOLE, same)[0], expected)
        np.testing.assert_array_equal(transform_points(np.eye(4), same), points)


@pytest.mark.parametrize(
    ("model", "focal", "distortion", "share"),
    [
        ("none", 1100.0, (), 1.0),
        ("plumb_bob", 2155.5, (-0.1192, 0.162, 0.00073985, 0.0014), 1.0),
        ("plumb_bob", 900.0, (-0.42, 0.21, 0.002, -0.003, -0.05), 0.65),
        ("plumb_bob", 1500.0, (0.35, 0.4, -0.004, 0.002, 0.1), 1.0),
        ("rational_polynomial", 920.0, (0.54, -2.63, 0.0007, -0.0003, 1.52, 0.42, -2.45, 1.45), 1.0),
        ("rational_polynomial", 620.0, (9.2, 4.1, 0.0001, -0.0002, 0.14, 9.5, 7.1, 0.95), 1.0),
        ("equidistant", 560.0, (-0.013, 0.006, -0.004, 0.0007), 0.77),
        ("equidistant", 480.0, (0.05, -0.01, 0.004, -0.002), 0.69),
    ],
    ids=["none", "narrow", "barrel", "pincushion", "depth camera", "wide", "fisheye", "fisheye past 180 degrees"],
)
def test_pixel_to_ray_to_pixel_over_a_whole_image(model, focal, distortion, share):
    """1920 x 1200, looked at in strips of rows (the same lens with the principal point moved), corners included.

    ``share`` of the pixels show something in front of the camera within the range where the model can be inverted.
    """
    v, u = np.mgrid[:6, :1920]
    reached = []
    for top in (0, 150, 350, 597, 900, 1194):
        camera = CameraModel(1920, 6, focal, focal + 3.0, 971.3, 605.9 - top, model, distortion)
        rays = ray_table(camera)
        known = np.isfinite(rays[0]).ravel()
        for distance in (0.01, 7.0, 5000.0):
            pixels, z, visible = project_points(camera, (rays * np.float32(distance)).reshape(3, -1))
            assert np.abs(pixels - np.stack([u.ravel(), v.ravel()]))[:, known].max(initial=0.0) < 1e-3
            np.testing.assert_allclose(z, distance, rtol=1e-6)
            assert not visible[~known].any()
        reached.append(known.mean())
    assert np.mean(reached) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("camera", [PLUMB_BOB, RATIONAL, FISHEYE])
def test_the_border_of_the_monotone_range_is_the_border_of_what_is_visible(camera):
    kind, coefficients, limit = _lens(camera)
    border = math.tan(min(limit, 1.57)) if camera is FISHEYE else math.sqrt(limit)
    assert kind == (2 if camera is FISHEYE else 1)
    huge = dataclasses.replace(camera, width=10**6, height=10**6, cx=5e5, cy=5e5)  # so that only the lens limits
    for share, expected in ((0.99, True), (1.01, camera is FISHEYE)):  # a fisheye goes on to 90 degrees
        for angle in np.linspace(0, 6, 7):
            x, y = border * share * math.cos(angle), border * share * math.sin(angle)
            _, _, visible = project_points(huge, np.array([[x], [y], [1.0]], np.float32))
            assert visible[0] == expected
    assert len(coefficients) == 18


def test_kitti_sweep_falls_into_the_image_as_known(real_dir):
    calibration = json.loads((real_dir / "kitti_raw/calib.json").read_text())
    width, height = calibration["image_size"]
    p = np.array(calibration["P_rect"])
    rectify = np.eye(4)
    rectify[:3, :3] = calibration["R_rect"]
    camera_from_lidar = rectify @ np.array(calibration["camera0_from_velodyne"])
    camera_from_lidar[:3, 3] += np.linalg.inv(p[:, :3]) @ p[:, 3]
    sweep = np.fromfile(real_dir / "kitti_raw/velodyne/0000000000.bin", np.float32).reshape(-1, 4)
    camera = CameraModel(width, height, p[0, 0], p[1, 1], p[0, 2], p[1, 2])
    (u, v), z, visible = project_points(camera, transform_points(camera_from_lidar, sweep[:, :3].T))
    # The known count takes the image from 0 to its width; pixels are from half a pixel before their centres to half after.
    assert np.count_nonzero((z > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)) == 16_430
    assert np.count_nonzero(visible) == 16_405


# --------------------------------------------------------------------------------------------------------------------
# Depth, points, z-buffer


@pytest.mark.parametrize("camera", [PINHOLE, PLUMB_BOB, RATIONAL, FISHEYE, *RARE])
def test_depth_to_points_and_back(camera):
    depth = np.random.default_rng(2).uniform(0.5, 9, (480, 640)).astype(np.float32)
    rays = ray_table(camera)
    pixels, z, visible = project_points(camera, (rays * depth).reshape(3, -1))
    good = np.isfinite(rays[0])
    np.testing.assert_array_equal(visible.reshape(480, 640), good)
    v, u = np.nonzero(good)
    np.testing.assert_array_equal(z[visible], depth[good])
    np.testing.assert_allclose(pixels[:, visible], np.stack([u, v]), atol=1e-3)


def test_rays_are_kept_for_a_camera():
    assert ray_table(PINHOLE) is ray_table(CameraModel(640, 480, 500.0, 510.0, 320.0, 240.0))


@pytest.mark.parametrize("point_size", [1, 3])
def test_z_buffer_shows_the_nearest_point(point_size):
    rng = np.random.default_rng(3)
    pixels = rng.uniform(-4, 14, (2, 400)).astype(np.float32)
    z = rng.integers(-1, 5, 400).astype(np.float32)  # with ties, zeros and points behind
    pixels[0, :3], z[3] = (np.nan, np.inf, -np.inf), np.nan
    visible = rng.random(400) < 0.9
    expected = np.full((8, 12), -1)
    inside = visible & (z > 0) & (np.abs(pixels[0] - 5.5) < 6) & (np.abs(pixels[1] - 3.5) < 4)
    at = np.floor(pixels + 0.5)
    reach = point_size // 2
    for row in range(8):
        for column in range(12):
            near = inside & (np.abs(at[0] - column) <= reach) & (np.abs(at[1] - row) <= reach)
            expected[row, column] = min((z[i], i) for i in np.flatnonzero(near))[1] if near.any() else -1
    index = z_buffer(pixels, z, visible, (8, 12), point_size)
    assert index.dtype == np.int32
    np.testing.assert_array_equal(index, expected)


def test_transform_points_keeps_precision_far_from_the_origin():
    far = np.eye(4)
    far[:3, 3] = [4e6, -5e6, 100]
    near = transform_points(invert_transform(far) @ far, np.ones((3, 4), np.float32))
    np.testing.assert_array_equal(near, np.ones((3, 4), np.float32))

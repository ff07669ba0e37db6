"""CameraInfo to camera models, and what is refused."""

from __future__ import annotations

import array
import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_core.bag import messages
from gemini_core.decode.camera_info import decode_camera_info
from gemini_core.errors import DecodeError
from gemini_core.rig.geometry import project_points
from gemini_core.types import CameraModel
from mutations import assert_survives

CAMERA = CameraModel(640, 480, 500.0, 510.0, 320.5, 239.5, "plumb_bob", (-0.3, 0.1, 0.001, -0.002, -0.01))


def info(**changes):
    return dataclasses.replace(messages.camera_info(CAMERA, 7, "camera"), **changes)


def test_all_fields():
    sample = decode_camera_info(info(), "depth", "depth/camera_info")
    assert (sample.stamp_ns, sample.frame_id, sample.modality, sample.camera) == (7, "camera", "depth", CAMERA)


def test_arrays_of_rclpy_are_read():
    message = info(d=array.array("d", CAMERA.distortion), k=np.array(CAMERA.matrix.reshape(-1)))
    assert decode_camera_info(message, "rgb", "rgb/camera_info").camera == CAMERA


@pytest.mark.parametrize(
    ("model", "d", "expected"),
    [
        ("plumb_bob", (), ("none", ())),
        ("plumb_bob", (0.0,) * 5, ("none", ())),
        ("", (), ("none", ())),
        ("", (0.0,) * 5, ("none", ())),
        ("none", (), ("none", ())),
        ("rational_polynomial", (0.0,) * 8, ("none", ())),
        ("plumb_bob", (0.1, 0.0, 0.0, 0.0), ("plumb_bob", (0.1, 0.0, 0.0, 0.0))),
        ("kannala", (0.0,) * 6, ("none", ())),  # whatever it is called
        ("equidistant", (), ("none", ())),
        ("plumb_bob", (0.1, 0.2, 0.0, 0.0, 0.3, 0.0, 0.0, 0.0), ("plumb_bob", (0.1, 0.2, 0.0, 0.0, 0.3))),  # Orbbec's
        ("plumb_bob", (0.1, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), ("plumb_bob", (0.1, 0.2, 0.0, 0.0))),
        ("plumb_bob", tuple(range(8)), ("rational_polynomial", tuple(map(float, range(8))))),  # OpenCV goes by the number
        ("plumb_bob", (0.1, 0.2, 0.0, 0.0, 0.0, 0.0), ("plumb_bob", (0.1, 0.2, 0.0, 0.0))),
        ("rational_polynomial", (0.1, 0.2, 0.0, 0.0, 0.3), ("plumb_bob", (0.1, 0.2, 0.0, 0.0, 0.3))),
        ("rational_polynomial", tuple(range(12)), ("rational_polynomial", tuple(map(float, range(12))))),
        (
            "rational_polynomial",
            (*range(8), 0, 0, 0, 0, 0.1, 0),
            ("rational_polynomial", (*map(float, range(8)), 0, 0, 0, 0, 0.1, 0)),
        ),
        ("rational_polynomial", (*range(8), *[0] * 9), ("rational_polynomial", tuple(map(float, range(8))))),
        ("equidistant", (0.1, 0.2, 0.3, 0.4, 0.0), ("equidistant", (0.1, 0.2, 0.3, 0.4))),
        ("equidistant", (0.0,) * 4, ("equidistant", (0.0,) * 4)),  # a fisheye bends without coefficients
        ("rational_polynomial", tuple(range(8)), ("rational_polynomial", tuple(map(float, range(8))))),
    ],
)
def test_distortion_models(model, d, expected):
    camera = decode_camera_info(info(distortion_model=model, d=np.array(d, np.float64)), "rgb", "rgb/camera_info").camera
    assert (camera.distortion_model, camera.distortion) == expected
    project_points(camera, np.ones((3, 1), np.float32))  # geometry knows every model that decode lets through


@pytest.mark.parametrize(
    ("written", "model"),
    [
        ("Plumb Bob", "plumb_bob"),
        (" plumb_bob ", "plumb_bob"),
        ("PLUMB-BOB", "plumb_bob"),
        ("radtan", "plumb_bob"),
        ("Brown Conrady", "plumb_bob"),
        ("Rational Polynomial", "rational_polynomial"),
        ("opencv_fisheye", "equidistant"),
        ("kannala_brandt4", "equidistant"),
        ("Kannala-Brandt4", "equidistant"),
        ("fisheye\n", "equidistant"),
    ],
)
def test_other_names_of_models(written, model):
    d = {"plumb_bob": (-0.3, 0.1, 0.001, -0.002, -0.01), "rational_polynomial": RATIONAL, "equidistant": (0.1, 0.01, 0.0, 0.0)}[
        model
    ]
    camera = decode_camera_info(info(distortion_model=written, d=np.array(d)), "rgb", "rgb/camera_info").camera
    assert (camera.distortion_model, camera.distortion) == (model, d)


RATIONAL = (0.5, -2.6, 0.001, -0.0003, 1.5, 0.4, -2.4, 1.4)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["plumb_bob", "rational_polynomial", "Rational"]), st.sampled_from([4, 5, 8, 12, 14]), st.integers(0, 14)
)
def test_the_lens_is_the_one_that_opencv_sees_in_the_same_numbers(name, number, used):
    d = np.array([0.1, -0.05, 0.001, -0.002, 0.01, 0.02, -0.03, 0.01, 0.002, 0.001, -0.001, 0.002, 0.02, -0.03])[:number]
    d[used:] = 0.0
    camera = decode_camera_info(info(distortion_model=name, d=d), "rgb", "c").camera
    points = np.random.default_rng(0).uniform([[-2], [-1.5], [3]], [[2], [1.5], [9]], (3, 50)).astype(np.float32)
    expected, _ = cv2.projectPoints(points.T.astype(np.float64)[:, None], np.zeros(3), np.zeros(3), camera.matrix, d)
    np.testing.assert_allclose(project_points(camera, points)[0], expected.reshape(-1, 2).T, atol=1e-4)


@pytest.mark.parametrize("rectified", [False, True])
def test_a_skew_is_kept_and_divided_by_the_binning(rectified):
    k = np.array([500.0, 3, 320, 0, 500, 240, 0, 0, 1])
    p = np.insert(k.reshape(3, 3), 3, 0, axis=1).reshape(-1)
    camera = decode_camera_info(info(k=k, p=p, d=np.zeros(5), binning_x=2), "rgb", "c", rectified=rectified).camera
    assert (camera.fx, camera.skew, camera.fy) == (250.0, 1.5, 500.0)
    np.testing.assert_array_equal(camera.matrix[0, :2], [250.0, 1.5])
    pixels, _, _ = project_points(camera, np.array([[0.0], [1.0], [2.0]], np.float32))
    assert pixels[0, 0] == pytest.approx(camera.cx + 1.5 * 0.5)


P = np.array([400.0, 0, 310, -40, 0, 410, 230, 0, 0, 0, 1, 0])  # of the right camera of a stereo pair, 10 cm to the right


def region(x_offset=0, y_offset=0, width=0, height=0, *, do_rectify=False):
    return messages.make(
        "sensor_msgs/msg/RegionOfInterest",
        x_offset=x_offset,
        y_offset=y_offset,
        height=height,
        width=width,
        do_rectify=do_rectify,
    )


def test_a_rectified_image_has_the_camera_of_p_without_distortion():
    camera = decode_camera_info(info(p=P), "rgb", "rgb/camera_info", rectified=True).camera
    assert camera == CameraModel(640, 480, 400.0, 410.0, 310.0, 230.0)
    # what only raw images need is not looked at
    message = info(p=P, k=np.zeros(9), distortion_model="kannala", d=np.ones(3))
    assert decode_camera_info(message, "rgb", "rgb/camera_info", rectified=True).camera == camera


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize(
    ("binning", "roi", "size", "focal", "centre"),  # centres for cx, cy = 310, 230
    [
        ((0, 0), region(), (640, 480), (500.0, 510.0), (310.0, 230.0)),
        ((1, 1), region(0, 0, 640, 480), (640, 480), (500.0, 510.0), (310.0, 230.0)),
        ((2, 2), region(), (320, 240), (250.0, 255.0), (154.75, 114.75)),  # pixels 310 and 311 are pixel 155, around 310.5
        ((4, 1), region(), (160, 480), (125.0, 510.0), (77.125, 230.0)),
        ((0, 0), region(100, 50, 400, 300), (400, 300), (500.0, 510.0), (210.0, 180.0)),
        ((0, 0), region(100, 50, 400, 300, do_rectify=True), (400, 300), (500.0, 510.0), (210.0, 180.0)),
        ((2, 3), region(100, 50, 401, 300), (200, 100), (250.0, 170.0), (104.75, (180 - 1) / 3)),
    ],
)
def test_binning_and_region_of_interest(binning, roi, size, focal, centre, rectified):  # noqa: PLR0917 - pytest names them
    k = np.array([500.0, 0, 310, 0, 510, 230, 0, 0, 1])
    p = np.insert(k.reshape(3, 3), 3, 0, axis=1).reshape(-1)
    message = info(k=k, p=p, d=np.zeros(5), binning_x=binning[0], binning_y=binning[1], roi=roi)
    camera = decode_camera_info(message, "rgb", "rgb/camera_info", rectified=rectified).camera
    assert (camera.width, camera.height) == size
    assert (camera.fx, camera.fy) == focal
    assert (camera.cx, camera.cy) == pytest.approx(centre, abs=1e-12)


def test_a_binned_image_sees_the_mean_of_its_pixels():
    """Points that the full sensor sees at the corners of 2 x 2 pixels come, on the mean, to the middle of the binned one."""
    full = decode_camera_info(info(), "rgb", "c").camera
    binned = decode_camera_info(info(binning_x=2, binning_y=2, roi=region(20, 30, 400, 300)), "rgb", "c").camera
    points = np.random.default_rng(0).uniform(-1, 1, (3, 50)).astype(np.float32) + np.array([[0], [0], [5]], np.float32)
    pixels, _, _ = project_points(full, points)
    expected = (pixels - np.array([[20], [30]]) - 0.5) / 2
    np.testing.assert_allclose(project_points(binned, points)[0], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"p": np.zeros(12)}, "uncalibrated", "on topic 'rgb/camera_info', got P[0] = 0"),
        ({"p": np.ones(9)}, "wrong_p", "expected 12 numbers in P of the CameraInfo on topic 'rgb/camera_info', got 9"),
        ({"p": P + np.eye(12)[4]}, "wrong_p", "expected P = [fx 0 cx; 0 fy cy; 0 0 1]"),
        ({"p": P, "width": 0}, "no_size", "got 0 x 480"),
    ],
)
def test_a_rectified_camera_that_cannot_be_used_is_one_clear_error(changes, reason, words):
    with pytest.raises(DecodeError) as error:
        decode_camera_info(info(**changes), "rgb", "rgb/camera_info", rectified=True)
    assert error.value.reason == reason
    assert words in str(error.value)


@pytest.mark.parametrize("rectified", [False, True])
def test_any_camera_info_is_read_or_refused(rectified):
    original = info(p=P, roi=region(1, 2, 300, 200), binning_x=2)
    words = ("plumb_bob", "rational_polynomial", "equidistant", "")
    outcomes = assert_survives(
        lambda: lambda message, topic: decode_camera_info(message, "rgb", topic, rectified=rectified), [original], words=words
    )
    assert {"sample", "wrong_region", "no_size", "wrong_p" if rectified else "wrong_k"} <= set(outcomes)


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        (
            {"binning_x": 641},
            "wrong_region",
            "a binning within 640 x 480 in the CameraInfo on topic 'rgb/camera_info', got 641 x 1",
        ),
        (
            {"roi": region(600, 0, 41, 480)},
            "wrong_region",
            "640 x 480 in the CameraInfo on topic 'rgb/camera_info', got 41 x 480 from",
        ),
        ({"roi": region(0, 1)}, "wrong_region", "got 640 x 480 from (0, 1)"),
        ({"k": np.zeros(9)}, "uncalibrated", "K[0] = 0"),
        ({"k": np.ones(8)}, "wrong_k", "expected 9 numbers in K of the CameraInfo on topic 'rgb/camera_info', got 8"),
        ({"k": np.full(9, np.nan)}, "wrong_k", "nan"),
        ({"k": np.array([500.0, 0, 320, 0, 0, 240, 0, 0, 1])}, "wrong_k", "[fx 0 cx; 0 fy cy; 0 0 1]"),
        ({"k": np.array([500.0, 0, 320, 3, 500, 240, 0, 0, 1])}, "wrong_k", "[fx 0 cx; 0 fy cy; 0 0 1]"),
        ({"k": np.array([500.0, 1e300, 320, 0, 500, 240, 0, 0, 1])}, "wrong_k", "1e+300"),
        ({"k": np.array([-500.0, 0, 320, 0, 500, 240, 0, 0, 1])}, "wrong_k", "-500"),
        ({"k": np.array([1e-300, 0, 320, 0, 500, 240, 0, 0, 1])}, "wrong_k", "1e-300"),
        ({"k": np.array([500.0, 0, 320, 0, 1e300, 240, 0, 0, 1])}, "wrong_k", "1e+300"),
        ({"k": np.array([500.0, 0, 1e300, 0, 500, 240, 0, 0, 1])}, "wrong_k", "1e+300"),
        ({"d": np.array([1e300, 0, 0, 0, 0])}, "wrong_d", "1e+300"),
        ({"d": np.ones(3)}, "wrong_d", "4 or 5 coefficients of plumb_bob in D on topic 'rgb/camera_info', got 3"),
        ({"d": np.ones(3)}, "wrong_d", "OpenCV's other models 8, 12, 14 are read, too"),
        ({"d": np.ones(6)}, "wrong_d", "got 6"),
        ({"d": np.ones(13)}, "wrong_d", "got 13"),
        ({"d": np.ones(15)}, "wrong_d", "got 15"),
        ({"distortion_model": "equidistant", "d": np.ones(5)}, "wrong_d", "4 coefficients of equidistant"),
        ({"d": np.array([*[0.0] * 13, 1.6])}, "wrong_d", "a tilt of the sensor within 1.5 radians"),
        ({"d": np.array([np.nan] * 5)}, "wrong_d", "nan"),
        ({"distortion_model": "kannala"}, "unknown_distortion_model", "plumb_bob, rational_polynomial, equidistant"),
        ({"distortion_model": "", "d": np.ones(5)}, "unknown_distortion_model", "got ''"),
        ({"width": 0}, "no_size", "got 0 x 480"),
    ],
)
def test_what_cannot_be_used_is_one_clear_error(changes, reason, words):
    with pytest.raises(DecodeError) as error:
        decode_camera_info(info(**changes), "rgb", "rgb/camera_info")
    assert error.value.reason == reason
    assert words in str(error.value)

"""CameraInfo to camera models, and what is refused."""

from __future__ import annotations

import array
import dataclasses

import numpy as np
import pytest

from gemini_core.bag import messages
from gemini_core.decode.camera_info import decode_camera_info
from gemini_core.errors import DecodeError
from gemini_core.geometry import project_points
from gemini_core.types import CameraModel

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
        ("equidistant", (0.0,) * 4, ("equidistant", (0.0,) * 4)),  # a fisheye bends without coefficients
        ("rational_polynomial", tuple(range(8)), ("rational_polynomial", tuple(map(float, range(8))))),
    ],
)
def test_distortion_models(model, d, expected):
    camera = decode_camera_info(info(distortion_model=model, d=np.array(d, np.float64)), "rgb", "rgb/camera_info").camera
    assert (camera.distortion_model, camera.distortion) == expected
    project_points(camera, np.ones((3, 1), np.float32))  # geometry knows every model that decode lets through


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"k": np.zeros(9)}, "uncalibrated", "K[0] = 0"),
        ({"k": np.ones(8)}, "wrong_k", "expected 9 numbers in K of the CameraInfo on topic 'rgb/camera_info', got 8"),
        ({"k": np.full(9, np.nan)}, "wrong_k", "nan"),
        ({"k": np.array([500.0, 0, 320, 0, 0, 240, 0, 0, 1])}, "wrong_k", "[fx 0 cx; 0 fy cy; 0 0 1]"),
        ({"k": np.array([500.0, 3, 320, 0, 500, 240, 0, 0, 1])}, "wrong_k", "[fx 0 cx; 0 fy cy; 0 0 1]"),
        ({"k": np.array([-500.0, 0, 320, 0, 500, 240, 0, 0, 1])}, "wrong_k", "-500"),
        ({"k": np.array([1e-300, 0, 320, 0, 500, 240, 0, 0, 1])}, "wrong_k", "1e-300"),
        ({"k": np.array([500.0, 0, 320, 0, 1e300, 240, 0, 0, 1])}, "wrong_k", "1e+300"),
        ({"k": np.array([500.0, 0, 1e300, 0, 500, 240, 0, 0, 1])}, "wrong_k", "1e+300"),
        ({"d": np.array([1e300, 0, 0, 0, 0])}, "wrong_d", "1e+300"),
        ({"d": np.ones(3)}, "wrong_d", "4 or 5 coefficients of plumb_bob in D on topic 'rgb/camera_info', got 3"),
        ({"d": np.ones(8)}, "wrong_d", "got 8"),
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

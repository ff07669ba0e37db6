"""sensor_msgs/CameraInfo to a camera model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from gemini_core.decode.message import Header, require_fields, stamp_ns
from gemini_core.errors import DecodeError
from gemini_core.types import CameraInfoSample, CameraModel, Modality

COEFFICIENTS = {"plumb_bob": (4, 5), "rational_polynomial": (8,), "equidistant": (4,)}
"""The distortion models known and how many coefficients they take (plumb_bob's k3 may be left out)."""

_SMALLEST, _LARGEST = 1e-6, 1e9  # of focal lengths and of all other numbers: beyond, products of them are no numbers any more


class CameraInfo(Protocol):
    """The fields of sensor_msgs/CameraInfo that are read."""

    header: Header
    height: int
    width: int
    distortion_model: str
    d: Sequence[float]
    k: Sequence[float]


def decode_camera_info(message: CameraInfo, modality: Modality, topic: str) -> CameraInfoSample:
    """Read intrinsics and distortion of the raw image (K and D; R and P, for rectified images, are not looked at).

    A model without effect (no coefficients, or only zeros) becomes "none", except "equidistant", which bends without any.

    Raises:
        DecodeError: wrong type, uncalibrated (K[0] is 0), a K that is no pinhole matrix, no size, an unknown distortion
            model, a wrong number of coefficients, or numbers too small or large to calculate with.
    """
    require_fields(message, ("header", "height", "width", "distortion_model", "d", "k"), "sensor_msgs/CameraInfo", topic)
    fx, fy, cx, cy = _intrinsics(message, topic)
    if message.width == 0 or message.height == 0:
        msg = f"expected the image size in the CameraInfo on topic {topic!r}, got {message.width} x {message.height}"
        raise DecodeError(reason="no_size", message=msg)
    model, distortion = _distortion(message, topic)
    camera = CameraModel(int(message.width), int(message.height), fx, fy, cx, cy, model, distortion)
    return CameraInfoSample(stamp_ns(message.header), message.header.frame_id, modality, camera)


def _intrinsics(message: CameraInfo, topic: str) -> tuple[float, float, float, float]:
    k = np.asarray(message.k, np.float64)
    if k.shape != (9,):
        msg = f"expected 9 numbers in K of the CameraInfo on topic {topic!r}, got {k.size}"
        raise DecodeError(reason="wrong_k", message=msg)
    if k[0] == 0.0:
        msg = f"expected a calibrated camera on topic {topic!r}, got K[0] = 0, which means uncalibrated"
        raise DecodeError(reason="uncalibrated", message=msg)
    fx, cx, fy, cy = (float(k[i]) for i in (0, 2, 4, 5))
    pinhole = np.array([fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0])
    if not np.isfinite(k).all() or fx < 0.0 or fy <= 0.0 or not np.array_equal(k, pinhole):
        msg = f"expected K = [fx 0 cx; 0 fy cy; 0 0 1] in the CameraInfo on topic {topic!r}, got {k.tolist()}"
        raise DecodeError(reason="wrong_k", message=msg)
    if min(fx, fy) < _SMALLEST or np.abs(k).max() > _LARGEST:
        msg = (
            f"expected focal lengths from {_SMALLEST:g} to {_LARGEST:g} and a centre within that in K of the CameraInfo on "
            f"topic {topic!r}, got {k.tolist()}"
        )
        raise DecodeError(reason="wrong_k", message=msg)
    return fx, fy, cx, cy


def _distortion(message: CameraInfo, topic: str) -> tuple[str, tuple[float, ...]]:
    model, d = message.distortion_model, tuple(float(value) for value in message.d)
    if model in {"", "none"} and not any(d):
        return "none", ()
    if model not in COEFFICIENTS:
        msg = f"expected distortion model {', '.join(COEFFICIENTS)} on topic {topic!r}, got {model!r}"
        raise DecodeError(reason="unknown_distortion_model", message=msg)
    if not all(abs(value) <= _LARGEST for value in d):  # NaN is not
        msg = f"expected distortion coefficients from {-_LARGEST:g} to {_LARGEST:g} on topic {topic!r}, got {list(d)}"
        raise DecodeError(reason="wrong_d", message=msg)
    if model != "equidistant" and not any(d):
        return "none", ()
    if len(d) not in COEFFICIENTS[model]:
        lengths = " or ".join(map(str, COEFFICIENTS[model]))
        msg = f"expected {lengths} coefficients of {model} in D on topic {topic!r}, got {len(d)}"
        raise DecodeError(reason="wrong_d", message=msg)
    return model, d

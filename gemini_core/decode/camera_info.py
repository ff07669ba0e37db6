"""sensor_msgs/CameraInfo to camera intrinsics."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from gemini_core.decode.message import Header, require_fields, stamp_ns
from gemini_core.errors import DecodeError
from gemini_core.types import CameraInfoSample, CameraModel, Modality

COEFFICIENTS = {"plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,)}
"""The distortion models known and how many coefficients they take. The first two are one to OpenCV, which goes by their number:
k1 k2 t1 t2, then k3, then k4 k5 k6, then the thin prism s1 s2 s3 s4, then the tilt tx ty; so it goes here."""

_POLYNOMIAL = {number: model for model in ("plumb_bob", "rational_polynomial") for number in COEFFICIENTS[model]}

ALIASES = {
    **dict.fromkeys(("radtan", "radial_tangential", "brown", "brown_conrady", "opencv", "plumbbob"), "plumb_bob"),
    **dict.fromkeys(("rational", "full_opencv", "thin_prism", "tilted"), "rational_polynomial"),
    **dict.fromkeys(("fisheye", "opencv_fisheye", "equi", "kannala_brandt", "kannala_brandt4", "kb4"), "equidistant"),
}
"""Other names of the same models (OpenCV's, Kalibr's, COLMAP's, librealsense's); in any case, with spaces or hyphens."""

_LARGEST_TILT = 1.5  # radians; a sensor seen from its edge

_SMALLEST, _LARGEST = 1e-6, 1e9  # of focal lengths and of all other numbers: beyond, products of them are no numbers any more


_FIELDS = ("header", "height", "width", "distortion_model", "d", "k", "p", "binning_x", "binning_y", "roi")


class RegionOfInterest(Protocol):
    """The fields of sensor_msgs/RegionOfInterest that are read."""

    x_offset: int
    y_offset: int
    height: int
    width: int


class CameraInfo(Protocol):
    """The fields of sensor_msgs/CameraInfo that are read."""

    header: Header
    height: int
    width: int
    distortion_model: str
    d: Sequence[float]
    k: Sequence[float]
    p: Sequence[float]
    binning_x: int
    binning_y: int
    roi: RegionOfInterest


def decode_camera_info(message: CameraInfo, modality: Modality, topic: str, *, rectified: bool = False) -> CameraInfoSample:
    """Read the model of the camera as its images come: raw ones after K and D, ``rectified`` ones after P without distortion.

    K and P are of the full sensor. Of a region of interest and binning b the image has, on each axis, (size of the region) / b
    pixels, each the mean of b pixels of the sensor, so u_image = (u_sensor - offset - (b - 1) / 2) / b where the centre of the
    first pixel is 0. (ROS's image_geometry leaves out the half: at b = 2 it is off by 0.25 pixels.) The region's do_rectify
    says nothing of these numbers.

    Tx and Ty, the fourth column of P, are left out: they place the second camera of a stereo pair in the first one's frame,
    but here a camera stands where the transform tree has its own frame_id. A model without effect (no coefficients, or only
    zeros), whatever its name, becomes "none", except an equidistant one whose coefficients are written as zeros: it bends
    without any. Zeros beyond the coefficients that a model has are none.

    Raises:
        DecodeError: wrong type, uncalibrated (K[0], or P[0] where rectified, is 0), a K or P that is no camera's matrix, no
            size, a region outside of it, an unknown distortion model, a wrong number of coefficients, or numbers too small or
            large to calculate with.
    """
    require_fields(message, _FIELDS, "sensor_msgs/CameraInfo", topic)
    lens: tuple[str, tuple[float, ...]] = ("none", ())
    if rectified:
        fx, fy, cx, cy, skew = _intrinsics(message.p, 4, "P", topic)
    else:
        fx, fy, cx, cy, skew = _intrinsics(message.k, 3, "K", topic)
        lens = _distortion(message, topic)
    left, top, width, height = _region(message, topic)
    step_u, step_v = max(int(message.binning_x), 1), max(int(message.binning_y), 1)
    if step_u > width or step_v > height:
        msg = f"expected a binning within {width} x {height} in the CameraInfo on topic {topic!r}, got {step_u} x {step_v}"
        raise DecodeError(reason="wrong_region", message=msg)
    camera = CameraModel(
        width // step_u,
        height // step_v,
        fx / step_u,
        fy / step_v,
        (cx - left - (step_u - 1) / 2) / step_u,
        (cy - top - (step_v - 1) / 2) / step_v,
        *lens,
        skew / step_u,
    )
    return CameraInfoSample(stamp_ns(message.header), message.header.frame_id, modality, camera)


def _region(message: CameraInfo, topic: str) -> tuple[int, int, int, int]:
    """Left, top, width and height of the part of the sensor that the images show; a size of 0 is the whole one."""
    if message.width == 0 or message.height == 0:
        msg = f"expected the image size in the CameraInfo on topic {topic!r}, got {message.width} x {message.height}"
        raise DecodeError(reason="no_size", message=msg)
    roi = message.roi
    left, top = int(roi.x_offset), int(roi.y_offset)
    width, height = int(roi.width) or int(message.width), int(roi.height) or int(message.height)
    if left + width > message.width or top + height > message.height:
        msg = (
            f"expected a region of interest within {message.width} x {message.height} in the CameraInfo on topic {topic!r}, "
            f"got {width} x {height} from ({left}, {top})"
        )
        raise DecodeError(reason="wrong_region", message=msg)
    return left, top, width, height


def _intrinsics(values: Sequence[float], columns: int, name: str, topic: str) -> tuple[float, float, float, float, float]:
    """Read fx, fy, cx, cy and the skew from the first three columns of K or P."""
    numbers = np.asarray(values, np.float64)
    if numbers.shape != (3 * columns,):
        msg = f"expected {3 * columns} numbers in {name} of the CameraInfo on topic {topic!r}, got {numbers.size}"
        raise DecodeError(reason=f"wrong_{name.lower()}", message=msg)
    matrix = numbers.reshape(3, columns)[:, :3].reshape(-1)
    if matrix[0] == 0.0:
        msg = f"expected a calibrated camera on topic {topic!r}, got {name}[0] = 0, which means uncalibrated"
        raise DecodeError(reason="uncalibrated", message=msg)
    fx, skew, cx, fy, cy = (float(matrix[i]) for i in (0, 1, 2, 4, 5))
    pinhole = np.array([fx, skew, cx, 0.0, fy, cy, 0.0, 0.0, 1.0])
    if not np.isfinite(matrix).all() or fx < 0.0 or fy <= 0.0 or not np.array_equal(matrix, pinhole):
        msg = (
            f"expected {name} = [fx 0 cx; 0 fy cy; 0 0 1], its first 0 may be a skew, in the CameraInfo on topic {topic!r}, "
            f"got {matrix.tolist()}"
        )
        raise DecodeError(reason=f"wrong_{name.lower()}", message=msg)
    if min(fx, fy) < _SMALLEST or np.abs(matrix).max() > _LARGEST:
        msg = (
            f"expected focal lengths from {_SMALLEST:g} to {_LARGEST:g} and a centre within that in {name} of the CameraInfo "
            f"on topic {topic!r}, got {matrix.tolist()}"
        )
        raise DecodeError(reason=f"wrong_{name.lower()}", message=msg)
    return fx, fy, cx, cy, skew


def _distortion(message: CameraInfo, topic: str) -> tuple[str, tuple[float, ...]]:
    """The model and its coefficients, as many as it has; a name with nothing behind it is no lens."""
    name = re.sub(r"[\s-]+", "_", message.distortion_model.strip().lower())
    model, d = ALIASES.get(name, name), tuple(float(value) for value in message.d)
    if not d or (model != "equidistant" and not any(d)):
        return "none", ()
    if model not in COEFFICIENTS:
        known = ", ".join((*COEFFICIENTS, *ALIASES))
        msg = f"expected distortion model {known} on topic {topic!r}, got {message.distortion_model!r}"
        raise DecodeError(reason="unknown_distortion_model", message=msg)
    if not all(abs(value) <= _LARGEST for value in d):  # NaN is not
        msg = f"expected distortion coefficients from {-_LARGEST:g} to {_LARGEST:g} on topic {topic!r}, got {list(d)}"
        raise DecodeError(reason="wrong_d", message=msg)
    lengths = COEFFICIENTS["equidistant"] if model == "equidistant" else tuple(_POLYNOMIAL)
    fitting = [number for number in lengths if number <= len(d) and not any(d[number:])]
    if not fitting:
        own, others = COEFFICIENTS[model], [number for number in lengths if number not in COEFFICIENTS[model]]
        msg = (
            f"expected {' or '.join(map(str, own))} coefficients of {model} in D on topic {topic!r}, got {len(d)}: {list(d)}"
            + (f" (of OpenCV's other models {', '.join(map(str, others))} are read, too)" if others else "")
        )
        raise DecodeError(reason="wrong_d", message=msg)
    # as many as came where that is a number of the model, otherwise the fewest that say the same
    number = len(d) if len(d) in COEFFICIENTS[model] else min(fitting)
    tilt = d[12:number]
    if tilt and max(map(abs, tilt)) > _LARGEST_TILT:
        msg = f"expected a tilt of the sensor within {_LARGEST_TILT} radians on topic {topic!r}, got {list(tilt)}"
        raise DecodeError(reason="wrong_d", message=msg)
    return (model if model == "equidistant" else _POLYNOMIAL[number]), d[:number]

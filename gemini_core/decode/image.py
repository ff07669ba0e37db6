"""sensor_msgs/Image to colour and depth samples."""

from __future__ import annotations

from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from gemini_core.decode.message import Header, as_bytes, require_fields, stamp_ns
from gemini_core.errors import DecodeError
from gemini_core.types import F32, U8, DepthSample, ImageSample

COLOR_ENCODINGS = ("rgb8", "bgr8", "mono8")
DEPTH_ENCODINGS = ("16UC1", "32FC1")

_FIELDS = ("header", "height", "width", "encoding", "is_bigendian", "step", "data")


class Image(Protocol):
    """The fields of sensor_msgs/Image."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


def decode_color(message: Image, topic: str) -> ImageSample:
    """Read a colour or grey image; "rgb8" is not copied, also with padded rows.

    Raises:
        DecodeError: wrong type, unknown encoding, no pixels, or a step or data too short for the size.
    """
    require_fields(message, _FIELDS, "sensor_msgs/Image", topic)
    encoding = _known_encoding(message, topic, COLOR_ENCODINGS)
    rows = _rows(message, topic, 1 if encoding == "mono8" else 3)
    pixels: U8
    if encoding == "mono8":
        pixels = cv2.cvtColor(rows, cv2.COLOR_GRAY2RGB).astype(np.uint8, copy=False)
    else:
        pixels = rows.reshape(message.height, message.width, 3)
        if encoding == "bgr8":
            pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    return ImageSample(stamp_ns(message.header), message.header.frame_id, pixels)


def decode_depth(message: Image, topic: str) -> DepthSample:
    """Read a depth image after REP 118: "16UC1" in millimetres (0 is no reading), "32FC1" in metres.

    NaN and ±inf of "32FC1" keep their meaning; zero and negative depth is no reading. "32FC1" in this machine's byte order
    is not copied when nothing has to change.

    Raises:
        DecodeError: wrong type, unknown encoding, no pixels, or a step or data too short for the size.
    """
    require_fields(message, _FIELDS, "sensor_msgs/Image", topic)
    encoding = _known_encoding(message, topic, DEPTH_ENCODINGS)
    depth_m = _millimetres(message, topic) if encoding == "16UC1" else _metres(message, topic)
    return DepthSample(stamp_ns(message.header), message.header.frame_id, depth_m)


def _millimetres(message: Image, topic: str) -> F32:
    raw = _rows(message, topic, 2).view(_byte_order(message) + "u2")
    depth_m = raw.astype(np.float32)
    depth_m /= np.float32(1000.0)
    depth_m[raw == 0] = np.nan
    return depth_m


def _metres(message: Image, topic: str) -> F32:
    rows: npt.NDArray[np.float32] = _rows(message, topic, 4).view(_byte_order(message) + "f4")
    depth_m = rows.astype(np.float32, copy=False)  # copies only to swap bytes
    nothing = (depth_m <= 0) & (depth_m > -np.inf)
    if nothing.any():
        depth_m = np.where(nothing, np.float32(np.nan), depth_m)
    return depth_m


def _byte_order(message: Image) -> str:
    return ">" if message.is_bigendian else "<"


def _known_encoding(message: Image, topic: str, known: tuple[str, ...]) -> str:
    if message.encoding not in known:
        msg = f"expected encoding {', '.join(known)} on topic {topic!r}, got {message.encoding!r}"
        raise DecodeError(reason="unknown_encoding", message=msg)
    return message.encoding


def _rows(message: Image, topic: str, pixel_bytes: int) -> U8:
    """Show the image's bytes as (height, width · pixel_bytes), the padding of each row left out."""
    height, width, step = message.height, message.width, message.step
    if height == 0 or width == 0:
        msg = f"expected an image with pixels on topic {topic!r}, got {width} x {height}"
        raise DecodeError(reason="no_pixels", message=msg)
    if step < width * pixel_bytes:
        msg = (
            f"expected a step of at least {width * pixel_bytes} bytes for {width} pixels of {message.encoding} on topic "
            f"{topic!r}, got {step}"
        )
        raise DecodeError(reason="short_step", message=msg)
    data = as_bytes(message.data, topic)
    if data.size < step * height:
        msg = f"expected {step * height} bytes for {height} rows of {step} on topic {topic!r}, got {data.size}"
        raise DecodeError(reason="short_data", message=msg)
    return data[: step * height].reshape(height, step)[:, : width * pixel_bytes]

"""sensor_msgs/Image to colour and depth samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gemini_core.decode.color import LAYOUTS, to_rgb
from gemini_core.decode.message import Header, as_bytes, require_fields, stamp_ns
from gemini_core.errors import DecodeError
from gemini_core.types import F32, U8, U16, DepthSample, ImageSample

DEPTH_ENCODINGS = ("16UC1", "32FC1", "mono16")
"""Of depth images; "mono16" is what drivers write that know no "16UC1", and means the same."""

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
    """Read a colour or grey image in any encoding of ``color.LAYOUTS``; "rgb8" is not copied, also with padded rows.

    Raises:
        DecodeError: wrong type, unknown encoding, no pixels, a size that the encoding cannot have, or a step or data too
            short for the size.
    """
    require_fields(message, _FIELDS, "sensor_msgs/Image", topic)
    encoding = _known_encoding(message, topic, tuple(LAYOUTS))
    layout = LAYOUTS[encoding]
    width, height = message.width, message.height
    multiple_u, multiple_v = layout.multiple
    if width % multiple_u or height % multiple_v or 0 < min(width, height) < layout.smallest:
        msg = (
            f"expected a width that is a multiple of {multiple_u}, a height that is one of {multiple_v}, and both from "
            f"{layout.smallest} up, for {encoding} on topic {topic!r}, got {width} x {height}"
        )
        raise DecodeError(reason="wrong_size", message=msg)
    rows = _rows(message, topic, layout.rows(height), layout.row_bytes(width))
    pixels = to_rgb(rows, encoding, big_endian=bool(message.is_bigendian))
    return ImageSample(stamp_ns(message.header), message.header.frame_id, pixels)


def decode_depth(message: Image, topic: str) -> DepthSample:
    """Read a depth image after REP 118: "16UC1" (or "mono16") in millimetres (0 is no reading), "32FC1" in metres.

    NaN and ±inf of "32FC1" keep their meaning; zero and negative depth is no reading. "32FC1" in this machine's byte order
    is not copied when nothing has to change.

    Raises:
        DecodeError: wrong type, unknown encoding, no pixels, or a step or data too short for the size.
    """
    require_fields(message, _FIELDS, "sensor_msgs/Image", topic)
    item_bytes = 4 if _known_encoding(message, topic, DEPTH_ENCODINGS) == "32FC1" else 2
    rows = _rows(message, topic, message.height, message.width * item_bytes)
    order = ">" if message.is_bigendian else "<"
    depth_m = metres_of_millimetres(rows.view(order + "u2")) if item_bytes == 2 else _metres(rows.view(order + "f4"))  # noqa: PLR2004
    return DepthSample(stamp_ns(message.header), message.header.frame_id, depth_m)


def metres_of_millimetres(millimetres: U16) -> F32:
    """Metres (H, W); 0 becomes NaN, no reading (REP 118)."""
    depth_m = millimetres.astype(np.float32)
    depth_m /= np.float32(1000.0)
    depth_m[millimetres == 0] = np.nan
    return depth_m


def _metres(values: npt.NDArray[np.float32]) -> F32:
    depth_m = values.astype(np.float32, copy=False)  # copies only to swap bytes
    nothing = (depth_m <= 0) & (depth_m > -np.inf)
    if nothing.any():
        depth_m = np.where(nothing, np.float32(np.nan), depth_m)
    return depth_m


def _known_encoding(message: Image, topic: str, known: tuple[str, ...]) -> str:
    encoding = plain_encoding(message.encoding, known)
    if encoding not in known:
        msg = f"expected encoding {', '.join(known)} on topic {topic!r}, got {message.encoding!r}"
        raise DecodeError(reason="unknown_encoding", message=msg)
    return encoding


def plain_encoding(name: str, known: Sequence[str]) -> str:
    """Give a name of an encoding as the known ones write it, whatever its case and the spaces around it; else as it came."""
    if name in known:
        return name
    plain = name.strip("\0 \t\r\n")
    return next((each for each in known if each.lower() == plain.lower()), name)


def _rows(message: Image, topic: str, rows: int, row_bytes: int) -> U8:
    """Show the image's bytes as (rows, row_bytes), the padding of each row left out."""
    height, width, step = message.height, message.width, message.step
    if height == 0 or width == 0:
        msg = f"expected an image with pixels on topic {topic!r}, got {width} x {height}"
        raise DecodeError(reason="no_pixels", message=msg)
    if step < row_bytes:
        msg = (
            f"expected a step of at least {row_bytes} bytes for {width} pixels of {message.encoding} on topic {topic!r}, "
            f"got {step}"
        )
        raise DecodeError(reason="short_step", message=msg)
    data = as_bytes(message.data, topic)
    if data.size < step * rows:
        msg = f"expected {step * rows} bytes for {rows} rows of {step} on topic {topic!r}, got {data.size}"
        raise DecodeError(reason="short_data", message=msg)
    return data[: step * rows].reshape(rows, step)[:, :row_bytes]

"""sensor_msgs/CompressedImage to colour and depth samples.

What image_transport's plugins "compressed" (JPEG, PNG) and "compressedDepth" (PNG, RVL) send, and what other writers put into
the same message. The data say themselves whether they are JPEG or PNG, and which of their colours is red; of ``format``,
such as "bgr8; jpeg compressed bgr8", only the encoding before compression counts, and only where it is a Bayer pattern. Nothing
is unpacked before its size is known, within MAX_PIXELS, and no larger than so many bytes can make of it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from gemini_core.decode.color import LAYOUTS, as_8_bit
from gemini_core.decode.image import DEPTH_ENCODINGS, metres_of_millimetres, plain_encoding
from gemini_core.decode.message import Header, as_bytes, require_fields, stamp_ns
from gemini_core.decode.rvl import decode_rvl
from gemini_core.errors import DecodeError
from gemini_core.types import F32, U8, U16, DepthSample, ImageSample

MAX_PIXELS = 2**25
"""The largest image that is unpacked (8192 x 4096, more than "8K"): a few bytes can claim any size."""

_FIELDS = ("header", "format", "data")
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_PNG_END, _JPEG_END = b"IEND", b"\xff\xd9"
_TRANSPORT = "compresseddepth"  # of a format in lower case
_DEPTH_HEADER = struct.Struct("<iff")  # which encoding, A, B
_RVL_SIZE = struct.Struct("<II")  # columns, rows
_TO_RGB = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}  # by the channels that OpenCV unpacks

_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_DEFLATE_RATIO = 1032  # of zlib, at most
_JPEG_RATIO = 512  # pixels to a byte, at most: one bit for a block of 8 x 8

# JPEG markers (ITU-T T.81, table B.1)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # "start of frame", which has the size
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # without a length
_SCAN, _END = 0xDA, 0xD9
_MOST_SEGMENTS = 4096


class CompressedImage(Protocol):
    """The fields of sensor_msgs/CompressedImage."""

    header: Header
    format: str
    data: Any


def decode_compressed_color(message: CompressedImage, topic: str) -> ImageSample:
    """Read a JPEG or PNG: colour, grey, or a mosaic whose Bayer pattern ``format`` names.

    Raises:
        DecodeError: wrong type, neither JPEG nor PNG, too many pixels, damaged or cut off, or a mosaic too small.
    """
    require_fields(message, _FIELDS, "sensor_msgs/CompressedImage", topic)
    pixels = _unpacked(as_bytes(message.data, topic), message, topic)
    source = source_encoding(message.format)
    channels = _channels(pixels)
    if channels == 1 and source.startswith("bayer_"):
        if source not in LAYOUTS or min(pixels.shape) < LAYOUTS[source].smallest:
            known = ", ".join(name for name in LAYOUTS if name.startswith("bayer_"))
            width, height = pixels.shape[::-1]
            msg = f"expected {known}, 3 x 3 pixels or more, on topic {topic!r}, got {width} x {height} of {source!r}"
            raise DecodeError(reason="unknown_encoding", message=msg)
        code = LAYOUTS[source].code  # the same for 8 and 16 bits: a JPEG of a 16-bit mosaic has 8
    else:
        code = _TO_RGB.get(channels)
    if code is None:
        msg = f"expected 1, 3 or 4 channels on topic {topic!r}, got {channels}, format {message.format!r}"
        raise DecodeError(reason="wrong_pixels", message=msg)
    return ImageSample(
        stamp_ns(message.header), message.header.frame_id, np.asarray(cv2.cvtColor(as_8_bit(pixels), code), np.uint8)
    )


def decode_compressed_depth(message: CompressedImage, topic: str) -> DepthSample:
    """Read depth from compressedDepth, "16UC1" ("mono16") or "32FC1" as PNG or RVL, or from a 16-bit grey PNG in millimetres.

    Of compressedDepth, "32FC1" is stored as A / (value - B), with A and B in the header of 12 bytes; 0, and what gives no
    positive depth, becomes NaN, no reading (REP 118).

    Raises:
        DecodeError: wrong type, unknown encoding or compression, a damaged header, too many pixels, damaged or cut off, or
            pixels other than 16-bit grey.
    """
    require_fields(message, _FIELDS, "sensor_msgs/CompressedImage", topic)
    data = as_bytes(message.data, topic)
    encoding, rest = source_encoding(message.format), message.format.partition(";")[2].lower().split()
    if _TRANSPORT in rest:
        depth_m = _depth_of_transport(data, encoding, " ".join(word for word in rest if word != _TRANSPORT), message, topic)
    elif encoding != "32FC1":
        depth_m = metres_of_millimetres(_unpacked_depth(data, message, topic))
    else:
        msg = f"expected 16UC1 in a PNG without the header of compressedDepth on topic {topic!r}, got {message.format!r}"
        raise DecodeError(reason="unknown_encoding", message=msg)
    return DepthSample(stamp_ns(message.header), message.header.frame_id, depth_m)


def source_encoding(image_format: str) -> str:
    """Give the encoding before compression, what ``format`` begins with, as ``color.LAYOUTS`` and DEPTH_ENCODINGS write it."""
    return plain_encoding(image_format.partition(";")[0].strip(), (*LAYOUTS, *DEPTH_ENCODINGS))


def _depth_of_transport(data: U8, encoding: str, compression: str, message: CompressedImage, topic: str) -> F32:
    if encoding not in DEPTH_ENCODINGS or compression not in {"", "png", "rvl"}:
        msg = (
            f"expected format <{' or '.join(DEPTH_ENCODINGS)}>; compressedDepth <nothing, png or rvl> on topic {topic!r}, "
            f"got {message.format!r}"
        )
        raise DecodeError(reason="unknown_encoding", message=msg)
    if data.size <= _DEPTH_HEADER.size:
        msg = (
            f"expected more than the {_DEPTH_HEADER.size} bytes of compressedDepth's header on topic {topic!r}, got {data.size}"
        )
        raise DecodeError(reason="short_data", message=msg)
    _, a, b = _DEPTH_HEADER.unpack(data[: _DEPTH_HEADER.size].tobytes())
    packed = data[_DEPTH_HEADER.size :]
    values = _of_rvl(packed, topic) if compression == "rvl" else _unpacked_depth(packed, message, topic)
    if encoding != "32FC1":
        return metres_of_millimetres(values)
    if not (np.isfinite((a, b)).all() and a > 0):
        msg = f"expected finite A > 0 and B in the header of compressedDepth on topic {topic!r}, got {a} and {b}"
        raise DecodeError(reason="wrong_header", message=msg)
    with np.errstate(divide="ignore", over="ignore"):
        depth_m: F32 = np.float32(a) / (values.astype(np.float32) - np.float32(b))
    depth_m[(values == 0) | ~(depth_m > 0) | np.isinf(depth_m)] = np.nan
    return depth_m


def _of_rvl(data: U8, topic: str) -> U16:
    """(H, W) uint16."""
    if data.size < _RVL_SIZE.size:
        msg = f"expected the {_RVL_SIZE.size} bytes of an RVL image's size on topic {topic!r}, got {data.size}"
        raise DecodeError(reason="short_data", message=msg)
    columns, rows = _RVL_SIZE.unpack(data[: _RVL_SIZE.size].tobytes())
    _check_size(columns, rows, topic)
    pixels = np.zeros(columns * rows, np.uint16)
    done = decode_rvl(data[_RVL_SIZE.size :], pixels)
    if done < pixels.size:
        msg = f"expected {columns} x {rows} pixels in the RVL data on topic {topic!r}, got {done} before their end"
        raise DecodeError(reason="damaged_image", message=msg)
    return pixels.reshape(rows, columns)


def _unpacked_depth(data: U8, message: CompressedImage, topic: str) -> U16:
    """(H, W) uint16."""
    pixels = _unpacked(data, message, topic)
    if pixels.dtype != np.uint16 or _channels(pixels) != 1:
        msg = (
            f"expected depth as a 16-bit grey PNG on topic {topic!r}, got {_channels(pixels)} channel(s) of "
            f"{8 * pixels.itemsize} bits, format {message.format!r}"
        )
        raise DecodeError(reason="wrong_pixels", message=msg)
    return pixels.astype(np.uint16, copy=False)


# --------------------------------------------------------------------------------------------------------------------
# JPEG and PNG


def _channels(pixels: npt.NDArray[Any]) -> int:
    return 1 if pixels.ndim == 2 else int(pixels.shape[2])  # noqa: PLR2004 - (H, W)


def _unpacked(data: U8, message: CompressedImage, topic: str) -> npt.NDArray[Any]:
    """Unpack to (H, W) or (H, W, 3 or 4) in OpenCV's order, uint8 or uint16."""
    begin = data[: len(_PNG)].tobytes()
    if begin == _PNG:
        header = _png_header(data) if _has_whole_chunks(data) else None
    elif begin.startswith(_JPEG):
        # without its end, OpenCV would fill up what is missing with grey
        header = _jpeg_header(data) if _JPEG_END in data.tobytes() else None
    else:
        msg = (
            f"expected a JPEG or PNG image on topic {topic!r}, got format {message.format!r} and data that begin with "
            f"{begin.hex(' ') or 'nothing'}"
        )
        raise DecodeError(reason="unknown_compression", message=msg)
    if header is not None:
        _check_size(header.width, header.height, topic)
        pixels = _opencv_image(data) if data.size >= header.fewest_bytes else None
        if pixels is not None and pixels.shape[:2] == (header.height, header.width):
            return pixels
    msg = f"expected a whole image on topic {topic!r}, got {data.size} bytes of a damaged one, format {message.format!r}"
    raise DecodeError(reason="damaged_image", message=msg)


def _opencv_image(data: U8) -> npt.NDArray[Any] | None:
    """As it is stored: not turned by an EXIF orientation, which CameraInfo knows nothing of."""
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    return None if pixels is None else np.asarray(pixels)


def _check_size(width: int, height: int, topic: str) -> None:
    if width == 0 or height == 0:
        msg = f"expected an image with pixels on topic {topic!r}, got {width} x {height}"
        raise DecodeError(reason="no_pixels", message=msg)
    if width * height > MAX_PIXELS:
        msg = f"expected at most {MAX_PIXELS} pixels to unpack on topic {topic!r}, got {width} x {height}"
        raise DecodeError(reason="too_large", message=msg)


@dataclass(frozen=True, slots=True)
class _Header:
    """What the front of a packed image says, and how many bytes such an image takes at the very least."""

    width: int
    height: int
    fewest_bytes: int


def _has_whole_chunks(data: U8) -> bool:
    """Whether every chunk of a PNG, up to its end, lies within the data: OpenCV makes room for what a chunk claims."""
    at = len(_PNG)
    while at + 12 <= data.size:  # length, name, content, checksum
        head = data[at : at + 8].tobytes()
        at += 12 + int.from_bytes(head[:4], "big")
        if head[4:] == _PNG_END:
            return at <= data.size
    return False


def _png_header(data: U8) -> _Header | None:
    """Read the header chunk, which is the first; None where it is not, or makes no sense."""
    head = data[:26].tobytes()
    if len(head) < 26 or head[12:16] != b"IHDR" or head[25] not in _PNG_CHANNELS:  # noqa: PLR2004
        return None
    width, height = struct.unpack(">II", head[16:24])
    pixel_bits = head[24] * _PNG_CHANNELS[head[25]]
    return _Header(width, height, width * height * pixel_bits // 8 // _DEFLATE_RATIO)


def _jpeg_header(data: U8) -> _Header | None:
    """Find the frame's header, going from segment to segment; None where there is none."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        head = data[at : at + 9].tobytes()
        if len(head) < 9 or head[0] != 0xFF or head[1] in {_SCAN, _END}:  # noqa: PLR2004
            return None
        if head[1] == 0xFF:  # noqa: PLR2004 - a fill byte
            at += 1
        elif head[1] in _ALONE:
            at += 2
        elif head[1] in _FRAMES:
            height, width = struct.unpack(">HH", head[5:9])
            return _Header(width, height, width * height // _JPEG_RATIO)
        else:
            at += 2 + int.from_bytes(head[2:4], "big")
    return None

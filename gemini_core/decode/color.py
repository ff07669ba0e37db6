"""Colour encodings of sensor_msgs/Image to RGB, through OpenCV.

Names as in sensor_msgs/image_encodings.hpp. YUV is taken as BT.601 in video range (Y 16 to 235), as OpenCV and cv_bridge do;
16-bit values are scaled by 255/65535; "8UC3" and "8UC4", which say nothing of colours, are taken as blue-green-red like
RViz does. Alpha is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gemini_core.types import F32, U8

_SMALLEST_MOSAIC = 3  # of fewer rows or columns OpenCV makes black


@dataclass(frozen=True, slots=True)
class Layout:
    """How the pixels of one encoding lie in memory.

    ``code``: OpenCV's conversion to RGB, None where it is RGB or has no such conversion. A row of ``step`` bytes has
    ``channels`` numbers of ``item_bytes`` for each pixel; there are ``half_rows`` / 2 such rows for each of the image. Sizes
    are multiples of ``multiple`` (width, height), and at least ``smallest``.
    """

    code: int | None
    channels: int = 1
    item_bytes: int = 1
    half_rows: int = 2
    multiple: tuple[int, int] = (1, 1)
    smallest: int = 1

    def rows(self, height: int) -> int:
        """Rows of ``step`` bytes of an image of this height."""
        return height * self.half_rows // 2

    def row_bytes(self, width: int) -> int:
        """Bytes of a row that are pixels; the rest of ``step`` is padding."""
        return width * self.channels * self.item_bytes


# OpenCV names a Bayer pattern by the second row's second and third pixel; these are its names by the first row's first two.
_BAYER = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}

LAYOUTS: dict[str, Layout] = {
    "rgb8": Layout(None, 3),
    "bgr8": Layout(cv2.COLOR_BGR2RGB, 3),
    "rgba8": Layout(cv2.COLOR_RGBA2RGB, 4),
    "bgra8": Layout(cv2.COLOR_BGRA2RGB, 4),
    "mono8": Layout(cv2.COLOR_GRAY2RGB),
    "8UC1": Layout(cv2.COLOR_GRAY2RGB),
    "8UC3": Layout(cv2.COLOR_BGR2RGB, 3),
    "8UC4": Layout(cv2.COLOR_BGRA2RGB, 4),
    "rgb16": Layout(None, 3, 2),
    "bgr16": Layout(cv2.COLOR_BGR2RGB, 3, 2),
    "rgba16": Layout(cv2.COLOR_RGBA2RGB, 4, 2),
    "bgra16": Layout(cv2.COLOR_BGRA2RGB, 4, 2),
    "mono16": Layout(cv2.COLOR_GRAY2RGB, 1, 2),
    **{f"bayer_{name}8": Layout(code, smallest=_SMALLEST_MOSAIC) for name, code in _BAYER.items()},
    **{f"bayer_{name}16": Layout(code, item_bytes=2, smallest=_SMALLEST_MOSAIC) for name, code in _BAYER.items()},
    **{name: Layout(cv2.COLOR_YUV2RGB_UYVY, 2, multiple=(2, 1)) for name in ("uyvy", "yuv422")},
    **{name: Layout(cv2.COLOR_YUV2RGB_YUYV, 2, multiple=(2, 1)) for name in ("yuyv", "yuv422_yuy2")},
    "nv12": Layout(cv2.COLOR_YUV2RGB_NV12, half_rows=3, multiple=(2, 2)),
    "nv21": Layout(cv2.COLOR_YUV2RGB_NV21, half_rows=3, multiple=(2, 2)),
    "nv24": Layout(None, half_rows=6),
}
"""Every colour encoding that is read."""

# BT.601, video range, with the 16 and the two 128 taken out of the numbers: rows R, G, B; columns Y, Cb, Cr, 1.
_Y, _RED_CR, _GREEN_CB, _GREEN_CR, _BLUE_CB = 255 / 219, 1.596027, -0.391762, -0.812968, 2.017232
_RGB_FROM_YUV: F32 = np.array(
    [
        [_Y, 0.0, _RED_CR, -16 * _Y - 128 * _RED_CR],
        [_Y, _GREEN_CB, _GREEN_CR, -16 * _Y - 128 * (_GREEN_CB + _GREEN_CR)],
        [_Y, _BLUE_CB, 0.0, -16 * _Y - 128 * _BLUE_CB],
    ],
    np.float32,
)


def to_rgb(rows: U8, encoding: str, *, big_endian: bool) -> U8:
    """Convert the bytes of an image, (rows, bytes of a row) without padding, to (H, W, 3) uint8; "rgb8" is not copied.

    ``encoding`` is one of LAYOUTS, and the image's size one that its layout allows.
    """
    layout = LAYOUTS[encoding]
    if encoding == "nv24":
        return _rgb_of_nv24(rows)
    if layout.item_bytes == 1:
        items = rows
    else:  # OpenCV wants whole numbers of this machine where such numbers may lie
        words = rows.view(">u2" if big_endian else "<u2").astype(np.uint16, copy=False)
        items = as_8_bit(np.require(words, requirements="A"))  # first, which is cheaper
    if layout.channels > 1:
        items = items.reshape(items.shape[0], -1, layout.channels)  # (H, W, channels)
    return np.asarray(items if layout.code is None else cv2.cvtColor(items, layout.code), np.uint8)


def as_8_bit(pixels: npt.ArrayLike) -> U8:
    """Scale 16-bit values by 255/65535, rounded; leave 8-bit ones as they are."""
    values = np.asarray(pixels)
    if values.dtype == np.uint16:
        values = cv2.convertScaleAbs(values, alpha=255 / 65535)
    return np.asarray(values, np.uint8)


def _rgb_of_nv24(rows: U8) -> U8:
    """A plane of Y, then one of Cb and Cr in turns, all in full resolution; OpenCV does not know it."""
    height, width = rows.shape[0] // 3, rows.shape[1]
    both = rows[height:].reshape(height, 2, width).reshape(height, width, 2)  # Cb and Cr of a row fill two rows of `step`
    y = np.maximum(rows[:height], 16)  # below black is black
    return np.asarray(cv2.transform(cv2.merge([y, both[..., 0], both[..., 1]]), _RGB_FROM_YUV), np.uint8)

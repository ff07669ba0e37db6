"""The reference image on the grid."""

from __future__ import annotations

import cv2
import numpy as np

from gemini_core.types import AlignedGrid, GridGeometry, ImageSample


def align_color(sample: ImageSample, geometry: GridGeometry) -> AlignedGrid:
    """Cut and resize the image: area average where it shrinks, linear where it grows; channels are red, green, blue / 255."""
    rows = slice(geometry.top, geometry.top + geometry.crop_height)
    columns = slice(geometry.left, geometry.left + geometry.crop_width)
    pixels = sample.pixels[rows, columns]  # (crop_height, crop_width, 3)
    if (geometry.crop_width, geometry.crop_height) != (geometry.width, geometry.height):
        shrinks = geometry.scale_x <= 1.0 and geometry.scale_y <= 1.0
        size = (geometry.width, geometry.height)
        resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        pixels = resized.astype(np.uint8, copy=False)
    channels = np.empty((3, geometry.height, geometry.width), np.float32)
    np.divide(pixels.transpose(2, 0, 1), np.float32(255.0), out=channels, dtype=np.float32)
    return AlignedGrid("rgb", channels, np.ones((geometry.height, geometry.width), np.bool_))

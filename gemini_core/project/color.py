"""RGB on the grid: the reference image, cropped and resized."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gemini_core.compiling import compiled
from gemini_core.types import F32, U8, AlignedGrid, GridGeometry, ImageSample

_I32: TypeAlias = npt.NDArray[np.int32]


def align_color(sample: ImageSample, geometry: GridGeometry) -> AlignedGrid:
    """Cut and resize the image, each axis by area average where it shrinks and linearly where it grows.

    Returns:
        Channels red, green, blue / 255, not rounded to 8 bits in between.
    """
    channels = np.empty((3, geometry.height, geometry.width), np.float32)
    valid = np.ones((geometry.height, geometry.width), np.bool_)
    if (geometry.crop_width, geometry.crop_height) == (geometry.width, geometry.height):
        shown = sample.pixels[geometry.top : geometry.top + geometry.height, geometry.left : geometry.left + geometry.width]
        np.divide(shown.transpose(2, 0, 1), np.float32(255.0), out=channels, dtype=np.float32)  # (h, w, 3) -> (3, h, w)
        return AlignedGrid("rgb", channels, valid)
    pixels = np.ascontiguousarray(sample.pixels)
    rows, row_weights = _taps(geometry.top, geometry.crop_height, geometry.height)
    columns, column_weights = _taps(geometry.left, geometry.crop_width, geometry.width)
    flat = pixels.reshape(pixels.shape[0], -1)  # (H, W, 3) -> (H, W * 3)
    _resize(flat, rows, row_weights / np.float32(255.0), columns, column_weights, channels)
    return AlignedGrid("rgb", channels, valid)


@lru_cache(maxsize=8)
def _taps(start: int, count: int, size: int) -> tuple[_I32, F32]:
    """Say what each of ``size`` output pixels takes from ``count`` input pixels that begin at ``start``.

    Returns:
        First input pixel (size,) int32, and the weights (size, K) float32 of it and the K - 1 that follow; they sum to 1, and
        the last pixels of the input have weights only where they exist.
    """
    scale = count / size
    output = np.arange(size)
    if scale >= 1.0:
        low, high = output * scale, (output + 1) * scale  # edges; pixel j covers [j, j + 1)
    else:
        low = np.clip((output + 0.5) * scale - 0.5, 0.0, count - 1)  # centres; pixel j weighs 1 - |j - low|
        high = low
    first = np.floor(low).astype(np.int32)
    taps = min(int((np.ceil(high) - first).max()), count) if scale >= 1.0 else min(2, count)
    first = np.minimum(first, count - taps)
    index = first[:, None] + np.arange(taps)
    if scale >= 1.0:
        weights = np.clip(np.minimum(high[:, None], index + 1) - np.maximum(low[:, None], index), 0.0, None)
    else:
        weights = np.clip(1.0 - np.abs(index - low[:, None]), 0.0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    return (first + start).astype(np.int32), weights.astype(np.float32)


_IN = "Array(uint8, 2, 'C', readonly=True, aligned=False)"  # also takes arrays that may be written to


@compiled(f"void({_IN}, int32[::1], float32[:,::1], int32[::1], float32[:,::1], float32[:,:,::1])")
def _resize(  # noqa: PLR0917 - compiled functions take arguments by position
    pixels: U8, rows: _I32, row_weights: F32, columns: _I32, column_weights: F32, channels: F32
) -> None:
    """Resize rows first, all columns of an output row at once, then across; K weights each."""
    left, right = columns[0] * 3, (columns[-1] + column_weights.shape[1]) * 3
    line = np.empty(right - left, np.float32)
    for row in range(rows.shape[0]):
        line[:] = np.float32(0.0)
        for tap in range(row_weights.shape[1]):
            weight, source = row_weights[row, tap], pixels[rows[row] + tap, left:right]
            for i in range(line.shape[0]):
                line[i] += weight * np.float32(source[i])
        for column in range(columns.shape[0]):
            start = columns[column] * 3 - left
            red = green = blue = np.float32(0.0)
            for tap in range(column_weights.shape[1]):
                weight, i = column_weights[column, tap], start + 3 * tap
                red, green, blue = red + weight * line[i], green + weight * line[i + 1], blue + weight * line[i + 2]
            channels[0, row, column] = min(red, np.float32(1.0))
            channels[1, row, column] = min(green, np.float32(1.0))
            channels[2, row, column] = min(blue, np.float32(1.0))

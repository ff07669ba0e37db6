"""LiDAR densification: pixels between the points of a sweep filled from the nearest point."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gemini_core.compiling import compiled
from gemini_core.types import F32

_I32 = npt.NDArray[np.int32]


def densify(index: _I32, z: F32, radius: int) -> _I32:
    """Give every pixel that sees no point the point of the nearest pixel that sees one.

    Near is Euclidean distance in the image between the pixels' centres, up to ``radius``; of equally distant pixels the one
    whose point is nearer to the camera counts, and of those the one of the lower index.

    Args:
        index: (H, W) int32, the point that each pixel sees, -1 where it sees none.
        z: (N,) float32, metres along the camera's z of every point.
        radius: pixels.

    Returns:
        (H, W) int32, -1 where there is no point within the radius.
    """
    point, distance = np.full(index.shape, -1, np.int32), np.zeros(index.shape, np.int32)
    _nearest_in_column(index, z, point, distance)
    filled: _I32 = index.copy()
    _nearest_in_row(point, distance, z, radius, filled)
    return filled


_Z = "Array(float32, 1, 'C', readonly=True, aligned=False)"


@compiled(f"b1({_Z}, int32, int32)", inline="always")
def _before(z: F32, one: int, other: int) -> bool:
    return z[one] < z[other] or (z[one] == z[other] and one < other)


@compiled(f"void(int32[:,::1], {_Z}, int32[:,::1], int32[:,::1])")
def _nearest_in_column(index: _I32, z: F32, point: _I32, distance: _I32) -> None:
    """The nearest point above or below each pixel (or at it), and how many rows away it is."""
    height, width = index.shape
    for row in range(height):
        for column in range(width):
            if index[row, column] >= 0:
                point[row, column] = index[row, column]
            elif row > 0 and point[row - 1, column] >= 0:
                point[row, column] = point[row - 1, column]
                distance[row, column] = distance[row - 1, column] + 1
    # Upwards, ``below`` is what the sweep from the bottom knows of each column.
    below, rows = np.full(width, -1, np.int32), np.zeros(width, np.int32)
    for row in range(height - 1, -1, -1):
        for column in range(width):
            rows[column] += 1
            if index[row, column] >= 0:
                below[column], rows[column] = index[row, column], 0
            elif below[column] >= 0:
                here, away = point[row, column], rows[column] - distance[row, column]
                if here < 0 or away < 0 or (away == 0 and _before(z, below[column], here)):
                    point[row, column], distance[row, column] = below[column], rows[column]


@compiled(f"void(int32[:,::1], int32[:,::1], {_Z}, int64, int32[:,::1])")
def _nearest_in_row(point: _I32, distance: _I32, z: F32, radius: int, filled: _I32) -> None:
    """The nearest of the columns' nearest points, from the pixel's own column outwards."""
    height, width = filled.shape
    for row in range(height):
        for column in range(width):
            if filled[row, column] >= 0:
                continue
            best, least = -1, radius * radius
            for away in range(radius + 1):
                if away * away > least:
                    break
                for x in (column - away, column + away):
                    if x < 0 or x >= width or point[row, x] < 0:
                        continue
                    squared = away * away + distance[row, x] * distance[row, x]
                    if squared < least or (squared == least and (best < 0 or _before(z, point[row, x], best))):
                        best, least = point[row, x], squared
            filled[row, column] = best

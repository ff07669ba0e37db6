"""The depth image registered into the reference camera, on the grid."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numba import njit

from gemini_core.config import DepthConfig
from gemini_core.geometry import project_points, transform_points, unproject_depth
from gemini_core.types import F32, F64, AlignedGrid, Bool, CameraModel, DepthSample

_FRINGE = np.float32(0.25)
"""Grid pixels that a footprint reaches beyond its own edge, since neighbours on a slanted surface move apart. Below half a
pixel, so that an image which is registered already stays as it is."""


def align_depth(
    sample: DepthSample, camera: CameraModel, grid_camera: CameraModel, reference_from_depth: F64, config: DepthConfig
) -> AlignedGrid:
    """Place every depth reading where the reference camera sees it; the nearest one wins a pixel.

    A reading covers as much of the grid as its pixel did of the scene, so a depth camera coarser than the grid leaves no
    holes, and what it could not see from its place stays empty.

    Args:
        sample: the depth image, of the size that ``camera`` says.
        camera: the depth camera.
        grid_camera: the reference camera at grid size.
        reference_from_depth: (4, 4) from the depth camera's optical frame to the reference's.
        config: the depth that encodes to 1.

    Returns:
        Channels min(z / max_m, 1) three times; ``depth_m`` along the reference camera's z.

    Raises:
        CalibrationError: the depth image has another size than its camera.
    """
    points = unproject_depth(camera, sample.depth_m)  # (3, N)
    half = 0.5 * grid_camera.fx / camera.fx, 0.5 * grid_camera.fy / camera.fy  # a footprint at the same distance
    # A footprint reaches into the grid from beyond its border, so the camera to project into is that much larger.
    border = math.ceil(2.0 * max(*half, 0.5)) + 1
    pixels, z, visible = project_points(_with_border(grid_camera, border), transform_points(reference_from_depth, points))
    depth_m = np.full((grid_camera.height, grid_camera.width), np.inf, np.float32)
    _splat(pixels, z, visible, points[2], (np.float32(half[0]), np.float32(half[1])), border, depth_m)
    channels = np.empty((3, *depth_m.shape), np.float32)
    valid = np.empty(depth_m.shape, np.bool_)
    _encode(depth_m, np.float32(config.max_m), channels, valid)
    return AlignedGrid("depth", channels, valid, depth_m)


def _with_border(camera: CameraModel, border: int) -> CameraModel:
    return dataclasses.replace(
        camera,
        width=camera.width + 2 * border,
        height=camera.height + 2 * border,
        cx=camera.cx + border,
        cy=camera.cy + border,
    )


@njit(
    "void(float32[:,::1], float32[::1], b1[::1], float32[::1], UniTuple(float32, 2), int64, float32[:,::1])",
    cache=True,
    error_model="numpy",
)
def _splat(  # noqa: PLR0917 - compiled functions take arguments by position
    pixels: F32,
    z: F32,
    visible: Bool,
    z_seen: F32,
    half: tuple[np.float32, np.float32],
    border: int,
    nearest: F32,
) -> None:
    """Keep the least z per pixel; a point's footprint grows as it gets nearer than it was seen (``z_seen``)."""
    least, one = np.float32(0.5), np.float32(1.0)
    last_row, last_column = nearest.shape[0] - 1, nearest.shape[1] - 1
    for i in range(z.shape[0]):
        if not visible[i]:
            continue
        nearer = z_seen[i] / z[i]
        reach_x = max(half[0] * nearer, least) + _FRINGE
        reach_y = max(half[1] * nearer, least) + _FRINGE
        u, v = pixels[0, i], pixels[1, i]
        # Pixels whose centres are within reach; with the border nothing that counts is negative, so int32 rounds down.
        left, right = max(np.int32(u - reach_x + one) - border, 0), min(np.int32(u + reach_x) - border, last_column)
        top, bottom = max(np.int32(v - reach_y + one) - border, 0), min(np.int32(v + reach_y) - border, last_row)
        if left > right or top > bottom:
            continue
        if right - left <= 1 and bottom - top <= 1:
            # Nearly always; writing a pixel twice is faster than a loop whose length the processor cannot guess.
            nearest[top, left] = min(nearest[top, left], z[i])
            nearest[top, right] = min(nearest[top, right], z[i])
            nearest[bottom, left] = min(nearest[bottom, left], z[i])
            nearest[bottom, right] = min(nearest[bottom, right], z[i])
            continue
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                nearest[y, x] = min(nearest[y, x], z[i])


@njit("void(float32[:,::1], float32, float32[:,:,::1], b1[:,::1])", cache=True)
def _encode(depth_m: F32, max_m: float, channels: F32, valid: Bool) -> None:
    """Turn infinite depth into NaN and fill channels and validity, in one pass over memory."""
    for row in range(depth_m.shape[0]):
        for column in range(depth_m.shape[1]):
            z = depth_m[row, column]
            seen = z < np.inf
            valid[row, column] = seen
            depth_m[row, column] = z if seen else np.float32(np.nan)
            value = min(z / max_m, np.float32(1.0)) if seen else np.float32(0.0)
            channels[0, row, column] = value
            channels[1, row, column] = value
            channels[2, row, column] = value

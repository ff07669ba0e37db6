"""Depth registration: the depth image in the reference camera, on the grid; holes, not ghosts.

Every pixel of the depth image covers as much of the grid as it did of the scene, and the nearest surface keeps a grid pixel.
What the depth camera could not see from its place stays empty.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from gemini_core.compiling import compiled
from gemini_core.config.sections import DepthConfig
from gemini_core.errors import CalibrationError
from gemini_core.project.hha import encode_hha
from gemini_core.rig.geometry import optics, project_into, ray_table
from gemini_core.types import (
    F32,
    F64,
    NO_READING,
    READING,
    TOO_FAR,
    TOO_NEAR,
    U8,
    AlignedGrid,
    Bool,
    CameraModel,
    DepthSample,
)

_FRINGE = np.float32(0.25)
"""Grid pixels that a footprint reaches beyond its own edge, since neighbours on an uneven surface move apart. Below half a
pixel, so that an image which is registered already stays as it is."""

_LARGEST_FOOTPRINT = 8.0
"""How many times wider than from the depth camera's own distance a footprint may get: a bound of the work for any geometry, and
of what a point right before the reference camera can cover."""

_FAR = np.float32(np.finfo(np.float32).max)
"""Stands for "too far" in the z-buffer: behind every reading, before nothing at all (inf). "Too near" is -inf there."""


def align_depth(
    sample: DepthSample, camera: CameraModel, grid_camera: CameraModel, reference_from_depth: F64, config: DepthConfig
) -> AlignedGrid:
    """Place every depth pixel where the reference camera sees it; the nearest one wins a grid pixel.

    A pixel's footprint on the grid is its own size, larger where the reference camera is nearer and where the surface is
    stretched: as far as half way to its neighbours on both sides, the nearer of the two, so that no gap opens on a surface and
    none is bridged between two. REP 118's other values are placed too: "too far" along its ray at infinity, where only the
    rotation counts and every reading hides it; "too near" at ``config.min_m``, where it hides every reading.

    Args:
        sample: the depth image, of the size that ``camera`` says.
        camera: the depth camera.
        grid_camera: the reference camera at grid size.
        reference_from_depth: (4, 4) from the depth camera's optical frame to the reference's.
        config: encoding and range of the channels.

    Returns:
        Channels as ``config.encoding`` says (:func:`encode_depth`); ``depth_m`` along the reference camera's z; ``reading``.

    Raises:
        CalibrationError: the depth image has another size than its camera.
    """
    depth_m = sample.depth_m
    if depth_m.shape != (camera.height, camera.width):
        msg = (
            f"expected a depth image of the camera's {camera.width} x {camera.height}, got {depth_m.shape[1]} x "
            f"{depth_m.shape[0]}"
        )
        raise CalibrationError(msg)
    half = max(0.5 * grid_camera.fx / camera.fx, 0.5), max(0.5 * grid_camera.fy / camera.fy, 0.5)  # at the same distance
    # A footprint reaches into the grid from beyond its border, so the camera to project into is that much larger.
    border = math.ceil(_LARGEST_FOOTPRINT * max(half)) + 1
    nearest = np.full((grid_camera.height, grid_camera.width), np.inf, np.float32)
    _register(
        np.ascontiguousarray(depth_m, np.float32),
        ray_table(camera),
        np.ascontiguousarray(reference_from_depth, np.float64),
        np.float32(config.min_m),
        *optics(_with_border(grid_camera, border)),
        (np.float32(half[0]), np.float32(half[1])),
        border,
        nearest,
    )
    return encode_depth(nearest, grid_camera, config)


def encode_depth(nearest: F32, grid_camera: CameraModel, config: DepthConfig) -> AlignedGrid:
    """Make the grid of a z-buffer (h, w): metres, +inf where nothing is, the largest float32 "too far", -inf "too near".

    Channels, 0 wherever there is no reading, be it that there is none or that it is too near or too far: pictures that
    networks were trained on do not tell these apart, and neither do sensors that send 16UC1.

    * "linear": min(z / max_m, 1) three times, the 8-bit depth picture of released RGB-D models divided by 255.
    * "inverse": (1/z - 1/max_m) / (1/min_m - 1/max_m) held in [0, 1], three times; 1 is near.
    * "hha": see ``gemini_core/project/hha.py``.
    """
    channels = np.empty((3, *nearest.shape), np.float32)
    valid, reading = np.empty(nearest.shape, np.bool_), np.empty(nearest.shape, np.uint8)
    if config.encoding == "linear":
        slope, offset = 1.0 / config.max_m, 0.0
    else:
        slope = 1.0 / (1.0 / config.min_m - 1.0 / config.max_m)
        offset = -slope / config.max_m
    inverse = config.encoding != "linear"
    _encode(nearest, inverse, np.float32(slope), np.float32(offset), channels, valid, reading)
    if config.encoding == "hha":
        encode_hha(nearest, grid_camera, channels)
    return AlignedGrid("depth", channels, valid, nearest, reading)


def _with_border(camera: CameraModel, border: int) -> CameraModel:
    return dataclasses.replace(
        camera,
        width=camera.width + 2 * border,
        height=camera.height + 2 * border,
        cx=camera.cx + border,
        cy=camera.cy + border,
    )


_F32_2D = "Array(float32, 2, 'C', readonly=True, aligned=False)"  # these also take arrays that may be written to
_F32_3D = "Array(float32, 3, 'C', readonly=True, aligned=False)"
_F64_2D = "Array(float64, 2, 'C', readonly=True, aligned=False)"
_OPTICS = "UniTuple(float64, 4), UniTuple(float32, 2), int64, UniTuple(float64, 18), float64"
_HALF = "UniTuple(float32, 2)"

# Row by row, so that everything but the z-buffer stays in the nearest cache; rows have one NaN more on each side. The loops are
# without branches, so that the compiler makes vector code of them, but for the last, which writes.


@compiled(f"void({_F32_2D}, {_F32_3D}, int64, {_F64_2D}, float32, float32[:,::1], float32[::1])", error_model="numpy")
def _place_row(  # noqa: PLR0917 - compiled functions take arguments by position
    depth: F32, rays: F32, row: int, matrix: F64, near_m: np.float32, points: F32, seen: F32
) -> None:
    """Bring one row of the depth image to the reference's frame, and keep the z that it was seen at."""
    infinite = np.float32(np.inf)
    for i in range(depth.shape[1]):
        reading = depth[row, i]
        far = reading == infinite
        seen_z = np.float32(1.0) if far else (near_m if reading == -infinite else reading)
        seen_z = seen_z if seen_z > np.float32(0.0) else np.float32(np.nan)
        x, y, z = np.float64(rays[0, row, i]) * seen_z, np.float64(rays[1, row, i]) * seen_z, np.float64(seen_z)
        moves = 0.0 if far else 1.0
        points[0, i + 1] = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + matrix[0, 3] * moves
        points[1, i + 1] = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + matrix[1, 3] * moves
        points[2, i + 1] = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3] * moves
        seen[i + 1] = seen_z


@compiled("float32(float32, float32)", inline="always")
def _stretch(before: np.float32, after: np.float32) -> np.float32:
    """The smaller of the steps to the neighbours on two sides; 0 where they go different ways or one is unknown (NaN)."""
    smaller: np.float32 = min(abs(before), abs(after))
    return smaller if before * after > np.float32(0.0) else np.float32(0.0)


@compiled(
    "void(float32[:,::1], float32[:,::1], float32[:,::1], float32[::1], b1[::1], UniTuple(float32, 2), int64, float32[:,::1], "
    "int32[:,::1])",
    error_model="numpy",
)
def _span_row(  # noqa: PLR0917 - compiled functions take arguments by position
    above: F32,
    now: F32,
    below: F32,
    nearer: F32,
    visible: Bool,
    half: tuple[np.float32, np.float32],
    border: int,
    nearest: F32,
    spans: npt.NDArray[np.int32],
) -> None:
    """Say which grid pixels each depth pixel covers: left, right, top, bottom, inclusive; left beyond right where none."""
    one, middle, largest = np.float32(1.0), np.float32(0.5), np.float32(_LARGEST_FOOTPRINT)
    last_row, last_column = np.int32(nearest.shape[0] - 1), np.int32(nearest.shape[1] - 1)
    shift, zero, out = np.int32(border), np.int32(0), np.int32(1 << 30)
    for i in range(1, now.shape[1] - 1):
        u, v = now[0, i], now[1, i]
        wide = _stretch(u - now[0, i - 1], now[0, i + 1] - u) + _stretch(u - above[0, i], below[0, i] - u)
        high = _stretch(v - now[1, i - 1], now[1, i + 1] - v) + _stretch(v - above[1, i], below[1, i] - v)
        growth = max(nearer[i], one) if visible[i] else one
        reach_x = min(max(half[0] * growth, wide * middle), half[0] * largest) + _FRINGE
        reach_y = min(max(half[1] * growth, high * middle), half[1] * largest) + _FRINGE
        # Pixels whose centres are within reach; with the border nothing that counts is negative, so int32 rounds down.
        u, v = (u, v) if visible[i] else (middle, middle)
        spans[0, i] = max(np.int32(u - reach_x + one) - shift, zero) if visible[i] else out
        spans[1, i] = min(np.int32(u + reach_x) - shift, last_column)
        spans[2, i] = max(np.int32(v - reach_y + one) - shift, zero)
        spans[3, i] = min(np.int32(v + reach_y) - shift, last_row)


@compiled(f"void({_F32_2D}, int64, int32[:,::1], float32[::1], float32[:,::1])")
def _draw_row(depth: F32, row: int, spans: npt.NDArray[np.int32], z: F32, nearest: F32) -> None:
    """Keep the least z per grid pixel."""
    for i in range(1, spans.shape[1] - 1):
        left, right, top, bottom = spans[0, i], spans[1, i], spans[2, i], spans[3, i]
        if left > right or top > bottom:
            continue
        reading = depth[row, i - 1]
        key = z[i] if abs(reading) < np.inf else (_FAR if reading > np.float32(0.0) else -np.float32(np.inf))
        if right - left <= 1 and bottom - top <= 1:
            # Nearly always. All are read before any is written, so that writing a pixel twice does no harm and costs nothing.
            a, b, c, d = nearest[top, left], nearest[top, right], nearest[bottom, left], nearest[bottom, right]
            nearest[top, left] = min(key, a)
            nearest[top, right] = min(key, b)
            nearest[bottom, left] = min(key, c)
            nearest[bottom, right] = min(key, d)
            continue
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                nearest[y, x] = min(nearest[y, x], key)


@compiled(
    f"void({_F32_2D}, {_F32_3D}, {_F64_2D}, float32, {_OPTICS}, {_HALF}, int64, float32[:,::1])",
    error_model="numpy",
)
def _register(  # noqa: PLR0917 - compiled functions take arguments by position
    depth: F32,
    rays: F32,
    matrix: F64,
    near_m: np.float32,
    intrinsics: tuple[float, float, float, float],
    end: tuple[np.float32, np.float32],
    lens: int,
    coefficients: tuple[float, ...],  # 18
    limit: float,
    half: tuple[np.float32, np.float32],
    border: int,
    nearest: F32,
) -> None:
    """Fill the z-buffer; a row is drawn when the next one is known, so there are always three."""
    height, width = depth.shape
    points = np.full((3, width + 2), np.nan, np.float32)
    pixels = np.full((3, 2, width + 2), np.nan, np.float32)
    z, seen = np.empty((3, width + 2), np.float32), np.ones((3, width + 2), np.float32)
    visible = np.zeros((3, width + 2), np.bool_)
    spans = np.empty((4, width + 2), np.int32)
    for row in range(height + 1):
        above, now, below = (row + 1) % 3, (row + 2) % 3, row % 3
        if row < height:
            _place_row(depth, rays, row, matrix, near_m, points, seen[below])
            project_into(points, intrinsics, end, lens, coefficients, limit, pixels[below], z[below], visible[below])
        else:
            pixels[below] = np.nan
        if row > 0:
            _span_row(pixels[above], pixels[now], pixels[below], seen[now] / z[now], visible[now], half, border, nearest, spans)
            _draw_row(depth, row - 1, spans, z[now], nearest)


@compiled("void(float32[:,::1], b1, float32, float32, float32[:,:,::1], b1[:,::1], uint8[:,::1])", error_model="numpy")
def _encode(  # noqa: PLR0917 - compiled functions take arguments by position
    depth_m: F32, inverse: bool, slope: np.float32, offset: np.float32, channels: F32, valid: Bool, reading: U8
) -> None:
    """Turn what is no reading into NaN and fill the rest, in one pass over memory."""
    zero, one = np.float32(0.0), np.float32(1.0)
    for row in range(depth_m.shape[0]):
        for column in range(depth_m.shape[1]):
            z = depth_m[row, column]
            seen = abs(z) < _FAR
            other = TOO_NEAR if z < zero else (TOO_FAR if z == _FAR else NO_READING)
            reading[row, column] = READING if seen else other
            valid[row, column] = seen
            depth_m[row, column] = z if seen else np.float32(np.nan)
            value = slope * (one / z if inverse else z) + offset
            value = min(max(value, zero), one) if seen else zero
            channels[0, row, column] = value
            channels[1, row, column] = value
            channels[2, row, column] = value

# ruff: noqa: PLR0917 - compiled functions take arrays and coordinates one by one, since records of them are slow
"""What a ray sees: the colour, class and brightness of a surface, compiled with numba.

Textures are functions of the world position of the hit, so they cost nothing to store and stay where they are when the
camera moves. Where a detail is finer than a pixel it is averaged over the pixel's footprint: without that, distant texture
would flicker, and an event camera reports every flicker. Colours are linear light; 1 is a white sheet in the sun.

Approximations: one sun with hard shadows on the ground (from a map made once for what stands still, exact boxes for what
moves); on other things only the shadows of buildings and trees; no light that bounces; haze instead of a far landscape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np

from gemini_core.simulation.scene import (
    ACTOR,
    ASPHALT,
    BARK,
    BEND_LENGTH_M,
    BEND_M,
    BLOCK_M,
    BLUE,
    CAR,
    CELL,
    CLASS,
    CROSSING_EVERY_BLOCKS,
    FACADE,
    FIRST_FLOOR,
    FLOOR,
    GLASS,
    GREEN,
    GROUND,
    HEIGHT,
    I32,
    LANE_EDGE_M,
    LANE_MARKING,
    LEAVES,
    MATERIAL,
    MIRROR,
    OFFSET,
    PAINT,
    PAVING,
    PLAIN,
    RED,
    ROAD_HALF_M,
    ROOFING,
    SALT,
    SKY,
    STYLE,
    TANGENT_X,
    TANGENT_Y,
)
from gemini_core.types import F32, F64, I64, U8, Bool

Vector = tuple[float, float, float]
_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """Compile with numba; kept on disk, since it takes seconds."""
    return cast("_Function", numba.njit(cache=True, fastmath=True, error_model="numpy")(function))


def scalar(function: _Function) -> _Function:
    """Compile a function that makes no arrays and is called per pixel.

    numba otherwise counts references to every array argument at every call, which takes three times as long as the work.
    """
    options: dict[str, Any] = {"_nrt": False, "forceinline": True}  # the first is known to numba, but not to its type hints
    return cast("_Function", numba.njit(cache=True, fastmath=True, error_model="numpy", **options)(function))


class World(NamedTuple):
    """Everything the compiled code reads. T triangles (those that move come last), S surfaces, M things that move.

    ``triangles`` (T, 12) float32: first corner, the two edges from it, unit normal; ``surface_of`` (T,) int32 rows of
    ``surfaces`` (S, SURFACE_COLUMNS) float32;
    ``noise`` (N, N) float32, repeating, mean 0, deviation 1; ``light`` (X, D, 3) float32 in [0, 1]: sun on the ground, sun
    past buildings and trees, open share of the sky, at (x, lateral) from ``light_origin`` in steps of LIGHT_STEP_M;
    ``movers`` (M, 7) float64: x, y, cos yaw, sin yaw, half length, half width, height; ``sun``: unit vector towards the sun.
    """

    triangles: F32
    surface_of: I32
    surfaces: F32
    noise: F32
    light: F32
    light_origin: tuple[float, float]
    movers: F64
    sun: Vector


LIGHT_STEP_M = 0.2
NOISE_SIZE = 256
_ROAD_K = 2 * math.pi / BEND_LENGTH_M
_SUN_COLOR = (1.55, 1.42, 1.20)
_AMBIENT_COLOR = (0.30, 0.35, 0.43)
_HAZE_COLOR = (0.74, 0.82, 0.92)
_HAZE_M = 650.0
_GAP = 1e-4  # triangles are this much larger, so that neighbours leave no gap
_CROSSING_EVERY_M = CROSSING_EVERY_BLOCKS * BLOCK_M


def noise_tile(seed: int) -> F32:
    """Repeating noise (N, N) whose amplitude falls with frequency, as natural surfaces have it; mean 0, deviation 1."""
    rng = np.random.default_rng([seed, 3])
    frequency = np.hypot(np.fft.fftfreq(NOISE_SIZE)[:, None], np.fft.rfftfreq(NOISE_SIZE)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((NOISE_SIZE, NOISE_SIZE))) / np.maximum(frequency, 1.5 / NOISE_SIZE) ** 0.85
    tile = np.fft.irfft2(spectrum, s=(NOISE_SIZE, NOISE_SIZE))
    return cast("F32", ((tile - tile.mean()) / tile.std()).astype(np.float32))


@scalar
def _noise(tile: F32, u: float, v: float) -> float:
    """Noise at (u, v) texels, bilinear."""
    i, j = math.floor(u), math.floor(v)
    a, b = u - i, v - j
    i0, j0 = int(i) & (NOISE_SIZE - 1), int(j) & (NOISE_SIZE - 1)
    i1, j1 = (i0 + 1) & (NOISE_SIZE - 1), (j0 + 1) & (NOISE_SIZE - 1)
    value: float = (tile[i0, j0] * (1 - b) + tile[i0, j1] * b) * (1 - a) + (tile[i1, j0] * (1 - b) + tile[i1, j1] * b) * a
    return value


@scalar
def _hash(i: int, j: int, salt: int) -> float:
    """A number in [0, 1) that looks random, for a cell."""
    n = (i * 374761393 + j * 668265263 + salt * 974634777) & 0xFFFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((n ^ (n >> 16)) & 0xFFFF) / 65536.0


@scalar
def _inside(x: float, low: float, high: float, width: float) -> float:
    """Share of a window of ``width`` around x that lies between low and high."""
    return max(0.0, min(high, x + 0.5 * width) - max(low, x - 0.5 * width)) / width


@scalar
def _fade(footprint: float, detail: float) -> float:
    """How much of a detail's contrast is left when a pixel covers ``footprint`` metres."""
    ratio = footprint / detail
    return 1.0 / (1.0 + ratio * ratio)


@scalar
def _markings(x: float, d: float, along: float, across: float) -> float:
    """Share of white paint on the road at (x, lateral d); ``along`` and ``across`` are the pixel's footprint."""
    paint = _inside(abs(d), LANE_EDGE_M - 0.06, LANE_EDGE_M + 0.06, across)
    crossing = x - math.floor(x / _CROSSING_EVERY_M) * _CROSSING_EVERY_M
    clear = 1.0 - _inside(crossing, 0.0, 7.5, along)
    dash = x - math.floor(x / 7.5) * 7.5
    paint = max(paint, _inside(abs(d), -0.075, 0.075, across) * _inside(dash, 0.0, 3.0, along) * clear)
    stripe = abs(d) - math.floor(abs(d)) - 0.5
    zebra = _inside(crossing, 1.5, 4.5, along) * _inside(stripe, -0.25, 0.25, across)
    if across > 0.5:  # noqa: PLR2004 - a stripe's width: finer than the pixel
        zebra = 0.5 * _inside(crossing, 1.5, 4.5, along)
    if abs(d) < ROAD_HALF_M - 0.3:
        paint = max(paint, zebra)
    stop = _inside(crossing, 0.2, 0.55, along) if -LANE_EDGE_M < d < 0 else _inside(crossing, 5.5, 5.85, along)
    if abs(d) < LANE_EDGE_M:
        paint = max(paint, stop)
    bay = (x - 2.2) / 5.6
    bay = (bay - math.floor(bay) - 0.5) * 5.6
    if abs(d) > LANE_EDGE_M:
        paint = max(paint, _inside(bay, -0.05, 0.05, along) * clear)
    return paint


@scalar
def _masonry(surfaces: F32, n: int, u: float, pz: float, grain: float, footprint: float) -> Vector:
    """Colour of a wall between its windows."""
    style, salt, fine = int(surfaces[n, STYLE]), int(surfaces[n, SALT]), _fade(footprint, 0.05)
    r, g, b = surfaces[n, RED] * grain, surfaces[n, GREEN] * grain, surfaces[n, BLUE] * grain
    if style < 2 and pz > 0.6:  # bricks  # noqa: PLR2004 - two of four styles
        course = math.floor(pz / 0.10)
        brick = math.floor(u / 0.26 + 0.5 * (int(course) & 1))
        tone = 1.0 + fine * 0.35 * (_hash(int(brick), int(course), salt) - 0.5)
        joint = fine * (1.0 - _inside(pz - course * 0.10, 0.0, 0.085, max(footprint, 0.01)))
        r, g, b = r * tone + joint * 0.12, g * tone + joint * 0.12, b * tone + joint * 0.12
    if pz < 0.6:  # plinth  # noqa: PLR2004 - metres
        r, g, b = 0.28 * grain, 0.27 * grain, 0.26 * grain
    if pz > surfaces[n, HEIGHT] - 0.45:  # cornice
        r, g, b = r * 0.6 + 0.28, g * 0.6 + 0.27, b * 0.6 + 0.25
    return r, g, b


@scalar
def _facade(
    surfaces: F32, n: int, tile: F32, px: float, py: float, pz: float, footprint: float
) -> tuple[float, float, float, float]:
    """Colour and gloss of a wall with windows."""
    u = surfaces[n, TANGENT_X] * px + surfaces[n, TANGENT_Y] * py + surfaces[n, OFFSET]
    style, salt = int(surfaces[n, STYLE]), int(surfaces[n, SALT])
    grain = 1.0 + 0.10 * _noise(tile, u * 9.0 + salt, pz * 9.0) * (0.35 + 0.65 * _fade(footprint, 0.3))
    r, g, b = _masonry(surfaces, n, u, pz, grain, footprint)
    column = math.floor(u / surfaces[n, CELL])
    s = (u - column * surfaces[n, CELL]) / surfaces[n, CELL]
    ground_floor = pz < surfaces[n, FIRST_FLOOR]
    if ground_floor:
        level, v, floor_height = 0, pz / surfaces[n, FIRST_FLOOR], surfaces[n, FIRST_FLOOR]
    else:
        floors_up = math.floor((pz - surfaces[n, FIRST_FLOOR]) / surfaces[n, FLOOR])
        level, floor_height = int(floors_up) + 1, surfaces[n, FLOOR]
        v = (pz - surfaces[n, FIRST_FLOOR]) / surfaces[n, FLOOR] - floors_up
    shop = style % 2 == 0
    left, right, low, high = 0.27, 0.73, 0.24, 0.80
    chance = _hash(int(column), level, salt)
    if ground_floor and shop:
        left, right, low, high = 0.06, 0.94, 0.16, 0.72
    door = ground_floor and chance < 0.3  # noqa: PLR2004 - share of doors
    if door:
        left, right, low, high = 0.30, 0.70, 0.04, 0.66
    if pz > surfaces[n, HEIGHT] - 0.6:
        return r, g, b, 0.0
    ws, wv = footprint / surfaces[n, CELL], footprint / floor_height
    frame_s, frame_v = 0.09 / surfaces[n, CELL], 0.09 / floor_height
    frame = _inside(s, left - frame_s, right + frame_s, ws) * _inside(v, low - frame_v, high + frame_v, wv)
    pane = _inside(s, left, right, ws) * _inside(v, low, high, wv)
    bar = 0.5 * frame_s
    pane *= 1.0 - _inside(s, 0.5 * (left + right) - bar, 0.5 * (left + right) + bar, ws)
    if ground_floor and shop and 0.76 < v < 0.92:  # the sign over the shop  # noqa: PLR2004 - shares of the floor
        r, g, b = 0.12 + 0.5 * _hash(salt, 1, 7), 0.10 + 0.35 * _hash(salt, 2, 7), 0.10 + 0.4 * _hash(salt, 3, 7)
    sill = _inside(v, low - 0.09, low - 0.03, wv) * _inside(s, left - 2 * frame_s, right + 2 * frame_s, ws)
    frame = max(frame - pane, 0.0)
    light = 1.0 - 0.45 * sill
    white = 0.62 if style != 1 else 0.10
    glass = 0.035 + 0.05 * chance + (0.14 if 0.62 < chance < 0.80 else 0.0) * (v > 0.5)  # noqa: PLR2004 - blinds half down
    if door:
        white, glass = 0.25, 0.06
    wall = max(1.0 - frame - pane, 0.0) * light
    r = r * wall + white * frame + glass * pane * (1.5 if door else 0.9)
    g = g * wall + white * frame + glass * pane
    b = b * wall + white * 0.97 * frame + glass * pane * (0.7 if door else 1.2)
    return r, g, b, 0.0 if door else pane


@scalar
def _ground(
    surfaces: F32, n: int, tile: F32, px: float, d: float, dx: float, dy: float, footprint: float, stretch: float
) -> tuple[float, float, float, int]:
    """Colour and class of asphalt with its markings, paving or grass."""
    material, label = int(surfaces[n, MATERIAL]), int(surfaces[n, CLASS])
    r, g, b = surfaces[n, RED], surfaces[n, GREEN], surfaces[n, BLUE]
    coarse = _noise(tile, px * 3.1, d * 3.1)
    fine = _noise(tile, px * 38.0, d * 38.0) * _fade(0.5 * (footprint + stretch), 0.06)
    if material == ASPHALT:
        track = abs(abs(abs(d) - 1.75) - 0.75)
        tone = 1.0 + 0.10 * coarse + 0.11 * fine - 0.12 * _fade(track, 0.25)
        tone += 0.10 * max(0.0, min(1.0, (abs(d) - LANE_EDGE_M) * 4.0))
        along_x = abs(dx) / math.sqrt(dx * dx + dy * dy + 1e-12)
        along, across = stretch * along_x + footprint, stretch * (1.0 - along_x) + footprint
        paint = _markings(px, d, along, across)
        if paint > 0.5:  # noqa: PLR2004 - most of the pixel
            label = LANE_MARKING
        paint *= 0.88 + 0.10 * fine - 0.06 * coarse
        r, g, b = (
            r * tone * (1 - paint) + 0.72 * paint,
            g * tone * (1 - paint) + 0.72 * paint,
            b * tone * (1 - paint) + 0.69 * paint,
        )
    elif material == PAVING:
        i, j = math.floor(px / 0.8), math.floor(d / 0.5)
        tone = 1.0 + 0.08 * coarse + 0.08 * fine + 0.14 * (_hash(int(i), int(j), 5) - 0.5) * _fade(stretch, 0.8)
        joint = (
            2.0 - _inside(px / 0.8 - i, 0.0, 0.96, max(0.02, stretch)) - _inside(d / 0.5 - j, 0.0, 0.94, max(0.03, footprint))
        )
        tone *= 1.0 - 0.35 * min(joint, 1.0) * _fade(stretch, 0.5)
        r, g, b = r * tone, g * tone, b * tone
    else:
        tone = 1.0 + 0.22 * coarse + 0.30 * fine
        r, g, b = r * tone * (1.0 + 0.15 * coarse), g * tone, b * tone
    return r, g, b, label


@scalar
def _albedo(
    surfaces: F32,
    n: int,
    tile: F32,
    px: float,
    py: float,
    pz: float,
    d: float,
    nz: float,
    dx: float,
    dy: float,
    footprint: float,
    stretch: float,
) -> tuple[float, float, float, float, int]:
    """Colour, gloss (share of mirrored sky) and class at a hit.

    (dx, dy) is the ray's direction, ``footprint`` the width of a pixel at the hit, ``stretch`` its length on the surface.
    """
    material, label = int(surfaces[n, MATERIAL]), int(surfaces[n, CLASS])
    r, g, b, gloss = surfaces[n, RED], surfaces[n, GREEN], surfaces[n, BLUE], 0.0
    if label <= GROUND and material != PLAIN:
        r, g, b, label = _ground(surfaces, n, tile, px, d, dx, dy, footprint, stretch)
    elif material == FACADE:
        r, g, b, gloss = _facade(surfaces, n, tile, px, py, pz, footprint)
    elif material == LEAVES:
        tone = 1.0 + 0.4 * _noise(tile, px * 21.0 + pz * 9.0, py * 21.0 - pz * 17.0) * _fade(footprint, 0.1)
        tone = max(0.15, tone + 0.3 * _noise(tile, px * 6.0 - pz * 5.0, py * 6.0 + pz * 4.0))
        r, g, b = r * tone, g * tone, b * tone
    elif material == ROOFING:
        tone = (
            1.0
            + 0.14 * _noise(tile, px * 8.0, py * 8.0)
            + 0.10 * (_inside(pz * 3.0 - math.floor(pz * 3.0), 0.0, 0.2, 0.1 + 3 * footprint))
        )
        r, g, b = r * tone, g * tone, b * tone
    elif material == BARK:
        tone = 1.0 + 0.25 * _noise(tile, (px + py) * 30.0, pz * 6.0) * _fade(footprint, 0.05)
        r, g, b = r * tone, g * tone, b * tone
    elif material == PAINT:
        gloss = 0.10 + 0.12 * abs(nz)
    elif material == GLASS:
        gloss = 0.85
    return r, g, b, gloss, label


@scalar
def sky_color(tile: F32, dx: float, dy: float, dz: float) -> tuple[float, float, float]:
    """The sky in a direction of unit length: a gradient with clouds."""
    up = max(dz, 0.0)
    t = 1.0 - math.exp(-3.2 * up)
    r, g, b = 0.78 - 0.54 * t, 0.85 - 0.40 * t, 0.95 - 0.17 * t
    s = 1.0 / (up + 0.12)
    n = _noise(tile, dx * s * 26.0, dy * s * 26.0) + 0.4 * _noise(tile, dx * s * 90.0, dy * s * 90.0)
    cloud = min(max((n - 0.2) * 0.7, 0.0), 0.9) * min(up * 6.0, 1.0)
    tone = 1.02 - 0.10 * min(max(n - 0.9, 0.0), 1.0)
    return r + (tone - r) * cloud, g + (tone - g) * cloud, b + (tone - b) * cloud


@scalar
def _sky_light(
    light: F32,
    origin: tuple[float, float],
    movers: F64,
    sun_at: Vector,
    px: float,
    py: float,
    pz: float,
    d: float,
    ground: bool,
) -> tuple[float, float]:
    """Share of the sun and of the sky that reach a point."""
    if not ground:  # follow the sun's ray down to the ground
        px, d = px - sun_at[0] * pz / sun_at[2], d - sun_at[1] * pz / sun_at[2]
    u, v = (px - origin[0]) / LIGHT_STEP_M, (d - origin[1]) / LIGHT_STEP_M
    sun, sky = 1.0, 1.0
    if 0 <= u < light.shape[0] - 1 and 0 <= v < light.shape[1] - 1:
        i, j = int(u), int(v)
        a, b = u - i, v - j
        k = 0 if ground else 1
        low = light[i, j, k] * (1 - b) + light[i, j + 1, k] * b
        high = light[i + 1, j, k] * (1 - b) + light[i + 1, j + 1, k] * b
        sun = low * (1 - a) + high * a
        if ground:
            low = light[i, j, 2] * (1 - b) + light[i, j + 1, 2] * b
            high = light[i + 1, j, 2] * (1 - b) + light[i + 1, j + 1, 2] * b
            sky = low * (1 - a) + high * a
    if ground:
        for m in range(movers.shape[0]):
            x, y = px - movers[m, 0], py - movers[m, 1]
            if x * x + y * y > 36.0:  # noqa: PLR2004 - square of more than a car's shadow, metres
                continue
            c, s = movers[m, 2], movers[m, 3]
            x, y = c * x + s * y, c * y - s * x
            half_x, half_y, height = movers[m, 4], movers[m, 5], movers[m, 6]
            out_x, out_y = max(abs(x) - half_x, 0.0), max(abs(y) - half_y, 0.0)
            sky *= 1.0 - 0.6 * _fade(out_x * out_x + out_y * out_y, 0.15)
            # Does the ray to the sun pass through the box, from its ground to its height?
            lx = (c * sun_at[0] + s * sun_at[1]) / sun_at[2]
            ly = (c * sun_at[1] - s * sun_at[0]) / sun_at[2]
            ax, bx = (-half_x - x) / lx, (half_x - x) / lx
            ay, by = (-half_y - y) / ly, (half_y - y) / ly
            enter = max(min(ax, bx), min(ay, by), 0.15)
            if enter < min(max(ax, bx), max(ay, by), height):
                sun = 0.0
    return sun, sky


@scalar
def _illumination(
    triangles: F32, surfaces: F32, light: F32, origin: tuple[float, float], movers: F64, sun_at: Vector,
    k: int, n: int, px: float, py: float, pz: float, d: float, facing: float, distance: float,
) -> tuple[float, float, float]:  # fmt: skip
    """Sunlight and skylight that a hit on triangle k with surface n reflects, and the share of haze before it.

    ``facing`` is the product of the triangle's normal and the direction that the hit is seen along.
    """
    side = -1.0 if facing > 0 else 1.0
    nx, ny, nz = side * triangles[k, 9], side * triangles[k, 10], side * triangles[k, 11]
    label = int(surfaces[n, CLASS])
    flat = label <= GROUND and nz > 0.9  # noqa: PLR2004 - not the curb's front
    sun, sky = _sky_light(light, origin, movers, sun_at, px, py, pz, d, flat)
    sun *= max(nx * sun_at[0] + ny * sun_at[1] + nz * sun_at[2], 0.0)
    if int(surfaces[n, MATERIAL]) == LEAVES:  # light passes through
        sun = 0.45 * sun + 0.25
    sky *= 0.72 + 0.28 * nz
    if label >= CAR:  # the dark ground around things that stand on it
        sky *= 0.65 + 0.35 * min(pz, 1.0)
    return sun, sky, 1.0 - math.exp(-distance / _HAZE_M)


@scalar
def _lit_color(
    triangles: F32, surfaces: F32, tile: F32, sun_at: Vector, k: int, n: int, px: float, py: float, pz: float, d: float,
    dx: float, dy: float, dz: float, facing: float, footprint: float, sun: float, sky: float, haze: float,
) -> tuple[float, float, float, int]:  # fmt: skip
    """Linear colour and class of a hit, given its illumination; (dx, dy, dz) has unit length."""
    side = -1.0 if facing > 0 else 1.0
    nx, ny, nz, facing = side * triangles[k, 9], side * triangles[k, 10], side * triangles[k, 11], side * facing
    r, g, b, gloss, label = _albedo(surfaces, n, tile, px, py, pz, d, nz, dx, dy, footprint, footprint / max(-facing, 0.03))
    r *= sun * _SUN_COLOR[0] + sky * _AMBIENT_COLOR[0]
    g *= sun * _SUN_COLOR[1] + sky * _AMBIENT_COLOR[1]
    b *= sun * _SUN_COLOR[2] + sky * _AMBIENT_COLOR[2]
    if gloss > 0.0:
        mx, my, mz = dx - 2.0 * facing * nx, dy - 2.0 * facing * ny, dz - 2.0 * facing * nz
        grazing = (1.0 + facing) * (1.0 + facing)
        fresnel = gloss * (0.12 + 0.88 * grazing * grazing)
        if mz > 0.02:  # noqa: PLR2004 - just above the horizon
            sr, sg, sb = sky_color(tile, mx, my, mz)
            seen = min(1.0, 0.25 + 1.6 * mz)  # what stands around hides the low sky
            sr, sg, sb = sr * seen, sg * seen, sb * seen
        else:
            sr, sg, sb = 0.12, 0.12, 0.12
        r, g, b = r + fresnel * (sr - r), g + fresnel * (sg - g), b + fresnel * (sb - b)
        glint = mx * sun_at[0] + my * sun_at[1] + mz * sun_at[2]
        if glint > 0.97 and sun > 0:  # noqa: PLR2004 - within 14 degrees of the mirrored sun
            spot = gloss * 1.5 * (glint - 0.97) / 0.03
            r, g, b = r + spot, g + spot, b + spot
    r += (_HAZE_COLOR[0] - r) * haze
    g += (_HAZE_COLOR[1] - g) * haze
    b += (_HAZE_COLOR[2] - b) * haze
    return r, g, b, label


@scalar
def _shade(
    triangles: F32, surfaces: F32, tile: F32, light: F32, origin: tuple[float, float], movers: F64, sun_at: Vector, k: int,
    n: int, px: float, py: float, pz: float, dx: float, dy: float, dz: float, distance: float, pixel_rad: float,
) -> tuple[float, float, float, int]:  # fmt: skip
    """Linear colour and class of a hit.

    It is on triangle k with surface n at (px, py, pz), seen along the unit (dx, dy, dz).

    ``pixel_rad`` is the angle that a pixel spans.
    """
    facing = triangles[k, 9] * dx + triangles[k, 10] * dy + triangles[k, 11] * dz
    d = py - BEND_M * math.sin(px * _ROAD_K)
    sun, sky, haze = _illumination(triangles, surfaces, light, origin, movers, sun_at, k, n, px, py, pz, d, facing, distance)
    return _lit_color(
        triangles, surfaces, tile, sun_at, k, n, px, py, pz, d, dx, dy, dz, facing, distance * pixel_rad, sun, sky, haze
    )


@compiled
def shade_image(
    world: World, origin: F64, directions: F32, distance: F32, triangle: I32, pixel_rad: float
) -> tuple[F32, U8, I32]:
    """Colour (H, W, 3) float32, class (H, W) uint8 and actor number (H, W) int32 (-1: none) of ray-cast hits.

    ``directions`` (H, W, 3) in the world, of any length; ``distance`` (H, W) in units of them; ``triangle`` (H, W), -1: sky.
    """
    triangles, surface_of, surfaces, tile, light, light_origin, movers, sun = world
    height, width = distance.shape
    color = np.empty((height, width, 3), np.float32)
    label = np.empty((height, width), np.uint8)
    actor = np.full((height, width), -1, np.int32)
    for i in range(height):
        for j in range(width):
            dx, dy, dz = float(directions[i, j, 0]), float(directions[i, j, 1]), float(directions[i, j, 2])
            length = math.sqrt(dx * dx + dy * dy + dz * dz)
            k = triangle[i, j]
            if k < 0:
                r, g, b = sky_color(tile, dx / length, dy / length, dz / length)
                label[i, j] = SKY
            else:
                t = float(distance[i, j])
                px, py, pz = origin[0] + t * dx, origin[1] + t * dy, origin[2] + t * dz
                r, g, b, kind = _shade(
                    triangles,
                    surfaces,
                    tile,
                    light,
                    light_origin,
                    movers,
                    sun,
                    k,
                    surface_of[k],
                    px,
                    py,
                    pz,
                    dx / length,
                    dy / length,
                    dz / length,
                    t * length,
                    pixel_rad,
                )
                label[i, j] = kind
                actor[i, j] = int(surfaces[surface_of[k], ACTOR])
            color[i, j, 0], color[i, j, 1], color[i, j, 2] = r, g, b
    return color, label, actor


@scalar
def _hit(triangles: F32, k: int, origin: F64, dx: float, dy: float, dz: float) -> float:
    """Distance to triangle k along a ray in units of its direction, or -1.

    Möller and Trumbore, Fast, Minimum Storage Ray/Triangle Intersection (1997).
    """
    e1x, e1y, e1z = triangles[k, 3], triangles[k, 4], triangles[k, 5]
    e2x, e2y, e2z = triangles[k, 6], triangles[k, 7], triangles[k, 8]
    qx, qy, qz = dy * e2z - dz * e2y, dz * e2x - dx * e2z, dx * e2y - dy * e2x
    det = e1x * qx + e1y * qy + e1z * qz
    if abs(det) < 1e-12:  # noqa: PLR2004 - parallel
        return -1.0
    sx, sy, sz = origin[0] - triangles[k, 0], origin[1] - triangles[k, 1], origin[2] - triangles[k, 2]
    u = (sx * qx + sy * qy + sz * qz) / det
    rx, ry, rz = sy * e1z - sz * e1y, sz * e1x - sx * e1z, sx * e1y - sy * e1x
    v = (dx * rx + dy * ry + dz * rz) / det
    if min(u, v, 1.0 - u - v) < -_GAP:
        return -1.0
    distance: float = (e2x * rx + e2y * ry + e2z * rz) / det
    return distance


@scalar
def _turn(R: F64, x: float, y: float) -> Vector:
    """Direction (x, y, 1) of a camera in the world."""
    return R[0, 0] * x + R[0, 1] * y + R[0, 2], R[1, 0] * x + R[1, 1] * y + R[1, 2], R[2, 0] * x + R[2, 1] * y + R[2, 2]


@scalar
def _luminance(r: float, g: float, b: float) -> float:
    """Brightness of a linear colour (ITU-R BT.709)."""
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@scalar
def _plane(triangles: F32, k: int, origin: F64, dx: float, dy: float, dz: float) -> float:
    """Distance to the plane of triangle k along a ray, in units of its direction."""
    nx, ny, nz = triangles[k, 9], triangles[k, 10], triangles[k, 11]
    x, y, z = triangles[k, 0] - origin[0], triangles[k, 1] - origin[1], triangles[k, 2] - origin[2]
    distance: float = (nx * x + ny * y + nz * z) / (nx * dx + ny * dy + nz * dz)
    return distance


@compiled
def fill_uniform(triangles: F32, origin: F64, rays: F32, coarse: I32, inside: Bool, distance: F32, triangle: I32) -> I64:
    """Fill in the hits of full-resolution ``rays`` (2h * 2w, 6) where half-resolution ones all hit one triangle.

    ``coarse`` (h, w) are the triangles of the half-resolution rays, ``inside`` what uniform says of them. Fills ``distance``
    and ``triangle`` (2h * 2w,) and gives the numbers of the rays that still have to be cast.
    """
    h, w = coarse.shape
    open_rays = np.empty(len(rays), np.int64)
    count = 0
    for i in range(2 * h):
        for j in range(2 * w):
            n = i * 2 * w + j
            k = coarse[i >> 1, j >> 1]
            if not inside[i >> 1, j >> 1]:
                open_rays[count] = n
                count += 1
                continue
            triangle[n] = k
            distance[n] = np.inf if k < 0 else _plane(triangles, k, origin, rays[n, 3], rays[n, 4], rays[n, 5])
    return open_rays[:count]


@compiled
def uniform(triangle: I32) -> Bool:
    """Where a half-resolution ray (h, w) and its eight neighbours all hit one triangle."""
    h, w = triangle.shape
    inside = np.zeros((h, w), np.bool_)
    for i in range(1, h - 1):
        for j in range(1, w - 1):
            k = triangle[i, j]
            same = True
            for a in range(i - 1, i + 2):
                for b in range(j - 1, j + 2):
                    same &= triangle[a, b] == k
            inside[i, j] = same
    return inside


@scalar
def _edge_hit(
    triangles: F32, triangle: I32, distance: F32, i: int, j: int, corner: int, origin: F64, dx: float, dy: float, dz: float
) -> tuple[int, float]:
    """Triangle (-1: sky) and distance that a ray meets among what the four half-resolution rays (h, w) around it met.

    The ray is that of ``corner`` (0 to 3, row by row) of the two by two pixels of half-resolution ray (i, j).
    """
    h, w = triangle.shape
    k = triangle[i, j]
    i1 = min(max(i + (1 if corner >> 1 else -1), 0), h - 1)
    j1 = min(max(j + (1 if corner & 1 else -1), 0), w - 1)
    best, found, open_sky = 1e30, -1, False
    k1, k2, k3 = triangle[i, j1], triangle[i1, j], triangle[i1, j1]
    if k >= 0 and k == k1 and k == k2 and k == k3:
        best, found = _plane(triangles, k, origin, dx, dy, dz), k
    else:
        for candidate in (k, k1, k2, k3):
            open_sky |= candidate < 0
            if candidate >= 0 and candidate != found:
                t = _hit(triangles, candidate, origin, dx, dy, dz)
                if 0.0 < t < best:
                    best, found = t, candidate
    if found < 0 and not open_sky:  # a crack between triangles that no ray found
        best, found = float(distance[i, j]), k
    return found, best


@compiled
def brightness_image(
    world: World,
    origin: F64,
    world_from_camera: F64,
    intrinsics: tuple[float, float, float, float],
    distance: F32,
    triangle: I32,
) -> F32:
    """Luminance (2h, 2w) float32 of a camera whose rays were cast at half resolution (h, w) only.

    Every pixel meets the triangles that the nearest four half-resolution rays found, exactly; so outlines and texture have
    full resolution, and only things that fall between those rays are missed. Shadows, haze and the sky are computed once
    for two by two pixels of a triangle. ``intrinsics``: fx, fy, cx, cy at full resolution; half-resolution ray (i, j)
    goes through full-resolution pixel (2 i + 0.5, 2 j + 0.5).
    """
    triangles, surface_of, surfaces, tile, light, light_origin, movers, sun_at = world
    h, w = distance.shape
    fx, fy, cx, cy = intrinsics
    image = np.empty((2 * h, 2 * w), np.float32)
    inside = uniform(triangle)
    R = world_from_camera
    pixel_rad = 1.0 / fx
    for i in range(h):
        for j in range(w):
            k = triangle[i, j]
            n = surface_of[k] if k >= 0 else 0
            sun, sky, haze, road_y, road_slope, middle_x, sky_value = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            x, y = (2 * j + 0.5 - cx) / fx, (2 * i + 0.5 - cy) / fy
            dx, dy, dz = _turn(R, x, y)
            length = math.sqrt(1.0 + x * x + y * y)
            if k < 0:
                r, g, b = sky_color(tile, dx / length, dy / length, dz / length)
                sky_value = _luminance(r, g, b)
            else:
                t = float(distance[i, j])
                middle_x, py, pz = origin[0] + t * dx, origin[1] + t * dy, origin[2] + t * dz
                road_y, road_slope = BEND_M * math.sin(middle_x * _ROAD_K), BEND_M * _ROAD_K * math.cos(middle_x * _ROAD_K)
                facing = triangles[k, 9] * dx + triangles[k, 10] * dy + triangles[k, 11] * dz
                sun, sky, haze = _illumination(
                    triangles, surfaces, light, light_origin, movers, sun_at,
                    k, n, middle_x, py, pz, py - road_y, facing, t * length,
                )  # fmt: skip
            for corner in range(4):
                row, column = 2 * i + (corner >> 1), 2 * j + (corner & 1)
                x, y = (column - cx) / fx, (row - cy) / fy
                dx, dy, dz = _turn(R, x, y)
                found, t = k, 0.0
                if not inside[i, j]:
                    found, t = _edge_hit(triangles, triangle, distance, i, j, corner, origin, dx, dy, dz)
                elif k >= 0:
                    t = _plane(triangles, k, origin, dx, dy, dz)
                if found < 0 and k < 0:
                    image[row, column] = sky_value
                    continue
                length = math.sqrt(1.0 + x * x + y * y)
                px, py, pz = origin[0] + t * dx, origin[1] + t * dy, origin[2] + t * dz
                dx, dy, dz = dx / length, dy / length, dz / length
                if found < 0:
                    r, g, b = sky_color(tile, dx, dy, dz)
                elif found == k:
                    d = py - road_y - road_slope * (px - middle_x)
                    facing = triangles[k, 9] * dx + triangles[k, 10] * dy + triangles[k, 11] * dz
                    r, g, b, _ = _lit_color(
                        triangles, surfaces, tile, sun_at,
                        k, n, px, py, pz, d, dx, dy, dz, facing, t * length * pixel_rad, sun, sky, haze,
                    )  # fmt: skip
                else:
                    r, g, b, _ = _shade(
                        triangles, surfaces, tile, light, light_origin, movers, sun_at,
                        found, surface_of[found], px, py, pz, dx, dy, dz, t * length, pixel_rad,
                    )  # fmt: skip
                image[row, column] = _luminance(r, g, b)
    return image


@compiled
def lidar_returns(world: World, origins: F32, directions: F32, distance: F32, triangle: I32) -> tuple[F32, U8]:
    """Share of the light (N,) float32 that comes back and class (N,) of LiDAR hits; directions (N, 3) of unit length."""
    triangles, surface_of, surfaces, tile = world.triangles, world.surface_of, world.surfaces, world.noise
    strength = np.zeros(len(distance), np.float32)
    label = np.full(len(distance), SKY, np.uint8)
    for n in range(len(distance)):
        k = triangle[n]
        if k < 0:
            continue
        t = float(distance[n])
        dx, dy, dz = float(directions[n, 0]), float(directions[n, 1]), float(directions[n, 2])
        px, py, pz = origins[n, 0] + t * dx, origins[n, 1] + t * dy, origins[n, 2] + t * dz
        m = surface_of[k]
        cosine = abs(triangles[k, 9] * dx + triangles[k, 10] * dy + triangles[k, 11] * dz)
        footprint = 0.002 * t + 0.01
        d = py - BEND_M * math.sin(px * _ROAD_K)
        r, g, b, gloss, kind = _albedo(surfaces, m, tile, px, py, pz, d, 1.0, dx, dy, footprint, footprint)
        value = (0.6 * r + 0.3 * g + 0.1 * b) * (1.0 - 0.9 * gloss) * (0.3 + 0.7 * cosine)
        if int(surfaces[m, MATERIAL]) == LEAVES:
            value += 0.25  # leaves are bright in the near infrared
        elif int(surfaces[m, MATERIAL]) == MIRROR:
            value = 1.0  # retroreflectors
        elif kind == LANE_MARKING:
            value += 0.2  # glass beads
        strength[n] = min(value, 1.0)
        label[n] = kind
    return strength, label

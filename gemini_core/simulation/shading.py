# ruff: noqa: C901, PLR0917 - compiled functions take arrays and coordinates one by one, since records of them are
# slow, and few calls, since those are
"""What a ray sees: colour, class and reflectance of a surface, and the light on it, compiled with numba.

Textures are functions of a surface's texture coordinates (metres), so they cost nothing to store and stay where they are
when the camera moves. Where a detail is finer than a pixel it is averaged over the pixel's footprint: without that, distant
texture would flicker, and an event camera reports every flicker.

Light is linear and absolute: 1 is the radiance of a white sheet in 100,000 lux, so that full sun, a lit room and a street
at night keep their true ratios (about 1 to 0.005 to 0.0001), which is what sensors have to live with.

Approximations: one sun with a shadow map for what stands still and boxes for what moves; skylight dimmed where things stand
close (from a map seen from above); lamps without shadows; no light that bounces; reflections show the sky only.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from gemini_core.simulation.compiling import compiled, inlined
from gemini_core.types import F32, F64, U8

I32: TypeAlias = npt.NDArray[np.int32]
Vector: TypeAlias = tuple[float, float, float]
Sky: TypeAlias = tuple[float, float, float, float, float, float, float]
Intrinsics: TypeAlias = tuple[float, float, float, float]
Parameters: TypeAlias = tuple[float, float, float, float, float, float]

# Columns of the table of surfaces. DETAIL is the class of what a material draws on itself (lane markings); GLOW the
# radiance of a lamp; INFRARED is added to the reflectance at 905 nm; the rest are the material's own parameters.
MATERIAL, CLASS, DETAIL, ACTOR, RED, GREEN, BLUE, GLOW, INFRARED, FIRST, SECOND, THIRD, FOURTH, FIFTH, SIXTH = range(15)
SURFACE_COLUMNS = 15

# Columns of the table of triangles: corner 0-2, edges 3-8, normal 9-11, closed 12, texture u = 13-15 · p + 16, v = 17-19 · p
# + 20.
TRIANGLE_COLUMNS = 21

# Materials, with their parameters.
PLAIN = 0
GRAIN = 1  # contrast, grains per metre
ASPHALT = 2  # u along the road, v left of its middle
PAVING = 3
GRASS = 4
FACADE = 5  # cell, floor, first floor, height, style, salt; u along the wall, v up
ROOFING = 6
BARK = 7
LEAVES = 8
PAINT = 9
GLASS = 10
SIGN = 11  # u, v within -1 to 1; style
BOARDS = 12  # width of a board, contrast, salt
TILES = 13  # side of a tile, contrast
BRICKS = 14
PANELS = 15  # width, height of a panel (0: none), salt
BOOKS = 16  # height of a shelf, salt
PICTURE = 17  # salt
STRIPES = 18  # width, contrast
CARPET = 19  # salt

LANE_EDGE_M = 3.5
ROAD_HALF_M = 5.7
CROSSING_EVERY_M = 72.0

# Places in the array that says what the light is like (F64).
SUN_DIRECTION, SUN_COLOR, AMBIENT, FOG_PER_M, AIRLIGHT, WET, GLOW_LEVEL, ZENITH, HORIZON, CLOUDS = (
    0,
    3,
    6,
    9,
    10,
    13,
    14,
    15,
    18,
    21,
)
FROM_ABOVE = 22  # how much more of the ambient light a face gets that looks up than one that looks down, 0 to 1
INDOORS = 23  # 1: what mirrors shows the room, not the sky
LIGHT_SIZE = 24


class World(NamedTuple):
    """Everything the compiled code reads.

    ``triangles`` (T, TRIANGLE_COLUMNS), ``surface_of`` (T,), ``surfaces`` (S, SURFACE_COLUMNS); ``light`` (LIGHT_SIZE,);
    ``lamps`` (L, 10): position, colour (radiance of a white sheet 1 m away), direction, cosine of the half angle (-2: shines
    everywhere); ``shadow`` (h, w) the sun's depth map, metres; ``shadow_camera`` (16,): rotation, position, f, cx,
    cy, and how much nearer a surface is taken to be so as not to shade itself;
    ``open`` (X, Y) open share of the sky near the ground at ``open_origin``: x, y, step; ``movers`` (M, 7): x, y, cos yaw,
    sin yaw, half length, half width, height of what moves.
    """

    triangles: F32
    surface_of: I32
    surfaces: F32
    light: F64
    lamps: F64
    shadow: F32
    shadow_camera: F64
    open: F32
    open_origin: Vector
    movers: F64


# --------------------------------------------------------------------------------------------------------------------
# Patterns


_ROW = 65


def _lattice() -> F32:
    """Random numbers from -1.7 to 1.7 on a lattice of 64 by 64, which goes on with its beginning (65 * 65,)."""
    values = np.random.default_rng(3).uniform(-1.7, 1.7, (64, 64)).astype(np.float32)
    return np.pad(values, ((0, 1), (0, 1)), mode="wrap").reshape(-1)


_LATTICE = _lattice()


@compiled
def _hash(i: int, j: int, salt: int) -> float:
    """A number in [0, 1) that looks random, for a cell."""
    n = (i * 374761393 + j * 668265263 + salt * 974634777) & 0xFFFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((n ^ (n >> 16)) & 0xFFFF) / 65536.0


@compiled
def _smooth_noise(u: float, v: float) -> float:
    """Value noise on the unit lattice: mean 0, -1.7 to 1.7; it repeats after 64."""
    i, j = math.floor(u), math.floor(v)
    a, b = u - i, v - j
    a, b = a * a * (3.0 - 2.0 * a), b * b * (3.0 - 2.0 * b)
    n = (int(i) & 63) * _ROW + (int(j) & 63)
    low = _LATTICE[n] * (1.0 - b) + _LATTICE[n + 1] * b
    high = _LATTICE[n + _ROW] * (1.0 - b) + _LATTICE[n + _ROW + 1] * b
    value: float = low * (1.0 - a) + high * a
    return value


_SEEN = 0.04  # of a pattern's contrast; what is fainter is left out


@compiled
def _noise(u: float, v: float) -> float:
    """Two octaves of noise."""
    return 0.75 * _smooth_noise(u, v) + 0.5 * _smooth_noise(2.17 * u + 31.7, 2.17 * v - 17.3)


@compiled
def _inside(x: float, low: float, high: float, width: float) -> float:
    """Share of a window of ``width`` around x that lies between low and high."""
    return max(0.0, min(high, x + 0.5 * width) - max(low, x - 0.5 * width)) / width


@compiled
def _fade(footprint: float, detail: float) -> float:
    """How much of a detail's contrast is left when a pixel covers ``footprint`` metres."""
    ratio = footprint / detail
    return 1.0 / (1.0 + ratio * ratio)


@compiled
def _part(x: float, period: float) -> float:
    """How far x is into its period."""
    return x - math.floor(x / period) * period


@compiled
def _joints(u: float, v: float, footprint: float, gap: float) -> float:
    """Share of a pixel that shows the joints between unit cells; u and v in cells, ``footprint`` and ``gap`` too."""
    width = max(footprint, 1e-3)
    return 1.0 - _inside(u - math.floor(u), gap, 1.0 - gap, width) * _inside(v - math.floor(v), gap, 1.0 - gap, width)


# --------------------------------------------------------------------------------------------------------------------
# Materials: linear colour, gloss (share of mirrored sky), whether the detail's class shows, and share of GLOW


@compiled
def _markings(x: float, d: float, along: float, across: float) -> float:
    """Share of white paint on the road at (x, lateral d); ``along`` and ``across`` are the pixel's footprint."""
    paint = _inside(abs(d), LANE_EDGE_M - 0.07, LANE_EDGE_M + 0.07, across)
    crossing = _part(x, CROSSING_EVERY_M)
    clear = 1.0 - _inside(crossing, 0.0, 7.5, along)
    paint = max(paint, _inside(abs(d), -0.09, 0.09, across) * _inside(_part(x, 7.5), 0.0, 3.5, along) * clear)
    stripe = abs(d) - math.floor(abs(d)) - 0.5
    zebra = _inside(crossing, 1.5, 4.5, along) * _inside(stripe, -0.25, 0.25, across)
    if across > 0.5:  # noqa: PLR2004 - a stripe's width: finer than the pixel
        zebra = 0.5 * _inside(crossing, 1.5, 4.5, along)
    if abs(d) < ROAD_HALF_M - 0.3:
        paint = max(paint, zebra)
    stop = _inside(crossing, 0.2, 0.6, along) if -LANE_EDGE_M < d < 0 else _inside(crossing, 5.5, 5.9, along)
    if abs(d) < LANE_EDGE_M:
        paint = max(paint, stop)
    bay = _part(x - 2.2, 5.6) - 2.8
    if abs(d) > LANE_EDGE_M:
        paint = max(paint, _inside(bay, -0.06, 0.06, along) * clear)
    return paint


@compiled
def _ground(
    material: int, r: float, g: float, b: float, u: float, v: float, footprint: float, stretch: float, along: float, wet: float
) -> tuple[float, float, float, float, float, float]:
    """Asphalt with its markings, paving or grass; ``along`` is the share of the view's direction along u."""
    coarse = _noise(u * 0.35, v * 0.35)
    fine = _fade(0.5 * (footprint + stretch), 0.1)
    fine = fine * _noise(u * 9.0, v * 9.0) if fine > _SEEN else 0.0
    if material == GRASS:
        tone = 1.0 + 0.2 * coarse + 0.3 * fine
        return r * tone * (1.0 + 0.15 * coarse), g * tone, b * tone, 0.0, 0.0, 0.0
    gloss = wet * min(max(0.25 + 0.2 * coarse, 0.03), 0.7)
    if material == PAVING:
        tone = 1.0 + 0.1 * coarse + 0.1 * fine
        i, j = math.floor(u / 0.8), math.floor(v / 0.5)
        tone += 0.16 * (_hash(int(i), int(j), 5) - 0.5) * _fade(stretch, 0.8)
        tone *= 1.0 - 0.35 * _joints(u / 0.8, v / 0.5, 0.5 * (footprint + stretch) / 0.65, 0.025) * _fade(stretch, 0.5)
        tone *= 1.0 - 0.35 * wet
        return r * tone, g * tone, b * tone, 0.6 * gloss, 0.0, 0.0
    track = abs(abs(abs(v) - 1.75) - 0.75)
    tone = 1.0 + 0.12 * coarse + 0.14 * fine - 0.12 * _fade(track, 0.25)
    tone += 0.10 * max(0.0, min(1.0, (abs(v) - LANE_EDGE_M) * 4.0))
    tone *= 1.0 - 0.5 * wet
    paint = _markings(u, v, stretch * along + footprint, stretch * (1.0 - along) + footprint)
    detail = 1.0 if paint > 0.4 else 0.0  # noqa: PLR2004 - most of the pixel
    paint *= 0.88 + 0.10 * fine - 0.06 * coarse
    white = 0.72 * paint * (1.0 - 0.2 * wet)
    return r * tone * (1 - paint) + white, g * tone * (1 - paint) + white, b * tone * (1 - paint) + white, gloss, detail, 0.0


@compiled
def _bricks(r: float, g: float, b: float, u: float, v: float, salt: int, footprint: float) -> Vector:
    """Colour of a brick wall."""
    fine = _fade(footprint, 0.06)
    course = math.floor(v / 0.10)
    brick = math.floor(u / 0.26 + 0.5 * (int(course) & 1))
    tone = 1.0 + fine * 0.4 * (_hash(int(brick), int(course), salt) - 0.5)
    joint = fine * (1.0 - _inside(v - course * 0.10, 0.0, 0.085, max(footprint, 0.01)))
    return r * tone + joint * 0.12, g * tone + joint * 0.12, b * tone + joint * 0.12


@compiled
def _facade(
    r: float, g: float, b: float, u: float, v: float, q: Parameters, footprint: float
) -> tuple[float, float, float, float, float, float]:
    """A wall with windows, doors and shops."""
    cell, floor, first_floor, top = q[0], q[1], q[2], q[3]
    style, salt = int(q[4]), int(q[5])
    grain, fine = 1.0 + 0.12 * _noise(u * 1.3 + salt, v * 1.3), _fade(footprint, 0.15)
    if fine > _SEEN:
        grain += 0.08 * fine * _smooth_noise(u * 6.0, v * 6.0)
    r, g, b = r * grain, g * grain, b * grain
    if style < 2 and v > 0.6:  # noqa: PLR2004 - two of four styles, above the plinth
        r, g, b = _bricks(r, g, b, u, v, salt, footprint)
    if v < 0.6:  # plinth  # noqa: PLR2004 - metres
        r, g, b = 0.28 * grain, 0.27 * grain, 0.26 * grain
    if v > top - 0.45:  # cornice
        r, g, b = r * 0.6 + 0.28, g * 0.6 + 0.27, b * 0.6 + 0.25
    if v > top - 0.6:
        return r, g, b, 0.0, 0.0, 0.0
    column = math.floor(u / cell)
    s = u / cell - column
    on_ground = v < first_floor
    level, height = 0, first_floor
    w = v / first_floor
    if not on_ground:
        floors_up = math.floor((v - first_floor) / floor)
        level, height = int(floors_up) + 1, floor
        w = (v - first_floor) / floor - floors_up
    shop = style % 2 == 0
    left, right, low, high = 0.27, 0.73, 0.24, 0.80
    chance = _hash(int(column), level, salt)
    if on_ground and shop:
        left, right, low, high = 0.06, 0.94, 0.16, 0.72
    door = on_ground and chance < 0.3  # noqa: PLR2004 - share of doors
    if door:
        left, right, low, high = 0.30, 0.70, 0.04, 0.66
    ws, wv = footprint / cell, footprint / height
    frame_s, frame_v = 0.09 / cell, 0.09 / height
    frame = _inside(s, left - frame_s, right + frame_s, ws) * _inside(w, low - frame_v, high + frame_v, wv)
    pane = _inside(s, left, right, ws) * _inside(w, low, high, wv)
    pane *= 1.0 - _inside(s, 0.5 * (left + right - frame_s), 0.5 * (left + right + frame_s), ws)
    if on_ground and shop and 0.76 < w < 0.92:  # the sign over the shop  # noqa: PLR2004 - shares of the floor
        r, g, b = 0.12 + 0.5 * _hash(salt, 1, 7), 0.10 + 0.35 * _hash(salt, 2, 7), 0.10 + 0.4 * _hash(salt, 3, 7)
    sill = _inside(w, low - 0.09, low - 0.03, wv) * _inside(s, left - 2 * frame_s, right + 2 * frame_s, ws)
    frame = max(frame - pane, 0.0)
    white = 0.62 if style != 1 else 0.10
    glass = 0.035 + 0.05 * chance + (0.14 if 0.62 < chance < 0.80 and w > 0.5 else 0.0)  # noqa: PLR2004 - blinds half down
    if door:
        white, glass = 0.25, 0.06
    wall = max(1.0 - frame - pane, 0.0) * (1.0 - 0.45 * sill)
    r = r * wall + white * frame + glass * pane * (1.5 if door else 0.9)
    g = g * wall + white * frame + glass * pane
    b = b * wall + white * 0.97 * frame + glass * pane * (0.7 if door else 1.2)
    lit = pane if _hash(int(column), level, salt + 9) < (0.6 if on_ground else 0.25) and not door else 0.0
    return r, g, b, 0.0 if door else pane, 0.0, lit


@compiled
def _furnishing(
    material: int, r: float, g: float, b: float, u: float, v: float, q: Parameters, footprint: float, stretch: float
) -> tuple[float, float, float, float, float, float]:
    """Boards, tiles, panels, books, pictures, stripes and carpets."""
    wide, gloss, tone = 0.5 * (footprint + stretch), 0.0, 1.0
    if material == BOARDS:
        board = math.floor(u / q[0])
        tone += q[1] * (_hash(int(board), math.floor(v / 1.3 + 0.37 * board), int(q[2])) - 0.5) * _fade(wide, q[0])
        tone += 0.25 * q[1] * _noise(u * 40.0, v * 2.5) * _fade(footprint, 0.03)
        tone -= 0.4 * q[1] * _joints(u / q[0], 0.5, wide / q[0], 0.02) * _fade(wide, q[0])
        gloss = 0.05
    elif material == TILES:
        i, j = math.floor(u / q[0]), math.floor(v / q[0])
        tone += q[1] * (_hash(int(i), int(j), 3) - 0.5) * _fade(wide, q[0])
        tone -= 0.3 * _joints(u / q[0], v / q[0], wide / q[0], 0.015) * _fade(wide, q[0])
        gloss = 0.10
    elif material == PANELS:  # fronts of doors and drawers
        salt = int(q[2])
        tone += 0.10 * _noise(u * 25.0 + salt, v * 2.0) * _fade(footprint, 0.04)
        if q[0] > 0:
            tone -= 0.6 * _joints(u / q[0], v / q[1], footprint / min(q[0], q[1]), 0.02) * _fade(footprint, 0.25)
            s, w = _part(u, q[0]) / q[0], _part(v, q[1]) / q[1]
            if 0.82 < s < 0.90 and 0.42 < w < 0.58:  # handles  # noqa: PLR2004 - shares of the panel
                tone = 0.35
        gloss = 0.04
    elif material == BOOKS:
        shelf = math.floor(v / q[0])
        w = v / q[0] - shelf
        spine = math.floor(u / 0.045 + 0.7 * _hash(math.floor(u / 0.3), int(shelf), 1))
        size = 0.55 + 0.35 * _hash(int(spine), int(shelf), int(q[1]))
        fine = _fade(footprint, 0.08)
        if w < 0.07:  # noqa: PLR2004 - the board
            return r, g, b, 0.0, 0.0, 0.0
        if w > size or _hash(math.floor(u / 0.3), int(shelf), int(q[1]) + 1) < 0.18:  # noqa: PLR2004 - empty places
            return 0.25 * r, 0.25 * g, 0.25 * b, 0.0, 0.0, 0.0
        r = 0.16 + fine * 0.45 * (_hash(int(spine), int(shelf), int(q[1]) + 2) - 0.3)
        g = 0.13 + fine * 0.35 * (_hash(int(spine), int(shelf), int(q[1]) + 3) - 0.3)
        b = 0.12 + fine * 0.40 * (_hash(int(spine), int(shelf), int(q[1]) + 4) - 0.3)
    elif material == PICTURE:
        salt = int(q[0])
        a, c = _noise(u * 2.0 + salt, v * 2.0), _noise(u * 3.0 - salt, v * 5.0)
        r, g, b = 0.35 + 0.2 * a, 0.33 + 0.14 * c, 0.30 - 0.12 * a + 0.1 * c
    elif material == STRIPES:
        tone += q[1] * (_inside(_part(u, 2 * q[0]), 0.0, q[0], max(footprint, 1e-3)) - 0.5) * _fade(footprint, q[0])
        tone += 0.04 * _noise(u * 3.0, v * 3.0)
    else:  # CARPET
        salt = int(q[0])
        tone += 0.25 * _noise(u * 30.0, v * 30.0) * _fade(wide, 0.03) + 0.3 * _smooth_noise(u * 2.2 + salt, v * 2.2)
    tone = max(tone, 0.05)
    return r * tone, g * tone, b * tone, gloss, 0.0, 0.0


@compiled
def _sign(r: float, g: float, b: float, u: float, v: float, style: int) -> Vector:
    """A sign's board: u and v within -1 to 1."""
    rim = max(abs(u), abs(v)) > 0.8 if style >= 2 else u * u + v * v > 0.6  # noqa: PLR2004 - squares and discs
    if style == 0:  # red rim, white field, dark bar
        if not rim:
            r, g, b = (0.05, 0.05, 0.05) if abs(u) < 0.35 and abs(v) < 0.15 else (0.75, 0.75, 0.75)  # noqa: PLR2004
    elif rim or (abs(u) < 0.15 and -0.5 < v < 0.4) or (abs(v - 0.3) < 0.15 and abs(u) < 0.4):  # noqa: PLR2004 - an arrow of sorts
        r, g, b = 0.75, 0.75, 0.75
    return r, g, b


@compiled
def _surface(
    material: int, r: float, g: float, b: float, u: float, v: float, nz: float, q: Parameters,
    footprint: float, stretch: float, along: float, wet: float,
) -> tuple[float, float, float, float, float, float]:  # fmt: skip
    """Colour, gloss, detail and glow at texture coordinates (u, v); ``nz`` is the height of the normal."""
    gloss, tone = 0.0, 1.0
    if material < ASPHALT:  # plain or with grain
        if material == GRAIN:
            tone = max(1.0 + q[0] * _noise(u * q[1], v * q[1]) * _fade(footprint, 0.7 / q[1]), 0.1)
        return r * tone, g * tone, b * tone, 0.0, 0.0, 1.0
    if material <= GRASS:
        return _ground(material, r, g, b, u, v, footprint, stretch, along, wet)
    if material == FACADE:
        return _facade(r, g, b, u, v, q, footprint)
    if material >= BOARDS and material != BRICKS:
        return _furnishing(material, r, g, b, u, v, q, footprint, stretch)
    if material == LEAVES:
        tone += 0.5 * _noise(u * 7.0 + 0.4 * v, v * 7.0) * _fade(footprint, 0.12) + 0.3 * _noise(u * 1.9, v * 1.9)
    elif material == ROOFING:
        tone += 0.16 * _noise(u * 2.0, v * 2.0) + 0.12 * (_inside(_part(v * 3.0, 1.0), 0.0, 0.2, 0.1 + 3 * footprint))
    elif material == BARK:
        tone += 0.3 * _noise(u * 12.0, v * 2.0) * _fade(footprint, 0.05)
    elif material == BRICKS:
        r, g, b = _bricks(r, g, b, u, v, int(q[0]), footprint)
        tone += 0.1 * _noise(u, v)
    elif material == SIGN:
        r, g, b = _sign(r, g, b, u, v, int(q[0]))
    elif material == PAINT:
        gloss = 0.12 + 0.12 * abs(nz)
    elif material == GLASS:
        gloss = 0.85
    tone = max(tone, 0.1)
    return r * tone, g * tone, b * tone, gloss, 0.0, 1.0


@compiled
def _sky(sky: Sky, dx: float, dy: float, dz: float) -> Vector:
    """The sky (zenith, horizon, clouds) in a direction of unit length: a gradient with clouds."""
    up = max(dz, 0.0)
    t = 1.0 - math.exp(-3.2 * up)
    r, g, b = sky[3] + (sky[0] - sky[3]) * t, sky[4] + (sky[1] - sky[4]) * t, sky[5] + (sky[2] - sky[5]) * t
    if sky[6] > 0.0 and up > 0.0:
        s = 1.0 / (up + 0.12)
        n = _noise(dx * s * 2.0, dy * s * 2.0) + 0.4 * _smooth_noise(dx * s * 7.0, dy * s * 7.0)
        cloud = sky[6] * min(max((n - 0.1) * 0.8, 0.0), 0.9) * min(up * 6.0, 1.0)
        white = 1.15 * max(sky[3], sky[4], sky[5])
        r, g, b = r + (white - r) * cloud, g + (white - g) * cloud, b + (white - b) * cloud
    return r, g, b


# --------------------------------------------------------------------------------------------------------------------
# Light, on N points at a time: a call per point that takes arrays would cost more than its work


@compiled
def _sample(found: I32, inverse: F32, world_from_camera: F64, intrinsics: Intrinsics, triangles: F32) -> tuple[I32, F64]:
    """Which of N light samples each pixel (H, W) takes (-1: sky); their points, normals and distances (N, 7).

    Pixels of two by two that show one triangle share one.
    """
    fx, fy, cx, cy = intrinsics
    R = world_from_camera
    height, width = found.shape
    sample_of = np.full((height, width), -1, np.int32)
    samples = np.empty((height * width, 7))
    count = 0
    for top in range(0, height, 2):
        for left in range(0, width, 2):
            last = -1
            for i in range(top, min(top + 2, height)):
                for j in range(left, min(left + 2, width)):
                    k = found[i, j]
                    if k < 0:
                        continue
                    if k != last:
                        t = 1.0 / float(inverse[i, j])
                        x, y = t * (j - cx) / fx, t * (i - cy) / fy
                        for axis in range(3):
                            samples[count, axis] = R[axis, 0] * x + R[axis, 1] * y + R[axis, 2] * t + R[axis, 3]
                        seen = 0.0
                        for axis in range(3):
                            seen += triangles[k, 9 + axis] * (samples[count, axis] - R[axis, 3])
                        side = -1.0 if seen > 0 else 1.0
                        samples[count, 6] = math.sqrt(x * x + y * y + t * t)
                        for axis in range(3):
                            samples[count, 3 + axis] = side * triangles[k, 9 + axis]
                        count, last = count + 1, k
                    sample_of[i, j] = count - 1
    return sample_of, samples[:count]


@compiled
def _sunlight(samples: F64, sun: F64, shadow: F32, camera: F64) -> F64:
    """Share of the sun's light (N,) that falls on each sample, through what stands still.

    Softened between the four nearest places of the sun's depth map.
    """
    share = np.empty(len(samples))
    for n in range(len(samples)):
        share[n] = max(samples[n, 3] * sun[0] + samples[n, 4] * sun[1] + samples[n, 5] * sun[2], 0.0)
        if share[n] == 0.0:
            continue
        x, y, z = samples[n, 0] - camera[9], samples[n, 1] - camera[10], samples[n, 2] - camera[11]
        depth = camera[6] * x + camera[7] * y + camera[8] * z
        u = (camera[0] * x + camera[1] * y + camera[2] * z) / depth * camera[12] + camera[13]
        v = (camera[3] * x + camera[4] * y + camera[5] * z) / depth * camera[12] + camera[14]
        if not (0.0 <= u < shadow.shape[1] - 1 and 0.0 <= v < shadow.shape[0] - 1):
            continue
        i, j = int(v), int(u)
        a, b = v - i, u - j
        depth -= camera[15]
        low = (shadow[i, j] > depth) * (1.0 - b) + (shadow[i, j + 1] > depth) * b
        high = (shadow[i + 1, j] > depth) * (1.0 - b) + (shadow[i + 1, j + 1] > depth) * b
        share[n] *= low * (1.0 - a) + high * a
    return share


@compiled
def _openness(samples: F64, from_above: float, open_share: F32, origin: Vector) -> F64:
    """Share of the ambient light (N,) that reaches each sample: less on faces that look down, less close to the ground."""
    share = np.empty(len(samples))
    for n in range(len(samples)):
        share[n] = 1.0 - 0.5 * from_above * (1.0 - samples[n, 5])
        u, v = (samples[n, 0] - origin[0]) / origin[2], (samples[n, 1] - origin[1]) / origin[2]
        height = samples[n, 2]
        if height > 0.9 or not (0.0 <= u < open_share.shape[0] - 1 and 0.0 <= v < open_share.shape[1] - 1):  # noqa: PLR2004
            continue
        i, j = int(u), int(v)
        a, b = u - i, v - j
        low = open_share[i, j] * (1.0 - b) + open_share[i, j + 1] * b
        high = open_share[i + 1, j] * (1.0 - b) + open_share[i + 1, j + 1] * b
        share[n] *= 1.0 - (1.0 - (low * (1.0 - a) + high * a)) * (1.0 - height / 0.9)
    return share


@compiled
def _shade_by_movers(samples: F64, sun: F64, movers: F64, sunlight: F64, ambient: F64) -> None:
    """Darken the ground (``sunlight`` and ``ambient`` (N,)) where what moves stands in the light, taken as its box."""
    for n in range(len(samples)):
        if samples[n, 2] > 0.3 or samples[n, 5] < 0.7:  # noqa: PLR2004 - not the ground
            continue
        for m in range(len(movers)):
            x, y = samples[n, 0] - movers[m, 0], samples[n, 1] - movers[m, 1]
            if x * x + y * y > 64.0:  # noqa: PLR2004 - square of more than a truck's shadow, metres
                continue
            c, s = movers[m, 2], movers[m, 3]
            x, y = c * x + s * y, c * y - s * x
            half_x, half_y, height = movers[m, 4], movers[m, 5], movers[m, 6]
            out_x, out_y = max(abs(x) - half_x, 0.0), max(abs(y) - half_y, 0.0)
            ambient[n] *= 1.0 - 0.6 * _fade(out_x * out_x + out_y * out_y, 0.15)
            # Does the ray to the sun pass through the box, from its ground to its height?
            lx, ly = (c * sun[0] + s * sun[1]) / sun[2], (c * sun[1] - s * sun[0]) / sun[2]
            ax, bx = (-half_x - x) / lx, (half_x - x) / lx
            ay, by = (-half_y - y) / ly, (half_y - y) / ly
            if max(min(ax, bx), min(ay, by), 0.15) < min(max(ax, bx), max(ay, by), height):
                sunlight[n] = 0.0


@compiled
def _sum_of_light(samples: F64, light: F64, sunlight: F64, ambient: F64, lamps: F64) -> F64:
    """Light (N, 4) that a white surface reflects at each sample: of the sun, the sky or room, and the lamps (L, 10).

    The fourth column is the share that is left on the way to the camera.
    """
    total = np.empty((len(samples), 4))
    for n in range(len(samples)):
        r = sunlight[n] * light[SUN_COLOR] + ambient[n] * light[AMBIENT]
        g = sunlight[n] * light[SUN_COLOR + 1] + ambient[n] * light[AMBIENT + 1]
        b = sunlight[n] * light[SUN_COLOR + 2] + ambient[n] * light[AMBIENT + 2]
        for m in range(len(lamps)):
            x, y, z = lamps[m, 0] - samples[n, 0], lamps[m, 1] - samples[n, 1], lamps[m, 2] - samples[n, 2]
            cosine = samples[n, 3] * x + samples[n, 4] * y + samples[n, 5] * z
            if cosine <= 0.0:
                continue
            square = x * x + y * y + z * z
            far = math.sqrt(square)
            share = cosine / far / (square + 0.2)
            if lamps[m, 9] > -1.0:
                beam = -(lamps[m, 6] * x + lamps[m, 7] * y + lamps[m, 8] * z) / far
                edge = min(max((beam - lamps[m, 9]) / (1.0 - lamps[m, 9]), 0.0), 1.0)
                share *= edge * edge
            r, g, b = r + share * lamps[m, 3], g + share * lamps[m, 4], b + share * lamps[m, 5]
        total[n, 0], total[n, 1], total[n, 2], total[n, 3] = r, g, b, math.exp(-light[FOG_PER_M] * samples[n, 6])
    return total


def _light_on(world: World, samples: F64) -> F64:
    """Light (N, 4) at samples (N, 7): _sum_of_light's."""
    light = world.light
    sun = light[SUN_DIRECTION : SUN_DIRECTION + 3]
    sunny = light[SUN_COLOR] > 0
    sunlight = _sunlight(samples, sun, world.shadow, world.shadow_camera) if sunny else np.zeros(len(samples))
    ambient = _openness(samples, light[FROM_ABOVE], world.open, world.open_origin)
    _shade_by_movers(samples, sun, world.movers, sunlight, ambient)
    return _sum_of_light(samples, light, sunlight, ambient, world.lamps)


# --------------------------------------------------------------------------------------------------------------------
# Pictures


def shade(world: World, world_from_camera: F64, intrinsics: Intrinsics, found: I32, inverse: F32) -> tuple[F32, U8, I32]:
    """Radiance (H, W, 3) float32, class (H, W) uint8 and actor (H, W) int32 (-1: none) of what a camera shows.

    ``found`` and ``inverse`` are raster.rasterize's. Of the sky the class is 255.
    """
    sample_of, samples = _sample(found, inverse, world_from_camera, intrinsics, world.triangles)
    return _shade(
        world.triangles, world.surface_of, world.surfaces, world.light, world_from_camera, intrinsics, found, inverse,
        sample_of, samples, _light_on(world, samples),
    )  # fmt: skip


@inlined
def _mirrored(
    r: float, g: float, b: float, er: float, eg: float, eb: float, dx: float, dy: float, dz: float,
    nx: float, ny: float, nz: float, facing: float, gloss: float, light: F64, sky: Sky,
) -> Vector:  # fmt: skip
    """A colour with what gloss mirrors: indoors the light e that falls on it, else the sky, and the sun; d: ray, n: normal."""
    mx, my, mz = dx - 2.0 * facing * nx, dy - 2.0 * facing * ny, dz - 2.0 * facing * nz
    grazing = (1.0 + facing) * (1.0 + facing)
    fresnel = gloss * (0.10 + 0.90 * grazing * grazing)
    if light[INDOORS] > 0:
        mr, mg, mb = 0.4 * er, 0.4 * eg, 0.4 * eb
    else:
        mr, mg, mb = _sky(sky, mx, my, mz)
        seen = min(1.0, 0.3 + 1.6 * mz) if mz > 0.02 else 0.15  # noqa: PLR2004 - what stands around hides the low sky
        mr, mg, mb = mr * seen, mg * seen, mb * seen
    r, g, b = r + fresnel * (mr - r), g + fresnel * (mg - g), b + fresnel * (mb - b)
    glint = mx * light[SUN_DIRECTION] + my * light[SUN_DIRECTION + 1] + mz * light[SUN_DIRECTION + 2]
    if light[SUN_COLOR] > 0 and glint > 0.97 and er > 2.0 * light[AMBIENT]:  # noqa: PLR2004 - within 14 degrees of the mirrored sun
        spot = gloss * light[SUN_COLOR] * (glint - 0.97) / 0.03
        r, g, b = r + spot, g + spot, b + spot
    return r, g, b


@compiled
def _shade(
    triangles: F32, surface_of: I32, surfaces: F32, light: F64, world_from_camera: F64, intrinsics: Intrinsics,
    found: I32, inverse: F32, sample_of: I32, samples: F64, incoming: F64,
) -> tuple[F32, U8, I32]:  # fmt: skip
    fx, fy, cx, cy = intrinsics
    R = world_from_camera
    height, width = found.shape
    color = np.empty((height, width, 3), np.float32)
    label = np.full((height, width), 255, np.uint8)
    actor = np.full((height, width), -1, np.int32)
    wet = light[WET]
    pixel_x, pixel_y = 1.0 / fx, 1.0 / fy
    ar, ag, ab = light[AIRLIGHT], light[AIRLIGHT + 1], light[AIRLIGHT + 2]
    sky = (
        light[ZENITH], light[ZENITH + 1], light[ZENITH + 2], light[HORIZON], light[HORIZON + 1], light[HORIZON + 2],
        light[CLOUDS],
    )  # fmt: skip
    for i in range(height):
        for j in range(width):
            x, y = (j - cx) * pixel_x, (i - cy) * pixel_y
            shorten = 1.0 / math.sqrt(x * x + y * y + 1.0)
            dx = shorten * (R[0, 0] * x + R[0, 1] * y + R[0, 2])
            dy = shorten * (R[1, 0] * x + R[1, 1] * y + R[1, 2])
            dz = shorten * (R[2, 0] * x + R[2, 1] * y + R[2, 2])
            k, s = found[i, j], sample_of[i, j]
            if k < 0:
                r, g, b = _sky(sky, dx, dy, dz)
                color[i, j, 0], color[i, j, 1], color[i, j, 2] = r, g, b
                continue
            far = 1.0 / (float(inverse[i, j]) * shorten)
            px, py, pz = R[0, 3] + far * dx, R[1, 3] + far * dy, R[2, 3] + far * dz
            nx, ny, nz = samples[s, 3], samples[s, 4], samples[s, 5]
            er, eg, eb = incoming[s, 0], incoming[s, 1], incoming[s, 2]
            facing = nx * dx + ny * dy + nz * dz
            n = surface_of[k]
            u = triangles[k, 13] * px + triangles[k, 14] * py + triangles[k, 15] * pz + triangles[k, 16]
            v = triangles[k, 17] * px + triangles[k, 18] * py + triangles[k, 19] * pz + triangles[k, 20]
            material, along = int(surfaces[n, MATERIAL]), 0.0
            if material == ASPHALT:
                along = abs(triangles[k, 13] * dx + triangles[k, 14] * dy) / math.sqrt(dx * dx + dy * dy + 1e-12)
            footprint = far * pixel_x
            q = (
                float(surfaces[n, FIRST]), float(surfaces[n, SECOND]), float(surfaces[n, THIRD]),
                float(surfaces[n, FOURTH]), float(surfaces[n, FIFTH]), float(surfaces[n, SIXTH]),
            )  # fmt: skip
            r, g, b, gloss, detail, lit = _surface(
                material, float(surfaces[n, RED]), float(surfaces[n, GREEN]), float(surfaces[n, BLUE]),
                u, v, nz, q, footprint, footprint / max(-facing, 0.03), min(along, 1.0), wet,
            )  # fmt: skip
            r, g, b = r * er, g * eg, b * eb
            glow = lit * surfaces[n, GLOW] * light[GLOW_LEVEL]
            if glow > 0.0:
                r, g = r + glow * max(surfaces[n, RED], 0.3), g + glow * max(surfaces[n, GREEN], 0.26)
                b += 0.7 * glow * max(surfaces[n, BLUE], 0.28)
            if gloss > 0.0:
                r, g, b = _mirrored(r, g, b, er, eg, eb, dx, dy, dz, nx, ny, nz, facing, gloss, light, sky)
            clear = incoming[s, 3]
            r, g, b = ar + (r - ar) * clear, ag + (g - ag) * clear, ab + (b - ab) * clear
            color[i, j, 0], color[i, j, 1], color[i, j, 2] = r, g, b
            label[i, j] = int(surfaces[n, DETAIL]) if detail > 0 else int(surfaces[n, CLASS])
            actor[i, j] = int(surfaces[n, ACTOR])
    return color, label, actor


@compiled
def reflectances(world: World, origins: F32, directions: F32, distance: F32, triangle: I32) -> tuple[F32, F32, F32, U8, I32]:
    """What infrared light of 850 to 905 nm meets: reflectance, gloss and cosine (N,) float32, class and actor (N,).

    ``origins`` (N, 3) and unit ``directions`` (N, 3) of rays, which hit ``triangle`` (N,) (-1: nothing) at ``distance`` (N,).
    """
    triangles, surfaces = world.triangles, world.surfaces
    count = len(triangle)
    reflectance, mirror = np.zeros(count, np.float32), np.zeros(count, np.float32)
    cosine = np.ones(count, np.float32)
    label, actor = np.full(count, 255, np.uint8), np.full(count, -1, np.int32)
    for n in range(count):
        k = triangle[n]
        if k < 0:
            continue
        t = float(distance[n])
        dx, dy, dz = float(directions[n, 0]), float(directions[n, 1]), float(directions[n, 2])
        px, py, pz = origins[n, 0] + t * dx, origins[n, 1] + t * dy, origins[n, 2] + t * dz
        m = world.surface_of[k]
        facing = abs(triangles[k, 9] * dx + triangles[k, 10] * dy + triangles[k, 11] * dz)
        footprint = 0.002 * t + 0.005
        u = triangles[k, 13] * px + triangles[k, 14] * py + triangles[k, 15] * pz + triangles[k, 16]
        v = triangles[k, 17] * px + triangles[k, 18] * py + triangles[k, 19] * pz + triangles[k, 20]
        q = (
            float(surfaces[m, FIRST]), float(surfaces[m, SECOND]), float(surfaces[m, THIRD]),
            float(surfaces[m, FOURTH]), float(surfaces[m, FIFTH]), float(surfaces[m, SIXTH]),
        )  # fmt: skip
        r, g, b, gloss, detail, _ = _surface(
            int(surfaces[m, MATERIAL]), float(surfaces[m, RED]), float(surfaces[m, GREEN]), float(surfaces[m, BLUE]),
            u, v, float(triangles[k, 11]), q, footprint, footprint, 0.5, world.light[WET],
        )  # fmt: skip
        reflectance[n] = min(0.6 * r + 0.3 * g + 0.1 * b + surfaces[m, INFRARED] + 0.2 * detail, 1.0)
        mirror[n], cosine[n] = gloss, facing
        label[n] = int(surfaces[m, DETAIL]) if detail > 0 else int(surfaces[m, CLASS])
        actor[n] = int(surfaces[m, ACTOR])
    return reflectance, mirror, cosine, label, actor

"""Things that are found in streets, each as a mesh in its own frame: x ahead, z up, origin on the ground."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from gemini_core.simulation.classes import CAR, PEDESTRIAN, POLE, TRAFFIC_SIGN, TREE, TRUCK, TWO_WHEELER
from gemini_core.simulation.mesh import (
    SIDES,
    TOP,
    Color,
    Mesh,
    MeshBuilder,
    box,
    cylinder,
    frustum,
    place,
    quads,
    sphere,
)
from gemini_core.simulation.shading import BARK, GLASS, GRAIN, LEAVES, PAINT, PLAIN, SIGN
from gemini_core.types import F64

Thing = tuple[Mesh, tuple[float, float, float]]
"""A mesh, and the size of the box around it: length, width, height."""

LAMP_GLOW = 0.6
HEADLIGHT_GLOW, TAIL_GLOW = 0.5, 0.03
RETROREFLECTOR = 0.8  # infrared that comes back from plates and signs

_PAINTS: tuple[Color, ...] = (
    (0.55, 0.03, 0.03),
    (0.04, 0.10, 0.35),
    (0.65, 0.66, 0.68),
    (0.30, 0.31, 0.33),
    (0.03, 0.03, 0.035),
    (0.80, 0.80, 0.78),
    (0.05, 0.22, 0.12),
    (0.70, 0.45, 0.05),
)
_CLOTHES: tuple[Color, ...] = (
    (0.05, 0.06, 0.10),
    (0.35, 0.05, 0.05),
    (0.10, 0.18, 0.35),
    (0.55, 0.50, 0.42),
    (0.08, 0.08, 0.08),
    (0.60, 0.42, 0.08),
    (0.12, 0.25, 0.14),
    (0.62, 0.62, 0.64),
)
_SKINS: tuple[Color, ...] = ((0.50, 0.32, 0.24), (0.30, 0.17, 0.11), (0.58, 0.40, 0.31), (0.16, 0.09, 0.06))


def _choose(rng: np.random.Generator, colors: tuple[Color, ...]) -> Color:
    return colors[rng.integers(len(colors))]


def _wheels(builder: MeshBuilder, label: int, places: Sequence[float], side: float, radius: float) -> None:
    rubber = builder.surface(PLAIN, label, (0.025, 0.025, 0.027))
    metal = builder.surface(PLAIN, label, (0.45, 0.45, 0.47))
    for x in places:
        for y in (-1, 1):
            builder.add(cylinder((x, y * (side - 0.22), radius), (x, y * (side + 0.01), radius), (radius, radius), 12), rubber)
            hub = (0.6 * radius, 0.55 * radius)
            builder.add(cylinder((x, y * side, radius), (x, y * (side + 0.02), radius), hub, 8), metal)


def _lights(builder: MeshBuilder, label: int, half: float, side: float, *, low: float, high: float) -> None:
    """Head and tail lights and plates at x = ± ``half``."""
    lamp = builder.surface(PLAIN, label, (0.85, 0.87, 0.9), glow=HEADLIGHT_GLOW, infrared=RETROREFLECTOR)
    tail = builder.surface(PLAIN, label, (0.55, 0.02, 0.02), glow=TAIL_GLOW, infrared=RETROREFLECTOR)
    plate = builder.surface(PLAIN, label, (0.8, 0.8, 0.7), infrared=RETROREFLECTOR)
    for y in (-1, 1):
        inner, outer = sorted((y * (side - 0.5), y * (side - 0.16)))
        builder.add(box(half - 0.16, half - 0.02, inner, outer, low, low + 0.14), lamp)
        builder.add(box(-half - 0.01, -half + 0.1, inner, outer, high - 0.16, high), tail)
    builder.add(box(-half - 0.02, -half + 0.05, -0.26, 0.26, 0.52, 0.63), plate)
    builder.add(box(half - 0.05, half + 0.02, -0.26, 0.26, 0.42, 0.53), plate)


def car(rng: np.random.Generator) -> Thing:
    """A hatchback, saloon or van, and its size."""
    length, width, height, cabin_rear, cabin_front, roof_rear, roof_front = (
        (4.1, 1.75, 1.50, -1.95, 0.75, -1.55, 0.05),
        (4.6, 1.80, 1.45, -1.45, 0.85, -0.80, 0.10),
        (4.9, 1.90, 1.95, -2.38, 1.55, -2.25, 0.85),
    )[rng.integers(3)]
    half, belt, side = length / 2, 0.88 if height < 1.7 else 1.05, width / 2  # noqa: PLR2004 - only the van is higher
    builder = MeshBuilder()
    paint = builder.surface(PAINT, CAR, _choose(rng, _PAINTS))
    glass = builder.surface(GLASS, CAR, (0.03, 0.035, 0.04))
    stations = (
        (-half, side - 0.14, 0.38, belt - 0.12),
        (-half + 0.18, side - 0.03, 0.24, belt),
        (-half + 1.0, side, 0.20, belt + 0.02),
        (cabin_front, side, 0.20, belt),
        (half - 0.45, side - 0.04, 0.22, belt - 0.14),
        (half, side - 0.18, 0.36, belt - 0.30),
    )
    rings = np.array([[(x, -w, z0), (x, w, z0), (x, w, z1), (x, -w, z1)] for x, w, z0, z1 in stations]).reshape(-1, 3)
    faces = [
        (4 * k + a, 4 * k + b, 4 * k + 4 + b, 4 * k + 4 + a) for k in range(5) for a, b in ((0, 1), (1, 2), (2, 3), (3, 0))
    ]
    builder.add((rings, quads(*faces, (0, 3, 2, 1), (20, 21, 22, 23))), paint)
    cabin = frustum(
        (cabin_rear, cabin_front, -side + 0.03, side - 0.03), belt, (roof_rear, roof_front, -side + 0.2, side - 0.2), height
    )
    builder.add((cabin, SIDES), glass)
    builder.add((cabin + np.array([0, 0, 0.012]), TOP), paint, body=False)
    for k in range(4):
        builder.add(cylinder(cabin[k], cabin[k + 4], (0.045, 0.04), 5), paint)
    for y in (-1, 1):  # the pillar between the doors
        lower, upper = (-0.25, y * (side - 0.03), belt), (-0.35, y * (side - 0.2), height)
        builder.add(cylinder(lower, upper, (0.05, 0.04), 5), paint)
    _wheels(builder, CAR, (-half + 0.85, half - 0.85), side, 0.32)
    _lights(builder, CAR, half, side, low=belt - 0.36, high=belt - 0.14)
    return builder.build(), (length, width, height)


def truck(rng: np.random.Generator) -> Thing:
    """A box lorry or a bus, and its size."""
    builder = MeshBuilder()
    paint = builder.surface(PAINT, TRUCK, _choose(rng, _PAINTS))
    glass = builder.surface(GLASS, TRUCK, (0.03, 0.035, 0.04))
    dark = builder.surface(PLAIN, TRUCK, (0.05, 0.05, 0.055))
    bus = bool(rng.random() < 0.4)  # noqa: PLR2004 - the others are lorries
    length, width, height = (10.5, 2.4, 3.0) if bus else (float(rng.uniform(6.2, 8.0)), 2.3, float(rng.uniform(2.9, 3.3)))
    half, side = length / 2, width / 2
    if bus:
        builder.add(box(-half, half, -side, side, 0.35, height), paint)
        builder.add(box(-half + 0.4, half + 0.015, -side - 0.015, side + 0.015, 1.25, 2.35), glass)
        for x in np.arange(-half + 0.4, half, 1.6):
            builder.add(box(x - 0.06, x + 0.06, -side - 0.025, side + 0.025, 1.2, 2.4), paint)
        wheels = (-half + 2.4, half - 2.2)
    else:
        white = builder.surface(GRAIN, TRUCK, (0.72, 0.72, 0.70), first=0.05, second=2.0)
        cab = half - 1.9
        builder.add(box(-half, cab - 0.15, -side, side, 0.85, height), white if rng.random() < 0.7 else paint)  # noqa: PLR2004
        builder.add(box(-half + 0.2, half - 0.3, -side + 0.25, side - 0.25, 0.5, 0.85), dark)
        builder.add((frustum((cab, half, -side, side), 0.5, (cab, half - 0.25, -side + 0.1, side - 0.1), 2.5), quads(
            (0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7))), paint)  # fmt: skip
        builder.add(box(half - 0.8, half - 0.05, -side + 0.12, side - 0.12, 1.5, 2.25), glass)
        builder.add(box(half - 1.4, half - 0.6, -side - 0.01, side + 0.01, 1.5, 2.2), glass)
        wheels = (-half + 1.2, half - 1.1)
    _wheels(builder, TRUCK, wheels, side, 0.48)
    _lights(builder, TRUCK, half, side, low=0.75, high=1.1)
    return builder.build(), (length, width + 0.05, height)


def _limb(
    builder: MeshBuilder, surface: int, scale: float, side: float, limb: Sequence[tuple[float, float, float, float]]
) -> None:
    """A limb through joints (x, y, z, radius); ``side`` is the share of the stride that it follows below the first."""
    top = limb[0][2]
    for start, end in itertools.pairwise(limb):
        vertices, triangles = cylinder(start[:3], end[:3], (start[3], end[3]), 7)
        builder.add((vertices * scale, triangles), surface, swing=side * 0.38 * (top - vertices[:, 2]) * scale)


def _torso_and_head(builder: MeshBuilder, coat: int, scale: float, rng: np.random.Generator) -> None:
    skin = builder.surface(PLAIN, PEDESTRIAN, _choose(rng, _SKINS))
    hair = builder.surface(PLAIN, PEDESTRIAN, (0.06, 0.04, 0.03))
    for low, high, radii in ((0.82, 1.18, (0.19, 0.18)), (1.18, 1.46, (0.18, 0.13))):
        vertices, triangles = cylinder((0, 0, low), (0, 0, high), radii, 10)
        builder.add((vertices * [0.8 * scale, 1.15 * scale, scale], triangles), coat)
    ball, faces = sphere(1)
    builder.add((scale * (ball * [0.10, 0.085, 0.12] + [0.01, 0, 1.62]), faces), skin)
    builder.add((scale * (ball * [0.105, 0.092, 0.10] + [-0.015, 0, 1.66]), faces), hair)


def pedestrian(rng: np.random.Generator) -> Thing:
    """A person who stands or walks, and the size of the box around it, arms and stride included."""
    scale = float(rng.uniform(0.92, 1.08))
    builder = MeshBuilder()
    coat = builder.surface(GRAIN, PEDESTRIAN, _choose(rng, _CLOTHES), first=0.12, second=8.0, infrared=0.15)
    trousers = builder.surface(GRAIN, PEDESTRIAN, _choose(rng, _CLOTHES), first=0.12, second=8.0, infrared=0.1)
    for side in (-1.0, 1.0):
        leg = ((0.0, side * 0.10, 0.90, 0.10), (0.02, side * 0.095, 0.46, 0.075), (0.0, side * 0.09, 0.02, 0.055))
        _limb(builder, trousers, scale, side, leg)
        arm = ((0.0, side * 0.24, 1.42, 0.06), (0.0, side * 0.27, 1.10, 0.05), (0.06, side * 0.27, 0.82, 0.045))
        _limb(builder, coat, scale, -side, arm)
    _torso_and_head(builder, coat, scale, rng)
    return builder.build(), (0.68 * scale, 0.66 * scale, 1.77 * scale)


def two_wheeler(rng: np.random.Generator, *, ridden: bool, motor: bool) -> Thing:
    """A bicycle or motorcycle, with its rider where it is ridden, and its size; all of it is one class."""
    builder = MeshBuilder()
    paint = builder.surface(PAINT, TWO_WHEELER, _choose(rng, _PAINTS))
    rubber = builder.surface(PLAIN, TWO_WHEELER, (0.03, 0.03, 0.03))
    steel = builder.surface(PLAIN, TWO_WHEELER, (0.4, 0.4, 0.42))
    radius, base, thick = (0.31, 0.68, 0.07) if motor else (0.34, 0.54, 0.025)
    for x in (-base, base):
        _wheel(builder, x, radius, thick, (rubber, steel))
    if motor:
        builder.add(box(-0.45, 0.35, -0.16, 0.16, 0.32, 0.68), steel)
        builder.add(box(-0.75, -0.05, -0.15, 0.15, 0.68, 0.82), rubber)
        builder.add(box(-0.05, 0.42, -0.17, 0.17, 0.62, 0.95), paint)
    else:
        frame = (((-base, 0, radius), (-0.16, 0, 0.72)), ((-0.16, 0, 0.72), (0.4, 0, 0.78)), ((-0.1, 0, 0.28), (0.4, 0, 0.72)))
        for start, end in (*frame, ((-0.1, 0, 0.28), (-0.2, 0, 0.92)), ((-base, 0, radius), (-0.1, 0, 0.28))):
            builder.add(cylinder(start, end, (0.022, 0.022), 5), paint)
        builder.add(box(-0.34, -0.08, -0.08, 0.08, 0.90, 0.97), rubber)
    builder.add(cylinder((base, 0, radius), (0.42, 0, 1.02), (0.03, 0.03), 5), steel)
    builder.add(cylinder((0.40, -0.3, 1.04), (0.40, 0.3, 1.04), (0.02, 0.02), 5), steel)
    lamp = builder.surface(PLAIN, TWO_WHEELER, (0.85, 0.85, 0.8), glow=HEADLIGHT_GLOW, infrared=RETROREFLECTOR)
    builder.add(box(0.46, 0.54, -0.06, 0.06, 0.86, 0.98), lamp)
    tail = builder.surface(PLAIN, TWO_WHEELER, (0.5, 0.02, 0.02), glow=TAIL_GLOW, infrared=RETROREFLECTOR)
    builder.add(box(-base - 0.14, -base - 0.08, -0.05, 0.05, 0.62, 0.7), tail)
    if ridden:
        _rider(builder, rng, helmet=motor)
    length = 2 * (base + radius)
    return builder.build(), (length, 0.66, 1.82 if ridden else 1.1)


def _wheel(builder: MeshBuilder, x: float, radius: float, thick: float, surfaces: tuple[int, int]) -> None:
    """A tyre as a ring of boxes, so that one sees through it, and its spokes."""
    sides, (rubber, steel) = 10, surfaces
    angle = np.arange(sides) * (2 * np.pi / sides)
    rim = np.stack([x + radius * np.cos(angle), np.zeros(sides), radius + radius * np.sin(angle)], 1)
    for k in range(sides):
        builder.add(
            cylinder(
                rim[k] * [1, 0, 0.96] + [0, 0, 0.02], rim[(k + 1) % sides] * [1, 0, 0.96] + [0, 0, 0.02], (thick, thick), 4
            ),
            rubber,
        )
    for k in range(3):
        builder.add(cylinder(rim[k], rim[k + 5], (0.012, 0.012), 3), steel)


def _rider(builder: MeshBuilder, rng: np.random.Generator, *, helmet: bool) -> None:
    coat = builder.surface(GRAIN, TWO_WHEELER, _choose(rng, _CLOTHES), first=0.12, second=8.0, infrared=0.15)
    trousers = builder.surface(GRAIN, TWO_WHEELER, _choose(rng, _CLOTHES), first=0.12, second=8.0, infrared=0.1)
    head = builder.surface(PAINT if helmet else PLAIN, TWO_WHEELER, _choose(rng, _PAINTS if helmet else _SKINS))
    for lower, upper, radii in (
        ((-0.22, 0, 0.92), (-0.08, 0, 1.22), (0.17, 0.18)),
        ((-0.08, 0, 1.22), (0.06, 0, 1.48), (0.18, 0.13)),
    ):
        builder.add(cylinder(lower, upper, radii, 9), coat)
    ball, faces = sphere(1)
    builder.add((ball * [0.13, 0.11, 0.14] + [0.12, 0, 1.66], faces), head)
    for side in (-1, 1):
        knee, foot = (0.2, side * 0.14, 0.72 + 0.1 * side), (0.0, side * 0.13, 0.25 + 0.1 * side)
        builder.add(cylinder((-0.2, side * 0.1, 0.92), knee, (0.1, 0.08), 6), trousers)
        builder.add(cylinder(knee, foot, (0.075, 0.055), 6), trousers)
        builder.add(cylinder((0.04, side * 0.2, 1.4), (0.38, side * 0.26, 1.06), (0.06, 0.045), 6), coat)


def add_tree(builder: MeshBuilder, rng: np.random.Generator, at: F64, scale: float) -> None:
    """A tree at a pose; ``scale`` 1 is one of a street."""
    trunk = float(rng.uniform(2.3, 3.2)) * scale
    bark = builder.surface(BARK, TREE, (0.13, 0.09, 0.06))
    builder.add(place(cylinder((0, 0, -0.1), (0, 0, trunk + 0.8), (0.17 * scale, 0.11 * scale), 7), at), bark)
    green = rng.uniform(0.8, 1.2)
    color = (0.085 * green * rng.uniform(0.8, 1.5), 0.16 * green, 0.035 * green)
    leaves = builder.surface(LEAVES, TREE, color, infrared=0.25)  # leaves are bright in the near infrared
    ball, faces = sphere(2 if scale < 1.3 else 1)  # noqa: PLR2004 - larger ones stand in the background
    for _ in range(3):
        radius = rng.uniform(0.95, 1.4) * scale
        waves = np.sin(ball @ rng.normal(0, 2.6, (3, 5)) + rng.uniform(0, 6.3, 5)).sum(axis=1)
        bumps = 1 + (0.07 * waves + 0.035 * rng.standard_normal(len(ball)))[:, None]
        spread = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.8), 0]) * scale
        center = spread + np.array([0, 0, trunk + radius * rng.uniform(0.5, 1.2)])
        crown = place((ball * bumps * radius * [1, 1, rng.uniform(0.9, 1.2)] + center, faces), at)
        builder.add(crown, leaves)


LAMP_ARM_M, LAMP_HEIGHT_M = 1.9, 7.15


def add_lamp(builder: MeshBuilder, at: F64) -> None:
    """A street lamp at a pose; its arm reaches along x."""
    steel = builder.surface(PLAIN, POLE, (0.22, 0.24, 0.25))
    glass = builder.surface(PLAIN, POLE, (0.8, 0.75, 0.6), glow=LAMP_GLOW)
    builder.add(place(cylinder((0, 0, -0.1), (0, 0, 7.0), (0.10, 0.07), 8), at), steel)
    builder.add(place(cylinder((0, 0, 6.95), (1.7, 0, 7.25), (0.05, 0.04), 6), at), steel)
    builder.add(place(box(1.5, 2.25, -0.15, 0.15, 7.22, 7.34), at), steel)
    builder.add(place(box(1.6, 2.2, -0.12, 0.12, 7.18, 7.22), at), glass)


def add_bollard(builder: MeshBuilder, at: F64) -> None:
    """A bollard at a pose."""
    steel = builder.surface(GRAIN, POLE, (0.30, 0.30, 0.32), first=0.15, second=3.0)
    builder.add(place(cylinder((0, 0, -0.05), (0, 0, 1.0), (0.08, 0.07), 8), at), steel)


def add_sign(builder: MeshBuilder, rng: np.random.Generator, at: F64) -> None:
    """A traffic sign at a pose, seen from behind x: the board is TRAFFIC_SIGN, its post POLE."""
    steel = builder.surface(PLAIN, POLE, (0.40, 0.41, 0.42))
    style = int(rng.integers(4))
    color: Color = ((0.65, 0.04, 0.04), (0.04, 0.12, 0.55), (0.04, 0.12, 0.50), (0.70, 0.55, 0.04))[style]
    face = builder.surface(SIGN, TRAFFIC_SIGN, color, first=float(style), infrared=RETROREFLECTOR)
    back = builder.surface(PLAIN, TRAFFIC_SIGN, (0.35, 0.36, 0.37))
    half, middle = (float(rng.uniform(0.42, 0.56)), float(rng.uniform(2.2, 2.7)))
    builder.add(place(cylinder((0, 0, -0.1), (0, 0, middle + half), (0.045, 0.045), 6), at), steel)
    if style >= 2:  # noqa: PLR2004 - squares
        outline = half * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    else:
        angle = np.arange(12) * (np.pi / 6)
        outline = half * np.stack([np.cos(angle), np.sin(angle)], 1)
    count = len(outline)
    for x, surface in ((-0.07, face), (-0.05, back)):
        vertices = np.column_stack([np.full(count, x), outline[:, 0], middle + outline[:, 1]])
        fan = np.array([(0, k, k + 1) for k in range(1, count - 1)], np.int32)
        builder.add(place((vertices, fan), at), surface, texture=outline / half, body=False)

"""A procedural street: geometry, surfaces and the things that move in it.

World frame (``odom``): x along the street, y left, z up, metres; the road's surface is z = 0. The street bends: its centre
line is ``y = road_center(x)``, and ``d = y - road_center(x)`` is the lateral coordinate that everything is laid out in.
The street is made of blocks that depend only on the seed and on their number, so a longer recording begins like a shorter
one, as far as one can see.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gemini_core.types import F32, F64

I32: TypeAlias = npt.NDArray[np.int32]

CLASS_NAMES = ("road", "lane_marking", "ground", "building", "pole", "tree", "car", "pedestrian", "sky")
"""Mask values of the ground truth; the order of FusionConfig's default ``model.classes``."""
ROAD, LANE_MARKING, GROUND, BUILDING, POLE, TREE, CAR, PEDESTRIAN, SKY = range(9)

# What the shader does with a surface (column MATERIAL of the surface table).
PLAIN, ASPHALT, PAVING, GRASS, FACADE, ROOFING, BARK, LEAVES, PAINT, GLASS, MIRROR = range(11)

# Columns of the surface table.
MATERIAL, CLASS, ACTOR, RED, GREEN, BLUE, TANGENT_X, TANGENT_Y, OFFSET, CELL, FLOOR, FIRST_FLOOR, HEIGHT, STYLE, SALT = range(
    15
)
SURFACE_COLUMNS = 15

ROAD_HALF_M = 5.7
LANE_EDGE_M = 3.5
LANE_CENTER_M = 1.75
CURB_M = 0.12
SIDEWALK_OUTER_M = 9.6
BEND_M = 8.0
BEND_LENGTH_M = 300.0
BLOCK_M = 24.0
CROSSING_EVERY_BLOCKS = 3

Color = tuple[float, float, float]


def road_center(x: F64 | float) -> F64:
    """Lateral position of the road's centre line at ``x`` (same shape), metres."""
    return BEND_M * np.sin(np.asarray(x) * (2 * np.pi / BEND_LENGTH_M))


def road_yaw(x: F64 | float) -> F64:
    """Direction of the road's centre line at ``x`` (same shape), radians from the x axis."""
    return np.arctan(BEND_M * 2 * np.pi / BEND_LENGTH_M * np.cos(np.asarray(x) * (2 * np.pi / BEND_LENGTH_M)))


# --------------------------------------------------------------------------------------------------------------------
# Meshes


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """Triangles with surfaces.

    ``vertices`` (V, 3) float32, ``triangles`` (T, 3) int32, ``surface_of`` (T,) rows of ``surfaces`` (S, SURFACE_COLUMNS)
    float32. ``swing`` (V,) float32 is how far a vertex moves along x when a walker's stride is at its widest.
    """

    vertices: F32
    triangles: I32
    surface_of: I32
    surfaces: F32
    swing: F32


@dataclass(slots=True)
class MeshBuilder:
    """Collects parts into one mesh."""

    vertices: list[F64] = field(default_factory=list)
    triangles: list[I32] = field(default_factory=list)
    surface_of: list[I32] = field(default_factory=list)
    surfaces: list[F64] = field(default_factory=list)
    swing: list[F64] = field(default_factory=list)
    vertex_count: int = 0

    def surface(self, material: int, label: int, color: Color, **columns: float) -> int:
        """Add a surface and give its row; ``columns`` are further columns of the table by lower-case name."""
        row = np.zeros(SURFACE_COLUMNS)
        row[[MATERIAL, CLASS, ACTOR]] = material, label, -1
        row[[RED, GREEN, BLUE]] = color
        for name, value in columns.items():
            row[globals()[name.upper()]] = value
        self.surfaces.append(row)
        return len(self.surfaces) - 1

    def add(self, part: tuple[F64, I32], surface: int, swing: F64 | None = None) -> None:
        """Add a part (vertices (V, 3), triangles (T, 3)) with one surface."""
        vertices, triangles = part
        self.vertices.append(vertices)
        self.triangles.append(triangles + np.int32(self.vertex_count))
        self.surface_of.append(np.full(len(triangles), surface, np.int32))
        self.swing.append(np.zeros(len(vertices)) if swing is None else swing)
        self.vertex_count += len(vertices)

    def add_mesh(self, mesh: Mesh, world_from_mesh: F64, actor: int) -> None:
        """Add a whole mesh at a pose (4, 4), its surfaces marked as those of ``actor``."""
        first = len(self.surfaces)
        rows = mesh.surfaces.astype(np.float64)
        rows[:, ACTOR] = actor
        self.surfaces.extend(rows)
        self.vertices.append(mesh.vertices @ world_from_mesh[:3, :3].T + world_from_mesh[:3, 3])
        self.triangles.append(mesh.triangles + np.int32(self.vertex_count))
        self.surface_of.append(mesh.surface_of + np.int32(first))
        self.swing.append(mesh.swing.astype(np.float64))
        self.vertex_count += len(mesh.vertices)

    def build(self) -> Mesh:
        """The mesh of everything added."""
        return Mesh(
            np.concatenate(self.vertices).astype(np.float32),
            np.concatenate(self.triangles),
            np.concatenate(self.surface_of),
            np.stack(self.surfaces).astype(np.float32),
            np.concatenate(self.swing).astype(np.float32),
        )


def _quads(*corners: tuple[int, int, int, int]) -> I32:
    return np.array([t for a, b, c, d in corners for t in ((a, b, c), (a, c, d))], np.int32)


_HEXAHEDRON = _quads((0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7))
_SIDES = _HEXAHEDRON[4:]
_TOP = _HEXAHEDRON[2:4]


def _frustum(bottom: tuple[float, float, float, float], z0: float, top: tuple[float, float, float, float], z1: float) -> F64:
    """Eight corners of a body between two rectangles (x0, x1, y0, y1)."""
    corners = [((x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)) for (x0, x1, y0, y1), z in ((bottom, z0), (top, z1))]
    return np.array(corners, np.float64).reshape(8, 3)


def box(x0: float, x1: float, y0: float, y1: float, z0: float, z1: float) -> tuple[F64, I32]:  # noqa: PLR0917 - the usual order of its sides
    """An axis-aligned box."""
    return _frustum((x0, x1, y0, y1), z0, (x0, x1, y0, y1), z1), _HEXAHEDRON


def cylinder(start: Sequence[float], end: Sequence[float], radii: tuple[float, float], sides: int) -> tuple[F64, I32]:
    """A closed cone frustum from ``start`` to ``end``, with the radii there."""
    a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
    axis = (b - a) / np.linalg.norm(b - a)
    across = np.cross(axis, [0.0, 0.0, 1.0] if abs(axis[2]) < 0.9 else [1.0, 0.0, 0.0])  # noqa: PLR2004 - any vector not along the axis
    across /= np.linalg.norm(across)
    angle = np.arange(sides) * (2 * np.pi / sides)
    ring = np.cos(angle)[:, None] * across + np.sin(angle)[:, None] * np.cross(axis, across)  # (sides, 3)
    vertices = np.concatenate([a + radii[0] * ring, b + radii[1] * ring, [a], [b]])
    i = np.arange(sides, dtype=np.int32)
    j = (i + 1) % sides
    parts = [(i, j, j + sides), (i, j + sides, i + sides), (j, i, np.full_like(i, 2 * sides))]
    parts.append((i + sides, j + sides, np.full_like(i, 2 * sides + 1)))
    return vertices, np.concatenate([np.stack(part, 1) for part in parts]).astype(np.int32)


@functools.cache
def sphere(subdivisions: int) -> tuple[F64, I32]:
    """A unit sphere: an icosahedron whose triangles are split into four ``subdivisions`` times."""
    g = (1 + math.sqrt(5)) / 2
    points = [(0.0, a, b * g) for a in (-1, 1) for b in (-1, 1)]
    vertices = np.array([np.roll(p, k) for k in range(3) for p in points])
    distance = np.linalg.norm(vertices[:, None] - vertices[None], axis=2)
    near = np.abs(distance - 2.0) < 1e-6  # noqa: PLR2004 - the icosahedron's edge
    triangles = [(i, j, k) for i in range(12) for j in range(i) for k in range(j) if near[i, j] and near[j, k] and near[i, k]]
    faces = vertices[np.array(triangles)]  # (T, 3 corners, 3)
    for _ in range(subdivisions):
        middle = (faces + np.roll(faces, -1, 1)) / 2  # ab, bc, ca
        corners = [np.stack([faces[:, k], middle[:, k], middle[:, k - 1]], 1) for k in range(3)]
        faces = np.concatenate([*corners, middle])
    flat, index = np.unique(np.round(faces.reshape(-1, 3), 9), axis=0, return_inverse=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True), index.reshape(-1, 3).astype(np.int32)


def pose(x: float, y: float, z: float, yaw: float) -> F64:
    """World-from-body (4, 4) of a body that stands upright."""
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, z], [0, 0, 0, 1.0]])


# --------------------------------------------------------------------------------------------------------------------
# Things


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """A car or pedestrian: its mesh in its own frame (x ahead, z up, origin on the ground) and its way.

    It keeps to the lateral coordinate ``lateral_m`` and moves along x with ``speed_mps`` (negative: towards -x; 0: stands
    still, and turned by ``turn`` against the road). ``size_m`` is length, width, height.
    """

    number: int
    label: int
    mesh: Mesh
    size_m: tuple[float, float, float]
    start_m: float
    lateral_m: float
    ground_m: float
    speed_mps: float
    turn: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether it is ever elsewhere."""
        return self.speed_mps != 0

    def x_at(self, time_s: float) -> float:
        """World x at a time, metres."""
        return self.start_m + self.speed_mps * time_s

    def world_from_actor(self, time_s: float) -> F64:
        """Pose (4, 4) at a time."""
        x = self.x_at(time_s)
        yaw = float(road_yaw(x)) + self.turn + (math.pi if self.speed_mps < 0 else 0.0)
        return pose(x, float(road_center(x)) + self.lateral_m, self.ground_m, yaw)

    def stride(self, time_s: float) -> float:
        """How wide a walker's stride is at a time, -1 to 1: what the mesh's swing is multiplied with."""
        return math.sin(self.speed_mps * 4.2 * time_s)


_CAR_COLORS: tuple[Color, ...] = (
    (0.55, 0.03, 0.03),
    (0.04, 0.10, 0.35),
    (0.65, 0.66, 0.68),
    (0.30, 0.31, 0.33),
    (0.03, 0.03, 0.035),
    (0.80, 0.80, 0.78),
    (0.05, 0.22, 0.12),
    (0.70, 0.45, 0.05),
)


def car_mesh(rng: np.random.Generator) -> tuple[Mesh, tuple[float, float, float]]:
    """A car and its size; ``rng`` chooses among hatchback, saloon and van, and the colour."""
    length, width, height, cabin_rear, cabin_front, roof_rear, roof_front = (
        (4.1, 1.75, 1.50, -1.95, 0.75, -1.55, 0.05),
        (4.6, 1.80, 1.45, -1.45, 0.85, -0.80, 0.10),
        (4.9, 1.90, 1.95, -2.38, 1.55, -2.25, 0.85),
    )[rng.integers(3)]
    half, belt = length / 2, 0.88 if height < 1.7 else 1.05  # noqa: PLR2004 - only the van is higher
    side = width / 2
    builder = MeshBuilder()
    color = _CAR_COLORS[rng.integers(len(_CAR_COLORS))]
    paint = builder.surface(PAINT, CAR, color)
    glass = builder.surface(GLASS, CAR, (0.03, 0.035, 0.04))
    rubber = builder.surface(PLAIN, CAR, (0.025, 0.025, 0.027))
    metal = builder.surface(PLAIN, CAR, (0.45, 0.45, 0.47))
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
    builder.add((rings, _quads(*faces, (0, 3, 2, 1), (20, 21, 22, 23))), paint)
    cabin = _frustum(
        (cabin_rear, cabin_front, -side + 0.03, side - 0.03), belt, (roof_rear, roof_front, -side + 0.2, side - 0.2), height
    )
    builder.add((cabin, _SIDES), glass)
    builder.add((cabin + np.array([0, 0, 0.012]), _TOP), paint)
    for k in range(4):
        builder.add(cylinder(cabin[k], cabin[k + 4], (0.045, 0.04), 5), paint)
    for y in (-1, 1):  # the pillar between the doors
        lower, upper = (-0.25, y * (side - 0.03), belt), (-0.35, y * (side - 0.2), height)
        builder.add(cylinder(lower, upper, (0.05, 0.04), 5), paint)
    for x in (-half + 0.85, half - 0.85):
        for y in (-1, 1):
            builder.add(cylinder((x, y * (side - 0.22), 0.32), (x, y * (side + 0.01), 0.32), (0.32, 0.32), 12), rubber)
            builder.add(cylinder((x, y * side, 0.32), (x, y * (side + 0.02), 0.32), (0.19, 0.17), 8), metal)
    lamp = builder.surface(MIRROR, CAR, (0.85, 0.87, 0.9))
    tail = builder.surface(MIRROR, CAR, (0.55, 0.02, 0.02))
    plate = builder.surface(MIRROR, CAR, (0.8, 0.8, 0.7))
    for y in (-1, 1):
        inner, outer = sorted((y * (side - 0.5), y * (side - 0.16)))
        builder.add(box(half - 0.16, half - 0.02, inner, outer, belt - 0.36, belt - 0.22), lamp)
        builder.add(box(-half - 0.01, -half + 0.1, inner, outer, belt - 0.32, belt - 0.14), tail)
    builder.add(box(-half - 0.02, -half + 0.05, -0.26, 0.26, 0.52, 0.63), plate)
    builder.add(box(half - 0.05, half + 0.02, -0.26, 0.26, 0.42, 0.53), plate)
    return builder.build(), (length, width, height)


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


def pedestrian_mesh(rng: np.random.Generator) -> tuple[Mesh, tuple[float, float, float]]:
    """A pedestrian and the size of the box around it, arms and stride included."""
    scale = float(rng.uniform(0.92, 1.08))
    builder = MeshBuilder()
    coat = builder.surface(PLAIN, PEDESTRIAN, _CLOTHES[rng.integers(len(_CLOTHES))])
    trousers = builder.surface(PLAIN, PEDESTRIAN, _CLOTHES[rng.integers(len(_CLOTHES))])
    skin = builder.surface(PLAIN, PEDESTRIAN, (0.50, 0.32, 0.24))
    hair = builder.surface(PLAIN, PEDESTRIAN, (0.06, 0.04, 0.03))

    def limb(start: Sequence[float], end: Sequence[float], radii: tuple[float, float], surface: int, side: float) -> None:
        vertices, triangles = cylinder(start, end, radii, 7)
        swing = side * 0.38 * (start[2] - vertices[:, 2])
        builder.add((vertices * scale, triangles), surface, swing * scale)

    for side in (-1.0, 1.0):
        limb((0, side * 0.10, 0.90), (0, side * 0.09, 0.02), (0.10, 0.06), trousers, side)
        limb((0, side * 0.24, 1.42), (0.03, side * 0.27, 0.80), (0.06, 0.045), coat, -side)
    for lower, upper, radii in (((0, 0, 0.82), (0, 0, 1.18), (0.19, 0.18)), ((0, 0, 1.18), (0, 0, 1.46), (0.18, 0.13))):
        vertices, triangles = cylinder(lower, upper, radii, 10)
        builder.add((vertices * [0.72 * scale, 1.15 * scale, scale], triangles), coat)
    ball, faces = sphere(1)
    builder.add((scale * (ball * [0.10, 0.085, 0.12] + [0.01, 0, 1.62]), faces), skin)
    builder.add((scale * (ball * [0.105, 0.092, 0.10] + [-0.015, 0, 1.66]), faces), hair)
    return builder.build(), (0.65 * scale, 0.64 * scale, 1.76 * scale)


# --------------------------------------------------------------------------------------------------------------------
# The street


@dataclass(frozen=True, slots=True, eq=False)
class Street:
    """Everything that is there: ``static`` geometry (parked cars and waiting people included) and all ``actors``.

    ``solid`` (T,) bool marks the static triangles of buildings and trees, whose shadows fall on everything else.
    """

    static: Mesh
    actors: tuple[Actor, ...]
    start_m: float
    end_m: float
    sun: F64


_FACADES: tuple[Color, ...] = (
    (0.42, 0.17, 0.11),
    (0.62, 0.52, 0.36),
    (0.66, 0.63, 0.57),
    (0.50, 0.30, 0.20),
    (0.60, 0.42, 0.25),
    (0.44, 0.47, 0.50),
    (0.70, 0.60, 0.48),
    (0.36, 0.24, 0.20),
)
VIEW_AHEAD_M = 320.0
VIEW_BEHIND_M = 72.0
ONCOMING_MPS = -9.0


def build_street(seed: int, length_m: float, ego_mps: float) -> Street:
    """Lay out the street that a drive of ``length_m`` from x = 0 sees, with its traffic.

    ``ego_mps`` is the speed of the recording car, which the car ahead of it keeps.
    """
    builder = MeshBuilder()
    first, last = math.floor(-VIEW_BEHIND_M / BLOCK_M), math.ceil((length_m + VIEW_AHEAD_M) / BLOCK_M)
    start, end = first * BLOCK_M, last * BLOCK_M
    _add_ground(builder, start - 200.0, end + 200.0)
    actors: list[Actor] = []
    for block in range(first, last):
        _add_block(builder, np.random.default_rng([seed, 1, block - first]), block, actors)
    _add_traffic(np.random.default_rng([seed, 2]), actors, length_m, ego_mps)
    for actor in actors:
        if not actor.moves:
            builder.add_mesh(actor.mesh, actor.world_from_actor(0.0), actor.number)
    # High and across the street, so that one side is in the sun and shadows fall on the road.
    rng = np.random.default_rng([seed, 8])
    azimuth, elevation = rng.choice([-1, 1]) * rng.uniform(0.6, 1.2), rng.uniform(0.75, 0.95)
    sun = np.array([math.cos(azimuth) * math.cos(elevation), math.sin(azimuth) * math.cos(elevation), math.sin(elevation)])
    return Street(builder.build(), tuple(actors), start, end, sun)


def _add_ground(builder: MeshBuilder, start: float, end: float) -> None:
    x = np.arange(start, end + 4.0, 4.0)
    center = road_center(x)

    def strip(d0: float, z0: float, d1: float, z1: float, surface: int) -> None:
        left = np.stack([x, center + d0, np.full_like(x, z0)], 1)
        right = np.stack([x, center + d1, np.full_like(x, z1)], 1)
        i = np.arange(len(x) - 1, dtype=np.int32)
        n = np.int32(len(x))
        triangles = np.concatenate([np.stack([i, i + n, i + n + 1], 1), np.stack([i, i + n + 1, i + 1], 1)])
        builder.add((np.concatenate([left, right]), triangles.astype(np.int32)), surface)

    strip(-ROAD_HALF_M, 0, ROAD_HALF_M, 0, builder.surface(ASPHALT, ROAD, (0.115, 0.115, 0.12)))
    curb = builder.surface(PLAIN, GROUND, (0.42, 0.41, 0.39))
    paving = builder.surface(PAVING, GROUND, (0.36, 0.34, 0.32))
    grass = builder.surface(GRASS, GROUND, (0.10, 0.17, 0.05))
    for side in (-1, 1):
        strip(side * ROAD_HALF_M, 0, side * ROAD_HALF_M, CURB_M, curb)
        strip(side * ROAD_HALF_M, CURB_M, side * (ROAD_HALF_M + 0.16), CURB_M, curb)
        strip(side * (ROAD_HALF_M + 0.16), CURB_M, side * SIDEWALK_OUTER_M, CURB_M, paving)
        strip(side * SIDEWALK_OUTER_M, CURB_M, side * 400.0, CURB_M, grass)


def _place(part: tuple[F64, I32], x: float, lateral: float, turn: float = 0.0) -> tuple[F64, I32]:
    """Bring a part from its own frame to the road's frame at ``x``, ``lateral`` metres left of the centre line."""
    world_from_part = pose(x, float(road_center(x)) + lateral, CURB_M, float(road_yaw(x)) + turn)
    return part[0] @ world_from_part[:3, :3].T + world_from_part[:3, 3], part[1]


def _add_block(builder: MeshBuilder, rng: np.random.Generator, block: int, actors: list[Actor]) -> None:
    x0 = block * BLOCK_M
    crossing = block % CROSSING_EVERY_BLOCKS == 0
    for side in (-1, 1):
        cut = float(rng.uniform(9.0, 15.0))
        for begin, length in ((x0, cut), (x0 + cut, BLOCK_M - cut)):
            if rng.random() < 0.88:  # noqa: PLR2004 - the rest are gardens
                gap = float(rng.choice([0.0, 0.0, 1.5, 3.0]))
                _add_building(builder, rng, begin + gap / 2, length - gap, side)
            else:
                _add_tree(builder, rng, begin + length / 2, side * rng.uniform(13.0, 18.0), 1.5)
            _add_tree(builder, rng, begin + rng.uniform(0, length), side * rng.uniform(34.0, 44.0), 2.2)
        for x in (x0 + 5.0, x0 + 16.5):
            if rng.random() < 0.7:  # noqa: PLR2004 - gaps in the row of trees
                _add_tree(builder, rng, x + rng.uniform(-1, 1), side * 6.9, 1.0)
        _add_lamp(builder, x0 + (11.0 if side > 0 else 23.0), side)
        if crossing:
            _add_sign(builder, rng, x0 + 1.0 - side * 2.4, side)
        for x in (x0 + 5.0, x0 + 10.6, x0 + 16.2, x0 + 21.8):
            if rng.random() < 0.55 and not (crossing and abs(x - x0 - 3.0) < 5.0):  # noqa: PLR2004 - empty bays, view at crossings
                mesh, size = car_mesh(rng)
                turn, lateral = (0.0 if side < 0 else math.pi) + rng.normal(0, 0.02), side * (4.68 + rng.normal(0, 0.06))
                actors.append(Actor(len(actors), CAR, mesh, size, x + rng.uniform(-0.3, 0.3), lateral, 0.0, 0.0, turn))
        for _ in range(rng.integers(0, 3)):
            mesh, size = pedestrian_mesh(rng)
            walks = rng.random() < 0.75  # noqa: PLR2004 - the others stand
            speed = float(rng.choice([-1, 1]) * rng.uniform(0.9, 1.6)) if walks else 0.0
            # Walkers keep clear of trees and lamps; every one has its own track, so that none walks through another.
            lateral = side * (rng.uniform(7.9, 9.2) if walks else rng.uniform(6.2, 6.5))
            turn = 0.0 if walks else float(rng.uniform(-math.pi, math.pi))
            x = x0 + rng.uniform(0, BLOCK_M)
            actors.append(Actor(len(actors), PEDESTRIAN, mesh, size, x, lateral, CURB_M, speed, turn))


def _add_traffic(rng: np.random.Generator, actors: list[Actor], length_m: float, ego_mps: float) -> None:
    mesh, size = car_mesh(rng)
    actors.append(Actor(len(actors), CAR, mesh, size, float(rng.uniform(17, 24)), -LANE_CENTER_M, 0.0, ego_mps))
    closing = 1.0 - ONCOMING_MPS / ego_mps  # an oncoming car's start, per metre of our way until we meet it
    x = float(rng.uniform(12.0, 30.0))
    while x < length_m * closing + VIEW_AHEAD_M:
        mesh, size = car_mesh(rng)
        lateral = LANE_CENTER_M + rng.normal(0, 0.12)
        actors.append(Actor(len(actors), CAR, mesh, size, x, lateral, 0.0, ONCOMING_MPS))
        x += float(rng.uniform(16.0, 60.0))


def _add_building(builder: MeshBuilder, rng: np.random.Generator, begin: float, length: float, side: int) -> None:
    depth, floors = float(rng.uniform(9, 14)), int(rng.integers(2, 6))
    first_floor, floor = float(rng.uniform(3.2, 4.0)), float(rng.uniform(2.8, 3.3))
    height = first_floor + floor * (floors - 1) + 0.6
    front = SIDEWALK_OUTER_M + float(rng.choice([0.05, 0.05, 1.5, 3.0]))
    color = tuple(float(c) for c in np.array(_FACADES[rng.integers(len(_FACADES))]) * rng.uniform(0.85, 1.15))
    style, salt = float(rng.integers(0, 4)), float(rng.integers(0, 1 << 16))
    middle = begin + length / 2
    corners, _ = _place(
        box(-length / 2, length / 2, 0 if side > 0 else -depth, depth if side > 0 else 0, -0.2, height), middle, side * front
    )
    for k in range(4):
        a, b = corners[k], corners[(k + 1) % 4]
        wall = float(np.hypot(*(b - a)[:2]))
        tangent = (b - a)[:2] / wall
        surface = builder.surface(
            FACADE, BUILDING, (color[0], color[1], color[2]),
            tangent_x=tangent[0], tangent_y=tangent[1], offset=-float(tangent @ a[:2]),
            cell=wall / max(1, round(wall / 2.7)), floor=floor, first_floor=first_floor, height=height, style=style, salt=salt,
        )  # fmt: skip
        quad = np.stack([a, b, corners[4 + (k + 1) % 4], corners[4 + k]])
        builder.add((quad, _quads((0, 1, 2, 3))), surface)
    tiles = builder.surface(ROOFING, BUILDING, (0.20, 0.09, 0.07) if rng.random() < 0.5 else (0.11, 0.11, 0.12))  # noqa: PLR2004 - tiles or slate
    eaves = corners[4:] + (corners[4:] - corners[4:].mean(0)) * [0.04, 0.04, 0]
    ridge = np.stack([(eaves[0] + eaves[3]) / 2, (eaves[1] + eaves[2]) / 2])
    ridge[:, 2] += rng.uniform(2.0, 4.0) if floors < 5 else 0.25  # noqa: PLR2004 - high houses have flat roofs
    roof = np.concatenate([eaves, ridge])
    faces = np.concatenate([_quads((0, 1, 5, 4), (3, 4, 5, 2), (0, 3, 2, 1)), np.array([(0, 4, 3), (1, 2, 5)], np.int32)])
    builder.add((roof, faces), tiles)


def _add_tree(builder: MeshBuilder, rng: np.random.Generator, x: float, lateral: float, scale: float) -> None:
    trunk = float(rng.uniform(2.3, 3.2)) * scale
    bark = builder.surface(BARK, TREE, (0.13, 0.09, 0.06))
    builder.add(_place(cylinder((0, 0, -0.1), (0, 0, trunk + 0.8), (0.15 * scale, 0.10 * scale), 7), x, lateral), bark)
    green = rng.uniform(0.8, 1.2)
    leaves = builder.surface(LEAVES, TREE, (0.085 * green * rng.uniform(0.8, 1.5), 0.16 * green, 0.035 * green))
    ball, faces = sphere(2 if scale < 2.0 else 1)  # noqa: PLR2004 - the largest stand in the background
    for _ in range(3):
        radius = rng.uniform(0.95, 1.4) * scale
        waves = np.sin(ball @ rng.normal(0, 2.6, (3, 5)) + rng.uniform(0, 6.3, 5)).sum(axis=1)
        bumps = 1 + (0.07 * waves + 0.035 * rng.standard_normal(len(ball)))[:, None]
        center = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.8), 0]) * scale + [
            0,
            0,
            trunk + radius * rng.uniform(0.5, 1.2),
        ]
        builder.add(_place((ball * bumps * radius * [1, 1, rng.uniform(0.9, 1.2)] + center, faces), x, lateral), leaves)


def _add_lamp(builder: MeshBuilder, x: float, side: int) -> None:
    steel = builder.surface(PLAIN, POLE, (0.22, 0.24, 0.25))
    lateral = side * 6.1
    builder.add(_place(cylinder((0, 0, -0.1), (0, 0, 7.0), (0.09, 0.06), 8), x, lateral), steel)
    builder.add(_place(cylinder((0, 0, 6.95), (0, -side * 1.6, 7.25), (0.05, 0.04), 6), x, lateral), steel)
    y0, y1 = sorted((-side * 1.5, -side * 2.2))
    builder.add(_place(box(-0.14, 0.14, y0, y1, 7.18, 7.32), x, lateral), steel)


def _add_sign(builder: MeshBuilder, rng: np.random.Generator, x: float, side: int) -> None:
    steel = builder.surface(PLAIN, POLE, (0.40, 0.41, 0.42))
    colors: tuple[Color, ...] = ((0.05, 0.12, 0.55), (0.65, 0.05, 0.05), (0.75, 0.72, 0.1))
    board = builder.surface(MIRROR, POLE, colors[rng.integers(3)])
    builder.add(_place(cylinder((0, 0, -0.1), (0, 0, 2.9), (0.035, 0.035), 6), x, side * 6.0), steel)
    builder.add(_place(cylinder((-0.05, 0, 2.6), (-0.02, 0, 2.6), (0.33, 0.33), 12), x, side * 6.0), board)

"""Triangles with surfaces, and the parts that things are made of."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gemini_core.simulation import shading
from gemini_core.types import F32, F64, Bool

I32: TypeAlias = npt.NDArray[np.int32]
Part: TypeAlias = tuple[F64, I32]
"""Vertices (V, 3) and triangles (T, 3) of them."""
Color: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """T triangles and their S surfaces.

    ``corners`` (T, 3 corners, 3); ``swing`` (T, 3 corners): how far a corner moves along x when a walker's stride is at its
    widest; ``texture`` (T, 3 corners, 2) coordinates in metres; ``closed`` (T,): outside of a body, never seen from behind;
    ``surface_of`` (T,) rows of ``surfaces`` (S, shading.SURFACE_COLUMNS).
    """

    corners: F32
    swing: F32
    texture: F32
    closed: Bool
    surface_of: I32
    surfaces: F32


@dataclass(slots=True)
class MeshBuilder:
    """Collects parts into one mesh."""

    corners: list[F64] = field(default_factory=list)
    middle: list[F64] = field(default_factory=list)
    swing: list[F64] = field(default_factory=list)
    texture: list[F64] = field(default_factory=list)
    closed: list[Bool] = field(default_factory=list)
    surface_of: list[I32] = field(default_factory=list)
    surfaces: list[F64] = field(default_factory=list)

    def surface(self, material: int, label: int, color: Color, **columns: float) -> int:
        """Add a surface and give its row; ``columns`` are further columns of the table by lower-case name."""
        row = np.zeros(shading.SURFACE_COLUMNS)
        row[[shading.MATERIAL, shading.CLASS, shading.DETAIL, shading.ACTOR]] = material, label, label, -1
        row[[shading.RED, shading.GREEN, shading.BLUE]] = color
        for name, value in columns.items():
            row[getattr(shading, name.upper())] = value
        self.surfaces.append(row)
        return len(self.surfaces) - 1

    def add(self, part: Part, surface: int, *, swing: F64 | None = None, texture: F64 | None = None, body: bool = True) -> None:
        """Add a part with one surface.

        ``body``: it is closed, and every ray from its middle leaves it once; then its triangles are turned outwards.
        ``swing`` (V,) and ``texture`` (V, 2) as in Mesh; without texture the two coordinates across the normal serve.
        """
        vertices, triangles = part
        count = len(triangles)
        self.corners.append(vertices[triangles])
        self.middle.append(np.broadcast_to(vertices.mean(axis=0), (count, 3)))
        self.texture.append(np.full((count, 3, 2), np.nan) if texture is None else texture[triangles])
        self.swing.append(np.zeros((count, 3)) if swing is None else swing[triangles])
        self.closed.append(np.full(count, body))
        self.surface_of.append(np.full(count, surface, np.int32))

    def add_mesh(self, mesh: Mesh, world_from_mesh: F64, actor: int = -1) -> None:
        """Add a whole mesh at a pose (4, 4), its surfaces marked as those of ``actor``."""
        first = len(self.surfaces)
        rows = mesh.surfaces.astype(np.float64)
        rows[:, shading.ACTOR] = actor
        self.surfaces.extend(rows)
        self.corners.append(mesh.corners @ world_from_mesh[:3, :3].T + world_from_mesh[:3, 3])
        self.middle.append(np.full((len(mesh.corners), 3), np.nan))  # turned already
        self.texture.append(mesh.texture.astype(np.float64))
        self.swing.append(mesh.swing.astype(np.float64))
        self.closed.append(mesh.closed)
        self.surface_of.append(mesh.surface_of + np.int32(first))

    def build(self) -> Mesh:
        """The mesh of everything added."""
        corners, texture, swing = (np.concatenate(parts) for parts in (self.corners, self.texture, self.swing))
        closed, middle = np.concatenate(self.closed), np.concatenate(self.middle)
        normal = cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        with np.errstate(invalid="ignore"):
            inwards = closed & (((corners.mean(axis=1) - middle) * normal).sum(axis=1) < 0)
        order = np.where(inwards[:, None], [0, 2, 1], [0, 1, 2])[..., None]  # (T, 3, 1)
        corners, texture = np.take_along_axis(corners, order, 1), np.take_along_axis(texture, order, 1)
        bare = np.isnan(texture[:, 0, 0])
        texture[bare] = _across(corners[bare], normal[bare])
        return Mesh(
            corners.astype(np.float32),
            np.take_along_axis(swing, order[..., 0], 1).astype(np.float32),
            texture.astype(np.float32),
            closed,
            np.concatenate(self.surface_of),
            np.stack(self.surfaces).astype(np.float32),
        )


def cross(a: F64, b: F64) -> F64:
    """Cross products (N, 3), much faster than numpy's."""
    (ax, ay, az), (bx, by, bz) = a.T, b.T
    product: F64 = np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=1)
    return product


def _across(corners: F64, normal: F64) -> F64:
    """Texture coordinates (T, 3, 2): the two coordinates that the normal (T, 3) points least along, height second."""
    axis = np.abs(normal).argmax(axis=1)
    pairs = np.array([(1, 2), (0, 2), (0, 1)])[axis]  # (T, 2)
    coordinates: F64 = np.take_along_axis(corners, np.broadcast_to(pairs[:, None, :], (len(corners), 3, 2)), axis=2)
    return coordinates


def triangle_table(mesh: Mesh) -> F32:
    """The table (T, shading.TRIANGLE_COLUMNS) that compiled code reads: geometry, and texture as a function of position."""
    table = np.zeros((len(mesh.corners), shading.TRIANGLE_COLUMNS))
    corner = mesh.corners[:, 0].astype(np.float64)
    edges = mesh.corners[:, 1:].astype(np.float64) - corner[:, None]  # (T, 2, 3)
    normal = cross(edges[:, 0], edges[:, 1])
    table[:, 0:3], table[:, 3:6], table[:, 6:9] = corner, edges[:, 0], edges[:, 1]
    table[:, 9:12] = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    table[:, 12] = mesh.closed
    # The gradient g in the triangle's plane with g·e1 = du1 and g·e2 = du2.
    gram = edges @ edges.transpose(0, 2, 1)
    gram[np.abs(np.linalg.det(gram)) < 1e-16] = np.eye(2)  # noqa: PLR2004 - no area
    change = (mesh.texture[:, 1:] - mesh.texture[:, :1]).astype(np.float64)  # (T, 2 edges, 2)
    gradient = np.linalg.solve(gram, change).transpose(0, 2, 1) @ edges  # (T, 2, 3)
    offset = mesh.texture[:, 0] - np.einsum("tcx,tx->tc", gradient, corner)
    table[:, 13:16], table[:, 16], table[:, 17:20], table[:, 20] = gradient[:, 0], offset[:, 0], gradient[:, 1], offset[:, 1]
    return table.astype(np.float32)


_CHUNK = 48
"""Triangles that are looked for together."""


def chunks_of(corners: F32) -> F64:
    """Balls (C, 6) around runs of triangles of (T, 3, 3): centre, radius, first triangle and the one after."""
    first = np.arange(0, len(corners), _CHUNK)
    points = corners.reshape(-1, 3).astype(np.float64)
    low, high = np.minimum.reduceat(points, 3 * first), np.maximum.reduceat(points, 3 * first)
    radius = np.linalg.norm(high - low, axis=1) / 2 + 1e-3
    return np.column_stack([(low + high) / 2, radius, first, np.minimum(first + _CHUNK, len(corners))])


# --------------------------------------------------------------------------------------------------------------------
# Parts


def quads(*corners: tuple[int, int, int, int]) -> I32:
    """Two triangles for each four corners."""
    return np.array([t for a, b, c, d in corners for t in ((a, b, c), (a, c, d))], np.int32)


HEXAHEDRON = quads((0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7))
SIDES, TOP = HEXAHEDRON[4:], HEXAHEDRON[2:4]


def frustum(bottom: tuple[float, float, float, float], z0: float, top: tuple[float, float, float, float], z1: float) -> F64:
    """Eight corners of a body between two rectangles (x0, x1, y0, y1)."""
    corners = [((x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)) for (x0, x1, y0, y1), z in ((bottom, z0), (top, z1))]
    return np.array(corners, np.float64).reshape(8, 3)


def box(x0: float, x1: float, y0: float, y1: float, z0: float, z1: float) -> Part:  # noqa: PLR0917 - the usual order of its sides
    """An axis-aligned box."""
    return frustum((x0, x1, y0, y1), z0, (x0, x1, y0, y1), z1), HEXAHEDRON


def quad(a: Sequence[float], b: Sequence[float], c: Sequence[float], d: Sequence[float]) -> Part:
    """A flat four-cornered face, seen from both sides."""
    return np.array([a, b, c, d], np.float64), quads((0, 1, 2, 3))


def cylinder(start: Sequence[float], end: Sequence[float], radii: tuple[float, float], sides: int) -> Part:
    """A closed cone frustum from ``start`` to ``end``, with the radii there."""
    a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
    x, y, z = ((b - a) / math.dist(a, b)).tolist()
    across = (y, -x, 0.0) if abs(z) < 0.9 else (0.0, z, -y)  # noqa: PLR2004 - the axis and one that it does not run along
    length = math.hypot(*across)
    u, v, w = (value / length for value in across)
    axes = np.array([(u, v, w), (y * w - z * v, z * u - x * w, x * v - y * u)])
    angle = np.arange(sides) * (2 * np.pi / sides)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) @ axes  # (sides, 3)
    vertices = np.concatenate([a + radii[0] * ring, b + radii[1] * ring, [a], [b]])
    return vertices, _cylinder_faces(sides)


@functools.cache
def _cylinder_faces(sides: int) -> I32:
    i = np.arange(sides, dtype=np.int32)
    j = (i + 1) % sides
    parts = [(i, j, j + sides), (i, j + sides, i + sides), (j, i, np.full_like(i, 2 * sides))]
    parts.append((i + sides, j + sides, np.full_like(i, 2 * sides + 1)))
    return np.concatenate([np.stack(part, 1) for part in parts]).astype(np.int32)


@functools.cache
def sphere(subdivisions: int) -> Part:
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


def place(part: Part, world_from_part: F64) -> Part:
    """Bring a part to a pose (4, 4)."""
    return part[0] @ world_from_part[:3, :3].T + world_from_part[:3, 3], part[1]

"""Scenes, streets and rooms alike: what stands still, what moves, lamps, and the robot's way through.

World frame (``odom``): z up, metres; the ground is z = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gemini_core.simulation.mesh import Mesh
from gemini_core.types import F64

Way = Callable[[float], F64]
"""World-from-body (4, 4) at a time in seconds."""


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """A thing with a 3D box: its mesh in its own frame (x ahead, z up, origin on the ground) and its way.

    ``size_m`` is length, width, height; ``walk_mps`` is the speed that legs move for (0: they do not); ``moves`` is
    whether it is ever elsewhere. What does not move is part of the scene's static mesh too.
    """

    number: int
    label: int
    mesh: Mesh
    size_m: tuple[float, float, float]
    way: Way
    moves: bool
    walk_mps: float = 0.0

    def stride(self, time_s: float) -> float:
        """How wide a walker's stride is at a time, -1 to 1: what the mesh's swing is multiplied with."""
        return math.sin(2 * math.pi * (0.75 * self.walk_mps * time_s + 0.37 * self.number)) if self.walk_mps else 0.0


@dataclass(frozen=True, slots=True)
class Lamp:
    """A lamp: the radiance (r, g, b) that it gives a white sheet one metre away.

    It shines along ``direction`` within ``half_angle_rad`` (None: everywhere).
    """

    position: tuple[float, float, float]
    color: tuple[float, float, float]
    direction: tuple[float, float, float] = (0.0, 0.0, -1.0)
    half_angle_rad: float | None = None

    def row(self) -> tuple[float, ...]:
        """The lamp as shading.World has it."""
        cosine = -2.0 if self.half_angle_rad is None else math.cos(self.half_angle_rad)
        return (*self.position, *self.color, *self.direction, cosine)


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A world to drive through.

    ``static`` holds everything that stands still, boxed things included; ``ego`` is base_link's way; ``sun`` points to the
    sun; ``lamps`` shine at dusk and at night in streets, and as the condition says in rooms. ``bounds``: x and y that
    shadows are needed within, (x0, x1, y0, y1); ``indoors``: light comes from lamps by day too.
    """

    static: Mesh
    actors: tuple[Actor, ...]
    lamps: tuple[Lamp, ...]
    ego: Way
    sun: F64
    bounds: tuple[float, float, float, float]
    indoors: bool


def poses(way: Way, times_s: F64) -> F64:
    """Poses (N, 4, 4) at times (N,)."""
    return np.stack([way(float(time)) for time in times_s])


def tilted(pose: F64, roll: float, pitch: float) -> F64:
    """The pose (4, 4), rolled and pitched (positive: nose down) about its own axes, radians."""
    cr, sr, cp, sp = math.cos(roll), math.sin(roll), math.cos(pitch), math.sin(pitch)
    turned: F64 = pose.copy()
    turned[:3, :3] = pose[:3, :3] @ np.array([(cp, sp * sr, sp * cr), (0.0, cr, -sr), (-sp, cp * sr, cp * cr)])
    return turned

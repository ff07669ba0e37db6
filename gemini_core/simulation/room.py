"""A procedural room: furniture along the walls and in the middle, people, and a ring between them that the robot drives.

The room's middle is the origin of the world frame, x along its longer side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gemini_core.simulation import furniture, things
from gemini_core.simulation.classes import CABINET, CEILING, CHAIR, DOOR, FLOOR, PEDESTRIAN, TABLE, WALL
from gemini_core.simulation.clip import Clip
from gemini_core.simulation.mesh import Color, MeshBuilder, box, place, pose, quad
from gemini_core.simulation.scene import Actor, Lamp, Scene, Way, tilted
from gemini_core.simulation.shading import BOARDS, BRICKS, CARPET, GRAIN, PANELS, PICTURE, PLAIN, STRIPES, TILES
from gemini_core.types import F64

CEILING_LAMP = (0.011, 0.0105, 0.0095)
PANEL_GLOW = 0.12
EXIT_LAMP = (3e-5, 1.0e-4, 4e-5)
RING_FROM_WALL_M = 1.55
_SIDES = 4
_THICK_M, _OVERLAP_M = 0.2, 0.25  # of walls and roof, which overlap at the corners, so that no sun comes in there
_DOOR_HALF_M, _DOOR_M = 0.47, 2.08

_WALLS: tuple[Color, ...] = ((0.72, 0.70, 0.64), (0.55, 0.60, 0.66), (0.66, 0.58, 0.45), (0.50, 0.58, 0.48), (0.75, 0.75, 0.74))
_WOODS: tuple[Color, ...] = ((0.36, 0.21, 0.11), (0.50, 0.33, 0.18), (0.17, 0.09, 0.05), (0.62, 0.47, 0.30))


@dataclass(frozen=True, slots=True)
class _Plan:
    """Half lengths and height of a room, and its colours."""

    half_x: float
    half_y: float
    height: float
    wall: Color
    wood: Color

    def half(self, side: int) -> float:
        """Half the length of a wall."""
        return self.half_x if side % 2 == 0 else self.half_y

    def wall_pose(self, side: int) -> F64:
        """Pose of a wall's middle: x along it, y into the room."""
        away = self.half_y if side % 2 == 0 else self.half_x
        yaw = side * math.pi / 2
        return pose(away * math.sin(yaw), -away * math.cos(yaw), 0.0, yaw)


def build_room(clip: Clip) -> Scene:
    """Lay out the room of a clip."""
    rng = clip.scene_rng(0)
    plan = _Plan(
        half_x=float(rng.uniform(4.0, 5.6)),
        half_y=float(rng.uniform(3.5, 4.4)),
        height=float(rng.uniform(2.5, 3.2)),
        wall=_WALLS[rng.integers(len(_WALLS))],
        wood=_WOODS[rng.integers(len(_WOODS))],
    )
    return _Room(plan, clip).build()


class _Room:
    def __init__(self, plan: _Plan, clip: Clip) -> None:
        self._plan, self._clip = plan, clip
        self._rng = clip.scene_rng(1)
        self._builder = MeshBuilder()
        self._actors: list[Actor] = []
        self._lamps: list[Lamp] = []

    def build(self) -> Scene:
        plan, rng = self._plan, self._rng
        self._floor_and_ceiling()
        windows = [bool(rng.random() < 0.45) for _ in range(_SIDES)]  # noqa: PLR2004 - share of walls with windows
        if not any(windows):
            windows[int(rng.integers(_SIDES))] = True
        doors = {int(side) for side in rng.choice(_SIDES, 3, replace=False)}
        for side in range(_SIDES):
            self._wall(side, windowed=windows[side], with_door=side in doors)
        self._middle()
        turn = float(rng.choice([-1.0, 1.0]))
        ring = _Ring(plan, float(rng.uniform(0, 2 * math.pi)), turn * float(rng.uniform(0.35, 0.6)), rng.uniform(0, 6.3, 3))
        self._people(ring)
        for actor in self._actors:
            if not actor.moves:
                self._builder.add_mesh(actor.mesh, actor.way(0.0), actor.number)
        azimuth, elevation = float(rng.uniform(-math.pi, math.pi)), float(rng.uniform(0.45, 0.75))
        sun = np.array([math.cos(azimuth) * math.cos(elevation), math.sin(azimuth) * math.cos(elevation), math.sin(elevation)])
        bounds = (-plan.half_x - 1, plan.half_x + 1, -plan.half_y - 1, plan.half_y + 1)
        return Scene(self._builder.build(), tuple(self._actors), tuple(self._lamps), ring.robot, sun, bounds, indoors=True)

    # ----------------------------------------------------------------------------------------------------------------
    # The shell

    def _floor_and_ceiling(self) -> None:
        plan, rng, builder = self._plan, self._rng, self._builder
        x, y, top = plan.half_x, plan.half_y, plan.height
        kind = int(rng.integers(3))
        salt = float(rng.integers(99))
        if kind == 0:
            floor = builder.surface(BOARDS, FLOOR, plan.wood, first=0.14, second=0.35, third=salt)
        elif kind == 1:
            floor = builder.surface(TILES, FLOOR, (0.45, 0.43, 0.40), first=0.4, second=0.15)
        else:
            floor = builder.surface(
                CARPET, FLOOR, ((0.16, 0.19, 0.26), (0.28, 0.12, 0.10), (0.22, 0.22, 0.21))[rng.integers(3)], first=salt
            )
        builder.add(quad((-x, -y, 0), (x, -y, 0), (x, y, 0), (-x, y, 0)), floor, body=False)
        if kind != 2 and rng.random() < 0.6:  # a rug  # noqa: PLR2004
            rug = builder.surface(CARPET, FLOOR, (0.35, 0.10, 0.09), first=salt + 1)
            builder.add(quad((-1.6, -1.1, 0.008), (1.6, -1.1, 0.008), (1.6, 1.1, 0.008), (-1.6, 1.1, 0.008)), rug, body=False)
        plaster = builder.surface(GRAIN, CEILING, (0.78, 0.78, 0.76), first=0.03, second=1.5)
        a, b = x + _OVERLAP_M, y + _OVERLAP_M
        for z in (top, top + _THICK_M):
            builder.add(quad((-a, -b, z), (a, -b, z), (a, b, z), (-a, b, z)), plaster, body=False)
        panel = builder.surface(PLAIN, CEILING, (0.85, 0.85, 0.82), glow=PANEL_GLOW)
        for at_x in (-0.55 * x, 0.55 * x) if x < 4.8 else (-0.66 * x, 0.0, 0.66 * x):  # noqa: PLR2004 - longer rooms have more
            for at_y in (-0.45 * y, 0.45 * y):
                builder.add(box(at_x - 0.6, at_x + 0.6, at_y - 0.15, at_y + 0.15, top - 0.05, top + 0.02), panel)
                self._lamps.append(Lamp((at_x, at_y, top - 0.08), CEILING_LAMP, half_angle_rad=1.5))

    def _wall(self, side: int, *, windowed: bool, with_door: bool) -> None:
        """A wall, left to right: furniture, windows and perhaps a door."""
        plan, rng = self._plan, self._rng
        at, half = plan.wall_pose(side), plan.half(side)
        openings: list[tuple[float, float]] = []
        x = -half + 0.15
        door_at = float(rng.uniform(-half + 0.9, half - 0.9)) if with_door else math.inf
        while x < half - 0.6:
            if x > door_at - _DOOR_HALF_M - 0.2:
                self._door(at, x + _DOOR_HALF_M + 0.1)
                x, door_at = x + 2 * _DOOR_HALF_M + 0.35, math.inf
                continue
            room = min(half - 0.15, door_at - _DOOR_HALF_M - 0.1) - x
            if windowed and rng.random() < 0.35 and room > 1.2:  # noqa: PLR2004 - some windows, metres
                wide = float(rng.uniform(1.0, min(1.9, room)))
                openings.append((x, x + wide))
                if rng.random() < 0.5:  # noqa: PLR2004 - something low below it
                    self._stand_at_wall(CABINET, furniture.cabinet(rng, plan.wood, wide, 0.75), at, x + wide / 2)
                x += wide + 0.15
                continue
            x += self._piece(at, x, room) + float(rng.uniform(0.03, 0.25))
        self._panels(side, openings)

    def _panels(self, side: int, openings: list[tuple[float, float]]) -> None:
        """The wall itself, with holes for windows; what is seen through them is sky."""
        plan, rng, builder = self._plan, self._rng, self._builder
        at, half, top = plan.wall_pose(side), plan.half(side), plan.height
        sill, head = 0.85, min(2.15, top - 0.3)
        style = rng.random()
        salt = float(rng.integers(99))
        if style < 0.6:  # noqa: PLR2004 - shares of wall coverings
            surface = builder.surface(GRAIN, WALL, plan.wall, first=0.05, second=1.2)
        elif style < 0.85:  # noqa: PLR2004
            surface = builder.surface(STRIPES, WALL, plan.wall, first=0.12, second=0.15)
        else:
            surface = builder.surface(BRICKS, WALL, (0.42, 0.20, 0.13), first=salt)

        def piece(x0: float, x1: float, z0: float, z1: float) -> None:
            texture = np.array([(x0, z0), (x1, z0), (x1, z1), (x0, z1)])
            for y in (0.0, -_THICK_M):
                face = quad((x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1))
                builder.add(place(face, at), surface, texture=texture, body=False)

        frame = builder.surface(PLAIN, WALL, (0.75, 0.75, 0.74))
        edge = -half - _OVERLAP_M
        for x0, x1 in openings:
            piece(edge, x0, 0, top)
            piece(x0, x1, 0, sill)
            piece(x0, x1, head, top)
            self._reveal(at, (x0, x1, sill, head), frame)
            middle = (x0 + x1) / 2
            bars = [(left, left + 0.06, sill, head) for left in (x0, middle - 0.03, x1 - 0.06)]
            for a, b, c, d in (*bars, (x0, x1, head - 0.06, head), (x0, x1, sill, sill + 0.06)):
                builder.add(place(box(a, b, -0.15, -0.07, c, d), at), frame)
            builder.add(place(box(x0 - 0.06, x1 + 0.06, 0, 0.2, sill - 0.04, sill), at), frame)
            edge = x1
        piece(edge, half + _OVERLAP_M, 0, top)
        skirting = builder.surface(PLAIN, WALL, (0.6, 0.6, 0.58))
        builder.add(place(box(-half, half, -0.01, 0.015, 0, 0.09), at), skirting)

    def _reveal(self, at: F64, opening: tuple[float, float, float, float], surface: int) -> None:
        """The inside of a hole (x0, x1, z0, z1) in a wall."""
        x0, x1, z0, z1 = opening
        corners = ((x0, z0), (x1, z0), (x1, z1), (x0, z1))
        for (a, b), (c, d) in zip(corners, (*corners[1:], corners[0]), strict=True):
            face = quad((a, 0, b), (c, 0, d), (c, -_THICK_M, d), (a, -_THICK_M, b))
            self._builder.add(place(face, at), surface, body=False)

    def _door(self, at: F64, x: float) -> None:
        rng, builder = self._rng, self._builder
        frame = builder.surface(PLAIN, DOOR, (0.5, 0.5, 0.48))
        color = ((0.30, 0.16, 0.08), (0.55, 0.40, 0.24), (0.45, 0.10, 0.08), (0.14, 0.22, 0.32))[rng.integers(4)]
        leaf = builder.surface(PANELS, DOOR, color, first=_DOOR_HALF_M * 2, second=_DOOR_M, third=float(rng.integers(99)))
        half, top = _DOOR_HALF_M, _DOOR_M
        builder.add(place(box(x - half - 0.07, x + half + 0.07, -0.02, 0.03, 0, top + 0.07), at), frame)
        part = box(x - half, x + half, -0.02, 0.05, 0.01, top)
        texture = np.array([(corner[0] - x + half, corner[2]) for corner in part[0]])
        builder.add(place(part, at), leaf, texture=texture)
        sign = builder.surface(PLAIN, DOOR, (0.05, 0.6, 0.2))  # an exit lamp: all that is on at night
        builder.add(place(box(x - 0.17, x + 0.17, 0, 0.04, top + 0.12, top + 0.27), at), sign)
        lamp = at @ np.array([x, 0.15, top + 0.2, 1.0])
        self._lamps.append(Lamp((float(lamp[0]), float(lamp[1]), float(lamp[2])), EXIT_LAMP))

    # ----------------------------------------------------------------------------------------------------------------
    # What stands in it

    def _piece(self, at: F64, x: float, room: float) -> float:
        """Something at a wall from ``x`` on; gives how much of it is used."""
        rng, plan = self._rng, self._plan
        kind = rng.random()
        if kind < 0.24 and room > 1.4:  # a desk with its chair  # noqa: PLR2004 - shares and metres
            wide = float(rng.uniform(1.2, min(1.7, room)))
            self._stand_at_wall(TABLE, furniture.desk(rng, plan.wood, wide), at, x + wide / 2)
            self._stand(CHAIR, furniture.chair(rng), at @ pose(x + wide / 2, 0.95, 0, -math.pi / 2 + rng.normal(0, 0.3)))
        elif kind < 0.42 and room > 1.7:  # noqa: PLR2004
            wide = float(rng.uniform(1.5, min(2.2, room)))
            self._stand_at_wall(CHAIR, furniture.sofa(rng, wide), at, x + wide / 2)
        elif kind < 0.88 and room > 0.7:  # noqa: PLR2004
            wide = float(rng.uniform(0.7, min(1.6, room)))
            high = float(rng.choice([0.85, 1.2, 1.9, 2.1]))
            shelf = rng.random() < 0.5  # noqa: PLR2004 - half of them are open
            thing = furniture.shelf(rng, plan.wood, wide, high) if shelf else furniture.cabinet(rng, plan.wood, wide, high)
            self._stand_at_wall(CABINET, thing, at, x + wide / 2)
        else:
            wide = min(float(rng.uniform(0.6, 1.2)), room)
            picture = self._builder.surface(PICTURE, WALL, (0.5, 0.5, 0.5), first=float(rng.integers(999)))
            low = float(rng.uniform(1.2, 1.5))
            self._builder.add(place(box(x + 0.1, x + wide - 0.1, 0, 0.03, low, low + 0.5), at), picture)
        return wide

    def _middle(self) -> None:
        rng, plan = self._rng, self._plan
        turn = float(rng.normal(0, 0.08))
        reach = plan.half_x - RING_FROM_WALL_M - 1.35
        if rng.random() < 0.7:  # noqa: PLR2004 - a table with chairs, or armchairs around a low one
            length, width = float(rng.uniform(1.4, min(2.4, 2 * reach))), 0.85
            self._stand(TABLE, furniture.table(rng, plan.wood, length, width, 0.74), pose(0, 0, 0, turn))
            places = [(along, side) for along in np.arange(-length / 2 + 0.45, length / 2 - 0.2, 0.75) for side in (-1, 1)]
            for along, side in places:
                if rng.random() < 0.85:  # noqa: PLR2004 - an empty place
                    yaw = -side * math.pi / 2 + rng.normal(0, 0.15)
                    at = pose(0, 0, 0, turn) @ pose(float(along), side * (width / 2 + 0.22), 0, yaw)
                    self._stand(CHAIR, furniture.chair(rng), at)
        else:
            self._stand(TABLE, furniture.table(rng, plan.wood, 1.0, 0.6, 0.45), pose(0, 0, 0, turn))
            for angle in (0.0, math.pi):
                at = pose(0, 0, 0, turn + angle) @ pose(1.05, 0, 0, math.pi)
                self._stand(CHAIR, furniture.sofa(rng, 0.9), at)

    def _people(self, ring: _Ring) -> None:
        rng = self._rng
        phase = 0.0
        for _ in range(int(rng.integers(1, 4))):  # they walk the ring ahead of the robot, as fast as it
            mesh, size = things.pedestrian(rng)
            phase += float(rng.uniform(0.8, 1.4))
            if phase > 5.2:  # noqa: PLR2004 - before they come up from behind
                break
            way = ring.walker(phase)
            self._actors.append(Actor(len(self._actors), PEDESTRIAN, mesh, size, way, moves=True, walk_mps=ring.speed_mps))
        for _ in range(int(rng.integers(1, 3))):  # and some stand in the corners
            corner = np.array([rng.choice([-1, 1]), rng.choice([-1, 1])]) * [self._plan.half_x - 0.95, self._plan.half_y - 0.95]
            at = pose(float(corner[0]), float(corner[1]), 0, float(rng.uniform(-math.pi, math.pi)))
            self._stand(PEDESTRIAN, things.pedestrian(rng), at)

    def _stand_at_wall(self, label: int, thing: furniture.Thing, wall: F64, x: float) -> None:
        self._stand(label, thing, wall @ pose(x, thing[1][0] / 2 + 0.02, 0, math.pi / 2))

    def _stand(self, label: int, thing: furniture.Thing, at: F64) -> None:
        # Two things in one place look wrong: the second is left out.
        for other in self._actors:
            between = at[:2, 3] - other.way(0.0)[:2, 3]
            near = 0.45 if CHAIR in {label, other.label} and TABLE in {label, other.label} else 0.5
            if math.hypot(*between) < near:
                return
        self._actors.append(Actor(len(self._actors), label, *thing, lambda _time_s: at, moves=False))


class _Ring:
    """The oval between the furniture, and who moves along it."""

    def __init__(self, plan: _Plan, start: float, speed_mps: float, sway: F64) -> None:
        self._a, self._b = plan.half_x - RING_FROM_WALL_M, plan.half_y - RING_FROM_WALL_M
        self._start, self._sway = start, sway
        self._turning = speed_mps / ((self._a + self._b) / 2)
        self.speed_mps = abs(speed_mps)

    def _at(self, angle: float) -> tuple[float, float, float]:
        x, y = self._a * math.cos(angle), self._b * math.sin(angle)
        sign = math.copysign(1.0, self._turning)
        return x, y, math.atan2(sign * self._b * math.cos(angle), -sign * self._a * math.sin(angle))

    def robot(self, time_s: float) -> F64:
        """World-from-base (4, 4): along the oval, looking about a little, with a little shake of wheels."""
        x, y, yaw = self._at(self._start + self._turning * time_s)
        look = 0.22 * math.sin(0.7 * time_s + self._sway[0])
        roll, pitch = 0.003 * math.sin(9.0 * time_s + self._sway[1]), 0.004 * math.sin(7.0 * time_s + self._sway[2])
        return tilted(pose(x, y, 0.0, yaw + look), roll, pitch)

    def walker(self, ahead: float) -> Way:
        """The way of a person who is ``ahead`` radians ahead of the robot."""
        first = self._start + math.copysign(ahead, self._turning)
        return lambda time_s: pose(*self._walk(first + self._turning * time_s))

    def _walk(self, angle: float) -> tuple[float, float, float, float]:
        x, y, yaw = self._at(angle)
        return x, y, 0.0, yaw

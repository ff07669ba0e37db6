"""A procedural street: it bends, has houses, trees and lamps on both sides, parked and moving traffic.

Everything is laid out along the road: ``s`` metres along its middle, ``d`` metres left of it. The street is made of blocks
that depend only on the seed and their number, so a longer recording begins like a shorter one, as far as one can see.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gemini_core.simulation import things
from gemini_core.simulation.classes import (
    BUILDING,
    CAR,
    GROUND,
    LANE_MARKING,
    PEDESTRIAN,
    ROAD,
    SIDEWALK,
    TRUCK,
    TWO_WHEELER,
    WALL,
)
from gemini_core.simulation.clip import Clip
from gemini_core.simulation.clutter import pavement_thing
from gemini_core.simulation.mesh import Color, MeshBuilder, box, place, pose, quads
from gemini_core.simulation.scene import Actor, Lamp, Scene, Way, tilted
from gemini_core.simulation.shading import (
    ASPHALT,
    BRICKS,
    CROSSING_EVERY_M,
    FACADE,
    GRAIN,
    GRASS,
    PAVING,
    PLAIN,
    ROAD_HALF_M,
    ROOFING,
)
from gemini_core.types import F64

LANE_CENTER_M = 1.75
CURB_M = 0.12
VERGE_OUTER_M, SIDEWALK_OUTER_M = 7.4, 9.6
BLOCK_M = 24.0
BLOCKS_TO_CROSSING = round(CROSSING_EVERY_M / BLOCK_M)
BEHIND_M, AHEAD_M = 48.0, 192.0
_CLUTTER_EVERY_M = 2.0  # places for things, and for those who stand, in a row along the street
_BICYCLES_M = (11.5, 15.5)  # along a block, where bicycles lean
_PARKED_SHARE = 0.62  # of the bays, in a street without clutter
_BETWEEN_TRACKS_M = 0.65  # of what walks and what stands in a row
_STEP_M = 0.1  # between the known points of the road's middle
ONCOMING_MPS, ONCOMING_CYCLIST_MPS = -9.0, -4.5
STREET_LAMP = (7.5e-3, 6.2e-3, 4.0e-3)  # some 15 lux below a lamp 7 m up

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


class Road:
    """The road's middle line: two sine waves of heading, so that it bends left and right, with radii above some 60 m."""

    def __init__(self, rng: np.random.Generator, length_m: float) -> None:
        wave = rng.uniform(150.0, 260.0)
        self._waves = (
            (float(rng.uniform(0.15, 0.42)), 2 * math.pi / wave, float(rng.uniform(0, 2 * math.pi))),
            (0.08, 2 * math.pi / 70.0, float(rng.uniform(0, 2 * math.pi))),
        )
        self._first = -BEHIND_M - 32.0
        s = np.arange(self._first, length_m + AHEAD_M + 32.0, _STEP_M)
        middle = self.heading(s + _STEP_M / 2)
        self._s = s
        self._x = np.concatenate([[0.0], np.cumsum(np.cos(middle[:-1]) * _STEP_M)])
        self._y = np.concatenate([[0.0], np.cumsum(np.sin(middle[:-1]) * _STEP_M)])
        origin = round(-self._first / _STEP_M)
        self._x, self._y = self._x - self._x[origin], self._y - self._y[origin]

    def heading(self, s: F64) -> F64:
        """Direction of the road at ``s`` (N,), radians from the x axis."""
        heading: F64 = np.sum([a * np.sin(k * s + p) for a, k, p in self._waves], axis=0)
        return heading

    def points(self, s: F64, d: float) -> tuple[F64, F64]:
        """World x and y (N,) at ``s`` (N,), ``d`` left of the road's middle."""
        heading = self.heading(s)
        return np.interp(s, self._s, self._x) - d * np.sin(heading), np.interp(s, self._s, self._y) + d * np.cos(heading)

    def pose(self, s: float, d: float, z: float = 0.0, turn: float = 0.0) -> F64:
        """World-from-body (4, 4) of a body at (s, d), turned by ``turn`` against the road."""
        heading = sum(a * math.sin(k * s + p) for a, k, p in self._waves)
        place = min(max((s - self._first) / _STEP_M, 0.0), len(self._x) - 1.001)
        index = int(place)
        share = place - index
        x = self._x[index] + share * (self._x[index + 1] - self._x[index])
        y = self._y[index] + share * (self._y[index + 1] - self._y[index])
        return pose(x - d * math.sin(heading), y + d * math.cos(heading), z, heading + turn)

    def way(self, s0: float, d: float, speed_mps: float, z: float = 0.0) -> Way:
        """The way of what keeps to ``d`` at a constant speed (negative: against the road)."""
        turn = math.pi if speed_mps < 0 else 0.0
        return lambda time_s: self.pose(s0 + speed_mps * time_s, d, z, turn)


def build_street(clip: Clip) -> Scene:
    """Lay out the street that a clip drives through, with its traffic."""
    rng = clip.scene_rng(0)
    speed = float(rng.uniform(5.5, 9.5))
    length = speed * (clip.seconds + 1.0)
    road = Road(rng, length)
    builder = MeshBuilder()
    first, last = math.floor(-BEHIND_M / BLOCK_M), math.ceil((length + AHEAD_M) / BLOCK_M)
    _add_ground(builder, road, first * BLOCK_M, last * BLOCK_M, verge=bool(rng.random() < 0.65))  # noqa: PLR2004 - most of them
    actors: list[Actor] = []
    lamps: list[Lamp] = []
    rows = _rows(clip.scene_rng(4)) if clip.clutter else None
    for block in range(first, last):
        built = _Block(builder, road, clip.scene_rng(1, block - first), number=block, actors=actors, lamps=lamps)
        built.build(rows, clip.scene_rng(5, block - first))
    for s, turn in (
        (last * BLOCK_M, 0.0),
        (first * BLOCK_M, math.pi),
    ):  # a house closes the street, so that nobody sees its end
        _add_building(builder, clip.scene_rng(3), road.pose(s, 0.0, 0.0, turn - math.pi / 2) @ pose(0, 0, CURB_M, 0), 60.0)
    for stream, add in enumerate((_add_same_way, _add_oncoming_vehicles, _add_oncoming_cyclists)):
        add(clip.scene_rng(2, stream), road, actors, length, speed)
    for actor in actors:
        if not actor.moves:
            builder.add_mesh(actor.mesh, actor.way(0.0), actor.number)
    # High and across the street, so that one side is in the sun and shadows fall on the road.
    azimuth = float(rng.choice([-1, 1]) * rng.uniform(0.6, 1.2))
    elevation = float(rng.uniform(0.75, 0.95))
    sun = np.array([math.cos(azimuth) * math.cos(elevation), math.sin(azimuth) * math.cos(elevation), math.sin(elevation)])
    x, y = road.points(np.arange(-30.0, length + 120.0, 5.0), 0.0)
    bounds = (float(x.min()) - 15, float(x.max()) + 15, float(y.min()) - 18, float(y.max()) + 18)
    return Scene(builder.build(), tuple(actors), tuple(lamps), _drive(road, rng, speed), sun, bounds, indoors=False)


def _drive(road: Road, rng: np.random.Generator, speed_mps: float) -> Way:
    """The recording car's way: it weaves in its lane, changes its speed a little, and sways on its springs."""
    weave, sway = float(rng.uniform(0.1, 0.3)), rng.uniform(0, 2 * math.pi, 6)

    def way(time_s: float) -> F64:
        s = speed_mps * (time_s + 0.12 * math.sin(0.9 * time_s + sway[0]))
        d = -LANE_CENTER_M + weave * math.sin(0.12 * s + sway[1])
        turn = math.atan(weave * 0.12 * math.cos(0.12 * s + sway[1]))
        z = 0.010 * math.sin(8.0 * time_s + sway[2])
        roll = 0.006 * math.sin(6.3 * time_s + sway[3]) + 0.002 * math.sin(17.0 * time_s + sway[4])
        pitch = 0.005 * math.sin(7.5 * time_s + sway[5]) + 0.002 * math.sin(19.0 * time_s + sway[2])
        return tilted(road.pose(s, d, z, turn), roll, pitch)

    return way


def _add_ground(builder: MeshBuilder, road: Road, start: float, end: float, *, verge: bool) -> None:
    """Road, kerbs, sidewalks and meadows; ``verge``: grass between kerb and sidewalk."""
    s = np.arange(start - 24.0, end + 24.1, 3.0)

    def strip(d0: float, z0: float, d1: float, z1: float, surface: int) -> None:
        sides = [np.column_stack([*road.points(s, d), np.full(len(s), z)]) for d, z in ((d0, z0), (d1, z1))]
        texture = np.concatenate([np.column_stack([s, np.full(len(s), d)]) for d in (d0 + z0, d1 + z1)])
        i, n = np.arange(len(s) - 1, dtype=np.int32), np.int32(len(s))
        triangles = np.stack([i, i + n, i + n + 1, i, i + n + 1, i + 1], 1).reshape(-1, 3).astype(np.int32)
        builder.add((np.concatenate(sides), triangles), surface, texture=texture, body=False)

    strip(-ROAD_HALF_M, 0, ROAD_HALF_M, 0, builder.surface(ASPHALT, ROAD, (0.115, 0.115, 0.12), detail=LANE_MARKING))
    curb = builder.surface(GRAIN, SIDEWALK, (0.42, 0.41, 0.39), first=0.1, second=4.0)
    paving = builder.surface(PAVING, SIDEWALK, (0.36, 0.34, 0.32))
    grass = builder.surface(GRASS, GROUND, (0.10, 0.17, 0.05), infrared=0.25)
    for side in (-1, 1):
        strip(side * ROAD_HALF_M, 0, side * ROAD_HALF_M, CURB_M, curb)
        strip(side * ROAD_HALF_M, CURB_M, side * (ROAD_HALF_M + 0.16), CURB_M, curb)
        inner = ROAD_HALF_M + 0.16
        if verge:
            strip(side * inner, CURB_M, side * VERGE_OUTER_M, CURB_M, grass)
            inner = VERGE_OUTER_M
        strip(side * inner, CURB_M, side * SIDEWALK_OUTER_M, CURB_M, paving)
        strip(side * SIDEWALK_OUTER_M, CURB_M, side * 40.0, CURB_M, grass)
    x, y = road.points(s, 0.0)
    low, high = (float(x.min()) - 300, float(y.min()) - 300), (float(x.max()) + 300, float(y.max()) + 300)
    corners = np.array([(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])])
    builder.add((np.column_stack([corners, np.full(4, -0.3)]), quads((0, 1, 2, 3))), grass, body=False)


@dataclass(frozen=True, slots=True)
class _Row:
    """Where clutter stands on one side of a street, ``d`` from the road's middle, and where people walk past it.

    ``parked`` is the share of bays that are taken: cars hide those on the pavement from the camera, less so from the LiDAR on
    the roof.
    """

    d: float
    walkers: tuple[float, float]
    parked: float


def _rows(rng: np.random.Generator) -> dict[int, _Row]:
    """The rows of both sides: each nearer to the kerb or to the houses than those who walk."""
    rows = {}
    for side in (-1, 1):
        parked = float(rng.uniform(0.1, _PARKED_SHARE))
        if rng.random() < 0.5:  # noqa: PLR2004 - as many of either
            d = float(rng.uniform(7.55, 8.0))
            rows[side] = _Row(d, (d + _BETWEEN_TRACKS_M, 9.3), parked)
        else:
            d = float(rng.uniform(8.7, 9.3))
            rows[side] = _Row(d, (7.9, d - _BETWEEN_TRACKS_M), parked)
    return rows


class _Block:
    """24 metres of both sides of the street."""

    def __init__(
        self,
        builder: MeshBuilder,
        road: Road,
        rng: np.random.Generator,
        *,
        number: int,
        actors: list[Actor],
        lamps: list[Lamp],
    ) -> None:
        self._builder, self._road, self._rng = builder, road, rng
        self._s = number * BLOCK_M
        self._actors, self._lamps = actors, lamps
        self._crossing = number % BLOCKS_TO_CROSSING == 0

    def build(self, rows: dict[int, _Row] | None, rng: np.random.Generator) -> None:
        """Add everything: people among clutter in ``rows`` of both sides by ``rng``, or as the only things of their size."""
        for side in (-1, 1):
            row = rows[side] if rows else None
            self._houses(side)
            self._furniture(side)
            self._parked(side, row.parked if row else _PARKED_SHARE)
            if row:
                self._people_among_clutter(rng, side, row)
            else:
                self._people(side)

    def _houses(self, side: int) -> None:
        rng, road, builder = self._rng, self._road, self._builder
        cut = float(rng.uniform(9.0, 15.0))
        for begin, length in ((self._s, cut), (self._s + cut, BLOCK_M - cut)):
            middle = begin + length / 2
            gap = float(rng.choice([0.0, 0.0, 1.5, 3.0]))
            setback = float(rng.choice([0.05, 0.05, 1.8, 3.5]))
            house = rng.random() < 0.82  # noqa: PLR2004 - the rest are gardens
            turn = 0.0 if side > 0 else math.pi
            if house:
                at = road.pose(middle, side * (SIDEWALK_OUTER_M + setback), CURB_M, turn)
                _add_building(builder, rng, at, length - gap)
            else:
                at = road.pose(middle, side * rng.uniform(13.0, 17.0), CURB_M, 0.0)
                things.add_tree(builder, rng, at, 1.4)
            if not house or setback > 1.0:
                _add_garden_wall(builder, rng, road.pose(middle, side * (SIDEWALK_OUTER_M + 0.2), CURB_M, turn), length)
            things.add_tree(builder, rng, road.pose(begin + rng.uniform(0, length), side * rng.uniform(30.0, 38.0)), 2.2)

    def _furniture(self, side: int) -> None:
        rng, road, builder, s = self._rng, self._road, self._builder, self._s
        for at in (s + 5.0, s + 16.5):
            if rng.random() < 0.6:  # noqa: PLR2004 - gaps in the row of trees
                things.add_tree(builder, rng, road.pose(at + rng.uniform(-1, 1), side * 6.9, CURB_M), 1.0)
        inwards = -side * math.pi / 2
        at = s + (11.0 if side > 0 else 23.0)
        things.add_lamp(builder, road.pose(at, side * 6.1, CURB_M, inwards))
        x, y, z = road.pose(at, side * (6.1 - things.LAMP_ARM_M), CURB_M + things.LAMP_HEIGHT_M)[:3, 3].tolist()
        self._lamps.append(Lamp((x, y, z), STREET_LAMP, half_angle_rad=1.35))
        signs = ([s + 1.0 - side * 2.4] if self._crossing else []) + [s + 9.0, s + 20.0]
        for at in signs:
            if rng.random() < 0.55:  # noqa: PLR2004 - share of places with a sign
                facing = (0.0 if side < 0 else math.pi) + float(rng.normal(0, 0.1))
                things.add_sign(builder, rng, road.pose(at, side * 6.05, CURB_M, facing))
        if rng.random() < 0.3:  # noqa: PLR2004 - rows of bollards
            for k in range(5):
                things.add_bollard(builder, road.pose(s + 13.0 + 1.6 * k, side * 6.0, CURB_M))

    def _parked(self, side: int, share: float) -> None:
        """Vehicles in this share of the bays."""
        rng, s = self._rng, self._s
        turn = 0.0 if side < 0 else math.pi
        taken = False
        for at in (s + 5.0, s + 10.6, s + 16.2, s + 21.8):
            clear = self._crossing and abs(at - s - 3.0) < 5.0  # noqa: PLR2004 - view at crossings
            kind = rng.random() * (_PARKED_SHARE / share)
            if kind > _PARKED_SHARE or clear or taken:
                taken = False
                continue
            lateral, along = side * (4.68 + rng.normal(0, 0.06)), at + rng.uniform(-0.3, 0.3)
            if kind < 0.07:  # noqa: PLR2004 - trucks are long: the next bay stays empty
                self._stand(TRUCK, things.truck(rng), self._road.pose(along + 2.0, side * 4.5, 0.0, turn))
                taken = True
            elif kind < 0.14:  # noqa: PLR2004 - two motorcycles in a bay
                for shift in (-1.0, 1.0):
                    motorcycle = things.two_wheeler(rng, ridden=False, motor=True)
                    self._stand(TWO_WHEELER, motorcycle, self._road.pose(along + shift, lateral, 0.0, turn + 0.9))
            else:
                self._stand(CAR, things.car(rng), self._road.pose(along, lateral, 0.0, turn + float(rng.normal(0, 0.02))))
        if rng.random() < 0.5:  # noqa: PLR2004 - bicycles leaning at the kerb
            for k in range(int(rng.integers(1, 4))):
                wheels = things.two_wheeler(rng, ridden=False, motor=False)
                place = self._road.pose(s + 12.8 + 0.7 * k, side * 6.9, CURB_M, math.pi / 2 + float(rng.normal(0, 0.15)))
                self._stand(TWO_WHEELER, wheels, place)

    def _people(self, side: int) -> None:
        rng = self._rng
        for _ in range(int(rng.integers(1, 6))):
            person = things.pedestrian(rng)
            s = self._s + float(rng.uniform(0, BLOCK_M))
            if rng.random() < 0.75:  # noqa: PLR2004 - the others stand
                speed = float(rng.choice([-1, 1]) * rng.uniform(0.9, 1.6))
                # Walkers keep clear of trees and lamps; every one has its own track, so that none walks through another.
                self._walk(person, s, side * float(rng.uniform(7.9, 9.2)), speed)
            else:
                lateral, turn = side * float(rng.uniform(6.2, 6.5)), float(rng.uniform(-math.pi, math.pi))
                self._stand(PEDESTRIAN, person, self._road.pose(s, lateral, CURB_M, turn))

    def _people_among_clutter(self, rng: np.random.Generator, side: int, row: _Row) -> None:
        """As many people as without clutter. Who stands, stands where things do; who walks keeps clear of their row.

        So neither a place nor its distance from the kerb says who is a person.
        """
        # In the row and at the kerb, but not where bicycles lean.
        first, last = _BICYCLES_M
        along = np.arange(0.0, BLOCK_M, _CLUTTER_EVERY_M).tolist()
        places = [(self._s + s, row.d) for s in along if not first <= s <= last]
        places += [(self._s + s, float(rng.uniform(6.3, 6.6))) for s in (1.0, 3.1, 7.0, 10.4, 16.6, 19.0, 21.4)]
        free = iter(rng.permutation(len(places)).tolist())

        def somewhere() -> F64:
            s, d = places[next(free)]
            return self._road.pose(s + float(rng.uniform(-0.4, 0.4)), side * d, CURB_M, float(rng.uniform(-math.pi, math.pi)))

        for _ in range(int(rng.integers(1, 6))):
            person = things.pedestrian(rng)
            if rng.random() < 0.6:  # noqa: PLR2004 - the others stand
                speed = float(rng.choice([-1, 1]) * rng.uniform(0.9, 1.6))
                self._walk(person, self._s + float(rng.uniform(0, BLOCK_M)), side * float(rng.uniform(*row.walkers)), speed)
            else:
                self._stand(PEDESTRIAN, person, somewhere())
        for _ in range(int(rng.integers(1, 7))):
            self._builder.add_mesh(pavement_thing(rng), somewhere())

    def _walk(self, person: things.Thing, s: float, d: float, speed_mps: float) -> None:
        way = self._road.way(s, d, speed_mps, CURB_M)
        self._actors.append(Actor(len(self._actors), PEDESTRIAN, *person, way, moves=True, walk_mps=abs(speed_mps)))

    def _stand(self, label: int, thing: things.Thing, at: F64) -> None:
        self._actors.append(Actor(len(self._actors), label, *thing, _still(at), moves=False))


def _still(at: F64) -> Way:
    return lambda _time_s: at


def _vehicle(rng: np.random.Generator) -> tuple[int, things.Thing]:
    """A vehicle of the traffic, and its class."""
    kind = rng.random()
    if kind < 0.22:  # noqa: PLR2004 - shares of the traffic
        return TRUCK, things.truck(rng)
    if kind < 0.34:  # noqa: PLR2004
        return TWO_WHEELER, things.two_wheeler(rng, ridden=True, motor=True)
    return CAR, things.car(rng)


def _driving(actors: list[Actor], thing: tuple[int, things.Thing], way: Way) -> None:
    label, (mesh, size) = thing
    actors.append(Actor(len(actors), label, mesh, size, way, moves=True))


def _add_same_way(rng: np.random.Generator, road: Road, actors: list[Actor], _length_m: float, ego_mps: float) -> None:
    """A vehicle ahead that keeps its distance, and cyclists at the right edge."""
    _driving(actors, _vehicle(rng), road.way(float(rng.uniform(18, 30)), -LANE_CENTER_M, ego_mps))
    for start in (float(rng.uniform(10, 20)), float(rng.uniform(30, 60))):
        cyclist = things.two_wheeler(rng, ridden=True, motor=False)
        _driving(actors, (TWO_WHEELER, cyclist), road.way(start, -3.15, float(rng.uniform(3.5, 5.0))))


def _oncoming(rng: np.random.Generator, end_m: float, gap_m: float) -> Iterator[float]:
    """Where those start that come towards us, one after the other."""
    s = float(rng.uniform(12.0, 30.0))
    while s < end_m:
        yield s
        s += float(rng.uniform(0.7, 2.0)) * gap_m


def _add_oncoming_vehicles(rng: np.random.Generator, road: Road, actors: list[Actor], length_m: float, ego_mps: float) -> None:
    for s in _oncoming(rng, _met_until(length_m, ego_mps, ONCOMING_MPS), 26.0):
        _driving(actors, _vehicle(rng), road.way(s, LANE_CENTER_M + float(rng.normal(0, 0.08)), ONCOMING_MPS))


def _add_oncoming_cyclists(rng: np.random.Generator, road: Road, actors: list[Actor], length_m: float, ego_mps: float) -> None:
    for s in _oncoming(rng, _met_until(length_m, ego_mps, ONCOMING_CYCLIST_MPS), 45.0):
        cyclist = things.two_wheeler(rng, ridden=True, motor=False)
        _driving(actors, (TWO_WHEELER, cyclist), road.way(s, 3.2, ONCOMING_CYCLIST_MPS))


def _met_until(length_m: float, ego_mps: float, oncoming_mps: float) -> float:
    """Where what we meet, or see, at the end of our way starts."""
    return length_m * (1.0 - oncoming_mps / ego_mps) + AHEAD_M


def _add_building(builder: MeshBuilder, rng: np.random.Generator, at: F64, length: float) -> None:
    """A house whose front is along x at y = 0 of a pose, the house behind it (y > 0)."""
    depth, floors = float(rng.uniform(9, 14)), int(rng.integers(2, 6))
    first_floor, floor = float(rng.uniform(3.2, 4.0)), float(rng.uniform(2.8, 3.3))
    height = first_floor + floor * (floors - 1) + 0.6
    shade = rng.uniform(0.85, 1.15)
    r, g, b = (float(shade * c) for c in _FACADES[rng.integers(len(_FACADES))])
    style, salt = float(rng.integers(0, 4)), float(rng.integers(0, 1 << 16))
    corners, _ = box(-length / 2, length / 2, 0, depth, -0.2, height)
    for k in range(4):
        a, c = corners[k], corners[(k + 1) % 4]
        wide = float(np.hypot(*(c - a)[:2]))
        surface = builder.surface(
            FACADE, BUILDING, (r, g, b), glow=3e-3, first=wide / max(1, round(wide / 2.7)), second=floor,
            third=first_floor, fourth=height, fifth=style, sixth=salt,
        )  # fmt: skip
        face = np.stack([a, c, corners[4 + (k + 1) % 4], corners[4 + k]])
        texture = np.array([(0, -0.2), (wide, -0.2), (wide, height), (0, height)])
        builder.add(place((face, quads((0, 1, 2, 3))), at), surface, texture=texture, body=False)
    tiles = builder.surface(ROOFING, BUILDING, (0.20, 0.09, 0.07) if rng.random() < 0.5 else (0.11, 0.11, 0.12))  # noqa: PLR2004 - tiles or slate
    eaves = corners[4:] + (corners[4:] - corners[4:].mean(0)) * [0.04, 0.04, 0]
    ridge = np.stack([(eaves[0] + eaves[3]) / 2, (eaves[1] + eaves[2]) / 2])
    ridge[:, 2] += rng.uniform(2.0, 4.0) if floors < 5 else 0.25  # noqa: PLR2004 - high houses have flat roofs
    faces = np.concatenate([quads((0, 1, 5, 4), (3, 4, 5, 2), (0, 3, 2, 1)), np.array([(0, 4, 3), (1, 2, 5)], np.int32)])
    builder.add(place((np.concatenate([eaves, ridge]), faces), at), tiles)


def _add_garden_wall(builder: MeshBuilder, rng: np.random.Generator, at: F64, length: float) -> None:
    """A wall along x of a pose, with a gate's gap."""
    height, gate = float(rng.uniform(0.9, 2.0)), float(rng.uniform(-0.3, 0.3)) * length
    if rng.random() < 0.5:  # noqa: PLR2004 - bricks or plaster
        surface = builder.surface(BRICKS, WALL, (0.40, 0.16, 0.10), first=float(rng.integers(99)))
    else:
        surface = builder.surface(GRAIN, WALL, (0.5, 0.48, 0.43), first=0.12, second=2.0)
    cap = builder.surface(PLAIN, WALL, (0.33, 0.32, 0.31))
    for x0, x1 in ((-length / 2, gate - 0.6), (gate + 0.6, length / 2)):
        builder.add(place(box(x0, x1, -0.12, 0.12, -0.1, height), at), surface, texture=_along_wall(x0, x1, height))
        builder.add(place(box(x0 - 0.04, x1 + 0.04, -0.17, 0.17, height, height + 0.07), at), cap)


def _along_wall(x0: float, x1: float, height: float) -> F64:
    """Texture (8, 2) of a box whose front is along x."""
    return np.array([(x, z) for z in (-0.1, height) for x in (x0, x1, x1, x0)])

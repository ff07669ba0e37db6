"""Furniture, each as a mesh in its own frame (x to the front, z up, origin on the floor below its middle) and its size."""

from __future__ import annotations

import numpy as np

from gemini_core.simulation.classes import CABINET, CHAIR, TABLE
from gemini_core.simulation.mesh import Color, Mesh, MeshBuilder, box, cylinder
from gemini_core.simulation.shading import BOARDS, BOOKS, GRAIN, PANELS, PLAIN

Thing = tuple[Mesh, tuple[float, float, float]]

_CLOTHS: tuple[Color, ...] = (
    (0.12, 0.16, 0.30),
    (0.35, 0.10, 0.10),
    (0.14, 0.25, 0.16),
    (0.30, 0.28, 0.25),
    (0.06, 0.06, 0.07),
)
_LACQUERS: tuple[Color, ...] = ((0.70, 0.70, 0.68), (0.20, 0.22, 0.24), (0.10, 0.20, 0.28))


def _wood_or_lacquer(rng: np.random.Generator, wood: Color) -> Color:
    return wood if rng.random() < 0.6 else _LACQUERS[rng.integers(len(_LACQUERS))]  # noqa: PLR2004 - share of wood


def _top(builder: MeshBuilder, rng: np.random.Generator, wood: Color) -> int:
    return builder.surface(BOARDS, TABLE, _wood_or_lacquer(rng, wood), first=0.3, second=0.25, third=float(rng.integers(99)))


def table(rng: np.random.Generator, wood: Color, length: float, width: float, height: float) -> Thing:
    """A table with four legs; its length is along x."""
    builder = MeshBuilder()
    top = _top(builder, rng, wood)
    leg = builder.surface(PLAIN, TABLE, (0.12, 0.10, 0.09) if rng.random() < 0.5 else wood)  # noqa: PLR2004 - of steel or wood
    x, y = length / 2, width / 2
    builder.add(box(-x, x, -y, y, height - 0.045, height), top)
    for side_x in (-1, 1):
        for side_y in (-1, 1):
            foot = (side_x * (x - 0.07), side_y * (y - 0.07), 0.0)
            builder.add(cylinder(foot, (foot[0], foot[1], height - 0.04), (0.032, 0.036), 6), leg)
    if rng.random() < 0.7:  # things on it  # noqa: PLR2004
        for _ in range(int(rng.integers(1, 4))):
            px, py = float(rng.uniform(-0.7 * x, 0.7 * x)), float(rng.uniform(-0.6 * y, 0.6 * y))
            item = builder.surface(PLAIN, TABLE, tuple(rng.uniform(0.1, 0.7, 3)))
            builder.add(cylinder((px, py, height), (px, py, height + rng.uniform(0.05, 0.22)), (0.06, 0.05), 8), item)
    return builder.build(), (length, width, height)


def desk(rng: np.random.Generator, wood: Color, wide: float) -> Thing:
    """A desk with a screen, its length along y."""
    builder = MeshBuilder()
    top = _top(builder, rng, wood)
    steel = builder.surface(PLAIN, TABLE, (0.2, 0.2, 0.21))
    black = builder.surface(PLAIN, TABLE, (0.02, 0.02, 0.022))
    screen = builder.surface(PLAIN, TABLE, (0.10, 0.14, 0.20))
    x, y, height = 0.36, wide / 2, 0.73
    builder.add(box(-x, x, -y, y, height - 0.04, height), top)
    for side in (-1, 1):
        builder.add(box(-x + 0.03, x - 0.05, side * (y - 0.05) - 0.02, side * (y - 0.05) + 0.02, 0, height - 0.04), steel)
    at = float(rng.uniform(-0.3, 0.3)) * y
    builder.add(box(-0.2, -0.16, at - 0.29, at + 0.29, height + 0.12, height + 0.48), black)
    builder.add(box(-0.159, -0.155, at - 0.27, at + 0.27, height + 0.14, height + 0.46), screen)
    builder.add(box(-0.22, -0.14, at - 0.05, at + 0.05, height, height + 0.14), black)
    builder.add(box(0.02, 0.16, at - 0.22, at + 0.22, height, height + 0.025), black)
    return builder.build(), (2 * x, wide, height + 0.48)


def chair(rng: np.random.Generator) -> Thing:
    """A chair that looks along x."""
    builder = MeshBuilder()
    color = _CLOTHS[rng.integers(len(_CLOTHS))] if rng.random() < 0.6 else (0.42, 0.26, 0.13)  # noqa: PLR2004 - padded or wooden
    seat = builder.surface(GRAIN, CHAIR, color, first=0.12, second=10.0, infrared=0.1)
    leg = builder.surface(PLAIN, CHAIR, (0.10, 0.10, 0.11))
    half, high = 0.22, float(rng.uniform(0.88, 1.0))
    builder.add(box(-half, half, -half, half, 0.42, 0.48), seat)
    builder.add(box(-half - 0.02, -half + 0.03, -half, half, 0.6, high), seat)
    for y in (-half + 0.03, half - 0.03):
        builder.add(cylinder((-half + 0.01, y, 0.0), (-half + 0.01, y, high - 0.05), (0.02, 0.02), 5), leg)
        builder.add(cylinder((half - 0.03, y, 0.0), (half - 0.03, y, 0.43), (0.02, 0.02), 5), leg)
    return builder.build(), (2 * half + 0.04, 2 * half, high)


def sofa(rng: np.random.Generator, wide: float) -> Thing:
    """A sofa or armchair that looks along x, its width along y."""
    builder = MeshBuilder()
    cloth = builder.surface(GRAIN, CHAIR, _CLOTHS[rng.integers(len(_CLOTHS))], first=0.12, second=10.0, infrared=0.1)
    cushion = builder.surface(GRAIN, CHAIR, _CLOTHS[rng.integers(len(_CLOTHS))], first=0.12, second=10.0, infrared=0.1)
    x, y = 0.4, wide / 2
    builder.add(box(-x, x, -y, y, 0.06, 0.34), cloth)
    builder.add(box(-x, -x + 0.2, -y, y, 0.3, 0.82), cloth)
    for side in (-1, 1):
        low, high = sorted((side * y, side * (y - 0.16)))
        builder.add(box(-x, x, low, high, 0.3, 0.6), cloth)
    seats = max(1, round((wide - 0.3) / 0.65))
    edges = np.linspace(-y + 0.17, y - 0.17, seats + 1)
    for k in range(seats):
        builder.add(box(-x + 0.2, x + 0.02, edges[k] + 0.01, edges[k + 1] - 0.01, 0.34, 0.46), cushion)
    return builder.build(), (2 * x + 0.04, wide, 0.82)


def cabinet(rng: np.random.Generator, wood: Color, wide: float, high: float) -> Thing:
    """A cabinet or chest of drawers with its front along x, its width along y."""
    builder = MeshBuilder()
    color = _wood_or_lacquer(rng, wood)
    doors = max(1, round(wide / 0.5))
    rows = 1 if rng.random() < 0.5 else max(1, round(high / 0.4))  # noqa: PLR2004 - doors or drawers
    body = builder.surface(PANELS, CABINET, color, third=float(rng.integers(99)))
    front = builder.surface(PANELS, CABINET, color, first=wide / doors, second=high / rows, third=float(rng.integers(99)))
    x, y = 0.22, wide / 2
    builder.add(box(-x, x - 0.02, -y, y, 0, high), body)
    part = box(x - 0.02, x, -y, y, 0.04, high)
    builder.add(part, front, texture=part[0][:, 1:] + [y, 0])
    return builder.build(), (2 * x, wide, high)


def shelf(rng: np.random.Generator, wood: Color, wide: float, high: float) -> Thing:
    """A bookcase with its front along x, its width along y."""
    builder = MeshBuilder()
    color = _wood_or_lacquer(rng, wood)
    body = builder.surface(PANELS, CABINET, color, third=float(rng.integers(99)))
    front = builder.surface(BOOKS, CABINET, color, first=high / max(2, round(high / 0.36)), second=float(rng.integers(999)))
    x, y = 0.16, wide / 2
    builder.add(box(-x, x, -y, -y + 0.03, 0, high), body)
    builder.add(box(-x, x, y - 0.03, y, 0, high), body)
    builder.add(box(-x, x, -y, y, high - 0.03, high), body)
    part = box(-x, x - 0.03, -y + 0.03, y - 0.03, 0, high - 0.03)
    builder.add(part, front, texture=part[0][:, 1:])
    return builder.build(), (2 * x, wide, high)

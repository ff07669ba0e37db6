"""Things of a person's size that stand on pavements, each as a mesh in its own frame: z up, origin on the ground.

In a sweep some metres away they are as a person is: as wide, as high, a handful of points. What tells them apart is their look.
"""

from __future__ import annotations

import numpy as np

from gemini_core.simulation.classes import POLE, TREE
from gemini_core.simulation.mesh import HEXAHEDRON, Color, Mesh, MeshBuilder, box, cylinder, frustum, sphere
from gemini_core.simulation.shading import GRAIN, LEAVES, PAINT, PLAIN

_ENAMELS: tuple[Color, ...] = (
    (0.70, 0.52, 0.04),
    (0.60, 0.04, 0.04),
    (0.05, 0.14, 0.42),
    (0.33, 0.35, 0.36),
    (0.07, 0.17, 0.11),
    (0.62, 0.63, 0.62),
)
_AWNINGS: tuple[Color, ...] = ((0.66, 0.62, 0.52), (0.10, 0.24, 0.14), (0.46, 0.07, 0.06), (0.24, 0.27, 0.32))


def pavement_thing(rng: np.random.Generator) -> Mesh:
    """One of the things below, up to 10 % larger or 8 % smaller than the usual one."""
    builder = MeshBuilder()
    kinds = (_ticket_machine, _letter_box, _clipped_tree, _closed_parasol, _information_pillar, _litter_bin)
    kinds[rng.integers(len(kinds))](builder, rng, float(rng.uniform(0.92, 1.1)))
    return builder.build()


def _enamel(builder: MeshBuilder, rng: np.random.Generator) -> int:
    return builder.surface(PAINT, POLE, _ENAMELS[rng.integers(len(_ENAMELS))], infrared=0.05)


def _ticket_machine(builder: MeshBuilder, rng: np.random.Generator, scale: float) -> None:
    """A case with a screen on a foot."""
    steel = builder.surface(PLAIN, POLE, (0.30, 0.31, 0.32))
    screen = builder.surface(PLAIN, POLE, (0.08, 0.12, 0.16))
    case = _enamel(builder, rng)
    builder.add(cylinder((0, 0, -0.05), (0, 0, 0.85 * scale), (0.11 * scale, 0.10 * scale), 8), steel)
    builder.add(box(-0.17 * scale, 0.17 * scale, -0.23 * scale, 0.23 * scale, 0.8 * scale, 1.62 * scale), case)
    builder.add(box(0.168 * scale, 0.18 * scale, -0.14 * scale, 0.14 * scale, 1.25 * scale, 1.48 * scale), screen, body=False)
    builder.add(box(-0.12 * scale, 0.12 * scale, -0.12 * scale, 0.12 * scale, 1.62 * scale, 1.72 * scale), steel)


def _letter_box(builder: MeshBuilder, rng: np.random.Generator, scale: float) -> None:
    """A round pillar with a cap, or a square case on two feet."""
    enamel, dark = _enamel(builder, rng), builder.surface(PLAIN, POLE, (0.05, 0.05, 0.05))
    radius, high = 0.26 * scale, 1.5 * scale
    if rng.random() < 0.5:  # noqa: PLR2004 - as many round as square
        builder.add(cylinder((0, 0, 0.08), (0, 0, high), (radius, radius), 12), enamel)
        builder.add(cylinder((0, 0, high), (0, 0, high + 0.13 * scale), (1.12 * radius, 0.5 * radius), 12), enamel)
        builder.add(cylinder((0, 0, -0.05), (0, 0, 0.1), (1.1 * radius, 1.1 * radius), 12), dark)
    else:
        builder.add(box(-radius, radius, -radius, radius, 0.45 * scale, high), enamel)
        for y in (-0.6, 0.6):
            builder.add(box(-0.05, 0.05, y * radius - 0.04, y * radius + 0.04, -0.05, 0.47 * scale), dark)
    builder.add(box(radius - 0.01, radius + 0.01, -0.5 * radius, 0.5 * radius, 1.25 * scale, 1.3 * scale), dark, body=False)


def _clipped_tree(builder: MeshBuilder, rng: np.random.Generator, scale: float) -> None:
    """A column or a ball of leaves in a pot."""
    color: Color = (0.36, 0.17, 0.10) if rng.random() < 0.5 else (0.3, 0.3, 0.3)  # noqa: PLR2004 - of clay or of stone
    pot = builder.surface(GRAIN, TREE, color, first=0.1, second=6.0)
    green = float(rng.uniform(0.8, 1.3))
    leaves = builder.surface(LEAVES, TREE, (0.07 * green, 0.15 * green, 0.035 * green), infrared=0.25)
    builder.add(cylinder((0, 0, -0.02), (0, 0, 0.42 * scale), (0.19 * scale, 0.25 * scale), 10), pot)
    ball, faces = sphere(1)
    bumps = 1 + 0.06 * rng.standard_normal((len(ball), 1))
    if rng.random() < 0.6:  # noqa: PLR2004 - share of columns
        builder.add((ball * bumps * np.array([0.28, 0.28, 0.68]) * scale + [0, 0, 1.06 * scale], faces), leaves)
    else:
        bark = builder.surface(PLAIN, TREE, (0.13, 0.09, 0.06))
        builder.add(cylinder((0, 0, 0.4 * scale), (0, 0, 1.2 * scale), (0.04, 0.03), 6), bark)
        builder.add((ball * bumps * 0.33 * scale + [0, 0, 1.42 * scale], faces), leaves)


def _closed_parasol(builder: MeshBuilder, rng: np.random.Generator, scale: float) -> None:
    """A furled cloth around a post on a heavy foot."""
    cloth = builder.surface(GRAIN, POLE, _AWNINGS[rng.integers(len(_AWNINGS))], first=0.12, second=8.0, infrared=0.12)
    stone = builder.surface(PLAIN, POLE, (0.32, 0.31, 0.30))
    builder.add(box(-0.22, 0.22, -0.22, 0.22, -0.02, 0.12), stone)
    builder.add(cylinder((0, 0, 0.1), (0, 0, 2.0 * scale), (0.03, 0.03), 6), stone)
    builder.add(cylinder((0, 0, 0.62 * scale), (0, 0, 1.2 * scale), (0.25 * scale, 0.2 * scale), 9), cloth)
    builder.add(cylinder((0, 0, 1.2 * scale), (0, 0, 1.9 * scale), (0.2 * scale, 0.06 * scale), 9), cloth)


def _information_pillar(builder: MeshBuilder, rng: np.random.Generator, scale: float) -> None:
    """A slab, narrower at its head, with a poster."""
    body, poster = _enamel(builder, rng), builder.surface(PLAIN, POLE, tuple(rng.uniform(0.05, 0.6, 3)))
    x, y, high = 0.13 * scale, 0.24 * scale, float(rng.uniform(1.6, 1.85)) * scale
    builder.add((frustum((-x, x, -y, y), -0.05, (-x, 0.6 * x, -0.9 * y, 0.9 * y), high), HEXAHEDRON), body)
    builder.add(box(-x - 0.012, -x, -0.75 * y, 0.75 * y, 0.7 * scale, 1.5 * scale), poster, body=False)


def _litter_bin(builder: MeshBuilder, rng: np.random.Generator, scale: float) -> None:
    """A basket between posts, under a hood."""
    enamel, dark = _enamel(builder, rng), builder.surface(PLAIN, POLE, (0.06, 0.06, 0.06))
    radius = 0.24 * scale
    for y in (-1, 1):
        builder.add(cylinder((0, y * radius, -0.05), (0, y * radius, 1.4 * scale), (0.035, 0.035), 6), dark)
    builder.add(cylinder((0, 0, 0.35 * scale), (0, 0, 1.08 * scale), (0.82 * radius, radius), 10), enamel)
    builder.add(cylinder((0, 0, 1.38 * scale), (0, 0, 1.5 * scale), (1.1 * radius, 0.4 * radius), 10), enamel)

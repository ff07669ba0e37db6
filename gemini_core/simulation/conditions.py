"""Conditions in numbers: light, air and water. Units of light as in gemini_core.simulation.shading.

Visibility V (contrast 5 % left) and extinction are tied by Koschmieder's law, beta = 3.0 / V.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gemini_core.simulation import shading
from gemini_core.simulation.clip import Condition, World
from gemini_core.types import F64

Color = tuple[float, float, float]
_BLACK: Color = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Light and air of a condition.

    ``sun`` and ``ambient`` are the radiance of a white sheet that faces the sun, or the whole sky; ``zenith``, ``horizon``
    and ``airlight`` radiances; ``clouds`` 0 to 1. ``fog_per_m`` attenuates visible and infrared light alike (droplets are
    larger than both wavelengths); ``backscatter`` is how often a beam meets enough of it to give a return of its own;
    ``wet`` 0 to 1 is water on the ground, ``rain`` 0 to 1 drops in the air. ``lit`` is the level of what glows (panes, lamps'
    glass), ``street_lamps``, ``headlights`` (the robot's own) and ``ceiling_lamps`` (a share) what shines on other things.
    ``infrared_sun`` is the sunlight that a depth camera's projector has to stand out against, 1 at noon outdoors.
    """

    sun: Color
    ambient: Color
    zenith: Color
    horizon: Color
    clouds: float
    fog_per_m: float
    airlight: Color
    infrared_sun: float
    backscatter: float = 0.0
    wet: float = 0.0
    rain: float = 0.0
    headlights: bool = False
    lit: float = 0.0
    street_lamps: bool = False
    ceiling_lamps: float = 0.0

    def light(self, sun_direction: F64, *, indoors: bool) -> F64:
        """The array that compiled code reads (shading.LIGHT_SIZE,)."""
        light = np.zeros(shading.LIGHT_SIZE)
        for place, value in (
            (shading.SUN_DIRECTION, sun_direction),
            (shading.SUN_COLOR, self.sun),
            (shading.AMBIENT, self.ambient),
            (shading.AIRLIGHT, self.airlight),
            (shading.ZENITH, self.zenith),
            (shading.HORIZON, self.horizon),
        ):
            light[place : place + 3] = value
        light[shading.FOG_PER_M], light[shading.WET] = self.fog_per_m, self.wet
        light[shading.GLOW_LEVEL], light[shading.CLOUDS] = self.lit, self.clouds
        light[shading.FROM_ABOVE], light[shading.INDOORS] = (0.25, 1.0) if indoors else (0.76, 0.0)
        return light


_HAZE_PER_M = 3.0 / 4000.0

_STREET: dict[Condition, Surroundings] = {
    "day": Surroundings(
        (1.50, 1.38, 1.17), (0.30, 0.35, 0.43), (0.20, 0.42, 0.78), (0.78, 0.85, 0.95), 1.0, _HAZE_PER_M,
        (0.74, 0.82, 0.92), 1.0,
    ),
    "dusk": Surroundings(
        _BLACK, (1.1e-4, 1.2e-4, 1.8e-4), (5.0e-5, 8.0e-5, 1.9e-4), (4.6e-4, 2.7e-4, 2.0e-4), 0.5, _HAZE_PER_M,
        (2.8e-4, 2.0e-4, 1.8e-4), 0.02, headlights=True, lit=1.0, street_lamps=True,
    ),
    "night": Surroundings(
        _BLACK, (1.2e-6, 1.5e-6, 2.2e-6), (1.5e-6, 2.0e-6, 3.5e-6), (1.0e-5, 7.5e-6, 6.0e-6), 0.5, _HAZE_PER_M,
        (7.0e-6, 6.0e-6, 5.0e-6), 0.0, headlights=True, lit=1.0, street_lamps=True,
    ),
    "fog": Surroundings(
        (0.06, 0.06, 0.06), (0.34, 0.35, 0.37), (0.62, 0.64, 0.66), (0.52, 0.54, 0.56), 0.0, 3.0 / 45.0,
        (0.52, 0.54, 0.56), 0.25, backscatter=0.28, lit=1.0, headlights=True,
    ),
    "rain": Surroundings(
        (0.02, 0.02, 0.02), (0.13, 0.14, 0.155), (0.20, 0.215, 0.235), (0.26, 0.27, 0.285), 0.0, 3.0 / 350.0,
        (0.24, 0.25, 0.265), 0.12, backscatter=0.05, wet=1.0, rain=1.0, lit=1.0, headlights=True,
    ),
}  # fmt: skip
_ROOM: dict[Condition, Surroundings] = {
    "day": Surroundings(
        (1.20, 1.10, 0.94), (7.5e-3, 7.8e-3, 8.2e-3), (0.20, 0.42, 0.78), (0.78, 0.85, 0.95), 1.0, 0.0, _BLACK, 0.02,
        lit=1.0, ceiling_lamps=1.0,
    ),
    "dusk": Surroundings(
        _BLACK, (9.0e-5, 9.0e-5, 1.1e-4), (5.0e-5, 8.0e-5, 1.9e-4), (4.6e-4, 2.7e-4, 2.0e-4), 0.5, 0.0, _BLACK, 0.0,
        lit=0.05, ceiling_lamps=0.012,
    ),
    "night": Surroundings(
        _BLACK, (4.0e-6, 4.4e-6, 5.4e-6), (1.5e-6, 2.0e-6, 3.5e-6), (3.0e-5, 2.2e-5, 1.5e-5), 0.3, 0.0, _BLACK, 0.0,
    ),
    "fog": Surroundings(
        _BLACK, (3.5e-3, 3.5e-3, 3.4e-3), (0.20, 0.42, 0.78), (0.78, 0.85, 0.95), 1.0, 3.0 / 9.0,
        (5.5e-3, 5.4e-3, 5.2e-3), 0.02, backscatter=0.35, lit=1.0, ceiling_lamps=0.8,
    ),
}  # fmt: skip


def surroundings(world: World, condition: Condition) -> Surroundings:
    """Light and air of a condition in a world; a Clip has made sure that there is one."""
    return (_STREET if world == "street" else _ROOM)[condition]

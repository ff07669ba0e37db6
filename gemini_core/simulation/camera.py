"""The colour camera: from radiance to 8-bit values.

Auto exposure looks for a mean level, first with the shutter, then with the gain, both limited; so a street at night stays
dark and noisy. Electrons are counted (shot noise), read (read noise), multiplied by the gain and clipped at full well.
Failures change the exposure, or shake the camera while the shutter is open.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from gemini_core.simulation.clip import Failure
from gemini_core.simulation.compiling import compiled
from gemini_core.types import F32, F64, U8

LEVEL, WINDOWS = 0.115, 40.0
"""Where auto exposure puts the mean of the picture's darker three quarters, as a share of full well; how many times brighter
than that mean windows are, which it lets blow out."""
FULL_WELL, READ_NOISE = 9000.0, 3.0
SHORTEST_S = 0.15e-3
"""Exposure that a radiance of 1 needs to fill the well."""
LONGEST_S, MOST_GAIN = 16e-3, 12.0
OVER, UNDER = 7.0, 1 / 14.0
SHAKE_RAD_S, SHAKEN_S = 2.2, 14e-3
_TAPS = 9


@dataclass(frozen=True, slots=True)
class Exposure:
    """How long the shutter is open, and the gain."""

    time_s: float
    gain: float


def meter(color: F32, failure: Failure) -> Exposure:
    """Choose the exposure for radiance (H, W, 3)."""
    sample = color[::4, ::4].reshape(-1, 3) @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    # The geometric mean of all but the brightest, so that windows and lamps do not decide; but little of a sky is blown out.
    dark = np.sort(sample)[: sample.size * 3 // 4]
    mean = float(np.exp(np.log(np.maximum(dark, 1e-9)).mean()))
    bright = float(np.percentile(sample, 90))
    wanted = min(LEVEL / mean, 1.6 / max(bright, 1e-9)) if bright < WINDOWS * mean else LEVEL / mean
    wanted *= {"over_exposure": OVER, "under_exposure": UNDER}.get(failure, 1.0)
    time_s = min(wanted * SHORTEST_S, LONGEST_S)
    gain = min(max(wanted * SHORTEST_S / time_s, 1.0), MOST_GAIN * (2.0 if failure == "over_exposure" else 1.0))
    return Exposure(time_s, gain)


def blur_by_motion(color: F32, depth_m: F32, intrinsics: tuple[float, float, float, float], motion: F64, open_s: float) -> F32:
    """The mean of a picture (H, W, 3) over the time that the shutter is open.

    ``motion`` (6,): the camera's velocity (m/s) and angular velocity (rad/s) in its own frame; what moves by itself is
    taken to stand still meanwhile.
    """
    return _smear(color, depth_m, intrinsics, motion * open_s)


@compiled
def _smear(color: F32, depth_m: F32, intrinsics: tuple[float, float, float, float], twist: F64) -> F32:
    fx, fy, cx, cy = intrinsics
    height, width = depth_m.shape
    blurred = np.empty((height, width, 3), np.float32)
    for i in range(height):
        for j in range(width):
            x, y, near = (j - cx) / fx, (i - cy) / fy, 1.0 / depth_m[i, j]
            # Image motion of a point that stands still (Longuet-Higgins and Prazdny, 1980).
            u = fx * (near * (x * twist[2] - twist[0]) + x * y * twist[3] - (1 + x * x) * twist[4] + y * twist[5])
            v = fy * (near * (y * twist[2] - twist[1]) + (1 + y * y) * twist[3] - x * y * twist[4] - x * twist[5])
            r, g, b = np.float32(0), np.float32(0), np.float32(0)
            for k in range(_TAPS):
                share = k / (_TAPS - 1) - 0.5
                row, column = int(i + v * share + 0.5), int(j + u * share + 0.5)
                row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
                r, g, b = r + color[row, column, 0], g + color[row, column, 1], b + color[row, column, 2]
            blurred[i, j, 0], blurred[i, j, 1], blurred[i, j, 2] = r / _TAPS, g / _TAPS, b / _TAPS
    return blurred


def _tone_curve() -> U8:
    """8-bit values of shares of full well in steps of 1/2048: a shoulder, then the display's gamma."""
    linear = np.arange(4096) / 2048
    display = np.minimum((1 - np.exp(-2.1 * linear)) / (1 - np.exp(-2.4)), 1.0) ** (1 / 2.2)
    curve: U8 = np.round(255 * display).astype(np.uint8)
    return curve


_TONE_CURVE = _tone_curve()


def develop(color: F32, exposure: Exposure, rng: np.random.Generator) -> U8:
    """Make the 8-bit picture (H, W, 3) of radiance: lens, vignetting, noise, tone curve."""
    scale = exposure.time_s / SHORTEST_S
    electrons = np.minimum(color * np.float32(scale * FULL_WELL), np.float32(40 * FULL_WELL))
    lens = cv2.GaussianBlur(electrons, (0, 0), 0.45)
    # What is far over full well (lamps) glares: a wide, weak halo.
    if electrons.max() > 4 * FULL_WELL / exposure.gain:
        over = np.maximum(lens - np.float32(2 * FULL_WELL / exposure.gain), 0)
        small = cv2.resize(over, (over.shape[1] // 4, over.shape[0] // 4), interpolation=cv2.INTER_AREA)
        halo = cv2.GaussianBlur(small, (0, 0), color.shape[1] / 160)
        lens += np.float32(0.06) * cv2.resize(halo, (over.shape[1], over.shape[0]), interpolation=cv2.INTER_LINEAR)
    picture: U8 = _develop(
        np.ascontiguousarray(lens, np.float32), exposure.gain, rng.integers(1 << 63, dtype=np.uint64), _TONE_CURVE, FULL_WELL
    )
    return picture


@compiled
def _develop(electrons: F32, gain: float, seed: np.uint64, curve: U8, full_well: float) -> U8:
    height, width, _ = electrons.shape
    picture = np.empty((height, width, 3), np.uint8)
    state = seed
    to_curve = np.float32(2048.0 * gain / full_well)
    for i in range(height):
        for j in range(width):
            x, y = 2.0 * j / width - 1.0, 2.0 * i / height - 1.0
            vignette = np.float32(1.0 / (1.0 + 0.16 * (x * x + y * y)) ** 2)  # cos^4 of the angle off axis, nearly
            for c in range(3):
                # Knuth's linear congruential generator (MMIX); the sum of four numbers of 12 bits is nearly normal.
                state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
                total = ((state >> np.uint64(52)) & np.uint64(4095)) + ((state >> np.uint64(40)) & np.uint64(4095))
                total += ((state >> np.uint64(28)) & np.uint64(4095)) + ((state >> np.uint64(16)) & np.uint64(4095))
                noise = (np.float32(total) - np.float32(8190.0)) * np.float32(1.7320508 / 4096.0)
                count = electrons[i, j, c] * vignette
                read = np.float32(9.0)  # READ_NOISE squared
                level = (count + noise * np.sqrt(count + read)) * to_curve
                picture[i, j, c] = curve[min(max(int(level), 0), len(curve) - 1)]
    return picture


# --------------------------------------------------------------------------------------------------------------------
# Rain between the camera and the world


def add_streaks(radiance: F32, rng: np.random.Generator, amount: float, bright: float, open_s: float) -> None:
    """Draw falling drops into radiance (H, W, 3) or (H, W), as the streaks that they are while the shutter is open.

    ``bright`` is the radiance of the sky that they show; ``amount`` 0 to 1.
    """
    height, width = radiance.shape[:2]
    count = int(rng.poisson(amount * 0.0022 * height * width))
    drops = rng.random((count, 4))
    near = 1.0 / (0.06 + 0.94 * drops[:, 3])  # few are near, large and fast
    length = np.clip(7.0 * open_s * near * height * 0.35, 2, 0.25 * height)
    layer = np.zeros((height, width), np.float32)
    slant = 0.12 * (drops[:, 0] - 0.5) + 0.06
    for n in range(count):
        x, y = drops[n, 0] * width, drops[n, 1] * height
        end = (int(x + slant[n] * length[n]), int(y + length[n]))
        cv2.line(layer, (int(x), int(y)), end, float(min(0.05 + 0.02 * near[n], 0.4)), 1 if near[n] < 6 else 2)  # noqa: PLR2004
    soft: F32 = cv2.GaussianBlur(layer, (0, 0), 0.6).astype(np.float32, copy=False)
    weight = soft if radiance.ndim == 2 else soft[..., None]  # noqa: PLR2004 - grey or colour
    radiance += weight * (np.float32(1.25 * bright) - radiance)


def add_lens_drops(color: F32, rng: np.random.Generator) -> None:
    """Put drops of water on the lens: discs through which the picture (H, W, 3) is seen upside down and blurred."""
    height, width = color.shape[:2]
    soft = cv2.GaussianBlur(color, (0, 0), width / 80)
    for _ in range(int(rng.integers(5, 13))):
        radius = float(rng.uniform(0.008, 0.028)) * width
        x, y = float(rng.uniform(0, width)), float(rng.uniform(0, height))
        left, right = max(int(x - radius), 0), min(int(x + radius) + 1, width)
        top, bottom = max(int(y - radius), 0), min(int(y + radius) + 1, height)
        if right <= left or bottom <= top:
            continue
        rows, columns = np.mgrid[top:bottom, left:right]
        inside = np.clip(1.4 * (1 - np.hypot(rows - y, columns - x) / radius), 0, 0.85)[..., None].astype(np.float32)
        turned = soft[top:bottom, left:right][::-1, ::-1]
        color[top:bottom, left:right] += inside * (turned - color[top:bottom, left:right])

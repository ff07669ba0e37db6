"""The event camera: change events from brightness, and their EVT3 encoding.

A pixel remembers the logarithm of the brightness at its last event and reports when the present one has moved away from it
by its threshold, as often as it did so (Gehrig et al., ESIM, CoRL 2018, without its adaptive sampling). Between two rendered
images the logarithm is taken to change linearly, which gives events times in between.

In the dark the photoreceptor is slow (its bandwidth grows with the light, Lichtsteiner et al., 2008) and its shot noise
crosses the threshold by itself, so moving edges give fewer and later events among more false ones.

Approximations: a first-order photoreceptor, no queue at the read-out; what is faster than the interval between two images
is not seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gemini_core.simulation.compiling import compiled
from gemini_core.types import F32, I64, U8, U16

THRESHOLD = 0.28
THRESHOLD_SPREAD = 0.03
REFRACTORY_US = 300
READOUT_US = 10
"""The read-out visits the pixels this often; events get the time of the visit, so that many share one, as in real sensors."""
NOISE_HZ = 0.1
"""Background activity of a pixel in good light."""
SHOT_NOISE_HZ, SHOT_NOISE_LIGHT = 2.5, 6e-6
"""What shot noise adds in full darkness, and the radiance at which it adds half of that."""
BANDWIDTH_HZ, BANDWIDTH_LIGHT = 300.0, 1.5e-4
"""Bandwidth in good light, and the radiance at which it is half of that."""
_DARK_CURRENT = 3e-7
"""Radiance that the pixel's dark current is like; 1 is a white sheet in 100,000 lux."""

"""Sensor time is this many bits of microseconds, so it wraps every 16.8 s."""


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Events in the order of time: ``x`` and ``y`` (N,) uint16, ``polarity`` (N,) uint8 (1 brighter), ``time_us`` (N,) int64.

    ``end_us`` is the time up to which everything has been reported.
    """

    x: U16
    y: U16
    polarity: U8
    time_us: I64
    end_us: int


class EventSensor:
    """The pixels' memory. Times are microseconds of any clock, the same in every call."""

    def __init__(self, radiance: F32, time_us: int, rng: np.random.Generator) -> None:
        """Start with a first image (H, W) of radiance."""
        shape = radiance.shape
        self._rng = rng
        self._time_us = time_us
        self._log = _logarithm(radiance)
        up = rng.normal(THRESHOLD, THRESHOLD_SPREAD, shape).clip(0.1, 0.5)
        down = rng.normal(THRESHOLD, THRESHOLD_SPREAD, shape).clip(0.1, 0.5)
        self._thresholds = np.stack([up, down], axis=-1).astype(np.float32)
        # As if it had been watching before: the memory is anywhere within the thresholds.
        self._memory = self._log + ((rng.random(shape) - 0.5) * THRESHOLD).astype(np.float32)
        self._last_us = np.full(shape, time_us - REFRACTORY_US, np.int64)

    def see(self, radiance: F32, time_us: int) -> Events:
        """Report the events since the last image, given the image (H, W) at ``time_us``; times are in (last, time_us]."""
        passed_s = (time_us - self._time_us) * 1e-6
        bandwidth = np.float32(BANDWIDTH_HZ) * radiance / (radiance + np.float32(BANDWIDTH_LIGHT)) + np.float32(1.0)
        follows = 1.0 - np.exp(np.float32(-2 * np.pi * passed_s) * bandwidth)
        log = (self._log + follows * (_logarithm(radiance) - self._log)).astype(np.float32, copy=False)
        x, y, polarity, times = _cross(
            self._log, log, self._memory, self._last_us, self._thresholds, self._time_us, time_us, REFRACTORY_US
        )
        noise_hz = NOISE_HZ + np.float32(SHOT_NOISE_HZ * SHOT_NOISE_LIGHT) / (radiance + np.float32(SHOT_NOISE_LIGHT))
        rows, columns = np.nonzero(self._rng.random(log.shape, dtype=np.float32) < noise_hz * np.float32(passed_s))
        count = len(rows)
        x = np.concatenate([x, columns.astype(np.uint16)])
        y = np.concatenate([y, rows.astype(np.uint16)])
        polarity = np.concatenate([polarity, self._rng.integers(0, 2, count, np.uint8)])
        times = np.concatenate([times, self._rng.integers(self._time_us + 1, time_us + 1, count)])
        order = _order(times, self._time_us + 1, time_us)
        self._log, self._time_us = log, time_us
        return Events(x[order], y[order], polarity[order], times[order], time_us)


def _logarithm(radiance: F32) -> F32:
    """Natural logarithm, with a floor for the pixel's dark current."""
    logarithm: F32 = np.log(radiance + np.float32(_DARK_CURRENT))
    return logarithm


@compiled
def _cross(  # noqa: PLR0917 - compiled functions take arrays one by one
    before: F32, after: F32, memory: F32, last_us: I64, thresholds: F32, start_us: int, end_us: int, refractory_us: int
) -> tuple[U16, U16, U8, I64]:
    """Events pixel by pixel; updates ``memory`` and ``last_us``. In the refractory time a crossing is forgotten."""
    height, width = before.shape
    count = 0
    for i in range(height):
        for j in range(width):
            away = after[i, j] - memory[i, j]
            if away >= thresholds[i, j, 0]:
                count += int(away / thresholds[i, j, 0])
            elif -away >= thresholds[i, j, 1]:
                count += int(-away / thresholds[i, j, 1])
    # One more per pixel could come of rounding; they are few, so the room is cheap.
    room = count + height * width // 4
    xs, ys = np.empty(room, np.uint16), np.empty(room, np.uint16)
    polarities, times = np.empty(room, np.uint8), np.empty(room, np.int64)
    n = 0
    span = end_us - start_us
    for i in range(height):
        for j in range(width):
            level = memory[i, j]
            away = after[i, j] - level
            brighter = away >= thresholds[i, j, 0]
            if not brighter and -away < thresholds[i, j, 1]:
                continue
            step = thresholds[i, j, 0] if brighter else -thresholds[i, j, 1]
            slope = after[i, j] - before[i, j]
            while away / step >= 1.0 and n < room:
                level += step
                away = after[i, j] - level
                share = min(max((level - before[i, j]) / slope, 0.0), 1.0) if slope * step > 0 else 0.0
                time = min(start_us + max(int(np.ceil(share * span / READOUT_US)), 1) * READOUT_US, end_us)
                if time - last_us[i, j] >= refractory_us:
                    xs[n], ys[n], polarities[n], times[n] = j, i, 1 if brighter else 0, time
                    last_us[i, j] = time
                    n += 1
            memory[i, j] = level
    return xs[:n], ys[:n], polarities[:n], times[:n]


@compiled
def _order(times: I64, first: int, last: int) -> I64:
    """What sorts times within first to last, equal ones staying in order; by counting, since there are few distinct ones."""
    start = np.zeros(last - first + 2, np.int64)
    for time in times:
        start[time - first + 1] += 1
    start = np.cumsum(start)
    order = np.empty(len(times), np.int64)
    for n in range(len(times)):
        order[start[times[n] - first]] = n
        start[times[n] - first] += 1
    return order


# --------------------------------------------------------------------------------------------------------------------
# EVT3: 16-bit words, the code in bits 15 to 12 (Prophesee's public description of the format)

_ADDR_Y, _ADDR_X, _VECT_BASE_X, _VECT_12, _TIME_LOW, _TIME_HIGH = 0x0000, 0x2000, 0x3000, 0x4000, 0x6000, 0x8000
_VECTOR = 12
_WORTH_A_VECTOR = 3
"""Two words say what this many ADDR_X words would."""


def encode_evt3(events: Events, offset_us: int) -> bytes:
    """Encode events as EVT3 words, little-endian; sensor time is ``time_us - offset_us``, of which 24 bits are kept.

    The first two words are the time of the first event, or of the end where there is none; the last ones are the end's, so
    that a reader knows that time has passed even when nothing happened.
    """
    words = _encode(events.x, events.y, events.polarity, events.time_us - offset_us, events.end_us - offset_us)
    return words.astype("<u2").tobytes()


@compiled
def _encode(x: U16, y: U16, polarity: U8, time: I64, end: int) -> U16:
    words = np.empty(4 * len(x) + 4, np.uint16)  # at most TIME_HIGH, TIME_LOW, ADDR_Y and ADDR_X an event
    n = 0
    high, low, row = -1, -1, -1
    k = 0
    while k <= len(x):
        now = time[k] if k < len(x) else end
        if (now >> 12) & 0xFFF != high:
            high, low = (now >> 12) & 0xFFF, -1
            words[n] = _TIME_HIGH | high
            n += 1
        if now & 0xFFF != low:
            low = now & 0xFFF
            words[n] = _TIME_LOW | low
            n += 1
        if k == len(x):
            break
        if y[k] != row:
            row = y[k]
            words[n] = _ADDR_Y | row
            n += 1
        # Events of one moment, row and polarity, left to right within twelve pixels, fit one vector.
        mask, stop = 1, k + 1
        while (
            stop < len(x)
            and time[stop] == now
            and y[stop] == row
            and polarity[stop] == polarity[k]
            and x[stop - 1] < x[stop] < x[k] + _VECTOR
        ):
            mask |= 1 << (x[stop] - x[k])
            stop += 1
        sign = int(polarity[k]) << 11
        if stop - k >= _WORTH_A_VECTOR:
            words[n], words[n + 1] = _VECT_BASE_X | sign | x[k], _VECT_12 | mask
            n, k = n + 2, stop
        else:
            words[n] = _ADDR_X | sign | x[k]
            n, k = n + 1, k + 1
    used: U16 = words[:n].copy()
    return used

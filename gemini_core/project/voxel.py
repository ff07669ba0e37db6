"""Events as a voxel grid that is bilinear in time (Zhu et al., "Unsupervised Event-based Learning of Optical Flow", CVPR 2019).

With B = 3 bins, the channels that networks take, and the times t0 of the first and tN of the last event, an event of polarity p
(1 or 0) at time t adds ``(2 p - 1) max(0, 1 - |b - t*|)`` to bin b of its pixel, where ``t* = (B - 1) (t - t0) / (tN - t0)``,
and 0 where tN = t0. So bin 0 is the oldest moment, and each event adds its sign to its pixel, shared out between the two bins next to it. t0 and tN
belong to the events, not to the window: a window by count is as long as its events.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gemini_core.compiling import compiled
from gemini_core.types import F32, I64, U8, U16, Bool, EventWindow

_I32: TypeAlias = npt.NDArray[np.int32]

BINS = 3


def voxels_of(window: EventWindow, width: int, height: int) -> F32:
    """Count the window's events, signed, in bins of time on a sensor's pixels; events outside of it are left out.

    Returns:
        (BINS, height, width) float32.
    """
    voxels = np.zeros((BINS, height, width), np.float32)
    if window.time_ns.size:
        _count(
            np.ascontiguousarray(window.x),
            np.ascontiguousarray(window.y),
            np.ascontiguousarray(window.polarity),
            np.ascontiguousarray(window.time_ns),
            width,
            voxels.reshape(BINS, -1),
        )
    return voxels


def voxels_on_grid(voxels: F32, grid_from_event: _I32, event_from_grid: _I32, limit: float) -> tuple[F32, Bool]:
    """Bring a voxel grid of the sensor to the network's, and scale it.

    Where sensor pixels fall on a grid pixel, it holds their sum; where none does, since the sensor is coarser, what the sensor
    pixel there holds. V becomes ``(clip(V / limit, -1, 1) + 1) / 2`` in the sensor's view and 0 outside of it.

    Args:
        voxels: (BINS, H * W).
        grid_from_event: (H * W,) flat grid pixel of each sensor pixel, -1 outside.
        event_from_grid: (h * w,) flat sensor pixel of each grid pixel, -1 outside.
        limit: signed events that become 1.

    Returns:
        channels (BINS, h * w) float32 in [0, 1], valid (h * w,) bool.
    """
    channels = np.zeros((BINS, event_from_grid.size), np.float32)
    valid = np.empty(event_from_grid.size, np.bool_)
    _place(voxels, grid_from_event, event_from_grid, np.float32(1.0 / limit), channels, valid)
    return channels, valid


_U8_IN, _U16_IN, _I32_IN, _I64_IN = (  # these also take arrays that may be written to
    f"Array({kind}, 1, 'C', readonly=True, aligned=False)" for kind in ("uint8", "uint16", "int32", "int64")
)


@compiled(f"void({_U16_IN}, {_U16_IN}, {_U8_IN}, {_I64_IN}, int64, float32[:,::1])")
def _count(x: U16, y: U16, polarity: U8, time_ns: I64, width: int, voxels: F32) -> None:  # noqa: PLR0917 - by position
    pixels = np.int64(voxels.shape[1])
    flat = voxels.reshape(-1)
    first, last = time_ns[0], time_ns[0]
    for time in time_ns:
        first, last = min(first, time), max(last, time)
    per_ns = np.float64(BINS - 1) / np.float64(last - first) if last > first else 0.0
    for i in range(x.shape[0]):
        pixel = np.int64(y[i]) * width + np.int64(x[i])
        if np.int64(x[i]) >= width or pixel >= pixels:
            continue
        t = np.float32((time_ns[i] - first) * per_ns)
        low = min(np.int64(t), BINS - 2)  # the bin below the last one takes t* = B - 1, too
        share = t - np.float32(low)
        sign = np.float32(1.0) if polarity[i] else np.float32(-1.0)
        place = np.uint64(low * pixels + pixel)
        flat[place] += sign * (np.float32(1.0) - share)
        flat[place + np.uint64(pixels)] += sign * share


@compiled(
    f"void(Array(float32, 2, 'C', readonly=True), {_I32_IN}, {_I32_IN}, float32, float32[:,::1], b1[::1])",
)
def _place(  # noqa: PLR0917 - compiled functions take arguments by position
    voxels: F32, grid_from_event: _I32, event_from_grid: _I32, per_event: float, channels: F32, valid: Bool
) -> None:
    """Bring each bin to the grid (channels are zero before); ``valid`` first says where sensor pixels fall."""
    valid[:] = False
    for target in grid_from_event:
        if target >= 0:
            valid[target] = True
    for b in range(BINS):
        for pixel in range(grid_from_event.shape[0]):
            target = grid_from_event[pixel]
            if target >= 0:
                channels[b, target] += voxels[b, pixel]
        for i in range(event_from_grid.shape[0]):
            source = event_from_grid[i]
            if source < 0:
                channels[b, i] = np.float32(0.0)
                continue
            value = per_event * (channels[b, i] if valid[i] else voxels[b, source])
            channels[b, i] = (min(max(value, np.float32(-1.0)), np.float32(1.0)) + np.float32(1.0)) * np.float32(0.5)
    for i in range(event_from_grid.shape[0]):
        valid[i] = event_from_grid[i] >= 0

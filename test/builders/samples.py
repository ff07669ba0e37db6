"""What decoders give and what a frame holds of one sensor, made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from gemini_core.types import CloudSample, EventSample, EventWindow


def cloud(
    points: ArrayLike,
    intensity: ArrayLike | None = None,
    time_ns: np.ndarray | None = None,
    *,
    ring: np.ndarray | None = None,
    stamp_ns: int | None = None,
) -> CloudSample:
    """A sweep of points (3, N) in metres; stamped with the first of their times, or 0, unless ``stamp_ns`` is given."""
    points = np.ascontiguousarray(points, np.float32)
    intensity = np.zeros(points.shape[1]) if intensity is None else intensity
    start, end = (stamp_ns or 0, stamp_ns or 0) if time_ns is None else (int(time_ns.min()), int(time_ns.max()))
    stamp_ns = start if stamp_ns is None else stamp_ns
    return CloudSample(stamp_ns, "lidar", points, np.asarray(intensity, np.float32), ring, time_ns, start, end)


def packet(
    time_ns: ArrayLike,
    x: ArrayLike,
    y: ArrayLike,
    *,
    stamp_ns: int | None = None,
    end_ns: int | None = None,
    size: tuple[int, int] = (64, 48),
) -> EventSample:
    """Brighter pixels (N,) of a sensor of a width and height, as one packet; from the first to the last unless it says so."""
    time_ns = np.asarray(time_ns, np.int64)
    stamp_ns, end_ns = int(time_ns[0]) if stamp_ns is None else stamp_ns, int(time_ns.max()) if end_ns is None else end_ns
    x, y = np.asarray(x, np.uint16), np.asarray(y, np.uint16)
    return EventSample(stamp_ns, "event", *size, x, y, np.ones(time_ns.size, np.uint8), time_ns, end_ns)


def window(
    x: Sequence[int],
    y: Sequence[int],
    polarity: Sequence[int],
    time_ns: ArrayLike | None = None,
    *,
    size: tuple[int, int] = (320, 240),
    span_ns: tuple[int, int] = (0, 1),
) -> EventWindow:
    """The events (N,) of a sensor of a width and height that a frame holds; without times, all are at 0."""
    time_ns = np.zeros(len(x)) if time_ns is None else time_ns
    columns, rows, signs = np.array(x, np.uint16), np.array(y, np.uint16), np.array(polarity, np.uint8)
    return EventWindow(*span_ns, "event", *size, columns, rows, signs, np.asarray(time_ns, np.int64))

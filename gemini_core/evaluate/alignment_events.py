"""What events say besides edges: how the image moved, and so what a wrong clock or an unknown distance would look like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from gemini_core.evaluate.alignment_edges import event_counts
from gemini_core.types import F64, CameraModel, EventWindow

_SPAN_NS = 20_000_000
"""The end of the window that motion is measured in, in two halves."""

_LATEST_NS = (1_000_000, 10_000_000)
_BLUR_DEG = 0.25
"""Edges may move by this much during the events that are taken for one moment."""

_LEAST_RESPONSE = 0.05  # of the phase correlation's peak: noise has less
_FEWEST_EVENTS = 200
_ALIKE = 0.7  # mean of the motions over the mean of their sizes, from where on they count as one motion
_LIKELY_OFFSET_MS = 30.0  # clocks that are off by more are seen to be
_NEAR_M = 5.0  # of what fills most of a view; things that are nearer are few


@dataclass(frozen=True, slots=True)
class ApparentMotion:
    """How the image of the whole scene moved: degrees a second to the right and down, along the reference's axes."""

    right_deg_s: float
    down_deg_s: float

    @property
    def size_deg_s(self) -> float:
        """Degrees a second."""
        return math.hypot(self.right_deg_s, self.down_deg_s)


def apparent_motion(window: EventWindow, camera: CameraModel, reference_from_event: F64) -> ApparentMotion | None:
    """Measure the shift between the two halves of the window's last 20 ms; None where there is no clear one."""
    span_ns = min(_SPAN_NS, window.end_ns - window.start_ns)
    middle_ns = window.end_ns - span_ns // 2
    older = (window.time_ns >= window.end_ns - span_ns) & (window.time_ns < middle_ns)
    newer = window.time_ns >= middle_ns
    if min(np.count_nonzero(older), np.count_nonzero(newer)) < _FEWEST_EVENTS:
        return None
    before, after = (
        cv2.GaussianBlur(np.minimum(event_counts(window, which), np.float32(3)), (0, 0), 1.5) for which in (older, newer)
    )
    hann = cv2.createHanningWindow((window.width, window.height), cv2.CV_32F)
    (right_px, down_px), response = cv2.phaseCorrelate(before, after, hann)
    if response < _LEAST_RESPONSE:
        return None
    seconds = 0.5e-9 * span_ns
    shift = np.array([math.degrees(right_px / camera.fx), math.degrees(down_px / camera.fy), 0.0]) / seconds
    right, down, _ = (float(value) for value in reference_from_event[:3, :3] @ shift)
    return ApparentMotion(right, down)


def latest_ns(motion: ApparentMotion | None) -> int:
    """How much of the window's end can be taken for one moment: less, the faster the image moves."""
    shortest, longest = _LATEST_NS
    if motion is None or motion.size_deg_s == 0.0:
        return longest
    return int(min(max(1e9 * _BLUR_DEG / motion.size_deg_s, shortest), longest))


def parallax_deg(reference_from_event: F64, plane_m: float) -> F64:
    """Pitch, yaw and roll (3,), degrees, that the distance between the cameras can be taken for, as events have no depth.

    Things at z instead of on the plane shift by |t| |1 / z - 1 / plane| radians: for the farthest, and those at 5 m.
    """
    per_m = max(abs(1.0 / _NEAR_M - 1.0 / plane_m), 1.0 / plane_m)
    right_m, down_m = np.abs(reference_from_event[:2, 3])
    limits: F64 = np.degrees(np.array([down_m * per_m, right_m * per_m, 0.0]))
    return limits


def clock_offset_note(motions: Sequence[ApparentMotion], best_deg: F64, tolerance_deg: float) -> str:
    """Say which offset of the clocks would look like a rotation (3,), degrees; "" where none would."""
    if not motions:
        return ""
    each = np.array([(motion.right_deg_s, motion.down_deg_s) for motion in motions])
    mean = each.mean(axis=0)
    size = float(np.hypot(*mean))
    if size < _ALIKE * np.hypot(*each.T).mean() or size == 0.0:
        return ""
    # A turn by +yaw moves the image to the right, one by +pitch up.
    shift = np.array([best_deg[1], -best_deg[0]])
    along = float(shift @ mean) / size
    across = float(np.hypot(*(shift - along * mean / size)))
    offset_ms = 1e3 * along / size
    if max(across, abs(best_deg[2])) > tolerance_deg or abs(along) < tolerance_deg or abs(offset_ms) > _LIKELY_OFFSET_MS:
        return ""
    return (
        f"the image moved the same way in all frames, {size:.0f} degrees a second, so event stamps that are "
        f"{abs(offset_ms):.0f} ms too {'early' if offset_ms < 0 else 'late'} would look just like this; frames with other "
        "motion tell the two apart"
    )

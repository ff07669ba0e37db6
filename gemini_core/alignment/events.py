"""Events in the check: how far away they are, and how the image moved, since a wrong clock looks like a wrong rotation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from gemini_core.alignment.edges import EdgePoints, event_counts
from gemini_core.rig.geometry import project_points
from gemini_core.types import F64, AlignedGrids, CameraModel, EventWindow

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
_NOTHING = np.float32(1e6)  # metres: no reading
_AROUND_DEG = 0.75  # a reading this far away says how far an event is; two rings of most LiDARs fit into twice of it


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


def at_scene_depth(points: EdgePoints, grids: AlignedGrids) -> tuple[EdgePoints, float]:
    """Bring events from their plane to the distance that LiDAR or depth camera have there.

    Events are at outlines, which belong to what is in front, so the nearest reading around counts. Those without any stay on
    the plane.

    Returns:
        The points, and the share of them whose distance is known.
    """
    if grids.camera is None or not points.kind.size:
        return points, 0.0
    nearest = np.full((grids.geometry.height, grids.geometry.width), _NOTHING, np.float32)
    for grid in grids.grids:
        if grid.depth_m is not None:
            nearest = np.fmin(nearest, np.where(grid.valid, grid.depth_m, _NOTHING), dtype=np.float32)
    around = 2 * math.ceil(math.radians(_AROUND_DEG) * grids.camera.fx) + 1
    nearest = cv2.erode(nearest, np.ones((around, around), np.uint8)).astype(np.float32, copy=False)
    pixels, _, visible = project_points(grids.camera, points.arm + points.place)
    column, row = np.floor(np.where(visible, pixels, 0.0) + 0.5).astype(np.int64)
    depth = np.where(visible, nearest[row, column], _NOTHING)
    scale = (depth - points.place[2]) / points.arm[2]
    known = (depth < _NOTHING) & (scale > 0.0)
    arm = points.arm * np.where(known, scale, 1.0).astype(np.float32)
    return EdgePoints(arm, points.place, points.kind), float(known.mean())


def distance_m(points: EdgePoints) -> float:
    """Median distance along the reference's z."""
    return float(np.median(points.arm[2] + points.place[2]))


def parallax_deg(reference_from_event: F64, plane_m: float, near_m: float = _NEAR_M) -> F64:
    """Pitch, yaw and roll (3,), degrees, that the distance between the cameras can be taken for, as events have no depth.

    Things at z instead of on the plane shift by |t| |1 / z - 1 / plane| radians: for the farthest, and those at ``near_m``.
    """
    per_m = max(abs(1.0 / near_m - 1.0 / plane_m), 1.0 / plane_m)
    right_m, down_m = np.abs(reference_from_event[:2, 3])
    limits: F64 = np.degrees(np.array([down_m * per_m, right_m * per_m, 0.0]))
    return limits


def plane_note(reference_from_event: F64, plane_m: float, distances_m: Sequence[float], tolerance_deg: float) -> str:
    """Say where event.plane_m is far from what the events see, so that the aligned grid has them beside it; "" otherwise."""
    distance = float(np.median(distances_m))
    baseline_m = float(np.hypot(*reference_from_event[:2, 3]))
    off_deg = math.degrees(baseline_m * abs(1.0 / distance - 1.0 / plane_m))
    if off_deg < tolerance_deg:
        return ""
    return (
        f"event.plane_m is {plane_m:g} m, but what the events see is {distance:.1f} m away (median): aligned grids show them "
        f"{off_deg:.1f} degrees beside it"
    )


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

"""Verdicts: what a sensor's best rotation means (it fits, is off, or cannot be told), and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gemini_core.alignment.edges import EdgePoints, ImageEdges
from gemini_core.alignment.events import ApparentMotion, clock_offset_note, distance_m, parallax_deg, plane_note
from gemini_core.alignment.mount import Correction, Mounts, correct, in_sensor_frame
from gemini_core.alignment.search import Observation, RotationFit, search
from gemini_core.config.fusion import FusionConfig
from gemini_core.types import F64, Modality, SensorFrame

Verdict = Literal["fits", "off", "cannot tell"]

AXES = ("pitch", "yaw", "roll")
"""Rotations about the reference camera's x (right), y (down) and z (forward)."""

_FEWEST_POINTS, _FEWEST_PARTS = 150, 8
_LEAST_SCORE, _LEAST_CLEARNESS = 0.04, 3.0
_LEAST_GAIN_SHARE, _LEAST_SIGNIFICANCE = 0.12, 2.0
_SAME_ROTATION_DEG = 0.5
_MOSTLY = 0.5


@dataclass(frozen=True, slots=True)
class AxisFit:
    """One axis of the rotation that fits best, degrees, with the interval that 95 % of resampled data gave.

    ``tolerance_deg`` is what this axis is held against; ``verdict`` "fits" says that twice of it can be ruled out.
    """

    axis: str
    best_deg: float
    low_deg: float
    high_deg: float
    tolerance_deg: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Pair:
    """What was found of one sensor beside the reference camera; ``coverage`` is its share of the aligned grid's pixels.

    ``score`` is the mean closeness of ``points`` edge points to edges of the image, 0 for chance; ``best_score`` the same had
    the sensor been turned by ``axes``. ``rotation_deg`` is that rotation vector without the axes that cannot be told, and
    ``sensor_rotation_deg`` the same in the sensor's own frame. ``frames`` are those with this sensor; ``message`` and ``notes``
    are for people.
    """

    modality: Modality
    verdict: Verdict
    message: str
    frames: int
    sensor_frame: str = ""
    reference_frame: str = ""
    coverage: float | None = None
    points: int = 0
    score: float | None = None
    best_score: float | None = None
    axes: tuple[AxisFit, ...] = ()
    rotation_deg: tuple[float, float, float] | None = None
    sensor_rotation_deg: tuple[float, float, float] | None = None
    correction: Correction | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Such as "rgb-lidar"."""
        return f"rgb-{self.modality}"


@dataclass(frozen=True, slots=True)
class DepthAgreement:
    """Depth camera and LiDAR on the pixels that both have: median of |depth - lidar| / lidar, and the number of pixels."""

    median_share: float
    pixels: int


@dataclass(frozen=True, slots=True)
class AlignmentReport:
    """Everything that ``gemini-fusion check-alignment`` says; ``damage`` is "" or how the bag ends early."""

    path: str
    frames: int
    pairs: tuple[Pair, ...]
    depth_lidar: DepthAgreement | None
    notes: tuple[str, ...] = ()
    damage: str = ""

    @property
    def warned(self) -> bool:
        """Whether a sensor is off."""
        return any(pair.verdict == "off" for pair in self.pairs)


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """One sensor's outlines in one frame; ``reference_from_sensor`` (4, 4).

    ``placed`` is the share of the points whose distance is known, 1 for all but events; ``motion`` is that of the events.
    """

    frame: SensorFrame
    image: ImageEdges
    points: EdgePoints
    sensor_frame: str
    reference_from_sensor: F64
    placed: float = 1.0
    motion: ApparentMotion | None = None


def judge(modality: Modality, looks: Sequence[Look], config: FusionConfig, tolerance_deg: float, mounts: Mounts) -> Pair:
    """Search the rotation that fits a sensor's looks best and say what it means; the coverage is left out."""
    fit = search([Observation(look.points, look.image, int(2 * k >= len(looks))) for k, look in enumerate(looks)])
    first = looks[0]
    names = first.sensor_frame, first.frame.frame_id
    if fit is None or fit.points < _FEWEST_POINTS or fit.parts < _FEWEST_PARTS:
        points, parts = (0, 0) if fit is None else (fit.points, fit.parts)
        message = (
            f"too few outlines: {points} points in {parts} parts of the images from {len(looks)} frame(s), where it takes "
            f"{_FEWEST_POINTS} in {_FEWEST_PARTS}{_remedy(modality, looks)}"
        )
        return Pair(modality, "cannot tell", message, len(looks), *names, points=points)
    tolerances = np.full(3, tolerance_deg)
    if modality == "event":
        unplaced = 1.0 - float(np.mean([look.placed for look in looks]))
        tolerances += unplaced * parallax_deg(first.reference_from_sensor, config.event.plane_m)
    clear = fit.best_score >= _LEAST_SCORE and fit.clearness >= _LEAST_CLEARNESS
    better = fit.gain_share >= _LEAST_GAIN_SHARE and fit.significance >= _LEAST_SIGNIFICANCE
    axes = _axes(fit, tolerances, clear=clear, better=better)
    verdict, message = _verdict(fit, axes, len(looks), clear=clear)
    told = np.array([axis.best_deg if axis.verdict != "cannot tell" else 0.0 for axis in axes])
    own = in_sensor_frame(told, first.reference_from_sensor)
    off = verdict == "off"
    return Pair(
        modality,
        verdict,
        message,
        len(looks),
        *names,
        points=fit.points,
        score=fit.score,
        best_score=fit.best_score,
        axes=axes,
        rotation_deg=(float(told[0]), float(told[1]), float(told[2])),
        sensor_rotation_deg=(float(own[0]), float(own[1]), float(own[2])),
        correction=correct(mounts, first.sensor_frame, first.frame.frame_id, own) if off else None,
        notes=(
            *_plane_note(modality, looks, config, tolerance_deg),
            *(_doubts(modality, looks, fit, tolerance_deg) if off else ()),
        ),
    )


def _remedy(modality: Modality, looks: Sequence[Look]) -> str:
    if modality == "event":
        return "; events need motion, of the camera or before it"
    return "; one frame is little, a recording has more" if len(looks) == 1 else "; near things before far ones have outlines"


def _axes(fit: RotationFit, tolerances: F64, *, clear: bool, better: bool) -> tuple[AxisFit, ...]:
    """Judge each axis: off where the whole interval is beyond the tolerance, well where it is within twice the tolerance."""
    axes = []
    for axis, best, low, high, tolerance in zip(AXES, fit.best_deg, fit.low_deg, fit.high_deg, tolerances, strict=True):
        verdict: Verdict = "cannot tell"
        if clear and better and (low > tolerance or high < -tolerance):
            verdict = "off"
        elif clear and max(-low, high) < 2.0 * tolerance:
            verdict = "fits"
        axes.append(AxisFit(axis, float(best), float(low), float(high), float(tolerance), verdict))
    return tuple(axes)


def _verdict(fit: RotationFit, axes: Sequence[AxisFit], frames: int, *, clear: bool) -> tuple[Verdict, str]:
    off = [axis for axis in axes if axis.verdict == "off"]
    told = [axis.axis for axis in axes if axis.verdict == "fits"]
    untold = [axis.axis for axis in axes if axis.verdict == "cannot tell"]
    if off:
        which = " and ".join(f"{axis.best_deg:+.1f} degrees of {axis.axis}" for axis in off)
        border = ", the limit of the search, so perhaps by more" if fit.at_border else ""
        return "off", (
            f"turned by {which}{border}, it would fit clearly better: score {fit.best_score:.2f} instead of {fit.score:.2f} "
            f"over {frames} frame(s)"
        )
    if not clear:
        return "cannot tell", (
            f"its outlines match the image's edges hardly better than by chance, however it is turned (score "
            f"{fit.best_score:.2f})"
        )
    if not told:
        return "cannot tell", "which rotation fits best depends on the part of the images that is looked at"
    rest = f"; {' and '.join(untold)} cannot be told from these frames" if untold else ""
    return "fits", f"no clearly better rotation{rest}"


def _doubts(modality: Modality, looks: Sequence[Look], fit: RotationFit, tolerance_deg: float) -> tuple[str, ...]:
    """What else than the transform could look like this rotation."""
    notes = []
    if modality == "event":
        note = clock_offset_note([look.motion for look in looks if look.motion is not None], fit.best_deg, tolerance_deg)
        notes += [note] if note else []
    still = sum(
        status.modality == modality and status.motion == "no_odometry" for look in looks for status in look.frame.status
    )
    if still:
        notes.append(
            f"in {still} of {len(looks)} frame(s) it was taken as if nothing had moved (no odometry), and motion between the "
            "stamps can look like a rotation"
        )
    return tuple(notes)


def _plane_note(modality: Modality, looks: Sequence[Look], config: FusionConfig, tolerance_deg: float) -> tuple[str, ...]:
    distances = [distance_m(look.points) for look in looks if look.placed > _MOSTLY and look.points.kind.size]
    if modality != "event" or not distances:
        return ()
    note = plane_note(looks[0].reference_from_sensor, config.event.plane_m, distances, tolerance_deg)
    return (note,) if note else ()


def common_cause(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Name the reference camera where all sensors that are off are so by the same rotation."""
    off = [pair for pair in pairs if pair.verdict == "off"]
    if len(off) < 2 or any(pair.verdict == "fits" for pair in pairs):  # noqa: PLR2004 - one has nothing in common
        return ()
    for axes in zip(*(pair.axes for pair in off), strict=True):
        told = [axis.best_deg for axis in axes if axis.verdict != "cannot tell"]
        if told and max(told) - min(told) > _SAME_ROTATION_DEG:
            return ()
    names = " and ".join(pair.name for pair in off)
    camera = off[0].reference_frame
    return (
        f"{names} are off by the same rotation: it may be the transform of the reference camera, {camera!r}, that is wrong",
    )

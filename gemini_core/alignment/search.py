"""Rotation search: the small turn that brings a sensor's edges closest to the reference image's, and how sure it is.

The score of a rotation is the mean closeness of the sensor's edge points to image edges of their kind (``edges``); 0 is
chance. All rotations of a coarse grid are tried, then finer ones around the best and around none. Points are counted by the
part of the image and of the recording that they belong to; drawing these parts anew (bootstrap) and looking for the best
rotation again shows how far it hangs on some of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from gemini_core.alignment.edges import EdgePoints, ImageEdges
from gemini_core.rig.geometry import project_points, transform_points
from gemini_core.types import F32, F64, Bool

_Index: TypeAlias = npt.NDArray[np.int64]

SPAN_DEG = 2.0
_COARSE_DEG = np.array([0.5, 0.5, 1.0])  # turns about the line of sight move less of the image
_AROUND_DEG, _FINE_DEG, _FINEST_DEG = 0.5, 0.25, 0.125
_TILE_ROWS, _TILE_COLUMNS = 4, 6
_TILES = _TILE_ROWS * _TILE_COLUMNS
_TIMES = 2  # halves of the recording
_FEWEST_IN_PART = 8
_DRAWS = 200
_INTERVAL = (2.5, 97.5)  # percent of the draws


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """One frame's edges of one sensor and of the reference image; ``half`` of the recording that it is in, 0 or 1."""

    points: EdgePoints
    image: ImageEdges
    half: int


@dataclass(frozen=True, slots=True, eq=False)
class RotationFit:
    """What the search found.

    ``best_deg`` (3,) is the rotation vector, degrees about the reference camera's x (right), y (down) and z (forward), by which
    the sensor has to be turned about its own place to fit best; ``low_deg`` and ``high_deg`` (3,) the interval that 95 % of
    the draws lie in. ``score`` is that of the calibration as it is, ``best_score`` that of the best rotation,
    ``background`` the median over all rotations. ``clearness`` is the best score's height over the background, and
    ``significance`` its gain over the calibration as it is, both over their standard errors between the parts. ``points`` are
    the edge points that the reference camera sees, ``parts`` the parts with enough of them.
    """

    best_deg: F64
    low_deg: F64
    high_deg: F64
    score: float
    best_score: float
    background: float
    clearness: float
    significance: float
    points: int
    parts: int

    @property
    def gain_share(self) -> float:
        """How much of the best score's height over the background the calibration as it is lacks, 0 to about 1."""
        height = self.best_score - self.background
        return (self.best_score - self.score) / height if height > 0.0 else 0.0

    @property
    def at_border(self) -> bool:
        """Whether the best rotation may lie outside of what was searched."""
        return bool(np.abs(self.best_deg).max() > SPAN_DEG - _FINE_DEG)


def search(observations: Sequence[Observation], seed: int = 0) -> RotationFit | None:
    """Search rotations up to 2 degrees about each axis; None where no part of the image has enough points."""
    placed = [_Placed(observation) for observation in observations]
    counts = np.sum([each.counts for each in placed], axis=0)
    parts = np.flatnonzero(counts >= _FEWEST_IN_PART)
    if not parts.size:
        return None
    number = counts[parts].astype(np.float64)
    none = np.zeros(3)
    tried = [_grid(none, SPAN_DEG, _COARSE_DEG), _grid(none, _AROUND_DEG, _FINE_DEG)]
    sums = [_scores(placed, rotations, parts) for rotations in tried]
    background = float(np.median(sums[0].sum(axis=1)) / number.sum())
    best = tried[0][int(sums[0].sum(axis=1).argmax())]
    for half_deg, step_deg in ((_AROUND_DEG, _FINE_DEG), (_FINE_DEG, _FINEST_DEG)):
        rotations = _grid(best, half_deg, step_deg)
        tried.append(rotations)
        sums.append(_scores(placed, rotations, parts))
        best = rotations[int(sums[-1].sum(axis=1).argmax())]
    # The smallest rotation first, so that it wins where two are equally good.
    rotations, all_sums = np.concatenate(tried), np.concatenate(sums)
    order = np.argsort(np.linalg.norm(rotations, axis=1), kind="stable")
    rotations, all_sums = rotations[order], all_sums[order]  # the first one is no rotation
    winner = int(all_sums.sum(axis=1).argmax())
    draws = np.random.default_rng(seed).multinomial(parts.size, np.full(parts.size, 1.0 / parts.size), size=_DRAWS)
    drawn = rotations[(all_sums @ draws.T).argmax(axis=0)]  # (draws, 3)
    low, high = np.percentile(drawn, _INTERVAL, axis=0)
    return RotationFit(
        best_deg=rotations[winner],
        low_deg=low,
        high_deg=high,
        score=float(all_sums[0].sum() / number.sum()),
        best_score=float(all_sums[winner].sum() / number.sum()),
        background=background,
        clearness=_over_error(all_sums[winner] - background * number, number),
        significance=_over_error(all_sums[winner] - all_sums[0], number),
        points=int(number.sum()),
        parts=int(parts.size),
    )


def seen_from(image: ImageEdges, points: EdgePoints, turn: F64) -> tuple[F32, Bool]:
    """Where the camera sees the edge points of a sensor turned (4, 4) about its own place: pixels (2, N), visible (N,)."""
    pixels, _, visible = project_points(image.camera, transform_points(turn, points.arm) + points.place)
    return pixels, visible


def _over_error(sums: F64, number: F64) -> float:
    """Divide a total by its standard error, from how much the means of its parts differ; 0 where they do not."""
    error = float(np.sqrt(np.square(sums - number * sums.sum() / number.sum()).sum()))
    return float(sums.sum()) / error if error > 0.0 else 0.0


class _Placed:
    """An observation whose points are counted by the part that they are in when nothing is turned."""

    def __init__(self, observation: Observation) -> None:
        self._image, points = observation.image, observation.points
        pixels, visible = seen_from(self._image, points, np.eye(4))
        kept = np.flatnonzero(visible)
        self._points = EdgePoints(
            np.ascontiguousarray(points.arm[:, kept]), np.ascontiguousarray(points.place[:, kept]), points.kind[kept]
        )
        camera = self._image.camera
        column = np.clip((pixels[0, kept] + 0.5) * _TILE_COLUMNS / camera.width, 0, _TILE_COLUMNS - 1).astype(np.int64)
        row = np.clip((pixels[1, kept] + 0.5) * _TILE_ROWS / camera.height, 0, _TILE_ROWS - 1).astype(np.int64)
        self._part: _Index = observation.half * _TILES + row * _TILE_COLUMNS + column
        self.counts: _Index = np.bincount(self._part, minlength=_TIMES * _TILES)

    def sums(self, turn: F64) -> F64:
        """Closeness by part when turned (4, 4); a point that leaves the image has that of chance."""
        pixels, visible = seen_from(self._image, self._points, turn)
        column, row = np.floor(np.where(visible, pixels, 0.0) + 0.5).astype(np.int64)
        closeness = np.where(visible, self._image.closeness[self._points.kind, row, column], 0.0)
        return np.bincount(self._part, closeness, minlength=_TIMES * _TILES).astype(np.float64, copy=False)


def _grid(center: F64, half_deg: float, step_deg: float | F64) -> F64:
    """Rotation vectors (N, 3) around one, none beyond the span; ``step_deg`` may be one for each axis."""
    axes = [np.arange(-round(half_deg / step), round(half_deg / step) + 1) * step for step in np.broadcast_to(step_deg, 3)]
    rotations: F64 = center + np.array(list(itertools.product(*axes)))
    within: F64 = rotations[np.abs(rotations).max(axis=1) <= SPAN_DEG]
    return within


def _scores(placed: Sequence[_Placed], rotations: F64, parts: _Index) -> F64:
    """Sums of closeness, (rotations, parts)."""
    turns = np.tile(np.eye(4), (len(rotations), 1, 1))
    turns[:, :3, :3] = Rotation.from_rotvec(rotations, degrees=True).as_matrix()
    return np.stack([np.sum([each.sums(turn) for each in placed], axis=0)[parts] for turn in turns])

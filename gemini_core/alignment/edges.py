"""Edges that two sensors should share: outlines in depth, LiDAR and events, and the edges of the reference image.

Range jumps against image edges: Levinson and Thrun, "Automatic Online Calibration of Cameras and Lasers", RSS 2013. Theirs
are jumps within a ring; here also those between rings, and each is compared with image edges of its own direction only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from gemini_core.config.sections import GridConfig
from gemini_core.project.deskew import deskew_points
from gemini_core.project.grid import grid_camera, grid_geometry
from gemini_core.rig.geometry import ray_table, transform_points
from gemini_core.types import F32, F64, U8, U16, Bool, CameraModel, CloudSample, DepthSample, EventWindow, SweepMotion

_Index: TypeAlias = npt.NDArray[np.int64]

WORK_FOCAL_PX = 640.0
"""Images are shrunk to at most this focal length: 11 pixels a degree."""

UPRIGHT, LEVEL = 0, 1
"""Kinds of edges: those that one crosses going sideways, and those that one crosses going up or down."""

_NEIGHBOUR_STEPS = ((0, 1, UPRIGHT), (0, -1, UPRIGHT), (1, 0, LEVEL), (-1, 0, LEVEL))  # rows, columns
_SMALLEST_JUMP_M, _SMALLEST_JUMP_SHARE = 0.4, 0.07
_FARTHEST_M = 60.0

# A surface at distance D from the sensor, however slanted, changes 1 / range by at most 1 / D for each radian. What changes
# faster is an outline, unless it is closer than this to the sensor's centre.
_CLOSEST_SURFACE_M = 0.5

_CELL = math.radians(0.1)  # columns of the range image
_ROW = math.radians(0.2)  # its rows, where the cloud does not say which ring a point is of
_MOST_SIDEWAYS, _MOST_UPWARDS = math.radians(0.7), math.radians(1.6)  # neighbours farther apart hide what is between them
_HALF_VIEW = math.radians(80.0)

_EDGE_STRENGTHS = (1.0, 2.0, 3.5)  # gradients over their mean around
_FAINTEST = 2.0  # grey levels a pixel that an edge has at least
_EVENT_STEPS = 3  # events of a pixel beyond this many say nothing more


@dataclass(frozen=True, slots=True, eq=False)
class EdgePoints:
    """Outlines that one sensor saw, where the reference camera has them.

    ``arm`` (3, N) float32 from the sensor's place to the point, along the reference's axes, metres; ``place`` (3, N) float32
    where the sensor was then, in the reference's frame; ``kind`` (N,) UPRIGHT or LEVEL. So the point is ``place + arm``, and
    were the sensor turned by R, ``place + R @ arm``.
    """

    arm: F32
    place: F32
    kind: _Index

    def thinned(self, most: int, rng: np.random.Generator) -> EdgePoints:
        """At most so many of the points, drawn at random."""
        if self.kind.size <= most:
            return self
        drawn = np.sort(rng.choice(self.kind.size, most, replace=False))
        return EdgePoints(self.arm[:, drawn], self.place[:, drawn], self.kind[drawn])


@dataclass(frozen=True, slots=True, eq=False)
class ImageEdges:
    """Edges of the reference image in its working size.

    ``grey`` (h, w) float32; ``camera`` the reference camera at that size; ``closeness`` (2, h, w) float32 by kind of edge: 1 on
    a clear edge, falling with the distance to the nearest, less its mean around, so that 0 is what a pixel has by chance.
    """

    grey: F32
    camera: CameraModel
    closeness: F32


# --------------------------------------------------------------------------------------------------------------------
# The image


def image_edges(pixels: U8, camera: CameraModel, blur_deg: float) -> ImageEdges:
    """Find the edges of an image (H, W, 3); ``blur_deg`` is how far from an edge its closeness has fallen to 0.6."""
    scale = min(1.0, WORK_FOCAL_PX / max(camera.fx, camera.fy))
    size = GridConfig(max(32, round(camera.height * scale)), max(32, round(camera.width * scale)), "stretch")
    camera = grid_camera(camera, grid_geometry(size, camera.width, camera.height))
    whole = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    grey: F32 = cv2.resize(whole, (camera.width, camera.height), interpolation=cv2.INTER_AREA).astype(np.float32, copy=False)
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    across, down = (cv2.Scharr(smooth, cv2.CV_32F, *axis) / 32 for axis in ((1, 0), (0, 1)))  # grey levels a pixel
    strength = np.hypot(across, down)
    # Against the mean around, so that outlines in the shade count as much as those in the sun.
    relative = strength / (cv2.GaussianBlur(strength, (0, 0), 0.05 * camera.fx) + 1.0)
    thin = _ridges(strength, np.abs(across) >= np.abs(down)) & (2 * strength > _FAINTEST)
    directions = (2 * np.abs(across) >= np.abs(down), 2 * np.abs(down) >= np.abs(across))
    reach_px = math.radians(blur_deg) * camera.fx
    around = (int(0.08 * camera.fx) | 1,) * 2
    closeness = np.zeros((2, *grey.shape), np.float32)
    for kind, direction in enumerate(directions):
        for least in _EDGE_STRENGTHS:
            closeness[kind] += _falling(thin & direction & (relative > least), reach_px) / len(_EDGE_STRENGTHS)
        closeness[kind] -= cv2.blur(closeness[kind], around)
    return ImageEdges(grey, camera, closeness)


def _ridges(strength: F32, sideways: Bool) -> Bool:
    """Where the gradient is largest along its own main direction."""
    across = (strength >= np.roll(strength, 1, 1)) & (strength > np.roll(strength, -1, 1))
    down = (strength >= np.roll(strength, 1, 0)) & (strength > np.roll(strength, -1, 0))
    return np.where(sideways, across, down)


def _falling(edges: Bool, reach_px: float) -> F32:
    """1 on the edges, and less with the distance from them."""
    if not edges.any():
        return np.zeros(edges.shape, np.float32)
    distance = cv2.distanceTransform((~edges).astype(np.uint8), cv2.DIST_L2, 5)
    falling: F32 = np.exp(-0.5 * np.square(distance / np.float32(reach_px)))
    return falling


# --------------------------------------------------------------------------------------------------------------------
# The LiDAR


def lidar_edges(cloud: CloudSample, reference_from_lidar: F64, motion: SweepMotion | None) -> EdgePoints:
    """Find where a beam ends much nearer than its neighbour; the edge lies half-way between the two, at the nearer range.

    Neighbours are looked up in a range image with a row for each ring, or for each 0.2 degrees of elevation where the cloud
    does not name rings. So any order of the points will do.
    """
    arms = _turned(reference_from_lidar, cloud.points).astype(np.float64)
    ranges = np.linalg.norm(arms, axis=0)
    azimuth, elevation = np.arctan2(arms[0], arms[2]), np.arctan2(-arms[1], np.hypot(arms[0], arms[2]))
    seen = np.flatnonzero((np.abs(azimuth) < _HALF_VIEW) & (ranges > _CLOSEST_SURFACE_M))
    if not seen.size:
        return _no_edges()
    arms, ranges, azimuth, elevation = arms[:, seen], ranges[seen], azimuth[seen], elevation[seen]
    rows, reach = _rows(None if cloud.ring is None else cloud.ring[seen], elevation)
    columns = ((azimuth - azimuth.min()) / _CELL).astype(np.int64)
    table = np.full((rows.max() + 1, columns.max() + 1), -1, np.int64)
    by_range = np.argsort(-ranges, kind="stable")
    table[rows[by_range], columns[by_range]] = by_range  # the nearest stays
    found = []
    for row_step, column_step, kind in _NEIGHBOUR_STEPS:
        steps, widest = (math.ceil(_MOST_SIDEWAYS / _CELL), _MOST_SIDEWAYS) if kind == UPRIGHT else (reach, _MOST_UPWARDS)
        near, far = _neighbours(table, row_step, column_step, steps)
        between = np.einsum("ij,ij->j", arms[:, near], arms[:, far]) / (ranges[near] * ranges[far])
        angle = np.arccos(np.clip(between, -1.0, 1.0))
        edge = _is_edge(ranges[near], ranges[far], angle) & (angle < widest)
        found.append((near[edge], far[edge], kind))
    near, far = (np.concatenate([each[i] for each in found]) for i in (0, 1))
    kinds = np.concatenate([np.full(each[0].size, each[2]) for each in found])
    middle = arms[:, near] / ranges[near] + arms[:, far] / ranges[far]
    arm = (middle * ranges[near] / np.linalg.norm(middle, axis=0)).astype(np.float32)
    if motion is None or cloud.time_ns is None:
        return EdgePoints(arm, _places(reference_from_lidar, near.size), kinds)
    # The pose of the nearer point's time moves its edge, too.
    times = cloud.time_ns[seen[near]]
    place = deskew_points(np.zeros((3, near.size), np.float32), times, motion)
    own = np.ascontiguousarray(reference_from_lidar[:3, :3].T.astype(np.float32) @ arm)
    return EdgePoints(deskew_points(own, times, motion) - place, place, kinds)


def _rows(ring: U16 | None, elevation: F64) -> tuple[_Index, int]:
    """Rows of the range image, rising with the elevation, and how many of them a neighbour may be away."""
    if ring is None:
        return ((elevation - elevation.min()) / _ROW).astype(np.int64), math.ceil(_MOST_UPWARDS / _ROW)
    names, which = np.unique(ring, return_inverse=True)
    heights = np.bincount(which, elevation) / np.bincount(which)
    rank = np.empty(names.size, np.int64)
    rank[np.argsort(heights)] = np.arange(names.size)
    return rank[which], 2


def _neighbours(table: _Index, row_step: int, column_step: int, steps: int) -> tuple[_Index, _Index]:
    """Pairs of points: each one of the range image, and the next one in a direction within so many steps."""
    height, width = table.shape
    following = np.full(table.shape, -1, np.int64)
    for k in range(steps, 0, -1):
        rows, columns = row_step * k, column_step * k
        here = (_cut(-rows, height), _cut(-columns, width))
        there = table[_cut(rows, height), _cut(columns, width)]
        following[here] = np.where(there >= 0, there, following[here])
    both = (table >= 0) & (following >= 0)
    return table[both], following[both]


def _cut(shift: int, length: int) -> slice:
    return slice(min(max(shift, 0), length), max(length + min(shift, 0), 0))


def _is_edge(near_m: F64, far_m: F64, angle: F64) -> Bool:
    """Whether two neighbouring ranges, an angle apart, belong to two surfaces of which the first is the nearer one."""
    jump = far_m - near_m
    outline = 1.0 / near_m - 1.0 / far_m > angle / _CLOSEST_SURFACE_M
    edge: Bool = outline & (jump > np.maximum(_SMALLEST_JUMP_M, _SMALLEST_JUMP_SHARE * near_m)) & (near_m < _FARTHEST_M)
    return edge


# --------------------------------------------------------------------------------------------------------------------
# Depth camera and event camera


def depth_edges(sample: DepthSample, camera: CameraModel, reference_from_depth: F64) -> EdgePoints:
    """Find where a pixel is much nearer than the one beside it; the edge lies between the two, at the nearer depth."""
    finite = np.isfinite(sample.depth_m) & (sample.depth_m > 0)
    depth = np.where(finite, sample.depth_m, np.nan).astype(np.float64)
    rays = ray_table(camera).transpose(1, 2, 0).astype(np.float64)  # (3, H, W) -> (H, W, 3)
    height, width = depth.shape
    points, kinds = [], []
    for row_step, column_step, kind in _NEIGHBOUR_STEPS:
        here = (_cut(-row_step, height), _cut(-column_step, width))
        there = (_cut(row_step, height), _cut(column_step, width))
        near, far = depth[here], depth[there]
        edge = _is_edge(near, far, np.float64(1.0 / (camera.fx if kind == UPRIGHT else camera.fy)))  # NaN is none
        between = 0.5 * (rays[here][edge] + rays[there][edge])  # (N, 3)
        points.append(between * near[edge][:, None])
        kinds.append(np.full(int(edge.sum()), kind))
    own = np.concatenate(points).T.astype(np.float32)
    known = np.isfinite(own).all(axis=0)
    return _edge_points(reference_from_depth, own[:, known], np.concatenate(kinds)[known])


def event_edges(
    window: EventWindow, camera: CameraModel, reference_from_event: F64, plane_m: float, latest_ns: int
) -> EdgePoints:
    """Take the pixels that fired in the last ``latest_ns`` of the window, on the plane that events are taken to lie on."""
    latest = window.time_ns >= window.end_ns - latest_ns
    counts = event_counts(window, latest)
    smooth = cv2.GaussianBlur(np.minimum(counts, np.float32(_EVENT_STEPS)), (0, 0), 1.2)
    across, down = (cv2.Sobel(smooth, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1)))
    # Both sides of a line of events have their gradient across it: the mean of its square says how the line runs.
    across, down = (cv2.GaussianBlur(np.square(each), (0, 0), 2.0) for each in (across, down))
    alone = 0.15  # what one event without neighbours leaves of itself
    row, column = np.nonzero((counts > 0) & (smooth > alone))
    own = ray_table(camera)[:, row, column] * np.float32(plane_m)
    known = np.isfinite(own).all(axis=0)
    kinds = np.where(down > across, LEVEL, UPRIGHT)[row, column]
    return _edge_points(reference_from_event, own[:, known], kinds[known])


def event_counts(window: EventWindow, which: Bool) -> F32:
    """Events per pixel of the sensor, (height, width)."""
    inside = which & (window.x < window.width) & (window.y < window.height)
    flat = window.y[inside].astype(np.int64) * window.width + window.x[inside]
    counts = np.bincount(flat, minlength=window.width * window.height)
    return counts.reshape(window.height, window.width).astype(np.float32)


def _edge_points(reference_from_sensor: F64, own: F32, kinds: _Index) -> EdgePoints:
    return EdgePoints(_turned(reference_from_sensor, own), _places(reference_from_sensor, kinds.size), kinds)


def _turned(reference_from_sensor: F64, own: F32) -> F32:
    turn = np.eye(4)
    turn[:3, :3] = reference_from_sensor[:3, :3]
    return transform_points(turn, own)


def _places(reference_from_sensor: F64, count: int) -> F32:
    return np.repeat(reference_from_sensor[:3, 3:].astype(np.float32), count, axis=1)


def _no_edges() -> EdgePoints:
    return EdgePoints(np.empty((3, 0), np.float32), np.empty((3, 0), np.float32), np.empty(0, np.int64))

"""Oriented boxes as tensors: corners, points inside, exact IoU in BEV and in 3D, non-maximum suppression (NMS).

Boxes are (N, 7): x, y, z of the centre, length along the box's own x, width along its y, height (all metres), yaw (radians
about +z, counter-clockwise from +x), in a frame with x forward, y left, z up (REP 103).

A box is *real* when its seven numbers are finite and its three sizes above 0. Any other has no inside: it holds no point, its
IoU is 0 with every box (itself too), and suppression never keeps it.

Overlaps are exact, not sampled. Pairs whose circumscribed circles are apart are left out first; the others are worked out in
float64. Everything runs on the device of its tensors; suppression on a CPU is a compiled loop of its own, with the same result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from gemini_core.compiling import compiled
from gemini_core.errors import ShapeError
from gemini_core.types import F64, I64, Bool

BOX_SIZE = 7
"""x, y, z, length, width, height, yaw."""

_FRONT_LEFT_FIRST = ((0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5), (0.5, -0.5))  # shares of length and width, counter-clockwise
_PAIRS_AT_ONCE = 2**18  # of boxes with boxes or points: bounds the memory at some 200 MB where everything overlaps
_MARGIN = 1.0 + 1e-5  # on radii, above the rounding of float32
_NOTHING = 1e-12  # of two areas' sum: what of a shared area is above the rounding of its four terms
_TINY = 1e-300  # keeps 0 / 0 from being: any share of an edge without height will do

_Measure: TypeAlias = Callable[[Tensor, Tensor], Tensor]

# --------------------------------------------------------------------------------------------------------------------
# One box


def real_boxes(boxes: Tensor) -> Tensor:
    """Say which of (N, 7) boxes are real (finite, sizes above 0): (N,) bool."""
    boxes = _checked(boxes, "boxes")
    return boxes.isfinite().all(dim=1) & (boxes[:, 3:6] > 0).all(dim=1)


def corners_bev(boxes: Tensor) -> Tensor:
    """Give the corners in BEV: (N, 4, 2) x, y in metres; front left, rear left, rear right, front right."""
    boxes = _checked(boxes, "boxes")
    own = boxes.new_tensor(_FRONT_LEFT_FIRST) * boxes[:, None, 3:5]
    cos, sin = boxes[:, 6:7].cos(), boxes[:, 6:7].sin()
    turned = torch.stack([cos * own[..., 0] - sin * own[..., 1], sin * own[..., 0] + cos * own[..., 1]], dim=-1)
    return turned + boxes[:, None, :2]


def corners_3d(boxes: Tensor) -> Tensor:
    """Give the corners: (N, 8, 3) metres; the bottom four in the order of :func:`corners_bev`, then the top four."""
    flat = corners_bev(boxes).repeat(1, 2, 1)
    boxes = _checked(boxes, "boxes")
    up = boxes.new_tensor([-0.5] * 4 + [0.5] * 4) * boxes[:, None, 5]
    height = up.unsqueeze(-1) + boxes[:, None, 2:3]
    return torch.cat([flat, height.to(flat.dtype)], dim=-1)


def points_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """Say which points lie in which boxes, faces included: (N, P) bool, to the rounding of the points' type.

    Args:
        points: (P, 3) or more columns, x, y, z first (metres, the boxes' frame). NaN lies nowhere.
        boxes: (N, 7).

    Raises:
        ShapeError: not points of at least three or boxes of seven numbers.
    """
    boxes = _checked(boxes, "boxes")
    if points.ndim != 2 or points.shape[1] < 3:  # noqa: PLR2004 - x, y, z
        msg = f"points: expected (P, 3) or more columns, got {tuple(points.shape)}"
        raise ShapeError(msg)
    inside = torch.zeros(len(boxes), len(points), dtype=torch.bool, device=points.device)
    real = real_boxes(boxes)
    rows = max(1, _PAIRS_AT_ONCE // max(1, len(points)))
    for start in range(0, len(boxes), rows):
        some = boxes[start : start + rows]
        cos, sin = some[:, 6:7].cos(), some[:, 6:7].sin()
        x, y, z = (points[:, axis] - some[:, axis : axis + 1] for axis in range(3))
        half = some[:, 3:6, None].abs() / 2
        within = ((cos * x + sin * y).abs() <= half[:, 0]) & ((cos * y - sin * x).abs() <= half[:, 1]) & (z.abs() <= half[:, 2])
        inside[start : start + rows] = within & real[start : start + rows, None]
    return inside


# --------------------------------------------------------------------------------------------------------------------
# Overlap


def iou_bev(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (IoU) in BEV, of each of (N, 7) with each of (M, 7) boxes: (N, M), 0 to 1.

    Raises:
        ShapeError: not boxes of seven numbers.
    """
    return _pairwise(a, b, iou_bev_aligned)


def iou_3d(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of volumes, of each of (N, 7) with each of (M, 7) boxes: (N, M), 0 to 1.

    Raises:
        ShapeError: not boxes of seven numbers.
    """
    return _pairwise(a, b, iou_3d_aligned)


def iou_bev_aligned(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (IoU) in BEV, of (N, 7) with (N, 7) boxes row by row: (N,), 0 to 1.

    Raises:
        ShapeError: not boxes of seven numbers, or not as many.
    """
    a, b = _row_by_row(a, b)
    shared = _intersection_bev(a.double(), b.double())
    return _over_union(shared, _product(a, 2), _product(b, 2)).to(a.dtype)


def iou_3d_aligned(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of volumes, of (N, 7) with (N, 7) boxes row by row: (N,), 0 to 1.

    Raises:
        ShapeError: not boxes of seven numbers, or not as many.
    """
    a, b = _row_by_row(a, b)
    a64, b64 = a.double(), b.double()
    offset = b64[:, 2] - a64[:, 2]  # small numbers first: where boxes stand far up, nothing is lost
    top = torch.minimum(a64[:, 5] / 2, offset + b64[:, 5] / 2)
    bottom = torch.maximum(-a64[:, 5] / 2, offset - b64[:, 5] / 2)
    shared = _intersection_bev(a64, b64) * (top - bottom).clamp(min=0)
    return _over_union(shared, _product(a, 3), _product(b, 3)).to(a.dtype)


def _intersection_bev(a: Tensor, b: Tensor) -> Tensor:
    """Area that rectangles share, row by row: (P,) square metres, of (P, 7) float64 boxes.

    In b's own frame, b is |x| <= L/2, |y| <= W/2. By Green's theorem, the area of a's part in there is the sum over a's edges,
    counter-clockwise, of -∫ clamp(y, ±W/2) dx over where |x| <= L/2: straight lines with at most two bends, so each integral
    is width times mean. No vertices have to be found or ordered, so edges that touch or are equal are no special case.
    """
    half_length, half_width = b[:, 3:4] / 2, b[:, 4:5] / 2
    x, y = _corners_seen_from(a, b)
    width, rise = x.roll(-1, 1) - x, y.roll(-1, 1) - y
    start = torch.clamp(x, -half_length, half_length)
    end = torch.clamp(x + width, -half_length, half_length)
    safe_width = torch.where(width == 0, torch.ones_like(width), width)
    y_start, y_end = y + rise * ((start - x) / safe_width), y + rise * ((end - x) / safe_width)
    low, high = torch.minimum(y_start, y_end), torch.maximum(y_start, y_end)
    height = (high - low).clamp(min=_TINY)
    below = ((-half_width - low) / height).clamp(0, 1)
    not_above = ((half_width - low) / height).clamp(0, 1)
    middle = (torch.clamp(low, -half_width, half_width) + torch.clamp(high, -half_width, half_width)) / 2
    mean = middle * (not_above - below) + half_width * (1 - not_above - below)
    area = -(mean * (end - start)).sum(dim=1)
    area_a, area_b = a[:, 3] * a[:, 4], b[:, 3] * b[:, 4]
    return torch.where(area > _NOTHING * (area_a + area_b), torch.minimum(area, torch.minimum(area_a, area_b)), 0.0)


def _corners_seen_from(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Corners of a in b's own frame: x and y, each (P, 4), counter-clockwise."""
    cos, sin = b[:, 6].cos(), b[:, 6].sin()
    dx, dy = a[:, 0] - b[:, 0], a[:, 1] - b[:, 1]
    turn = a[:, 6] - b[:, 6]
    along, across = a[:, 3] / 2, a[:, 4] / 2
    ux, uy = turn.cos() * along, turn.sin() * along
    vx, vy = -turn.sin() * across, turn.cos() * across
    x = torch.stack([ux + vx, vx - ux, -ux - vx, ux - vx], dim=1) + (cos * dx + sin * dy)[:, None]
    y = torch.stack([uy + vy, vy - uy, -uy - vy, uy - vy], dim=1) + (cos * dy - sin * dx)[:, None]
    return x, y


def _over_union(shared: Tensor, a: Tensor, b: Tensor) -> Tensor:
    union = a + b - shared
    some = (a > 0) & (b > 0) & (union > 0)
    return torch.where(some, shared / torch.where(some, union, torch.ones_like(union)), torch.zeros_like(union))


def _product(boxes: Tensor, sizes: int) -> Tensor:
    """Area (two sizes) or volume (three) of each box, float64; 0 where it is not real."""
    size = boxes[:, 3 : 3 + sizes].double().prod(dim=1)
    return torch.where(real_boxes(boxes), size, torch.zeros_like(size))


def _pairwise(a: Tensor, b: Tensor, measure: _Measure) -> Tensor:
    a, b = _checked(a, "a"), _checked(b, "b")
    result = a.new_zeros(len(a), len(b))
    rows = max(1, _PAIRS_AT_ONCE // max(1, len(b)))
    for start in range(0, len(a), rows):
        i, j = _close(a[start : start + rows], b).nonzero(as_tuple=True)
        i = i + start
        result[i, j] = measure(a[i], b[j]).to(result.dtype)
    return result


def _close(a: Tensor, b: Tensor) -> Tensor:
    """Whether circles around (N, 7) and (M, 7) boxes meet: (N, M) bool; without it, real boxes share nothing."""
    radius_a, radius_b = (torch.hypot(each[:, 3], each[:, 4]) * (_MARGIN / 2) for each in (a, b))
    nowhere = a.new_tensor(math.nan)
    x_a, y_a = torch.where(real_boxes(a)[:, None], a[:, :2], nowhere).unbind(1)
    x_b, y_b = torch.where(real_boxes(b)[:, None], b[:, :2], nowhere).unbind(1)
    square = (x_a[:, None] - x_b).square_().add_((y_a[:, None] - y_b).square_())
    return square <= (radius_a[:, None] + radius_b).square_()


def _row_by_row(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    a, b = _checked(a, "a"), _checked(b, "b")
    if len(a) != len(b):
        msg = f"boxes: expected as many in a as in b, got {len(a)} and {len(b)}"
        raise ShapeError(msg)
    return a, b


def _checked(boxes: Tensor, name: str) -> Tensor:
    """Give the boxes in float32 at least."""
    if boxes.ndim != 2 or boxes.shape[1] != BOX_SIZE:  # noqa: PLR2004 - rows and columns
        msg = f"{name}: expected boxes (N, {BOX_SIZE}) x y z length width height yaw, got {tuple(boxes.shape)}"
        raise ShapeError(msg)
    return boxes.to(torch.promote_types(boxes.dtype, torch.float32))


# --------------------------------------------------------------------------------------------------------------------
# Non-maximum suppression


def nms(boxes: Tensor, scores: Tensor, max_iou: float, classes: Tensor | None = None) -> Tensor:
    """Non-maximum suppression (NMS) of boxes by their BEV IoU; (K,) int64 indices, the best first.

    From the highest score on (of equal ones, from the lowest index on), a box is kept unless its BEV IoU with one
    kept before is above ``max_iou``. Boxes that are not real, or whose score is not finite, are not kept.

    Args:
        boxes: (N, 7).
        scores: (N,).
        max_iou: 0 to 1.
        classes: (N,) integers; boxes of different classes do not suppress each other. None: all do.

    Raises:
        ShapeError: not boxes of seven numbers, or not as many scores or classes.
    """
    boxes = _checked(boxes.detach(), "boxes")
    for name, each in (("scores", scores), ("classes", classes)):
        if each is not None and each.shape != boxes.shape[:1]:
            msg = f"{name}: expected one per box ({len(boxes)},), got {tuple(each.shape)}"
            raise ShapeError(msg)
    order = torch.sort(scores.detach(), descending=True, stable=True).indices
    order = order[(real_boxes(boxes) & scores.isfinite())[order]]
    group = torch.zeros_like(order) if classes is None else classes[order].long()
    suppress = _kept_by_loop if boxes.device.type == "cpu" else _kept_by_pairs
    return order[suppress(boxes[order], group, max_iou)]


def _kept_by_pairs(boxes: Tensor, group: Tensor, max_iou: float) -> Tensor:
    """Which of real boxes, the best first, are kept: (N,) bool; for devices where a loop over boxes would be slow.

    All pairs that suppress are found at once. What is kept follows from what is kept above it, so repeating that for all at
    once settles one more box each time at least, in practice all in a few rounds, and only the loop's answer stays as it is.
    """
    above, below = [], []
    rows = max(1, _PAIRS_AT_ONCE // max(1, len(boxes)))
    for start in range(0, len(boxes), rows):
        some = slice(start, start + rows)
        i, j = (_close(boxes[some], boxes) & (group[some, None] == group)).nonzero(as_tuple=True)
        i = i + start
        i, j = i[i < j], j[i < j]
        overlapping = iou_bev_aligned(boxes[i].double(), boxes[j].double()) > max_iou
        above.append(i[overlapping])
        below.append(j[overlapping])
    first, second = torch.cat([group.new_zeros(0), *above]), torch.cat([group.new_zeros(0), *below])
    kept = torch.ones_like(group, dtype=torch.bool)
    while True:
        settled = torch.ones_like(kept)
        settled[second[kept[first]]] = False
        if torch.equal(settled, kept):
            return kept
        kept = settled


def _kept_by_loop(boxes: Tensor, group: Tensor, max_iou: float) -> Tensor:
    """Do what :func:`_kept_by_pairs` does, on a CPU."""
    kept = np.empty(len(boxes), np.bool_)
    _suppress(np.ascontiguousarray(boxes.double().numpy()), np.ascontiguousarray(group.numpy()), max_iou, kept)
    return torch.from_numpy(kept)


@compiled("float64(float64, float64, float64)", inline="always")
def _held(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


@compiled("float64(float64[::1], float64[::1], float64[::1], float64[::1])", error_model="numpy")
def _intersection(a: F64, b: F64, heading_a: F64, heading_b: F64) -> float:
    """Do what :func:`_intersection_bev` does, for one pair; headings are cosine and sine of the yaws."""
    half_length, half_width = b[3] / 2.0, b[4] / 2.0
    (cos_a, sin_a), (cos, sin) = (heading_a[0], heading_a[1]), (heading_b[0], heading_b[1])
    cos_turn, sin_turn = cos_a * cos + sin_a * sin, sin_a * cos - cos_a * sin
    dx, dy = a[0] - b[0], a[1] - b[1]
    x0, y0 = cos * dx + sin * dy, cos * dy - sin * dx
    ux, uy = cos_turn * a[3] / 2.0, sin_turn * a[3] / 2.0
    vx, vy = -sin_turn * a[4] / 2.0, cos_turn * a[4] / 2.0
    xs, ys = (ux + vx, vx - ux, -ux - vx, ux - vx), (uy + vy, vy - uy, -uy - vy, uy - vy)
    area = 0.0
    for k in range(4):
        x, y = xs[k] + x0, ys[k] + y0
        width, rise = xs[(k + 1) % 4] - xs[k], ys[(k + 1) % 4] - ys[k]
        start, end = _held(x, -half_length, half_length), _held(x + width, -half_length, half_length)
        if start == end:
            continue
        y_start, y_end = y + rise * ((start - x) / width), y + rise * ((end - x) / width)
        low, high = min(y_start, y_end), max(y_start, y_end)
        height = max(high - low, _TINY)
        below, not_above = _held((-half_width - low) / height, 0.0, 1.0), _held((half_width - low) / height, 0.0, 1.0)
        middle = (_held(low, -half_width, half_width) + _held(high, -half_width, half_width)) / 2.0
        area -= (end - start) * (middle * (not_above - below) + half_width * (1.0 - not_above - below))
    area_a, area_b = a[3] * a[4], b[3] * b[4]
    return min(area, area_a, area_b) if area > _NOTHING * (area_a + area_b) else 0.0


@compiled("void(float64[:,::1], int64[::1], float64, b1[::1])", error_model="numpy")
def _suppress(boxes: F64, group: I64, max_iou: float, kept: Bool) -> None:
    """Say in ``kept`` which of real boxes, the best first, are kept; only what is kept is compared with what follows."""
    kept[:] = True
    heading, radius = np.empty((len(boxes), 2)), np.empty(len(boxes))
    for i in range(len(boxes)):
        heading[i, 0], heading[i, 1] = math.cos(boxes[i, 6]), math.sin(boxes[i, 6])
        radius[i] = math.hypot(boxes[i, 3], boxes[i, 4]) / 2.0 * _MARGIN
    for i in range(len(boxes)):
        if not kept[i]:
            continue
        area = boxes[i, 3] * boxes[i, 4]
        for j in range(i + 1, len(boxes)):
            if not kept[j] or group[i] != group[j]:
                continue
            dx, dy = boxes[i, 0] - boxes[j, 0], boxes[i, 1] - boxes[j, 1]
            if dx * dx + dy * dy > (radius[i] + radius[j]) ** 2:
                continue
            other = boxes[j, 3] * boxes[j, 4]
            if min(area, other) <= max_iou * max(area, other):
                continue  # even one inside the other would not be enough
            shared = _intersection(boxes[i], boxes[j], heading[i], heading[j])
            kept[j] = shared <= max_iou * (area + other - shared)

"""Box encoding and decoding: boxes to the head's targets at every BEV cell, and its outputs back to boxes.

Boxes are (N, 7): x, y, z of the centre, length, width, height (metres), yaw (radians about +z), as in ``boxes.py``.

At each cell the head gives, beside a heat per class, ten numbers of the box whose centre is near:

| numbers | what |
|---|---|
| 0, 1 | from the cell's centre to the box's, in cells, along x and y |
| 2 | z of the centre, metres |
| 3, 4, 5 | logarithms of length, width, height in metres |
| 6, 7 | sine and cosine of twice the yaw: the axis, which a box without a front shows as well |
| 8, 9 | sine and cosine of the yaw: which way along the axis is forward |

The axis decides the overlap and is settled early in training; a heading that is not known yet cannot spoil it by averaging
opposite boxes to nothing. Twice the angle has no place where it jumps, and the heading only chooses between two axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor

from gemini_core.errors import ShapeError
from gemini_core.model.detection.boxes import BOX_SIZE, nms, points_in_boxes, real_boxes
from gemini_core.model.detection.interface import IGNORED, Found
from gemini_core.model.detection.pillars.encoder import BevGrid

BOX_NUMBERS = 10
"""What the head says of the box at a cell; see the table."""

UNCERTAIN = 4
"""Numbers of a box whose variance the head may give: x, y, z (square metres) and yaw (square radians)."""

_LEAST_WEIGHT = 0.1  # of a cell beside a centre, below which the box is not asked of it
_LARGEST_LOG = 4.0  # a size of 55 m: what is larger is no box, and the exponential stays finite


class BevMaps(NamedTuple):
    """What the head says.

    ``heat`` (B, K, rows, columns) are logits; ``boxes`` (B, 10, rows, columns) is the module's table; ``log_variance``
    (B, 4, rows, columns) of x, y, z, yaw, or None.
    """

    heat: Tensor
    boxes: Tensor
    log_variance: Tensor | None = None


class LabelCounts(NamedTuple):
    """What became of the label boxes of a batch.

    ``used``; ``ignored``: of class ``IGNORED``; ``not_real``: a size of zero or below, or a number that is not finite;
    ``out_of_range``: the centre is outside of the grid; ``same_cell``: another centre of the same class is in the cell already.
    """

    used: int = 0
    ignored: int = 0
    not_real: int = 0
    out_of_range: int = 0
    same_cell: int = 0


class Targets(NamedTuple):
    """What the head is to say: ``heat`` (B, K, rows, columns), 1 at centres and falling off around them.

    ``counted`` (B, 1, rows, columns) is 0 where heat does not count, since an ignored box is there; ``boxes``
    (B, 10, rows, columns) is the module's table, of weight ``weight`` (B, 1, rows, columns): 1 at centres, less beside
    them, 0 elsewhere.
    """

    heat: Tensor
    counted: Tensor
    boxes: Tensor
    weight: Tensor
    labels: LabelCounts


# --------------------------------------------------------------------------------------------------------------------
# Boxes to targets


def encode(boxes: Sequence[Tensor], classes: Sequence[Tensor], grid: BevGrid, num_classes: int) -> Targets:
    """Say what the head should say of a batch.

    Boxes that are not real, or whose centre is outside of the grid, are left out and counted.

    Args:
        boxes: (N_b, 7) of each sample.
        classes: (N_b,) integers of each sample, 0 to K - 1 or ``IGNORED``.
        grid: the head's cells.
        num_classes: K.

    Raises:
        ShapeError: not seven numbers a box, not a class for each, or a class that there is not.
    """
    samples, counts = [], LabelCounts()
    for own, named in zip(boxes, classes, strict=True):
        _check_labels(own, named, num_classes)
        sample = _encode_one(own.detach().float(), named.long(), grid, num_classes)
        samples.append(sample)
        counts = LabelCounts(*(a + b for a, b in zip(counts, sample.labels, strict=True)))
    if not samples:
        msg = "labels: expected boxes of at least one sample, got none"
        raise ShapeError(msg)
    heat, counted, numbers, weight = (torch.stack(maps) for maps in list(zip(*samples, strict=True))[:4])
    return Targets(heat, counted, numbers, weight, counts)


def _check_labels(boxes: Tensor, classes: Tensor, num_classes: int) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != BOX_SIZE or classes.shape != boxes.shape[:1]:  # noqa: PLR2004 - rows, columns
        msg = f"labels: expected boxes (N, {BOX_SIZE}) and classes (N,), got {tuple(boxes.shape)} and {tuple(classes.shape)}"
        raise ShapeError(msg)
    wrong = classes[(classes < IGNORED) | (classes >= num_classes)]
    if len(wrong):
        msg = f"labels: expected classes from {IGNORED} (ignored) to {num_classes - 1}, got {int(wrong[0])}"
        raise ShapeError(msg)


def _encode_one(boxes: Tensor, classes: Tensor, grid: BevGrid, num_classes: int) -> Targets:
    """Do what ``encode`` does for one sample, without the first dimension."""
    real, ignored = real_boxes(boxes), classes == IGNORED
    inside = grid.holds(grid.place(boxes[:, :2]))
    wanted = real & inside & ~ignored
    own, named = boxes[wanted], classes[wanted]
    shape = (grid.rows, grid.columns)
    heat, weight = own.new_zeros(num_classes, *shape), own.new_zeros(1, *shape)
    numbers = own.new_zeros(BOX_NUMBERS, *shape)
    centre = grid.place(own[:, :2]).floor()  # (N, 2) column and row
    distinct = len({tuple(cell) for cell in torch.cat((centre, named[:, None]), dim=1).tolist()})
    if len(own):
        near = _nearness(own, centre, grid)  # (N, rows, columns)
        for name in sorted(set(named.tolist())):
            heat[name] = near[named == name].amax(0)
        largest, nearest = near.max(0)
        weight[0] = torch.where(largest >= _LEAST_WEIGHT, largest, 0.0)
        numbers = _numbers(own[nearest.flatten()], _cell_centres(grid, own), grid.cell_m).T.reshape(BOX_NUMBERS, *shape)
        numbers = torch.where(weight > 0, numbers, 0.0)
    counted = torch.ones_like(weight)
    if ignored.any():
        places = torch.cat((_cell_centres(grid, boxes), boxes.new_zeros(grid.rows * grid.columns, 1)), dim=1)
        flat = boxes[ignored & real] * boxes.new_tensor([1, 1, 0, 1, 1, 1, 1])  # at the height of the places
        over = points_in_boxes(places, flat).any(0).view(1, *shape)
        counted = (~over | (heat.amax(0, keepdim=True) == 1)).to(heat.dtype)
    labels = LabelCounts(
        used=distinct,
        ignored=int(ignored.sum()),
        not_real=int((~real & ~ignored).sum()),
        out_of_range=int((real & ~inside & ~ignored).sum()),
        same_cell=len(own) - distinct,
    )
    return Targets(heat, counted, numbers, weight, labels)


def _cell_centres(grid: BevGrid, like: Tensor) -> Tensor:
    """Centres of all cells, row by row: (rows * columns, 2) x, y in metres."""
    x = grid.x_min_m + (torch.arange(grid.columns, device=like.device) + 0.5) * grid.cell_m
    y = grid.y_min_m + (torch.arange(grid.rows, device=like.device) + 0.5) * grid.cell_m
    return torch.cartesian_prod(y, x).flip(1).to(like.dtype)


def _nearness(boxes: Tensor, centre: Tensor, grid: BevGrid) -> Tensor:
    """How near each cell is to the cell of each box's centre, 1 there: (N, rows, columns).

    A Gaussian as wide as the shorter side of the box, its deviation a sixth of (twice the radius + 1) cells as in CenterNet
    (Zhou et al., 2019, arXiv 1904.07850), but of a radius of one cell at least.
    """
    radius = (boxes[:, 3:5].amin(1) / (2 * grid.cell_m)).clamp(min=1.0)
    spread = 2 * ((2 * radius + 1) / 6).square()  # (N,)
    column, row = (centre[:, axis, None] for axis in range(2))
    across = torch.arange(grid.columns, device=boxes.device) - column  # (N, columns)
    along = torch.arange(grid.rows, device=boxes.device) - row
    in_columns, in_rows = (torch.exp(-away.square() / spread[:, None]) for away in (across, along))
    return in_rows[:, :, None] * in_columns[:, None]


def _numbers(boxes: Tensor, cell_centres: Tensor, cell_m: float) -> Tensor:
    """Describe boxes (M, 7) as seen from cells, whose centres (M, 2) are in metres: (M, 10)."""
    yaw = boxes[:, 6:]
    angles = (torch.sin(2 * yaw), torch.cos(2 * yaw), torch.sin(yaw), torch.cos(yaw))
    return torch.cat(((boxes[:, :2] - cell_centres) / cell_m, boxes[:, 2:3], boxes[:, 3:6].log(), *angles), dim=1)


# --------------------------------------------------------------------------------------------------------------------
# Maps to boxes


def decode(maps: BevMaps, grid: BevGrid, *, max_boxes: int = 200, min_score: float = 0.1, max_iou: float = 0.2) -> list[Found]:
    """Find the boxes of each sample of a batch.

    A box is where a class's heat is the largest of its 3 x 3 cells. Of the ``max_boxes`` hottest from ``min_score`` on, those
    that overlap a better one of their class by a BEV IoU above ``max_iou`` are left out (NMS).
    """
    heat, numbers = maps.heat.detach().float(), maps.boxes.detach().float()
    variance = None if maps.log_variance is None else maps.log_variance.detach().float().exp()
    peaks = torch.where(F.max_pool2d(heat, 3, 1, 1) == heat, heat, -torch.inf).flatten(1)  # (B, K * rows * columns)
    logits, order = peaks.topk(min(max_boxes, peaks.shape[1]))
    cells = grid.rows * grid.columns
    centres = _cell_centres(grid, heat)
    found = []
    for sample, (best, places) in enumerate(zip(logits.sigmoid(), order, strict=True)):
        where, scores = places[best >= min_score], best[best >= min_score]
        cell, named = where % cells, where // cells
        boxes = _boxes(numbers[sample].flatten(1)[:, cell].T, centres[cell], grid.cell_m)
        kept = nms(boxes, scores, max_iou, named)
        spread = None if variance is None else variance[sample].flatten(1)[:, cell[kept]].T
        found.append(Found(boxes[kept], scores[kept], named[kept], spread))
    return found


def _boxes(numbers: Tensor, cell_centres: Tensor, cell_m: float) -> Tensor:
    """Undo ``_numbers``: (M, 10) and (M, 2) to (M, 7)."""
    sin_axis, cos_axis, sin_yaw, cos_yaw = numbers[:, 6:].unbind(1)
    axis = torch.atan2(sin_axis, cos_axis) / 2
    backwards = torch.sin(axis) * sin_yaw + torch.cos(axis) * cos_yaw < 0
    yaw = torch.where(backwards, axis + math.pi, axis)
    yaw = torch.where(yaw > math.pi, yaw - 2 * math.pi, yaw)
    size = numbers[:, 3:6].clamp(-_LARGEST_LOG, _LARGEST_LOG).exp()
    return torch.cat((cell_centres + numbers[:, :2] * cell_m, numbers[:, 2:3], size, yaw[:, None]), dim=1)

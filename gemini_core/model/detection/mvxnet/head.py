"""MVX-Net's BEV network and head: SECOND's network (Yan et al., Sensors 2018), its pyramid, and an anchor head.

At each cell there are K x Y anchors, K classes of Y yaws each, the class outermost. For each, the head gives K scores
(logits), 7 numbers of the box relative to the anchor, and 2 directions. Boxes are those of ``boxes.py``, z at the centre;
released models hold it at the bottom, which is only a matter of the anchors' z: their numbers relative to an anchor are of
centres as well.

| number | what |
|---|---|
| 0, 1 | from the anchor's centre to the box's along x and y, in diagonals of the anchor in BEV |
| 2 | the same along z, in heights of the anchor |
| 3, 4, 5 | logarithms of length, width, height relative to the anchor's |
| 6 | yaw less the anchor's, which counts modulo half a turn |

Which half of the circle the yaw lies in is what the direction says: 0 from -90 degrees on, 1 from 90 degrees on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn

from gemini_core.errors import ShapeError
from gemini_core.model.detection.boxes import BOX_SIZE, nms, real_boxes
from gemini_core.model.detection.interface import IGNORED, Found
from gemini_core.model.detection.mvxnet.config import DIRECTIONS, OFFSET, MvxNetConfig

_EPS, _MOMENTUM = 1e-3, 0.01  # of the released model's norms
_PRIOR = 0.01  # score of an untrained head: nearly every anchor is nothing
_STD = 0.01
_GAMMA, _ALPHA = 2.0, 0.25  # of the focal loss (Lin et al., ICCV 2017)
_BETA = 1 / 9  # smooth L1 is square below this
_LARGEST_LOG = 4.0  # fifty times the anchor is no box, and the exponential stays finite; the released code has no bound


class MvxMaps(NamedTuple):
    """What the head says: ``scores`` (B, A * K, rows, columns), logits, and as large ``boxes`` (A * 7), ``directions`` (A * 2).

    A anchors at a cell, outermost in the channels; rows along +y, columns along +x.
    """

    scores: Tensor
    boxes: Tensor
    directions: Tensor


class MvxLoss(NamedTuple):
    """``total`` is scores + 2 boxes + 0.2 directions, all scalars; ``positives`` is how many anchors were to be boxes."""

    total: Tensor
    scores: Tensor
    boxes: Tensor
    directions: Tensor
    positives: int


class Second(nn.Module):
    """Stages of 3 x 3 convolutions; each begins with its stride."""

    def __init__(self, inputs: int, config: MvxNetConfig) -> None:
        super().__init__()
        blocks = []
        for width, depth, stride in zip(config.plane_widths, config.plane_depths, config.plane_strides, strict=True):
            layers: list[nn.Module] = []
            for index in range(depth + 1):
                conv = nn.Conv2d(inputs, width, 3, stride if index == 0 else 1, padding=1, bias=False)
                layers += [conv, nn.BatchNorm2d(width, _EPS, _MOMENTUM), nn.ReLU(inplace=True)]
                inputs = width
            blocks.append(nn.Sequential(*layers))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, values: Tensor) -> list[Tensor]:
        """Map (B, inputs, rows, columns) to one tensor for each stage."""
        levels = []
        for block in self.blocks:
            values = block(values)
            levels.append(values)
        return levels


class SecondPyramid(nn.Module):
    """Brings the stages to the first one's size by transposed convolutions, and joins their channels."""

    def __init__(self, config: MvxNetConfig) -> None:
        super().__init__()
        blocks, factor = [], 1
        for index, (width, output) in enumerate(zip(config.plane_widths, config.plane_outputs, strict=True)):
            factor *= config.plane_strides[index] if index else 1
            conv = nn.ConvTranspose2d(width, output, factor, factor, bias=False)
            blocks.append(nn.Sequential(conv, nn.BatchNorm2d(output, _EPS, _MOMENTUM), nn.ReLU(inplace=True)))
        self.deblocks = nn.ModuleList(blocks)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Map the stages' tensors to (B, sum of plane_outputs, rows, columns)."""
        return torch.cat([block(level) for block, level in zip(self.deblocks, levels, strict=True)], dim=1)


class AnchorHead(nn.Module):
    """Three 1 x 1 convolutions."""

    def __init__(self, config: MvxNetConfig) -> None:
        super().__init__()
        inputs, anchors = sum(config.plane_outputs), config.anchors_per_cell
        self.conv_cls = nn.Conv2d(inputs, anchors * len(config.classes), 1)
        self.conv_reg = nn.Conv2d(inputs, anchors * BOX_SIZE, 1)
        self.conv_dir_cls = nn.Conv2d(inputs, anchors * DIRECTIONS, 1)
        for conv, bias in ((self.conv_cls, math.log(_PRIOR / (1 - _PRIOR))), (self.conv_reg, 0.0), (self.conv_dir_cls, 0.0)):
            nn.init.normal_(conv.weight, std=_STD)
            nn.init.constant_(conv.bias, bias)  # type: ignore[arg-type]  # it has one

    def forward(self, values: Tensor) -> MvxMaps:
        """Say what is where."""
        return MvxMaps(self.conv_cls(values), self.conv_reg(values), self.conv_dir_cls(values))


# --------------------------------------------------------------------------------------------------------------------
# Anchors


def make_anchors(config: MvxNetConfig, like: Tensor) -> Tensor:
    """Make the anchors: (rows, columns, K, Y, 7), z at the centre, of the type and on the device of ``like``.

    They are spread evenly with the first and the last on the edges of the range, as in the released model: not at the centres
    of the cells, from which they are half a cell off at most.
    """
    rows, columns = config.map_shape
    (x, y, _, x_end, y_end, _), yaws = config.range_m, config.anchor_yaws
    anchors = like.new_zeros(rows, columns, len(config.classes), len(yaws), BOX_SIZE)
    anchors[..., 0] = torch.linspace(x, x_end, columns, device=like.device)[None, :, None, None]
    anchors[..., 1] = torch.linspace(y, y_end, rows, device=like.device)[:, None, None, None]
    sizes = like.new_tensor(config.anchor_sizes_m)
    anchors[..., 2] = (like.new_tensor(config.anchor_bottoms_m) + sizes[:, 2] / 2)[:, None]
    anchors[..., 3:6] = sizes[:, None]
    anchors[..., 6] = like.new_tensor(yaws)
    return anchors


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Describe boxes (..., 7) by the module's numbers, relative to anchors of the same shape."""
    diagonal = torch.hypot(anchors[..., 3:4], anchors[..., 4:5])
    away = boxes[..., :3] - anchors[..., :3]
    sizes = (boxes[..., 3:6] / anchors[..., 3:6]).log()
    turned = boxes[..., 6:] - anchors[..., 6:]
    return torch.cat((away[..., :2] / diagonal, away[..., 2:] / anchors[..., 5:6], sizes, turned), dim=-1)


def decode_boxes(numbers: Tensor, anchors: Tensor) -> Tensor:
    """Undo ``encode_boxes``."""
    diagonal = torch.hypot(anchors[..., 3:4], anchors[..., 4:5])
    away = torch.cat((numbers[..., :2] * diagonal, numbers[..., 2:3] * anchors[..., 5:6]), dim=-1)
    sizes = numbers[..., 3:6].clamp(-_LARGEST_LOG, _LARGEST_LOG).exp() * anchors[..., 3:6]
    return torch.cat((anchors[..., :3] + away, sizes, anchors[..., 6:] + numbers[..., 6:]), dim=-1)


def direction_of(yaw: Tensor) -> Tensor:
    """Say which half of the circle a yaw is in: 0 or 1, int64."""
    return (torch.remainder(yaw - OFFSET, 2 * math.pi) / math.pi).long().clamp(max=DIRECTIONS - 1)


def turn_to(yaw: Tensor, direction: Tensor) -> Tensor:
    """Give a yaw that is known modulo half a turn, in that half of the circle: radians above -pi up to pi."""
    yaw = torch.remainder(yaw - OFFSET, math.pi) + OFFSET + math.pi * direction.to(yaw.dtype)
    return torch.where(yaw > math.pi, yaw - 2 * math.pi, yaw)


def nearest_iou(a: Tensor, b: Tensor) -> Tensor:
    """BEV IoU of boxes (N, 7) with (M, 7) as if each were turned to the nearer axis: (N, M), 0 to 1.

    By this, not by the true overlap of turned boxes, the released model was trained ("nearest" in mmdetection3d).
    """
    (low_a, high_a), (low_b, high_b) = _upright(a), _upright(b)
    shared = (torch.minimum(high_a[:, None], high_b) - torch.maximum(low_a[:, None], low_b)).clamp(min=0).prod(-1)
    area_a, area_b = (high_a - low_a).prod(-1), (high_b - low_b).prod(-1)
    return shared / (area_a[:, None] + area_b - shared).clamp(min=1e-6)


def _upright(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest x, y of boxes turned to the nearer axis: two of (N, 2)."""
    turned = torch.remainder(boxes[:, 6] + math.pi / 2, math.pi) - math.pi / 2
    half = torch.where((turned.abs() > math.pi / 4)[:, None], boxes[:, [4, 3]], boxes[:, 3:5]) / 2
    return boxes[:, :2] - half, boxes[:, :2] + half


# --------------------------------------------------------------------------------------------------------------------
# Training


class AnchorTargets(NamedTuple):
    """What anchors are to be, for one sample: ``classes`` (rows, columns, K, Y) int64, K for background, -1 for not counted.

    ``boxes`` (rows, columns, K, Y, 7) are the label boxes of those with a class; zeros for the others.
    """

    classes: Tensor
    boxes: Tensor

    def known_only(self, where: Tensor, background: int) -> AnchorTargets:
        """Keep background only ``where`` (rows, columns, K, Y) it is known to be; elsewhere it is not counted."""
        return self._replace(classes=self.classes.masked_fill((self.classes == background) & ~where, IGNORED))


def assign(boxes: Tensor, classes: Tensor, anchors: Tensor, config: MvxNetConfig) -> AnchorTargets:
    """Say what the anchors of one sample are to be.

    An anchor is its class where its overlap (``nearest_iou``) with the best box of that class is ``positive_ious`` or more, and
    background below ``negative_ious``; between them it is not counted. The best anchors of each box are that box too, if they
    overlap by ``negative_ious`` or more. What overlaps a box of class ``IGNORED`` by as much is not counted as background.

    Args:
        boxes: (N, 7); those that are not real are left out.
        classes: (N,) 0 to K - 1 or ``IGNORED``.
        anchors: of ``make_anchors``.
        config: of the model.

    Raises:
        ShapeError: not seven numbers a box, not a class for each, or a class that there is not.
    """
    if boxes.ndim != 2 or boxes.shape[1] != BOX_SIZE or classes.shape != boxes.shape[:1]:  # noqa: PLR2004 - rows, columns
        msg = f"labels: expected boxes (N, {BOX_SIZE}) and classes (N,), got {tuple(boxes.shape)} and {tuple(classes.shape)}"
        raise ShapeError(msg)
    wrong = classes[(classes < IGNORED) | (classes >= len(config.classes))]
    if len(wrong):
        msg = f"labels: expected classes from {IGNORED} (ignored) to {len(config.classes) - 1}, got {int(wrong[0])}"
        raise ShapeError(msg)
    background = len(config.classes)
    shape = anchors.shape[:-1]
    found = torch.full(shape, background, dtype=torch.long, device=anchors.device)
    targets = torch.zeros_like(anchors)
    real = real_boxes(boxes)
    boxes = boxes.to(anchors.dtype)
    ignored = boxes[real & (classes == IGNORED)]
    for index, (high, low) in enumerate(zip(config.positive_ious, config.negative_ious, strict=True)):
        own = boxes[real & (classes == index)]
        flat = anchors[:, :, index].reshape(-1, BOX_SIZE)
        state = torch.full((len(flat),), background, dtype=torch.long, device=anchors.device)
        if len(ignored):
            state[(nearest_iou(ignored, flat) >= low).any(0)] = IGNORED
        if len(own):
            overlap = nearest_iou(own, flat)  # (boxes, anchors)
            best, which = overlap.max(0)
            state[best >= low] = IGNORED
            state[best >= high] = index
            for row in range(len(own)):  # later boxes win, where two share their best anchor
                top = overlap[row].max()
                if top >= low:
                    chosen = overlap[row] == top
                    state[chosen], which[chosen] = index, row
            targets[:, :, index] = torch.where((state == index)[:, None], own[which], 0.0).view(*shape[:2], -1, BOX_SIZE)
        found[:, :, index] = state.view(*shape[:2], -1)
    return AnchorTargets(found, targets)


def anchor_loss(maps: MvxMaps, targets: Sequence[AnchorTargets], anchors: Tensor) -> MvxLoss:
    """Compare what the head says with what it is to say: the released model's losses, per positive anchor.

    Focal loss of the scores; smooth L1 of the numbers, the yaw by sin(difference), which is 0 for the opposite heading as well;
    cross-entropy of the directions.
    """
    kinds = anchors.shape[2]
    scores, numbers, directions = (_by_anchor(each, anchors).float() for each in maps)  # (B, rows, columns, K, Y, ...)
    classes, boxes = (torch.stack(parts) for parts in zip(*targets, strict=True))
    positive = (classes >= 0) & (classes < kinds)
    share = 1 / sum(max(1, int(own.sum())) for own in positive)
    wanted = F.one_hot(classes.clamp(min=0), kinds + 1)[..., :kinds].to(scores.dtype)
    likely = F.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    off = (scores.sigmoid() - wanted).abs()
    weight = (classes != IGNORED)[..., None] * (_ALPHA * wanted + (1 - _ALPHA) * (1 - wanted))
    score_loss = (weight * off.pow(_GAMMA) * likely).sum() * share
    own, truth = numbers[positive], boxes[positive]
    around = anchors.expand(boxes.shape)[positive]
    expected = encode_boxes(truth, around) if len(own) else own.detach()
    away = torch.cat((own[:, :6] - expected[:, :6], torch.sin(own[:, 6:] - expected[:, 6:])), dim=1)
    box_loss = F.smooth_l1_loss(away, torch.zeros_like(away), reduction="sum", beta=_BETA) * share
    direction_loss = F.cross_entropy(directions[positive], direction_of(truth[:, 6]), reduction="sum") * share
    total = score_loss + 2.0 * box_loss + 0.2 * direction_loss
    return MvxLoss(total, score_loss, box_loss, direction_loss, len(own))


def _by_anchor(channels: Tensor, anchors: Tensor) -> Tensor:
    """(B, K * Y * C, rows, columns) to (B, rows, columns, K, Y, C)."""
    by_cell = channels.permute(0, 2, 3, 1)
    return by_cell.reshape(*by_cell.shape[:3], *anchors.shape[2:4], -1)


# --------------------------------------------------------------------------------------------------------------------
# Maps to boxes


def find_boxes(
    maps: MvxMaps, anchors: Tensor, *, candidates: int = 100, max_boxes: int = 50, min_score: float = 0.1, max_iou: float = 0.01
) -> list[Found]:
    """Find the boxes of each sample; the defaults are the released model's.

    Of the ``candidates`` anchors with the best score of any class, every class above ``min_score`` makes a box; those that
    overlap a better one of their class by a BEV IoU above ``max_iou`` are left out (NMS), and all but ``max_boxes``.
    """
    kinds = anchors.shape[2]
    flat = anchors.reshape(-1, BOX_SIZE)
    found = []
    for sample in zip(*(_by_anchor(each.detach().float(), anchors).flatten(1, 4) for each in maps), strict=True):
        scores, numbers, directions = sample[0].view(-1, kinds), sample[1].view(-1, BOX_SIZE), sample[2].view(-1, DIRECTIONS)
        chosen = scores.amax(1).topk(min(candidates, len(scores))).indices
        sure = scores[chosen].sigmoid()
        boxes = decode_boxes(numbers[chosen], flat[chosen])
        boxes[:, 6] = turn_to(boxes[:, 6], directions[chosen].argmax(1))
        row, named = (sure > min_score).nonzero(as_tuple=True)
        boxes, sure = boxes[row], sure[row, named]
        kept = nms(boxes, sure, max_iou, named)[:max_boxes]
        found.append(Found(boxes[kept], sure[kept], named[kept]))
    return found

"""Ground-truth sampling (copy and paste): points, boxes, pixels of all modalities and label of other frames' things.

Sampling of points alone is SECOND's (Yan et al., Sensors 2018); that the picture must follow is shown by Wang et al.,
"PointAugmenting", CVPR 2021. A thing keeps its place in space, and so its pixels: it comes from a frame of the same rig. What
it hides in the frame, points and pixels, goes; where something of the frame would hide it, it is not put there. Nor is a thing
that something hides from the camera where it comes from: its points would arrive without their pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from gemini_core.model.detection.boxes import corners_3d, iou_bev
from gemini_core.types import F32, U8, Bool
from training.augment import Frame
from training.points_and_boxes import PointsAndBoxes, PointSet, inside

_MARGIN_M = 0.1  # a thing's points lie up to this far out of its box, since sensors and labels are not exact
_HIDDEN_SHARE = 0.1  # of the thing's pixels, in front of which the frame may have something
_APART_M = 0.5
_SHOWN_SHARE = 0.2  # of the thing's points, the least that must lie on pixels of it


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A labelled frame: channels of each modality, label, points and boxes."""

    frame: Frame
    label: U8
    points_and_boxes: PointsAndBoxes


def paste(host: Sample, donor: Sample, row: int, label_value: int) -> Sample:
    """Put one thing of ``donor`` into ``host``; gives ``host`` itself where there is no place for it.

    Args:
        host: where to.
        donor: where from, of the same grid.
        row: which of the donor's boxes.
        label_value: the value of its class in the label; below 0: its class has none, and all pixels of the box's outline move.
    """
    ours, theirs = host.points_and_boxes, donor.points_and_boxes
    box = theirs.boxes[row : row + 1]
    if not ours.camera.same(theirs.camera) or host.label.shape != donor.label.shape or set(host.frame) - set(donor.frame):
        return host
    if len(ours.boxes) and float(iou_bev(torch.from_numpy(box), torch.from_numpy(ours.boxes)).max()) > 0:
        return host
    mask = _outline(donor, box)
    if label_value >= 0:
        mask &= donor.label == label_value
    distance = float(np.hypot(*box[0, :2]))
    if not mask.any() or _hidden(host, mask, distance):
        return host
    grown = box + np.array([0, 0, 0, 2, 2, 2, 0], np.float32) * np.float32(_MARGIN_M)
    if not _shown(donor, grown, mask):
        return host
    points = {}
    for source, own in ours.points.items():
        behind = _on(own, mask) & (np.hypot(own.values[:, 0], own.values[:, 1]) > distance)
        left = own.take(~(behind | inside(own, grown)[0]))
        more = theirs.points.get(source)
        points[source] = left if more is None else left.joined(more.take(inside(more, grown)[0]))
    points_and_boxes = replace(
        ours,
        points=points,
        boxes=np.concatenate([ours.boxes, box]),
        classes=np.concatenate([ours.classes, theirs.classes[row : row + 1]]),
        counts=np.concatenate([ours.counts, theirs.counts[row : row + 1]]),
    )
    frame = {
        modality: np.where(mask, donor.frame[modality], channels).astype(np.float32)
        for modality, channels in host.frame.items()
    }
    return Sample(frame, np.where(mask, donor.label, host.label).astype(np.uint8), points_and_boxes)


def _outline(sample: Sample, box: F32) -> Bool:
    """The pixels (h, w) within the rectangle around a box in the picture."""
    mask: Bool = np.zeros(sample.label.shape, np.bool_)
    corners = corners_3d(torch.from_numpy(box.astype(np.float64)))[0].numpy()
    projected = sample.points_and_boxes.camera.project(corners)
    if (projected[:, 2] > _MARGIN_M).all():
        height, width = mask.shape
        low, high = np.floor(projected.min(axis=0)), np.ceil(projected.max(axis=0)) + 1
        rows = slice(int(np.clip(low[1], 0, height)), int(np.clip(high[1], 0, height)))
        columns = slice(int(np.clip(low[0], 0, width)), int(np.clip(high[0], 0, width)))
        mask[rows, columns] = True
    return mask


def _on(points: PointSet, mask: Bool) -> Bool:
    """Which points the picture shows on the mask: (N,) bool."""
    pixels = np.rint(points.pixels).astype(np.int64)
    column, row = pixels[:, 0], pixels[:, 1]
    height, width = mask.shape
    within = points.visible & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    found: Bool = within & mask[np.where(within, row, 0), np.where(within, column, 0)]
    return found


def _shown(donor: Sample, grown: F32, mask: Bool) -> bool:
    """Whether the picture shows a thing in ``grown`` (1, 7) on the mask, and not only a rim of it beside what hides it."""
    for points in donor.points_and_boxes.points.values():
        own = inside(points, grown)[0]
        if own.any() and _on(points, mask)[own].mean() < _SHOWN_SHARE:
            return False
    return True


def _hidden(host: Sample, mask: Bool, distance: float) -> bool:
    """Whether the frame has something in front of the mask at this distance."""
    for points in host.points_and_boxes.points.values():
        on = _on(points, mask)
        nearer = np.hypot(points.values[on, 0], points.values[on, 1]) < distance - _APART_M
        if on.any() and nearer.mean() > _HIDDEN_SHARE:
            return True
    return False


def label_values(box_classes: Sequence[str], classes: Sequence[str]) -> tuple[int, ...]:
    """Give the value in label images of each class of boxes, -1 where it has none."""
    return tuple(classes.index(name) if name in classes else -1 for name in box_classes)

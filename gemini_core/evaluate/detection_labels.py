"""Labels of the 3D detection metrics: KITTI's files, boxes of messages, and boxes in the image around boxes in space.

No command of ours reads KITTI's label files for scores (bags have boxes without their difficulty): ``read_kitti_truth`` and
``seen_in_image`` are there to hold weights against the figures that others publish, by KITTI's own difficulties.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from gemini_core.bag.kitti import LABEL_COLUMNS, Calibration, read_labels
from gemini_core.errors import DataError
from gemini_core.evaluate.detection import TruthFrame
from gemini_core.files import read_text
from gemini_core.model.detection.boxes import BOX_SIZE, corners_3d
from gemini_core.types import F32, F64, CameraModel, Detection3D

LEVEL_FROM_OPTICAL: F64 = np.array([[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
"""Axes forward, left, up at a camera, from its optical ones right, down, forward (REP 103); KITTI's boxes are upright there."""

NEAREST_M = 0.1
"""What is nearer to a camera's plane than this is cut off before it is projected."""

_EDGES = np.array(  # between corners of corners_3d
    [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
)


def level_boxes(detections: Sequence[Detection3D], frame_from_detections: F64) -> F32:
    """Give boxes of messages or labels as (N, 7) in a frame with x forward, y left, z up.

    Only the heading is kept of the orientation: the direction along the ground in which the box's own x axis points.

    Args:
        detections: in any frame, such as a camera's.
        frame_from_detections: (4, 4) transform of that frame to the wanted one.
    """
    rows = np.zeros((len(detections), BOX_SIZE))
    for row, each in zip(rows, detections, strict=True):
        row[:3] = frame_from_detections[:3, :3] @ np.asarray(each.center_m) + frame_from_detections[:3, 3]
        row[3:6] = each.size_m
        forward = frame_from_detections[:3, :3] @ Rotation.from_quat(each.orientation_xyzw).as_matrix()[:, 0]
        row[6] = np.arctan2(forward[1], forward[0])
    return rows.astype(np.float32)


def read_kitti_truth(path: Path, calibration: Calibration, frame_from_camera: F64 = LEVEL_FROM_OPTICAL) -> TruthFrame:
    """Read one file of KITTI's label_2 as what is really there; class names in lower case.

    Args:
        path: the file.
        calibration: that of the frame.
        frame_from_camera: (4, 4), where to put the boxes, from the colour camera's optical frame.

    Raises:
        DataError: missing, or a line that is not a KITTI label.
    """
    objects = read_labels(path, calibration)
    rows: list[list[float]] = []
    areas: list[list[float]] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        columns = line.split()
        if columns:
            values = _image_columns(path, number, columns)
            (areas if columns[0] == "DontCare" else rows).append(values)
    labels = np.array(rows, np.float32).reshape(-1, 7)
    return TruthFrame(
        boxes=level_boxes(objects, frame_from_camera),
        class_names=tuple(each.class_name for each in objects),
        image_boxes=labels[:, 3:],
        truncation=labels[:, 0],
        occlusion=labels[:, 1].astype(np.int64),
        dont_care=np.array(areas, np.float32).reshape(-1, 7)[:, 3:],
    )


def _image_columns(path: Path, number: int, columns: list[str]) -> list[float]:
    """Truncation, occlusion, alpha and the box in the image of one line."""
    try:
        values = [float(value) for value in columns[1:8]]
    except ValueError:
        values = []
    if len(values) != 7:  # noqa: PLR2004 - as many as asked for
        msg = f"{path}:{number}: expected a type and {LABEL_COLUMNS - 1} numbers, got {' '.join(columns)!r}"
        raise DataError(msg)
    return values


def seen_in_image(boxes: F32, camera: CameraModel, camera_from_boxes: F64) -> tuple[F32, F32]:
    """Give the box in the image around each box, and the share of it that the image's edges cut off.

    For boxes that have none, as those of a detector in 3D. The camera is a pinhole without distortion (a rectified image); what
    is nearer to its plane than :data:`NEAREST_M` is cut off first.

    Args:
        boxes: (N, 7).
        camera: size and intrinsics of the image.
        camera_from_boxes: (4, 4) transform of the boxes' frame to the optical one (x right, y down, z forward).

    Returns:
        (N, 4) float32 left, top, right, bottom in pixels within the image, all 0 where nothing is seen; and (N,) float32 0 to
        1, 1 where nothing is seen.
    """
    corners = corners_3d(torch.from_numpy(boxes.astype(np.float64))).numpy()
    points = edges_before_camera(corners @ camera_from_boxes[:3, :3].T + camera_from_boxes[:3, 3])
    pixels = points[..., :2] / points[..., 2:] * (camera.fx, camera.fy) + (camera.cx, camera.cy)
    # -inf to inf where nothing is before the camera, which leaves no area inside
    low, high = np.fmin.reduce(pixels, axis=1, initial=np.inf), np.fmax.reduce(pixels, axis=1, initial=-np.inf)
    edge = (camera.width - 1.0, camera.height - 1.0)
    inside_low, inside_high = np.clip(low, 0.0, edge), np.clip(high, 0.0, edge)
    inside = np.prod(np.maximum(inside_high - inside_low, 0.0), axis=1)
    seen = inside > 0
    whole = np.where(seen, np.prod(high - low, axis=1), 1.0)
    in_image = np.where(seen[:, None], np.hstack([inside_low, inside_high]), 0.0)
    return in_image.astype(np.float32), np.where(seen, 1.0 - inside / whole, 1.0).astype(np.float32)


def edges_before_camera(corners: F64) -> F64:
    """Cut the edges of boxes at the nearest plane: (N, 24, 3), the twelve edges' one ends, then the others; NaN where behind.

    Args:
        corners: (N, 8, 3) of ``corners_3d``, metres in an optical frame (z forward).
    """
    one, two = corners[:, _EDGES[:, 0]], corners[:, _EDGES[:, 1]]
    rise = two[..., 2:] - one[..., 2:]
    share = (NEAREST_M - one[..., 2:]) / np.where(rise == 0, 1.0, rise)
    crossing = one + share * (two - one)
    behind_one, behind_two = one[..., 2:] < NEAREST_M, two[..., 2:] < NEAREST_M
    ends = np.concatenate([np.where(behind_one, crossing, one), np.where(behind_two, crossing, two)], axis=1)
    return np.where(np.concatenate([behind_one & behind_two] * 2, axis=1), np.nan, ends)

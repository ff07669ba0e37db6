"""Rigid transforms of 3D boxes: centres, orientations and covariances from one frame to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from gemini_core.types import F64, Detection3D


def move_boxes(boxes: Sequence[Detection3D], a_from_b: F64) -> tuple[Detection3D, ...]:
    """Bring boxes from frame b to frame a by a rigid (4, 4) transform; orientations stay unit quaternions with w >= 0."""
    if not boxes:
        return ()
    rotation = Rotation.from_matrix(a_from_b[:3, :3])
    centers = np.array([box.center_m for box in boxes]) @ a_from_b[:3, :3].T + a_from_b[:3, 3]
    turned = (rotation * Rotation.from_quat([box.orientation_xyzw for box in boxes])).as_quat(canonical=True)
    moved = zip(boxes, centers.tolist(), turned.tolist(), _turned_covariances(boxes, a_from_b[:3, :3]), strict=True)
    return tuple(
        replace(box, center_m=tuple(center), orientation_xyzw=tuple(orientation), covariance=covariance)
        for box, center, orientation, covariance in moved
    )


def _turned_covariances(boxes: Sequence[Detection3D], rotation: F64) -> list[tuple[float, ...] | None]:
    """Give the covariances of places and of turns by the axes of another frame, None where a box has none."""
    known = [index for index, box in enumerate(boxes) if box.covariance is not None]
    turned: list[tuple[float, ...] | None] = [None] * len(boxes)
    both = np.kron(np.eye(2), rotation)  # (6, 6)
    covariances = both @ np.array([boxes[index].covariance for index in known]).reshape(-1, 6, 6) @ both.T
    for index, covariance in zip(known, covariances.reshape(-1, 36).tolist(), strict=True):
        turned[index] = tuple(covariance)
    return turned

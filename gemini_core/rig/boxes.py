"""3D boxes from one frame of the robot to another."""

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
    return tuple(
        replace(
            box,
            center_m=tuple(center),
            orientation_xyzw=tuple(orientation),
            covariance=None if box.covariance is None else _turned(box.covariance, a_from_b[:3, :3]),
        )
        for box, center, orientation in zip(boxes, centers.tolist(), turned.tolist(), strict=True)
    )


def _turned(covariance: tuple[float, ...], rotation: F64) -> tuple[float, ...]:
    """Give a covariance of a place and of turns by the axes of another frame."""
    both = np.kron(np.eye(2), rotation)  # (6, 6)
    return tuple((both @ np.reshape(covariance, (6, 6)) @ both.T).ravel().tolist())

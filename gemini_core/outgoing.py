"""Which boxes of a perception go out, and in which frame: the same for the node's topic and for a bag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from gemini_core.config import DetectionsConfig
from gemini_core.types import F64, Detection3D, Perception, SensorFrame

NO_POINTS = "expected points of the LiDAR or of a depth image, got neither"


@dataclass(frozen=True, slots=True)
class OutgoingBoxes:
    """Boxes in ``frame_id`` at the reference stamp, the highest scores first."""

    frame_id: str
    boxes: tuple[Detection3D, ...]


def outgoing_boxes(perception: Perception, config: DetectionsConfig) -> OutgoingBoxes | None:
    """Leave out boxes below their class's score and beyond the most, and bring the others to ``detections.frame``.

    None where boxes could not be made or placed for want of points or of a transform: then nothing is known of what is there,
    which an empty list would deny, and boxes in another frame than the one asked for would be taken for boxes in that one.
    """
    frames, boxes = perception.detection_frames, select_boxes(perception.detections, config)
    if frames is None:
        return OutgoingBoxes(perception.frame_id, boxes)
    if perception.grids.points is None:
        return None
    if frames.reference_from_base is None or frames.output_from_reference is None:
        return None
    if frames.output_frame_id == perception.frame_id:
        return OutgoingBoxes(perception.frame_id, boxes)  # as they are, bit for bit
    return OutgoingBoxes(frames.output_frame_id, move_boxes(boxes, frames.output_from_reference))


def why_no_boxes(frame: SensorFrame) -> str:
    """Say what a frame with its calibration lacks for boxes, "" where it lacks nothing or none are asked for."""
    frames = None if frame.calibration is None else frame.calibration.detections
    if frames is None:
        return ""
    if frames.detail:
        return frames.detail
    return NO_POINTS if frame.lidar is None and frame.depth is None else ""


def select_boxes(boxes: Sequence[Detection3D], config: DetectionsConfig) -> tuple[Detection3D, ...]:
    """Keep the boxes that reach their class's score (``min_score`` where the class is unknown), the highest first."""
    least = config.least_scores()
    kept = [box for box in boxes if box.score >= least.get(box.class_name, config.min_score)]
    return tuple(sorted(kept, key=lambda box: -box.score)[: config.max_boxes])


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

"""Which boxes of a perception go out, and in which frame: the same for the node's topic and for a bag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gemini_core.config.sections import DetectionsConfig
from gemini_core.rig.boxes import move_boxes
from gemini_core.types import Detection3D, Perception, SensorFrame

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

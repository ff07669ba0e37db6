"""The boxes on the demo's page: in the image and from above, and how they compare with the recording's ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from gemini_core.bag.kitti import GROUND_TRUTH_TOPIC
from gemini_core.bag.messages import read_detections
from gemini_core.bag.reader import BagReader
from gemini_core.config.fusion import FusionConfig
from gemini_core.evaluate.box_pictures import (
    ShownBoxes,
    birds_eye,
    box_colors,
    camera_wedge,
    draw_boxes_in_image,
    found_boxes,
    truth_boxes,
)
from gemini_core.evaluate.detection_labels import level_boxes
from gemini_core.files import write_png
from gemini_core.model.detection.boxes import iou_bev, points_in_boxes
from gemini_core.rig.geometry import invert_transform
from gemini_core.types import F32, F64, CameraModel, Detection3D, GridGeometry, Perception
from gemini_ros.tools.demo_report import Fact, Picture

RIGHT_IOU, NEAR_M = 0.5, 30.0
_SHOWN_M = (-2.0, -22.0, 46.0, 22.0)
_HEIGHT_PX = 480
_LEAST_POINTS = 5


@dataclass(slots=True)
class BoxTally:
    """What was there, within :data:`NEAR_M` and seen by points, and what of it was found, by class."""

    there: dict[str, int] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    wrong: int = 0

    def facts(self) -> tuple[Fact, ...]:
        """Say it for people; nothing without labelled boxes."""
        if not self.frames:
            return ()
        shares = ", ".join(f"{self.found.get(name, 0)} of {number} {name}" for name, number in sorted(self.there.items()))
        measure = f"within {NEAR_M:g} m, overlapping by half from above"
        wrong = f"{self.wrong / self.frames:.1f} other boxes a frame"
        return (Fact(f"live boxes against the ground truth, {measure}", f"{shares or 'nothing was there'}; {wrong}"),)


def truth_by_stamp(bag: Path) -> dict[int, tuple[str, tuple[Detection3D, ...]]]:
    """Give the labelled boxes of a bag with their frame, by stamp; none where it has none."""
    with BagReader(bag) as reader:
        if GROUND_TRUTH_TOPIC not in {topic.name for topic in reader.topics()}:
            return {}
        found = {}
        for stored in reader.messages((GROUND_TRUTH_TOPIC,)):
            header = stored.message.header
            stamp_ns = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
            found[stamp_ns] = header.frame_id, read_detections(stored.message)
        return found


class BoxPage:
    """Draws the boxes of frames, and counts those of all of them in ``tally``."""

    def __init__(self, out: Path, config: FusionConfig, truth: Mapping[int, tuple[str, tuple[Detection3D, ...]]]) -> None:
        """Begin with nothing counted.

        Args:
            out: the page's folder.
            config: the node's configuration.
            truth: of ``truth_by_stamp``; boxes count where they are in the reference image's frame.
        """
        self._out = out
        self._config = config
        self._truth = truth
        self.tally = BoxTally()

    def frame(self, perception: Perception, live: Sequence[Detection3D] | None, *, draw: bool) -> list[Picture]:
        """Count a frame's boxes, and draw them as published live, with the labelled ones, in the image and from above.

        Args:
            perception: the replay's.
            live: the boxes that the node published; None: it published none for want of something.
            draw: write pictures; else there are none.
        """
        points, frames, camera = perception.grids.points, perception.detection_frames, perception.grids.camera
        if live is None or points is None or camera is None or frames is None or frames.output_from_reference is None:
            return [Picture("boxes: unknown for want of points or a transform", "")] if draw else []
        base_from_reference = invert_transform(points.reference_from_base)
        names = self._config.detections.classes
        known = [box for box in live if box.class_name in names]
        boxes = level_boxes(known, base_from_reference @ invert_transform(frames.output_from_reference))
        shown: list[ShownBoxes] = []
        frame_id, labelled = self._truth.get(perception.stamp_ns, ("", ()))
        if frame_id == perception.frame_id:
            labelled = tuple(box for box in labelled if box.class_name in names)
            there = level_boxes(labelled, base_from_reference)
            shown.append(truth_boxes(there))
            _count(self.tally, (there, labelled), (boxes, known), points.points_m)
        if not draw:
            return []
        classes = np.array([names.index(box.class_name) for box in known], np.int64)
        scores = np.array([box.score for box in known], np.float32)
        shown.append(found_boxes(boxes, classes, scores, names, box_colors(names, self._config.model.classes)))
        reference = reference_camera(camera, perception.grids.geometry)
        in_image, above = (f"frames/{perception.index:04d}_{what}.png" for what in ("boxes", "above"))
        write_png(self._out / in_image, draw_boxes_in_image(perception.image, shown, reference, points.reference_from_base))
        wedge = camera_wedge(camera, points.reference_from_base)
        write_png(self._out / above, birds_eye(points.points_m, shown, _SHOWN_M, _HEIGHT_PX, wedge))
        green = ", ground truth in green" if len(shown) > 1 else ""
        return [Picture(f"boxes, as published live{green}", in_image), Picture(f"the same from above{green}", above)]


def reference_camera(camera: CameraModel, geometry: GridGeometry) -> CameraModel:
    """Give the intrinsics of the whole reference image from those of the grid (``GridGeometry``)."""
    return CameraModel(
        geometry.reference_width,
        geometry.reference_height,
        camera.fx / geometry.scale_x,
        camera.fy / geometry.scale_y,
        (camera.cx + 0.5) / geometry.scale_x + geometry.left - 0.5,
        (camera.cy + 0.5) / geometry.scale_y + geometry.top - 0.5,
        camera.distortion_model,
        camera.distortion,
    )


def _count(
    tally: BoxTally, there: tuple[F32, Sequence[Detection3D]], found: tuple[F32, Sequence[Detection3D]], points_m: F32
) -> None:
    """Match boxes of the same class, the best pairs first; each side is (N, 7) and what they are."""
    tally.frames += 1
    near = [np.hypot(boxes[:, 0], boxes[:, 1]) < NEAR_M for boxes, _ in (there, found)]
    overlap: F64 = iou_bev(*(torch.from_numpy(boxes.astype(np.float64)) for boxes, _ in (there, found))).numpy()
    same = [[one.class_name == other.class_name for other in found[1]] for one in there[1]]
    overlap = np.where(np.array(same, np.bool_).reshape(overlap.shape), overlap, 0.0)
    taken: set[int] = set()
    for row in np.argsort(-overlap.max(axis=1, initial=0.0), kind="stable"):
        best = int(overlap[row].argmax()) if overlap.shape[1] else -1
        right = best >= 0 and overlap[row, best] >= RIGHT_IOU and best not in taken
        if right:
            taken.add(best)
        if near[0][row] and _points_in(there[0][row], points_m) >= _LEAST_POINTS:
            name = there[1][row].class_name
            tally.there[name] = tally.there.get(name, 0) + 1
            tally.found[name] = tally.found.get(name, 0) + right
    tally.wrong += sum(1 for column in np.flatnonzero(near[1]) if column not in taken)


def _points_in(box: F32, points_m: F32) -> int:
    return int(points_in_boxes(torch.from_numpy(points_m), torch.from_numpy(box[None])).sum())

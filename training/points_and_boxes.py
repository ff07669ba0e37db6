"""Point clouds, labelled 3D boxes and camera of one frame; how they are augmented, and kept in shards.

Everything is in the base frame (``detections.base_frame``): x forward, y left, z up, metres. A frame's numbers are kept as
tensors of a shard, those of all its frames joined, with the row at which each frame begins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gemini_core.evaluate.box_pictures import camera_wedge
from gemini_core.model.detection.boxes import points_in_boxes
from gemini_core.model.detection.interface import Cloud
from gemini_core.model.detection.pillars.encoder import BevGrid
from gemini_core.types import F32, F64, I64, AlignedPoints, Bool, CameraModel, PointSource

SOURCES: tuple[PointSource, ...] = ("lidar", "depth")
_PIXEL_STEPS = 32  # of a pixel, in which shards keep places on the grid: up to 1023 in 16 bits


@dataclass(frozen=True, slots=True, eq=False)
class PointSet:
    """Points of one source: ``values`` (N, 4) float32 x, y, z, intensity; ``pixels`` (N, 2) float32; ``visible`` (N,) bool.

    Pixels are on the frame's grid, and count where the image sees the point.
    """

    values: F32
    pixels: F32
    visible: Bool

    def take(self, which: Bool | I64) -> PointSet:
        """Give some of the points."""
        return PointSet(self.values[which], self.pixels[which], self.visible[which])

    def joined(self, other: PointSet) -> PointSet:
        """Give these points and others."""
        return PointSet(
            np.concatenate([self.values, other.values]),
            np.concatenate([self.pixels, other.pixels]),
            np.concatenate([self.visible, other.visible]),
        )

    def cloud(self) -> Cloud:
        """Give the points as the detector takes them."""
        return Cloud(*(torch.from_numpy(np.ascontiguousarray(each)) for each in (self.values, self.pixels, self.visible)))


@dataclass(frozen=True, slots=True)
class FieldOfView:
    """What the camera sees of the ground: from (x, y), directions up to ``half_rad`` to both sides of ``middle_rad``."""

    x_m: float
    y_m: float
    middle_rad: float
    half_rad: float

    def holds(self, xy: Tensor) -> Tensor:
        """Which of (..., 2) places are seen: (...) bool."""
        away = torch.atan2(xy[..., 1] - self.y_m, xy[..., 0] - self.x_m) - self.middle_rad
        return torch.atan2(away.sin(), away.cos()).abs() <= self.half_rad


@dataclass(frozen=True, slots=True, eq=False)
class GridCamera:
    """The reference camera on the grid: intrinsics and (4, 4) ``reference_from_base``. Distortion is left out of account."""

    fx: float
    fy: float
    cx: float
    cy: float
    reference_from_base: F64

    def project(self, places: F64) -> F64:
        """Give u, v and z of (N, 3) places: (N, 3); u and v mean nothing where z is not above 0."""
        x, y, z = (places @ self.reference_from_base[:3, :3].T + self.reference_from_base[:3, 3]).T
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.stack([self.fx * x / z + self.cx, self.fy * y / z + self.cy, z], axis=1)

    def field_of_view(self, width: int, height: int) -> FieldOfView:
        """Give what a grid of this size sees of the ground."""
        camera = CameraModel(width, height, self.fx, self.fy, self.cx, self.cy)
        return FieldOfView(*camera_wedge(camera, self.reference_from_base))

    def same(self, other: GridCamera) -> bool:
        """Whether a thing at the same place is seen at the same pixel."""
        ours, theirs = (np.array([each.fx, each.fy, each.cx, each.cy]) for each in (self, other))
        return np.allclose(ours, theirs) and np.allclose(self.reference_from_base, other.reference_from_base, atol=1e-6)


@dataclass(frozen=True, slots=True, eq=False)
class PointsAndBoxes:
    """Points and labelled boxes of one frame, and the camera that looks at them.

    ``points`` by source, those that the frame has. ``boxes`` (M, 7) float32 (``model/detection/boxes.py``), ``classes`` (M,)
    int64 and ``counts`` (M,) int64: how many points of the LiDAR, or of depth where there is no LiDAR, are inside.
    """

    points: Mapping[PointSource, PointSet]
    boxes: F32
    classes: I64
    counts: I64
    camera: GridCamera
    field_of_view: FieldOfView

    def cloud(self, source: PointSource) -> Cloud:
        """Give the points of a source, of the other one where the frame lacks it; none where it has neither."""
        points = self.points.get(source) or next(iter(self.points.values()), None)
        return _NO_POINTS.cloud() if points is None else points.cloud()

    def mirrored(self, width: int) -> PointsAndBoxes:
        """Swap left and right, on a grid of this width as well."""
        points = {
            source: PointSet(own.values * _MIRROR, own.pixels * _FLIP + np.array([width - 1, 0], np.float32), own.visible)
            for source, own in self.points.items()
        }
        boxes = self.boxes * np.array([1, -1, 1, 1, 1, 1, -1], np.float32)
        seen = replace(self.field_of_view, y_m=-self.field_of_view.y_m, middle_rad=-self.field_of_view.middle_rad)
        return replace(self, points=points, boxes=boxes, field_of_view=seen)

    def turned(self, angle_rad: float, factor: float) -> PointsAndBoxes:
        """Turn everything about the z axis and scale it; pixels stay, since they say what the camera saw there."""
        cos, sin = np.float32(math.cos(angle_rad)), np.float32(math.sin(angle_rad))
        matrix = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float32) * np.float32(factor)
        points = {
            source: replace(own, values=np.hstack([own.values[:, :3] @ matrix.T, own.values[:, 3:]]))
            for source, own in self.points.items()
        }
        boxes = np.hstack([self.boxes[:, :3] @ matrix.T, self.boxes[:, 3:6] * np.float32(factor), self.boxes[:, 6:]])
        boxes[:, 6] += np.float32(angle_rad)
        x, y = matrix[:2, :2] @ np.array([self.field_of_view.x_m, self.field_of_view.y_m], np.float32)
        middle_rad = self.field_of_view.middle_rad + angle_rad
        seen = replace(self.field_of_view, x_m=float(x), y_m=float(y), middle_rad=middle_rad)
        return replace(self, points=points, boxes=boxes.astype(np.float32), field_of_view=seen)


_MIRROR, _FLIP = np.array([1, -1, 1, 1], np.float32), np.array([-1, 1], np.float32)
_NO_POINTS = PointSet(np.zeros((0, 4), np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.bool_))


def point_set(points: AlignedPoints) -> PointSet:
    """Take what projection made of a frame's points."""
    return PointSet(np.hstack([points.points_m, points.intensity[:, None]]), points.pixels, points.visible)


def points_and_boxes_of(
    points: Mapping[PointSource, AlignedPoints], boxes: F32, classes: I64, camera: CameraModel, base: F64
) -> PointsAndBoxes:
    """Put together the points and boxes of a frame, and count which are in which.

    Args:
        points: by source.
        boxes: (M, 7) in the base frame.
        classes: (M,).
        camera: the reference camera at grid size.
        base: (4, 4) ``reference_from_base``.
    """
    sets = {source: point_set(own) for source, own in points.items()}
    counted = next((sets[source] for source in SOURCES if source in sets), _NO_POINTS)
    counts = inside(counted, boxes).sum(axis=1)
    on_grid = GridCamera(camera.fx, camera.fy, camera.cx, camera.cy, base)
    seen = on_grid.field_of_view(camera.width, camera.height)
    return PointsAndBoxes(sets, boxes, classes, counts.astype(np.int64), on_grid, seen)


def inside(points: PointSet, boxes: F32) -> Bool:
    """Which points are in which of (M, 7) boxes: (M, N) bool."""
    found: Bool = points_in_boxes(torch.from_numpy(points.values[:, :3]), torch.from_numpy(boxes)).numpy()
    return found


def in_view(views: Sequence[FieldOfView], grid: BevGrid, like: Tensor) -> Tensor:
    """Which cells of a grid each view sees: (B, 1, rows, columns), 1 or 0, as ``like`` is typed and placed."""
    x = grid.x_min_m + (torch.arange(grid.columns, device=like.device) + 0.5) * grid.cell_m
    y = grid.y_min_m + (torch.arange(grid.rows, device=like.device) + 0.5) * grid.cell_m
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (rows, columns, 2)
    return torch.stack([view.holds(places) for view in views])[:, None].to(like.dtype)


# --------------------------------------------------------------------------------------------------------------------
# On disk


def pack_points_and_boxes(frames: Sequence[PointsAndBoxes]) -> dict[str, Tensor]:
    """Put the points and boxes of a shard's frames into tensors."""
    tensors: dict[str, Tensor] = {}

    def joined(name: str, parts: Sequence[np.ndarray[Any, Any]]) -> None:
        tensors[name] = torch.from_numpy(np.concatenate(parts))
        tensors[f"{name}.at"] = torch.tensor([0, *np.cumsum([len(part) for part in parts])])

    for source in SOURCES:
        sets = [frame.points.get(source, _NO_POINTS) for frame in frames]
        joined(f"{source}.values", [each.values for each in sets])
        steps = [np.clip(np.rint(each.pixels * _PIXEL_STEPS), -(1 << 15), (1 << 15) - 1).astype(np.int16) for each in sets]
        joined(f"{source}.pixels", steps)
        joined(f"{source}.visible", [each.visible for each in sets])
        tensors[f"{source}.there"] = torch.tensor([source in frame.points for frame in frames])
    joined("boxes", [frame.boxes for frame in frames])
    joined("box_classes", [frame.classes for frame in frames])
    joined("box_counts", [frame.counts for frame in frames])
    cameras = [[*frame.camera.reference_from_base.ravel(), *_intrinsics(frame.camera)] for frame in frames]
    tensors["rig"] = torch.tensor(np.array(cameras))
    return tensors


def unpack_points_and_boxes(file: Any, row: int, width: int, height: int) -> PointsAndBoxes | None:  # noqa: ANN401 - safetensors has no types
    """Read one frame of an opened shard whose grid has this size; None where the shard has no points and boxes."""
    names = set(file.keys())
    if "rig" not in names:
        return None

    def part(name: str) -> Any:  # noqa: ANN401 - arrays of several types
        start, end = file.get_slice(f"{name}.at")[row : row + 2].tolist()
        return file.get_slice(name)[start:end].numpy()

    points = {
        source: PointSet(
            part(f"{source}.values"),
            part(f"{source}.pixels").astype(np.float32) / np.float32(_PIXEL_STEPS),
            part(f"{source}.visible"),
        )
        for source in SOURCES
        if bool(file.get_slice(f"{source}.there")[row])
    }
    numbers = file.get_slice("rig")[row].numpy()
    fx, fy, cx, cy = numbers[16:].tolist()
    camera = GridCamera(fx, fy, cx, cy, numbers[:16].reshape(4, 4))
    seen = camera.field_of_view(width, height)
    return PointsAndBoxes(points, part("boxes"), part("box_classes"), part("box_counts"), camera, seen)


def _intrinsics(camera: GridCamera) -> tuple[float, float, float, float]:
    return camera.fx, camera.fy, camera.cx, camera.cy

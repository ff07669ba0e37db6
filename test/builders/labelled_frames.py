"""Points and labelled boxes of one frame, as a camera on the grid sees them."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.spatial.transform import Rotation

from boxed_bags import (
    OPTICAL_FROM_LEVEL,
)
from labelled_bags import SIZE
from training.points_and_boxes import (
    GridCamera,
    PointsAndBoxes,
    PointSet,
    inside,
)

LEVEL_CAMERA = GridCamera(60.0, 60.0, 31.5, 31.5, OPTICAL_FROM_LEVEL)


def moved_camera(x=0.4, y=-0.3, z=1.2, yaw=0.2, pitch=0.1, **changes):
    """A camera that stands and looks where nothing is zero."""
    base_from_camera = np.eye(4)
    base_from_camera[:3, :3] = Rotation.from_euler("zy", [yaw, pitch]).as_matrix() @ np.linalg.inv(OPTICAL_FROM_LEVEL[:3, :3])
    base_from_camera[:3, 3] = x, y, z
    return dataclasses.replace(GridCamera(70.0, 65.0, 28.0, 35.0, np.linalg.inv(base_from_camera)), **changes)


def seen_points(places, camera):
    """A set of points (N, 3) as a camera on the grid sees them."""
    places = np.asarray(places, np.float64).reshape(-1, 3)
    projected = camera.project(places)
    values = np.hstack([places, np.full((len(places), 1), 0.5)]).astype(np.float32)
    pixels = np.where(projected[:, 2:] > 0, projected[:, :2], 0.0).astype(np.float32)
    within = (projected[:, 2] > 0) & (pixels >= -0.5).all(axis=1) & (pixels < SIZE - 0.5).all(axis=1)
    return PointSet(values, pixels, within)


def labelled_with(boxes, classes, points, camera=LEVEL_CAMERA):
    """A frame whose points are the LiDAR's, with these boxes."""
    boxes = np.array(boxes, np.float32).reshape(-1, 7)
    counts = inside(points, boxes).sum(axis=1).astype(np.int64)
    return PointsAndBoxes(
        {"lidar": points}, boxes, np.array(classes, np.int64), counts, camera, camera.field_of_view(SIZE, SIZE)
    )


def some_labelled(seed, camera=LEVEL_CAMERA, count=50):
    rng = np.random.default_rng(seed)
    places = rng.uniform([2, -4, -1], [12, 4, 1.5], (count, 3))
    boxes = np.hstack(
        [rng.uniform([3, -3, -0.5], [9, 3, 0.5], (3, 3)), rng.uniform(0.5, 3, (3, 3)), rng.uniform(-3, 3, (3, 1))]
    )
    return labelled_with(boxes, [0, 1, 0], seen_points(places, camera), camera)

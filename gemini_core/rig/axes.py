"""Axes of camera frames (REP 103): optical ones have z forward and y down, those of a body x forward and z up."""

from __future__ import annotations

import math

import numpy as np

from gemini_core.types import F64, CameraModel, CloudSample, Doubt, Modality, SensorFrame

_NEARLY = math.cos(math.radians(30))
_X, _Z = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])
_MOST_POINTS = 1000
"""Of a sweep, spread over it; a camera that sees a hundredth of it has 10 of these in its image."""

_FEWEST_POINTS, _FEWEST_WITH_AXES = 100, 10
"""None of so many in the image says something; where the axes say the same, of so few."""

_MARGIN = 0.2
"""Of an image's size, for the distortion, which is not looked at here."""


def axes_doubts(frame: SensorFrame) -> tuple[Doubt, ...]:
    """Say of a resolved frame where its transforms turn a camera away from what the others see.

    Where the frame of a camera has body axes and is taken for optical, the camera looks along what is up, and sees what is
    ahead to its right: no point of the LiDAR falls into its image, and another camera looks along its x.
    """
    calibration, found = frame.calibration, []
    if calibration is None:
        return ()
    reference, from_lidar = calibration.reference, calibration.reference_from_lidar
    if frame.lidar is not None and from_lidar is not None and reference is not None:
        found += _lidar_doubts(frame.lidar, from_lidar, reference, frame.frame_id)
    if frame.depth is not None and calibration.reference_from_depth is not None:
        found += _camera_doubts("depth", frame.depth.frame_id, calibration.reference_from_depth, frame.frame_id)
    if frame.event is not None and calibration.reference_from_event is not None:
        found += _camera_doubts("event", frame.event.frame_id, calibration.reference_from_event, frame.frame_id)
    return tuple({(doubt.about, doubt.reason): doubt for doubt in reversed(found)}.values())


def _lidar_doubts(sweep: CloudSample, reference_from_lidar: F64, camera: CameraModel, frame_id: str) -> list[Doubt]:
    """Doubts where a sweep has points, and none of them is in the image."""
    points = sweep.points[:, :: -(-sweep.points.shape[1] // _MOST_POINTS) or 1].astype(np.float64)  # (3, n)
    looks_up = _Z @ reference_from_lidar[:3, :3] @ _Z > _NEARLY  # the line of sight is the LiDAR's up
    if points.shape[1] < (_FEWEST_WITH_AXES if looks_up else _FEWEST_POINTS):
        return []
    x, y, z = reference_from_lidar[:3, :3] @ points + reference_from_lidar[:3, 3:]  # (n,) each
    ahead = z > 0
    u, v = camera.fx * x[ahead] / z[ahead] + camera.cx, camera.fy * y[ahead] / z[ahead] + camera.cy
    wide, high = _MARGIN * camera.width, _MARGIN * camera.height
    if np.any((u > -wide) & (u < camera.width + wide) & (v > -high) & (v < camera.height + high)):
        return []
    sentence = f"no point of the sweep in {sweep.frame_id!r} falls into the image of {frame_id!r}"
    if looks_up:
        return [Doubt("rgb", "body_axes", f"{sentence}, as if the camera looked straight up: {_question(frame_id)}")]
    return [Doubt("lidar", "outside_image", f"{sentence}: is the transform between them right?")]


def _camera_doubts(modality: Modality, frame_id: str, reference_from_camera: F64, reference_id: str) -> list[Doubt]:
    """Doubts where one of two cameras looks along the x of the other."""
    rotation: F64 = reference_from_camera[:3, :3]
    turned = f"as if {frame_id!r} looked a quarter turn away from {reference_id!r}"
    if _X @ rotation @ _Z > _NEARLY:
        return [Doubt("rgb", "body_axes", f"the transforms are {turned}: {_question(reference_id)}")]
    if _Z @ rotation @ _X > _NEARLY:
        return [Doubt(modality, "body_axes", f"the transforms are {turned}: {_question(frame_id)}")]
    return []


def _question(frame_id: str) -> str:
    return (
        f"does {frame_id!r} have body axes (x forward, z up)? Images take an optical frame (z forward, y down; REP 103), such "
        f"as {frame_id.removesuffix('_link').removesuffix('_frame')}_optical_frame"
    )

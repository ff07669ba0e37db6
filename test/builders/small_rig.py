"""Samples of a small rig of four sensors, 64 x 48, whose stamps are given in milliseconds."""

from __future__ import annotations

import functools

import numpy as np

from configs import beside_rgb
from gemini_core.rig.geometry import transform_matrix
from gemini_core.types import (
    CameraInfoSample,
    CameraModel,
    CloudSample,
    DepthSample,
    EventSample,
    ImageSample,
    Modality,
    Sample,
    StampedTransform,
    TransformSample,
)

MS = 1_000_000
CAMERA = CameraModel(64, 48, 50.0, 50.0, 31.5, 23.5)
TURN = (0.5, -0.5, 0.5, 0.5)  # to optical axes (right, down, forward) from LiDAR axes (forward, left, up)


config = functools.partial(beside_rgb, base={"grid.width": 64, "grid.height": 48})


def rgb(stamp_ms: int, width: int = 64, height: int = 48) -> ImageSample:
    return ImageSample(stamp_ms * MS, "camera", np.full((height, width, 3), 128, np.uint8))


def depth(stamp_ms: int) -> DepthSample:
    return DepthSample(stamp_ms * MS, "depth", np.full((48, 64), 2.0, np.float32))


def sweep(stamp_ms: int) -> CloudSample:
    stamp_ns = stamp_ms * MS
    points = np.array([[5.0], [0.0], [0.0]], np.float32)
    return CloudSample(stamp_ns, "lidar", points, np.ones(1, np.float32), None, None, stamp_ns, stamp_ns)


def packet(stamp_ms: int, end_ms: int) -> EventSample:
    time_ns = np.array([stamp_ms * MS], np.int64)
    pixel = np.array([7], np.uint16)
    return EventSample(stamp_ms * MS, "event", 64, 48, pixel, pixel, np.ones(1, np.uint8), time_ns, end_ms * MS)


def info(modality: Modality, camera: CameraModel = CAMERA) -> CameraInfoSample:
    return CameraInfoSample(0, modality, modality, camera)


def fixed(child: str) -> TransformSample:
    turn = TURN if child == "lidar" else (0.0, 0.0, 0.0, 1.0)
    return TransformSample(0, True, (StampedTransform(0, "camera", child, transform_matrix((0.0, 0.0, 0.0), turn)),))


def odometry(stamp_ms: int) -> TransformSample:
    return TransformSample(stamp_ms * MS, False, (StampedTransform(stamp_ms * MS, "odom", "camera", np.eye(4)),))


RIG: list[Sample] = [info("rgb"), info("depth"), info("event"), fixed("depth"), fixed("event"), fixed("lidar")]
ALL = ("depth", "event", "lidar")


def moment(stamp_ms: int) -> list[Sample]:
    """What every sensor gives around one image."""
    return [
        packet(stamp_ms - 20, stamp_ms - 1),
        depth(stamp_ms),
        sweep(stamp_ms),
        rgb(stamp_ms),
        packet(stamp_ms, stamp_ms + 5),
    ]

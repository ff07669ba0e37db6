"""Poses, and complete frames of sensors on a rig."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from gemini_core.types import (
    MODALITIES,
    CloudSample,
    DepthSample,
    EventWindow,
    FrameCalibration,
    FrameHeader,
    ImageSample,
    ModalityStatus,
    SensorFrame,
)


def pose(
    x: float = 0.0, y: float = 0.0, z: float = 0.0, *, roll: float = 0.0, pitch: float = 0.0, yaw: float = 0.0
) -> np.ndarray:
    """A transform (4, 4): turns in radians about x, then y, then z, and a shift in metres after them."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("ZYX", (yaw, pitch, roll)).as_matrix()
    matrix[:3, 3] = x, y, z
    return matrix


def sensor_frame(
    pixels: np.ndarray,
    calibration: FrameCalibration | None,
    *,
    depth_m: np.ndarray | None = None,
    lidar: CloudSample | None = None,
    event: EventWindow | None = None,
    stamp_ns: int = 0,
    index: int = 0,
) -> SensorFrame:
    """A frame of an image (H, W, 3), and of depth (H, W), points and events where they are given; the others are late."""
    given = {"rgb": pixels, "depth": depth_m, "event": event, "lidar": lidar}
    present = {name: given[name] is not None for name in MODALITIES}
    status = tuple(ModalityStatus(name, there, "" if there else "late", 0) for name, there in present.items())
    image = ImageSample(stamp_ns, "camera", pixels)
    depth = None if depth_m is None else DepthSample(stamp_ns, "depth", depth_m)
    return SensorFrame(FrameHeader(index, stamp_ns, "camera", status), image, depth, lidar, event, calibration)

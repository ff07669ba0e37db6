"""Rectification: the reference image without its lens's distortion."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from gemini_core.rig.geometry import project_points, ray_table
from gemini_core.types import U16, CameraModel, SensorFrame

_I16: TypeAlias = npt.NDArray[np.int16]

_OUTSIDE = -2.0  # a place that is in no image


def rectify(frame: SensorFrame) -> SensorFrame:
    """Bend the reference image to what a pinhole camera of the same intrinsics sees, and make that camera the reference.

    Size and K stay, but for its skew. Pixels that the lens did not see are black; linear interpolation, to 1/32 of a pixel. A
    frame without intrinsics of its reference, or with an image that has no distortion, stays as it is.
    """
    calibration = frame.calibration
    camera = None if calibration is None else calibration.reference
    if calibration is None or camera is None or (camera.distortion_model == "none" and not camera.skew):
        return frame
    straight, places, fractions = _map(camera)
    pixels = np.asarray(cv2.remap(frame.rgb.pixels, places, fractions, cv2.INTER_LINEAR), np.uint8)
    return dataclasses.replace(
        frame,
        rgb=dataclasses.replace(frame.rgb, pixels=pixels),
        calibration=dataclasses.replace(calibration, reference=straight),
    )


@lru_cache(maxsize=2)  # one rig has one reference; the other place serves a resolution that changes and comes back
def _map(camera: CameraModel) -> tuple[CameraModel, _I16, U16]:
    """The camera without distortion, and where each of its pixels is in the raw image, as OpenCV's remap takes it."""
    straight = dataclasses.replace(camera, distortion_model="none", distortion=(), skew=0.0)
    pixels, _, visible = project_points(camera, ray_table(straight).reshape(3, -1))
    last = np.array([[camera.width - 1], [camera.height - 1]], np.float32)
    pixels = np.where(visible, np.clip(pixels, 0.0, last), np.float32(_OUTSIDE))  # half a pixel at the edges is the edge's
    u, v = pixels.reshape(2, camera.height, camera.width)
    places, fractions = cv2.convertMaps(u, v, cv2.CV_16SC2)
    return straight, np.asarray(places, np.int16), np.asarray(fractions, np.uint16)

"""The LiDAR sweep on the grid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from gemini_core.config import LidarConfig
from gemini_core.geometry import project_points, transform_points, z_buffer
from gemini_core.types import F32, F64, AlignedGrid, Bool, CameraModel, CloudSample


def align_lidar(sample: CloudSample, grid_camera: CameraModel, reference_from_lidar: F64, config: LidarConfig) -> AlignedGrid:
    """Project every point into the grid; the one nearest to the reference camera wins a pixel.

    Args:
        sample: the sweep.
        grid_camera: the reference camera at grid size.
        reference_from_lidar: (4, 4) from the LiDAR's frame to the reference's optical frame.
        config: ranges of the channels, and how many pixels a point covers.

    Returns:
        Channels: distance from the LiDAR, height above it (its frame's z), intensity, each scaled to [0, 1] by the
        configuration; ``depth_m`` along the reference camera's z.
    """
    pixels, z, visible = project_points(grid_camera, transform_points(reference_from_lidar, sample.points))
    z[~visible] = np.nan  # which the z-buffer leaves out
    index = z_buffer(pixels, z, grid_camera.height, grid_camera.width, config.point_size_px)
    channels = np.empty((3, *index.shape), np.float32)
    valid = np.empty(index.shape, np.bool_)
    depth_m = np.empty(index.shape, np.float32)
    heights = np.float32(config.min_height_m), np.float32(config.max_height_m)
    _encode(
        index,
        np.ascontiguousarray(sample.points),
        np.ascontiguousarray(sample.intensity),
        z,
        np.float32(config.max_m),
        heights,
        np.float32(config.max_intensity),
        channels,
        valid,
        depth_m,
    )
    return AlignedGrid("lidar", channels, valid, depth_m)


_POINTS_IN, _VALUES_IN = (  # these also take arrays that may be written to
    f"Array(float32, {dimensions}, 'C', readonly=True, aligned=False)" for dimensions in (2, 1)
)
_ENCODED = "float32[:,:,::1], b1[:,::1], float32[:,::1]"


@njit(
    f"void(int32[:,::1], {_POINTS_IN}, {_VALUES_IN}, float32[::1], float32, UniTuple(float32, 2), float32, {_ENCODED})",
    cache=True,
    error_model="numpy",
)
def _encode(  # noqa: PLR0917 - compiled functions take arguments by position
    index: npt.NDArray[np.int32],
    points: F32,
    intensity: F32,
    z: F32,
    max_m: float,
    heights: tuple[np.float32, np.float32],
    max_intensity: float,
    channels: F32,
    valid: Bool,
    depth_m: F32,
) -> None:
    """Fill the grid from the point that each pixel sees (-1: none), in one pass over memory."""
    zero, one = np.float32(0.0), np.float32(1.0)
    lowest, highest = heights
    for row in range(index.shape[0]):
        for column in range(index.shape[1]):
            i = index[row, column]
            valid[row, column] = i >= 0
            if i < 0:
                channels[0, row, column] = channels[1, row, column] = channels[2, row, column] = zero
                depth_m[row, column] = np.nan
                continue
            x, y, height = points[0, i], points[1, i], points[2, i]
            channels[0, row, column] = min(np.sqrt(x * x + y * y + height * height) / max_m, one)
            channels[1, row, column] = min(max((height - lowest) / (highest - lowest), zero), one)
            channels[2, row, column] = min(max(intensity[i] / max_intensity, zero), one)
            depth_m[row, column] = z[i]

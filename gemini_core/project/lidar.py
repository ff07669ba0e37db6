"""LiDAR projection: a sweep on the grid, with a z-buffer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gemini_core.compiling import compiled
from gemini_core.config.sections import LidarConfig
from gemini_core.project.densify import densify
from gemini_core.project.deskew import deskew_points
from gemini_core.rig.geometry import project_points, transform_points, z_buffer
from gemini_core.types import F32, F64, I32, AlignedGrid, Bool, CameraModel, CloudSample, SweepMotion


@dataclass(frozen=True, slots=True, eq=False)
class PlacedCloud:
    """A sweep's points where the reference camera was at its stamp.

    ``points`` (3, N) float32 metres in the reference's optical frame; ``pixels`` (2, N), ``z`` (N,) and ``inside`` (N,) as
    ``project_points`` gives them of the grid's camera; ``index`` (h, w) int32, the point that each pixel sees, -1: none, by a
    z-buffer in which a point covers ``point_size_px``.
    """

    points: F32
    pixels: F32
    z: F32
    inside: Bool
    index: I32
    point_size_px: int


def place_cloud(
    sample: CloudSample,
    grid_camera: CameraModel,
    reference_from_lidar: F64,
    motion: SweepMotion | None = None,
    point_size_px: int = 1,
) -> PlacedCloud:
    """Bring a sweep to the reference and project it; see :func:`align_lidar` for the arguments."""
    if motion is not None and sample.time_ns is not None:
        points = deskew_points(sample.points, sample.time_ns, motion)
    else:
        points = transform_points(reference_from_lidar, sample.points)
    pixels, z, inside = project_points(grid_camera, points)
    index = z_buffer(pixels, z, inside, (grid_camera.height, grid_camera.width), point_size_px)
    return PlacedCloud(points, pixels, z, inside, index, point_size_px)


def align_lidar(
    sample: CloudSample,
    grid_camera: CameraModel,
    reference_from_lidar: F64,
    config: LidarConfig,
    motion: SweepMotion | None = None,
) -> AlignedGrid:
    """Project every point into the grid; the one nearest to the reference camera wins a pixel.

    Args:
        sample: the sweep.
        grid_camera: the reference camera at grid size.
        reference_from_lidar: (4, 4) from the LiDAR's frame to the reference's optical frame.
        config: encoding and ranges of the channels, how many pixels a point covers, and how far it fills gaps.
        motion: the LiDAR's poses during the sweep, which then count for each point instead of ``reference_from_lidar``; only
            for a sweep with point times.

    Returns:
        Channels by ``config.encoding``, with range the distance from the LiDAR and height the z of its frame, both as it
        measured the point (at the point's own time, motion not undone):

        * "range_height_intensity": min(range / max_m, 1); (height - min_height_m) / (max_height_m - min_height_m) and
          intensity / max_intensity, both cut to [0, 1];
        * "grey": min(range / max_m, 1) three times, as DeLiVER's one-channel images are given to networks: 8-bit values
          repeated and divided by 255, of which this is the value before it was rounded. (The conversion from metres is not
          published with that data, so max_m is to be chosen for weights that were trained on it.)

        ``depth_m`` is along the reference camera's z at the reference stamp. With ``config.densify_px``, pixels without a
        point show what the nearest pixel with one shows (``densify``); ``valid`` is true there too.
    """
    placed = place_cloud(sample, grid_camera, reference_from_lidar, motion, config.point_size_px)
    return encode_cloud(sample, placed, config)


def encode_cloud(sample: CloudSample, placed: PlacedCloud, config: LidarConfig) -> AlignedGrid:
    """Make the grid of a sweep that is placed already; see :func:`align_lidar`."""
    index, z = placed.index, placed.z
    if config.densify_px:
        index = densify(index, z, config.densify_px)
    channels = np.zeros((3, *index.shape), np.float32)
    valid = np.zeros(index.shape, np.bool_)
    depth_m = np.full(index.shape, np.nan, np.float32)
    per_metre_of_height = 1.0 / (config.max_height_m - config.min_height_m)
    _encode(
        index,
        np.ascontiguousarray(sample.points),
        np.ascontiguousarray(sample.intensity),
        z,
        (np.float32(1.0 / config.max_m), np.float32(per_metre_of_height), np.float32(1.0 / config.max_intensity)),
        np.float32(config.min_height_m),
        config.encoding == "grey",
        channels,
        valid,
        depth_m,
    )
    return AlignedGrid("lidar", channels, valid, depth_m)


_POINTS_IN, _VALUES_IN = (  # these also take arrays that may be written to
    f"Array(float32, {dimensions}, 'C', readonly=True, aligned=False)" for dimensions in (2, 1)
)
_ENCODED = "float32[:,:,::1], b1[:,::1], float32[:,::1]"


@compiled(
    f"void(int32[:,::1], {_POINTS_IN}, {_VALUES_IN}, {_VALUES_IN}, UniTuple(float32, 3), float32, b1, {_ENCODED})",
    error_model="numpy",
)
def _encode(  # noqa: PLR0917 - compiled functions take arguments by position
    index: npt.NDArray[np.int32],
    points: F32,
    intensity: F32,
    z: F32,
    scales: tuple[np.float32, np.float32, np.float32],
    lowest: float,
    grey: bool,
    channels: F32,
    valid: Bool,
    depth_m: F32,
) -> None:
    """Fill the empty grid where a pixel sees a point (-1: none)."""
    zero, one = np.float32(0.0), np.float32(1.0)
    per_range, per_height, per_intensity = scales
    for row in range(index.shape[0]):
        for column in range(index.shape[1]):
            if index[row, column] < 0:
                continue
            i = np.uint64(index[row, column])
            x, y, height = points[0, i], points[1, i], points[2, i]
            distance = min(np.sqrt(x * x + y * y + height * height) * per_range, one)
            channels[0, row, column] = distance
            channels[1, row, column] = distance if grey else min(max((height - lowest) * per_height, zero), one)
            channels[2, row, column] = distance if grey else min(max(intensity[i] * per_intensity, zero), one)
            valid[row, column] = True
            depth_m[row, column] = z[i]

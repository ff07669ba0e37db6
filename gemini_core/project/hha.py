"""HHA encoding of depth: horizontal disparity, height above ground and angle with gravity.

Gupta, Girshick, Arbeláez and Malik, "Learning Rich Features from RGB-D Images for Object Detection and Segmentation", ECCV
2014; their way of finding gravity is that of Gupta, Arbeláez and Malik, CVPR 2013. Scales are those of the 8-bit pictures that
networks were trained on, divided by 255. Channels, each held in [0, 1], and 0 without a reading:

0. disparity: (1/z - 1/max_m) / (1/min_m - 1/max_m), as in the encoding "inverse";
1. height above ground: metres / 2.55 (one step of 8 bits is a centimetre); the ground is the first percentile of all heights;
2. angle between gravity and the surface's normal, which points away from the camera: (degrees + 38) / 255. A floor has 0, a
   wall 90 and a ceiling 180 degrees. A reading without enough neighbours on its own surface is taken to face the camera.

Gravity starts as the camera's own y axis (downwards) and is corrected to be as parallel to floors and as orthogonal to walls as
it can be, so a camera may be pitched or rolled by some 30 degrees.
"""

from __future__ import annotations

import math

import numpy as np

from gemini_core.compiling import compiled
from gemini_core.rig.geometry import ray_table
from gemini_core.types import F32, F64, CameraModel

_TALLEST_M = 2.55
_GROUND_PERCENTILE = 1.0
_FARTHEST_M = np.float32(1e6)  # keeps numbers finite
_SAMPLE = 8  # every eighth row and column is enough to find gravity and the ground
_SEARCHES_DEG = (45.0,) * 5 + (15.0,) * 5  # how far from it floors and walls may be for gravity to follow them (CVPR 2013)
_FEWEST_NORMALS = 20

_STEPS = (-3, 0, 3)  # pixels to the neighbours, both ways, that a plane is fitted to
_SAME_SURFACE = np.float32(0.1)  # of the inverse depth, more than which a neighbour lies on another surface


def encode_hha(depth_m: F32, camera: CameraModel, channels: F32) -> None:
    """Fill channels 1 and 2 of (3, h, w) from depth (h, w) in metres, NaN without a reading; channel 0 is left alone.

    Pixels that the camera's lens cannot reach, though a reading's footprint does, get 0.

    Args:
        depth_m: along the camera's z.
        camera: the camera whose pixels these are.
        channels: filled where there is a reading.
    """
    rays = ray_table(camera)
    normals = np.empty((3, *depth_m.shape), np.float32)
    _fit_planes(depth_m, np.float32(1.0) / depth_m, rays, normals)
    sample = slice(None, None, _SAMPLE)
    seen = np.isfinite(normals[0, sample, sample])
    gravity = find_gravity(normals[:, sample, sample][:, seen].astype(np.float64))
    points = rays[:, sample, sample][:, seen] * np.minimum(depth_m[sample, sample][seen], _FARTHEST_M)  # (3, N)
    ground = float(np.percentile(-gravity @ points, _GROUND_PERCENTILE)) if points.size else 0.0
    x, y, z = (np.float32(value) for value in gravity)
    _encode(depth_m, rays, normals, (x, y, z), np.float32(ground), channels)


def find_gravity(normals: F64) -> F64:
    """Find the direction (3,) that is most nearly parallel or orthogonal to unit normals (3, N), starting from y.

    Each round takes the normals that are nearly parallel to the last direction (floors) or nearly orthogonal (walls), and finds
    the direction that makes the sum of sin² of the angles to the former plus cos² of those to the latter the least.
    """
    gravity = np.array([0.0, 1.0, 0.0])
    for reach_deg in _SEARCHES_DEG:
        cosines = np.abs(gravity @ normals)
        floors = normals[:, cosines > math.cos(math.radians(reach_deg))]
        walls = normals[:, cosines < math.sin(math.radians(reach_deg))]
        if floors.shape[1] + walls.shape[1] < _FEWEST_NORMALS:
            break
        _, vectors = np.linalg.eigh(walls @ walls.T - floors @ floors.T)  # rising eigenvalues
        gravity = vectors[:, 0] * (1.0 if vectors[:, 0] @ gravity > 0.0 else -1.0)
    return gravity


_RAYS = "Array(float32, 3, 'C', readonly=True, aligned=False)"


@compiled(f"void(float32[:,::1], float32[:,::1], {_RAYS}, float32[:,:,::1])", error_model="numpy")
def _fit_planes(depth_m: F32, inverse: F32, rays: F32, normals: F32) -> None:
    """Fit a plane around every reading by least squares and give its unit normal, away from the camera; NaN without one.

    A plane n · p = d has 1/z = (n/d) · (x/z, y/z, 1): ``inverse``, 1/z, is linear, with the camera's rays as places. Everything
    is relative to the pixel itself, its 1/z being 1, so that numbers are of the same size at any distance.
    """
    height, width = inverse.shape
    zero, one = np.float32(0.0), np.float32(1.0)
    for row in range(height):
        for column in range(width):
            z, ray_x, ray_y = depth_m[row, column], rays[0, row, column], rays[1, row, column]
            if not (z > zero and math.isfinite(ray_x)):
                normals[0, row, column] = normals[1, row, column] = normals[2, row, column] = np.nan
                continue
            count = mean_x = mean_y = mean_w = xx = xy = yy = xw = yw = zero
            for step_y in _STEPS:
                for step_x in _STEPS:
                    v = np.uint64(min(max(row + step_y, 0), height - 1))
                    u = np.uint64(min(max(column + step_x, 0), width - 1))
                    w = inverse[v, u] * z - one
                    if not abs(w) < _SAME_SURFACE:
                        continue
                    x, y = rays[0, v, u] - ray_x, rays[1, v, u] - ray_y
                    count, mean_x, mean_y, mean_w = count + one, mean_x + x, mean_y + y, mean_w + w
                    xx, xy, yy, xw, yw = xx + x * x, xy + x * y, yy + y * y, xw + x * w, yw + y * w
            share = one / max(count, one)
            mean_x, mean_y, mean_w = mean_x * share, mean_y * share, mean_w * share
            xx, xy, yy = xx - count * mean_x * mean_x, xy - count * mean_x * mean_y, yy - count * mean_y * mean_y
            xw, yw = xw - count * mean_x * mean_w, yw - count * mean_y * mean_w
            determinant = xx * yy - xy * xy
            if determinant > np.float32(0.01) * xx * yy:  # neighbours in one line only say nothing of the other direction
                a, b = (yy * xw - xy * yw) / determinant, (xx * yw - xy * xw) / determinant
                c = one + mean_w - a * (mean_x + ray_x) - b * (mean_y + ray_y)
            else:
                a, b, c = ray_x, ray_y, one
            scale = one / np.sqrt(a * a + b * b + c * c)
            normals[0, row, column], normals[1, row, column], normals[2, row, column] = a * scale, b * scale, c * scale


@compiled(f"void(float32[:,::1], {_RAYS}, {_RAYS}, UniTuple(float32, 3), float32, float32[:,:,::1])")
def _encode(  # noqa: PLR0917 - compiled functions take arguments by position
    depth_m: F32, rays: F32, normals: F32, gravity: tuple[np.float32, np.float32, np.float32], ground: float, channels: F32
) -> None:
    zero, one = np.float32(0.0), np.float32(1.0)
    tallest, degrees = np.float32(1.0 / _TALLEST_M), np.float32(180.0 / math.pi)
    for row in range(depth_m.shape[0]):
        for i in range(depth_m.shape[1]):
            z = depth_m[row, i]
            below = (gravity[0] * rays[0, row, i] + gravity[1] * rays[1, row, i] + gravity[2]) * min(z, _FARTHEST_M)
            seen = z > zero and math.isfinite(below)
            height = min(max((-below - ground) * tallest, zero), one)
            cosine = gravity[0] * normals[0, row, i] + gravity[1] * normals[1, row, i] + gravity[2] * normals[2, row, i]
            # arccos to 5e-5 (Abramowitz and Stegun, 4.4.45), since the library's own does not become vector code
            x = min(abs(cosine), one)
            curve = np.float32(-0.2121144) + x * (np.float32(0.074261) - x * np.float32(0.0187293))
            angle = (np.float32(1.5707288) + x * curve) * np.sqrt(one - x) * degrees
            angle = angle if cosine > zero else np.float32(180.0) - angle
            channels[1, row, i] = height if seen else zero
            channels[2, row, i] = (angle + np.float32(38.0)) / np.float32(255.0) if seen else zero

"""Which triangle every pixel of a camera shows: a z-buffer without clipping.

A ray d = (x, y, 1) meets the triangle (a, b, c) where its edge functions d·(b×c), d·(c×a), d·(a×b) all have the sign of
det = a·(b×c); their sum over det is one over the depth. All are linear in x and y, so a row's pixels inside a triangle are
one interval, and triangles that reach behind the camera need no care (Olano and Greer, Triangle Scan Conversion using 2D
Homogeneous Coordinates, 1997).
"""

# ruff: noqa: C901, PLR0912, PLR0915, PLR0917 - one compiled loop: calls in it that take arrays cost more than their work
from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gemini_core.simulation.compiling import compiled, inlined
from gemini_core.types import F32, F64

_NEAR_M = 0.05


@inlined
def _span(a: float, b: float, c: float, focal: float, center: float, count: int) -> tuple[int, int]:
    """The first and the last of ``count`` rows (or columns) whose middle lies between three corners."""
    return max(0, math.ceil(min(a, b, c) * focal + center)), min(count - 1, math.floor(max(a, b, c) * focal + center))


@inlined
def _inside(e: float, p: float, low: float, high: float) -> tuple[float, float]:
    """What of ``low`` to ``high`` has e + p x at least zero, a hair more, so that neighbours leave no gap."""
    if p > 0:
        low = max(low, -e / p - 1e-5)
    elif p < 0:
        high = min(high, -e / p + 1e-5)
    elif e < 0:
        high = low - 1.0  # nothing
    return low, high


@compiled
def rasterize(
    triangles: F32,
    chunks: F64,
    world_from_camera: F64,
    intrinsics: tuple[float, float, float, float],
    size: tuple[int, int],
    far_m: float,
) -> tuple[npt.NDArray[np.int32], F32]:
    """The triangle (H, W) int32 (-1: none) and one over the depth (H, W) float32 (0: none) of every pixel's centre.

    ``triangles`` (T, >= 13): corner, two edges, normal, closed; ``chunks`` (C, 6): centre and radius of a ball around the
    triangles from the fifth to before the sixth number. ``intrinsics``: fx, fy, cx, cy; ``size``: H, W. Chunks farther
    than ``far_m`` are left out.
    """
    height, width = size
    fx, fy, cx, cy = intrinsics
    found = np.full((height, width), -1, np.int32)
    nearest = np.zeros((height, width), np.float32)
    r00, r01, r02 = world_from_camera[0, 0], world_from_camera[1, 0], world_from_camera[2, 0]
    r10, r11, r12 = world_from_camera[0, 1], world_from_camera[1, 1], world_from_camera[2, 1]
    r20, r21, r22 = world_from_camera[0, 2], world_from_camera[1, 2], world_from_camera[2, 2]
    ox, oy, oz = world_from_camera[0, 3], world_from_camera[1, 3], world_from_camera[2, 3]
    x_low, x_high, y_low, y_high = -cx / fx, (width - 1 - cx) / fx, -cy / fy, (height - 1 - cy) / fy
    # Lengths of the normals of the view's four sides, to hold balls against them.
    left, right = math.sqrt(1.0 + x_low * x_low), math.sqrt(1.0 + x_high * x_high)
    top, bottom = math.sqrt(1.0 + y_low * y_low), math.sqrt(1.0 + y_high * y_high)
    for n in range(len(chunks)):
        px, py, pz, radius = chunks[n, 0] - ox, chunks[n, 1] - oy, chunks[n, 2] - oz, chunks[n, 3]
        z = r20 * px + r21 * py + r22 * pz
        if z + radius < _NEAR_M or z - radius > far_m:
            continue
        x, y = r00 * px + r01 * py + r02 * pz, r10 * px + r11 * py + r12 * pz
        if x - x_low * z < -radius * left or x_high * z - x < -radius * right:
            continue
        if y - y_low * z < -radius * top or y_high * z - y < -radius * bottom:
            continue
        for k in range(int(chunks[n, 4]), int(chunks[n, 5])):
            qx, qy, qz = triangles[k, 0] - ox, triangles[k, 1] - oy, triangles[k, 2] - oz
            away = qx * triangles[k, 9] + qy * triangles[k, 10] + qz * triangles[k, 11]
            if triangles[k, 12] > 0 and away >= 0:
                continue
            ex, ey, ez = float(triangles[k, 3]), float(triangles[k, 4]), float(triangles[k, 5])
            gx, gy, gz = float(triangles[k, 6]), float(triangles[k, 7]), float(triangles[k, 8])
            az, bz, cz = r20 * qx + r21 * qy + r22 * qz, r20 * ex + r21 * ey + r22 * ez, r20 * gx + r21 * gy + r22 * gz
            bz, cz = az + bz, az + cz
            if max(az, bz, cz) < _NEAR_M:
                continue
            ax, ay = r00 * qx + r01 * qy + r02 * qz, r10 * qx + r11 * qy + r12 * qz
            bx, by = ax + r00 * ex + r01 * ey + r02 * ez, ay + r10 * ex + r11 * ey + r12 * ez
            cx_, cy_ = ax + r00 * gx + r01 * gy + r02 * gz, ay + r10 * gx + r11 * gy + r12 * gz
            row0, row1, column0, column1 = 0, height - 1, 0, width - 1
            if min(az, bz, cz) > _NEAR_M:
                row0, row1 = _span(ay / az, by / bz, cy_ / cz, fy, cy, height)
                column0, column1 = _span(ax / az, bx / bz, cx_ / cz, fx, cx, width)
                if row0 > row1 or column0 > column1:
                    continue
            # Edge functions e = p x + q y + r, over the determinant, so that they are positive inside.
            p0, q0, s0 = by * cz - bz * cy_, bz * cx_ - bx * cz, bx * cy_ - by * cx_
            p1, q1, s1 = cy_ * az - cz * ay, cz * ax - cx_ * az, cx_ * ay - cy_ * ax
            p2, q2, s2 = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
            determinant = ax * p0 + ay * q0 + az * s0
            if determinant == 0.0:
                continue
            scale = 1.0 / determinant
            step_x = scale / fx
            p0, p1, p2 = p0 * step_x, p1 * step_x, p2 * step_x
            q0, q1, q2 = q0 * scale, q1 * scale, q2 * scale
            s0, s1, s2 = s0 * scale - p0 * cx, s1 * scale - p1 * cx, s2 * scale - p2 * cx
            step = p0 + p1 + p2
            for i in range(row0, row1 + 1):
                y = (i - cy) / fy
                e0, e1, e2 = q0 * y + s0, q1 * y + s1, q2 * y + s2
                low, high = _inside(e0, p0, float(column0), float(column1))
                low, high = _inside(e1, p1, low, high)
                low, high = _inside(e2, p2, low, high)
                if low > high:
                    continue
                first = math.ceil(low)
                inverse = e0 + e1 + e2 + step * first
                for j in range(first, math.floor(high) + 1):
                    if inverse > nearest[i, j] and inverse < 1.0 / _NEAR_M:
                        nearest[i, j], found[i, j] = inverse, k
                    inverse += step
    return found, nearest

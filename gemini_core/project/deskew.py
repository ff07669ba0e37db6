"""Deskew (motion compensation): every point of a sweep to where the reference camera was at its own stamp."""

from __future__ import annotations

import numpy as np

from gemini_core.compiling import compiled
from gemini_core.types import F32, F64, I64, SweepMotion


def deskew_points(points: F32, time_ns: I64, motion: SweepMotion) -> F32:
    """Take points that were measured one after the other to the reference's frame at the reference stamp.

    ``p_ref = (world_from_reference at the reference stamp)⁻¹ · (world_from_lidar at the point's time) · p``, where the product
    of the two poses is given at the knots of ``motion`` and a point is blended between the two around its time:
    ``p_ref = (1 - a) T_k p + a T_k+1 p``. Times before the first knot and after the last one take the pose of that knot.

    The blend cuts the corner of a turn: at range r, with θ radians turned between two knots, by at most ``r θ² / 8``, which is
    1 mm at 80 m for 0.01 rad (5 ms between knots at 2 rad/s); an acceleration a adds ``a Δt² / 8``.

    Args:
        points: (3, N) float32, metres, in the LiDAR's frame at each point's own time.
        time_ns: (N,) int64, the stamp of each point, in any order.
        motion: the poses.

    Returns:
        (3, N) float32 metres in the reference's optical frame; sums are made in float64.
    """
    poses = np.ascontiguousarray(motion.reference_from_lidar[:, :3], dtype=np.float64)  # (K, 3, 4)
    stamps = np.ascontiguousarray(motion.stamps_ns, dtype=np.int64)
    moved = np.empty(points.shape, np.float32)
    per_ns = 1.0 / np.maximum(np.diff(stamps), 1)
    _deskew(
        np.ascontiguousarray(points), np.ascontiguousarray(time_ns), stamps, per_ns, poses[:-1], np.diff(poses, axis=0), moved
    )
    return moved


_IN = "Array({}, {}, 'C', readonly=True, aligned=False)"  # also takes arrays that may be written to
_POSES = "float64[:,:,::1]"


@compiled(
    f"void({_IN.format('float32', 2)}, {_IN.format('int64', 1)}, int64[::1], float64[::1], {_POSES}, {_POSES}, float32[:,::1])",
)
def _deskew(  # noqa: PLR0917 - compiled functions take arguments by position
    points: F32, time_ns: I64, stamps: I64, per_ns: F64, pose: F64, change: F64, moved: F32
) -> None:
    """Move runs of points between the same two knots: a loop without branches, of which the compiler makes vector code."""
    count, last = time_ns.shape[0], per_ns.shape[0] - 1
    first_ns, knots_per_ns = stamps[0], (last + 1) / max(stamps[-1] - stamps[0], 1)
    x, y, z = points[0], points[1], points[2]
    begin = 0
    while begin < count:
        # Knots are evenly spaced as a rule, so the first guess is right; otherwise the neighbours are tried.
        k = int(min(max((time_ns[begin] - first_ns) * knots_per_ns, 0.0), float(last)))
        while k < last and time_ns[begin] >= stamps[k + 1]:
            k += 1
        while k > 0 and time_ns[begin] < stamps[k]:
            k -= 1
        end = begin + 1
        while end < count and (k == 0 or time_ns[end] >= stamps[k]) and (k == last or time_ns[end] < stamps[k + 1]):
            end += 1
        for row in range(3):
            out = moved[row]
            a_x, a_y, a_z, a = pose[k, row, 0], pose[k, row, 1], pose[k, row, 2], pose[k, row, 3]
            b_x, b_y, b_z, b = change[k, row, 0], change[k, row, 1], change[k, row, 2], change[k, row, 3]
            for i in range(np.uint64(begin), np.uint64(end)):
                share = min(max(np.float64(time_ns[i] - stamps[k]) * per_ns[k], 0.0), 1.0)
                out[i] = a_x * x[i] + a_y * y[i] + a_z * z[i] + a + share * (b_x * x[i] + b_y * y[i] + b_z * z[i] + b)
        begin = end

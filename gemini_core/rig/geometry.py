"""Cameras and points: projection, its inverse and the z-buffer.

The loops are compiled by numba, once for the types they are declared with (the result is kept on disk), so the first message
of a live node does not wait for a compiler. They run on one thread in the order of the points: same input, same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from gemini_core.compiling import compiled
from gemini_core.errors import CalibrationError
from gemini_core.types import F32, F64, Bool, CameraModel

# --------------------------------------------------------------------------------------------------------------------
# Camera models

DISTORTION_LENGTHS = {"none": (0,), "plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,)}
"""How many coefficients each distortion model takes: sensor_msgs/CameraInfo's, and OpenCV's thin prism (12) and tilt (14)."""

_PINHOLE, _RATIONAL, _EQUIDISTANT, _FULL, _SKEWED_EQUIDISTANT = range(5)
_WIDEST = 50.0  # x/z (89 degrees from the axis) beyond which no image of a pinhole with distortion reaches
_EXACT = 1e-9  # error of x/z after the inverse: a millionth of a pixel


_I32: TypeAlias = npt.NDArray[np.int32]
_Coefficients: TypeAlias = tuple[float, ...]  # 18
_Radial: TypeAlias = tuple[float, ...]  # 8
_Intrinsics: TypeAlias = tuple[float, float, float, float]
_Size: TypeAlias = tuple[np.float32, np.float32]


class _Lens(NamedTuple):
    """Distortion as the compiled loops take it.

    ``coefficients``, 18: k1 k2 p1 p2 k3 k4 k5 k6 (rational; plumb_bob has k4 = k5 = k6 = 0) or k1 k2 k3 k4 0 0 0 0
    (equidistant); s1 s2 s3 s4 (thin prism); a b c d e f, by which what is distorted is mapped once more (tilted sensor, skew):
    (a x + b y, c x + d y) / (e x + f y + 1). The kinds _PINHOLE, _RATIONAL and _EQUIDISTANT have only the first eight.
    ``limit``: the model is monotone, so it can be inverted, for x² + y² < limit (rational) or angle < limit (equidistant).
    """

    kind: int
    coefficients: _Coefficients
    limit: float


@lru_cache(maxsize=64)
def _lens(camera: CameraModel) -> _Lens:
    lengths = DISTORTION_LENGTHS.get(camera.distortion_model)
    if lengths is None:
        msg = (
            f"expected a distortion model out of {', '.join(DISTORTION_LENGTHS)}, got {camera.distortion_model!r} in the "
            "camera model"
        )
        raise CalibrationError(msg)
    if len(camera.distortion) not in lengths:
        msg = (
            f"expected {' or '.join(map(str, lengths))} distortion coefficients for {camera.distortion_model!r}, got "
            f"{len(camera.distortion)} in the camera model"
        )
        raise CalibrationError(msg)
    given = [float(value) for value in camera.distortion]
    equidistant = camera.distortion_model == "equidistant"
    prism, (tilt_x, tilt_y) = given[8:12] or [0.0] * 4, given[12:] or [0.0] * 2
    radial = given[:8] + [0.0] * (8 - len(given[:8]))
    mapped = _map_of_sensor(tilt_x, tilt_y, float(camera.skew) / float(camera.fx))
    coefficients: _Coefficients = (*radial, *prism, *mapped)
    plain = not any(prism) and mapped == _UNMAPPED
    if equidistant:
        # d/dθ of θ (1 + k1 θ² + k2 θ⁴ + k3 θ⁶ + k4 θ⁸), a polynomial in θ²
        slope = np.array([1.0, 3.0, 5.0, 7.0, 9.0]) * np.array([1.0, *radial[:4]])
        limit = min(math.pi / 2, math.sqrt(_first_positive_root(slope)))
        return _Lens(_EQUIDISTANT if plain else _SKEWED_EQUIDISTANT, coefficients, limit)
    if plain and not any(radial):
        return _Lens(_PINHOLE, coefficients, math.inf)
    limit = _radial_limit(radial)
    if plain:
        return _Lens(_RATIONAL, coefficients, _unfolded(coefficients, limit))
    bends = any(radial) or any(given[8:])  # a skew alone folds nothing
    return _Lens(_FULL, coefficients, _unfolded(coefficients, limit) if bends else math.inf)


_UNMAPPED = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)


def _map_of_sensor(tilt_x: float, tilt_y: float, shear: float) -> tuple[float, ...]:
    """Numbers a to f of a sensor tilted by two angles, whose axes are not at right angles: ``shear`` is skew / fx.

    OpenCV's computeTiltProjectionMatrix: R = R_y(tilt_y) R_x(tilt_x), and what it brings to the tilted plane is seen along z.
    """
    turn = Rotation.from_euler("xy", (-tilt_x, -tilt_y)).as_matrix() if tilt_x or tilt_y else np.eye(3)
    onto = np.array([[turn[2, 2], 0.0, -turn[0, 2]], [0.0, turn[2, 2], -turn[1, 2]], [0.0, 0.0, 1.0]])
    both = np.array([[1.0, shear, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]) @ onto @ turn / turn[2, 2]
    return tuple(float(both[row, column]) for row in range(3) for column in range(2))


def _radial_limit(radial: Sequence[float]) -> float:
    """Largest x² + y² up to which the radial part grows, within what an image reaches."""
    k1, k2, _, _, k3, k4, k5, k6 = radial
    top, bottom = np.array([1.0, k1, k2, k3]), np.array([1.0, k4, k5, k6])  # in s = x² + y²
    s = np.array([0.0, 2.0])  # 2 s
    polynomial = np.polynomial.polynomial
    # d/dr of r·top/bottom is (top·bottom + 2 s (top'·bottom − top·bottom')) / bottom²
    change = polynomial.polysub(
        polynomial.polymul(polynomial.polyder(top), bottom), polynomial.polymul(top, polynomial.polyder(bottom))
    )
    slope = polynomial.polyadd(polynomial.polymul(top, bottom), polynomial.polymul(s, change))
    return min(_first_positive_root(slope), _first_positive_root(bottom), _WIDEST**2)


def _intrinsics(camera: CameraModel) -> _Intrinsics:
    return float(camera.fx), float(camera.fy), float(camera.cx), float(camera.cy)


def _first_positive_root(polynomial: F64) -> float:
    """Smallest positive real root of a polynomial (lowest power first, 1 at zero), infinite where there is none."""
    # The inverses of the roots are the roots of the reversed polynomial, whose first coefficient is 1, so that very small
    # coefficients do no harm.
    inverses = np.roots(polynomial)
    positive = [root.real for root in inverses if abs(root.imag) <= 1e-9 * max(1.0, abs(root)) and root.real > 0]
    return 1.0 / float(max(positive)) if positive else math.inf


@compiled("UniTuple(float64, 6)(float64, float64, UniTuple(float64, 8))", error_model="numpy", inline="always")
def _rational(x: float, y: float, k: _Radial) -> tuple[float, float, float, float, float, float]:
    """Distort one point by OpenCV's rational model: (x', y', ∂x'/∂x, ∂x'/∂y = ∂y'/∂x, ∂y'/∂y, radial factor)."""
    k1, k2, p1, p2, k3, k4, k5, k6 = k
    s = x * x + y * y
    top = 1.0 + s * (k1 + s * (k2 + s * k3))
    scale = 1.0 / (1.0 + s * (k4 + s * (k5 + s * k6)))
    radial = top * scale
    slope = (k1 + s * (2.0 * k2 + s * 3.0 * k3) - radial * (k4 + s * (2.0 * k5 + s * 3.0 * k6))) * scale
    return (
        x * radial + 2.0 * p1 * x * y + p2 * (s + 2.0 * x * x),
        y * radial + p1 * (s + 2.0 * y * y) + 2.0 * p2 * x * y,
        radial + 2.0 * x * x * slope + 2.0 * p1 * y + 6.0 * p2 * x,
        2.0 * x * y * slope + 2.0 * p1 * x + 2.0 * p2 * y,
        radial + 2.0 * y * y * slope + 6.0 * p1 * y + 2.0 * p2 * x,
        radial,
    )


@compiled("UniTuple(float64, 6)(float64, float64, UniTuple(float64, 18))", error_model="numpy")
def _with_prism(x: float, y: float, k: _Coefficients) -> tuple[float, float, float, float, float, float]:
    """Distort one point by the rational model and the thin prism: (x', y', ∂x'/∂x, ∂x'/∂y, ∂y'/∂x, ∂y'/∂y)."""
    a, b, xx, xy, yy, _ = _rational(x, y, k[:8])
    s1, s2, s3, s4 = k[8:12]
    s = x * x + y * y
    of_x, of_y = 2.0 * (s1 + 2.0 * s * s2), 2.0 * (s3 + 2.0 * s * s4)  # by what each moves for the change of s / 2
    return a + s * (s1 + s * s2), b + s * (s3 + s * s4), xx + x * of_x, xy + y * of_x, xy + x * of_y, yy + y * of_y


@compiled("UniTuple(float64, 3)(float64, float64, UniTuple(float64, 18))", error_model="numpy", inline="always")
def _mapped(x: float, y: float, k: _Coefficients) -> tuple[float, float, float]:
    """Bring a distorted point to the sensor, which may be tilted or skewed; with the divisor, positive where it is seen."""
    divisor = k[16] * x + k[17] * y + 1.0
    return (k[12] * x + k[13] * y) / divisor, (k[14] * x + k[15] * y) / divisor, divisor


@compiled("UniTuple(float64, 2)(float64, float64, UniTuple(float64, 18))", error_model="numpy")
def _unmapped(x: float, y: float, k: _Coefficients) -> tuple[float, float]:
    """Invert :func:`_mapped`: the two lines (a - e u) x + (b - f u) y = u and (c - e v) x + (d - f v) y = v cross there."""
    a, b = k[12] - k[16] * x, k[13] - k[17] * x
    c, d = k[14] - k[16] * y, k[15] - k[17] * y
    determinant = a * d - b * c
    return (d * x - b * y) / determinant, (a * y - c * x) / determinant


@compiled("float64(float64, UniTuple(float64, 8))", error_model="numpy")
def _equidistant(angle: float, k: _Radial) -> float:
    """Distorted angle of the equidistant (Kannala-Brandt) model."""
    s = angle * angle
    return angle * (1.0 + s * (k[0] + s * (k[1] + s * (k[2] + s * k[3]))))


@compiled("float64(UniTuple(float64, 18), float64)", error_model="numpy")
def _unfolded(k: _Coefficients, limit: float) -> float:
    """Shrink a limit of x² + y² to where nothing else folds the image either, in any direction.

    Tangential part and thin prism fold where the Jacobian's determinant is not positive; a tilted sensor where its divisor is
    not. Looked for on 2000 circles, closer near the axis.
    """
    even = k[2] == 0.0 and k[3] == 0.0 and k[8] == 0.0 and k[9] == 0.0 and k[10] == 0.0 and k[11] == 0.0
    if even and k[16] == 0.0 and k[17] == 0.0:
        return limit
    rings, directions = 2000, 72
    free = 0.0
    for ring in range(1, rings):
        r = math.sqrt(limit) * (ring / rings) ** 2
        for direction in range(directions):
            angle = 2.0 * math.pi * direction / directions
            x, y, xx, xy, yx, yy = _with_prism(r * math.cos(angle), r * math.sin(angle), k)
            if not xx * yy > xy * yx or not k[16] * x + k[17] * y + 1.0 > 0.0:
                return free
        free = r * r
    return limit


# The loops over points have no branches, so that the compiler makes vector code of them: five times as fast. Points that are
# not in front become NaN, which no comparison lets through.

_POINTS = "Array(float32, 2, 'C', readonly=True, aligned=False)"  # also takes arrays that may be written to
_IMAGE = "UniTuple(float64, 4), UniTuple(float32, 2)"
_PROJECTED = "float32[:,::1], float32[::1], b1[::1]"


@compiled(f"void({_POINTS}, {_IMAGE}, {_PROJECTED})", error_model="numpy")
def _project_pinhole(  # noqa: PLR0917 - compiled functions take arguments by position
    points: F32, intrinsics: _Intrinsics, end: _Size, pixels: F32, depth: F32, visible: Bool
) -> None:
    fx, fy, cx, cy = intrinsics
    start = np.float32(-0.5)
    for i in range(points.shape[1]):
        z = points[2, i]
        scale = 1.0 / z if z > np.float32(0.0) else np.nan
        u, v = np.float32(fx * (points[0, i] * scale) + cx), np.float32(fy * (points[1, i] * scale) + cy)
        pixels[0, i], pixels[1, i], depth[i] = u, v, z
        visible[i] = (u >= start) & (u < end[0]) & (v >= start) & (v < end[1])


@compiled(f"void({_POINTS}, {_IMAGE}, UniTuple(float64, 18), float64, {_PROJECTED})", error_model="numpy")
def _project_rational(  # noqa: PLR0917 - compiled functions take arguments by position
    points: F32, intrinsics: _Intrinsics, end: _Size, k: _Coefficients, limit: float, pixels: F32, depth: F32, visible: Bool
) -> None:
    fx, fy, cx, cy = intrinsics
    radial, start = k[:8], np.float32(-0.5)
    for i in range(points.shape[1]):
        z = points[2, i]
        scale = 1.0 / z if z > np.float32(0.0) else np.nan
        x, y = points[0, i] * scale, points[1, i] * scale
        a, b, _, _, _, _ = _rational(x, y, radial)
        u, v = np.float32(fx * a + cx), np.float32(fy * b + cy)
        pixels[0, i], pixels[1, i], depth[i] = u, v, z
        visible[i] = (x * x + y * y < limit) & (u >= start) & (u < end[0]) & (v >= start) & (v < end[1])


@compiled(f"void({_POINTS}, {_IMAGE}, UniTuple(float64, 18), float64, {_PROJECTED})", error_model="numpy")
def _project_equidistant(  # noqa: PLR0917 - compiled functions take arguments by position
    points: F32, intrinsics: _Intrinsics, end: _Size, k: _Coefficients, limit: float, pixels: F32, depth: F32, visible: Bool
) -> None:
    fx, fy, cx, cy = intrinsics
    radial, start = k[:8], np.float32(-0.5)
    for i in range(points.shape[1]):
        z = points[2, i]
        scale = 1.0 / z if z > np.float32(0.0) else np.nan
        x, y = points[0, i] * scale, points[1, i] * scale
        r = math.sqrt(x * x + y * y)
        angle = math.atan(r)
        factor = _equidistant(angle, radial) / r if r > 0.0 else 1.0
        u, v = np.float32(fx * x * factor + cx), np.float32(fy * y * factor + cy)
        pixels[0, i], pixels[1, i], depth[i] = u, v, z
        visible[i] = (angle < limit) & (u >= start) & (u < end[0]) & (v >= start) & (v < end[1])


@compiled(f"void({_POINTS}, {_IMAGE}, UniTuple(float64, 18), float64, {_PROJECTED})", error_model="numpy")
def _project_full(  # noqa: PLR0917 - compiled functions take arguments by position
    points: F32, intrinsics: _Intrinsics, end: _Size, k: _Coefficients, limit: float, pixels: F32, depth: F32, visible: Bool
) -> None:
    fx, fy, cx, cy = intrinsics
    start = np.float32(-0.5)
    for i in range(points.shape[1]):
        z = points[2, i]
        scale = 1.0 / z if z > np.float32(0.0) else np.nan
        x, y = points[0, i] * scale, points[1, i] * scale
        a, b, _, _, _, _ = _with_prism(x, y, k)
        a, b, divisor = _mapped(a, b, k)
        u, v = np.float32(fx * a + cx), np.float32(fy * b + cy)
        pixels[0, i], pixels[1, i], depth[i] = u, v, z
        inside = (u >= start) & (u < end[0]) & (v >= start) & (v < end[1])
        visible[i] = (x * x + y * y < limit) & (divisor > 0.0) & inside


@compiled(f"void({_POINTS}, {_IMAGE}, UniTuple(float64, 18), float64, {_PROJECTED})", error_model="numpy")
def _project_skewed_equidistant(  # noqa: PLR0917 - compiled functions take arguments by position
    points: F32, intrinsics: _Intrinsics, end: _Size, k: _Coefficients, limit: float, pixels: F32, depth: F32, visible: Bool
) -> None:
    fx, fy, cx, cy = intrinsics
    radial, start = k[:8], np.float32(-0.5)
    for i in range(points.shape[1]):
        z = points[2, i]
        scale = 1.0 / z if z > np.float32(0.0) else np.nan
        x, y = points[0, i] * scale, points[1, i] * scale
        r = math.sqrt(x * x + y * y)
        angle = math.atan(r)
        factor = _equidistant(angle, radial) / r if r > 0.0 else 1.0
        a, b, _ = _mapped(x * factor, y * factor, k)
        u, v = np.float32(fx * a + cx), np.float32(fy * b + cy)
        pixels[0, i], pixels[1, i], depth[i] = u, v, z
        visible[i] = (angle < limit) & (u >= start) & (u < end[0]) & (v >= start) & (v < end[1])


@compiled(f"void({_POINTS}, {_IMAGE}, int64, UniTuple(float64, 18), float64, {_PROJECTED})")
def project_into(  # noqa: PLR0917 - compiled functions take arguments by position
    points: F32,
    intrinsics: _Intrinsics,
    end: _Size,
    kind: int,
    k: _Coefficients,
    limit: float,
    pixels: F32,
    depth: F32,
    visible: Bool,
) -> None:
    """Do what :func:`project_points` does, inside other compiled loops and into their arrays; see :func:`optics`."""
    if kind == _PINHOLE:
        _project_pinhole(points, intrinsics, end, pixels, depth, visible)
    elif kind == _RATIONAL:
        _project_rational(points, intrinsics, end, k, limit, pixels, depth, visible)
    elif kind == _EQUIDISTANT:
        _project_equidistant(points, intrinsics, end, k, limit, pixels, depth, visible)
    elif kind == _FULL:
        _project_full(points, intrinsics, end, k, limit, pixels, depth, visible)
    else:
        _project_skewed_equidistant(points, intrinsics, end, k, limit, pixels, depth, visible)


def optics(camera: CameraModel) -> tuple[_Intrinsics, _Size, int, _Coefficients, float]:
    """Give a camera as :func:`project_into` takes it: intrinsics, where the image ends, lens.

    Raises:
        CalibrationError: unknown distortion model or a wrong number of coefficients.
    """
    lens = _lens(camera)
    end = (np.float32(camera.width - 0.5), np.float32(camera.height - 0.5))
    return _intrinsics(camera), end, lens.kind, lens.coefficients, lens.limit


def project_points(camera: CameraModel, points: F32) -> tuple[F32, F32, Bool]:
    """Project points in the camera's optical frame into its raw image.

    Formulas: OpenCV's "Camera Calibration and 3D Reconstruction" (plumb_bob, rational) and its fisheye module (equidistant).

    Args:
        camera: the camera.
        points: (3, N) float32, metres, x right, y down, z forward.

    Returns:
        ``pixels`` (2, N) float32 (u, v), NaN for points that are not in front; ``z`` (N,) float32 metres; ``visible`` (N,)
        bool: in front, inside the image (-0.5 <= u < width - 0.5, so rounding gives a pixel of it), and inside the range
        where the distortion has an inverse, so that points far outside the view do not fold back into the image.

    Raises:
        CalibrationError: unknown distortion model or a wrong number of coefficients.
    """
    camera_optics = optics(camera)
    points = np.ascontiguousarray(points, dtype=np.float32)
    count = points.shape[1]
    pixels, depth, visible = np.empty((2, count), np.float32), np.empty(count, np.float32), np.empty(count, np.bool_)
    project_into(points, *camera_optics, pixels, depth, visible)
    return pixels, depth, visible


# --------------------------------------------------------------------------------------------------------------------
# The inverse


@compiled("float64(float64, int64, UniTuple(float64, 8), float64)", error_model="numpy")
def _undistorted_radius(distorted: float, kind: int, k: _Radial, limit: float) -> float:
    """Invert the radial part: r (rational) or the angle (equidistant) whose distorted value is given; NaN where none.

    Bisection on the monotone range; slow and sure, since it runs once for a camera's pixels.
    """
    high = limit if kind == _EQUIDISTANT else math.sqrt(limit)
    high *= 1.0 - 1e-12  # the border itself may be a pole
    reach = _equidistant(high, k) if kind == _EQUIDISTANT else high * _rational(high, 0.0, k)[5]
    if not distorted < reach:
        return np.nan
    low = 0.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        value = _equidistant(middle, k) if kind == _EQUIDISTANT else middle * _rational(middle, 0.0, k)[5]
        if value < distorted:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


@compiled("UniTuple(float64, 2)(float64, float64, int64, UniTuple(float64, 18), float64)", error_model="numpy")
def _undistorted_lens(x: float, y: float, kind: int, k: _Coefficients, limit: float) -> tuple[float, float]:
    """Invert what the lens alone does, kind _PINHOLE, _EQUIDISTANT or _RATIONAL, the last with its thin prism."""
    distorted = math.sqrt(x * x + y * y)
    if kind == _PINHOLE or (distorted == 0.0 and kind == _EQUIDISTANT):
        return x, y
    if kind == _EQUIDISTANT:
        factor = math.tan(_undistorted_radius(distorted, kind, k[:8], limit)) / distorted
        return x * factor, y * factor
    # The radial part by bisection, then Newton's method for the tangential part and the thin prism.
    guess = _undistorted_radius(distorted, kind, k[:8], limit)
    if math.isnan(guess):
        # The tangential part may still bring a point here from inside the range.
        guess = 0.99 * math.sqrt(limit)
    factor = guess / distorted if distorted > 0.0 else 1.0
    a, b = x * factor, y * factor
    for _ in range(30):
        u, v, xx, xy, yx, yy = _with_prism(a, b, k)
        determinant = xx * yy - xy * yx
        if not determinant > 0.0:
            return np.nan, np.nan
        du, dv = x - u, y - v
        da, db = (yy * du - xy * dv) / determinant, (xx * dv - yx * du) / determinant
        a, b = a + da, b + db
        if abs(da) + abs(db) <= 1e-14 * (abs(a) + abs(b)):
            break
    u, v, _, _, _, _ = _with_prism(a, b, k)
    if a * a + b * b < limit and abs(u - x) + abs(v - y) < _EXACT:
        return a, b
    return np.nan, np.nan


@compiled("UniTuple(float64, 2)(float64, float64, int64, UniTuple(float64, 18), float64)", error_model="numpy")
def _undistorted(x: float, y: float, kind: int, k: _Coefficients, limit: float) -> tuple[float, float]:
    """Invert the distortion of one point at z = 1; NaN where no point in front of the camera comes here."""
    if kind <= _EQUIDISTANT:
        return _undistorted_lens(x, y, kind, k, limit)
    x, y = _unmapped(x, y, k)
    if not k[16] * x + k[17] * y + 1.0 > 0.0:
        return np.nan, np.nan
    if kind == _SKEWED_EQUIDISTANT:
        return _undistorted_lens(x, y, _EQUIDISTANT, k, limit)
    return _undistorted_lens(x, y, _PINHOLE if math.isinf(limit) else _RATIONAL, k, limit)


@compiled("void(UniTuple(float64, 4), int64, UniTuple(float64, 18), float64, float32[:,:,::1])")
def _fill_rays(intrinsics: _Intrinsics, kind: int, k: _Coefficients, limit: float, rays: F32) -> None:
    fx, fy, cx, cy = intrinsics
    for v in range(rays.shape[1]):
        for u in range(rays.shape[2]):
            x, y = _undistorted((u - cx) / fx, (v - cy) / fy, kind, k, limit)
            rays[0, v, u] = x
            rays[1, v, u] = y
            rays[2, v, u] = 1.0


@lru_cache(maxsize=16)
def ray_table(camera: CameraModel) -> F32:
    """Rays of all pixel centres, distortion undone.

    Kept for each camera (the model is frozen), so it costs only the first time; do not write to it.

    Returns:
        (3, H, W) float32 with z = 1; x and y are NaN for pixels that no point in front of the camera can reach (corners of
        a wide lens beyond the range of its distortion model).

    Raises:
        CalibrationError: unknown distortion model or a wrong number of coefficients.
    """
    lens = _lens(camera)
    rays = np.empty((3, camera.height, camera.width), np.float32)
    _fill_rays(_intrinsics(camera), *lens, rays)
    rays.flags.writeable = False
    return rays


# --------------------------------------------------------------------------------------------------------------------
# Points


@compiled(f"void(Array(float64, 2, 'C', readonly=True, aligned=False), {_POINTS}, float32[:,::1])")
def _transform(matrix: F64, points: F32, moved: F32) -> None:
    for i in range(points.shape[1]):
        x, y, z = np.float64(points[0, i]), np.float64(points[1, i]), np.float64(points[2, i])
        moved[0, i] = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + matrix[0, 3]
        moved[1, i] = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + matrix[1, 3]
        moved[2, i] = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3]


def transform_points(a_from_b: F64, points: F32) -> F32:
    """Take points (3, N) float32 of frame b to frame a by a (4, 4) float64 matrix; sums are made in float64."""
    points = np.ascontiguousarray(points, dtype=np.float32)
    moved = np.empty_like(points)
    _transform(np.ascontiguousarray(a_from_b, dtype=np.float64), points, moved)
    return moved


_VALUES = "Array(float32, 1, 'C', readonly=True, aligned=False)"
_FLAGS = "Array(bool, 1, 'C', readonly=True)"


@compiled(f"int64({_FLAGS}, int32[::1])")
def _list(visible: Bool, listed: _I32) -> int:
    """List the visible points; without a branch, since the processor could not guess which way it goes."""
    count = np.uint64(0)
    for i in range(np.uint64(visible.shape[0])):
        listed[count] = i
        count += np.uint64(visible[i])
    return int(count)


@compiled(f"void({_POINTS}, {_VALUES}, int32[::1], int64, int32[:,::1])")
def _see(pixels: F32, z: F32, listed: _I32, reach: int, index: _I32) -> None:
    """Keep the nearest of the listed points per pixel; -1 before the first."""
    height, width = index.shape
    start, right, bottom = np.float32(-0.5), np.float32(width - 0.5), np.float32(height - 0.5)
    for j in range(np.uint64(listed.shape[0])):
        i = np.uint64(listed[j])
        u, v, distance = pixels[0, i], pixels[1, i], z[i]
        # Written so that NaN fails; the bounds keep the conversion to whole pixels defined.
        if not (u >= start and u < right and v >= start and v < bottom and distance > np.float32(0.0)):
            continue
        column, row = int(u + 0.5), int(v + 0.5)
        for y in range(max(row - reach, 0), min(row + reach + 1, height)):
            for x in range(max(column - reach, 0), min(column + reach + 1, width)):
                best = index[y, x]
                if best < 0 or distance < z[np.uint64(best)]:
                    index[y, x] = listed[j]


def z_buffer(pixels: F32, z: F32, visible: Bool, shape: tuple[int, int], point_size: int = 1) -> _I32:
    """Say which point each pixel sees: the nearest of those that round to it, the lower index where two are equally near.

    Args:
        pixels: (2, N) float32 (u, v); points that round to no pixel of the image are left out.
        z: (N,) float32 metres; points that are not in front are left out.
        visible: (N,) bool; the others are left out.
        shape: (height, width) of the image.
        point_size: side in pixels (odd) of the square that a point covers.

    Returns:
        (height, width) int32 index into the points, -1 where there is none.
    """
    index = np.full(shape, -1, np.int32)
    pixels, z = np.ascontiguousarray(pixels, dtype=np.float32), np.ascontiguousarray(z, dtype=np.float32)
    listed = np.empty(visible.size, np.int32)
    listed = listed[: _list(np.ascontiguousarray(visible, dtype=np.bool_), listed)]
    _see(pixels, z, listed, point_size // 2, index)
    return index


# --------------------------------------------------------------------------------------------------------------------
# Transforms

OPTICAL_FROM_BODY: F64 = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
"""(4, 4) to optical axes (right, down, forward) from body axes (forward, left, up) in the same place (REP 103)."""


def transform_matrix(
    translation: tuple[float, float, float] | F64, quaternion_xyzw: tuple[float, float, float, float] | F64
) -> F64:
    """Build a (4, 4) float64 matrix from a translation (metres) and a quaternion (normalised here; must not be zero).

    What the tests build their rigs of; the decoder of transforms checks its quaternion and makes its own.
    """
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(quaternion_xyzw).as_matrix()
    matrix[:3, 3] = translation
    return matrix


def invert_transform(a_from_b: F64) -> F64:
    """Invert a rigid (4, 4) transform: b_from_a."""
    b_from_a = np.eye(4)
    b_from_a[:3, :3] = a_from_b[:3, :3].T
    b_from_a[:3, 3] = -a_from_b[:3, :3].T @ a_from_b[:3, 3]
    return b_from_a

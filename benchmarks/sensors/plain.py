"""The plain ways that ours is measured against: what a careful program does with numpy, OpenCV or Python alone."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from gemini_core.project.voxel import BINS
from gemini_core.types import CameraModel, SweepMotion

Events = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""x, y, polarity and microseconds of each event."""

_JITTER, _HIGH_STEPS = 10, 4096


def evt3_python(words: list[int]) -> Iterator[tuple[int, int, int, int]]:
    """EVT3 word by word, from its table: x, y, polarity, microseconds; a new TIME_HIGH makes the lower bits 0."""
    high = low = y = base = None
    wraps = polarity = 0
    for word in words:
        code, value = word >> 12, word & 0xFFF
        if code == 0:
            y = value & 0x7FF
        elif code == 2 and low is not None and y is not None:
            yield value & 0x7FF, y, value >> 11, ((wraps * _HIGH_STEPS + high) << 12) + low
        elif code == 3:
            base, polarity = value & 0x7FF, value >> 11
        elif code in (4, 5) and base is not None:
            bits = 12 if code == 4 else 8
            if low is not None and y is not None:
                time = ((wraps * _HIGH_STEPS + high) << 12) + low
                yield from ((base + i, y, polarity, time) for i in range(bits) if value >> i & 1)
            base += bits
        elif code == 6 and high is not None:
            low = value
        elif code == 8:
            if high is not None:
                wraps += (value < high - _JITTER) - (value >= high + _HIGH_STEPS - _JITTER)
                low = 0 if low is not None and value != high else low
            high = value


def evt3_numpy(words: np.ndarray) -> Events:
    """The same with numpy: what each word knows is the last word of its kind, found by a running maximum."""
    code, value = words >> 12, (words & 0xFFF).astype(np.int64)
    at = np.arange(words.size)

    def last(mask: np.ndarray) -> np.ndarray:
        return np.maximum.accumulate(np.where(mask, at, -1))

    highs = np.flatnonzero(code == 8)
    if not highs.size:
        return (np.empty(0, np.int64),) * 4
    step = np.diff(value[highs], prepend=value[highs[0]])
    wrap = np.zeros(words.size, np.int64)
    wrap[highs] = (step < -_JITTER).astype(np.int64) - (step >= _HIGH_STEPS - _JITTER)
    changed = np.zeros(words.size, bool)
    changed[highs] = step != 0
    high_at, y_at, base_at = last(code == 8), last(code == 0), last(code == 3)
    low_at = last((code == 6) & (high_at >= 0))
    low = np.where(low_at > last(changed), value[low_at], 0)
    time = ((np.cumsum(wrap) * _HIGH_STEPS + value[high_at]) << 12) + low
    known = (low_at >= 0) & (y_at >= 0)

    sizes = np.where(code == 4, 12, np.where(code == 5, 8, 0))
    before = np.cumsum(sizes) - sizes
    single = np.flatnonzero((code == 2) & known)
    vector = np.flatnonzero((sizes > 0) & known & (base_at >= 0))
    masks = value[vector] & ((1 << sizes[vector]) - 1)
    row, bit = np.nonzero(masks[:, None] >> np.arange(12) & 1)
    of = vector[row]
    base = value[base_at[of]]
    x = np.concatenate([value[single] & 0x7FF, (base & 0x7FF) + before[of] - before[base_at[of]] + bit])
    polarity = np.concatenate([value[single] >> 11, base >> 11])
    word = np.concatenate([single, of])
    order = np.argsort(word, kind="stable")
    word = word[order]
    return x[order], value[y_at[word]] & 0x7FF, polarity[order], time[word]


def _shares(events: Events) -> tuple[np.ndarray, ...]:
    x, y, polarity, time = events
    t = (BINS - 1) * (time - time[0]) / max(int(time[-1] - time[0]), 1)
    low = np.minimum(t.astype(np.int64), BINS - 2)
    sign = 2.0 * polarity - 1.0
    return x.astype(np.int64), y.astype(np.int64), low, sign * (1 - (t - low)), sign * (t - low)


def voxels_add_at(events: Events, width: int, height: int) -> np.ndarray:
    """Time-bilinear voxel grid by np.add.at."""
    x, y, low, at_low, at_high = _shares(events)
    voxels = np.zeros((BINS, height, width), np.float32)
    np.add.at(voxels, (low, y, x), at_low)
    np.add.at(voxels, (low + 1, y, x), at_high)
    return voxels


def voxels_bincount(events: Events, width: int, height: int) -> np.ndarray:
    """Time-bilinear voxel grid by np.bincount."""
    x, y, low, at_low, at_high = _shares(events)
    flat, size = (low * height + y) * width + x, BINS * height * width
    sums = np.bincount(flat, at_low, size) + np.bincount(flat + height * width, at_high, size)
    return sums.reshape(BINS, height, width).astype(np.float32)


def project(camera: CameraModel, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (2, N) and z (N,) of points (3, N) with plumb_bob; z of points behind the camera is NaN."""
    k1, k2, p1, p2, k3 = camera.distortion
    z = np.where(points[2] > 0, points[2], np.nan)
    x, y = points[0] / z, points[1] / z
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    u = camera.fx * (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)) + camera.cx
    v = camera.fy * (y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y) + camera.cy
    return np.stack([u, v]), z


def nearest(pixels: np.ndarray, z: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The z-buffer (h, w) by np.minimum.at, inf where nothing is."""
    with np.errstate(invalid="ignore"):
        column, row = np.rint(pixels).astype(np.int32)
    inside = (column >= 0) & (column < shape[1]) & (row >= 0) & (row < shape[0]) & (z > 0)
    out = np.full(shape, np.inf, np.float32)
    np.minimum.at(out, (row[inside], column[inside]), z[inside])
    return out


def sweep(points: np.ndarray, stamp_ns: int, motion: SweepMotion, camera: CameraModel) -> np.ndarray:
    """Decode, deskew, project and z-buffer a cloud, a structured array (N,): (h, w)."""
    xyz = np.stack([points["x"], points["y"], points["z"]])
    kept = np.isfinite(xyz).all(axis=0) & (xyz != 0).any(axis=0)
    xyz, time_ns = xyz[:, kept], stamp_ns + np.rint(points["time"][kept].astype(np.float64) * 1e9).astype(np.int64)
    stamps, poses = motion.stamps_ns, motion.reference_from_lidar[:, :3].astype(np.float32)
    k = np.clip(np.searchsorted(stamps, time_ns, side="right") - 1, 0, stamps.size - 2)
    share = np.clip((time_ns - stamps[k]) / (stamps[k + 1] - stamps[k]), 0, 1).astype(np.float32)
    mixed = poses[k] + share[:, None, None] * (poses[k + 1] - poses[k])  # (N, 3, 4)
    moved = np.einsum("nij,jn->in", mixed[:, :, :3], xyz) + mixed[:, :, 3].T
    return nearest(*project(camera, moved), (camera.height, camera.width))


def registered(millimetres: np.ndarray, rays: np.ndarray, to_reference: np.ndarray, camera: CameraModel) -> np.ndarray:
    """A depth image registered one pixel for one reading, which leaves gaps between them: (h, w)."""
    z = millimetres.reshape(-1).astype(np.float32) / 1000
    points = rays.reshape(3, -1) * np.where(z > 0, z, np.nan)
    moved = to_reference[:3, :3].astype(np.float32) @ points + to_reference[:3, 3:].astype(np.float32)
    return nearest(*project(camera, moved), (camera.height, camera.width))


def rgb_of_yuyv(pixels: np.ndarray) -> np.ndarray:
    """(H, W * 2) of Y Cb Y Cr to (H, W, 3), BT.601 in video range."""
    quads = pixels.reshape(pixels.shape[0], -1, 4).astype(np.float32)
    y = (quads[..., ::2] - 16) * np.float32(255 / 219)
    cb, cr = quads[..., 1:2] - 128, quads[..., 3:4] - 128
    out = np.stack([y + 1.596 * cr, y - 0.392 * cb - 0.813 * cr, y + 2.017 * cb], axis=-1)
    return np.clip(np.rint(out), 0, 255).astype(np.uint8).reshape(pixels.shape[0], -1, 3)


def rvl_python(data: bytes, size: int) -> list[int]:
    """RVL in Python: ``size`` values."""
    words = np.frombuffer(data, "<u4")
    nibbles = iter((words[:, None] >> np.arange(28, -1, -4, dtype=np.uint32) & 15).reshape(-1).tolist())

    def number() -> int:
        value = shift = 0
        for bits in nibbles:
            value |= (bits & 7) << shift
            shift += 3
            if bits < 8:
                break
        return value

    out: list[int] = []
    previous = 0
    while len(out) < size:
        out += [0] * number()
        if len(out) >= size:
            break
        for _ in range(number()):
            difference = number()
            previous += (difference >> 1) ^ -(difference & 1)
            out.append(previous)
    return out


def rgb_of_jpeg(data: np.ndarray) -> np.ndarray:
    """OpenCV alone."""
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def metres_of_png(data: np.ndarray) -> np.ndarray:
    """OpenCV, and numpy for the unit."""
    values = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    return np.where(values == 0, np.nan, values / np.float32(1000)).astype(np.float32)

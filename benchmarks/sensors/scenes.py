"""Data as robots send it, made up: streams of events, a sweep, depth images, pictures. Seeded."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np

from benchmarks.fuzz.kinds import rvl_encoded
from gemini_core.bag import messages
from gemini_core.types import CameraModel, SweepMotion

STAMP = 1_700_000_000_000_000_000
MS = 1_000_000
VELODYNE = np.dtype(
    {
        "names": ["x", "y", "z", "intensity", "ring", "time"],
        "formats": ["<f4", "<f4", "<f4", "<f4", "<u2", "<f4"],
        "offsets": [0, 4, 8, 12, 16, 18],
        "itemsize": 22,
    }
)
POINTS = 120_000
LENS = (-0.1, 0.02, 0.001, -0.0005, 0.003)
REFERENCE_FROM_LIDAR = np.array([[0, -1, 0, 0], [0, 0, -1, -0.2], [1, 0, 0, -0.1], [0, 0, 0, 1]], np.float64)


def camera(width: int, height: int) -> CameraModel:
    """A camera of 80 degrees with plumb_bob."""
    f = 0.6 * width
    return CameraModel(width, height, f, f, (width - 1) / 2, (height - 1) / 2, "plumb_bob", LENS)


def evt3_words(kind: str, events: int, rng: np.random.Generator) -> np.ndarray:
    """About so many events in EVT3: "single" events, "vectors", or "mixed" half and half; time goes on, and wraps."""
    words: list[np.ndarray] = []
    made, time_us = 0, 16_700_000  # soon before TIME_HIGH wraps
    while made < events:
        time_us += 64
        words.append(np.array([0x8000 | (time_us >> 12 & 0xFFF), 0x6000 | (time_us & 0xFFF)]))
        for _ in range(8):
            words.append(rng.integers(0, 720, 1))
            if kind == "single" or (kind == "mixed" and rng.random() < 0.5):
                words.append(0x2000 | rng.integers(0, 1280, 8) | rng.integers(0, 2, 8) << 11)
                made += 8
            else:
                masks = rng.integers(0, 4096, 3)
                masks[2] &= 0xFF
                words.append(np.array([0x3000 | int(rng.integers(0, 1240)) | int(rng.integers(2)) << 11]))
                words.append(np.array([0x4000, 0x4000, 0x5000]) | masks)
                made += sum(int(mask).bit_count() for mask in masks)
    return np.concatenate(words).astype(np.uint16)


def any_evt3_words(number: int, rng: np.random.Generator) -> np.ndarray:
    """Words of all codes, unknown ones too, with times that wrap and step back."""
    codes = rng.choice([0, 2, 3, 4, 5, 6, 8, 10, 7, 14, 15, 1], number)
    values = rng.integers(0, 4096, number)
    high = (np.cumsum(rng.integers(-3, 40, number)) + 4000) % 4096
    base = rng.integers(0, 1500, number) | rng.integers(0, 2, number) << 11
    return (codes << 12 | np.where(codes == 8, high, np.where(codes == 3, base, values))).astype(np.uint16)


def events(number: int, width: int, height: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """x, y, polarity, nanoseconds over 50 ms."""
    x, y = rng.integers(0, width, number).astype(np.uint16), rng.integers(0, height, number).astype(np.uint16)
    return x, y, rng.integers(0, 2, number).astype(np.uint8), np.sort(rng.integers(0, 50 * MS, number)) + STAMP


def cloud(stamp_ns: int, rng: np.random.Generator) -> Any:  # noqa: ANN401 - a bag's message
    """A Velodyne's sweep of 0.1 s, column by column: 64 rings; ground, walls and 2 % without a return."""
    columns = POINTS // 64
    azimuth = np.repeat(np.linspace(np.pi, -np.pi, columns, endpoint=False), 64)
    elevation = np.tile(np.radians(np.linspace(2, -24.8, 64)), columns)
    down = np.maximum(-np.sin(elevation), 1e-3)
    distance = np.minimum(1.8 / down, 15 + 10 * np.cos(3 * azimuth)) * (1 + 0.005 * rng.standard_normal(POINTS))
    distance[rng.random(POINTS) < 0.02] = 0
    points = np.zeros(POINTS, VELODYNE)
    points["x"] = distance * np.cos(elevation) * np.cos(azimuth)
    points["y"] = distance * np.cos(elevation) * np.sin(azimuth)
    points["z"] = distance * np.sin(elevation)
    points["intensity"], points["ring"] = rng.integers(0, 255, POINTS), np.tile(np.arange(64), columns)
    points["time"] = np.repeat(np.linspace(0, 0.1, columns, endpoint=False), 64)
    return messages.point_cloud(points, stamp_ns, "lidar")


def sweep_motion(stamp_ns: int) -> SweepMotion:
    """Poses of a robot at 10 m/s that turns by 0.5 rad/s, every 10 ms of a sweep."""
    stamps = stamp_ns + np.arange(11) * 10 * MS
    poses = np.stack([REFERENCE_FROM_LIDAR @ moved_at(int(stamp) - stamp_ns) for stamp in stamps])
    return SweepMotion(stamps, poses)


def moved_at(after_ns: int) -> np.ndarray:
    """Where that robot is some time later (4, 4)."""
    seconds = after_ns / 1e9
    turn = 0.5 * seconds
    moved = np.eye(4)
    moved[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    moved[0, 3] = 10 * seconds
    return moved


def millimetres(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """A floor, a wall and boxes before it, (H, W) uint16, with 5 % no reading."""
    row = np.linspace(-0.5, 0.5, height)[:, None] * np.ones(width)
    depth = np.minimum(1000 / np.maximum(row, 1e-3), 6000)
    for _ in range(8):
        left, top = int(rng.integers(0, width * 3 // 4)), int(rng.integers(0, height * 3 // 4))
        depth[top : top + height // 4, left : left + width // 8] = rng.integers(1200, 4000)
    depth += rng.normal(0, 3, depth.shape)
    depth[rng.random(depth.shape) < 0.05] = 0
    return depth.astype(np.uint16)


def picture(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Soft shapes and noise (H, W, 3) uint8, blue first."""
    soft = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), (0, 0), 15)
    soft = cv2.normalize(soft, None, 0, 255, cv2.NORM_MINMAX).astype(np.int16)
    return np.clip(soft + rng.normal(0, 4, soft.shape), 0, 255).astype(np.uint8)


def image(data: np.ndarray, encoding: str, width: int, stamp_ns: int = STAMP, frame_id: str = "camera") -> Any:  # noqa: ANN401 - as above
    """A sensor_msgs/Image of any encoding whose rows are those of ``data`` (rows, ...)."""
    rows = np.ascontiguousarray(data).view(np.uint8).reshape(data.shape[0], -1)
    return messages.make(
        "sensor_msgs/msg/Image",
        header=messages.header(stamp_ns, frame_id),
        height=data.shape[0],
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=rows.shape[1],
        data=rows.reshape(-1),
    )


def compressed_depth(values: np.ndarray, how: str) -> Any:  # noqa: ANN401 - as above
    """CompressedDepth of (H, W) uint16 millimetres."""
    if how == "png":
        packed = cv2.imencode(".png", values, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    else:
        packed = struct.pack("<II", values.shape[1], values.shape[0]) + rvl_encoded(values)
    return messages.compressed_image(struct.pack("<iff", 0, 0.0, 0.0) + packed, f"16UC1; compressedDepth {how}", STAMP, "depth")

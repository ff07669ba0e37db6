"""Bags of four sensors that look at a wall."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from gemini_core.bag import messages as build
from gemini_core.bag.writer import BagWriter
from gemini_core.types import CameraModel, StampedTransform

START_NS = 1_700_000_000_000_000_000


PERIOD_NS = 100_000_000


FRAMES = 5


WIDTH, HEIGHT = 64, 48


CAMERA = CameraModel(WIDTH, HEIGHT, 60.0, 60.0, 31.5, 23.5)


OPTICAL_FROM_BODY = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


def evt3(microseconds: int) -> bytes:
    """One event per row of the first ten, in EVT3: time high, time low, then row and column."""
    words = [0x8000 | microseconds >> 12 & 0xFFF, 0x6000 | microseconds & 0xFFF]
    for row in range(10):
        words += [row, 0x2000 | (row % 2) << 11 | row]
    return struct.pack(f"<{len(words)}H", *words)


def write_rig(path: Path, storage: str = "mcap", leave_out: tuple[str, ...] = (), rgb: str = "/rgb/image") -> Path:
    """A bag of four sensors that look at a wall 5 m away."""
    random = np.random.default_rng(3)
    wall = np.zeros(400, dtype=[("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4")])
    wall["x"], wall["y"], wall["z"] = 5.0, np.tile(np.linspace(-2, 2, 20), 20), np.repeat(np.linspace(-1.5, 1.5, 20), 20)
    pair = [StampedTransform(START_NS, "rgb", name, np.eye(4)) for name in ("depth", "event")]
    pair.append(StampedTransform(START_NS, "rgb", "lidar", OPTICAL_FROM_BODY))
    with BagWriter(path, storage) as bag:

        def write(topic: str, message: object, log_ns: int) -> None:
            if topic not in leave_out:
                bag.write(topic, message, log_ns)

        write("/tf_static", build.tf_message(pair), START_NS)
        for index in range(FRAMES):
            stamp = START_NS + (index + 1) * PERIOD_NS
            for frame_id in ("rgb", "depth", "event"):
                name = "/events/camera_info" if frame_id == "event" else f"/{frame_id}/camera_info"
                write(name, build.camera_info(CAMERA, stamp, frame_id), stamp)
            pixels = random.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            write(rgb, build.image(pixels, "rgb8", stamp, "rgb"), stamp)
            write(
                "/depth/image",
                build.image(np.full((HEIGHT, WIDTH), 5000, np.uint16), "16UC1", stamp + 5_000_000, "depth"),
                stamp,
            )
            write("/lidar/points", build.point_cloud(wall, stamp - 10_000_000, "lidar"), stamp)
            for ahead_us in (20_000, 0):
                at = stamp - ahead_us * 1000
                packet = build.event_packet(
                    evt3(index * 100_000 - ahead_us + 1_000_000),
                    width=WIDTH,
                    height=HEIGHT,
                    seq=index,
                    stamp_ns=at,
                    frame_id="event",
                )
                write("/events", packet, at)
    return path

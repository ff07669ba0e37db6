"""Kinds of messages to damage: for each its role, its event type, whole messages to begin with, and words to try."""

from __future__ import annotations

import dataclasses
import itertools
import struct
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from gemini_core.bag import messages
from gemini_core.decode.camera_info import COEFFICIENTS
from gemini_core.decode.color import LAYOUTS
from gemini_core.decode.event_packets import CODECS
from gemini_core.decode.image import DEPTH_ENCODINGS
from gemini_core.decode.message import RawMessage
from gemini_core.types import CameraModel, Role, StampedTransform

STAMP = 1_700_000_000_123_456_789
SENSOR = 346, 260
"""Width and height of the event sensor."""

_COMPRESSED_WORDS = (
    "jpeg",
    "png",
    "bayer_rggb8; png",
    "mono8; jpeg compressed ",
    *(f"{name}; compressedDepth{how}" for name in DEPTH_ENCODINGS for how in ("", " png", " rvl")),
)


@dataclass(frozen=True)
class Kind:
    """Messages of one role; ``events`` is the event type where the role is that of events."""

    role: Role
    originals: list[Any]
    words: tuple[str, ...] = ()
    events: str = ""
    options: dict[str, object] = field(default_factory=dict)


def all_kinds() -> dict[str, Kind]:
    """Every kind, by name; always the same messages."""
    rng = np.random.default_rng(0)
    packets = {f"EventPacket {encoding}": Kind("event.packets", _packets(encoding, rng), tuple(CODECS)) for encoding in CODECS}
    return {
        "Image": Kind("rgb.image", [_image(name, rng) for name in LAYOUTS], (*LAYOUTS, *DEPTH_ENCODINGS, "jpeg")),
        "Image, depth": Kind(
            "depth.image", [_depth_image(name, big, rng) for name in DEPTH_ENCODINGS for big in (0, 1)], DEPTH_ENCODINGS
        ),
        "CompressedImage": Kind("rgb.image", _compressed(rng), _COMPRESSED_WORDS),
        "CompressedImage, depth": Kind("depth.image", _compressed_depth(rng), _COMPRESSED_WORDS),
        "CameraInfo": Kind("rgb.camera_info", _camera_infos(), (*COEFFICIENTS, "")),
        "CameraInfo, rectified": Kind("rgb.camera_info", _camera_infos(), (*COEFFICIENTS, ""), options={"rgb.rectified": True}),
        "PointCloud2": Kind(
            "lidar.points", _clouds(rng), ("x", "y", "z", "intensity", "i", "ring", "line", "t", "time", "timestamp", "")
        ),
        **packets,
        "EventArray (CDR)": Kind(
            "event.packets",
            [_event_array(name, order, rng) for name in ("dvs_msgs", "prophesee_event_msgs") for order in "<>"],
            events="dvs_msgs/EventArray",
        ),
        "PointCloud2, events": Kind(
            "event.packets", _event_clouds(rng), ("x", "y", "t", "p", "ts", "polarity"), "sensor_msgs/PointCloud2"
        ),
        "Image, events": Kind(
            "event.packets",
            [_image(name, rng) for name in ("mono8", "rgb8", "bgr8", "bgra8", "mono16")],
            tuple(LAYOUTS),
            "sensor_msgs/Image",
        ),
        "TFMessage": Kind("tf", [_transforms(number) for number in (1, 3)], ("odom", "base_link", "camera", "/", "")),
    }


def _bytes(size: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, size, dtype=np.uint8)


def _raw_image(encoding: str, size: tuple[int, int], step: int, data: np.ndarray, *, big_endian: int = 0) -> Any:  # noqa: ANN401 - a bag's message
    return messages.make(
        "sensor_msgs/msg/Image",
        header=messages.header(STAMP, "camera"),
        width=size[0],
        height=size[1],
        encoding=encoding,
        is_bigendian=big_endian,
        step=step,
        data=data,
    )


def _image(encoding: str, rng: np.random.Generator) -> Any:  # noqa: ANN401 - as above
    layout, (width, height) = LAYOUTS[encoding], (12, 8)
    step = layout.row_bytes(width) + 2
    return _raw_image(encoding, (width, height), step, _bytes(step * layout.rows(height), rng), big_endian=int(rng.integers(2)))


def _depth_image(encoding: str, big_endian: int, rng: np.random.Generator) -> Any:  # noqa: ANN401 - as above
    kind = np.dtype("f4" if encoding == "32FC1" else "u2").newbyteorder(">" if big_endian else "<")
    values = rng.integers(0, 9000, (7, 9)).astype(kind)
    return _raw_image(encoding, (9, 7), 9 * kind.itemsize, values.reshape(-1).view(np.uint8), big_endian=big_endian)


def _compressed(rng: np.random.Generator) -> list[Any]:
    pixels = _bytes(16 * 16 * 3, rng).reshape(16, 16, 3)
    packed = {
        "bgr8; jpeg compressed bgr8": cv2.imencode(".jpg", pixels)[1],
        "rgb8; png compressed bgr8": cv2.imencode(".png", pixels)[1],
        "mono16; png compressed ": cv2.imencode(".png", pixels[..., 0].astype(np.uint16) * 256)[1],
        "bayer_rggb8; png compressed ": cv2.imencode(".png", pixels[..., 0])[1],
        "png": cv2.imencode(".png", np.dstack([pixels, pixels[..., 0]]))[1],
    }
    return [messages.compressed_image(data.tobytes(), name, STAMP, "camera") for name, data in packed.items()]


def _compressed_depth(rng: np.random.Generator) -> list[Any]:
    values = rng.integers(0, 9000, (8, 9)).astype(np.uint16)
    values[2:4] = 0
    png = cv2.imencode(".png", values)[1].tobytes()
    rvl = struct.pack("<II", 9, 8) + rvl_encoded(values)
    front = struct.pack("<iff", 0, 100.0, 1.0)
    found = [
        messages.compressed_image(front + data, f"{encoding}; compressedDepth {how}", STAMP, "depth")
        for encoding in DEPTH_ENCODINGS
        for how, data in (("png", png), ("rvl", rvl))
    ]
    return [*found, messages.compressed_image(png, "16UC1; png compressed ", STAMP, "depth")]


def rvl_encoded(values: np.ndarray) -> bytes:
    """Pack (H, W) uint16 as ``gemini_core/decode/rvl.py`` describes, without the size in front."""
    nibbles: list[int] = []

    def number(value: int) -> None:
        while True:
            value, bits = value >> 3, value & 7
            nibbles.append(bits | (8 if value else 0))
            if not value:
                return

    previous, zero_next = 0, True
    for is_zero, run in itertools.groupby(values.reshape(-1).tolist(), lambda value: value == 0):
        if is_zero != zero_next:
            number(0)  # a run of no zeros, before the first pixel
        pixels = list(run)
        number(len(pixels))
        for value in pixels if not is_zero else ():
            difference = value - previous
            number(2 * difference if difference >= 0 else -2 * difference - 1)
            previous = value
        zero_next = not is_zero
    nibbles += [0] * (-len(nibbles) % 8)
    words = np.array(nibbles, np.uint32).reshape(-1, 8) << np.arange(28, -1, -4, dtype=np.uint32)
    return words.sum(axis=1, dtype=np.uint32).astype("<u4").tobytes()


def _camera_infos() -> list[Any]:
    found = []
    for model, numbers in (("plumb_bob", 5), ("rational_polynomial", 8), ("rational_polynomial", 14), ("equidistant", 4)):
        lens = CameraModel(640, 480, 500.0, 500.0, 320.0, 240.0, model, tuple(0.01 * i for i in range(numbers)))
        found.append(messages.camera_info(lens, STAMP, "camera"))
    roi = messages.make("sensor_msgs/msg/RegionOfInterest", x_offset=1, y_offset=2, height=200, width=300, do_rectify=False)
    return [*found, dataclasses.replace(found[0], roi=roi, binning_x=2)]


def _cloud(kinds: dict[str, str], offsets: tuple[int, ...], step: int, number: int, rng: np.random.Generator) -> Any:  # noqa: ANN401 - as above
    layout = {"names": list(kinds), "formats": list(kinds.values()), "offsets": list(offsets), "itemsize": step}
    points = np.zeros(number, np.dtype(layout))
    for name in kinds:
        points[name] = rng.integers(0, 100, number)
    return messages.point_cloud(points, STAMP, "lidar")


def _clouds(rng: np.random.Generator) -> list[Any]:
    xyz = {"x": "<f4", "y": "<f4", "z": "<f4"}
    velodyne = _cloud({**xyz, "intensity": "<f4", "ring": "<u2", "time": "<f4"}, (0, 4, 8, 12, 16, 18), 22, 12, rng)
    ouster = {**xyz, "intensity": "<f4", "t": "<u4", "reflectivity": "<u2", "ring": "<u2", "range": "<u4"}
    hesai = {**xyz, "intensity": "<f4", "ring": "<u2", "timestamp": "<f8"}
    livox = {**xyz, "intensity": "<f4", "tag": "u1", "line": "u1", "timestamp": "<f8"}
    return [
        velodyne,
        dataclasses.replace(velodyne, is_bigendian=True),
        dataclasses.replace(velodyne, height=3, width=4, row_step=4 * 22),
        _cloud(ouster, (0, 4, 8, 16, 20, 24, 26, 28), 32, 12, rng),
        _cloud(hesai, (0, 4, 8, 12, 16, 18), 26, 12, rng),
        _cloud(livox, (0, 4, 8, 12, 16, 17, 18), 26, 12, rng),
        _cloud({**xyz, "rgb": "<f4"}, (0, 4, 8, 16), 20, 12, rng),
    ]


def _event_clouds(rng: np.random.Generator) -> list[Any]:
    return [
        _cloud({"x": "<u2", "y": "<u2", "t": "<u4", "p": "u1"}, (0, 2, 4, 8), 9, 20, rng),
        _cloud({"x": "<f4", "y": "<f4", "t": "<f4", "p": "<f4"}, (0, 4, 8, 12), 16, 20, rng),
        _cloud({"x": "<i4", "y": "<i4", "ts": "<i4", "polarity": "i1"}, (0, 4, 8, 12), 13, 20, rng),
    ]


def _packets(encoding: str, rng: np.random.Generator) -> list[Any]:
    """Three in a row, of words that make events, and two of any words."""
    width, height = SENSOR
    found = []
    for seq in range(5):
        size = np.dtype(CODECS[encoding].dtype).itemsize
        data = _bytes(48 * size, rng).tobytes() if seq > 2 else _words(encoding, rng)
        message = messages.event_packet(data, width=width, height=height, seq=seq, stamp_ns=STAMP, frame_id="event")
        found.append(dataclasses.replace(message, encoding=encoding, is_bigendian=seq == 1, time_base=STAMP))
    return found


def _words(encoding: str, rng: np.random.Generator) -> bytes:
    x, y, ticks = (rng.integers(0, 200, 16) for _ in range(3))
    if encoding == "evt3":
        one = [0x8001, 0x6001, 0x0001, 0x2003, 0x3004, 0x4FFF, 0x5123]
        return np.array([*one, *(0x2000 | x), *(y), *(0x6000 | ticks)], "<u2").tobytes()
    if encoding == "evt2":
        return np.array([8 << 28 | 9, *((ticks % 2) << 28 | (ticks % 64) << 22 | x << 11 | y)], "<u4").tobytes()
    if encoding == "mono":
        return (ticks | x << 32 | y << 48).astype("<u8").tobytes()
    if encoding == "libcaer":
        return np.column_stack([x << 17 | y << 2 | (ticks % 2) << 1, ticks]).astype("<u4").tobytes()
    return np.array([0x0001, 0x1002, 0x2010, 0x3020, 0x4010, 0x50FF, *(0x2000 | x), *(0x3000 | y)], "<u2").tobytes()


def _event_array(package: str, order: str, rng: np.random.Generator) -> RawMessage:
    """The CDR of an array of events, by its rules of alignment (counted from behind the first four bytes)."""
    body = bytearray(struct.pack(f"{order}iII", STAMP // 10**9, STAMP % 10**9, 6) + b"event\0")
    body += bytes(-len(body) % 4) + struct.pack(f"{order}III", SENSOR[1], SENSOR[0], 12)
    for i in range(12):
        body += bytes(-len(body) % 2) + struct.pack(f"{order}HH", *(int(value) for value in rng.integers(0, 200, 2)))
        body += bytes(-len(body) % 4) + struct.pack(f"{order}iIB", STAMP // 10**9, STAMP % 10**9 + i, i % 2)
    return RawMessage(f"{package}/msg/EventArray", (b"\0\1\0\0" if order == "<" else b"\0\0\0\0") + bytes(body))


def _transforms(number: int) -> Any:  # noqa: ANN401 - as above
    frames = ("odom", "base_link", "camera", "lidar")
    return messages.tf_message([StampedTransform(STAMP, *frames[i : i + 2], np.eye(4)) for i in range(number)])

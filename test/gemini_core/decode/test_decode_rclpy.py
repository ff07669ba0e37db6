"""A ROS client's messages decode as a bag's do."""

from __future__ import annotations

import dataclasses
import importlib

import cv2
import numpy as np
import pytest

serialization = pytest.importorskip("rclpy.serialization", reason="needs rclpy")
for package in ("sensor_msgs", "tf2_msgs", "event_camera_msgs"):
    pytest.importorskip(f"{package}.msg", reason="needs the ROS message packages")

from gemini_core.bag import messages
from gemini_core.config.fusion import FusionConfig
from gemini_core.decode.intake import Intake
from gemini_core.types import CameraModel, StampedTransform

STAMP = 1_700_000_000_123_456_789
RNG = np.random.default_rng(0)
POINTS = np.zeros(9, np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("ring", "<u2"), ("timestamp", "<f8")]))
POINTS["x"], POINTS["ring"], POINTS["timestamp"] = np.arange(1, 10), np.arange(9), STAMP / 1e9 + 0.01 * np.arange(9)
CAMERA = CameraModel(6, 4, 5.0, 5.0, 2.0, 1.5, "plumb_bob", (-0.1, 0.01, 0.0, 0.0, 0.0))
EVT3 = np.array([0x8001, 0x6001, 0x0001, 0x2003, 0x3010, 0x4ABC], "<u2").tobytes()

COLOURS = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
JPEG = cv2.imencode(".jpg", COLOURS)[1].tobytes()
DEPTH_PNG = bytes(12) + cv2.imencode(".png", COLOURS[..., 0].astype(np.uint16))[1].tobytes()

OTHER_KINDS = {
    "rgb.image": messages.compressed_image(JPEG, "bgr8; jpeg compressed bgr8", STAMP, "camera"),
    "depth.image": messages.compressed_image(DEPTH_PNG, "16UC1; compressedDepth png", STAMP, "depth"),
}
MESSAGES = {
    "rgb.image": messages.image(RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8), "bgr8", STAMP, "camera"),
    "rgb.camera_info": messages.camera_info(CAMERA, STAMP, "camera"),
    "depth.image": messages.image(RNG.integers(0, 9000, (4, 6), dtype=np.uint16), "16UC1", STAMP, "depth"),
    "lidar.points": messages.point_cloud(POINTS, STAMP, "lidar"),
    "event.packets": messages.event_packet(EVT3, width=640, height=480, seq=1, stamp_ns=STAMP, frame_id="event"),
    "tf": messages.tf_message([StampedTransform(STAMP, "base", "camera", np.eye(4))]),
}


def of_rclpy(message):
    package, _, name = message.__msgtype__.split("/")
    data = messages.typestore().serialize_cdr(message, message.__msgtype__)
    return serialization.deserialize_message(bytes(data), getattr(importlib.import_module(f"{package}.msg"), name))


def same(one, other):
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if dataclasses.is_dataclass(one):
        return all(same(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(one))
    return type(one) is type(other) and one == other


@pytest.mark.parametrize(("role", "message"), [*MESSAGES.items(), *OTHER_KINDS.items()])
def test_both_kinds_of_message_give_the_same_sample(role, message):
    of_bag, of_client = Intake(FusionConfig()), Intake(FusionConfig())
    expected, sample = of_bag.accept(role, message), of_client.accept(role, of_rclpy(message))
    assert expected is not None
    assert same(expected, sample)
    assert of_bag.counts() == of_client.counts()

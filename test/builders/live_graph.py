"""The node under test and a rig beside it on a real ROS 2 graph."""

from __future__ import annotations

import itertools
import os
import time
from array import array
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from event_camera_msgs.msg import EventPacket
from geometry_msgs.msg import TransformStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3DArray

from gemini_core.config.fusion import FusionConfig
from gemini_core.types import MODALITIES, Role
from gemini_ros.convert import stamp_to_ros
from gemini_ros.message_types import message_class
from gemini_ros.node import FusionNode

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")


DOMAIN = 1 + os.getpid() % 100


HEIGHT, WIDTH = 96, 128


MS = 1_000_000


START_NS = 1_700_000_000_000_000_000


BASE: dict[str, Any] = {
    "grid.height": HEIGHT,
    "grid.width": WIDTH,
    "model.enabled": False,
    "node.autostart": False,
    "node.diagnostics_period_s": 0.1,
    "node.idle_flush_ms": 150.0,
    "node.stale_after_s": 30.0,
    "node.queue_size": 50,
    "depth.min_interval_ms": 60.0,
    "lidar.min_interval_ms": 60.0,
}


ROLES_OF = {
    "rgb": ("rgb.camera_info", "rgb.image"),
    "depth": ("depth.camera_info", "depth.image"),
    "event": ("event.camera_info", "event.packets"),
    "lidar": ("lidar.points",),
}


SUBSETS = [subset for size in range(1, 5) for subset in itertools.combinations(MODALITIES, size)]


def header(stamp_ns: int, frame_id: str) -> Header:
    return Header(stamp=stamp_to_ros(stamp_ns), frame_id=frame_id)


def color(stamp_ns: int) -> Image:
    pixels = np.random.default_rng(stamp_ns % 2**32).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    data = array("B", pixels.tobytes())
    return Image(header=header(stamp_ns, "rgb"), height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH, data=data)


def depth(stamp_ns: int) -> Image:
    pixels = np.random.default_rng(stamp_ns % 2**32).integers(1000, 9000, (48, 64), np.uint16)
    return Image(
        header=header(stamp_ns, "depth"), height=48, width=64, encoding="16UC1", step=128, data=array("B", pixels.tobytes())
    )


def camera_info(stamp_ns: int, frame_id: str, width: int, height: int) -> CameraInfo:
    matrix = [float(width), 0.0, width / 2 - 0.5, 0.0, float(width), height / 2 - 0.5, 0.0, 0.0, 1.0]
    return CameraInfo(
        header=header(stamp_ns, frame_id), width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5, k=matrix
    )


def cloud(stamp_ns: int) -> PointCloud2:
    points = np.random.default_rng(stamp_ns % 2**32).uniform(-2, 2, (200, 4)).astype(np.float32)
    points[:, 2] += 6
    fields = [PointField(name=name, offset=4 * i, datatype=7, count=1) for i, name in enumerate(("x", "y", "z", "intensity"))]
    return PointCloud2(
        header=header(stamp_ns, "lidar"),
        height=1,
        width=200,
        fields=fields,
        point_step=16,
        row_step=3200,
        data=array("B", points.tobytes()),
        is_dense=True,
    )


def packet(stamp_ns: int, x: int = 20) -> EventPacket:
    """EVT3 with the sensor's clock equal to the stamp: a few events, the last of them at the stamp."""
    words = []
    for time_ns in (stamp_ns - 20 * MS, stamp_ns - 10 * MS, stamp_ns):
        micros = time_ns // 1000
        words += [0x8000 | (micros >> 12 & 0xFFF), 0x6000 | (micros & 0xFFF), 10, 0x2000 | x, 0x2800 | (x + 1)]
    data = array("B", np.array(words, "<u2").tobytes())
    return EventPacket(
        header=header(stamp_ns - 20 * MS, "event"), width=64, height=48, encoding="evt3", time_base=0, seq=0, events=data
    )


def static_transforms(children: tuple[str, ...] = ("depth", "event", "lidar")) -> TFMessage:
    return TFMessage(transforms=[TransformStamped(header=header(START_NS, "rgb"), child_frame_id=child) for child in children])


MAKERS: dict[Role, Callable[[int], Any]] = {
    "rgb.camera_info": lambda stamp_ns: camera_info(stamp_ns, "rgb", WIDTH, HEIGHT),
    "depth.camera_info": lambda stamp_ns: camera_info(stamp_ns, "depth", 64, 48),
    "event.camera_info": lambda stamp_ns: camera_info(stamp_ns, "event", 64, 48),
    "rgb.image": color,
    "depth.image": depth,
    "event.packets": packet,
    "lidar.points": cloud,
}


def jpeg(stamp_ns: int) -> CompressedImage:
    raw = color(stamp_ns)
    pixels = np.frombuffer(raw.data, np.uint8).reshape(HEIGHT, WIDTH, 3)
    data = cv2.imencode(".jpg", pixels[..., ::-1])[1]
    return CompressedImage(header=raw.header, format="rgb8; jpeg compressed bgr8", data=array("B", data.tobytes()))


def compressed_depth(stamp_ns: int) -> CompressedImage:
    raw = depth(stamp_ns)
    data = bytes(12) + cv2.imencode(".png", np.frombuffer(raw.data, np.uint16).reshape(48, 64))[1].tobytes()
    return CompressedImage(header=raw.header, format="16UC1; compressedDepth png", data=array("B", data))


def event_array(stamp_ns: int) -> Any:
    from dvs_msgs.msg import Event, EventArray

    events = [
        Event(x=20 + index, y=10, ts=stamp_to_ros(stamp_ns - (20 - 10 * index) * MS), polarity=bool(index % 2))
        for index in range(3)
    ]
    return EventArray(header=header(stamp_ns - 20 * MS, "event"), height=48, width=64, events=events)


class Graph:
    """The node under test and a rig beside it, in one executor that the test itself turns."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.rig = rclpy.create_node("rig", context=self.context)
        self.executor.add_node(self.rig)
        self.node: FusionNode | None = None
        self.publishers: dict[Role, Any] = {}
        self.stamp_ns = START_NS
        self.config, self.makers = FusionConfig(), MAKERS  # what the rig sends
        self.received: dict[str, list[Any]] = {}
        for name, kind in (
            ("~/segmentation/mask", Image),
            ("~/detections", Detection3DArray),
            ("~/timing", DiagnosticArray),
            ("/diagnostics", DiagnosticArray),
        ):
            self.listen(name, kind)

    def listen(self, name: str, kind: Any, qos: QoSProfile | int = 100) -> Any:
        topic = name.replace("~", "/gemini_fusion")
        got = self.received.setdefault(name, [])
        return self.rig.create_subscription(kind, topic, got.append, qos)

    def start(self, **overrides: Any) -> FusionNode:
        self.drop_node()
        values = {**BASE, **{key.replace("__", "."): value for key, value in overrides.items()}}
        parameters = [Parameter(key, value=value) for key, value in values.items()]
        self.node = FusionNode(context=self.context, parameter_overrides=parameters)
        self.executor.add_node(self.node)
        return self.node

    def activate(self, *modalities: str, with_transforms: bool = True) -> None:
        """A fresh session, with the sensors of these modalities on the graph."""
        if self.node.state == "active":
            self.node.trigger_deactivate()
        if self.node.state == "unconfigured":
            self.node.trigger_configure()
        self.offer(*modalities, with_transforms=with_transforms)
        self.clear()
        self.node.trigger_activate()
        assert self.node.state == "active"
        self.await_match()

    def await_match(self) -> None:
        """Until both sides know each other: a best-effort message from a publisher not yet known is lost."""

        def matched() -> bool:
            listened = {subscription.topic_name: subscription for subscription in self.node.subscriptions}
            return all(
                publisher.get_subscription_count() and listened[publisher.topic_name].get_publisher_count()
                for publisher in self.publishers.values()
            )

        self.spin_until(matched)
        if "tf_static" in self.publishers:  # DDS sends what is latched a little after the match
            self.spin_until(lambda: self.node._session.health.records["tf_static"].received)

    def offer(self, *modalities: str, with_transforms: bool = True) -> None:
        self.withdraw()
        for modality in modalities:
            for role in ROLES_OF[modality]:
                topic, kind = self.config.topics_by_role()[role], self.config.types_by_role()[role]
                self.publishers[role] = self.rig.create_publisher(message_class(kind), topic, 50)
        if with_transforms:
            latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self.publishers["tf_static"] = self.rig.create_publisher(TFMessage, "/tf_static", latched)
            self.publishers["tf_static"].publish(static_transforms())

    def withdraw(self) -> None:
        for publisher in self.publishers.values():
            self.rig.destroy_publisher(publisher)
        self.publishers.clear()

    def clear(self) -> None:
        for messages in self.received.values():
            messages.clear()

    def send(self, frames: int = 1) -> list[int]:
        """What every offered sensor sends for some frames, 100 ms apart; gives the stamps."""
        stamps = []
        for _ in range(frames):
            self.stamp_ns += 100 * MS
            stamps.append(self.stamp_ns)
            for role, make in self.makers.items():
                if role in self.publishers:
                    self.publishers[role].publish(make(self.stamp_ns))
            self.spin(0.02)
        return stamps

    def spin(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.turn()

    def turn(self) -> None:
        # always the same timeout: rclpy forgets whose turn it is when it changes, and the first topics starve the others
        self.executor.spin_once(timeout_sec=0.01)

    def spin_until(self, condition: Callable[[], Any], timeout_s: float = 15.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"still not after {timeout_s} s; diagnostics: {self.last_diagnostics()}"
            self.turn()

    def masks(self) -> dict[int, np.ndarray]:
        return {
            stamp_of(message): np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)
            for message in self.received["~/segmentation/mask"]
        }

    def await_masks(self, stamps: list[int]) -> dict[int, np.ndarray]:
        self.spin_until(lambda: set(stamps) <= set(self.masks()))
        return self.masks()

    def last_diagnostics(self) -> dict[str, DiagnosticStatus]:
        messages = self.received["/diagnostics"]
        return {} if not messages else {status.name.split(": ")[1]: status for status in messages[-1].status}

    def diagnostics(self) -> dict[str, DiagnosticStatus]:
        """One /diagnostics message from now on."""
        self.received["/diagnostics"].clear()
        self.spin_until(lambda: self.received["/diagnostics"])
        return self.last_diagnostics()

    def drop_node(self) -> None:
        if self.node is not None:
            self.node.stop()
            self.executor.remove_node(self.node)
            self.node.destroy_node()
            self.node = None
        self.clear()

    def close(self) -> None:
        self.drop_node()
        self.withdraw()
        self.rig.destroy_node()
        self.executor.shutdown()
        rclpy.shutdown(context=self.context)


def stamp_of(message: Any) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def values(status: DiagnosticStatus) -> dict[str, str]:
    return {entry.key: entry.value for entry in status.values}

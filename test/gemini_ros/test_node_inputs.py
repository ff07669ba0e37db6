"""What the live node gets: any subset of sensors, what is missing and why, bad messages."""

from __future__ import annotations

import sys
import time

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("vision_msgs.msg", reason="needs the ROS message packages")

from diagnostic_msgs.msg import DiagnosticStatus
from event_camera_msgs.msg import EventPacket
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from gemini_core.config import FusionConfig
from gemini_core.types import MODALITIES
from live_graph import (
    DOMAIN,
    MAKERS,
    MS,
    ROLES_OF,
    START_NS,
    SUBSETS,
    WIDTH,
    cloud,
    color,
    depth,
    names,
    packet,
    static_transforms,
    values,
)

pytestmark = pytest.mark.ros


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_any_subset_of_sensors(running, subset):
    absent = set(MODALITIES) - set(subset)
    running.activate(*subset)
    stamps = running.send(3)
    if "rgb" in subset:
        running.await_masks(stamps)
        running.spin_until(lambda: len(running.received["~/timing"]) >= 3)
        for message in running.received["~/timing"]:
            (entry,) = message.status
            said = values(entry)
            assert names(said["modalities"]) == set(subset)
            assert {key.partition(".")[2] for key in said if key.startswith("missing.")} == absent
            assert all(said[f"missing.{modality}"] == "never_seen" for modality in absent)
    else:
        running.spin(0.2)
    report = running.diagnostics()
    inputs = report["inputs"]
    assert names(values(inputs)["missing"]) == absent
    for modality in absent:
        assert values(inputs)[f"{modality}.missing"] == "no_publisher"
        assert (
            f"no publisher on /{ROLES_OF[modality][-1].replace('.', '/').replace('event/packets', 'events')}" in inputs.message
        )
    if "rgb" in subset:
        assert inputs.level == (DiagnosticStatus.WARN if absent else DiagnosticStatus.OK)
    else:
        assert inputs.level == DiagnosticStatus.ERROR
        assert inputs.message.startswith("no reference image, so there is no output")
        assert not running.masks()


def test_a_robot_with_fewer_sensors_misses_nothing(graph):
    graph.start(modalities=["rgb", "lidar"])
    graph.activate("rgb", "lidar")
    graph.await_masks(graph.send(2))
    report = graph.diagnostics()
    assert report["inputs"].level == DiagnosticStatus.OK
    assert "input depth" not in report
    topics = {subscription.topic_name for subscription in graph.node.subscriptions}
    assert "/depth/image" not in topics
    graph.drop_node()


def test_a_sensor_that_comes_later_is_taken_in(running):
    running.activate("rgb", "depth")
    running.await_masks(running.send(2))
    assert names(values(running.diagnostics()["inputs"])["missing"]) == {"event", "lidar"}
    running.offer("rgb", "depth", "lidar", "event")
    running.await_match()
    running.await_masks(running.send(2))
    running.spin_until(lambda: running.diagnostics()["inputs"].level == DiagnosticStatus.OK)
    assert values(running.last_diagnostics()["inputs"])["missing"] == ""


def test_a_sensor_that_falls_silent_is_named(running):
    running.activate(*MODALITIES)
    running.await_masks(running.send(2))
    assert running.node.set_parameters([Parameter("node.stale_after_s", value=0.3)])[0].successful
    for role in ROLES_OF["lidar"]:
        running.rig.destroy_publisher(running.publishers.pop(role))
    deadline = time.monotonic() + 10
    while "silent" not in running.diagnostics()["inputs"].message and time.monotonic() < deadline:
        running.send(1)
    inputs = running.last_diagnostics()["inputs"]
    assert values(inputs)["missing"] == "lidar"
    assert values(inputs)["lidar.missing"] == "silent"
    assert "no publisher on /lidar/points" in inputs.message
    running.node.set_parameters([Parameter("node.stale_after_s", value=30.0)])


def test_a_clock_that_is_off_is_on_diagnostics(running):
    """As inspect and replay say it: by how much, and what it may be."""
    running.activate("rgb", "lidar")
    running.makers = {**MAKERS, "lidar.points": lambda stamp_ns: cloud(stamp_ns + 37_000 * MS)}
    try:
        said = "the stamps of lidar are 37.0 s ahead of rgb's: TAI against UTC?"
        deadline = time.monotonic() + 15
        while said not in values(running.diagnostics()["inputs"]).get("doubt.lidar.clock_offset", ""):
            assert time.monotonic() < deadline
            running.send(10)
        running.spin_until(lambda: said in running.diagnostics()["input lidar"].message)
        report = running.last_diagnostics()
        assert report["input lidar"].level == DiagnosticStatus.WARN
        assert said in values(report["input lidar"])["lidar.missing_detail.never_seen"]
    finally:
        running.makers = MAKERS


def test_the_nearest_topic_of_the_right_type_is_named(running):
    stray = running.rig.create_publisher(Image, "/rgb/image_raw", 10)
    running.activate("lidar")
    said = "no publisher on /rgb/image (sensor_msgs/msg/Image; nearest known: /rgb/image_raw"
    running.spin_until(lambda: said in running.diagnostics()["inputs"].message)  # publishers of before are known for a while
    running.rig.destroy_publisher(stray)


def test_the_same_images_by_another_transport_are_named(running):
    other = running.rig.create_publisher(CompressedImage, "/rgb/image/compressed", 10)
    running.activate("lidar")
    advice = (
        "there is /rgb/image/compressed; to read it, set topics.rgb.image to /rgb/image and topics.rgb.transport to compressed"
    )
    running.spin_until(lambda: advice in running.diagnostics()["inputs"].message)
    running.rig.destroy_publisher(other)


def test_events_of_another_type_are_named_with_the_option_that_reads_them(running):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    stranger = rclpy.create_node("stranger", context=context)
    publisher = stranger.create_publisher(PointCloud2, "/events", 10)
    running.activate("rgb")
    expected = (
        "stranger publishes /events as sensor_msgs/msg/PointCloud2, expected event_camera_msgs/msg/EventPacket; "
        "to read it, set topics.event.packets to /events and topics.event.type to sensor_msgs/PointCloud2"
    )
    running.spin_until(lambda: running.diagnostics()["input event"].message == expected)
    stranger.destroy_publisher(publisher)
    stranger.destroy_node()
    rclpy.shutdown(context=context)


def test_a_message_package_that_is_missing_is_one_sentence(graph, monkeypatch):
    monkeypatch.setitem(sys.modules, "dvs_msgs", None)  # as where it is not installed
    monkeypatch.setitem(sys.modules, "dvs_msgs.msg", None)
    node = graph.start(topics__event__type="dvs_msgs/EventArray")
    node.trigger_configure()
    assert node.state == "unconfigured"
    assert "expected the message type dvs_msgs/msg/EventArray to be installed, got no package dvs_msgs" in node._failure
    graph.drop_node()


def test_a_topic_of_another_type_is_named(running):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    stranger = rclpy.create_node("stranger", context=context)  # one DDS participant may not have two types on a topic
    publisher = stranger.create_publisher(Header, "/depth/image", 10)
    running.activate("rgb")
    expected = "stranger publishes /depth/image as std_msgs/msg/Header, expected sensor_msgs/msg/Image"
    running.spin_until(lambda: running.diagnostics()["input depth"].message == expected)
    assert values(running.last_diagnostics()["inputs"])["depth.missing"] == "other_type"
    stranger.destroy_publisher(publisher)
    stranger.destroy_node()
    rclpy.shutdown(context=context)


def test_a_missing_transform_names_both_frames(running):
    running.activate(*MODALITIES, with_transforms=False)
    running.await_masks(running.send(3))
    running.spin_until(lambda: values(running.diagnostics()["inputs"]).get("lidar.missing") == "no_transform")
    report = running.last_diagnostics()
    assert names(values(report["inputs"])["missing"]) == {"depth", "event", "lidar"}
    message = report["input lidar"].message
    assert "lidar" in message
    assert "rgb" in message
    assert " frames)" in message  # since when
    running.publishers["tf_static"] = running.rig.create_publisher(
        TFMessage, "/tf_static", QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    )
    running.publishers["tf_static"].publish(static_transforms())
    running.spin(0.2)
    running.await_masks(running.send(3))
    running.spin_until(lambda: running.diagnostics()["inputs"].level == DiagnosticStatus.OK)


# --------------------------------------------------------------------------------------------------------------------
# Bad input


def short_step() -> Image:
    image = color(START_NS)
    image.step = 3 * WIDTH - 1
    return image


def unknown_encoding(image: Image) -> Image:
    image.encoding = "yuv999"
    return image


def short_cloud() -> PointCloud2:
    message = cloud(START_NS)
    message.data = message.data[:-20]
    return message


def uncalibrated(role: str) -> CameraInfo:
    message = MAKERS[f"{role}.camera_info"](START_NS)
    message.k = [0.0] * 9
    return message


def other_event_encoding() -> EventPacket:
    message = packet(START_NS)
    message.encoding = "evt9"
    return message


BAD = {
    "unknown colour encoding": ("rgb.image", lambda: unknown_encoding(color(START_NS)), "yuv999"),
    "unknown depth encoding": ("depth.image", lambda: unknown_encoding(depth(START_NS)), "yuv999"),
    "step shorter than the row": ("rgb.image", short_step, "step"),
    "cloud shorter than its size": ("lidar.points", short_cloud, ""),
    "uncalibrated reference": ("rgb.camera_info", lambda: uncalibrated("rgb"), ""),
    "uncalibrated depth camera": ("depth.camera_info", lambda: uncalibrated("depth"), ""),
    "unknown event encoding": ("event.packets", other_event_encoding, "evt9"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_messages_are_refused_and_counted_and_the_next_frame_comes(running, case):
    role, make, says = BAD[case]
    running.activate(*MODALITIES)
    running.await_masks(running.send(2))
    running.publishers[role].publish(make())
    status = f"input {role.partition('.')[0]}"
    running.spin_until(lambda: values(running.diagnostics()[status])[f"{role}.refused"] == "1")
    said = values(running.last_diagnostics()[status])
    assert (
        f"/{FusionConfig().topics_by_role()[role]}" in said[f"{role}.last_refusal"] or "topic" in said[f"{role}.last_refusal"]
    )
    assert says in said[f"{role}.last_refusal"]
    running.await_masks(running.send(2))
    assert running.diagnostics()["inputs"].level == DiagnosticStatus.OK
    assert running.node.state == "active"


def test_events_outside_the_sensor_are_dropped_and_counted(running):
    running.activate(*MODALITIES)
    running.await_masks(running.send(2))
    running.publishers["event.packets"].publish(packet(running.stamp_ns + 10 * MS, x=1000))
    running.await_masks(running.send(2))
    outside = [
        int(entry.value) for entry in running.diagnostics()["frames"].values if entry.key.endswith("dropped.outside_sensor")
    ]
    assert outside == [6]
    assert running.last_diagnostics()["inputs"].level == DiagnosticStatus.OK

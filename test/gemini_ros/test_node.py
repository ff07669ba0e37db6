"""The live node on a real ROS 2 graph: lifecycle, degradation, bad input, and the same masks as without ROS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("vision_msgs.msg", reason="needs the ROS message packages")

from diagnostic_msgs.msg import DiagnosticStatus
from event_camera_msgs.msg import EventPacket
from geometry_msgs.msg import TransformStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import LabelInfo

from gemini_core.config.fusion import FusionConfig, from_flat
from gemini_core.decode.intake import Intake
from gemini_core.decode.message import RAW_TYPES, RawMessage
from gemini_core.model import checkpoints
from gemini_core.model.segmentation import Segmenter, SegmenterConfig
from gemini_core.pipeline.pipeline import Pipeline
from gemini_core.predictor import Predictor
from gemini_core.types import MODALITIES, UNLABELLED, Role
from gemini_ros import outputs
from gemini_ros.ordering import StampOrder
from gemini_ros.warmup import warm_up
from gemini_ros.worker import Worker
from live_graph import (
    BASE,
    DOMAIN,
    HEIGHT,
    MAKERS,
    MS,
    ROLES_OF,
    START_NS,
    SUBSETS,
    WIDTH,
    Graph,
    cloud,
    color,
    compressed_depth,
    depth,
    event_array,
    header,
    jpeg,
    packet,
    stamp_of,
    static_transforms,
    values,
)

pytestmark = pytest.mark.ros

ROOT = Path(__file__).resolve().parents[2]


# --------------------------------------------------------------------------------------------------------------------
# What the sensors send


# --------------------------------------------------------------------------------------------------------------------
# The graph


def names(text: str) -> set[str]:
    return set(text.split(", ")) - {""}


@pytest.fixture(scope="module")
def graph():
    made = Graph()
    yield made
    made.close()


@pytest.fixture
def running(graph):
    """The graph with a configured node without a network, shared by many tests."""
    if graph.node is None or graph.node.state not in ("inactive", "active"):
        graph.start()
    return graph


# --------------------------------------------------------------------------------------------------------------------
# Which sensors there are


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


def test_the_nearest_topic_of_the_right_type_is_named(running):
    stray = running.rig.create_publisher(Image, "/rgb/image_raw", 10)
    running.activate("lidar")
    running.spin_until(lambda: "/rgb/image_raw" in running.diagnostics()["inputs"].message)
    assert "no publisher on /rgb/image (sensor_msgs/msg/Image; nearest known: /rgb/image_raw" in (
        running.last_diagnostics()["inputs"].message
    )
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
# What is published


def test_outputs_carry_the_stamp_and_frame_of_the_reference(running):
    running.activate(*MODALITIES)
    (stamp,) = running.send(1)
    mask = running.await_masks([stamp])[stamp]
    assert mask.shape == (HEIGHT, WIDTH)
    assert (mask == UNLABELLED).all()  # no network
    running.spin_until(lambda: running.received["~/timing"] and running.received["~/detections"])
    for name in ("~/segmentation/mask", "~/detections", "~/timing"):
        (message,) = running.received[name]
        assert (stamp_of(message), message.header.frame_id) == (stamp, "rgb")
    assert running.received["~/segmentation/mask"][0].encoding == "mono8"
    (entry,) = running.received["~/timing"][0].status
    said = values(entry)
    assert {"frame", "modalities", "age_ms", "sync_wait_ms", "queue_ms", "total_ms"} <= set(said)
    assert {f"skew_ms.{modality}" for modality in MODALITIES} <= set(said)
    assert {"stage_ms.decode", "stage_ms.project", "stage_ms.publish"} <= set(said)


def test_classes_are_latched(running):
    running.activate("rgb")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    subscription = running.listen("~/segmentation/label_info", LabelInfo, latched)
    running.spin_until(lambda: running.received["~/segmentation/label_info"])
    (message, *_) = running.received["~/segmentation/label_info"]
    assert {entry.class_id: entry.class_name for entry in message.class_map} == {
        **dict(enumerate(FusionConfig().model.classes)),
        UNLABELLED: "unlabelled",
    }
    running.rig.destroy_subscription(subscription)


def test_pictures_are_made_for_listeners_only(running, monkeypatch):
    made = []
    for name in ("overlay", "alignment"):
        render = getattr(outputs, name)
        monkeypatch.setattr(outputs, name, lambda *given, name=name, render=render: made.append(name) or render(*given))
    running.activate(*MODALITIES)
    running.await_masks(running.send(1))
    running.spin_until(lambda: running.received["~/timing"])  # comes after the pictures
    assert made == []
    subscriptions = [running.listen(name, Image) for name in ("~/segmentation/overlay", "~/debug/alignment")]
    running.spin(0.2)
    running.await_masks(running.send(1))
    running.spin_until(lambda: running.received["~/segmentation/overlay"] and running.received["~/debug/alignment"])
    assert made == ["overlay", "alignment"]
    (overlay,) = running.received["~/segmentation/overlay"]
    assert (overlay.height, overlay.width, overlay.encoding) == (HEIGHT, WIDTH, "rgb8")
    assert stamp_of(overlay) == running.stamp_ns
    for subscription in subscriptions:
        running.rig.destroy_subscription(subscription)


def test_the_clock_may_jump_back(running):
    running.activate(*MODALITIES)
    running.await_masks(running.send(3))
    now = running.stamp_ns
    running.stamp_ns = START_NS - 3_600_000 * MS
    running.await_masks(running.send(3))
    said = values(running.diagnostics()["frames"])
    assert said["resets"] == "1"
    running.stamp_ns = now


def test_a_thread_that_was_held_up_reads_what_waits_before_it_closes_frames(graph):
    graph.start(node__idle_flush_ms=100.0)
    graph.activate(*MODALITIES)
    stamp = graph.stamp_ns = graph.stamp_ns + 100 * MS
    early = [role for role in MAKERS if role.startswith("rgb.")]
    for role in early:
        graph.publishers[role].publish(MAKERS[role](stamp))
    graph.spin_until(lambda: graph.node._session.health.records["rgb.image"].received)
    for role in MAKERS.keys() - early:
        graph.publishers[role].publish(MAKERS[role](stamp))
    time.sleep(0.3)  # the executor stands still; then its timer is due together with the messages
    graph.await_masks([stamp])
    graph.spin_until(lambda: graph.received["~/timing"])
    (entry,) = graph.received["~/timing"][0].status
    assert names(values(entry)["modalities"]) == set(MODALITIES), entry.message


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


# --------------------------------------------------------------------------------------------------------------------
# Lifecycle and parameters


def change_state(graph: Graph, transition: int) -> bool:
    client = graph.rig.create_client(ChangeState, "/gemini_fusion/change_state")
    graph.spin_until(client.service_is_ready)
    future = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
    graph.spin_until(future.done)
    graph.rig.destroy_client(client)
    return future.result().success


def state_by_service(graph: Graph) -> str:
    client = graph.rig.create_client(GetState, "/gemini_fusion/get_state")
    graph.spin_until(client.service_is_ready)
    future = client.call_async(GetState.Request())
    graph.spin_until(future.done)
    graph.rig.destroy_client(client)
    return future.result().current_state.label


def test_a_lifecycle_manager_can_drive_it(graph):
    node = graph.start()
    node.start()  # autostart is off
    for transition, state in (
        (Transition.TRANSITION_CONFIGURE, "inactive"),
        (Transition.TRANSITION_ACTIVATE, "active"),
        (Transition.TRANSITION_DEACTIVATE, "inactive"),
        (Transition.TRANSITION_ACTIVATE, "active"),
        (Transition.TRANSITION_DEACTIVATE, "inactive"),
        (Transition.TRANSITION_CLEANUP, "unconfigured"),
        (Transition.TRANSITION_CONFIGURE, "inactive"),
        (Transition.TRANSITION_INACTIVE_SHUTDOWN, "finalized"),
    ):
        assert change_state(graph, transition)
        assert state_by_service(graph) == node.state == state
        said = graph.diagnostics()["state"]
        assert values(said)["state"] == state
    assert not any(thread.name == "gemini_fusion_worker" for thread in threading.enumerate())


def test_autostart(graph):
    node = graph.start(node__autostart=True)
    node.start()
    assert node.state == "active"


def test_what_waits_is_published_on_the_way_down(graph):
    graph.start(node__idle_flush_ms=60000.0)
    graph.activate("rgb")
    stamps = graph.send(1)
    graph.spin(0.2)
    assert not graph.masks()  # it waits for the other sensors
    graph.node.trigger_deactivate()
    graph.await_masks(stamps)


def weights_file(folder: Path, modalities: tuple[str, ...], classes: tuple[str, ...]) -> str:
    path = folder / "weights.safetensors"
    segmenter = Segmenter(SegmenterConfig("mit_b0", modalities, len(classes), 8))
    checkpoints.save(segmenter, path, classes, trained=False)
    return str(path)


CLASSES = FusionConfig().model.classes


@pytest.mark.parametrize(
    ("modalities", "classes", "says"),
    [
        (None, CLASSES, "nowhere.safetensors"),
        (("rgb", "depth"), CLASSES, "weights for modalities rgb, depth, event, lidar as configured, got rgb, depth"),
        (MODALITIES, CLASSES[:-1], "weights for classes road"),
    ],
)
def test_weights_that_do_not_fit_leave_the_node_alive(graph, tmp_path, modalities, classes, says):
    path = str(tmp_path / "nowhere.safetensors") if modalities is None else weights_file(tmp_path, modalities, classes)
    node = graph.start(model__enabled=True, model__weights=path)
    assert not change_state(graph, Transition.TRANSITION_CONFIGURE)
    assert node.state == state_by_service(graph) == "unconfigured"
    said = graph.diagnostics()["state"]
    assert said.level == DiagnosticStatus.ERROR
    assert said.message.startswith("configure failed: ")
    assert says in said.message
    assert node.set_parameters([Parameter("model.enabled", value=False)])[0].successful
    assert change_state(graph, Transition.TRANSITION_CONFIGURE)
    assert graph.diagnostics()["state"].level == DiagnosticStatus.WARN  # inactive


def test_parameters_that_do_not_fit_leave_the_node_alive(graph):
    node = graph.start(lidar__min_height_m=20.0, grid__heigth=96)
    node.trigger_configure()
    assert node.state == "unconfigured"
    assert "unknown parameter 'grid.heigth' (nearest known: grid.height" in graph.diagnostics()["state"].message


def test_a_fixed_parameter_is_refused_while_active_and_taken_up_after_cleanup(graph):
    node = graph.start()
    graph.activate("rgb")
    (result,) = node.set_parameters([Parameter("grid.height", value=64)])
    assert not result.successful
    assert result.reason == "grid.height: changes only while the node is unconfigured, and it is active; clean it up first"
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert node.set_parameters([Parameter("grid.height", value=64)])[0].successful
    node.trigger_configure()
    assert node.state == "inactive"


def test_a_live_parameter_stays_for_the_next_activation(graph):
    node = graph.start(node__overlay_alpha=0.25)
    node.trigger_configure()
    assert node.set_parameters([Parameter("node.overlay_alpha", value=0.5)])[0].successful  # while inactive
    node.trigger_activate()
    assert node._session.config.node.overlay_alpha == 0.5
    assert node.set_parameters([Parameter("node.overlay_alpha", value=1.0)])[0].successful  # while active
    assert node._session.config.node.overlay_alpha == 1.0
    node.trigger_deactivate()
    node.trigger_activate()
    assert node._session.config.node.overlay_alpha == 1.0


# --------------------------------------------------------------------------------------------------------------------
# Quality of service


def test_a_qos_mismatch_is_reported_with_both_profiles(graph):
    graph.start(**{"qos_overrides./rgb/image.subscription.reliability": "reliable"})
    best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    graph.withdraw()
    graph.node.trigger_configure()
    graph.clear()
    graph.node.trigger_activate()
    publisher = graph.rig.create_publisher(Image, "/rgb/image", best_effort)
    expected = "QoS incompatible on /rgb/image: rig offers best_effort, volatile, this node asks for reliable, volatile"
    graph.spin_until(lambda: graph.diagnostics()["connections"].level == DiagnosticStatus.WARN)
    report = graph.last_diagnostics()
    assert report["connections"].message == expected
    assert values(report["inputs"])["rgb.missing"] == "qos_incompatible"
    assert expected in report["inputs"].message
    graph.rig.destroy_publisher(publisher)
    graph.spin_until(lambda: graph.diagnostics()["connections"].level == DiagnosticStatus.OK)


def test_a_listener_that_cannot_be_served_is_reported(graph):
    graph.start()
    graph.activate("rgb")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    subscription = graph.listen("~/segmentation/mask", Image, latched)
    graph.spin_until(lambda: graph.diagnostics()["connections"].level == DiagnosticStatus.WARN)
    assert graph.last_diagnostics()["connections"].message == (
        "QoS incompatible on /gemini_fusion/segmentation/mask: rig asks for reliable, transient_local, "
        "this node offers reliable, volatile"
    )
    graph.rig.destroy_subscription(subscription)


@pytest.mark.parametrize(
    ("override", "value", "says"),
    [
        ("/rgb/image.subscription.reliability", "bogus", "expected one of system_default, reliable, best_effort"),
        ("/rgb/image.subscription.depth", "ten", "expected an integer from 1 to 2147483647, got 'ten'"),
        ("/rgb/image.subscription.depth", -1, "expected an integer from 1 to 2147483647, got -1"),
        ("/gemini_fusion/timing.publisher.history", 3, "expected one of system_default, keep_last, keep_all"),
    ],
)
def test_a_qos_override_that_cannot_be_is_one_sentence(graph, override, value, says):
    node = graph.start(**{f"qos_overrides.{override}": value})
    assert not change_state(graph, Transition.TRANSITION_CONFIGURE)
    assert node.state == state_by_service(graph) == "unconfigured"
    said = graph.diagnostics()["state"].message
    assert said.startswith(f"configure failed: parameters: qos_overrides.{override}: {says}")
    assert "\n" not in said


def test_a_topic_name_that_cannot_be_is_one_sentence(graph):
    node = graph.start(topics__depth__image="/depth image")
    assert not change_state(graph, Transition.TRANSITION_CONFIGURE)
    assert node.state == "unconfigured"
    said = graph.diagnostics()["state"].message
    assert said.startswith("configure failed: parameters: topic of depth.image: expected a topic name, got '/depth image' (")


def test_an_activation_that_breaks_off_leaves_the_node_alive(graph):
    node = graph.start()
    assert change_state(graph, Transition.TRANSITION_CONFIGURE)
    other = graph.rig.create_publisher(Header, "/depth/image", 10)  # one DDS participant may not have two types on a topic
    assert not change_state(graph, Transition.TRANSITION_ACTIVATE)
    assert node.state == state_by_service(graph) == "unconfigured"
    assert graph.diagnostics()["state"].message.startswith("activate failed")
    assert not any(thread.name == "gemini_fusion_worker" for thread in threading.enumerate())
    graph.rig.destroy_publisher(other)
    assert change_state(graph, Transition.TRANSITION_CONFIGURE)
    assert change_state(graph, Transition.TRANSITION_ACTIVATE)
    assert node.state == "active"


# --------------------------------------------------------------------------------------------------------------------
# The same as without ROS


def test_live_masks_equal_those_of_the_pipeline(graph):
    assert_live_equals_pipeline(graph, {})


def test_masks_from_compressed_images_and_event_arrays(graph):
    pytest.importorskip("dvs_msgs.msg", reason="no dvs_msgs in this ROS installation")
    changed = {
        "topics.rgb.transport": "compressed",
        "topics.depth.transport": "compressedDepth",
        "topics.event.type": "dvs_msgs/EventArray",
    }
    graph.config = from_flat(changed)
    graph.makers = {**MAKERS, "rgb.image": jpeg, "depth.image": compressed_depth, "event.packets": event_array}
    try:
        assert_live_equals_pipeline(graph, changed)
        topics = {subscription.topic_name for subscription in graph.node.subscriptions}
        assert {"/rgb/image/compressed", "/depth/image/compressedDepth"} <= topics
        counted = {count.what: count.number for count in graph.node._session.counts()}
        assert counted["event.packets.events"] == 12
        assert not [what for what in counted if ".refused." in what or ".dropped." in what]
    finally:
        graph.drop_node()
        graph.withdraw()
        graph.config, graph.makers = FusionConfig(), MAKERS


def assert_live_equals_pipeline(graph: Graph, changed: dict[str, Any]) -> None:
    """Masks of four frames with every sensor, from the graph and from the same messages without ROS."""
    changed = {"model.enabled": True, "model.head_width": 8, "modalities": list(MODALITIES), **changed}
    graph.start(**{key.replace(".", "__"): value for key, value in changed.items()})
    graph.activate(*MODALITIES)
    stamps = graph.send(4)
    live = graph.await_masks(stamps)
    graph.spin_until(lambda: len(graph.received["~/timing"]) == len(stamps))
    for message in graph.received["~/timing"]:
        assert names(values(message.status[0])["modalities"]) == set(MODALITIES), message.status[0].message
    assert graph.diagnostics()["model"].level == DiagnosticStatus.WARN
    assert "never trained" in graph.last_diagnostics()["model"].message

    config = from_flat({**BASE, **changed})
    intake, pipeline = Intake(config), Pipeline(config, Predictor(config))
    offline = []
    for role, message in [("tf_static", static_transforms())] + [
        (role, make(stamp_ns)) for stamp_ns in stamps for role, make in graph.makers.items()
    ]:
        kind = config.types_by_role()[role]
        raw = RawMessage(kind, serialize_message(message)) if kind in RAW_TYPES else message
        offline += pipeline.push(intake.accept(role, raw))
    offline += pipeline.flush()
    assert [perception.stamp_ns for perception in offline] == stamps
    for perception in offline:
        assert all(status.present for status in perception.status)
        np.testing.assert_array_equal(live[perception.stamp_ns], perception.mask)
    assert len({perception.mask.tobytes() for perception in offline}) > 1


def test_the_warm_up_frame_has_every_modality():
    config = from_flat(BASE)
    assert [status.present for status in warm_up(config, None).status] == [True] * 4
    same_view = from_flat({**BASE, "event.alignment": "same_view", "modalities": ["rgb", "event"]})
    assert [status.present for status in warm_up(same_view, None).status] == [True] * 2
    others = {
        "topics.event.type": "dvs_msgs/EventArray",
        "topics.rgb.transport": "compressed",
        **{f"{modality}.rectified": True for modality in ("rgb", "depth", "event")},
    }
    assert [status.present for status in warm_up(from_flat({**BASE, **others}), None).status] == [True] * 4


# --------------------------------------------------------------------------------------------------------------------
# The order of messages, and the worker


def ordered(order: StampOrder, *batch: tuple[Role, int]) -> list[tuple[Role, int]]:
    messages = [
        (role, TFMessage(transforms=[TransformStamped(header=header(ms * MS, "a"))]))
        if role.startswith("tf")
        else (role, Image(header=header(ms * MS, "a")))
        for role, ms in batch
    ]

    def milliseconds(message: Any) -> int:
        return stamp_of(message.transforms[0] if isinstance(message, TFMessage) else message) // MS

    return [(role, milliseconds(message)) for role, message in order.sort(messages)]


def test_messages_that_waited_together_are_ordered_by_stamp():
    order = StampOrder(1000 * MS)
    batch = [
        ("rgb.image", 100),
        ("rgb.image", 200),
        ("lidar.points", 90),
        ("event.packets", 150),
        ("tf", 300),
        ("tf_static", 0),
    ]
    assert ordered(order, *batch) == [
        ("tf_static", 0),
        ("tf", 300),
        ("lidar.points", 90),
        ("rgb.image", 100),
        ("event.packets", 150),
        ("rgb.image", 200),
    ]
    # one topic's own order is kept, also where a stamp is a little older than the one before
    assert ordered(order, ("rgb.image", 300), ("rgb.image", 290), ("lidar.points", 295))[0] == ("lidar.points", 295)
    assert ordered(order, ("rgb.image", 310), ("rgb.image", 305)) == [("rgb.image", 310), ("rgb.image", 305)]


def test_what_came_after_a_jump_back_stays_after_it():
    order = StampOrder(1000 * MS)
    ordered(order, ("rgb.image", 8900), ("lidar.points", 8900), ("event.packets", 8900))
    batch = [("rgb.image", 9000), ("rgb.image", 100), ("lidar.points", 9000), ("lidar.points", 110), ("event.packets", 8990)]
    assert ordered(order, *batch) == [
        ("event.packets", 8990),
        ("rgb.image", 9000),
        ("lidar.points", 9000),
        ("rgb.image", 100),
        ("lidar.points", 110),
    ]


def test_one_wrong_stamp_does_not_put_a_topic_after_all_others_for_good():
    order = StampOrder(1000 * MS)
    for batch in ([("rgb.image", 9000), ("lidar.points", 9000)], [("lidar.points", 3_600_000)], [("lidar.points", 9100)]):
        ordered(order, *batch)
    batch = [("rgb.image", 9100), ("rgb.image", 9200), ("lidar.points", 9190), ("rgb.image", 9300), ("lidar.points", 9290)]
    assert [stamp_ms for _, stamp_ms in ordered(order, *batch)] == [9100, 9190, 9200, 9290, 9300]
    # a sensor that began anew with stamps of zero, until its clock was set
    for batch in ([("lidar.points", 0)], [("rgb.image", 9400), ("lidar.points", 100)], [("lidar.points", 9400)]):
        ordered(order, *batch)
    batch = [("rgb.image", 9500), ("rgb.image", 9600), ("lidar.points", 9490), ("lidar.points", 9590)]
    assert [stamp_ms for _, stamp_ms in ordered(order, *batch)] == [9490, 9500, 9590, 9600]


def test_transforms_with_stamps_of_their_own_still_come_before_what_needs_them():
    order = StampOrder(1000 * MS)
    for start in (8900, 9000):  # one publisher leaves its stamps at zero
        batch = [("rgb.image", start), ("tf", start), ("tf", 0), ("tf", start + 10)]
        assert ordered(order, *batch) == [("tf", start), ("tf", 0), ("tf", start + 10), ("rgb.image", start)]
    # a topic that begins now is ordered among the others
    assert ordered(order, ("rgb.image", 9200), ("lidar.points", 9100))[0] == ("lidar.points", 9100)
    # after a jump back, transforms of the new time stay between the old data and the new
    batch = [("tf", 9250), ("tf", 90), ("rgb.image", 9300), ("rgb.image", 100), ("lidar.points", 9300), ("lidar.points", 110)]
    assert ordered(order, *batch) == [batch[0], batch[2], batch[4], batch[1], batch[3], batch[5]]


def test_the_worker_keeps_the_order_and_skips_the_oldest():
    free, done = threading.Event(), []

    def work(item: int) -> None:
        free.wait(5)
        done.append(item)

    worker = Worker(work, limit=2)
    worker.put(0)
    while worker.waiting:  # until it is being worked on
        time.sleep(0.001)
    for item in (1, 2, 3, 4):
        worker.put(item)
    free.set()
    worker.finish()
    assert done == [0, 3, 4]
    assert worker.skipped == 2


# --------------------------------------------------------------------------------------------------------------------
# The executable


def run_node(*arguments: str) -> subprocess.Popen[str]:
    variables = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN % 100 + 1), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "gemini_ros.main", "--ros-args", *arguments],
        cwd=ROOT,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_line(process: subprocess.Popen[str], part: str) -> list[str]:
    """Read up to the line with ``part``; a process that never says it is ended after a minute."""
    lines, watchdog = [], threading.Timer(60, process.kill)
    watchdog.start()
    try:
        for line in process.stdout:
            lines.append(line)
            if part in line:
                return lines
    finally:
        watchdog.cancel()
    raise AssertionError("".join(lines))


def test_a_parameter_file_that_is_not_there_is_one_line():
    said, _ = (process := run_node("--params-file", "nowhere.yaml")).communicate(timeout=30)
    assert process.returncode == 2
    assert "Traceback" not in said
    assert "nowhere.yaml" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_process_in_order(number):
    if number == signal.SIGINT:
        arguments, line = ["--params-file", "config/fusion.yaml", "-p", "model.enabled:=false"], "activate: done, active"
    else:
        arguments, line = ["-p", "grid.heigth:=96"], "unknown parameter 'grid.heigth' (nearest known: grid.height"
    process = run_node(*arguments)
    lines = wait_for_line(process, line)
    process.send_signal(number)
    rest, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in "".join(lines) + rest
    assert "shutdown: done, finalized" in rest

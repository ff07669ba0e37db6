"""What the live node publishes: stamps, frames, latched classes, pictures for listeners."""

from __future__ import annotations

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("vision_msgs.msg", reason="needs the ROS message packages")

from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from vision_msgs.msg import LabelInfo

from gemini_core.config import FusionConfig
from gemini_core.types import MODALITIES, UNLABELLED
from gemini_ros import outputs
from live_graph import (
    HEIGHT,
    WIDTH,
    stamp_of,
    values,
)

pytestmark = pytest.mark.ros


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

"""The intake: every role to its decoder, refusals counted and kept for people, nothing raised."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from gemini_core.bag import messages
from gemini_core.config.fusion import from_flat
from gemini_core.decode.advice import advice, advice_for_missing
from gemini_core.decode.color import LAYOUTS
from gemini_core.decode.intake import READABLE_TYPES, Intake, Refusal
from gemini_core.decode.message import RawMessage
from gemini_core.types import (
    ROLES,
    CameraInfoSample,
    CameraModel,
    CloudSample,
    DepthSample,
    EventSample,
    ImageSample,
    StampedTransform,
    TransformSample,
)

STAMP = 1_700_000_000_000_000_001
WORDS = np.array([0x8001, 0x6001, 0x0001, 0x2003], "<u2").tobytes()
CAMERA = CameraModel(4, 3, 5.0, 5.0, 2.0, 1.5)
POINTS = np.zeros(2, np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4")]))
POINTS["z"] = 1

IMAGE = messages.image(np.zeros((3, 4, 3), np.uint8), "rgb8", STAMP, "camera")
DEPTH = messages.image(np.ones((3, 4), np.uint16), "16UC1", STAMP, "depth")
INFO = messages.camera_info(CAMERA, STAMP, "camera")
CLOUD = messages.point_cloud(POINTS, STAMP, "lidar")
EVENTS = messages.event_packet(WORDS, width=640, height=480, seq=1, stamp_ns=STAMP, frame_id="event")
TF = messages.tf_message([StampedTransform(STAMP, "base", "camera", np.eye(4))])
NO_TF = messages.tf_message([])

MESSAGES = {
    "rgb.image": (IMAGE, ImageSample),
    "rgb.camera_info": (INFO, CameraInfoSample),
    "depth.image": (DEPTH, DepthSample),
    "depth.camera_info": (INFO, CameraInfoSample),
    "lidar.points": (CLOUD, CloudSample),
    "event.packets": (EVENTS, EventSample),
    "event.camera_info": (INFO, CameraInfoSample),
    "tf": (TF, TransformSample),
    "tf_static": (TF, TransformSample),
}


@pytest.fixture
def intake():
    return Intake(from_flat({"topics.rgb.image": "/front/image"}))


def counts(intake):
    return {count.what: count.number for count in intake.counts()}


def test_every_role_gives_its_sample(intake):
    for role in ROLES:
        message, sample_type = MESSAGES[role]
        sample = intake.accept(role, message)
        assert isinstance(sample, sample_type)
        if isinstance(sample, CameraInfoSample):
            assert sample.modality == role.split(".")[0]
        if isinstance(sample, TransformSample):
            assert sample.static == (role == "tf_static")
    expected = {f"{role}.accepted": 1 for role in ROLES}
    assert counts(intake) == {**expected, "event.packets.events": 1, "lidar.points.without_point_times": 1}
    assert intake.last_refusals() == ()


@pytest.mark.parametrize("role", ROLES)
def test_a_message_of_another_type_is_refused_not_raised(intake, role):
    for other, _ in MESSAGES.values():
        if type(other) is not type(MESSAGES[role][0]):
            assert intake.accept(role, other) is None
    assert intake.accept(role, object()) is None
    (refusal,) = intake.last_refusals()
    assert refusal.reason == "wrong_type"
    assert refusal.count == counts(intake)[f"{role}.refused.wrong_type"]


JPEG = messages.compressed_image(cv2.imencode(".jpg", np.full((8, 8, 3), 99, np.uint8))[1].tobytes(), "jpeg", STAMP, "camera")
DEPTH_PNG = messages.compressed_image(
    bytes(12) + cv2.imencode(".png", np.ones((3, 4), np.uint16))[1].tobytes(), "16UC1; compressedDepth png", STAMP, "depth"
)


@pytest.mark.parametrize(("role", "message"), [("rgb.image", JPEG), ("depth.image", DEPTH_PNG)])
@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_images_are_read_by_what_they_are_not_by_what_is_configured(role, message, transport):
    intake = Intake(from_flat({"topics.rgb.transport": transport, "topics.depth.transport": transport}))
    for each in (message, MESSAGES[role][0]):
        assert isinstance(intake.accept(role, each), MESSAGES[role][1])
    assert counts(intake) == {f"{role}.accepted": 2}


def test_events_are_read_as_what_a_bag_has():
    kind = "dvs_msgs/msg/EventArray"
    stamp = messages.time(STAMP)
    events = [messages.make("dvs_msgs/msg/Event", x=i, y=2 * i, ts=stamp, polarity=bool(i % 2)) for i in range(5)]
    array = messages.make(kind, header=messages.header(STAMP, "event"), height=48, width=64, events=events)
    raw = RawMessage(kind, bytes(messages.typestore().serialize_cdr(array, kind)))
    configured = Intake(from_flat({}))
    assert configured.accept("event.packets", raw) is None
    (refusal,) = configured.last_refusals()
    assert (refusal.reason, refusal.stamp_ns) == ("wrong_type", STAMP)
    assert kind in refusal.message
    sample = Intake(from_flat({}), {"event.packets": kind}).accept("event.packets", raw)
    np.testing.assert_array_equal(sample.x, range(5))


@pytest.mark.parametrize(
    ("modality", "option"), [("rgb", "rgb.rectified"), ("depth", "depth.rectified"), ("event", "event.rectified")]
)
def test_intrinsics_of_rectified_images(modality, option):
    message = dataclasses.replace(INFO, p=np.array([7.0, 0, 1, 0, 0, 8, 2, 0, 0, 0, 1, 0]))
    raw, rectified = (Intake(from_flat({option: value})).accept(f"{modality}.camera_info", message) for value in (False, True))
    assert (raw.camera.fx, rectified.camera.fx, rectified.camera.cy) == (5.0, 7.0, 2.0)


ADVICE = {
    ("rgb.image", "/cam/image/compressed", "CompressedImage"): (
        "set topics.rgb.image to /cam/image and topics.rgb.transport to compressed"
    ),
    ("rgb.image", "/cam/jpeg", "CompressedImage"): (
        "set topics.rgb.transport to compressed and remap the topic that is then asked for to /cam/jpeg"
    ),
    ("rgb.image", "/cam/image", "Image"): "set topics.rgb.image to /cam/image and topics.rgb.transport to raw",
    ("depth.image", "/d/compressedDepth", "CompressedImage"): (
        "set topics.depth.image to /d and topics.depth.transport to compressedDepth"
    ),
    ("event.packets", "/e", "PointCloud2"): ("set topics.event.packets to /e and topics.event.type to sensor_msgs/PointCloud2"),
    ("lidar.points", "/l", "PointCloud2"): "set topics.lidar.points to /l",
    ("lidar.points", "/l", "LaserScan"): "",
    ("rgb.image", "/cam", "PointCloud2"): "",
}


def test_advice_names_the_options_that_read_a_topic():
    for (role, topic, kind), expected in ADVICE.items():
        assert advice(role, topic, f"sensor_msgs/msg/{kind}") == (f"to read it, {expected}" if expected else "")


def test_advice_is_what_the_configuration_then_does():
    sentence = advice("depth.image", "/d/image/compressedDepth", "sensor_msgs/msg/CompressedImage")
    parts = sentence.removeprefix("to read it, set ").split(" and ")
    config = from_flat(dict(part.split(" to ") for part in parts))
    assert config.topics_by_role()["depth.image"] == "/d/image/compressedDepth"
    assert config.types_by_role()["depth.image"] == "sensor_msgs/msg/CompressedImage"


def test_the_same_images_by_another_transport_are_found():
    types = {"/cam/image": "sensor_msgs/msg/Image", "/d/compressedDepth": "sensor_msgs/msg/CompressedImage"}
    assert advice_for_missing("rgb.image", "/cam/image/compressed", types).startswith("there is /cam/image; to read it, set")
    assert "topics.depth.transport to compressedDepth" in advice_for_missing("depth.image", "/d", types)
    assert advice_for_missing("rgb.image", "/other", types) == ""
    assert advice_for_missing("lidar.points", "/cam/image/compressed", types) == ""


def test_every_role_reads_what_the_configuration_can_ask_for():
    for overrides in ({}, {"topics.rgb.transport": "compressed", "topics.depth.transport": "compressedDepth"}):
        for role, kind in from_flat(overrides).types_by_role().items():
            assert kind in READABLE_TYPES[role]


def test_the_latest_refusal_of_each_kind_is_kept_with_its_number(intake):
    for stamp in (1, 2, 3):
        message = dataclasses.replace(IMAGE, header=messages.header(stamp, "camera"), encoding="yuv420")
        assert intake.accept("rgb.image", message) is None
    assert intake.accept("rgb.image", dataclasses.replace(IMAGE, step=1)) is None
    unknown, short = intake.last_refusals()
    assert unknown == Refusal(
        role="rgb.image",
        topic="/front/image",
        reason="unknown_encoding",
        message=f"expected encoding {', '.join(LAYOUTS)} on topic '/front/image', got 'yuv420'",
        stamp_ns=3,
        count=3,
    )
    assert (short.reason, short.count) == ("short_step", 1)
    assert counts(intake) == {"rgb.image.refused.unknown_encoding": 3, "rgb.image.refused.short_step": 1}


def test_a_message_without_transforms_is_empty_not_wrong(intake):
    assert intake.accept("tf", NO_TF) is None
    assert counts(intake) == {"tf.empty": 1}
    assert intake.last_refusals() == ()


def test_a_role_that_is_not_configured_is_counted():
    intake = Intake(from_flat({"modalities": ["rgb"]}))
    assert intake.accept("lidar.points", CLOUD) is None
    assert counts(intake) == {"lidar.points.not_configured": 1}


def test_points_that_are_left_out_are_counted(intake):
    points = np.ones(5, POINTS.dtype)
    points["x"][1], points["z"][3] = np.nan, np.inf
    points[4] = 0
    for _ in range(2):
        assert intake.accept("lidar.points", messages.point_cloud(points, STAMP, "lidar")).points.shape == (3, 2)
    assert counts(intake)["lidar.points.points_without_position"] == 6


def test_reset_starts_the_events_anew_and_keeps_the_counts(intake):
    again = messages.event_packet(WORDS[4:], width=640, height=480, seq=2, stamp_ns=STAMP, frame_id="event")
    assert intake.accept("event.packets", EVENTS).x.size == 1
    assert intake.accept("event.packets", again).x.size == 1
    intake.reset()
    assert intake.accept("event.packets", again).x.size == 0
    assert counts(intake) == {
        "event.packets.accepted": 3,
        "event.packets.events": 2,
        "event.packets.dropped.unsynchronized": 1,
    }

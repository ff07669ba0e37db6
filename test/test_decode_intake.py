"""The intake: every role to its decoder, refusals counted and kept for people, nothing raised."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gemini_core.bag import messages
from gemini_core.config import from_flat
from gemini_core.decode.intake import Intake, Refusal
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


def test_the_latest_refusal_of_each_kind_is_kept_with_its_number(intake):
    for stamp in (1, 2, 3):
        message = dataclasses.replace(IMAGE, header=messages.header(stamp, "camera"), encoding="yuv422")
        assert intake.accept("rgb.image", message) is None
    assert intake.accept("rgb.image", dataclasses.replace(IMAGE, step=1)) is None
    unknown, short = intake.last_refusals()
    assert unknown == Refusal(
        role="rgb.image",
        topic="/front/image",
        reason="unknown_encoding",
        message="expected encoding rgb8, bgr8, mono8 on topic '/front/image', got 'yuv422'",
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

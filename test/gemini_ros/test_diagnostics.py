"""What the node concludes from stamps and arrivals, without a graph."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="no rclpy on this machine")

from gemini_core.decode.sensor_clock import ClockState
from gemini_core.types import Doubt, ModalityStatus
from gemini_ros.diagnostics import OK, WARN, InputHealth, TopicRecord

MS = 1_000_000


def record_of(stamps_ms):
    record = TopicRecord("rgb.image", "/rgb/image")
    for stamp_ms in stamps_ms:
        record.arrived(stamp_ms / 1000, stamp_ms * MS)
    return record


def test_no_loss_at_a_steady_or_jittering_rate():
    assert record_of(range(0, 3000, 100)).lost_share() == 0.0
    assert record_of(100 * i + (-1) ** i * 10 for i in range(30)).lost_share() == 0.0


def test_every_fifth_message_lost():
    stamps = [100 * i for i in range(51) if i % 5 != 3]
    assert record_of(stamps).lost_share() == pytest.approx(0.2, abs=0.02)


def test_a_clock_that_jumps_back_is_no_loss():
    assert record_of([*range(100_000, 102_000, 100), *range(0, 2000, 100)]).lost_share() == 0.0


def test_few_messages_say_nothing():
    assert record_of([0, 100, 900]).lost_share() == 0.0


def test_the_status_warns_of_losses_and_names_the_topic():
    health = InputHealth(("rgb",), {"rgb.image": "/cam/image", "rgb.camera_info": "/cam/info"})
    for i in range(40):
        if i % 4:
            health.records["rgb.image"].arrived(i / 10, i * 100 * MS)
    statuses = {entry.name: entry for entry in health.statuses("n", "", {}, 4.0)}
    assert statuses["n: input rgb"].level == WARN
    assert "/cam/image" in statuses["n: input rgb"].message
    assert statuses["n: inputs"].level == OK


@pytest.mark.parametrize(("drift_ppm", "level"), [(0.0, OK), (-190.0, OK), (-230.0, WARN), (450.0, WARN)])
def test_the_status_warns_of_a_clock_that_drifts(drift_ppm, level):
    health = InputHealth(("event",), {"event.packets": "/events", "event.camera_info": "/events/info"})
    health.records["event.packets"].arrived(1.0)
    health.records["event.packets"].clock = ClockState(5, drift_ppm, 1_500_000, 0)
    found = {entry.name: entry for entry in health.statuses("n", "", {}, 1.0)}["n: input event"]
    values = {pair.key: pair.value for pair in found.values}
    assert found.level == level
    assert ("/events" in found.message) == (level == WARN)
    assert values["event.packets.clock_drift_ppm"] == f"{drift_ppm:.1f}"
    assert values["event.packets.clock_jitter_ms"] == "1.50"
    assert "event.camera_info.clock_drift_ppm" not in values


def test_the_status_says_since_when_and_why_data_is_not_moved():
    health = InputHealth(("rgb", "lidar"), {"rgb.image": "/cam/image", "lidar.points": "/points"})

    def lidar_status(now, note, detail="", may_move=True):
        lidar = ModalityStatus("lidar", present=True, reason="", skew_ns=0, detail=detail, motion=note)
        health.saw_frame((lidar,), now, may_move)
        (found,) = (entry for entry in health.statuses("n", "", {}, now) if entry.name == "n: input lidar")
        return found, {pair.key: pair.value for pair in found.values}

    found, values = lidar_status(1.0, "compensated")
    assert (found.level, found.message, values["lidar.motion"]) == (OK, "ok", "compensated")
    lidar_status(2.0, "no_odometry", "no frame 'odom'")
    found, values = lidar_status(4.5, "no_odometry", "no frame 'odom' (known: base)")
    assert (found.level, values["lidar.motion"]) == (WARN, "no_odometry")
    assert "no frame 'odom' (known: base) (for 2.5 s, 2 frames)" in found.message
    # a rig that stands still is not ill for that, but people can read it
    found, values = lidar_status(4.6, "no_odometry", "no frame 'odom'", may_move=False)
    assert (found.level, values["lidar.motion"]) == (OK, "no_odometry")
    assert "stand still" in found.message
    assert "no frame 'odom' (for 2.6 s, 3 frames)" in found.message
    found, values = lidar_status(5.0, "")
    assert (found.level, "lidar.motion" in values) == (OK, False)


def test_the_latest_sentence_of_each_reason_stays_with_its_count():
    health = InputHealth(("rgb", "lidar"), {"rgb.image": "/cam/image", "lidar.points": "/points"})
    for now, (reason, detail) in enumerate([("late", "300 ms older"), ("never_seen", "none"), ("late", "450 ms older")]):
        health.saw_frame((ModalityStatus("lidar", present=False, reason=reason, skew_ns=None, detail=detail),), now, False)
    health.saw_frame((ModalityStatus("lidar", present=True, reason="", skew_ns=0),), 4.0, False)
    found = {entry.name: entry for entry in health.statuses("n", "", {}, 4.0)}["n: input lidar"]
    values = {pair.key: pair.value for pair in found.values}
    assert found.level == OK
    assert values["lidar.missing_detail.late"] == "450 ms older (in 2 frames, the latest)"
    assert values["lidar.missing_detail.never_seen"] == "none (in 1 frames, the latest)"


def test_a_doubt_is_a_warning_with_its_sentence():
    health = InputHealth(("rgb", "lidar"), {"rgb.image": "/cam/image", "lidar.points": "/points"})
    health.doubts = (
        Doubt("lidar", "clock_offset", "the stamps of lidar are 37.0 s ahead of rgb's"),
        Doubt("tf", "two_parents", "frame 'base' has two parents"),
    )
    found = {entry.name: entry for entry in health.statuses("n", "", {}, 4.0)}
    values = {pair.key: pair.value for pair in found["n: inputs"].values}
    assert values["doubt.lidar.clock_offset"] == found["n: input lidar"].message == health.doubts[0].detail
    assert (found["n: input lidar"].level, found["n: input rgb"].level, found["n: inputs"].level) == (WARN, OK, WARN)
    assert "tf doubtful: frame 'base' has two parents" in found["n: inputs"].message

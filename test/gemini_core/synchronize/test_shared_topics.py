"""Several frames or sizes on one topic are said, with names and numbers."""

from __future__ import annotations

import dataclasses

from gemini_core.synchronize.shared_topics import SharedTopics
from small_rig import depth, packet, rgb, sweep


def test_one_sensor_for_each_topic_is_no_doubt() -> None:
    shared = SharedTopics({})
    for k in range(60):
        for sample in (rgb(k), depth(k), sweep(k), packet(k, k + 1)):
            shared.saw(sample)
    assert shared.doubts() == ()


def test_two_frames_on_one_topic_are_named() -> None:
    shared = SharedTopics({"lidar": "points"})
    for k in range(5):
        shared.saw(dataclasses.replace(sweep(k), frame_id="front"))
        shared.saw(dataclasses.replace(sweep(k), frame_id="/rear" if k else "rear"))
    (doubt,) = shared.doubts()
    assert (doubt.about, doubt.reason) == ("lidar", "several_frames")
    assert "on topic 'points' of lidar, got 'front' (5) and 'rear' (5) in the latest 10 messages" in doubt.detail


def test_two_sizes_on_one_topic_are_named_until_they_are_long_past() -> None:
    shared = SharedTopics({"rgb": "image"})
    shared.saw(rgb(0, 32, 24))
    shared.saw(rgb(1))
    (doubt,) = shared.doubts()
    assert (doubt.about, doubt.reason) == ("rgb", "several_sizes")
    assert "got 32 x 24 (1) and 64 x 48 (1)" in doubt.detail
    for k in range(50):
        shared.saw(rgb(2 + k))
    assert shared.doubts() == ()

"""The front half: messages in, frames out; what goes with the clock begins anew together; refusals, timings and counts."""

from __future__ import annotations

import functools
import itertools

import numpy as np

from configs import beside_rgb
from gemini_core.bag import messages
from gemini_core.pipeline.front import Front
from pipelines import numbers

MS = 1_000_000


config = functools.partial(beside_rgb, base={"motion.fixed_frame": ""})


def image(stamp_ms: int, encoding: str = "rgb8") -> messages.Message:
    made = messages.image(np.zeros((6, 8, 3), np.uint8), "rgb8", stamp_ms * MS, "camera")
    made.encoding = encoding
    return made


def packet(stamp_ms: int, sensor_ms: int) -> messages.Message:
    """EVT3: TIME_HIGH, TIME_LOW, ADDR_Y and one event, with the sensor's own clock at ``sensor_ms``."""
    micros = sensor_ms * 1000
    words = np.array([0x8000 | (micros >> 12 & 0xFFF), 0x6000 | (micros & 0xFFF), 2, 0x2000 | 3], "<u2")
    return messages.event_packet(words.tobytes(), width=8, height=6, seq=0, stamp_ns=stamp_ms * MS, frame_id="event")


def test_messages_become_frames_in_the_order_of_their_stamps() -> None:
    front = Front(config())
    frames = [frame for stamp_ms in (0, 100, 200) for frame in front.push("rgb.image", image(stamp_ms))]
    assert [(frame.index, frame.stamp_ns) for frame in frames] == [(0, 0), (1, 100 * MS), (2, 200 * MS)]
    assert all(frame.calibration is not None for frame in frames)
    assert front.finish() == []
    counted = numbers(front.counts())
    assert counted["rgb.image.accepted"] == counted["rgb.received"] == counted["rgb.used"] == counted["frames.closed"] == 3


def test_a_jump_back_resets_the_decoders_with_everything_else() -> None:
    """The event sensor's clock is followed from message to message; after a jump it has to be found anew."""
    front = Front(config("event", event__alignment="same_view"))
    for step in range(5):
        front.push("event.packets", packet(100_000 + 10 * step, 1000 + 10 * step))
    front.push("rgb.image", image(100_045))
    ((role, before),) = front.clocks()
    assert role == "event.packets"
    (closed,) = front.push("rgb.image", image(1000))
    assert closed.stamp_ns == 100_045 * MS
    assert closed.event is not None
    assert front.resets == 1
    assert front.clocks() == ()
    (frame,) = front.push("event.packets", packet(1005, 1100))
    ((_, after),) = front.clocks()
    assert before.offset_ns - after.offset_ns > 90_000 * MS
    assert frame.stamp_ns == 1000 * MS
    assert numbers(front.counts())["resets"] == 1


def test_without_a_jump_the_decoders_go_on() -> None:
    front = Front(config("event", event__alignment="same_view"))
    front.push("event.packets", packet(1000, 500))
    front.push("rgb.image", image(1010))
    front.push("rgb.image", image(1005))  # late, by less than a jump
    assert front.resets == 0
    assert len(front.clocks()) == 1


def test_what_cannot_be_read_closes_nothing_and_is_told() -> None:
    front = Front(config())
    assert front.push("rgb.image", image(0, "yuv999")) == []
    assert front.push("depth.image", image(0)) == []  # a role that is not configured
    (refusal,) = front.last_refusals()
    assert (refusal.role, refusal.reason, refusal.count) == ("rgb.image", "unknown_encoding", 1)
    assert numbers(front.counts()) == {"rgb.image.refused.unknown_encoding": 1, "depth.image.not_configured": 1}


def test_the_first_frame_carries_what_all_messages_since_the_last_one_cost() -> None:
    ticks = itertools.count(step=10)
    front = Front(config("lidar"), clock=lambda: next(ticks))
    for stamp_ms in (0, 100):
        assert front.push("rgb.image", image(stamp_ms)) == []  # they wait for a sweep
    first, second = front.finish()
    assert [(each.stage, each.duration_ns) for each in first.timings] == [("decode", 20), ("synchronize", 20)]
    assert [(each.stage, each.duration_ns) for each in second.timings] == [("decode", 0), ("synchronize", 0)]
    (untimed,) = Front(config()).push("rgb.image", image(0))
    assert untimed.timings == ()


def test_decoding_and_synchronizing_step_by_step_is_the_same() -> None:
    whole, steps = Front(config()), Front(config())
    for stamp_ms in (0, 100, 50, 100):
        frames = whole.push("rgb.image", image(stamp_ms))
        sample = steps.decode("rgb.image", image(stamp_ms))
        assert sample is not None
        assert [frame.header for frame in frames] == [frame.header for frame in steps.push_sample(sample)]
    assert whole.counts() == steps.counts()

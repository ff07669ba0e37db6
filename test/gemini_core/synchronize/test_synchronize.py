from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import beside_rgb as config
from gemini_core.bag.reader import BagReader
from gemini_core.decode.intake import Intake
from gemini_core.synchronize.synchronizer import Synchronizer
from gemini_core.types import CloudSample, DepthSample, EventSample, ImageSample, Modality, Placement, SensorFrame, SensorSample
from pipelines import numbers

MS = 1_000_000
PIXELS = np.zeros((2, 2, 3), np.uint8)
DEPTH = np.ones((2, 2), np.float32)


def rgb(stamp_ms: float) -> ImageSample:
    return ImageSample(round(stamp_ms * MS), "camera", PIXELS)


def depth(stamp_ms: float, frame_id: str = "depth") -> DepthSample:
    return DepthSample(round(stamp_ms * MS), frame_id, DEPTH)


def sweep(start_ms: float, end_ms: float | None = None, stamp_ms: float | None = None) -> CloudSample:
    start_ns, end_ns = round(start_ms * MS), round((start_ms if end_ms is None else end_ms) * MS)
    stamp_ns = start_ns if stamp_ms is None else round(stamp_ms * MS)
    return CloudSample(stamp_ns, "lidar", np.zeros((3, 1), np.float32), np.zeros(1, np.float32), None, None, start_ns, end_ns)


def packet(times_ms: Iterable[float], end_ms: float | None = None, stamp_ms: float | None = None) -> EventSample:
    time_ns = np.array([round(time * MS) for time in times_ms], np.int64)
    stamp_ns = int(time_ns[0]) if stamp_ms is None else round(stamp_ms * MS)
    end_ns = int(time_ns.max()) if end_ms is None else round(end_ms * MS)
    x = np.arange(time_ns.size, dtype=np.uint16)
    return EventSample(stamp_ns, "event", 64, 48, x, x, (x % 2).astype(np.uint8), time_ns, end_ns)


def push(synchronizer: Synchronizer, sample: SensorSample) -> list[SensorFrame]:
    """As the front of the pipeline pushes: it judges whether the clock jumped back."""
    before = synchronizer.restart() if synchronizer.jumped_back(sample) else []
    return before + synchronizer.push(sample)


def push_all(synchronizer: Synchronizer, samples: Iterable[SensorSample]) -> list[SensorFrame]:
    return [frame for sample in samples for frame in push(synchronizer, sample)]


def reason(frame: SensorFrame, modality: Modality) -> str:
    return next(entry.reason for entry in frame.status if entry.modality == modality)


def skew_ms(frame: SensorFrame, modality: Modality) -> float | None:
    skew_ns = next(entry.skew_ns for entry in frame.status if entry.modality == modality)
    return None if skew_ns is None else skew_ns / MS


# --------------------------------------------------------------------------------------------------------------------
# Nearest


def test_camera_alone_closes_at_once() -> None:
    synchronizer = Synchronizer(config())
    frames = push_all(synchronizer, [rgb(0), rgb(100)])
    assert [(frame.index, frame.stamp_ns) for frame in frames] == [(0, 0), (1, 100 * MS)]
    assert [entry.modality for entry in frames[0].status] == ["rgb"]


def test_depth_waits_for_the_sample_at_or_after_the_stamp() -> None:
    synchronizer = Synchronizer(config("depth"))
    assert push_all(synchronizer, [depth(90), rgb(100)]) == []
    (frame,) = synchronizer.push(depth(125))
    assert frame.depth is not None
    assert frame.depth.stamp_ns == 90 * MS
    assert skew_ms(frame, "depth") == -10


def test_equal_stamp_settles_at_once() -> None:
    synchronizer = Synchronizer(config("depth"))
    (frame,) = push_all(synchronizer, [depth(100), rgb(100)])
    assert skew_ms(frame, "depth") == 0


def test_of_two_as_near_the_earlier_wins_and_slop_is_inclusive() -> None:
    synchronizer = Synchronizer(config("depth", depth__slop_ms=20))
    (frame,) = push_all(synchronizer, [depth(80), rgb(100), depth(120)])
    assert skew_ms(frame, "depth") == -20


@pytest.mark.parametrize(("before_ms", "closes"), [(88, True), (84, False)])
def test_min_interval_settles_without_the_next_sample(before_ms: float, closes: bool) -> None:
    # The next sample comes no earlier than before + 30: at 118 it is farther than 88, at 114 it could be nearer than 84.
    synchronizer = Synchronizer(config("depth", depth__min_interval_ms=30))
    frames = push_all(synchronizer, [depth(before_ms), rgb(100)])
    assert bool(frames) == closes


def test_broken_min_interval_is_counted() -> None:
    synchronizer = Synchronizer(config("depth", depth__min_interval_ms=30))
    push_all(synchronizer, [depth(0), depth(20), depth(60)])
    assert numbers(synchronizer.counts())["depth.closer_than_min_interval"] == 1


def test_one_depth_image_serves_several_frames() -> None:
    synchronizer = Synchronizer(config("depth"))
    frames = push_all(synchronizer, [rgb(90), rgb(100), rgb(110), depth(101), depth(150)])
    assert [skew_ms(frame, "depth") for frame in frames] == [11, 1, -9]
    assert numbers(synchronizer.counts())["depth.used"] == 1


# --------------------------------------------------------------------------------------------------------------------
# Sweeps


def test_the_sweep_that_covers_the_stamp_is_used() -> None:
    synchronizer = Synchronizer(config("lidar"))
    (frame,) = push_all(synchronizer, [sweep(0, 95), rgb(100), sweep(96, 195)])
    assert frame.lidar is not None
    assert frame.lidar.start_ns == 96 * MS
    assert skew_ms(frame, "lidar") == 0


def test_sweep_stamped_at_its_end_covers_too() -> None:
    synchronizer = Synchronizer(config("lidar"))
    (frame,) = push_all(synchronizer, [rgb(100), sweep(50, 149, stamp_ms=149)])
    assert frame.lidar is not None
    assert skew_ms(frame, "lidar") == 0


def test_without_a_covering_sweep_the_nearest_end_or_start_counts() -> None:
    synchronizer = Synchronizer(config("lidar"))
    (frame,) = push_all(synchronizer, [sweep(0, 90), rgb(100), sweep(105, 195)])
    assert frame.lidar is not None
    assert frame.lidar.start_ns == 105 * MS
    assert skew_ms(frame, "lidar") == 5


def test_a_sweep_that_ends_after_the_next_one_serves_late_images_as_it_serves_early_ones() -> None:
    sweeps = [sweep(0, 400), sweep(100, 170)]  # a point with a wrong time
    for order in ([*sweeps, rgb(250), rgb(300)], [rgb(250), rgb(300), *sweeps]):
        frames = push_all(Synchronizer(config("lidar")), order)
        assert [frame.lidar and frame.lidar.end_ns for frame in frames] == [400 * MS, 400 * MS]


# --------------------------------------------------------------------------------------------------------------------
# Events


def test_window_joins_packets_and_cuts_at_both_ends() -> None:
    synchronizer = Synchronizer(config("event"))
    packets = [packet([40, 49.999, 50, 55]), packet([60, 70]), packet([80, 99.999, 100, 101])]
    (frame,) = push_all(synchronizer, [*packets[:2], rgb(100), packets[2]])
    window = frame.event
    assert window is not None
    assert (window.start_ns, window.end_ns, window.width, window.height) == (50 * MS, 100 * MS, 64, 48)
    np.testing.assert_array_equal(window.time_ns / MS, [50, 55, 60, 70, 80, 99.999])
    np.testing.assert_array_equal(window.x, [2, 3, 0, 1, 0, 1])
    np.testing.assert_array_equal(window.polarity, [0, 1, 0, 1, 0, 1])
    assert window.x.dtype == np.uint16
    assert window.polarity.dtype == np.uint8


def test_times_that_run_backwards_are_still_picked_by_their_own_time() -> None:
    synchronizer = Synchronizer(config("event"))
    (frame,) = push_all(synchronizer, [packet([60, 59.99, 61]), rgb(100), packet([99, 100.002, 99.998, 100.1])])
    assert frame.event is not None
    np.testing.assert_array_equal(frame.event.time_ns / MS, [60, 59.99, 61, 99, 99.998])


def test_a_packet_stamped_after_its_first_events_still_gives_them() -> None:
    synchronizer = Synchronizer(config("event"))
    (frame,) = push_all(synchronizer, [packet([60]), rgb(100), packet([99.8, 100.5], stamp_ms=100.1)])
    assert frame.event is not None
    assert frame.event.time_ns.tolist() == [60 * MS, 99.8 * MS]


def test_a_stamp_after_all_events_of_a_packet_does_not_settle() -> None:
    synchronizer = Synchronizer(config("event"))
    assert push_all(synchronizer, [rgb(100), packet([98, 99], stamp_ms=100.1)]) == []
    (frame,) = synchronizer.push(packet([99.5, 101], stamp_ms=100.2))
    assert frame.event is not None
    assert (frame.event.time_ns / MS).tolist() == [98, 99, 99.5]


def test_an_empty_packet_tells_that_time_has_passed() -> None:
    synchronizer = Synchronizer(config("event"))
    assert push_all(synchronizer, [packet([60]), rgb(100)]) == []
    (frame,) = synchronizer.push(packet([], end_ms=102, stamp_ms=70))
    assert frame.event is not None
    assert frame.event.time_ns.tolist() == [60 * MS]


def test_a_silent_event_camera_has_no_window() -> None:
    synchronizer = Synchronizer(config("event"))
    (frame,) = push_all(synchronizer, [packet([10]), rgb(100), packet([120])])
    assert frame.event is None
    assert reason(frame, "event") == "outside_slop"


def test_windows_side_by_side_hold_every_event_of_a_recording_once(real_dir: Path) -> None:
    intake = Intake(config("event"))
    with BagReader(real_dir / "events" / "evt3_640x480_bag") as reader:
        packets = [
            intake.accept("event.packets", item.message) for item in reader.messages() if item.type.endswith("msg/EventPacket")
        ]
    packets = [sample for sample in packets if isinstance(sample, EventSample)]
    start_ms = packets[0].stamp_ns // MS
    images = [rgb(start_ms + 50 * (i + 1)) for i in range(40)]
    synchronizer = Synchronizer(config("event"))
    frames = push_all(synchronizer, sorted([*packets, *images], key=lambda sample: sample.stamp_ns))
    times_ns = np.concatenate([sample.time_ns for sample in packets])
    expected = times_ns[(times_ns >= start_ms * MS) & (times_ns < (start_ms + 2000) * MS)]
    windows = [frame.event for frame in frames if frame.event is not None]
    assert len(windows) == 40
    assert expected.size > 300_000
    np.testing.assert_array_equal(np.sort(np.concatenate([window.time_ns for window in windows])), np.sort(expected))


def test_a_window_by_count_is_the_last_events_over_packets() -> None:
    synchronizer = Synchronizer(config("event", event__window="count", event__count=4))
    packets = [packet([51, 52]), packet([60, 70]), packet([80, 90, 99.999, 100, 101])]
    (frame,) = push_all(synchronizer, [*packets[:2], rgb(100), packets[2]])
    assert frame.event is not None
    assert (frame.event.time_ns / MS).tolist() == [70, 80, 90, 99.999]
    assert frame.event.x.tolist() == [1, 0, 1, 2]
    assert (frame.event.start_ns, frame.event.end_ns) == (70 * MS, 100 * MS)
    assert numbers(synchronizer.counts())["event.used"] == 2


def test_a_window_by_count_has_fewer_where_they_would_be_too_old() -> None:
    synchronizer = Synchronizer(config("event", event__window="count", event__count=4))
    (frame,) = push_all(synchronizer, [packet([10, 49.999, 50, 60]), rgb(100), packet([99, 120])])
    assert frame.event is not None
    assert (frame.event.time_ns / MS).tolist() == [50, 60, 99]
    assert frame.event.start_ns == 50 * MS


# --------------------------------------------------------------------------------------------------------------------
# Closing


def test_a_frame_closes_after_max_wait_by_any_stamp_and_says_why() -> None:
    synchronizer = Synchronizer(config("depth", "lidar", "event", sync__max_wait_ms=100))
    samples = [depth(0), packet([60]), rgb(100), sweep(100), packet([110]), packet([199])]
    assert push_all(synchronizer, samples) == []
    (frame,) = synchronizer.push(packet([200]))
    assert [(entry.modality, entry.present, entry.reason) for entry in frame.status] == [
        ("rgb", True, ""),
        ("depth", False, "late"),
        ("lidar", True, ""),
        ("event", True, ""),
    ]
    assert numbers(synchronizer.counts())["frames.forced"] == 1
    assert "frames.complete" not in numbers(synchronizer.counts())


def test_missing_reasons() -> None:
    synchronizer = Synchronizer(config("depth", "lidar"))
    (frame,) = push_all(synchronizer, [depth(50), rgb(100), depth(160), rgb(300)])
    assert (reason(frame, "depth"), reason(frame, "lidar")) == ("outside_slop", "never_seen")
    assert "the nearest is 50.0 ms earlier" in frame.status[1].detail


def test_frames_close_in_order() -> None:
    known: set[int] = {200 * MS}
    synchronizer = Synchronizer(config(), lambda data: data.stamp_ns in known)
    assert push_all(synchronizer, [rgb(150), rgb(200)]) == []
    known.add(150 * MS)
    assert [frame.stamp_ns for frame in synchronizer.recheck()] == [150 * MS, 200 * MS]


def test_calibration_is_asked_for_present_modalities_only() -> None:
    asked: list[Placement] = []

    def ready(data: Placement) -> bool:
        asked.append(data)
        return True

    synchronizer = Synchronizer(config("depth", "lidar", "event"), ready)
    push_all(synchronizer, [rgb(100), depth(101), packet([99, 101]), sweep(200, 249)])
    assert asked == [
        Placement("rgb", "camera", 100 * MS, 100 * MS, (2, 2), "camera", 100 * MS),
        Placement("depth", "depth", 101 * MS, 101 * MS, (2, 2), "camera", 100 * MS),
        Placement("event", "event", 100 * MS, 100 * MS, (64, 48), "camera", 100 * MS),
    ]


def test_more_waiting_images_than_allowed_close_the_oldest() -> None:
    synchronizer = Synchronizer(config("depth", sync__max_pending_frames=2))
    frames = push_all(synchronizer, [rgb(0), rgb(10), rgb(20)])
    assert [frame.stamp_ns for frame in frames] == [0]
    assert numbers(synchronizer.counts())["frames.crowded_out"] == 1


def test_flush_closes_with_what_is_there() -> None:
    synchronizer = Synchronizer(config("depth"))
    push_all(synchronizer, [depth(95), rgb(100), rgb(200)])
    frames = synchronizer.flush()
    assert [frame.depth is not None for frame in frames] == [True, False]
    assert synchronizer.flush() == []


# --------------------------------------------------------------------------------------------------------------------
# Bad order


def test_old_and_double_samples_are_dropped_and_counted() -> None:
    synchronizer = Synchronizer(config("depth"))
    push_all(synchronizer, [depth(100), depth(90), depth(100), depth(80), rgb(110), rgb(110), rgb(105), rgb(110)])
    counted = numbers(synchronizer.counts())
    assert (counted["depth.dropped.out_of_order"], counted["depth.dropped.duplicate"]) == (2, 1)
    assert (counted["rgb.dropped.out_of_order"], counted["rgb.dropped.duplicate"]) == (1, 2)


def test_a_sensor_that_is_not_configured_is_counted_and_does_not_move_time() -> None:
    synchronizer = Synchronizer(config("depth"))
    assert push_all(synchronizer, [rgb(0), sweep(10_000)]) == []
    assert numbers(synchronizer.counts())["lidar.dropped.not_configured"] == 1


def test_a_jump_back_closes_what_waits_and_begins_anew() -> None:
    synchronizer = Synchronizer(config("depth"))
    push_all(synchronizer, [depth(9_990), rgb(10_000)])
    (frame,) = push(synchronizer, rgb(0))
    assert frame.stamp_ns == 10_000 * MS
    assert frame.depth is not None
    assert synchronizer.resets == 1
    (frame,) = push_all(synchronizer, [depth(0)])
    assert (frame.index, frame.stamp_ns) == (1, 0)


@pytest.mark.parametrize(("back_ns", "resets"), [(500 * MS, 0), (500 * MS + 1, 1)])
def test_only_more_than_the_configured_jump_back_begins_anew(back_ns: int, resets: int) -> None:
    synchronizer = Synchronizer(config("depth", sync__reset_jump_ms=500))
    push_all(synchronizer, [rgb(10_000), ImageSample(10_000 * MS - back_ns, "camera", PIXELS)])
    assert synchronizer.resets == resets
    assert numbers(synchronizer.counts()).get("rgb.dropped.out_of_order", 0) == 1 - resets


def test_a_jump_ahead_closes_by_max_wait() -> None:
    synchronizer = Synchronizer(config("depth"))
    frames = push_all(synchronizer, [rgb(0), rgb(10_000_000), depth(10_000_001)])
    assert [(frame.stamp_ns, reason(frame, "depth")) for frame in frames] == [(0, "never_seen"), (10_000_000 * MS, "")]


def test_a_jump_ahead_of_all_clocks_ends_the_waiting_with_the_second_stamp_after_it() -> None:
    synchronizer = Synchronizer(config("depth", "event"))
    assert push_all(synchronizer, [packet([90]), rgb(100), packet([110]), packet([60_000])]) == []
    (frame,) = synchronizer.push(packet([60_001]))
    assert (frame.stamp_ns, reason(frame, "depth"), reason(frame, "event")) == (100 * MS, "never_seen", "")
    assert synchronizer.resets == 0


def test_a_jump_ahead_ends_the_waiting_when_another_topic_follows() -> None:
    synchronizer = Synchronizer(config("depth", "lidar"))
    frames = push_all(synchronizer, [sweep(0, 99), rgb(100), sweep(60_000, 60_099), rgb(60_050)])
    assert [frame.stamp_ns for frame in frames] == [100 * MS]


def test_images_that_come_slower_than_the_jump_still_end_each_other_s_waiting() -> None:
    synchronizer = Synchronizer(config("depth"))
    closed = [len(synchronizer.push(rgb(2000 * i))) for i in range(6)]
    assert closed == [0, 0, 1, 1, 1, 1]


# --------------------------------------------------------------------------------------------------------------------
# One wrong clock


@pytest.mark.parametrize("ahead_ms", [200, 900, 37_000])
def test_a_clock_that_is_ahead_does_not_cut_short_the_waiting_for_other_sensors(ahead_ms: int) -> None:
    synchronizer = Synchronizer(config("depth", "lidar"))
    frames: list[SensorFrame] = []
    for t in range(0, 2000, 10):  # the depth image of an image's stamp comes 40 ms after it
        if t % 50 == 0:
            frames += synchronizer.push(sweep(t + ahead_ms, t + ahead_ms + 49))
        if t % 100 == 0:
            frames += synchronizer.push(rgb(t))
        if t % 100 == 40:
            frames += synchronizer.push(depth(t - 40))
    assert len(frames) == 20
    assert {reason(frame, "depth") for frame in frames} == {""}
    # a clock that is ahead a little cannot be told from a message that comes early
    assert {reason(frame, "lidar") for frame in frames[-5:]} <= {"", "outside_slop", "never_seen"}
    counted = numbers(synchronizer.counts())
    assert counted["lidar.ahead_of_images"] == 20
    assert counted.get("frames.forced", 0) == 0
    assert synchronizer.resets == 0


def test_what_a_clock_ahead_gives_says_so() -> None:
    synchronizer = Synchronizer(config("lidar"))
    push_all(synchronizer, [sweep(0), rgb(10), sweep(20)])
    (frame,) = push_all(synchronizer, [sweep(900), rgb(700)])
    assert frame.status[1].detail.endswith("the nearest is 200.0 ms later")


def test_a_single_stamp_in_the_future_is_dropped_and_nobody_else_notices() -> None:
    wrong = sweep(500_000, 500_050)

    def run(samples: list[SensorSample]) -> tuple[list[tuple[object, ...]], dict[str, int]]:
        synchronizer = Synchronizer(config("depth", "lidar"))
        return [content(frame) for frame in push_all(synchronizer, samples)], numbers(synchronizer.counts())

    right: list[SensorSample] = []
    for t in range(0, 2000, 100):
        right += [sweep(t - 50, t + 40), rgb(t), depth(t), sweep(t + 45, t + 49)]
    expected, _ = run(right)
    got, counted = run([*right[:21], wrong, *right[21:]])
    assert got == expected
    assert counted["lidar.dropped.stamp_taken_back"] == 1
    assert counted.get("resets", 0) == 0


def test_a_topic_that_was_ahead_for_a_while_comes_back_without_a_reset() -> None:
    synchronizer = Synchronizer(config("depth", "lidar"))
    frames: list[SensorFrame] = []
    for t in range(0, 3000, 50):
        shift = 37_000 if 1000 <= t < 2000 else 0
        frames += push_all(synchronizer, [sweep(t + shift, t + shift + 49), rgb(t + 10), depth(t + 10)])
    assert synchronizer.resets == 0
    by_stamp = {frame.stamp_ns // MS: reason(frame, "lidar") for frame in frames}
    assert {by_stamp[t] for t in by_stamp if t < 1000 or t > 2000} == {""}
    assert {by_stamp[t] for t in by_stamp if 1050 < t < 2000} == {"outside_slop"}
    assert all(frame.depth is not None for frame in frames)


@pytest.mark.parametrize("wrong", [rgb(500_000), depth(500_000), packet([500_000])], ids=["rgb", "depth", "event"])
@pytest.mark.parametrize("at_ms", [5, 1000, 1010, 1015])
def test_a_single_stamp_in_the_future_neither_settles_a_frame_nor_makes_it_lose_data(wrong: SensorSample, at_ms: int) -> None:
    def run(wrong: list[SensorSample]) -> list[tuple[object, ...]]:
        synchronizer = Synchronizer(config("depth", "event"))
        timed: list[tuple[float, SensorSample]] = []
        for t in range(0, 2000, 100):
            timed += [(t + 5, depth(t + 5)), (t + 15, rgb(t + 15)), (t + 22, depth(t + 22))]
            timed += [(t + 10 * i + 10, packet([t + 10 * i], t + 10 * i + 9)) for i in range(10)]
        timed += [(at_ms + 2.5, sample) for sample in wrong]
        frames = push_all(synchronizer, [sample for _, sample in sorted(timed, key=lambda each: each[0])])
        assert synchronizer.resets == 0
        return [content(frame) for frame in frames]

    assert run([wrong]) == run([])


@pytest.mark.parametrize("until_ms", [1100, 1500])
def test_a_topic_whose_first_stamps_are_ahead_comes_back_without_a_reset(until_ms: int) -> None:
    """As of a LiDAR that is switched on and stamps in TAI until it hears of the leap seconds."""
    synchronizer = Synchronizer(config("depth", "lidar"))
    frames: list[SensorFrame] = []
    for t in range(0, 3000, 50):
        shift = 37_000 if t < until_ms else 0
        sweeps = [sweep(t + shift, t + shift + 49)] if t >= 1000 else []
        frames += push_all(synchronizer, [*sweeps, rgb(t + 10), depth(t + 10)])
    frames += push_all(synchronizer, [rgb(3500)]) + synchronizer.flush()
    assert synchronizer.resets == 0
    assert numbers(synchronizer.counts())["lidar.dropped.stamp_taken_back"] > 0
    assert reason(frames.pop(), "lidar") == "late"  # it has been seen
    assert {frame.stamp_ns // MS for frame in frames if frame.lidar is None} == set(range(10, until_ms, 50))
    assert all(frame.depth is not None for frame in frames)


def test_a_stamp_that_is_left_at_zero_is_dropped_and_nobody_else_notices() -> None:
    def run(stamp_ms: dict[int, int]) -> tuple[list[int], dict[str, int]]:
        synchronizer = Synchronizer(config("depth", "lidar"))
        frames: list[SensorFrame] = []
        for t in range(since_1970_ms, since_1970_ms + 3000, 50):
            at = stamp_ms.get(t, t)
            frames += push_all(
                synchronizer, [sweep(at, at + 49 if at else 0), rgb(stamp_ms.get(t + 10, t + 10)), depth(t + 10)]
            )
        frames += synchronizer.flush()
        return [frame.stamp_ns // MS for frame in frames if frame.lidar and frame.depth], numbers(synchronizer.counts())

    since_1970_ms = 1_700_000_000_000
    expected, _ = run({})
    got, counted = run({since_1970_ms + at_ms: 0 for at_ms in (500, 1010, 1060)})
    assert counted["lidar.dropped.no_stamp"] == 1
    assert counted["rgb.dropped.no_stamp"] == 2
    assert counted.get("resets", 0) == 0
    assert set(expected) - set(got) == {since_1970_ms + at_ms for at_ms in (1010, 1060)}  # 510 takes the sweep before


def test_a_loop_of_a_bag_whose_images_come_slowly_is_a_jump_back() -> None:
    synchronizer = Synchronizer(config())
    frames = push_all(synchronizer, [rgb(stamp) for _ in range(2) for stamp in (0, 2000, 4000, 6000)])
    assert [frame.stamp_ns // MS for frame in frames] == [0, 2000, 4000, 6000] * 2
    assert synchronizer.resets == 1


@pytest.mark.parametrize("modality", ["depth", "lidar", "event"])
def test_stamps_that_hardly_advance_do_not_fill_the_memory(modality: str) -> None:
    synchronizer = Synchronizer(config(modality))
    make = {"depth": depth, "lidar": sweep, "event": lambda stamp_ms: packet([stamp_ms])}[modality]
    push_all(synchronizer, [rgb(100), *(make(90 + 1e-6 * i) for i in range(3000))])
    counted = numbers(synchronizer.counts())
    assert counted[f"{modality}.waiting"] <= 2000
    assert counted[f"{modality}.waiting"] + counted[f"{modality}.dropped.too_many"] == 3000


def test_what_is_kept_is_bounded_also_without_a_reference() -> None:
    synchronizer = Synchronizer(config("depth", "lidar", "event"))
    for tick in range(500):
        push_all(synchronizer, [depth(10 * tick), sweep(10 * tick, 10 * tick + 9), packet([10 * tick])])
    counted = numbers(synchronizer.counts())
    assert max(counted["depth.waiting"], counted["lidar.waiting"], counted["event.waiting"]) <= 25
    assert counted["depth.dropped.unused"] + counted["depth.waiting"] == 500


# --------------------------------------------------------------------------------------------------------------------
# Properties

MAX_WAIT_MS, REACH_MS = 150, 80  # no sample that a frame can use is stamped more than REACH_MS after it


@st.composite
def sequences(draw: st.DrawFn) -> dict[str, list[SensorSample]]:
    """Four topics over about a second: own rates and phases, jitter, and lost samples."""

    def stamps(period: int) -> list[int]:
        phase = draw(st.integers(0, period - 1))
        steps = draw(st.lists(st.integers(-period // 4, period // 4), min_size=900 // period, max_size=900 // period))
        kept = draw(st.lists(st.sampled_from([True, True, True, False]), min_size=len(steps), max_size=len(steps)))
        return [phase + period * i + step for i, (step, keep) in enumerate(zip(steps, kept, strict=True)) if keep]

    packets = [
        packet(
            [t, *sorted(t + offset for offset in draw(st.lists(st.integers(-1, 24), max_size=3)))], end_ms=t + 24, stamp_ms=t
        )
        for t in stamps(26)
    ]
    return {
        "rgb": [rgb(t) for t in stamps(100)],
        "depth": [depth(t) for t in stamps(draw(st.sampled_from([33, 100])))],
        "lidar": [sweep(t, t + draw(st.sampled_from([70, 70, 70, 300]))) for t in stamps(100)],
        "event": list(packets),
    }


def arrivals(draw: st.DrawFn, topics: dict[str, list[SensorSample]], most_ms: int) -> list[SensorSample]:
    """One order of arrival: in order per topic, every sample less than ``most_ms`` late."""
    timed: list[tuple[float, int, SensorSample]] = []
    for place, samples in enumerate(topics.values()):
        arrival = -1.0
        for sample, delay in zip(
            samples, draw(st.lists(st.integers(0, most_ms - 1), min_size=len(samples), max_size=len(samples))), strict=True
        ):
            arrival = max(arrival, sample.stamp_ns / MS + delay)
            timed.append((arrival, place, sample))
    shift = draw(st.permutations(range(len(topics))))
    return [sample for _, _, sample in sorted(timed, key=lambda entry: (entry[0], shift[entry[1]], entry[2].stamp_ns))]


def content(frame: SensorFrame) -> tuple[object, ...]:
    absent = {"late": "absent", "outside_slop": "absent"}
    return (
        frame.index,
        frame.stamp_ns,
        None if frame.depth is None else frame.depth.stamp_ns,
        None if frame.lidar is None else frame.lidar.stamp_ns,
        None if frame.event is None else (frame.event.time_ns.tobytes(), frame.event.x.tobytes()),
        [(entry.modality, entry.present, absent.get(entry.reason, entry.reason), entry.skew_ns) for entry in frame.status],
    )


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_order_of_topics_does_not_change_a_frame(data: st.DataObject) -> None:
    topics = data.draw(sequences())
    promise = data.draw(st.sampled_from([0, 12]))
    outcomes = []
    for _ in range(2):
        options = {"sync__max_wait_ms": MAX_WAIT_MS, "depth__min_interval_ms": promise}
        synchronizer = Synchronizer(config("depth", "lidar", "event", **options))
        order = arrivals(data.draw, topics, MAX_WAIT_MS - REACH_MS)
        outcomes.append([content(frame) for frame in [*push_all(synchronizer, order), *synchronizer.flush()]])
        assert len(outcomes[-1]) == len(topics["rgb"])
    assert outcomes[0] == outcomes[1]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_every_sample_is_accounted_for_at_any_moment(data: st.DataObject) -> None:
    topics = data.draw(sequences())
    everything = [sample for samples in topics.values() for sample in samples]
    synchronizer = Synchronizer(config("depth", "lidar", "event", sync__reset_jump_ms=data.draw(st.sampled_from([100, 5000]))))
    frames = 0
    for sample in data.draw(st.permutations(everything)):
        frames += len(push(synchronizer, sample))
        counted = numbers(synchronizer.counts())
        for modality in ("rgb", "depth", "lidar", "event"):
            ends = ("used", "waiting")
            total = sum(counted.get(f"{modality}.{end}", 0) for end in ends)
            total += sum(number for what, number in counted.items() if what.startswith(f"{modality}.dropped."))
            assert counted.get(f"{modality}.received", 0) == total
        closings = ("settled", "forced", "crowded_out", "flushed")
        assert counted.get("frames.closed", 0) == frames == sum(counted.get(f"frames.{how}", 0) for how in closings)

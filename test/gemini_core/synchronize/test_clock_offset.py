"""A sensor whose clock is off is said with the size of the offset, from stamps alone."""

from __future__ import annotations

import dataclasses

import pytest

from gemini_core.synchronize.synchronizer import Synchronizer
from gemini_core.types import Doubt, Sample, SensorFrame, SensorSample
from small_rig import MS, config, depth, packet, rgb, sweep

START_MS = 1_700_000_000_000


def shifted(sample: SensorSample, offset_ms: float) -> SensorSample:
    """The sample as a clock that is ahead stamps it."""
    move = round(offset_ms * MS)
    changed = {"stamp_ns": sample.stamp_ns + move}
    if hasattr(sample, "start_ns"):
        changed |= {"start_ns": sample.start_ns + move}
    if hasattr(sample, "end_ns"):
        changed |= {"end_ns": sample.end_ns + move}
    if getattr(sample, "time_ns", None) is not None:
        changed |= {"time_ns": sample.time_ns + move}
    return dataclasses.replace(sample, **changed)


def run(
    modality: str, offset_ms: float, *, frames: int = 30, period_ms: int = 100, late_ms: int = 0, image_first: bool = True
) -> tuple[list[SensorFrame], tuple[Doubt, ...]]:
    """One other sensor beside the camera; what arrives late comes after the images of then."""
    make = {"depth": depth, "lidar": sweep, "event": lambda at: packet(at, at + 5)}[modality]
    arrivals: list[tuple[int, int, Sample]] = []
    for k in range(frames):
        at = START_MS + k * period_ms
        arrivals.append((at, 0 if image_first else 2, rgb(at)))
        arrivals.append((at + late_ms, 1, shifted(make(at), offset_ms)))
    synchronizer, closed = Synchronizer(config(modality)), []
    for _, _, sample in sorted(arrivals, key=lambda arrival: arrival[:2]):
        closed += synchronizer.push(sample)
    return closed + synchronizer.flush(), synchronizer.doubts()


def last_detail(frames: list[SensorFrame]) -> str:
    return frames[-1].status[1].detail


@pytest.mark.parametrize("modality", ["depth", "lidar", "event"])
@pytest.mark.parametrize(
    ("offset_s", "said"),
    [
        (37, "37.0 s ahead of rgb's: TAI against UTC?"),
        (-37, "37.0 s behind rgb's: TAI against UTC?"),
        (18, "18.0 s ahead of rgb's: GPS time against UTC?"),
        (19, "19.0 s ahead of rgb's: TAI against GPS time?"),
        (4 * 3600, "14400.0 s ahead of rgb's: 4 h: local time against UTC?"),
        (-5.5 * 3600, "19800.0 s behind rgb's: 5.5 h: local time against UTC?"),
        (-315_964_800, "counted from 1980 (GPS) against 1970?"),
        (-START_MS / 1000 + 3484, "is {} stamped with the time since boot"),
        (12, "12.0 s ahead of rgb's"),
    ],
)
def test_a_clock_that_is_off_is_said_with_what_it_may_be(modality: str, offset_s: float, said: str) -> None:
    frames, doubts = run(modality, offset_s * 1000)
    assert not frames[-1].status[1].present
    assert f"the stamps of {modality} are " in last_detail(frames)
    assert said.format(modality) in last_detail(frames)
    assert bool(doubts) == (offset_s > 0)


def test_a_length_that_no_clocks_differ_by_has_no_hint() -> None:
    assert last_detail(run("lidar", 12_000)[0]).endswith("the stamps of lidar are 12.0 s ahead of rgb's")
    late = "the stamps of lidar are 700 ms behind rgb's: a clock that is off, or lidar comes late?"
    assert last_detail(run("lidar", -700)[0]).endswith(late)


def test_a_camera_on_its_time_since_boot_is_named() -> None:
    synchronizer = Synchronizer(config("lidar"))
    for k in range(20):
        synchronizer.push(rgb(3_484_000 + 100 * k))
        synchronizer.push(sweep(START_MS + 100 * k))
    (doubt,) = synchronizer.doubts()
    assert (doubt.about, doubt.reason) == ("lidar", "clock_offset")
    assert "is rgb stamped with the time since boot" in doubt.detail


def test_an_offset_that_hits_the_stamps_of_other_images_is_said() -> None:
    """At 10 Hz a clock that is 500 ms ahead stamps as if the depth of an image came half a second before it."""
    frames, (doubt,) = run("depth", 500)
    assert last_detail(frames).endswith(doubt.detail)
    said = "the stamps of depth are 500 ms ahead of rgb's: a clock that is off, or rgb comes late?"
    assert doubt == Doubt("depth", "clock_offset", said)


@pytest.mark.parametrize("image_first", [True, False])
@pytest.mark.parametrize("period_ms", [20, 100, 500])
@pytest.mark.parametrize("modality", ["depth", "lidar", "event"])
def test_a_good_clock_raises_no_doubt_in_either_order_at_any_rate(modality: str, period_ms: int, image_first: bool) -> None:
    frames, doubts = run(modality, 0, period_ms=period_ms, image_first=image_first)
    assert doubts == ()
    assert not any("the stamps of" in entry.detail for frame in frames for entry in frame.status)


def test_a_sensor_that_sends_late_raises_no_doubt() -> None:
    frames, doubts = run("lidar", 0, late_ms=120)
    assert doubts == ()
    assert all(frame.status[1].present for frame in frames[:-2])


def test_a_sensor_that_ends_or_pauses_has_no_clock_that_is_off() -> None:
    synchronizer, closed = Synchronizer(config("depth")), []
    for k in range(100):
        closed += synchronizer.push(rgb(START_MS + 100 * k))
        if k < 10 or k > 60:
            closed += synchronizer.push(depth(START_MS + 100 * k))
    gap = next(frame for frame in closed if frame.index == 50)
    assert not gap.status[1].present
    assert "the stamps of" not in gap.status[1].detail
    assert synchronizer.doubts() == ()


def test_a_steady_distance_beyond_the_slop_is_said() -> None:
    frames, doubts = run("depth", 45)
    assert (frames[-2].status[1].reason, doubts) == ("outside_slop", ())
    assert "the stamps of depth are steadily 45 ms ahead of rgb's" in frames[-2].status[1].detail


def test_a_jump_of_the_clock_forgets_the_offsets() -> None:
    synchronizer = Synchronizer(config("depth"))
    for k in range(20):
        synchronizer.push(rgb(START_MS + 100 * k))
        synchronizer.push(depth(START_MS + 37_000 + 100 * k))
    assert synchronizer.doubts()
    synchronizer.restart()
    assert synchronizer.doubts() == ()


@pytest.mark.parametrize("modality", ["depth", "rgb"])
def test_stamps_that_are_all_zero_are_said(modality: str) -> None:
    synchronizer, closed = Synchronizer(config("depth")), []
    for k in range(10):
        closed += synchronizer.push(rgb(0 if modality == "rgb" else START_MS + 100 * k))
        closed += synchronizer.push(depth(0 if modality == "depth" else START_MS + 100 * k))
    (doubt,) = synchronizer.doubts()
    assert (doubt.about, doubt.reason) == (modality, "no_stamps")
    assert doubt.detail == f"all stamps of {modality} are zero, 10 of 10 messages: expected the time when they were measured"
    if modality == "depth":
        assert "; all stamps of depth are zero, 9 of 9 messages" in closed[-1].status[1].detail  # closed by the ninth

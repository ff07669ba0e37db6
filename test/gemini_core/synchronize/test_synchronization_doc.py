"""docs/synchronization.md is true: each of its examples is run, line by line, and gives the frames and counts that it says."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
import yaml

from gemini_core.config.fusion import from_flat
from gemini_core.decode.sensor_clock import SensorClock
from gemini_core.pipeline.front import Front
from gemini_core.types import (
    CameraInfoSample,
    CameraModel,
    CloudSample,
    DepthSample,
    EventSample,
    ImageSample,
    Modality,
    ModalityStatus,
    Sample,
    SensorFrame,
    StampedTransform,
    TransformSample,
)
from source_imports import REPOSITORY

TEXT = (REPOSITORY / "docs" / "synchronization.md").read_text(encoding="utf-8")
RULES = dict(re.findall(r"^### (\d+)\. .*?\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL))
EXAMPLES = [(rule, block) for rule, text in RULES.items() for block in re.findall(r"```example\n(.*?)```", text, re.DOTALL)]
CLOCKS = [(rule, block) for rule, text in RULES.items() for block in re.findall(r"```clock\n(.*?)```", text, re.DOTALL)]

MS = 1_000_000
T0 = 1_700_000_000_000_000_000
"""Stamp 0 of the page: a clock that counts from 1970."""
FRAMES: dict[Modality, str] = {"rgb": "camera", "depth": "depth", "event": "event", "lidar": "lidar"}
FIXED = TransformSample(0, True, tuple(StampedTransform(0, "base", child, np.eye(4)) for child in FRAMES.values()))
TOLD = re.compile(r"^resets$|\.dropped\.(?!unused)|\.ahead_of_images$|\.closer_than_min_interval$")
"""Counters that an example has to name wherever they rise."""


def ns(word: str) -> int:
    """The stamp of a word of the page: milliseconds after T0, or "unset", a header that nobody filled in."""
    return 0 if word == "unset" else T0 + round(float(word) * MS)


def ms(stamp_ns: int) -> str:
    return f"{(stamp_ns - T0) / MS:g}"


def camera_info(modality: Modality, stamp_ns: int, focal: float = 100.0) -> CameraInfoSample:
    return CameraInfoSample(stamp_ns, FRAMES[modality], modality, CameraModel(2, 2, focal, focal, 0.5, 0.5))


def events(words: list[str]) -> EventSample:
    """Events at these times, in the order written; after "until", what the packet reaches to."""
    times = words[: words.index("until")] if "until" in words else words
    time_ns = np.array([ns(word) for word in times], np.int64)
    x = np.zeros(time_ns.size, np.uint16)
    return EventSample(int(time_ns[0]), FRAMES["event"], 2, 2, x, x, x.astype(np.uint8), time_ns, ns(words[-1]))


def sweep(words: list[str]) -> CloudSample:
    start_ns, end_ns = ns(words[0]), ns(words[2])
    points, time_ns = np.ones((3, 2), np.float32), np.array([start_ns, end_ns])
    return CloudSample(start_ns, FRAMES["lidar"], points, np.ones(2, np.float32), None, time_ns, start_ns, end_ns)


def sample(line: str) -> Sample:
    """What one line of an example says has come."""
    what, *words = line.split()
    if what == "image":
        return ImageSample(ns(words[0]), FRAMES["rgb"], np.zeros((2, 2, 3), np.uint8))
    if what == "depth":
        return DepthSample(ns(words[0]), FRAMES["depth"], np.ones((2, 2), np.float32))
    if what == "sweep":
        return sweep(words)
    if what == "events":
        return events(words)
    if what == "camera_info":
        return camera_info("rgb", ns(words[0]), float(words[2]))
    parent, child = {"odometry": ("odom", "base"), "transform": ("base", "depth")}[what]
    return TransformSample(ns(words[0]), False, (StampedTransform(ns(words[0]), parent, child, np.eye(4)),))


def front(rig: str) -> Front:
    """The front of a pipeline that knows all cameras and fixed transforms; odometry only where the rig's options ask for it."""
    modalities, *options = rig.removeprefix("rig: ").split("; ")
    values = {"motion.fixed_frame": "", **{key: yaml.safe_load(value) for key, value in (option.split() for option in options)}}
    made = Front(from_flat({"modalities": modalities.split(), **values}))
    cameras: tuple[Modality, ...] = ("rgb", "depth", "event")
    for known in (*(camera_info(modality, 0) for modality in cameras), FIXED):
        made.push_sample(known)
    return made


def describe(frame: SensorFrame, *, with_focal: bool) -> str:
    """A frame in the words of the page."""
    parts = [f"{status.modality} {data_of(frame, status)}" for status in frame.status if status.modality != "rgb"]
    if with_focal:
        assert frame.calibration is not None
        assert frame.calibration.reference is not None
        parts.append(f"f {frame.calibration.reference.fx:g}")
    return f"frame {ms(frame.stamp_ns)}" + (": " + ", ".join(parts) if parts else "")


def data_of(frame: SensorFrame, status: ModalityStatus) -> str:
    note = f" {status.motion}" if status.motion else ""
    if not status.present:
        return status.reason
    if status.modality == "lidar":
        assert frame.lidar is not None
        return f"{ms(frame.lidar.start_ns)} to {ms(frame.lidar.end_ns)}{note}"
    if status.modality == "event":
        assert frame.event is not None
        return " ".join(map(ms, frame.event.time_ns.tolist())) or "none"
    assert frame.depth is not None
    return ms(frame.depth.stamp_ns) + note


def told(made: Front) -> Counter[str]:
    return Counter({count.what: count.number for count in made.counts() if TOLD.search(count.what)})


@pytest.mark.parametrize(("rule", "block"), EXAMPLES, ids=[f"rule-{rule}" for rule, _ in EXAMPLES])
def test_an_example_of_the_page_comes_out_as_it_says(rule: str, block: str) -> None:
    rig, *lines = block.splitlines()
    made = front(rig)
    for line in lines:
        said, _, expected = (part.strip() for part in line.partition("→"))
        before = told(made)
        frames = made.finish() if said == "end" else made.push_sample(sample(said))
        found = [describe(frame, with_focal="camera_info" in block) for frame in frames]
        found += [f"{what} +{rise}" for what, rise in sorted((told(made) - before).items())]
        assert "; ".join(found) == expected, f"rule {rule}, {said}"


@pytest.mark.parametrize(("rule", "block"), CLOCKS, ids=[f"rule-{rule}" for rule, _ in CLOCKS])
def test_the_clock_of_an_event_camera_goes_as_the_page_says(rule: str, block: str) -> None:
    clock = SensorClock()
    for line in block.splitlines():
        sensor_ms, stamp_ms, offset_ms, steps = map(float, re.findall(r"\d+", line))
        clock.observe(round(sensor_ms * MS), round(stamp_ms * MS))
        assert clock.offset_ns == round(offset_ms * MS), f"rule {rule}, {line}"
        assert clock.steps == steps, f"rule {rule}, {line}"


def test_rules_are_numbered_without_a_hole_and_each_has_an_example() -> None:
    assert [int(rule) for rule in RULES] == list(range(1, len(RULES) + 1))
    shown = {rule for rule, _ in EXAMPLES + CLOCKS}
    assert [rule for rule in RULES if rule not in shown] == []

"""The rules of time by property: what a frame may hold, where samples end, and that the order of arrival decides nothing.

The rules are written here a second time, as a check of frames from outside (docs/synchronization.md).
"""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import configs
from gemini_core.pipeline.front import Front
from gemini_core.rig.geometry import transform_matrix
from gemini_core.types import (
    CameraInfoSample,
    CameraModel,
    CloudSample,
    DepthSample,
    EventSample,
    ImageSample,
    Modality,
    Sample,
    SensorFrame,
    SensorSample,
    StampedTransform,
    TransformSample,
)
from samples import cloud
from samples import packet as packet_of

MS = 1_000_000
T0 = 1_700_000_000_000_000_000
MAX_WAIT_MS, MOST_DELAY_MS = 150, 45
LIDAR_SLOP_MS, SWEEP_MS, WINDOW_MS = 10, 70, 50
# A frame uses nothing stamped more than 80 ms after it (a sweep's end) but the transform after that, 25 ms at most.

PIXELS, DEPTH = np.zeros((2, 2, 3), np.uint8), np.ones((2, 2), np.float32)
CAMERA = CameraModel(2, 2, 2.0, 2.0, 0.5, 0.5)


RULES = {"sync.max_wait_ms": MAX_WAIT_MS, "lidar.slop_ms": LIDAR_SLOP_MS, "event.window_ms": WINDOW_MS}
config = functools.partial(configs.config, base=RULES)


# --------------------------------------------------------------------------------------------------------------------
# A rig: 30 images, 15 depth images, 10 sweeps, 1000 packets of events and 50 transforms a second


def image(stamp_ns: int) -> ImageSample:
    return ImageSample(stamp_ns, "camera", PIXELS)


def depth(stamp_ns: int) -> DepthSample:
    return DepthSample(stamp_ns, "depth", DEPTH)


def sweep(stamp_ns: int) -> CloudSample:
    time_ns = np.array([stamp_ns, stamp_ns + SWEEP_MS * MS])
    return cloud(np.ones((3, 2)), np.ones(2), time_ns)


def packet(stamp_ns: int, number: int, length_ns: int = MS) -> EventSample:
    """Three events whose x and y say of which packet they are."""
    time_ns = stamp_ns + np.array([0, length_ns // 3, 2 * length_ns // 3])
    x, y = [number % 60000] * 3, [number // 60000] * 3
    return packet_of(time_ns, x, y, end_ns=stamp_ns + length_ns, size=(2, 2))


def odometry(stamp_ns: int) -> TransformSample:
    t = (stamp_ns - T0) * 1e-9
    matrix = transform_matrix((3.0 * t, np.sin(t), 0.0), Rotation.from_euler("z", 0.8 * t + 0.1 * np.sin(5 * t)).as_quat())
    return TransformSample(stamp_ns, False, (StampedTransform(stamp_ns, "odom", "base", matrix),))


def info(modality: Modality, stamp_ns: int, zoom: int = 0) -> CameraInfoSample:
    return CameraInfoSample(stamp_ns, modality, modality, replace(CAMERA, fx=2.0 + zoom))


FIXED = TransformSample(
    0, True, tuple(StampedTransform(0, "base", child, np.eye(4)) for child in ("camera", "depth", "event", "lidar"))
)


def before() -> list[Sample]:
    """What is known at the start, also that two cameras zoom."""
    cameras: tuple[Modality, ...] = ("rgb", "depth")
    known: list[Sample] = [info(name, T0 - (200 + i) * MS, zoom=i) for i in (1, 0) for name in cameras]
    return [*known, info("event", 0), FIXED]


def stamps(rng: np.random.Generator, period_ms: float, span_ms: int, jitter: float = 0.2, lost: float = 0.1) -> list[int]:
    at_ms = np.arange(rng.uniform(0, period_ms), span_ms, period_ms)
    at_ms += rng.uniform(-jitter, jitter, at_ms.size) * period_ms
    return [T0 + round(ms * MS) for ms in at_ms[rng.random(at_ms.size) >= lost]]


def drive(rng: np.random.Generator, span_ms: int, odometry_ms: tuple[int, int] | None, packets_ms: float) -> list[list[Sample]]:
    """One list of samples per topic, in the order of their stamps."""
    images, depths = stamps(rng, 33, span_ms), stamps(rng, 66, span_ms)
    zooms = {stamp_ns: int(zoom) for stamp_ns, zoom in zip(images + depths, rng.integers(0, 3, 999), strict=False)}
    moving = [] if odometry_ms is None else range(T0 + odometry_ms[0] * MS, T0 + odometry_ms[1] * MS, 20 * MS)
    event_stamps = stamps(rng, packets_ms, span_ms, jitter=0.0)
    return [
        [image(stamp_ns) for stamp_ns in images],
        [depth(stamp_ns) for stamp_ns in depths],
        [sweep(stamp_ns) for stamp_ns in stamps(rng, 100, span_ms)],
        [packet(stamp_ns, i, round(packets_ms * MS)) for i, stamp_ns in enumerate(event_stamps)],
        [info("rgb", stamp_ns, zooms[stamp_ns]) for stamp_ns in images],
        [info("depth", stamp_ns, zooms[stamp_ns]) for stamp_ns in depths],
        [odometry(stamp_ns) for stamp_ns in moving],
    ]


def one_order(rng: np.random.Generator, topics: list[list[Sample]]) -> list[Sample]:
    """One order of arrival: each topic in its order, no sample later than MOST_DELAY_MS after its stamp."""
    arrivals: list[tuple[float, float, int, Sample]] = []
    for samples in topics:
        place, slow = rng.random(), rng.random() < 0.5
        delays = rng.uniform(0, MOST_DELAY_MS * MS if slow else MS, len(samples))
        arrival = -np.inf
        for number, (sample, delay) in enumerate(zip(samples, delays, strict=True)):
            arrival = max(arrival, sample.stamp_ns - T0 + delay)
            arrivals.append((arrival, place, number, sample))
    return [sample for *_, sample in sorted(arrivals, key=lambda entry: entry[:3])]


def content(frame: SensorFrame) -> tuple[object, ...]:
    """All of a frame but the words for an absence."""
    assert frame.calibration is not None
    calibration, window, motion = frame.calibration, frame.event, frame.calibration.lidar_motion
    matrices = calibration.reference_from_depth, calibration.reference_from_event, calibration.reference_from_lidar
    arrays = [None if matrix is None else matrix.tobytes() for matrix in matrices]
    arrays += [] if motion is None else [motion.stamps_ns.tobytes(), motion.reference_from_lidar.tobytes()]
    arrays += [] if window is None else [window.time_ns.tobytes(), window.x.tobytes(), window.polarity.tobytes()]
    absent = {"late": "absent", "outside_slop": "absent"}
    return (
        frame.index,
        frame.stamp_ns,
        None if frame.depth is None else frame.depth.stamp_ns,
        None if frame.lidar is None else frame.lidar.stamp_ns,
        None if window is None else (window.start_ns, window.end_ns),
        arrays,
        (calibration.reference, calibration.depth, calibration.event),
        [replace(each, reason=absent.get(each.reason, each.reason), detail="") for each in frame.status],
    )


ODOMETRY = [(-300, 1600), (120, 1600), (420, 1600), (-300, 600), None]


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    span_ms=st.sampled_from([400, 800]),
    odometry_ms=st.sampled_from(ODOMETRY),
    window=st.sampled_from(["duration", "count"]),
)
def test_any_order_of_arrival_within_max_wait_gives_the_same_frames(
    seed: int, span_ms: int, odometry_ms: tuple[int, int] | None, window: str
) -> None:
    rng = np.random.default_rng(seed)
    topics = drive(rng, span_ms, odometry_ms, packets_ms=1.0)
    outcomes = []
    for _ in range(2):
        front = Front(config(**{"event.window": window, "event.count": 40}))
        samples = [*before(), *one_order(rng, topics)]
        frames = [frame for sample in samples for frame in front.push_sample(sample)] + front.finish()
        outcomes.append([content(frame) for frame in frames])
        assert len(frames) == len(topics[0])
    for one, other in zip(*outcomes, strict=True):
        assert one == other


# --------------------------------------------------------------------------------------------------------------------
# A check of frames from outside


@dataclass
class Watcher:
    """Pushes samples and holds every frame that comes out to the rules."""

    front: Front
    slop_ns: dict[Modality, int]
    epoch: int = 0
    accepted: dict[Modality, list[tuple[int, SensorSample]]] = field(default_factory=lambda: defaultdict(list))
    epoch_of: dict[int, int] = field(default_factory=dict)
    packets: dict[int, int] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)
    frames: int = 0

    def push(self, sample: Sample) -> None:
        refused = self.refused()
        frames = self.front.push_sample(sample)
        self.epoch = self.front.resets
        if not isinstance(sample, CameraInfoSample | TransformSample):
            self.take_up(sample, self.refused() == refused)
        self.check(frames)
        self.check_accounts()

    def refused(self) -> int:
        ends = ("duplicate", "out_of_order", "not_configured")
        return sum(count.number for count in self.front.counts() if count.what.split(".")[-1] in ends)

    def take_up(self, sample: SensorSample, accepted: bool) -> None:
        kinds: dict[type, Modality] = {ImageSample: "rgb", DepthSample: "depth", CloudSample: "lidar", EventSample: "event"}
        self.epoch_of[id(sample)] = self.epoch
        if isinstance(sample, EventSample):
            self.packets[int(sample.x[0])] = self.epoch
        if accepted:
            self.accepted[kinds[type(sample)]].append((self.epoch, sample))

    def check(self, frames: list[SensorFrame]) -> None:
        for frame in frames:
            self.frames += 1
            epoch, stamp_ns = self.epoch_of[id(frame.rgb)], frame.stamp_ns
            assert self.last.get(epoch, 0) < stamp_ns
            self.last[epoch] = stamp_ns
            by_modality = {each.modality: each for each in frame.status}
            self.check_nearest(epoch, stamp_ns, "depth", frame.depth)
            self.check_nearest(epoch, stamp_ns, "lidar", frame.lidar)
            if frame.event is not None:
                window = frame.event
                assert window.end_ns == stamp_ns
                assert stamp_ns - WINDOW_MS * MS <= window.start_ns
                assert np.all((window.time_ns >= window.start_ns) & (window.time_ns < stamp_ns))
                assert {self.packets[int(number)] for number in window.x} <= {epoch}
            for modality, data in (("depth", frame.depth), ("lidar", frame.lidar), ("event", frame.event)):
                entry = by_modality[modality]
                assert entry.present == (data is not None) == (entry.reason == "") == (entry.skew_ns is not None)
                assert (entry.motion in {"compensated", "no_odometry"}) == (entry.present and modality != "event")
                assert bool(entry.detail) == (not entry.present or entry.motion == "no_odometry")
            motion = frame.calibration and frame.calibration.lidar_motion
            assert (motion is not None) == (by_modality["lidar"].motion == "compensated")
            if motion is not None and frame.lidar is not None:
                assert (motion.stamps_ns[0], motion.stamps_ns[-1]) == (frame.lidar.start_ns, frame.lidar.end_ns)

    def check_nearest(self, epoch: int, stamp_ns: int, modality: Modality, used: DepthSample | CloudSample | None) -> None:
        """What is used is within the slop, and nothing of the same time between two resets was nearer."""

        def distance_ns(sample: SensorSample) -> int:
            if isinstance(sample, CloudSample):
                return max(sample.start_ns - stamp_ns, stamp_ns - sample.end_ns, 0)
            return abs(sample.stamp_ns - stamp_ns)

        nearest_ns = min((distance_ns(sample) for then, sample in self.accepted[modality] if then == epoch), default=10**18)
        if used is None:
            assert nearest_ns > self.slop_ns[modality]
            return
        assert self.epoch_of[id(used)] == epoch
        assert distance_ns(used) <= self.slop_ns[modality]
        assert distance_ns(used) == nearest_ns

    def check_accounts(self) -> None:
        counted = {count.what: count.number for count in self.front.counts()}
        for modality in ("rgb", "depth", "lidar", "event"):
            dropped = sum(number for what, number in counted.items() if what.startswith(f"{modality}.dropped."))
            ended = dropped + counted.get(f"{modality}.used", 0) + counted.get(f"{modality}.waiting", 0)
            assert counted.get(f"{modality}.received", 0) == ended
        closings = ("settled", "forced", "crowded_out", "flushed")
        assert counted.get("frames.closed", 0) == self.frames == sum(counted.get(f"frames.{how}", 0) for how in closings)


def moved(sample: Sample, by_ns: int, number: int) -> Sample:
    """The sample as it would be had it been taken at another time."""
    stamp_ns = sample.stamp_ns + by_ns
    if isinstance(sample, EventSample):
        return packet(stamp_ns, number, sample.end_ns - sample.stamp_ns)
    if isinstance(sample, TransformSample):
        return odometry(stamp_ns)
    if isinstance(sample, CloudSample):
        return sweep(stamp_ns)
    return replace(sample, stamp_ns=stamp_ns)


def spoiled(rng: np.random.Generator, samples: list[Sample], jump_ms: int) -> list[Sample]:
    """Some doubled, some late, some with a wrong stamp, and from one on all of another time."""
    numbers = itertools.count(20_000)
    timed = [(float(place), sample) for place, sample in enumerate(samples)]
    for place in rng.choice(len(samples), len(samples) // 15, replace=False):
        sample = samples[place]
        kind = rng.integers(0, 4)
        if kind == 0:
            timed.append((place + rng.uniform(0, 30), moved(sample, 0, next(numbers))))
        elif kind == 1:
            timed[place] = (place + rng.uniform(0, 30), sample)
        elif kind == 2:
            timed[place] = (float(place), moved(sample, int(rng.integers(-900, 900)) * MS, next(numbers)))
        elif not isinstance(sample, TransformSample):
            timed[place] = (float(place), moved(sample, int(rng.integers(1, 10**7)) * MS, next(numbers)))
    order = [sample for _, sample in sorted(timed, key=lambda entry: entry[0])]
    turn = int(rng.integers(len(order)))
    return [*order[:turn], *(moved(sample, jump_ms * MS, next(numbers)) for sample in order[turn:])]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    odometry_ms=st.sampled_from(ODOMETRY),
    jump_ms=st.sampled_from([0, -5000, 5000, 10**8, -300]),
)
def test_whatever_comes_no_frame_breaks_the_rules_and_no_sample_is_lost(
    seed: int, odometry_ms: tuple[int, int] | None, jump_ms: int
) -> None:
    rng = np.random.default_rng(seed)
    watcher = Watcher(Front(config()), {"depth": 30 * MS, "lidar": LIDAR_SLOP_MS * MS})
    for sample in [*before(), *spoiled(rng, one_order(rng, drive(rng, 600, odometry_ms, packets_ms=4.0)), jump_ms)]:
        watcher.push(sample)
    watcher.check(watcher.front.finish())
    watcher.check_accounts()
    assert watcher.frames

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np
import pytest

from gemini_core.config.fusion import FusionConfig, from_flat
from gemini_core.pipeline.pipeline import Pipeline
from gemini_core.predictor import Prediction
from gemini_core.rig.geometry import transform_matrix
from gemini_core.types import (
    UNLABELLED,
    AlignedGrids,
    CameraInfoSample,
    CameraModel,
    CloudSample,
    DepthSample,
    EventSample,
    ImageSample,
    Modality,
    Perception,
    Sample,
    StampedTransform,
    TransformSample,
)

MS = 1_000_000
CAMERA = CameraModel(64, 48, 50.0, 50.0, 31.5, 23.5)
TURN = (0.5, -0.5, 0.5, 0.5)  # to optical axes (right, down, forward) from LiDAR axes (forward, left, up)


def config(*modalities: str, **options: object) -> FusionConfig:
    dotted = {key.replace("__", "."): value for key, value in options.items()}
    return from_flat({"modalities": ["rgb", *modalities], "grid.width": 64, "grid.height": 48, **dotted})


def rgb(stamp_ms: int, width: int = 64, height: int = 48) -> ImageSample:
    return ImageSample(stamp_ms * MS, "camera", np.full((height, width, 3), 128, np.uint8))


def depth(stamp_ms: int) -> DepthSample:
    return DepthSample(stamp_ms * MS, "depth", np.full((48, 64), 2.0, np.float32))


def sweep(stamp_ms: int) -> CloudSample:
    stamp_ns = stamp_ms * MS
    points = np.array([[5.0], [0.0], [0.0]], np.float32)
    return CloudSample(stamp_ns, "lidar", points, np.ones(1, np.float32), None, None, stamp_ns, stamp_ns)


def packet(stamp_ms: int, end_ms: int) -> EventSample:
    time_ns = np.array([stamp_ms * MS], np.int64)
    pixel = np.array([7], np.uint16)
    return EventSample(stamp_ms * MS, "event", 64, 48, pixel, pixel, np.ones(1, np.uint8), time_ns, end_ms * MS)


def info(modality: Modality, camera: CameraModel = CAMERA) -> CameraInfoSample:
    return CameraInfoSample(0, modality, modality, camera)


def fixed(child: str) -> TransformSample:
    turn = TURN if child == "lidar" else (0.0, 0.0, 0.0, 1.0)
    return TransformSample(0, True, (StampedTransform(0, "camera", child, transform_matrix((0.0, 0.0, 0.0), turn)),))


def odometry(stamp_ms: int) -> TransformSample:
    return TransformSample(stamp_ms * MS, False, (StampedTransform(stamp_ms * MS, "odom", "camera", np.eye(4)),))


RIG: list[Sample] = [info("rgb"), info("depth"), info("event"), fixed("depth"), fixed("event"), fixed("lidar")]
ALL = ("depth", "event", "lidar")


def moment(stamp_ms: int) -> list[Sample]:
    return [
        packet(stamp_ms - 20, stamp_ms - 1),
        depth(stamp_ms),
        sweep(stamp_ms),
        rgb(stamp_ms),
        packet(stamp_ms, stamp_ms + 5),
    ]


def push_all(pipeline: Pipeline, samples: Iterable[Sample]) -> list[Perception]:
    return [perception for sample in samples for perception in pipeline.push(sample)]


def numbers(pipeline: Pipeline) -> dict[str, int]:
    return {count.what: count.number for count in pipeline.counts()}


def reasons(perception: Perception) -> dict[str, str]:
    return {entry.modality: entry.reason for entry in perception.status}


def test_four_sensors_become_four_grids() -> None:
    pipeline = Pipeline(config(*ALL))
    (perception,) = push_all(pipeline, [*RIG, *moment(100)])
    assert [grid.modality for grid in perception.grids.grids] == ["rgb", "depth", "event", "lidar"]
    assert (perception.index, perception.stamp_ns, perception.frame_id) == (0, 100 * MS, "camera")
    by_depth, by_lidar = perception.grids.grid("depth"), perception.grids.grid("lidar")
    assert by_depth is not None
    assert by_depth.coverage == 1.0
    assert by_lidar is not None
    assert by_lidar.depth_m is not None
    assert np.nanmax(by_lidar.depth_m) == pytest.approx(5.0)
    assert np.argwhere(by_lidar.valid).tolist() == [[24, 32]]
    assert perception.mask.shape == (48, 64)
    assert (perception.mask == UNLABELLED).all()
    assert perception.timings == ()
    assert numbers(pipeline)["frames.complete"] == numbers(pipeline)["frames.processed"] == 1


@pytest.mark.parametrize("present", [subset for size in range(4) for subset in itertools.combinations(ALL, size)])
def test_any_subset_of_sensors_gives_a_perception_that_says_what_is_missing(present: tuple[str, ...]) -> None:
    kinds = {"depth": DepthSample, "event": EventSample, "lidar": CloudSample}
    absent = tuple(kinds[name] for name in ALL if name not in present)
    pipeline = Pipeline(config(*ALL))
    (perception,) = [
        *push_all(pipeline, [sample for sample in [*RIG, *moment(100)] if not isinstance(sample, absent)]),
        *pipeline.flush(),
    ]
    assert reasons(perception) == {"rgb": "", **{name: "" if name in present else "never_seen" for name in ALL}}
    assert {grid.modality for grid in perception.grids.grids} == {"rgb", *present}
    for name in ALL:
        assert numbers(pipeline).get(f"{name}.missing.never_seen", 0) == (name not in present)


def test_a_frame_waits_for_its_calibration() -> None:
    pipeline = Pipeline(config("depth"))
    assert push_all(pipeline, [depth(100), rgb(100), info("rgb"), info("depth")]) == []
    (perception,) = pipeline.push(fixed("depth"))
    assert reasons(perception) == {"rgb": "", "depth": ""}


def test_calibration_that_never_comes_is_the_reason() -> None:
    pipeline = Pipeline(config("depth", "lidar"))
    samples = [info("rgb"), fixed("depth"), depth(100), sweep(100), rgb(100)]
    assert push_all(pipeline, samples) == []
    (perception,) = pipeline.flush()
    assert reasons(perception) == {"rgb": "", "depth": "no_camera_info", "lidar": "no_transform"}
    assert [grid.modality for grid in perception.grids.grids] == ["rgb"]


def test_the_image_size_may_change_in_between() -> None:
    pipeline = Pipeline(config("depth"))
    big = dataclasses.replace(CAMERA, width=128, height=96, fx=100.0, fy=100.0, cx=63.5, cy=47.5)
    small_frame, big_frame = push_all(
        pipeline, [*RIG, depth(100), rgb(100), info("rgb", big), depth(200), rgb(200, width=128, height=96)]
    )
    assert small_frame.mask.shape == (48, 64)
    assert big_frame.mask.shape == (96, 128)
    for perception in (small_frame, big_frame):
        by_depth = perception.grids.grid("depth")
        assert by_depth is not None
        assert by_depth.coverage == 1.0
    assert small_frame.grids.camera == big_frame.grids.camera


def test_a_clock_that_jumps_back_loses_no_frame_and_keeps_what_is_fixed() -> None:
    pipeline = Pipeline(config(*ALL))
    perceptions = push_all(pipeline, [*RIG, *moment(10_000), rgb(10_100), *moment(100)[3:]])
    perceptions += push_all(pipeline, [*moment(200), *moment(300)])
    assert [perception.stamp_ns // MS for perception in perceptions] == [10_000, 10_100, 100, 200, 300]
    assert [perception.index for perception in perceptions] == [0, 1, 2, 3, 4]
    assert reasons(perceptions[-1]) == {"rgb": "", "depth": "", "event": "", "lidar": ""}
    assert pipeline.resets >= 1


def test_what_was_done_about_motion_is_counted_and_a_rig_without_odometry_waits_at_the_start_only() -> None:
    pipeline = Pipeline(config("depth"))
    closed = {}
    for stamp_ms in range(0, 1000, 100):
        for sample in [*RIG, depth(stamp_ms - 10), rgb(stamp_ms), depth(stamp_ms + 20)]:
            closed.update({frame.stamp_ns // MS: stamp_ms for frame in pipeline.advance(sample)})
    # the frame at 300 does not wait itself, but closes after the one before it
    assert closed == {0: 200, 100: 300, 200: 400, 300: 400, **{stamp_ms: stamp_ms for stamp_ms in range(400, 1000, 100)}}
    assert numbers(pipeline)["depth.motion.no_odometry"] == 10
    push_all(pipeline, [odometry(stamp_ms) for stamp_ms in (2000, 2100)])
    (perception,) = push_all(pipeline, [depth(2190), rgb(2200), depth(2220), odometry(2230)])
    assert [entry.motion for entry in perception.status] == ["", "compensated"]
    assert numbers(pipeline)["depth.motion.compensated"] == 1


def test_the_two_halves_do_what_push_does() -> None:
    samples = [*RIG, *(sample for stamp_ms in range(100, 1000, 100) for sample in moment(stamp_ms)), rgb(1000)]
    whole, halves = Pipeline(config(*ALL)), Pipeline(config(*ALL))
    expected = [*push_all(whole, samples), *whole.flush()]
    frames = [frame for sample in samples for frame in halves.advance(sample)] + halves.finish()
    got = [halves.process(frame) for frame in frames]
    assert len(expected) == 10
    for one, other in zip(expected, got, strict=True):
        assert one.status == other.status
        for grid, same in zip(one.grids.grids, other.grids.grids, strict=True):
            assert grid.modality == same.modality
            assert grid.channels.tobytes() == same.channels.tobytes()
    assert numbers(whole) == numbers(halves)


def test_the_predictor_gets_the_grids_and_the_clock_times_it() -> None:
    seen: list[AlignedGrids] = []

    class Threes:
        def predict(self, grids: AlignedGrids) -> Prediction:
            seen.append(grids)
            return Prediction(np.full((48, 64), 3, np.uint8))

    ticks = itertools.count(step=5)
    pipeline = Pipeline(config(), Threes(), clock=lambda: next(ticks))
    (perception,) = pipeline.push(rgb(0))
    assert seen == [perception.grids]
    assert (perception.mask == 3).all()
    assert perception.class_names == FusionConfig().model.classes
    assert [(time.stage, time.duration_ns) for time in perception.timings] == [("project", 5), ("predict", 5)]


def test_reset_forgets_what_waits_and_counts_it() -> None:
    pipeline = Pipeline(config("depth"))
    push_all(pipeline, [*RIG, rgb(100)])
    pipeline.reset()
    assert pipeline.flush() == []
    assert numbers(pipeline)["rgb.dropped.reset"] == 1
    (perception,) = push_all(pipeline, [depth(50), rgb(50)])
    assert reasons(perception)["depth"] == ""


def test_a_first_image_with_a_wrong_stamp_does_not_make_later_frames_wait_for_odometry() -> None:
    pipeline = Pipeline(config("depth"))
    for sample in [*RIG, depth(0), rgb(3_600_000), depth(60)]:
        assert not pipeline.advance(sample)
    waits = []
    for stamp_ms in range(100, 2000, 100):
        for sample in [depth(stamp_ms - 10), rgb(stamp_ms), depth(stamp_ms + 20)]:
            waits += [stamp_ms - frame.stamp_ns // MS for frame in pipeline.advance(sample)]
    assert numbers(pipeline)["rgb.dropped.stamp_taken_back"] == 1
    assert pipeline.resets == 0
    assert waits[5:] == [0] * 14


@pytest.mark.parametrize(
    ("transforms", "expected"),
    [
        ((), False),
        ((("arm", "hand"),), False),  # moves, but not the camera
        ((("odom", "base"),), True),  # odometry that does not reach the camera
        ((("world", "camera"),), True),  # odometry by another name
        ((("odom", "camera"),), True),
    ],
)
def test_motion_is_expected_where_transforms_say_so(transforms: tuple[tuple[str, str], ...], expected: bool) -> None:
    pipeline = Pipeline(config("depth"))
    moving = tuple(StampedTransform(0, parent, child, np.eye(4)) for parent, child in transforms)
    for sample in [*RIG, TransformSample(0, False, moving), depth(0), rgb(0)]:
        frames = pipeline.advance(sample)
    assert pipeline.expects_motion(frames[0]) == expected
    off = Pipeline(config("depth", motion__fixed_frame=""))
    off.advance(TransformSample(0, False, moving))
    assert not off.expects_motion(frames[0])

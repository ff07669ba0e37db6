"""Both halves of the pipeline on samples: grids of any subset of sensors, calibration that is late, jumps, motion."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from gemini_core.config import FusionConfig
from gemini_core.predictor import Prediction
from gemini_core.types import (
    UNLABELLED,
    AlignedGrids,
    CloudSample,
    DepthSample,
    EventSample,
    Perception,
    StampedTransform,
    TransformSample,
)
from pipelines import WholePipeline, numbers
from small_rig import ALL, CAMERA, MS, RIG, config, depth, fixed, info, moment, odometry, rgb, sweep


def reasons(perception: Perception) -> dict[str, str]:
    return {entry.modality: entry.reason for entry in perception.status}


def test_four_sensors_become_four_grids() -> None:
    pipeline = WholePipeline(config(*ALL))
    (perception,) = pipeline.push_all([*RIG, *moment(100)])
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
    assert numbers(pipeline.counts())["frames.complete"] == numbers(pipeline.counts())["frames.processed"] == 1


@pytest.mark.parametrize("present", [subset for size in range(4) for subset in itertools.combinations(ALL, size)])
def test_any_subset_of_sensors_gives_a_perception_that_says_what_is_missing(present: tuple[str, ...]) -> None:
    kinds = {"depth": DepthSample, "event": EventSample, "lidar": CloudSample}
    absent = tuple(kinds[name] for name in ALL if name not in present)
    pipeline = WholePipeline(config(*ALL))
    (perception,) = [
        *pipeline.push_all([sample for sample in [*RIG, *moment(100)] if not isinstance(sample, absent)]),
        *pipeline.flush(),
    ]
    assert reasons(perception) == {"rgb": "", **{name: "" if name in present else "never_seen" for name in ALL}}
    assert {grid.modality for grid in perception.grids.grids} == {"rgb", *present}
    for name in ALL:
        assert numbers(pipeline.counts()).get(f"{name}.missing.never_seen", 0) == (name not in present)


def test_a_frame_waits_for_its_calibration() -> None:
    pipeline = WholePipeline(config("depth"))
    assert pipeline.push_all([depth(100), rgb(100), info("rgb"), info("depth")]) == []
    (perception,) = pipeline.push(fixed("depth"))
    assert reasons(perception) == {"rgb": "", "depth": ""}


def test_calibration_that_never_comes_is_the_reason() -> None:
    pipeline = WholePipeline(config("depth", "lidar"))
    samples = [info("rgb"), fixed("depth"), depth(100), sweep(100), rgb(100)]
    assert pipeline.push_all(samples) == []
    (perception,) = pipeline.flush()
    assert reasons(perception) == {"rgb": "", "depth": "no_camera_info", "lidar": "no_transform"}
    assert [grid.modality for grid in perception.grids.grids] == ["rgb"]


def test_the_image_size_may_change_in_between() -> None:
    pipeline = WholePipeline(config("depth"))
    big = dataclasses.replace(CAMERA, width=128, height=96, fx=100.0, fy=100.0, cx=63.5, cy=47.5)
    small_frame, big_frame = pipeline.push_all(
        [*RIG, depth(100), rgb(100), info("rgb", big), depth(200), rgb(200, width=128, height=96)]
    )
    assert small_frame.mask.shape == (48, 64)
    assert big_frame.mask.shape == (96, 128)
    for perception in (small_frame, big_frame):
        by_depth = perception.grids.grid("depth")
        assert by_depth is not None
        assert by_depth.coverage == 1.0
    assert small_frame.grids.camera == big_frame.grids.camera


def test_a_clock_that_jumps_back_loses_no_frame_and_keeps_what_is_fixed() -> None:
    pipeline = WholePipeline(config(*ALL))
    perceptions = pipeline.push_all([*RIG, *moment(10_000), rgb(10_100), *moment(100)[3:]])
    perceptions += pipeline.push_all([*moment(200), *moment(300)])
    assert [perception.stamp_ns // MS for perception in perceptions] == [10_000, 10_100, 100, 200, 300]
    assert [perception.index for perception in perceptions] == [0, 1, 2, 3, 4]
    assert reasons(perceptions[-1]) == {"rgb": "", "depth": "", "event": "", "lidar": ""}
    assert pipeline.front.resets >= 1


def test_a_clock_that_jumps_back_forgets_where_the_robot_was() -> None:
    pipeline = WholePipeline(config("depth"))
    late = [odometry(100_000), odometry(100_100), depth(100_040), rgb(100_050), depth(100_080)]
    (before,) = pipeline.push_all([*RIG, *late])
    samples = [rgb(1000), odometry(950), odometry(1100), depth(990), depth(1020)]
    (after,) = pipeline.push_all(samples)
    assert [perception.status[1].motion for perception in (before, after)] == ["compensated", "compensated"]
    assert pipeline.front.resets == 1


def test_what_was_done_about_motion_is_counted_and_a_rig_without_odometry_waits_at_the_start_only() -> None:
    pipeline = WholePipeline(config("depth"))
    closed = {}
    for stamp_ms in range(0, 1000, 100):
        for sample in [*RIG, depth(stamp_ms - 10), rgb(stamp_ms), depth(stamp_ms + 20)]:
            closed.update({frame.stamp_ns // MS: stamp_ms for frame in pipeline.front.push_sample(sample)})
    # the frame at 300 does not wait itself, but closes after the one before it
    assert closed == {0: 200, 100: 300, 200: 400, 300: 400, **{stamp_ms: stamp_ms for stamp_ms in range(400, 1000, 100)}}
    assert numbers(pipeline.counts())["depth.motion.no_odometry"] == 10
    pipeline.push_all([odometry(stamp_ms) for stamp_ms in (2000, 2100)])
    (perception,) = pipeline.push_all([depth(2190), rgb(2200), depth(2220), odometry(2230)])
    assert [entry.motion for entry in perception.status] == ["", "compensated"]
    assert numbers(pipeline.counts())["depth.motion.compensated"] == 1


def test_the_predictor_gets_the_grids_and_the_clock_times_it() -> None:
    seen: list[AlignedGrids] = []

    class Threes:
        def predict(self, grids: AlignedGrids) -> Prediction:
            seen.append(grids)
            return Prediction(np.full((48, 64), 3, np.uint8))

    ticks = itertools.count(step=5)
    pipeline = WholePipeline(config(), Threes(), clock=lambda: next(ticks))
    (perception,) = pipeline.push(rgb(0))
    assert seen == [perception.grids]
    assert (perception.mask == 3).all()
    assert perception.class_names == FusionConfig().model.classes
    assert [(time.stage, time.duration_ns) for time in perception.timings] == [("project", 5), ("predict", 5)]


def test_a_first_image_with_a_wrong_stamp_does_not_make_later_frames_wait_for_odometry() -> None:
    pipeline = WholePipeline(config("depth"))
    for sample in [*RIG, depth(0), rgb(3_600_000), depth(60)]:
        assert not pipeline.front.push_sample(sample)
    waits = []
    for stamp_ms in range(100, 2000, 100):
        for sample in [depth(stamp_ms - 10), rgb(stamp_ms), depth(stamp_ms + 20)]:
            waits += [stamp_ms - frame.stamp_ns // MS for frame in pipeline.front.push_sample(sample)]
    assert numbers(pipeline.counts())["rgb.dropped.stamp_taken_back"] == 1
    assert pipeline.front.resets == 0
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
    pipeline = WholePipeline(config("depth"))
    moving = tuple(StampedTransform(0, parent, child, np.eye(4)) for parent, child in transforms)
    for sample in [*RIG, TransformSample(0, False, moving), depth(0), rgb(0)]:
        frames = pipeline.front.push_sample(sample)
    assert pipeline.front.expects_motion(frames[0]) == expected
    off = WholePipeline(config("depth", motion__fixed_frame=""))
    off.front.push_sample(TransformSample(0, False, moving))
    assert not off.front.expects_motion(frames[0])

"""From samples to grids on a robot that moves: how far the LiDAR's and the depth camera's grids are from the world's geometry.

The world of the first tests is a hall with pillars, all planes and cylinders, so that every ray's length is known exactly.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gemini_core.bag.reader import BagReader
from gemini_core.config.fusion import FusionConfig, from_flat
from gemini_core.decode.intake import Intake
from gemini_core.pipeline.pipeline import Pipeline
from gemini_core.replay import Replay
from gemini_core.rig.geometry import transform_matrix
from gemini_core.simulation.clip import Clip
from gemini_core.simulation.record import Simulation, simulate
from gemini_core.simulation.rig import default_rig
from gemini_core.types import (
    F32,
    F64,
    CameraInfoSample,
    CameraModel,
    CloudSample,
    ImageSample,
    ModalityStatus,
    Perception,
    Sample,
    StampedTransform,
    TransformSample,
)

MS = 1_000_000
T0 = 1_700_000_000_000_000_000
CAMERA = CameraModel(320, 240, 200.0, 200.0, 159.5, 119.5)
OPTICAL = (-0.5, 0.5, -0.5, 0.5)  # optical axes (right, down, forward) seen from body axes (forward, left, up)
BASE_FROM_CAMERA = transform_matrix((0.3, 0.0, 1.5), OPTICAL)
BASE_FROM_LIDAR = transform_matrix((0.0, 0.1, 1.8), (0.0, 0.0, 0.0, 1.0))
PILLARS = np.array([[6.0, 2.0], [8.0, -3.0], [11.0, 4.0], [9.0, 0.5], [5.0, -1.5]])
SWEEP_NS = 100 * MS


def ranges(origins: F64, directions: F64) -> F64:
    """Lengths (N,) of unit rays (3, N) in a hall 30 m x 20 m x 6 m with pillars of 0.6 m; the robot begins in its middle."""
    low, high = np.array([[-15.0], [-10.0], [0.0]]), np.array([[15.0], [10.0], [6.0]])
    with np.errstate(divide="ignore"):
        walls = np.where(directions > 0, (high - origins) / directions, (low - origins) / directions).min(axis=0)
    nearest = walls
    for x, y in PILLARS:
        ox, oy, dx, dy = origins[0] - x, origins[1] - y, directions[0], directions[1]
        a, half_b, c = dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - 0.3**2
        inside = half_b * half_b - a * c
        hit = np.where(inside > 0, (-half_b - np.sqrt(np.maximum(inside, 0.0))) / a, np.inf)
        nearest = np.where(hit > 0, np.minimum(nearest, hit), nearest)
    return nearest


def pose(stamp_ns: int) -> F64:
    """A robot that turns at 1.5 rad/s while it drives at 2 m/s."""
    t = (stamp_ns - T0) * 1e-9
    return transform_matrix((2.0 * t, 0.2 * np.sin(t), 0.0), Rotation.from_euler("z", 1.5 * t - 0.75).as_quat())


def sweep(start_ns: int) -> CloudSample:
    """64 beams, 1024 firings a turn, each from where the LiDAR is then; the turn begins to the right of the view."""
    elevations, share = np.deg2rad(np.linspace(-25, 15, 64)), np.arange(1024) / 1024
    azimuth = np.pi - 2 * np.pi * share
    points, times = [], start_ns + np.round(share * SWEEP_NS).astype(np.int64)
    for angle, stamp_ns in zip(azimuth, times.tolist(), strict=True):
        directions = np.stack([np.cos(elevations) * np.cos(angle), np.cos(elevations) * np.sin(angle), np.sin(elevations)])
        world_from_lidar = pose(stamp_ns) @ BASE_FROM_LIDAR
        origins = np.broadcast_to(world_from_lidar[:3, 3:], directions.shape)
        points.append(directions * ranges(origins, world_from_lidar[:3, :3] @ directions))
    time_ns = np.repeat(times, 64)
    found = np.concatenate(points, axis=1).astype(np.float32)
    return CloudSample(start_ns, "lidar", found, np.zeros(time_ns.size, np.float32), None, time_ns, start_ns, int(time_ns[-1]))


def true_depth(stamp_ns: int) -> F64:
    """Depth (240, 320) that the camera would measure at a stamp."""
    v, u = np.mgrid[0:240, 0:320].reshape(2, -1)
    rays = np.stack([(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones(u.size)])
    lengths = np.linalg.norm(rays, axis=0)
    world_from_camera = pose(stamp_ns) @ BASE_FROM_CAMERA
    directions = world_from_camera[:3, :3] @ (rays / lengths)
    return (ranges(np.broadcast_to(world_from_camera[:3, 3:], rays.shape), directions) / lengths).reshape(240, 320)


def hall_config(**options: object) -> FusionConfig:
    return from_flat({"modalities": ["rgb", "lidar"], "grid.width": 320, "grid.height": 240, **options})


def drive(last_ms: int = 400) -> list[Sample]:
    """Images every 100 ms, which a sweep begins 70 ms before, and odometry; all as they would arrive."""
    mounts = [StampedTransform(0, "base", "camera", BASE_FROM_CAMERA), StampedTransform(0, "base", "lidar", BASE_FROM_LIDAR)]
    timed: list[tuple[int, Sample]] = [
        (0, TransformSample(0, True, tuple(mounts))),
        (0, CameraInfoSample(0, "camera", "rgb", CAMERA)),
    ]
    for stamp_ms in range(100, last_ms, 100):
        stamp_ns = T0 + stamp_ms * MS
        timed.append((stamp_ns + 10 * MS, ImageSample(stamp_ns, "camera", np.zeros((240, 320, 3), np.uint8))))
        timed.append((stamp_ns + 40 * MS, sweep(stamp_ns - 70 * MS)))
    for stamp_ms in range(-100, last_ms + 100, 20):
        stamp_ns = T0 + stamp_ms * MS
        moving = TransformSample(stamp_ns, False, (StampedTransform(stamp_ns, "odom", "base", pose(stamp_ns)),))
        timed.append((stamp_ns + 5 * MS, moving))
    return [sample for _, sample in sorted(timed, key=lambda entry: entry[0])]


def run(samples: list[Sample], **options: object) -> list[Perception]:
    pipeline = Pipeline(hall_config(**options))
    return [found for sample in samples for found in pipeline.push(sample)] + pipeline.flush()


def errors(perception: Perception) -> F64:
    """Absolute errors of the LiDAR grid's depth, metres."""
    grid = perception.grids.grid("lidar")
    assert grid is not None
    assert grid.depth_m is not None
    assert grid.coverage > 0.05
    found: F64 = np.abs(grid.depth_m - true_depth(perception.stamp_ns))[grid.valid]
    return found


def motion(status: tuple[ModalityStatus, ...], modality: str) -> str:
    return next(entry.motion for entry in status if entry.modality == modality)


def test_odometry_puts_the_points_of_a_turning_lidar_where_the_camera_sees_them() -> None:
    samples = drive()
    moved, still = run(samples), run(samples, **{"motion.fixed_frame": ""})
    assert [motion(each.status, "lidar") for each in moved] == ["compensated"] * 3
    for one, other in zip(moved, still, strict=True):
        right, wrong = errors(one), errors(other)
        # Half a pixel at 10 m is 2.5 cm aside, which on walls seen at an angle is as much in depth.
        assert np.median(right) < 0.02
        assert np.median(wrong) > 0.08
        # Beside a pillar the LiDAR sees a little of what it hides from the camera.
        assert np.mean(right > 0.3) < 0.03
        assert np.mean(wrong > 0.3) > 0.14


def test_without_odometry_the_frames_are_those_of_a_rig_that_does_not_move() -> None:
    samples = [sample for sample in drive() if not (isinstance(sample, TransformSample) and not sample.static)]
    without, off = run(samples), run(samples, **{"motion.fixed_frame": ""})
    assert [motion(each.status, "lidar") for each in without] == ["no_odometry"] * 3
    for one, other in zip(without, off, strict=True):
        lidar, same = one.grids.grid("lidar"), other.grids.grid("lidar")
        assert lidar is not None
        assert same is not None
        assert lidar.channels.tobytes() == same.channels.tobytes()


# --------------------------------------------------------------------------------------------------------------------
# A simulated bag: a car at 8 m/s between houses, traffic and trees


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[F32]]:
    """A bag and, for each of its images, the true depth of every pixel."""
    out, rig = tmp_path_factory.mktemp("street") / "bag", default_rig(0.5)
    simulate(out, seed=6, seconds=0.2, rig=rig)
    return out, [frame.view.depth_m for frame in Simulation(Clip(seed=6, seconds=0.2), rig).frames()]


def street_config(modalities: list[str], size: tuple[int, ...], **options: object) -> FusionConfig:
    return from_flat({"modalities": modalities, "grid.height": size[0], "grid.width": size[1], **options})


def test_the_lidar_of_a_simulated_bag_lies_closer_to_the_truth_with_odometry(street: tuple[Path, list[F32]]) -> None:
    path, truth = street
    medians = {}
    for frame in ("odom", ""):
        with BagReader(path) as bag:
            found = list(
                Replay(bag, street_config(["rgb", "lidar"], truth[0].shape, **{"motion.fixed_frame": frame})).perceptions()
            )
        assert len(found) == len(truth)
        assert {motion(each.status, "lidar") for each in found} == {"compensated" if frame else ""}
        medians[frame] = [float(np.median(facing_errors(each, depth_m))) for each, depth_m in zip(found, truth, strict=True)]
    # The sweep passes the camera's view within 20 ms, 16 cm of the way; what is left is the LiDAR's noise.
    assert max(medians["odom"]) < 0.02
    assert min(medians[""]) > 0.04


def facing_errors(perception: Perception, depth_m: F32) -> F32:
    """Absolute errors of the LiDAR's depth on surfaces that face the camera, where a fraction of a pixel changes nothing."""
    grid = perception.grids.grid("lidar")
    assert grid is not None
    assert grid.depth_m is not None
    steps = np.abs(np.gradient(np.minimum(depth_m, 1e3))).max(axis=0)
    found: F32 = np.abs(grid.depth_m - depth_m)[grid.valid & (steps < 0.02) & (depth_m < 40)]
    assert found.size > 100
    return found


def test_another_order_of_arrival_gives_the_grids_of_the_replay(street: tuple[Path, list[F32]]) -> None:
    """A live node gets the same messages with other delays."""
    path, truth = street
    config = street_config(["rgb", "depth", "event", "lidar"], truth[0].shape)
    with BagReader(path) as bag:
        replay = Replay(bag, config)
        expected = list(replay.perceptions())
        roles = {entry.topic: entry.role for entry in replay.rig if not entry.problem}
        intake, timed = Intake(config), []
        for stored in bag.messages(tuple(roles)):
            delay_ns = 30 * MS if roles[stored.topic] in {"depth.image", "event.packets", "tf"} else 0
            sample = intake.accept(roles[stored.topic], stored.message)
            if sample is not None:
                timed.append((stored.log_ns + delay_ns, len(timed), sample))
    pipeline = Pipeline(config)
    got = [found for *_, sample in sorted(timed, key=lambda entry: entry[:2]) for found in pipeline.push(sample)]
    got += pipeline.flush()
    assert len(got) == len(expected) == len(truth)
    for one, other in zip(got, expected, strict=True):
        assert one.status == other.status
        assert all(entry.present for entry in one.status)
        for grid, same in zip(one.grids.grids, other.grids.grids, strict=True):
            assert grid.channels.tobytes() == same.channels.tobytes()

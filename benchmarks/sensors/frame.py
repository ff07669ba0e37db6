"""A whole frame of four sensors, message by message through the intake and the pipeline to the network's input.

Twenty frames a second at 1280x720: a bgr8 image, a 16UC1 depth image, a sweep of 120,000 points with times, 50 packets of EVT3
with 2,000 events each, CameraInfo of all three cameras, odometry at 50 Hz.
"""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.sensors import scenes
from gemini_core.bag import messages
from gemini_core.config.fusion import FusionConfig, from_flat
from gemini_core.decode.intake import Intake
from gemini_core.pipeline.pipeline import Pipeline
from gemini_core.project.color import align_color
from gemini_core.project.depth import align_depth
from gemini_core.project.event import align_events, map_by_plane
from gemini_core.project.grid import grid_camera, grid_geometry
from gemini_core.project.lidar import align_lidar
from gemini_core.types import AlignedGrid, Role, SensorFrame, StampedTransform

PERIOD_NS = 50 * scenes.MS
PACKETS, ROWS = 50, 250
EVENTS = PACKETS * ROWS * 8
_WARM = 3  # frames before the first that counts


def stage_times(grid: tuple[int, int], frames: int) -> dict[str, np.ndarray]:
    """CPU seconds of each stage, by frame (frames,); "whole" is their sum. ``grid``: width and height of the input."""
    config = from_flat({"grid.width": grid[0], "grid.height": grid[1], "model.enabled": False})
    intake, pipeline = Intake(config), Pipeline(config)
    normalise = _Normaliser((4, 3, grid[1], grid[0]))
    found: dict[str, list[float]] = defaultdict(list)
    spent: dict[str, float] = defaultdict(float)
    for role, message in _messages(frames + _WARM + 1):
        began = time.process_time()
        sample = intake.accept(role, message)
        decoded = time.process_time()
        assert sample is not None, intake.last_refusals()
        closed = pipeline.advance(sample)
        done = time.process_time()
        spent[f"decode {_STAGES[role]}"] += decoded - began
        spent["synchronize, calibration"] += done - decoded
        for frame in closed:
            _check(frame)
            grids = []
            for name, project in _projections(frame, config).items():
                began = time.process_time()
                grids.append(project())
                spent[f"project {name}"] = time.process_time() - began
            began = time.process_time()
            normalise(grids)
            spent["normalise (torch)"] = time.process_time() - began
            for stage, seconds in spent.items():
                found[stage].append(seconds)
            spent.clear()
    stages = {stage: np.array(seconds[_WARM:]) for stage, seconds in found.items()}
    return {**stages, "whole": np.sum(list(stages.values()), axis=0)}


_STAGES: dict[Role, str] = {
    "rgb.image": "colour",
    "depth.image": "depth",
    "lidar.points": "LiDAR",
    "event.packets": "events",
    **dict.fromkeys(("rgb.camera_info", "depth.camera_info", "event.camera_info", "tf", "tf_static"), "CameraInfo and TF"),
}


def _projections(frame: SensorFrame, config: FusionConfig) -> dict[str, Callable[[], AlignedGrid]]:
    """What ``Projector.project`` does, by modality."""
    sizes, calibration = frame.rgb.pixels.shape, frame.calibration
    depth, event, sweep = frame.depth, frame.event, frame.lidar
    assert calibration is not None
    assert calibration.reference is not None
    geometry = grid_geometry(config.grid, sizes[1], sizes[0])
    camera = grid_camera(calibration.reference, geometry)
    lens, to_reference = calibration.event, calibration.reference_from_event

    def project_events() -> AlignedGrid:
        placed = map_by_plane(lens, camera, to_reference, config.event.plane_m)
        return align_events(event, placed, geometry.height, geometry.width, config.event)

    return {
        "colour": lambda: align_color(frame.rgb, geometry),
        "depth": lambda: align_depth(depth, calibration.depth, camera, calibration.reference_from_depth, config.depth),
        "events": project_events,
        "LiDAR": lambda: align_lidar(sweep, camera, calibration.reference_from_lidar, config.lidar, calibration.lidar_motion),
    }


class _Normaliser:
    """What the predictor does before the network: gather and normalise."""

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self._staging = torch.empty(shape)
        self._mean, self._std = torch.full((4, 3, 1, 1), 0.45), torch.full((4, 3, 1, 1), 0.22)

    def __call__(self, grids: list[AlignedGrid]) -> torch.Tensor:
        for index, grid in enumerate(grids):
            np.copyto(self._staging[index].numpy(), grid.channels)
        return (self._staging - self._mean) / self._std


def _check(frame: SensorFrame) -> None:
    assert all(status.present for status in frame.status), frame.status
    assert all(status.motion in {"", "compensated"} for status in frame.status), frame.status
    assert frame.event is not None
    assert frame.event.x.size == EVENTS, frame.event.x.size


def _messages(frames: int) -> Iterator[tuple[Role, Any]]:
    """Everything of so many frames, in the order of a robot."""
    rng = np.random.default_rng(7)
    width, height = 1280, 720
    color = scenes.image(scenes.picture(width, height, rng), "bgr8", width)
    depth = scenes.image(scenes.millimetres(width, height, rng), "16UC1", width, frame_id="depth")
    sweep = scenes.cloud(scenes.STAMP, rng)
    lens = scenes.camera(width, height)
    words = _packet_words(rng)
    beside = np.eye(4)
    beside[0, 3] = 0.05
    fixed = {"camera": np.linalg.inv(scenes.REFERENCE_FROM_LIDAR), "lidar": np.eye(4)}
    fixed |= dict.fromkeys(("depth", "event"), fixed["camera"] @ beside)
    static = [StampedTransform(scenes.STAMP, "base_link", name, pose) for name, pose in fixed.items()]
    yield "tf_static", messages.tf_message(static)

    def at(message: Any, stamp_ns: int) -> Any:  # noqa: ANN401 - a bag's message
        return dataclasses.replace(message, header=messages.header(stamp_ns, message.header.frame_id))

    def odometry(stamp_ns: int) -> Any:  # noqa: ANN401 - as above
        return messages.tf_message([StampedTransform(stamp_ns, "odom", "base_link", scenes.moved_at(stamp_ns - scenes.STAMP))])

    for step in range(-10, 5):
        yield "tf", odometry(scenes.STAMP + step * 20 * scenes.MS)
    told_ns = scenes.STAMP + 80 * scenes.MS
    for number in range(frames):
        stamp_ns = scenes.STAMP + number * PERIOD_NS
        while told_ns < stamp_ns + 60 * scenes.MS:
            told_ns += 20 * scenes.MS
            yield "tf", odometry(told_ns)
        yield "event.camera_info", messages.camera_info(lens, stamp_ns, "event")
        for packet in range(PACKETS):
            yield "event.packets", _packet(words, number * PACKETS + packet, stamp_ns - PERIOD_NS + packet * scenes.MS)
        yield "depth.camera_info", messages.camera_info(lens, stamp_ns - 8 * scenes.MS, "depth")
        yield "depth.image", at(depth, stamp_ns - 8 * scenes.MS)
        yield "rgb.camera_info", messages.camera_info(lens, stamp_ns, "camera")
        yield "rgb.image", at(color, stamp_ns)
        yield "lidar.points", at(sweep, stamp_ns - PERIOD_NS)


def _packet_words(rng: np.random.Generator) -> np.ndarray:
    """TIME_HIGH and TIME_LOW, to be filled in, and 250 rows of 8 events."""
    rows = np.empty((ROWS, 9), np.int64)
    rows[:, 0] = rng.integers(0, 720, ROWS)
    rows[:, 1:] = 0x2000 | rng.integers(0, 1280, (ROWS, 8)) | rng.integers(0, 2, (ROWS, 8)) << 11
    return np.concatenate([[0, 0], rows.reshape(-1)]).astype("<u2")


def _packet(words: np.ndarray, seq: int, stamp_ns: int) -> Any:  # noqa: ANN401 - a bag's message
    time_us = 1_000_000 + seq * 1000
    words = words.copy()
    words[:2] = 0x8000 | (time_us >> 12 & 0xFFF), 0x6000 | (time_us & 0xFFF)
    return messages.event_packet(words.tobytes(), width=1280, height=720, seq=seq, stamp_ns=stamp_ns, frame_id="event")

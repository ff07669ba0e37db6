"""The depth camera and the LiDAR: what they report of what their infrared light meets.

LiDAR: the light that comes back falls with the square of the range and, in fog and rain, by Beer and Lambert's law on the
way there and back; it is held against a noisy threshold. Droplets near the sensor give returns of their own, and the
strongest return is reported. Depth (active stereo): noise that grows with the square of depth, holes where the projected
pattern is too weak (dark, slanting, shining, far, or outshone by the sun), beside edges of nearer things, and false near
values in fog.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from gemini_core.simulation.classes import GROUND, LANE_MARKING, ROAD, SIDEWALK
from gemini_core.simulation.clip import Failure
from gemini_core.simulation.conditions import Surroundings
from gemini_core.simulation.mesh import I32
from gemini_core.simulation.renderer import Hits, Renderer
from gemini_core.simulation.rig import CameraMount, LidarMount
from gemini_core.simulation.scene import poses
from gemini_core.types import F32, F64, U8, U16

_GROUNDS = (ROAD, LANE_MARKING, SIDEWALK, GROUND)
DEPTH_MAX_M = 20.0
DEPTH_MIN_M = 0.25
STEREO_ERROR = 0.0009
"""Deviation of depth, in metres per metre squared (0.07 px, a baseline of 9 cm and 430 px of focal length at 640 x 480)."""
PATTERN_REACH_M = 14.0
"""How far the projected pattern is seen on a white wall in the dark half of the time."""
LIDAR_NOISE_M = 0.015
JITTER_RAD, JITTER_M = 0.014, 0.03
"""Of the failure "lidar_jitter": deviations of the LiDAR's attitude and place while it turns."""

POINT_TYPE = np.dtype(
    {
        "names": ["x", "y", "z", "intensity", "ring", "time"],
        "formats": ["<f4", "<f4", "<f4", "<f4", "<u2", "<f4"],
        "offsets": [0, 4, 8, 12, 16, 18],
        "itemsize": 22,
    }
)
"""A point as Velodyne's driver lays it out; time in seconds since the sweep's stamp."""


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """One turn of the LiDAR.

    ``points`` (N,) of POINT_TYPE in the order of firing, each in the LiDAR's frame at its own time; ``label`` (N,) their
    classes and ``actor`` (N,) their actors (-1: none); 255 and -1 for returns of fog and rain.
    """

    points: np.ndarray[tuple[int], np.dtype[np.void]]
    label: U8
    actor: I32


# --------------------------------------------------------------------------------------------------------------------
# Depth


def measure_depth(hits: Hits, mount: CameraMount, air: Surroundings, rng: np.random.Generator) -> U16:
    """The 16UC1 image (H, W) of what the camera's rays meet; 0 is no reading."""
    shape = (mount.camera.height, mount.camera.width)
    true_m = hits.distance_m.reshape(shape)
    z = np.where(np.isfinite(true_m), true_m, 0.0).astype(np.float32)
    # Noise of matching is that of patches, so it is smooth over a pixel or two.
    matching = cv2.GaussianBlur(rng.standard_normal(shape, dtype=np.float32), (0, 0), 0.7) * np.float32(2.2)
    measured = z + matching * (np.float32(0.001) + np.float32(STEREO_ERROR) * z * z)
    chance = _patchy(shape, rng)
    signal = (hits.reflectance * (0.25 + 0.75 * hits.cosine) * (1.0 - 0.85 * hits.gloss)).reshape(shape)
    signal *= np.exp(-2.0 * air.fog_per_m * z)
    # The pattern against the sun: what it takes to be seen grows with the light it has to stand out against.
    needed = (np.maximum(z, 0.3) / PATTERN_REACH_M) ** 2 * (0.55 + 3.0 * air.infrared_sun)
    lost = chance > np.float32(1.06) * signal / (signal + np.float32(0.25) * needed)
    lost |= (hits.gloss.reshape(shape) > 0.5) & (chance > 0.25)  # noqa: PLR2004 - glass shows another place, or none
    near = cv2.erode(np.where(z > 0, z, 1e3).astype(np.float32), np.ones((3, 3), np.uint8))
    lost |= (z - near > 0.06 * near + 0.05) & (chance > 0.3)  # noqa: PLR2004 - hidden from one of the two eyes
    valid = (z > DEPTH_MIN_M) & (z <= DEPTH_MAX_M) & (measured <= DEPTH_MAX_M) & ~lost
    if air.backscatter:
        valid, measured = _droplets_in_depth(valid, measured, true_m, air, rng)
    return np.where(valid, np.round(np.maximum(measured, 0) * 1000.0), 0).astype(np.uint16)


def _patchy(shape: tuple[int, int], rng: np.random.Generator) -> F32:
    """Numbers (H, W) between 0 and 1, evenly spread, like those of their neighbours: holes come in patches."""
    smooth = cv2.GaussianBlur(rng.standard_normal(shape, dtype=np.float32), (0, 0), 1.3)
    normal = (0.5 * rng.standard_normal(shape, dtype=np.float32) + np.float32(0.866 * 4.6) * smooth).astype(np.float32)
    spread: F32 = np.float32(1.0) / (np.float32(1.0) + np.exp(np.float32(-1.702) * normal))  # the normal distribution, nearly
    return spread


def _droplets_in_depth(
    valid: np.ndarray[tuple[int, int], np.dtype[np.bool_]],
    measured: F32,
    true_m: F32,
    air: Surroundings,
    rng: np.random.Generator,
) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.bool_]], F32]:
    """Some pixels match the light that droplets throw back, in patches, where nothing near outshines it."""
    shape = valid.shape
    coarse = (max(shape[0] // 4, 1), max(shape[1] // 4, 1))
    range_m = np.float32(0.6) + cv2.resize(rng.exponential(1.2, coarse).astype(np.float32), shape[::-1])
    false = (_patchy(shape, rng) < 0.35 * air.backscatter) & (range_m < true_m) & ~valid
    return valid | false, np.where(false, range_m, measured)


# --------------------------------------------------------------------------------------------------------------------
# LiDAR


def sweep(
    renderer: Renderer, mount: LidarMount, start_s: float, turn_s: float, *, failure: Failure, rng: np.random.Generator
) -> Sweep:
    """Measure one turn from the moving robot: each firing has its own time and pose.

    Every thing that moves stands still in the turn, where it is when the beam passes its middle.
    """
    beams, share = len(mount.elevations_rad), np.arange(mount.columns) / mount.columns
    world_from_lidar = _poses_between(renderer, start_s, turn_s, mount.columns) @ mount.base_from_lidar  # (columns, 4, 4)
    if failure == "lidar_jitter":
        world_from_lidar = world_from_lidar @ _jitter(mount.columns, rng)
    renderer.set_time(_passing_times(renderer, mount, start_s, turn_s), renderer.scene.ego(start_s), around=True)
    azimuth = mount.cut_rad - 2 * np.pi * share
    elevation = mount.elevations_rad
    local = np.stack(
        [
            np.cos(azimuth)[:, None] * np.cos(elevation),
            np.sin(azimuth)[:, None] * np.cos(elevation),
            np.broadcast_to(np.sin(elevation), (mount.columns, beams)),
        ],
        axis=-1,
    ).astype(np.float32)  # (columns, beams, 3)
    origins = np.repeat(world_from_lidar[:, :3, 3].astype(np.float32), beams, axis=0)
    directions = (local @ world_from_lidar[:, :3, :3].astype(np.float32).transpose(0, 2, 1)).reshape(-1, 3)
    hits = renderer.beams(origins, np.ascontiguousarray(directions))
    measured, intensity, label, actor = _returns(hits, mount, renderer.air, rng)
    kept = np.flatnonzero(measured > 0)
    points = np.zeros(len(kept), POINT_TYPE)
    points["x"], points["y"], points["z"] = (local.reshape(-1, 3)[kept] * measured[kept, None]).T
    points["intensity"] = np.floor(intensity[kept] * 255.0)
    points["ring"] = kept % beams
    points["time"] = (kept // beams) * (turn_s / mount.columns)
    return Sweep(points, label[kept], actor[kept])


def _poses_between(renderer: Renderer, start_s: float, turn_s: float, columns: int) -> F64:
    """World-from-base (columns, 4, 4) in a turn: matrices between 33 known ones, which are some 3 ms apart."""
    known = poses(renderer.scene.ego, start_s + np.linspace(0.0, turn_s, 33)).reshape(33, 16)
    at = np.arange(columns) * (32 / columns)
    index = at.astype(int)
    share = (at - index)[:, None]
    between: F64 = ((1 - share) * known[index] + share * known[index + 1]).reshape(columns, 4, 4)
    return between


def _returns(hits: Hits, mount: LidarMount, air: Surroundings, rng: np.random.Generator) -> tuple[F32, F32, U8, I32]:
    """Range (N,), 0 where nothing comes back, intensity, class and actor."""
    count = len(hits.distance_m)
    there = np.isfinite(hits.distance_m)
    true_m = np.where(there, hits.distance_m, mount.max_range_m).astype(np.float32)
    strength = hits.reflectance * (1.0 - 0.9 * hits.gloss) * (0.3 + 0.7 * hits.cosine)
    # Water mirrors the light away and lets it in: little of it comes back from wet ground.
    strength *= there * (1.0 - 0.9 * air.wet * np.isin(hits.label, _GROUNDS))
    clear = np.exp(-2.0 * air.fog_per_m * true_m).astype(np.float32)
    power = strength * clear * (mount.max_range_m / np.maximum(true_m, 0.3)) ** 2
    threshold = 0.08 * rng.standard_exponential(count, dtype=np.float32)
    measured = true_m + np.float32(LIDAR_NOISE_M) * rng.standard_normal(count, dtype=np.float32)
    back = (power > threshold) & (measured > mount.min_range_m) & (measured < mount.max_range_m)
    label, actor, intensity = hits.label.copy(), hits.actor.copy(), np.minimum(strength * clear**0.5, 1.0)
    if air.backscatter:
        # Droplets: where they give a return is spread as their light falls off, and it wins where it is stronger.
        reach = 1.0 / (2.0 * air.fog_per_m + 0.08)
        range_m = mount.min_range_m + (reach * rng.standard_exponential(count)).astype(np.float32)
        speckle = rng.standard_exponential(count).astype(np.float32)
        scattered = 0.012 * speckle * np.exp(-2.0 * air.fog_per_m * range_m) * (mount.max_range_m / range_m) ** 2
        false = (rng.random(count) < air.backscatter) & (range_m < true_m) & ((scattered > power) | ~back)
        false &= range_m < 25.0  # noqa: PLR2004 - metres
        measured, back = np.where(false, range_m, measured), back | false
        label[false], actor[false] = 255, -1
        intensity = np.where(false, 0.03 * speckle, intensity)
    return np.where(back, measured, 0).astype(np.float32), intensity.astype(np.float32), label, actor


def _jitter(columns: int, rng: np.random.Generator) -> F64:
    """Small motions (columns, 4, 4) of a LiDAR that is loose: smooth over some ten firings, unknown to who reads it."""
    knots = rng.standard_normal((6, max(columns // 24, 2)))
    smooth = np.stack([np.interp(np.linspace(0, 1, columns), np.linspace(0, 1, len(knot)), knot) for knot in knots])
    roll, pitch, yaw = JITTER_RAD * smooth[:3]
    motion = np.zeros((columns, 4, 4))
    motion[:] = np.eye(4)
    motion[:, 0, 1], motion[:, 0, 2], motion[:, 1, 2] = -yaw, pitch, -roll
    motion[:, 1, 0], motion[:, 2, 0], motion[:, 2, 1] = yaw, -pitch, roll
    motion[:, :3, 3] = JITTER_M * smooth[3:].T
    return motion


def _passing_times(renderer: Renderer, mount: LidarMount, start_s: float, turn_s: float) -> F64:
    """When in a turn the beam passes each thing that moves (M,), seconds."""
    lidar_from_world = np.linalg.inv(renderer.scene.ego(start_s + turn_s / 2) @ mount.base_from_lidar)
    times = np.empty(len(renderer.movers))
    for m, actor in enumerate(renderer.movers):
        position = lidar_from_world @ actor.way(start_s + turn_s / 2)[:, 3]
        share = ((mount.cut_rad - np.arctan2(position[1], position[0])) / (2 * np.pi)) % 1.0
        times[m] = start_s + share * turn_s
    return times

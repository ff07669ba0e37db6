"""Extrinsic calibration check of a bag: docs/alignment.md is the user's view.

Outlines that depth camera, LiDAR and event camera saw are brought to the reference image by the frame's calibration
(``edges``) and compared with its edges; a rotation that would fit clearly better (``search``) is a warning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gemini_core.alignment.edges import ImageEdges, depth_edges, event_edges, image_edges, lidar_edges
from gemini_core.alignment.events import apparent_motion, at_scene_depth, latest_ns
from gemini_core.alignment.mount import Mounts, read_mounts
from gemini_core.alignment.verdict import AlignmentReport, DepthAgreement, Look, Pair, common_cause, judge
from gemini_core.bag.reader import BagReader
from gemini_core.config.fusion import FusionConfig
from gemini_core.errors import BagError, DataError
from gemini_core.project.projector import Projector
from gemini_core.replay import Progress, Replay
from gemini_core.types import AlignedGrids, Modality, SensorFrame

FRAMES, TOLERANCE_DEG = 12, 0.5

BLUR_DEG = 0.35
"""How far from an image edge its closeness has fallen to 0.6: wide enough for a coarse grid, narrow enough for its peak."""

_MOST_POINTS = 1500  # of a frame and sensor


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """A report, and what its pictures are drawn from: each modality's looks in the order of their stamps."""

    report: AlignmentReport
    looks: Mapping[Modality, Sequence[Look]]


def check_alignment(
    path: str | Path,
    config: FusionConfig,
    frames: int = FRAMES,
    tolerance_deg: float = TOLERANCE_DEG,
    progress: Progress | None = None,
) -> Checked:
    """Check the frames of a bag, ``frames`` of them spread over its length.

    Raises:
        BagError: there is no bag, or nothing of it can be read, or it has no images of the reference camera.
        DataError: no frame has a sensor beside the reference that its calibration can place.
    """
    with BagReader(path) as bag:
        run = Replay(bag, config, progress=progress)
        chosen = _spread(run, frames)
        if not run.closed:
            reasons = "".join(f"; {each}" for each in run.last_refusals())
            msg = f"{path}: expected reference images that can be used, got none{reasons}"
            raise BagError(msg)
        # Reversed, so that the one that stays is the data's, which comes before its camera_info's.
        problems = {entry.role.split(".")[0]: f"{entry.topic}: {entry.problem}" for entry in reversed(run.rig) if entry.problem}
        mounts = read_mounts(bag, config)
    return check_frames(chosen, config, tolerance_deg, path=str(path), mounts=mounts, problems=problems, damage=run.damage)


def check_frames(
    frames: Sequence[SensorFrame],
    config: FusionConfig,
    tolerance_deg: float = TOLERANCE_DEG,
    *,
    path: str = "frames",
    mounts: Mounts | None = None,
    problems: Mapping[str, str] | None = None,
    damage: str = "",
) -> Checked:
    """Check frames with their calibration resolved, in the order of their stamps.

    Args:
        frames: the frames.
        config: the configuration that they were made with.
        tolerance_deg: rotations are a warning from here.
        path: where they are from, for messages.
        mounts: the transforms by their child, to say which one to correct; None: unknown.
        problems: what is wrong with a modality's topics, by modality.
        damage: how their bag ends early.

    Raises:
        DataError: no frame has a sensor beside the reference that its calibration can place.
    """
    projector = Projector(config)
    grids = [projector.project(frame) for frame in frames]
    images = [_image(frame) for frame in frames]
    looks: dict[Modality, list[Look]] = {}
    pairs = []
    for modality in config.modalities[1:]:
        each = [_look(*one, modality, config) for one in zip(frames, images, grids, strict=True)]
        found = [look for look in each if look is not None]
        if found:
            looks[modality] = found
            pair = judge(modality, found, config, tolerance_deg, mounts or {})
            pairs.append(replace(pair, coverage=_coverage(grids, modality)))
        else:
            pairs.append(Pair(modality, "cannot tell", _absence(frames, modality, config, problems or {}), 0))
    if not looks:
        reasons = "; ".join(f"{pair.modality}: {pair.message}" for pair in pairs) or "the rig has only the reference camera"
        msg = f"{path}: expected a sensor that can be placed beside the reference camera, got none ({reasons})"
        raise DataError(msg)
    report = AlignmentReport(path, len(frames), tuple(pairs), _agreement(grids), common_cause(pairs), damage)
    return Checked(report, looks)


# --------------------------------------------------------------------------------------------------------------------
# Frames and edges


def _spread(run: Replay, most: int) -> list[SensorFrame]:
    """Frames with something beside the reference image, spread over the bag, whose length is not known before its end."""
    kept: list[SensorFrame] = []
    last: SensorFrame | None = None
    step, number = 1, 0
    for frame in run.frames():
        last = frame
        if frame.depth is None and frame.lidar is None and frame.event is None:
            continue
        if number % step == 0:
            kept.append(frame)
        number += 1
        if len(kept) >= 2 * most:
            kept, step = kept[::2], 2 * step
    if not kept and last is not None:
        return [last]  # its status says what is missing
    picked = np.unique(np.linspace(0, len(kept) - 1, min(most, len(kept))).round().astype(int))
    return [kept[index] for index in picked]


def _image(frame: SensorFrame) -> ImageEdges | None:
    camera = None if frame.calibration is None else frame.calibration.reference
    return None if camera is None else image_edges(frame.rgb.pixels, camera, BLUR_DEG)


def _look(
    frame: SensorFrame, image: ImageEdges | None, grids: AlignedGrids, modality: Modality, config: FusionConfig
) -> Look | None:
    """Find a sensor's outlines; None where the frame has not all that it takes to place it."""
    known = frame.calibration
    if image is None or known is None:
        return None
    rng = np.random.default_rng(0)
    if modality == "lidar" and frame.lidar is not None and known.reference_from_lidar is not None:
        transform = known.reference_from_lidar
        points = lidar_edges(frame.lidar, transform, known.lidar_motion).thinned(_MOST_POINTS, rng)
        return Look(frame, image, points, frame.lidar.frame_id, transform)
    if modality == "depth" and frame.depth is not None and known.depth is not None and known.reference_from_depth is not None:
        transform = known.reference_from_depth
        points = depth_edges(frame.depth, known.depth, transform).thinned(_MOST_POINTS, rng)
        return Look(frame, image, points, frame.depth.frame_id, transform)
    if modality == "event" and frame.event is not None and known.event is not None and known.reference_from_event is not None:
        transform = known.reference_from_event
        motion = apparent_motion(frame.event, known.event, transform)
        on_plane = event_edges(frame.event, known.event, transform, config.event.plane_m, latest_ns(motion))
        points, placed = at_scene_depth(on_plane.thinned(_MOST_POINTS, rng), grids)
        return Look(frame, image, points, frame.event.frame_id, transform, placed, motion)
    return None


def _coverage(grids: Sequence[AlignedGrids], modality: Modality) -> float:
    return float(np.mean([grid.coverage for each in grids if (grid := each.grid(modality)) is not None]))


def _agreement(grids: Sequence[AlignedGrids]) -> DepthAgreement | None:
    shares = []
    for each in grids:
        depth, lidar = each.grid("depth"), each.grid("lidar")
        if depth is None or lidar is None or depth.depth_m is None or lidar.depth_m is None:
            continue
        both = depth.valid & lidar.valid
        shares.append(np.abs(depth.depth_m[both] - lidar.depth_m[both]) / lidar.depth_m[both])
    share = np.concatenate(shares) if shares else np.empty(0)
    return DepthAgreement(float(np.median(share)), int(share.size)) if share.size else None


def _absence(frames: Sequence[SensorFrame], modality: Modality, config: FusionConfig, problems: Mapping[str, str]) -> str:
    """One sentence on why no frame has a sensor, or why it cannot be placed."""
    if modality == "event" and config.event.alignment == "same_view" and any(frame.event is not None for frame in frames):
        return "event.alignment is 'same_view': the events have the reference camera's lens, and no transform to check"
    if modality in problems:
        return problems[modality]
    if "rgb" in problems:
        return problems["rgb"]
    reasons = Counter(
        status.detail or status.reason.replace("_", " ")
        for frame in frames
        for status in frame.status
        if status.modality == modality and not status.present
    )
    return reasons.most_common(1)[0][0] if reasons else "its calibration is not known"

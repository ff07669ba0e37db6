"""Inspection of a bag: its topics, which of them the rig uses, and how well the sensors fit together in time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gemini_core.bag.reader import BagReader, TopicInfo
from gemini_core.bag.topics import RigEntry, match_rig
from gemini_core.config.fusion import FusionConfig
from gemini_core.decode.sensor_clock import ClockState
from gemini_core.inspection.topics import READ_TYPES, TopicFormat, topic_formats
from gemini_core.replay import Progress, Replay
from gemini_core.tables import Distribution, Finding, Findings, distributions_text, findings_text, table, without_nan
from gemini_core.types import Count

_MOTION: dict[str, str] = {
    "compensated": "brought to where the camera was at its stamp",
    "no_point_times": "sweep without point times, brought there as one piece",
    "no_odometry": "taken as if nothing had moved",
}

_FEW = 0.1
"""Share of the frames that may lack a sensor, as at the start of a recording, or be doubtful."""

_CAUSES = {"no_stamps", "several_frames", "several_sizes", "two_parents"}
"""Doubts that explain what is missing, rather than follow from the same."""

_ROLES: dict[str, tuple[str, ...]] = {
    "depth": ("depth.image", "depth.camera_info", "rgb.camera_info"),
    "event": ("event.packets", "event.camera_info", "rgb.camera_info"),
    "lidar": ("lidar.points", "rgb.camera_info"),
}
"""What frames need to have a modality, the most needed first."""


@dataclass(frozen=True, slots=True)
class Motion:
    """What was done in ``frames`` frames about the motion of one modality; ``detail`` says of the last one why nothing."""

    modality: str
    note: str
    frames: int
    detail: str


@dataclass(frozen=True, slots=True)
class SyncQuality:
    """What decode and synchronize really make of the bag: frames, complete ones, skews in milliseconds, missing, doubtful.

    ``clock`` is how the event sensor's own clock went against its stamps, None where it has none.
    """

    frames: int
    complete: int
    skews: tuple[Distribution, ...]
    missing: tuple[Finding, ...]
    doubts: tuple[Finding, ...]
    motion: tuple[Motion, ...]
    clock: ClockState | None
    refusals: tuple[str, ...]
    counts: tuple[Count, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything that ``gemini-fusion inspect`` says; ``sync`` is None where the bag has no topic of the rig's sensors.

    ``formats`` has the topics of a type that some role reads. ``first_to_do`` is the most important thing that keeps the bag
    from being used well, "" where it is ready. ``notes``: what is odd about the bag and was read all the same.
    """

    path: str
    topics: tuple[TopicInfo, ...]
    rig: tuple[RigEntry, ...]
    formats: tuple[TopicFormat, ...]
    sync: SyncQuality | None
    damage: str
    first_to_do: str
    notes: tuple[str, ...] = ()


def inspect(path: str | Path, config: FusionConfig, progress: Progress | None = None) -> Inspection:
    """Read a bag with the rig of ``config``; the network does not run.

    Raises:
        BagError: there is no bag, or nothing of it can be read.
    """
    with BagReader(path) as bag:
        topics = bag.measured_topics()
        rig = match_rig(topics, config)
        formats = topic_formats(bag, topics, rig, config)
        damage, sync = bag.damage, None
        if any(not entry.problem for entry in rig if entry.role not in ("tf", "tf_static")):
            run = Replay(bag, config, progress=progress, needs_reference=False)
            motion = Findings()
            for frame in run.frames():
                for status in (status for status in frame.status if status.motion):
                    motion.add(status.modality, status.motion, status.detail)
            sync = SyncQuality(
                frames=run.closed,
                complete=run.complete,
                skews=run.skews(),
                missing=run.missing(),
                doubts=run.doubts(),
                motion=tuple(Motion(row.modality, row.reason, row.number, row.detail) for row in motion.rows()),
                clock=run.clock(),
                refusals=run.last_refusals(),
                counts=run.counts(),
            )
            damage = run.damage
        notes = bag.notes
    return Inspection(str(path), topics, rig, formats, sync, damage, _first_to_do(rig, sync, damage), notes)


def _first_to_do(rig: Sequence[RigEntry], sync: SyncQuality | None, damage: str) -> str:
    """The most important of all that is wrong, "" where nothing is: no frames, then what is wrong with them."""
    if damage:
        return damage
    for entry in rig:
        if entry.role == "rgb.image" and entry.problem:
            return f"{entry.role} on {entry.topic}: {entry.problem}"
    if sync is None or not sync.frames:
        return "; ".join(sync.refusals if sync else ()) or "no image of the reference camera could be used"
    return _wrong_with_frames(rig, sync)


def _wrong_with_frames(rig: Sequence[RigEntry], sync: SyncQuality) -> str:
    """What is wrong with more than few frames: a cause, else a sensor that they lack, else what is doubtful or refused."""
    wrong = [row for row in sync.doubts if row.reason != "scaled_camera_info"]  # which is taken care of
    in_order = sorted(wrong, key=lambda row: (-row.number, row.modality != "rgb"))
    doubts = [row for row in in_order if row.number > _FEW * sync.frames]
    for doubt in doubts:
        if doubt.reason in _CAUSES:
            return doubt.detail
    worst = max(sync.missing, key=lambda row: row.number, default=None)
    if worst is not None and worst.number > _FEW * sync.frames:
        return f"{worst.modality} is missing in {worst.number} of {sync.frames} frames: {_why_missing(worst, rig, sync)}"
    if doubts:
        return doubts[0].detail
    refused_messages = sum(count.number for count in sync.counts if ".refused." in count.what)
    return sync.refusals[0] if sync.refusals and refused_messages > _FEW * sync.frames else ""


def _why_missing(row: Finding, rig: Sequence[RigEntry], sync: SyncQuality) -> str:
    """The bag has no such topic, or its messages were refused, or what the frames say."""
    for entry in rig:
        if entry.problem and entry.role in _ROLES.get(row.modality, ()):
            return f"{entry.role} on {entry.topic}: {entry.problem}"
    unread = row.reason in {"never_seen", "no_camera_info"}
    return next((text for text in sync.refusals if unread and _of(text, rig, row.modality)), row.detail)


def _of(refusal: str, rig: Sequence[RigEntry], modality: str) -> bool:
    """Whether the sentence of a refusal is about a topic of a modality, or of the reference's calibration."""
    return any(f"{entry.topic!r}" in refusal for entry in rig if entry.role in _ROLES.get(modality, ()))


def to_json(inspection: Inspection) -> str:
    """The same as one JSON object; what was not measured is null."""
    return json.dumps(without_nan(dataclasses.asdict(inspection)), indent=2)


def to_text(inspection: Inspection) -> str:
    """The same for people."""
    roles = {entry.topic: entry.role for entry in inspection.rig if not entry.problem}
    rows = [
        (topic.name, topic.type, str(topic.count), f"{topic.rate_hz:.2f}" if topic.rate_hz else "-", roles.get(topic.name, "-"))
        for topic in inspection.topics
    ]
    parts = [
        inspection.path,
        *(f"  {note}" for note in inspection.notes),
        table(("topic", "type", "messages", "Hz", "used as"), rows),
    ]
    parts.extend(_formats_text(inspection))
    problems = [(entry.role, entry.topic, entry.problem) for entry in inspection.rig if entry.problem]
    if problems:
        parts.append("Topics of the rig that this bag does not offer:")
        parts.extend(f"  {role} on {topic}: {problem}" for role, topic, problem in problems)
    if any(entry.problem for entry in inspection.rig if entry.role == "rgb.image"):
        parts.append("No frames can be made without the reference camera's images.")
    if inspection.sync is not None:
        parts.append(_sync_text(inspection.sync))
    if inspection.damage:
        parts.append(f"DAMAGED: {inspection.damage}")
    parts.append(f"To do first: {inspection.first_to_do}" if inspection.first_to_do else _ready(inspection.sync))
    return "\n".join(parts)


def _ready(sync: SyncQuality | None) -> str:
    frames = 0 if sync is None else sync.frames
    complete = 0 if sync is None else sync.complete
    return f"Ready: {complete} of {frames} frames have every sensor."


def _formats_text(inspection: Inspection) -> list[str]:
    """What each topic is and what becomes of it, and which topics no role reads."""
    lines = ["What they are, by their first message, and what becomes of them:"] if inspection.formats else []
    for entry in inspection.formats:
        lines.append(f"  {entry.topic}{f' ({entry.role})' if entry.role else ''}")
        lines.append(f"    {entry.format or entry.type}")
        if entry.outcome:
            lines.append(f"    -> {entry.outcome if entry.role else 'not used; ' + entry.outcome}")
        if entry.problem:
            lines.append(f"    -> CANNOT BE READ: {entry.problem}")
    unreadable = [topic for topic in inspection.topics if topic.problem and topic.type not in READ_TYPES]
    lines.extend(f"Not read: {topic.name}: {topic.problem}" for topic in unreadable)
    others = [
        f"{topic.name} ({topic.type})" for topic in inspection.topics if topic.type not in READ_TYPES and not topic.problem
    ]
    if others:
        lines.append(f"Of types that are not read: {', '.join(others)}")
        lines.append(f"  (read are {', '.join(READ_TYPES)})")
    return lines


def _sync_text(sync: SyncQuality) -> str:
    lines = [f"Frames: {sync.frames}, with every sensor: {sync.complete}"]
    lines.extend(f"Decoded: {count.number} events" for count in sync.counts if count.what == "event.packets.events")
    if sync.clock is not None:
        lines.append(
            f"Event camera's clock: stamps are {sync.clock.offset_ns / 1e9:.6f} s ahead of it, drifting by "
            f"{sync.clock.drift_ppm:+g} microseconds a second, late by {sync.clock.jitter_ns / 1e6:.3f} ms on average; "
            f"set {sync.clock.steps} times"
        )
    for row in sync.motion:
        lines.append(f"Motion: {row.modality} in {row.frames} frame(s): {_MOTION[row.note]}")
        if row.detail:
            lines.append(f"  {row.detail}")
    if sync.skews:
        lines.append("Sync skew (size of stamp minus reference stamp):")
        lines.append(distributions_text(sync.skews))
    lines.extend(findings_text("Missing", sync.missing))
    lines.extend(findings_text("Doubtful", sync.doubts))
    lines.extend(f"Refused: {sentence}" for sentence in sync.refusals)
    kinds = (".dropped.", ".refused.", ".times_unknown")
    unused = [count for count in sync.counts if count.number and any(kind in count.what for kind in kinds)]
    lines.extend(f"Not used: {count.number} ({count.what})" for count in unused)
    return "\n".join(lines)

"""Inspection of a bag: its topics, which of them the rig uses, and how well the sensors fit together in time."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from gemini_core.bag.reader import BagReader, TopicInfo
from gemini_core.bag.topics import RigEntry, match_rig
from gemini_core.config.fusion import FusionConfig
from gemini_core.decode.sensor_clock import ClockState
from gemini_core.inspection.topics import READ_TYPES, TopicFormat, topic_formats
from gemini_core.replay import Progress, Replay
from gemini_core.tables import Distribution, Missing, distributions_text, missing_text, table, without_nan
from gemini_core.types import Count, Modality, MotionNote, SensorFrame

_MOTION: dict[MotionNote, str] = {
    "compensated": "brought to where the camera was at its stamp",
    "no_point_times": "sweep without point times, brought there as one piece",
    "no_odometry": "taken as if nothing had moved",
}


@dataclass(frozen=True, slots=True)
class Motion:
    """What was done in ``frames`` frames about the motion of one modality; ``detail`` says of the last one why nothing."""

    modality: Modality
    note: MotionNote
    frames: int
    detail: str


@dataclass(frozen=True, slots=True)
class SyncQuality:
    """What decode and synchronize really make of the bag: frames, complete ones, skews in milliseconds, what is missing.

    ``clock`` is how the event sensor's own clock went against its stamps, None where it has none.
    """

    frames: int
    complete: int
    skews: tuple[Distribution, ...]
    missing: tuple[Missing, ...]
    motion: tuple[Motion, ...]
    clock: ClockState | None
    refusals: tuple[str, ...]
    counts: tuple[Count, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything that ``gemini-fusion inspect`` says; ``sync`` is None where the bag has no topic of the rig's sensors.

    ``formats`` has the topics of a type that some role reads. ``notes``: what is odd about the bag and was read all the same.
    """

    path: str
    topics: tuple[TopicInfo, ...]
    rig: tuple[RigEntry, ...]
    formats: tuple[TopicFormat, ...]
    sync: SyncQuality | None
    damage: str
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
            tally = _MotionTally()
            for frame in run.frames():
                tally.take(frame)
            sync = SyncQuality(
                frames=run.closed,
                complete=run.complete,
                skews=run.skews(),
                missing=run.missing(),
                motion=tally.rows(),
                clock=run.clock(),
                refusals=run.last_refusals(),
                counts=run.counts(),
            )
            damage = run.damage
        notes = bag.notes
    return Inspection(str(path), topics, rig, formats, sync, damage, notes)


class _MotionTally:
    """Counts what frames say of motion."""

    def __init__(self) -> None:
        self._frames: Counter[tuple[Modality, MotionNote]] = Counter()
        self._details: dict[tuple[Modality, MotionNote], str] = {}

    def take(self, frame: SensorFrame) -> None:
        for status in frame.status:
            if status.motion:
                self._frames[status.modality, status.motion] += 1
                self._details[status.modality, status.motion] = status.detail

    def rows(self) -> tuple[Motion, ...]:
        return tuple(Motion(*key, number, self._details[key]) for key, number in sorted(self._frames.items()))


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
    return "\n".join(parts)


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
    lines.extend(missing_text(sync.missing))
    lines.extend(f"Refused: {sentence}" for sentence in sync.refusals)
    kinds = (".dropped.", ".refused.", ".times_unknown")
    unused = [count for count in sync.counts if count.number and any(kind in count.what for kind in kinds)]
    lines.extend(f"Not used: {count.number} ({count.what})" for count in unused)
    return "\n".join(lines)

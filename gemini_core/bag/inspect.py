"""What is in a bag, which of it the rig uses, and how well the sensors fit together in time."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

from gemini_core.bag.reader import BagReader, TopicInfo
from gemini_core.bag.rig import RigEntry, match_rig
from gemini_core.config import FusionConfig
from gemini_core.evaluate.report import Distribution, Missing
from gemini_core.evaluate.text import distributions_text, missing_text, table
from gemini_core.replay import Progress, Replay
from gemini_core.types import Count


@dataclass(frozen=True, slots=True)
class SyncQuality:
    """What decode and synchronize really make of the bag: frames, complete ones, skews in milliseconds, what is missing."""

    frames: int
    complete: int
    skews: tuple[Distribution, ...]
    missing: tuple[Missing, ...]
    refusals: tuple[str, ...]
    counts: tuple[Count, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything that ``gemini-fusion inspect`` says; ``sync`` is None where the bag has no topic of the rig's sensors."""

    path: str
    topics: tuple[TopicInfo, ...]
    rig: tuple[RigEntry, ...]
    sync: SyncQuality | None
    damage: str


def inspect(path: str | Path, config: FusionConfig, progress: Progress | None = None) -> Inspection:
    """Read a bag with the rig of ``config``; the network does not run.

    Raises:
        BagError: there is no bag, or nothing of it can be read.
    """
    with BagReader(path) as bag:
        topics = bag.measured_topics()
        rig = match_rig(topics, config)
        damage, sync = bag.damage, None
        if any(not entry.problem for entry in rig if entry.role not in ("tf", "tf_static")):
            run = Replay(bag, config, progress=progress, needs_reference=False)
            for _frame in run.frames():
                pass
            sync = SyncQuality(run.closed, run.complete, run.skews(), run.missing(), run.last_refusals(), run.counts())
            damage = run.damage
    return Inspection(str(path), topics, rig, sync, damage)


def to_json(inspection: Inspection) -> str:
    """The same as one JSON object; what was not measured is null."""
    return json.dumps(_plain(dataclasses.asdict(inspection)), indent=2)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def to_text(inspection: Inspection) -> str:
    """The same for people."""
    roles = {entry.topic: entry.role for entry in inspection.rig if not entry.problem}
    rows = [
        (topic.name, topic.type, str(topic.count), f"{topic.rate_hz:.2f}" if topic.rate_hz else "-", roles.get(topic.name, "-"))
        for topic in inspection.topics
    ]
    parts = [inspection.path, table(("topic", "type", "messages", "Hz", "used as"), rows)]
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


def _sync_text(sync: SyncQuality) -> str:
    lines = [f"Frames: {sync.frames}, with every sensor: {sync.complete}"]
    lines.extend(f"Decoded: {count.number} events" for count in sync.counts if count.what == "event.packets.events")
    if sync.skews:
        lines.append("Sync skew (size of stamp minus reference stamp):")
        lines.append(distributions_text(sync.skews))
    lines.extend(missing_text(sync.missing))
    lines.extend(f"Refused: {sentence}" for sentence in sync.refusals)
    unused = [count for count in sync.counts if count.number and (".dropped." in count.what or ".refused." in count.what)]
    lines.extend(f"Not used: {count.number} ({count.what})" for count in unused)
    return "\n".join(lines)

"""Topic selection: which topic of a bag is which sensor of the rig, and what is near where one is missing."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from gemini_core.bag.reader import TopicInfo
from gemini_core.config.fusion import ROLE_TYPES, FusionConfig
from gemini_core.decode.advice import advice_for_missing
from gemini_core.decode.intake import READABLE_TYPES
from gemini_core.errors import BagError
from gemini_core.types import Role


@dataclass(frozen=True, slots=True)
class RigEntry:
    """One topic that the rig asks for; ``problem`` is "" where the bag has it, else one sentence.

    ``type`` is the message type that the bag has there, "" where the topic is missing.
    """

    role: Role
    topic: str
    problem: str
    type: str = ""


def match_rig(topics: Sequence[TopicInfo], config: FusionConfig) -> tuple[RigEntry, ...]:
    """Look up every topic of the rig among those of a bag; any type that the role can decode will do.

    A missing /tf is no problem where there is a /tf_static, and the other way round: many rigs have only one of them.
    """
    by_name = {topic.name: topic for topic in topics}
    roles = {role: topic for topic, role in config.roles_by_absolute_topic().items()}
    types = config.types_by_role()
    entries = []
    for role, name in roles.items():
        found = by_name.get(name)
        other_tree = {"tf": roles["tf_static"], "tf_static": roles["tf"]}.get(role)
        if found is None and other_tree in by_name:
            continue
        if found is None:
            advice = advice_for_missing(role, name, {topic.name: topic.type for topic in topics})
            problem = f"not in the bag; {advice or _candidates(name, types[role], topics)}"
        elif found.type not in (readable := _readable_types(role, config)):
            problem = f"expected {' or '.join(readable)}, got {found.type}; {_candidates(name, types[role], topics)}"
        else:
            problem = found.problem
        entries.append(RigEntry(role, name, problem, "" if found is None else found.type))
    return tuple(entries)


def require_reference(entries: Sequence[RigEntry], path: object) -> None:
    """Refuse a bag without the reference camera's images: nothing could come out.

    Raises:
        BagError: the rig's rgb.image is not there; names what is near.
    """
    for entry in entries:
        if entry.role == "rgb.image" and entry.problem:
            msg = f"{path}: expected the reference camera's images on {entry.topic} (topics.rgb.image): {entry.problem}"
            raise BagError(msg)


def _readable_types(role: Role, config: FusionConfig) -> tuple[str, ...]:
    """Clouds of events do not tell the sensor's size, which only a CameraInfo then does."""
    types = READABLE_TYPES[role]
    without_size = role == "event.packets" and config.event.alignment == "same_view"
    return tuple(name for name in types if not (without_size and name == ROLE_TYPES["lidar.points"]))


def _candidates(name: str, type_name: str, topics: Sequence[TopicInfo]) -> str:
    others = [topic for topic in topics if topic.name != name]
    near = difflib.get_close_matches(name, [topic.name for topic in others], n=3, cutoff=0.5)
    same_type = [topic.name for topic in others if topic.type == type_name]
    return f"nearest by name: {', '.join(near) or 'none'}; of type {type_name}: {', '.join(same_type) or 'none'}"

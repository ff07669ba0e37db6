"""Outcome by topic: what the pipeline does with each topic of a bag, as the rig says, or could do with it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gemini_core.bag.messages import Message
from gemini_core.bag.reader import BagReader, TopicInfo
from gemini_core.bag.topics import RigEntry
from gemini_core.config.fusion import COMPRESSED_TYPE, FusionConfig, from_flat
from gemini_core.decode.advice import advice
from gemini_core.decode.compressed import source_encoding
from gemini_core.decode.intake import READABLE_TYPES, Intake
from gemini_core.errors import BagError
from gemini_core.inspection.formats import colour_outcome, depth_outcome, describe, frames_of, tree_of
from gemini_core.project.grid import grid_geometry
from gemini_core.types import MODALITIES, ROLES, CloudSample, DepthSample, ImageSample, Role, Sample

READ_TYPES = tuple(dict.fromkeys(name for names in READABLE_TYPES.values() for name in names))
"""Every message type that some role reads."""

_MOST_TRANSFORMS = 500  # messages of a /tf: every publisher has sent by then
_KEYS: dict[Role, str] = {"tf": "topics.tf.dynamic", "tf_static": "topics.tf.static"}
_TREE: tuple[Role, ...] = ("tf", "tf_static")


@dataclass(frozen=True, slots=True)
class TopicFormat:
    """One topic that some role could read by its type, judged by its first message.

    ``role``: the rig's, "" where it does not use the topic; ``format``: what the messages are; ``outcome``: what the pipeline
    does with them, or which options would have it do something; ``problem``: one sentence why they cannot be read, else "".
    """

    topic: str
    type: str
    role: str
    format: str
    outcome: str
    problem: str = ""


def topic_formats(
    bag: BagReader, topics: Sequence[TopicInfo], rig: Sequence[RigEntry], config: FusionConfig
) -> tuple[TopicFormat, ...]:
    """Look at the first messages of every topic of a type that some role reads."""
    roles = {entry.topic: entry.role for entry in rig if not entry.problem}
    found: list[TopicFormat] = []
    trees: dict[str, set[str]] = {}
    for topic in topics:
        if topic.type not in READ_TYPES or not topic.count:
            continue
        if topic.problem:
            found.append(TopicFormat(topic.name, topic.type, "", "", "", topic.problem))
            continue
        is_tree = topic.type in READABLE_TYPES["tf"]
        is_cloud = topic.type in READABLE_TYPES["lidar.points"]
        messages = list(_first(bag, topic.name, _MOST_TRANSFORMS if is_tree else 2 if is_cloud else 1))
        role = roles.get(topic.name)
        if not messages:
            problem = f"expected {topic.type} in the first message, got one that does not fit the type's definition"
            found.append(TopicFormat(topic.name, topic.type, role or "", "", "", problem))
        elif is_tree:
            frames = frames_of(messages)
            trees[topic.name] = {name for pair in frames for name in pair}
            found.append(TopicFormat(topic.name, topic.type, role or "", tree_of(frames), ""))
        elif role is None:
            found.append(_unused(topic, messages, config))
        else:
            found.append(_used(topic, role, messages, config))
    known = set().union(*(frames for name, frames in trees.items() if name in roles))
    return tuple(
        _with_fixed_frame(entry, trees[entry.topic], known, config) if entry.topic in trees else entry for entry in found
    )


def _first(bag: BagReader, topic: str, most: int) -> Iterator[Message]:
    with contextlib.suppress(BagError):  # what cannot be read is said where all of it is read
        for stored in itertools.islice(bag.messages((topic,)), most):
            yield stored.message


def _decode(role: Role, topic: TopicInfo, messages: Sequence[Message], config: FusionConfig) -> tuple[Sample | None, str]:
    """What a role makes of the first message, or None and the sentence why nothing; others say how often they come."""
    same = {f"{name}.rectified": value for name, value in _rectified(config).items()}
    times = {"lidar.time_field": config.lidar.time_field, "lidar.time_unit": config.lidar.time_unit}
    reading = from_flat({"modalities": MODALITIES, _KEYS.get(role, f"topics.{role}"): topic.name, **same, **times})
    intake = Intake(reading, {role: topic.type})
    for message in messages:
        intake.accept(role, message)
    sample = intake.accept(role, messages[0])
    return sample, "" if sample else "".join(refusal.message for refusal in intake.last_refusals())


# --------------------------------------------------------------------------------------------------------------------
# Topics of the rig


def _used(topic: TopicInfo, role: Role, messages: Sequence[Message], config: FusionConfig) -> TopicFormat:
    sample, problem = _decode(role, topic, messages, config)
    message = messages[0]
    outcome = "" if sample is None else _outcome(role, message, sample, config)
    return TopicFormat(topic.name, topic.type, role, describe(message, topic.type, sample), outcome, problem)


def _outcome(role: Role, message: Message, sample: Sample, config: FusionConfig) -> str:
    if isinstance(sample, ImageSample):
        return _image_outcome(message, sample, config)
    if isinstance(sample, DepthSample):
        return depth_outcome("32FC1" if _encoding(message) == "32FC1" else "16UC1")
    if isinstance(sample, CloudSample):
        motion = "the sweep as one piece, it has no point times" if sample.time_ns is None else "each point by its own time"
        return f"onto the image as {config.lidar.encoding}, {motion}"
    match role:
        case "event.packets":
            window = f"the last {config.event.count:,} events" if config.event.window == "count" else "all events"
            return f"{window} of {config.event.window_ms:g} ms before the image as {config.event.encoding}"
        case "rgb.camera_info" | "depth.camera_info" | "event.camera_info":
            name = role.partition(".")[0]
            return f"lens of {name}: {'P, without distortion (rectified)' if _rectified(config)[name] else 'K and D'}"
    return ""


def _rectified(config: FusionConfig) -> dict[str, bool]:
    return {"rgb": config.rgb.rectified, "depth": config.depth.rectified, "event": config.event.rectified}


def _image_outcome(message: Message, sample: ImageSample, config: FusionConfig) -> str:
    encoding = _encoding(message)
    compressed = hasattr(message, "format")
    if compressed and not encoding.startswith("bayer_"):
        pixels = "unpacked"
    else:
        pixels = f"unpacked, {colour_outcome(encoding)}" if compressed else colour_outcome(encoding)
    rectified = ", rectified" if config.rgb.rectify else ""
    height, width = sample.pixels.shape[:2]
    geometry = grid_geometry(config.grid, width, height)
    part = f"{geometry.crop_width}x{geometry.crop_height} of it"
    return f"{pixels}{rectified}; {part} on {geometry.width}x{geometry.height} of the network"


def _encoding(message: Message) -> str:
    """Encoding of an image, of a compressed one before it was compressed, as it is written where it is known."""
    return source_encoding(str(message.format if hasattr(message, "format") else message.encoding))


# --------------------------------------------------------------------------------------------------------------------
# Other topics


def _unused(topic: TopicInfo, messages: Sequence[Message], config: FusionConfig) -> TopicFormat:
    uses, refusals, message = [], [], messages[0]
    described: Sample | None = None
    for role in _candidates(topic, message):
        sample, problem = _decode(role, topic, messages, config)
        if sample is None:
            refusals.append(problem)
            continue
        described = described or sample
        uses.append(f"could be {role}: {advice(role, topic.name, topic.type)}")
    if uses and topic.type in READABLE_TYPES["rgb.camera_info"]:
        uses = [f"could be the lens of a camera: topics.<rgb, depth or event>.camera_info, set to {topic.name}"]
    problem = "" if uses else "; ".join(refusals)
    return TopicFormat(topic.name, topic.type, "", describe(message, topic.type, described), "; ".join(uses), problem)


def _candidates(topic: TopicInfo, message: Message) -> list[Role]:
    """Roles that may read the topic; any picture could show events, so only one whose name says so is tried for that."""
    roles = [role for role in ROLES if topic.type in READABLE_TYPES[role] and role not in _TREE]
    if topic.type == COMPRESSED_TYPE:
        is_depth = "compresseddepth" in message.format.lower() or _encoding(message) in {"16UC1", "32FC1"}
        return [role for role in roles if (role == "depth.image") == is_depth]
    if "rgb.image" in roles and not any(word in topic.name.lower() for word in ("event", "dvs")):
        roles.remove("event.packets")
    return roles


# --------------------------------------------------------------------------------------------------------------------
# The transform tree


def _with_fixed_frame(entry: TopicFormat, own_frames: set[str], known: set[str], config: FusionConfig) -> TopicFormat:
    """Say whether the trees of the rig, together, can undo motion."""
    fixed = config.motion.fixed_frame.lstrip("/")
    if not entry.role:
        outcome = f"could be transforms of the rig: {' or '.join(_KEYS.values())}, set to {entry.topic}"
    elif not fixed:
        outcome = "where the sensors are; motion between stamps is not looked at (motion.fixed_frame is empty)"
    elif fixed in known:
        moved = f", and how they moved in {fixed!r} (motion.fixed_frame)" if fixed in own_frames else ""
        outcome = f"where the sensors are{moved}"
    else:
        outcome = f"where the sensors are; there is no frame {fixed!r} (motion.fixed_frame): taken as if nothing moved"
    return TopicFormat(entry.topic, entry.type, entry.role, entry.format, outcome)

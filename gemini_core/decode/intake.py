"""The intake: decodes a message, by its role, to a sample, or counts it as refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gemini_core.config.fusion import COMPRESSED_TYPE, ROLE_TYPES, FusionConfig
from gemini_core.config.sections import EVENT_TYPES
from gemini_core.decode.camera_info import decode_camera_info
from gemini_core.decode.cloud import CloudDecoder
from gemini_core.decode.compressed import decode_compressed_color, decode_compressed_depth
from gemini_core.decode.events import EventDecoder
from gemini_core.decode.image import decode_color, decode_depth
from gemini_core.decode.message import Message, message_stamp_ns
from gemini_core.decode.sensor_clock import ClockState
from gemini_core.decode.transforms import decode_transforms
from gemini_core.errors import DecodeError
from gemini_core.types import CloudSample, Count, DepthSample, ImageSample, Role, Sample

READABLE_TYPES: dict[Role, tuple[str, ...]] = {
    **{role: (name,) for role, name in ROLE_TYPES.items()},
    "rgb.image": (ROLE_TYPES["rgb.image"], COMPRESSED_TYPE),
    "depth.image": (ROLE_TYPES["depth.image"], COMPRESSED_TYPE),
    "event.packets": tuple(name.replace("/", "/msg/") for name in EVENT_TYPES),
}
"""The message types that each role can decode, whichever of them the configuration expects."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The latest message that a role refused for one reason, and how many it was refused for it.

    ``reason`` is the DecodeError's key, ``message`` its sentence; ``stamp_ns`` None where the message has no header.
    """

    role: Role
    topic: str
    reason: str
    message: str
    stamp_ns: int | None
    count: int


class Intake:
    """Decodes the messages of all configured roles; knows their topics for its sentences.

    ``accept`` raises nothing for a message that a ROS client or a bag reader made: what cannot be read is counted, and the
    latest refusal of every kind is kept for people. Images are decoded by what they are, raw or compressed; events as what
    ``types`` says of the role (such as the type that a bag has), else as the configuration does.
    """

    def __init__(self, config: FusionConfig, types: Mapping[Role, str] | None = None) -> None:
        self._topics = config.topics_by_role()
        event_type = (types or {}).get("event.packets", "") or config.topics.event.type
        self._events = EventDecoder(event_type.replace("/msg/", "/"))
        self._clouds = CloudDecoder(config.lidar.time_field, config.lidar.time_unit)
        self._decoders: dict[Role, Callable[[Any, str], Sample]] = {
            "rgb.image": _decode_any_color,
            "rgb.camera_info": lambda message, topic: decode_camera_info(message, "rgb", topic, rectified=config.rgb.rectified),
            "depth.image": _decode_any_depth,
            "depth.camera_info": lambda message, topic: decode_camera_info(
                message, "depth", topic, rectified=config.depth.rectified
            ),
            "lidar.points": self._clouds.decode,
            "event.packets": self._events.decode,
            "event.camera_info": lambda message, topic: decode_camera_info(
                message, "event", topic, rectified=config.event.rectified
            ),
            "tf": lambda message, topic: decode_transforms(message, False, topic),
            "tf_static": lambda message, topic: decode_transforms(message, True, topic),
        }
        self._counts: Counter[str] = Counter()
        self._refusals: dict[tuple[Role, str], Refusal] = {}

    def accept(self, role: Role, message: Message) -> Sample | None:
        """Decode one message; None where it was refused, holds nothing (no transforms), or its role is not configured."""
        topic = self._topics.get(role)
        if topic is None:
            self._counts[f"{role}.not_configured"] += 1
            return None
        try:
            sample = self._decoders[role](message, topic)
        except DecodeError as error:
            self._refuse(role, topic, message, error)
            return None
        self._counts[f"{role}.accepted"] += 1
        if isinstance(sample, CloudSample):
            self._count_cloud(role, sample, message.height * message.width)
        return sample

    def counts(self) -> tuple[Count, ...]:
        """What came in and what was refused since the start, by role, with the event decoder's own counts."""
        own = tuple(Count(what, number) for what, number in sorted(self._counts.items()))
        return own + self._events.counts()

    def last_refusals(self) -> tuple[Refusal, ...]:
        """The latest refusal of every role and reason."""
        return tuple(self._refusals.values())

    def clocks(self) -> tuple[tuple[Role, ClockState], ...]:
        """How the clocks of sensors that have their own go against the ROS clock; none before their first data."""
        state = self._events.clock()
        return () if state is None else (("event.packets", state),)

    def reset(self) -> None:
        """Start anew after the clock jumped back; counts and refusals stay."""
        self._events.reset()
        self._clouds.reset()

    def _count_cloud(self, role: Role, sample: CloudSample, points: int) -> None:
        if sample.time_ns is None:
            self._counts[f"{role}.without_point_times"] += 1
        if sample.times_unknown:
            self._counts[f"{role}.times_unknown"] += sample.times_unknown
        if left_out := points - sample.points.shape[1]:
            self._counts[f"{role}.points_without_position"] += left_out

    def _refuse(self, role: Role, topic: str, message: Message, error: DecodeError) -> None:
        if error.reason == "no_transforms":  # publishers without moving joints send such; nothing is wrong
            self._counts[f"{role}.empty"] += 1
            return
        self._counts[f"{role}.refused.{error.reason}"] += 1
        self._refusals[role, error.reason] = Refusal(
            role=role,
            topic=topic,
            reason=error.reason,
            message=str(error),
            stamp_ns=message_stamp_ns(message),
            count=self._counts[f"{role}.refused.{error.reason}"],
        )


def _decode_any_color(message: Message, topic: str) -> ImageSample:
    return decode_compressed_color(message, topic) if _is_compressed(message) else decode_color(message, topic)


def _decode_any_depth(message: Message, topic: str) -> DepthSample:
    return decode_compressed_depth(message, topic) if _is_compressed(message) else decode_depth(message, topic)


def _is_compressed(message: object) -> bool:
    return hasattr(message, "format")

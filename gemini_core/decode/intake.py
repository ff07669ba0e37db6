"""The door of the core: a message in its role becomes a sample, or is counted as refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gemini_core.config import FusionConfig
from gemini_core.decode.camera_info import decode_camera_info
from gemini_core.decode.cloud import decode_cloud
from gemini_core.decode.events import Evt3Decoder
from gemini_core.decode.image import decode_color, decode_depth
from gemini_core.decode.message import stamp_ns
from gemini_core.decode.transforms import decode_transforms
from gemini_core.errors import DecodeError
from gemini_core.types import CloudSample, Count, Role, Sample


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
    latest refusal of every kind is kept for people.
    """

    def __init__(self, config: FusionConfig) -> None:
        self._topics = config.topics_by_role()
        self._events = Evt3Decoder()
        self._decoders: dict[Role, Callable[[Any, str], Sample]] = {
            "rgb.image": decode_color,
            "rgb.camera_info": lambda message, topic: decode_camera_info(message, "rgb", topic),
            "depth.image": decode_depth,
            "depth.camera_info": lambda message, topic: decode_camera_info(message, "depth", topic),
            "lidar.points": decode_cloud,
            "event.packets": self._events.decode,
            "event.camera_info": lambda message, topic: decode_camera_info(message, "event", topic),
            "tf": lambda message, topic: decode_transforms(message, False, topic),
            "tf_static": lambda message, topic: decode_transforms(message, True, topic),
        }
        self._counts: Counter[str] = Counter()
        self._refusals: dict[tuple[Role, str], Refusal] = {}

    def accept(self, role: Role, message: Any) -> Sample | None:  # noqa: ANN401 - a message of any client library
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

    def reset(self) -> None:
        """Start anew after the clock jumped back; counts and refusals stay."""
        self._events.reset()

    def _count_cloud(self, role: Role, sample: CloudSample, points: int) -> None:
        if sample.time_ns is None:
            self._counts[f"{role}.without_point_times"] += 1
        if left_out := points - sample.points.shape[1]:
            self._counts[f"{role}.points_without_position"] += left_out

    def _refuse(self, role: Role, topic: str, message: Any, error: DecodeError) -> None:  # noqa: ANN401 - as above
        if error.reason == "no_transforms":  # publishers without moving joints send such; nothing is wrong
            self._counts[f"{role}.empty"] += 1
            return
        self._counts[f"{role}.refused.{error.reason}"] += 1
        self._refusals[role, error.reason] = Refusal(
            role=role,
            topic=topic,
            reason=error.reason,
            message=str(error),
            stamp_ns=stamp_ns(message.header) if hasattr(message, "header") else None,
            count=self._counts[f"{role}.refused.{error.reason}"],
        )

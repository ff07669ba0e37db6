"""Advice where a topic carries another message type or transport than configured: which options to set."""

from __future__ import annotations

from collections.abc import Mapping

from gemini_core.config.fusion import COMPRESSED_TYPE
from gemini_core.decode.intake import READABLE_TYPES
from gemini_core.types import Role

_TRANSPORTS: dict[Role, tuple[str, ...]] = {"rgb.image": ("compressed",), "depth.image": ("compressed", "compressedDepth")}


def advice(role: Role, topic: str, type_name: str) -> str:
    """Say which options make ``role`` read ``topic``, which carries ``type_name``; "" where the role cannot decode that."""
    if type_name not in READABLE_TYPES[role]:
        return ""
    if role == "event.packets":
        return f"to read it, set topics.event.packets to {topic} and topics.event.type to {type_name.replace('/msg/', '/')}"
    if role not in _TRANSPORTS:
        return f"to read it, set topics.{role} to {topic}"
    base, transport = _split(role, topic)
    if type_name != COMPRESSED_TYPE:
        return f"to read it, set topics.{role} to {topic} and {_transport_option(role)} to raw"
    if transport:
        return f"to read it, set topics.{role} to {base} and {_transport_option(role)} to {transport}"
    suffix = _TRANSPORTS[role][0]
    return f"to read it, set {_transport_option(role)} to {suffix} and remap the topic that is then asked for to {topic}"


def advice_for_missing(role: Role, topic: str, types: Mapping[str, str]) -> str:
    """The same where nothing is on ``topic``: its images may be there by another transport. ``types`` are by topic."""
    if role not in _TRANSPORTS:
        return ""
    base, _ = _split(role, topic)
    for other in (base, *(f"{base}/{transport}" for transport in _TRANSPORTS[role])):
        if other != topic and (sentence := advice(role, other, types.get(other, ""))):
            return f"there is {other}; {sentence}"
    return ""


def _split(role: Role, topic: str) -> tuple[str, str]:
    """The base topic and the transport, "" for none."""
    for transport in _TRANSPORTS[role]:
        if topic.endswith(f"/{transport}"):
            return topic.removesuffix(f"/{transport}"), transport
    return topic, ""


def _transport_option(role: Role) -> str:
    return f"topics.{role.partition('.')[0]}.transport"

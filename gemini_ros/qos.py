"""Quality of service of every topic, and words for two profiles that do not fit together.

All of it can be overridden at start by ``qos_overrides.<topic>.<subscription|publisher>.<policy>`` parameters.
"""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSCompatibility,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

from gemini_core.types import Role

_IMAGE_TYPE = "sensor_msgs/msg/Image"

_IMAGE_DEPTH = 10
_EVENT_DEPTH = 500  # event cameras send hundreds of packets a second; a depth of 10 would lose some at each long callback
_TRANSFORM_DEPTH = 100  # as tf2_ros
_OUTPUT_DEPTH = 10
_MAX_DEPTH = 2**31 - 1  # DDS has 32 bits for it
_POLICIES = {"history": HistoryPolicy, "reliability": ReliabilityPolicy, "durability": DurabilityPolicy}


def input_qos(role: Role, type_name: str) -> QoSProfile:
    """Sensor data is best effort and keeps the newest; transforms are as tf2_ros subscribes to them."""
    if role == "tf":
        return _profile(_TRANSFORM_DEPTH, ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
    if role == "tf_static":
        return _profile(_TRANSFORM_DEPTH, ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)
    depth = _EVENT_DEPTH if role == "event.packets" and type_name != _IMAGE_TYPE else _IMAGE_DEPTH
    return _profile(depth, ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE)


def output_qos() -> QoSProfile:
    """Results are reliable and volatile, what ROS calls the default."""
    return _profile(_OUTPUT_DEPTH, ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)


def latched_qos() -> QoSProfile:
    """One message that whoever subscribes later still gets."""
    return _profile(1, ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)


def overridable() -> QoSOverridingOptions:
    """Which policies a user may override, for every topic."""
    return QoSOverridingOptions(
        [QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY]
    )


def override_problem(name: str, value: object) -> str:
    """What is wrong with the value of one ``qos_overrides.*`` parameter, in one sentence; "" for nothing."""
    policy = name.rpartition(".")[2]
    if policy == "depth":
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MAX_DEPTH:
            return ""
        return f"{name}: expected an integer from 1 to {_MAX_DEPTH}, got {value!r}"
    if policy not in _POLICIES:
        return ""
    known = [member.name.lower() for member in _POLICIES[policy] if member.name != "UNKNOWN"]
    if isinstance(value, str) and value.lower() in known:
        return ""
    return f"{name}: expected one of {', '.join(known)}, got {value!r}"


def _profile(depth: int, reliability: ReliabilityPolicy, durability: DurabilityPolicy) -> QoSProfile:
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability)


def describe(profile: QoSProfile) -> str:
    """The policies that decide whether two sides match, in the words of the command-line tools."""
    return f"{profile.reliability.name.lower()}, {profile.durability.name.lower()}"


def mismatched_publishers(node: Node, topic: str, profile: QoSProfile) -> tuple[str, ...]:
    """One sentence for each publisher on ``topic`` whose messages a subscription with ``profile`` never gets."""
    return tuple(
        f"QoS incompatible on {topic}: {endpoint.node_name} offers {describe(endpoint.qos_profile)}, "
        f"this node asks for {describe(profile)}"
        for endpoint in node.get_publishers_info_by_topic(topic)
        if qos_check_compatible(endpoint.qos_profile, profile)[0] == QoSCompatibility.ERROR
    )


def mismatched_subscriptions(node: Node, topic: str, profile: QoSProfile) -> tuple[str, ...]:
    """One sentence for each subscription to ``topic`` that never gets what a publisher with ``profile`` sends."""
    return tuple(
        f"QoS incompatible on {topic}: {endpoint.node_name} asks for {describe(endpoint.qos_profile)}, "
        f"this node offers {describe(profile)}"
        for endpoint in node.get_subscriptions_info_by_topic(topic)
        if qos_check_compatible(_offered(profile, endpoint.qos_profile), endpoint.qos_profile)[0] == QoSCompatibility.ERROR
    )


def _offered(profile: QoSProfile, asked: QoSProfile) -> QoSProfile:
    """Our reliability and durability; rclpy takes an unset deadline or lease on our side for one that does not fit."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=profile.reliability,
        durability=profile.durability,
        deadline=asked.deadline,
        liveliness=asked.liveliness,
        liveliness_lease_duration=asked.liveliness_lease_duration,
    )

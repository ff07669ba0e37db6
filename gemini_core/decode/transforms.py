"""tf2_msgs/TFMessage to transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from scipy.spatial.transform import Rotation

from gemini_core.decode.message import Header, require_fields, stamp_ns
from gemini_core.errors import DecodeError
from gemini_core.types import F64, StampedTransform, TransformSample

_SMALLEST_NORM = 1e-6  # of a quaternion that still says which way


class Vector3(Protocol):
    """The fields of geometry_msgs/Vector3."""

    x: float
    y: float
    z: float


class Quaternion(Vector3, Protocol):
    """The fields of geometry_msgs/Quaternion."""

    w: float


class Transform(Protocol):
    """The fields of geometry_msgs/Transform."""

    translation: Vector3
    rotation: Quaternion


class TransformStamped(Protocol):
    """The fields of geometry_msgs/TransformStamped."""

    header: Header
    child_frame_id: str
    transform: Transform


class TFMessage(Protocol):
    """The fields of tf2_msgs/TFMessage."""

    transforms: Sequence[TransformStamped]


def decode_transforms(message: TFMessage, static: bool, topic: str) -> TransformSample:
    """Read the transforms of a message; quaternions are normalised.

    Raises:
        DecodeError: wrong type, no transforms, a frame without a name, a translation or quaternion that is not finite, or a
            quaternion of zero. One bad transform refuses the message: its publisher is broken.
    """
    require_fields(message, ("transforms",), "tf2_msgs/TFMessage", topic)
    transforms = tuple(_transform(transform, topic) for transform in message.transforms)
    if not transforms:
        msg = f"expected at least one transform in the message on topic {topic!r}, got none"
        raise DecodeError(reason="no_transforms", message=msg)
    return TransformSample(max(transform.stamp_ns for transform in transforms), static, transforms)


def _transform(message: TransformStamped, topic: str) -> StampedTransform:
    parent, child = message.header.frame_id, message.child_frame_id
    if not parent.strip("/") or not child.strip("/"):
        msg = f"expected the names of both frames in a transform on topic {topic!r}, got {child!r} in {parent!r}"
        raise DecodeError(reason="no_frame_id", message=msg)
    where = f"in the transform from {child!r} to {parent!r} on topic {topic!r}"
    translation, rotation = message.transform.translation, message.transform.rotation
    moved = np.array([translation.x, translation.y, translation.z], np.float64)
    turned = np.array([rotation.x, rotation.y, rotation.z, rotation.w], np.float64)
    if not (np.isfinite(moved).all() and np.isfinite(turned).all()):
        msg = f"expected finite numbers {where}, got translation {moved.tolist()} and quaternion {turned.tolist()}"
        raise DecodeError(reason="not_finite", message=msg)
    # Scaled by the largest part first, so that the norm cannot overflow.
    largest = float(np.abs(turned).max())
    if largest < _SMALLEST_NORM:
        msg = f"expected a unit quaternion {where}, got {turned.tolist()}"
        raise DecodeError(reason="zero_quaternion", message=msg)
    parent_from_child: F64 = np.eye(4)
    parent_from_child[:3, :3] = Rotation.from_quat(turned / largest).as_matrix()
    parent_from_child[:3, 3] = moved
    return StampedTransform(stamp_ns(message.header), parent, child, parent_from_child)

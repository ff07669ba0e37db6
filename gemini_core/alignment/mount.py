"""Correction of extrinsics: which transform of the tree, and to what, when a sensor should be turned about its own place."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from gemini_core.bag.reader import BagReader
from gemini_core.config.fusion import FusionConfig
from gemini_core.decode.transforms import decode_transforms
from gemini_core.errors import BagError, DecodeError
from gemini_core.rig.geometry import invert_transform
from gemini_core.rig.transform_tree import frame_name
from gemini_core.types import F64, StampedTransform


@dataclass(frozen=True, slots=True, eq=False)
class Mount:
    """The first transform known of a child; ``static`` where it was on /tf_static."""

    transform: StampedTransform
    static: bool


Mounts = Mapping[str, Mount]
"""By the child's name."""


@dataclass(frozen=True, slots=True)
class Correction:
    """A transform, parent from child, as it was and as it should be: metres, and a unit quaternion x y z w."""

    parent: str
    child: str
    static: bool
    translation_m: tuple[float, float, float]
    quaternion_xyzw: tuple[float, float, float, float]
    new_translation_m: tuple[float, float, float]
    new_quaternion_xyzw: tuple[float, float, float, float]


def read_mounts(bag: BagReader, config: FusionConfig) -> dict[str, Mount]:
    """Read the first transform of each child out of a bag, fixed ones before moving ones; as far as the bag can be read."""
    topics = {topic: role == "tf_static" for topic, role in config.roles_by_absolute_topic().items() if role.startswith("tf")}
    present = [topic.name for topic in bag.topics() if topic.name in topics]
    mounts: dict[str, Mount] = {}
    for name in sorted(present, key=lambda topic: not topics[topic]):
        with suppress(BagError):  # the replay has said so
            for stored in bag.messages((name,)):
                _learn(mounts, stored.message, static=topics[name], topic=name)
    return mounts


def _learn(mounts: dict[str, Mount], message: object, *, static: bool, topic: str) -> None:
    try:
        sample = decode_transforms(message, static, topic)  # type: ignore[arg-type]  # it says so when it is something else
    except DecodeError:
        return  # the replay has counted it
    for transform in sample.transforms:
        mounts.setdefault(frame_name(transform.child), Mount(transform, static))


def in_sensor_frame(rotation_deg: F64, reference_from_sensor: F64) -> F64:
    """Give a rotation vector about the reference's axes (3,) about those of the sensor's own frame."""
    turned: F64 = reference_from_sensor[:3, :3].T @ rotation_deg
    return turned


def correct(mounts: Mounts, sensor: str, reference: str, sensor_rotation_deg: F64) -> Correction | None:
    """Find the transform next to a sensor on its way to the reference, and turn the sensor there.

    Args:
        mounts: the transforms known.
        sensor: the sensor's frame.
        reference: the reference's frame.
        sensor_rotation_deg: (3,) the rotation vector in the sensor's own frame.

    Returns:
        The transform to the sensor's parent; where the reference hangs below the sensor, that from the next frame on the way
        down. None where neither is known.
    """
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec(sensor_rotation_deg, degrees=True).as_matrix()
    sensor, frame = frame_name(sensor), frame_name(reference)
    passed: set[str] = set()
    while frame in mounts and frame not in passed:
        passed.add(frame)
        mount = mounts[frame]
        frame = frame_name(mount.transform.parent)
        if frame == sensor:
            return _correction(mount, invert_transform(turn) @ mount.transform.parent_from_child)
    if sensor in mounts:
        return _correction(mounts[sensor], mounts[sensor].transform.parent_from_child @ turn)
    return None


def _correction(mount: Mount, new: F64) -> Correction:
    old = mount.transform.parent_from_child
    parent, child = frame_name(mount.transform.parent), frame_name(mount.transform.child)
    return Correction(parent, child, mount.static, *_numbers(old), *_numbers(new))


def _numbers(matrix: F64) -> tuple[tuple[float, float, float], tuple[float, float, float, float]]:
    x, y, z = (float(value) for value in matrix[:3, 3])
    a, b, c, d = (float(value) for value in Rotation.from_matrix(matrix[:3, :3]).as_quat(canonical=True))
    return (x, y, z), (a, b, c, d)

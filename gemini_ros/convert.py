"""From the core's types to ROS messages."""

from __future__ import annotations

from array import array

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import (
    BoundingBox3D,
    Detection3D,
    Detection3DArray,
    LabelInfo,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
    VisionClass,
)

from gemini_core.types import U8, UNLABELLED, Perception
from gemini_core.types import Detection3D as Box

_BILLION = 1_000_000_000


def stamp_to_ros(stamp_ns: int) -> Time:
    """Nanoseconds to builtin_interfaces/Time."""
    return Time(sec=stamp_ns // _BILLION, nanosec=stamp_ns % _BILLION)


def header_of(perception: Perception) -> Header:
    """Stamp and frame of the reference image, what every output carries."""
    return Header(stamp=stamp_to_ros(perception.stamp_ns), frame_id=perception.frame_id)


def image_message(header: Header, pixels: U8) -> Image:
    """A (H, W) uint8 array as mono8, a (H, W, 3) one as rgb8.

    The bytes go in as an ``array.array``: rclpy copies that in one piece, a numpy array or a list item by item (a
    thousand times slower).
    """
    height, width = pixels.shape[:2]
    colour = pixels.ndim == 3  # noqa: PLR2004 - (H, W, 3)
    return Image(
        header=header,
        height=height,
        width=width,
        encoding="rgb8" if colour else "mono8",
        step=width * (3 if colour else 1),
        data=array("B", np.ascontiguousarray(pixels).tobytes()),
    )


def label_info(header: Header, class_names: tuple[str, ...]) -> LabelInfo:
    """The name of every value that a mask can have, 255 (undecided) included: consumers look each value up."""
    classes = [VisionClass(class_id=index, class_name=name) for index, name in enumerate(class_names)]
    classes.append(VisionClass(class_id=UNLABELLED, class_name="unlabelled"))
    return LabelInfo(header=header, class_map=classes, threshold=0.0)


def detections_message(header: Header, boxes: tuple[Box, ...]) -> Detection3DArray:
    """Oriented boxes in the frame of ``header``, which every detection repeats."""
    return Detection3DArray(header=header, detections=[_detection(header, box) for box in boxes])


def _detection(header: Header, box: Box) -> Detection3D:
    x, y, z = box.center_m
    qx, qy, qz, qw = box.orientation_xyzw
    pose = Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))
    size_x, size_y, size_z = box.size_m
    hypothesis = ObjectHypothesisWithPose(hypothesis=ObjectHypothesis(class_id=box.class_name, score=box.score))
    hypothesis.pose.pose = pose
    return Detection3D(
        header=header,
        results=[hypothesis],
        bbox=BoundingBox3D(center=pose, size=Vector3(x=size_x, y=size_y, z=size_z)),
    )

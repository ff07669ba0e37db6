"""Conversion of the core's types to ROS messages."""

from __future__ import annotations

import importlib
import inspect
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from vision_msgs.msg import (
    BoundingBox3D,
    Detection3D,
    Detection3DArray,
    LabelInfo,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
    VisionClass,
)
from visualization_msgs.msg import Marker, MarkerArray

from gemini_core.render import palette
from gemini_core.types import U8, UNLABELLED, Perception
from gemini_core.types import Detection3D as Box

_BILLION = 1_000_000_000

_POINT_TYPES = {"<f4": PointField.FLOAT32, "|u1": PointField.UINT8}
_SMALLEST_M = 1e-3  # RViz refuses markers without an extent
_TEXT_M = 0.4
_OPACITY = 0.4


def _ros_create_cloud() -> Callable[..., Any] | None:
    """Give ``sensor_msgs_py``'s maker of clouds, None where it is not installed or takes no size of a point."""
    try:
        create_cloud: Callable[..., Any] = importlib.import_module("sensor_msgs_py.point_cloud2").create_cloud
    except ImportError:
        return None
    return create_cloud if "point_step" in inspect.signature(create_cloud).parameters else None


_create_cloud = _ros_create_cloud()


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


def marker_array(header: Header, boxes: Sequence[Box], class_names: Sequence[str]) -> MarkerArray:
    """Boxes for RViz in the frame of ``header``, in their classes' colours, each with its class and score above it.

    The first marker clears those of the frame before. ``class_names`` are all there may be, so that colours stay.
    """
    colors = dict(zip(class_names, palette(class_names).tolist(), strict=False))  # the palette has 256
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for index, box in enumerate(boxes):
        red, green, blue = (level / 255.0 for level in colors.get(box.class_name, (255, 255, 255)))
        body = Marker(header=header, ns="boxes", id=index, type=Marker.CUBE, action=Marker.ADD, pose=_pose(box))
        body.scale = Vector3(**{axis: max(size, _SMALLEST_M) for axis, size in zip("xyz", box.size_m, strict=True)})
        body.color = ColorRGBA(r=red, g=green, b=blue, a=_OPACITY)
        text = Marker(header=header, ns="names", id=index, type=Marker.TEXT_VIEW_FACING, action=Marker.ADD)
        text.pose.position = _above(box)
        text.scale.z = _TEXT_M
        text.color = ColorRGBA(r=red, g=green, b=blue, a=1.0)
        text.text = f"{box.class_name} {box.score:.2f}"
        markers += [body, text]
    return MarkerArray(markers=markers)


def cloud_message(header: Header, points: np.ndarray[Any, np.dtype[np.void]]) -> PointCloud2:
    """An unorganised cloud of a structured array (N,) of float32 and uint8 columns.

    By ROS' own ``sensor_msgs_py`` where one is installed that knows of padding behind a point; it cannot make an empty cloud.
    """
    if _create_cloud is None or not points.size:
        return own_cloud_message(header, points)
    message: PointCloud2 = _create_cloud(header, _fields(points), points, point_step=points.dtype.itemsize)
    message.is_dense = True
    return message


def own_cloud_message(header: Header, points: np.ndarray[Any, np.dtype[np.void]]) -> PointCloud2:
    """The same without ``sensor_msgs_py``."""
    step = points.dtype.itemsize
    return PointCloud2(
        header=header,
        height=1,
        width=points.size,
        fields=_fields(points),
        is_bigendian=False,
        point_step=step,
        row_step=step * points.size,
        data=array("B", points.tobytes()),
        is_dense=True,
    )


def _fields(points: np.ndarray[Any, np.dtype[np.void]]) -> list[PointField]:
    columns: Mapping[str, Any] = points.dtype.fields or {}
    return [
        PointField(name=name, offset=offset, datatype=_POINT_TYPES[dtype.str], count=1)
        for name, (dtype, offset, *_) in columns.items()
    ]


def _pose(box: Box) -> Pose:
    x, y, z = box.center_m
    qx, qy, qz, qw = box.orientation_xyzw
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))


def _above(box: Box) -> Point:
    """A place for text, above the top of a box along its own z."""
    qx, qy, qz, qw = box.orientation_xyzw
    up = (2.0 * (qx * qz + qy * qw), 2.0 * (qy * qz - qx * qw), 1.0 - 2.0 * (qx * qx + qy * qy))
    away_m = 0.5 * box.size_m[2] + _TEXT_M
    x, y, z = (center + away_m * axis for center, axis in zip(box.center_m, up, strict=True))
    return Point(x=x, y=y, z=z)


def _detection(header: Header, box: Box) -> Detection3D:
    pose = _pose(box)
    size_x, size_y, size_z = box.size_m
    hypothesis = ObjectHypothesisWithPose(hypothesis=ObjectHypothesis(class_id=box.class_name, score=box.score))
    hypothesis.pose.pose = pose
    if box.covariance is not None:
        hypothesis.pose.covariance = np.array(box.covariance)
    return Detection3D(
        header=header,
        results=[hypothesis],
        bbox=BoundingBox3D(center=pose, size=Vector3(x=size_x, y=size_y, z=size_z)),
    )

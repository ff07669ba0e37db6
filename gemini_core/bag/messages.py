"""ROS messages without ROS: the type store of a bag, and builders for the messages that this project writes.

The classes are rosbags' own dataclasses, made at run time from the published definitions; their fields have the same names
as those of rclpy's messages. Stamps are nanoseconds, frames and units as in :mod:`gemini_core.types`.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore
from scipy.spatial.transform import Rotation

from gemini_core.errors import BagError
from gemini_core.types import F64, U8, UNLABELLED, CameraModel, Detection3D, StampedTransform

Message: TypeAlias = Any
"""A message of a class that exists only at run time, so that no type checker knows its fields."""

NANOSECONDS = 1_000_000_000
CHECKOUT = Path(__file__).resolve().parents[2]

IMAGE_CHANNELS = {"mono8": 1, "rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono16": 1, "16UC1": 1, "32FC1": 1}
IMAGE_TYPES = {"mono16": np.dtype("<u2"), "16UC1": np.dtype("<u2"), "32FC1": np.dtype("<f4")}
POINT_FIELD_CODES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 8}


def interfaces_dir(checkout: Path = CHECKOUT) -> Path:
    """Find the folder with the message definitions ``<package>/msg/<Name>.msg`` that come with this project.

    Raises:
        BagError: it is neither beside the checkout, nor installed in this environment, nor on AMENT_PREFIX_PATH.
    """
    share = Path("share", "gemini_ros", "interfaces")
    prefixes = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    candidates = [
        checkout / "interfaces",
        Path(sys.prefix) / share,
        *(prefix / share for prefix in prefixes),
    ]
    for candidate in candidates:
        if (candidate / "vision_msgs" / "msg").is_dir():
            return candidate
    msg = f"expected the message definitions (interfaces/vision_msgs/msg/*.msg) in one of {', '.join(map(str, candidates))}"
    raise BagError(msg)


@functools.lru_cache(maxsize=1)
def typestore() -> Typestore:
    """Give the ROS 2 types of rosbags together with those of interfaces/; made once per process.

    Raises:
        BagError: a definition is missing, cannot be parsed, or contradicts a type of ROS 2 itself.
    """
    store = get_typestore(Stores.ROS2_KILTED)
    folder = interfaces_dir()
    definitions = {}
    try:
        for path in sorted(folder.glob("*/msg/*.msg")):
            name = f"{path.parent.parent.name}/msg/{path.stem}"
            definitions.update(get_types_from_msg(path.read_text(encoding="utf-8"), name))
        store.register(definitions)
    except (OSError, TypesysError) as error:
        msg = f"{folder}: expected message definitions that can be registered, got {' '.join(str(error).split())}"
        raise BagError(msg) from None
    return store


def make(type_name: str, **fields: object) -> Message:
    """Build a message, e.g. ``make("std_msgs/msg/String", data="x")``; every field must be named."""
    return typestore().types[type_name](**fields)  # type: ignore[arg-type]  # field types are known at run time only


# --------------------------------------------------------------------------------------------------------------------
# Builders


def time(stamp_ns: int) -> Message:
    """Build a builtin_interfaces/Time."""
    seconds, nanoseconds = divmod(int(stamp_ns), NANOSECONDS)
    return make("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)


def header(stamp_ns: int, frame_id: str) -> Message:
    """Build a std_msgs/Header."""
    return make("std_msgs/msg/Header", stamp=time(stamp_ns), frame_id=frame_id)


def image(pixels: npt.NDArray[Any], encoding: str, stamp_ns: int, frame_id: str) -> Message:
    """Build a sensor_msgs/Image without row padding.

    ``pixels`` is (H, W) or (H, W, channels), uint8, uint16 ("mono16", "16UC1") or float32 ("32FC1").

    Raises:
        BagError: encoding unknown here, or pixels of another shape or type than it says.
    """
    if encoding not in IMAGE_CHANNELS:
        msg = f"image of {frame_id}: expected an encoding out of {', '.join(IMAGE_CHANNELS)}, got {encoding!r}"
        raise BagError(msg)
    dtype = IMAGE_TYPES.get(encoding, np.dtype(np.uint8))
    channels = 1 if pixels.ndim == 2 else pixels.shape[-1]  # noqa: PLR2004 - grey images have two axes
    if pixels.dtype != dtype or channels != IMAGE_CHANNELS[encoding]:
        msg = (
            f"image of {frame_id}: expected {IMAGE_CHANNELS[encoding]} channel(s) of {dtype} for {encoding}, "
            f"got an array {pixels.shape} of {pixels.dtype}"
        )
        raise BagError(msg)
    data = np.ascontiguousarray(pixels)
    return make(
        "sensor_msgs/msg/Image",
        header=header(stamp_ns, frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=data.strides[0],
        data=data.reshape(-1).view(np.uint8),
    )


def compressed_image(data: bytes, image_format: str, stamp_ns: int, frame_id: str) -> Message:
    """Build a sensor_msgs/CompressedImage; ``image_format`` as image_transport writes it ("bgr8; jpeg compressed bgr8")."""
    return make(
        "sensor_msgs/msg/CompressedImage",
        header=header(stamp_ns, frame_id),
        format=image_format,
        data=np.frombuffer(data, np.uint8),
    )


def camera_info(camera: CameraModel, stamp_ns: int, frame_id: str) -> Message:
    """Build a sensor_msgs/CameraInfo; R is the identity and P = [K | 0]. No distortion is written as plumb_bob zeros."""
    undistorted = camera.distortion_model == "none"
    no_region = make("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return make(
        "sensor_msgs/msg/CameraInfo",
        header=header(stamp_ns, frame_id),
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob" if undistorted else camera.distortion_model,
        d=np.zeros(5) if undistorted else np.array(camera.distortion, dtype=np.float64),
        k=camera.matrix.reshape(-1),
        r=np.eye(3).reshape(-1),
        p=np.hstack([camera.matrix, np.zeros((3, 1))]).reshape(-1),
        binning_x=0,
        binning_y=0,
        roi=no_region,
    )


def point_cloud(points: npt.NDArray[np.void], stamp_ns: int, frame_id: str, *, is_dense: bool = True) -> Message:
    """Build an unorganised sensor_msgs/PointCloud2 whose fields, offsets and step are those of a structured array (N,).

    Raises:
        BagError: the array is not one-dimensional and structured, or a field has a type that PointField does not know.
    """
    if points.dtype.fields is None or points.ndim != 1:
        msg = f"cloud of {frame_id}: expected a structured array (N,), got {points.shape} of {points.dtype}"
        raise BagError(msg)
    fields = []
    for name, (dtype, offset, *_) in points.dtype.fields.items():
        code = POINT_FIELD_CODES.get(dtype.str[1:])
        if code is None or dtype.str[0] == ">":
            msg = f"cloud of {frame_id}: expected field {name!r} as a little-endian number, got {dtype}"
            raise BagError(msg)
        fields.append(make("sensor_msgs/msg/PointField", name=name, offset=offset, datatype=code, count=1))
    step = points.dtype.itemsize
    return make(
        "sensor_msgs/msg/PointCloud2",
        header=header(stamp_ns, frame_id),
        height=1,
        width=points.size,
        fields=fields,
        is_bigendian=False,
        point_step=step,
        row_step=step * points.size,
        data=np.frombuffer(points.tobytes(), dtype=np.uint8),
        is_dense=is_dense,
    )


def tf_message(transforms: Iterable[StampedTransform]) -> Message:
    """Build a tf2_msgs/TFMessage."""
    return make("tf2_msgs/msg/TFMessage", transforms=[_transform_stamped(transform) for transform in transforms])


def _transform_stamped(transform: StampedTransform) -> Message:
    x, y, z = (float(value) for value in transform.parent_from_child[:3, 3])
    qx, qy, qz, qw = quaternion_xyzw(transform.parent_from_child[:3, :3])
    return make(
        "geometry_msgs/msg/TransformStamped",
        header=header(transform.stamp_ns, transform.parent),
        child_frame_id=transform.child,
        transform=make(
            "geometry_msgs/msg/Transform",
            translation=make("geometry_msgs/msg/Vector3", x=x, y=y, z=z),
            rotation=make("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
        ),
    )


def quaternion_xyzw(rotation: F64) -> tuple[float, float, float, float]:
    """Turn a (3, 3) rotation into a unit quaternion (x, y, z, w) with w >= 0."""
    x, y, z, w = (float(value) for value in Rotation.from_matrix(rotation).as_quat(canonical=True))
    return x, y, z, w


def event_packet(
    events: bytes,
    *,
    width: int,
    height: int,
    seq: int,
    stamp_ns: int,
    frame_id: str,
    encoding: str = "evt3",
    time_base: int = 0,
) -> Message:
    """Build an event_camera_msgs/EventPacket from encoded events; ``time_base`` is the encoding's own (EVT3 has none)."""
    return make(
        "event_camera_msgs/msg/EventPacket",
        header=header(stamp_ns, frame_id),
        height=height,
        width=width,
        seq=seq,
        time_base=time_base,
        encoding=encoding,
        is_bigendian=False,
        events=np.frombuffer(events, dtype=np.uint8),
    )


def mask(pixels: U8, stamp_ns: int, frame_id: str) -> Message:
    """Build the segmentation mask: (H, W) uint8 class indices, 255 undecided, as a mono8 sensor_msgs/Image."""
    return image(pixels, "mono8", stamp_ns, frame_id)


def label_info(class_names: Sequence[str], stamp_ns: int, frame_id: str) -> Message:
    """Build the vision_msgs/LabelInfo that says what the mask's values mean, 255 (undecided) included, as the node does."""
    names = {**dict(enumerate(class_names)), UNLABELLED: "unlabelled"}
    return make(
        "vision_msgs/msg/LabelInfo",
        header=header(stamp_ns, frame_id),
        class_map=[make("vision_msgs/msg/VisionClass", class_id=index, class_name=name) for index, name in names.items()],
        threshold=0.0,
    )


def detections(boxes: Sequence[Detection3D], stamp_ns: int, frame_id: str) -> Message:
    """Build a vision_msgs/Detection3DArray; the pose stands in the box and in its one hypothesis alike."""
    return make(
        "vision_msgs/msg/Detection3DArray",
        header=header(stamp_ns, frame_id),
        detections=[_detection(box, stamp_ns, frame_id) for box in boxes],
    )


def read_detections(message: Message) -> tuple[Detection3D, ...]:
    """Read a vision_msgs/Detection3DArray: each box with the class and score of its first hypothesis.

    Boxes are in the message's frame; those without a hypothesis are left out. A covariance of zeros says that none is known.
    """
    return tuple(_read_detection(each) for each in message.detections if len(each.results))


def _read_detection(detection: Message) -> Detection3D:
    first, box = detection.results[0], detection.bbox
    place, turn, size = box.center.position, box.center.orientation, box.size
    covariance = tuple(np.asarray(first.pose.covariance, np.float64).tolist())
    return Detection3D(
        class_name=first.hypothesis.class_id,
        score=first.hypothesis.score,
        center_m=(place.x, place.y, place.z),
        size_m=(size.x, size.y, size.z),
        orientation_xyzw=(turn.x, turn.y, turn.z, turn.w),
        covariance=covariance if any(covariance) else None,
    )


def _detection(box: Detection3D, stamp_ns: int, frame_id: str) -> Message:
    pose = make(
        "geometry_msgs/msg/Pose",
        position=make("geometry_msgs/msg/Point", **dict(zip("xyz", box.center_m, strict=True))),
        orientation=make("geometry_msgs/msg/Quaternion", **dict(zip("xyzw", box.orientation_xyzw, strict=True))),
    )
    hypothesis = make(
        "vision_msgs/msg/ObjectHypothesisWithPose",
        hypothesis=make("vision_msgs/msg/ObjectHypothesis", class_id=box.class_name, score=box.score),
        pose=make("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.array(box.covariance or [0.0] * 36)),
    )
    return make(
        "vision_msgs/msg/Detection3D",
        header=header(stamp_ns, frame_id),
        results=[hypothesis],
        bbox=make(
            "vision_msgs/msg/BoundingBox3D",
            center=pose,
            size=make("geometry_msgs/msg/Vector3", **dict(zip("xyz", box.size_m, strict=True))),
        ),
        id="",
    )

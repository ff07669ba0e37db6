"""The messages that we bring where no ROS installation does are the released ones, to the bit."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="no ROS here: neither its wheels nor an installation")

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Quaternion, TransformStamped, Vector3
from rclpy.context import Context
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

pytestmark = pytest.mark.ros

# Type hashes (REP 2016, "RIHS01_" before them) of the released packages, which a machine compares before it talks to another.
RELEASED = {
    "vision_msgs/msg/Detection3DArray": "793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018",
    "vision_msgs/msg/Detection3D": "ddd703be132ab0b69d33121f1bb034132bfbb3b0ac5f9fb1516005ba1c8a265b",
    "vision_msgs/msg/BoundingBox3D": "bbb73a65c163d7f9bb29009c7bde9f7faa576bd2d23299c4511d19230dab4698",
    "vision_msgs/msg/ObjectHypothesisWithPose": "41c12344c0396c48b81df12467c192d99b2a0eb1463c5c37194e4223251c80bc",
    "vision_msgs/msg/ObjectHypothesis": "51da43cec11c01957a64d1e05a24acd18aae7745ec30b74348ad5f6d634f7f90",
    "vision_msgs/msg/LabelInfo": "3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783",
    "vision_msgs/msg/VisionClass": "1e4a11f0fed50b5623cb8ff26ca0e37952a48a9c074d16f804b44e9164c2037a",
    "vision_msgs/msg/VisionInfo": "95d3116a17484ad91c9a2686e1d54890bbfc3ff6c6a2de137738c4950d45d284",
    "tf2_msgs/msg/TFMessage": "e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087",
    "event_camera_msgs/msg/EventPacket": "d6fa176260b1f37e5a40845305315e150a0f18191241eb64f407442aa29844aa",
}
HEADER = Header(stamp=Time(sec=1_700_000_000, nanosec=123_456_789), frame_id="camera")


def message_class(name: str):
    package, _, message = name.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), message)


def description_file(name: str) -> Path | None:
    """The type description that the package was installed with; none before ROS 2 Iron."""
    package, _, message = name.split("/")
    module = Path(importlib.import_module(package).__file__)
    files = (parent / "share" / package / "msg" / f"{message}.json" for parent in module.parents)
    return next((file for file in files if file.is_file()), None)


@pytest.mark.parametrize("name", RELEASED)
def test_the_installed_description_has_the_released_hash(name: str):
    file = description_file(name)
    if file is None:
        pytest.skip(f"this ROS installation has no type description of {name}")
    hashes = {item["type_name"]: item["hash_string"] for item in json.loads(file.read_text(encoding="utf-8"))["type_hashes"]}
    assert hashes[name] == f"RIHS01_{RELEASED[name]}"


@pytest.fixture(scope="module")
def node():
    context = Context()
    rclpy.init(context=context)
    created = rclpy.create_node("interfaces_test", namespace="/interfaces_test", context=context)
    yield created
    created.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize("name", RELEASED)
def test_the_compiled_message_announces_the_released_hash_to_other_machines(node, name: str):
    publisher = node.create_publisher(message_class(name), name.rsplit("/", maxsplit=1)[-1], 1)
    info = node.get_publishers_info_by_topic(publisher.topic_name)[0]
    if not hasattr(info, "topic_type_hash"):
        pytest.skip("this rclpy does not tell the type hash")
    assert str(info.topic_type_hash).endswith(RELEASED[name])


def test_a_detection_array_survives_the_wire():
    from vision_msgs.msg import BoundingBox3D, Detection3D, Detection3DArray, ObjectHypothesis, ObjectHypothesisWithPose

    pose = Pose(position=Point(x=1.5, y=-2.25, z=1e-300), orientation=Quaternion(x=0.0, y=0.6, z=0.0, w=0.8))
    result = ObjectHypothesisWithPose(hypothesis=ObjectHypothesis(class_id="pedestrian, früh", score=0.1))
    result.pose.pose = pose
    result.pose.covariance = np.arange(36, dtype=np.float64) / 7
    box = BoundingBox3D(center=pose, size=Vector3(x=4.0, y=1.75, z=1.5))
    detection = Detection3D(header=HEADER, results=[result, ObjectHypothesisWithPose()], bbox=box, id="17")
    message = Detection3DArray(header=HEADER, detections=[detection, Detection3D()])
    assert deserialize_message(serialize_message(message), Detection3DArray) == message


def test_an_event_packet_survives_the_wire():
    from event_camera_msgs.msg import EventPacket

    events = np.random.default_rng(5).integers(0, 256, 100_001, dtype=np.uint8)
    message = EventPacket(header=HEADER, height=480, width=640, seq=2**64 - 1, time_base=2**63, encoding="evt3")
    message.events = events.tobytes()
    back = deserialize_message(serialize_message(message), EventPacket)
    assert (back.header, back.height, back.width, back.seq, back.time_base) == (HEADER, 480, 640, 2**64 - 1, 2**63)
    assert back.encoding == "evt3"
    assert not back.is_bigendian
    assert np.array_equal(np.asarray(back.events, dtype=np.uint8), events)


@pytest.mark.parametrize("package", ["dvs_msgs", "prophesee_event_msgs"])
def test_an_event_array_is_on_the_wire_what_the_decoder_reads(package: str):
    """The bytes are read without the package; no table of released hashes has these two, so their layout is held here."""
    pytest.importorskip(f"{package}.msg", reason=f"no {package} in this ROS installation")
    from gemini_core.decode.events import EventDecoder
    from gemini_core.decode.message import RawMessage

    event, array = (message_class(f"{package}/msg/{name}") for name in ("Event", "EventArray"))
    events = [event(x=2 * i, y=i, ts=Time(sec=1_700_000_000, nanosec=123_456_789 + i), polarity=i % 3 == 0) for i in range(99)]
    data = serialize_message(array(header=HEADER, height=480, width=640, events=events))
    sample = EventDecoder(f"{package}/EventArray").decode(RawMessage(f"{package}/msg/EventArray", data), "events")
    assert (sample.width, sample.height, sample.frame_id) == (640, 480, "camera")
    assert sample.x.tolist() == [each.x for each in events]
    assert sample.y.tolist() == [each.y for each in events]
    assert sample.polarity.tolist() == [each.polarity for each in events]
    assert (sample.time_ns - sample.stamp_ns).tolist() == list(range(99))


def test_transforms_survive_the_wire():
    from tf2_msgs.msg import TFMessage

    transform = TransformStamped(header=HEADER, child_frame_id="lidar")
    transform.transform.translation = Vector3(x=0.27, y=0.0, z=-0.08)
    transform.transform.rotation = Quaternion(x=0.5, y=-0.5, z=0.5, w=-0.5)
    message = TFMessage(transforms=[transform, TransformStamped()])
    assert deserialize_message(serialize_message(message), TFMessage) == message


def test_class_names_survive_the_wire():
    from vision_msgs.msg import LabelInfo, VisionClass, VisionInfo

    labels = LabelInfo(header=HEADER, threshold=0.5, class_map=[VisionClass(class_id=2**16 - 1, class_name="unlabelled")])
    assert deserialize_message(serialize_message(labels), LabelInfo) == labels
    info = VisionInfo(header=HEADER, method="GeminiFusion", database_location="classes", database_version=-1)
    assert deserialize_message(serialize_message(info), VisionInfo) == info

"""cv_bridge and sensor_msgs_py at the ROS edge: used where they are installed, and what they make is what ours is."""

from __future__ import annotations

import sys
from array import array
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS message packages")

from sensor_msgs.msg import Image
from std_msgs.msg import Header

from gemini_core.config import FusionConfig
from gemini_core.decode.cloud import decode_cloud
from gemini_core.pipeline.front import Front
from gemini_ros import convert
from gemini_ros.cv_bridge_images import ImageConverter, find_cv_bridge
from pipelines import numbers

STAMP_NS = 1_700_000_000_123_456_789


def image(encoding, pixels):
    header = Header(stamp=convert.stamp_to_ros(STAMP_NS), frame_id="camera")
    height, width = pixels.shape[:2]
    step = pixels.nbytes // height
    return Image(header=header, height=height, width=width, encoding=encoding, step=step, data=array("B", pixels.tobytes()))


class Bridge:
    """cv_bridge's two methods, for one encoding of colour and one of depth."""

    def imgmsg_to_cv2(self, message, target):
        kinds = {("16SC3", "rgb8"): np.int16, ("64FC1", "32FC1"): np.float64}
        if (message.encoding, target) not in kinds:
            raise TypeError(message.encoding)
        pixels = np.frombuffer(message.data, kinds[message.encoding, target]).reshape(message.height, message.width, -1)
        return pixels.astype(np.uint8) if target == "rgb8" else pixels[..., 0].astype(np.float32)

    def cv2_to_imgmsg(self, pixels, encoding, header):
        made = image(encoding, pixels)
        made.header = header
        return made


def test_an_encoding_that_the_core_does_not_know_goes_through_the_bridge_and_is_said_once():
    said = []
    images = ImageConverter(Bridge(), said.append)
    front = Front(FusionConfig())
    colour = np.random.default_rng(0).integers(0, 255, (4, 6, 3)).astype(np.int16)
    for _ in range(2):
        sample = front.decode("rgb.image", images.converted("rgb.image", image("16SC3", colour)))
        np.testing.assert_array_equal(sample.pixels, colour)
        assert (sample.stamp_ns, sample.frame_id) == (STAMP_NS, "camera")
    metres = np.array([[0.5, np.inf], [np.nan, 3.25]])
    np.testing.assert_array_equal(
        front.decode("depth.image", images.converted("depth.image", image("64FC1", metres))).depth_m, metres.astype(np.float32)
    )
    assert said == [
        "rgb.image: images in 16SC3 are converted to rgb8 by cv_bridge",
        "depth.image: images in 64FC1 are converted to 32FC1 by cv_bridge",
    ]
    counted = numbers(images.counts())
    assert counted == {"rgb.image.converted_by_cv_bridge": 2, "depth.image.converted_by_cv_bridge": 1}


@pytest.mark.parametrize(
    ("role", "encoding"),
    [
        ("rgb.image", "rgb8"),  # the core's own
        ("rgb.image", "yuv999"),  # the bridge refuses it
        ("depth.image", "mono8"),  # the bridge would scale it
        ("depth.image", "16UC1"),
        ("event.packets", "16SC3"),
    ],
)
def test_everything_else_reaches_the_core_as_it_is(role, encoding):
    images = ImageConverter(Bridge(), pytest.fail)
    message = image(encoding, np.zeros((4, 6, 3), np.uint8))
    assert images.converted(role, message) is message
    assert ImageConverter(None, pytest.fail).converted(role, message) is message
    assert images.counts() == ()


def test_ros_1_s_bridge_from_pypi_is_not_taken(monkeypatch, tmp_path):
    """It lies where pip installs, and the ament index has never heard of it."""
    (tmp_path / "cv_bridge").mkdir()
    (tmp_path / "cv_bridge" / "__init__.py").write_text("class CvBridge: pass\n")
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    del sys.modules["cv_bridge"]  # what is imported here is forgotten afterwards
    monkeypatch.syspath_prepend(str(tmp_path))
    prefixes = {}
    index = ModuleType("ament_index_python.packages")
    index.get_package_prefix = lambda name: prefixes[name]
    monkeypatch.setitem(sys.modules, "ament_index_python.packages", index)
    assert find_cv_bridge() is None
    prefixes["cv_bridge"] = str(tmp_path / "opt")  # ROS 2's is there as well, but this one is found first
    assert find_cv_bridge() is None
    prefixes["cv_bridge"] = str(tmp_path)
    assert type(find_cv_bridge()).__name__ == "CvBridge"


def test_the_real_bridge_converts_what_the_core_does_not_know():
    bridge = find_cv_bridge()
    if bridge is None:
        pytest.skip("no cv_bridge of ROS 2 here: it comes with a ROS installation")
    images, front = ImageConverter(bridge, lambda _said: None), Front(FusionConfig())
    metres = np.array([[0.5, 2.0], [np.nan, 3.25]])
    sample = front.decode("depth.image", images.converted("depth.image", image("64FC1", metres)))
    np.testing.assert_array_equal(sample.depth_m, metres.astype(np.float32))
    millimetres = np.array([[500, 2000], [0, 3250]], np.int16)
    sample = front.decode("depth.image", images.converted("depth.image", image("16SC1", millimetres)))
    np.testing.assert_array_equal(sample.depth_m, np.where(millimetres == 0, np.nan, millimetres / 1000).astype(np.float32))


def labelled_points(count):
    layout = {"names": ["x", "y", "z", "intensity", "label"], "formats": ["<f4"] * 4 + ["u1"], "itemsize": 20}
    points = np.zeros(count, np.dtype(layout))
    for name in points.dtype.names:
        points[name] = np.random.default_rng(0).integers(1, 100, count)
    return points


@pytest.mark.parametrize("count", [0, 1, 300])
def test_ros_own_maker_of_clouds_makes_ours(count):
    pytest.importorskip("sensor_msgs_py.point_cloud2", reason="no sensor_msgs_py here: it comes with a ROS installation")
    header = Header(stamp=convert.stamp_to_ros(STAMP_NS), frame_id="lidar")
    points = labelled_points(count)
    theirs = convert.cloud_message(header, points)
    assert theirs == convert.own_cloud_message(header, points)
    assert decode_cloud(theirs, "points").points.shape == (3, count)

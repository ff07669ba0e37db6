"""The core's results as ROS messages."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("vision_msgs.msg", reason="needs the ROS message packages")

from gemini_core.types import AlignedGrids, Detection3D, FrameHeader, GridGeometry, Perception
from gemini_ros.convert import detections_message, header_of, image_message, label_info, stamp_to_ros


def perception(mask: np.ndarray, stamp_ns: int = 1_700_000_000_123_456_789) -> Perception:
    height, width = mask.shape
    geometry = GridGeometry(width, height, width, height, 0, 0, width, height)
    grids = AlignedGrids(FrameHeader(3, stamp_ns, "camera", ()), geometry, None, ())
    return Perception(grids.header, mask, ("road", "car"), (), grids, np.zeros((height, width, 3), np.uint8))


@pytest.mark.parametrize("stamp_ns", [0, 1, 999_999_999, 1_000_000_000, 1_700_000_000_123_456_789])
def test_stamps_keep_every_nanosecond(stamp_ns):
    stamp = stamp_to_ros(stamp_ns)
    assert stamp.sec * 1_000_000_000 + stamp.nanosec == stamp_ns


def test_the_header_is_that_of_the_reference():
    header = header_of(perception(np.zeros((2, 2), np.uint8)))
    assert header.frame_id == "camera"
    assert header.stamp == stamp_to_ros(1_700_000_000_123_456_789)


def test_a_mask_becomes_mono8():
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
    message = image_message(header_of(perception(mask)), mask)
    assert (message.height, message.width, message.encoding, message.step) == (3, 4, "mono8", 4)
    np.testing.assert_array_equal(np.frombuffer(message.data, np.uint8).reshape(3, 4), mask)


def test_a_picture_becomes_rgb8_also_when_it_is_a_view():
    wide = np.random.default_rng(1).integers(0, 255, (5, 8, 3), np.uint8)
    view = wide[::2, 1:4]
    message = image_message(header_of(perception(view[..., 0])), view)
    assert (message.height, message.width, message.encoding, message.step) == (3, 3, "rgb8", 9)
    np.testing.assert_array_equal(np.frombuffer(message.data, np.uint8).reshape(3, 3, 3), view)


def test_every_mask_value_has_a_name():
    message = label_info(header_of(perception(np.zeros((1, 1), np.uint8))), ("road", "car"))
    assert [(entry.class_id, entry.class_name) for entry in message.class_map] == [(0, "road"), (1, "car"), (255, "unlabelled")]
    assert message.threshold == 0.0


def test_boxes_keep_place_size_and_name():
    box = Detection3D("car", 0.75, (1.0, 2.0, 3.0), (4.0, 1.8, 1.5), (0.0, 0.0, 0.6, 0.8))
    message = detections_message(header_of(perception(np.zeros((1, 1), np.uint8))), (box,))
    assert message.header.frame_id == "camera"
    (detection,) = message.detections
    assert detection.header == message.header
    center = detection.bbox.center
    assert (center.position.x, center.position.y, center.position.z) == box.center_m
    assert (center.orientation.x, center.orientation.y, center.orientation.z, center.orientation.w) == box.orientation_xyzw
    assert (detection.bbox.size.x, detection.bbox.size.y, detection.bbox.size.z) == box.size_m
    (result,) = detection.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ("car", 0.75)
    assert result.pose.pose == center


def test_no_boxes_is_an_empty_array():
    assert list(detections_message(header_of(perception(np.zeros((1, 1), np.uint8))), ()).detections) == []

"""Labelled boxes of bags: frames that they may be in, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from boxed_bags import (
    BOX_CLASSES,
    BOXES,
    detection,
    write_boxed,
)
from gemini_core.bag import messages
from gemini_core.bag.reader import BagReader
from gemini_core.bag.writer import BagWriter
from gemini_core.config.sections import DetectionsConfig
from gemini_core.errors import BagError, DataError
from gemini_core.types import DetectionFrames
from labelled_bags import STEP_NS
from labelled_frames import moved_camera
from training.box_labels import BoxLabels

BASE_FROM_REFERENCE = np.linalg.inv(moved_camera().reference_from_base)


OUTPUT_FROM_BASE = np.eye(4)


OUTPUT_FROM_BASE[:3, :3] = Rotation.from_euler("z", 1.1).as_matrix()
OUTPUT_FROM_BASE[:3, 3] = 100.0, -50.0, 3.0


FRAMES = DetectionFrames(np.linalg.inv(BASE_FROM_REFERENCE), "odom", OUTPUT_FROM_BASE @ BASE_FROM_REFERENCE)


LABELS = DetectionsConfig(classes=BOX_CLASSES, base_frame="base_link", frame="odom")


BOX = np.array([6.0, 1.0, 0.7, 4.0, 2.0, 1.5, 0.8])


def labels_in(path, detections, frame, topic=BOXES):
    with BagWriter(path) as bag:
        bag.write(topic, messages.detections(detections, STEP_NS, frame), STEP_NS)
    return path


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    ("frame", "frame_from_base"),
    [("camera", FRAMES.reference_from_base), ("base_link", np.eye(4)), ("odom", OUTPUT_FROM_BASE)],
)
def test_boxes_are_the_same_in_whichever_frame_they_are_labelled(tmp_path, frame, frame_from_base, slash):
    labelled = [detection(BOX, "post", frame_from_base), detection(BOX, "unknown", frame_from_base)]
    labels = BoxLabels(labels_in(tmp_path / "bag", labelled, slash + frame), LABELS, BOXES)
    boxes, classes = labels.at(STEP_NS, "camera", FRAMES)
    np.testing.assert_allclose(boxes, BOX[None], atol=1e-4)
    assert classes.tolist() == [1]
    assert labels.others == {"unknown": 1}
    assert labels.at(STEP_NS + 1, "camera", FRAMES) is None


def test_boxes_in_an_unknown_frame_are_refused(tmp_path):
    labels = BoxLabels(labels_in(tmp_path / "bag", [detection(BOX, "box")], "map"), LABELS, BOXES)
    with pytest.raises(
        DataError, match=r"expected boxes at 100000000 ns in one of the frames camera, base_link, odom, got 'map'"
    ):
        labels.at(STEP_NS, "camera", FRAMES)


def test_a_missing_topic_of_boxes_is_named_with_those_that_there_are(tmp_path):
    path = labels_in(tmp_path / "bag", [], "camera", "/objects")
    with pytest.raises(BagError, match=r"on topic '/ground_truth/detections', got no such topic; boxes: /objects"):
        BoxLabels(path, LABELS, BOXES)
    write_boxed(tmp_path / "none", 1, frames=1, topics=())
    with pytest.raises(BagError, match=r"on topic '/rgb/image', got one of sensor_msgs/msg/Image; boxes: none"):
        BoxLabels(tmp_path / "none", LABELS, "/rgb/image")


def test_a_box_without_a_class_is_refused(tmp_path, monkeypatch):
    path = labels_in(tmp_path / "bag", [detection(BOX, "box")], "camera")

    read = BagReader.messages

    def without(self, topics):
        for stored in read(self, topics):
            stored.message.detections[0].results.clear()
            yield stored

    monkeypatch.setattr(BagReader, "messages", without)
    with pytest.raises(DataError, match="expected a hypothesis with a class for each box, got none at 100000000 ns"):
        BoxLabels(path, LABELS, BOXES)

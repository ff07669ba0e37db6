"""KITTI's labels as the measures take them, and boxes in the image around boxes in space."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gemini_core.bag import kitti
from gemini_core.errors import DataError
from gemini_core.evaluate.detection import FoundFrame
from gemini_core.evaluate.detection_kitti import ANY_OBJECT, ClassRule, kitti_scores
from gemini_core.evaluate.detection_labels import LEVEL_FROM_OPTICAL, level_boxes, read_kitti_truth, seen_in_image
from gemini_core.types import CameraModel, Detection3D

IDENTITY = kitti.Calibration(np.hstack([np.eye(3), np.zeros((3, 1))]), np.eye(4))
CAR = "Car 0.25 2 1.85 387.63 181.54 423.81 203.12 1.67 1.87 3.69 -16.50 2.39 58.50 {heading}"
AREA = "DontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10"


def written(folder: Path, *lines: str) -> Path:
    path = folder / "000007.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_label_by_hand(tmp_path: Path):
    # heading 0 points to the camera's right, which is -y; heading -π/2 forward, +x; height counts from the ground up
    path = written(tmp_path, CAR.format(heading=0.0), AREA, "", CAR.format(heading=-math.pi / 2).replace("Car", "Van"))
    truth = read_kitti_truth(path, IDENTITY)
    assert truth.class_names == ("car", "van")
    place = [58.5, 16.5, -2.39 + 1.67 / 2, 3.69, 1.87, 1.67]
    np.testing.assert_allclose(truth.boxes, [[*place, -math.pi / 2], [*place, 0.0]], atol=1e-5)
    np.testing.assert_allclose(truth.image_boxes, [[387.63, 181.54, 423.81, 203.12]] * 2, rtol=1e-6)
    assert truth.truncation.tolist() == [0.25, 0.25]
    assert truth.occlusion.tolist() == [2, 2]
    np.testing.assert_allclose(truth.dont_care, [[503.89, 169.71, 590.61, 190.13]], rtol=1e-6)


def test_a_file_without_objects(tmp_path: Path):
    truth = read_kitti_truth(written(tmp_path, AREA), IDENTITY)
    assert truth.boxes.shape == (0, 7)
    assert truth.dont_care.shape == (1, 4)
    truth = read_kitti_truth(written(tmp_path, ""), IDENTITY)
    assert truth.dont_care.shape == (0, 4)


@pytest.mark.parametrize("line", ["DontCare -1 -1 -10 503.89", "DontCare -1 -1 -10 a b c d", "Car 0 0 0"])
def test_a_line_that_is_no_label_is_named(tmp_path: Path, line: str):
    with pytest.raises(DataError, match=r"000007.txt:2: expected a type and 14 numbers"):
        read_kitti_truth(written(tmp_path, CAR.format(heading=0.0), line), IDENTITY)


def test_heading_and_place_in_another_frame():
    # a box whose own axes are those of a frame that is turned by 90 degrees to the left and stands 2 m ahead
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    turned[:3, 3] = (2.0, 0.0, 0.5)
    tilted = Rotation.from_euler("ZY", [30, 5], degrees=True).as_quat()
    detection = Detection3D("car", 0.5, (1.0, 0.0, 0.0), (4.0, 2.0, 1.5), tuple(tilted))
    (box,) = level_boxes([detection], turned)
    np.testing.assert_allclose(box, [2.0, 1.0, 0.5, 4.0, 2.0, 1.5, math.radians(120)], atol=1e-6)
    assert level_boxes([], turned).shape == (0, 7)


# --------------------------------------------------------------------------------------------------------------------
# Boxes in the image

CAMERA = CameraModel(101, 81, 100.0, 100.0, 50.0, 40.0)
OPTICAL_FROM_LEVEL = np.linalg.inv(LEVEL_FROM_OPTICAL)


def plate(x: float, y: float, z: float, width: float, height: float) -> list[float]:
    """A box so thin along the view that its image is that of a rectangle."""
    return [x, y, z, 1e-6, width, height, 0.0]


@pytest.mark.parametrize(
    ("box", "expected", "cut"),
    [
        (plate(10, 0, 0, 2, 1), (40, 35, 60, 45), 0.0),
        (plate(10, 2, 1, 2, 1), (20, 25, 40, 35), 0.0),
        (plate(10, 5, 0, 2, 1), (0, 35, 10, 45), 0.5),  # half is left of the image
        (plate(10, -5, 4, 2, 2), (90, 0, 100, 10), 0.75),  # a quarter is in its upper right corner
        (plate(10, 20, 0, 2, 1), (0, 0, 0, 0), 1.0),
        (plate(-10, 0, 0, 2, 1), (0, 0, 0, 0), 1.0),
        ([0.0, 0.0, 0.0, 0.1, 2.0, 2.0, 0.0], (0, 0, 0, 0), 1.0),  # all nearer than what is cut off
        (
            [10.0, 0.0, 0.0, 2.0, 2.0, 2.0, math.pi / 4],
            (50 - 10 * math.sqrt(2), 40 - 100 / (10 - math.sqrt(2)), 50 + 10 * math.sqrt(2), 40 + 100 / (10 - math.sqrt(2))),
            0.0,
        ),
    ],
)
def test_image_boxes_by_hand(box: list[float], expected: tuple[float, ...], cut: float):
    boxes, share = seen_in_image(np.float32([box]), CAMERA, OPTICAL_FROM_LEVEL)
    np.testing.assert_allclose(boxes, [expected], atol=2e-4)
    np.testing.assert_allclose(share, [cut], atol=1e-4)


def test_a_box_about_the_camera_fills_the_image():
    boxes, share = seen_in_image(np.float32([[0, 0, 0, 4, 2, 2, 0.3], [1, 0, 0, 4, 2, 2, 0.3]]), CAMERA, OPTICAL_FROM_LEVEL)
    assert boxes.tolist() == [[0, 0, 100, 80]] * 2
    assert (share > 0.95).all()
    assert seen_in_image(np.zeros((0, 7), np.float32), CAMERA, OPTICAL_FROM_LEVEL)[0].shape == (0, 4)


# --------------------------------------------------------------------------------------------------------------------
# A real recording


def test_boxes_in_space_and_in_the_image_are_the_same_objects_in_a_real_recording(real_dir: Path):
    folder = real_dir / "kitti_object"
    seen = 0
    for path in sorted((folder / "label_2").glob("*.txt")):
        calibration = kitti._read_object_calibration(folder / "calib" / path.name)
        height, width = cv2.imread(str(folder / "image_2" / f"{path.stem}.png")).shape[:2]
        truth = read_kitti_truth(path, calibration)
        boxes, cut = seen_in_image(truth.boxes, calibration.camera(width, height), OPTICAL_FROM_LEVEL)
        # people drew the boxes in the image by hand, around what they saw of the objects
        np.testing.assert_allclose(boxes, truth.image_boxes, atol=5.0)
        np.testing.assert_allclose(cut, truth.truncation, atol=0.05)
        found = FoundFrame(truth.boxes, truth.class_names, np.ones(len(truth.boxes), np.float32), boxes)
        for name in set(truth.class_names):
            for score in kitti_scores([(truth, found)], [ClassRule(name, 0.99)], [ANY_OBJECT]):
                assert score.found == 1.0
                seen += score.objects
    assert seen == 2 * 5  # in both views: a truck, two cars, a cyclist and something else

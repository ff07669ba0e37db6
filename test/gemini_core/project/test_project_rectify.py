"""The rectified reference image, and that everything else lies on it."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from frames import sensor_frame
from gemini_core.config import FusionConfig, from_flat
from gemini_core.errors import CalibrationError
from gemini_core.predictor import Prediction
from gemini_core.project.projector import Projector
from gemini_core.project.rectify import rectify
from gemini_core.render import overlay
from gemini_core.rig.geometry import project_points, ray_table
from gemini_core.types import (
    AlignedGrids,
    CameraInfoSample,
    CameraModel,
    CloudSample,
    FrameCalibration,
    ImageSample,
    SensorFrame,
)
from pipelines import WholePipeline

PLUMB_BOB = CameraModel(320, 240, 220.0, 222.0, 161.0, 118.0, "plumb_bob", (-0.25, 0.06, 1e-3, -2e-3, 0.01))
RATIONAL = CameraModel(
    320, 240, 250.0, 255.0, 160.0, 120.0, "rational_polynomial", (0.5, -2.6, 1e-3, -3e-4, 1.5, 0.4, -2.4, 1.4)
)
FISHEYE = CameraModel(320, 240, 140.0, 142.0, 158.0, 121.0, "equidistant", (0.01, -0.02, 3e-3, -1e-3))
TILTED = dataclasses.replace(RATIONAL, distortion=(*RATIONAL.distortion, 0.002, -0.001, -0.003, 0.0005, 0.03, -0.05), skew=3.0)
SKEWED = CameraModel(320, 240, 250.0, 255.0, 160.0, 120.0, skew=6.0)
BENT = (PLUMB_BOB, RATIONAL, FISHEYE, TILTED, SKEWED)
UNSKEWED = (PLUMB_BOB, RATIONAL, FISHEYE, dataclasses.replace(TILTED, skew=0.0))  # OpenCV's maps do not look at K[0, 1]


def frame_of(pixels: np.ndarray, camera: CameraModel | None, lidar: CloudSample | None = None) -> SensorFrame:
    calibration = FrameCalibration(camera, reference_from_lidar=None if lidar is None else np.eye(4))
    return sensor_frame(pixels, calibration, lidar=lidar)


def chessboard(camera: CameraModel) -> np.ndarray:
    """What the camera sees of an endless soft chessboard at z = 1: half grey along straight lines 0.2 apart, both ways."""
    x, y, _ = np.nan_to_num(ray_table(camera))
    grey = 127.5 + 127.5 * np.sin(np.pi * x / 0.2) * np.sin(np.pi * y / 0.2)
    return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("camera", BENT, ids=lambda camera: camera.distortion_model)
def test_straight_lines_get_straight(camera: CameraModel) -> None:
    """The rectified picture is what a pinhole camera sees, to an eighth of a pixel: a pixel is up to 14 levels here."""
    bent = chessboard(camera)
    frame = rectify(frame_of(bent, camera))
    assert frame.calibration is not None
    straight = frame.calibration.reference
    assert straight == dataclasses.replace(camera, distortion_model="none", distortion=(), skew=0.0)
    assert frame.rgb.pixels.shape == bent.shape
    expected = chessboard(straight).astype(int)
    pixels, _, _ = project_points(camera, ray_table(straight).reshape(3, -1))
    u, v = pixels.reshape(2, 240, 320)
    seen = (u > 0) & (u < 319) & (v > 0) & (v < 239)
    assert seen.mean() > 0.9
    assert np.abs(frame.rgb.pixels - expected)[seen].max() <= 2
    assert np.abs(bent - expected).max() > 20


@pytest.mark.parametrize("camera", UNSKEWED, ids=lambda camera: camera.distortion_model)
def test_it_is_opencv_s_rectification(camera: CameraModel) -> None:
    pixels = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8), (0, 0), 2.0)
    ours = rectify(frame_of(pixels, camera)).rgb.pixels
    k, d = camera.matrix, np.array(camera.distortion)
    if camera.distortion_model == "equidistant":
        maps = cv2.fisheye.initUndistortRectifyMap(k, d, np.eye(3), k, (320, 240), cv2.CV_32FC1)
    else:
        maps = cv2.initUndistortRectifyMap(k, d, np.eye(3), k, (320, 240), cv2.CV_32FC1)
    theirs = cv2.remap(pixels, *maps, cv2.INTER_LINEAR)
    inside = (maps[0] > 0) & (maps[0] < 319) & (maps[1] > 0) & (maps[1] < 239)
    assert inside.mean() > 0.9
    difference = np.abs(ours.astype(int) - theirs.astype(int))[inside]
    assert difference.max() <= 2


def test_what_the_lens_did_not_see_is_black() -> None:
    pincushion = dataclasses.replace(PLUMB_BOB, distortion=(0.3, 0.0, 0.0, 0.0, 0.0))
    pixels = rectify(frame_of(np.full((240, 320, 3), 200, np.uint8), pincushion)).rgb.pixels
    assert not pixels[0, 0].any()
    assert (pixels[20:-20, 40:-40] == 200).all()
    assert set(np.unique(pixels)) == {0, 200}  # no mixing with the black outside


def test_without_distortion_or_intrinsics_the_frame_stays_as_it_is() -> None:
    for camera in (None, dataclasses.replace(PLUMB_BOB, distortion_model="none", distortion=(), skew=0.0)):
        frame = frame_of(np.zeros((240, 320, 3), np.uint8), camera)
        assert rectify(frame) is frame


@pytest.mark.parametrize("camera", BENT, ids=lambda camera: camera.distortion_model)
def test_points_land_on_the_rectified_image_where_the_picture_shows_them(camera: CameraModel) -> None:
    """A lamp in front of the camera: one LiDAR point and one bright spot, which rectification must bring to one pixel."""
    lamp = np.array([[0.45], [-0.3], [1.0]], np.float32)
    (u,), (v,) = project_points(camera, lamp)[0]
    pixels = np.zeros((240, 320, 3), np.uint8)
    cv2.circle(pixels, (round(float(u) * 16), round(float(v) * 16)), 3 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
    sweep = CloudSample(0, "camera", lamp, np.ones(1, np.float32), None, None, 0, 0)
    config = from_flat({"rgb.rectify": True, "grid.width": 160, "grid.height": 120, "modalities": ["rgb", "lidar"]})
    projector = Projector(config)
    grids = projector.project(projector.rectified(frame_of(pixels, camera, sweep)))
    rgb, lidar = grids.grid("rgb"), grids.grid("lidar")
    assert rgb is not None
    assert lidar is not None
    assert grids.camera is not None
    assert grids.camera.distortion_model == "none"
    light = rgb.channels[0]
    rows, columns = np.indices(light.shape)
    ((row, column),) = np.argwhere(lidar.valid)
    assert (columns * light).sum() / light.sum() == pytest.approx(column, abs=0.7)
    assert (rows * light).sum() / light.sum() == pytest.approx(row, abs=0.7)


def test_a_frame_that_nobody_rectified_is_refused_instead_of_misaligned() -> None:
    projector = Projector(from_flat({"rgb.rectify": True, "modalities": ["rgb"]}))
    with pytest.raises(CalibrationError, match=r"frame 0: expected a rectified image, as rgb\.rectify asks for"):
        projector.project(frame_of(np.zeros((240, 320, 3), np.uint8), PLUMB_BOB))


def test_mask_and_overlay_belong_to_the_rectified_image() -> None:
    class Bright:
        """Class 1 where the picture is bright."""

        def predict(self, grids: AlignedGrids) -> Prediction:
            rgb = grids.grid("rgb")
            assert rgb is not None
            return Prediction((rgb.channels[0] > 0.5).astype(np.uint8))

    size = {"grid.width": 320, "grid.height": 240, "modalities": ["rgb"]}
    raw = ImageSample(0, "camera", chessboard(PLUMB_BOB))
    info = CameraInfoSample(0, "camera", "rgb", PLUMB_BOB)
    ticks = iter(range(100))
    pipeline = WholePipeline(from_flat({**size, "rgb.rectify": True}), Bright(), clock=lambda: next(ticks))
    pipeline.push(info)
    (perception,) = pipeline.push(raw)
    straight = rectify(frame_of(raw.pixels, PLUMB_BOB)).rgb.pixels
    np.testing.assert_array_equal(perception.image, straight)
    np.testing.assert_array_equal(perception.mask, straight[..., 0] > 127)
    assert overlay(perception, 0.0).tobytes() == straight.tobytes()
    assert [timing.stage for timing in perception.timings] == ["rectify", "project", "predict"]

    untouched = WholePipeline(from_flat(size))
    untouched.push(info)
    (perception,) = untouched.push(raw)
    assert perception.image is raw.pixels


def test_frames_that_cannot_be_rectified_are_counted() -> None:
    pipeline = WholePipeline(from_flat({"rgb.rectify": True, "modalities": ["rgb"]}))
    raw = ImageSample(0, "camera", np.zeros((240, 320, 3), np.uint8))
    (perception,) = pipeline.push(raw)
    assert perception.image is raw.pixels
    assert {count.what: count.number for count in pipeline.counts()}["rgb.not_rectified"] == 1
    assert FusionConfig().rgb.rectify is False

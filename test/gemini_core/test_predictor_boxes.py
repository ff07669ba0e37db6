"""Boxes of the predictor: those of the network, in the reference's frame; which weights it takes; frames without points."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from gemini_core.bag import messages
from gemini_core.config.fusion import from_flat
from gemini_core.errors import WeightsError
from gemini_core.model import checkpoints
from gemini_core.model.detection.interface import Cloud
from gemini_core.model.detection.pillars.detector import DetectorConfig
from gemini_core.model.segmentation import Segmenter, SegmenterConfig
from gemini_core.pipeline.published_boxes import NO_POINTS, outgoing_boxes
from gemini_core.predictor import LEAST_SCORE, Predictor
from gemini_core.rig.boxes import move_boxes
from gemini_core.rig.geometry import invert_transform
from gemini_core.types import Detection3D, DetectionFrames, Perception
from grids import CLASSES, REFERENCE_FROM_BASE, grids_of, points_of

BOX_CLASSES = ("car", "pedestrian")


def detector_config(*, painted):
    return DetectorConfig(BOX_CLASSES, range_m=(0.0, -10.0, -1.0, 20.0, 10.0, 3.0), painted=painted, covariance=True)


@pytest.fixture(scope="module", params=[False, True], ids=["features", "painted"])
def weights(request, tmp_path_factory):
    torch.manual_seed(0)
    detector = detector_config(painted=request.param)
    segmenter = Segmenter(SegmenterConfig("mit_b0", ("rgb", "lidar"), len(CLASSES), 32, detector=detector)).eval()
    torch.nn.init.constant_(segmenter.detector.head.heat[1].bias, 0.0)  # scores about a half: there are boxes to compare
    path = tmp_path_factory.mktemp("weights") / "boxes.safetensors"
    checkpoints.save(segmenter, path, tuple(CLASSES), trained=True)
    return path


def configured(weights, **options):
    dotted = {"model.weights": str(weights), "model.classes": CLASSES, "detections.classes": list(BOX_CLASSES)}
    dotted |= {"modalities": ["rgb", "lidar"], "detections.enabled": True}
    return from_flat(dotted | {key.replace("__", "."): value for key, value in options.items()})


def placed(found):
    """Class and place of each box, (N, 4)."""
    return np.array([(100.0 * BOX_CLASSES.index(box.class_name), *box.center_m) for box in found])


def paired(ours, theirs):
    """Which of ours is each of theirs; scores of untrained weights are nearly equal: rounding decides about the order."""
    pairs = np.linalg.norm(theirs[:, None] - ours, axis=2).argmin(axis=1)
    assert sorted(pairs) == list(range(len(ours)))
    return pairs


def test_boxes_are_those_of_the_unfolded_network_brought_to_the_references_frame(weights):
    grids = replace(grids_of(("rgb", "lidar")), points=points_of())
    found = Predictor(configured(weights)).predict(grids).detections
    segmenter, info = checkpoints.load(weights)
    images = [
        (torch.from_numpy(grid.channels.copy())[None] - torch.tensor(item.mean)[:, None, None])
        / torch.tensor(item.std)[:, None, None]
        for grid, item in zip(grids.grids, info.normalization, strict=True)
    ]
    points = grids.points
    values = torch.from_numpy(np.hstack([points.points_m, points.intensity[:, None]]))
    cloud = Cloud(values, torch.from_numpy(points.pixels), torch.from_numpy(points.visible))
    with torch.no_grad():
        maps = segmenter.quarter_logits(images, clouds=[cloud]).boxes
    expected = segmenter.detector.find(maps, max_boxes=500, min_score=LEAST_SCORE)[0]
    assert len(found) == len(expected.boxes) > 5
    base_from_reference = invert_transform(REFERENCE_FROM_BASE)
    moved = move_boxes(found, base_from_reference)
    assert [box.score for box in found] == sorted((box.score for box in found), reverse=True)
    pairs = paired(placed(moved), np.hstack([100.0 * expected.classes[:, None], expected.boxes[:, :3]]))
    for index, numbers, score, named in zip(pairs, expected.boxes, expected.scores, expected.classes, strict=True):
        box = moved[index]
        np.testing.assert_allclose(box.center_m, numbers[:3], atol=2e-3)
        np.testing.assert_allclose(box.size_m, numbers[3:6], rtol=2e-3)
        yaw = float(numbers[6])
        turn = Rotation.from_quat(box.orientation_xyzw) * Rotation.from_euler("z", yaw).inv()
        assert turn.magnitude() < 2e-2  # so that roll and pitch are none
        assert box.score == pytest.approx(float(score), abs=1e-4)
        assert box.class_name == BOX_CLASSES[int(named)]


def test_covariances_turn_with_their_boxes(weights):
    grids = replace(grids_of(("rgb", "lidar")), points=points_of())
    box = Predictor(configured(weights)).predict(grids).detections[0]
    (back,) = move_boxes([box], invert_transform(REFERENCE_FROM_BASE))
    covariance = np.reshape(back.covariance, (6, 6))
    expected = np.diag(np.diag(covariance))
    np.testing.assert_allclose(covariance, expected, atol=1e-9)  # x, y, z and yaw of the base frame, alone
    assert (np.diag(covariance)[[0, 1, 2, 5]] > 0).all()
    np.testing.assert_allclose(np.diag(covariance)[3:5], 0.0, atol=1e-9)


def test_a_covariance_survives_the_message():
    covariance = tuple(np.arange(36.0).tolist())
    one = Detection3D("car", 0.5, (1.0, 2.0, 3.0), (4.0, 2.0, 1.5), (0.0, 0.0, 0.0, 1.0), covariance)
    other = replace(one, covariance=None)
    assert messages.read_detections(messages.detections((one, other), 10, "camera")) == (one, other)


def test_without_points_there_is_a_mask_and_nothing_is_said_of_boxes(weights):
    config = configured(weights)
    grids = grids_of(("rgb", "lidar"))
    prediction = Predictor(config).predict(grids)
    assert prediction.detections == ()
    frames = DetectionFrames(REFERENCE_FROM_BASE, "camera", np.eye(4))
    said = Perception(
        0, 0, "camera", prediction.mask, tuple(CLASSES), (), (), grids, np.zeros((1, 1, 3), np.uint8), detection_frames=frames
    )
    assert outgoing_boxes(said, config.detections) is None
    known = replace(said, grids=replace(grids, points=points_of(0)))
    assert outgoing_boxes(known, config.detections).boxes == ()
    assert "neither" in NO_POINTS


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_points_are_no_boxes_at_worst(weights, count):
    grids = replace(grids_of(("rgb", "lidar")), points=points_of(count))
    found = Predictor(configured(weights)).predict(grids).detections
    assert all(math.isfinite(number) for box in found for number in (*box.center_m, *box.size_m, box.score))


def test_masks_are_the_same_with_and_without_boxes(weights):
    grids = replace(grids_of(("rgb", "lidar")), points=points_of())
    masks = [Predictor(configured(weights, detections__enabled=flag)).predict(grids).mask for flag in (True, False)]
    assert np.array_equal(*masks)


def test_weights_for_other_boxes_are_refused(weights, tmp_path):
    with pytest.raises(
        WeightsError, match=r"detections\.classes: expected those of the detector in .*, car, pedestrian, got car"
    ):
        Predictor(configured(weights, detections__classes=["car"]))
    plain = tmp_path / "plain.safetensors"
    checkpoints.save(
        Segmenter(SegmenterConfig("mit_b0", ("rgb", "lidar"), len(CLASSES), 32)), plain, tuple(CLASSES), trained=True
    )
    with pytest.raises(WeightsError, match=r"detections\.enabled: expected weights with a detector, got .*plain\.safetensors"):
        Predictor(configured(plain))


def test_maps_that_are_not_finite_are_named(weights, tmp_path):
    segmenter, info = checkpoints.load(weights)
    torch.nn.init.constant_(segmenter.detector.head.boxes[1].bias, math.nan)
    broken = tmp_path / "broken.safetensors"
    checkpoints.save(segmenter, broken, info.class_names, trained=True)
    grids = replace(grids_of(("rgb", "lidar")), points=points_of())
    with pytest.raises(WeightsError, match=r"expected weights that give finite"):
        Predictor(configured(broken)).predict(grids)


def test_detector_configuration_survives_the_file(request, weights):
    segmenter, _ = checkpoints.load(weights)
    assert segmenter.config.detector == detector_config(painted="painted" in request.node.callspec.id)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_gpu_finds_what_the_cpu_does(weights):
    grids = replace(grids_of(("rgb", "lidar")), points=points_of())
    ours, theirs = (
        Predictor(configured(weights, model__device=device)).predict(grids).detections for device in ("cpu", "cuda")
    )
    ours, theirs = placed(ours), placed(theirs)
    np.testing.assert_allclose(ours[paired(ours, theirs)], theirs, atol=1e-2)

"""Which boxes go out and in which frame: thresholds, transforms at the stamp, what happens without them, bags of replays."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gemini_core.bag import messages
from gemini_core.bag.reader import BagReader
from gemini_core.bag.writer import BagWriter
from gemini_core.config.fusion import FusionConfig, from_flat
from gemini_core.config.sections import DetectionsConfig
from gemini_core.errors import ConfigError
from gemini_core.pipeline.pipeline import Pipeline
from gemini_core.pipeline.published_boxes import OutgoingBoxes, outgoing_boxes, select_boxes
from gemini_core.predictor import Prediction
from gemini_core.replay import DETECTIONS_TOPIC, LABELLED_POINTS_TOPIC, MASK_TOPIC, replay
from gemini_core.rig.boxes import move_boxes
from gemini_core.rig.geometry import OPTICAL_FROM_BODY, invert_transform, transform_matrix
from gemini_core.simulation.classes import BOXED, CLASS_NAMES
from gemini_core.types import (
    UNLABELLED,
    CameraInfoSample,
    CameraModel,
    CloudSample,
    Detection3D,
    ImageSample,
    StampedTransform,
    TransformSample,
)

MS = 1_000_000
CAMERA = CameraModel(64, 48, 50.0, 50.0, 31.5, 23.5)
TURN = (0.5, -0.5, 0.5, 0.5)  # to optical axes from body axes


def box(score=0.9, name="car", center=(0.0, 0.0, 10.0), turn=(0.0, 0.0, 0.0, 1.0)):
    return Detection3D(name, score, center, (4.0, 2.0, 1.5), turn)


# --------------------------------------------------------------------------------------------------------------------
# Thresholds


def test_the_default_classes_are_those_that_the_simulator_gives_boxes():
    assert set(DetectionsConfig().classes) == {CLASS_NAMES[index] for index in BOXED}
    assert set(DetectionsConfig().classes) <= set(FusionConfig().model.classes)


def test_scores_of_single_classes_override_the_common_one():
    config = DetectionsConfig(min_score=0.4, class_scores=" pedestrian : 0.2,car:0.7 , ")
    assert config.least_scores() == {**dict.fromkeys(config.classes, 0.4), "pedestrian": 0.2, "car": 0.7}
    boxes = [box(0.69), box(0.7), box(0.2, "pedestrian"), box(0.39, "truck"), box(0.4, "truck"), box(0.41, "unheard_of")]
    kept = select_boxes([*boxes, box(math.nan), box(0.3, "unheard_of")], config)
    assert [(each.class_name, each.score) for each in kept] == [
        ("car", 0.7),
        ("unheard_of", 0.41),
        ("truck", 0.4),
        ("pedestrian", 0.2),
    ]


def test_the_best_boxes_go_out_where_there_are_too_many():
    scores = np.random.default_rng(0).permutation(50) / 50
    kept = select_boxes([box(float(score)) for score in scores], DetectionsConfig(min_score=0.0, max_boxes=5))
    assert [each.score for each in kept] == [0.98, 0.96, 0.94, 0.92, 0.9]


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ("car", "detections.class_scores: expected 'class:score', got 'car'"),
        ("cart:0.5", "expected a class of detections.classes (nearest known: car"),
        ("car:0.5,car:0.6", "expected each class once, got 'car' again in 'car:0.6'"),
        ("car:1.5", "expected a score from 0 to 1 after the class, got 'car:1.5'"),
        ("car:high", "expected a score from 0 to 1 after the class, got 'car:high'"),
        ("car:nan", "expected a score from 0 to 1 after the class, got 'car:nan'"),
    ],
)
def test_class_scores_that_cannot_be_are_one_sentence(scores, says):
    with pytest.raises(ConfigError) as error:
        from_flat({"detections.class_scores": scores})
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_boxes_take_a_sensor_that_gives_points():
    with pytest.raises(ConfigError, match=r"detections.enabled: expected depth or lidar among the modalities, got rgb, event"):
        from_flat({"modalities": ["rgb", "event"], "detections.enabled": True})
    assert from_flat({"modalities": ["rgb", "event"]}).detections.enabled is False


# --------------------------------------------------------------------------------------------------------------------
# Frames


def test_a_box_before_the_camera_lies_where_a_hand_places_it():
    """Camera 1.5 m above the base, looking ahead; a car on the ground 10 m ahead, 2 m right, turned left by 30 degrees."""
    base_from_camera = transform_matrix((0.0, 0.0, 1.5), (0.0, 0.0, 0.0, 1.0)) @ invert_transform(OPTICAL_FROM_BODY)
    yaw = Rotation.from_euler("z", 30, degrees=True)
    in_camera = Rotation.from_matrix(OPTICAL_FROM_BODY[:3, :3]) * yaw
    (moved,) = move_boxes([box(center=(2.0, 0.75, 10.0), turn=tuple(in_camera.as_quat()))], base_from_camera)
    np.testing.assert_allclose(moved.center_m, (10.0, -2.0, 0.75), atol=1e-12)
    np.testing.assert_allclose(moved.orientation_xyzw, (0.0, 0.0, math.sin(math.pi / 12), math.cos(math.pi / 12)), atol=1e-12)
    assert (moved.size_m, moved.score, moved.class_name) == ((4.0, 2.0, 1.5), 0.9, "car")
    assert move_boxes([], base_from_camera) == ()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_corners_move_as_points_do_and_back(count, seed):
    rng = np.random.default_rng(seed)
    a_from_b = transform_matrix(rng.normal(size=3) * 10, Rotation.random(random_state=seed).as_quat())
    turns = Rotation.random(count, random_state=seed + 1).as_quat()
    boxes = [box(center=tuple(rng.normal(size=3) * 30), turn=tuple(turn)) for turn in turns]
    moved = move_boxes(boxes, a_from_b)
    for before, after in zip(boxes, moved, strict=True):
        np.testing.assert_allclose(corners(after), corners(before) @ a_from_b[:3, :3].T + a_from_b[:3, 3], atol=1e-9)
        assert math.isclose(np.linalg.norm(after.orientation_xyzw), 1.0)
        assert after.orientation_xyzw[3] >= 0
    for before, after in zip(boxes, move_boxes(moved, invert_transform(a_from_b)), strict=True):
        np.testing.assert_allclose(after.center_m, before.center_m, atol=1e-9)


def corners(each):
    signs = np.array(np.meshgrid(*[(-0.5, 0.5)] * 3)).reshape(3, -1).T
    return Rotation.from_quat(each.orientation_xyzw).apply(signs * each.size_m) + each.center_m


class OneBox:
    """A predictor that says the same of every frame, and keeps the points that it was given."""

    def __init__(self, *boxes):
        self.boxes = boxes or (box(),)
        self.points = []

    def predict(self, grids):
        self.points.append(grids.points)
        mask = np.zeros((grids.geometry.reference_height, grids.geometry.reference_width), np.uint8)
        return Prediction(mask, self.boxes)


def rgb(stamp_ms):
    return ImageSample(stamp_ms * MS, "camera", np.full((48, 64, 3), 128, np.uint8))


def sweep(stamp_ms):
    points = np.array([[5.0], [0.0], [0.0]], np.float32)
    return CloudSample(stamp_ms * MS, "lidar", points, np.ones(1, np.float32), None, None, stamp_ms * MS, stamp_ms * MS)


def transform(parent, child, stamp_ms=None, at=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0, 1.0)):
    stamp_ns = 0 if stamp_ms is None else stamp_ms * MS
    matrix = transform_matrix(at, turn)
    return TransformSample(stamp_ns, stamp_ms is None, (StampedTransform(stamp_ns, parent, child, matrix),))


def config(**options):
    dotted = {key.replace("__", "."): value for key, value in options.items()}
    base = {"modalities": ["rgb", "lidar"], "grid.width": 64, "grid.height": 48, "detections.enabled": True}
    return from_flat({**base, "motion.fixed_frame": "", **dotted})


RIG = [
    CameraInfoSample(0, "camera", "rgb", CAMERA),
    transform("camera", "lidar", turn=TURN),
]
BASE = transform("base_link", "camera", at=(1.0, 0.0, 1.5), turn=(-0.5, 0.5, -0.5, 0.5))  # from optical axes


def push_all(pipeline, samples):
    return [perception for sample in samples for perception in pipeline.push(sample)]


def test_points_come_in_the_base_frame_and_boxes_go_out_in_the_frame_asked_for_at_the_stamp():
    """The robot drives at 10 m/s along odom's x; the image is halfway between two stamps of odometry."""
    settings_ = config(detections__base_frame="base_link", detections__frame="odom")
    predictor = OneBox()
    pipeline = Pipeline(settings_, predictor)
    odometry = [transform("odom", "base_link", stamp, (stamp / 100, 0.0, 0.0)) for stamp in (80, 120)]
    (perception,) = push_all(pipeline, [*RIG, BASE, *odometry, rgb(100), sweep(100)])
    (points,) = predictor.points
    np.testing.assert_allclose(points.points_m, [(6.0, 0.0, 1.5)], atol=1e-6)
    np.testing.assert_allclose(points.reference_from_base @ (6.0, 0.0, 1.5, 1.0), (0.0, 0.0, 5.0, 1.0), atol=1e-9)
    assert perception.detections == predictor.boxes  # in the reference's frame
    outgoing = outgoing_boxes(perception, settings_.detections)
    assert outgoing.frame_id == "odom"
    np.testing.assert_allclose(outgoing.boxes[0].center_m, (12.0, 0.0, 1.5), atol=1e-9)  # 1 m driven, 1 m ahead, 10 m away


def test_boxes_stay_in_the_references_frame_where_nothing_else_is_asked_for():
    predictor = OneBox(box(turn=(0.1, 0.2, 0.3, -0.9)), box(0.1))
    pipeline = Pipeline(config(), predictor)
    (perception,) = push_all(pipeline, [*RIG, rgb(100), sweep(100)])
    assert outgoing_boxes(perception, config().detections) == OutgoingBoxes("camera", predictor.boxes[:1])
    np.testing.assert_array_equal(predictor.points[0].reference_from_base, OPTICAL_FROM_BODY)


@pytest.mark.parametrize("option", ["base_frame", "frame"])
def test_a_frame_that_is_not_known_gives_no_boxes_instead_of_wrong_ones_and_says_so(option):
    settings_ = config(**{f"detections__{option}": "base_lnik"})
    predictor = OneBox()
    pipeline = Pipeline(settings_, predictor)
    samples = [*RIG, BASE, rgb(100), sweep(100)]
    assert push_all(pipeline, samples) == []  # the transform may still come
    (perception,) = push_all(pipeline, [sweep(260)])
    assert outgoing_boxes(perception, settings_.detections) is None
    assert (predictor.points[0] is None) == (option == "base_frame")
    detail = perception.detection_frames.detail
    assert detail.startswith(f"detections.{option}: expected transforms that connect ")
    assert "'camera'" in detail
    assert "'base_lnik'" in detail
    assert "base_link" in detail  # the nearest known
    counted = {count.what: count.number for count in pipeline.counts()}
    assert counted["detections.missing.no_transform"] == 1
    assert [status.present for status in perception.status] == [True, True]  # the mask has all sensors


def test_a_frame_waits_for_the_transform_of_its_boxes_and_goes_on_when_it_comes():
    settings_ = config(detections__frame="odom")
    pipeline = Pipeline(settings_, OneBox())
    moving = [transform("odom", "base_link", stamp, (stamp / 100, 0.0, 0.0)) for stamp in (80, 120)]
    assert push_all(pipeline, [*RIG, BASE, moving[0], rgb(100), sweep(100)]) == []
    (perception,) = push_all(pipeline, moving[1:])
    assert outgoing_boxes(perception, settings_.detections).frame_id == "odom"
    assert {count.what: count.number for count in pipeline.counts()}.get("detections.missing.no_transform", 0) == 0


def test_without_boxes_no_frame_is_looked_up():
    settings_ = config(detections__enabled=False, detections__base_frame="nowhere", detections__frame="nowhere")
    predictor = OneBox()
    (perception,) = push_all(Pipeline(settings_, predictor), [*RIG, rgb(100), sweep(100)])
    assert predictor.points == [None]
    assert perception.detection_frames is None
    assert outgoing_boxes(perception, settings_.detections).frame_id == "camera"


# --------------------------------------------------------------------------------------------------------------------
# Replay


@pytest.fixture
def bag(tmp_path):
    """Three frames 100 ms apart: a picture, and a sweep of three points of which the camera sees one."""
    path = tmp_path / "drive"
    points = np.zeros(3, [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4")])
    points["x"], points["intensity"] = (5.0, -5.0, 9.0), (1.0, 2.0, 3.0)
    with BagWriter(path) as writer:
        transforms = [sample.transforms[0] for sample in (RIG[1], BASE)]
        writer.write("/tf_static", messages.tf_message(transforms), 0)
        for stamp_ns in (100 * MS, 200 * MS, 300 * MS):
            writer.write("/rgb/camera_info", messages.camera_info(CAMERA, stamp_ns, "camera"), stamp_ns)
            writer.write("/lidar/points", messages.point_cloud(points, stamp_ns - 5 * MS, "lidar"), stamp_ns)
            pixels = np.zeros((48, 64, 3), np.uint8)
            writer.write("/rgb/image", messages.image(pixels, "rgb8", stamp_ns, "camera"), stamp_ns)
    return path


def test_replay_writes_what_the_node_publishes(bag, tmp_path, monkeypatch):
    class Predictor(OneBox):
        trained = True

        def __init__(self, _):
            super().__init__(box(0.9), box(0.5, "truck"), box(0.5))

        def describe(self):
            return "boxes of a test"

    monkeypatch.setattr("gemini_core.predictor.Predictor", Predictor)
    settings_ = config(detections__frame="base_link", detections__class_scores="car:0.6", detections__min_score=0.4)
    replay(bag, settings_, tmp_path / "out", labelled_points=True)
    with BagReader(tmp_path / "out") as reader:
        stored = {topic: list(reader.messages((topic,))) for topic in (DETECTIONS_TOPIC, LABELLED_POINTS_TOPIC)}
    assert [each.log_ns for each in stored[DETECTIONS_TOPIC]] == [100 * MS, 200 * MS, 300 * MS]
    for each in stored[DETECTIONS_TOPIC]:
        message = each.message
        assert message.header.frame_id == "base_link"
        assert [found.results[0].hypothesis.class_id for found in message.detections] == ["car", "truck"]
        position = message.detections[0].bbox.center.position
        np.testing.assert_allclose((position.x, position.y, position.z), (11.0, 0.0, 1.5), atol=1e-9)
    assert len(stored[LABELLED_POINTS_TOPIC]) == 3
    for each, stamp_ns in zip(stored[LABELLED_POINTS_TOPIC], (95 * MS, 195 * MS, 295 * MS), strict=True):
        message = each.message
        assert (message.header.frame_id, message.header.stamp.nanosec) == ("lidar", stamp_ns)
        assert [field.name for field in message.fields] == ["x", "y", "z", "intensity", "label"]
        data = np.frombuffer(
            message.data.tobytes(),
            np.dtype(
                {"names": ["x", "intensity", "label"], "formats": ["<f4", "<f4", "u1"], "offsets": [0, 12, 16], "itemsize": 20}
            ),
        )
        assert data["x"].tolist() == [5.0, -5.0, 9.0]
        assert data["intensity"].tolist() == [1.0, 2.0, 3.0]
        assert data["label"].tolist() == [0, UNLABELLED, UNLABELLED]  # seen; behind the camera; behind the first one


def test_replay_leaves_out_boxes_that_it_cannot_place(bag, tmp_path):
    settings_ = config(detections__frame="odom", model__enabled=False)
    result = replay(bag, settings_, tmp_path / "out")
    with BagReader(tmp_path / "out") as reader:
        written = {topic.name: topic.count for topic in reader.topics()}
    assert written[MASK_TOPIC] == 3
    assert written.get(DETECTIONS_TOPIC, 0) == 0
    assert LABELLED_POINTS_TOPIC not in written
    assert {count.what: count.number for count in result.counts}["detections.missing.no_transform"] == 3

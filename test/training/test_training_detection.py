"""Boxes in training: what a frame knows of space, what is pasted, labels of bags, their cache, the loss, and whole runs."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation

from boxed_bags import (
    BOX_CLASSES,
    BOXES,
    OPTICAL_FROM_LEVEL,
    detection,
    scene,
    write_boxed,
    write_boxed_training,
)
from gemini_core.bag import kitti, messages
from gemini_core.bag.labels import LabelTopics
from gemini_core.bag.writer import BagWriter
from gemini_core.config import DetectionsConfig, load_config
from gemini_core.errors import BagError, ConfigError, DataError
from gemini_core.model import checkpoints
from gemini_core.model.detection.boxes import iou_3d
from gemini_core.model.detection.interface import IGNORED
from gemini_core.model.detection.pillars.detector import Detector, DetectorConfig
from gemini_core.types import UNLABELLED, DetectionFrames
from labelled_bags import CLASSES, SIZE, STEP_NS, TOPICS, recipe_of
from training import train as training
from training.augment import augment
from training.box_labels import BoxLabels
from training.cache import ShardReader, cache_bag
from training.checkpoint import save_state
from training.config import AugmentConfig, load_training_config
from training.data import FrameDataset, LabelledClouds, collate
from training.losses import boxes_loss
from training.paste import Sample, label_values, paste
from training.points_and_boxes import (
    PointSet,
    GridCamera,
    PointsAndBoxes,
    FieldOfView,
    inside,
    pack_points_and_boxes,
    unpack_points_and_boxes,
)

LEVEL_RIG = GridCamera(60.0, 60.0, 31.5, 31.5, OPTICAL_FROM_LEVEL)
PLAIN = AugmentConfig(flip=0.0, scale_min=1.0, scale_max=1.0, color_jitter=0.0, blur=0.0, modality_dropout=0.0)


def moved_rig(x=0.4, y=-0.3, z=1.2, yaw=0.2, pitch=0.1, **changes):
    """A camera that stands and looks where nothing is zero."""
    base_from_camera = np.eye(4)
    base_from_camera[:3, :3] = Rotation.from_euler("zy", [yaw, pitch]).as_matrix() @ np.linalg.inv(OPTICAL_FROM_LEVEL[:3, :3])
    base_from_camera[:3, 3] = x, y, z
    return dataclasses.replace(GridCamera(70.0, 65.0, 28.0, 35.0, np.linalg.inv(base_from_camera)), **changes)


def points_of(places, camera):
    """A set of points (N, 3) as the rig's camera sees them."""
    places = np.asarray(places, np.float64).reshape(-1, 3)
    projected = camera.project(places)
    values = np.hstack([places, np.full((len(places), 1), 0.5)]).astype(np.float32)
    pixels = np.where(projected[:, 2:] > 0, projected[:, :2], 0.0).astype(np.float32)
    within = (projected[:, 2] > 0) & (pixels >= -0.5).all(axis=1) & (pixels < SIZE - 0.5).all(axis=1)
    return PointSet(values, pixels, within)


def space_with(boxes, classes, points, camera=LEVEL_RIG):
    """A frame in space, whose points are the LiDAR's."""
    boxes = np.array(boxes, np.float32).reshape(-1, 7)
    counts = inside(points, boxes).sum(axis=1).astype(np.int64)
    return PointsAndBoxes(
        {"lidar": points}, boxes, np.array(classes, np.int64), counts, camera, camera.field_of_view(SIZE, SIZE)
    )


def some_space(seed, camera=LEVEL_RIG, count=50):
    rng = np.random.default_rng(seed)
    places = rng.uniform([2, -4, -1], [12, 4, 1.5], (count, 3))
    boxes = np.hstack(
        [rng.uniform([3, -3, -0.5], [9, 3, 0.5], (3, 3)), rng.uniform(0.5, 3, (3, 3)), rng.uniform(-3, 3, (3, 1))]
    )
    return space_with(boxes, [0, 1, 0], points_of(places, camera), camera)


# --------------------------------------------------------------------------------------------------------------------
# Space


def test_what_a_shard_keeps_of_space_comes_back(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    first = some_space(1)
    depth_only = dataclasses.replace(
        some_space(2, moved_rig(), 7), points={"depth": some_space(2, moved_rig(), 7).points["lidar"]}
    )
    empty = space_with([], [], points_of([], LEVEL_RIG))
    labelled_clouds = [first, depth_only, empty, some_space(3)]
    save_file(pack_points_and_boxes(labelled_clouds), tmp_path / "shard.safetensors")
    with safe_open(tmp_path / "shard.safetensors", framework="pt") as file:
        for row, points_and_boxes in enumerate(labelled_clouds):
            back = unpack_points_and_boxes(file, row, SIZE, SIZE)
            assert set(back.points) == set(points_and_boxes.points)
            for source, points in points_and_boxes.points.items():
                np.testing.assert_array_equal(back.points[source].values, points.values)
                np.testing.assert_array_equal(back.points[source].visible, points.visible)
                near = np.abs(points.pixels).max(axis=1) < 1000
                np.testing.assert_allclose(back.points[source].pixels[near], points.pixels[near], rtol=0, atol=1 / 64)
            for name in ("boxes", "classes", "counts"):
                np.testing.assert_array_equal(getattr(back, name), getattr(points_and_boxes, name))
            assert back.camera.same(points_and_boxes.camera)
            assert dataclasses.astuple(back.field_of_view) == pytest.approx(dataclasses.astuple(points_and_boxes.field_of_view))
        assert len(back.cloud("depth").points) == 50  # the other source where one lacks


def test_a_camera_sees_the_ground_between_its_picture_s_edges():
    field_of_view = GridCamera(60.0, 60.0, 20.0, 31.5, OPTICAL_FROM_LEVEL).field_of_view(SIZE, SIZE)
    left, right = math.atan(20.5 / 60), -math.atan(43.5 / 60)
    assert (field_of_view.x_m, field_of_view.y_m) == pytest.approx((0, 0))
    assert field_of_view.middle_rad == pytest.approx((left + right) / 2)
    assert field_of_view.half_rad == pytest.approx((left - right) / 2)
    angles = torch.tensor([left - 0.01, left + 0.01, right + 0.01, right - 0.01, math.pi])
    assert field_of_view.holds(torch.stack([angles.cos(), angles.sin()], dim=1) * 7).tolist() == [
        True,
        False,
        True,
        False,
        False,
    ]


def test_a_view_backwards_has_no_jump():
    field_of_view = FieldOfView(1.0, 2.0, math.pi, 0.5)
    places = torch.tensor([[-5.0, 2.1], [-5.0, 1.9], [5.0, 2.0], [-5.0, 7.0]])
    assert field_of_view.holds(places).tolist() == [True, True, False, False]


def test_mirrored_twice_is_as_before():
    points_and_boxes = some_space(4, moved_rig())
    back = points_and_boxes.mirrored(SIZE).mirrored(SIZE)
    np.testing.assert_array_equal(back.boxes, points_and_boxes.boxes)
    np.testing.assert_array_equal(back.points["lidar"].values, points_and_boxes.points["lidar"].values)
    np.testing.assert_allclose(back.points["lidar"].pixels, points_and_boxes.points["lidar"].pixels, atol=1e-4)
    assert back.field_of_view == points_and_boxes.field_of_view


def test_a_mirrored_camera_sees_mirrored_points_at_mirrored_pixels():
    camera = moved_rig()
    points_and_boxes = some_space(5, camera)
    mirrored = points_and_boxes.mirrored(SIZE)
    across, over = np.diag([-1.0, 1, 1, 1]), np.diag([1.0, -1, 1, 1])
    other = dataclasses.replace(camera, cx=SIZE - 1 - camera.cx, reference_from_base=across @ camera.reference_from_base @ over)
    seen = mirrored.points["lidar"]
    projected = other.project(seen.values[:, :3].astype(np.float64))
    assert (projected[:, 2] > 0).sum() > 20
    np.testing.assert_allclose(seen.pixels[projected[:, 2] > 0], projected[projected[:, 2] > 0, :2], atol=1e-3)
    assert dataclasses.astuple(mirrored.field_of_view) == pytest.approx(dataclasses.astuple(other.field_of_view(SIZE, SIZE)))
    np.testing.assert_array_equal(
        inside(seen, mirrored.boxes), inside(points_and_boxes.points["lidar"], points_and_boxes.boxes)
    )


numbers = st.floats(-1, 1, width=32)


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[numbers] * 3), st.floats(-3.1, 3.1), st.floats(-3.1, 3.1), st.floats(0.5, 1.5), st.booleans())
def test_a_point_of_a_box_stays_in_it_however_the_world_is_turned(share, yaw, angle, factor, mirrored):
    box = np.array([6.0, -2.0, 0.5, 4.0, 1.8, 1.5, yaw])
    own = np.array(share) * 0.49 * box[3:6]
    place = box[:3] + Rotation.from_euler("z", yaw).as_matrix() @ own
    outside = box[:3] + Rotation.from_euler("z", yaw).as_matrix() @ (own + np.sign(own + 1e-9) * box[3:6])
    points_and_boxes = space_with([box], [0], points_of([place, outside], LEVEL_RIG))
    turned = (points_and_boxes.mirrored(SIZE) if mirrored else points_and_boxes).turned(angle, factor)
    assert inside(turned.points["lidar"], turned.boxes).tolist() == [[True, False]]
    np.testing.assert_allclose(turned.boxes[0, 3:6], box[3:6] * factor, rtol=1e-5)
    np.testing.assert_array_equal(turned.points["lidar"].values[:, 3], 0.5)


def test_what_is_seen_is_seen_after_a_turn():
    points_and_boxes = some_space(6, moved_rig(x=1.0, y=2.0))
    turned = points_and_boxes.turned(0.7, 1.2)
    before, after = (torch.from_numpy(each.points["lidar"].values[:, :2]) for each in (points_and_boxes, turned))
    assert 0 < points_and_boxes.field_of_view.holds(before).sum() < len(before)
    assert torch.equal(points_and_boxes.field_of_view.holds(before), turned.field_of_view.holds(after))


@pytest.mark.parametrize("crop", [(0, 0), (40, 48), (100, 120)])
@pytest.mark.parametrize("seed", range(4))
def test_after_augmentation_points_are_at_the_same_content_of_the_image(crop, seed):
    config = dataclasses.replace(PLAIN, flip=0.5, scale_min=0.6, scale_max=1.7, crop_height=crop[0], crop_width=crop[1])
    v, u = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    frame = {"rgb": np.stack([u / 100, v / 100, np.ones_like(u)])}  # each pixel says which one it is
    points_and_boxes = some_space(seed, count=300)
    frame, label, moved = augment(
        frame, np.zeros((SIZE, SIZE), np.uint8), config, np.random.default_rng(seed), points_and_boxes
    )
    before, after = points_and_boxes.points["lidar"], moved.points["lidar"]
    height, width = label.shape
    assert (height, width) == (crop if crop[0] else (SIZE, SIZE))
    seen = after.visible
    assert seen.sum() > 20
    assert not (seen & ~before.visible).any()
    column, row = np.rint(after.pixels[seen]).astype(int).T
    assert (column >= 0).all()
    assert (column < width).all()
    assert (row >= 0).all()
    assert (row < height).all()
    content = frame["rgb"][:, row, column]
    inner = (before.pixels[seen] > 1.5).all(axis=1) & (before.pixels[seen] < SIZE - 2.5).all(axis=1) & (content[2] == 1)
    assert inner.sum() > 15
    np.testing.assert_allclose(100 * content[:2].T[inner], before.pixels[seen][inner], atol=1.2)
    # what is visible no more has left the crop
    lost = before.visible & ~seen
    away = after.pixels[lost]
    assert ((away < 0) | (away >= (width - 1, height - 1))).any(axis=1).all()
    np.testing.assert_array_equal(inside(after, moved.boxes), inside(before, points_and_boxes.boxes))


@pytest.mark.parametrize("asked", [(3,), (3, 5, 7), ()])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_crops_hold_what_they_are_placed_around(asked, flip):
    config = dataclasses.replace(
        PLAIN, flip=flip, focus=1.0, scale_min=0.8, scale_max=1.3, crop_height=SIZE // 4, crop_width=SIZE // 4
    )
    label = np.full((SIZE, SIZE), UNLABELLED, np.uint8)
    label[5, 9], label[SIZE - 20 :, :4] = 3, 5  # one has a single pixel, the other 80
    frame = {"rgb": np.zeros((3, SIZE, SIZE), np.float32)}
    cropped = [augment(frame, label, config, np.random.default_rng(seed), None, asked)[1] for seed in range(60)]
    of_three, of_five = (sum(bool((each == value).any()) for each in cropped) for value in (3, 5))
    if asked == (3,):
        assert of_three > 40
        assert of_five == 0
    else:  # each as often, however large it is
        assert 15 < of_three < 40
        assert 20 < of_five < 45
        assert of_three + of_five > 50  # of 60; the one pixel can fall between those of a smaller picture
    places = [tuple(np.argwhere(each == 3)[0]) for each in cropped if (each == 3).any()]
    assert len(set(places)) > 5  # not always in the middle


def test_crops_lie_anywhere_where_there_is_nothing_to_place_them_around():
    config = dataclasses.replace(PLAIN, crop_height=SIZE // 4, crop_width=SIZE // 4)
    focused = dataclasses.replace(config, focus=1.0)
    label = np.arange(SIZE * SIZE, dtype=np.uint32).reshape(SIZE, SIZE).astype(np.uint8) % 4
    frame = {"rgb": np.random.default_rng(0).random((3, SIZE, SIZE), np.float32)}
    for seed in range(5):
        anywhere, _, _ = augment(frame, label, config, np.random.default_rng(seed))
        nothing, _, _ = augment(frame, label, focused, np.random.default_rng(seed), None, (9,))
        np.testing.assert_array_equal(anywhere["rgb"], nothing["rgb"])


def test_points_and_boxes_are_turned_by_themselves():
    config = dataclasses.replace(PLAIN, turn_deg=30.0, stretch=0.05)
    frame = {"rgb": np.zeros((3, SIZE, SIZE), np.float32)}
    points_and_boxes = some_space(7)
    _, _, moved = augment(frame, np.zeros((SIZE, SIZE), np.uint8), config, np.random.default_rng(0), points_and_boxes)
    turn = moved.boxes[:, 6] - points_and_boxes.boxes[:, 6]
    assert np.ptp(turn) < 1e-5
    assert 0.01 < abs(turn[0]) <= math.radians(30) + 1e-6
    np.testing.assert_allclose(moved.points["lidar"].pixels, points_and_boxes.points["lidar"].pixels, atol=1e-4)


# --------------------------------------------------------------------------------------------------------------------
# Pasting

THING = [5.0, 0.5, 0.0, 1.0, 1.0, 1.0, 0.3]


def wall(distance, camera=LEVEL_RIG):
    """A point of a wall behind each fourth pixel."""
    v, u = (each.ravel() for each in np.mgrid[0:SIZE:2, 0:SIZE:2])
    places = np.stack([np.full(u.shape, distance), -(u - 31.5) / 60 * distance, -(v - 31.5) / 60 * distance], axis=1)
    return points_of(places, camera)


def host_and_donor(host_points=None, host_boxes=(), camera=LEVEL_RIG):
    """A wall, and a thing before a wall."""
    rng = np.random.default_rng(0)
    own = points_of(rng.uniform(-0.3, 0.3, (60, 3)) + THING[:3], LEVEL_RIG)
    label = np.zeros((SIZE, SIZE), np.uint8)
    pixels = np.rint(own.pixels).astype(int)
    label[pixels[:, 1].min() : pixels[:, 1].max() + 1, pixels[:, 0].min() : pixels[:, 0].max() + 1] = 1
    rgb = rng.random((2, 3, SIZE, SIZE)).astype(np.float32)
    host_space = space_with(host_boxes, [0] * len(host_boxes), wall(10.0) if host_points is None else host_points, camera)
    host = Sample({"rgb": rgb[0]}, np.zeros((SIZE, SIZE), np.uint8), host_space)
    donor = Sample({"rgb": rgb[1], "depth": rgb[0]}, label, space_with([THING], [1], own.joined(wall(12.0))))
    return host, donor


def test_a_pasted_thing_arrives_whole_and_hides_what_is_behind_it():
    host, donor = host_and_donor()
    done = paste(host, donor, 0, 1)
    thing = donor.label == 1
    np.testing.assert_array_equal(done.label, donor.label)
    np.testing.assert_array_equal(done.frame["rgb"], np.where(thing, donor.frame["rgb"], host.frame["rgb"]))
    assert set(done.frame) == {"rgb"}
    np.testing.assert_array_equal(done.points_and_boxes.boxes, donor.points_and_boxes.boxes)
    assert done.points_and_boxes.classes.tolist() == [1]
    assert done.points_and_boxes.counts.tolist() == [60]
    assert inside(done.points_and_boxes.points["lidar"], done.points_and_boxes.boxes).sum() == 60
    points = done.points_and_boxes.points["lidar"]
    column, row = np.rint(points.pixels).astype(int).T
    behind = thing[row.clip(0, SIZE - 1), column.clip(0, SIZE - 1)] & (points.values[:, 0] > 9)
    assert not behind.any()
    covered = thing[0::2, 0::2].sum()
    assert covered > 10
    assert len(points.values) == 60 + len(wall(10.0).values) - covered  # and nothing else has gone
    assert (points.values[60 - 60 :, 0] < 11).all()  # nothing of the donor's wall
    np.testing.assert_array_equal(host.points_and_boxes.boxes, np.zeros((0, 7)))  # the host itself stays


def test_a_thing_without_a_value_in_labels_takes_its_outline_along():
    host, donor = host_and_donor()
    done = paste(host, donor, 0, -1)
    changed = (done.frame["rgb"] != host.frame["rgb"]).any(axis=0)
    assert changed.sum() > (donor.label == 1).sum()
    rows, columns = np.nonzero(changed)
    assert changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()  # a rectangle
    assert label_values(("chair", "box"), CLASSES) == (-1, 1)


@pytest.mark.parametrize(
    ("changes", "donor_changes"),
    [
        ({"host_boxes": [[5.2, 0.8, 0.0, 1.0, 1.0, 1.0, 0.0]]}, {}),  # something stands there
        ({"rig": dataclasses.replace(LEVEL_RIG, fx=61.0)}, {}),  # another camera
        ({"rig": moved_rig()}, {}),  # at another place
        ({"host_points": wall(3.0)}, {}),  # something stands in front
        ({}, {"frame": {"depth": np.zeros((3, SIZE, SIZE), np.float32)}}),  # no picture of it
        ({}, {"label": np.zeros((SIZE, SIZE), np.uint8)}),  # none of its pixels is known
    ],
)
def test_a_thing_is_not_pasted_where_it_cannot_be(changes, donor_changes):
    host, donor = host_and_donor(**changes)
    assert paste(host, dataclasses.replace(donor, **donor_changes), 0, 1) is host


def test_a_thing_that_is_hidden_where_it_comes_from_is_not_pasted():
    host, donor = host_and_donor()
    points = donor.points_and_boxes.points["lidar"]
    on_thing = inside(points, np.array([THING], np.float32))[0]
    hidden = dataclasses.replace(points, visible=points.visible & ~on_thing)
    points_and_boxes = dataclasses.replace(donor.points_and_boxes, points={"lidar": hidden})
    assert paste(host, dataclasses.replace(donor, points_and_boxes=points_and_boxes), 0, 1) is host

    # a rim of it is not enough either
    rim = np.zeros_like(donor.label)
    column, row = np.rint(points.pixels[on_thing]).astype(int).T
    rim[row.max(), column.min() : column.max() + 1] = 1
    assert paste(host, dataclasses.replace(donor, label=rim), 0, 1) is host


def test_things_beside_each_other_are_no_obstacle():
    host, donor = host_and_donor(host_boxes=[[5.0, 3.0, 0.0, 1.0, 1.0, 1.0, 0.0]])
    assert paste(host, donor, 0, 1).points_and_boxes.boxes.shape == (2, 7)


# --------------------------------------------------------------------------------------------------------------------
# Labels

BASE_FROM_REFERENCE = np.linalg.inv(moved_rig().reference_from_base)
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
    from gemini_core.bag.reader import BagReader

    read = BagReader.messages

    def without(self, topics):
        for stored in read(self, topics):
            stored.message.detections[0].results.clear()
            yield stored

    monkeypatch.setattr(BagReader, "messages", without)
    with pytest.raises(DataError, match="expected a hypothesis with a class for each box, got none at 100000000 ns"):
        BoxLabels(path, LABELS, BOXES)


# --------------------------------------------------------------------------------------------------------------------
# The cache


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_boxed_training(tmp_path_factory.mktemp("boxed"))


@pytest.fixture(scope="module")
def fusion(folder):
    return load_config(folder / "fusion.yaml")


@pytest.fixture(scope="module")
def boxed(folder, fusion):
    return cache_bag(folder / "train", fusion, TOPICS, folder / "cache", boxes=BOXES)


def test_cached_frames_know_their_points_and_boxes(boxed):
    rng = np.random.default_rng(1)
    reader = ShardReader((boxed,))
    assert boxed.box_classes == BOX_CLASSES
    listed = reader.labelled_boxes()
    assert [(frame, row) for frame, row, _, _ in listed] == [(frame, 0) for frame in range(6)]
    for index in range(6):
        box, named, _, _, _, points = scene(rng)
        points_and_boxes = reader.points_and_boxes(index)
        np.testing.assert_allclose(points_and_boxes.boxes, box[None], atol=1e-4)
        assert points_and_boxes.classes.tolist() == [BOX_CLASSES.index(named)] == [listed[index][2]]
        assert points_and_boxes.counts.tolist() == [80] == [listed[index][3]]
        np.testing.assert_allclose(np.sort(points_and_boxes.points["lidar"].values[:, 0]), np.sort(points[:, 0]), atol=1e-4)
        seen = points_and_boxes.points["lidar"]
        np.testing.assert_allclose(
            seen.pixels[seen.visible], LEVEL_RIG.project(seen.values[seen.visible, :3].astype(np.float64))[:, :2], atol=0.05
        )
        assert points_and_boxes.camera.same(LEVEL_RIG)
        # a quarter of the pixels, at the wall or at the thing
        depth = points_and_boxes.points["depth"].values
        assert len(depth) == SIZE * SIZE // 4
        distances = np.unique(np.rint(depth[:, 0] * 1000)) / 1000
        np.testing.assert_allclose(distances, [np.floor(1000 * box[0]) / 1000, 11.0], atol=1e-6)


def test_another_topic_of_boxes_makes_another_cache(fusion, tmp_path):
    bag = write_boxed(tmp_path / "bag", 3, frames=1, topics=(BOXES, "/others"))
    folders = {cache_bag(bag, fusion, TOPICS, tmp_path / "cache", boxes=topic).folder for topic in (BOXES, "/others", "")}
    assert len(folders) == 3
    other = dataclasses.replace(fusion, detections=dataclasses.replace(fusion.detections, depth_stride=4))
    assert cache_bag(bag, other, TOPICS, tmp_path / "cache", boxes=BOXES).folder not in folders
    assert cache_bag(bag, other, TOPICS, tmp_path / "cache").folder in folders  # frames without boxes do not depend on it


def test_frames_without_boxes_say_so(folder, fusion):
    plain = cache_bag(folder / "val", fusion, TOPICS, folder / "cache")
    reader = ShardReader((plain,))
    assert plain.box_classes == ()
    with pytest.raises(
        DataError, match=r"shard-0000.safetensors: expected the shard as it was written, got no points and boxes"
    ):
        reader.points_and_boxes(0)
    with pytest.raises(DataError, match=r"shard-0000.safetensors: expected the shard as it was written, got .*boxes.at"):
        reader.labelled_boxes()


def test_a_damaged_shard_of_boxes_is_named(fusion, tmp_path):
    bag = cache_bag(write_boxed(tmp_path / "bag", 3, frames=1), fusion, TOPICS, tmp_path / "cache", boxes=BOXES)
    path = bag.folder / bag.shards[0][0]
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    for use in (lambda: ShardReader((bag,)).points_and_boxes(0), lambda: ShardReader((bag,)).labelled_boxes()):
        with pytest.raises(DataError, match=r"shard-0000.safetensors: expected .* got other bytes than were written; delete"):
            use()


def test_frames_without_boxes_are_left_out_and_a_bag_of_none_is_refused(fusion, tmp_path):
    path = write_boxed(tmp_path / "bag", 3, frames=2, boxes_frame="elsewhere")
    with pytest.raises(DataError, match="in one of the frames camera, got 'elsewhere'"):
        cache_bag(path, fusion, TOPICS, tmp_path / "cache", boxes=BOXES)
    unlabelled = cache_bag(
        write_boxed(tmp_path / "bare", 3, frames=2, masks=False), fusion, LabelTopics("", ""), tmp_path, boxes=BOXES
    )
    assert unlabelled.frames == 2
    assert sum(unlabelled.class_pixels) == 0


# --------------------------------------------------------------------------------------------------------------------
# The loss

SMALL = DetectorConfig(BOX_CLASSES, (0.0, -6.4, -2.0, 12.8, 6.4, 2.0), 0.4, "lidar")


def space_batch(boxes, classes, half_rad=0.5):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 7)
    return LabelledClouds((), boxes, torch.tensor(classes, dtype=torch.int64), FieldOfView(0.0, 0.0, 0.0, half_rad))


def heat_at(x, y, value, detector):
    maps = torch.full((1, 2, detector.config.head_grid.rows, detector.config.head_grid.columns), -4.0)
    column, row = (int(each) for each in detector.config.head_grid.place(torch.tensor([[x, y]]))[0])
    maps[0, :, row, column] = value
    from gemini_core.model.detection.pillars.codec import BevMaps

    return BevMaps(maps, torch.zeros(1, 10, *maps.shape[2:]))


def test_what_is_found_outside_the_view_is_not_wrong():
    detector = Detector(SMALL)
    points_and_boxes = space_batch([[6, 0, 0, 1, 1, 1, 0]], [0])
    # at 0.74 rad, and at 0.11
    outside = boxes_loss(heat_at(6, 5.5, 4.0, detector), (points_and_boxes,), detector).heat
    quiet = boxes_loss(heat_at(6, 5.5, -4.0, detector), (points_and_boxes,), detector).heat
    assert torch.equal(outside, quiet)
    assert boxes_loss(heat_at(9, 1, 4.0, detector), (points_and_boxes,), detector).heat > quiet + 5


def test_a_labelled_centre_counts_wherever_it_is():
    detector = Detector(SMALL)
    points_and_boxes = space_batch([[6, 5.5, 0, 1, 1, 1, 0]], [0])
    found, missed = (boxes_loss(heat_at(6, 5.5, value, detector), (points_and_boxes,), detector).heat for value in (3.0, -4.0))
    assert found < missed


@pytest.mark.parametrize(
    "box", [[6, 0, 0, 0, 1, 1, 0], [6, 0, 0, 1, -1, 1, 0], [math.nan, 0, 0, 1, 1, 1, 0], [6, 0, 0, 1, 1, 0, 0]]
)
def test_boxes_that_are_none_change_nothing(box):
    detector = Detector(SMALL)
    maps = heat_at(6, 0, 1.0, detector)
    good = [7, 1, 0, 1, 1, 1, 0.2]
    with_it = boxes_loss(maps, (space_batch([good, box], [1, 0]),), detector)
    without = boxes_loss(maps, (space_batch([good], [1]),), detector)
    assert all(torch.isfinite(part) for part in with_it)
    assert torch.equal(with_it.total, without.total)
    assert torch.isfinite(boxes_loss(maps, (space_batch([box], [IGNORED]),), detector).total)


# --------------------------------------------------------------------------------------------------------------------
# Runs


@pytest.fixture
def recipe(folder, tmp_path):
    return recipe_of(folder, tmp_path / "run")


@pytest.fixture(scope="module")
def whole(folder):
    """A run of masks and boxes to its end."""
    out = folder / "whole"
    training.train(load_training_config(str(folder / "recipe.yaml"), {"run.out": str(out)}))
    return out


def test_a_run_trains_masks_and_boxes_and_saves_both(whole):
    segmenter, info = checkpoints.load(whole / "best.safetensors")
    assert info.class_names == CLASSES
    assert segmenter.detector.config.classes == BOX_CLASSES
    assert segmenter.detector.config.range_m == (0.0, -6.4, -2.0, 12.8, 6.4, 2.0)
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert all(0 < line["boxes_loss"] < line["loss"] for line in lines if "loss" in line)
    assert {"mean_iou", "bev_ap"} <= lines[-1].keys()
    assert "mean AP of boxes" in info.description
    fresh, trained = (load_file(path) for path in (whole / "best.safetensors", whole / "last.safetensors"))
    assert any(key.startswith("detector.") for key in trained)
    assert fresh.keys() == trained.keys()


def test_a_stopped_run_with_boxes_ends_with_the_same_bits(recipe, whole, tmp_path, monkeypatch):
    def stop(state, path):
        save_state(state, path)
        if state.step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training, "save_state", stop)
        with pytest.raises(KeyboardInterrupt):
            training.train(recipe())
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["step"] == 2
    training.train(recipe())
    ours, theirs = (load_file(folder / "last.safetensors") for folder in (tmp_path / "run", whole))
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        assert torch.equal(tensor, ours[key]), key


@pytest.mark.parametrize("painted", [False, True])
def test_a_detector_trained_alone_leaves_everything_else_as_it_was(recipe, whole, tmp_path, painted):
    own = {"detection__alone": True, "detection__painted": painted, "data__labels": "", "run__seed": 1}
    own |= {"run__precision": "bf16"} if painted else {}  # in which the masks come, too
    config = recipe(model__weights=str(whole / "best.safetensors"), **own)
    torch.manual_seed(1)
    before = training._segmenter(config, 2, BOX_CLASSES).state_dict()
    training.train(config)
    after = load_file(tmp_path / "run" / "last.safetensors")
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        if not key.startswith("detector."):
            assert torch.equal(tensor, after[key]), key
    mapped = "detector.pillars.fusion.image_map.weight"
    moved = (after[mapped] - before[mapped]).abs().sum(dim=0) > 0
    assert moved.shape == (512 + (2 if painted else 0),)  # features of all stages, classes of the masks
    assert moved[-2:].all()
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[-1].keys() == {"step", "bev_ap"}


def test_a_detector_begins_anew_where_the_weights_have_another_one(recipe, whole):
    config = recipe(model__weights=str(whole / "best.safetensors"), detection__cell_m=0.4)
    torch.manual_seed(0)
    segmenter = training._segmenter(config, 2, BOX_CLASSES)
    before = load_file(whole / "best.safetensors")
    state = segmenter.state_dict()
    assert all(torch.equal(state[key], before[key]) for key in before if not key.startswith("detector.") and key in state)
    assert any(not torch.equal(state[key], before[key]) for key in before if key.startswith("detector."))


@pytest.mark.parametrize(
    ("points", "lidar", "source"),
    [("auto", True, "lidar"), ("auto", False, "depth"), ("lidar", False, "lidar"), ("depth", True, "depth")],
)
def test_points_are_those_of_depth_where_the_lidar_is_taken_away(recipe, boxed, points, lidar, source):
    config = recipe(detection__points=points)
    normalization = checkpoints.default_normalization(config.model.modalities)
    dataset = FrameDataset((boxed,), config.model.modalities, normalization, min_points=1)
    batch = collate([dataset[0, 0], dataset[1, 0]])
    clouds = training._clouds(config, batch, [True, True, lidar], torch.device("cpu"))
    expected = [dataset.reader.points_and_boxes(index).points[source].values for index in range(2)]
    for cloud, values in zip(clouds, expected, strict=True):
        np.testing.assert_array_equal(cloud.points.numpy(), values)


def test_a_modality_is_left_out_at_its_own_rate(recipe):
    config = recipe(augment__modality_dropout=0.1, augment__modality_rates="lidar:0.5")
    kept = np.array([training.modality_presence(config, number) for number in range(2000)]).mean(axis=0)
    np.testing.assert_allclose(kept, [1.0, 0.9, 0.5], atol=0.03)  # rgb, depth, lidar


def test_boxes_with_too_few_points_are_ignored(boxed):
    modalities = ("rgb", "depth", "lidar")
    for least, wanted in ((80, {0, 1}), (81, {IGNORED})):
        dataset = FrameDataset((boxed,), modalities, checkpoints.default_normalization(modalities), min_points=least)
        assert {int(named) for index in range(6) for named in dataset[index, 0].labelled_clouds[0].classes} <= wanted


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"detection__enabled": False, "detection__alone": True}, "detection.alone: expected detection.enabled, got false"),
        ({"data__labels": ""}, "data.labels: expected a topic of label images, but for detection.alone, got none"),
        (
            {"detection__alone": True, "detection__painted": True, "model__weights": ""},
            "detection.painted: expected model.weights with detection.alone, which leaves the masks as they are, got none",
        ),
        ({"model__given": ["depth"]}, "model.given: expected rgb and others of rgb, depth, lidar, got depth"),
        ({"model__given": ["rgb", "event"]}, "model.given: expected rgb and others of rgb, depth, lidar, got rgb, event"),
        ({"detection__z_min_m": 3.0}, "range_m: expected the least z below the largest"),
        ({"augment__modality_rates": "lidar"}, "augment.modality_rates: expected 'modality:rate', got 'lidar'"),
        ({"augment__modality_rates": "rgb:0.1"}, "augment.modality_rates: expected a modality of model.modalities without rgb"),
        ({"augment__modality_rates": "lidar:0.95"}, "augment.modality_rates: expected a rate from 0 to 0.9 after the modality"),
    ],
)
def test_a_run_that_cannot_be_is_refused(recipe, options, words):
    with pytest.raises(ConfigError, match=words):
        recipe(**options)


# --------------------------------------------------------------------------------------------------------------------
# Real frames

KITTI = """
modalities: [rgb, lidar]
lidar: {{slop_ms: 60.0, max_m: 80.0, max_intensity: 1.0}}
grid: {{height: 64, width: 224}}
motion: {{fixed_frame: ""}}
model: {{classes: [road, car]}}
detections: {{classes: [{classes}]}}
"""
KITTI_RECIPE = """
data: {{fusion: {folder}/fusion.yaml, train: ["{folder}/kitti"], val: [], cache: {folder}/cache, workers: 0, labels: ""}}
model: {{modalities: [rgb, lidar], given: [rgb], head_width: 32, drop_path: 0.0}}
detection:
  {{enabled: true, alone: true, x_max_m: 51.2, y_max_m: 12.8, cell_m: 0.4, points: lidar, lr_factor: 1.0, min_points: 5}}
augment: {{flip: 0.0, scale_min: 1.0, scale_max: 1.0, color_jitter: 0.0, blur: 0.0, modality_dropout: 0.0}}
optimizer: {{lr: 3.0e-3, steps: 60, warmup_steps: 10, batch_size: 2, clip_norm: 10.0}}
run: {{out: {folder}/run, checkpoint_every: 1000, threads: 1}}
"""


def test_training_on_real_frames_gives_back_their_boxes(real_dir, tmp_path):
    if not (real_dir / "kitti_object").is_dir():
        pytest.skip("no frames of KITTI object")
    kitti.from_kitti_object(real_dir / "kitti_object", tmp_path / "kitti")
    classes = ("car", "cyclist", "misc")
    (tmp_path / "fusion.yaml").write_text(KITTI.format(classes=", ".join(classes)))
    (tmp_path / "recipe.yaml").write_text(KITTI_RECIPE.format(folder=tmp_path))
    config = load_training_config(str(tmp_path / "recipe.yaml"))
    training.train(config)
    segmenter, info = checkpoints.load(tmp_path / "run" / "last.safetensors")
    bag = cache_bag(
        tmp_path / "kitti", load_config(tmp_path / "fusion.yaml"), LabelTopics("", ""), tmp_path / "cache", boxes=BOXES
    )
    dataset = FrameDataset((bag,), ("rgb", "lidar"), info.normalization, min_points=5)
    count = 0
    for index in range(len(dataset)):
        batch = collate([dataset[index, 0]])
        points_and_boxes = batch.labelled_clouds[0]
        clouds = training._clouds(config, batch, [True, False], torch.device("cpu"))
        with torch.inference_mode():
            maps = segmenter.quarter_logits(tuple(batch.images), [True, False], clouds=clouds).boxes
        found = segmenter.detector.find(maps, min_score=0.3)[0]
        grid = segmenter.detector.config.head_grid
        wanted = (
            (points_and_boxes.classes != IGNORED)
            & points_and_boxes.field_of_view.holds(points_and_boxes.boxes[:, :2])
            & grid.holds(grid.place(points_and_boxes.boxes[:, :2]))
        )
        for box, named in zip(points_and_boxes.boxes[wanted], points_and_boxes.classes[wanted], strict=True):
            same = found.classes == named
            assert iou_3d(box[None], found.boxes[same]).max() >= 0.7
            count += 1
    assert count == 3  # a truck and a car are farther than 51.2 m

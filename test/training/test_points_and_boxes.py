"""Points, boxes and camera of a frame: on disk, in view, mirrored and turned."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from boxed_bags import (
    OPTICAL_FROM_LEVEL,
)
from labelled_bags import SIZE
from labelled_frames import LEVEL_CAMERA, labelled_with, moved_camera, seen_points, some_labelled
from training.points_and_boxes import (
    FieldOfView,
    GridCamera,
    inside,
    pack_points_and_boxes,
    unpack_points_and_boxes,
)


def test_what_a_shard_keeps_of_space_comes_back(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    first = some_labelled(1)
    depth_only = dataclasses.replace(
        some_labelled(2, moved_camera(), 7), points={"depth": some_labelled(2, moved_camera(), 7).points["lidar"]}
    )
    empty = labelled_with([], [], seen_points([], LEVEL_CAMERA))
    frames = [first, depth_only, empty, some_labelled(3)]
    save_file(pack_points_and_boxes(frames), tmp_path / "shard.safetensors")
    with safe_open(tmp_path / "shard.safetensors", framework="pt") as file:
        for row, labelled in enumerate(frames):
            back = unpack_points_and_boxes(file, row, SIZE, SIZE)
            assert set(back.points) == set(labelled.points)
            for source, points in labelled.points.items():
                np.testing.assert_array_equal(back.points[source].values, points.values)
                np.testing.assert_array_equal(back.points[source].visible, points.visible)
                near = np.abs(points.pixels).max(axis=1) < 1000
                np.testing.assert_allclose(back.points[source].pixels[near], points.pixels[near], rtol=0, atol=1 / 64)
            for name in ("boxes", "classes", "counts"):
                np.testing.assert_array_equal(getattr(back, name), getattr(labelled, name))
            assert back.camera.same(labelled.camera)
            assert dataclasses.astuple(back.field_of_view) == pytest.approx(dataclasses.astuple(labelled.field_of_view))
        assert len(back.cloud("depth").points) == 50  # the other source where one lacks


def test_a_camera_sees_the_ground_between_its_picture_s_edges():
    view = GridCamera(60.0, 60.0, 20.0, 31.5, OPTICAL_FROM_LEVEL).field_of_view(SIZE, SIZE)
    left, right = math.atan(20.5 / 60), -math.atan(43.5 / 60)
    assert (view.x_m, view.y_m) == pytest.approx((0, 0))
    assert view.middle_rad == pytest.approx((left + right) / 2)
    assert view.half_rad == pytest.approx((left - right) / 2)
    angles = torch.tensor([left - 0.01, left + 0.01, right + 0.01, right - 0.01, math.pi])
    assert view.holds(torch.stack([angles.cos(), angles.sin()], dim=1) * 7).tolist() == [
        True,
        False,
        True,
        False,
        False,
    ]


def test_a_view_backwards_has_no_jump():
    view = FieldOfView(1.0, 2.0, math.pi, 0.5)
    places = torch.tensor([[-5.0, 2.1], [-5.0, 1.9], [5.0, 2.0], [-5.0, 7.0]])
    assert view.holds(places).tolist() == [True, True, False, False]


def test_mirrored_twice_is_as_before():
    labelled = some_labelled(4, moved_camera())
    back = labelled.mirrored(SIZE).mirrored(SIZE)
    np.testing.assert_array_equal(back.boxes, labelled.boxes)
    np.testing.assert_array_equal(back.points["lidar"].values, labelled.points["lidar"].values)
    np.testing.assert_allclose(back.points["lidar"].pixels, labelled.points["lidar"].pixels, atol=1e-4)
    assert back.field_of_view == labelled.field_of_view


def test_a_mirrored_camera_sees_mirrored_points_at_mirrored_pixels():
    camera = moved_camera()
    labelled = some_labelled(5, camera)
    mirrored = labelled.mirrored(SIZE)
    across, over = np.diag([-1.0, 1, 1, 1]), np.diag([1.0, -1, 1, 1])
    other = dataclasses.replace(camera, cx=SIZE - 1 - camera.cx, reference_from_base=across @ camera.reference_from_base @ over)
    seen = mirrored.points["lidar"]
    projected = other.project(seen.values[:, :3].astype(np.float64))
    assert (projected[:, 2] > 0).sum() > 20
    np.testing.assert_allclose(seen.pixels[projected[:, 2] > 0], projected[projected[:, 2] > 0, :2], atol=1e-3)
    assert dataclasses.astuple(mirrored.field_of_view) == pytest.approx(dataclasses.astuple(other.field_of_view(SIZE, SIZE)))
    np.testing.assert_array_equal(inside(seen, mirrored.boxes), inside(labelled.points["lidar"], labelled.boxes))


numbers = st.floats(-1, 1, width=32)


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[numbers] * 3), st.floats(-3.1, 3.1), st.floats(-3.1, 3.1), st.floats(0.5, 1.5), st.booleans())
def test_a_point_of_a_box_stays_in_it_however_the_world_is_turned(share, yaw, angle, factor, mirrored):
    box = np.array([6.0, -2.0, 0.5, 4.0, 1.8, 1.5, yaw])
    own = np.array(share) * 0.49 * box[3:6]
    place = box[:3] + Rotation.from_euler("z", yaw).as_matrix() @ own
    outside = box[:3] + Rotation.from_euler("z", yaw).as_matrix() @ (own + np.sign(own + 1e-9) * box[3:6])
    labelled = labelled_with([box], [0], seen_points([place, outside], LEVEL_CAMERA))
    turned = (labelled.mirrored(SIZE) if mirrored else labelled).turned(angle, factor)
    assert inside(turned.points["lidar"], turned.boxes).tolist() == [[True, False]]
    np.testing.assert_allclose(turned.boxes[0, 3:6], box[3:6] * factor, rtol=1e-5)
    np.testing.assert_array_equal(turned.points["lidar"].values[:, 3], 0.5)


def test_what_is_seen_is_seen_after_a_turn():
    labelled = some_labelled(6, moved_camera(x=1.0, y=2.0))
    turned = labelled.turned(0.7, 1.2)
    before, after = (torch.from_numpy(each.points["lidar"].values[:, :2]) for each in (labelled, turned))
    assert 0 < labelled.field_of_view.holds(before).sum() < len(before)
    assert torch.equal(labelled.field_of_view.holds(before), turned.field_of_view.holds(after))

"""Ground-truth sampling: a pasted thing is whole, hides what is behind it, and is not put where it cannot be."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from labelled_bags import CLASSES, SIZE
from labelled_frames import LEVEL_CAMERA, labelled_with, moved_camera, seen_points
from training.paste import Sample, label_values, paste
from training.points_and_boxes import (
    inside,
)

THING = [5.0, 0.5, 0.0, 1.0, 1.0, 1.0, 0.3]


def wall(distance, camera=LEVEL_CAMERA):
    """A point of a wall behind each fourth pixel."""
    v, u = (each.ravel() for each in np.mgrid[0:SIZE:2, 0:SIZE:2])
    places = np.stack([np.full(u.shape, distance), -(u - 31.5) / 60 * distance, -(v - 31.5) / 60 * distance], axis=1)
    return seen_points(places, camera)


def host_and_donor(host_points=None, host_boxes=(), camera=LEVEL_CAMERA):
    """A wall, and a thing before a wall."""
    rng = np.random.default_rng(0)
    own = seen_points(rng.uniform(-0.3, 0.3, (60, 3)) + THING[:3], LEVEL_CAMERA)
    label = np.zeros((SIZE, SIZE), np.uint8)
    pixels = np.rint(own.pixels).astype(int)
    label[pixels[:, 1].min() : pixels[:, 1].max() + 1, pixels[:, 0].min() : pixels[:, 0].max() + 1] = 1
    rgb = rng.random((2, 3, SIZE, SIZE)).astype(np.float32)
    host_labelled = labelled_with(host_boxes, [0] * len(host_boxes), wall(10.0) if host_points is None else host_points, camera)
    host = Sample({"rgb": rgb[0]}, np.zeros((SIZE, SIZE), np.uint8), host_labelled)
    donor = Sample({"rgb": rgb[1], "depth": rgb[0]}, label, labelled_with([THING], [1], own.joined(wall(12.0))))
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
        ({"camera": dataclasses.replace(LEVEL_CAMERA, fx=61.0)}, {}),  # another camera
        ({"camera": moved_camera()}, {}),  # at another place
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
    labelled = dataclasses.replace(donor.points_and_boxes, points={"lidar": hidden})
    assert paste(host, dataclasses.replace(donor, points_and_boxes=labelled), 0, 1) is host

    # a rim of it is not enough either
    rim = np.zeros_like(donor.label)
    column, row = np.rint(points.pixels[on_thing]).astype(int).T
    rim[row.max(), column.min() : column.max() + 1] = 1
    assert paste(host, dataclasses.replace(donor, label=rim), 0, 1) is host


def test_things_beside_each_other_are_no_obstacle():
    host, donor = host_and_donor(host_boxes=[[5.0, 3.0, 0.0, 1.0, 1.0, 1.0, 0.0]])
    assert paste(host, donor, 0, 1).points_and_boxes.boxes.shape == (2, 7)

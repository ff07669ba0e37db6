"""The losses of boxes where the camera does not look, and of labels that are none."""

from __future__ import annotations

import math

import pytest
import torch

from boxed_bags import (
    BOX_CLASSES,
)
from gemini_core.model.detection.interface import IGNORED
from gemini_core.model.detection.pillars.detector import Detector, DetectorConfig
from mvxnets import random_cloud, small
from training.data import LabelledClouds
from training.losses import anchors_loss, boxes_loss
from training.points_and_boxes import (
    FieldOfView,
)

SMALL = DetectorConfig(BOX_CLASSES, (0.0, -6.4, -2.0, 12.8, 6.4, 2.0), 0.4, "lidar")


def labelled_clouds(boxes, classes, half_rad=0.5):
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
    labelled = labelled_clouds([[6, 0, 0, 1, 1, 1, 0]], [0])
    # at 0.74 rad, and at 0.11
    outside = boxes_loss(heat_at(6, 5.5, 4.0, detector), (labelled,), detector).heat
    quiet = boxes_loss(heat_at(6, 5.5, -4.0, detector), (labelled,), detector).heat
    assert torch.equal(outside, quiet)
    assert boxes_loss(heat_at(9, 1, 4.0, detector), (labelled,), detector).heat > quiet + 5


def test_a_labelled_centre_counts_wherever_it_is():
    detector = Detector(SMALL)
    labelled = labelled_clouds([[6, 5.5, 0, 1, 1, 1, 0]], [0])
    found, missed = (boxes_loss(heat_at(6, 5.5, value, detector), (labelled,), detector).heat for value in (3.0, -4.0))
    assert found < missed


@pytest.mark.parametrize(
    "box", [[6, 0, 0, 0, 1, 1, 0], [6, 0, 0, 1, -1, 1, 0], [math.nan, 0, 0, 1, 1, 1, 0], [6, 0, 0, 1, 1, 0, 0]]
)
def test_boxes_that_are_none_change_nothing(box):
    detector = Detector(SMALL)
    maps = heat_at(6, 0, 1.0, detector)
    good = [7, 1, 0, 1, 1, 1, 0.2]
    with_it = boxes_loss(maps, (labelled_clouds([good, box], [1, 0]),), detector)
    without = boxes_loss(maps, (labelled_clouds([good], [1]),), detector)
    assert all(torch.isfinite(part) for part in with_it)
    assert torch.equal(with_it.total, without.total)
    assert torch.isfinite(boxes_loss(maps, (labelled_clouds([box], [IGNORED]),), detector).total)


def test_anchors_outside_the_view_are_not_wrong():
    network = small().train()
    maps = network([random_cloud()])
    labelled = LabelledClouds((), torch.zeros(0, 7), torch.zeros(0, dtype=torch.int64), FieldOfView(0.0, 0.0, 0.0, 0.5))
    scores = maps.scores.detach().requires_grad_()
    anchors_loss(maps._replace(scores=scores), (labelled,), network).total.backward()
    places = network.anchors(maps)[:, :, 0, 0, :2]
    asked = scores.grad[0].abs().amax(0) > 0
    assert torch.equal(asked, labelled.field_of_view.holds(places))
    assert 0 < asked.sum() < asked.numel()

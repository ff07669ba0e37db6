"""Losses of the pillar detector, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from gemini_core.errors import ConfigError
from gemini_core.model.detection.pillars import codec, losses
from pillar_detectors import GRID, as_boxes, perfect


def test_heat_loss_by_hand():
    """p = 1/2 everywhere: (1/4) log 2 at the centre, (1 - heat)^4 (1/4) log 2 elsewhere, per centre."""
    heat = torch.tensor([1.0, 0.5, 0.0, 0.0]).view(1, 1, 2, 2)
    counted = torch.tensor([1.0, 1.0, 1.0, 0.0]).view(1, 1, 2, 2)
    loss = losses.heat_loss(torch.zeros_like(heat), heat, counted)
    assert loss.item() == pytest.approx(0.25 * math.log(2) * (1 + 0.5**4 + 1))


def test_a_perfect_head_has_no_loss():
    boxes = as_boxes((5, 0, 0, 4, 2, 1.5, 0.3), (9, 3, 0, 0.8, 0.6, 1.7, -2))
    targets = codec.encode([boxes], [torch.tensor([0, 1])], GRID, 2)
    sure = codec.BevMaps(torch.where(targets.heat == 1, 20.0, -20.0), targets.boxes)
    assert losses.detection_loss(sure, targets, 0.4).total < 1e-6


def test_which_way_is_forward_is_a_loss_of_its_own():
    boxes = as_boxes((5, 0, 0, 4, 2, 1.5, 0.3))
    turned = boxes + torch.tensor([0, 0, 0, 0, 0, 0, math.pi])
    targets, wrong = (codec.encode([each], [torch.tensor([0])], GRID, 1) for each in (boxes, turned))
    loss = losses.detection_loss(perfect(wrong), targets, 0.4)
    assert loss.box == 0
    assert loss.axis < 1e-6
    assert loss.heading > 1.0


def test_the_variance_that_is_most_likely_is_what_boxes_are_off_by():
    boxes = as_boxes((5.0, 0.1, 0.5, 4, 2, 1.5, 0.3))
    moved = boxes + torch.tensor([0.1, -0.05, 0.2, 0, 0, 0, 0.15])
    targets, off = (codec.encode([each], [torch.tensor([0])], GRID, 1) for each in (boxes, moved))
    assert torch.equal(targets.heat, off.heat)
    wanted = torch.tensor([0.1, 0.05, 0.2, 0.15]).square().log().view(1, 4, 1, 1)
    log_variance = wanted.expand(1, 4, GRID.rows, GRID.columns).clone().requires_grad_()
    loss = losses.detection_loss(perfect(off, log_variance), targets, GRID.cell_m)
    (slope,) = torch.autograd.grad(loss.variance, log_variance)
    assert slope.abs().max() < 1e-4
    (found,) = codec.decode(perfect(off, log_variance.detach()), GRID, min_score=0.9)
    assert found.variances[0].tolist() == pytest.approx([0.01, 0.0025, 0.04, 0.0225], rel=1e-4)


def test_a_loss_does_not_count_less_than_nothing():
    with pytest.raises(ConfigError, match="loss weight axis: expected 0 or more, got -1"):
        losses.LossWeights(axis=-1)

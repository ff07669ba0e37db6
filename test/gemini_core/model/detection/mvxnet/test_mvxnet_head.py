"""MVX-Net's anchors, targets, losses, and boxes out of maps."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from hypothesis import given
from hypothesis import strategies as st

from gemini_core.errors import ShapeError
from gemini_core.model.detection.interface import IGNORED
from gemini_core.model.detection.mvxnet.config import MvxNetConfig
from gemini_core.model.detection.mvxnet.head import (
    MvxMaps,
    anchor_loss,
    assign,
    decode_boxes,
    direction_of,
    encode_boxes,
    find_boxes,
    make_anchors,
    nearest_iou,
    turn_to,
)
from mvxnets import CAR, PEDESTRIAN, a_scene, all_cells, config, on_anchor

# --------------------------------------------------------------------------------------------------------------------
# Anchors


def test_anchors_of_the_released_model():
    """From edge to edge of the range, in the order of the head's channels; z is at the centre."""
    anchors = make_anchors(MvxNetConfig(), torch.zeros(0))
    assert anchors.shape == (200, 176, 3, 2, 7)
    car, pedestrian = anchors[0, 0, 2, 1], anchors[199, 175, 0, 0]
    torch.testing.assert_close(car, torch.tensor([0.0, -40.0, -1.78 + 0.78, 3.9, 1.6, 1.56, 1.57]))
    torch.testing.assert_close(pedestrian, torch.tensor([70.4, 40.0, -0.6 + 0.865, 0.8, 0.6, 1.73, 0.0]))
    torch.testing.assert_close(anchors[7, 9, 1, 0, :2], torch.tensor([9 * 70.4 / 175, -40 + 7 * 80 / 199]))


place = st.floats(-70, 70)


side = st.floats(0.3, 12)  # of a box within fifty times of its anchor


numbers_of_a_box = st.tuples(place, place, st.floats(-5, 5), side, side, side, st.floats(-math.pi, math.pi))


@given(numbers_of_a_box, numbers_of_a_box)
def test_boxes_come_back_from_their_numbers(box, anchor):
    box, anchor = torch.tensor(box, dtype=torch.float64), torch.tensor(anchor, dtype=torch.float64)
    torch.testing.assert_close(decode_boxes(encode_boxes(box, anchor), anchor), box, atol=1e-9, rtol=1e-9)


def test_numbers_of_a_box_are_the_released_models():
    """Its encoding holds z at the bottom of both and adds half the heights first; worked by hand for a 3-4-5 anchor."""
    anchor = torch.tensor([1.0, 2.0, -1.0 + 0.75, 4.0, 3.0, 1.5, 0.5])
    box = torch.tensor([6.0, -8.0, 0.5 + 1.0, 8.0, 1.5, 2.0, 0.8])
    expected = torch.tensor([1.0, -2.0, ((0.5 + 1.0) - (-1.0 + 0.75)) / 1.5, math.log(2), -math.log(2), math.log(4 / 3), 0.3])
    torch.testing.assert_close(encode_boxes(box, anchor), expected)


@given(st.floats(-math.pi + 1e-3, math.pi), st.integers(-3, 3))
def test_the_direction_settles_which_way_is_forward(yaw, halves):
    yaw = torch.tensor(yaw, dtype=torch.float64)
    got = turn_to(yaw + halves * math.pi, direction_of(yaw))
    assert -math.pi < got <= math.pi
    # At the border of both halves, the smallest rounding decides: then the axis is right and the way is not.
    if abs(abs(float(yaw)) - math.pi / 2) > 1e-6:
        assert abs(float(torch.remainder(got - yaw + math.pi, 2 * math.pi)) - math.pi) < 1e-9


def test_directions_are_halves_of_the_circle():
    degrees = torch.tensor([-179.0, -91.0, -89.0, 0.0, 89.0, 91.0, 180.0, 271.0])
    assert direction_of(degrees * math.pi / 180).tolist() == [1, 1, 0, 0, 0, 1, 1, 0]


def test_nearest_overlap_turns_boxes_to_the_nearer_axis():
    a = torch.tensor([[0.0, 0.0, 0.0, 4.0, 2.0, 1.0, 0.0]])
    b = torch.tensor(
        [[0.0, 0.0, 9.0, 4.0, 2.0, 1.0, yaw] for yaw in (0.7, 0.8, math.pi - 0.1, -1.57)] + [[3.0, 0, 0, 4, 2, 1, 0]]
    )
    torch.testing.assert_close(nearest_iou(a, b), torch.tensor([[1.0, 1 / 3, 1.0, 1 / 3, 1 / 7]]))


def test_anchors_become_the_class_of_the_box_they_overlap():
    numbers = config()
    anchors = make_anchors(numbers, torch.zeros(0))
    box = on_anchor(3, 4, CAR)
    targets = assign(box[None], torch.tensor([CAR]), anchors, numbers)
    overlap = nearest_iou(box[None], anchors[:, :, CAR].reshape(-1, 7)).view(8, 8, 2)
    assert (targets.classes[:, :, PEDESTRIAN] == 2).all()  # boxes of other classes do not count
    assert targets.classes[3, 4, CAR, 0] == CAR
    torch.testing.assert_close(targets.boxes[3, 4, CAR, 0], box)
    car = targets.classes[:, :, CAR]
    assert torch.equal(car == CAR, overlap >= 0.5)
    assert torch.equal(car == IGNORED, (overlap >= 0.35) & (overlap < 0.5))
    assert (car == IGNORED).any()
    assert targets.boxes[targets.classes != CAR].abs().sum() == 0


def test_a_box_that_no_anchor_fits_well_still_has_its_best():
    numbers = config(positive_ious=(0.9, 0.9), negative_ious=(0.2, 0.2))
    anchors = make_anchors(numbers, torch.zeros(0))
    box = on_anchor(3, 4, CAR, shift=0.4)
    targets = assign(box[None], torch.tensor([CAR]), anchors, numbers)
    assert (targets.classes == CAR).nonzero().tolist() == [[3, 4, CAR, 0]]
    far = on_anchor(3, 4, CAR)
    far[:2] += 100
    assert (assign(far[None], torch.tensor([CAR]), anchors, numbers).classes == 2).all()


def test_what_overlaps_an_ignored_box_is_no_background():
    numbers = config()
    anchors = make_anchors(numbers, torch.zeros(0))
    boxes = torch.stack((on_anchor(3, 4, CAR), on_anchor(6, 1, CAR), on_anchor(0, 0, CAR)))
    boxes[2, 3] = 0.0  # not real
    targets = assign(boxes, torch.tensor([IGNORED, CAR, CAR]), anchors, numbers)
    assert targets.classes[3, 4, CAR, 0] == IGNORED
    assert targets.classes[6, 1, CAR, 0] == CAR
    assert targets.classes[0, 0, CAR, 0] == 2
    with pytest.raises(ShapeError, match=r"expected classes from -1 \(ignored\) to 1, got 2"):
        assign(boxes, torch.tensor([0, 1, 2]), anchors, numbers)
    with pytest.raises(ShapeError, match=r"expected boxes \(N, 7\)"):
        assign(boxes[:, :6], torch.tensor([0, 1, 1]), anchors, numbers)


# --------------------------------------------------------------------------------------------------------------------
# Losses and boxes out of maps


def maps_of(targets, anchors, certain=8.0):
    """What a perfect head would say."""
    kinds = anchors.shape[2]
    positive = (targets.classes >= 0) & (targets.classes < kinds)
    classes = torch.where(positive, targets.classes, kinds)
    scores = F.one_hot(classes, kinds + 1)[..., :kinds].float() * 2 * certain - certain
    numbers = torch.where(positive[..., None], encode_boxes(targets.boxes.clamp(min=-1e3), anchors), 0.0)
    yaw = targets.boxes[..., 6]
    numbers[..., 6] = torch.where(positive, torch.remainder(yaw - anchors[..., 6] + math.pi / 2, math.pi) - math.pi / 2, 0.0)
    directions = F.one_hot(direction_of(yaw), 2).float() * certain
    return MvxMaps(*(part.flatten(2)[None].permute(0, 3, 1, 2) for part in (scores, numbers.nan_to_num(), directions)))


def test_boxes_come_back_from_maps():
    numbers = config()
    anchors = make_anchors(numbers, torch.zeros(0))
    boxes, classes = a_scene()
    targets = assign(boxes, classes, anchors, numbers)
    (found,) = find_boxes(maps_of(targets, anchors), anchors)
    order = found.classes.argsort(descending=True)
    assert found.classes[order].tolist() == classes.tolist()
    torch.testing.assert_close(found.boxes[order], boxes, atol=1e-4, rtol=1e-4)
    assert (found.scores > 0.99).all()
    assert not len(find_boxes(maps_of(targets, anchors), anchors, min_score=0.9999)[0].boxes)
    assert len(find_boxes(maps_of(targets, anchors), anchors, max_boxes=1)[0].boxes) == 1


def test_one_anchor_may_be_of_two_classes_and_worse_boxes_are_left_out():
    anchors = make_anchors(config(), torch.zeros(0))
    maps = MvxMaps(torch.full((1, 8, 8, 8), -9.0), torch.zeros(1, 28, 8, 8), torch.zeros(1, 8, 8, 8))
    scores = maps.scores.view(1, 2, 2, 2, 8, 8)  # B, class and yaw of the anchor, class that it is, rows, columns
    scores[0, CAR, 0, :, 3, 4] = torch.tensor([1.0, 2.0])
    scores[0, CAR, 0, CAR, 3, 5] = 1.5  # overlaps the first car
    scores[0, CAR, 0, CAR, 3, 0] = 0.5
    (found,) = find_boxes(maps, anchors)
    assert found.classes.tolist() == [CAR, PEDESTRIAN, CAR]
    torch.testing.assert_close(found.scores, torch.tensor([2.0, 1.0, 0.5]).sigmoid())
    torch.testing.assert_close(found.boxes[:2], anchors[3, 4, CAR, 0].expand(2, 7))
    assert len(find_boxes(maps, anchors, candidates=1)[0].boxes) == 2


def test_a_perfect_head_has_no_loss_left():
    numbers = config()
    anchors = make_anchors(numbers, torch.zeros(0))
    targets = assign(*a_scene(), anchors, numbers)
    loss = anchor_loss(maps_of(targets, anchors, certain=20.0), [targets], anchors)
    assert loss.positives >= 2
    assert loss.total < 1e-5
    torch.testing.assert_close(loss.total, loss.scores + 2.0 * loss.boxes + 0.2 * loss.directions)


def test_the_opposite_heading_costs_only_the_direction():
    numbers = config()
    anchors = make_anchors(numbers, torch.zeros(0))
    boxes, classes = a_scene()
    turned = boxes.clone()
    turned[:, 6] += math.pi
    torch.manual_seed(0)
    maps = MvxMaps(torch.randn(1, 8, 8, 8), torch.randn(1, 28, 8, 8), torch.randn(1, 8, 8, 8))
    one, other = (anchor_loss(maps, [assign(own, classes, anchors, numbers)], anchors) for own in (boxes, turned))
    torch.testing.assert_close(one.boxes, other.boxes)
    torch.testing.assert_close(one.scores, other.scores)
    assert (one.directions - other.directions).abs() > 0.01


def test_losses_are_their_formulas():
    """Two positives, one anchor that does not count, all else background; worked out one anchor at a time."""
    numbers = config()
    anchors = make_anchors(numbers, torch.zeros(0))
    targets = assign(*a_scene(), anchors, numbers)
    torch.manual_seed(1)
    maps = MvxMaps(torch.randn(1, 8, 8, 8), torch.randn(1, 28, 8, 8), torch.randn(1, 8, 8, 8))
    loss = anchor_loss(maps, [targets], anchors)
    focal = smooth = cross = 0.0
    for row, column, kind, turn in all_cells(8, (8, 2, 2)).tolist():
        anchor = 2 * kind + turn
        logits = maps.scores[0, 2 * anchor : 2 * anchor + 2, row, column]
        named = int(targets.classes[row, column, kind, turn])
        if named == IGNORED:
            continue
        for other, logit in enumerate(logits.tolist()):
            share = 1 / (1 + math.exp(-logit))
            focal -= 0.25 * (1 - share) ** 2 * math.log(share) if other == named else 0.75 * share**2 * math.log(1 - share)
        if named < 2:
            truth = encode_boxes(targets.boxes[row, column, kind, turn], anchors[row, column, kind, turn])
            off = maps.boxes[0, 7 * anchor : 7 * anchor + 7, row, column] - truth
            off[6] = math.sin(off[6])
            smooth += sum(4.5 * d * d if abs(d) < 1 / 9 else abs(d) - 1 / 18 for d in off.tolist())
            ways = maps.directions[0, 2 * anchor : 2 * anchor + 2, row, column].log_softmax(0)
            cross -= float(ways[direction_of(targets.boxes[row, column, kind, turn, 6])])
    expected = torch.tensor([focal, smooth, cross]) / loss.positives
    torch.testing.assert_close(torch.stack(loss[1:4]), expected, atol=1e-4, rtol=1e-4)


def test_a_sample_without_boxes_counts_as_one_positive():
    """So the released model shares losses out, over all samples of a batch."""
    numbers = config()
    anchors = make_anchors(numbers, torch.zeros(0))
    targets = [
        assign(*a_scene(), anchors, numbers),
        assign(torch.zeros(0, 7), torch.zeros(0, dtype=torch.long), anchors, numbers),
    ]
    maps = MvxMaps(torch.zeros(2, 8, 8, 8), torch.zeros(2, 28, 8, 8), torch.zeros(2, 8, 8, 8))
    loss = anchor_loss(maps, targets, anchors)
    torch.testing.assert_close(loss.directions, torch.tensor(math.log(2) * loss.positives / (loss.positives + 1)))

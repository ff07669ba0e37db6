"""Boxes to targets and back."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_core.errors import ShapeError
from gemini_core.model.detection.boxes import corners_3d
from gemini_core.model.detection.pillars import codec, losses
from pillar_detectors import GRID, as_boxes, perfect

PLACES = st.tuples(
    st.floats(-2.9, 20.9), st.floats(-7.9, 7.9), st.floats(-3, 3), *[st.floats(0.2, 12.0)] * 3, st.floats(-math.pi, math.pi)
)


def distance(a, b):
    """Largest distance of corners, metres: turned by a whole turn they are the same, by half a turn not."""
    return (corners_3d(a) - corners_3d(b)).norm(dim=2).amax(1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(PLACES, st.integers(0, 2)), min_size=1, max_size=12))
def test_boxes_come_back_from_perfect_maps(labelled):
    boxes, classes = as_boxes(*[box for box, _ in labelled]), torch.tensor([name for _, name in labelled])
    cells = GRID.place(boxes[:, :2]).floor().tolist()
    first = [index for index, cell in enumerate(cells) if cell not in cells[:index]]  # one box a cell can be told
    boxes, classes = boxes[first], classes[first]
    targets = codec.encode([boxes], [classes], GRID, 3)
    assert targets.labels == codec.LabelCounts(used=len(boxes))
    (found,) = codec.decode(perfect(targets), GRID, min_score=0.9, max_iou=1.0)
    assert len(found.boxes) == len(boxes)
    for box, name in zip(boxes, classes, strict=True):
        same = found.boxes[found.classes == name]
        assert distance(same, box.expand(same.shape)).min() < 2e-3  # of boxes up to 12 m, in float32


def test_batches_are_told_apart_and_the_best_come_first():
    first, second = as_boxes((5, 0, 0, 4, 2, 1.5, 0.3)), as_boxes((9, 3, 0, 0.8, 0.6, 1.7, -2), (2, 1, 1, 4, 2, 1.5, 3))
    targets = codec.encode([first, second], [torch.tensor([0]), torch.tensor([1, 0])], GRID, 2)
    maps = perfect(targets)
    column, row = GRID.place(second[0, :2]).long().tolist()
    maps.heat[1, 1, row, column] = 1.0
    one, two = codec.decode(maps, GRID)
    assert distance(one.boxes, first).max() < 1e-4
    assert two.classes.tolist() == [0, 1]
    assert distance(two.boxes, second.flip(0)).max() < 1e-4
    assert two.scores[1] == pytest.approx(torch.tensor(1.0).sigmoid().item())
    (few,) = codec.decode(codec.BevMaps(*(m[1:] for m in maps[:2])), GRID, max_boxes=1)
    assert few.classes.tolist() == [0]
    assert all(len(found.boxes) == 0 for found in codec.decode(maps, GRID, min_score=1.0))


def test_a_worse_box_on_a_better_one_is_left_out():
    boxes = as_boxes((5, 0, 0, 4, 2, 1.5, 0), (6.2, 0, 0, 4, 2, 1.5, 0))  # 2.8 of 5.2 m shared
    targets = codec.encode([boxes], [torch.tensor([0, 0])], GRID, 2)
    assert len(codec.decode(perfect(targets), GRID, max_iou=0.5)[0].boxes) == 1
    assert len(codec.decode(perfect(targets), GRID, max_iou=0.6)[0].boxes) == 2
    other = codec.encode([boxes], [torch.tensor([0, 1])], GRID, 2)
    assert len(codec.decode(perfect(other), GRID, max_iou=0.5)[0].boxes) == 2


def test_label_boxes_that_cannot_be_used_are_counted():
    boxes = as_boxes(
        (5, 0, 0, 4, 2, 1.5, 0),
        (5, 0, 0, 0, 2, 1.5, 0),
        (5, 0, 0, 4, -2, 1.5, 0),
        (5, 0, math.nan, 4, 2, 1.5, 0),
        (30, 0, 0, 4, 2, 1.5, 0),
        (5, -8.01, 0, 4, 2, 1.5, 0),
        (5.1, 0.1, 0, 4, 2, 1.5, 0),
        (10, 0, 0, 4, 2, 1.5, 0),
    )
    classes = torch.tensor([0, 0, 0, 0, 0, 0, 0, codec.IGNORED])
    targets = codec.encode([boxes, boxes[:1]], [classes, classes[:1]], GRID, 1)
    assert targets.labels == codec.LabelCounts(used=2, ignored=1, not_real=3, out_of_range=2, same_cell=1)
    assert (targets.heat == 1).sum() == 2
    assert all(maps.isfinite().all() for maps in targets[:4])
    # nothing counts in the ignored box, and everything around it
    columns, rows = [
        GRID.place(torch.tensor(place)).long().T.tolist() for place in ([(8.2, -0.8), (11.8, 0.8)], [(7.7, 0), (10, 1.4)])
    ]
    assert targets.counted[0, 0][columns[1], columns[0]].tolist() == [0, 0]
    assert targets.counted[0, 0][rows[1], rows[0]].tolist() == [1, 1]
    assert (targets.counted[0] == 0).sum() == 11 * 6  # 4 x 2 m of 0.4 m cells whose centres lie in it, faces included
    assert targets.counted[1].all()


def test_no_label_boxes_are_a_lesson_too():
    targets = codec.encode([as_boxes()], [torch.zeros(0, dtype=torch.long)], GRID, 2)
    assert not targets.heat.any()
    heat = torch.full_like(targets.heat, -4.0, requires_grad=True)
    loss = losses.detection_loss(codec.BevMaps(heat, torch.ones_like(targets.boxes)), targets, 0.4)
    loss.total.backward()
    assert loss.box == 0
    assert (heat.grad > 0).all()


@pytest.mark.parametrize(
    ("boxes", "classes", "message"),
    [
        (torch.zeros(2, 6), torch.zeros(2), r"expected boxes \(N, 7\) and classes \(N,\), got \(2, 6\) and \(2,\)"),
        (torch.ones(2, 7), torch.zeros(3), r"got \(2, 7\) and \(3,\)"),
        (torch.ones(2, 7), torch.tensor([0, 2]), r"expected classes from -1 \(ignored\) to 1, got 2"),
        (torch.ones(2, 7), torch.tensor([0, -2]), r"got -2"),
    ],
)
def test_labels_that_are_none_are_refused(boxes, classes, message):
    with pytest.raises(ShapeError, match=message):
        codec.encode([boxes], [classes], GRID, 2)

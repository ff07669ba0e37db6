"""Oriented boxes: areas worked out by hand, symmetries, and another library's polygons."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_core.errors import ShapeError
from gemini_core.model.detection import boxes as geometry

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
UNIT = (0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0)
NOT_REAL = {
    "no length": (0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0),
    "no width": (0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0),
    "no height": (0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0),
    "negative": (0.0, 0.0, 0.0, -1.0, -1.0, 1.0, 0.0),
    "nan place": (math.nan, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0),
    "nan yaw": (0.0, 0.0, 0.0, 1.0, 1.0, 1.0, math.nan),
    "nan size": (0.0, 0.0, 0.0, 1.0, 1.0, math.nan, 0.0),
    "infinite": (0.0, 0.0, 0.0, math.inf, 1.0, 1.0, 0.0),
}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return request.param


def boxes(*rows: tuple[float, ...], device: str = "cpu") -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32, device=device).reshape(-1, 7)


def random_boxes(count: int, seed: int, spread: float = 2.0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    place = rng.uniform(-spread, spread, (count, 3)) + np.array([40.0, 5.0, -1.0])
    rows = np.hstack([place, rng.uniform(0.2, 6.0, (count, 3)), rng.uniform(-7.0, 7.0, (count, 1))])
    return torch.from_numpy(rows.astype(np.float32))


def crowd(count: int, objects: int, spread: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Cars as a detector finds them: many boxes about each of some objects."""
    rng = np.random.default_rng(seed)
    place = rng.uniform((0.0, -40.0, -2.0), (70.0, 40.0, 0.0), (objects, 3))[rng.integers(0, objects, count)]
    place += rng.normal(0.0, spread, (count, 3))
    size = np.array([4.0, 1.7, 1.6]) * rng.uniform(0.8, 1.2, (count, 3))
    rows = np.hstack([place, size, rng.uniform(-3.0, 3.0, (count, 1))])
    return torch.from_numpy(rows.astype(np.float32)), torch.from_numpy(rng.uniform(0.0, 1.0, count).astype(np.float32))


# --------------------------------------------------------------------------------------------------------------------
# One box


def test_corners_by_hand(device: str):
    # 4 m long, 2 m wide, turned a quarter to the left: it now points along +y, its left is -x
    box = boxes((10.0, 1.0, 0.5, 4.0, 2.0, 3.0, math.pi / 2), device=device)
    expected = torch.tensor([[9.0, 3.0], [9.0, -1.0], [11.0, -1.0], [11.0, 3.0]], device=device)
    torch.testing.assert_close(geometry.corners_bev(box)[0], expected)
    corners = geometry.corners_3d(box)[0]
    torch.testing.assert_close(corners[:, :2], expected.repeat(2, 1))
    assert corners[:, 2].tolist() == [-1.0] * 4 + [2.0] * 4


def test_points_by_hand(device: str):
    box = boxes((10.0, 1.0, 0.5, 4.0, 2.0, 3.0, math.radians(30.0)), UNIT, device=device)
    forward = torch.tensor([math.cos(math.radians(30.0)), math.sin(math.radians(30.0)), 0.0])
    left = torch.tensor([-forward[1], forward[0], 0.0])
    center = torch.tensor([10.0, 1.0, 0.5])
    points = torch.stack(
        [
            center,
            center + 1.99 * forward + 0.99 * left,
            center + 2.01 * forward,
            center + 1.01 * left,
            center + torch.tensor([0.0, 0.0, 1.51]),
            torch.tensor([0.5, 0.5, -0.5]),  # a corner of the other one
            torch.tensor([math.nan, 0.0, 0.0]),
        ]
    ).to(device)
    inside = geometry.points_in_boxes(points, box)
    assert inside.tolist() == [[True, True, False, False, False, False, False], [False] * 5 + [True, False]]
    further = torch.cat([points, torch.ones_like(points)], dim=1)  # intensity and others behind x, y, z
    assert torch.equal(geometry.points_in_boxes(further, box), inside)


def test_points_are_inside_as_the_corners_say():
    some = random_boxes(40, seed=3)
    corners = geometry.corners_3d(some)
    center = some[:, None, :3]
    for shrink, expected in ((0.999, True), (1.001, False)):
        points = center + (corners - center) * shrink
        inside = geometry.points_in_boxes(points.reshape(-1, 3), some).reshape(40, 40, 8)
        assert (inside[torch.arange(40), torch.arange(40)] == expected).all()


def test_many_points_are_worked_out_in_parts(monkeypatch: pytest.MonkeyPatch):
    some, points = random_boxes(9, seed=4), torch.from_numpy(np.random.default_rng(4).uniform(35, 45, (50, 3)))
    at_once = geometry.points_in_boxes(points, some)
    overlap = geometry.iou_bev(some, random_boxes(7, seed=5))
    monkeypatch.setattr(geometry, "PAIRS_AT_ONCE", 20)
    assert torch.equal(geometry.points_in_boxes(points, some), at_once)
    assert torch.equal(geometry.iou_bev(some, random_boxes(7, seed=5)), overlap)


# --------------------------------------------------------------------------------------------------------------------
# Overlap


@pytest.mark.parametrize(
    ("other", "bev", "space"),
    [
        (UNIT, 1.0, 1.0),
        ((0.5, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0), 1 / 3, 1 / 3),
        ((0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 0.0), 1 / 7, 1 / 15),
        ((0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 0.0), 1.0, 1 / 3),
        ((0.0, 0.0, 2.0, 1.0, 1.0, 1.0, 0.0), 1.0, 0.0),
        ((0.0, 0.0, 0.0, 1.0, 1.0, 1.0, math.pi / 2), 1.0, 1.0),
        ((0.0, 0.0, 0.0, 1.0, 1.0, 1.0, -7 * math.pi), 1.0, 1.0),
        # a square turned by 45 degrees about its centre leaves a regular octagon of area 2 (√2 - 1)
        ((0.0, 0.0, 0.0, 1.0, 1.0, 1.0, math.pi / 4), math.sqrt(0.5), math.sqrt(0.5)),
        # a diamond whose corner reaches the centre: a right-angled triangle of height 1/2, area 1/4, in the unit square
        ((math.sqrt(0.5), 0.0, 0.0, 1.0, 1.0, 1.0, math.pi / 4), 0.25 / 1.75, 0.25 / 1.75),
        ((0.0, 0.0, 0.0, 0.5, 0.2, 0.1, 0.3), 0.1, 0.01),  # inside
        ((1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0), 0.0, 0.0),  # they share an edge
        ((1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0), 0.0, 0.0),  # they share a corner
        ((5.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0), 0.0, 0.0),
        ((0.0, 0.0, 0.0, 10.0, 0.1, 1.0, 0.0), 0.1 / 1.9, 0.1 / 1.9),  # a cross
    ],
)
def test_overlap_by_hand(other: tuple[float, ...], bev: float, space: float, device: str):
    a, b = boxes(UNIT, device=device), boxes(other, device=device)
    for one, two in ((a, b), (b, a)):
        assert geometry.iou_bev_aligned(one, two).item() == pytest.approx(bev, abs=1e-6)
        assert geometry.iou_3d_aligned(one, two).item() == pytest.approx(space, abs=1e-6)
        assert geometry.iou_bev(one, two).item() == pytest.approx(bev, abs=1e-6)
        assert geometry.iou_3d(one, two).item() == pytest.approx(space, abs=1e-6)


def test_overlap_agrees_with_another_library_on_10_000_pairs():
    shapely = pytest.importorskip("shapely", reason="shapely (requirements/development.in) is not installed")
    a, b = random_boxes(10_000, seed=0), random_boxes(10_000, seed=1)

    def outlines(some: torch.Tensor):
        turn = some[:, 6].double().numpy()[:, None]
        own = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) / 2 * some[:, None, 3:5].double().numpy()
        x = np.cos(turn) * own[..., 0] - np.sin(turn) * own[..., 1]
        y = np.sin(turn) * own[..., 0] + np.cos(turn) * own[..., 1]
        return shapely.polygons(np.stack([x, y], -1) + some[:, None, :2].double().numpy())

    p, q = outlines(a), outlines(b)
    shared = shapely.area(shapely.intersection(p, q))
    bev = shared / shapely.area(shapely.union(p, q))
    low = np.maximum(*((each[:, 2] - each[:, 5] / 2).double().numpy() for each in (a, b)))
    high = np.minimum(*((each[:, 2] + each[:, 5] / 2).double().numpy() for each in (a, b)))
    volume = shared * np.clip(high - low, 0, None)
    space = volume / (a[:, 3:6].double().prod(1).numpy() + b[:, 3:6].double().prod(1).numpy() - volume)
    assert np.count_nonzero(bev) > 5000  # the pairs do meet
    np.testing.assert_allclose(geometry.iou_bev_aligned(a, b).numpy(), bev, atol=1e-5)
    np.testing.assert_allclose(geometry.iou_3d_aligned(a, b).numpy(), space, atol=1e-5)


def test_pairs_are_the_rows_of_each_with_each(device: str):
    a, b = random_boxes(37, seed=5, spread=6).to(device), random_boxes(23, seed=6, spread=6).to(device)
    left, right = a.repeat_interleave(23, dim=0), b.repeat(37, 1)
    for pairs, rows in ((geometry.iou_bev, geometry.iou_bev_aligned), (geometry.iou_3d, geometry.iou_3d_aligned)):
        # what is far apart is never worked out, but nothing either way
        torch.testing.assert_close(pairs(a, b), rows(left, right).reshape(37, 23), rtol=0, atol=1e-6)
        assert torch.equal(pairs(a, b) > 0, rows(left, right).reshape(37, 23) > 0)


sizes = st.floats(0.01, 30.0)
places = st.floats(-5.0, 5.0)
angles = st.floats(-10.0, 10.0)
a_box = st.tuples(places, places, places, sizes, sizes, sizes, angles)


@settings(deadline=None)
@given(a_box, a_box, angles, places, places)
def test_overlap_does_not_depend_on_where_one_stands(a, b, turn: float, x: float, y: float):
    pair = torch.tensor([a, b], dtype=torch.float64)
    moved = pair.clone()
    moved[:, 0] = math.cos(turn) * pair[:, 0] - math.sin(turn) * pair[:, 1] + x
    moved[:, 1] = math.sin(turn) * pair[:, 0] + math.cos(turn) * pair[:, 1] + y
    moved[:, 6] += turn
    for measure in (geometry.iou_bev_aligned, geometry.iou_3d_aligned):
        value = measure(pair[:1], pair[1:]).item()
        assert 0.0 <= value <= 1.0
        assert measure(pair[1:], pair[:1]).item() == pytest.approx(value, abs=1e-9)
        assert measure(moved[:1], moved[1:]).item() == pytest.approx(value, abs=1e-9)
    assert geometry.iou_bev_aligned(pair, pair).tolist() == pytest.approx([1.0, 1.0], abs=1e-9)


@settings(deadline=None)
@given(a_box, st.floats(-1e-7, 1e-7), st.floats(-1e-7, 1e-7))
def test_edges_that_nearly_lie_on_each_other_are_no_special_case(a, shift: float, turn: float):
    box = torch.tensor([a], dtype=torch.float64)
    other = box.clone()
    other[0, 0] += shift
    other[0, 6] += turn
    # what is not shared is less than the outline (120 m at most) times the shift and the turn at the end of a 30 m box
    area = a[3] * a[4]
    assert (
        geometry.iou_bev_aligned(box, other).item() >= 1.0 - 2 * (a[3] + a[4]) * 2 * (1e-7 + 1e-7 * (a[3] + a[4])) / area - 1e-9
    )


@pytest.mark.parametrize("row", NOT_REAL.values(), ids=NOT_REAL)
def test_what_has_no_inside_overlaps_nothing(row: tuple[float, ...], device: str):
    some = boxes(row, UNIT, device=device)
    assert geometry.real_boxes(some).tolist() == [False, True]
    for measure in (geometry.iou_bev, geometry.iou_3d):
        assert measure(some, some).tolist() == [[0.0, 0.0], [0.0, 1.0]]
    for measure in (geometry.iou_bev_aligned, geometry.iou_3d_aligned):
        assert measure(some, some.flip(0)).tolist() == [0.0, 0.0]
        assert measure(some, some).tolist() == [0.0, 1.0]
    assert geometry.points_in_boxes(torch.zeros(1, 3, device=device), some).tolist() == [[False], [True]]
    scores = torch.tensor([0.9, 0.8], device=device)
    assert geometry.nms(some, scores, 0.5).tolist() == [1]


def test_huge_and_tiny_boxes_stay_numbers(device: str):
    huge = boxes((1e30, -1e30, 0.0, 3e38, 3e38, 3e38, 0.7), (0.0, 0.0, 0.0, 1e-30, 1e-30, 1e-30, 0.2), device=device)
    for measure in (geometry.iou_bev, geometry.iou_3d):
        assert measure(huge, huge).diagonal().tolist() == pytest.approx([1.0, 1.0])
        assert measure(huge, huge)[0, 1].item() == 0.0
    assert geometry.nms(huge, torch.ones(2, device=device), 0.5).tolist() == [0, 1]


def test_nothing_is_fine(device: str):
    none, one = boxes(device=device), boxes(UNIT, device=device)
    assert geometry.iou_bev(none, one).shape == (0, 1)
    assert geometry.iou_3d(one, none).shape == (1, 0)
    assert geometry.iou_bev_aligned(none, none).shape == (0,)
    assert geometry.corners_3d(none).shape == (0, 8, 3)
    assert geometry.points_in_boxes(torch.zeros(0, 3, device=device), one).shape == (1, 0)
    assert geometry.points_in_boxes(torch.zeros(5, 3, device=device), none).shape == (0, 5)
    assert geometry.nms(none, torch.zeros(0, device=device), 0.5).shape == (0,)


def test_half_precision_is_worked_out_in_full():
    some = random_boxes(20, seed=8).half()
    assert torch.equal(geometry.iou_bev(some, some), geometry.iou_bev(some.float(), some.float()))


@pytest.mark.parametrize(
    "call",
    [
        lambda some: geometry.corners_3d(some[:, :6]),
        lambda some: geometry.iou_bev(some, some[0]),
        lambda some: geometry.iou_3d_aligned(some, some[:1]),
        lambda some: geometry.points_in_boxes(torch.zeros(4, 2), some),
        lambda some: geometry.nms(some, torch.zeros(3), 0.5),
        lambda some: geometry.nms(some, torch.zeros(2), 0.5, torch.zeros(1, dtype=torch.int64)),
    ],
)
def test_wrong_shapes_are_named(call):
    with pytest.raises(ShapeError, match=r"expected .*got"):
        call(boxes(UNIT, UNIT))


# --------------------------------------------------------------------------------------------------------------------
# Suppression


def greedy(some: torch.Tensor, scores: torch.Tensor, max_iou: float, classes: torch.Tensor | None = None) -> list[int]:
    """Suppression as its definition says it, one box after the other."""
    overlap = geometry.iou_bev(some.double(), some.double())
    kept: list[int] = []
    for index in sorted(range(len(some)), key=lambda each: (-float(scores[each]), each)):
        rivals = [each for each in kept if classes is None or classes[each] == classes[index]]
        if all(overlap[each, index] <= max_iou for each in rivals):
            kept.append(index)
    return kept


def test_suppression_by_hand(device: str):
    # three in a row, each half over the next (IoU 1/3); the middle one is the best, then all fall, or none do
    row = boxes(*((x, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0) for x in (0.0, 0.5, 1.0)), device=device)
    scores = torch.tensor([0.5, 0.9, 0.7], device=device)
    assert geometry.nms(row, scores, 0.3).tolist() == [1]
    assert geometry.nms(row, scores, 0.4).tolist() == [1, 2, 0]
    # the best falls last: what it would have suppressed stays, since the one between falls first
    assert geometry.nms(row, torch.tensor([0.9, 0.8, 0.7], device=device), 0.3).tolist() == [0, 2]
    classes = torch.tensor([0, 1, 0], device=device)
    assert geometry.nms(row, scores, 0.3, classes).tolist() == [1, 2, 0]


def test_corners_that_just_meet_suppress(device: str):
    # two squares on their corners, their diagonals of √2 in line, 1.4 m from centre to centre
    pair = boxes((0.0, 0.0, 0.0, 1.0, 1.0, 1.0, math.pi / 4), (1.4, 0.0, 0.0, 1.0, 1.0, 1.0, math.pi / 4), device=device)
    assert geometry.nms(pair, torch.tensor([0.9, 0.8], device=device), 0.0).tolist() == [0]
    apart = pair + torch.tensor([[0.0] * 7, [0.02] + [0.0] * 6], device=device)
    assert geometry.nms(apart, torch.tensor([0.9, 0.8], device=device), 0.0).tolist() == [0, 1]


def test_of_equal_scores_the_first_is_kept(device: str):
    row = boxes(UNIT, UNIT, (5.0, *UNIT[1:]), UNIT, device=device)
    assert geometry.nms(row, torch.full((4,), 0.5, device=device), 0.5).tolist() == [0, 2]


def test_scores_that_are_no_numbers_are_not_kept(device: str):
    row = boxes(*((10.0 * x, *UNIT[1:]) for x in range(4)), device=device)
    scores = torch.tensor([math.nan, 0.2, math.inf, 0.3], device=device)
    assert geometry.nms(row, scores, 0.5).tolist() == [3, 1]


@pytest.mark.parametrize("max_iou", [0.0, 0.01, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("with_classes", [False, True])
def test_both_ways_give_what_the_definition_says(max_iou: float, with_classes: bool):
    some, scores = crowd(150, 5, 0.7, seed=11)
    scores = (scores * 20).round() / 20  # many are equal
    classes = torch.arange(150) % 3 if with_classes else None
    expected = greedy(some, scores, max_iou, classes)
    assert geometry.nms(some, scores, max_iou, classes).tolist() == expected
    order = torch.sort(scores, descending=True, stable=True).indices
    group = torch.zeros(150, dtype=torch.int64) if classes is None else classes[order]
    assert order[geometry._kept_by_pairs(some[order], group, max_iou)].tolist() == expected


@pytest.mark.parametrize(("objects", "spread", "max_iou"), [(20, 0.3, 0.01), (1, 0.3, 0.8), (1, 3.0, 0.5), (200, 1.0, 0.2)])
def test_a_thousand_boxes_take_less_than_20_ms_and_both_ways_agree(objects: int, spread: float, max_iou: float):
    some, scores = crowd(1000, objects, spread)
    took = []
    for _ in range(7):
        start = time.process_time()
        kept = geometry.nms(some, scores, max_iou)
        took.append(time.process_time() - start)
    order = torch.sort(scores, descending=True, stable=True).indices
    assert torch.equal(kept, order[geometry._kept_by_pairs(some[order], torch.zeros_like(order), max_iou)])
    assert min(took) <= 0.020

"""Average precision of boxes: result sets whose scores can be worked out by hand, and properties that must hold for any."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_core.errors import DataError, ShapeError
from gemini_core.evaluate import detection_kitti as kitti
from gemini_core.evaluate.detection import FoundFrame, TruthFrame
from gemini_core.evaluate.detection_distance import distance_scores

CAR = (4.0, 1.7, 1.5)
TALL = (0.0, 0.0, 100.0, 60.0)
"""An image box that is high enough for every difficulty."""

Frames = list[tuple[TruthFrame, FoundFrame]]


def rows(*places: tuple[float, float]) -> np.ndarray:
    """Cars at x, y, on the ground."""
    return np.array([(x, y, 0.0, *CAR, 0.3) for x, y in places], np.float32).reshape(-1, 7)


def apart(count: int, y: float = 0.0) -> list[tuple[float, float]]:
    """Places that do not touch each other."""
    return [(5.0 + 10.0 * index, y) for index in range(count)]


def truth(boxes: np.ndarray, name: str = "car", **label) -> TruthFrame:
    return TruthFrame(boxes, (name,) * len(boxes), **label)


def found(boxes: np.ndarray, scores, name: str = "car", **more) -> FoundFrame:
    return FoundFrame(boxes, (name,) * len(boxes), np.broadcast_to(np.float32(scores), len(boxes)), **more)


def joined(*frames: FoundFrame | TruthFrame) -> FoundFrame | TruthFrame:
    """One frame with the boxes of several that have the same fields."""
    names = tuple(name for frame in frames for name in frame.class_names)
    arrays = {
        field: None if getattr(frames[0], field) is None else np.concatenate([getattr(frame, field) for frame in frames])
        for field in type(frames[0]).__slots__
        if field != "class_names"
    }
    return type(frames[0])(class_names=names, **arrays)


def one_score(frames: Frames, difficulty=kitti.ANY_OBJECT, rule=kitti.CLASSES[0], **options) -> kitti.KittiScore:
    """The score seen from above, which these sets have in space too."""
    above, space = kitti.kitti_scores(frames, [rule], [difficulty], **options)
    assert (above.view, space.view) == ("bev", "3d")
    assert repr(replace(above, view="3d")) == repr(space)  # as text NaN equals itself
    return above


def descending(count: int) -> np.ndarray:
    return np.linspace(0.9, 0.5, count).astype(np.float32)


# --------------------------------------------------------------------------------------------------------------------
# KITTI: which scores matter


def test_thresholds_are_the_scores_nearest_to_41_recalls():
    # of 80 objects, all found, each second one reaches the next recall: the 1st, 2nd, 4th, ..., 80th
    scores = np.arange(80, 0, -1.0)
    expected = [scores[0], *scores[1::2]]
    assert kitti.score_thresholds(np.random.default_rng(0).permutation(scores), 80).tolist() == expected
    assert len(expected) == kitti.RECALLS
    # half of them found: recalls up to one half
    assert kitti.score_thresholds(scores[:40], 80).tolist() == expected[:21]
    # with few objects each is a recall of its own
    assert kitti.score_thresholds(np.array([0.1, 0.3, 0.2]), 4).tolist() == [0.3, 0.2, 0.1]
    assert kitti.score_thresholds(np.zeros(0), 4).tolist() == []
    # the last found is never passed over, as the third of 80 would be if a fourth came
    assert kitti.score_thresholds(scores[:3], 80).tolist() == scores[:3].tolist()


# --------------------------------------------------------------------------------------------------------------------
# KITTI: constructed result sets


@pytest.mark.parametrize("count", [41, 50, 80, 97, 200])
def test_all_found_and_nothing_else_is_100_percent(count: int):
    boxes = rows(*apart(count))
    halves = [(truth(part), found(part, descending(len(part)))) for part in np.array_split(boxes, 2)]
    score = one_score(halves)
    assert (score.r11, score.r40, score.objects, score.found) == (100.0, 100.0, count, 1.0)
    assert score.precision == (1.0,) * 41


def test_fewer_than_41_objects_cannot_give_100_percent_as_in_the_development_kit():
    boxes = rows(*apart(10))
    score = one_score([(truth(boxes), found(boxes, descending(10)))])
    assert score.r40 == pytest.approx(100 * 9 / 40)
    assert score.r11 == pytest.approx(100 * 3 / 11)
    assert score.found == 1.0


def test_half_missed():
    boxes = rows(*apart(80))
    score = one_score([(truth(boxes), found(boxes[:40], descending(40)))])
    assert score.r40 == pytest.approx(50.0)
    assert score.r11 == pytest.approx(100 * 6 / 11)
    assert score.found == 0.5


def test_false_positives_weigh_by_their_score():
    boxes = rows(*apart(80))
    right, wrong = found(boxes, descending(80)), rows(*apart(80, y=50.0))
    above = [(truth(boxes), joined(right, found(wrong, 0.95)))]
    below = [(truth(boxes), joined(right, found(wrong, 0.1)))]
    # all wrong ones come first: precision grows to 80 of 160, and is raised to that everywhere
    assert one_score(above).r40 == pytest.approx(50.0)
    assert one_score(above).r11 == pytest.approx(50.0)
    assert one_score(below).r40 == 100.0


def test_a_wrong_box_in_the_middle():
    # 80 objects; 40 wrong ones between the 40th and the 41st right one: precision 1 up to recall 1/2, then at best 80 / 120
    boxes = rows(*apart(80))
    scores = descending(80)
    wrong = found(rows(*apart(40, y=50.0)), (scores[39] + scores[40]) / 2)
    score = one_score([(truth(boxes), joined(found(boxes, scores), wrong))])
    assert score.precision == pytest.approx([1.0] * 21 + [80 / 120] * 20)
    assert score.r40 == pytest.approx(100 * (20 + 20 * 80 / 120) / 40)
    assert score.r11 == pytest.approx(100 * (6 + 5 * 80 / 120) / 11)


def test_a_second_box_on_the_same_object_is_wrong():
    boxes = rows(*apart(80))
    first, second = found(boxes, 0.9), found(boxes + np.float32(0.01), 0.9)
    assert one_score([(truth(boxes), joined(first, second))]).r40 == pytest.approx(50.0)


def test_equal_scores_are_one_threshold():
    boxes, elsewhere = rows(*apart(80)), rows(*apart(20, y=50.0))
    score = one_score([(truth(boxes), joined(found(boxes[:40], 0.5), found(elsewhere, 0.5)))])
    assert score.precision == pytest.approx([40 / 60] * 21 + [0.0] * 20)


def test_another_class_is_no_find():
    boxes = rows(*apart(80))
    frames = [(truth(boxes), joined(found(boxes[:40], descending(40)), found(boxes[40:], 0.95, name="pedestrian")))]
    assert one_score(frames).r40 == pytest.approx(50.0)
    walkers = [(joined(truth(boxes), truth(boxes + np.float32(1000), name="Pedestrian")), frames[0][1])]
    score = one_score(walkers, rule=kitti.CLASSES[1])
    assert (score.r40, score.objects, score.found) == (0.0, 80, 0.0)


def test_names_are_the_same_in_any_case():
    boxes = rows(*apart(50))
    assert one_score([(truth(boxes, name="Car"), found(boxes, descending(50), name="CAR"))]).r40 == 100.0


def test_nothing_to_find_is_no_number_and_nothing_found_is_zero():
    none = found(rows(), 0.5)
    nothing = one_score([(truth(rows()), found(rows((5.0, 0.0)), 0.5))])
    assert math.isnan(nothing.r11)
    assert math.isnan(nothing.r40)
    assert math.isnan(nothing.found)
    assert (nothing.objects, set(nothing.precision)) == (0, {0.0})
    missed = one_score([(truth(rows(*apart(3))), none)])
    assert (missed.r11, missed.r40, missed.found) == (0.0, 0.0, 0.0)
    assert math.isnan(one_score([]).r40)
    assert math.isnan(one_score([(truth(rows()), none)]).r40)


def test_height_above_ground_matters_in_space_only():
    boxes = rows(*apart(50))
    lifted = boxes + np.array([0, 0, 2, 0, 0, 0, 0], np.float32)
    above, space = kitti.kitti_scores([(truth(boxes), found(lifted, 0.5))], [kitti.CLASSES[0]], [kitti.ANY_OBJECT])
    assert (above.r40, space.r40) == (100.0, 0.0)


def test_the_iou_above_which_a_box_is_right_is_the_class_s():
    # moved by 1 of 4 metres along its length: IoU 3 / 5
    boxes = rows(*apart(50))
    boxes[:, 6] = 0.0
    frames = [(truth(boxes), found(boxes + np.array([1, 0, 0, 0, 0, 0, 0], np.float32), 0.5))]
    assert one_score(frames).r40 == 0.0
    assert one_score(frames, rule=kitti.ClassRule("car", 0.59)).r40 == 100.0
    assert one_score(frames, rule=kitti.ClassRule("car", 0.61)).r40 == 0.0
    assert one_score(frames, rule=kitti.ClassRule("car", 0.61)).min_iou == 0.61


# --------------------------------------------------------------------------------------------------------------------
# KITTI: what is ignored

MODERATE = kitti.DIFFICULTIES[1]
COUNTED = 100 * 80 / 81  # one wrong box above 80 right ones
PLACE = (5.0, 200.0)


def label(count: int = 1, image_box=TALL, truncation: float = 0.0, occlusion: int = 0) -> dict[str, np.ndarray]:
    return {
        "image_boxes": np.tile(np.float32(image_box), (count, 1)),
        "truncation": np.full(count, truncation, np.float32),
        "occlusion": np.full(count, occlusion, np.int64),
    }


def with_one_more(extra: TruthFrame | None, box: FoundFrame | None) -> Frames:
    """80 objects found, and one more object or box of the highest score."""
    boxes = rows(*apart(80))
    objects = truth(boxes, **label(80))
    guesses = found(boxes, descending(80), image_boxes=label(80)["image_boxes"])
    return [
        (objects if extra is None else joined(objects, extra), guesses if box is None else joined(guesses, box)),
    ]


def top(image_box=TALL, name: str = "car", place=PLACE) -> FoundFrame:
    return found(rows(place), 0.99, name=name, image_boxes=np.float32([image_box]))


LOW = (0.0, 0.0, 100.0, 20.0)


@pytest.mark.parametrize(
    ("extra", "box", "expected"),
    [
        pytest.param(None, top(), COUNTED, id="nothing there"),
        pytest.param(truth(rows(PLACE), "truck", **label()), top(), COUNTED, id="another class there"),
        pytest.param(truth(rows(PLACE), "Van", **label()), top(), 100.0, id="a van is no wrong car"),
        pytest.param(truth(rows(PLACE), "Van", **label()), None, 100.0, id="nor is it missed"),
        pytest.param(truth(rows(PLACE), **label(occlusion=2)), top(), 100.0, id="too hidden to count"),
        pytest.param(truth(rows(PLACE), **label(occlusion=2)), None, 100.0, id="nor is that missed"),
        pytest.param(truth(rows(PLACE), **label(truncation=0.31)), top(), 100.0, id="too much cut off"),
        pytest.param(truth(rows(PLACE), **label(image_box=(0, 0, 9, 25))), top(), 100.0, id="as low as the limit is too low"),
        pytest.param(truth(rows(PLACE), **label(image_box=LOW)), None, 100.0, id="nor is that missed either"),
        pytest.param(None, top(LOW), 100.0, id="a low box where nothing is"),
        pytest.param(None, top((0, 0, 9, 25)), COUNTED, id="as high as the limit is high enough"),
        pytest.param(None, top(name="pedestrian"), 100.0, id="a box of another class"),
    ],
)
def test_what_is_ignored(extra: TruthFrame | None, box: FoundFrame | None, expected: float):
    score = one_score(with_one_more(extra, box), MODERATE)
    assert score.r40 == pytest.approx(expected)
    assert score.r11 == pytest.approx(expected)
    assert score.objects == 80


def test_a_difficulty_includes_the_easier_ones():
    boxes = rows(*apart(5))
    labels = {
        "image_boxes": np.float32([(0, 0, 9, height) for height in (41, 40, 41, 41, 25)]),
        "truncation": np.float32([0.15, 0.0, 0.2, 0.5, 0.0]),
        "occlusion": np.array([0, 0, 1, 2, 0]),
    }
    scores = kitti.kitti_scores([(truth(boxes, **labels), found(boxes, 0.5))], [kitti.CLASSES[0]], views=["bev"])
    assert [(score.difficulty, score.objects) for score in scores] == [("easy", 1), ("moderate", 3), ("hard", 4)]
    assert [score.found for score in scores] == [1.0] * 3


def test_sitting_people_are_ignored_for_pedestrians():
    boxes = rows(*apart(80))
    for name, expected in (("Person_sitting", 100.0), ("Cyclist", COUNTED)):
        objects = joined(truth(boxes, "Pedestrian"), truth(rows(PLACE), name))
        guesses = joined(found(boxes, descending(80), "Pedestrian"), found(rows(PLACE), 0.99, "Pedestrian"))
        assert one_score([(objects, guesses)], rule=kitti.CLASSES[1]).r40 == pytest.approx(expected)


def test_an_object_may_be_found_by_a_box_that_is_too_low_and_then_counts_for_nothing():
    boxes = rows(*apart(80))
    nearly = boxes + np.array([0.2, 0, 0, 0, 0, 0, 0], np.float32)
    objects = truth(boxes, **label(80))
    low = found(boxes, 0.9, image_boxes=np.tile(np.float32(LOW), (80, 1)))
    high = found(nearly, 0.5, image_boxes=label(80)["image_boxes"])
    # the one with the higher score takes part first: where that is the low one, no score of a right box is known
    assert one_score([(objects, joined(low, high))], MODERATE).found == 0.0
    # where it is the other, that is right, and the low ones are not wrong, though they fit better
    score = one_score([(objects, joined(replace(low, scores=high.scores), replace(high, scores=low.scores)))], MODERATE)
    assert (score.found, score.r40) == (1.0, 100.0)
    both = one_score([(objects, joined(replace(low, scores=high.scores), high))], MODERATE)
    assert both.found == 0.0  # of equal scores the first
    assert one_score([(objects, joined(high, replace(low, scores=high.scores)))], MODERATE).r40 == 100.0


def test_a_low_box_of_another_class_takes_part_as_in_the_development_kit():
    boxes = rows(*apart(80))
    low = found(boxes, 0.9, name="pedestrian", image_boxes=np.tile(np.float32(LOW), (80, 1)))
    right = found(boxes, 0.5, image_boxes=label(80)["image_boxes"])
    assert one_score([(truth(boxes, **label(80)), joined(low, right))], MODERATE).found == 0.0
    high = replace(low, image_boxes=right.image_boxes)
    assert one_score([(truth(boxes, **label(80)), joined(high, right))], MODERATE).r40 == 100.0


def test_the_best_score_says_which_thresholds_and_the_best_fit_who_is_right():
    # lengths of 4 m in a line: moved by d, the IoU is (4 - d) / (4 + d)
    line = np.float32([[x, 0, 0, 4, 2, 2, 0] for x in (0.0, 2.1, -1.5, 0.1)])
    # the box at -1.5 fits the first object (0.45), the one at 0.1 fits it better (0.95), and the second as well (0.33)
    guesses = found(line[2:], np.float32([0.9, 0.5]))
    score = one_score([(truth(line[:2]), guesses)], rule=kitti.ClassRule("car", 0.3))
    # by score, the first takes 0.9 and the second 0.5, so both scores are looked at. At 0.9 one box is right; at 0.5 the first
    # object takes the box that fits it better, so the other box is wrong, and nothing is left for the second
    assert score.found == 1.0
    assert score.precision == (1.0, 0.5, *(0.0,) * 39)


def test_areas_without_labels_excuse_boxes_where_asked():
    area = np.float32([(1000, 0, 1100, 100)])
    inside, outside = (1000, 0, 1100, 60), (970, 0, 1070, 60)  # all of it, and 7 tenths

    def score(image_box, **options) -> float:
        ((objects, guesses),) = with_one_more(None, top(image_box))
        return one_score([(replace(objects, dont_care=area), guesses)], MODERATE, **options).r40

    assert score(inside, dont_care_areas=True) == 100.0
    assert score((975, 0, 1075, 60), dont_care_areas=True) == 100.0  # 75 of 100
    assert score(outside, dont_care_areas=True) == pytest.approx(COUNTED)
    assert score(inside) == pytest.approx(COUNTED)  # as the development kit has it for boxes in space
    # what finds an object there is right all the same
    boxes = rows(*apart(80))
    objects = truth(boxes, **label(80), dont_care=np.float32([TALL]))
    guesses = found(boxes, descending(80), image_boxes=label(80)["image_boxes"])
    assert one_score([(objects, guesses)], MODERATE, dont_care_areas=True).r40 == 100.0


def test_near_objects_alone():
    near, far = rows(*((5.0 + x, y) for x in (0, 6, 12) for y in range(-14, 15, 2)))[:42], rows(*apart(40, y=60.0))
    border = rows((29.95, 0.0))
    objects = truth(np.vstack([near, border, far]))
    over_it = found(border + np.array([0.1, 0, 0, 0, 0, 0, 0], np.float32), 0.99)
    guesses = joined(found(near, descending(42)), found(far, 0.95), found(rows((50.0, 0.0)), 0.97), over_it)
    score = one_score([(objects, guesses)], range_m=(0.0, 30.0))
    # a box just beyond the border finds what is just before it; wrong ones beyond do not count
    assert (score.objects, score.found, score.r40) == (43, 1.0, 100.0)
    assert one_score([(objects, guesses)], range_m=(30.0, math.inf)).objects == 40
    assert one_score([(objects, guesses)]).objects == 83


def test_labels_without_a_volume_cannot_be_found_and_do_not_count():
    boxes = rows(*apart(50))
    flat = rows((5.0, 100.0))
    flat[:, 5] = 0.0
    score = one_score([(truth(np.vstack([boxes, flat])), found(boxes, descending(50)))])
    assert (score.objects, score.r40) == (50, 100.0)


def test_every_class_difficulty_and_view_in_order():
    boxes = rows(*apart(3))
    scores = kitti.kitti_scores([(truth(boxes), found(boxes, 0.5))])
    assert [(score.class_name, score.difficulty, score.view) for score in scores] == [
        (name, difficulty, view)
        for name in ("car", "pedestrian", "cyclist")
        for difficulty in ("easy", "moderate", "hard")
        for view in ("bev", "3d")
    ]
    assert [score.min_iou for score in scores] == [0.7] * 6 + [0.5] * 12


# --------------------------------------------------------------------------------------------------------------------
# Distance of centres


def distance_ap(frames: Frames, **options) -> tuple[float, ...]:
    (score,) = distance_scores(frames, ["car"], **options)
    assert score.mean_ap == pytest.approx(np.mean(score.ap), nan_ok=True)
    return score.ap


def test_distances_by_hand():
    boxes = rows(*apart(10))
    assert distance_ap([(truth(boxes), found(boxes, descending(10)))]) == pytest.approx((100.0,) * 4)
    moved = boxes + np.array([0.42, 0.56, 9.0, 3.0, 3.0, 3.0, 2.0], np.float32)  # 0.7 m; the rest does not matter
    assert distance_ap([(truth(boxes), found(moved, 0.5))]) == pytest.approx((0.0, 100.0, 100.0, 100.0))
    # half found: of the recalls 0.11 to 1, the 40 up to 0.5 have precision 1
    assert distance_ap([(truth(boxes), found(boxes[:5], descending(5)))]) == pytest.approx((100 * 40 / 90,) * 4)


def test_half_wrong_in_front():
    # two wrong ones come first of 10: precision n / (n + 2) at recall n / 10, linear between
    boxes = rows(*apart(10))
    guesses = joined(found(boxes, descending(10)), found(rows(*apart(2, y=50.0)), 0.95))
    hits = np.arange(11)
    curve = np.interp(np.arange(11, 101) / 100, hits / 10, hits / (hits + 2))
    assert distance_ap([(truth(boxes), guesses)]) == pytest.approx((100 * np.mean(curve - 0.1) / 0.9,) * 4)


def test_a_second_box_is_wrong_unless_another_object_is_near():
    one = truth(rows((5.0, 0.0)))
    twice = joined(found(rows((5.0, 0.0)), 0.9), found(rows((5.0, 0.1)), 0.8))
    # at recall 1 the precision is one half, at all recalls below 1
    assert distance_ap([(one, twice)]) == pytest.approx((100 * (89 * 0.9 + 0.4) / 90 / 0.9,) * 4)
    two = truth(rows((5.0, 0.0), (5.0, 1.6)))  # 1.5 m from the second box
    first, third = (distance_ap([(two, twice)], distances_m=(limit,))[0] for limit in (1.0, 2.0))
    assert third == pytest.approx(100.0)
    assert first < 50.0


def test_boxes_of_equal_score_count_together():
    one = truth(rows((5.0, 0.0)))
    right, wrong = found(rows((5.0, 0.0)), 0.5), found(rows((5.0, 50.0)), 0.5)
    expected = pytest.approx((100 * 0.4 / 0.9,) * 4)
    assert distance_ap([(one, joined(right, wrong))]) == expected
    assert distance_ap([(one, joined(wrong, right))]) == expected
    nothing = truth(rows())
    assert distance_ap([(one, right), (nothing, wrong)]) == expected
    assert distance_ap([(nothing, wrong), (one, right)]) == expected


def test_distance_leaves_out_other_classes_and_ranges():
    boxes = rows(*apart(3))  # at 5, 15 and 25 m
    frames = [(joined(truth(boxes), truth(boxes, "van")), joined(found(boxes[:2], 0.5), found(boxes, 0.9, "van")))]
    (car, van, bus) = distance_scores(frames, ["Car", "van", "bus"])
    assert (car.objects, van.objects, bus.objects) == (3, 3, 0)
    assert van.mean_ap == pytest.approx(100.0)
    assert car.mean_ap == pytest.approx(100 * 56 / 90)  # up to recall 2/3
    assert math.isnan(bus.mean_ap)
    assert distance_ap(frames, range_m=(0.0, 20.0)) == pytest.approx((100.0,) * 4)
    assert distance_ap([(truth(boxes), found(rows(), 0.5))]) == (0.0,) * 4
    assert all(math.isnan(each) for each in distance_ap([]))


# --------------------------------------------------------------------------------------------------------------------
# Any result


@st.composite
def any_frames(draw: st.DrawFn) -> Frames:
    """Some frames with objects, boxes on some of them, and boxes elsewhere; many scores are equal."""
    frames = []
    for _ in range(draw(st.integers(1, 4))):
        objects = rows(*apart(draw(st.integers(0, 12))))
        chosen = draw(st.lists(st.integers(0, max(0, len(objects) - 1)), max_size=15)) if len(objects) else []
        moved = objects[chosen] + np.array([draw(st.sampled_from([0.0, 0.2, 0.5, 3.0])), 0, 0, 0, 0, 0, 0], np.float32)
        wrong = rows(*apart(draw(st.integers(0, 4)), y=40.0))
        count = len(moved) + len(wrong)
        scores = draw(st.lists(st.sampled_from([0.2, 0.4, 0.5, 0.9]), min_size=count, max_size=count))
        names = draw(st.lists(st.sampled_from(["car", "car", "van", "truck"]), min_size=len(objects), max_size=len(objects)))
        guesses = FoundFrame(np.vstack([moved, wrong]), ("car",) * count, np.array(scores, np.float32))
        frames.append((TruthFrame(objects, tuple(names)), guesses))
    return frames


def all_measures(frames: Frames) -> list[float]:
    scores = kitti.kitti_scores(frames, [kitti.CLASSES[0]], [kitti.ANY_OBJECT])
    (distance,) = distance_scores(frames, ["car"])
    return [value for score in scores for value in (score.r11, score.r40, *score.precision)] + list(distance.ap)


@settings(deadline=None)
@given(any_frames(), st.data())
def test_the_order_of_frames_does_not_matter(frames: Frames, data: st.DataObject):
    shuffled = data.draw(st.permutations(frames))
    np.testing.assert_array_equal(all_measures(shuffled), all_measures(frames))


@settings(deadline=None)
@given(any_frames(), st.integers(0, 3), st.sampled_from([0.2, 0.1]))
def test_one_more_wrong_box_of_the_lowest_score_never_helps(frames: Frames, where: int, score: float):
    index = where % len(frames)
    objects, guesses = frames[index]
    worse = [*frames]
    worse[index] = (objects, joined(guesses, found(rows((5.0, 90.0)), score)))
    before, after = np.array(all_measures(frames)), np.array(all_measures(worse))
    np.testing.assert_array_equal(np.isnan(before), np.isnan(after))
    assert (np.nan_to_num(after) <= np.nan_to_num(before)).all()


@settings(deadline=None)
@given(any_frames())
def test_scores_are_percents(frames: Frames):
    values = np.array(all_measures(frames))
    assert ((values >= 0) & (values <= 100) | np.isnan(values)).all()


# --------------------------------------------------------------------------------------------------------------------
# Bad input


def test_arrays_that_do_not_belong_together_are_refused():
    with pytest.raises(ShapeError, match=r"image_boxes: expected shape \(2, 4\).*got \(1, 4\)"):
        truth(rows(*apart(2)), **label(1))
    with pytest.raises(ShapeError, match="scores"):
        FoundFrame(rows(*apart(2)), ("car", "car"), np.ones(3, np.float32))
    with pytest.raises(ShapeError, match="boxes"):
        FoundFrame(rows(*apart(2))[:, :6], ("car", "car"), np.ones(2, np.float32))
    with pytest.raises(ShapeError, match="dont_care"):
        TruthFrame(rows(), (), dont_care=np.zeros((2, 7), np.float32))
    with pytest.raises(DataError, match="scores: expected finite numbers"):
        found(rows(*apart(2)), math.nan)
    with pytest.raises(DataError, match="boxes: expected finite numbers"):
        truth(rows((math.inf, 0.0)))

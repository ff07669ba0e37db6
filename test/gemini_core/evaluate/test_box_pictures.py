"""Pictures of boxes: lines lie where boxes are, nothing is drawn of what is behind the camera, and captions stay inside."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gemini_core.errors import ShapeError
from gemini_core.evaluate.box_pictures import (
    GROUND_COLOR,
    POINT_COLOR,
    SEEN_COLOR,
    TRUTH_COLOR,
    ShownBoxes,
    Wedge,
    birds_eye,
    box_colors,
    camera_wedge,
    draw_boxes_in_image,
    found_boxes,
    truth_boxes,
)
from gemini_core.evaluate.detection_labels import LEVEL_FROM_OPTICAL
from gemini_core.render import CLASS_COLORS, palette
from gemini_core.types import CameraModel

CAMERA = CameraModel(200, 160, 100.0, 100.0, 99.5, 79.5)
OPTICAL_FROM_LEVEL = np.linalg.inv(LEVEL_FROM_OPTICAL)
GREY = np.full((160, 200, 3), 90, np.uint8)
RED = (250, 10, 10)
NOWHERE = np.zeros((0, 4), np.float32)


def rows(*boxes):
    return np.array(boxes, np.float32).reshape(-1, 7)


def painted(picture, color=TRUTH_COLOR):
    """Pixels that are nearly of this colour."""
    return np.abs(picture.astype(int) - np.array(color)).sum(axis=2) < 60


def drawn(*boxes, **options):
    return draw_boxes_in_image(GREY, [truth_boxes(rows(*boxes), **options)], CAMERA, OPTICAL_FROM_LEVEL)


# --------------------------------------------------------------------------------------------------------------------
# In the image


def test_the_edges_of_a_box_are_where_its_corners_project_to():
    image = GREY.copy()
    picture = draw_boxes_in_image(image, [truth_boxes(rows([10, 0, 0, 2, 4, 3, 0]))], CAMERA, OPTICAL_FROM_LEVEL)
    np.testing.assert_array_equal(image, GREY)  # a copy
    row, column = np.nonzero(painted(picture))
    # the near face at 9 m: 2 m to both sides, 1.5 m up and down
    assert column.min() == pytest.approx(99.5 - 200 / 9, abs=2)
    assert column.max() == pytest.approx(99.5 + 200 / 9, abs=2)
    assert row.min() == pytest.approx(79.5 - 150 / 9, abs=2)
    assert row.max() == pytest.approx(79.5 + 150 / 9, abs=2)
    assert painted(picture)[79, 80:83].any()  # an upright edge of the far face, at 11 m
    assert not painted(picture)[79, 99]  # nothing is filled


def test_a_box_to_the_left_is_drawn_to_the_left():
    assert np.nonzero(painted(drawn([10, 3, 1, 1, 1, 1, 0])))[1].max() < 99
    assert np.nonzero(painted(drawn([10, 0, 3, 1, 1, 1, 0])))[0].max() < 79


def test_what_is_behind_the_camera_is_not_drawn():
    np.testing.assert_array_equal(drawn([-10, 0, 0, 2, 2, 2, 0]), GREY)
    named = found_boxes(
        rows([-10, 0, 0, 2, 2, 2, 0]), np.array([0]), np.array([0.9], np.float32), ("car",), box_colors(("car",))
    )
    np.testing.assert_array_equal(draw_boxes_in_image(GREY, [named], CAMERA, OPTICAL_FROM_LEVEL), GREY)


def test_a_box_around_the_camera_is_cut_off_before_it():
    picture = painted(drawn([0, 0, 0, 20, 2, 2, 0]))
    # only the far face at 10 m and the four edges towards the camera, which leave through the picture's corners
    row, column = np.nonzero(picture)
    assert (np.abs(np.abs(column - 99.5) - np.abs(row - 79.5)) < 3)[(row < 60) | (row > 99)].all()
    assert picture[0].any()
    assert picture[-1].any()


def test_a_box_that_is_none_is_not_drawn():
    np.testing.assert_array_equal(drawn([10, 0, 0, 0, 2, 2, 0], [math.nan, 0, 0, 1, 1, 1, 0]), GREY)
    np.testing.assert_array_equal(drawn(), GREY)


@pytest.mark.parametrize("at", [[10, 0, 0], [10, 9.7, 7.5], [10, -9.9, -7.9], [2, 0, 0]])
def test_a_caption_stands_within_the_picture_in_the_colour_of_the_class(at):
    shown = found_boxes(
        rows([*at, 1, 1, 1, 0]), np.array([1]), np.array([0.87], np.float32), ("a", "b"), np.array([(0, 0, 9), RED], np.uint8)
    )
    assert shown.captions == ("b 0.87",)
    plain = ShownBoxes(shown.boxes, shown.colors, ("",))
    with_caption, without = (draw_boxes_in_image(GREY, [each], CAMERA, OPTICAL_FROM_LEVEL) for each in (shown, plain))
    assert painted(with_caption, RED).sum() > painted(without, RED).sum() + 150


def test_near_boxes_are_drawn_over_far_ones():
    boxes = rows([5, 0, 0, 0.1, 2, 2, 0], [10, 0, 0, 0.1, 4, 4, 0])  # on the same pixels
    colors = np.array([RED, TRUTH_COLOR], np.uint8)
    picture = draw_boxes_in_image(GREY, [ShownBoxes(boxes, colors, ("", ""))], CAMERA, OPTICAL_FROM_LEVEL)
    assert painted(picture, RED).sum() > painted(picture).sum()


# --------------------------------------------------------------------------------------------------------------------
# From above


def test_above_ahead_is_up_and_left_is_left():
    picture = birds_eye(NOWHERE, [truth_boxes(rows([30, 8, 0, 4, 2, 1, 0]))], (0, -20, 40, 20), 400)
    assert picture.shape == (400, 400, 3)
    row, column = np.nonzero(painted(picture))
    assert row.min() == pytest.approx((40 - 32) * 10, abs=2)
    assert row.max() == pytest.approx((40 - 28) * 10, abs=2)
    assert column.min() == pytest.approx((20 - 9) * 10, abs=2)
    assert column.max() == pytest.approx((20 - 7) * 10, abs=2)
    inner = painted(picture)[:, 119:121]
    assert inner[90].any()  # a line from the middle to the front
    assert not inner[110].any()


def test_a_turned_box_is_turned_counter_clockwise():
    picture = painted(birds_eye(NOWHERE, [truth_boxes(rows([20, 0, 0, 10, 1, 1, math.pi / 4]))], (0, -20, 40, 20), 400))
    assert picture[200 - 35 : 200 - 20, 200 - 35 : 200 - 20].any()  # ahead and to the left
    assert not picture[200 - 35 : 200 - 20, 200 + 20 : 200 + 35].any()


def test_each_point_is_a_dot_where_it_is():
    points = np.array(
        [[10.05, 5.05, 0, 1], [39.95, -19.95, 0, 1], [100, 0, 0, 1], [math.nan, 0, 0, 1], [-5, 0, 0, 0]], np.float32
    )
    picture = birds_eye(points, [], (0, -20, 40, 20), 400)
    dots = np.argwhere((picture == POINT_COLOR).all(axis=2))
    assert dots.tolist() == [[0, 399], [299, 149]]


def test_the_camera_sees_what_is_light():
    picture = birds_eye(NOWHERE, [], (0, -20, 40, 20), 400, Wedge(0.0, 0.0, 0.0, math.pi / 4))
    assert (picture[230, 200] == SEEN_COLOR).all()
    assert (picture[215, 30] == SEEN_COLOR).all()  # 18.5 m ahead, 17 m to the left
    assert (picture[245, 30] == GROUND_COLOR).all()  # 15.5 m ahead
    assert (picture[245, 369] == GROUND_COLOR).all()


def test_rings_are_ten_metres_apart():
    picture = birds_eye(NOWHERE, [], (0, -20, 40, 20), 400)
    column = (picture[:, 250] != GROUND_COLOR).any(axis=1)  # 5.05 m to the right; right of the letters
    rows_of_rings = [40 - math.sqrt(radius**2 - 5.05**2) for radius in (10, 20, 30, 40)]
    for ahead in rows_of_rings:
        at = round(ahead * 10 - 0.5)
        assert column[at - 1 : at + 2].any()
    assert column.sum() < 14


def test_a_picture_has_the_shape_of_its_range():
    assert birds_eye(NOWHERE, [], (0, -10, 40, 10), 200).shape == (200, 100, 3)
    assert birds_eye(NOWHERE, [], (-10, -10, 10, 30), 100).shape == (100, 200, 3)


# --------------------------------------------------------------------------------------------------------------------
# Colours, views, bad input


def test_a_class_has_the_colour_of_its_mask():
    masks = ("ground", "thing", "car")
    colors = box_colors(("car", "thing", "pedestrian", "other"), masks)
    assert tuple(colors[0]) == CLASS_COLORS["car"]
    assert tuple(colors[1]) == tuple(palette(masks)[1])
    assert tuple(colors[2]) == CLASS_COLORS["pedestrian"]
    assert len({tuple(color) for color in colors.tolist()}) == 4
    assert box_colors(()).shape == (0, 3)


def test_a_camera_sees_as_far_to_the_sides_as_its_edges():
    base = OPTICAL_FROM_LEVEL.copy()
    base[:3, 3] = -OPTICAL_FROM_LEVEL[:3, :3] @ (1.0, 0.5, 2.0)
    wedge = camera_wedge(CameraModel(200, 160, 100.0, 100.0, 49.5, 79.5), base)
    assert wedge[:2] == pytest.approx((1.0, 0.5))
    assert wedge.middle_rad + wedge.half_rad == pytest.approx(math.atan(50 / 100))
    assert wedge.middle_rad - wedge.half_rad == pytest.approx(-math.atan(150 / 100))


def test_boxes_colours_and_captions_belong_together():
    with pytest.raises(ShapeError, match=r"expected \(2, 7\) boxes and \(2, 3\) colours for 2 captions, got \(1, 7\)"):
        ShownBoxes(rows([1, 2, 3, 4, 5, 6, 7]), np.zeros((1, 3), np.uint8), ("", ""))

"""Augmentation: points stay at their pixels, crops lie where they are asked for."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from gemini_core.types import UNLABELLED
from labelled_bags import SIZE
from labelled_frames import some_labelled
from training.augment import augment
from training.config import AugmentConfig
from training.points_and_boxes import (
    inside,
)

PLAIN = AugmentConfig(flip=0.0, scale_min=1.0, scale_max=1.0, color_jitter=0.0, blur=0.0, modality_dropout=0.0)


@pytest.mark.parametrize("crop", [(0, 0), (40, 48), (100, 120)])
@pytest.mark.parametrize("seed", range(4))
def test_after_augmentation_points_are_at_the_same_content_of_the_image(crop, seed):
    config = dataclasses.replace(PLAIN, flip=0.5, scale_min=0.6, scale_max=1.7, crop_height=crop[0], crop_width=crop[1])
    v, u = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    frame = {"rgb": np.stack([u / 100, v / 100, np.ones_like(u)])}  # each pixel says which one it is
    labelled = some_labelled(seed, count=300)
    frame, label, moved = augment(frame, np.zeros((SIZE, SIZE), np.uint8), config, np.random.default_rng(seed), labelled)
    before, after = labelled.points["lidar"], moved.points["lidar"]
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
    np.testing.assert_array_equal(inside(after, moved.boxes), inside(before, labelled.boxes))


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
    labelled = some_labelled(7)
    _, _, moved = augment(frame, np.zeros((SIZE, SIZE), np.uint8), config, np.random.default_rng(0), labelled)
    turn = moved.boxes[:, 6] - labelled.boxes[:, 6]
    assert np.ptp(turn) < 1e-5
    assert 0.01 < abs(turn[0]) <= math.radians(30) + 1e-6
    np.testing.assert_allclose(moved.points["lidar"].pixels, labelled.points["lidar"].pixels, atol=1e-4)

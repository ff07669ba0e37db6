"""Metrics by hand and against torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gemini_core.errors import ShapeError
from gemini_core.evaluate.segmentation import ConfusionMatrix
from gemini_core.types import UNLABELLED


def test_by_hand():
    label = np.array([[0, 0, 1], [1, 2, UNLABELLED]], np.uint8)
    prediction = np.array([[0, 1, 1], [1, UNLABELLED, 0]], np.uint8)
    matrix = ConfusionMatrix(4)
    matrix.add(label, prediction)
    scores = matrix.scores()
    assert scores.iou[:3] == (1 / 2, 2 / 3, 0.0)
    assert math.isnan(scores.iou[3])
    assert scores.mean_iou == pytest.approx((1 / 2 + 2 / 3) / 3)
    assert scores.counted == 3
    assert (scores.pixel_accuracy, scores.pixels) == (3 / 5, 5)


def test_nothing_seen_is_no_number():
    scores = ConfusionMatrix(2).scores()
    assert math.isnan(scores.mean_iou)
    assert math.isnan(scores.pixel_accuracy)


def test_sizes_must_agree():
    with pytest.raises(ShapeError, match="expected the label's size"):
        ConfusionMatrix(2).add(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8))


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_torchmetrics(seed):
    torchmetrics = pytest.importorskip("torchmetrics.classification", reason="torchmetrics is not installed")
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, (4, 20, 30)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.1] = UNLABELLED
    predictions = np.where(rng.random(labels.shape) < 0.6, np.minimum(labels, 5), rng.integers(0, 6, labels.shape)).astype(
        np.uint8
    )
    halves = [ConfusionMatrix(6), ConfusionMatrix(6)]
    for place, (label, prediction) in enumerate(zip(labels, predictions, strict=True)):
        halves[place % 2].add(label, prediction)
    halves[0].merge(halves[1])
    scores = halves[0].scores()
    target, guess = torch.from_numpy(labels.astype(np.int64)), torch.from_numpy(predictions.astype(np.int64))
    jaccard = torchmetrics.MulticlassJaccardIndex(6, average="none", ignore_index=UNLABELLED)
    np.testing.assert_allclose(scores.iou, jaccard(guess, target).numpy(), atol=1e-6)
    accuracy = torchmetrics.MulticlassAccuracy(6, average="micro", ignore_index=UNLABELLED)
    assert scores.pixel_accuracy == pytest.approx(float(accuracy(guess, target)), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_is_that_of_torchmetrics_where_a_class_is_nowhere_or_only_predicted(seed):
    torchmetrics = pytest.importorskip("torchmetrics.classification", reason="torchmetrics is not installed")
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (20, 30)).astype(np.uint8)
    predictions = rng.integers(0, 4, (20, 30)).astype(np.uint8)  # 3 is in no label, 4 is nowhere
    matrix = ConfusionMatrix(5)
    matrix.add(labels, predictions)
    mean = torchmetrics.MulticlassJaccardIndex(5, average="macro")
    expected = float(mean(torch.from_numpy(predictions.astype(np.int64)), torch.from_numpy(labels.astype(np.int64))))
    assert matrix.scores().mean_iou == pytest.approx(expected, abs=1e-6)
    assert matrix.scores().counted == 4

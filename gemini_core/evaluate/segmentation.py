"""Metrics of semantic segmentation (IoU, mean IoU), all from one confusion matrix over the whole set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gemini_core.errors import ShapeError
from gemini_core.types import I64, U8, UNLABELLED


@dataclass(frozen=True, slots=True)
class SegmentationScores:
    """What a confusion matrix says, shares from 0 to 1.

    ``iou`` has one entry per class, NaN for a class that neither labels nor predictions have; ``mean_iou`` is over the
    ``counted`` others; ``pixel_accuracy`` is over all ``pixels`` with a label. NaN where nothing was seen.
    """

    iou: tuple[float, ...]
    mean_iou: float
    pixel_accuracy: float
    counted: int
    pixels: int


class ConfusionMatrix:
    """Counts pixels: ``counts`` (K, K + 1) int64, rows the label's class, columns the predicted one, the last: undecided."""

    def __init__(self, num_classes: int) -> None:
        self.counts: I64 = np.zeros((num_classes, num_classes + 1), np.int64)

    def add(self, label: U8, prediction: U8) -> None:
        """Count one image; pixels whose label is ``UNLABELLED`` do not count.

        Args:
            label: (H, W) class indices or ``UNLABELLED``.
            prediction: (H, W) class indices; ``UNLABELLED``, undecided, is wrong and of no class.

        Raises:
            ShapeError: the two differ in size.
        """
        if label.shape != prediction.shape:
            msg = f"prediction: expected the label's size {label.shape}, got {prediction.shape}"
            raise ShapeError(msg)
        classes = self.counts.shape[0]
        known = label != UNLABELLED
        guess = np.minimum(prediction[known], classes).astype(np.int64)
        pairs = label[known].astype(np.int64) * (classes + 1) + guess
        self.counts += np.bincount(pairs, minlength=self.counts.size).reshape(self.counts.shape)

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the counts of another one over the same classes."""
        self.counts += other.counts

    def scores(self) -> SegmentationScores:
        """Intersection over union per class, its mean, and the share of right pixels."""
        right = np.diagonal(self.counts)
        pixels = int(self.counts.sum())
        union = self.counts.sum(axis=1) + self.counts[:, :-1].sum(axis=0) - right
        iou = np.divide(right, union, out=np.full(right.shape, np.nan), where=union > 0)
        counted = int(np.count_nonzero(union))
        return SegmentationScores(
            iou=tuple(float(each) for each in iou),
            mean_iou=float(np.nanmean(iou)) if counted else float("nan"),
            pixel_accuracy=float(right.sum() / pixels) if pixels else float("nan"),
            counted=counted,
            pixels=pixels,
        )

"""Validation scores of masks and of boxes, and their mean where a task has both."""

from __future__ import annotations

from collections.abc import Sequence

from gemini_core.evaluate.segmentation import SegmentationScores
from training.detection import Scored, bev_scores, mean_precision
from training.tasks.interface import Scores


def mask_scores(scores: SegmentationScores) -> Scores:
    """Mean IoU, 0 to 1."""
    logged = {"mean_iou": scores.mean_iou, "pixel_accuracy": scores.pixel_accuracy}
    return Scores(scores.mean_iou, logged, f"mean IoU {100 * scores.mean_iou:.1f} %")


def box_scores(found: Sequence[Scored], classes: Sequence[str]) -> Scores:
    """Mean average precision of boxes seen from above, 0 to 1."""
    precision = mean_precision(bev_scores(found, classes))
    return Scores(precision, {"bev_ap": precision}, f"mean AP of boxes {100 * precision:.1f} %")


def mean_scores(parts: Sequence[Scores]) -> Scores:
    """The mean of parts, by which the best weights are chosen, with what each of them says."""
    logged = {key: value for part in parts for key, value in part.logged.items()}
    return Scores(sum(part.overall for part in parts) / len(parts), logged, ", ".join(part.said for part in parts))

"""Data loading: processes beside OpenCV's threads, and boxes that are not asked for."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gemini_core.config.fusion import load_config
from gemini_core.model import checkpoints
from gemini_core.model.detection.interface import IGNORED
from labelled_bags import TOPICS
from training.cache import cache_bag
from training.data import FrameDataset, plain_batches


@pytest.mark.timeout(120)
def test_loading_processes_start_where_opencv_has_threads(masks_folder):
    config = load_config(masks_folder / "fusion.yaml")
    bag = cache_bag(masks_folder / "train", config, TOPICS, masks_folder / "cache")
    dataset = FrameDataset((bag,), bag.modalities, checkpoints.default_normalization(bag.modalities))
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        cv2.GaussianBlur(np.zeros((2000, 2000), np.float32), (0, 0), 3.0)  # which starts them
        batches = list(plain_batches(dataset, 2, workers=1))
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(before)
    assert sum(len(batch.number) for batch in batches) == len(dataset) == 6


def test_boxes_with_too_few_points_are_ignored(boxed):
    modalities = ("rgb", "depth", "lidar")
    for least, wanted in ((80, {0, 1}), (81, {IGNORED})):
        dataset = FrameDataset((boxed,), modalities, checkpoints.default_normalization(modalities), min_points=least)
        assert {int(named) for index in range(6) for named in dataset[index, 0].labelled_clouds[0].classes} <= wanted

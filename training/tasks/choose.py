"""The one place that chooses, by configuration, what a run trains."""

from __future__ import annotations

import torch

from gemini_core.config.fusion import FusionConfig
from training.cache import CachedBag
from training.config import TrainingConfig
from training.tasks.interface import AnyTask
from training.tasks.masks import MasksTask
from training.tasks.mvxnet import MvxNetTask


def choose_task(config: TrainingConfig, fusion: FusionConfig, bags: tuple[CachedBag, ...], device: torch.device) -> AnyTask:
    """Give the task of a run.

    Args:
        config: of the run.
        fusion: the node's configuration, which names the classes of masks and boxes.
        bags: the frames to train on.
        device: where.
    """
    if config.detection.detector == "mvxnet":
        return MvxNetTask(config, fusion, device)
    return MasksTask(config, fusion, bags, device)

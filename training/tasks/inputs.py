"""Inputs of a micro-batch that tasks share: modalities after modality dropout, point clouds, autocast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gemini_core.model.detection.interface import Cloud
from training.config import TrainingConfig
from training.data import Batch
from training.points_and_boxes import SOURCES


def modality_presence(config: TrainingConfig, number: int) -> list[bool]:
    """Which modalities micro-batch ``number`` keeps; the same in all processes, since the graph depends on it."""
    rng = np.random.default_rng([config.run.seed, 3, number])
    drawn = rng.random(len(config.model.modalities)) >= config.dropout_rates()
    return [bool(flag) and there for flag, there in zip(drawn, given_modalities(config), strict=True)]


def given_modalities(config: TrainingConfig) -> list[bool]:
    """Which of ``model.modalities`` the run gives the network."""
    return [not config.model.given or modality in config.model.given for modality in config.model.modalities]


def validation_presence(config: TrainingConfig, batch: Batch) -> list[bool]:
    """Which modalities the network gets of a batch of one frame in validation: those that are given and that the frame has."""
    return [flag and given for flag, given in zip(batch.present[:, 0].tolist(), given_modalities(config), strict=True)]


def point_clouds(config: TrainingConfig, batch: Batch, keep: Sequence[bool], device: torch.device) -> list[Cloud]:
    """The points of each frame of a batch, those of depth where the LiDAR is taken away."""
    modalities = config.model.modalities
    source = config.detection.points
    if source == "auto":
        taken = "lidar" in modalities and not keep[modalities.index("lidar")]
        source = "depth" if taken else "lidar"
    clouds = [frame.clouds[SOURCES.index(source)] for frame in batch.labelled_clouds]
    return [cloud.to(device) for cloud in clouds]


def autocast(config: TrainingConfig, device: torch.device) -> torch.autocast:
    """The arithmetic of the forward pass (``run.precision``)."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.run.precision == "bf16")

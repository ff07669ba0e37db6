"""Images to compare an export with eager torch, and to calibrate int8: of a picture, or made up."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from gemini_core.errors import DataError
from gemini_core.files import is_file
from gemini_core.model.checkpoints import Normalization
from gemini_core.types import F32

SEED = 0


def normalise(channels: F32, normalization: tuple[Normalization, ...]) -> F32:
    """Normalise (M, 3, H, W) in [0, 1] as the predictor does."""
    mean = np.array([item.mean for item in normalization], np.float32)[:, :, None, None]
    std = np.array([item.std for item in normalization], np.float32)[:, :, None, None]
    normalised: F32 = (channels - mean) / std
    return normalised


def from_picture(path: str | Path, modalities: int, height: int, width: int) -> F32:
    """Read a colour picture as (M, 3, height, width) in [0, 1]: RGB as it is, the other modalities as its grey values.

    Raises:
        DataError: it is not a picture that OpenCV reads.
    """
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR) if is_file(path) else None
    if picture is None:
        msg = f"{path}: expected a picture, got nothing that OpenCV reads"
        raise DataError(msg)
    sized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    rgb = cv2.cvtColor(sized, cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(cv2.cvtColor(sized, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2RGB)
    stacked = np.stack([rgb, *[grey] * (modalities - 1)]).astype(np.float32) / 255.0
    channels: F32 = np.ascontiguousarray(stacked.transpose(0, 3, 1, 2))
    return channels


def made_up(modalities: int, height: int, width: int) -> F32:
    """Make seeded noise with structures of many sizes, (M, 3, height, width) in [0, 1]."""
    rng = np.random.default_rng(SEED)
    channels = np.zeros((modalities, 3, height, width), np.float32)
    for cells in (4, 16, 64):
        coarse = rng.random((modalities * 3, cells, cells), dtype=np.float32)
        layers = [cv2.resize(layer, (width, height), interpolation=cv2.INTER_CUBIC) for layer in coarse]
        channels += np.stack(layers).reshape(channels.shape) / 3.0
    return channels.clip(0.0, 1.0)

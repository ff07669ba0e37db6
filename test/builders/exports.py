"""Exports of a small network, and the frames and configurations that they are run with."""

from __future__ import annotations

import importlib.util

import pytest
import torch

import grids
from gemini_core.config import from_flat
from gemini_core.model import checkpoints
from gemini_core.model.checkpoints import CheckpointInfo, Normalization
from gemini_core.model.detection.pillars.detector import DetectorConfig
from gemini_core.model.mit import MiTConfig
from gemini_core.runtimes import images
from gemini_core.runtimes.export import Images
from gemini_core.types import GridGeometry
from networks import trained

HEIGHT, WIDTH = 64, 96
CLASSES = ("road", "building", "tree", "car", "sky")
MODULE = {"openvino": "openvino", "onnx": "onnxruntime", "tensorrt": "onnxruntime"}
MODALITIES = ("rgb", "depth")
# Nothing that anybody has by default, so that an export which lost its own would decide otherwise.
NORMALIZATION = (
    Normalization((0.1, 0.5, 0.9), (0.2, 0.5, 0.3)),
    Normalization((0.5, 0.2, 0.7), (0.3, 0.1, 0.4)),
)
ENCODINGS = {"depth.max_m": 7.5}
# Converting takes a second for every block, whatever its size.
SHORT = MiTConfig(widths=(8, 16, 24, 32), depths=(1, 1, 1, 1), heads=(1, 2, 3, 4), mlp_ratio=2, fusion_heads=4)
BOX_CLASSES = ("car", "pedestrian")
DETECTOR = DetectorConfig(BOX_CLASSES, range_m=(0.0, -10.0, -1.0, 20.0, 10.0, 3.0), covariance=True)


def network(modalities=2, detector=None):
    """A short network of modalities, whose images and points decide what it says."""
    segmenter = trained(modalities, SHORT, detector=detector)
    if detector is not None:
        torch.nn.init.constant_(segmenter.detector.head.heat[1].bias, -1.0)  # boxes to compare, and not everywhere
    constant = [parameter for name, parameter in segmenter.head.named_parameters() if "bias" in name]
    for tensor in (*constant, segmenter.head.norm.running_mean):
        torch.nn.init.zeros_(tensor)  # so that what the images hold decides
    return segmenter


def need(runtime):
    """Skip where a runtime is not installed."""
    if importlib.util.find_spec(MODULE[runtime]) is None:
        pytest.skip(f"{MODULE[runtime]} is not installed")


def normalization_of(segmenter):
    return NORMALIZATION[: len(segmenter.config.modalities)]


def info_of(segmenter):
    """What the exports of a network say of it."""
    return CheckpointInfo(CLASSES, normalization_of(segmenter), trained=True, encodings=ENCODINGS)


def save(segmenter, path, **others):
    """Write a network's weights to a file."""
    checkpoints.save(segmenter, path, CLASSES, trained=True, normalization=normalization_of(segmenter), **others)


def inputs_of(segmenter):
    """What an export of a network is checked on."""
    normalization = normalization_of(segmenter)
    return Images([images.normalise(images.made_up(len(normalization), HEIGHT, WIDTH), normalization)], "made-up images")


def config_of(folder, **changes):
    """The configuration that runs the weights or the export in a folder."""
    values = {"model.weights": str(folder), "model.classes": list(CLASSES), "grid.height": HEIGHT, "grid.width": WIDTH}
    return from_flat(
        {"modalities": list(MODALITIES), **values, "model.threads": 2, "model.device": "cpu", **ENCODINGS, **changes}
    )


def grids_of(modalities=MODALITIES, seed=0, height=HEIGHT):
    """Grids of the size that exports are made for."""
    return grids.grids_of(modalities, GridGeometry(WIDTH, height, WIDTH, height, 0, 0, WIDTH, height), seed)

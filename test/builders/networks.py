"""Small networks for the tests of the model."""

from __future__ import annotations

import torch
from torch import nn

from gemini_core.model.mit import MiTConfig
from gemini_core.model.segmentation import Segmenter, SegmenterConfig
from gemini_core.model.swin import SwinConfig

ORDER = ("rgb", "depth", "event", "lidar")
TINY = MiTConfig(widths=(8, 16, 24, 32), depths=(1, 2, 1, 1), heads=(1, 2, 3, 4), mlp_ratio=2, fusion_heads=4)
TINY_SWIN = SwinConfig(width=8, depths=(2, 2, 1, 1), heads=(1, 2, 2, 4), window=4, mlp_ratio=2, fusion_heads=4)
BACKBONES = {"mit": TINY, "swin": TINY_SWIN}


def tiny(modalities=2, backbone=TINY, num_classes=5, **changes):
    """A segmenter with weights that depend on the number of modalities only."""
    torch.manual_seed(modalities)
    return Segmenter(SegmenterConfig(backbone, ORDER[:modalities], num_classes, head_width=16, **changes))


def images(modalities=2, batch=2, size=(64, 96), seed=0):
    """Random images, one batch per modality."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 3, *size, generator=generator) for _ in range(modalities)]


def randomize(module, std=0.5):
    """Give every parameter a random value, so that nothing hides behind a zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=std)
    return module


def assert_close(got, expected):
    """Equal up to 1e-5 of the output's standard deviation, as fp32 rounds."""
    assert ((got - expected).abs().max() / expected.std()).item() < 1e-5


def trained(modalities, backbone=TINY, **changes):
    """A segmenter in which no bias, noise or statistic is at its start, so that a forgotten one would show."""
    torch.manual_seed(modalities)
    segmenter = Segmenter(SegmenterConfig(backbone, ORDER[:modalities], num_classes=5, head_width=16, **changes)).eval()
    for name, parameter in segmenter.named_parameters():
        if "noise" in name or "bias" in name or "stream_weights" in name:
            nn.init.normal_(parameter, std=0.3)
        elif "fusion" in name and parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    nn.init.uniform_(segmenter.head.norm.running_var, 0.5, 2.0)
    nn.init.normal_(segmenter.head.norm.running_mean)
    return segmenter

"""The whole segmentation network: backbone with fusion, one shared head, and the ensemble of both streams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn

from gemini_core.errors import ConfigError, ShapeError, nearest_names
from gemini_core.model.mit import MIT_CONFIGS, MiTConfig, MixTransformer
from gemini_core.types import MODALITIES, UNLABELLED

SMALLEST_SIDE = 32
"""Pixels; below it the last stage, and the reduced keys of the first, have nothing left."""


@dataclass(frozen=True, slots=True)
class SegmenterConfig:
    """What a segmenter is made of; saved with its weights.

    ``modalities`` are in the order of the inputs, RGB first. ``logits_size`` "quarter" gives logits at 1/4 of the input's size,
    "full" brings them up to it, "auto" does what the released models do: quarter for up to two modalities, full for more.
    ``drop_path`` and ``head_dropout`` are rates while training.
    """

    backbone: str | MiTConfig
    modalities: tuple[str, ...]
    num_classes: int
    head_width: int = 256
    drop_path: float = 0.1
    head_dropout: float = 0.1
    logits_size: Literal["auto", "quarter", "full"] = "auto"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: an unknown backbone or modality, RGB not first, or a number out of its range.
        """
        if isinstance(self.backbone, str) and self.backbone not in MIT_CONFIGS:
            msg = f"backbone: unknown name {self.backbone!r} ({nearest_names(self.backbone, MIT_CONFIGS)})"
            raise ConfigError(msg)
        for modality in self.modalities:
            if modality not in MODALITIES:
                msg = f"modalities: unknown name {modality!r} ({nearest_names(modality, MODALITIES)})"
                raise ConfigError(msg)
        if self.modalities[:1] != ("rgb",) or len(set(self.modalities)) != len(self.modalities):
            msg = f"modalities: expected 'rgb' first and each sensor once, got {list(self.modalities)}"
            raise ConfigError(msg)
        if not 1 <= self.num_classes <= UNLABELLED:
            msg = f"num_classes: expected 1 to {UNLABELLED}, got {self.num_classes}"
            raise ConfigError(msg)
        if self.head_width < 1:
            msg = f"head_width: expected 1 or more, got {self.head_width}"
            raise ConfigError(msg)
        for name in ("drop_path", "head_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                msg = f"{name}: expected a rate from 0 to less than 1, got {getattr(self, name)}"
                raise ConfigError(msg)
        if self.logits_size not in ("auto", "quarter", "full"):
            msg = f"logits_size: expected one of auto, quarter, full, got {self.logits_size!r}"
            raise ConfigError(msg)

    @property
    def mit(self) -> MiTConfig:
        """The backbone's numbers."""
        return MIT_CONFIGS[self.backbone] if isinstance(self.backbone, str) else self.backbone

    @property
    def full_size(self) -> bool:
        """Whether logits come at the input's size."""
        return self.logits_size == "full" or (self.logits_size == "auto" and len(self.modalities) > 2)  # noqa: PLR2004 - pairs


class SegmentationOutput(NamedTuple):
    """Logits (B, num_classes, h, w): one per stream (RGB, the others) and their weighted sum."""

    streams: tuple[Tensor, ...]
    ensemble: Tensor


class StageMapping(nn.Module):
    """One stage's way through the head: (B, C, h, w) to (B, head_width, h, w), two linear maps run as their product."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, head_width)
        self.join = nn.Conv2d(head_width, head_width, 1, bias=False)

    def forward(self, feature: Tensor) -> Tensor:
        """Map one feature."""
        join = self.join.weight.flatten(1)  # (head_width, head_width)
        weight = join @ self.projection.weight  # (head_width, C)
        return F.conv2d(feature, weight[:, :, None, None], join @ self.projection.bias)


class MlpHead(nn.Module):
    """SegFormer's all-MLP head: every stage to the same width and to the first one's size, joined, classified.

    The paper upsamples each projected stage, concatenates them and joins them with one 1x1 convolution. That convolution is a
    sum over stages, and it commutes with upsampling, so here each stage is mapped at its own size and the results are added:
    the same numbers for a fraction of the work.
    """

    def __init__(self, widths: Sequence[int], head_width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.mappings = nn.ModuleList(StageMapping(width, head_width) for width in widths)
        self.norm = nn.BatchNorm2d(head_width)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(head_width, num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Classify features (B, C, h, w), fine to coarse; gives logits (B, num_classes, h, w) at the finest size."""
        finest, *coarser = (mapping(feature) for mapping, feature in zip(self.mappings, features, strict=True))
        for mapped in coarser:
            finest.add_(upsample(mapped, finest.shape[2:]))  # in place: these are the largest tensors of the network
        logits: Tensor = self.classifier(self.dropout(F.relu(self.norm(finest), inplace=True)))
        return logits


class Segmenter(nn.Module):
    """GeminiFusion for semantic segmentation, 1 to 4 modalities. Tensors in, tensors out.

    With one modality there is nothing to fuse: it is SegFormer, with one stream that is also the ensemble.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = MixTransformer(config.mit, len(config.modalities), config.drop_path)
        self.head = MlpHead(config.mit.widths, config.head_width, config.num_classes, config.head_dropout)
        self.stream_weights = nn.Parameter(torch.ones(2)) if len(config.modalities) > 1 else None
        self.apply(_initialise)

    def forward(self, inputs: Sequence[Tensor]) -> SegmentationOutput:
        """Segment a batch.

        Args:
            inputs: one (B, 3, H, W) per modality, in the order of ``config.modalities``; H and W at least 32.

        Returns:
            Logits at 1/4 of the input's size (rounded up), or at the input's size, as the configuration says.

        Raises:
            ShapeError: not one input per modality, or shapes that differ or are too small.
        """
        output = self.quarter_logits(inputs)
        if not self.config.full_size:
            return output
        size = inputs[0].shape[2:]
        streams = tuple(upsample(logits, size) for logits in output.streams)
        return SegmentationOutput(streams, upsample(output.ensemble, size))

    def quarter_logits(self, inputs: Sequence[Tensor]) -> SegmentationOutput:
        """Segment a batch like ``forward``, but always at 1/4 of the input's size."""
        self._check(inputs)
        logits: Tensor = self.head(self.backbone(torch.cat(list(inputs))))  # (S*B, K, h, w)
        if self.stream_weights is None:
            return SegmentationOutput((logits,), logits)
        streams = logits.chunk(2)
        weights = self.stream_weights.softmax(0)
        # Detached: the ensemble trains its two weights only; each stream answers for its own logits.
        ensemble = weights[0] * streams[0].detach() + weights[1] * streams[1].detach()
        return SegmentationOutput(streams, ensemble)

    def _check(self, inputs: Sequence[Tensor]) -> None:
        names = self.config.modalities
        if len(inputs) != len(names):
            msg = f"segmenter inputs: expected {len(names)} tensors ({', '.join(names)}), got {len(inputs)}"
            raise ShapeError(msg)
        for name, tensor in zip(names, inputs, strict=True):
            if tensor.ndim != 4 or tensor.shape[1] != 3 or min(tensor.shape[2:]) < SMALLEST_SIDE:  # noqa: PLR2004 - (B, 3, H, W)
                msg = (
                    f"segmenter input {name}: expected (B, 3, H, W), H and W from {SMALLEST_SIDE} up, got {tuple(tensor.shape)}"
                )
                raise ShapeError(msg)
            if tensor.shape != inputs[0].shape:
                msg = f"segmenter input {name}: expected the shape of rgb, {tuple(inputs[0].shape)}, got {tuple(tensor.shape)}"
                raise ShapeError(msg)


def upsample(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Bring (B, K, h, w) to (B, K, *size), bilinearly, pixel areas aligned."""
    return F.interpolate(logits, size=list(size), mode="bilinear", align_corners=False)


def _initialise(module: nn.Module) -> None:
    """Initialise one layer as vision transformers are: linear ones truncated normal 0.02, convolutions normal by fan-out."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)

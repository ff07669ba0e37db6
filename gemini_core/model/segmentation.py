"""The segmenter: backbone with fusion, one shared head, the ensemble of both streams, and a 3D detector if configured.

A pixel that is not a number (NaN) spreads through the self-attention over the whole of its image, in all streams; other images
of the batch keep their values. Nothing here looks for one, since a graph cannot branch on it: the predictor does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn

from gemini_core.errors import ConfigError, ShapeError, nearest_names
from gemini_core.model.detection.interface import Cloud
from gemini_core.model.detection.pillars.codec import BevMaps
from gemini_core.model.detection.pillars.detector import Detector, DetectorConfig
from gemini_core.model.fusions import FUSIONS
from gemini_core.model.mit import MIT_CONFIGS, MiTConfig, MixTransformer
from gemini_core.model.streams import Backbone, BackboneOptions
from gemini_core.model.swin import SWIN_CONFIGS, SwinConfig, SwinTransformer
from gemini_core.types import MODALITIES, UNLABELLED

SMALLEST_SIDE = 32
"""Pixels; below it the last stage, and the reduced keys of the first, have nothing left."""


BACKBONE_CONFIGS: dict[str, MiTConfig | SwinConfig] = {**MIT_CONFIGS, **SWIN_CONFIGS}
"""Every backbone that has a name."""


@dataclass(frozen=True, slots=True)
class SegmenterConfig:
    """What a segmenter is made of; saved with its weights.

    ``backbone`` is one of ``BACKBONE_CONFIGS`` (``mit_b0`` to ``mit_b5``; ``swin_t``, ``swin_s``, ``swin_b``, ``swin_l`` with
    windows of 7, the same with ``_w12`` of 12) or the numbers themselves. ``modalities`` are in the order of the inputs, RGB
    first. ``logits_size`` "quarter" gives logits at 1/4 of the input's size, "full" brings them up to it, "auto" does what the
    released models do: quarter for up to two modalities, full for more.

    ``fusion`` is one of ``FUSIONS``; ``fused_blocks`` limits it to the last blocks, counted over all stages (None: all). With
    "none" the ensemble is the plain average of the streams, and nothing else connects them.

    Only for training: ``drop_path`` and ``head_dropout`` are rates; ``modality_dropout`` is the rate at which each extra
    modality of each sample is taken to be absent (by its validity, so the others of the batch keep it);
    ``gradient_checkpointing`` computes blocks twice instead of keeping what they compute.

    ``detector`` finds boxes from points and the same backbone's features; None: there is none.
    """

    backbone: str | MiTConfig | SwinConfig
    modalities: tuple[str, ...]
    num_classes: int
    head_width: int = 256
    drop_path: float = 0.1
    head_dropout: float = 0.1
    logits_size: Literal["auto", "quarter", "full"] = "auto"
    fusion: str = "gemini"
    fused_blocks: int | None = None
    modality_dropout: float = 0.0
    gradient_checkpointing: bool = False
    detector: DetectorConfig | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: an unknown backbone or modality, RGB not first, or a number out of its range.
        """
        if isinstance(self.backbone, str) and self.backbone not in BACKBONE_CONFIGS:
            msg = f"backbone: unknown name {self.backbone!r} ({nearest_names(self.backbone, BACKBONE_CONFIGS)})"
            raise ConfigError(msg)
        _check_modalities(self.modalities)
        if not 1 <= self.num_classes <= UNLABELLED:
            msg = f"num_classes: expected 1 to {UNLABELLED}, got {self.num_classes}"
            raise ConfigError(msg)
        if self.head_width < 1:
            msg = f"head_width: expected 1 or more, got {self.head_width}"
            raise ConfigError(msg)
        for name in ("drop_path", "head_dropout", "modality_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                msg = f"{name}: expected a rate from 0 to less than 1, got {getattr(self, name)}"
                raise ConfigError(msg)
        if self.logits_size not in ("auto", "quarter", "full"):
            msg = f"logits_size: expected one of auto, quarter, full, got {self.logits_size!r}"
            raise ConfigError(msg)

        if self.fusion not in FUSIONS:
            msg = f"fusion: unknown name {self.fusion!r} ({nearest_names(self.fusion, FUSIONS)})"
            raise ConfigError(msg)
        blocks = sum(self.backbone_config.depths)
        if self.fused_blocks is not None and not 0 <= self.fused_blocks <= blocks:
            msg = f"fused_blocks: expected 0 to {blocks}, the blocks of the backbone, got {self.fused_blocks}"
            raise ConfigError(msg)

    @property
    def backbone_config(self) -> MiTConfig | SwinConfig:
        """The backbone's numbers."""
        return BACKBONE_CONFIGS[self.backbone] if isinstance(self.backbone, str) else self.backbone

    @property
    def full_size(self) -> bool:
        """Whether logits come at the input's size."""
        return self.logits_size == "full" or (self.logits_size == "auto" and len(self.modalities) > 2)  # noqa: PLR2004 - pairs


def _check_modalities(modalities: tuple[str, ...]) -> None:
    for modality in modalities:
        if modality not in MODALITIES:
            msg = f"modalities: unknown name {modality!r} ({nearest_names(modality, MODALITIES)})"
            raise ConfigError(msg)
    if modalities[:1] != ("rgb",) or len(set(modalities)) != len(modalities):
        msg = f"modalities: expected 'rgb' first and each sensor once, got {list(modalities)}"
        raise ConfigError(msg)


class SegmentationOutput(NamedTuple):
    """Logits (B, num_classes, h, w): one per stream (RGB, the others) and their weighted sum.

    Where RGB is the only modality, or the only one present, there is one stream, which is also the ensemble; where no masks
    were wanted, there is none. ``boxes`` are the detector's maps, where points were given to it.
    """

    streams: tuple[Tensor, ...]
    ensemble: Tensor
    boxes: BevMaps | None = None


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

    With one modality there is nothing to fuse: it is the plain backbone with SegFormer's head.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = _backbone(config)
        self.head = MlpHead(config.backbone_config.widths, config.head_width, config.num_classes, config.head_dropout)
        weighted = len(config.modalities) > 1 and config.fusion != "none"
        self.stream_weights = nn.Parameter(torch.ones(2)) if weighted else None
        self.apply(_initialise)
        # after the others, so that these get the same random numbers with and without it; it keeps torch's own beginnings
        widths, classes = config.backbone_config.widths, config.num_classes
        self.detector = None if config.detector is None else Detector(config.detector, widths, classes)

    def forward(
        self,
        inputs: Sequence[Tensor | None],
        present: Sequence[bool] | None = None,
        valid: Sequence[Tensor | None] | None = None,
        clouds: Sequence[Cloud] | None = None,
        *,
        masks: bool = True,
    ) -> SegmentationOutput:
        """Segment a batch, and say where boxes are.

        Args:
            inputs: one (B, 3, H, W) per modality, in the order of ``config.modalities``; H and W at least 32.
            present: which modalities there are; None: all. RGB must be. What an absent one's input holds does not matter, and
                nothing is computed for it (``streams.py`` says what this means for the others).
            valid: one mask (B, 1, H, W) per modality, true where it has data, or None where it has data everywhere. Nothing is
                fused from where a modality has none.
            clouds: the points of each sample, with their pixels on the inputs; None: no boxes are wanted.
            masks: whether logits are wanted; without them ``streams`` is empty and the ensemble (B, num_classes, 0, 0), nothing
                is computed for them unless the detector is painted, and for one of points alone not even the backbone runs.

        Returns:
            Logits at 1/4 of the input's size (rounded up), or at the input's size, as the configuration says.

        Raises:
            ShapeError: not one input, flag or mask per modality, RGB absent, or shapes that differ or are too small; points for
                a network without a detector.
        """
        output = self.quarter_logits(inputs, present, valid, clouds, masks=masks)
        if not (masks and self.config.full_size):
            return output
        size = next(image.shape[2:] for image in inputs if image is not None)
        streams = tuple(upsample(logits, size) for logits in output.streams)
        return output._replace(streams=streams, ensemble=streams[0] if len(streams) == 1 else upsample(output.ensemble, size))

    def quarter_logits(
        self,
        inputs: Sequence[Tensor | None],
        present: Sequence[bool] | None = None,
        valid: Sequence[Tensor | None] | None = None,
        clouds: Sequence[Cloud] | None = None,
        *,
        masks: bool = True,
    ) -> SegmentationOutput:
        """Segment a batch like ``forward``, but always at 1/4 of the input's size."""
        which = self._which(present)
        images = self._check(inputs, which)
        mask = self._masks(images, which, valid)
        detector = None if self.detector is None else self.detector.config
        unseen = not masks and detector is not None and detector.fusion == "lidar"
        features = () if unseen else self.backbone(torch.cat(images), which, mask)
        empty = images[0].new_zeros(len(images[0]), self.config.num_classes, 0, 0)
        painted = clouds is not None and detector is not None and detector.takes_masks
        streams, ensemble = self._logits(features, len(which)) if masks or painted else ((), empty)
        boxes = None if clouds is None else self._boxes(clouds, features, images[0], ensemble)
        return SegmentationOutput(streams, ensemble, boxes) if masks else SegmentationOutput((), empty, boxes)

    def _logits(self, features: Sequence[Tensor], modalities: int) -> tuple[tuple[Tensor, ...], Tensor]:
        """Give the logits of each stream, and of the ensemble, for features of so many modalities."""
        logits: Tensor = self.head(features)  # (S*B, K, h, w)
        if modalities == 1:
            return (logits,), logits
        streams = logits.chunk(2)
        # Detached: the ensemble trains its two weights only; each stream answers for its own logits.
        first, second = (stream.detach() for stream in streams)
        if self.stream_weights is None:
            return streams, 0.5 * (first + second)
        weights = self.stream_weights.softmax(0)
        return streams, weights[0] * first + weights[1] * second

    def _boxes(self, clouds: Sequence[Cloud], features: Sequence[Tensor], image: Tensor, logits: Tensor) -> BevMaps:
        if self.detector is None:
            msg = "segmenter points: expected none for a network without a detector, got some"
            raise ShapeError(msg)
        if len(clouds) != len(image):
            msg = f"segmenter points: expected one cloud for each of the batch's {len(image)} samples, got {len(clouds)}"
            raise ShapeError(msg)
        maps: BevMaps = self.detector(clouds, self.detector.look(features, (image.shape[2], image.shape[3]), logits))
        return maps

    def _which(self, present: Sequence[bool] | None) -> tuple[int, ...]:
        """Give the indices of the modalities that are present."""
        names = self.config.modalities
        if present is None:
            return tuple(range(len(names)))
        if len(present) != len(names):
            msg = f"segmenter presence: expected {len(names)} flags ({', '.join(names)}), got {len(present)}"
            raise ShapeError(msg)
        if not present[0]:
            msg = "segmenter presence: expected rgb to be present, since the others are fused into it, got it absent"
            raise ShapeError(msg)
        return tuple(index for index, flag in enumerate(present) if flag)

    def _masks(self, images: list[Tensor], which: tuple[int, ...], valid: Sequence[Tensor | None] | None) -> Tensor | None:
        """Stack the validity of what is present, less what modality dropout takes away: (A*B, 1, H, W), or None."""
        dropout = self.config.modality_dropout if self.training else 0.0
        if len(which) == 1 or (valid is None and not dropout):
            return None
        names = self.config.modalities
        if valid is not None and len(valid) != len(names):
            msg = f"segmenter validity: expected {len(names)} masks ({', '.join(names)}), got {len(valid)}"
            raise ShapeError(msg)
        shape = (images[0].shape[0], 1, *images[0].shape[2:])
        masks = []
        for index in which:
            mask = None if valid is None else valid[index]
            if mask is not None and mask.shape != shape:
                msg = f"segmenter validity of {names[index]}: expected {shape}, got {tuple(mask.shape)}"
                raise ShapeError(msg)
            mask = torch.ones(shape, device=images[0].device) if mask is None else mask.to(images[0].device, torch.float32)
            if dropout and index > 0:
                mask = mask * (torch.rand(shape[0], 1, 1, 1, device=mask.device) >= dropout)
            masks.append(mask)
        return torch.cat(masks)

    def _check(self, inputs: Sequence[Tensor | None], which: tuple[int, ...]) -> list[Tensor]:
        names = self.config.modalities
        if len(inputs) != len(names):
            msg = f"segmenter inputs: expected {len(names)} tensors ({', '.join(names)}), got {len(inputs)}"
            raise ShapeError(msg)
        images: list[Tensor] = []
        for index in which:
            name, image = names[index], inputs[index]
            if image is None or image.ndim != 4 or image.shape[1] != 3 or min(image.shape[2:]) < SMALLEST_SIDE:  # noqa: PLR2004 - (B, 3, H, W)
                got = "none" if image is None else tuple(image.shape)
                msg = f"segmenter input {name}: expected (B, 3, H, W), H and W from {SMALLEST_SIDE} up, got {got}"
                raise ShapeError(msg)
            if images and image.shape != images[0].shape:
                msg = f"segmenter input {name}: expected the shape of rgb, {tuple(images[0].shape)}, got {tuple(image.shape)}"
                raise ShapeError(msg)
            images.append(image)
        return images


@torch.no_grad()
def rgb_alone(segmenter: Segmenter) -> Segmenter:
    """Give a network of RGB alone the weights that a network of several modalities has for it.

    It computes what the other one does where RGB is the only modality present, but for what the fusion adds to RGB by itself
    there; so it is a beginning for training rather than the same network.
    """
    alone = Segmenter(replace(segmenter.config, modalities=("rgb",)))
    theirs = segmenter.state_dict()
    # Norms have a row per modality, of which RGB's is the first.
    alone.load_state_dict(
        {
            name: theirs[name] if theirs[name].shape == own.shape else theirs[name][:1]
            for name, own in alone.state_dict().items()
        }
    )
    return alone.train(segmenter.training)


def _backbone(config: SegmenterConfig) -> Backbone:
    numbers = config.backbone_config
    options = BackboneOptions(
        len(config.modalities), config.drop_path, config.fusion, config.fused_blocks, config.gradient_checkpointing
    )
    return MixTransformer(numbers, options) if isinstance(numbers, MiTConfig) else SwinTransformer(numbers, options)


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

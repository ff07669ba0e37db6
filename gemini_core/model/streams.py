"""Shared parts of the backbones: tokens and images, norms per stream, modalities to streams, and the stage around blocks.

Shapes: M modalities of the model, A of them present (RGB first), S streams that the blocks see (1 or 2), B batch, N = h*w
tokens, C channels. Modalities and streams travel as one batch, (A*B, ...) and (S*B, ...), all of the first one first. Tokens
are (S*B, N, C); the same memory seen as an image is (S*B, C, h, w) in channels-last order, so going to and from convolutions
copies nothing.

RGB is stream 0; the other modalities together are stream 1. What is not there costs nothing:

- **Presence** is known before the graph runs (plain Python integers). An absent modality is not embedded; the maximum over the
  extra ones is taken over those present; with none of them present there is stream 0 alone.
- **Validity** is a mask per pixel. It is brought to each stage's size by maximum (a token is valid when one of its pixels is).
  Where an extra modality is not valid it is left out of the maximum over the extra ones, and where a stream is not valid
  the fusion of the other stream takes nothing from it, as if it were absent. So, for stream 0, a modality that is valid nowhere
  is the same as one that is not there.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

STAGES = 4
STRIDES = (4, 2, 2, 2)
"""By how much each stage is coarser than what comes before it; sizes are rounded up."""


class Layout(NamedTuple):
    """What a block has to know of its tokens (S*B, h*w, C).

    ``size`` is (h, w), ``streams`` is S, and ``valid`` (S, B, h*w, 1) says where each stream has data (None: everywhere).
    """

    size: tuple[int, int]
    streams: int
    valid: Tensor | None = None


def to_tokens(image: Tensor) -> Tensor:
    """See (B, C, h, w) as (B, h*w, C)."""
    return image.permute(0, 2, 3, 1).flatten(1, 2)


def to_image(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """See (B, h*w, C) as (B, C, h, w)."""
    return tokens.view(tokens.shape[0], *size, tokens.shape[2]).permute(0, 3, 1, 2)


class StreamNorm(nn.Module):
    """LayerNorm over channels with one set of weights per stream (or modality)."""

    def __init__(self, streams: int, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(streams, width))
        self.bias = nn.Parameter(torch.zeros(streams, width))

    def forward(self, tokens: Tensor, rows: tuple[int, ...] | None = None) -> Tensor:
        """Normalise (S*B, N, C) over C; ``rows`` says which streams these are (None: all)."""
        streams, width = self.weight.shape
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if rows is not None and rows != tuple(range(streams)):
            streams, weight, bias = len(rows), weight[list(rows)], bias[list(rows)]
        normed = F.layer_norm(tokens, (width,), eps=self.eps).view(streams, -1, width)  # (S, B*N, C)
        return torch.addcmul(bias[:, None], normed, weight[:, None]).view(tokens.shape)


class DropPath(nn.Module):
    """Skip a residual branch at random, sample by sample, while training (Huang et al., 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Drop some samples of (B, N, C) and scale the others so that the mean stays."""
        if self.rate == 0.0 or not self.training:
            return branch
        keep = 1.0 - self.rate
        mask = branch.new_empty(branch.shape[0], 1, 1).bernoulli_(keep)
        return branch * (mask / keep)


class ModalityScore(nn.Module):
    """How much each pixel of one modality is to be trusted: (B, C, h, w) to (B, 1, h, w) in (0, 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.pointwise = nn.Conv2d(width, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Score every pixel."""
        score: Tensor = self.pointwise(self.depthwise(image)).sigmoid()
        return score


class Stage(nn.Module):
    """One resolution: embed every modality, bring those beside RGB down to one stream, run the blocks on the streams.

    A subclass says how its blocks are run (``transform``) and what goes on to the next stage (``carries_normed``).
    """

    carries_normed: bool

    def __init__(self, modalities: int, stage: int, embed: nn.Module, blocks: Sequence[nn.Module], norm: StreamNorm) -> None:
        super().__init__()
        streams, width = norm.weight.shape
        self.stride = STRIDES[stage]
        self.last = stage == STAGES - 1
        self.checkpointing = False
        self.embed = embed
        self.scores = nn.ModuleList(ModalityScore(width) for _ in range(modalities - 1 if modalities > streams else 0))
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm

    def forward(self, images: Tensor, present: tuple[int, ...], valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Run the stage.

        Args:
            images: (A*B, inputs, H, W), the modalities that are present.
            present: which modalities these are, 0 (RGB) first.
            valid: (A*B, 1, H, W), above 0 where a modality has data; None: everywhere.

        Returns:
            The streams' features (S*B, C, h, w), and images (A*B, C, h, w) and validity (A*B, 1, h, w) for the next stage.
        """
        tokens, size = self.embed(images, present)
        if valid is not None:
            valid = F.max_pool2d(valid, self.stride, ceil_mode=True)  # (A*B, 1, h, w)
        of_streams, extras = valid, []
        if self.scores and len(present) > 1:
            rgb, *extras = to_image(tokens, size).chunk(len(present))  # each (B, C, h, w)
            extras = [extra + self.scores[index - 1](extra) * extra for extra, index in zip(extras, present[1:], strict=True)]
            strongest, of_streams = _strongest(extras, valid)
            tokens = to_tokens(torch.cat((rgb, strongest)))
        layout = Layout(size, min(len(present), 2))
        if of_streams is not None:
            layout = layout._replace(valid=of_streams.reshape(layout.streams, -1, size[0] * size[1], 1) > 0)
        tokens = self.transform(tokens, layout)
        features = to_image(self.norm(tokens, tuple(range(layout.streams))), size)
        carried = features if self.carries_normed else to_image(tokens, size)
        if extras and not self.last:
            rgb, fused = carried.chunk(2)
            carried = torch.cat((rgb, *(extra + fused for extra in extras)))
        return features, carried, valid

    def transform(self, tokens: Tensor, layout: Layout) -> Tensor:
        """Run the blocks on tokens (S*B, N, C)."""
        raise NotImplementedError

    def run_blocks(self, tokens: Tensor, *shared: Any) -> Tensor:  # noqa: ANN401 - whatever this backbone's blocks take
        """Run the blocks one after the other, each with the same further arguments."""
        for block in self.blocks:
            if self.checkpointing and self.training and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, *shared, use_reentrant=False)
            else:
                tokens = block(tokens, *shared)
        return tokens


def _strongest(extras: Sequence[Tensor], valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Take the element-wise maximum of the extra modalities (B, C, h, w) over those that are valid at a pixel.

    Where none is, it is taken over all (nobody fuses from there). The validity (A*B, 1, h, w) of RGB and the extra modalities
    becomes that of the two streams, (2*B, 1, h, w).
    """
    strongest = functools.reduce(torch.maximum, extras)
    if valid is None:
        return strongest, None
    of_rgb, *of_extras = valid.chunk(len(extras) + 1)
    somewhere = functools.reduce(torch.maximum, of_extras)
    lowest = torch.finfo(strongest.dtype).min
    only_valid = [torch.where(mask > 0, extra, lowest) for extra, mask in zip(extras, of_extras, strict=True)]
    strongest = torch.where(somewhere > 0, functools.reduce(torch.maximum, only_valid), strongest)
    return strongest, torch.cat((of_rgb, somewhere))


@dataclass(frozen=True, slots=True)
class BackboneOptions:
    """What a backbone is besides its own numbers; see ``SegmenterConfig``."""

    modalities: int
    drop_path: float = 0.0
    fusion: str = "gemini"
    fused_blocks: int | None = None
    checkpointing: bool = False


class BlockPlan(NamedTuple):
    """What differs from block to block: the rate of drop path, and which fusion follows the self-attention."""

    drop_path: float
    fusion: str


def plan_blocks(depths: Sequence[int], options: BackboneOptions) -> list[list[BlockPlan]]:
    """Plan the blocks of every stage.

    The drop-path rate rises linearly from 0 at the first block to the asked one at the last. The last ``fused_blocks`` fuse.
    """
    count = sum(depths)
    fused = 0 if options.modalities == 1 else count if options.fused_blocks is None else options.fused_blocks
    plans = iter(
        BlockPlan(options.drop_path * block / max(count - 1, 1), options.fusion if block >= count - fused else "none")
        for block in range(count)
    )
    return [[next(plans) for _ in range(depth)] for depth in depths]


class Backbone(nn.Module):
    """Four stages for 1 to 4 modalities; RGB is stream 0, the others together are stream 1 (one modality: one stream)."""

    def __init__(self, stages: Sequence[Stage], options: BackboneOptions) -> None:
        super().__init__()
        self.modalities = options.modalities
        self.stages = nn.ModuleList(stages)
        for stage in stages:
            stage.checkpointing = options.checkpointing

    def forward(
        self, images: Tensor, present: tuple[int, ...] | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Compute the streams' features.

        Args:
            images: (A*B, 3, H, W), all of the first modality first; H and W at least 32.
            present: which modalities these are, 0 (RGB) first; None: all.
            valid: (A*B, 1, H, W), above 0 where a modality has data; None: everywhere.

        Returns:
            Four tensors (S*B, C, h, w) at 1/4, 1/8, 1/16 and 1/32 of the input, sizes rounded up; S is 2, or 1 where RGB is
            alone.
        """
        if present is None:
            present = tuple(range(self.modalities))
        features = []
        for stage in self.stages:
            streams, images, valid = stage(images, present, valid)
            features.append(streams)
        return tuple(features)

"""The Mix Transformer backbone (SegFormer, Xie et al., NeurIPS 2021, arXiv 2105.15203) with GeminiFusion in every block.

All weights are shared by the modalities except the LayerNorms. Shapes are those of ``streams.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn

from gemini_core.errors import ConfigError
from gemini_core.model.fusions import make_fusion
from gemini_core.model.streams import (
    STAGES,
    STRIDES,
    Backbone,
    BackboneOptions,
    BlockPlan,
    DropPath,
    Layout,
    Stage,
    StreamNorm,
    plan_blocks,
    to_image,
    to_tokens,
)


@dataclass(frozen=True, slots=True)
class MiTConfig:
    """The numbers of a Mix Transformer, one per stage (at 1/4, 1/8, 1/16, 1/32 of the input).

    ``heads`` are those of the self-attention, whose keys are reduced ``sr_ratios`` times in both directions; ``fusion_heads``
    are those of GeminiFusion. ``norm_eps`` is what the norms add to a variance (`transformers` adds 1e-5).
    """

    widths: tuple[int, ...] = (64, 128, 320, 512)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    heads: tuple[int, ...] = (1, 2, 5, 8)
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)
    mlp_ratio: int = 4
    fusion_heads: int = 8
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: not four numbers, one below 1, or heads that do not divide their width.
        """
        for name in ("widths", "depths", "heads", "sr_ratios"):
            numbers: tuple[int, ...] = getattr(self, name)
            if len(numbers) != STAGES or min(numbers) < 1:
                msg = f"backbone {name}: expected {STAGES} numbers from 1 up, got {list(numbers)}"
                raise ConfigError(msg)
        for name in ("mlp_ratio", "fusion_heads"):
            if getattr(self, name) < 1:
                msg = f"backbone {name}: expected 1 or more, got {getattr(self, name)}"
                raise ConfigError(msg)
        for width, heads in zip(self.widths, self.heads, strict=True):
            if width % heads or width % self.fusion_heads:
                msg = f"backbone widths: expected multiples of heads {heads} and {self.fusion_heads}, got {width}"
                raise ConfigError(msg)


# Table 6 of the SegFormer paper.
MIT_CONFIGS = {
    "mit_b0": MiTConfig(widths=(32, 64, 160, 256)),
    "mit_b1": MiTConfig(),
    "mit_b2": MiTConfig(depths=(3, 4, 6, 3)),
    "mit_b3": MiTConfig(depths=(3, 4, 18, 3)),
    "mit_b4": MiTConfig(depths=(3, 8, 27, 3)),
    "mit_b5": MiTConfig(depths=(3, 6, 40, 3)),
}


class PatchEmbedding(nn.Module):
    """Overlapping patches: a strided convolution, then the norm."""

    def __init__(self, modalities: int, inputs: int, width: int, kernel: int, stride: int, *, eps: float) -> None:
        super().__init__()
        self.projection = nn.Conv2d(inputs, width, kernel, stride, padding=kernel // 2)
        self.norm = StreamNorm(modalities, width, eps)

    def forward(self, images: Tensor, present: tuple[int, ...]) -> tuple[Tensor, tuple[int, int]]:
        """Embed (A*B, inputs, H, W) of the modalities that are present; gives tokens (A*B, h*w, C) and (h, w)."""
        embedded: Tensor = self.projection(images.contiguous(memory_format=torch.channels_last))
        tokens: Tensor = self.norm(to_tokens(embedded), present)
        return tokens, (embedded.shape[2], embedded.shape[3])


class ReducedAttention(nn.Module):
    """Self-attention of each stream over keys at reduced size, then the fusion of the streams, where there is one."""

    def __init__(
        self, streams: int, width: int, heads: int, sr_ratio: int, fusion: nn.Module | None, *, eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5  # of the scores
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.reduction = nn.Conv2d(width, width, sr_ratio, sr_ratio) if sr_ratio > 1 else None
        self.reduction_norm = StreamNorm(streams, width, eps) if sr_ratio > 1 else None
        self.fusion = fusion
        self.output = nn.Linear(width, width)

    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        """Attend; tokens (S*B, h*w, C) to the same."""
        batch, count, width = tokens.shape
        source = tokens
        if self.reduction is not None and self.reduction_norm is not None:
            reduced = to_tokens(self.reduction(to_image(tokens, layout.size)))  # (S*B, K, C)
            source = self.reduction_norm(reduced, tuple(range(layout.streams)))
        query = self.query(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (S*B, heads, N, d)
        key, value = self.key_value(source).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (S*B, heads, K, d)
        attended = F.scaled_dot_product_attention(query, key, value, scale=self.scale)  # (S*B, heads, N, d)
        attended = attended.transpose(1, 2).reshape(batch, count, width)
        if self.fusion is not None:
            streams = attended.view(layout.streams, -1, count, width)
            attended = self.fusion(streams, layout.valid).view(batch, count, width)
        projected: Tensor = self.output(attended)
        return projected


class MixFeedForward(nn.Module):
    """Feed-forward layer that knows where it is through a 3x3 depth-wise convolution in its middle."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        hidden = width * ratio
        self.expand = nn.Linear(width, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Transform tokens (S*B, h*w, C) at size (h, w)."""
        # Before the change back to tokens, since OpenVINO makes it part of the convolution there.
        hidden = to_tokens(F.gelu(self.depthwise(to_image(self.expand(tokens), size))))
        contracted: Tensor = self.contract(hidden)
        return contracted


class Block(nn.Module):
    """Attention and feed-forward layer, each behind a norm and beside a residual."""

    def __init__(self, streams: int, config: MiTConfig, stage: int, plan: BlockPlan) -> None:
        super().__init__()
        width = config.widths[stage]
        fusion = make_fusion(plan.fusion, width, config.fusion_heads)
        heads, sr_ratio = config.heads[stage], config.sr_ratios[stage]
        self.attention_norm = StreamNorm(streams, width, config.norm_eps)
        self.attention = ReducedAttention(streams, width, heads, sr_ratio, fusion, eps=config.norm_eps)
        self.mlp_norm = StreamNorm(streams, width, config.norm_eps)
        self.mlp = MixFeedForward(width, config.mlp_ratio)
        self.drop_path = DropPath(plan.drop_path)

    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        """Transform tokens (S*B, h*w, C)."""
        rows = tuple(range(layout.streams))
        tokens = tokens + self.drop_path(self.attention(self.attention_norm(tokens, rows), layout))
        updated: Tensor = tokens + self.drop_path(self.mlp(self.mlp_norm(tokens, rows), layout.size))
        return updated


class MixStage(Stage):
    """One resolution of the Mix Transformer; the next stage takes its normed features."""

    carries_normed = True

    def __init__(self, config: MiTConfig, modalities: int, stage: int, plans: Sequence[BlockPlan]) -> None:
        inputs, width = ((3, *config.widths)[stage], config.widths[stage])
        kernel = 7 if stage == 0 else 3
        embed = PatchEmbedding(modalities, inputs, width, kernel, STRIDES[stage], eps=config.norm_eps)
        streams = min(modalities, 2)
        blocks = [Block(streams, config, stage, plan) for plan in plans]
        super().__init__(modalities, stage, embed, blocks, StreamNorm(streams, width, config.norm_eps))

    def transform(self, tokens: Tensor, layout: Layout) -> Tensor:
        """Run the blocks on tokens (S*B, N, C)."""
        return self.run_blocks(tokens, layout)


class MixTransformer(Backbone):
    """The backbone of SegFormer for 1 to 4 modalities."""

    def __init__(self, config: MiTConfig, options: BackboneOptions) -> None:
        plans = plan_blocks(config.depths, options)
        super().__init__([MixStage(config, options.modalities, stage, plans[stage]) for stage in range(STAGES)], options)

"""The Swin Transformer backbone (Liu et al., ICCV 2021, arXiv 2103.14030) with GeminiFusion in every block.

Weights are shared by the modalities; only the patch embedding's norm and the output norms are per modality or stream. Shapes
are those of ``streams.py``; besides them P windows per image, T = window² tokens in each, and d channels per head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
    to_tokens,
)


@dataclass(frozen=True, slots=True)
class SwinConfig:
    """The numbers of a Swin Transformer; ``depths`` and ``heads`` one per stage (at 1/4, 1/8, 1/16, 1/32 of the input).

    ``width`` is the first stage's, each further one has twice as many channels. ``heads`` are those of the self-attention in
    windows of ``window`` x ``window`` tokens; ``fusion_heads`` are those of GeminiFusion.
    """

    width: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    mlp_ratio: int = 4
    fusion_heads: int = 8

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: not four numbers, one below 1, a window below 2, or heads that do not divide their width.
        """
        for name in ("depths", "heads"):
            numbers: tuple[int, ...] = getattr(self, name)
            if len(numbers) != STAGES or min(numbers) < 1:
                msg = f"backbone {name}: expected {STAGES} numbers from 1 up, got {list(numbers)}"
                raise ConfigError(msg)
        for name, least in (("width", 1), ("window", 2), ("mlp_ratio", 1), ("fusion_heads", 1)):
            if getattr(self, name) < least:
                msg = f"backbone {name}: expected {least} or more, got {getattr(self, name)}"
                raise ConfigError(msg)
        for width, heads in zip(self.widths, self.heads, strict=True):
            if width % heads or width % self.fusion_heads:
                msg = f"backbone widths: expected multiples of heads {heads} and {self.fusion_heads}, got {width}"
                raise ConfigError(msg)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.width * 2**stage for stage in range(STAGES))


# Section 3.3 of the Swin paper; windows of 12 are its models for images of 384 pixels.
_SIZES = {
    "swin_t": SwinConfig(),
    "swin_s": SwinConfig(depths=(2, 2, 18, 2)),
    "swin_b": SwinConfig(width=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32)),
    "swin_l": SwinConfig(width=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48)),
}
SWIN_CONFIGS = _SIZES | {
    f"{name}_w12": SwinConfig(config.width, config.depths, config.heads, window=12) for name, config in _SIZES.items()
}


class Windows(NamedTuple):
    """How the tokens of one stage fall into windows.

    ``window`` is the side; ``places`` (T*T,) says which row of the position table belongs to each pair of tokens of a window;
    ``same`` (P, T, T) says for shifted windows which pairs were neighbours before the shift.
    """

    window: int
    places: Tensor
    same: Tensor


def divide(size: tuple[int, int], window: int, device: torch.device) -> Windows:
    """Find windows for a grid of ``size`` (h, w)."""
    side = torch.arange(window, device=device)
    distance = side[:, None] - side + window - 1  # (window, window), 0 to 2 * window - 2
    # (y, x, y', x') -> row of the table, whose rows run over the vertical distance, then the horizontal one
    places = distance[:, None, :, None] * (2 * window - 1) + distance[None, :, None, :]
    # The shift wraps the first window // 2 rows and columns around to the end; they see only each other.
    shifted = [torch.arange(-(-length // window) * window, device=device).view(-1, window) for length in size]
    row, column = (
        numbers >= numbers.numel() - window // 2 for numbers in shifted
    )  # (rows of windows, window), (columns, window)
    region = 2 * row[:, None, :, None].int() + column[None, :, None, :].int()  # (rows, columns, window, window)
    region = region.flatten(2).flatten(0, 1)  # (P, T)
    return Windows(window, places.flatten(), region[:, :, None] == region[:, None, :])


class WindowAttention(nn.Module):
    """Self-attention of each stream within windows, with a learnt bias for each relative position and head."""

    def __init__(self, width: int, heads: int, window: int, *, shifted: bool) -> None:
        super().__init__()
        self.heads = heads
        self.shifted = shifted
        self.query_key_value = nn.Linear(width, 3 * width)
        self.position_bias = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        self.output = nn.Linear(width, width)
        nn.init.trunc_normal_(self.position_bias, std=0.02)

    def forward(self, tokens: Tensor, size: tuple[int, int], windows: Windows) -> Tensor:
        """Attend; tokens (S*B, h*w, C) at size (h, w) to the same. The grid is padded with zeros to whole windows."""
        batch, _, width = tokens.shape
        (height, length), side = size, windows.window
        rows, columns = -(-height // side), -(-length // side)
        shift = side // 2 if self.shifted else 0
        grid = F.pad(tokens.view(batch, height, length, width), (0, 0, 0, columns * side - length, 0, rows * side - height))
        if shift:
            grid = grid.roll((-shift, -shift), dims=(1, 2))
        by_window = grid.view(batch, rows, side, columns, side, width).transpose(2, 3).reshape(-1, side * side, width)
        attended = self._attend(by_window, windows, batch)  # (S*B*P, T, C)
        grid = attended.view(batch, rows, columns, side, side, width).transpose(2, 3).reshape(grid.shape)
        if shift:
            grid = grid.roll((shift, shift), dims=(1, 2))
        projected: Tensor = self.output(grid[:, :height, :length].reshape(tokens.shape))
        return projected

    def _attend(self, tokens: Tensor, windows: Windows, batch: int) -> Tensor:
        query, key, value = self.query_key_value(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        pairs = tokens.shape[1], tokens.shape[1]
        bias = self.position_bias[windows.places].view(*pairs, self.heads).permute(2, 0, 1)[None]  # (1, heads, T, T)
        if self.shifted:
            bias = torch.where(windows.same[:, None], bias, float("-inf")).repeat(batch, 1, 1, 1)  # (S*B*P, heads, T, T)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        return attended.transpose(1, 2).flatten(2)


class PatchEmbedding(nn.Module):
    """Patches side by side: a strided convolution, then the norm."""

    def __init__(self, modalities: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, width, STRIDES[0], STRIDES[0])
        self.norm = StreamNorm(modalities, width)

    def forward(self, images: Tensor, present: tuple[int, ...]) -> tuple[Tensor, tuple[int, int]]:
        """Embed (A*B, 3, H, W), padded with zeros to whole patches; gives tokens (A*B, h*w, C) and (h, w)."""
        height, width = images.shape[2:]
        padded = F.pad(images, (0, -width % STRIDES[0], 0, -height % STRIDES[0]))
        embedded: Tensor = self.projection(padded.contiguous(memory_format=torch.channels_last))
        tokens: Tensor = self.norm(to_tokens(embedded), present)
        return tokens, (embedded.shape[2], embedded.shape[3])


class PatchMerging(nn.Module):
    """Four neighbouring tokens become one of twice the width: norm, then a linear map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, images: Tensor, present: tuple[int, ...]) -> tuple[Tensor, tuple[int, int]]:
        """Merge (A*B, C, H, W), padded with zeros to even sizes; gives tokens (A*B, h*w, 2C) and (h, w)."""
        del present  # all modalities share these weights
        batch, channels, height, width = images.shape
        padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, 0, width % 2, 0, height % 2))
        size = (-(-height // 2), -(-width // 2))
        # A token's channels are those of its (row, column) parts (0, 0), (1, 0), (0, 1), (1, 1), in this order.
        parts = padded.reshape(batch, size[0], 2, size[1], 2, channels).permute(0, 1, 3, 4, 2, 5)
        tokens: Tensor = self.reduction(self.norm(parts.reshape(batch, size[0] * size[1], 4 * channels)))
        return tokens, size


class FeedForward(nn.Module):
    """Two linear maps with GELU between them."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, width * ratio)
        self.contract = nn.Linear(width * ratio, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform (B, N, C)."""
        contracted: Tensor = self.contract(F.gelu(self.expand(tokens)))
        return contracted


class Block(nn.Module):
    """Window attention, then the fusion of the streams, and the feed-forward layer; each behind a norm, beside a residual."""

    def __init__(self, config: SwinConfig, stage: int, plan: BlockPlan, *, shifted: bool) -> None:
        super().__init__()
        width = config.widths[stage]
        self.attention_norm = nn.LayerNorm(width)
        self.attention = WindowAttention(width, config.heads[stage], config.window, shifted=shifted)
        self.fusion = make_fusion(plan.fusion, width, config.fusion_heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = FeedForward(width, config.mlp_ratio)
        self.drop_path = DropPath(plan.drop_path)

    def forward(self, tokens: Tensor, layout: Layout, windows: Windows) -> Tensor:
        """Transform tokens (S*B, h*w, C)."""
        attended = self.attention(self.attention_norm(tokens), layout.size, windows)
        if self.fusion is not None:
            streams = attended.view(layout.streams, -1, *attended.shape[1:])
            attended = self.fusion(streams, layout.valid).view(tokens.shape)
        tokens = tokens + self.drop_path(attended)
        updated: Tensor = tokens + self.drop_path(self.mlp(self.mlp_norm(tokens)))
        return updated


class SwinStage(Stage):
    """One resolution of the Swin Transformer; the next stage takes its features before the output norm."""

    carries_normed = False

    def __init__(self, config: SwinConfig, modalities: int, stage: int, plans: Sequence[BlockPlan]) -> None:
        embed = PatchEmbedding(modalities, config.width) if stage == 0 else PatchMerging(config.widths[stage - 1])
        blocks = [Block(config, stage, plan, shifted=index % 2 == 1) for index, plan in enumerate(plans)]
        super().__init__(modalities, stage, embed, blocks, StreamNorm(min(modalities, 2), config.widths[stage]))
        self.window = config.window

    def transform(self, tokens: Tensor, layout: Layout) -> Tensor:
        """Run the blocks on tokens (S*B, N, C)."""
        return self.run_blocks(tokens, layout, divide(layout.size, self.window, tokens.device))


class SwinTransformer(Backbone):
    """The Swin backbone for 1 to 4 modalities."""

    def __init__(self, config: SwinConfig, options: BackboneOptions) -> None:
        plans = plan_blocks(config.depths, options)
        super().__init__([SwinStage(config, options.modalities, stage, plans[stage]) for stage in range(STAGES)], options)

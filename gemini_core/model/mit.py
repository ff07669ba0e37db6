"""The Mix Transformer backbone (SegFormer, Xie et al., NeurIPS 2021, arXiv 2105.15203) with GeminiFusion in every block.

All weights are shared by the modalities except the LayerNorms, so the streams travel as one batch: (S*B, ...) with all of
stream 0 first. Tokens are (S*B, N, C); the same memory seen as an image is (S*B, C, h, w) in channels-last order, so going to
and from convolutions copies nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn

from gemini_core.errors import ConfigError
from gemini_core.model.fusion import GeminiFusion

STAGES = 4


@dataclass(frozen=True, slots=True)
class MiTConfig:
    """The numbers of a Mix Transformer, one per stage (at 1/4, 1/8, 1/16, 1/32 of the input).

    ``heads`` are those of the self-attention, whose keys are reduced ``sr_ratios`` times in both directions; ``fusion_heads``
    are those of GeminiFusion.
    """

    widths: tuple[int, ...] = (64, 128, 320, 512)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    heads: tuple[int, ...] = (1, 2, 5, 8)
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)
    mlp_ratio: int = 4
    fusion_heads: int = 8

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


def to_tokens(image: Tensor) -> Tensor:
    """See (B, C, h, w) as (B, h*w, C)."""
    return image.permute(0, 2, 3, 1).flatten(1, 2)


def to_image(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """See (B, h*w, C) as (B, C, h, w)."""
    return tokens.view(tokens.shape[0], *size, tokens.shape[2]).permute(0, 3, 1, 2)


class StreamNorm(nn.Module):
    """LayerNorm over channels with one set of weights per stream."""

    def __init__(self, streams: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(streams, width))
        self.bias = nn.Parameter(torch.zeros(streams, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Normalise (S*B, N, C) over C."""
        streams, width = self.weight.shape
        normed = F.layer_norm(tokens, (width,), eps=1e-6).view(streams, -1, width)  # (S, B*N, C)
        return torch.addcmul(self.bias[:, None], normed, self.weight[:, None]).view(tokens.shape)


class PatchEmbedding(nn.Module):
    """Overlapping patches: a strided convolution, then the norm."""

    def __init__(self, streams: int, inputs: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(inputs, width, kernel, stride, padding=kernel // 2)
        self.norm = StreamNorm(streams, width)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Embed (S*B, inputs, H, W); gives tokens (S*B, h*w, C) and (h, w)."""
        embedded: Tensor = self.projection(images.contiguous(memory_format=torch.channels_last))
        tokens: Tensor = self.norm(to_tokens(embedded))
        return tokens, (embedded.shape[2], embedded.shape[3])


class ReducedAttention(nn.Module):
    """Self-attention of each stream over keys at reduced size, then, for two streams, GeminiFusion between them."""

    def __init__(self, streams: int, width: int, heads: int, sr_ratio: int, fusion_heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.streams = streams
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.reduction = nn.Conv2d(width, width, sr_ratio, sr_ratio) if sr_ratio > 1 else None
        self.reduction_norm = StreamNorm(streams, width) if sr_ratio > 1 else None
        self.fusion = GeminiFusion(width, fusion_heads) if streams > 1 else None
        self.output = nn.Linear(width, width)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Attend; tokens (S*B, h*w, C) at size (h, w) to (S*B, h*w, C)."""
        batch, count, width = tokens.shape
        source = tokens
        if self.reduction is not None and self.reduction_norm is not None:
            source = self.reduction_norm(to_tokens(self.reduction(to_image(tokens, size))))  # (S*B, M, C)
        query = self.query(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (S*B, heads, N, d)
        key, value = self.key_value(source).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (S*B, heads, M, d)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, count, width)
        if self.fusion is not None:
            attended = self.fusion(attended.view(self.streams, -1, count, width)).view(batch, count, width)
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
        hidden = to_tokens(self.depthwise(to_image(self.expand(tokens), size)))
        contracted: Tensor = self.contract(F.gelu(hidden))
        return contracted


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


class Block(nn.Module):
    """Attention and feed-forward layer, each behind a norm and beside a residual."""

    def __init__(self, streams: int, config: MiTConfig, stage: int, drop_path: float) -> None:
        super().__init__()
        width = config.widths[stage]
        self.attention_norm = StreamNorm(streams, width)
        self.attention = ReducedAttention(streams, width, config.heads[stage], config.sr_ratios[stage], config.fusion_heads)
        self.mlp_norm = StreamNorm(streams, width)
        self.mlp = MixFeedForward(width, config.mlp_ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Transform tokens (S*B, h*w, C) at size (h, w)."""
        tokens = tokens + self.drop_path(self.attention(self.attention_norm(tokens), size))
        updated: Tensor = tokens + self.drop_path(self.mlp(self.mlp_norm(tokens), size))
        return updated


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
    """One resolution: embed every modality, bring those beside RGB down to one stream, run the blocks on the streams."""

    def __init__(self, modalities: int, config: MiTConfig, stage: int, drop_paths: Sequence[float]) -> None:
        super().__init__()
        inputs, width = ((3, *config.widths)[stage], config.widths[stage])
        kernel, stride = (7, 4) if stage == 0 else (3, 2)
        streams = min(modalities, 2)
        self.modalities = modalities
        self.embed = PatchEmbedding(modalities, inputs, width, kernel, stride)
        self.scores = nn.ModuleList(ModalityScore(width) for _ in range(modalities - 1 if modalities > streams else 0))
        self.blocks = nn.ModuleList(Block(streams, config, stage, rate) for rate in drop_paths)
        self.norm = StreamNorm(streams, width)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Run the stage.

        Args:
            images: (M*B, inputs, H, W), all modalities.

        Returns:
            The streams (S*B, C, h, w), and all modalities (M*B, C, h, w) for the next stage. With up to two modalities
            these are the same.
        """
        tokens, size = self.embed(images)
        if not self.scores:
            streams = self._run_blocks(tokens, size)
            return streams, streams
        rgb, *others = to_image(tokens, size).chunk(self.modalities)  # each (B, C, h, w)
        others = [other + score(other) * other for other, score in zip(others, self.scores, strict=True)]
        strongest = functools.reduce(torch.maximum, others)
        streams = self._run_blocks(to_tokens(torch.cat((rgb, strongest))), size)
        rgb, fused = streams.chunk(2)
        return streams, torch.cat((rgb, *(other + fused for other in others)))

    def _run_blocks(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens, size)
        return to_image(self.norm(tokens), size)


class MixTransformer(nn.Module):
    """The backbone for 1 to 4 modalities; RGB is stream 0, the others together are stream 1 (one modality: one stream)."""

    def __init__(self, config: MiTConfig, modalities: int, drop_path: float = 0.0) -> None:
        """Build the four stages; the drop-path rate rises linearly from 0 at the first block to ``drop_path`` at the last."""
        super().__init__()
        last = max(sum(config.depths) - 1, 1)
        rates = iter([drop_path * block / last for block in range(sum(config.depths))])
        self.stages = nn.ModuleList(
            Stage(modalities, config, stage, [next(rates) for _ in range(depth)]) for stage, depth in enumerate(config.depths)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the streams' features.

        Args:
            images: (M*B, 3, H, W), all of modality 0 first; H and W at least 32.

        Returns:
            Four tensors (S*B, C, h, w) at 1/4, 1/8, 1/16 and 1/32 of the input, sizes rounded up.
        """
        features = []
        for stage in self.stages:
            streams, images = stage(images)
            features.append(streams)
        return tuple(features)

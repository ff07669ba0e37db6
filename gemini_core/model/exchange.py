"""TokenFusion's exchange of tokens (Wang et al., CVPR 2022, arXiv 2204.08721), here for comparison.

A small network scores every token; a token that scores below the threshold gives its place to the other stream's token of the
same pixel. The others are weighted by their scores, so that the scores learn; an L1 term on the scores (``exchange_scores``)
makes tokens give way.

Shapes: S streams (2), B batch, N tokens (pixels), C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

THRESHOLD = 0.02
"""Of the paper's own experiments."""


class TokenScore(nn.Module):
    """How much each token of one stream matters: (B, N, C) to (B, N, 1) in (0, 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(width // 4, 1)
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Score every token."""
        score: Tensor = self.layers(tokens).sigmoid()
        return score


class TokenExchange(nn.Module):
    """Tokens that matter little are replaced by the other stream's."""

    def __init__(self, width: int, threshold: float = THRESHOLD) -> None:
        super().__init__()
        self.threshold = threshold
        self.scores = nn.ModuleList(TokenScore(width) for _ in range(2))

    def forward(self, streams: Tensor, valid: Tensor | None = None) -> Tensor:
        """Fuse (S, B, N, C) to the same; where the other stream is not ``valid`` (S, B, N, 1), every token keeps its place."""
        scores = torch.stack([score(stream) for score, stream in zip(self.scores, streams, strict=False)])  # (S, B, N, 1)
        kept = streams * scores
        if len(streams) == 1:
            return kept
        gives_way = scores < self.threshold
        if valid is not None:
            gives_way = gives_way & valid.flip(0)
        return torch.where(gives_way, streams.flip(0), kept)


@contextmanager
def exchange_scores(network: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the scores (B, N, 1) of every token exchange in a network that runs inside the block.

    The mean of all of them, times a small weight, is the sparsity term that TokenFusion adds to the loss.
    """
    collected: list[Tensor] = []
    handles = [
        module.register_forward_hook(lambda _module, _inputs, scores: collected.append(scores))
        for module in network.modules()
        if isinstance(module, TokenScore)
    ]
    try:
        yield collected
    finally:
        for handle in handles:
            handle.remove()

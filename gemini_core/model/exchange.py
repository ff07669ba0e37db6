"""TokenFusion's exchange of tokens (Wang et al., CVPR 2022, arXiv 2204.08721), here for comparison.

A small network scores every token; a token that scores below the threshold gives its place to the other stream's token of the
same pixel. The others are weighted by their scores, so that the scores learn. The paper's L1 term on the scores, which makes
more tokens give way, is left out.

Shapes: S streams (2), B batch, N tokens (pixels), C channels.
"""

from __future__ import annotations

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

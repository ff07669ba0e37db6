"""Full cross-attention between two streams, at a cost of O(N²): what GeminiFusion replaces, here for comparison.

Shapes: S streams (2), B batch, N tokens (pixels), C channels, h heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn

from gemini_core.errors import ConfigError


class CrossAttention(nn.Module):
    """Each stream adds what its tokens find among all tokens of the other; own projections for each direction."""

    def __init__(self, width: int, heads: int) -> None:
        """Build the layer for ``width`` channels.

        Raises:
            ConfigError: the heads do not divide the width.
        """
        super().__init__()
        if width % heads:
            msg = f"fusion heads: expected a divisor of the width {width}, got {heads}"
            raise ConfigError(msg)
        self.heads = heads
        self.query = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        # No bias: it would add the same to the scores of all keys, which the softmax takes out again.
        self.key = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(2))
        self.value = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.output = nn.ModuleList(nn.Linear(width, width) for _ in range(2))

    def forward(self, streams: Tensor, valid: Tensor | None = None) -> Tensor:
        """Fuse (S, B, N, C) to the same; nothing is taken from tokens where ``valid`` (S, B, N, 1) is false.

        A stream that finds no token to take from, or that is alone (S = 1), attends to nothing: only the output bias is added.
        """
        if len(streams) == 1:
            nothing: Tensor = self.output[0](torch.zeros_like(streams[:, :, :1]))  # the output bias
            return streams + nothing
        fused = [self._attend(i, streams[i], streams[1 - i], None if valid is None else valid[1 - i]) for i in range(2)]
        return torch.stack(fused)

    def _attend(self, direction: int, own: Tensor, other: Tensor, other_valid: Tensor | None) -> Tensor:
        query = self._by_head(self.query[direction](own))
        key, value = self._by_head(self.key[direction](other)), self._by_head(self.value[direction](other))
        if other_valid is None:
            attended = F.scaled_dot_product_attention(query, key, value)
        else:
            anywhere = other_valid.any(dim=1, keepdim=True)  # (B, 1, 1)
            allowed = (other_valid | ~anywhere).transpose(1, 2)[:, None]  # (B, 1, 1, N): a softmax over nothing is undefined
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed.expand(-1, -1, query.shape[2], -1))
            attended = torch.where(anywhere[:, None], attended, 0.0)
        updated: Tensor = own + self.output[direction](attended.transpose(1, 2).flatten(2))
        return updated

    def _by_head(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        return tokens.view(batch, count, self.heads, width // self.heads).transpose(1, 2)  # (B, h, N, C/h)

"""GeminiFusion (Jia et al., ICML 2024, arXiv 2406.01210): pixel-wise fusion of two streams of tokens.

Shapes: S streams (2), B batch, N tokens (pixels), C channels, h heads.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn

from gemini_core.errors import ConfigError

_LARGEST_HALF = torch.finfo(torch.float16).max


def finite(tensor: Tensor) -> Tensor:
    """Bring what overflowed in fp16 back to its largest number; a softmax over infinities is not a number."""
    return tensor.clamp(-_LARGEST_HALF, _LARGEST_HALF) if tensor.dtype == torch.float16 else tensor


def wide(tensor: Tensor) -> Tensor:
    """See half precision as fp32, in which products of attention scores do not overflow; others as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


class TwoKeyAttention(nn.Module):
    """Multi-head attention of one query per pixel over two keys, plus the query itself.

    The softmax over two scores is the sigmoid of their difference, and since projections are linear, the difference of two
    projected keys is the projection of their difference. So one product with the key matrix is enough, its bias would cancel
    (there is none), and nothing is larger than the tokens themselves.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, own: Tensor, other: Tensor, relation: Tensor, key_noise: Tensor, value_noise: Tensor) -> Tensor:
        """Attend from ``own`` to itself with noise (key 1) and to ``other`` (key 2).

        The keys are own + key_noise and own * relation, the values own + value_noise and other.

        Args:
            own: (B, N, C), the stream that is updated.
            other: (B, N, C), the stream it learns from.
            relation: (B, N, C), what the relation discriminator says of the two.
            key_noise: (C,).
            value_noise: (C,).

        Returns:
            (B, N, C).
        """
        batch, tokens, width = own.shape
        by_head = (batch, tokens, self.heads, width // self.heads)
        query = finite(self.query(own))
        key_difference = finite(self.key(own - own * relation + key_noise))
        score = (wide(query) * key_difference).view(by_head).sum(-1, keepdim=True)  # (B, N, h, 1)
        own_share = torch.sigmoid(score * by_head[-1] ** -0.5).to(query.dtype)
        value_other: Tensor = self.value(other)
        value_difference = F.linear(finite(own - other) + value_noise, self.value.weight)  # without the bias, which cancels
        attended = torch.addcmul(value_other.view(by_head), own_share, value_difference.view(by_head))  # (B, N, h, C/h)
        updated: Tensor = own + self.output(attended.view(batch, tokens, width))
        return updated

    def alone(self, own: Tensor, value_noise: Tensor) -> Tensor:
        """Attend from ``own`` (B, N, C) to itself with noise only, which is what ``forward`` gives for other = own + noise."""
        updated: Tensor = own + self.output(self.value(own + value_noise))
        return updated


class GeminiFusion(nn.Module):
    """Both directions of the fusion of two streams on the same pixels, at a cost of O(N C²).

    The relation discriminator is shared by the directions; each has its own attention and its own noise vectors, which make
    the key and value "itself" differ from the query by a learnt offset of this layer.
    """

    def __init__(self, width: int, heads: int) -> None:
        """Build the layer.

        Args:
            width: channels C of both streams.
            heads: attention heads; must divide the width.

        Raises:
            ConfigError: the heads do not divide the width.
        """
        super().__init__()
        if width % heads:
            msg = f"fusion heads: expected a divisor of the width {width}, got {heads}"
            raise ConfigError(msg)
        self.relation = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width))
        self.attention = nn.ModuleList(TwoKeyAttention(width, heads) for _ in range(2))
        self.key_noise = nn.Parameter(torch.empty(2, width))
        self.value_noise = nn.Parameter(torch.empty(2, width))
        # Small, like every other learnt vector that starts at random; at zero, key 1 would equal the query's own token.
        nn.init.trunc_normal_(self.key_noise, std=0.02)
        nn.init.trunc_normal_(self.value_noise, std=0.02)

    def forward(self, streams: Tensor, valid: Tensor | None = None) -> Tensor:
        """Fuse the streams.

        Where the other stream is not valid, a pixel sees itself in its place: both values are then "itself with noise", so the
        shares of the two keys do not matter and the result depends on nothing but the pixel. A stream that is alone is
        computed so everywhere, with the one product of values that is left.

        Args:
            streams: (2, B, N, C), or (1, B, N, C) for stream 0 alone.
            valid: (2, B, N, 1), where each stream has data; None: everywhere.

        Returns:
            The same shape as ``streams``.
        """
        if len(streams) == 1:
            first = cast("TwoKeyAttention", self.attention[0])
            return first.alone(streams[0], self.value_noise[0])[None]
        others = streams.flip(0)
        if valid is not None:
            others = torch.where(valid.flip(0), others, streams + self.value_noise[:, None, None])
        relation = self._discriminate(torch.cat((streams, others), dim=-1))
        fused = [
            attention(streams[i], others[i], relation[i], self.key_noise[i], self.value_noise[i])
            for i, attention in enumerate(self.attention)
        ]
        return torch.stack(fused)

    def _discriminate(self, pairs: Tensor) -> Tensor:
        """Tell for pairs (2, B, N, 2C), own and other, how their channels relate: (2, B, N, C), sums of 1 over C."""
        hidden_layer, activation, output_layer = self.relation
        logits = finite(output_layer(activation(finite(hidden_layer(pairs)))))
        return wide(logits).softmax(dim=-1).to(logits.dtype)

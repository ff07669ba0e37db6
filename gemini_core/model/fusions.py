"""The fusions of two streams, by name; all have the interface of ``GeminiFusion.forward``.

Each takes streams (S, B, N, C) and, optionally, validity (S, B, N, 1), and gives (S, B, N, C). S is 2, or 1 where RGB is alone:
then each does what it does at a pixel where the other stream is not valid.
"""

from __future__ import annotations

from torch import nn

from gemini_core.model.cross_attention import CrossAttention
from gemini_core.model.exchange import TokenExchange
from gemini_core.model.fusion import GeminiFusion

FUSIONS = ("gemini", "none", "cross_attention", "exchange")
"""GeminiFusion; no fusion, the average of the streams; attention over all pixels of the other; TokenFusion's exchange."""


def make_fusion(name: str, width: int, heads: int) -> nn.Module | None:
    """Make one layer of a fusion for tokens of ``width`` channels; ``heads`` are those of its attention, if it has one.

    Raises:
        ConfigError: the heads do not divide the width.
    """
    if name == "gemini":
        return GeminiFusion(width, heads)
    if name == "cross_attention":
        return CrossAttention(width, heads)
    if name == "exchange":
        return TokenExchange(width)
    return None

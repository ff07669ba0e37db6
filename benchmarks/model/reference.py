"""GeminiFusion in its plain form, as the paper's code computes it: what our speed is measured against.

Streams go through every layer one after the other, the fusion hands two keys and two values per pixel to torch's own
multi-head attention, sample by sample, and the head works on upsampled, concatenated features. Evaluation only; made of a
segmenter's own weights, so the outputs are equal (test/benchmarks/test_benchmark_model.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn

from gemini_core.model.fusion import GeminiFusion
from gemini_core.model.mit import Block, MixFeedForward, MixStage, PatchEmbedding, ReducedAttention
from gemini_core.model.segmentation import MlpHead, SegmentationOutput, Segmenter
from gemini_core.model.streams import StreamNorm

Size = tuple[int, int]


class Norms(nn.ModuleList):
    """One LayerNorm per stream."""

    def __init__(self, ours: StreamNorm) -> None:
        super().__init__()
        for weight, bias in zip(ours.weight, ours.bias, strict=True):
            norm = nn.LayerNorm(weight.shape[0], eps=ours.eps)
            _fill(norm, weight, bias)
            self.append(norm)

    def forward(self, streams: Sequence[Tensor]) -> list[Tensor]:
        """Normalise (B, N, C) each."""
        return [norm(stream) for norm, stream in zip(self, streams, strict=True)]


class PlainFusion(nn.Module):
    """Two keys and two values per pixel; each direction and each sample by itself."""

    def __init__(self, ours: GeminiFusion) -> None:
        super().__init__()
        width, heads = ours.key_noise.shape[1], ours.attention[0].heads
        self.relation, self.key_noise, self.value_noise = ours.relation, ours.key_noise, ours.value_noise
        self.attention = nn.ModuleList(nn.MultiheadAttention(width, heads) for _ in ours.attention)
        for plain, own in zip(self.attention, ours.attention, strict=True):
            # The bias of the keys moves both scores alike: any does.
            bias = torch.cat((own.query.bias, torch.zeros(width), own.value.bias))
            weight = torch.cat((own.query.weight, own.key.weight, own.value.weight))
            with torch.no_grad():
                plain.in_proj_weight.copy_(weight)
                plain.in_proj_bias.copy_(bias)
            _fill(plain.out_proj, own.output.weight, own.output.bias)

    def forward(self, streams: Sequence[Tensor]) -> list[Tensor]:
        """Fuse two (B, N, C)."""
        fused = []
        for direction, attention in enumerate(self.attention):
            updated = []
            for own, other in zip(streams[direction], streams[1 - direction], strict=True):  # (N, C) each
                relation = self.relation(torch.cat((own, other), -1)).softmax(-1)
                key = torch.stack((own + self.key_noise[direction], own * relation))  # (2, N, C): N is the attention's batch
                value = torch.stack((own + self.value_noise[direction], other))
                updated.append(own + attention(own[None], key, value)[0][0])
            fused.append(torch.stack(updated))
        return fused


class PlainAttention(nn.Module):
    """Self-attention of each stream over reduced keys, then the fusion, then the projection."""

    def __init__(self, ours: ReducedAttention) -> None:
        super().__init__()
        self.heads, self.query, self.key_value = ours.heads, ours.query, ours.key_value
        self.reduction, self.output = ours.reduction, ours.output
        self.norms = Norms(ours.reduction_norm) if ours.reduction_norm is not None else None
        self.fusion = PlainFusion(ours.fusion) if ours.fusion is not None else None

    def forward(self, streams: Sequence[Tensor], size: Size) -> list[Tensor]:
        """Attend, (B, N, C) each."""
        sources = list(streams)
        if self.reduction is not None and self.norms is not None:
            sources = self.norms([_tokens(self.reduction(_image(stream, size))) for stream in streams])
        attended = [self._attend(stream, source) for stream, source in zip(streams, sources, strict=True)]
        if self.fusion is not None:
            attended = self.fusion(attended)
        return [self.output(stream) for stream in attended]

    def _attend(self, tokens: Tensor, source: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        query = self.query(tokens).reshape(batch, count, self.heads, -1).permute(0, 2, 1, 3)
        key, value = self.key_value(source).reshape(batch, -1, 2, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        shares = (query @ key.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(-1)
        return (shares @ value).transpose(1, 2).reshape(batch, count, width)


class PlainBlock(nn.Module):
    """Attention and feed-forward layer of all streams."""

    def __init__(self, ours: Block) -> None:
        super().__init__()
        self.attention_norm, self.attention = Norms(ours.attention_norm), PlainAttention(ours.attention)
        self.mlp_norm, self.mlp = Norms(ours.mlp_norm), ours.mlp

    def forward(self, streams: Sequence[Tensor], size: Size) -> list[Tensor]:
        """Transform (B, N, C) each."""
        attended = self.attention(self.attention_norm(streams), size)
        streams = [stream + branch for stream, branch in zip(streams, attended, strict=True)]
        normed = self.mlp_norm(streams)
        return [stream + _feed_forward(self.mlp, tokens, size) for stream, tokens in zip(streams, normed, strict=True)]


class PlainStage(nn.Module):
    """One resolution, modality after modality."""

    def __init__(self, ours: MixStage) -> None:
        super().__init__()
        embed: PatchEmbedding = ours.embed
        self.projection, self.embed_norm = embed.projection, Norms(embed.norm)
        self.scores = ours.scores
        self.blocks = nn.ModuleList(PlainBlock(block) for block in ours.blocks)
        self.norm = Norms(ours.norm)

    def forward(self, images: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Give the features of the streams, and those of all modalities for the next stage."""
        embedded = [self.projection(image) for image in images]
        size = (embedded[0].shape[2], embedded[0].shape[3])
        tokens = self.embed_norm([_tokens(image) for image in embedded])
        if not self.scores:
            features = self._run(tokens, size)
            return features, features
        others = [_image(other, size) for other in tokens[1:]]
        others = [other + score(other) * other for other, score in zip(others, self.scores, strict=True)]
        strongest = torch.stack(others).max(0).values
        rgb, fused = self._run([tokens[0], _tokens(strongest)], size)
        return [rgb, fused], [rgb, *(other + fused for other in others)]

    def _run(self, streams: Sequence[Tensor], size: Size) -> list[Tensor]:
        for block in self.blocks:
            streams = block(streams, size)
        return [_image(stream, size) for stream in self.norm(streams)]


class PlainHead(nn.Module):
    """Every stage to one width, to the finest size, concatenated from coarse to fine, joined, classified."""

    def __init__(self, ours: MlpHead) -> None:
        super().__init__()
        self.projections = nn.ModuleList(mapping.projection for mapping in ours.mappings)
        joins = [mapping.join.weight for mapping in reversed(ours.mappings)]
        width = joins[0].shape[0]
        self.join = nn.Conv2d(len(joins) * width, width, 1, bias=False)
        with torch.no_grad():
            self.join.weight.copy_(torch.cat(joins, 1))
        self.norm, self.classifier = ours.norm, ours.classifier

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Classify one stream's features (B, C, h, w), fine to coarse."""
        size = features[0].shape[2:]
        mapped = []
        for projection, feature in zip(self.projections, features, strict=True):
            image = _image(projection(_tokens(feature)), (feature.shape[2], feature.shape[3]))
            mapped.append(F.interpolate(image, size=size, mode="bilinear", align_corners=False))
        return self.classifier(F.relu(self.norm(self.join(torch.cat(mapped[::-1], 1)))))


class Reference(nn.Module):
    """The whole network in its plain form, with the weights of a segmenter of two to four modalities (MiT)."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.full_size = segmenter.config.full_size
        self.stages = nn.ModuleList(PlainStage(stage) for stage in segmenter.backbone.stages)
        self.head = PlainHead(segmenter.head)
        self.stream_weights = segmenter.stream_weights
        self.eval()

    def forward(self, inputs: Sequence[Tensor]) -> SegmentationOutput:
        """Segment (B, 3, H, W) per modality; what ``Segmenter`` gives."""
        logits = self._logits(inputs)
        if self.full_size:
            logits = [F.interpolate(item, size=inputs[0].shape[2:], mode="bilinear", align_corners=False) for item in logits]
        return SegmentationOutput(tuple(logits), self._ensemble(logits))

    def quarter_logits(self, inputs: Sequence[Tensor]) -> Tensor:
        """Give the ensemble's logits at 1/4 of the size, which is what everything is compared on."""
        return self._ensemble(self._logits(inputs))

    def _logits(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        images = list(inputs)
        features: list[list[Tensor]] = []
        for stage in self.stages:
            streams, images = stage(images)
            features.append(streams)
        return [self.head(stream) for stream in zip(*features, strict=True)]

    def _ensemble(self, logits: Sequence[Tensor]) -> Tensor:
        shares = self.stream_weights.softmax(0)
        return shares[0] * logits[0] + shares[1] * logits[1]


def _feed_forward(mlp: MixFeedForward, tokens: Tensor, size: Size) -> Tensor:
    hidden = _tokens(mlp.depthwise(_image(mlp.expand(tokens), size)))
    return mlp.contract(F.gelu(hidden))


def _tokens(image: Tensor) -> Tensor:
    return image.flatten(2).transpose(1, 2).contiguous()


def _image(tokens: Tensor, size: Size) -> Tensor:
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *size).contiguous()


def _fill(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)

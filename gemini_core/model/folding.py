"""The inference form of a segmenter: the same function with fewer and larger products. Evaluation only, no gradients.

What is folded, exactly (rounding aside):

- The fusion's value and output matrices and, in MiT, the block's output projection P that follows it. With d = x1 - x0 and a
  the share of "the other": y0 = P (I + W_o W_v) x0 + P W_o (a * W_v (d - e_v)) + constant.
- The first layer of the relation discriminator, W1 = [A B]. Its two products A x0 + B x1 and A x1 + B x0 are the sum and the
  difference of (A + B)/2 (x0 + x1) and (B - A)/2 d: half the work.
- Scales, signs and noise become part of weights and biases; so does the scale of MiT's self-attention.
- The head: each stage's projection, join and BatchNorm are one 1x1 convolution at that stage's own size.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from gemini_core.model.detection.pillars.detector import Detector
from gemini_core.model.detection.point_fusion import PointFusion
from gemini_core.model.fusion import GeminiFusion, TwoKeyAttention, finite, wide
from gemini_core.model.mit import ReducedAttention
from gemini_core.model.segmentation import MlpHead, Segmenter, StageMapping, upsample


def fold(segmenter: Segmenter) -> FoldedSegmenter:
    """Make the inference form of a segmenter, which stays as it is; on its device, in its precision, without gradients."""
    with torch.no_grad():
        return FoldedSegmenter(segmenter).requires_grad_(requires_grad=False).eval()


class FoldedSegmenter(nn.Module):
    """A segmenter that gives its ensemble's logits at 1/4 of the input's size; its detector, if any, stands beside it."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.config = segmenter.config
        self.backbone = copy.deepcopy(segmenter.backbone)
        _replace_fusions(self.backbone)
        _scale_queries(self.backbone)
        self.head = FoldedHead(segmenter.head, segmenter.stream_weights)
        self.detector = None if segmenter.detector is None else fold_detector(segmenter.detector)

    def forward(self, images: Tensor, present: tuple[int, ...] | None = None, valid: Tensor | None = None) -> Tensor:
        """Segment; see ``with_features``."""
        return self.with_features(images, present, valid)[0]

    def with_features(
        self, images: Tensor, present: tuple[int, ...] | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Segment, and give what the detector takes of the images.

        Args:
            images: (A*B, 3, H, W), the modalities that are present, all of the first one first; H and W at least 32.
            present: which of ``config.modalities`` these are, 0 (RGB) first; None: all.
            valid: (A*B, 1, H, W), above 0 where a modality has data; None: everywhere.

        Returns:
            (B, num_classes, h, w), what ``Segmenter.quarter_logits`` calls the ensemble; (S*B, C, h, w) features of each stage.
        """
        streams = len(self.config.modalities) if present is None else len(present)
        features: list[Tensor] = self.backbone(images, present, valid)
        logits: Tensor = self.head(features, min(streams, 2))
        return logits, features


def _replace_fusions(backbone: nn.Module) -> None:
    """Put a folded fusion in the place of each GeminiFusion; where an output projection follows at once, fold it too."""
    for module in list(backbone.modules()):
        fusion = getattr(module, "fusion", None)
        if not isinstance(fusion, GeminiFusion):
            continue
        projection = getattr(module, "output", None)
        module.fusion = FoldedFusion(fusion, projection if isinstance(projection, nn.Linear) else None)
        if isinstance(projection, nn.Linear):
            module.output = nn.Identity()


def _scale_queries(backbone: nn.Module) -> None:
    """Make the scale of attention scores part of the queries' weights: there are hundreds of times more scores than queries."""
    for module in backbone.modules():
        if isinstance(module, ReducedAttention):
            module.query.weight.mul_(module.scale)
            module.query.bias.mul_(module.scale)
            module.scale = 1.0


class FoldedFusion(nn.Module):
    """GeminiFusion, and the projection behind it if there is one."""

    def __init__(self, fusion: GeminiFusion, projection: nn.Linear | None) -> None:
        super().__init__()
        first, second = cast("nn.Linear", fusion.relation[0]), cast("nn.Linear", fusion.relation[2])
        with_own, with_other = first.weight.chunk(2, dim=1)  # A and B of the module's text
        self.sum_to_hidden = _linear((with_own + with_other) / 2, first.bias)
        self.difference_to_hidden = _linear((with_other - with_own) / 2)
        self.hidden_to_relation = copy.deepcopy(second)
        self.directions = nn.ModuleList(
            FoldedDirection(cast("TwoKeyAttention", attention), sign, key_noise, value_noise, projection)
            for attention, sign, key_noise, value_noise in zip(
                fusion.attention, (1.0, -1.0), fusion.key_noise, fusion.value_noise, strict=True
            )
        )

    def forward(self, streams: Tensor, valid: Tensor | None = None) -> Tensor:
        """Fuse and project; arguments and result are those of ``GeminiFusion``."""
        if len(streams) == 1:
            alone: Tensor = cast("FoldedDirection", self.directions[0]).own_to_output(streams)
            return alone
        own, other = streams
        difference = finite(other - own)  # (B, N, C)
        relation = self.discriminate(finite(own + other), difference)  # (2, B, N, C)
        return torch.stack(
            [
                direction(streams[index], difference, relation[index], None if valid is None else valid[1 - index])
                for index, direction in enumerate(self.directions)
            ]
        )

    def discriminate(self, total: Tensor, difference: Tensor) -> Tensor:
        """Tell from sum and difference (B, N, C) how the streams' channels relate: (2, B, N, C), sums of 1 over C."""
        common, differing = finite(self.sum_to_hidden(total)), finite(self.difference_to_hidden(difference))
        hidden = F.gelu(finite(torch.stack((common + differing, common - differing))))
        logits = finite(self.hidden_to_relation(hidden))
        return wide(logits).softmax(dim=-1).to(total.dtype)


class FoldedDirection(nn.Module):
    """One direction of the fusion, from the relation of the streams on. ``sign`` is -1 where the difference is own - other."""

    def __init__(
        self, attention: TwoKeyAttention, sign: float, key_noise: Tensor, value_noise: Tensor, projection: nn.Linear | None
    ) -> None:
        super().__init__()
        self.heads = attention.heads
        value, output = attention.value, attention.output
        to_output: Tensor = output.weight
        constant: Tensor = output.bias
        kept = torch.eye(len(constant), device=constant.device, dtype=constant.dtype) + output.weight @ value.weight
        constant = constant + output.weight @ (value.weight @ value_noise + value.bias)
        if projection is not None:
            kept, to_output = projection.weight @ kept, projection.weight @ to_output
            constant = projection.weight @ constant + projection.bias
        scale = (len(constant) // attention.heads) ** -0.5
        # The share of the other is the sigmoid of score(other) - score(own) = q W_k (x r - x - e_k).
        self.query = _linear(attention.query.weight * scale, attention.query.bias * scale)
        self.key = _linear(-attention.key.weight, -(attention.key.weight @ key_noise))
        self.value = _linear(sign * value.weight, -(value.weight @ value_noise))
        self.own_to_output = _linear(kept, constant)
        self.value_to_output = _linear(to_output)

    def forward(self, own: Tensor, difference: Tensor, relation: Tensor, valid: Tensor | None) -> Tensor:
        """Attend from ``own`` to itself and the other; all (B, N, C), ``valid`` (B, N, 1) is where the other has data."""
        by_head = (*own.shape[:2], self.heads, own.shape[2] // self.heads)  # N may be 0, which leaves nothing for a -1 to mean
        key = self.key(own - own * relation)
        score = (wide(finite(self.query(own))) * finite(key)).view(by_head).sum(-1, keepdim=True)  # (B, N, h, 1)
        share = torch.sigmoid(score).to(own.dtype)
        if valid is not None:
            share = share * valid[..., None]
        taken = (self.value(difference).view(by_head) * share).flatten(2)
        fused: Tensor = self.own_to_output(own) + self.value_to_output(taken)
        return fused


class FoldedHead(nn.Module):
    """The all-MLP head with the ensemble in it: streams' features to one tensor of logits."""

    def __init__(self, head: MlpHead, stream_weights: Tensor | None) -> None:
        super().__init__()
        norm = head.norm
        mean, variance = cast("Tensor", norm.running_mean), cast("Tensor", norm.running_var)
        scale = norm.weight / torch.sqrt(variance + norm.eps)
        shift = norm.bias - mean * scale
        self.mappings = nn.ModuleList(
            _folded_mapping(cast("StageMapping", mapping), scale, shift if stage == 0 else None)
            for stage, mapping in enumerate(head.mappings)
        )
        self.classifier = copy.deepcopy(head.classifier)
        shares = scale.new_full((2,), 0.5) if stream_weights is None else stream_weights.softmax(0)
        self.stream_shares = nn.Parameter(shares)

    def forward(self, features: Sequence[Tensor], streams: int) -> Tensor:
        """Classify features (S*B, C, h, w), fine to coarse; gives (B, num_classes, h, w) at the finest size."""
        finest, *coarser = (mapping(feature) for mapping, feature in zip(self.mappings, features, strict=True))
        for mapped in coarser:
            finest = finest + upsample(mapped, finest.shape[2:])
        logits: Tensor = self.classifier(F.relu(finest))
        if streams == 1:
            return logits
        first, second = logits.chunk(2)
        return first * self.stream_shares[0] + second * self.stream_shares[1]


def _folded_mapping(mapping: StageMapping, scale: Tensor, shift: Tensor | None) -> nn.Conv2d:
    join = mapping.join.weight.flatten(1) * scale[:, None]
    bias = join @ mapping.projection.bias
    layer = _linear(join @ mapping.projection.weight, bias if shift is None else bias + shift)
    folded = nn.Conv2d(layer.in_features, layer.out_features, 1, device="meta")
    folded.weight, folded.bias = nn.Parameter(layer.weight[:, :, None, None]), layer.bias
    return folded


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())
    return layer


# --------------------------------------------------------------------------------------------------------------------
# The detector


def fold_detector(detector: Detector) -> Detector:
    """Make the inference form of a detector, which stays as it is: norms and fusion folded as above, no gradients."""
    folded = copy.deepcopy(detector).eval()
    with torch.no_grad():
        for module in list(folded.modules()):
            if isinstance(module, nn.Sequential):
                _fold_norm(module)
            elif isinstance(module, PointFusion):
                _fold_point_fusion(module)
    return folded.requires_grad_(requires_grad=False)


def _fold_norm(layers: nn.Sequential) -> None:
    """Make the norm behind a convolution or linear layer part of it."""
    for index in range(len(layers) - 1):
        layer, norm = layers[index], layers[index + 1]
        if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            layers[index], layers[index + 1] = fuse_conv_bn_eval(layer, norm), nn.Identity()
        elif isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
            layers[index], layers[index + 1] = fuse_linear_bn_eval(layer, norm), nn.Identity()


def _fold_point_fusion(layer: PointFusion) -> None:
    for side in ("point", "image"):
        linear, norm = getattr(layer, f"{side}_map"), getattr(layer, f"{side}_norm")
        if linear is not None:
            setattr(layer, f"{side}_map", fuse_linear_bn_eval(linear, norm))
            setattr(layer, f"{side}_norm", nn.Identity())
    if isinstance(layer.fusion, GeminiFusion):
        layer.fusion = FoldedFusion(layer.fusion, None)

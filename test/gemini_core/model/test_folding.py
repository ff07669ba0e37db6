"""The inference form: the segmenter's own numbers, with less work."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gemini_core.model.folding import FoldedFusion, fold
from gemini_core.model.fusion import GeminiFusion, finite
from gemini_core.model.swin import SwinConfig
from networks import TINY, assert_close, images, trained

TINY_SWIN = SwinConfig(8, (1, 2, 1, 1), heads=(1, 2, 4, 8), fusion_heads=4)


@pytest.mark.parametrize(
    ("modalities", "backbone", "changes"),
    [
        (1, TINY, {}),
        (2, TINY, {}),
        (4, TINY, {}),
        (2, TINY_SWIN, {}),
        (3, TINY_SWIN, {}),
        (2, TINY, {"fused_blocks": 2}),
        (2, TINY, {"fusion": "none"}),
        (2, TINY, {"fusion": "cross_attention"}),
        (2, TINY, {"fusion": "exchange"}),
    ],
)
def test_folded_equals_the_segmenter(modalities, backbone, changes):
    segmenter = trained(modalities, backbone, **changes)
    inputs = images(modalities, seed=1)
    with torch.no_grad():
        assert_close(fold(segmenter)(torch.cat(inputs)), segmenter.quarter_logits(inputs).ensemble)


@pytest.mark.parametrize("backbone", [TINY, TINY_SWIN])
@pytest.mark.parametrize("present", [(0,), (0, 2), (0, 1, 3)])
def test_folded_equals_the_segmenter_without_some_modalities(backbone, present):
    segmenter = trained(4, backbone)
    inputs = images(4, seed=1)
    with torch.no_grad():
        expected = segmenter.quarter_logits(inputs, [index in present for index in range(4)]).ensemble
        assert_close(fold(segmenter)(torch.cat([inputs[index] for index in present]), present), expected)


def test_folded_equals_the_segmenter_where_pixels_are_not_valid():
    segmenter = trained(3)
    inputs = images(3, seed=1)
    generator = torch.Generator().manual_seed(2)
    valid = [
        (torch.rand(2, 1, 4, 6, generator=generator) > 0.5).repeat_interleave(16, 2).repeat_interleave(16, 3) for _ in inputs
    ]
    with torch.no_grad():
        expected = segmenter.quarter_logits(inputs, None, valid).ensemble
        assert_close(fold(segmenter)(torch.cat(inputs), None, torch.cat(valid).float()), expected)
        assert not torch.allclose(expected, segmenter.quarter_logits(inputs).ensemble)


def test_folding_leaves_the_segmenter_and_the_random_numbers_as_they_were():
    segmenter = trained(2)
    before = {name: tensor.clone() for name, tensor in segmenter.state_dict().items()}
    state = torch.get_rng_state()
    folded = fold(segmenter)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in segmenter.state_dict().items())
    assert all(parameter.requires_grad for parameter in segmenter.parameters())
    own = {parameter.data_ptr() for parameter in segmenter.parameters()}
    assert not own & {parameter.data_ptr() for parameter in folded.parameters()}
    assert not any(parameter.requires_grad for parameter in folded.parameters())


def test_double_precision_folds_to_rounding():
    torch.manual_seed(0)
    fusion, projection = GeminiFusion(16, 4).double(), nn.Linear(16, 16).double()
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=0.5)
    streams = torch.randn(2, 2, 5, 16, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(FoldedFusion(fusion, projection)(streams), projection(fusion(streams)), rtol=0, atol=1e-13)
        torch.testing.assert_close(FoldedFusion(fusion, None)(streams), fusion(streams), rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mixed", [False, True])
def test_large_activations_stay_finite_in_half_precision(dtype, mixed):
    torch.manual_seed(0)
    fusion = GeminiFusion(32, 8)
    for linear in (module for module in fusion.modules() if isinstance(module, nn.Linear)):
        nn.init.normal_(linear.weight, std=32**-0.5)
    streams = torch.randn(2, 1, 40, 32) * 2000.0
    folded = FoldedFusion(fusion, None)
    with torch.no_grad():
        exact = fusion(streams)
        with torch.autocast("cpu", dtype, enabled=mixed):
            half = (folded if mixed else folded.to(dtype))(streams if mixed else streams.to(dtype)).float()
        assert (half - exact).abs().mean() < 0.05 * exact.std()
        # Sums and differences of the streams, and the products of both, overflow in fp16.
        streams[:, :, ::3] = (torch.randn(2, 1, 14, 32) * 40000.0).clamp(-6e4, 6e4)
        own, other = streams.to(dtype)
        with torch.autocast("cpu", dtype, enabled=mixed):
            relation = folded.discriminate(finite(own + other), finite(other - own))
        assert relation.isfinite().all()
        torch.testing.assert_close(relation.float().sum(-1), torch.ones(2, 1, 40), rtol=0, atol=0.02)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
def test_whatever_overflows_on_the_way_in_fp16_becomes_no_nan(folded, mixed):
    torch.manual_seed(0)
    fusion = GeminiFusion(32, 8)
    for name, linear in fusion.named_modules():
        if isinstance(linear, nn.Linear):  # products overflow, except those that are the result
            nn.init.normal_(linear.weight, std=1e-4 if name.endswith(("value", "output")) else 1.0)
    own, third = (torch.rand(2, 1, 60, 32) * 6e4 * torch.randn(2, 1, 60, 32).sign()).half()
    # Sums overflow in the first 20 tokens, differences in the next, and some of both in the last.
    other = torch.cat((own[:, :20], -own[:, 20:40], third[:, 40:]), dim=1)
    network = FoldedFusion(fusion, None) if folded else fusion
    with torch.no_grad(), torch.autocast("cpu", torch.float16, enabled=mixed):
        fused = (network if mixed else network.half())(torch.stack((own, other)))
    assert fused.isfinite().all()
    assert (fused[0].float() - own.float()).abs().max() < 200.0  # in the range of the input, 32 is the distance of two numbers


def flops(network, inputs):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(inputs)
    return counter.get_total_flops()


def test_fusion_costs_seven_products_a_direction_with_its_projection():
    fusion = GeminiFusion(16, 4).requires_grad_(requires_grad=False)
    streams = torch.randn(2, 1, 10, 16)
    product = 2 * 10 * 16 * 16
    assert flops(fusion, streams) == 2 * 8 * product
    folded = FoldedFusion(fusion, nn.Linear(16, 16)).requires_grad_(requires_grad=False)
    assert flops(folded, streams) == 2 * 7 * product
    assert flops(folded, streams[:1]) == product

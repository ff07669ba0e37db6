"""The fusions that are compared: equal to their plain forms, per pixel where they say so, and safe in half precision."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gemini_core.errors import ConfigError
from gemini_core.model.cross_attention import CrossAttention
from gemini_core.model.fusion import GeminiFusion
from gemini_core.model.fusions import FUSIONS, make_fusion
from networks import randomize

LAYERS = [name for name in FUSIONS if name != "none"]


def layer(name, width=16, heads=4):
    torch.manual_seed(0)
    return randomize(make_fusion(name, width, heads)).double()


def streams(batch=2, tokens=6, width=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, batch, tokens, width, generator=generator, dtype=torch.float64)


def test_no_fusion_is_no_layer():
    assert make_fusion("none", 16, 4) is None


@pytest.mark.parametrize("fusion", [GeminiFusion, CrossAttention])
def test_fusion_heads_must_divide_the_width(fusion):
    with pytest.raises(ConfigError, match="divisor of the width 20, got 8"):
        fusion(20, 8)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 7), st.integers(0, 2**31), st.booleans())
def test_cross_attention_equals_multi_head_attention_in_values_and_gradients(batch, tokens, seed, masked):
    torch.manual_seed(seed)
    ours, width = layer("cross_attention"), 16
    plain = [nn.MultiheadAttention(width, ours.heads, batch_first=True, dtype=torch.float64) for _ in range(2)]
    with torch.no_grad():
        for i, attention in enumerate(plain):
            attention.in_proj_weight.copy_(torch.cat((ours.query[i].weight, ours.key[i].weight, ours.value[i].weight)))
            attention.in_proj_bias.copy_(torch.cat((ours.query[i].bias, torch.randn(width), ours.value[i].bias)))
            attention.out_proj.load_state_dict(ours.output[i].state_dict())
    given_streams = streams(batch, tokens, seed=seed).requires_grad_()
    valid = torch.rand(2, batch, tokens, 1) < 0.6
    valid[:, :, 0] = True  # the plain form is undefined where there is nothing to attend to
    expected = []
    for i, attention in enumerate(plain):
        own, other = given_streams[i], given_streams[1 - i]
        ignored = ~valid[1 - i, :, :, 0] if masked else None
        expected.append(own + attention(own, other, other, key_padding_mask=ignored, need_weights=False)[0])
    got = ours(given_streams, valid if masked else None)
    expected = torch.stack(expected)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    weighting = torch.randn_like(got)
    gradients = [torch.autograd.grad((result * weighting).sum(), given_streams)[0] for result in (got, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-10)


def test_exchange_replaces_tokens_of_low_score_and_weights_the_others():
    exchange = layer("exchange")
    exchange.threshold = 0.5
    given_streams = streams(tokens=50)
    got = exchange(given_streams)
    replaced = 0
    for i in range(2):
        scores = exchange.scores[i](given_streams[i])
        for image in range(2):
            for token in range(50):
                low = scores[image, token, 0] < 0.5
                own, other = given_streams[i, image, token], given_streams[1 - i, image, token]
                torch.testing.assert_close(got[i, image, token], other if low else own * scores[image, token, 0])
                replaced += int(low)
    assert 20 < replaced < 180


# --------------------------------------------------------------------------------------------------------------------
# Validity


@pytest.mark.parametrize("name", LAYERS)
def test_everything_valid_is_the_same_as_no_mask(name):
    fusion, given_streams = layer(name), streams()
    torch.testing.assert_close(fusion(given_streams, torch.ones(2, 2, 6, 1, dtype=torch.bool)), fusion(given_streams))


@pytest.mark.parametrize("name", LAYERS)
def test_a_stream_alone_is_as_beside_one_that_is_valid_nowhere(name):
    fusion, given_streams = layer(name), streams()
    valid = torch.tensor([True, False]).view(2, 1, 1, 1).expand(2, 2, 6, 1)
    alone = fusion(given_streams[:1])
    assert alone.shape == (1, 2, 6, 16)
    torch.testing.assert_close(alone[0], fusion(given_streams, valid)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_nothing_is_taken_from_tokens_without_data(name):
    fusion, given_streams = layer(name), streams()
    valid = torch.rand(2, 2, 6, 1, generator=torch.Generator().manual_seed(1)) < 0.5
    changed = torch.where(valid, given_streams, given_streams + 100.0)
    for i in range(2):
        together = given_streams.clone()
        together[1 - i] = changed[1 - i]
        torch.testing.assert_close(fusion(together, valid)[i], fusion(given_streams, valid)[i], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["gemini", "exchange"])
def test_fusion_by_pixel_is_unchanged_where_there_is_data(name):
    fusion, given_streams = layer(name), streams()
    valid = torch.rand(2, 2, 6, 1, generator=torch.Generator().manual_seed(1)) < 0.5
    masked, whole = fusion(given_streams, valid), fusion(given_streams)
    there = valid.flip(0).expand_as(whole)
    torch.testing.assert_close(masked[there], whole[there], rtol=1e-12, atol=1e-12)


# --------------------------------------------------------------------------------------------------------------------
# Half precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1.0, 100.0, 20000.0])
def test_discriminator_stays_finite_in_half_precision(dtype, size):
    torch.manual_seed(0)
    fusion = randomize(GeminiFusion(32, 8), std=1.0)
    pairs = torch.randn(2, 1, 40, 64) * size
    pairs[0, 0, 0] = 40000.0  # both linear maps overflow in fp16 here
    exact = fusion._discriminate(pairs)
    half = fusion.to(dtype)._discriminate(pairs.to(dtype))
    assert half.dtype == dtype
    assert half.isfinite().all()
    torch.testing.assert_close(half.float().sum(-1), torch.ones(2, 1, 40), rtol=0, atol=0.02)
    if size == 1.0:
        assert (half.float() - exact)[:, :, 1:].abs().mean() < 0.03
    with torch.autocast("cpu", dtype):
        mixed = fusion.float()._discriminate(pairs)
    assert mixed.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fusion_of_large_activations_in_half_precision(dtype):
    torch.manual_seed(0)
    fusion = GeminiFusion(32, 8)
    for linear in (module for module in fusion.modules() if isinstance(module, nn.Linear)):
        nn.init.normal_(linear.weight, std=32**-0.5)
    given_streams = torch.randn(2, 1, 40, 32) * 2000.0  # products of queries and keys reach 1e7, fp16 ends at 65504
    exact = fusion(given_streams)
    half = fusion.to(dtype)(given_streams.to(dtype)).float()
    assert half.isfinite().all()
    assert (half - exact).abs().mean() < 0.05 * exact.std()

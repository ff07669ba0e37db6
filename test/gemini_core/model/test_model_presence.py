"""Absent modalities and validity masks: one definition for both, nothing computed for what is not there."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gemini_core.errors import ShapeError
from gemini_core.model.fusions import FUSIONS
from gemini_core.model.segmentation import Segmenter, rgb_alone
from gemini_core.model.streams import STAGES, _strongest
from networks import BACKBONES, TINY, TINY_SWIN, images, randomize, tiny

SIZE = (45, 61)


def network(modalities=2, backbone=TINY, **changes):
    segmenter = tiny(modalities, backbone, logits_size="quarter", drop_path=0.0, head_dropout=0.0, **changes).eval()
    for module in segmenter.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.2)
    nn.init.normal_(segmenter.stream_weights) if segmenter.stream_weights is not None else None
    return segmenter


def masks(flags, size=SIZE, batch=2):
    return [torch.full((batch, 1, *size), flag) for flag in flags]


def flops(segmenter, inputs, present=None):
    segmenter.requires_grad_(requires_grad=False)  # the counter wants no leaves of a graph
    with FlopCounterMode(display=False) as counter:
        segmenter(inputs, present)
    return counter.get_total_flops()


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_everything_present_and_valid_is_the_same_as_saying_nothing(modalities, backbone):
    segmenter, inputs = network(modalities, backbone), images(modalities, size=SIZE)
    flags = [True] * modalities
    plain, said = segmenter(inputs), segmenter(inputs, flags, masks(flags))
    assert all(torch.equal(*pair) for pair in zip(plain.streams, segmenter(inputs, flags).streams, strict=True))
    for got, expected in zip((*said.streams, said.ensemble), (*plain.streams, plain.ensemble), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
@pytest.mark.parametrize("flags", [flags for count in (1, 2, 3) for flags in itertools.product((True, False), repeat=count)])
def test_absent_is_the_same_as_valid_nowhere(flags, backbone):
    present = [True, *flags]
    segmenter, inputs = network(len(present), backbone), images(len(present), size=SIZE)
    absent = segmenter([image if flag else None for image, flag in zip(inputs, present, strict=True)], present)
    invalid = segmenter(inputs, valid=masks(present))
    torch.testing.assert_close(absent.streams[0], invalid.streams[0], rtol=0, atol=1e-5)
    if any(flags):
        torch.testing.assert_close(absent.ensemble, invalid.ensemble, rtol=0, atol=1e-5)
    else:
        assert len(absent.streams) == 1
        assert absent.ensemble is absent.streams[0]


@pytest.mark.parametrize("fusion", [fusion for fusion in FUSIONS if fusion != "gemini"])
def test_absent_is_the_same_as_valid_nowhere_for_every_fusion(fusion):
    segmenter, inputs = network(2, TINY, fusion=fusion), images(2, size=SIZE)
    absent, invalid = segmenter(inputs, [True, False]), segmenter(inputs, valid=masks([True, False]))
    torch.testing.assert_close(absent.streams[0], invalid.streams[0], rtol=0, atol=1e-5)


def test_what_an_absent_modality_holds_does_not_matter():
    segmenter, inputs = network(3), images(3, size=SIZE)
    expected = segmenter(inputs, [True, False, True])
    for other in (None, torch.full_like(inputs[1], torch.nan), torch.zeros(1)):
        got = segmenter([inputs[0], other, inputs[2]], [True, False, True])
        assert torch.equal(got.ensemble, expected.ensemble)


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
def test_absent_modalities_cost_nothing(backbone):
    inputs = images(4, size=(64, 64))
    plain = flops(network(1, backbone), inputs[:1])
    # Without fusion, RGB alone is the network for RGB.
    assert flops(network(2, backbone, fused_blocks=0), inputs[:2], [True, False]) == plain
    assert flops(network(4, backbone, fused_blocks=0), inputs, [True, False, False, False]) == plain
    # With it, two of the fusion's products remain in each block: values and output.
    remaining = flops(network(2, backbone), inputs[:2], [True, False]) - plain
    every = flops(network(2, backbone), inputs[:2]) - flops(network(2, backbone, fused_blocks=0), inputs[:2])
    assert 0 < remaining < 0.2 * every
    # Of four modalities with one extra present, embedding and scores of the two others are gone.
    counts = [
        flops(network(4, backbone), inputs, [True, *flags]) for flags in ([True] * 3, [True, False, True], [False, False, True])
    ]
    assert counts[0] - counts[1] == counts[1] - counts[2] > 0


@pytest.mark.parametrize("modalities", [2, 4])
def test_changes_where_there_is_no_data_do_not_reach_rgb_far_away_from_it(modalities):
    # The first stage alone: later ones see what its self-attention has already spread.
    segmenter = network(modalities, TINY_SWIN)
    stage = segmenter.backbone.stages[0]
    inputs = torch.cat(images(modalities, size=(64, 64)))
    valid = torch.ones(len(inputs), 1, 64, 64)
    valid[2:, :, 16:40, 20:33] = 0.0  # all extra modalities
    changed = torch.where(valid > 0, inputs, inputs + 3.0)
    present = tuple(range(modalities))
    before, after = (stage(pictures, present, valid)[0].chunk(2) for pictures in (inputs, changed))
    assert not torch.equal(before[1], after[1])
    # RGB takes from the other stream in the first block, before that stream's own attention has spread the change.
    first = network(modalities, TINY_SWIN).backbone.stages[0]
    first.blocks = first.blocks[:1]
    randomize(first.blocks[0].fusion)
    first.blocks[0].attention.output.weight.data.zero_()  # no exchange between pixels, so that only fusion is left
    before, after = (first(pictures, present, valid)[0].chunk(2) for pictures in (inputs, changed))
    torch.testing.assert_close(before[0], after[0])


def test_maximum_is_taken_over_what_is_valid():
    generator = torch.Generator().manual_seed(0)
    extras = [torch.randn(2, 3, 4, 5, generator=generator) for _ in range(3)]
    valid = (torch.rand(4 * 2, 1, 4, 5, generator=generator) < 0.5).float()
    strongest, of_streams = _strongest(extras, valid)
    of_rgb, *of_extras = valid.chunk(4)
    for image, y, x in itertools.product(range(2), range(4), range(5)):
        there = [extra[image, :, y, x] for extra, mask in zip(extras, of_extras, strict=True) if mask[image, 0, y, x]]
        among = there or [extra[image, :, y, x] for extra in extras]
        assert torch.equal(strongest[image, :, y, x], torch.stack(among).amax(0))
        assert of_streams[2 + image, 0, y, x] == bool(there)
    assert torch.equal(of_streams[:2], of_rgb)


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
def test_one_pixel_with_data_makes_its_token_valid_at_every_stage(backbone):
    segmenter = network(2, backbone)
    inputs = torch.cat(images(2, batch=1, size=(61, 77)))
    valid = torch.ones(2, 1, 61, 77)
    valid[1] = 0.0
    valid[1, 0, 60, 33] = 1.0
    pictures = inputs
    for stage, stride in zip(segmenter.backbone.stages, (4, 8, 16, 32), strict=True):
        features, pictures, valid = stage(pictures, (0, 1), valid)
        assert valid.shape[2:] == features.shape[2:]
        assert valid[1, 0].nonzero().tolist() == [[60 // stride, 33 // stride]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_masks_and_subsets_work_in_half_precision(fusion, backbone, dtype):
    segmenter, inputs = network(3, backbone, fusion=fusion), images(3, size=(33, 40))
    valid = [None, *masks([True, False], size=(33, 40))]
    valid[1][:, :, 10:20] = False
    for arguments in ({"valid": valid}, {"present": [True, False, True]}, {"present": [True, False, False]}):
        exact = segmenter(inputs, **arguments).ensemble
        with torch.autocast("cpu", dtype):
            mixed = segmenter(inputs, **arguments).ensemble
        assert (mixed.float() - exact).abs().max() < 0.2 * exact.std()
        half = network(3, backbone, fusion=fusion).to(dtype)([image.to(dtype) for image in inputs], **arguments).ensemble
        assert half.dtype == dtype
        assert half.isfinite().all()


# --------------------------------------------------------------------------------------------------------------------
# Modality dropout


def dropping(rate, modalities=3):
    segmenter = network(modalities, modality_dropout=rate)
    segmenter.train()
    segmenter.head.eval()  # batch statistics would let images of a batch see each other
    return segmenter


def test_modality_dropout_trains_what_runs_without_the_modality():
    segmenter, inputs = dropping(1 - 1e-9), images(3, size=SIZE)
    torch.manual_seed(0)
    dropped = segmenter(inputs)
    alone = segmenter(inputs, [True, False, False])
    torch.testing.assert_close(dropped.streams[0], alone.streams[0], rtol=0, atol=1e-5)
    assert len(dropped.streams) == 2


def test_modality_dropout_is_seeded_by_sample_and_only_for_training():
    segmenter, inputs = dropping(0.5), [image.expand(40, -1, -1, -1) for image in images(3, batch=1, size=(32, 32))]
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(segmenter(inputs).streams[0].detach())
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    # Forty times the same images: the four subsets of two extra modalities give four results, about ten each.
    rounded = outputs[0].flatten(1)[:, :50].mul(1e5).round()
    counts = rounded.unique(dim=0, return_counts=True)[1]
    assert len(counts) == 4
    assert counts.min() >= 3
    segmenter.eval()
    assert torch.equal(segmenter(inputs).streams[0][0], segmenter(inputs).streams[0][39])


# --------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"present": [True]}, r"presence: expected 2 flags \(rgb, depth\), got 1"),
        ({"present": [False, True]}, "expected rgb to be present"),
        ({"valid": masks([True])}, r"validity: expected 2 masks \(rgb, depth\), got 1"),
        ({"valid": [None, torch.ones(2, 45, 61)]}, r"validity of depth: expected \(2, 1, 45, 61\), got \(2, 45, 61\)"),
    ],
)
def test_wrong_flags_and_masks_are_refused(arguments, sentence):
    with pytest.raises(ShapeError, match=sentence):
        network()(images(size=SIZE), **arguments)


def test_an_input_that_is_not_there_has_to_be_absent():
    with pytest.raises(ShapeError, match=r"input depth: expected \(B, 3, H, W\).*got none"):
        network()([images(size=SIZE)[0], None])


def test_a_subset_can_be_exported():
    segmenter = network()
    assert isinstance(segmenter, Segmenter)
    assert len(segmenter.backbone.stages) == STAGES
    inputs = images(2, batch=1, size=(32, 48))
    exported = torch.export.export(segmenter, (inputs, [True, False])).module()
    torch.testing.assert_close(exported(inputs, [True, False]).ensemble, segmenter(inputs, [True, False]).ensemble)


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
def test_rgb_alone_computes_what_more_modalities_do_without_the_others(backbone):
    several = randomize(tiny(3, backbone, fusion="none")).eval()
    alone = rgb_alone(several)
    assert alone.config.modalities == ("rgb",)
    assert not alone.training
    rgb = images(1)
    expected = several.quarter_logits([*rgb, None, None], [True, False, False]).ensemble
    torch.testing.assert_close(alone.quarter_logits(rgb).ensemble, expected)

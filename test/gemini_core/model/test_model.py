"""The network: equal to the released code's numbers, to the paper's plain form, and trainable in every parameter."""

from __future__ import annotations

import itertools
import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from gemini_core.config import sections
from gemini_core.errors import ConfigError, ShapeError
from gemini_core.model import importing
from gemini_core.model.fusion import GeminiFusion
from gemini_core.model.fusions import FUSIONS
from gemini_core.model.mit import MiTConfig, MixFeedForward, MixTransformer, ReducedAttention
from gemini_core.model.segmentation import BACKBONE_CONFIGS, MlpHead, Segmenter, SegmenterConfig
from gemini_core.model.streams import BackboneOptions, DropPath, Layout, StreamNorm, to_image, to_tokens
from gemini_core.model.swin import FeedForward, SwinConfig, SwinTransformer, divide
from networks import BACKBONES, TINY, TINY_SWIN, images, tiny

GOLDEN = Path(__file__).parents[2] / "golden"
TOLERANCE = {torch.float32: {"rtol": 0.0, "atol": 1e-5}, torch.float64: {"rtol": 0.0, "atol": 1e-12}}


def read(path):
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118 - not a dict


def assert_equals_released(got, expected):
    """Within 1e-5 of what the released code computes, relative to the spread of its numbers."""
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-5 * expected.std()


# --------------------------------------------------------------------------------------------------------------------
# The released code's numbers


@pytest.mark.parametrize("name", ["attention_dim64_sr4", "attention_dim32_sr1"])
def test_attention_equals_the_released_code(name):
    tensors, numbers = read(GOLDEN / f"{name}.safetensors")
    width, heads, sr_ratio, fusion_heads = (int(numbers[key]) for key in ("dim", "num_heads", "sr_ratio", "fusion_heads"))
    weights = {name: tensor for name, tensor in tensors.items() if name.startswith("weights.")}
    account = importing.Account(weights, released=True)
    state = importing._convert_attention(account, "weights", "ours", 2, reduced=sr_ratio > 1)
    state |= importing.convert_fusion(account, "weights", "ours.fusion")
    account.close("fixture", "these weights")
    attention = ReducedAttention(2, width, heads, sr_ratio, GeminiFusion(width, fusion_heads))
    attention.load_state_dict({name.removeprefix("ours."): tensor for name, tensor in state.items()})
    with torch.no_grad():
        layout = Layout((int(numbers["height"]), int(numbers["width"])), streams=2)
        output = attention(torch.cat((tensors["input.0"], tensors["input.1"])), layout)
    expected = torch.cat((tensors["output.0"], tensors["output.1"]))
    assert_equals_released(output, expected)


@pytest.mark.parametrize(
    ("name", "config", "recorded"),
    [
        ("segmentation_mit_b0_rgbd", SegmenterConfig("mit_b0", ("rgb", "depth"), 40, 256), ("rgb depth", "rgb depth ensemble")),
        (
            "segmentation_mit_b0_rgb_depth_event_lidar",
            SegmenterConfig("mit_b0", ("rgb", "depth", "event", "lidar"), 25, 512),
            ("img depth event lidar", "rgb fused ensemble"),
        ),
        # 100 x 132 pixels: windows of 7 are padded and shifted at every stage
        (
            "segmentation_swin_small_width_rgbd",
            SegmenterConfig(SwinConfig(24, (2, 2, 2, 2)), ("rgb", "depth"), 37),
            ("rgb depth", "rgb depth ensemble"),
        ),
    ],
)
def test_segmenter_equals_the_released_code(fixtures_dir, name, config, recorded):
    path = fixtures_dir / f"{name}.safetensors"
    tensors, _ = read(path)
    segmenter = importing.load_official(path, config)
    assert not segmenter.training
    inputs, outputs = recorded
    with torch.no_grad():
        output = segmenter([tensors[f"input.{which}"] for which in inputs.split()])
    for got, which in zip((*output.streams, output.ensemble), outputs.split(), strict=True):
        assert_equals_released(got, tensors[f"output.{which}"])


# --------------------------------------------------------------------------------------------------------------------
# The plain forms


class PlainFusion(nn.Module):
    """The fusion as the paper writes it, two keys and two values handed to torch's own multi-head attention."""

    def __init__(self, fusion: GeminiFusion) -> None:
        super().__init__()
        width = fusion.key_noise.shape[1]
        self.relation, self.key_noise, self.value_noise = fusion.relation, fusion.key_noise, fusion.value_noise
        self.attention = nn.ModuleList(
            nn.MultiheadAttention(width, ours.heads, batch_first=True, dtype=torch.float64) for ours in fusion.attention
        )
        for plain, ours in zip(self.attention, fusion.attention, strict=True):
            with torch.no_grad():
                plain.in_proj_weight.copy_(torch.cat((ours.query.weight, ours.key.weight, ours.value.weight)))
                # Any key bias does: it moves both scores alike.
                plain.in_proj_bias.copy_(torch.cat((ours.query.bias, torch.randn(width), ours.value.bias)))
                plain.out_proj.weight.copy_(ours.output.weight)
                plain.out_proj.bias.copy_(ours.output.bias)

    def forward(self, streams):
        fused = []
        for i, attention in enumerate(self.attention):
            own, other = streams[i].flatten(0, 1), streams[1 - i].flatten(0, 1)  # (B*N, C)
            relation = self.relation(torch.cat((own, other), -1)).softmax(-1)
            key = torch.stack((own + self.key_noise[i], own * relation), 1)  # (B*N, 2, C)
            value = torch.stack((own + self.value_noise[i], other), 1)
            fused.append(own + attention(own[:, None], key, value, need_weights=False)[0][:, 0])
        return torch.stack(fused).view(streams.shape)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 7), st.sampled_from([(8, 8), (16, 8), (24, 2)]), st.integers(0, 2**31))
def test_closed_form_equals_multi_head_attention_in_values_and_gradients(batch, tokens, width_and_heads, seed):
    torch.manual_seed(seed)
    width, heads = width_and_heads
    fusion = GeminiFusion(width, heads).double()
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=0.5)
    plain = PlainFusion(fusion)
    streams = torch.randn(2, batch, tokens, width, dtype=torch.float64, requires_grad=True)
    shared = [fusion.key_noise, fusion.value_noise, *fusion.relation.parameters(), streams]
    weighting = torch.randn_like(streams)
    ours, theirs = fusion(streams), plain(streams)
    torch.testing.assert_close(ours, theirs, **TOLERANCE[torch.float64])
    (ours * weighting).sum().backward()
    ours_shared = [tensor.grad for tensor in shared]
    for tensor in shared:
        tensor.grad = None
    (theirs * weighting).sum().backward()
    close = {"rtol": 1e-9, "atol": 1e-11}
    for got, tensor in zip(ours_shared, shared, strict=True):
        torch.testing.assert_close(got, tensor.grad, **close)
    for mine, packed in zip(fusion.attention, plain.attention, strict=True):
        weights = (mine.query.weight, mine.key.weight, mine.value.weight)
        torch.testing.assert_close(torch.cat([weight.grad for weight in weights]), packed.in_proj_weight.grad, **close)
        no_key_bias = torch.zeros(width).double()
        biases = torch.cat((mine.query.bias.grad, no_key_bias, mine.value.bias.grad))
        torch.testing.assert_close(biases, packed.in_proj_bias.grad, **close)
        torch.testing.assert_close(mine.output.weight.grad, packed.out_proj.weight.grad, **close)
        torch.testing.assert_close(mine.output.bias.grad, packed.out_proj.bias.grad, **close)


def test_fusion_is_per_pixel():
    torch.manual_seed(0)
    fusion = GeminiFusion(16, 8)
    streams = torch.randn(2, 1, 6, 16)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(fusion(streams)[:, :, order], fusion(streams[:, :, order]))


def test_stream_norm_is_one_layer_norm_per_stream():
    torch.manual_seed(0)
    norm = StreamNorm(3, 8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    tokens = torch.randn(6, 5, 8)
    expected = [
        F.layer_norm(part, (8,), weight, bias, eps=1e-6)
        for part, weight, bias in zip(tokens.chunk(3), norm.weight, norm.bias, strict=True)
    ]
    torch.testing.assert_close(norm(tokens), torch.cat(expected))


def test_tokens_and_image_are_the_same_memory():
    tokens = torch.arange(24.0).view(1, 6, 4)
    image = to_image(tokens, (2, 3))
    assert image[0, 1, 1, 2] == tokens[0, 5, 1]
    assert to_tokens(image).data_ptr() == tokens.data_ptr()
    torch.testing.assert_close(to_tokens(image), tokens)


@pytest.mark.parametrize("training", [True, False])
def test_head_equals_the_papers_order_of_operations(training):
    torch.manual_seed(0)
    head = MlpHead((4, 6, 8, 10), 12, 5, dropout=0.0).double().train(training)
    nn.init.uniform_(head.norm.running_var, 0.5, 2.0)
    features = [torch.randn(2, width, 32 // 2**i, 24 // 2**i).double() for i, width in enumerate((4, 6, 8, 10))]
    upsampled = []
    for mapping, feature in zip(head.mappings, features, strict=True):
        projected = to_image(mapping.projection(to_tokens(feature)), feature.shape[2:])
        upsampled.append(F.interpolate(projected, size=(32, 24), mode="bilinear", align_corners=False))
    join = torch.cat([mapping.join.weight for mapping in head.mappings], dim=1)
    joined = F.relu(
        F.batch_norm(
            F.conv2d(torch.cat(upsampled, 1), join),
            head.norm.running_mean.clone(),
            head.norm.running_var.clone(),
            head.norm.weight,
            head.norm.bias,
            training=training,
        )
    )
    torch.testing.assert_close(head(features), head.classifier(joined), **TOLERANCE[torch.float64])


# --------------------------------------------------------------------------------------------------------------------
# The whole network


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
@pytest.mark.parametrize(("modalities", "fusion"), [(1, "gemini"), (4, "gemini"), *itertools.product((2, 3), FUSIONS)])
def test_every_parameter_gets_a_gradient(backbone, modalities, fusion):
    segmenter = tiny(modalities, backbone, fusion=fusion, drop_path=0.0).train()
    output = segmenter(images(modalities, size=(33, 63)))
    loss = sum(logits.square().mean() for logits in (*output.streams, output.ensemble))
    loss.backward()
    without = [name for name, parameter in segmenter.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert without == []


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
def test_gradient_checkpointing_changes_no_gradient(backbone):
    gradients, computed = [], []
    for checkpointing in (False, True):
        segmenter = tiny(2, backbone, drop_path=0.3, gradient_checkpointing=checkpointing).train()
        computed.append(0)
        for module in segmenter.modules():
            if isinstance(module, FeedForward | MixFeedForward):
                module.register_forward_pre_hook(lambda *_: computed.append(computed.pop() + 1))
        torch.manual_seed(3)  # the dropped paths
        output = segmenter(images(size=(32, 48)))
        sum(logits.square().mean() for logits in output.streams).backward()
        gradients.append(
            {name: parameter.grad for name, parameter in segmenter.named_parameters() if parameter.grad is not None}
        )
    torch.testing.assert_close(gradients[1], gradients[0])
    assert computed == [sum(backbone.depths), 2 * sum(backbone.depths)]


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
@pytest.mark.parametrize("fused", [0, 2, 5])
def test_fusion_can_be_limited_to_the_last_blocks(backbone, fused):
    blocks = sum(backbone.depths)
    segmenter = tiny(2, backbone, fused_blocks=fused)
    fuses = [
        any(isinstance(module, GeminiFusion) for module in block.modules())
        for stage in segmenter.backbone.stages
        for block in stage.blocks
    ]
    assert fuses == [False] * (blocks - fused) + [True] * fused
    with pytest.raises(
        ConfigError, match=f"fused_blocks: expected 0 to {blocks}, the blocks of the backbone, got {blocks + 1}"
    ):
        tiny(2, backbone, fused_blocks=blocks + 1)


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
def test_without_fusion_the_streams_are_two_networks_and_their_average(backbone):
    segmenter = tiny(2, backbone, fusion="none").eval()
    inputs = images(size=(32, 48))
    output = segmenter(inputs)
    torch.testing.assert_close(output.ensemble, (output.streams[0] + output.streams[1]) / 2)
    swapped = segmenter([inputs[0], inputs[1] * 2])
    assert torch.equal(output.streams[0], swapped.streams[0])
    assert not torch.equal(output.streams[1], swapped.streams[1])


@pytest.mark.parametrize("modalities", [2, 4])
def test_ensemble_is_the_weighted_sum_and_trains_its_weights_only(modalities):
    segmenter = tiny(modalities, logits_size="quarter").eval()
    nn.init.normal_(segmenter.stream_weights)
    output = segmenter(images(modalities))
    weights = segmenter.stream_weights.softmax(0)
    torch.testing.assert_close(output.ensemble, weights[0] * output.streams[0] + weights[1] * output.streams[1])
    output.ensemble.square().sum().backward()
    trained = [name for name, parameter in segmenter.named_parameters() if parameter.grad is not None]
    assert trained == ["stream_weights"]


def test_one_modality_is_one_stream_without_fusion():
    segmenter = tiny(1).eval()
    output = segmenter(images(1))
    assert output.ensemble is output.streams[0]
    assert len(output.streams) == 1
    assert not any(isinstance(module, GeminiFusion) for module in segmenter.modules())


@pytest.mark.parametrize(
    ("modalities", "logits_size", "expected"),
    [(1, "auto", (17, 25)), (2, "auto", (17, 25)), (3, "auto", (65, 97)), (4, "quarter", (17, 25)), (2, "full", (65, 97))],
)
def test_logits_come_at_the_size_that_was_asked_for(modalities, logits_size, expected):
    output = tiny(modalities, logits_size=logits_size).eval()(images(modalities, size=(65, 97)))
    assert [tuple(logits.shape) for logits in (*output.streams, output.ensemble)] == [(2, 5, *expected)] * (
        len(output.streams) + 1
    )


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
@pytest.mark.parametrize("modalities", [2, 3])
def test_images_of_a_batch_do_not_see_each_other(modalities, backbone):
    segmenter = tiny(modalities, backbone).eval()
    together = segmenter(images(modalities, batch=3)).ensemble
    alone = segmenter([image[1:2] for image in images(modalities, batch=3)]).ensemble
    torch.testing.assert_close(together[1:2], alone, **TOLERANCE[torch.float32])


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
def test_each_modality_matters_in_both_streams(backbone):
    segmenter = tiny(4, backbone).eval()
    inputs = images(4, size=(32, 48))
    reference = segmenter(inputs)
    for index in range(4):
        changed = segmenter([image.flip(3) if index == i else image for i, image in enumerate(inputs)])
        for before, after in zip(reference.streams, changed.streams, strict=True):
            assert not torch.equal(before, after), index


def test_drop_path_keeps_the_mean_and_rises_with_depth():
    torch.manual_seed(0)
    drop = DropPath(0.25)
    branch = torch.ones(20000, 1, 1)
    kept = drop(branch)
    assert kept.unique().tolist() == pytest.approx([0.0, 1.0 / 0.75])
    assert kept.mean().item() == pytest.approx(1.0, abs=0.02)
    assert drop.eval()(branch) is branch
    for backbone in (MixTransformer(TINY, BackboneOptions(2, 0.4)), SwinTransformer(TINY_SWIN, BackboneOptions(2, 0.5))):
        rates = [module.rate for module in backbone.modules() if isinstance(module, DropPath)]
        assert rates == pytest.approx([0.1 * block for block in range(len(rates))])


def test_initial_weights_have_the_spread_of_the_literature():
    torch.manual_seed(0)
    segmenter = Segmenter(SegmenterConfig("mit_b0", ("rgb", "depth"), 9))
    stage = segmenter.backbone.stages[3]
    assert stage.blocks[0].mlp.expand.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert stage.blocks[0].mlp.expand.bias.count_nonzero() == 0
    # fan-out: 3*3*256 outputs for a dense convolution, 3*3 for a depth-wise one
    assert stage.embed.projection.weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.05)
    assert stage.blocks[0].mlp.depthwise.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
    assert segmenter.stream_weights.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
def test_network_can_be_exported(backbone):
    segmenter = tiny(2, backbone).eval()
    inputs = images(2, batch=1, size=(32, 48))
    exported = torch.export.export(segmenter, (inputs,)).module()
    torch.testing.assert_close(exported(inputs).ensemble, segmenter(inputs).ensemble)


@pytest.mark.parametrize(("fill", "spreads"), [(float("nan"), True), (0.0, False)])
def test_a_pixel_that_is_no_number_spoils_its_image_and_no_other(fill, spreads):
    segmenter = tiny(2).eval()
    inputs = images(2, size=(32, 48))
    before = segmenter(inputs).ensemble
    inputs[1][0, 0, 5, 5] = fill
    after = segmenter(inputs).ensemble
    assert after[0].isnan().all().item() is spreads
    assert torch.equal(after[1], before[1])


def test_configuration_lists_every_backbone_that_has_a_name():
    assert set(sections.BACKBONES) == set(BACKBONE_CONFIGS)


@pytest.mark.parametrize(
    ("name", "parameters"),  # of the models for ImageNet's 1000 classes
    [("swin_t", 28288354), ("swin_s", 49606258), ("swin_b", 87768224), ("swin_l", 196532476)],
)
def test_named_swin_backbones_have_the_papers_number_of_parameters(name, parameters):
    with torch.device("meta"):
        segmenter = Segmenter(SegmenterConfig(name, ("rgb",), 9))
    *lower, width = segmenter.config.backbone_config.widths
    ours = sum(parameter.numel() for parameter in segmenter.backbone.parameters())
    unused = sum(2 * other for other in lower)  # classification norms the last stage's output only
    assert ours - unused + (width + 1) * 1000 == parameters


@pytest.mark.parametrize(
    ("name", "millions"),  # SegFormer's table 1, encoder
    [("mit_b0", 3.4), ("mit_b1", 13.1), ("mit_b2", 24.2), ("mit_b3", 44.0), ("mit_b4", 60.8), ("mit_b5", 81.4)],
)
def test_named_mix_transformers_have_the_papers_number_of_parameters(name, millions):
    with torch.device("meta"):
        segmenter = Segmenter(SegmenterConfig(name, ("rgb",), 9))
    ours = sum(parameter.numel() for parameter in segmenter.backbone.parameters())
    assert ours / 1e6 == pytest.approx(millions, abs=0.11)


# --------------------------------------------------------------------------------------------------------------------
# Windows


@pytest.mark.parametrize(("size", "window"), [((6, 9), 4), ((7, 7), 7), ((4, 5), 7), ((12, 3), 3)])
def test_shifted_windows_join_neighbours_only(size, window):
    windows = divide(size, window, torch.device("cpu"))
    height, width = (-(-length // window) * window for length in size)
    shift = window // 2
    ours = torch.stack(
        torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1
    )  # (row, column) of each token
    moved = ours.roll((-shift, -shift), (0, 1)).view(height // window, window, width // window, window, 2)
    moved = moved.transpose(1, 2).reshape(-1, window * window, 2)
    within = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"), -1).view(-1, 2)
    # Two tokens of a window may see each other where they lie as far apart as in the window.
    expected = ((moved[:, :, None] - moved[:, None]) == (within[:, None] - within)).all(-1)
    assert torch.equal(windows.same, expected)


def test_position_table_has_one_row_per_relative_position():
    windows = divide((5, 5), 5, torch.device("cpu"))
    place = {}
    for (y, x, other_y, other_x), row in zip(itertools.product(range(5), repeat=4), windows.places.tolist(), strict=True):
        assert place.setdefault((y - other_y, x - other_x), row) == row
    assert sorted(place.values()) == list(range(81))
    assert [place[key] for key in sorted(place)] == list(range(81))


def test_images_of_odd_size_are_padded_to_whole_patches_and_cropped_back():
    segmenter = tiny(2, TINY_SWIN).eval()
    inputs = images(size=(61, 79))
    padded = [F.pad(image, (0, 1, 0, 3)) for image in inputs]
    torch.testing.assert_close(segmenter(inputs).ensemble, segmenter(padded).ensemble)
    assert segmenter(inputs).ensemble.shape[2:] == (16, 20)


# --------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (images(1), r"expected 2 tensors \(rgb, depth\), got 1"),
        ([torch.zeros(2, 3, 64, 64), torch.zeros(2, 1, 64, 64)], r"input depth: expected \(B, 3, H, W\).*got \(2, 1, 64, 64\)"),
        ([torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 64, 32)], r"input depth: expected the shape of rgb"),
        ([torch.zeros(3, 64, 64)] * 2, r"input rgb: expected \(B, 3, H, W\)"),
        ([torch.zeros(1, 3, 31, 64)] * 2, r"from 32 up, got \(1, 3, 31, 64\)"),
    ],
)
def test_wrong_inputs_are_refused(inputs, sentence):
    with pytest.raises(ShapeError, match=sentence):
        tiny(2)(inputs)
    with pytest.raises(ValueError, match=sentence):
        tiny(2)(inputs)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"backbone": "mit_b9"}, r"backbone: unknown name 'mit_b9' \(nearest known: mit_b"),
        ({"modalities": ("rgb", "thermal")}, "unknown name 'thermal'"),
        ({"modalities": ("depth", "rgb")}, "expected 'rgb' first"),
        ({"modalities": ()}, "expected 'rgb' first"),
        ({"modalities": ("rgb", "depth", "depth")}, "each sensor once"),
        ({"num_classes": 0}, "num_classes: expected 1 to 255, got 0"),
        ({"head_width": 0}, "head_width"),
        ({"drop_path": 1.0}, "drop_path: expected a rate"),
        ({"logits_size": "half"}, "logits_size: expected one of"),
        ({"backbone": "swin_x"}, r"unknown name 'swin_x' \(nearest known: swin_"),
        ({"fusion": "gemin"}, r"fusion: unknown name 'gemin' \(nearest known: gemini\)"),
        ({"fused_blocks": 9}, "fused_blocks: expected 0 to 8"),
        ({"modality_dropout": 1.0}, "modality_dropout: expected a rate"),
    ],
)
def test_wrong_configurations_are_refused(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        SegmenterConfig(**{"backbone": "mit_b0", "modalities": ("rgb", "depth"), "num_classes": 9, **changes})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"width": 20}, "backbone widths: expected multiples of heads 3 and 8, got 20"),
        ({"depths": (2, 2, 6)}, "depths: expected 4 numbers"),
        ({"heads": (3, 6, 0, 24)}, "heads: expected 4 numbers"),
        ({"window": 1}, "window: expected 2 or more, got 1"),
    ],
)
def test_wrong_swin_numbers_are_refused(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        SwinConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"widths": (32, 64, 160)}, "widths: expected 4 numbers"),
        ({"depths": (2, 2, 0, 2)}, "depths: expected 4 numbers"),
        ({"heads": (3, 2, 5, 8)}, "multiples of heads 3"),
        ({"fusion_heads": 7}, "and 7"),
        ({"mlp_ratio": 0}, "mlp_ratio"),
    ],
)
def test_wrong_backbone_numbers_are_refused(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        MiTConfig(**changes)


def test_fusion_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="divisor of the width 20, got 8"):
        GeminiFusion(20, 8)


# --------------------------------------------------------------------------------------------------------------------
# Documentation


def test_picture_of_the_fusion_is_what_its_script_draws():
    docs = Path(__file__).parents[3] / "docs"
    drawn = runpy.run_path(str(docs / "draw_fusion.py"))["draw"]()
    assert (docs / "fusion.svg").read_text(encoding="utf-8") == drawn

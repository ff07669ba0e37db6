"""Pretrained backbones: each family's names fill exactly what they should, and what is left is named."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from safetensors.torch import save_file

import networks
from gemini_core.cli import main
from gemini_core.errors import WeightsError
from gemini_core.model import checkpoints, importing
from gemini_core.model.segmentation import SegmenterConfig
from gemini_core.model.swin import SwinConfig
from networks import TINY, TINY_SWIN

SHARED = {
    "embed.projection": "patch_embed{s}.proj",
    "embed.norm": "patch_embed{s}.norm",
    "attention_norm": "block{s}.{b}.norm1",
    "attention.query": "block{s}.{b}.attn.q",
    "attention.key_value": "block{s}.{b}.attn.kv",
    "attention.reduction": "block{s}.{b}.attn.sr",
    "attention.reduction_norm": "block{s}.{b}.attn.norm",
    "attention.output": "block{s}.{b}.attn.proj",
    "mlp_norm": "block{s}.{b}.norm2",
    "mlp.expand": "block{s}.{b}.mlp.fc1",
    "mlp.depthwise": "block{s}.{b}.mlp.dwconv.dwconv",
    "mlp.contract": "block{s}.{b}.mlp.fc2",
    "norm": "norm{s}",
}
SWIN = {
    "attention_norm": "layers.{s}.blocks.{b}.norm1",
    "attention.query_key_value": "layers.{s}.blocks.{b}.attn.qkv",
    "attention.output": "layers.{s}.blocks.{b}.attn.proj",
    "mlp_norm": "layers.{s}.blocks.{b}.norm2",
    "mlp.expand": "layers.{s}.blocks.{b}.mlp.fc1",
    "mlp.contract": "layers.{s}.blocks.{b}.mlp.fc2",
}


def one_modality(backbone):
    torch.manual_seed(7)
    segmenter = networks.tiny(1, backbone)
    return networks.randomize(segmenter, std=0.3).eval()


def segformer_state(segmenter, head=False):
    """The weights of a segmenter for one modality under SegFormer's own names."""
    state = {}
    for name, tensor in segmenter.backbone.state_dict().items():
        _, stage, *rest = name.split(".")
        block = rest[1] if rest[0] == "blocks" else ""
        *layer, part = rest[2:] if block else rest
        theirs = SHARED[".".join(layer)].format(s=int(stage) + 1, b=block)
        state[f"{theirs}.{part}"] = tensor[0] if "norm" in layer[-1] else tensor  # the only row
    if head:
        ours = segmenter.head.state_dict()
        for stage in range(4):
            for part in ("weight", "bias"):
                state[f"decode_head.linear_c{stage + 1}.proj.{part}"] = ours[f"mappings.{stage}.projection.{part}"]
        joins = [ours[f"mappings.{stage}.join.weight"] for stage in (3, 2, 1, 0)]
        state["decode_head.linear_fuse.conv.weight"] = torch.cat(joins, 1)
        state |= {
            name.replace("norm", "decode_head.linear_fuse.bn", 1): ours[name] for name in ours if name.startswith("norm.")
        }
        state |= {f"decode_head.linear_pred.{part}": ours[f"classifier.{part}"] for part in ("weight", "bias")}
    return state


def swin_state(segmenter):
    """The weights of a Swin segmenter for one modality under the names of ImageNet's models, with what else those hold."""
    ours = segmenter.backbone.state_dict()
    state = {"head.weight": torch.zeros(10, 64), "head.bias": torch.zeros(10)}
    for part in ("weight", "bias"):
        state[f"patch_embed.proj.{part}"] = ours[f"stages.0.embed.projection.{part}"]
        state[f"patch_embed.norm.{part}"] = ours[f"stages.0.embed.norm.{part}"][0]
        state[f"norm.{part}"] = ours[f"stages.3.norm.{part}"][0]
    for stage, depth in enumerate(TINY_SWIN.depths):
        if stage > 0:
            merging = f"layers.{stage - 1}.downsample"
            state[f"{merging}.reduction.weight"] = ours[f"stages.{stage}.embed.reduction.weight"]
            state |= {f"{merging}.norm.{part}": ours[f"stages.{stage}.embed.norm.{part}"] for part in ("weight", "bias")}
        for block in range(depth):
            own = f"stages.{stage}.blocks.{block}"
            for layer, theirs in SWIN.items():
                for part in ("weight", "bias"):
                    state[f"{theirs.format(s=stage, b=block)}.{part}"] = ours[f"{own}.{layer}.{part}"]
            attention = f"layers.{stage}.blocks.{block}.attn"
            state[f"{attention}.relative_position_bias_table"] = ours[f"{own}.attention.position_bias"]
            state[f"{attention}.relative_position_index"] = torch.zeros(16, 16, dtype=torch.int64)
        if depth > 1:
            state[f"layers.{stage}.blocks.1.attn_mask"] = torch.zeros(4, 16, 16)
    return state


def assert_backbone_is(imported, source):
    """Every weight of the backbone for one modality stands in each stream of the imported one."""
    ours = imported.segmenter.backbone.state_dict()
    for name, tensor in source.backbone.state_dict().items():
        if f"backbone.{name}" in imported.initialised:
            continue
        expected = tensor.expand(ours[name].shape) if ours[name].shape[1:] == tensor.shape[1:] else tensor
        assert torch.equal(ours[name], expected), name


# --------------------------------------------------------------------------------------------------------------------
# SegFormer and Swin


@pytest.mark.parametrize("modalities", [1, 2, 4])
@pytest.mark.parametrize("prefix", ["", "backbone.", "module.backbone."])
def test_segformer_of_imagenet_fills_the_backbone_of_every_modality(modalities, prefix):
    source = one_modality(TINY)
    state = {**segformer_state(source), "head.weight": torch.zeros(10, 32), "head.bias": torch.zeros(10)}
    if prefix:
        state = {prefix + name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    imported = importing.load_pretrained({"state_dict": state, "epoch": 3}, networks.tiny(modalities).config)
    assert imported.family == "SegFormer"
    assert_backbone_is(imported, source)
    assert imported.dropped == (("epoch",) if prefix else ("epoch", "head.weight", "head.bias"))
    initialised = {name.split(".")[0] for name in imported.initialised}
    assert initialised == {"head"} if modalities == 1 else {"head", "backbone", "stream_weights"}
    of_backbone = [name for name in imported.initialised if name.startswith("backbone")]
    assert all(".fusion." in name or ".scores." in name for name in of_backbone)
    assert not imported.segmenter.training


def test_segformer_with_its_head_gives_the_same_logits():
    source = one_modality(TINY)
    state = {**segformer_state(source, head=True), "decode_head.conv_seg.weight": torch.zeros(1)}
    imported = importing.load_pretrained(state, source.config)
    assert imported.initialised == ()
    assert imported.dropped == ("decode_head.conv_seg.weight",)
    inputs = networks.images(1, size=(32, 48))
    assert torch.equal(imported.segmenter(inputs).ensemble, source(inputs).ensemble)
    start = importing.load_pretrained(state, replace(source.config, num_classes=17), backbone_only=True)
    assert all(name.startswith("head.") for name in start.initialised)
    assert "decode_head.linear_pred.bias" in start.dropped
    with pytest.raises(WeightsError, match=r"expected head\.classifier\.weight of shape \(17, 16, 1, 1\), got \(5, 16, 1, 1\)"):
        importing.load_pretrained(state, replace(source.config, num_classes=17))


@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_swin_of_imagenet_fills_the_backbone_of_every_modality(modalities):
    source = one_modality(TINY_SWIN)
    imported = importing.load_pretrained({"model": swin_state(source)}, networks.tiny(modalities, TINY_SWIN).config)
    assert imported.family == "Swin"
    assert_backbone_is(imported, source)
    of_backbone = [name for name in imported.initialised if name.startswith("backbone") and ".fusion." not in name]
    norms = {f"backbone.stages.{stage}.norm.{part}" for stage in range(3) for part in ("weight", "bias")}
    assert {name for name in of_backbone if ".scores." not in name} == norms
    assert {name.split(".")[-1] for name in imported.dropped} == {"relative_position_index", "attn_mask", "weight", "bias"}


def test_swin_of_a_segmentation_model_brings_its_output_norms():
    source = one_modality(TINY_SWIN)
    state = {name: tensor for name, tensor in swin_state(source).items() if not name.startswith(("norm.", "head."))}
    for stage in range(4):
        for part in ("weight", "bias"):
            state[f"norm{stage}.{part}"] = source.backbone.state_dict()[f"stages.{stage}.norm.{part}"][0]
    state = {f"backbone.{name}": tensor for name, tensor in state.items()}
    imported = importing.load_pretrained({**state, "decode_head.conv_seg.bias": torch.zeros(1)}, source.config)
    assert_backbone_is(imported, source)
    assert all(name.startswith("head.") for name in imported.initialised)
    assert "decode_head.conv_seg.bias" in imported.dropped


def test_position_tables_are_interpolated_to_another_window():
    source = one_modality(TINY_SWIN)
    wide = replace(TINY_SWIN, window=6)
    imported = importing.load_pretrained(swin_state(source), networks.tiny(1, wide).config)
    old = source.backbone.stages[1].blocks[0].attention.position_bias
    new = imported.segmenter.backbone.stages[1].blocks[0].attention.position_bias
    assert new.shape == (121, 2)
    for head in range(2):
        table = old[:, head].view(1, 1, 7, 7)
        expected = F.interpolate(table, size=(11, 11), mode="bicubic")[0, 0]
        torch.testing.assert_close(new[:, head].view(11, 11), expected)
        # The place of the token itself stays in the middle, and nothing else is turned or mirrored.
        assert new[60, head].item() == pytest.approx(old[24, head].item(), abs=0.02)


# --------------------------------------------------------------------------------------------------------------------
# transformers

OLD = {
    "patch_embed": ("encoder.patch_embeddings.{s}.", {"proj": "proj", "norm": "layer_norm"}),
    "block": (
        "encoder.block.{s}.{b}.",
        {
            "norm1": "layer_norm_1",
            "norm2": "layer_norm_2",
            "attn.q": "attention.self.query",
            "attn.k": "attention.self.key",
            "attn.v": "attention.self.value",
            "attn.sr": "attention.self.sr",
            "attn.norm": "attention.self.layer_norm",
            "attn.proj": "attention.output.dense",
            "mlp.fc1": "mlp.dense1",
            "mlp.dwconv.dwconv": "mlp.dwconv.dwconv",
            "mlp.fc2": "mlp.dense2",
        },
    ),
}


def transformers_state(segmenter, prefix):
    """The weights under the names in files of ``transformers``: SegFormer's, renamed, with key and value apart."""
    state = {}
    for name, tensor in segformer_state(segmenter, head=bool(prefix)).items():
        layer, _, part = name.rpartition(".")
        pieces = {layer: tensor}
        if layer.endswith(".kv"):
            key, value = tensor.chunk(2)
            pieces = {layer.replace(".kv", ".k"): key, layer.replace(".kv", ".v"): value}
        for which, piece in pieces.items():
            state[_theirs(which, prefix) + f".{part}"] = piece
    return state


def _theirs(layer, prefix):
    head = {"linear_fuse.conv": "linear_fuse", "linear_fuse.bn": "batch_norm", "linear_pred": "classifier"}
    root, _, rest = layer.partition(".")
    if root == "decode_head":
        return f"decode_head.{head[rest]}" if rest in head else f"decode_head.linear_c.{int(rest[8]) - 1}.proj"
    stage = int(root[-1]) - 1
    if root.startswith("norm"):
        return f"{prefix}encoder.layer_norm.{stage}"
    template, names = OLD[root[:-1]]
    block, _, rest = rest.partition(".") if root.startswith("block") else ("", "", rest)
    return prefix + template.format(s=stage, b=block) + names[rest]


@pytest.mark.parametrize("prefix", ["segformer.", ""])
def test_names_of_transformers_fill_the_segmenter(prefix, tmp_path):
    source = one_modality(TINY)
    state = transformers_state(source, prefix)
    torch.save(state, tmp_path / "pytorch_model.bin")
    imported = importing.load_pretrained(tmp_path / "pytorch_model.bin", source.config)
    assert imported.family == "SegFormer of transformers"
    assert_backbone_is(imported, source)
    assert imported.segmenter.config.backbone == replace(TINY, norm_eps=1e-5)
    assert imported.dropped == ()
    assert all(name.startswith("head.") for name in imported.initialised)
    assert bool(imported.initialised) is not bool(prefix)
    del state[f"{prefix}encoder.block.1.0.attention.self.value.bias"]
    with pytest.raises(WeightsError, match=r"expected a value beside the key block2\.0\.attn\.k\.bias of SegFormer, got none"):
        importing.load_pretrained(state, source.config)


@pytest.mark.parametrize("model", ["SegformerForSemanticSegmentation", "SegformerModel"])
@pytest.mark.parametrize("names", ["in memory", "in files"])
def test_outputs_equal_those_of_transformers(model, names, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed; its names are tested without it")
    numbers = transformers.SegformerConfig(
        num_labels=5,
        hidden_sizes=list(TINY.widths),
        depths=list(TINY.depths),
        num_attention_heads=list(TINY.heads),
        sr_ratios=list(TINY.sr_ratios),
        mlp_ratios=[TINY.mlp_ratio] * 4,
        decoder_hidden_size=16,
    )
    theirs = getattr(transformers, model)(numbers).eval()
    networks.randomize(theirs, std=0.2)
    source = theirs.state_dict()
    if names == "in files":
        theirs.save_pretrained(tmp_path)
        source = tmp_path / "model.safetensors"
    imported = importing.load_pretrained(source, networks.tiny(1).config)
    (image,) = networks.images(1, size=(61, 93))  # nothing divides these
    with torch.no_grad():
        if model == "SegformerModel":
            got, expected = imported.segmenter.backbone(image)[-1], theirs(image).last_hidden_state
        else:
            got, expected = imported.segmenter([image]).ensemble, theirs(image).logits
    assert (got - expected).abs().max() <= 1e-5 * expected.std()


# --------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda s: s.pop("block1.0.attn.q.bias"),
            r"the keys of SegFormer .* got 1 \(block1\.0\.attn\.q\.bias\) missing",
        ),
        (lambda s: s.update(surplus=torch.zeros(1)), r"none missing and 1 \(surplus\) unknown"),
        (lambda s: s.update({"norm1.weight": torch.zeros(3)}), r"expected backbone\.stages\.0\.norm\.weight of shape \(2, 8\)"),
        (lambda s: s.pop("patch_embed1.proj.weight"), "expected the weights of GeminiFusion, SegFormer .* or Swin, got"),
    ],
)
def test_backbones_that_do_not_fit_are_refused(change, sentence):
    state = segformer_state(one_modality(TINY))
    change(state)
    with pytest.raises(WeightsError, match=sentence):
        importing.load_pretrained(state, networks.tiny(2).config)


def test_weights_of_the_other_kind_of_backbone_are_refused():
    with pytest.raises(WeightsError, match="expected weights for the backbone swin_t, got those of SegFormer"):
        importing.load_pretrained(segformer_state(one_modality(TINY)), SegmenterConfig("swin_t", ("rgb",), 5))
    with pytest.raises(WeightsError, match="expected weights for the backbone mit_b0, got those of Swin"):
        importing.load_pretrained(swin_state(one_modality(TINY_SWIN)), SegmenterConfig("mit_b0", ("rgb",), 5))


class Tokenizer:
    pass


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (Tokenizer(), r"test_checkpoints_pretrained\.Tokenizer"),
        (np.zeros(3), r"numpy\S*_reconstruct"),
        (OrderedDict(rng=slice(1)), r"slice"),
    ],
)
def test_files_with_anything_but_tensors_are_refused_by_name(tmp_path, thing, name):
    torch.save({"state_dict": segformer_state(one_modality(TINY)), "thing": thing}, tmp_path / "mit_b0.pth")
    with pytest.raises(WeightsError, match=rf"mit_b0\.pth: expected .* nothing but tensors in it, got: \S*{name}"):
        importing.load_pretrained(tmp_path / "mit_b0.pth", networks.tiny(1).config)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"thing": thing}, protocol=2))
    with pytest.raises(WeightsError, match=r"plain\.pth: expected .* nothing but tensors"):
        importing.load_pretrained(tmp_path / "plain.pth", networks.tiny(1).config)


@pytest.mark.parametrize("load", [importing.load_official, importing.load_pretrained])
def test_keys_that_are_no_names_are_refused(load):
    with pytest.raises(WeightsError, match=r"expected names of tensors as keys, got 2 \(3, b'x'\) of another kind"):
        load({"a": torch.zeros(1), 3: torch.zeros(1), b"x": torch.zeros(1)}, networks.tiny(2).config)


@pytest.mark.parametrize("twin", ["stages.0.blocks.0.mlp.fc1.bias", "block1.0.mlp.fc1.bias", "block1.0.attn.kv.bias"])
def test_two_names_of_one_tensor_are_refused(twin):
    source = one_modality(TINY)
    state = transformers_state(source, "segformer.")
    state[twin] = torch.zeros(16)
    with pytest.raises(WeightsError, match=r"expected each weight once, got two for block1\.0\.\S+"):
        importing.load_pretrained(state, source.config)


# --------------------------------------------------------------------------------------------------------------------
# gemini-fusion import-weights


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """An ImageNet file of SegFormer B0, its weights random."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("imagenet") / "mit_b0.pth"
    torch.save(segformer_state(networks.tiny(1, "mit_b0")), path)
    return path


def test_command_writes_our_file_and_says_what_was_left_to_chance(imagenet, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("road\n\nsky \n")
    out = tmp_path / "start.safetensors"
    arguments = ["import-weights", str(imagenet), str(out), "--backbone", "mit_b0", "--modalities", "rgb,lidar"]
    assert main([*arguments, "--classes", str(tmp_path / "names.txt"), "--head-width", "32", "--fused-blocks", "2"]) == 0
    printed = capsys.readouterr().out
    assert "SegFormer weights, as a start for training" in printed
    assert "backbone.stages.3.blocks.1.attention.fusion.key_noise" in printed
    segmenter, info = checkpoints.load(out)
    assert segmenter.config == SegmenterConfig("mit_b0", ("rgb", "lidar"), 2, 32, fused_blocks=2)
    assert info.class_names == ("road", "sky")
    assert not info.trained
    assert info.description == "SegFormer weights from mit_b0.pth"
    first = out.read_bytes()
    assert main([*arguments, "--classes", "road, sky", "--head-width", "32", "--fused-blocks", "2"]) == 0
    assert out.read_bytes() == first  # the seed decides what is left to chance


def test_command_writes_complete_weights_as_trained(tmp_path, capsys):
    source = networks.tiny(1, "mit_b0", num_classes=2)
    save_file(transformers_state(source, "segformer."), tmp_path / "model.safetensors")
    arguments = ["import-weights", str(tmp_path / "model.safetensors"), str(tmp_path / "out"), "--backbone", "mit_b0"]
    assert main([*arguments, "--modalities", "rgb", "--classes", "road,sky", "--head-width", "16"]) == 0
    assert "SegFormer of transformers weights, complete" in capsys.readouterr().out
    assert checkpoints.load(tmp_path / "out")[1].trained


def test_command_refuses_in_one_line_and_writes_nothing(imagenet, tmp_path, capsys):
    arguments = ["import-weights", str(imagenet), str(tmp_path / "out"), "--backbone", "swin_t", "--classes", "road,sky"]
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        f"gemini-fusion: {imagenet}: expected weights for the backbone swin_t, got those of SegFormer\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_swin_configuration_is_told_from_mit(tmp_path):
    segmenter = networks.tiny(2, SwinConfig(8, (1, 1, 1, 1), (1, 2, 2, 4), 3, 2, 4))
    checkpoints.save(segmenter, tmp_path / "w", tuple("abcde"), trained=False)
    assert checkpoints.load(tmp_path / "w")[0].config == segmenter.config

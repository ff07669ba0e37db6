"""Weights files: what is written comes back; what does not fit, or would run code, is refused with one sentence."""

from __future__ import annotations

import json
import os
import pickle
import resource
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import networks
from gemini_core.errors import WeightsError
from gemini_core.model import checkpoints
from gemini_core.model.checkpoints import IMAGENET, Normalization
from gemini_core.model.mit import MiTConfig
from gemini_core.model.segmentation import Segmenter, SegmenterConfig
from golden import read_tensors
from networks import TINY, TINY_SWIN

NAMES = ("road", "car", "sky")


def tiny(modalities=2, backbone=TINY, **changes):
    return networks.tiny(modalities, backbone, num_classes=3, **changes)


def rewrite(path, change):
    """Let ``change(tensors, metadata)`` edit a safetensors file."""
    tensors, metadata = read_tensors(path)
    change(tensors, metadata)
    save_file(tensors, path, metadata=metadata)


class Writer:
    """Writes a segmenter's weights under the released names; apart from the importer, so that each checks the other."""

    def __init__(self, segmenter) -> None:
        self.ours = segmenter.state_dict()
        self.state = {"alpha": self.ours["stream_weights"]}

    def layer(self, theirs, name):
        for part in ("weight", "bias"):
            self.state[f"{theirs}.{part}"] = self.ours[f"{name}.{part}"]

    def norm(self, theirs, name):
        for part in ("weight", "bias"):
            for stream, row in enumerate(self.ours[f"{name}.{part}"]):
                self.state[f"{theirs}.ln_{stream}.{part}"] = row

    def scores(self, theirs, stage, predictors, used):
        for index in range(predictors):
            source = f"{stage}.scores.{min(index, used - 1)}"
            self.layer(f"{theirs}.{index}.0", f"{source}.depthwise")
            self.layer(f"{theirs}.{index}.1", f"{source}.pointwise")

    def block(self, theirs, block, reduced):
        self.norm(f"{theirs}.norm1", f"{block}.attention_norm")
        self.norm(f"{theirs}.norm2", f"{block}.mlp_norm")
        self.layer(f"{theirs}.mlp.fc1.module", f"{block}.mlp.expand")
        self.layer(f"{theirs}.mlp.dwconv.dwconv", f"{block}.mlp.depthwise")
        self.layer(f"{theirs}.mlp.fc2.module", f"{block}.mlp.contract")
        self.layer(f"{theirs}.attn.q.module", f"{block}.attention.query")
        self.layer(f"{theirs}.attn.kv.module", f"{block}.attention.key_value")
        self.layer(f"{theirs}.attn.proj.module", f"{block}.attention.output")
        if reduced:
            self.layer(f"{theirs}.attn.sr.module", f"{block}.attention.reduction")
            self.norm(f"{theirs}.attn.norm", f"{block}.attention.reduction_norm")
        self.fusion(f"{theirs}.attn", f"{block}.attention.fusion")

    def swin_block(self, theirs, block):
        self.layer(f"{theirs}.norm1.module", f"{block}.attention_norm")
        self.layer(f"{theirs}.norm2.module", f"{block}.mlp_norm")
        self.layer(f"{theirs}.mlp.fc1.module", f"{block}.mlp.expand")
        self.layer(f"{theirs}.mlp.fc2.module", f"{block}.mlp.contract")
        self.layer(f"{theirs}.attn.module.qkv", f"{block}.attention.query_key_value")
        self.layer(f"{theirs}.attn.module.proj", f"{block}.attention.output")
        self.state[f"{theirs}.attn.module.relative_position_bias_table"] = self.ours[f"{block}.attention.position_bias"]
        self.state[f"{theirs}.attn.module.relative_position_index"] = torch.zeros(16, 16, dtype=torch.int64)
        if f"{block}.fusion.key_noise" in self.ours:
            self.fusion(theirs, f"{block}.fusion")

    def fusion(self, theirs, fusion):
        self.layer(f"{theirs}.relation_judger.0.fc1", f"{fusion}.relation.0")
        self.layer(f"{theirs}.relation_judger.0.fc2", f"{fusion}.relation.2")
        self.state[f"{theirs}.k_noise.weight"] = self.ours[f"{fusion}.key_noise"]
        self.state[f"{theirs}.v_noise.weight"] = self.ours[f"{fusion}.value_noise"]
        for direction, name in enumerate(("cross_attn_0_to_1", "cross_attn_1_to_0")):
            own = f"{fusion}.attention.{direction}"
            weights = [self.ours[f"{own}.{part}.weight"] for part in ("query", "key", "value")]
            biases = [self.ours[f"{own}.query.bias"], torch.full((len(weights[0]),), 7.0), self.ours[f"{own}.value.bias"]]
            self.state[f"{theirs}.{name}.in_proj_weight"] = torch.cat(weights)
            self.state[f"{theirs}.{name}.in_proj_bias"] = torch.cat(biases)
            self.layer(f"{theirs}.{name}.out_proj", f"{own}.output")

    def head(self, theirs):
        for stage in range(4):
            self.layer(f"{theirs}.linear_c{stage + 1}.proj", f"head.mappings.{stage}.projection")
        joins = [self.ours[f"head.mappings.{stage}.join.weight"] for stage in (3, 2, 1, 0)]
        self.state[f"{theirs}.linear_fuse.conv.weight"] = torch.cat(joins, dim=1)
        self.layer(f"{theirs}.linear_fuse.bn", "head.norm")
        for part in ("running_mean", "running_var", "num_batches_tracked"):
            self.state[f"{theirs}.linear_fuse.bn.{part}"] = self.ours[f"head.norm.{part}"]
        self.layer(f"{theirs}.linear_pred", "head.classifier")


NYU = ("encoder", "decoder")
DELIVER = ("backbone", "decode_head")


def released_state(modalities=2, roots=NYU, extra_predictors=1):
    """A state dict under the released names with the weights of ``tiny(modalities)``."""
    root, head = roots
    writer = Writer(tiny(modalities))
    for stage, depth in enumerate(TINY.depths):
        ours = f"backbone.stages.{stage}"
        writer.layer(f"{root}.patch_embed{stage + 1}.proj.module", f"{ours}.embed.projection")
        writer.norm(f"{root}.patch_embed{stage + 1}.norm", f"{ours}.embed.norm")
        writer.norm(f"{root}.norm{stage + 1}", f"{ours}.norm")
        if modalities > 2:
            theirs = f"{root}.extra_score_predictor.{stage}.score_nets"
            writer.scores(theirs, ours, modalities - 1 + extra_predictors, modalities - 1)
        for index in range(depth):
            writer.block(f"{root}.block{stage + 1}.{index}", f"{ours}.blocks.{index}", TINY.sr_ratios[stage] > 1)
    writer.head(head)
    return writer.state


def released_swin_state(**changes):
    """A state dict under the released names with the weights of ``tiny(2, TINY_SWIN)``."""
    writer = Writer(tiny(2, TINY_SWIN, **changes))
    body = "encoder.body"
    writer.layer(f"{body}.patch_embed.proj.module", "backbone.stages.0.embed.projection")
    writer.norm(f"{body}.patch_embed.norm", "backbone.stages.0.embed.norm")
    for stage, depth in enumerate(TINY_SWIN.depths):
        ours = f"backbone.stages.{stage}"
        if stage > 0:
            merging = f"{body}.layers.{stage - 1}.downsample.module"
            writer.layer(f"{merging}.norm", f"{ours}.embed.norm")
            writer.state[f"{merging}.reduction.weight"] = writer.ours[f"{ours}.embed.reduction.weight"]
        writer.norm(f"{body}.norm{stage}", f"{ours}.norm")
        for index in range(depth):
            writer.swin_block(f"{body}.layers.{stage}.blocks.{index}", f"{ours}.blocks.{index}")
    writer.head("decoder")
    return writer.state


def assert_same(first, second):
    left, right = first.state_dict(), second.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


# --------------------------------------------------------------------------------------------------------------------
# Our own files


@pytest.mark.parametrize(
    ("modalities", "backbone", "changes"),
    [
        (1, TINY, {}),
        (2, TINY, {"fused_blocks": 2}),
        (4, TINY, {"modality_dropout": 0.5}),
        (2, TINY_SWIN, {"fusion": "exchange", "gradient_checkpointing": True}),
        (3, TINY_SWIN, {"fusion": "none"}),
    ],
)
def test_what_is_saved_comes_back(tmp_path, modalities, backbone, changes):
    segmenter = tiny(modalities, backbone, **changes)
    path = tmp_path / "weights.safetensors"
    checkpoints.save(segmenter, path, NAMES, trained=True, description="ten steps")
    random_state = torch.get_rng_state()
    loaded, info = checkpoints.load(path)
    assert torch.equal(random_state, torch.get_rng_state())
    assert loaded.config == segmenter.config
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert_same(loaded, segmenter)
    assert info.class_names == NAMES
    assert info.trained
    assert info.description == "ten steps"
    assert info.normalization == (IMAGENET, *[Normalization()] * (modalities - 1))
    assert list(tmp_path.iterdir()) == [path]


def test_named_backbone_and_own_normalization_come_back(tmp_path):
    segmenter = tiny(2, backbone="mit_b0")
    normalization = (Normalization(), Normalization((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)))
    checkpoints.save(segmenter, tmp_path / "w", NAMES, trained=False, normalization=normalization)
    loaded, info = checkpoints.load(tmp_path / "w")
    assert loaded.config.backbone == "mit_b0"
    assert info.normalization == normalization
    assert not info.trained


def test_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    checkpoints.save(tiny(), path, NAMES, trained=False)
    before = path.read_bytes()
    with pytest.raises(WeightsError, match="expected 3 class names, got 1"):
        checkpoints.save(tiny(), path, ("road",), trained=False)
    with pytest.raises(WeightsError, match="expected 2 normalizations"):
        checkpoints.save(tiny(), path, NAMES, trained=False, normalization=(IMAGENET,))
    assert path.read_bytes() == before
    with pytest.raises(WeightsError, match=r"expected a path that can be written, got (Not a directory|File exists)"):
        checkpoints.save(tiny(), path / "in a file" / "weights.safetensors", NAMES, trained=False)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [b"", b"not weights", pickle.dumps({"a": 1}), b"\xff" * 100])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "weights").write_bytes(content)
    with pytest.raises(WeightsError, match="weights: expected a readable safetensors file"):
        checkpoints.load(tmp_path / "weights")


def test_missing_and_truncated_files_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="expected a readable safetensors file"):
        checkpoints.load(tmp_path / "none.safetensors")
    path = tmp_path / "weights"
    checkpoints.save(tiny(), path, NAMES, trained=False)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="expected a readable safetensors file"):
        checkpoints.load(path)


def edit(metadata, change):
    content = json.loads(metadata["gemini_ros"])
    change(content)
    metadata["gemini_ros"] = json.dumps(content)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda _, metadata: metadata.clear(), "expected metadata 'gemini_ros' as gemini_ros writes it, got none"),
        (lambda _, metadata: metadata.update(gemini_ros="{"), "expected metadata of a segmenter"),
        (lambda _, metadata: metadata.update(gemini_ros="[]"), "expected metadata of a segmenter"),
        (lambda _, m: edit(m, lambda c: c.update(format_version=2)), "expected weights of format version 1, got 2"),
        (lambda _, m: edit(m, lambda c: c["config"].update(colour="red")), "expected metadata of a segmenter.*colour"),
        (lambda _, m: edit(m, lambda c: c["config"].update(modalities=["rgb", "smell"])), "unknown name 'smell'"),
        (lambda _, m: edit(m, lambda c: c["info"].pop("trained")), "expected metadata of a segmenter.*trained"),
        (lambda _, m: edit(m, lambda c: c["info"]["class_names"].pop()), "expected 3 class names, got 2"),
        (lambda _, m: edit(m, lambda c: c["info"]["normalization"][0]["mean"].pop()), "expected metadata of a segmenter"),
        (lambda t, _: t.update(surplus=torch.zeros(1)), r"got none missing and 1 \(surplus\) unknown"),
        (lambda t, _: t.pop("stream_weights"), r"got 1 \(stream_weights\) missing and none unknown"),
        (lambda t, _: t.update(stream_weights=torch.zeros(3)), r"expected stream_weights of shape \(2,\), got \(3,\)"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, change, sentence):
    path = tmp_path / "weights"
    checkpoints.save(tiny(), path, NAMES, trained=False)
    rewrite(path, change)
    with pytest.raises(WeightsError, match=sentence):
        checkpoints.load(path)


def test_many_wrong_keys_are_named_first_and_counted(tmp_path):
    path = tmp_path / "weights"
    checkpoints.save(tiny(), path, NAMES, trained=False)
    rewrite(path, lambda tensors, _: [tensors.pop(name) for name in list(tensors) if name.startswith("head.")])
    with pytest.raises(
        WeightsError, match=r"got \d+ \(head\.classifier\.bias, [^,]+, [^,]+, \.\.\.\) missing and none unknown"
    ):
        checkpoints.load(path)


# --------------------------------------------------------------------------------------------------------------------
# The released models' files


@pytest.mark.parametrize("changes", [{}, {"fused_blocks": 3}])
def test_released_swin_names_fill_the_whole_segmenter(changes):
    loaded = checkpoints.load_official(released_swin_state(**changes), tiny(2, TINY_SWIN, **changes).config)
    assert_same(loaded, tiny(2, TINY_SWIN, **changes))


def test_released_fusion_in_other_blocks_is_refused():
    with pytest.raises(WeightsError, match=r"none missing and \d+ \(encoder\.body\.layers\.0\.blocks\.0\.cross_attn"):
        checkpoints.load_official(released_swin_state(), tiny(2, TINY_SWIN, fused_blocks=3).config)
    with pytest.raises(WeightsError, match=r"\d+ \(encoder\.body\.layers\.0\.blocks\.0\.cross_attn.* missing and none"):
        checkpoints.load_official(released_swin_state(fused_blocks=3), tiny(2, TINY_SWIN).config)
    with pytest.raises(WeightsError, match=r"expected the fusion gemini, .* got exchange"):
        checkpoints.load_official(released_swin_state(), tiny(2, TINY_SWIN, fusion="exchange").config)


@pytest.mark.parametrize(("modalities", "roots"), [(2, NYU), (2, DELIVER), (3, DELIVER), (4, DELIVER)])
def test_released_names_fill_the_whole_segmenter(modalities, roots):
    state = released_state(modalities, roots)
    loaded = checkpoints.load_official(state, tiny(modalities).config)
    assert_same(loaded, tiny(modalities))
    loaded.stream_weights.data.zero_()
    assert state["alpha"].tolist() == [1.0, 1.0]  # the caller's tensors stay the caller's


def test_score_predictor_too_many_is_not_required():
    assert_same(checkpoints.load_official(released_state(3, DELIVER, extra_predictors=0), tiny(3).config), tiny(3))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"segmenter": state, "epoch_start": 12},
        lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {"segmenter": {f"module.{name}": tensor for name, tensor in state.items()}, "best": 0.5},
    ],
)
def test_wrapped_pickles_are_unwrapped(tmp_path, wrap):
    torch.save(wrap(released_state()), tmp_path / "model.pth")
    assert_same(checkpoints.load_official(tmp_path / "model.pth", tiny().config), tiny())
    assert_same(checkpoints.load_official(wrap(released_state()), tiny().config), tiny())


def test_safetensors_are_read_whatever_their_name(tmp_path):
    state = {name: tensor.contiguous() for name, tensor in released_state().items()}
    save_file(state, tmp_path / "model.pth")
    assert_same(checkpoints.load_official(str(tmp_path / "model.pth"), tiny().config), tiny())


def test_prefix_of_recordings_is_taken_off_only_in_recordings(tmp_path):
    recording = {f"weights.{name}": tensor.clone() for name, tensor in released_state().items()}
    save_file({**recording, "input.rgb": torch.zeros(1), "output.rgb": torch.zeros(1)}, tmp_path / "recording")
    assert_same(checkpoints.load_official(tmp_path / "recording", tiny().config), tiny())
    save_file({**recording, "optimizer": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(WeightsError, match="missing and"):
        checkpoints.load_official(tmp_path / "other", tiny().config)


class Payload:
    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("writer", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))])
def test_pickles_with_code_are_refused_and_never_run(tmp_path, writer):
    writer({"segmenter": released_state(), "payload": Payload(tmp_path / "owned")}, tmp_path / "model.pth")
    with pytest.raises(WeightsError, match=r"model\.pth: expected safetensors or a PyTorch file with nothing but tensors"):
        checkpoints.load_official(tmp_path / "model.pth", tiny().config)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk", b"\x80\x02junk"])
def test_files_that_are_no_weights_are_refused(tmp_path, content):
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.pth: expected"):
        checkpoints.load_official(tmp_path / "model.pth", tiny().config)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"none\.pth: expected a readable weights file, got No such file"):
        checkpoints.load_official(tmp_path / "none.pth", tiny().config)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.pop("alpha"), r"state dict: .* got 1 \(alpha\) missing and none unknown"),
        (lambda s: s.update(beta=torch.zeros(1)), r"got none missing and 1 \(beta\) unknown"),
        (lambda s: [s.pop(name) for name in list(s) if "decoder" in name], r"got 16 \(decoder\.[^,]+, .*\.\.\.\) missing"),
        (lambda s: s.pop("encoder.block1.0.norm1.ln_1.weight"), r"1 \(encoder\.block1\.0\.norm1\.ln_1\.weight\) missing"),
        (lambda s: s.update(alpha=torch.zeros(3)), r"stream_weights of shape \(2,\), got \(3,\)"),
        (lambda s: s.update({"decoder.linear_fuse.conv.weight": torch.zeros(16)}), "head.mappings.*of shape"),
        (lambda s: s.update({"encoder.block1.0.attn.cross_attn_0_to_1.in_proj_bias": torch.tensor(1.0)}), "of shape"),
        (lambda s: s.update({"encoder.norm1.ln_0.bias": torch.zeros(3)}), r"stages\.0\.norm\.bias of shape"),
        (lambda s: s.update(epoch=3), r"expected nothing but tensors in the state dict, got 1 \(epoch: int\)"),
        (lambda s: s.clear(), "got an empty one"),
    ],
)
def test_released_weights_that_do_not_fit_are_refused(change, sentence):
    state = released_state()
    change(state)
    with pytest.raises(WeightsError, match=sentence):
        checkpoints.load_official(state, tiny().config)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: torch.tensor([1.0, 2.0]).to_sparse(), "sparse_coo"),
        (lambda: torch.tensor([1.0 + 2.0j, 1.0]), "complex64"),
        (lambda: torch.quantize_per_tensor(torch.tensor([1.0, 2.0]), 0.1, 0, torch.qint8), "qint8"),
        (lambda: torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged), "nested"),
    ],
)
def test_tensors_that_are_not_plain_real_numbers_are_refused(make, kind):
    with pytest.raises(WeightsError, match=rf"expected plain tensors of real numbers .*, got 1 \(alpha: {kind}\)"):
        checkpoints.load_official({**released_state(), "alpha": make()}, tiny().config)


def test_released_weights_for_other_modalities_are_refused():
    with pytest.raises(WeightsError, match="missing and"):
        checkpoints.load_official(released_state(2, DELIVER), tiny(3).config)
    with pytest.raises(WeightsError, match=r"missing and .* unknown"):
        checkpoints.load_official(released_state(4, DELIVER), tiny(3).config)
    with pytest.raises(WeightsError, match="expected 2 to 4 modalities"):
        checkpoints.load_official(released_state(), tiny(1).config)


@pytest.mark.parametrize(
    ("file", "name", "config"),
    [
        ("nyudv2", "mit_b3", SegmenterConfig("mit_b3", ("rgb", "depth"), 40)),
        ("nyudv2", "mit_b5", SegmenterConfig("mit_b5", ("rgb", "depth"), 40)),
        ("nyudv2", "swin_tiny", SegmenterConfig("swin_t", ("rgb", "depth"), 40)),
        ("nyudv2", "swin_large_window12", SegmenterConfig("swin_l_w12", ("rgb", "depth"), 40)),
        ("deliver", "B2_rgbd", SegmenterConfig("mit_b2", ("rgb", "depth"), 25, 512, logits_size="full")),
        ("deliver", "B2_rgbdel", SegmenterConfig("mit_b2", ("rgb", "depth", "event", "lidar"), 25, 512)),
    ],
)
def test_no_key_of_a_released_model_is_left_over(fixtures_dir, file, name, config):
    shapes = json.loads((fixtures_dir / f"official_checkpoint_keys_{file}.json").read_text())[name]
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    checkpoints.load_official(state, config)
    for lost in (next(iter(state)), list(state)[len(state) // 2], list(state)[-1]):
        with pytest.raises(WeightsError, match=rf"got 1 \({lost}\) missing and none unknown"):
            checkpoints.load_official({key: value for key, value in state.items() if key != lost}, config)


def test_shipped_weights_are_found_by_name():
    with pytest.raises(
        WeightsError, match=r"shipped:nothing: expected weights that come with gemini_ros \(.*\), got 'nothing'"
    ):
        checkpoints.load("shipped:nothing")
    assert checkpoints.find("some/file.safetensors") == Path("some/file.safetensors")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [10**7, 10**12, 10**18])
@pytest.mark.parametrize("name", ["widths", "depths", "heads", "sr_ratios", "mlp_ratio", "fusion_heads"])
def test_metadata_that_asks_for_more_than_the_file_has_is_refused_at_once(tmp_path, name, number):
    backbone = MiTConfig(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1), heads=(1, 1, 1, 1), fusion_heads=1)
    path = tmp_path / "weights.safetensors"
    checkpoints.save(Segmenter(SegmenterConfig(backbone, ("rgb",), 2, head_width=8)), path, ("a", "b"), trained=False)
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        content = json.loads(file.metadata()["gemini_ros"])
    numbers = content["config"]["backbone"]
    numbers[name] = [number, *numbers[name][1:]] if isinstance(numbers[name], list) else number
    save_file(tensors, path, {"gemini_ros": json.dumps(content)})
    began = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises(WeightsError):
        checkpoints.load(path)
    ended = resource.getrusage(resource.RUSAGE_SELF)
    assert ended.ru_utime - began.ru_utime < 5.0
    assert ended.ru_maxrss - began.ru_maxrss < 200_000  # kB


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a": ' * 500 + "1" + "}" * 500, "nope", '{"config": 1, "config": 2}'])
def test_metadata_that_json_cannot_be_is_refused(tmp_path, content):
    save_file({"a": torch.zeros(1)}, tmp_path / "weights", {"gemini_ros": content})
    with pytest.raises(WeightsError, match="expected metadata of a segmenter, got others") as refused:
        checkpoints.load(tmp_path / "weights")
    assert len(str(refused.value)) < 600

"""Import of other people's weights: released GeminiFusion models, and pretrained SegFormer and Swin ones as a start.

| family | a name that tells it | what it fills |
|---|---|---|
| GeminiFusion, NYUDv2/SUN form | ``encoder.block1.0.attn.k_noise.weight``, ``encoder.body.layers...`` | everything |
| GeminiFusion, DeLiVER form | ``backbone.block1.0.attn.k_noise.weight`` | everything |
| SegFormer (ImageNet, or with a head) | ``patch_embed1.proj.weight`` | the backbone; the head, if it is there |
| SegFormer of ``transformers`` | ``encoder.patch_embeddings.0.proj.weight`` | the same |
| Swin (ImageNet) | ``patch_embed.proj.weight`` | the backbone |

The released KITTI model is MVX-Net, no segmenter; ``detection/mvxnet/importing.py`` takes it.

Nothing is left over silently on either side: what a file has and the model does not is an error, except a few tensors without a
use here, and those, like the weights of ours that a file has nothing for, are named in what ``load_pretrained`` gives back.
Files are read as tensors only; one that holds anything that would have to be built is refused by the name of that thing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor

from gemini_core.errors import WeightsError
from gemini_core.files import check_regular
from gemini_core.model.mit import MiTConfig
from gemini_core.model.segmentation import Segmenter, SegmenterConfig
from gemini_core.model.streams import STAGES
from gemini_core.model.strict import check_shapes, fill, read_safetensors, some

_TRANSFORMERS = "SegFormer of transformers"
_WRAPPERS = ("segmenter", "state_dict", "model_state_dict", "model")


@dataclass(frozen=True, slots=True, eq=False)
class Imported:
    """A segmenter with somebody's weights.

    ``family`` says whose; ``initialised`` names the weights for which the file has nothing, so that they are as at the start
    of training; ``dropped`` names what the file has and the network has no use for.
    """

    segmenter: Segmenter
    family: str
    initialised: tuple[str, ...]
    dropped: tuple[str, ...]


def load_official(source: str | Path | Mapping[str, Any], config: SegmenterConfig) -> Segmenter:
    """Make a segmenter of a released GeminiFusion model's weights (MiT or Swin; two modalities, or DeLiVER's form).

    Stricter than ``load_pretrained``, which the command uses: nothing may be missing. Tests hold the network to such models.

    Args:
        source: a state dict, or a file of one (safetensors or a PyTorch pickle of tensors); the wrappers that training scripts
            put around it (``{"segmenter": ...}``, ``{"state_dict": ...}``, ``module.``) are taken off.
        config: what the weights are for.

    Returns:
        The segmenter, on the CPU, in fp32 and evaluation mode.

    Raises:
        WeightsError: the file cannot be read as tensors, or its keys or shapes are not exactly those of the configuration.
    """
    return _load_released(open_tensors(source), config).segmenter


def load_pretrained(
    source: str | Path | Mapping[str, Any], config: SegmenterConfig, *, backbone_only: bool = False
) -> Imported:
    """Make a segmenter of weights of any family that the module's table lists; the family is found by the names.

    One set of SegFormer's or Swin's norms becomes the norm of every modality. Swin's tables of relative positions are
    interpolated, bicubically, where the window differs. What the file has nothing for is initialised from torch's global random
    numbers. For SegFormer of ``transformers``, whose norms add 1e-5 to a variance where the original adds 1e-6, the segmenter's
    configuration says so.

    Args:
        source: as for ``load_official``.
        config: what the weights are for.
        backbone_only: leave the head of the file out, for example because it is for other classes.

    Returns:
        The segmenter, on the CPU, in fp32 and evaluation mode, and what was and was not taken.

    Raises:
        WeightsError: the file cannot be read as tensors, is of no known family, or has other weights than the configuration
            needs.
    """
    opened = open_tensors(source)
    names = opened.tensors.keys()
    if any(name.endswith("k_noise.weight") for name in names):
        if backbone_only:
            msg = f"{opened.where}: expected SegFormer's or Swin's weights for a backbone alone, got a whole GeminiFusion model"
            raise WeightsError(msg)
        return _load_released(opened, config)
    family = "SegFormer"
    tensors = opened.tensors
    if any(_HUGGING_FACE.match(name) for name in names):
        family, tensors = _TRANSFORMERS, _from_hugging_face(tensors, opened.where)
    root = "backbone." if any(name.startswith("backbone.") for name in names) else ""
    if f"{root}patch_embed.proj.weight" in tensors:
        family = "Swin"
    elif f"{root}patch_embed1.proj.weight" not in tensors:
        known = "GeminiFusion, SegFormer (also transformers' naming) or Swin"
        msg = f"{opened.where}: expected the weights of {known}, got {some(sorted(names))} of names that none of them has"
        raise WeightsError(msg)
    numbers = config.backbone_config
    if (family == "Swin") is isinstance(numbers, MiTConfig):
        msg = f"{opened.where}: expected weights for the backbone {config.backbone}, got those of {family}"
        raise WeightsError(msg)
    if family == _TRANSFORMERS and isinstance(numbers, MiTConfig):
        config = replace(config, backbone=replace(numbers, norm_eps=1e-5))
    return _load_plain(Account(tensors, released=False), config, opened, family, root, backbone_only=backbone_only)


def _load_released(opened: Opened, config: SegmenterConfig) -> Imported:
    """Fill everything.

    Two things in released models have no effect on any output and are left out: the key bias of the two-key attention, which
    shifts both scores alike, and the one score predictor per stage that the DeLiVER models hold beyond those they use.
    """
    if len(config.modalities) == 1:
        msg = f"{opened.where}: expected 2 to 4 modalities, since every released model fuses, got {list(config.modalities)}"
        raise WeightsError(msg)
    if config.fusion != "gemini":
        msg = f"{opened.where}: expected the fusion gemini, since these are weights of GeminiFusion, got {config.fusion}"
        raise WeightsError(msg)
    account = Account(opened.tensors, released=True)
    nyu = any(name.startswith("encoder.") for name in opened.tensors)  # else DeLiVER's names
    root, head = ("encoder.", "decoder") if nyu else ("backbone.", "decode_head")
    state = {"stream_weights": account.take("alpha")}
    if isinstance(config.backbone_config, MiTConfig):
        state |= _convert_mit(account, config, root)
    else:
        state |= _convert_swin(account, config, f"{root}body.")
    state |= _convert_head(account, head)
    account.close(opened.where, "the released model's keys")
    return Imported(
        fill(lambda: Segmenter(config), state, opened.where), "GeminiFusion", (), (*opened.beside, *account.dropped)
    )


def _load_plain(
    account: Account, config: SegmenterConfig, opened: Opened, family: str, root: str, *, backbone_only: bool
) -> Imported:
    """Fill the backbone, and the head if there is one."""
    state = (_convert_swin if family == "Swin" else _convert_mit)(account, config, root)
    unused = ("head.", "classifier.", "decode_head.conv_seg.", "auxiliary_head.")  # only classification or training uses these
    for name in list(account.left):
        if name.startswith((*unused, "decode_head.") if backbone_only else unused):
            account.drop(name)
    if any(name.startswith("decode_head.") for name in account.left):
        state |= _convert_head(account, "decode_head")
    account.close(opened.where, f"the keys of {family} for this backbone")
    segmenter = Segmenter(config)
    ours = segmenter.state_dict()
    check_shapes(ours, state, opened.where)
    segmenter.load_state_dict(state, strict=False)
    counters = "num_batches_tracked"  # no weight, and as good at 0 as at any other number
    initialised = tuple(name for name in ours if name not in state and not name.endswith(counters))
    return Imported(segmenter.eval(), family, initialised, (*opened.beside, *account.dropped))


# --------------------------------------------------------------------------------------------------------------------
# Files


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """The tensors of a file, what stood beside them (epochs, optimizers), and where this is."""

    tensors: dict[str, Tensor]
    beside: tuple[str, ...]
    where: str


def open_tensors(source: str | Path | Mapping[str, Any]) -> Opened:
    """Read a state dict, or a file of one, as ``load_official`` says.

    Raises:
        WeightsError: it cannot be read as tensors.
    """
    if isinstance(source, Mapping):
        return _unwrap(source, "state dict")
    return _unwrap(_read(Path(source)), str(source))


def _read(path: Path) -> Mapping[str, Any]:
    check_regular(path, WeightsError, "weights file")
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        msg = f"{path}: expected a readable weights file, got {error.strerror}"
        raise WeightsError(msg) from None
    if head[8:] == b"{":  # eight bytes of length, then JSON: safetensors
        return _without_recording(read_safetensors(path)[0])
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - the reader fails with whatever error a broken stream happens to lead it to
        raise WeightsError(_refusal(path, str(error) or type(error).__name__)) from None
    if not isinstance(content, Mapping):
        msg = f"{path}: expected a state dict, got {type(content).__name__}"
        raise WeightsError(msg)
    return content


def _refusal(path: Path, reason: str) -> str:
    """Name what is in a file beside tensors, if torch's reason says it; else give its first line."""
    thing = re.search(r"GLOBAL ([\w.]+)", reason) or re.search(r"(?:type|function|class) (\S+)", reason)
    got = thing.group(1) if thing else reason.strip().partition("\n")[0]
    return f"{path}: expected safetensors or a PyTorch file with nothing but tensors in it, got: {got}"


def _without_recording(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take the weights out of a file that records them as ``weights.*`` beside the ``input*`` and ``output*`` of one run."""
    weights = {name.removeprefix("weights."): tensor for name, tensor in tensors.items() if name.startswith("weights.")}
    recording = weights and all(name.startswith(("weights.", "input", "output")) for name in tensors)
    return weights if recording else tensors


def _unwrap(content: Mapping[Any, Any], where: str, beside: tuple[str, ...] = ()) -> Opened:
    for wrapper in _WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            others = tuple(str(name) for name in content if name != wrapper)
            return _unwrap(content[wrapper], where, (*beside, *others))
    other = [f"{name}: {type(value).__name__}" for name, value in content.items() if not isinstance(value, Tensor)]
    if other:
        msg = f"{where}: expected nothing but tensors in the state dict, got {some(sorted(other))} of another kind"
        raise WeightsError(msg)
    strange = [f"{name}: {kind}" for name, value in content.items() if (kind := _strange(value))]
    if strange:
        msg = f"{where}: expected plain tensors of real numbers in the state dict, got {some(sorted(strange))}"
        raise WeightsError(msg)
    nameless = [repr(name) for name in content if not isinstance(name, str)]
    if nameless:
        msg = f"{where}: expected names of tensors as keys, got {some(nameless)} of another kind"
        raise WeightsError(msg)
    if not content:
        msg = f"{where}: expected a state dict of tensors, got an empty one"
        raise WeightsError(msg)
    if all(name.startswith("module.") for name in content):
        return _unwrap({name.removeprefix("module."): tensor for name, tensor in content.items()}, where, beside)
    return Opened(dict(content), beside, where)


def _strange(tensor: Tensor) -> str:
    """Say what keeps a tensor from being a plain one of real numbers, of which every operation has a kind; '' if nothing."""
    if tensor.is_nested:
        return "nested"
    if tensor.is_quantized or tensor.is_complex():
        return str(tensor.dtype).removeprefix("torch.")
    return "" if tensor.layout == torch.strided else str(tensor.layout).removeprefix("torch.")


class Account:
    """Tensors under foreign names, handed out once each; keeps account of what was not there and what nobody took.

    Released GeminiFusion models wrap layers that the modalities share (``.module``) and hold a norm per modality (``.ln_0``,
    ``.ln_1``); plain backbones have neither, and one norm serves all modalities.
    """

    def __init__(self, tensors: Mapping[str, Tensor], *, released: bool) -> None:
        self.released = released
        self.left = dict(tensors)
        self.missing: list[str] = []
        self.dropped: list[str] = []

    def take(self, name: str) -> Tensor:
        """Take one tensor; an empty one in its place where it is missing."""
        if name in self.left:
            return self.left.pop(name)
        self.missing.append(name)
        return torch.empty(0)  # conversion goes on, so that every missing name is known at its end

    def drop(self, name: str) -> None:
        """Leave a tensor out on purpose, if it is there."""
        if self.left.pop(name, None) is not None:
            self.dropped.append(name)

    def split(self, name: str, parts: int, dim: int = 0) -> tuple[Tensor, ...]:
        """Take a tensor that joins several of ours apart along one dimension."""
        tensor = self.take(name)
        if tensor.ndim <= dim:
            return (torch.empty(0),) * parts  # missing or misshapen; reported later
        return tensor.tensor_split(parts, dim)

    def shared(self, name: str) -> str:
        """Name a layer that the modalities share."""
        return f"{name}.module" if self.released else name

    def layer(self, theirs: str, ours: str) -> dict[str, Tensor]:
        """Weight and bias of one layer."""
        return {f"{ours}.{part}": self.take(f"{theirs}.{part}") for part in ("weight", "bias")}

    def norm(self, theirs: str, ours: str, streams: int) -> dict[str, Tensor]:
        """One LayerNorm per stream, stacked."""
        state = {}
        for part in ("weight", "bias"):
            if self.released:
                rows = [self.take(f"{theirs}.ln_{stream}.{part}") for stream in range(streams)]
            else:
                rows = [self.take(f"{theirs}.{part}")] * streams
            same = all(row.shape == rows[0].shape for row in rows)
            state[f"{ours}.{part}"] = torch.stack(rows) if same else torch.empty(0)  # misshapen; reported later
        return state

    def close(self, where: str, what: str) -> None:
        """Check that nothing was missing and nothing is left.

        Raises:
            WeightsError: something was, or is.
        """
        if self.missing or self.left:
            missing, unknown = some(sorted(self.missing)), some(sorted(self.left))
            msg = f"{where}: expected exactly {what}, got {missing} missing and {unknown} unknown"
            raise WeightsError(msg)


# --------------------------------------------------------------------------------------------------------------------
# Mix Transformers


def _convert_mit(account: Account, config: SegmenterConfig, root: str) -> dict[str, Tensor]:
    numbers = config.backbone_config
    modalities = len(config.modalities)
    fused = _fused_from(account, config)
    state: dict[str, Tensor] = {}
    block = 0
    for stage, depth in enumerate(numbers.depths):
        number, ours = stage + 1, f"backbone.stages.{stage}"
        state |= account.layer(account.shared(f"{root}patch_embed{number}.proj"), f"{ours}.embed.projection")
        state |= account.norm(f"{root}patch_embed{number}.norm", f"{ours}.embed.norm", modalities)
        if account.released and modalities > 2:  # noqa: PLR2004 - two modalities need no scores
            state |= _convert_scores(account, f"{root}extra_score_predictor.{stage}.score_nets", ours, modalities)
        reduced = isinstance(numbers, MiTConfig) and numbers.sr_ratios[stage] > 1
        for index in range(depth):
            theirs, own = f"{root}block{number}.{index}", f"{ours}.blocks.{index}"
            state |= _convert_mit_block(account, theirs, own, min(modalities, 2), reduced=reduced)
            if block >= fused:
                state |= convert_fusion(account, f"{theirs}.attn", f"{own}.attention.fusion")
            block += 1
        state |= account.norm(f"{root}norm{number}", f"{ours}.norm", min(modalities, 2))
    return state


def _fused_from(account: Account, config: SegmenterConfig) -> int:
    """Count the blocks before the first one for which there are weights of a fusion."""
    blocks = sum(config.backbone_config.depths)
    if not account.released:
        return blocks
    return 0 if config.fused_blocks is None else blocks - config.fused_blocks


def _convert_scores(account: Account, theirs: str, ours: str, modalities: int) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for index in range(modalities - 1):
        state |= account.layer(f"{theirs}.{index}.0", f"{ours}.scores.{index}.depthwise")
        state |= account.layer(f"{theirs}.{index}.1", f"{ours}.scores.{index}.pointwise")
    for layer in (0, 1):
        for part in ("weight", "bias"):
            # made for a modality that RGB's place in the list leaves without one
            account.drop(f"{theirs}.{modalities - 1}.{layer}.{part}")
    return state


def _convert_mit_block(account: Account, theirs: str, ours: str, streams: int, *, reduced: bool) -> dict[str, Tensor]:
    return {
        **account.norm(f"{theirs}.norm1", f"{ours}.attention_norm", streams),
        **_convert_attention(account, f"{theirs}.attn", f"{ours}.attention", streams, reduced=reduced),
        **account.norm(f"{theirs}.norm2", f"{ours}.mlp_norm", streams),
        **account.layer(account.shared(f"{theirs}.mlp.fc1"), f"{ours}.mlp.expand"),
        **account.layer(f"{theirs}.mlp.dwconv.dwconv", f"{ours}.mlp.depthwise"),
        **account.layer(account.shared(f"{theirs}.mlp.fc2"), f"{ours}.mlp.contract"),
    }


def _convert_attention(account: Account, theirs: str, ours: str, streams: int, *, reduced: bool) -> dict[str, Tensor]:
    state = {
        **account.layer(account.shared(f"{theirs}.q"), f"{ours}.query"),
        **account.layer(account.shared(f"{theirs}.kv"), f"{ours}.key_value"),
        **account.layer(account.shared(f"{theirs}.proj"), f"{ours}.output"),
    }
    if reduced:
        state |= account.layer(account.shared(f"{theirs}.sr"), f"{ours}.reduction")
        state |= account.norm(f"{theirs}.norm", f"{ours}.reduction_norm", streams)
    return state


# --------------------------------------------------------------------------------------------------------------------
# Swin Transformers


def _convert_swin(account: Account, config: SegmenterConfig, root: str) -> dict[str, Tensor]:
    numbers = config.backbone_config
    streams = min(len(config.modalities), 2)
    fused = _fused_from(account, config)
    window = numbers.window if not isinstance(numbers, MiTConfig) else 0
    state = {
        **account.layer(account.shared(f"{root}patch_embed.proj"), "backbone.stages.0.embed.projection"),
        **account.norm(f"{root}patch_embed.norm", "backbone.stages.0.embed.norm", len(config.modalities)),
    }
    block = 0
    for stage, depth in enumerate(numbers.depths):
        ours = f"backbone.stages.{stage}"
        if stage > 0:
            merging = account.shared(f"{root}layers.{stage - 1}.downsample")
            state[f"{ours}.embed.reduction.weight"] = account.take(f"{merging}.reduction.weight")
            state |= account.layer(f"{merging}.norm", f"{ours}.embed.norm")
        for index in range(depth):
            theirs, own = f"{root}layers.{stage}.blocks.{index}", f"{ours}.blocks.{index}"
            state |= _convert_swin_block(account, theirs, own, window)
            if block >= fused:
                state |= convert_fusion(account, theirs, f"{own}.fusion")
            block += 1
        if account.released or f"{root}norm{stage}.weight" in account.left:
            state |= account.norm(f"{root}norm{stage}", f"{ours}.norm", streams)
        elif stage == STAGES - 1:  # classification norms the last stage's output, as we do, and no other's
            state |= account.norm(f"{root}norm", f"{ours}.norm", streams)
    return state


def _convert_swin_block(account: Account, theirs: str, ours: str, window: int) -> dict[str, Tensor]:
    attention = account.shared(f"{theirs}.attn")
    table = account.take(f"{attention}.relative_position_bias_table")
    account.drop(f"{attention}.relative_position_index")  # follows from the window
    account.drop(f"{theirs}.attn_mask")  # follows from the size of the image
    return {
        **account.layer(account.shared(f"{theirs}.norm1"), f"{ours}.attention_norm"),
        **account.layer(f"{attention}.qkv", f"{ours}.attention.query_key_value"),
        **account.layer(f"{attention}.proj", f"{ours}.attention.output"),
        f"{ours}.attention.position_bias": table if account.released else _resize_table(table, window),
        **account.layer(account.shared(f"{theirs}.norm2"), f"{ours}.mlp_norm"),
        **account.layer(account.shared(f"{theirs}.mlp.fc1"), f"{ours}.mlp.expand"),
        **account.layer(account.shared(f"{theirs}.mlp.fc2"), f"{ours}.mlp.contract"),
    }


def _resize_table(table: Tensor, window: int) -> Tensor:
    """Bring a table of relative positions ((2v-1)², heads) to another window, ((2w-1)², heads), bicubically."""
    side, wanted = round(table.shape[0] ** 0.5), 2 * window - 1
    if table.ndim != 2 or side == wanted or side**2 != table.shape[0]:  # noqa: PLR2004 - a matrix
        return table
    image = table.float().T.reshape(1, -1, side, side)
    resized = F.interpolate(image, size=(wanted, wanted), mode="bicubic", align_corners=False)
    return resized.reshape(-1, wanted**2).T


# --------------------------------------------------------------------------------------------------------------------
# Fusion and head


def convert_fusion(account: Account, theirs: str, ours: str) -> dict[str, Tensor]:
    """Take one fusion layer; gives it by our names, under ``ours``."""
    state = {
        **account.layer(f"{theirs}.relation_judger.0.fc1", f"{ours}.relation.0"),
        **account.layer(f"{theirs}.relation_judger.0.fc2", f"{ours}.relation.2"),
        f"{ours}.key_noise": account.take(f"{theirs}.k_noise.weight"),
        f"{ours}.value_noise": account.take(f"{theirs}.v_noise.weight"),
    }
    for direction, name in enumerate(("cross_attn_0_to_1", "cross_attn_1_to_0")):
        query, key, value = account.split(f"{theirs}.{name}.in_proj_weight", 3)
        query_bias, _, value_bias = account.split(f"{theirs}.{name}.in_proj_bias", 3)
        attention = f"{ours}.attention.{direction}"
        state |= {
            f"{attention}.query.weight": query,
            f"{attention}.query.bias": query_bias,
            f"{attention}.key.weight": key,
            f"{attention}.value.weight": value,
            f"{attention}.value.bias": value_bias,
            **account.layer(f"{theirs}.{name}.out_proj", f"{attention}.output"),
        }
    return state


def _convert_head(account: Account, theirs: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for stage in range(STAGES):
        state |= account.layer(f"{theirs}.linear_c{stage + 1}.proj", f"head.mappings.{stage}.projection")
    joins = account.split(f"{theirs}.linear_fuse.conv.weight", STAGES, dim=1)  # coarsest stage first
    for stage, weight in enumerate(reversed(joins)):
        state[f"head.mappings.{stage}.join.weight"] = weight
    for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        state[f"head.norm.{part}"] = account.take(f"{theirs}.linear_fuse.bn.{part}")
    return state | account.layer(f"{theirs}.linear_pred", "head.classifier")


# --------------------------------------------------------------------------------------------------------------------
# The names of `transformers`

# Two generations: in files, and in memory since version 5. "#" is a number; "{s}" is the first, the stage, counted from 1 as
# SegFormer does, and "{b}" the second, the block.
_HUGGING_FACE_NAMES = {
    "encoder.patch_embeddings.#.proj": "patch_embed{s}.proj",
    "encoder.patch_embeddings.#.layer_norm": "patch_embed{s}.norm",
    "encoder.block.#.#.layer_norm_1": "block{s}.{b}.norm1",
    "encoder.block.#.#.attention.self.query": "block{s}.{b}.attn.q",
    "encoder.block.#.#.attention.self.key": "block{s}.{b}.attn.k",
    "encoder.block.#.#.attention.self.value": "block{s}.{b}.attn.v",
    "encoder.block.#.#.attention.self.sr": "block{s}.{b}.attn.sr",
    "encoder.block.#.#.attention.self.layer_norm": "block{s}.{b}.attn.norm",
    "encoder.block.#.#.attention.output.dense": "block{s}.{b}.attn.proj",
    "encoder.block.#.#.layer_norm_2": "block{s}.{b}.norm2",
    "encoder.block.#.#.mlp.dense1": "block{s}.{b}.mlp.fc1",
    "encoder.block.#.#.mlp.dwconv.dwconv": "block{s}.{b}.mlp.dwconv.dwconv",
    "encoder.block.#.#.mlp.dense2": "block{s}.{b}.mlp.fc2",
    "encoder.layer_norm.#": "norm{s}",
    "stages.#.patch_embeddings.proj": "patch_embed{s}.proj",
    "stages.#.patch_embeddings.layer_norm": "patch_embed{s}.norm",
    "stages.#.blocks.#.layernorm_before": "block{s}.{b}.norm1",
    "stages.#.blocks.#.attention.q_proj": "block{s}.{b}.attn.q",
    "stages.#.blocks.#.attention.k_proj": "block{s}.{b}.attn.k",
    "stages.#.blocks.#.attention.v_proj": "block{s}.{b}.attn.v",
    "stages.#.blocks.#.attention.sequence_reduction.sequence_reduction": "block{s}.{b}.attn.sr",
    "stages.#.blocks.#.attention.sequence_reduction.layer_norm": "block{s}.{b}.attn.norm",
    "stages.#.blocks.#.attention.o_proj": "block{s}.{b}.attn.proj",
    "stages.#.blocks.#.layernorm_after": "block{s}.{b}.norm2",
    "stages.#.blocks.#.mlp.fc1": "block{s}.{b}.mlp.fc1",
    "stages.#.blocks.#.mlp.dwconv.dwconv": "block{s}.{b}.mlp.dwconv.dwconv",
    "stages.#.blocks.#.mlp.fc2": "block{s}.{b}.mlp.fc2",
    "stages.#.layer_norm": "norm{s}",
    "decode_head.linear_c.#.proj": "decode_head.linear_c{s}.proj",
    "decode_head.linear_projections.#.proj": "decode_head.linear_c{s}.proj",
    "decode_head.linear_fuse": "decode_head.linear_fuse.conv",
    "decode_head.batch_norm": "decode_head.linear_fuse.bn",
    "decode_head.classifier": "decode_head.linear_pred",
}
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
_HUGGING_FACE = re.compile(r"(segformer\.)?(encoder\.patch_embeddings\.0|stages\.0\.patch_embeddings)\.proj\.weight")


def _from_hugging_face(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Give tensors SegFormer's own names; key and value become one. Names that are not known stay, and are reported later."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        _add(renamed, _own_name(name), tensor, where)
    for name in [name for name in renamed if ".attn.k." in name]:
        key, value = renamed.pop(name), renamed.pop(name.replace(".attn.k.", ".attn.v."), None)
        if value is None or value.shape != key.shape:
            got = "none" if value is None else "another shape"
            msg = f"{where}: expected a value beside the key {name} of SegFormer, got {got}"
            raise WeightsError(msg)
        _add(renamed, name.replace(".attn.k.", ".attn.kv."), torch.cat((key, value)), where)
    return renamed


def _add(tensors: dict[str, Tensor], name: str, tensor: Tensor, where: str) -> None:
    if name in tensors:
        msg = f"{where}: expected each weight once, got two for {name} of SegFormer"
        raise WeightsError(msg)
    tensors[name] = tensor


def _own_name(name: str) -> str:
    layer, _, part = name.removeprefix("segformer.").rpartition(".")
    own = _HUGGING_FACE_NAMES.get(_NUMBER.sub("#", layer))
    if own is None:
        return name
    stage, *block = _NUMBER.findall(layer) or ("0",)
    return f"{own.format(s=int(stage) + 1, b=''.join(block))}.{part}"

"""Weights in files: our own (safetensors with the configuration in the metadata) and the released GeminiFusion models'.

Everything here is strict: a tensor too many, too few or of another shape is a WeightsError. Pickles are read as tensors only;
one that would run code is refused.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gemini_core.errors import ConfigError, WeightsError
from gemini_core.model.mit import STAGES, MiTConfig
from gemini_core.model.segmentation import Segmenter, SegmenterConfig

FORMAT_VERSION = 1
_METADATA_KEY = "gemini_ros"
_NAMED = 3  # keys that an error names before it only counts


@dataclass(frozen=True, slots=True)
class Normalization:
    """What is subtracted from the three channels of a modality in [0, 1], and what they are then divided by."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""Of ImageNet's training images, as torchvision and the released backbones use it."""


def default_normalization(modalities: Iterable[str]) -> tuple[Normalization, ...]:
    """ImageNet's for rgb; the other modalities as they are."""
    return tuple(IMAGENET if modality == "rgb" else Normalization() for modality in modalities)


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """What a weights file says beside the weights.

    ``class_names[i]`` names mask value i; ``normalization`` has one entry per modality; ``trained`` is False for weights that
    never saw data; ``description`` says for people where they come from.
    """

    class_names: tuple[str, ...]
    normalization: tuple[Normalization, ...]
    trained: bool
    description: str = ""


# --------------------------------------------------------------------------------------------------------------------
# Our own files


def save(
    segmenter: Segmenter,
    path: str | Path,
    class_names: tuple[str, ...],
    *,
    trained: bool,
    normalization: tuple[Normalization, ...] | None = None,
    description: str = "",
) -> None:
    """Write a segmenter to ``path``, whole or not at all.

    ``normalization`` is by default what ``default_normalization`` says.

    Raises:
        WeightsError: class names or normalization do not fit the segmenter's configuration, or the file cannot be written.
    """
    path = Path(path)
    config = segmenter.config
    if normalization is None:
        normalization = default_normalization(config.modalities)
    info = CheckpointInfo(tuple(class_names), normalization, trained, description)
    _check_info(info, config, str(path))
    content = {"format_version": FORMAT_VERSION, "config": dataclasses.asdict(config), "info": dataclasses.asdict(info)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in segmenter.state_dict().items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, temporary, metadata={_METADATA_KEY: json.dumps(content)})
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        msg = f"{path}: expected a place to write weights to, got {' '.join(str(error).split())}"
        raise WeightsError(msg) from None
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | Path) -> tuple[Segmenter, CheckpointInfo]:
    """Read what ``save`` wrote; the segmenter comes on the CPU, in fp32 and evaluation mode.

    Raises:
        WeightsError: not a safetensors file, not one of ours or of another version, or weights that do not fit their own
            configuration.
    """
    tensors, metadata = _read_safetensors(Path(path))
    config, info = _parse_metadata(metadata, str(path))
    return _fill(config, tensors, str(path)), info


def _parse_metadata(metadata: Mapping[str, str], where: str) -> tuple[SegmenterConfig, CheckpointInfo]:
    if _METADATA_KEY not in metadata:
        msg = f"{where}: expected metadata {_METADATA_KEY!r} as gemini_ros writes it, got {sorted(metadata) or 'none'}"
        raise WeightsError(msg)
    try:
        content = json.loads(metadata[_METADATA_KEY])
        version = content["format_version"]
        if version != FORMAT_VERSION:
            msg = f"{where}: expected weights of format version {FORMAT_VERSION}, got {version}"
            raise WeightsError(msg)
        config = _config_from(content["config"])
        fields = content["info"]
        normalization = tuple(Normalization(_tuple(item["mean"]), _tuple(item["std"])) for item in fields["normalization"])
        info = CheckpointInfo(**{**fields, "class_names": tuple(fields["class_names"]), "normalization": normalization})
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        msg = f"{where}: expected metadata of a segmenter, got something that breaks at {type(error).__name__}: {error}"
        raise WeightsError(msg) from None
    _check_info(info, config, where)
    return config, info


def _config_from(fields: Mapping[str, Any]) -> SegmenterConfig:
    backbone = fields["backbone"]
    if isinstance(backbone, dict):
        numbers: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in backbone.items()}
        backbone = MiTConfig(**numbers)
    return SegmenterConfig(**{**fields, "backbone": backbone, "modalities": tuple(fields["modalities"])})


def _tuple(numbers: Iterable[float]) -> tuple[float, float, float]:
    first, second, third = numbers
    return first, second, third


def _check_info(info: CheckpointInfo, config: SegmenterConfig, where: str) -> None:
    if len(info.class_names) != config.num_classes:
        msg = f"{where}: expected {config.num_classes} class names, got {len(info.class_names)}"
        raise WeightsError(msg)
    if len(info.normalization) != len(config.modalities):
        msg = f"{where}: expected {len(config.modalities)} normalizations, one per modality, got {len(info.normalization)}"
        raise WeightsError(msg)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        msg = f"{path}: expected a readable safetensors file, got {' '.join(str(error).split())}"
        raise WeightsError(msg) from None


def _fill(config: SegmenterConfig, tensors: Mapping[str, Tensor], where: str) -> Segmenter:
    """Make a segmenter of tensors that must fit exactly; floating-point ones become fp32."""
    with torch.device("meta"):  # no time or random numbers spent on weights that are replaced at once
        segmenter = Segmenter(config)
    expected = segmenter.state_dict()
    _check_keys(expected, tensors, where)
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            msg = f"{where}: expected {name} of shape {tuple(expected[name].shape)}, got {tuple(tensor.shape)}"
            raise WeightsError(msg)
    # Cloned, since the tensors may be the caller's, or parts of one.
    state = {
        name: tensor.to(expected[name].dtype).clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    segmenter.load_state_dict(state, assign=True)
    return segmenter.requires_grad_(requires_grad=True).eval()


def _check_keys(expected: Iterable[str], got: Iterable[str], where: str) -> None:
    missing = sorted(set(expected) - set(got))
    unknown = sorted(set(got) - set(expected))
    if missing or unknown:
        msg = f"{where}: expected exactly the model's weights, got {_some(missing)} missing and {_some(unknown)} unknown"
        raise WeightsError(msg)


def _some(names: list[str]) -> str:
    if not names:
        return "none"
    shown = ", ".join(names[:_NAMED])
    return f"{len(names)} ({shown}{', ...' if len(names) > _NAMED else ''})"


# --------------------------------------------------------------------------------------------------------------------
# The released models' files


def load_official(source: str | Path | Mapping[str, Any], config: SegmenterConfig) -> Segmenter:
    """Make a segmenter of weights under the released GeminiFusion models' names (MiT; two modalities, or DeLiVER's form).

    Two things in them have no effect on any output and are left out: the key bias of the two-key attention, which shifts both
    scores alike, and the one score predictor per stage that the DeLiVER models hold beyond those they use.

    Args:
        source: a state dict, or a file of one (safetensors or a PyTorch pickle of tensors); the wrappers that the released
            training scripts put around it (``{"segmenter": ...}``, ``{"state_dict": ...}``, ``module.``) are taken off.
        config: what the weights are for.

    Returns:
        The segmenter, on the CPU, in fp32 and evaluation mode.

    Raises:
        WeightsError: the file cannot be read as tensors, or its keys or shapes are not exactly those of the configuration.
    """
    where = "state dict" if isinstance(source, Mapping) else str(source)
    if len(config.modalities) == 1:
        msg = f"{where}: expected 2 to 4 modalities, since every released model fuses, got {list(config.modalities)}"
        raise WeightsError(msg)
    content = source if isinstance(source, Mapping) else _read_official(Path(source))
    released = _Released(_unwrap(content, where))
    ours = _convert(released, config)
    if released.missing or released.left:
        missing, unknown = sorted(released.missing), sorted(released.left)
        msg = f"{where}: expected exactly the released model's keys, got {_some(missing)} missing and {_some(unknown)} unknown"
        raise WeightsError(msg)
    return _fill(config, ours, where)


def _read_official(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        msg = f"{path}: expected a readable weights file, got {error.strerror}"
        raise WeightsError(msg) from None
    if head[8:] == b"{":  # eight bytes of length, then JSON: safetensors
        return _without_recording(_read_safetensors(path)[0])
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - the reader fails with whatever error a broken stream happens to lead it to
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        msg = f"{path}: expected safetensors or a PyTorch file with nothing but tensors in it, got: {reason}"
        raise WeightsError(msg) from None
    if not isinstance(content, Mapping):
        msg = f"{path}: expected a state dict, got {type(content).__name__}"
        raise WeightsError(msg)
    return content


def _without_recording(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take the weights out of a file that records them as ``weights.*`` beside the ``input*`` and ``output*`` of one run."""
    weights = {name.removeprefix("weights."): tensor for name, tensor in tensors.items() if name.startswith("weights.")}
    recording = weights and all(name.startswith(("weights.", "input", "output")) for name in tensors)
    return weights if recording else tensors


def _unwrap(content: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    for wrapper in ("segmenter", "state_dict", "model_state_dict"):
        if isinstance(content.get(wrapper), Mapping):
            return _unwrap(content[wrapper], where)
    other = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if other:
        msg = f"{where}: expected nothing but tensors in the state dict, got {_some(sorted(map(str, other)))} of another kind"
        raise WeightsError(msg)
    if not content:
        msg = f"{where}: expected a state dict of tensors, got an empty one"
        raise WeightsError(msg)
    if all(name.startswith("module.") for name in content):
        return _unwrap({name.removeprefix("module."): tensor for name, tensor in content.items()}, where)
    return dict(content)


class _Released:
    """Tensors under released names, handed out once each; keeps account of what was not there and what nobody took."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.left = dict(tensors)
        self.missing: list[str] = []

    def take(self, name: str) -> Tensor:
        if name in self.left:
            return self.left.pop(name)
        self.missing.append(name)
        return torch.empty(0)  # conversion goes on, so that every missing name is known at its end

    def split(self, name: str, parts: int, dim: int = 0) -> tuple[Tensor, ...]:
        """Take a tensor that joins several of ours apart along one dimension."""
        tensor = self.take(name)
        if tensor.ndim <= dim:
            return (torch.empty(0),) * parts  # missing or misshapen; reported later
        return tensor.tensor_split(parts, dim)

    def layer(self, theirs: str, ours: str) -> dict[str, Tensor]:
        """Weight and bias of one layer."""
        return {f"{ours}.{part}": self.take(f"{theirs}.{part}") for part in ("weight", "bias")}

    def norm(self, theirs: str, ours: str, streams: int) -> dict[str, Tensor]:
        """One LayerNorm per stream, stacked."""
        return {
            f"{ours}.{part}": _stack([self.take(f"{theirs}.ln_{stream}.{part}") for stream in range(streams)])
            for part in ("weight", "bias")
        }


def _stack(tensors: list[Tensor]) -> Tensor:
    same = all(tensor.shape == tensors[0].shape for tensor in tensors)
    return torch.stack(tensors) if same else torch.empty(0)  # something is missing or misshapen; reported later


def _convert(released: _Released, config: SegmenterConfig) -> dict[str, Tensor]:
    nyu = any(name.startswith("encoder.") for name in released.left)  # else DeLiVER's names
    backbone, head = ("encoder", "decoder") if nyu else ("backbone", "decode_head")
    state = {"stream_weights": released.take("alpha")}
    modalities = len(config.modalities)
    for stage, depth in enumerate(config.mit.depths):
        number, ours = stage + 1, f"backbone.stages.{stage}"
        state |= released.layer(f"{backbone}.patch_embed{number}.proj.module", f"{ours}.embed.projection")
        state |= released.norm(f"{backbone}.patch_embed{number}.norm", f"{ours}.embed.norm", modalities)
        if modalities > 2:  # noqa: PLR2004 - two modalities need no scores
            state |= _convert_scores(released, f"{backbone}.extra_score_predictor.{stage}.score_nets", ours, modalities)
        for index in range(depth):
            reduced = config.mit.sr_ratios[stage] > 1
            state |= _convert_block(released, f"{backbone}.block{number}.{index}", f"{ours}.blocks.{index}", reduced=reduced)
        state |= released.norm(f"{backbone}.norm{number}", f"{ours}.norm", 2)
    return state | _convert_head(released, head)


def _convert_scores(released: _Released, theirs: str, ours: str, modalities: int) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for index in range(modalities - 1):
        state |= released.layer(f"{theirs}.{index}.0", f"{ours}.scores.{index}.depthwise")
        state |= released.layer(f"{theirs}.{index}.1", f"{ours}.scores.{index}.pointwise")
    for name in [f"{theirs}.{modalities - 1}.{layer}.{part}" for layer in (0, 1) for part in ("weight", "bias")]:
        released.left.pop(name, None)  # made for a modality that RGB's place in the list leaves without one
    return state


def _convert_block(released: _Released, theirs: str, ours: str, *, reduced: bool) -> dict[str, Tensor]:
    return {
        **released.norm(f"{theirs}.norm1", f"{ours}.attention_norm", 2),
        **_convert_attention(released, f"{theirs}.attn", f"{ours}.attention", reduced=reduced),
        **released.norm(f"{theirs}.norm2", f"{ours}.mlp_norm", 2),
        **released.layer(f"{theirs}.mlp.fc1.module", f"{ours}.mlp.expand"),
        **released.layer(f"{theirs}.mlp.dwconv.dwconv", f"{ours}.mlp.depthwise"),
        **released.layer(f"{theirs}.mlp.fc2.module", f"{ours}.mlp.contract"),
    }


def _convert_attention(released: _Released, theirs: str, ours: str, *, reduced: bool) -> dict[str, Tensor]:
    state = {
        **released.layer(f"{theirs}.q.module", f"{ours}.query"),
        **released.layer(f"{theirs}.kv.module", f"{ours}.key_value"),
        **released.layer(f"{theirs}.proj.module", f"{ours}.output"),
        **_convert_fusion(released, theirs, f"{ours}.fusion"),
    }
    if reduced:
        state |= released.layer(f"{theirs}.sr.module", f"{ours}.reduction")
        state |= released.norm(f"{theirs}.norm", f"{ours}.reduction_norm", 2)
    return state


def _convert_fusion(released: _Released, theirs: str, ours: str) -> dict[str, Tensor]:
    state = {
        **released.layer(f"{theirs}.relation_judger.0.fc1", f"{ours}.relation.0"),
        **released.layer(f"{theirs}.relation_judger.0.fc2", f"{ours}.relation.2"),
        f"{ours}.key_noise": released.take(f"{theirs}.k_noise.weight"),
        f"{ours}.value_noise": released.take(f"{theirs}.v_noise.weight"),
    }
    for direction, name in enumerate(("cross_attn_0_to_1", "cross_attn_1_to_0")):
        query, key, value = released.split(f"{theirs}.{name}.in_proj_weight", 3)
        query_bias, _, value_bias = released.split(f"{theirs}.{name}.in_proj_bias", 3)
        attention = f"{ours}.attention.{direction}"
        state |= {
            f"{attention}.query.weight": query,
            f"{attention}.query.bias": query_bias,
            f"{attention}.key.weight": key,
            f"{attention}.value.weight": value,
            f"{attention}.value.bias": value_bias,
            **released.layer(f"{theirs}.{name}.out_proj", f"{attention}.output"),
        }
    return state


def _convert_head(released: _Released, theirs: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for stage in range(STAGES):
        state |= released.layer(f"{theirs}.linear_c{stage + 1}.proj", f"head.mappings.{stage}.projection")
    joins = released.split(f"{theirs}.linear_fuse.conv.weight", STAGES, dim=1)  # coarsest stage first
    for stage, weight in enumerate(reversed(joins)):
        state[f"head.mappings.{stage}.join.weight"] = weight
    for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        state[f"head.norm.{part}"] = released.take(f"{theirs}.linear_fuse.bn.{part}")
    return state | released.layer(f"{theirs}.linear_pred", "head.classifier")

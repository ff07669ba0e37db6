"""Checkpoints: our own weights files, safetensors with the configuration in the metadata.

Everything here is strict: a tensor too many, too few or of another shape is a WeightsError. ``importing.py`` reads other
people's files; its two functions are offered here as well. Files of MVX-Net, which has no masks, have the same form, and their
own two functions in ``detection/mvxnet/checkpoint.py``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from gemini_core.documents import parse_json
from gemini_core.errors import ConfigError, WeightsError, shown
from gemini_core.files import write_whole
from gemini_core.model.detection.pillars.detector import DetectorConfig
from gemini_core.model.importing import load_official, load_pretrained
from gemini_core.model.mit import MiTConfig
from gemini_core.model.segmentation import Segmenter, SegmenterConfig
from gemini_core.model.strict import fill, read_metadata, read_safetensors
from gemini_core.model.swin import SwinConfig

FORMAT_VERSION = 1
SHIPPED = "shipped:"
"""What paths of weights begin with that come with the project."""

SEGMENTER, MVXNET = "a segmenter", "MVX-Net"
"""Networks that have weights files."""

_METADATA_KEY = "gemini_ros"
_SHIPPED_FOLDER = Path(__file__).parents[1] / "weights"

__all__ = [
    "IMAGENET",
    "CheckpointInfo",
    "Normalization",
    "default_normalization",
    "describe",
    "load",
    "load_official",
    "load_pretrained",
    "parse_description",
    "save",
]


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
    never saw data; ``description`` says for people where they come from. ``encodings`` are the options of the node's
    configuration that say what the numbers at the input mean, by dotted key; empty where that is not known.
    """

    class_names: tuple[str, ...]
    normalization: tuple[Normalization, ...]
    trained: bool
    description: str = ""
    encodings: Mapping[str, Any] = field(default_factory=dict)


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
    encodings: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Write a segmenter to ``path``, whole or not at all.

    ``normalization`` is by default what ``default_normalization`` says; ``encodings`` are ``FusionConfig.encodings``. With
    ``half`` the numbers are kept as fp16, in half the space; they are read back as fp32.

    Raises:
        WeightsError: class names or normalization do not fit the segmenter's configuration, or the file cannot be written.
    """
    path = Path(path)
    config = segmenter.config
    if normalization is None:
        normalization = default_normalization(config.modalities)
    info = CheckpointInfo(tuple(class_names), normalization, trained, description, dict(encodings or {}))
    _check_info(info, config, str(path))
    write(segmenter, path, describe(config, info), half=half)


def write(network: nn.Module, path: Path, content: Mapping[str, Any], *, half: bool) -> None:
    """Write a network with what is to be known of it, in plain values; ``half`` as for ``save``.

    Raises:
        WeightsError: the file cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    if half:
        tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}

    def write_tensors(temporary: Path) -> None:
        try:
            save_file(tensors, temporary, metadata={_METADATA_KEY: json.dumps(content)})
        except SafetensorError as error:  # of its own kind, whatever the disk says
            raise OSError(str(error)) from None

    write_whole(path, write_tensors, WeightsError)


def find(path: str | Path) -> Path:
    """Where weights are: ``shipped:NAME`` are those that come with the project, anything else is a path.

    Raises:
        WeightsError: no weights of that name come with it.
    """
    kind, colon, name = str(path).partition(":")
    if kind + colon != SHIPPED:
        return Path(path)
    known = {file.stem: file for file in _SHIPPED_FOLDER.glob("*.safetensors")}
    if name not in known:
        msg = f"{path}: expected weights that come with gemini_ros ({', '.join(sorted(known)) or 'none'}), got {name!r}"
        raise WeightsError(msg)
    return known[name]


def load(path: str | Path) -> tuple[Segmenter, CheckpointInfo]:
    """Read what ``save`` wrote, by ``find``; the segmenter comes on the CPU, in fp32 and evaluation mode.

    Raises:
        WeightsError: not a safetensors file, not one of ours or of another version, or weights that do not fit their own
            configuration.
    """
    tensors, content = read(path, SEGMENTER)
    config, info = parse_description(content, str(path))
    blocks = sum(config.backbone_config.depths)
    if blocks > len(tensors):  # each has some; what is planned for each block would take the memory before the first is made
        msg = f"{path}: expected no more blocks than the file's {len(tensors)} tensors, got metadata that asks for {blocks}"
        raise WeightsError(msg)
    return fill(lambda: Segmenter(config), tensors, str(path)), info


def read(path: str | Path, network: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and what ``write`` put beside them; ``network`` is the one that the file is to be of.

    Raises:
        WeightsError: not a safetensors file, not one of ours, of another version or of another network.
    """
    tensors, metadata = read_safetensors(find(path))
    content = _content(metadata, str(path), network)
    with told(str(path), network):
        _check_kind(content, str(path), network)
    return tensors, content


def network_of(path: str | Path) -> str:
    """Say what a file is of, ``SEGMENTER`` or ``MVXNET``.

    Raises:
        WeightsError: not a safetensors file, or not one of ours.
    """
    content = _content(read_metadata(find(path)), str(path), "a network")
    return MVXNET if content.get("network") == MVXNET else SEGMENTER


def _content(metadata: Mapping[str, str], where: str, network: str) -> dict[str, Any]:
    """Read what ``write`` put into the metadata."""
    if _METADATA_KEY not in metadata:
        msg = f"{where}: expected metadata {_METADATA_KEY!r} as gemini_ros writes it, got {sorted(metadata) or 'none'}"
        raise WeightsError(msg)

    def broken(reason: str) -> WeightsError:
        return WeightsError(f"{where}: expected metadata of {network}, got others ({reason})")

    with told(where, network):
        return dict(parse_json(metadata[_METADATA_KEY], _METADATA_KEY, broken))


@contextmanager
def told(where: str, network: str) -> Iterator[None]:
    """Read what a file says of its network: whatever breaks there is a WeightsError that names the file."""
    try:
        yield
    except ConfigError as error:
        msg = f"{where}: expected metadata of {network}, got something that breaks at ConfigError: {error}"
        raise WeightsError(msg) from None
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        broken = f"{type(error).__name__}: {shown(str(error))}"
        msg = f"{where}: expected metadata of {network}, got something that breaks at {broken}"
        raise WeightsError(msg) from None


def _check_kind(content: Mapping[str, Any], where: str, network: str) -> None:
    version, got = content["format_version"], content.get("network", SEGMENTER)
    if version != FORMAT_VERSION:
        msg = f"{where}: expected weights of format version {FORMAT_VERSION}, got {version}"
        raise WeightsError(msg)
    if got != network:
        hint = "; detections.weights takes those" if got == MVXNET else ""
        msg = f"{where}: expected weights of {network}, got those of {got}{hint}"
        raise WeightsError(msg)


def describe(config: SegmenterConfig, info: CheckpointInfo) -> dict[str, Any]:
    """Put what is known of a segmenter beside its weights into plain values, for JSON."""
    return {"format_version": FORMAT_VERSION, "config": dataclasses.asdict(config), "info": dataclasses.asdict(info)}


def parse_description(content: Mapping[str, Any], where: str) -> tuple[SegmenterConfig, CheckpointInfo]:
    """Read what ``describe`` made; ``where`` is the file, for errors.

    Raises:
        WeightsError: something is missing, wrong, or of another format version.
    """
    with told(where, SEGMENTER):
        _check_kind(content, where, SEGMENTER)
        config, info = _config_from(content["config"]), info_from(content["info"])
    _check_info(info, config, where)
    return config, info


def info_from(fields: Mapping[str, Any]) -> CheckpointInfo:
    """Read what ``dataclasses.asdict`` made of one, and JSON of that."""
    normalization = tuple(Normalization(_tuple(item["mean"]), _tuple(item["std"])) for item in fields["normalization"])
    return CheckpointInfo(**{**fields, "class_names": tuple(fields["class_names"]), "normalization": normalization})


def _config_from(fields: Mapping[str, Any]) -> SegmenterConfig:
    backbone = fields["backbone"]
    if isinstance(backbone, dict):
        numbers: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in backbone.items()}
        backbone = SwinConfig(**numbers) if "window" in numbers else MiTConfig(**numbers)
    detector = fields.get("detector")
    if detector is not None:
        plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in detector.items()}
        detector = DetectorConfig(**plain)
    return SegmenterConfig(**{**fields, "backbone": backbone, "modalities": tuple(fields["modalities"]), "detector": detector})


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

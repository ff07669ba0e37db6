"""Checkpoints of MVX-Net, in the form of ``checkpoints.py``: safetensors with the configuration in the metadata."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemini_core.model.checkpoints import FORMAT_VERSION, MVXNET, CheckpointInfo, Normalization, info_from, read, told, write
from gemini_core.model.detection.mvxnet.config import MvxNetConfig
from gemini_core.model.detection.mvxnet.network import MvxNet
from gemini_core.model.detection.mvxnet.sparse import Runtime
from gemini_core.model.strict import fill


def save_mvxnet(
    network: MvxNet,
    path: str | Path,
    *,
    trained: bool,
    description: str = "",
    encodings: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Write an MVX-Net to ``path``, whole or not at all; arguments as of ``checkpoints.save``.

    Its images are the grids as they are, and it has no masks to name.

    Raises:
        WeightsError: the file cannot be written.
    """
    info = CheckpointInfo((), (Normalization(),), trained, description, dict(encodings or {}))
    told_of = {"format_version": FORMAT_VERSION, "network": MVXNET}
    content = told_of | {"config": dataclasses.asdict(network.config), "info": dataclasses.asdict(info)}
    write(network, Path(path), content, half=half)


def load_mvxnet(path: str | Path, *, runtime: Runtime = "spconv") -> tuple[MvxNet, CheckpointInfo]:
    """Read what ``save_mvxnet`` wrote, by ``checkpoints.find``; the network comes on the CPU, in fp32 and evaluation mode.

    Args:
        path: the file.
        runtime: see ``MvxNet``.

    Raises:
        WeightsError: not a safetensors file, not one of ours, of another version or network, or weights that do not fit their
            own configuration.
        ConfigError: the runtime is spconv and cannot be imported.
    """
    tensors, content = read(path, MVXNET)
    with told(str(path), MVXNET):
        config = MvxNetConfig(**{name: _tuples(value) for name, value in content["config"].items()})
        info = info_from(content["info"])
    return fill(lambda: MvxNet(config, runtime=runtime), tensors, str(path)), info


def _tuples(value: object) -> Any:  # noqa: ANN401 - what JSON made of a field
    """Undo what JSON does to tuples, at every depth."""
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value

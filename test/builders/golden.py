"""Numbers that the released code gave, kept beside the tests (golden/README.md)."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from source_imports import REPOSITORY

GOLDEN = REPOSITORY / "test" / "golden"


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor of a safetensors file by its name, and the file's metadata."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118 - not a dict


def of_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, by what follows it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

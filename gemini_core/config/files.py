"""Configuration files: YAML of options, nested or dotted, with or without the wrapper of a ROS 2 parameter file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from gemini_core.config.engine import build
from gemini_core.documents import read_yaml
from gemini_core.errors import ConfigError, shown

_Section = TypeVar("_Section")


def load(kind: type[_Section], path: str | Path, overrides: Mapping[str, object] | None = None) -> _Section:
    """Read a configuration of ``kind`` from a file; ``overrides`` (dotted keys) win over the file.

    Raises:
        ConfigError: the file is missing, is not YAML of the expected shape, or breaks an option's rules.
    """
    return build(kind, {**read_flat(path), **(overrides or {})}, where=str(path))


def read_flat(path: str | Path) -> dict[str, object]:
    """Read a YAML file of options as dotted keys, unchecked; the wrapper of a ROS 2 parameter file is taken off.

    Raises:
        ConfigError: the file is missing, is not YAML of the expected shape, or has an option twice, nested and dotted.
    """
    path = Path(path)
    content = read_yaml(path, ConfigError)
    flat: dict[str, object] = {}
    for key, value in _flatten(_unwrap({} if content is None else content, path), path, ""):
        if key in flat:
            msg = f"{path}: expected each option once, got {shown(key)} twice"
            raise ConfigError(msg)
        flat[key] = value
    return flat


def _unwrap(content: object, path: Path) -> object:
    """Take the parameters out of a ROS 2 parameter file; a file without the wrapper is given back as it is."""
    if not isinstance(content, dict):
        msg = f"{path}: expected a mapping of options, got {type(content).__name__}"
        raise ConfigError(msg)
    nodes = [name for name, body in content.items() if isinstance(body, dict) and "ros__parameters" in body]
    if not nodes:
        return content
    if len(nodes) > 1 or len(content) > 1:
        msg = f"{path}: expected the parameters of one node, got {shown(list(content))}"
        raise ConfigError(msg)
    return content[nodes[0]]["ros__parameters"]


def _flatten(content: object, path: Path, prefix: str) -> Iterator[tuple[str, object]]:
    if not isinstance(content, dict):
        at = shown(prefix.rstrip(".")) if prefix else "the top"
        msg = f"{path}: expected a mapping of options at {at}, got {shown(content)}"
        raise ConfigError(msg)
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flatten(value, path, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

"""YAML and JSON, read with bounds: whatever a file or a value on the command line holds becomes plain values or one sentence.

Plain values are None, bool, int (of 64 bits), float, str, list and dict. Refused are documents that are too large, too deep, or
too large once their aliases are followed, keys that come twice, and tags that ask for more than plain values. YAML is of
version 1.1, as ROS parameter files are, with two differences, both of YAML 1.2: `1e-4` is a number, `2001-01-01` a string.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias, cast

import yaml

from gemini_core.errors import GeminiError, shown, shown_path
from gemini_core.files import read_text

MOST_DEPTH = 50
"""Lists and mappings in one another; the deepest of ours has 6 (polygons of COCO)."""

MOST_YAML_BYTES = 1 << 20
"""Of one YAML document; the largest of ours has 20 kB."""

MOST_JSON_BYTES = 1 << 30
"""Of one JSON document; the labels of many images are some 100 MB."""

MOST_NODES = 100_000
"""Values in a YAML document once its aliases are followed."""

_INTEGERS = range(-(2**63), 2**64)  # what ROS parameters, YAML's own users and numpy can hold
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"
)
_NOT_PLAIN = ("timestamp", "binary", "set", "omap", "pairs")
_BROKEN = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError, RecursionError)
"""What PyYAML and json raise at broken documents; a tag on a value that does not fit (``!!bool x``) is a KeyError of PyYAML."""

Error: TypeAlias = "type[GeminiError] | Callable[[str], GeminiError]"


def read_yaml(path: str | Path, error: Error) -> Any:  # noqa: ANN401 - whatever stands in the file
    """Read a YAML file as plain values; None for an empty one.

    Raises:
        GeminiError: ``error``; it is no regular file that can be read, or not such a document.
    """
    return parse_yaml(read_text(path, error, MOST_YAML_BYTES, "configuration file"), shown_path(path), error)


def read_json(path: str | Path, error: Error) -> Any:  # noqa: ANN401 - whatever stands in the file
    """Read a JSON file as plain values.

    Raises:
        GeminiError: as of ``read_yaml``.
    """
    return parse_json(read_text(path, error, MOST_JSON_BYTES), shown_path(path), error)


def parse_yaml(text: str, where: str, error: Error) -> Any:  # noqa: ANN401 - whatever stands in the text
    """Read YAML as plain values; ``where`` is the file or the option that it is of.

    Raises:
        GeminiError: ``error``; it is not YAML, or not within the bounds of this module.
    """
    if len(text) > MOST_YAML_BYTES:
        msg = f"{where}: expected YAML of at most {MOST_YAML_BYTES} characters, got {len(text)}"
        raise error(msg)
    try:
        loader = _Loader(text)
        try:
            content = loader.get_single_data()
        finally:
            loader.dispose()
        _check_bounds(content)
    except _BROKEN as broken:
        mark = getattr(broken, "problem_mark", None)
        line = "" if mark is None or mark.line == 0 else f", line {mark.line + 1}"
        msg = f"{where}{line}: expected YAML, got {_reason(broken, text)}"
        raise error(msg) from None
    return content


def parse_json(text: str, where: str, error: Error) -> Any:  # noqa: ANN401 - whatever stands in the text
    """Read JSON as plain values; ``where`` is the file that it is of, or where in a file it stands.

    Raises:
        GeminiError: as of ``parse_yaml``.
    """
    try:
        content = json.loads(text, object_pairs_hook=_once_each)
        _check_bounds(content)
    except _BROKEN as broken:
        line = f", line {broken.lineno}" if isinstance(broken, json.JSONDecodeError) else ""
        msg = f"{where}{line}: expected JSON, got {_reason(broken, text)}"
        raise error(msg) from None
    return content


def _reason(broken: Exception, text: str) -> str:
    if isinstance(broken, RecursionError):
        return f"lists or mappings more than {MOST_DEPTH} deep"
    if isinstance(broken, json.JSONDecodeError):
        return (
            f"{shown(text[broken.pos : broken.pos + 200])} ({broken.msg})" if text[broken.pos :] else "a file that breaks off"
        )
    if isinstance(broken, yaml.MarkedYAMLError):
        found = text.splitlines()
        at = broken.problem_mark
        there = found[at.line] if at is not None and at.line < len(found) else ""
        problem = " ".join(str(broken.problem or broken.context).split())[:200]
        return f"{shown(there.strip())} ({problem})" if there.strip() else problem
    if isinstance(broken, yaml.reader.ReaderError):
        return f"the character {shown(broken.character)} ({broken.reason})"
    return f"{shown(text)} ({' '.join(str(broken).split())[:200] or type(broken).__name__})"


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        msg = f"the key {shown(next(name for name in content if names.count(name) > 1))} comes twice"
        raise ValueError(msg)
    return content


def _check_bounds(content: object) -> None:
    """Check the depth of plain values, and that whole numbers have 64 bits."""
    level: list[Any] = [content]
    for depth in range(MOST_DEPTH + 1):
        following: list[Any] = []
        for value in level:
            if isinstance(value, dict | list) and depth == MOST_DEPTH:
                raise RecursionError
            if isinstance(value, dict):
                following += value.values()
            elif isinstance(value, list):
                following += value
            elif type(value) is int and value not in _INTEGERS:
                msg = "a whole number of more than 64 bits"
                raise ValueError(msg)
        level = following


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, held to this module's bounds while it composes, before anything is built."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._count = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401 - PyYAML's own
        event: Any = self.peek_event()  # type: ignore[no-untyped-call] # PyYAML's stubs leave it out
        before = self._count
        self._depth += 1
        if self._depth > MOST_DEPTH + 1:
            raise RecursionError
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._sizes:
                problem, mark = "an alias of what it stands in itself", cast("yaml.error.Mark", event.start_mark)
                raise yaml.composer.ComposerError(None, None, problem, mark)
            self._count += self._sizes[id(node)]
        else:
            self._count += 1
            self._sizes[id(node)] = self._count - before
        if self._count > MOST_NODES:
            problem = f"more than {MOST_NODES} values, aliases followed"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401 - PyYAML's own
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    problem = f"the key {shown(key.value)} comes twice"
                    raise yaml.composer.ComposerError(None, None, problem, cast("yaml.error.Mark", key.start_mark))
                seen.add((key.tag, key.value))
        return node


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """YAML 1.1's implicit types by first character, but for floats as YAML 1.2 writes them and no timestamps."""

    def kept() -> Iterator[tuple[str, list[tuple[str, re.Pattern[str]]]]]:
        replaced = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float")
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items():
            yield first, [(tag, pattern) for tag, pattern in known if tag not in replaced]

    return dict(kept())


_Loader.yaml_implicit_resolvers = _resolvers()
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
for _tag in _NOT_PLAIN:
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", cast("Any", yaml.SafeLoader.construct_undefined))

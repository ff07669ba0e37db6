"""The engine of configurations: declare options, list them, validate values, and turn dotted keys into dataclasses and back.

A configuration is a frozen dataclass of ``option`` fields and of such dataclasses, its sections. Every option carries its
description and range; the node's parameter descriptors, the comments of the shipped config/ file and the table in docs/node.md
are made from them, so they cannot drift apart.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast, get_type_hints

from gemini_core.errors import ConfigError, nearest_names, shown

OptionValue = bool | int | float | str | tuple[str, ...]

_Section = TypeVar("_Section")


@dataclass(frozen=True, slots=True)
class Option:
    """What is known of one option: its dotted key, type, default, and the rules for its value.

    ``live`` options may change while the node runs; the others only before it is configured.
    """

    key: str
    type: type
    default: OptionValue
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False


def option(
    default: OptionValue,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
) -> Any:  # noqa: ANN401 - a dataclass field stands in for the value's own type, as dataclasses.field does
    """Declare one option of a configuration section."""
    rules = {"description": description, "minimum": minimum, "maximum": maximum, "choices": choices, "live": live}
    return field(default=default, metadata=rules)


def options(section: type, prefix: str = "") -> Iterator[Option]:
    """List every option with its dotted key, in the order of the file."""
    hints = get_type_hints(section)
    for item in dataclasses.fields(section):
        if dataclasses.is_dataclass(hints[item.name]):
            yield from options(hints[item.name], f"{prefix}{item.name}.")
            continue
        default = cast("OptionValue", item.default)
        rules = {name: value for name, value in item.metadata.items() if name != "description"}
        yield Option(
            key=prefix + item.name,
            type=tuple if isinstance(default, tuple) else type(default),
            default=default,
            description=item.metadata["description"],
            **rules,
        )


def check_value(known: Option, value: object) -> OptionValue:
    """Check one value against its option and give it back in the option's own type.

    Raises:
        ConfigError: wrong type, out of range, or not among the choices; says the key, what was expected and what came.
    """
    if known.type is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            msg = f"{known.key}: expected a list of strings, got {shown(value)}"
            raise ConfigError(msg)
        return tuple(value)
    if known.type is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            value = math.copysign(math.inf, value)
    if type(value) is not known.type:
        names = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
        msg = f"{known.key}: expected {names[known.type]}, got {shown(value)}"
        raise ConfigError(msg)
    if isinstance(value, int | float) and not isinstance(value, bool):
        low = -math.inf if known.minimum is None else known.minimum
        high = math.inf if known.maximum is None else known.maximum
        if not low <= value <= high:
            wanted = f"{low:g}" if low == high else f"a value from {low:g} to {high:g}"
            msg = f"{known.key}: expected {wanted}, got {shown(value)}"
            raise ConfigError(msg)
    if known.choices and value not in known.choices:
        msg = f"{known.key}: expected one of {', '.join(known.choices)}, got {shown(value)}"
        raise ConfigError(msg)
    return cast("OptionValue", value)


def build(kind: type[_Section], values: Mapping[str, object], where: str) -> _Section:
    """Build a dataclass made of ``option`` fields and such sections from dotted keys.

    Raises:
        ConfigError: an unknown key (the nearest known one is named) or a value that breaks its option's rules.
    """
    known = {item.key: item for item in options(kind)}
    for key in values:
        if key not in known:
            msg = f"{where}: unknown key {shown(key)} ({nearest_names(key, known)})"
            raise ConfigError(msg)
    try:
        checked = {key: check_value(known[key], value) for key, value in values.items()}
        return _build(kind, checked, "")
    except ConfigError as error:
        msg = f"{where}: {error}"
        raise ConfigError(msg) from None


def _build(section: type[_Section], checked: Mapping[str, OptionValue], prefix: str) -> _Section:
    hints = get_type_hints(section)
    arguments: dict[str, Any] = {}
    for item in dataclasses.fields(cast("Any", section)):
        key = prefix + item.name
        if dataclasses.is_dataclass(hints[item.name]):
            arguments[item.name] = _build(cast("type", hints[item.name]), checked, key + ".")
        elif key in checked:
            arguments[item.name] = checked[key]
    return section(**arguments)


def to_flat(config: object) -> dict[str, OptionValue]:
    """Every option's dotted key and value, of a configuration made of ``option`` fields."""
    flat: dict[str, OptionValue] = {}
    for item in options(type(config)):
        value: Any = config
        for name in item.key.split("."):
            value = getattr(value, name)
        flat[item.key] = value
    return flat


def named_numbers(
    text: str, key: str, named: tuple[str, str, tuple[str, ...]], numbered: tuple[str, float]
) -> dict[str, float]:
    """Read 'name:number, name:number'; names may have colons themselves.

    Args:
        text: the value of an option.
        key: that option's name.
        named: what a name is of, the option that lists the names, and these.
        numbered: what a number is, and the largest; the least is 0.

    Raises:
        ConfigError: a part has another form, a name is unknown or there twice, or a number is outside of its range.
    """
    (kind, source, names), (quantity, largest) = named, numbered
    numbers: dict[str, float] = {}
    for entry in (part.strip() for part in text.split(",") if part.strip()):
        name, colon, number = (part.strip() for part in entry.rpartition(":"))
        if not colon:
            msg = f"{key}: expected '{kind}:{quantity}', got {entry!r}"
            raise ConfigError(msg)
        if name not in names:
            msg = f"{key}: expected a {kind} of {source} ({nearest_names(name, names)}), got {entry!r}"
            raise ConfigError(msg)
        if name in numbers:
            msg = f"{key}: expected each {kind} once, got {name!r} again in {entry!r}"
            raise ConfigError(msg)
        try:
            numbers[name] = float(number)
        except ValueError:
            numbers[name] = math.nan
        if not 0.0 <= numbers[name] <= largest:
            msg = f"{key}: expected a {quantity} from 0 to {largest:g} after the {kind}, got {entry!r}"
            raise ConfigError(msg)
    return numbers

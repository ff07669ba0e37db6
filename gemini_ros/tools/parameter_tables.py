"""Keep config/fusion.yaml's comments and docs/node.md's parameter table equal to the options' own descriptions.

``python -m gemini_ros.tools.parameter_tables`` rewrites both; a test holds them equal.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path

import yaml

from gemini_core.config.engine import Option, OptionValue, options, to_flat
from gemini_core.config.fusion import FusionConfig, load_config
from gemini_core.files import write_whole

_ROOT = Path(__file__).resolve().parents[2]
CONFIG = _ROOT / "config" / "fusion.yaml"
DOCUMENT = _ROOT / "docs" / "node.md"
_BEGIN, _END = "<!-- parameters: begin, made by gemini_ros.tools.parameter_tables -->", "<!-- parameters: end -->"
_WIDTH = 120
_HEADER = """\
# The shipped configuration, with values for the simulated rig of `gemini-fusion simulate`. One file for the node, for replay
# and for training. A rig file of your own needs only the keys that differ. Values are kept, comments are made from
# gemini_core/config/sections.py by `python -m gemini_ros.tools.parameter_tables`.
"""


def rules(option: Option) -> str:
    """The rule for an option's value in short: its choices or its range, "" where anything goes."""
    if option.choices:
        return " | ".join(option.choices)
    if option.minimum is not None and option.minimum == option.maximum:
        return f"only {_short(option.minimum)}"
    if option.minimum is not None and option.maximum is not None:
        return f"{_short(option.minimum)} to {_short(option.maximum)}"
    return ""


def _short(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else f"{number:g}"


def yaml_value(value: OptionValue) -> str:
    """One value as YAML that ROS reads with the right type."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(yaml_value(item) for item in value) + "]"
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z/][A-Za-z0-9_/]*", value) and yaml.safe_load(value) == value
        return value if plain else json.dumps(value)
    return repr(value)


def yaml_text(config: FusionConfig) -> str:
    """The whole configuration as a ROS 2 parameter file, each option under its description."""
    lines = ["/**:", "  ros__parameters:"]
    values = to_flat(config)
    open_sections: list[str] = []
    for option in options(FusionConfig):
        *sections, name = option.key.split(".")
        for depth, section in enumerate(sections):
            if sections[: depth + 1] != open_sections[: depth + 1]:
                lines.append("    " + "  " * depth + f"{section}:")
        open_sections = sections
        indent = "    " + "  " * len(sections)
        rule = rules(option)
        comment = option.description + (f" ({rule})" if rule else "")
        prefix = indent + "# "
        lines += textwrap.wrap(comment, _WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_on_hyphens=False)
        lines.append(f"{indent}{name}: {yaml_value(values[option.key])}")
    return _HEADER + "\n".join(lines) + "\n"


def markdown_table() -> str:
    """The parameters as a Markdown table."""
    rows = ["| parameter | default | rule | live | meaning |", "|---|---|---|---|---|"]
    for option in options(FusionConfig):
        rule = rules(option).replace("|", "\\|")
        live = "yes" if option.live else ""
        rows.append(f"| `{option.key}` | `{yaml_value(option.default)}` | {rule} | {live} | {option.description} |")
    return "\n".join(rows) + "\n"


def document_text(document: str) -> str:
    """A document with the table between its two markers made anew.

    Raises:
        ValueError: it has no such markers.
    """
    before, begin, rest = document.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        msg = f"{DOCUMENT.name}: expected the markers {_BEGIN!r} and {_END!r}"
        raise ValueError(msg)
    return f"{before}{begin}\n{markdown_table()}{end}{after}"


def main() -> int:
    """Rewrite both files."""
    config = load_config(CONFIG) if CONFIG.is_file() else FusionConfig()
    write_whole(CONFIG, yaml_text(config))
    write_whole(DOCUMENT, document_text(DOCUMENT.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())

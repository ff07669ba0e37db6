"""Evaluation reports: JSON, HTML page and the pictures beside it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jinja2

from gemini_core.files import write_png, write_whole
from gemini_core.tables import without_nan
from gemini_core.types import U8

ALL = "all"
"""The group of all frames, and the subset of all sensors."""


def write_panels(title: str, panels: dict[str, U8], out: Path) -> tuple[tuple[str, str], ...]:
    """Write pictures into ``out``: (caption, file) of each.

    Raises:
        DataError: they cannot be written.
    """
    files = tuple((caption, f"pictures/{title.replace(' ', '-')}-{caption}.png") for caption in panels)
    for caption, name in files:
        write_png(out / name, panels[caption])
    return files


def write_report(evaluation: Any, data: Path, template: str, **context: object) -> None:  # noqa: ANN401 - any dataclass
    """Write an evaluation, a dataclass, as JSON to ``data``, and as ``index.html`` beside it.

    Raises:
        DataError: they cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("training"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["percent"] = lambda share: "–" if math.isnan(share) else f"{100 * share:.1f}"
    page = environment.get_template(template).render(evaluation=evaluation, all=ALL, **context)
    plain = json.dumps(without_nan(dataclasses.asdict(evaluation)), indent=1)
    write_whole(data, plain)
    write_whole(data.with_name("index.html"), page)

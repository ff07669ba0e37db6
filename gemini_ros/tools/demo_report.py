"""The demo's page, its rendering: a folder with index.html and pictures, which needs nothing else to be looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np

from gemini_core.errors import DataError
from gemini_core.files import write_whole
from gemini_core.render import palette
from gemini_core.tables import Distribution, Finding
from gemini_core.types import Count


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a frame; ``path`` relative to the page's folder, "" where there is none and ``title`` says why."""

    title: str
    path: str


@dataclass(frozen=True, slots=True)
class FrameRow:
    """One frame of the page; ``status`` is one sentence, ``complete`` whether every sensor had its part."""

    index: int
    stamp_ns: int
    complete: bool
    status: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the table of what ran: a name and a value."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class DemoReport:
    """Everything the demo's page shows.

    ``trained`` is False when the weights came from a seed. ``frames_in`` reference images went in, ``frames_out`` masks came
    out, and ``frames_skipped`` were skipped because the network was busy. ``drops`` have the stable keys of the counters.
    ``missing`` (live) and ``doubts`` (of the replayed bag) have the latest sentence of each reason.
    ``skews`` (one per modality), ``stages`` (one per stage, in order) and ``ages`` (age at publish, total latency) are in
    milliseconds. ``problems`` are sentences, empty when all is well.
    """

    title: str
    facts: tuple[Fact, ...]
    trained: bool
    frames_in: int
    frames_out: int
    frames_skipped: int
    problems: tuple[str, ...]
    drops: tuple[Count, ...]
    missing: tuple[Finding, ...]
    doubts: tuple[Finding, ...]
    skews: tuple[Distribution, ...]
    stages: tuple[Distribution, ...]
    ages: tuple[Distribution, ...]
    class_names: tuple[str, ...]
    frames: tuple[FrameRow, ...]


def render_demo_page(report: DemoReport, folder: str | Path) -> Path:
    """Write index.html into the folder of the pictures and give its path.

    Raises:
        DataError: a picture that the report names is not there, or the folder cannot be written.
    """
    folder = Path(folder)
    for frame in report.frames:
        for picture in frame.pictures:
            if picture.path and not (folder / picture.path).is_file():
                msg = f"{folder}: expected the picture {picture.path!r} of frame {frame.index}, got no such file"
                raise DataError(msg)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gemini_ros.tools"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    colors = palette(report.class_names)
    legend = [(name, "#{:02x}{:02x}{:02x}".format(*colors[index])) for index, name in enumerate(report.class_names)]
    page = environment.get_template("demo.html").render(report=report, legend=legend)
    path = folder / "index.html"
    write_whole(path, page)
    return path


def _number(value: float) -> str:
    """Three digits that matter, none for nothing measured."""
    if np.isnan(value):
        return "–"
    if abs(value) >= 100:  # noqa: PLR2004 - whole numbers say enough from here
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"  # noqa: PLR2004

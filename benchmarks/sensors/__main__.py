"""Measures decoding and projecting and writes benchmarks/results/sensors.md: ``python -m benchmarks.sensors``.

(``make benchmark-sensors``.) CPU time of one thread; ours and the plain ways in turns.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import os
import platform
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.page import replace_section
from benchmarks.sensors import figures, frame
from benchmarks.sensors.timing import in_turns, ratio
from gemini_core.runtimes.process_settings import prepare_process

PACKAGES = ("numpy", "numba", "opencv-python-headless", "torch")
GRIDS = ((640, 480), (1280, 720))
FRAME_BAR_MS = 25.0


def machine() -> str:
    """Say what this is measured on, and what else runs there."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    now = dt.datetime.now(tz=dt.timezone.utc)
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{now:%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores of {cpu}, load {load} before; Python {platform.python_version()}, "
        f"{versions}"
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return cv2.__version__ if name.startswith("opencv") else "?"


def figure_rows(figure: figures.Figure, rounds: int) -> list[str]:
    """One line of the table for each contender."""
    seconds = in_turns(figure.contenders, rounds)
    ours = seconds["ours"]
    rows = []
    for name, spent in seconds.items():
        scaled = spent * (figure.times if name.startswith("Python") else 1.0)
        cells = [figure.name if name == "ours" else "", name, f"{1e3 * scaled.min():.3g}", f"{1e3 * np.median(scaled):.3g}"]
        cells.append("" if name == "ours" else f"{ratio(scaled, ours):.1f}")
        cells.append(f"{figure.events / np.median(scaled) / 1e6:.3g}" if figure.events else "")
        cells.append("" if name != "ours" or not figure.bar else f"{figure.bar:g} {'M events/s' if figure.events else 'ms'}")
        rows.append(f"| {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return rows


def figure_table(real: Path | None, rounds: int) -> str:
    """All single figures."""
    rows = ["| what | way | min, ms | median, ms | times ours | M events/s | bar |", "|---|---|---|---|---|---|---|"]
    for figure in figures.all_figures(real):
        rows += figure_rows(figure, rounds)
    return "\n".join(rows)


def frame_table(rounds: int) -> str:
    """The whole frame, by stage, for each grid."""
    columns = [frame.stage_times(grid, rounds) for grid in GRIDS]
    names = [f"{width}x{height}" for width, height in GRIDS]
    head = " | ".join(f"{name}: min, ms | median, ms" for name in names)
    rows = [f"| stage | {head} | bar |", "|---" * (2 * len(GRIDS) + 2) + "|"]
    for stage in columns[0]:
        cells = " | ".join(f"{1e3 * found[stage].min():.2f} | {1e3 * np.median(found[stage]):.2f}" for found in columns)
        rows.append(f"| {stage} | {cells} | {f'{FRAME_BAR_MS:g} ms' if stage == 'whole' else ''} |")
        print(rows[-1], flush=True)
    return "\n".join(rows)


def main() -> None:
    """Measure, print and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    prepare_process()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    shared = Path(os.environ.get("GEMINI_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    real = shared / "real" if (shared / "real").is_dir() else None
    where = machine()
    compared = figures.equal_on_random_streams(50)
    singles, whole = figure_table(real, options.rounds), frame_table(max(20, options.rounds))
    replace_section("Cost", f"{_METHOD.format(where=where, rounds=options.rounds, compared=compared)}\n\n{singles}\n")
    replace_section("A whole frame", f"{_FRAME}\n\n{whole}\n")


_METHOD = """`make benchmark-sensors`, {where}.

CPU time (process_time) of one thread, numpy's products too; {rounds} rounds with ours and the plain ways in turns; ratios are
medians over rounds.
The results of both are compared before they are timed. EVT3 was also held against the decoder in plain Python on 50 random
streams of all codes, vectors and roll-overs: {compared:,} events, equal. The real recording has few events a word, most being
times and rows. "Python" ways do a part of the work and are scaled up."""

_FRAME = """From messages to the network's input at 1280x720: a bgr8 image, a 16UC1 depth image, 120,000 points with times,
100,000 events in 50 packets of EVT3, odometry; every lens with plumb_bob, every point moved by its own time
(`benchmarks/sensors/frame.py`). By the size of the grids; 640x480 is the default, 1280x720 what the cameras have."""


if __name__ == "__main__":
    main()

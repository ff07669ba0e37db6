"""Measures the network and writes benchmarks/results/model.md: ``python -m benchmarks.model`` (make benchmark-model)."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import importlib.util
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.model import contenders, cost, growth
from benchmarks.model.timing import in_turns, ratio
from gemini_core.model.segmentation import SegmenterConfig
from gemini_core.runtimes.export import compare

RESULTS = Path(__file__).resolve().parents[1] / "results"
REFERENCE, OURS = "reference, torch", "ours, torch"
BARS_RGBD = {OURS: 1.3, "ours, OpenVINO fp32": 2.2, "ours, OpenVINO bf16": 5.0, "ours, OpenVINO int8": 6.0}
BARS_DELIVER = {OURS: 1 / 0.58, "ours, OpenVINO fp32": 1 / 0.35}
PACKAGES = ("torch", "openvino", "onnxruntime", "nncf", "transformers")


def machine() -> str:
    """Say what this was measured on."""
    cpu = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor())
    flags = next((line.split() for line in _cpuinfo() if line.startswith("flags")), [])
    low = {"bf16": ("avx512_bf16", "amx_bf16"), "int8": ("avx512_vnni", "avx_vnni", "amx_int8")}
    able = [f"{name}: {', '.join(flag for flag in wanted if flag in flags) or 'none'}" for name, wanted in low.items()]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if importlib.util.find_spec(name) is not None]
    threads = torch.get_num_threads()
    today = dt.datetime.now(tz=dt.timezone.utc).date()
    return (
        f"{today}, {cpu}, {os.cpu_count()} cores, {threads} threads; instructions for {'; '.join(able)}. "
        f"Python {platform.python_version()}, {', '.join(versions)}."
    )


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def table(
    runs: Mapping[str, Callable[[], Tensor]], rounds: int, bars: Mapping[str, float]
) -> tuple[str, dict[str, np.ndarray]]:
    """Time all in turns and compare their logits with the reference's; as Markdown, and the seconds."""
    seconds = in_turns({name: run for name, run in runs.items() if not contenders.too_slow(name)}, rounds)
    exact = runs[REFERENCE]()
    rows = [
        "| what | median, s | times faster | half of rounds | bar | largest difference | RMS, of deviation | argmax alike |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, run in runs.items():
        logits = run()
        cells = [name, "emulated", "", ""]
        if name in seconds:
            low, high = np.percentile(seconds[REFERENCE] / seconds[name], (25, 75))
            times = f"{np.median(seconds[name]):.2f}", f"{ratio(seconds, REFERENCE, name):.2f}"
            cells = [name, *times, f"{low:.2f} to {high:.2f}"]
        cells.append(f"{bars[name]:.2f}" if name in bars else "")
        if logits.shape == exact.shape and name.startswith("ours"):
            difference = compare(exact, logits)
            cells += [
                f"{float((logits - exact).abs().max()):.1e}",
                f"{difference.rms:.1e}",
                f"{100 * difference.agreement:.2f} %",
            ]
        else:
            cells += ["", "", ""]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows), seconds


def rgbd(rounds: int) -> str:
    """MiT-B3, RGB and depth, 480x640."""
    model = contenders.make(SegmenterConfig("mit_b3", ("rgb", "depth"), 40), 480, 640)
    which = [("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8")]
    with tempfile.TemporaryDirectory() as folder:
        one = contenders.transformers_segformer(480, 640, 40)
        runs = {**contenders.eager(model), **contenders.exported(model, Path(folder), which), **one}
        text, seconds = table(runs, rounds, BARS_RGBD)
        alone = one_thread(model, Path(folder), which, rounds, one)
    exact = [name for name in seconds if name.startswith("ours") and "bf16" not in name and "int8" not in name]
    best = min(exact, key=lambda name: float(np.median(seconds[name])))
    for name in one:
        share = ratio(seconds, best, name)
        text += f"\n\nTwo modalities in {best.removeprefix('ours, ')} take {share:.2f} x the time of {name} (bar: 1.3)."
    if any(contenders.too_slow(name) for name in runs):
        text += "\n\nThis processor has no bf16 instructions, so bf16 could be held against the reference but not timed."
    frames = f"{len(model.calibration)} frames {'of real colour and depth' if model.real else 'that are made up'}"
    text += f"\n\nWeights are random. int8 is calibrated on {frames} and compared on another one."
    return f"{text}\n\n{alone}"


def one_thread(
    model: contenders.Model,
    folder: Path,
    which: Sequence[tuple[str, str]],
    rounds: int,
    others: Mapping[str, Callable[[], Tensor]],
) -> str:
    """Compare the same by CPU time on one thread, in which others who use the machine matter least."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        runs = {**contenders.eager(model), **contenders.exported(model, folder, which), **others}
        seconds = in_turns(
            {name: run for name, run in runs.items() if not contenders.too_slow(name)}, rounds, time.process_time
        )
    finally:
        torch.set_num_threads(threads)
    rows = [
        "The same on one thread, by CPU time:",
        "",
        "| what | median, s | times faster | half of rounds |",
        "|---|---|---|---|",
    ]
    for name, values in seconds.items():
        low, high = np.percentile(seconds[REFERENCE] / values, (25, 75))
        rows.append(f"| {name} | {np.median(values):.2f} | {ratio(seconds, REFERENCE, name):.2f} | {low:.2f} to {high:.2f} |")
    return "\n".join(rows)


def deliver(rounds: int) -> str:
    """MiT-B2 in DeLiVER's form, 512x512, head 512 wide, four and two modalities."""
    texts = []
    for modalities in (("rgb", "depth", "event", "lidar"), ("rgb", "depth")):
        model = contenders.make(SegmenterConfig("mit_b2", modalities, 25, 512), 512, 512)
        with tempfile.TemporaryDirectory() as folder:
            which = [("openvino", "fp32")]
            runs = {**contenders.eager(model), **contenders.exported(model, Path(folder), which)}
            text, seconds = table(runs, rounds, BARS_DELIVER if len(modalities) > 2 else {})
            alone = one_thread(model, Path(folder), which, rounds, {})
        shares = [f"{name}: {1 / ratio(seconds, REFERENCE, name):.2f} x" for name in runs if name != REFERENCE]
        said = f"{len(modalities)} modalities. Time of the reference in the same run taken by {'; '.join(shares)}."
        texts.append(f"{said}\n\n{text}\n\n{alone}")
    return "\n\n".join(texts)


def grown() -> str:
    """Growth with the number of tokens: table, and the plot where matplotlib is installed."""
    curves = {kind: growth.curve(kind) for kind in growth.KINDS}
    text = f"One layer on two streams, {growth.WIDTH} channels, {growth.HEADS} heads, batch 1.\n\n{growth.table(curves)}"
    if importlib.util.find_spec("matplotlib") is None:
        print("the plot is left out: matplotlib is not installed", flush=True)
        return text
    growth.plot(curves, RESULTS / "growth.png")
    return f"{text}\n\n![time and memory over the number of tokens](growth.png)"


PARTS: dict[str, tuple[str, Callable[[int], str]]] = {
    "rgbd": ("MiT-B3, RGB and depth, 480x640, batch 1", rgbd),
    "deliver": ("MiT-B2 in DeLiVER's form, 512x512, head 512 wide, batch 1", deliver),
    "growth": ("How the fusion grows", lambda _: grown()),
    "cost": ("Parameters and operations", lambda _: cost.table()),
}


def main() -> None:
    """Run the parts asked for; only a run of all of them replaces the results."""
    parser = argparse.ArgumentParser(description="What the network costs.")
    parser.add_argument("--rounds", type=int, default=5, help="of each comparison (default 5)")
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    load = "{:.1f}, {:.1f} and {:.1f}".format(*os.getloadavg())
    turns = "Contenders run in turns and ratios are taken within a round, so they mean more than seconds."
    alone = f"Load at the start {load} (1, 5, 15 minutes). {turns} Half of the rounds are in the range given."

    sections = ["# The network", f"`make benchmark-model`. {machine()}", alone]
    for part in options.parts:
        title, run = PARTS[part]
        sections.append(f"## {title}\n\n{run(options.rounds)}")
        print(f"\n{sections[-1]}\n\nload {os.getloadavg()[0]:.1f}\n", flush=True)
    if options.parts == list(PARTS):
        unfinished = RESULTS / ".model.md"
        unfinished.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
        unfinished.replace(RESULTS / "model.md")


if __name__ == "__main__":
    main()

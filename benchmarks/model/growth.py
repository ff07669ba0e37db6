"""Cost of the fusion alone by the number of tokens, beside full cross-attention between the two modalities."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gemini_core.model.cross_attention import CrossAttention
from gemini_core.model.folding import FoldedFusion
from gemini_core.model.fusion import GeminiFusion

WIDTH, HEADS = 128, 8
TOKENS = tuple(1024 * 2**power for power in range(7))
KINDS = ("fusion", "full")
PASSES, ENOUGH_S = 20, 3.0
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""For glibc: pages stay between passes, as in a program that runs; else their first touch is much of what is timed."""


@dataclass(frozen=True)
class Point:
    """CPU seconds of the fastest pass, and megabytes of the process at its peak above what it had before."""

    seconds: float
    megabytes: float


def measure(kind: str, tokens: int) -> Point:
    """Measure one layer on both streams in this process, which should have done nothing else.

    On one thread, by its own clock: then it does not matter who else uses the machine.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layer: nn.Module = FoldedFusion(GeminiFusion(WIDTH, HEADS), None) if kind == "fusion" else CrossAttention(WIDTH, HEADS)
    layer.eval()
    passes: list[float] = []
    with torch.inference_mode():
        layer(torch.randn(2, 1, 64, WIDTH))  # what libraries allocate once
        streams = torch.randn(2, 1, tokens, WIDTH)
        before = _peak()
        while len(passes) < PASSES and sum(passes) < ENOUGH_S:
            began = time.process_time()
            layer(streams)
            passes.append(time.process_time() - began)
    return Point(min(passes), _peak() - before)


def _peak() -> float:
    """Megabytes at the peak. Not by getrusage, whose peak begins at that of the process that started this one."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024.0


def curve(kind: str) -> list[Point]:
    """Measure every size in a process of its own, since a peak does not go down."""
    points = []
    for tokens in TOKENS:
        command = [sys.executable, "-m", "benchmarks.model.growth", kind, str(tokens)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **KEEP_MEMORY})
        points.append(Point(**json.loads(done.stdout)))
        print(f"{kind}, {tokens} tokens: {points[-1].seconds * 1e3:.1f} ms, {points[-1].megabytes:.0f} MB", flush=True)
    return points


def exponent(values: list[float]) -> float:
    """Fit values ~ tokens^e over all sizes by least squares in the logarithms."""
    return float(np.polyfit(np.log(TOKENS), np.log(values), 1)[0])


def table(curves: dict[str, list[Point]]) -> str:
    """The results as Markdown."""
    rows = [
        "| tokens | fusion, ms | full cross-attention, ms | fusion, MB | full cross-attention, MB |",
        "|---|---|---|---|---|",
    ]
    for tokens, fusion, full in zip(TOKENS, curves["fusion"], curves["full"], strict=True):
        times = [f"{1e3 * point.seconds:.1f}" for point in (fusion, full)]
        peaks = [f"{point.megabytes:.0f}" for point in (fusion, full)]
        rows.append(f"| {tokens} | {' | '.join((*times, *peaks))} |")
    fusion_power, full_power = (exponent([point.seconds for point in curves[kind]]) for kind in KINDS)
    rows += [
        "",
        f"CPU time of one thread. It grows with the number of tokens to the power {fusion_power:.2f} (bar: 1.0 ± 0.1),",
        f"that of full cross-attention to the power {full_power:.2f}.",
        "Full cross-attention runs in torch's fused kernel, which never holds the scores of all",
        "pairs: they would be 16 GB a head at 64k tokens.",
    ]
    return "\n".join(rows)


def plot(curves: dict[str, list[Point]], file: Path) -> None:
    """Draw time and memory over the number of tokens."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - only for benchmarks

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for kind, label in (("fusion", "GeminiFusion"), ("full", "full cross-attention")):
        left.loglog(TOKENS, [1e3 * point.seconds for point in curves[kind]], "o-", label=label)
        right.loglog(TOKENS, [max(point.megabytes, 0.1) for point in curves[kind]], "o-", label=label)
    for axes, what in ((left, "CPU time of one layer, ms"), (right, "peak memory of one layer, MB")):
        axes.set(xlabel="tokens", ylabel=what)
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend()
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("tokens", type=int)
    options = parser.parse_args()
    point = measure(options.kind, options.tokens)
    print(json.dumps({"seconds": point.seconds, "megabytes": point.megabytes}))

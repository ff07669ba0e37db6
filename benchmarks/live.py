"""Benchmark of the node without a network: four sensors at 10 Hz and 640x480 for 60 s; losses, cost, latency.

    python -m benchmarks.live [--seconds 60]

Everything but the network runs: decode, synchronize, register, publish. The cost of decode to grids is also measured
offline on one core, in CPU time, since the live figure contains whatever else the machine does.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import shutil
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from gemini_core.bag.reader import BagReader
from gemini_core.config.fusion import FusionConfig, load_config
from gemini_core.decode.intake import Intake
from gemini_core.files import write_whole
from gemini_core.pipeline.pipeline import Pipeline
from gemini_core.runtimes.process_settings import prepare_process
from gemini_ros.dds import config_file
from gemini_ros.tools.demo import SEED, simulated_bag
from gemini_ros.tools.live import LivePlan, LiveRun, run_live

OVERRIDES = {"model.enabled": False}
RESULT = Path(__file__).parent / "results" / "live.md"


def offline_cost_ms(bag: Path, config: FusionConfig) -> dict[str, np.ndarray]:
    """CPU time per frame on one thread, milliseconds: decode and synchronize of all its messages, projection, and the sum."""
    prepare_process()
    cv2.setNumThreads(1)
    roles = config.roles_by_absolute_topic()
    intake, pipeline = Intake(config), Pipeline(config)
    decode, project = [], []
    spent = 0.0
    with BagReader(bag) as reader:
        for item in reader.messages():
            role = roles.get(item.topic)
            if role is None:
                continue
            message = item.message  # unpacking CDR is DDS' work in the node
            started = time.process_time()
            sample = intake.accept(role, message)
            frames = [] if sample is None else pipeline.advance(sample)
            spent += time.process_time() - started
            for frame in frames:
                started = time.process_time()
                pipeline.process(frame)
                project.append(1e3 * (time.process_time() - started))
                decode.append(1e3 * spent)
                spent = 0.0
    skip = 3  # the first frames compile and fill caches
    decode_ms, project_ms = np.array(decode[skip:]), np.array(project[skip:])
    return {"decode + synchronize": decode_ms, "project": project_ms, "decode to grids": decode_ms + project_ms}


def row(name: str, values: np.ndarray, bar: str = "") -> str:
    """One line of the table."""
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return f"| {name} | {p50:.1f} | {p95:.1f} | {p99:.1f} | {bar} |"


def table(run: LiveRun, cost: dict[str, np.ndarray]) -> str:
    """The results as Markdown."""
    out, skipped = len(run.timings), run.counter("frames.skipped_busy")
    ages = np.array([float(timing["age_ms"]) for timing in run.timings])
    bars = {"decode to grids": "p50 25"}
    lines = ["| what | p50 | p95 | p99 | bar |", "|---|---|---|---|---|"]
    lines += [row(f"{name}, CPU ms a frame, one core", ms, bars.get(name, "")) for name, ms in cost.items()]
    lines += [row("age at publish, live, ms", ages, "p99 60"), ""]
    lines.append(
        f"Reference frames in: {run.frames_in}, out: {out}, skipped: {skipped}, lost: {run.frames_in - out - skipped}."
    )
    share = 100 * run.node_cpu_s / run.seconds
    lines.append(f"The node used {share:.0f} % of one core; the player was at most {run.player_late_ms:.0f} ms late.")
    return "\n".join(lines) + "\n"


def machine() -> str:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    processor = next((line.split(":")[1].strip() for line in lines if "model name" in line), "an unnamed processor")
    today = dt.datetime.now(dt.timezone.utc).date().isoformat()
    return f"{os.cpu_count()} cores of {processor}, Python {platform.python_version()}, {today}"


def main() -> int:
    """Measure and print; exit code 1 when a frame was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("out/benchmark"))
    options = parser.parse_args()
    params_file = config_file("fusion.yaml")
    bag = simulated_bag(options.out / "bags", SEED, 10.0)
    cost = offline_cost_ms(bag, load_config(params_file, OVERRIDES))
    shutil.rmtree(options.out / "live", ignore_errors=True)
    plan = LivePlan(
        bag=bag, params_file=params_file, out=options.out / "live", overrides=OVERRIDES, loops=max(1, options.seconds // 10)
    )
    run = run_live(plan)
    text = table(run, cost)
    print(text)
    write_whole(RESULT, f"# The node without a network\n\n`python -m benchmarks.live` on {machine()}.\n\n{text}")
    return 0 if run.frames_in == len(run.timings) else 1


if __name__ == "__main__":
    sys.exit(main())

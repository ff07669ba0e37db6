"""Benchmark of the data loader: frames per second that it gives against those that the training step takes.

    python -m benchmarks.loading [--config RECIPE] [section.option=value ...]

The loader runs alone, with the recipe's processes. The step is the training's own, timed by its log: once with frames loaded
in between and their time taken off, so that nothing else runs on the cores, and once as the recipe says.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.page import replace_section
from benchmarks.sensors.__main__ import machine
from gemini_core.config.fusion import load_config
from gemini_core.errors import GeminiError
from gemini_core.model.checkpoints import default_normalization
from training.cache import cached
from training.config import TrainingConfig, load_training_config, parse_override
from training.data import FrameDataset, Order, training_batches
from training.train import train

PAGE = Path(__file__).resolve().parent / "results" / "training.md"
BAR = 3.0
_FIRST = 4  # batches and steps that are not timed: processes start, memory is asked for


def loaded_per_second(config: TrainingConfig, batches: int) -> float:
    """Frames per second of the loader as training uses it, with nobody else on the cores."""
    bags = cached(config.data, load_config(config.data.fusion), config.data.train, "data.train")
    dataset = FrameDataset(bags, config.model.modalities, default_normalization(config.model.modalities), config.augment)
    order = Order(len(dataset), config.optimizer.batch_size, config.run.seed)
    ahead = _FIRST + 4 * config.data.workers  # what is loaded ahead before the clock starts must not count
    order.limit(0, ahead + batches)
    loader = training_batches(dataset, order, config.data.workers, pinned=False)
    for _ in range(ahead):
        next(loader)
    began = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return batches * config.optimizer.batch_size / (time.perf_counter() - began)


def logged_steps(config: TrainingConfig, workers: int, steps: int) -> list[dict[str, float]]:
    """Train a few steps: what the log says of each after the first ones."""
    with tempfile.TemporaryDirectory() as folder:
        short = dataclasses.replace(
            config,
            data=dataclasses.replace(config.data, val=(), workers=workers),
            optimizer=dataclasses.replace(config.optimizer, steps=_FIRST + steps, warmup_steps=1),
            run=dataclasses.replace(config.run, out=folder, log_every=1),
        )
        train(short)
        lines = (Path(folder) / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines][_FIRST:]


def measure(config: TrainingConfig, batches: int, steps: int) -> str:
    """Time both: the table."""
    size = config.optimizer.batch_size * config.optimizer.accumulate
    loaded = loaded_per_second(config, batches)
    alone = logged_steps(config, 0, steps)
    taken = size / statistics.median(line["seconds"] - line["waited"] for line in alone)
    together = logged_steps(config, config.data.workers, steps)
    waited = 100 * sum(line["waited"] for line in together) / sum(line["seconds"] for line in together)
    verdict = "reached" if loaded >= BAR * taken else "**missed**"
    return "\n".join(
        [
            "| what | figure | bar |",
            "|---|---|---|",
            f"| loader, {config.data.workers} process(es), frames/s | {loaded:.1f} | |",
            f"| training step, {torch.get_num_threads()} threads, {config.run.precision}, frames/s | {taken:.2f} | |",
            f"| loader / step | {loaded / taken:.1f} | at least {BAR:g}: {verdict} |",
            f"| share of a step spent waiting for data, both at once, % | {waited:.1f} | |",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the page; 1 after an error in one sentence."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loading", description=__doc__)
    parser.add_argument("--config", default="simulated", help="recipe")
    parser.add_argument("--batches", type=int, default=60, help="batches to load")
    parser.add_argument("--steps", type=int, default=12, help="steps to train, twice")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write")
    parser.add_argument("overrides", nargs="*", metavar="section.option=value", help="options that win over the recipe's")
    given = parser.parse_intermixed_args(arguments)
    where = machine()
    try:
        config = load_training_config(given.config, dict(parse_override(each) for each in given.overrides))
        table = measure(config, given.batches, given.steps)
    except GeminiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table)
    crop = f"{config.augment.crop_width} x {config.augment.crop_height}" if config.augment.crop_height else "the whole grid"
    text = _METHOD.format(where=where, recipe=given.config, size=config.optimizer.batch_size, crop=crop, batches=given.batches)
    replace_section("Loading", f"{text}\n\n{table}", given.page, _TITLE)
    return 0


_TITLE = "# Training: what it costs\n"
_METHOD = """`python -m benchmarks.loading`, {where}.

Recipe `{recipe}`: {size} frames a batch, {crop}, {batches} batches from shards on disk, read, checked, augmented and stacked.
The step is timed by training's own log without the time it waits for data, median; forward, loss, backward and update."""


if __name__ == "__main__":
    sys.exit(main())

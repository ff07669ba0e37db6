"""Compares sensors and fusions: ``python -m benchmarks.segmentation [--only NAME ...] [section.option=value ...]``.

Trains each contender with each seed, evaluates it on the test bags and writes benchmarks/results/segmentation.md. What is there
already is not done again, and a training that was killed goes on, so the command can be stopped and run again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.segmentation.contenders import CONTENDERS, RECIPE, contender_config, run_folder
from benchmarks.segmentation.page import page
from benchmarks.segmentation.results import CHECKPOINT
from benchmarks.segmentation.runs import checkpoint_path, describe_data, evaluate_once, splits, train_and_evaluate
from gemini_core.errors import GeminiError
from gemini_core.files import write_whole
from training.config import parse_override

PAGE = Path(__file__).resolve().parents[1] / "results" / "segmentation.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 done, 1 an error in one sentence."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.segmentation", description=__doc__)
    parser.add_argument("--config", default=RECIPE, help="recipe that all contenders share")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="K", help="seeds to train each with")
    parser.add_argument(
        "--only", nargs="+", choices=[*CONTENDERS, CHECKPOINT], help="do just these; the page shows all that is there"
    )
    parser.add_argument("--report", action="store_true", help="write the page from the evaluations that are there")
    parser.add_argument("--runs", type=Path, default=Path("out/segmentation"), help="folder of all runs")
    parser.add_argument("--test", nargs="+", default=["out/simulated/test"], help="bags to evaluate on")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="score every Nth test frame only")
    parser.add_argument(
        "--checkpoint", default="", help="weights to take sensors away from (default: those shipped, else rgbdel's)"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write")
    parser.add_argument("overrides", nargs="*", metavar="section.option=value", help="options of training for all contenders")
    given = parser.parse_intermixed_args(arguments)
    try:
        if not given.report:
            _measure(given)
        write_whole(given.page, page(given.runs, given.config, given.seeds))
    except GeminiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {given.page}")
    return 0


def _measure(given: argparse.Namespace) -> None:
    overrides = dict(parse_override(each) for each in given.overrides)
    names = given.only or [*CONTENDERS, CHECKPOINT]
    configs = [
        contender_config(name, seed, given.runs, given.config, overrides)
        for seed in given.seeds
        for name in CONTENDERS
        if name in names
    ]
    shared = contender_config("rgbdel", given.seeds[0], given.runs, given.config, overrides)
    data = splits(shared, tuple(given.test))
    describe_data(data, given.runs)
    for config in configs:
        train_and_evaluate(config, data["test"], given.every)
        write_whole(given.page, page(given.runs, given.config, given.seeds))  # hours may pass until the next
    if CHECKPOINT in names:
        ours = run_folder(given.runs, "rgbdel", given.seeds[0]) / "best.safetensors"
        weights = checkpoint_path(given.checkpoint, ours)
        evaluate_once(weights, data["test"], given.runs / CHECKPOINT, given.every, subsets=True, workers=shared.data.workers)


if __name__ == "__main__":
    sys.exit(main())

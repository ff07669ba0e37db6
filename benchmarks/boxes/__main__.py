"""Compares detectors: ``python -m benchmarks.boxes [--only NAME ...] [section.option=value ...]``, or their time: ``--timing``.

Trains an image branch and, on it, a detector on the LiDAR's points alone, one with the image averaged in, and one with Gemini
fusion, with the same budget, evaluates each on the test bags and the shipped checkpoint on its own, and keeps
benchmarks/results/boxes.md. What is there already is not done again, and a training that was killed goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.boxes.page import TIME, sections
from benchmarks.boxes.runs import (
    CHECKPOINT,
    CONTENDERS,
    LEAST_POINTS,
    best,
    contender_config,
    evaluate_once,
    image_config,
    result_folder,
    test_frames,
)
from benchmarks.boxes.timing import timing
from benchmarks.page import replace_section
from gemini_core.errors import GeminiError
from gemini_core.model import checkpoints
from training.config import parse_override
from training.evaluate_detection import MIN_POINTS
from training.train import train

PAGE = Path(__file__).resolve().parents[1] / "results" / "boxes.md"
TITLE = "# Boxes: what the image brings to the points, and what a detector costs\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 done, 1 an error in one sentence."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.boxes", description=__doc__)
    parser.add_argument("--timing", action="store_true", help="time the detector beside the segmentation, and nothing else")
    parser.add_argument("--only", nargs="+", choices=[*CONTENDERS, CHECKPOINT], help="do just these")
    parser.add_argument("--report", action="store_true", help="write the page from the evaluations that are there")
    parser.add_argument("--runs", type=Path, default=Path("out/boxes"), help="folder of all runs")
    parser.add_argument("--test", nargs="+", default=["out/fine/test"], help="bags to evaluate the contenders on")
    parser.add_argument(
        "--checkpoint-test", nargs="+", default=["out/cluttered/test"], help="bags to evaluate the shipped checkpoint on"
    )
    parser.add_argument("--checkpoint-fusion", default="config/simulated.yaml", help="by which its frames are made")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="score every Nth test frame only")
    parser.add_argument("--weights", default="shipped:simulated", help="the checkpoint to evaluate, and to time")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to keep")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.option=value",
        help="options of training for all contenders; those of data, model and run also for their image branch",
    )
    given = parser.parse_intermixed_args(arguments)
    try:
        if given.timing:
            replace_section(TIME, timing(checkpoints.find(given.weights)), given.page, TITLE)
        else:
            _measure(given)
            for title, text in sections(given.runs).items():
                replace_section(title, text, given.page, TITLE)
    except GeminiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {given.page}")
    return 0


def _measure(given: argparse.Namespace) -> None:
    if given.report:
        return
    overrides = dict(parse_override(each) for each in given.overrides)
    names = given.only or [*CONTENDERS, CHECKPOINT]
    configs = {name: contender_config(name, given.runs, overrides) for name in CONTENDERS if name in names}
    # What cannot be used is to be said before hours of training.
    frames = test_frames(next(iter(configs.values())), tuple(given.test)) if configs else ()
    of_checkpoint = contender_config("gemini", given.runs, {**overrides, "data.fusion": given.checkpoint_fusion})
    checkpoint_frames = test_frames(of_checkpoint, tuple(given.checkpoint_test)) if CHECKPOINT in names else ()
    if configs and "model.weights" not in overrides:
        train(image_config(given.runs, overrides))  # goes on where it was stopped; at its end, it ends again
    for name, config in configs.items():
        train(config)
        for least in LEAST_POINTS:
            out = result_folder(given.runs, name, least)
            evaluate_once(Path(best(config)), frames, out, config, every=given.every, least=least)
    if CHECKPOINT in names:
        weights, out = checkpoints.find(given.weights), result_folder(given.runs, CHECKPOINT, MIN_POINTS)
        evaluate_once(weights, checkpoint_frames, out, None, every=given.every, least=MIN_POINTS)


if __name__ == "__main__":
    sys.exit(main())

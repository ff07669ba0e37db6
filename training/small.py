"""Training from end to end in twenty minutes on two cores: ``python -m training.small`` (``make train-small``).

Simulates a small set of streets and rooms, trains the recipe ``simulated_small`` on it, scores the weights on its test split
and holds the mean IoU against the stated one. What is there already is kept, and a training that was killed goes on.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from gemini_core.config.fusion import load_config
from gemini_core.errors import GeminiError
from gemini_core.simulation.clip import Clip, Split, plan
from training.cache import cached
from training.config import load_training_config
from training.evaluate import Evaluation, evaluate, write_evaluation
from training.train import train

RECIPE = "simulated_small"
STATED_MEAN_IOU = 0.50
"""Mean IoU on the test split that this reaches: 0.530 where it was measured, in 15 minutes beside other programs."""
TOLERANCE = 0.03
"""Less than stated by more than this is a failure; other processors and versions of torch round, and so train, otherwise."""

CLIPS: dict[Split, int] = {"train": 120, "val": 10, "test": 30}
SECONDS = 0.5
FOLDER = Path("out/simulated-small")
SCALE = 0.5  # 320 x 240, as in the benchmark set; the recipe's grid has half of it
_MOST_PROCESSES = 8  # each holds a scene and its compiled code


def main() -> int:
    """Run the command; 0 done, 1 an error in one sentence or clearly less than the stated mean IoU."""
    try:
        evaluation = small(FOLDER, CLIPS, SECONDS, {})
    except GeminiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    overall = evaluation.results[0]
    return verdict(overall.scores.mean_iou, overall.frames)


def verdict(mean_iou: float, frames: int) -> int:
    """Say what was reached beside what is stated; 1 where that is clearly less."""
    print(f"mean IoU {100 * mean_iou:.1f} % on {frames} test frames; stated: {100 * STATED_MEAN_IOU:.1f} %")
    if mean_iou >= STATED_MEAN_IOU - TOLERANCE:
        return 0
    least = 100 * (STATED_MEAN_IOU - TOLERANCE)
    print(f"error: training: expected a mean IoU of at least {least:.1f} %, got {100 * mean_iou:.1f} %", file=sys.stderr)
    return 1


def small(folder: Path, clips: Mapping[Split, int], seconds: float, overrides: Mapping[str, object]) -> Evaluation:
    """Simulate the set into ``folder``, train on it (``overrides`` win over the recipe) and evaluate on its test split.

    Raises:
        GeminiError: something that is there is of another set or run, or a place cannot be written.
    """
    simulate(folder, plan(dict(clips), seconds, clutter=False))  # as it was when its mean IoU was stated
    config = load_training_config(RECIPE, overrides)
    train(config)
    test = cached(config.data, load_config(config.data.fusion), (str(folder / "test"),), "test split")
    out = Path(config.run.out)
    evaluation = evaluate(out / "best.safetensors", test, out / "test", subsets=False, workers=config.data.workers)
    write_evaluation(evaluation, out / "test")
    return evaluation


def simulate(folder: Path, clips: Sequence[Clip]) -> None:
    """Record the clips that are missing, on all cores.

    Raises:
        BagError: a bag cannot be written, or another one is in its place.
    """
    processes = min(len(os.sched_getaffinity(0)), _MOST_PROCESSES, len(clips))
    with (
        ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool,
        tqdm(total=len(clips), desc="simulate", unit="clip") as progress,
    ):
        recordings = [pool.submit(_record, folder, clip) for clip in clips]
        try:
            for recording in as_completed(recordings):
                recording.result()
                progress.update()
        except GeminiError:
            pool.shutdown(cancel_futures=True)
            raise


def _record(folder: Path, clip: Clip) -> None:
    from gemini_core.simulation.record import record_set  # noqa: PLC0415 - Open3D is for the processes that simulate

    record_set(folder, [clip], SCALE)


if __name__ == "__main__":
    sys.exit(main())

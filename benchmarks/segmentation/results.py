"""Figures of the comparison: what runs and evaluations left, checked to be comparable."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.segmentation.contenders import CONTENDERS, budget
from gemini_core.errors import DataError
from training.evaluate import ALL

CONFIG = "config.yaml"
TEST = "test"
EVALUATION = "evaluation.json"
INPUTS = "inputs.json"
DATA = "data.json"
CHECKPOINT = "checkpoint"

Scores = dict[tuple[str, str], float]
"""Mean IoU in percent by (group, subset of the sensors)."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One evaluation: mean IoU, frames of each group, the weights' description, and what it is of."""

    description: str
    scores: Scores
    frames: dict[str, int]
    inputs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One contender trained with one seed; ``config`` is flat, ``evaluated`` of its best weights on the test frames."""

    name: str
    seed: int
    config: dict[str, Any]
    evaluated: Evaluated


@dataclass(frozen=True, slots=True)
class Spread:
    """The same figure of several seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Their mean."""
        return statistics.fmean(self.values)

    def text(self) -> str:
        """The mean and, of several, the least and the largest."""
        several = f" ({min(self.values):.1f}–{max(self.values):.1f})" if len(self.values) > 1 else ""
        return f"{self.mean:.1f}{several}"


def read_config(folder: Path) -> dict[str, Any]:
    """The options of a run by dotted key, as training wrote them."""
    config: dict[str, Any] = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    return config


def read_evaluation(folder: Path) -> Evaluated | None:
    """Read an evaluation; None where there is none yet.

    Raises:
        DataError: it is not what ``training.evaluate`` writes.
    """
    if not ((folder / EVALUATION).is_file() and (folder / INPUTS).is_file()):
        return None
    try:
        content = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
        inputs = json.loads((folder / INPUTS).read_text(encoding="utf-8"))
        scored = [result for result in content["results"] if result["scores"]["mean_iou"] is not None]
        scores = {(result["group"], result["subset"]): 100.0 * result["scores"]["mean_iou"] for result in scored}
        frames = {result["group"]: result["frames"] for result in content["results"]}
        return Evaluated(content["description"], scores, frames, inputs)
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{folder / EVALUATION}: expected what training.evaluate writes, got {type(error).__name__} {error}"
        raise DataError(msg) from None


def read_runs(runs: Path) -> list[Run]:
    """All runs that are evaluated, in the order of the contenders and seeds.

    Raises:
        DataError: they may not be compared, having other budgets or other test frames.
    """
    found = []
    for name in CONTENDERS:
        seeds = sorted(int(folder.name.removeprefix(f"{name}-seed")) for folder in runs.glob(f"{name}-seed[0-9]*"))
        for seed in seeds:
            folder = runs / f"{name}-seed{seed}"
            evaluated = read_evaluation(folder / TEST)
            if evaluated is not None:
                found.append(Run(name, seed, read_config(folder), evaluated))
    for run in found[1:]:
        _check_comparable(found[0], run)
    return found


def _check_comparable(first: Run, other: Run) -> None:
    ours, theirs = budget(first.config), budget(other.config)
    differ = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    if differ:
        key = differ[0]
        msg = (
            f"{other.name}-seed{other.seed}: expected {key} as in {first.name}-seed{first.seed}, {ours.get(key)}, "
            f"got {theirs.get(key)}"
        )
        raise DataError(msg)
    for key in ("frames", "every"):
        if first.evaluated.inputs[key] != other.evaluated.inputs[key]:
            msg = f"{other.name}-seed{other.seed}: expected the test frames of {first.name}-seed{first.seed}, got others"
            raise DataError(msg)


def spread(runs: Sequence[Run], name: str, group: str) -> Spread | None:
    """Mean IoU of a contender with all its sensors in one group of frames; None where that is not known."""
    values = tuple(
        run.evaluated.scores[group, ALL] for run in runs if run.name == name and (group, ALL) in run.evaluated.scores
    )
    return Spread(values) if values else None


def gain(runs: Sequence[Run], name: str, over: str, group: str) -> float | None:
    """By how many points one contender is better than another, mean of its seeds against mean of the other's."""
    one, other = spread(runs, name, group), spread(runs, over, group)
    return None if one is None or other is None else one.mean - other.mean


def costs(evaluated: Evaluated) -> dict[str, float]:
    """How many points each extra modality's absence costs, over all frames, by its name."""
    prefix = "without "
    whole = evaluated.scores[ALL, ALL]
    return {
        subset.removeprefix(prefix): whole - score
        for (group, subset), score in evaluated.scores.items()
        if group == ALL and subset.startswith(prefix)
    }


def night_share(evaluated: Evaluated) -> float | None:
    """Mean IoU at night in percent of that by day, with all sensors."""
    night, day = (evaluated.scores.get((f"condition={when}", ALL)) for when in ("night", "day"))
    return None if night is None or not day else 100.0 * night / day

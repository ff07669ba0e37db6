"""Runs of the comparison: trains and evaluates what is not there yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from benchmarks.segmentation.contenders import budget
from benchmarks.segmentation.results import CONFIG, DATA, EVALUATION, INPUTS, TEST, read_config
from gemini_core.config.fusion import load_config
from gemini_core.errors import ConfigError, WeightsError
from gemini_core.files import write_whole
from gemini_core.model import checkpoints
from gemini_core.simulation.clip import describe
from training.cache import CachedBag, cached
from training.config import TrainingConfig, to_flat_lists
from training.evaluate import evaluate, write_evaluation
from training.train import train

Split = tuple[CachedBag, ...]

SHIPPED = "shipped:simulated"


def train_and_evaluate(config: TrainingConfig, test: Split, every: int) -> None:
    """Bring one run to its evaluation; what is there of it stays.

    Raises:
        GeminiError: the data cannot be used, or the folder holds a run of another configuration.
    """
    out = Path(config.run.out)
    weights = out / "best.safetensors"
    same = (out / CONFIG).is_file() and budget(read_config(out)) == budget(to_flat_lists(config))
    if same and _is_evaluated(weights, test, out / TEST, every):
        return
    train(config)
    if not weights.is_file():
        msg = f"data.val: expected bags that choose the weights to evaluate, got none for {out}"
        raise ConfigError(msg)
    evaluate_once(weights, test, out / TEST, every, subsets=False, workers=config.data.workers)


def evaluate_once(weights: Path, test: Split, out: Path, every: int, *, subsets: bool, workers: int) -> None:
    """Evaluate weights on every ``every``-th test frame, unless that was done.

    Raises:
        GeminiError: the weights or frames cannot be used, or ``out`` cannot be written.
    """
    if _is_evaluated(weights, test, out, every):
        return
    write_evaluation(evaluate(weights, test, out, every=every, subsets=subsets, workers=workers), out)
    write_whole(out / INPUTS, json.dumps(_inputs(weights, test, every), indent=1))


def _is_evaluated(weights: Path, test: Split, out: Path, every: int) -> bool:
    inputs = out / INPUTS
    if not (weights.is_file() and inputs.is_file() and (out / EVALUATION).is_file()):
        return False
    return bool(json.loads(inputs.read_text(encoding="utf-8")) == _inputs(weights, test, every))


def _inputs(weights: Path, test: Split, every: int) -> dict[str, object]:
    """What an evaluation is of; one of other weights or frames is made anew."""
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    return {"weights_sha256": sha256, "every": every, "frames": [bag.folder.name for bag in test]}


def splits(config: TrainingConfig, test: tuple[str, ...]) -> dict[str, Split]:
    """The frames of train, val and test, made where they are missing.

    Raises:
        GeminiError: no bags, or some that cannot be used.
    """
    fusion = load_config(config.data.fusion)
    return {
        "train": cached(config.data, fusion, config.data.train, "data.train"),
        "val": cached(config.data, fusion, config.data.val, "data.val"),
        "test": cached(config.data, fusion, test, "--test"),
    }


def describe_data(data: Mapping[str, Split], runs: Path) -> None:
    """Write down how much data there is, for the page: clips, frames and seconds of each split."""
    names = hashlib.sha256(json.dumps([[bag.folder.name for bag in split] for split in data.values()]).encode()).hexdigest()
    path = runs / DATA
    if path.is_file() and json.loads(path.read_text(encoding="utf-8"))["names"] == names:
        return
    counts = {
        name: {"clips": len(split), "frames": sum(bag.frames for bag in split), **_simulated(split)}
        for name, split in data.items()
    }
    runs.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps({"names": names, "splits": counts}, indent=1))


def _simulated(split: Split) -> dict[str, float]:
    """Length of all clips, and how many have clutter; those that the simulator did not make count nothing."""
    clips = [clip for bag in split if (clip := describe(bag.bag)) is not None]
    return {"seconds": round(sum(clip.seconds for clip in clips), 3), "cluttered": sum(clip.clutter for clip in clips)}


def checkpoint_path(given: str, ours: Path) -> Path:
    """The one checkpoint: what the user gave, else the weights that come with the project, else ``ours``.

    Raises:
        WeightsError: no weights of the name that the user gave come with the project.
    """
    if given:
        return checkpoints.find(given)
    try:
        return checkpoints.find(SHIPPED)
    except WeightsError:
        return ours

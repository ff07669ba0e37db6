"""Runs of the comparison: trains and evaluates what is not there yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from gemini_core.config.fusion import load_config
from gemini_core.errors import ConfigError
from gemini_core.files import write_whole
from training.cache import CachedBag, cached
from training.config import TrainingConfig, load_training_config
from training.evaluate_detection import MIN_POINTS, evaluate_detection, write_detection

RECIPE = "simulated_boxes"
IMAGE_RECIPE = "simulated_image"
"""The recipe of the image branch that all contenders share."""
CONTENDERS = {"lidar": "LiDAR alone", "none": "LiDAR + RGB, averaged (none)", "gemini": "LiDAR + RGB, Gemini fusion"}
CHECKPOINT = "checkpoint"
LEAST_POINTS = (1, MIN_POINTS)
"""Points of the LiDAR from which on a labelled box counts: nuScenes' rule, and that of ``training.evaluate``."""
INPUTS = "inputs.json"


def image_config(runs: Path, overrides: Mapping[str, object]) -> TrainingConfig:
    """Give the configuration of the image branch.

    ``overrides`` (dotted keys) of data, model and run are those of the contenders; the budget is the recipe's own.

    Raises:
        ConfigError: ``overrides`` are no options of training.
    """
    own = {key: value for key, value in overrides.items() if key.startswith(("data.", "model.", "run."))}
    return load_training_config(IMAGE_RECIPE, {**own, "run.out": str(runs / "image")})


def best(config: TrainingConfig) -> str:
    """Where the best weights of a run are."""
    return str(Path(config.run.out) / "best.safetensors")


def contender_config(name: str, runs: Path, overrides: Mapping[str, object]) -> TrainingConfig:
    """Give the configuration of one contender; they differ in the detector's fusion alone.

    Their image branch is that of ``image_config``, unless ``overrides`` name another (``model.weights``).

    Raises:
        ConfigError: ``overrides`` (dotted keys) change what they differ in, or are no options of training.
    """
    own = {"detection.fusion": name, "run.out": str(runs / name)}
    taken = [key for key in own if key in overrides]
    if taken:
        msg = f"{taken[0]}: expected an option that all contenders share, got one that tells them apart"
        raise ConfigError(msg)
    return load_training_config(RECIPE, {"model.weights": best(image_config(runs, {})), **overrides, **own})


def test_frames(config: TrainingConfig, test: tuple[str, ...]) -> tuple[CachedBag, ...]:
    """The frames to evaluate on, made where they are missing.

    Raises:
        GeminiError: no bags, or some that cannot be used.
    """
    return cached(config.data, load_config(config.data.fusion), test, "--test", boxes=True)


def result_folder(runs: Path, name: str, least: int) -> Path:
    """Where the evaluation of a contender, or of the checkpoint, is kept for boxes of at least so many points."""
    return runs / name / f"test-{least}"


def evaluate_once(
    weights: Path, frames: tuple[CachedBag, ...], out: Path, config: TrainingConfig | None, *, every: int, least: int
) -> None:
    """Evaluate weights on every ``every``-th frame and boxes of ``least`` points or more, unless that was done.

    ``config`` is that of a contender, which is scored with what it was trained with; None: with every subset of the sensors.

    Raises:
        GeminiError: the weights or frames cannot be used, or ``out`` cannot be written.
    """
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    inputs = {"weights_sha256": sha256, "every": every, "least": least, "frames": [bag.folder.name for bag in frames]}
    kept = out / INPUTS
    if kept.is_file() and json.loads(kept.read_text(encoding="utf-8")) == inputs:
        return
    if config is None:
        evaluation = evaluate_detection(weights, frames, out, every=every, min_points=least)
    else:
        given, points = config.model.given, config.detection.points
        evaluation = evaluate_detection(
            weights, frames, out, every=every, subsets=False, points=points, given=given, min_points=least
        )
    write_detection(evaluation, frames[0].classes, out)
    write_whole(kept, json.dumps(inputs, indent=1))

"""Contenders: one recipe and budget for all, with other sensors or another fusion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gemini_core.errors import ConfigError
from training.config import TrainingConfig, load_training_config

RECIPE = "simulated"
ALL_FOUR = ("rgb", "depth", "event", "lidar")

CONTENDERS: dict[str, tuple[tuple[str, ...], str]] = {
    "rgb": (("rgb",), "gemini"),
    "rgbd": (("rgb", "depth"), "gemini"),
    "rgbe": (("rgb", "event"), "gemini"),
    "rgbl": (("rgb", "lidar"), "gemini"),
    "rgbdel": (ALL_FOUR, "gemini"),
    "rgbdel-exchange": (ALL_FOUR, "exchange"),
    "rgbdel-none": (ALL_FOUR, "none"),
}
"""Modalities and fusion by name."""

TITLES = {
    "rgb": "RGB",
    "rgbd": "RGB+D",
    "rgbe": "RGB+E",
    "rgbl": "RGB+L",
    "rgbdel": "RGB+D+E+L, gemini",
    "rgbdel-exchange": "RGB+D+E+L, exchange",
    "rgbdel-none": "RGB+D+E+L, none (averaging)",
}

OWN = ("model.modalities", "model.fusion", "run.out", "run.seed")
"""What tells one run from another; everything else is the same for all."""

NOT_THE_BUDGET = (
    *OWN,
    "run.threads",
    "run.device",
    "run.log_every",
    "run.checkpoint_every",
    "data.workers",
    "data.cache",
)
"""What may differ between runs that are compared: it changes how long they take, or the last bits, and nothing else."""


def budget(flat: Mapping[str, object]) -> dict[str, object]:
    """What runs that are compared must share, of the options of one by dotted key."""
    return {key: value for key, value in flat.items() if key not in NOT_THE_BUDGET}


def run_folder(runs: Path, name: str, seed: int) -> Path:
    """Where a contender trains with a seed."""
    return runs / f"{name}-seed{seed}"


def contender_config(name: str, seed: int, runs: Path, recipe: str, overrides: Mapping[str, object]) -> TrainingConfig:
    """Give the configuration of one run.

    Raises:
        ConfigError: ``overrides`` (dotted keys) change what the contenders differ in, or are no options of training.
    """
    taken = [key for key in OWN if key in overrides]
    if taken:
        msg = f"{taken[0]}: expected an option that all contenders share, got one that tells them apart"
        raise ConfigError(msg)
    modalities, fusion = CONTENDERS[name]
    own = {
        "model.modalities": list(modalities),
        "model.fusion": fusion,
        "run.out": str(run_folder(runs, name, seed)),
        "run.seed": seed,
    }
    return load_training_config(recipe, {**overrides, **own})

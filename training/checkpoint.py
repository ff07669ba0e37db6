"""Checkpoints of the training state: one file, written whole, read without running code, and checked by the run's hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gemini_core import __version__
from gemini_core.errors import WeightsError
from gemini_core.files import check_regular, read_bytes, write_whole
from gemini_core.model import checkpoints
from training.cache import CachedBag
from training.config import TrainingConfig, to_flat_lists

FORMAT = 1
_MOST_BYTES = 1 << 36
_NOT_PART_OF_A_RUN = ("run.out", "run.log_every", "run.checkpoint_every", "data.workers", "data.cache")


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Everything that changes while training.

    ``step`` updates are done; ``best`` is the best mean IoU so far (-1 before any); ``run`` is a hash of all that must be
    the same when the run goes on. Random numbers follow from seed and step, so they have no state.
    """

    step: int
    best: float
    run: str
    weights: dict[str, Tensor]
    averaged: dict[str, Tensor]
    optimizer: dict[str, Any]


def save_state(state: TrainingState, path: Path) -> None:
    """Write a state, whole or not at all.

    Raises:
        WeightsError: it cannot be written (no space, no permission).
    """
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **fields}, file)

    write_whole(path, write, WeightsError)


def load_state(path: Path, run: str) -> TrainingState:
    """Read what ``save_state`` wrote for the same run.

    Raises:
        WeightsError: it cannot be read, or belongs to a run with another configuration, other frames or another version.
    """
    check_regular(path, WeightsError)
    try:
        fields = torch.load(path, map_location="cpu", weights_only=True)
        written = fields.pop("format")
        state = TrainingState(**fields)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        msg = f"{path}: expected a checkpoint of this version, got {' '.join(str(error).split())[:200]}"
        raise WeightsError(msg) from None
    if written != FORMAT:
        msg = f"{path}: expected a checkpoint of format {FORMAT}, got {written}"
        raise WeightsError(msg)
    if state.run != run:
        msg = (
            f"{path}: expected a checkpoint of the same configuration, frames and threads, got one of others; choose another "
            "run.out, or delete it to begin anew"
        )
        raise WeightsError(msg)
    return state


def run_hash(config: TrainingConfig, bags: Sequence[CachedBag], world: int) -> str:
    """Hash what must stay the same for a run to go on bit for bit: options, frames, and the weights that it began with."""
    weights = config.model.weights
    begun = hashlib.sha256(read_bytes(checkpoints.find(weights), WeightsError, _MOST_BYTES)).hexdigest() if weights else ""
    options = {key: value for key, value in to_flat_lists(config).items() if key not in _NOT_PART_OF_A_RUN}
    content = [
        __version__,
        torch.__version__,
        torch.get_num_threads(),
        world,
        options,
        begun,
        [bag.folder.name for bag in bags],
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()

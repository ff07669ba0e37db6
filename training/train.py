"""Train a network from recorded bags: ``python -m training.train --config RECIPE [section.option=value ...]``.

One process per device; ``torchrun --nproc-per-node N -m training.train ...`` trains on several. A run that was killed goes on
from its last checkpoint when it is started again, and ends with the same weights, bit for bit, as if it had not been killed.

The loop knows nothing of what it trains but ``tasks/interface.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
import yaml
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from gemini_core.config.fusion import FusionConfig, load_config
from gemini_core.errors import ConfigError, WeightsError
from gemini_core.files import is_file, write_whole
from gemini_core.runtimes.programs import run_program
from training.cache import CachedBag, cached
from training.checkpoint import TrainingState, load_state, run_hash, save_state
from training.config import RunConfig, TrainingConfig, load_training_config, parse_override, to_flat_lists
from training.data import Batch, FrameDataset, Order, training_batches
from training.log import Log
from training.optimizer import learning_rate, update_average
from training.place import Place, find_place, process_group
from training.tasks.choose import choose_task
from training.tasks.interface import AnyTask


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 done, 1 an error in one sentence, 130 and 143 after a signal, 141 where nobody reads on."""
    return run_program("error", lambda: _run(arguments), wrong_input=1, interrupted="interrupted; started again it goes on")


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.train", description="Train GeminiFusion from recorded bags.")
    parser.add_argument("--config", required=True, help="a recipe of training/recipes by name, or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="section.option=value", help="options that win over the recipe's")
    given = parser.parse_args(arguments)
    config = load_training_config(given.config, dict(parse_override(each) for each in given.overrides))
    with process_group():
        train(config)
    return 0


@dataclass(slots=True, eq=False)
class Run:
    """Everything that a run is, and (``step``, ``best``, the networks, the optimizer) that changes while it trains.

    ``key`` is the hash that a checkpoint of this run has; ``forward`` is the network, or what shares its gradients among
    processes; ``averaged`` is what is validated and saved.
    """

    config: TrainingConfig
    place: Place
    task: AnyTask
    out: Path
    key: str
    network: nn.Module
    averaged: nn.Module
    optimizer: torch.optim.Optimizer
    forward: nn.Module
    step: int = 0
    best: float = -1.0

    @property
    def steps(self) -> int:
        """Updates of the whole run."""
        return self.config.optimizer.steps

    def due(self, every: int) -> bool:
        """Whether something that is done each so many steps, and at the end, is to be done now."""
        return self.step % every == 0 or self.step == self.steps


def train(
    config: TrainingConfig,
    choose: Callable[[TrainingConfig, FusionConfig, tuple[CachedBag, ...], torch.device], AnyTask] = choose_task,
) -> float:
    """Train to the end; gives the best validation score (-1 without a validation).

    Args:
        config: of the run.
        choose: gives the task.

    Raises:
        GeminiError: a configuration, bag, label, weights or checkpoint that cannot be used, or a place that cannot be written.
    """
    place = find_place(config.run.device)
    _set_up_torch(config.run)
    _make_folder(Path(config.run.out))
    fusion, bags, val_bags = _open_frames(config, place)
    task = choose(config, fusion, bags, place.device)
    frames, val_frames = task.dataset(bags, config.augment), task.dataset(val_bags)
    run = _begin(config, place, task, frames, (*bags, *val_bags))
    batches = _batches(run, frames)
    log = Log(run.out, run.step) if place.main else None
    with tqdm(total=run.steps, initial=run.step, desc=run.out.name, unit="step", disable=not place.main) as progress:
        while run.step < run.steps:
            measured = train_step(run, batches)
            progress.update()
            if log is None:
                continue
            if run.due(config.run.log_every):
                log.write(run.step, measured)
                progress.set_postfix(loss=f"{measured['loss']:.3f}", best=f"{100 * max(run.best, 0):.1f}")
            if val_bags and run.due(config.run.validate_every):
                validate(run, val_frames, log)
            if run.due(config.run.checkpoint_every):
                checkpoint(run)
    if log is not None:
        log.close()
    return run.best


# --------------------------------------------------------------------------------------------------------------------
# The loop's parts


def train_step(run: Run, batches: Iterator[Batch]) -> dict[str, float]:
    """Update the weights once; gives what goes into the log.

    Raises:
        ConfigError: the loss is not finite.
        DataError: a frame cannot be read.
    """
    began, settings = time.monotonic(), run.config.optimizer
    rate = learning_rate(run.step, settings)
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    losses, waited = accumulate_gradients(run, batches)
    if not math.isfinite(losses["loss"]):
        msg = (
            f"{run.out}: expected a finite loss, got {losses['loss']} at step {run.step}; try a smaller optimizer.lr or a "
            "clip_norm"
        )
        raise ConfigError(msg)
    if settings.clip_norm:
        nn.utils.clip_grad_norm_(run.network.parameters(), settings.clip_norm)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    run.step += 1
    update_average(run.averaged, run.network, settings.ema_decay, run.step)
    return {"loss": losses.pop("loss"), "lr": rate, "seconds": time.monotonic() - began, "waited": waited, **losses}


def accumulate_gradients(run: Run, batches: Iterator[Batch]) -> tuple[dict[str, float], float]:
    """Go forward and backward through the micro-batches of a step.

    Gives the loss, with its named parts, as their mean over the micro-batches, and the seconds that were waited for frames.
    """
    count = run.config.optimizer.accumulate
    losses: defaultdict[str, float] = defaultdict(float)
    waited = 0.0
    for number in range(run.step * count, (run.step + 1) * count):
        asked = time.monotonic()
        batch = next(batches)
        waited += time.monotonic() - asked
        torch.manual_seed(_seed(run, number))  # so that a run can go on anywhere
        with _gradients_shared(run, last=(number + 1) % count == 0):
            found = run.task.loss(run.network, run.forward, batch, number)
            loss = torch.stack([term / count for term in found.terms]).sum()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        losses["loss"] += float(loss.detach())
        for name, part in found.logged.items():
            losses[name] += float(part.detach()) / count
    return losses, waited


def validate(run: Run, frames: FrameDataset, log: Log) -> None:
    """Score the averaged weights, and keep them where they are the best so far."""
    scores = run.task.validate(run.averaged, frames)
    log.write(run.step, scores.logged)
    if scores.overall > run.best:
        run.best = scores.overall
        _save_weights(run, "best.safetensors", f"step {run.step}, validation {scores.said}")


def checkpoint(run: Run) -> None:
    """Write the weights, and what the run needs to go on from here."""
    _save_weights(run, "last.safetensors", f"step {run.step}")
    states = run.network.state_dict(), run.averaged.state_dict(), run.optimizer.state_dict()
    save_state(TrainingState(run.step, run.best, run.key, *states), run.out / "last.pt")


def _save_weights(run: Run, name: str, what: str) -> None:
    run.task.save(run.averaged, run.out / name, f"{what} of {run.steps}, seed {run.config.run.seed}")


def _seed(run: Run, number: int) -> int:
    """Of all that is random in a micro-batch of this process."""
    return int(np.random.default_rng([run.config.run.seed, 4, number, run.place.rank]).integers(1 << 62))


def _gradients_shared(run: Run, *, last: bool) -> AbstractContextManager[None]:
    """Several processes share their gradients once a step, in its last micro-batch."""
    if run.place.world == 1 or last:
        return contextlib.nullcontext()
    return cast("DistributedDataParallel", run.forward).no_sync()


# --------------------------------------------------------------------------------------------------------------------
# Beginning and going on


def _begin(config: TrainingConfig, place: Place, task: AnyTask, frames: FrameDataset, bags: Sequence[CachedBag]) -> Run:
    """Build network and optimizer, and go on from the last checkpoint where there is one."""
    needed = config.optimizer.batch_size * place.world
    if len(frames) < needed:
        msg = f"data.train: expected {needed} labelled frames for a batch, got {len(frames)}"
        raise ConfigError(msg)
    torch.manual_seed(config.run.seed)
    network: nn.Module = task.build(frames).to(place.device)
    averaged = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    groups = [group._asdict() for group in task.parameter_groups(network)]
    betas = (config.optimizer.beta1, config.optimizer.beta2)
    optimizer = torch.optim.AdamW(groups, lr=config.optimizer.lr, betas=betas)
    key = run_hash(config, bags, place.world)
    run = Run(config, place, task, Path(config.run.out), key, network, averaged, optimizer, forward=network)
    if is_file(run.out / "last.pt"):
        _go_on(run, load_state(run.out / "last.pt", key))
    elif place.main:
        write_whole(run.out / "config.yaml", yaml.safe_dump(to_flat_lists(config), sort_keys=False), WeightsError)
    if place.world > 1:  # modalities that a batch lacks leave their norms without a gradient
        run.forward = DistributedDataParallel(network, find_unused_parameters=True)
    return run


def _go_on(run: Run, state: TrainingState) -> None:
    run.step, run.best = state.step, state.best
    run.network.load_state_dict(state.weights)
    run.averaged.load_state_dict(state.averaged)
    run.optimizer.load_state_dict(state.optimizer)


def _batches(run: Run, frames: FrameDataset) -> Iterator[Batch]:
    """Load the micro-batches that are left, for this process."""
    config, place, count = run.config, run.place, run.config.optimizer.accumulate
    order = Order(len(frames), config.optimizer.batch_size, config.run.seed, rank=place.rank, world=place.world)
    order.limit(run.step * count, run.steps * count)
    return training_batches(frames, order, config.data.workers, pinned=place.device.type == "cuda")


def _open_frames(config: TrainingConfig, place: Place) -> tuple[FusionConfig, tuple[CachedBag, ...], tuple[CachedBag, ...]]:
    """The node's configuration, the frames to train on and those to validate with; the main process makes what is missing."""
    fusion = load_config(config.data.fusion)
    _check_known("model.modalities", config.model.modalities, fusion.modalities, config.data.fusion)
    _check_known("augment.focus_classes", config.augment.focus_classes, fusion.model.classes, config.data.fusion)
    boxes = config.detection.enabled
    with place.main_first():
        bags = cached(config.data, fusion, config.data.train, "data.train", boxes=boxes)
        val_bags = cached(config.data, fusion, config.data.val, "data.val", boxes=boxes) if config.data.val else ()
    return fusion, bags, val_bags


def _check_known(key: str, names: Sequence[str], known: Sequence[str], where: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        msg = f"{key}: expected some of {', '.join(known)} ({where}), got {', '.join(unknown)}"
        raise ConfigError(msg)


def _set_up_torch(config: RunConfig) -> None:
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"run.out: expected a folder that can be written to, got {path} ({error.strerror})"
        raise ConfigError(msg) from None


if __name__ == "__main__":
    sys.exit(main())

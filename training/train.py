"""Train GeminiFusion from recorded bags: ``python -m training.train --config RECIPE [section.option=value ...]``.

One process per device; ``torchrun --nproc-per-node N -m training.train ...`` trains on several. A run that was killed goes on
from its last checkpoint when it is started again, and ends with the same weights, bit for bit, as if it had not been killed.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
import torch.distributed as dist
import yaml
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from gemini_core import __version__
from gemini_core.bag.labels import LabelTopics
from gemini_core.config.engine import to_flat
from gemini_core.config.fusion import FusionConfig, load_config
from gemini_core.errors import ConfigError, DataError, GeminiError, WeightsError
from gemini_core.evaluate.segmentation import ConfusionMatrix, SegmentationScores
from gemini_core.files import write_whole
from gemini_core.model import checkpoints
from gemini_core.model.checkpoints import Normalization, default_normalization
from gemini_core.model.detection.interface import Cloud
from gemini_core.model.detection.mvxnet.checkpoint import save_mvxnet
from gemini_core.model.detection.mvxnet.image import to_caffe
from gemini_core.model.detection.mvxnet.network import MvxNet
from gemini_core.model.segmentation import Segmenter, SegmenterConfig, rgb_alone, upsample
from training.cache import CachedBag, cache_bag
from training.checkpoint import TrainingState, load_state, save_state
from training.config import DataConfig, OptimizerConfig, TrainingConfig, load_training_config
from training.data import Batch, FrameDataset, Order, plain_batches, training_batches
from training.detection import Scored, bev_scores, mean_precision, scored
from training.frames import find_bags
from training.losses import anchors_loss, boxes_loss, class_weights, segmentation_loss
from training.mvxnet import make_mvxnet
from training.space import SOURCES

Network: TypeAlias = Segmenter | MvxNet
"""What a run trains: masks and the boxes on their backbone, or the boxes of MVX-Net."""

POINT_ENCODING = "lidar.max_intensity"
"""The only option of the node's encodings that changes points."""

_NOT_PART_OF_A_RUN = ("run.out", "run.log_every", "run.checkpoint_every", "data.workers", "data.cache")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 done, 1 an error in one sentence."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description="Train GeminiFusion from recorded bags.")
    parser.add_argument("--config", required=True, help="a recipe of training/recipes by name, or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="section.option=value", help="options that win over the recipe's")
    given = parser.parse_args(arguments)
    try:
        config = load_training_config(given.config, dict(parse_override(each) for each in given.overrides))
        with _process_group():
            train(config)
    except GeminiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


@dataclass(frozen=True, slots=True)
class Place:
    """Where this process trains: its device, and its number among ``world`` processes; number 0 writes the files."""

    device: torch.device
    rank: int
    world: int

    @property
    def main(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0


def train(config: TrainingConfig) -> float:
    """Run the training to its end; gives the best validation mean IoU (-1 without a validation).

    Raises:
        GeminiError: a configuration, bag, label, weights or checkpoint that cannot be used, or a place that cannot be written.
    """
    place = _place(config)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    settings, out = config.optimizer, Path(config.run.out)
    _make_folder(out)
    fusion, bags, val_bags = _frames(config, place)
    classes = fusion.model.classes
    normalization = _normalization(config)
    min_points = config.detection.min_points if config.detection.enabled else None
    dataset = FrameDataset(bags, config.model.modalities, normalization, config.augment, min_points=min_points)
    val_dataset = FrameDataset(val_bags, config.model.modalities, normalization, min_points=min_points)
    if len(dataset) < settings.batch_size * place.world:
        msg = f"data.train: expected {settings.batch_size * place.world} labelled frames for a batch, got {len(dataset)}"
        raise ConfigError(msg)

    torch.manual_seed(config.run.seed)
    trained: Network
    if config.detection.detector == "mvxnet":
        trained = make_mvxnet(config, fusion.detections.classes, dataset.reader, place.device).to(place.device).train()
    else:
        trained = _segmenter(config, len(classes), fusion.detections.classes).to(place.device).train()
        if config.detection.alone:
            _freeze(trained)
    averaged = copy.deepcopy(trained).eval().requires_grad_(requires_grad=False)
    betas = (settings.beta1, settings.beta2)
    groups = parameter_groups(trained, settings, config.detection.lr_factor)
    optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=betas)
    run, step, best = run_hash(config, (*bags, *val_bags), place.world), 0, -1.0
    if (out / "last.pt").is_file():
        state = load_state(out / "last.pt", run)
        step, best = state.step, state.best
        trained.load_state_dict(state.weights)
        averaged.load_state_dict(state.averaged)
        optimizer.load_state_dict(state.optimizer)
    elif place.main:
        write_whole(out / "config.yaml", yaml.safe_dump(to_flat_lists(config), sort_keys=False), WeightsError)
    network: nn.Module = trained
    if place.world > 1:  # modalities that a batch lacks leave their norms without a gradient
        network = DistributedDataParallel(trained, find_unused_parameters=True)
    weights = class_weights(torch.tensor([bag.class_pixels for bag in bags]).sum(dim=0), settings.class_balance)
    weights = None if weights is None else weights.to(place.device)

    passes = settings.accumulate
    order = Order(len(dataset), settings.batch_size, config.run.seed, rank=place.rank, world=place.world)
    order.limit(step * passes, settings.steps * passes)
    batches = training_batches(dataset, order, config.data.workers, pinned=place.device.type == "cuda")
    log = Log(out, step) if place.main else None
    with tqdm(total=settings.steps, initial=step, desc=out.name, unit="step", disable=not place.main) as progress:
        while step < settings.steps:
            rate = learning_rate(step, settings)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            total, boxes_total, waited, began = 0.0, 0.0, 0.0, time.monotonic()
            for number in range(step * passes, (step + 1) * passes):
                asked = time.monotonic()
                batch = next(batches)
                waited += time.monotonic() - asked
                keep = modality_presence(config, number)
                torch.manual_seed(_seed_of_pass(config, number, place.rank))  # so that a run can go on anywhere
                unsynced = place.world > 1 and (number + 1) % passes
                with network.no_sync() if unsynced else contextlib.nullcontext():  # type: ignore[operator]  # DDP's own
                    of_masks, of_boxes = losses(network, trained, batch, keep, config, weights=weights)
                    parts = [] if of_masks is None else [of_masks / passes]
                    if of_boxes is not None:
                        boxes_total += float(of_boxes.detach()) / passes
                        parts.append(config.detection.weight * of_boxes / passes)
                    loss = torch.stack(parts).sum()
                    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
                total += float(loss.detach())
            if not math.isfinite(total):
                msg = f"{out}: expected a finite loss, got {total} at step {step}; try a smaller optimizer.lr or a clip_norm"
                raise ConfigError(msg)
            if settings.clip_norm:
                nn.utils.clip_grad_norm_(trained.parameters(), settings.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            update_average(averaged, trained, settings.ema_decay, step)
            progress.update()
            if log is None:
                continue
            done = step == settings.steps
            if step % config.run.log_every == 0 or done:
                values = {"loss": total, "lr": rate, "seconds": time.monotonic() - began, "waited": waited}
                log.write(step, values | ({"boxes_loss": boxes_total} if config.detection.enabled else {}))
                progress.set_postfix(loss=f"{total:.3f}", best=f"{100 * max(best, 0):.1f}")
            if val_bags and (step % config.run.validate_every == 0 or done):
                scores = validate(averaged, val_dataset, classes, config, place.device)
                log.write(step, scores.logged())
                if scores.overall > best:
                    best = scores.overall
                    said = f"step {step}, validation {scores}"
                    _save_weights(averaged, out / "best.safetensors", fusion, config, said)
            if step % config.run.checkpoint_every == 0 or done:
                _save_weights(averaged, out / "last.safetensors", fusion, config, f"step {step}")
                every = trained.state_dict(), averaged.state_dict(), optimizer.state_dict()
                save_state(TrainingState(step, best, run, *every), out / "last.pt")
    if log is not None:
        log.close()
    return best


def losses(
    network: nn.Module,
    trained: Network,
    batch: Batch,
    keep: Sequence[bool],
    config: TrainingConfig,
    *,
    weights: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:
    """Run a batch; give the loss of its masks and that of its boxes, None for what is not trained.

    Args:
        network: to call: ``trained``, or what shares its gradients among processes.
        trained: the network itself.
        batch: the frames.
        keep: which modalities they keep.
        config: of the run.
        weights: of the masks' classes.
    """
    device = next(trained.parameters()).device
    clouds = _clouds(config, batch, keep, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.run.precision == "bf16"):
        if isinstance(trained, MvxNet):
            output = network(clouds, to_caffe(batch.images[0].to(device, non_blocking=True)))
        else:
            output = network(*_inputs(batch, keep, device), clouds, masks=not config.detection.alone)
    if isinstance(trained, MvxNet):
        return None, anchors_loss(output, batch.spaces, trained).total
    alone = config.detection.alone
    of_masks = None if alone else segmentation_loss(output, batch.label.to(device), config.optimizer, weights)
    of_boxes = None if trained.detector is None else boxes_loss(output.boxes, batch.spaces, trained.detector).total
    return of_masks, of_boxes


def _inputs(
    batch: Batch, keep: Sequence[bool], device: torch.device
) -> tuple[tuple[Tensor, ...], list[bool], list[Tensor] | None]:
    """What the network takes of a batch: images, the modalities that ``keep`` and the frames leave, and validity.

    There are masks only where some frames of the batch have a modality that others lack.
    """
    images = batch.images.to(device, non_blocking=True)
    present = [bool(flag and there.any()) for flag, there in zip(keep, batch.present, strict=True)]
    mixed = any(flag and not there.all() for flag, there in zip(present, batch.present, strict=True))
    shape = (images.shape[1], 1, *images.shape[3:])
    valid = [there.to(device)[:, None, None, None].expand(shape) for there in batch.present] if mixed else None
    return tuple(images), present, valid


def modality_presence(config: TrainingConfig, number: int) -> list[bool]:
    """Which modalities pass ``number`` keeps; the same in all processes, since the graph depends on it."""
    rng = np.random.default_rng([config.run.seed, 3, number])
    drawn = rng.random(len(config.model.modalities)) >= config.dropout_rates()
    return [bool(flag) and there for flag, there in zip(drawn, _given(config), strict=True)]


def _given(config: TrainingConfig) -> list[bool]:
    """Which modalities the run gives the network."""
    return [not config.model.given or modality in config.model.given for modality in config.model.modalities]


def _seed_of_pass(config: TrainingConfig, number: int, rank: int) -> int:
    return int(np.random.default_rng([config.run.seed, 4, number, rank]).integers(1 << 62))


def learning_rate(step: int, config: OptimizerConfig) -> float:
    """The backbone's rate at a step: linear warm-up from a millionth of it, then (1 - progress)^power, in equal phases."""
    length = math.ceil(config.steps / config.phases)
    phase, within = divmod(step, length)
    peak: float = config.lr * 0.5**phase
    if within < config.warmup_steps:
        return peak * (1e-6 + (1 - 1e-6) * within / config.warmup_steps)
    return peak * math.pow(1.0 - within / length, config.power)


def parameter_groups(network: Network, config: OptimizerConfig, detector_factor: float = 1.0) -> list[dict[str, object]]:
    """Parameters by rate and weight decay: head and detector faster; norms, biases and the streams' weights without decay.

    Of an MVX-Net the image branch is the backbone, and everything else the detector.
    """
    of_detector = "pts_" if isinstance(network, MvxNet) else "detector."
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        plain = parameter.ndim == 1 or name.endswith("bias") or "norm" in name
        factor = config.head_lr_factor if name.startswith(("head.", "stream_weights")) else 1.0
        factor = detector_factor if name.startswith(of_detector) else factor
        groups.setdefault((factor, 0.0 if plain else config.weight_decay), []).append(parameter)
    return [{"params": parameters, "factor": factor, "weight_decay": decay} for (factor, decay), parameters in groups.items()]


@torch.no_grad()
def update_average(averaged: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Follow the weights: a' = d a + (1 - d) w, with a smaller d in the first steps; counters and statistics are copied."""
    decay = min(decay, (1 + step) / (10 + step))
    for ours, theirs in zip(averaged.parameters(), network.parameters(), strict=True):
        ours.lerp_(theirs, 1.0 - decay)
    for kept, current in zip(averaged.buffers(), network.buffers(), strict=True):
        kept.copy_(current)


@dataclass(frozen=True, slots=True)
class Scores:
    """What a validation found: of the masks, and of the boxes (average precision from above, 0 to 1); None: not trained."""

    masks: SegmentationScores | None
    boxes: float | None

    @property
    def overall(self) -> float:
        """The mean of what there is, by which the best weights are chosen."""
        parts = [] if self.masks is None else [self.masks.mean_iou]
        parts += [] if self.boxes is None else [self.boxes]
        return sum(parts) / len(parts)

    def logged(self) -> dict[str, float]:
        """Give the numbers for the log."""
        masks = self.masks
        of_masks = {} if masks is None else {"mean_iou": masks.mean_iou, "pixel_accuracy": masks.pixel_accuracy}
        return of_masks | ({} if self.boxes is None else {"bev_ap": self.boxes})

    def __str__(self) -> str:
        """Say it for people."""
        masks = "" if self.masks is None else f"mean IoU {100 * self.masks.mean_iou:.1f} %"
        boxes = "" if self.boxes is None else f"mean AP of boxes {100 * self.boxes:.1f} %"
        return ", ".join(each for each in (masks, boxes) if each)


@torch.inference_mode()
def validate(
    network: Network, dataset: FrameDataset, classes: Sequence[str], config: TrainingConfig, device: torch.device
) -> Scores:
    """Score a network on all frames of a data set, with what each frame has."""
    matrix = ConfusionMatrix(len(classes))
    found: list[Scored] = []
    for batch in plain_batches(dataset, 1, config.data.workers):  # one by one, as the node meets them
        present = [flag and given for flag, given in zip(batch.present[:, 0].tolist(), _given(config), strict=True)]
        clouds = _clouds(config, batch, present, device)
        if isinstance(network, MvxNet):
            found.append(scored(batch.spaces[0], network, network(clouds, to_caffe(batch.images[0].to(device)))))
            continue
        output = network(tuple(batch.images.to(device)), present, clouds=clouds, masks=not config.detection.alone)
        if not config.detection.alone:
            prediction = upsample(output.ensemble, batch.label.shape[1:]).argmax(dim=1)
            matrix.add(batch.label[0].numpy().astype(np.uint8), prediction[0].to(torch.uint8).cpu().numpy())
        if output.boxes is not None and network.detector is not None:
            found.append(scored(batch.spaces[0], network.detector, output.boxes))
    detector = network if isinstance(network, MvxNet) else network.detector
    boxes = None if detector is None else mean_precision(bev_scores(found, detector.config.classes))
    return Scores(None if config.detection.alone else matrix.scores(), boxes)


def _normalization(config: TrainingConfig) -> tuple[Normalization, ...]:
    """What is done to each modality before the network gets it: nothing for MVX-Net, which does it itself."""
    modalities = config.model.modalities
    return (Normalization(),) * len(modalities) if config.detection.detector == "mvxnet" else default_normalization(modalities)


def _clouds(config: TrainingConfig, batch: Batch, keep: Sequence[bool], device: torch.device) -> list[Cloud] | None:
    """The points of a batch, of depth where the LiDAR is taken away; None where no boxes are wanted."""
    if not config.detection.enabled:
        return None
    modalities = config.model.modalities
    source = config.detection.points
    if source == "auto":
        taken = "lidar" in modalities and not keep[modalities.index("lidar")]
        source = "depth" if taken else "lidar"
    clouds = [space.clouds[SOURCES.index(source)] for space in batch.spaces]
    return [cloud.to(device) for cloud in clouds]


def _freeze(segmenter: Segmenter) -> None:
    """Leave everything but the detector as it is, noise of training included."""
    for name, module in segmenter.named_children():
        if name != "detector":
            module.requires_grad_(requires_grad=False).eval()
    if segmenter.stream_weights is not None:
        segmenter.stream_weights.requires_grad = False


class Log:
    """What a run says of itself: ``log.jsonl``, one line per event, and TensorBoard's files."""

    def __init__(self, out: Path, step: int) -> None:
        self._path = out / "log.jsonl"
        before = self._path.read_text(encoding="utf-8").splitlines() if self._path.is_file() else []
        kept = [line for line in before if line.startswith("{") and line.endswith("}") and json.loads(line)["step"] <= step]
        write_whole(
            self._path, "".join(f"{line}\n" for line in kept), WeightsError
        )  # what a killed run did after its checkpoint comes again
        with self._written():
            self._board = SummaryWriter(str(out / "tensorboard"), purge_step=step)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add one line, and a point to each curve.

        Raises:
            DataError: they cannot be written.
        """
        line = json.dumps({"step": step, **{key: float(f"{value:.6g}") for key, value in values.items()}})
        with self._written():
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            for key, value in values.items():
                self._board.add_scalar(key, value, step)

    def close(self) -> None:
        """Write what TensorBoard still holds back.

        Raises:
            DataError: it cannot be written.
        """
        with self._written():
            self._board.close()

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            msg = f"{self._path.parent}: expected a place to write the log to, got {error.strerror or error}"
            raise DataError(msg) from None


def run_hash(config: TrainingConfig, bags: Sequence[CachedBag], world: int) -> str:
    """Hash what must stay the same for a run to go on bit for bit: options, frames, and the weights that it began with."""
    weights = config.model.weights
    begun = hashlib.sha256(checkpoints.find(weights).read_bytes()).hexdigest() if weights else ""
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


def to_flat_lists(config: TrainingConfig) -> dict[str, object]:
    """Every option by its dotted key, as YAML and JSON write them."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in to_flat(config).items()}


def _frames(config: TrainingConfig, place: Place) -> tuple[FusionConfig, tuple[CachedBag, ...], tuple[CachedBag, ...]]:
    """The node's configuration, the frames to train on and those to validate with; the main process makes what is missing."""
    fusion = load_config(config.data.fusion)
    missing = [modality for modality in config.model.modalities if modality not in fusion.modalities]
    if missing:
        known = ", ".join(fusion.modalities)
        msg = f"model.modalities: expected some of {known} ({config.data.fusion}), got {', '.join(missing)}"
        raise ConfigError(msg)
    unknown = [name for name in config.augment.focus_classes if name not in fusion.model.classes]
    if unknown:
        known = ", ".join(fusion.model.classes)
        msg = f"augment.focus_classes: expected some of {known} ({config.data.fusion}), got {', '.join(unknown)}"
        raise ConfigError(msg)
    if not place.main:
        dist.barrier()
    boxes = config.detection.enabled
    bags = cached(config.data, fusion, config.data.train, "data.train", boxes=boxes)
    val_bags = cached(config.data, fusion, config.data.val, "data.val", boxes=boxes) if config.data.val else ()
    if place.main and place.world > 1:
        dist.barrier()
    return fusion, bags, val_bags


def cached(
    data: DataConfig, fusion: FusionConfig, patterns: tuple[str, ...], key: str, *, boxes: bool = False
) -> tuple[CachedBag, ...]:
    """Open the cached frames of all bags that ``patterns`` of the option ``key`` name, making what is missing.

    ``boxes``: frames with points and labelled boxes.

    Raises:
        GeminiError: no bag, or one that cannot be used.
    """
    topics = LabelTopics(data.labels, data.label_info if data.labels else "")
    with tqdm(find_bags(patterns, key), desc=f"frames of {key}", unit="bag") as bags:
        return tuple(cache_bag(bag, fusion, topics, Path(data.cache), boxes=data.boxes if boxes else "") for bag in bags)


def _segmenter(config: TrainingConfig, num_classes: int, box_classes: tuple[str, ...]) -> Segmenter:
    segmenter = Segmenter(config.segmenter(num_classes, box_classes))
    if config.model.weights:
        begun, _ = checkpoints.load(config.model.weights)
        theirs = begun.config
        if segmenter.config.modalities == ("rgb",):
            begun = rgb_alone(begun)
        if _differ(begun.config, segmenter.config):
            msg = f"model.weights: expected weights of {segmenter.config}, got {theirs} in {config.model.weights}"
            raise ConfigError(msg)
        # A detector begins anew where the weights have none or another one.
        same = begun.config.detector == segmenter.config.detector
        fresh = {} if same else {key: value for key, value in segmenter.state_dict().items() if key.startswith("detector.")}
        kept = {key: value for key, value in begun.state_dict().items() if same or not key.startswith("detector.")}
        segmenter.load_state_dict(kept | fresh)
    return segmenter


def _differ(begun: SegmenterConfig, wanted: SegmenterConfig) -> bool:
    """Whether two networks have different weights; rates matter for training alone, and how to fuse where there is a second."""
    names = ["backbone_config", "modalities", "num_classes", "head_width"]
    if len(wanted.modalities) > 1:
        names += ["fusion", "fused_blocks"]
    return any(getattr(begun, name) != getattr(wanted, name) for name in names)


def _save_weights(network: Network, path: Path, fusion: FusionConfig, config: TrainingConfig, what: str) -> None:
    description = f"{what} of {config.optimizer.steps}, seed {config.run.seed}"
    half, encodings = config.run.half, fusion.encodings()
    if isinstance(network, MvxNet):
        of_points = {key: value for key, value in encodings.items() if key == POINT_ENCODING}
        save_mvxnet(network, path, trained=True, description=description, encodings=of_points, half=half)
        return
    of_grids = {key: value for key, value in encodings.items() if key.startswith(network.config.modalities)}
    names = fusion.model.classes
    checkpoints.save(network, path, names, trained=True, description=description, encodings=of_grids, half=half)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"run.out: expected a folder that can be written to, got {path} ({error.strerror})"
        raise ConfigError(msg) from None


def _place(config: TrainingConfig) -> Place:
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    name = config.run.device
    if name == "cuda" and not torch.cuda.is_available():
        msg = "run.device: expected a CUDA device that torch can use, got none"
        raise ConfigError(msg)
    if name == "cpu" or not torch.cuda.is_available():
        return Place(torch.device("cpu"), rank, world)
    return Place(torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))), rank, world)


@contextlib.contextmanager
def _process_group() -> Iterator[None]:
    """Join the other processes where torchrun started this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def parse_override(text: str) -> tuple[str, object]:
    """Read ``section.option=value``, the value as YAML.

    Raises:
        ConfigError: it has no ``=``.
    """
    key, equals, value = text.partition("=")
    if not equals:
        msg = f"{text!r}: expected section.option=value"
        raise ConfigError(msg)
    return key, yaml.safe_load(value)


if __name__ == "__main__":
    sys.exit(main())

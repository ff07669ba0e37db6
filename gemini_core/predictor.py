"""Aligned grids in, mask out: owns the device, the arithmetic, the normalisation and the weights of the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gemini_core.config import FusionConfig
from gemini_core.errors import ConfigError, DataError, GeminiError, ShapeError, WeightsError
from gemini_core.model import checkpoints
from gemini_core.model.checkpoints import CheckpointInfo
from gemini_core.model.segmentation import Segmenter, SegmenterConfig, upsample
from gemini_core.types import U8, UNLABELLED, AlignedGrids, Detection3D, GridGeometry

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What the network says of one frame: ``mask`` (H, W) uint8 at the size of the reference image, and boxes."""

    mask: U8
    detections: tuple[Detection3D, ...] = ()


class Predictor:
    """The network as the configuration asks for it.

    The same grids give the same mask, bit for bit, on every call and in every process and thread of one machine: the number of
    threads is fixed for the time of a call, and only deterministic convolutions without TensorFloat are used.

    Attributes:
        trained: whether the weights ever saw data.
        class_names: ``class_names[i]`` names mask value i.
    """

    def __init__(self, config: FusionConfig) -> None:
        """Load or make the weights.

        Raises:
            ConfigError: the device is not there.
            WeightsError: ``model.weights`` cannot be read, or is for other modalities or classes than configured.
        """
        self._config = config
        self._device = _device(config.model.device)
        self._threads = config.model.threads or torch.get_num_threads()
        segmenter, info = _load(config) if config.model.weights else _untrained(config)
        self._segmenter = segmenter.to(self._device)
        self.trained = info.trained
        self.class_names = info.class_names
        # (M, 3, 1, 1) each
        self._mean = torch.tensor([item.mean for item in info.normalization])[:, :, None, None]
        self._std = torch.tensor([item.std for item in info.normalization])[:, :, None, None].to(self._device)
        self._staging = torch.empty(0)

    def predict(self, grids: AlignedGrids) -> Prediction:
        """Segment one frame.

        A modality that the frame lacks is not computed; the network fuses what there is.

        Returns:
            The mask at the size of the reference image, ``UNLABELLED`` outside the part that the grids show.

        Raises:
            ShapeError: a grid has another size than the geometry says.
            DataError: a grid has pixels that are not finite numbers, which the network would spread over the whole image.
            ConfigError: the numbers inside the network overflow in ``model.precision``.
            WeightsError: the weights themselves give logits that are not finite.
        """
        present = [modality == "rgb" or grids.grid(modality) is not None for modality in self._config.modalities]
        with torch.inference_mode(), _fixed_arithmetic(self._threads):
            inputs = self._to_device(grids)
            with torch.autocast(
                self._device.type, _DTYPES[self._config.model.precision], self._config.model.precision != "fp32"
            ):
                logits = self._segmenter.quarter_logits(inputs.unsqueeze(1).unbind(), present).ensemble.float()
            logits = upsample(logits, inputs.shape[2:])  # (1, K, h, w)
            best = logits.max(dim=1)  # argmax of the same is many times slower on the CPU
            if not best.values.isfinite().all():
                raise self._not_finite(grids)
            mask: U8 = best.indices[0].to(torch.uint8).cpu().numpy()
        return Prediction(to_reference(mask, grids.geometry))

    def describe(self) -> str:
        """Say in one line what runs where, for logs."""
        config, model = self._segmenter.config, self._config.model
        backbone = (
            config.backbone if isinstance(config.backbone, str) else type(config.backbone).__name__.removesuffix("Config")
        )
        millions = sum(parameter.numel() for parameter in self._segmenter.parameters()) / 1e6
        where = f"{self._device} with {self._threads} threads" if self._device.type == "cpu" else str(self._device)
        weights = f"{'trained' if self.trained else 'untrained'} weights ({model.weights or f'seed {model.seed}'})"
        network = f"GeminiFusion {backbone} on {'+'.join(config.modalities)}, {config.num_classes} classes"
        return f"{network}, {millions:.1f} M parameters, {weights}, {model.precision} on {where}"

    def _not_finite(self, grids: AlignedGrids) -> GeminiError:
        """Find out why logits are not finite numbers; looked for only then, so that other frames do not pay for it."""
        for grid in grids.grids:
            wrong = int(np.count_nonzero(~np.isfinite(grid.channels).all(axis=0)))
            if wrong and grid.modality in self._config.modalities:
                return DataError(f"grid of {grid.modality}: expected finite numbers, got others at {wrong} pixels")
        model = self._config.model
        if model.precision != "fp32":
            return ConfigError(
                f"model.precision: expected the range that the weights need, got an overflow in {model.precision}"
            )
        where = model.weights or f"seed {model.seed}"
        return WeightsError(f"model.weights: expected weights that give finite logits, got others from {where}")

    def _to_device(self, grids: AlignedGrids) -> Tensor:
        """Gather the grids and normalise them: (M, 3, h, w) on the device."""
        geometry = grids.geometry
        shape = (3, geometry.height, geometry.width)
        modalities = self._config.modalities
        if self._staging.shape[1:] != shape:
            # Pinned, so that the copy to a GPU runs without another one; it is over when the mask has come back.
            self._staging = torch.empty((len(modalities), *shape), pin_memory=self._device.type == "cuda")
        for index, modality in enumerate(modalities):
            grid = grids.grid(modality)
            if grid is None:
                self._staging[index] = self._mean[index]  # which normalises to zero
                continue
            if grid.channels.shape != shape:
                msg = f"grid of {modality}: expected channels of shape {shape}, as its geometry says, got {grid.channels.shape}"
                raise ShapeError(msg)
            np.copyto(self._staging[index].numpy(), grid.channels)
        staged = self._staging.to(self._device, non_blocking=True)
        return (staged - self._mean.to(self._device)) / self._std


def to_reference(mask: U8, geometry: GridGeometry) -> U8:
    """Bring a mask (h, w) on the grid to the reference image (H, W), nearest pixel, ``UNLABELLED`` outside the crop."""
    rows = _nearest(geometry.crop_height, geometry.height)
    columns = _nearest(geometry.crop_width, geometry.width)
    image = np.full((geometry.reference_height, geometry.reference_width), UNLABELLED, np.uint8)
    inside = image[geometry.top : geometry.top + geometry.crop_height, geometry.left : geometry.left + geometry.crop_width]
    inside[:] = mask.take(rows, axis=0).take(columns, axis=1)
    return image


def _nearest(count: int, source: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """For ``count`` pixels that cover ``source`` pixels: the source pixel in which the centre of each lies."""
    return (2 * np.arange(count, dtype=np.int64) + 1) * source // (2 * count)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        msg = "model.device: expected a CUDA device that torch can use, got none"
        raise ConfigError(msg)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _load(config: FusionConfig) -> tuple[Segmenter, CheckpointInfo]:
    segmenter, info = checkpoints.load(config.model.weights)
    _check_same("modalities", config.modalities, segmenter.config.modalities, config.model.weights)
    _check_same("classes", config.model.classes, info.class_names, config.model.weights)
    return segmenter, info


def _check_same(what: str, expected: tuple[str, ...], got: tuple[str, ...], path: str) -> None:
    if expected != got:
        msg = f"model.weights: expected weights for {what} {', '.join(expected)} as configured, got {', '.join(got)} in {path}"
        raise WeightsError(msg)


def _untrained(config: FusionConfig) -> tuple[Segmenter, CheckpointInfo]:
    model = config.model
    with torch.random.fork_rng(devices=[]):  # the process's own random numbers stay as they were
        torch.default_generator.manual_seed(model.seed)
        segmenter = Segmenter(SegmenterConfig(model.backbone, config.modalities, len(model.classes), model.head_width)).eval()
    return segmenter, CheckpointInfo(model.classes, checkpoints.default_normalization(config.modalities), trained=False)


@contextmanager
def _fixed_arithmetic(threads: int) -> Iterator[None]:
    """Hold everything that changes rounding for the time of a block: sums depend on how they are split over threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(before)

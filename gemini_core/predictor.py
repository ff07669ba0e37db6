"""Aligned grids in, mask and boxes out: owns the device, the arithmetic, the normalisation and the weights of the network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gemini_core.config.fusion import FusionConfig
from gemini_core.errors import ConfigError, DataError, GeminiError, ShapeError, WeightsError
from gemini_core.model import checkpoints
from gemini_core.model.checkpoints import CheckpointInfo
from gemini_core.model.detection.interface import Cloud, Found
from gemini_core.model.detection.mvxnet.checkpoint import load_mvxnet
from gemini_core.model.detection.mvxnet.image import to_caffe
from gemini_core.model.detection.mvxnet.sparse import choose_runtime
from gemini_core.model.detection.pillars.codec import BevMaps, decode
from gemini_core.model.detection.pillars.encoder import BevGrid
from gemini_core.model.segmentation import Segmenter, SegmenterConfig, upsample
from gemini_core.rig.boxes import move_boxes
from gemini_core.runtimes import artifact
from gemini_core.runtimes.base import Runtime
from gemini_core.runtimes.eager import TorchRuntime
from gemini_core.runtimes.exported import EXPORTED_RUNTIMES, ExportedRuntime
from gemini_core.types import F32, U8, UNLABELLED, AlignedGrids, AlignedPoints, Detection3D, GridGeometry, Modality

CHANNELS = 3
"""Channels of each modality that a network takes."""

LEAST_SCORE = 0.05
"""Boxes below it are not made, whatever ``detections.min_score`` says: there are many, and hardly any is right."""

MOST_BOXES = 500
"""Boxes of a frame that are made at most, before those that overlap are left out."""


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
            ConfigError: the device or the runtime is not there, the runtime cannot run these weights, or spconv is asked for
                and is not installed.
            WeightsError: ``model.weights`` or ``detections.weights`` cannot be read, is for other modalities, classes, sizes
                or another precision than configured, or has no detector where boxes are asked for, or one of other classes.
        """
        self._config = config
        self._threads = config.model.threads or torch.get_num_threads()
        network = _exported(config, self._threads) if artifact.is_export(config.model.weights) else _torch(config)
        self._runtime, self._network, segmenter, info = network
        self._device = self._runtime.device
        self.trained = info.trained
        self.class_names = info.class_names
        # (M, 3, 1, 1) each
        self._mean = torch.tensor([item.mean for item in info.normalization])[:, :, None, None]
        self._std = torch.tensor([item.std for item in info.normalization])[:, :, None, None].to(self._device)
        self._staging = torch.empty(0)
        self._mvxnet = _MvxBoxes(config, self._device) if config.detections.enabled and config.detections.weights else None
        self._cells = None if self._mvxnet else _detector_cells(config, segmenter)

    def predict(self, grids: AlignedGrids) -> Prediction:
        """Segment one frame, and find boxes where these are asked for.

        A modality that the frame lacks is not computed; the network fuses what there is. Without points there are no boxes.

        Returns:
            The mask at the size of the reference image, ``UNLABELLED`` outside the part that the grids show; boxes from
            ``LEAST_SCORE`` on.

        Raises:
            ShapeError: a grid has another size than the geometry says.
            DataError: a grid has pixels that are not finite numbers, which the network would spread over the whole image.
                They are looked for before it runs, since not every runtime lets them through to its logits (OpenVINO's
                ReLU makes 0 of NaN, and the mask would be of one class).
            ConfigError: the numbers inside the network overflow in ``model.precision``.
            WeightsError: the weights themselves give logits that are not finite.
        """
        present = [modality == "rgb" or grids.grid(modality) is not None for modality in self._config.modalities]
        which = tuple(index for index, flag in enumerate(present) if flag)
        with torch.inference_mode(), _fixed_arithmetic(self._threads):
            inputs = self._to_device(grids)
            images = inputs if all(present) else inputs[list(which)]
            boxes: tuple[Detection3D, ...] = ()
            if self._cells is None or grids.points is None:
                logits = self._runtime.run(images, which)
            else:
                logits, maps = self._runtime.run_with_boxes(images, which, _cloud(grids.points, self._device))
                boxes = _boxes(self._decode(maps, self._cells), grids.points, self._config.detections.classes)
            if self._mvxnet is not None:
                boxes = self._mvxnet.find(self._staging[:1], grids.points)
            logits = upsample(logits, inputs.shape[2:])  # (1, K, h, w)
            best = logits.max(dim=1)  # argmax of the same is many times slower on the CPU
            if not best.values.isfinite().all():
                raise self._not_finite()
            mask: U8 = best.indices[0].to(torch.uint8).cpu().numpy()
        return Prediction(to_reference(mask, grids.geometry), boxes)

    def describe(self) -> str:
        """Say in one line what runs where, for logs."""
        model = self._config.model
        threads = f" with {self._threads} threads" if self._device.type == "cpu" else ""
        weights = f"{'trained' if self.trained else 'untrained'} weights ({model.weights or f'seed {model.seed}'})"
        boxes = "" if self._mvxnet is None else f"; {self._mvxnet.describe()}"
        return f"GeminiFusion {self._network}, {weights}, {self._runtime.describe()}{threads}{boxes}"

    def _decode(self, maps: BevMaps, cells: BevGrid) -> Found:
        """Find the boxes in maps.

        Raises:
            WeightsError: the weights give maps that are not finite.
        """
        if not (maps.heat.isfinite().all() and maps.boxes.isfinite().all()):
            raise self._not_finite()
        return decode(maps, cells, max_boxes=MOST_BOXES, min_score=LEAST_SCORE)[0]

    def _not_finite(self) -> GeminiError:
        """Say why logits are not finite numbers although the grids are."""
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
        shape = (CHANNELS, geometry.height, geometry.width)
        modalities = self._config.modalities
        if self._staging.shape[1:] != shape:
            # Pinned, so that the copy to a GPU runs without another one; it is over when the mask has come back.
            self._staging = torch.empty((len(modalities), *shape), pin_memory=self._device.type == "cuda")
        for index, modality in enumerate(modalities):
            grid = grids.grid(modality)
            if grid is None:
                self._staging[index] = self._mean[index]  # which normalises to zero
                continue
            _stage(modality, grid.channels, self._staging[index])
        staged = self._staging.to(self._device, non_blocking=True)
        return (staged - self._mean.to(self._device)) / self._std


class BoxPredictor:
    """Boxes alone: the MVX-Net of ``detections.weights``, where ``model.enabled`` is false.

    As repeatable as ``Predictor``, and as it to be asked, but its masks are all ``UNLABELLED``.
    """

    def __init__(self, config: FusionConfig) -> None:
        """Load the weights.

        Raises:
            ConfigError: the device is not there, or spconv is asked for and not installed.
            WeightsError: ``detections.weights`` cannot be read, or is for other classes than configured.
        """
        self._threads = config.model.threads or torch.get_num_threads()
        self._mvxnet = _MvxBoxes(config, _device(config.model.device))
        self.trained = self._mvxnet.trained
        self.class_names = config.model.classes

    def predict(self, grids: AlignedGrids) -> Prediction:
        """Find the boxes of one frame.

        Raises:
            ShapeError, DataError: as of ``Predictor.predict``.
            WeightsError: the weights give boxes that are not finite.
        """
        geometry = grids.geometry
        rgb = torch.zeros(1, CHANNELS, geometry.height, geometry.width)
        if (grid := grids.grid("rgb")) is not None:
            _stage("rgb", grid.channels, rgb[0])
        with _fixed_arithmetic(self._threads):
            boxes = self._mvxnet.find(rgb, grids.points)
        return Prediction(np.full((geometry.reference_height, geometry.reference_width), UNLABELLED, np.uint8), boxes)

    def describe(self) -> str:
        """Say in one line what runs where, for logs."""
        return f"no masks (model.enabled is false), {self._mvxnet.describe()}"


def make_predictor(config: FusionConfig) -> Predictor | BoxPredictor | None:
    """Make what the configuration asks for: masks and boxes, boxes alone, or nothing.

    Raises:
        ConfigError, WeightsError: as the predictors.
    """
    if not config.predicts:
        return None
    return Predictor(config) if config.model.enabled else BoxPredictor(config)


class _MvxBoxes:
    """The MVX-Net of ``detections.weights`` on a device, in fp32: places need more digits than masks."""

    def __init__(self, config: FusionConfig, device: torch.device) -> None:
        wanted = config.detections
        network, info = load_mvxnet(wanted.weights, runtime=choose_runtime(wanted.sparse, device))
        _check_box_classes(config, network.config.classes, wanted.weights)
        check_encodings(config, info, wanted.weights)
        self._network, self._device, self._config = network.to(device), device, wanted
        self.trained = info.trained

    def find(self, rgb: Tensor, points: AlignedPoints | None) -> tuple[Detection3D, ...]:
        """Find boxes, in the frame of the reference; none without points.

        ``rgb`` is (1, 3, h, w) in [0, 1] on the CPU.

        Raises:
            WeightsError: the weights give maps that are not finite.
        """
        if points is None:
            return ()
        with torch.inference_mode():
            maps = self._network([_cloud(points, self._device)], to_caffe(rgb.to(self._device, non_blocking=True)))
            if not all(each.isfinite().all() for each in maps):
                msg = f"detections.weights: expected weights that give finite boxes, got others from {self._config.weights}"
                raise WeightsError(msg)
            found = self._network.find(maps, max_boxes=MOST_BOXES, min_score=LEAST_SCORE)[0]
        return _boxes(found, points, self._config.classes)

    def describe(self) -> str:
        """Say in a few words what runs, for logs."""
        sparse = self._network.pts_middle_encoder.runtime
        return f"boxes of {', '.join(self._config.classes)} by MVX-Net ({self._config.weights}), fp32, sparse in {sparse}"


def _stage(modality: Modality, channels: F32, place: Tensor) -> None:
    """Put a grid's channels into a tensor (3, h, w) on the CPU.

    Raises:
        ShapeError: they have another shape.
        DataError: some are not finite.
    """
    if channels.shape != place.shape:
        shape = tuple(place.shape)
        msg = f"grid of {modality}: expected channels of shape {shape}, as its geometry says, got {channels.shape}"
        raise ShapeError(msg)
    np.copyto(place.numpy(), channels)
    if not torch.stack(place.aminmax()).isfinite().all():  # NaN is the smallest and the largest at once
        wrong = int(np.count_nonzero(~np.isfinite(channels).all(axis=0)))
        msg = f"grid of {modality}: expected finite numbers, got others at {wrong} pixels"
        raise DataError(msg)


def _cloud(points: AlignedPoints, device: torch.device) -> Cloud:
    """Put a frame's points on the device, as detectors take them."""
    values = torch.from_numpy(np.hstack([points.points_m, points.intensity[:, None]]))
    return Cloud(values, torch.from_numpy(points.pixels), torch.from_numpy(points.visible)).to(device)


def _boxes(found: Found, points: AlignedPoints, names: Sequence[str]) -> tuple[Detection3D, ...]:
    """Bring found boxes to the frame of the reference."""
    variances = [None] * len(found.boxes) if found.variances is None else found.variances.tolist()
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), variances, strict=True)
    boxes = [_upright_box(names[named], score, box, variance) for box, score, named, variance in rows]
    return move_boxes(boxes, points.reference_from_base)


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


def _detector_cells(config: FusionConfig, segmenter: SegmenterConfig) -> BevGrid | None:
    """The cells of the detector's maps, None where no boxes are asked for.

    Raises:
        WeightsError: there is no detector, or one of other classes.
    """
    if not config.detections.enabled:
        return None
    weights = config.model.weights
    if segmenter.detector is None:
        msg = f"detections.enabled: expected weights with a detector, got {weights or 'untrained ones'} without one"
        raise WeightsError(msg)
    _check_box_classes(config, segmenter.detector.classes, weights)
    return segmenter.detector.head_grid


def _check_box_classes(config: FusionConfig, classes: tuple[str, ...], weights: str) -> None:
    if classes != config.detections.classes:
        expected, got = ", ".join(config.detections.classes), ", ".join(classes)
        msg = f"detections.classes: expected those of the detector in {weights}, {got}, got {expected}"
        raise WeightsError(msg)


def _upright_box(name: str, score: float, box: Sequence[float], variances: Sequence[float] | None) -> Detection3D:
    """Make a box of seven numbers and, where there are, the variances of x, y, z and yaw."""
    x, y, z, length, width, height, yaw = box
    covariance = None
    if variances is not None:
        along_x, along_y, along_z, turn = variances
        covariance = tuple(np.diag([along_x, along_y, along_z, 0.0, 0.0, turn]).ravel().tolist())
    turned = (0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2))
    return Detection3D(name, score, (x, y, z), (length, width, height), turned, covariance)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        msg = "model.device: expected a CUDA device that torch can use, got none"
        raise ConfigError(msg)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _torch(config: FusionConfig) -> tuple[Runtime, str, SegmenterConfig, CheckpointInfo]:
    """Make the network in torch: the runtime, what it is for people, and what is known of it and of its weights."""
    model = config.model
    if model.runtime in EXPORTED_RUNTIMES:
        msg = (
            f"model.runtime: expected a folder written by 'gemini-fusion export --runtime {model.runtime}' in model.weights, "
            f"got {model.weights or 'untrained weights'}"
        )
        raise ConfigError(msg)
    if model.precision == "int8":
        msg = "model.precision: expected an exported folder in model.weights for int8, got weights that torch runs"
        raise ConfigError(msg)
    if model.weights and Path(model.weights).is_dir():
        msg = f"model.weights: expected a file, or a folder with {artifact.DESCRIPTION} in it, got {model.weights} without one"
        raise WeightsError(msg)
    device = _device(model.device)
    segmenter, info = _load(config) if model.weights else _untrained(config)
    millions = sum(parameter.numel() for parameter in segmenter.parameters()) / 1e6
    runtime = TorchRuntime(segmenter, device, model.precision, compiled=model.runtime == "torch_compile")
    return runtime, f"{_name(segmenter.config)}, {millions:.1f} M parameters", segmenter.config, info


def _exported(config: FusionConfig, threads: int) -> tuple[Runtime, str, SegmenterConfig, CheckpointInfo]:
    """Open an exported network, like ``_torch``."""
    model, grid = config.model, config.grid
    description = artifact.read_description(model.weights)
    configured = {"runtime": model.runtime, "precision": model.precision, "height": grid.height, "width": grid.width}
    for what, value in configured.items():
        got = getattr(description, what)
        if value not in ("auto", got):
            key = f"grid.{what}" if what in ("height", "width") else f"model.{what}"
            msg = f"model.weights: expected an export for {key} {value} as configured, got {got} in {model.weights}"
            raise WeightsError(msg)
    _check_weights(config, description.segmenter, description.checkpoint)
    if config.detections.enabled and not config.detections.weights and description.detector is None:
        expected = "weights that torch runs or an export with a detector"
        msg = f"detections.enabled: expected {expected}, got masks only in {model.weights}"
        raise WeightsError(msg)
    runtime = ExportedRuntime(model.weights, description, threads)
    if model.device not in ("auto", runtime.device.type):
        msg = f"model.device: expected {runtime.device.type} for {description.runtime}, got {model.device}"
        raise ConfigError(msg)
    segmenter = description.segmenter if description.detector is not None else replace(description.segmenter, detector=None)
    return runtime, f"{_name(segmenter)} at {grid.width}x{grid.height}", segmenter, description.checkpoint


def _name(config: SegmenterConfig) -> str:
    backbone = config.backbone if isinstance(config.backbone, str) else type(config.backbone).__name__.removesuffix("Config")
    boxes = "" if config.detector is None else f", boxes of {len(config.detector.classes)} classes"
    return f"{backbone} on {'+'.join(config.modalities)}, {config.num_classes} classes{boxes}"


def _load(config: FusionConfig) -> tuple[Segmenter, CheckpointInfo]:
    segmenter, info = checkpoints.load(config.model.weights)
    _check_weights(config, segmenter.config, info)
    return segmenter, info


def _check_weights(config: FusionConfig, segmenter: SegmenterConfig, info: CheckpointInfo) -> None:
    _check_same("modalities", config.modalities, segmenter.modalities, config.model.weights)
    _check_same("classes", config.model.classes, info.class_names, config.model.weights)
    check_encodings(config, info, config.model.weights)


def check_encodings(config: FusionConfig, info: CheckpointInfo, weights: str | Path) -> None:
    """Compare what the numbers at the network's input mean with what they meant in training, where that is known.

    Raises:
        WeightsError: they mean something else.
    """
    for key, value in config.encodings().items():
        trained_with = info.encodings.get(key, value)
        if trained_with != value:
            msg = f"{key}: expected {trained_with}, with which {weights} was trained, got {value}"
            raise WeightsError(msg)


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

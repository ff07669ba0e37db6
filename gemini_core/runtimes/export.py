"""Export of a segmenter for a robot: fixed size, folded, compared with eager torch before it is written."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gemini_core import __version__
from gemini_core.errors import ConfigError, WeightsError
from gemini_core.model.checkpoints import CheckpointInfo
from gemini_core.model.detection.pillars.codec import BevMaps
from gemini_core.model.folding import fold
from gemini_core.model.segmentation import SMALLEST_SIDE, Segmenter
from gemini_core.runtimes import artifact, boxes, onnx, openvino, tensorrt
from gemini_core.runtimes.artifact import Export, Graph
from gemini_core.runtimes.exported import open_graphs
from gemini_core.types import F32

PRECISIONS = {"openvino": openvino.PRECISIONS, "onnx": onnx.PRECISIONS, "tensorrt": tensorrt.PRECISIONS}
TOLERANCES = {"fp32": 1e-4, "bf16": 0.1, "fp16": 0.1, "int8": 0.5}
"""How far logits and maps of boxes may be from eager fp32, in their standard deviations.

At most for fp32, in the mean (RMS) for the others.
"""


@dataclass(frozen=True, slots=True)
class Target:
    """What to export for: a runtime, a precision, and the input's size in pixels."""

    runtime: str
    precision: str
    height: int
    width: int

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: an unknown runtime, a precision that it does not have, or a size too small.
        """
        if self.runtime not in PRECISIONS:
            msg = f"--runtime: expected one of {', '.join(PRECISIONS)}, got {self.runtime!r}"
            raise ConfigError(msg)
        if self.precision not in PRECISIONS[self.runtime]:
            expected = ", ".join(PRECISIONS[self.runtime])
            msg = f"--precision: expected one of {expected} for {self.runtime}, got {self.precision!r}"
            raise ConfigError(msg)
        if min(self.height, self.width) < SMALLEST_SIDE:
            msg = f"--size: expected {SMALLEST_SIDE} or more either way, got {self.width}x{self.height}"
            raise ConfigError(msg)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far logits are from the exact ones, in standard deviations of these; ``agreement`` is the share of equal argmax."""

    largest: float
    rms: float
    agreement: float

    def __str__(self) -> str:
        """Say it for people."""
        return (
            f"largest difference {self.largest:.1e} and RMS {self.rms:.1e} of the logits' deviation, "
            f"{100 * self.agreement:.2f} % of the pixels decided alike"
        )


def compare(exact: Tensor, got: Tensor) -> Difference:
    """Compare logits (B, K, h, w)."""
    deviation = exact.std()
    difference = got - exact
    return Difference(
        largest=float(difference.abs().max() / deviation),
        rms=float(difference.square().mean().sqrt() / deviation),
        agreement=float((exact.argmax(1) == got.argmax(1)).float().mean()),
    )


def compare_maps(exact: BevMaps, got: BevMaps) -> Difference:
    """Compare what detectors say: the largest differences of any of the maps, ``agreement`` of the class at a cell."""
    each = [compare(one, other) for one, other in zip(exact, got, strict=True) if one is not None and other is not None]
    return Difference(_worst(one.largest for one in each), _worst(one.rms for one in each), each[0].agreement)


def _worst(distances: Iterable[float]) -> float:
    """Give the largest number, or NaN if there is one, which Python's ``max`` may pass over."""
    return float(torch.tensor(list(distances)).max())


@dataclass(frozen=True, slots=True)
class Verified:
    """How far a graph's masks, and with a detector its maps of boxes, are from those of eager torch."""

    masks: Difference
    boxes: Difference | None = None

    def distance(self, precision: str) -> float:
        """Give what ``TOLERANCES`` bounds."""
        both = [self.masks] if self.boxes is None else [self.masks, self.boxes]
        return _worst(one.largest if precision == "fp32" else one.rms for one in both)

    def __str__(self) -> str:
        """Say it for people."""
        if self.boxes is None:
            return str(self.masks)
        maps = f"largest difference {self.boxes.largest:.1e} and RMS {self.boxes.rms:.1e} of their deviation"
        return f"{self.masks}; maps of boxes: {maps}"


@dataclass(frozen=True, slots=True)
class Images:
    """Normalised network inputs (M, 3, H, W), at least one, and what they are, for people."""

    inputs: Sequence[F32]
    what: str


def export(
    segmenter: Segmenter,
    checkpoint: CheckpointInfo,
    target: Target,
    folder: Path,
    images: Images,
    *,
    subsets: Sequence[tuple[int, ...]] = (),
    tolerance: float | None = None,
) -> Export:
    """Write a folder of graphs: with all modalities, with RGB alone, and one for each of ``subsets`` of them.

    A network's detector comes along beside them; its maps are held against eager torch on points that are made up.

    Each is held against eager fp32 torch on the first image. int8 is calibrated on the others, or on the same if it is the only
    one, so that its agreement is that of a frame it does not know.

    Raises:
        ConfigError: the runtime is not installed.
        WeightsError: logits, or maps of boxes, differ from eager torch by more than the tolerance (then nothing is written),
            or the folder exists or cannot be written.
    """
    everything = tuple(range(len(segmenter.config.modalities)))
    wanted = sorted({everything, (0,), *subsets}, key=lambda subset: (-len(subset), subset))
    allowed = TOLERANCES[target.precision] if tolerance is None else tolerance
    held_out, *others = images.inputs

    def fill(unfinished: Path) -> Export:
        graphs, verified = [], []
        detector = None if segmenter.detector is None else boxes.write(segmenter.detector, unfinished)
        for subset in wanted:
            name = "+".join(segmenter.config.modalities[index] for index in subset)
            calibration = [image[list(subset)] for image in others or [held_out]]
            graph = _convert(segmenter, target, calibration, subset, unfinished / name)
            difference = _verify(segmenter, target, held_out[list(subset)], graph, unfinished)
            if not difference.distance(target.precision) <= allowed:  # also where it is not a number
                outputs = "logits" if detector is None else "logits and maps of boxes"
                msg = (
                    f"export of {name}: expected {outputs} within {allowed:g} of eager torch on {images.what}, got {difference}"
                )
                raise WeightsError(msg)
            graphs.append(graph)
            verified.append(f"{name}: {difference}")
        return Export(
            target.runtime,
            target.precision,
            target.height,
            target.width,
            segmenter.config,
            checkpoint,
            tuple(graphs),
            verified=f"on {images.what}, against eager torch: {'; '.join(verified)}",
            made_with={"gemini_ros": __version__, "torch": torch.__version__, "python": platform.python_version()},
            detector=detector,
        )

    return artifact.write(folder, fill)


class _Fixed(nn.Module):
    """A folded segmenter for one set of modalities, since a graph cannot choose; of a detector, it gives what this takes."""

    def __init__(self, segmenter: Segmenter, subset: tuple[int, ...]) -> None:
        super().__init__()
        self.network = fold(segmenter)
        self.network.detector = None
        self.subset = subset
        self.gives_features = boxes.needs_features(segmenter.config)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        logits, features = self.network.with_features(images, self.subset)
        return (logits, *features) if self.gives_features else logits


def _convert(segmenter: Segmenter, target: Target, inputs: Sequence[F32], subset: tuple[int, ...], stem: Path) -> Graph:
    """Write one graph; gives it with the hashes of its files."""
    room = openvino if target.runtime == "openvino" else onnx
    file = stem.with_name(f"{stem.name}.{room.SUFFIX}")
    room.convert(_Fixed(segmenter, subset).eval(), torch.from_numpy(inputs[0]), target.precision, inputs, file)
    files = sorted(stem.parent.glob(f"{stem.name}.*"))
    return Graph(subset, file.name, {path.name: artifact.sha256(path) for path in files})


def _verify(segmenter: Segmenter, target: Target, images: F32, graph: Graph, folder: Path) -> Verified:
    """Compare a graph, and the detector beside it, with eager torch.

    TensorRT's is compared in ONNX Runtime: its engine is built where it runs.
    """
    inputs = torch.from_numpy(images)
    present = [index in graph.present for index in range(len(segmenter.config.modalities))]
    slots = iter(inputs.unsqueeze(1))
    config = segmenter.config.detector
    cloud = None if config is None else boxes.made_up_points(config, target.height, target.width)
    with torch.no_grad():
        exact = segmenter.quarter_logits(
            [next(slots) if flag else None for flag in present], present, clouds=None if cloud is None else [cloud]
        )
    runtime, precision = ("onnx", "fp32") if target.runtime == "tensorrt" else (target.runtime, target.precision)
    opened = open_graphs(folder, runtime, precision, [graph], torch.get_num_threads())
    if cloud is None or exact.boxes is None:
        return Verified(compare(exact.ensemble, opened.run(inputs, graph.present)))
    exported = boxes.ExportedDetector(folder / boxes.FILE, segmenter.config, opened)
    logits, maps = exported.run(inputs, graph.present, cloud)
    return Verified(compare(exact.ensemble, logits), compare_maps(exact.boxes, maps))

"""Time of the detector beside the segmentation, as a ratio, in torch and exported, and of NMS."""

from __future__ import annotations

import importlib.util
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.model.timing import in_turns, ratio
from gemini_core.errors import WeightsError
from gemini_core.model import checkpoints
from gemini_core.model.checkpoints import CheckpointInfo
from gemini_core.model.detection.boxes import nms
from gemini_core.model.detection.interface import Cloud
from gemini_core.model.detection.pillars.codec import decode
from gemini_core.model.segmentation import Segmenter
from gemini_core.runtimes.base import Runtime
from gemini_core.runtimes.eager import TorchRuntime
from gemini_core.runtimes.export import Images, Target, export
from gemini_core.runtimes.exported import ExportedRuntime
from gemini_core.runtimes.images import made_up, normalise

POINTS, BOXES, ROUNDS = 120_000, 1000, 25
_SIZE = (480, 640)
_MAX_IOU = 0.2


def timing(weights: Path) -> str:
    """Time both, in OpenVINO too where it is installed, and give the section.

    Raises:
        WeightsError: the weights cannot be read or have no detector.
    """
    segmenter, info = checkpoints.load(weights)
    if segmenter.detector is None:
        msg = f"{weights}: expected weights with a detector, got some without one"
        raise WeightsError(msg)
    grid = segmenter.detector.config.head_grid
    which = tuple(range(len(segmenter.config.modalities)))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(len(which), 3, *_SIZE, generator=generator)
    cloud, boxes, scores = _sweep(generator), _boxes(generator), torch.rand(BOXES, generator=generator)

    def contenders(runtime: Runtime, name: str) -> dict[str, Callable[[], object]]:
        def both() -> None:
            _, maps = runtime.run_with_boxes(images, which, cloud)
            decode(maps, grid, max_boxes=500, min_score=0.05)

        return {f"masks, {name}": lambda: runtime.run(images, which), f"masks and boxes, {name}": both}

    every = contenders(TorchRuntime(segmenter, torch.device("cpu"), "fp32"), "torch")
    with tempfile.TemporaryDirectory() as folder:
        if importlib.util.find_spec("openvino") is not None:
            every |= contenders(_exported(segmenter, info, Path(folder) / "export"), "OpenVINO")
    with torch.inference_mode():
        seconds = in_turns(every, ROUNDS)
        suppression = in_turns({"nms": lambda: nms(boxes, scores, _MAX_IOU)}, ROUNDS, time.process_time)["nms"]
    beside = {name: f"{ratio(seconds, name, 'masks, torch'):.2f}" for name in seconds}
    beside["masks and boxes, torch"] += " (at most 1.5)"
    rows = "".join(f"| {name} | {1e3 * np.median(values):.0f} | {beside[name]} |\n" for name, values in seconds.items())
    inside = int(cloud.visible.sum()) if cloud.visible is not None else 0
    left = len(nms(boxes, scores, _MAX_IOU))
    suppression_ms = 1e3 * np.median(suppression)
    return (
        f"`python -m benchmarks.boxes --timing`: {len(which)} modalities at {_SIZE[1]}x{_SIZE[0]}, {POINTS:,} points in the "
        f"detector's range, of which the image sees {inside:,}; fp32, {torch.get_num_threads()} threads of "
        f"{platform.machine()}, medians of {ROUNDS} rounds in turns.\n\n"
        f"| | ms | beside the segmentation in torch |\n|---|---:|---:|\n{rows}\n"
        f"Suppression of {BOXES} boxes of one class by their exact overlap ({left} left): {suppression_ms:.1f} ms "
        "of CPU time (at most 20)."
    )


def _exported(segmenter: Segmenter, info: CheckpointInfo, folder: Path) -> ExportedRuntime:
    """Export for OpenVINO and open what was written, after which the folder may go."""
    images = made_up(len(info.normalization), *_SIZE)
    checked_on = Images([normalise(images, info.normalization)], "made-up images")
    done = export(segmenter, info, Target("openvino", "fp32", *_SIZE), folder, checked_on)
    return ExportedRuntime(folder, done, torch.get_num_threads())


def _sweep(generator: torch.Generator) -> Cloud:
    """Points all over the range; an image of 80 degrees sees seven in ten of them."""
    x = 51.2 * torch.rand(POINTS, generator=generator)
    y = 51.2 * torch.rand(POINTS, generator=generator) - 25.6
    z = 4 * torch.rand(POINTS, generator=generator) - 0.5
    height, width = _SIZE
    focal = width / 2 / np.tan(np.radians(40))
    u = width / 2 - focal * y / x.clamp(min=0.1)
    v = height / 2 - focal * (z - 1.6) / x.clamp(min=0.1)
    visible = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    values = torch.stack([x, y, z, torch.rand(POINTS, generator=generator)], dim=1)
    return Cloud(values, torch.stack([u, v], dim=1), visible)


def _boxes(generator: torch.Generator) -> torch.Tensor:
    """Cars of a full car park, many of them on each other."""
    places = torch.rand(BOXES, 3, generator=generator) * torch.tensor([51.2, 51.2, 0.5]) - torch.tensor([0.0, 25.6, 0.0])
    sizes = torch.tensor([4.2, 1.8, 1.5]).expand(BOXES, 3)
    yaw = 2 * np.pi * torch.rand(BOXES, 1, generator=generator)
    return torch.cat([places, sizes, yaw], dim=1)

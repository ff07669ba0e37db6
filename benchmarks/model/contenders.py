"""What is compared: the reference, ours in torch, and ours in every runtime that is installed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.model.reference import Reference
from gemini_core.model.checkpoints import default_normalization
from gemini_core.model.folding import fold
from gemini_core.model.segmentation import Segmenter, SegmenterConfig
from gemini_core.runtimes import artifact, onnx, openvino
from gemini_core.runtimes.artifact import Graph
from gemini_core.runtimes.exported import open_graphs
from gemini_core.runtimes.images import from_picture, made_up, normalise
from gemini_core.types import F32

REPOSITORY = Path(__file__).resolve().parents[2]
CALIBRATION_FRAMES = 16


@dataclass
class Model:
    """A network with seeded random weights, its plain form, and images (M, 3, H, W) for it."""

    segmenter: Segmenter
    reference: Reference
    folded: nn.Module
    frames: list[F32]
    pictures: int

    @property
    def images(self) -> Tensor:
        """The frame that everything is compared on."""
        return torch.from_numpy(self.frames[0])


def make(config: SegmenterConfig, height: int, width: int) -> Model:
    """Make a network; its images are real pictures where there are any beside the checkout."""
    torch.manual_seed(0)
    segmenter = Segmenter(config).eval().requires_grad_(requires_grad=False)
    modalities = len(config.modalities)
    folder = Path(os.environ.get("GEMINI_SHARED", REPOSITORY.parent / "shared")) / "real"
    pictures = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    chosen = pictures[:: max(1, len(pictures) // CALIBRATION_FRAMES)][:CALIBRATION_FRAMES]
    channels = [from_picture(path, modalities, height, width) for path in chosen] or [made_up(modalities, height, width)]
    normalization = default_normalization(config.modalities)
    frames = [normalise(each, normalization) for each in channels]
    return Model(segmenter, Reference(segmenter), fold(segmenter), frames, len(chosen))


def eager(model: Model) -> dict[str, Callable[[], Tensor]]:
    """Reference, and ours in torch as it is trained and folded."""
    inputs = list(model.images.unsqueeze(1))
    return {
        "reference, torch": lambda: _quietly(lambda: model.reference.quarter_logits(inputs)),
        "ours, torch, as trained": lambda: _quietly(lambda: model.segmenter.quarter_logits(inputs).ensemble),
        "ours, torch": lambda: _quietly(lambda: model.folded(model.images)),
    }


def exported(model: Model, folder: Path, which: Sequence[tuple[str, str]]) -> dict[str, Callable[[], Tensor]]:
    """Ours in exported runtimes, (runtime, precision) each; those that are not installed are left out."""
    contenders: dict[str, Callable[[], Tensor]] = {}
    present = tuple(range(len(model.frames[0])))
    for runtime, precision in which:
        needed = [{"openvino": "openvino", "onnx": "onnxruntime"}[runtime], *(["nncf"] if precision == "int8" else [])]
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
        if missing:
            print(f"{runtime} {precision} is left out: {', '.join(missing)} is not installed", flush=True)
            continue
        print(f"exporting for {runtime} {precision}", flush=True)
        room = {"openvino": openvino, "onnx": onnx}[runtime]
        stored = "int8" if precision == "int8" else "fp32"
        file = folder / f"{runtime}-{stored}.{room.SUFFIX}"
        if not file.is_file():
            room.convert(model.folded, model.images, stored, model.frames, file)
        graph = Graph(present, file.name, {file.name: artifact.sha256(file)})
        opened = open_graphs(folder, runtime, precision, [graph], torch.get_num_threads())
        name = {"openvino": "OpenVINO", "onnx": "ONNX Runtime"}[runtime]
        contenders[f"ours, {name} {precision}"] = lambda opened=opened: opened.run(model.images, present)
    return contenders


def too_slow(name: str) -> bool:
    """Whether a contender is emulated on this machine, so that one pass is all one wants."""
    return name.startswith("ours, OpenVINO") and openvino.emulated(name.rpartition(" ")[2])


def transformers_segformer(height: int, width: int, num_classes: int) -> dict[str, Callable[[], Tensor]]:
    """SegFormer-B3 of the transformers library on one modality, with our head's width; nothing where it is not installed."""
    if importlib.util.find_spec("transformers") is None:
        print("SegFormer of transformers is left out: transformers is not installed", flush=True)
        return {}
    from transformers import SegformerConfig, SegformerForSemanticSegmentation  # noqa: PLC0415 - optional

    numbers = {"depths": [3, 4, 18, 3], "hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 256}
    network = SegformerForSemanticSegmentation(SegformerConfig(**numbers, num_labels=num_classes)).eval()
    image = torch.randn(1, 3, height, width)
    return {"transformers, SegFormer-B3, one modality, torch": lambda: _quietly(lambda: network(image).logits)}


def _quietly(run: Callable[[], Tensor]) -> Tensor:
    with torch.inference_mode():
        return run()

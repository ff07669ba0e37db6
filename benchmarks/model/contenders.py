"""Contenders: the reference, ours in torch, and ours in every runtime that is installed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn

from benchmarks.model.reference import Reference
from gemini_core.config.sections import DepthConfig
from gemini_core.model.checkpoints import default_normalization
from gemini_core.model.folding import fold
from gemini_core.model.segmentation import Segmenter, SegmenterConfig
from gemini_core.project.depth import encode_depth
from gemini_core.runtimes import artifact, onnx, openvino
from gemini_core.runtimes.artifact import Graph
from gemini_core.runtimes.exported import open_graphs
from gemini_core.runtimes.images import from_picture, made_up, normalise
from gemini_core.types import F32, CameraModel

REPOSITORY = Path(__file__).resolve().parents[2]
SEVEN_SCENES = CameraModel(640, 480, 585.0, 585.0, 320.0, 240.0)
NYU = CameraModel(640, 480, 518.86, 519.47, 325.58, 253.74)


@dataclass
class Model:
    """A network with seeded random weights, its plain form, and normalised frames for it.

    ``images`` (M, 3, H, W) is what everything is compared on, ``calibration`` what int8 is calibrated with; ``real`` says
    whether these were recorded.
    """

    segmenter: Segmenter
    reference: Reference
    folded: nn.Module
    images: Tensor
    calibration: list[F32]
    real: bool


def make(config: SegmenterConfig, height: int, width: int) -> Model:
    """Make a network; its frames are real ones where the recordings are beside the checkout."""
    torch.manual_seed(0)
    segmenter = Segmenter(config).eval().requires_grad_(requires_grad=False)
    _leave_the_start(segmenter)
    modalities = len(config.modalities)
    recorded = real_frames(modalities, height, width)
    normalization = default_normalization(config.modalities)
    frames = [normalise(each, normalization) for each in recorded or [made_up(modalities, height, width)]]
    compared, *calibration = frames
    return Model(
        segmenter, Reference(segmenter), fold(segmenter), torch.from_numpy(compared), calibration or frames, bool(recorded)
    )


def _leave_the_start(segmenter: Segmenter) -> None:
    """Move norms, biases and statistics from ones and zeros, which a runtime would leave out of its graph."""
    for parameter in segmenter.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.02)
    for norm in segmenter.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)


def real_frames(modalities: int, height: int, width: int) -> list[F32]:
    """Read frames of colour and metric depth, (M, 3, height, width) in [0, 1]; none where the recordings are not there.

    Three were recorded; the last two come mirrored as well. Depth is encoded as the pipeline does it, and stands for every
    modality beside RGB.
    """
    folder = Path(os.environ.get("GEMINI_SHARED", REPOSITORY.parent / "shared")) / "real"
    if not folder.is_dir():
        return []
    scenes, nyu = folder / "seven_scenes", folder / "nyuv2"
    frames = [
        _frame(scenes / f"frame-{number:06d}.color.png", _metres(scenes / f"frame-{number:06d}.depth.png"), SEVEN_SCENES)
        for number in (160, 150)
    ]
    frames.append(_frame(nyu / "rgb_0.jpg", np.ascontiguousarray(np.load(nyu / "depth_0.npy"), np.float32), NYU))
    mirrored = [np.ascontiguousarray(frame[..., ::-1]) for frame in frames[1:]]
    return [_sized(frame, modalities, height, width) for frame in (*frames, *mirrored)]


def _metres(picture: Path) -> F32:
    """Read depth in millimetres, in which 65535 says that there is none; +inf where there is none."""
    millimetres = cv2.imread(str(picture), cv2.IMREAD_UNCHANGED)
    metres: F32 = np.where(millimetres == np.iinfo(np.uint16).max, np.inf, millimetres / 1000.0).astype(np.float32)
    return metres


def _frame(picture: Path, metres: F32, camera: CameraModel) -> F32:
    """Put colour and encoded depth beside each other: (2, 3, h, w)."""
    rgb = from_picture(picture, 1, *metres.shape)
    return np.concatenate((rgb, encode_depth(metres, camera, DepthConfig()).channels[None]))


def _sized(frame: F32, modalities: int, height: int, width: int) -> F32:
    resized = F.interpolate(torch.from_numpy(frame), size=(height, width), mode="nearest").numpy()
    return np.concatenate((resized[:1], *[resized[1:]] * (modalities - 1)))


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
    present = tuple(range(len(model.images)))
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
            room.convert(model.folded, model.images, stored, model.calibration, file)
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

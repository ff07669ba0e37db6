"""OpenVINO graphs, on CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gemini_core.errors import WeightsError
from gemini_core.extras import need
from gemini_core.runtimes.artifact import Graph, check_numbers
from gemini_core.types import F32

PRECISIONS = ("fp32", "bf16", "int8")
SUFFIX = "xml"
# What is not quantised runs in this precision; without the hint, OpenVINO takes bf16 by itself where the CPU has it.
_FLOATS = ("f16", "f32", "f64")
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


def convert(network: nn.Module, example: Tensor, precision: str, calibration: Sequence[F32], file: Path) -> None:
    """Write the graph of a network for the shape of ``example``; int8 needs images (A, 3, H, W) to calibrate it.

    Raises:
        WeightsError: the graph cannot be written.
        ConfigError: OpenVINO, or for int8 NNCF, is not installed.
    """
    openvino = need("openvino", "OpenVINO", "model.runtime", "openvino")
    with torch.no_grad():
        exported = torch.export.export(network, (example,))
    model = openvino.convert_model(exported)
    model.reshape({0: list(example.shape)})
    if precision == "int8":
        model = _quantise(model, calibration)
    try:
        openvino.save_model(model, file, compress_to_fp16=False)
    except RuntimeError as error:  # a full disk too
        msg = f"export: expected room to write the graph {file.name}, got: {' '.join(str(error).split())}"
        raise WeightsError(msg) from None


def _quantise(model: Any, calibration: Sequence[F32]) -> Any:  # noqa: ANN401 - OpenVINO's own type, which may not be there
    """Quantise weights per channel and activations per tensor.

    NNCF would by itself quantise what goes into depth-wise convolutions per channel, and put that before the expanding product,
    where the axis is that of the tokens: then OpenVINO runs it as an operation of its own and the convolution in fp32. And it
    would scale channels against outliers (SmoothQuant): one more pass over every activation, without a gain in agreement here.
    """
    nncf = need("nncf", "NNCF", "model.runtime", "quantization")
    advanced = need("nncf.quantization.advanced_parameters", "NNCF", "model.runtime", "quantization")
    return nncf.quantize(
        model,
        nncf.Dataset(calibration),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(calibration),
        advanced_parameters=advanced.AdvancedQuantizationParameters(
            activations_quantization_params=advanced.QuantizationParameters(per_channel=False),
            smooth_quant_alphas=advanced.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1),
        ),
    )


def emulated(precision: str) -> bool:
    """Whether this CPU has no instructions for a precision: OpenVINO then emulates it, tens of times slower."""
    core = need("openvino", "OpenVINO", "model.runtime", "openvino").Core()
    return precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoRuntime:
    """Compiled graphs, one per set of modalities."""

    device = torch.device("cpu")

    def __init__(self, folder: Path, graphs: Sequence[Graph], precision: str, threads: int) -> None:
        openvino = need("openvino", "OpenVINO", "model.runtime", "openvino")
        core = openvino.Core()
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        self._requests = {}
        for graph in graphs:
            model = core.read_model(folder / graph.file)
            for node in model.get_ops():
                if node.get_type_name() == "Constant" and node.get_element_type().to_string() in _FLOATS:
                    check_numbers(node.get_friendly_name(), node.data, folder / graph.file)
            self._requests[graph.present] = core.compile_model(model, "CPU", options).create_infer_request()
        self._what = f"{precision} in OpenVINO {openvino.__version__.partition('-')[0]} on cpu"

    def run(self, images: Tensor, present: tuple[int, ...]) -> Tensor:
        """Segment one frame; see ``Runtime``."""
        return self._run(images, present, 1)[0]

    def run_with_features(self, images: Tensor, present: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
        """Segment one frame, and give the features of each stage; see ``Graphs``."""
        logits, *features = self._run(images, present, len(self._requests[present].model_outputs))
        return logits, features

    def describe(self) -> str:
        """Say in a few words what runs where."""
        return self._what

    def _run(self, images: Tensor, present: tuple[int, ...], wanted: int) -> list[Tensor]:
        """Run a graph; gives its first outputs, copied, since the request writes its next results into the same memory."""
        results = self._requests[present].infer({0: images.numpy()}, share_outputs=True)
        return [torch.from_numpy(np.array(results[index])) for index in range(wanted)]

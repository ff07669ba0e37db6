"""ONNX graphs: run by ONNX Runtime on CPUs, and what TensorRT builds its engines from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from gemini_core.errors import WeightsError
from gemini_core.extras import need
from gemini_core.runtimes.artifact import Graph, check_numbers
from gemini_core.types import F32

PRECISIONS = ("fp32",)
SUFFIX = "onnx"
INPUT, OUTPUT = "images", "logits"
FEATURES = "features"
"""What the names of further outputs begin with, those of the stages, 0 the finest."""

_OPSET = 20  # the first with GELU


def convert(network: nn.Module, example: Tensor, precision: str, calibration: Sequence[F32], file: Path) -> None:
    """Write the graph of a network for the shape of ``example``; ``precision`` is up to the runtime that opens it.

    The network gives logits, or logits and the features of each stage.
    """
    del precision, calibration
    onnx = need("onnx", "ONNX", "model.runtime", "onnx")
    need("onnxscript", "ONNX Script", "model.runtime", "onnx")
    with torch.no_grad():
        exported = torch.export.export(network, (example,))
        stages = range(len(exported.graph_signature.user_outputs) - 1)
        torch.onnx.export(
            exported,
            (example,),
            str(file),
            input_names=[INPUT],
            output_names=[OUTPUT, *(f"{FEATURES}{stage}" for stage in stages)],
            opset_version=_OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    onnx.checker.check_model(str(file), full_check=True)  # infers every shape
    _check_shapes(onnx.load(str(file)), example, file)


def _check_shapes(model: object, example: Tensor, file: Path) -> None:
    outputs = model.graph.output  # type: ignore[attr-defined] # a protobuf, without types
    shape, *others = (tuple(size.dim_value for size in output.type.tensor_type.shape.dim) for output in outputs)
    quarter = tuple(-(-side // 4) for side in example.shape[2:])
    if len(shape) != example.ndim or shape[0] != 1 or shape[2:] != quarter:
        msg = f"{file.name}: expected a graph that gives (1, K, {quarter[0]}, {quarter[1]}), got {shape}"
        raise WeightsError(msg)
    for stage, features in enumerate(others):
        if len(features) != example.ndim or min(features) < 1:
            msg = f"{file.name}: expected features (S, C, h, w) of fixed size of stage {stage}, got {features}"
            raise WeightsError(msg)


def check_weights(file: Path) -> None:
    """Check the weights of a graph.

    Raises:
        WeightsError: some are NaN.
    """
    onnx = need("onnx", "ONNX", "model.runtime", "onnx")
    for weights in onnx.load(str(file)).graph.initializer:
        check_numbers(weights.name, onnx.numpy_helper.to_array(weights), file)


class OnnxRuntime:
    """Sessions of ONNX Runtime, one per set of modalities."""

    device = torch.device("cpu")

    def __init__(self, folder: Path, graphs: Sequence[Graph], precision: str, threads: int) -> None:
        runtime = need("onnxruntime", "ONNX Runtime", "model.runtime", "onnx")
        for graph in graphs:
            check_weights(folder / graph.file)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._sessions = {
            graph.present: runtime.InferenceSession(folder / graph.file, options, providers=["CPUExecutionProvider"])
            for graph in graphs
        }
        self._what = f"{precision} in ONNX Runtime {runtime.__version__} on cpu"

    def run(self, images: Tensor, present: tuple[int, ...]) -> Tensor:
        """Segment one frame; see ``Runtime``."""
        (logits,) = self._sessions[present].run([OUTPUT], {INPUT: images.numpy()})
        return torch.from_numpy(logits)

    def run_with_features(self, images: Tensor, present: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
        """Segment one frame, and give the features of each stage; see ``Graphs``."""
        logits, *features = map(torch.from_numpy, self._sessions[present].run(None, {INPUT: images.numpy()}))
        return logits, features

    def describe(self) -> str:
        """Say in a few words what runs where."""
        return self._what

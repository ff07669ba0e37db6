"""TensorRT engines on NVIDIA GPUs: built from ONNX graphs where they run, as one fits one kind of GPU and version."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gemini_core.errors import ConfigError, WeightsError
from gemini_core.extras import need
from gemini_core.files import write_whole
from gemini_core.runtimes.artifact import Graph
from gemini_core.runtimes.onnx import INPUT, OUTPUT, check_weights

PRECISIONS = ("fp32", "bf16", "fp16")


class TensorRtRuntime:
    """Engines, one per set of modalities. The first start builds them, for minutes, and keeps them beside the graphs."""

    device = torch.device("cuda")

    def __init__(self, folder: Path, graphs: Sequence[Graph], precision: str) -> None:
        tensorrt = need("tensorrt", "TensorRT (it comes with JetPack, or pip install tensorrt)", "model.runtime")
        if not torch.cuda.is_available():
            msg = "model.runtime: expected a CUDA device for TensorRT, got none"
            raise ConfigError(msg)
        self._logger = tensorrt.Logger(tensorrt.Logger.WARNING)
        self._runtime = tensorrt.Runtime(self._logger)
        build = functools.partial(_build, tensorrt, self._logger)
        engines = KeptEngines(tensorrt.__version__, self._runtime.deserialize_cuda_engine, build)
        self._contexts = {}
        for graph in graphs:
            engine = engines.engine(folder / graph.file, graph.sha256[graph.file], precision)
            names = sorted(engine.get_tensor_name(index) for index in range(engine.num_io_tensors))
            shapes = {name: tuple(engine.get_tensor_shape(name)) for name in names if name != INPUT}
            self._contexts[graph.present] = engine.create_execution_context(), shapes
        self._what = f"{precision} in TensorRT {tensorrt.__version__} on {torch.cuda.get_device_name()}"

    def run(self, images: Tensor, present: tuple[int, ...]) -> Tensor:
        """Segment one frame; see ``Runtime``. The images are on the GPU, and so are the logits."""
        return self.run_with_features(images, present)[0]

    def run_with_features(self, images: Tensor, present: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
        """Segment one frame, and give the features of each stage, all on the GPU; see ``Graphs``."""
        context, shapes = self._contexts[present]
        images = images.contiguous()
        outputs = {name: torch.empty(shape, device=images.device) for name, shape in shapes.items()}
        context.set_tensor_address(INPUT, images.data_ptr())
        for name, output in outputs.items():  # an engine does not run while one of its outputs has no place
            context.set_tensor_address(name, output.data_ptr())
        stream = torch.cuda.current_stream()
        if not context.execute_async_v3(stream.cuda_stream):
            msg = "model.runtime: expected TensorRT to run its engine, got a failure, which its log above explains"
            raise WeightsError(msg)
        stream.synchronize()
        return outputs.pop(OUTPUT), list(outputs.values())

    def describe(self) -> str:
        """Say in a few words what runs where."""
        return self._what


@dataclass(frozen=True)
class KeptEngines:
    """Engines of graphs, kept beside them: each is of one kind of GPU and one ``version`` of TensorRT.

    ``read`` opens a plan, or gives None for a broken one; ``build`` makes the plan of a graph in a precision.
    """

    version: str
    read: Callable[[bytes], Any]
    build: Callable[[Path, str], bytes]

    def engine(self, graph: Path, digest: str, precision: str) -> Any:  # noqa: ANN401 - TensorRT has no types
        """Give the engine of the graph in this file with this SHA-256, built where none is kept.

        Raises:
            WeightsError: TensorRT cannot build it or reads no plan of this file, or it cannot be kept.
        """
        gpu = "".join(letter if letter.isalnum() else "_" for letter in torch.cuda.get_device_name())
        kept = graph.with_name(f"{graph.stem}.{digest[:12]}.{precision}.{gpu}.{self.version}.plan")
        if kept.is_file():
            return self._opened(kept.read_bytes(), kept)
        plan = self.build(graph, precision)
        engine = self._opened(plan, kept)
        write_whole(kept, plan, WeightsError)
        return engine

    def _opened(self, plan: bytes, where: Path) -> Any:  # noqa: ANN401 - TensorRT has no types
        engine = self.read(plan)
        if engine is None:
            msg = f"{where}: expected an engine that TensorRT reads, got a broken one; without the file it is built anew"
            raise WeightsError(msg)
        return engine


def _build(tensorrt: Any, logger: Any, graph: Path, precision: str) -> bytes:  # noqa: ANN401 - TensorRT has no types
    check_weights(graph)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(graph.read_bytes()):
        msg = f"{graph}: expected a graph that TensorRT reads, got {parser.get_error(0).desc()}"
        raise WeightsError(msg)
    options = builder.create_builder_config()
    options.clear_flag(tensorrt.BuilderFlag.TF32)
    if precision != "fp32":
        options.set_flag({"bf16": tensorrt.BuilderFlag.BF16, "fp16": tensorrt.BuilderFlag.FP16}[precision])
    plan = builder.build_serialized_network(network, options)
    if plan is None:
        msg = f"{graph}: expected a graph that TensorRT can build, got a failure, which its log above explains"
        raise WeightsError(msg)
    return bytes(plan)

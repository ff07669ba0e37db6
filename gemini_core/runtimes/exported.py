"""Opens exported networks, and gives every frame to the graph that fits what it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from gemini_core.errors import ConfigError, GeminiError, ShapeError, WeightsError
from gemini_core.runtimes import artifact, openvino
from gemini_core.runtimes.artifact import Export, Graph
from gemini_core.runtimes.base import Runtime
from gemini_core.runtimes.onnx import OnnxRuntime
from gemini_core.runtimes.openvino import OpenVinoRuntime
from gemini_core.runtimes.tensorrt import TensorRtRuntime

EXPORTED_RUNTIMES = ("openvino", "onnx", "tensorrt")


class ExportedRuntime:
    """An exported network that is ready to run.

    Where no graph is for exactly what a frame has, the one that uses most of it runs; RGB alone is always there.
    """

    def __init__(self, folder: str | Path, export: Export, threads: int) -> None:
        """Check the files and load the graphs.

        Raises:
            WeightsError: the files are not those that were exported.
            ConfigError: the runtime is not installed, or lacks its device or the instructions for the precision.
        """
        artifact.check_files(folder, export)
        if export.runtime == "openvino" and openvino.emulated(export.precision):
            msg = f"model.weights: expected a CPU with {export.precision} instructions for {folder}, got one that emulates them"
            raise ConfigError(msg)
        self._export = export
        self._runtime = open_graphs(Path(folder), export.runtime, export.precision, export.graphs, threads)
        self.device = self._runtime.device

    def run(self, images: Tensor, present: tuple[int, ...]) -> Tensor:
        """Segment one frame; see ``Runtime``.

        Raises:
            ShapeError: the images are of another size than the graphs.
        """
        expected = (self._export.height, self._export.width)
        if tuple(images.shape[2:]) != expected:
            msg = f"network input: expected {expected}, height and width of the export, got {tuple(images.shape[2:])}"
            raise ShapeError(msg)
        used = self._export.graph_for(present).present
        if used != present:
            images = images[[present.index(index) for index in used]]
        return self._runtime.run(images, used)

    def describe(self) -> str:
        """Say in a few words what runs where."""
        return self._runtime.describe()


def open_graphs(folder: Path, runtime: str, precision: str, graphs: Sequence[Graph], threads: int) -> Runtime:
    """Load graphs into their runtime.

    Raises:
        WeightsError: the runtime cannot read them, for example because it is older than the one that they were made for.
        ConfigError: it is not installed, or lacks its device.
    """
    try:
        if runtime == "openvino":
            return OpenVinoRuntime(folder, graphs, precision, threads)
        if runtime == "onnx":
            return OnnxRuntime(folder, graphs, precision, threads)
        return TensorRtRuntime(folder, graphs, precision)
    except GeminiError:
        raise
    except Exception as error:  # noqa: BLE001 - runtimes have exceptions of their own, derived from nothing in common
        reason = " ".join(str(error).split()) or type(error).__name__
        msg = f"{folder}: expected graphs that {runtime} as installed here reads, got: {reason}"
        raise WeightsError(msg) from None

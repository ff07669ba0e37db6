"""Exported networks, opened and run: every frame goes to the graph that fits the modalities it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from gemini_core.errors import ConfigError, GeminiError, ShapeError, WeightsError
from gemini_core.model.detection.interface import Cloud
from gemini_core.model.detection.pillars.codec import BevMaps
from gemini_core.runtimes import artifact, openvino
from gemini_core.runtimes.artifact import Export, Graph
from gemini_core.runtimes.base import Graphs
from gemini_core.runtimes.boxes import ExportedDetector
from gemini_core.runtimes.onnx import OnnxRuntime
from gemini_core.runtimes.openvino import OpenVinoRuntime
from gemini_core.runtimes.tensorrt import TensorRtRuntime

EXPORTED_RUNTIMES = ("openvino", "onnx", "tensorrt")


class ExportedRuntime:
    """An exported network that is ready to run.

    Where no graph is for exactly what a frame has, the one that uses most of it runs; RGB alone is always there.
    """

    def __init__(self, folder: str | Path, export: Export, threads: int) -> None:
        """Check the files, load the graphs and, where there is one, the detector.

        Raises:
            WeightsError: the files are not those that were exported.
            ConfigError: the runtime is not installed, or lacks its device or the instructions for the precision.
        """
        artifact.check_files(folder, export)
        if export.runtime == "openvino" and openvino.emulated(export.precision):
            msg = f"model.weights: expected a CPU with {export.precision} instructions for {folder}, got one that emulates them"
            raise ConfigError(msg)
        self._export = export
        folder = Path(folder)
        self._graphs = open_graphs(folder, export.runtime, export.precision, export.graphs, threads)
        self._detector = None
        if export.detector is not None:
            self._detector = ExportedDetector(folder / export.detector.file, export.segmenter, self._graphs)
        self.device = self._graphs.device

    def run(self, images: Tensor, present: tuple[int, ...]) -> Tensor:
        """Segment one frame; see ``Runtime``.

        Raises:
            ShapeError: the images are of another size than the graphs.
        """
        return self._graphs.run(*self._fitting(images, present))

    def run_with_boxes(self, images: Tensor, present: tuple[int, ...], cloud: Cloud) -> tuple[Tensor, BevMaps]:
        """Segment one frame and say where boxes are; see ``Runtime``.

        Raises:
            ShapeError: the images are of another size than the graphs, or the cloud is not of the detector's shape.
            ConfigError: the export has no detector.
        """
        if self._detector is None:
            msg = "detections.enabled: expected an export with a detector, got one of masks only"
            raise ConfigError(msg)
        return self._detector.run(*self._fitting(images, present), cloud)

    def describe(self) -> str:
        """Say in a few words what runs where."""
        return self._graphs.describe()

    def _fitting(self, images: Tensor, present: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
        """Leave the modalities that the graph for a frame uses: the images and which they are."""
        expected = (self._export.height, self._export.width)
        if tuple(images.shape[2:]) != expected:
            msg = f"network input: expected {expected}, height and width of the export, got {tuple(images.shape[2:])}"
            raise ShapeError(msg)
        used = self._export.graph_for(present).present
        if used != present:
            images = images[[present.index(index) for index in used]]
        return images, used


def open_graphs(folder: Path, runtime: str, precision: str, graphs: Sequence[Graph], threads: int) -> Graphs:
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

"""An exported network on disk: a folder of graphs, one per set of modalities, and ``export.json`` that says what they are.

Where the network has a detector, its weights lie beside the graphs (``boxes.py``); exports of before that hold masks only.

Nothing in the folder is executed: graphs are data to their runtimes. Every file is known by its SHA-256, so that a broken or
exchanged one is refused before a runtime reads it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gemini_core.documents import read_json
from gemini_core.errors import WeightsError, shown
from gemini_core.files import check_regular, is_file, whole_folder
from gemini_core.model import checkpoints
from gemini_core.model.checkpoints import CheckpointInfo
from gemini_core.model.segmentation import SegmenterConfig

DESCRIPTION = "export.json"
EXPORT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Graph:
    """One graph: the modalities it computes (indices, 0 first), the file a runtime opens, and the SHA-256 of all its files."""

    present: tuple[int, ...]
    file: str
    sha256: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DetectorFile:
    """The weights of a detector, whose configuration is the segmenter's: a safetensors file, and its SHA-256."""

    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Export:
    """What ``export.json`` says.

    ``height`` and ``width`` are those of the input; ``verified`` says for people what the graphs were held against, and how
    far they were from it; ``made_with`` has the versions of what made them. Without ``detector``, there are masks only,
    whatever ``segmenter`` says of the network that was exported.
    """

    runtime: str
    precision: str
    height: int
    width: int
    segmenter: SegmenterConfig
    checkpoint: CheckpointInfo
    graphs: tuple[Graph, ...]
    verified: str
    made_with: Mapping[str, str]
    detector: DetectorFile | None = None

    def graph_for(self, present: tuple[int, ...]) -> Graph:
        """Give the graph that uses the most of the modalities that a frame has; RGB alone is always there."""
        fitting = [graph for graph in self.graphs if set(graph.present) <= set(present)]
        return max(fitting, key=lambda graph: len(graph.present))


def sha256(path: Path) -> str:
    """Hash a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_export(path: str | Path) -> bool:
    """Whether this is an exported network, rather than a weights file."""
    return bool(path) and is_file(Path(path) / DESCRIPTION)


def write(folder: Path, fill: Callable[[Path], Export]) -> Export:
    """Write an export whole or not at all; ``fill`` puts the graphs into a folder that is not yet in its place.

    Raises:
        WeightsError: the folder exists, or cannot be written.
    """
    if folder.exists():
        msg = f"{folder}: expected a folder that does not exist yet, got one that does"
        raise WeightsError(msg)
    with whole_folder(folder, WeightsError) as unfinished:
        export = fill(unfinished)
        (unfinished / DESCRIPTION).write_text(_to_json(export), encoding="utf-8")
    return export


def read_description(folder: str | Path) -> Export:
    """Read ``export.json``.

    Raises:
        WeightsError: it is not the description of an export of this version, or was changed.
    """
    where = str(Path(folder) / DESCRIPTION)

    def another(reason: str) -> WeightsError:
        return WeightsError(f"{where}: expected the description of an export, got another ({reason})")

    try:
        content = read_json(where, another)
        _check_seal(content, where)
        segmenter, checkpoint = checkpoints.parse_description(content["model"], where)
        graphs = tuple(Graph(tuple(graph["present"]), graph["file"], dict(graph["sha256"])) for graph in content["graphs"])
        others = {name: content[name] for name in ("runtime", "precision", "height", "width", "verified", "made_with")}
        detector = content.get("detector")
        others["detector"] = None if detector is None else DetectorFile(**detector)
        return Export(segmenter=segmenter, checkpoint=checkpoint, graphs=graphs, **others)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"{type(error).__name__}: {shown(str(error))}"
        msg = f"{where}: expected the description of an export, got something that breaks at {reason}"
        raise WeightsError(msg) from None


def check_numbers(name: str, weights: npt.NDArray[Any], where: Path) -> None:
    """Check weights that a runtime is to open: OpenVINO's ReLU makes 0 of NaN, and the mask would be of one class.

    Infinity stands in whole graphs, too: Swin masks windows with it.

    Raises:
        WeightsError: some are NaN.
    """
    if np.issubdtype(weights.dtype, np.floating) and np.isnan(weights).any():
        wrong = int(np.isnan(weights).sum())
        msg = f"{where}: expected weights that are numbers, got NaN in {wrong} of the {weights.size} of {shown(name)}"
        raise WeightsError(msg)


def check_files(folder: str | Path, export: Export) -> None:
    """Check every file of an export.

    Raises:
        WeightsError: a file is missing, or is not the one that was exported.
    """
    files = {name: expected for graph in export.graphs for name, expected in graph.sha256.items()}
    if export.detector is not None:
        files[export.detector.file] = export.detector.sha256
    for name, expected in files.items():
        path = Path(folder) / name
        if not path.exists():
            msg = f"{path}: expected the file that {DESCRIPTION} names, got none"
            raise WeightsError(msg)
        check_regular(path, WeightsError)
        if sha256(path) != expected:
            msg = f"{path}: expected the file that was exported (SHA-256 {expected[:12]}...), got another or a broken one"
            raise WeightsError(msg)


def _to_json(export: Export) -> str:
    content = {
        "export_version": EXPORT_VERSION,
        **{name: getattr(export, name) for name in ("runtime", "precision", "height", "width", "verified", "made_with")},
        "model": checkpoints.describe(export.segmenter, export.checkpoint),
        "graphs": [dataclasses.asdict(graph) for graph in export.graphs],
        "detector": None if export.detector is None else dataclasses.asdict(export.detector),
    }
    return json.dumps({**content, "seal": _seal(content)}, indent=1)


def _seal(content: Mapping[str, Any]) -> str:
    """SHA-256 of a description without its seal, however it is laid out."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_seal(content: dict[str, Any], where: str) -> None:
    version = content["export_version"]
    if version != EXPORT_VERSION:
        msg = f"{where}: expected an export of version {EXPORT_VERSION}, got {version}"
        raise WeightsError(msg)
    if content.pop("seal") != _seal(content):
        msg = f"{where}: expected the description that was written (its seal), got a changed or broken one"
        raise WeightsError(msg)

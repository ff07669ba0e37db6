"""The detector of an exported network: its weights lie beside the graphs, and torch runs it on what a graph gives.

It is no part of the graphs, since its number of points changes from frame to frame: torch takes any number of them as it is, so
that there is none to fill up to and none that is too large. What is left of it, a small BEV network, is no slower
in torch than in OpenVINO. It stays in fp32, whatever the precision of the graphs.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from gemini_core.errors import WeightsError
from gemini_core.model.detection.interface import Cloud
from gemini_core.model.detection.pillars.codec import BevMaps
from gemini_core.model.detection.pillars.detector import Detector, DetectorConfig
from gemini_core.model.folding import fold_detector
from gemini_core.model.segmentation import SegmenterConfig
from gemini_core.model.strict import fill, read_safetensors
from gemini_core.runtimes import artifact
from gemini_core.runtimes.artifact import DetectorFile
from gemini_core.runtimes.base import Graphs

FILE = "detector.safetensors"
_POINTS, _SEED = 20_000, 0


def needs_features(config: SegmenterConfig) -> bool:
    """Whether a network has a detector that takes an image's features, so that its graphs have to give them."""
    return config.detector is not None and config.detector.fusion != "lidar"


def write(detector: Detector, folder: Path) -> DetectorFile:
    """Write the weights of a detector into the folder of an export.

    Raises:
        WeightsError: they cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()}
    try:
        save_file(tensors, folder / FILE)
    except (OSError, SafetensorError) as error:
        msg = f"export: expected room to write the weights {FILE}, got: {' '.join(str(error).split())}"
        raise WeightsError(msg) from None
    return DetectorFile(FILE, artifact.sha256(folder / FILE))


class ExportedDetector:
    """A folded detector beside graphs, on their device."""

    def __init__(self, path: Path, config: SegmenterConfig, graphs: Graphs) -> None:
        """Read the weights.

        Raises:
            WeightsError: they cannot be read, or are not those of ``config``'s detector.
        """
        if config.detector is None:
            msg = f"{path}: expected no weights of a detector beside a network without one, got some"
            raise WeightsError(msg)
        tensors, _ = read_safetensors(path)
        for name, tensor in tensors.items():
            artifact.check_numbers(name, tensor.numpy(), path)
        wanted, widths, classes = config.detector, config.backbone_config.widths, config.num_classes
        self._detector = fold_detector(fill(lambda: Detector(wanted, widths, classes), tensors, str(path))).to(graphs.device)
        self._graphs = graphs

    def run(self, images: Tensor, present: tuple[int, ...], cloud: Cloud) -> tuple[Tensor, BevMaps]:
        """Segment one frame and say where boxes are; see ``Runtime.run_with_boxes``. There is a graph for these modalities."""
        logits, features = self._graphs.run_with_features(images, present)
        with torch.inference_mode():
            image = self._detector.look(features, (images.shape[2], images.shape[3]), logits)
            maps: BevMaps = self._detector([cloud], image)
        return logits, maps


def made_up_points(config: DetectorConfig, height: int, width: int) -> Cloud:
    """Make seeded points all over a detector's range, three of four at some pixel of an image, to compare detectors on."""
    generator = torch.Generator().manual_seed(_SEED)
    low, high = (torch.tensor(ends) for ends in (config.range_m[:3], config.range_m[3:]))
    values = torch.rand(_POINTS, config.point_columns, generator=generator)
    values[:, :3] = low + (high - low) * values[:, :3]
    pixels = torch.rand(_POINTS, 2, generator=generator) * torch.tensor([width, height]) - 0.5
    return Cloud(values, pixels, torch.rand(_POINTS, generator=generator) < 0.75)  # noqa: PLR2004 - three of four

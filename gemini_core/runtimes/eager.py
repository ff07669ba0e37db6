"""The torch runtime: eager, or compiled by torch.compile."""

from __future__ import annotations

import os
import shutil

import torch
from torch import Tensor

from gemini_core.errors import ConfigError
from gemini_core.model.detection.interface import Cloud
from gemini_core.model.detection.pillars.codec import BevMaps
from gemini_core.model.folding import fold
from gemini_core.model.segmentation import Segmenter

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchRuntime:
    """A folded segmenter in torch. The caller holds the number of threads."""

    def __init__(self, segmenter: Segmenter, device: torch.device, precision: str, *, compiled: bool = False) -> None:
        """Fold the segmenter.

        Raises:
            ConfigError: it is to be compiled, for which there is no compiler.
        """
        if compiled:
            _require_compiler()
        self.device = device
        self._precision = precision
        self._compiled = compiled
        folded = fold(segmenter).to(device)
        self._detector = folded.detector
        self._network = torch.compile(folded.with_features) if compiled else folded.with_features

    def run(self, images: Tensor, present: tuple[int, ...]) -> Tensor:
        """Segment one frame; see ``Runtime``."""
        dtype = _DTYPES[self._precision]
        with torch.inference_mode(), torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            logits: Tensor = self._network(images, present)[0]
        return logits.float()

    def run_with_boxes(self, images: Tensor, present: tuple[int, ...], cloud: Cloud) -> tuple[Tensor, BevMaps]:
        """Segment one frame and say where boxes are; see ``Runtime``.

        The detector stays in fp32: places need more digits than masks, and its number of points, which changes from frame to
        frame, is nothing to compile for.

        Raises:
            ConfigError: the network has no detector.
        """
        if self._detector is None:
            msg = "detections.enabled: expected weights with a detector, got some without one"
            raise ConfigError(msg)
        dtype = _DTYPES[self._precision]
        with torch.inference_mode():
            with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
                logits, features = self._network(images, present)
            size = (images.shape[2], images.shape[3])
            image = self._detector.look([level.float() for level in features], size, logits)
            maps: BevMaps = self._detector([cloud], image)
        return logits.float(), maps

    def describe(self) -> str:
        """Say in a few words what runs where."""
        return f"{self._precision} in torch{', compiled,' if self._compiled else ''} on {self.device}"


def _require_compiler() -> None:
    """Look for what torch.compile calls at the first frame, where its absence would be found too late."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        msg = f"model.runtime: expected a C++ compiler for torch_compile (g++, or the one that CXX names), got no {compiler!r}"
        raise ConfigError(msg)

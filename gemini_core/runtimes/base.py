"""The runtime interface: what the predictor needs of one, and what all of them share."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor

from gemini_core.errors import ConfigError
from gemini_core.model.detection.interface import Cloud
from gemini_core.model.detection.pillars.codec import BevMaps


class Runtime(Protocol):
    """A network that is ready to run, with its inputs on ``device``."""

    device: torch.device

    def run(self, images: Tensor, present: tuple[int, ...]) -> Tensor:
        """Segment one frame.

        Args:
            images: (A, 3, H, W) float32, normalised: the modalities that the frame has.
            present: which of the network's modalities these are, in order, 0 (RGB) first.

        Returns:
            (1, K, h, w) float32, logits of the ensemble at 1/4 of the size, wherever the images are.
        """

    def run_with_boxes(self, images: Tensor, present: tuple[int, ...], cloud: Cloud) -> tuple[Tensor, BevMaps]:
        """Segment one frame and say where boxes are.

        Args:
            images: as of ``run``.
            present: as of ``run``.
            cloud: the frame's points, on ``device``.

        Returns:
            The logits as of ``run``, and the detector's maps (1, ...) float32.

        Raises:
            ConfigError: the network has no detector.
        """

    def describe(self) -> str:
        """Say in a few words what runs where, for logs."""


class Graphs(Protocol):
    """The graphs of an exported network, one per set of modalities, in what runs them; inputs are on ``device``."""

    device: torch.device

    def run(self, images: Tensor, present: tuple[int, ...]) -> Tensor:
        """Segment one frame; see ``Runtime``. There is a graph for just these modalities."""

    def run_with_features(self, images: Tensor, present: tuple[int, ...]) -> tuple[Tensor, list[Tensor]]:
        """Segment one frame, and give what its detector takes of the images.

        Returns:
            The logits as of ``run``; (S, C, h, w) float32 features of each stage, of S streams (1 or 2), none where the
            network has no detector that takes them.
        """

    def describe(self) -> str:
        """Say in a few words what runs where."""


def require(module: str, extra: str, what: str) -> ModuleType:
    """Import an optional dependency.

    Raises:
        ConfigError: it is not installed; says how to.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        hint = f" (pip install 'gemini_ros[{extra}]')" if extra else ""
        msg = f"model.runtime: expected {what} to be installed{hint}, got no module {module!r}"
        raise ConfigError(msg) from None

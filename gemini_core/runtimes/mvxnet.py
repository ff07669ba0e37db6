"""MVX-Net in torch: boxes from an image and points, beside whatever runs the masks."""

from __future__ import annotations

import torch
from torch import Tensor

from gemini_core.errors import WeightsError
from gemini_core.model.detection.codec import Found
from gemini_core.model.detection.detector import Cloud
from gemini_core.model.detection.mvxnet import MvxNet
from gemini_core.model.detection.mvxnet_image import to_caffe


class MvxRuntime:
    """An MVX-Net on a device, in fp32: places need more digits than masks. The caller holds the number of threads."""

    def __init__(self, network: MvxNet, device: torch.device, weights: str) -> None:
        """Take a network, whose weights come from ``weights``."""
        self._network = network.to(device).eval()
        self._weights = weights

    def find(self, rgb: Tensor, cloud: Cloud, *, max_boxes: int, min_score: float) -> Found:
        """Find the boxes of one frame.

        Args:
            rgb: (1, 3, H, W) float32 in [0, 1], on the device.
            cloud: the frame's points, on the device, their pixels on ``rgb``.
            max_boxes: how many at most.
            min_score: from which score on.

        Raises:
            WeightsError: the weights give maps that are not finite.
        """
        with torch.inference_mode():
            maps = self._network([cloud], to_caffe(rgb))
            if not all(each.isfinite().all() for each in maps):
                msg = f"detections.weights: expected weights that give finite boxes, got others from {self._weights}"
                raise WeightsError(msg)
            return self._network.find(maps, max_boxes=max_boxes, min_score=min_score)[0]

    def describe(self) -> str:
        """Say in a few words what runs, for logs."""
        classes, sparse = len(self._network.config.classes), self._network.pts_middle_encoder.runtime
        return f"boxes of {classes} classes by MVX-Net ({self._weights}), its sparse convolutions in {sparse}"

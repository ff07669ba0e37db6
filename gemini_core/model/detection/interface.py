"""The detector interface: the points that all take, the boxes that all find, and the label boxes that do not count."""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

IGNORED = -1
"""The class of label boxes that are neither to be found nor missed, such as those that no sensor sees."""


class Cloud(NamedTuple):
    """The points of one sample, as ``AlignedPoints`` has them.

    ``points`` (N, point_columns) float32: x, y, z in metres in the detector's frame, intensity in 0 to 1; N may be 0, and
    points that are not finite or out of range are left out. ``pixels`` (N, 2): u, v on the network's grid; ``visible`` (N,)
    bool: the image sees the point there (one that says so of a pixel outside of the grid is taken not to be). Both may be None
    without an image.
    """

    points: Tensor
    pixels: Tensor | None = None
    visible: Tensor | None = None

    def to(self, device: torch.device) -> Cloud:
        """Give the same on a device."""
        pixels, visible = (None if part is None else part.to(device, non_blocking=True) for part in self[1:])
        return Cloud(self.points.to(device, non_blocking=True), pixels, visible)


class Found(NamedTuple):
    """The boxes of one sample, the best first: ``boxes`` (N, 7), ``scores`` (N,) in 0 to 1, ``classes`` (N,) int64.

    ``variances`` (N, 4) of x, y, z (square metres) and yaw (square radians), None where the head gives none.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    variances: Tensor | None = None


_Maps_contra = TypeVar("_Maps_contra", contravariant=True)


class BoxesConfig(Protocol):
    """What the configuration of any detector says of its boxes: what they may be, and where they count."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of boxes."""

    @property
    def range_m(self) -> tuple[float, float, float, float, float, float]:
        """The least x, y, z and the largest, metres in the base frame."""


class BoxDetector(Protocol[_Maps_contra]):
    """A detector, as far as its maps become boxes: ``Detector`` with ``BevMaps``, ``MvxNet`` with ``MvxMaps``."""

    @property
    def config(self) -> BoxesConfig:
        """What it is made of."""

    def find(self, maps: _Maps_contra, *, max_boxes: int = ..., min_score: float = ...) -> list[Found]:
        """Find each sample's boxes in maps, at most ``max_boxes`` from ``min_score`` on."""

"""GeminiFusion of points with the image: at each point, its own features and the image's at its pixel (arXiv 2406.01210, 4.3).

Shapes: N points, P channels of the points, K of the image (all levels joined), C of both after their linear maps.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn

from gemini_core.model.fusion import GeminiFusion

Joining: TypeAlias = Literal["gemini", "none"]
"""GeminiFusion, or the plain average of both sides."""

NORM_EPS = 1e-3
"""What norms over points add to a variance, as in the released KITTI models."""


class PointNorm(nn.BatchNorm1d):
    """BatchNorm over points (N, C); with fewer than two points, while training, it uses what it has learnt so far."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=NORM_EPS, momentum=0.1)

    def forward(self, values: Tensor) -> Tensor:
        """Normalise (N, C)."""
        if self.training and len(values) < 2:  # noqa: PLR2004 - one value has no deviation
            return F.batch_norm(values, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(values)


class PointFusion(nn.Module):
    """Bring both sides to one width, fuse them point by point, add them up by learnt shares, ReLU.

    A point that the image does not see goes through its own branch alone: fused with itself (``TwoKeyAttention.alone``), at a
    share of 1, as a segmenter treats RGB without another modality.
    """

    def __init__(self, image_width: int, point_width: int, width: int, *, heads: int = 8, joining: Joining = "gemini") -> None:
        """Build the layer.

        Args:
            image_width: K; 0 where there is never an image, and then nothing is built for one.
            point_width: P.
            width: C.
            heads: of the fusion's attention; must divide the width.
            joining: how both sides are joined where a point is seen.

        Raises:
            ConfigError: the heads do not divide the width.
        """
        super().__init__()
        self.point_map = nn.Linear(point_width, width)
        self.point_norm = PointNorm(width)
        with_image = image_width > 0
        self.image_map = nn.Linear(image_width, width) if with_image else None
        self.image_norm = PointNorm(width) if with_image else None
        fuses = with_image and joining == "gemini"
        self.fusion: nn.Module | None = GeminiFusion(width, heads) if fuses else None  # also a folded one
        self.stream_weights = nn.Parameter(torch.ones(2)) if fuses else None

    def forward(self, points: Tensor, image: Tensor, visible: Tensor | None = None) -> Tensor:
        """Fuse points with the image's features there.

        Args:
            points: (N, P).
            image: (N, K); what it holds where a point is not visible does not matter, as long as it is finite.
            visible: (N,) bool, which points the image sees; None: all.

        Returns:
            (N, C).
        """
        if self.image_map is None:
            return self.alone(points)
        if visible is None:
            return self.fuse(points, self.image_map(image))
        order = torch.cat((visible.nonzero(), (~visible).nonzero())).flatten()
        result = self.fuse(points[order], self.image_map(image[visible]))
        return torch.empty_like(result).index_copy(0, order, result)

    def fuse(self, points: Tensor, mapped_image: Tensor) -> Tensor:
        """Fuse points, those that the image sees first, with what it has there.

        Args:
            points: (N, P); normalised together, so that in training, too, it makes no difference to a point's own branch how
                many are seen.
            mapped_image: (V, C), of the first V points, through ``image_map`` already.

        Returns:
            (N, C).
        """
        own: Tensor = self.point_norm(self.point_map(points))
        if self.image_norm is None:
            return self._alone(own)
        count = len(mapped_image)
        streams = torch.stack((own[:count], self.image_norm(mapped_image)))
        return torch.cat((self._both(streams), self._alone(own[count:])))

    def alone(self, points: Tensor) -> Tensor:
        """Run points (N, P) that the image does not see; gives (N, C)."""
        return self._alone(self.point_norm(self.point_map(points)))

    def _both(self, streams: Tensor) -> Tensor:
        if self.fusion is None or self.stream_weights is None:
            return F.relu(streams.mean(0))
        fused = self.fusion(streams[:, None])[:, 0]
        shares = self.stream_weights.softmax(0)
        return F.relu(shares[0] * fused[0] + shares[1] * fused[1])

    def _alone(self, own: Tensor) -> Tensor:
        return F.relu(own if self.fusion is None else self.fusion(own[None, None])[0, 0])

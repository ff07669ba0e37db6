"""The pillar encoder: points to a BEV map, by features within pillars, fusion with the image, and each pillar's maximum.

Pillars (Lang et al., CVPR 2019, arXiv 1812.05784) without their fixed number of points: every point counts, and a pillar is
filled by scattering, so that there is nothing to sort or pad. Points are packed: those of all samples of a batch in one tensor
(N, ...).

The frame is the detector's: x forward, y left, z up, metres. BEV maps are (B, C, rows, columns); rows go along +y,
columns along +x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gemini_core.model.detection.point_fusion import Joining, PointFusion, PointNorm

OWN_FEATURES = 8
"""Numbers of a point besides its further columns: its place in the range, from its pillar's centre, and from its mean."""


@dataclass(frozen=True, slots=True)
class BevGrid:
    """Square cells of the ground: ``columns`` along x from ``x_min_m`` on, ``rows`` along y from ``y_min_m`` on."""

    x_min_m: float
    y_min_m: float
    cell_m: float
    columns: int
    rows: int

    def coarser(self, factor: int) -> BevGrid:
        """The grid whose cells join ``factor`` x ``factor`` of these; sizes are rounded up."""
        columns, rows = (math.ceil(count / factor) for count in (self.columns, self.rows))
        return BevGrid(self.x_min_m, self.y_min_m, self.cell_m * factor, columns, rows)

    def place(self, xy: Tensor) -> Tensor:
        """Where (..., 2) x, y in metres lie: (..., 2) column and row, whole numbers at the lower edges of cells."""
        return (xy - xy.new_tensor([self.x_min_m, self.y_min_m])) / self.cell_m

    def holds(self, place: Tensor) -> Tensor:
        """Which of (..., 2) columns and rows are on the grid: (...) bool; NaN is not."""
        return ((place >= 0) & (place < place.new_tensor([self.columns, self.rows]))).all(-1)


class Points(NamedTuple):
    """Points of a batch that are either all visible in their image, or all not.

    ``values`` (N, F) float32: x, y, z in metres, then what else is known of a point, such as its intensity; ``sample`` (N,)
    int64 is its index in the batch.
    """

    values: Tensor
    sample: Tensor


class Pillars(NamedTuple):
    """Where points are: ``values`` (N, F) with zeros for those outside, ``cell`` (N,) int64.

    A cell is counted over samples, rows and columns; one more, the last, takes the points that lie outside of the range or are
    not finite.
    """

    values: Tensor
    cell: Tensor


class PillarEncoder(nn.Module):
    """Features of points, fused with the image, the largest of each pillar; zeros where there is no point."""

    def __init__(
        self,
        grid: BevGrid,
        z_range_m: tuple[float, float],
        columns: int,
        widths: tuple[int, int],
        *,
        image_width: int = 0,
        heads: int = 8,
        joining: Joining = "gemini",
    ) -> None:
        """Build the encoder.

        Args:
            grid: the pillars.
            z_range_m: points outside of it are left out.
            columns: F, at least x, y, z.
            widths: channels of points before and after the fusion.
            image_width: of the fusion (``PointFusion``).
            heads: of the fusion.
            joining: of the fusion.
        """
        super().__init__()
        self.grid = grid
        self.z_range_m = z_range_m
        own = columns - 3 + OWN_FEATURES
        self.point_layer = nn.Sequential(nn.Linear(own, widths[0], bias=False), PointNorm(widths[0]), nn.ReLU())
        self.fusion = PointFusion(image_width, widths[0], widths[1], heads=heads, joining=joining)

    def locate(self, points: Points, batch: int) -> Pillars:
        """Find each point's cell among those of ``batch`` samples."""
        values, sample = points
        place = self.grid.place(values[:, :2])
        low, high = self.z_range_m
        inside = self.grid.holds(place) & (values[:, 2] >= low) & (values[:, 2] < high)
        column, row = torch.where(inside[:, None], place, 0.0).long().unbind(1)
        cell = (sample * self.grid.rows + row) * self.grid.columns + column
        outside = batch * self.grid.rows * self.grid.columns
        # Only the place decides whether a point counts; what else is not finite is not known, which is 0.
        values = torch.where(inside[:, None] & values.isfinite(), values, 0.0)
        return Pillars(values, torch.where(inside, cell, outside))

    def forward(self, seen: Points, rest: Points, mapped_image: Tensor | None, batch: int) -> Tensor:
        """Make the BEV map.

        Args:
            seen: the points that the image sees, all of the first sample first.
            rest: the others.
            mapped_image: (N_seen, C) image features after the fusion's ``image_map``; None: no image, and ``seen`` are as
                the rest.
            batch: B.

        Returns:
            (B, C, rows, columns), channels last in memory.
        """
        values, cell = self.locate(Points(*(torch.cat(both) for both in zip(seen, rest, strict=True))), batch)
        cells = batch * self.grid.rows * self.grid.columns
        own: Tensor = self.point_layer(self._own_features(values, cell, cells).to(self._dtype))
        features = self.fusion.alone(own) if mapped_image is None else self.fusion.fuse(own, mapped_image)
        index = cell[:, None].expand(features.shape)
        # Features are at least 0 (ReLU), so zeros to start from change no maximum.
        largest = features.new_zeros(cells + 1, features.shape[1]).scatter_reduce(0, index, features, "amax")
        return largest[:cells].view(batch, self.grid.rows, self.grid.columns, -1).permute(0, 3, 1, 2)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.point_layer.parameters()).dtype

    def _own_features(self, values: Tensor, cell: Tensor, cells: int) -> Tensor:
        """Describe points (N, F) by (N, F + 5): all of them about 1 in size, whatever the range."""
        places = torch.cat((values[:, :3], torch.ones_like(values[:, :1])), dim=1)
        sums = places.new_zeros(cells + 1, 4).scatter_add(0, cell[:, None].expand(places.shape), places)
        mean = sums[:, :3] / sums[:, 3:].clamp(min=1.0)
        xyz, place = values[:, :3], self.grid.place(values[:, :2])
        low, high = self.z_range_m
        size = xyz.new_tensor([self.grid.columns, self.grid.rows])
        height = (xyz[:, 2:] - low) / (high - low)
        from_centre = place - place.floor() - 0.5
        from_mean = (xyz - mean[cell]) / xyz.new_tensor([self.grid.cell_m, self.grid.cell_m, 1.0])
        return torch.cat((place / size, height, from_centre, from_mean, values[:, 3:]), dim=1)

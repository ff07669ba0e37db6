"""Configuration of an MVX-Net with GeminiFusion; the defaults are the numbers of the released KITTI model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gemini_core.errors import ConfigError

DIRECTIONS = 2
"""Halves of the circle that the head tells apart: it learns a yaw up to half a turn, so more would say nothing new."""

OFFSET = -math.pi / 2
"""Where the first half of the circle begins, in radians; the yaws of direction 0 are from here to half a turn on."""

_SIDES = 3  # x, y, z
_LARGEST_CELLS = 2**31 - 1  # of a grid, whose places are counted in int32


@dataclass(frozen=True, slots=True)
class MvxNetConfig:
    """What an MVX-Net is made of.

    ``classes`` are names of boxes, and for each of them: ``anchor_sizes_m`` (length, width, height), ``anchor_bottoms_m`` (z
    of the anchors' lower faces), and from which overlap on an anchor is that class (``positive_ious``) and below which it is
    background (``negative_ious``). ``anchor_yaws`` are radians. ``range_m`` is x, y, z from which on and then up to which
    points count; ``voxel_m`` the size of voxels along x, y, z. ``point_columns`` is x, y, z and what else is known of a point.

    Channels: ``voxel_widths`` of the voxel feature encoder's layers, ``fused_width`` behind its last fusion, whose attention
    has ``fusion_heads``; ``image_depths`` blocks and ``image_base`` channels of the ResNet, ``image_width`` of its pyramid with
    ``image_levels`` levels; ``sparse_base``, ``sparse_widths`` and ``sparse_output`` of the sparse encoder, of which each stage
    but the first halves the grid; ``plane_widths``, ``plane_depths`` (convolutions behind the first), ``plane_strides`` and
    ``plane_outputs`` of the BEV network. ``image_frozen``: the ResNet's stem, its first stage and all norms of the image
    branch stay as they are loaded, as the released model was trained.
    """

    classes: tuple[str, ...] = ("Pedestrian", "Cyclist", "Car")
    anchor_sizes_m: tuple[tuple[float, float, float], ...] = ((0.8, 0.6, 1.73), (1.76, 0.6, 1.73), (3.9, 1.6, 1.56))
    anchor_bottoms_m: tuple[float, ...] = (-0.6, -0.6, -1.78)
    anchor_yaws: tuple[float, ...] = (0.0, 1.57)
    positive_ious: tuple[float, ...] = (0.35, 0.35, 0.6)
    negative_ious: tuple[float, ...] = (0.2, 0.2, 0.45)
    range_m: tuple[float, float, float, float, float, float] = (0.0, -40.0, -3.0, 70.4, 40.0, 1.0)
    voxel_m: tuple[float, float, float] = (0.05, 0.05, 0.1)
    point_columns: int = 4
    voxel_widths: tuple[int, ...] = (64, 64)
    fused_width: int = 128
    fusion_heads: int = 8
    image_depths: tuple[int, ...] = (3, 4, 6, 3)
    image_base: int = 64
    image_width: int = 256
    image_levels: int = 5
    image_frozen: bool = True
    sparse_base: int = 16
    sparse_widths: tuple[tuple[int, ...], ...] = ((16,), (32, 32, 32), (64, 64, 64), (64, 64, 64))
    sparse_output: int = 128
    plane_widths: tuple[int, ...] = (128, 256)
    plane_depths: tuple[int, ...] = (5, 5)
    plane_strides: tuple[int, ...] = (1, 2)
    plane_outputs: tuple[int, ...] = (256, 256)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: classes that are not distinct, tuples of other lengths, numbers that cannot be, or a grid that the
                strides do not divide.
        """
        if not self.classes or len(set(self.classes)) != len(self.classes) or not all(self.classes):
            _refuse("classes", "at least one name and each once", list(self.classes))
        for name in ("anchor_sizes_m", "anchor_bottoms_m", "positive_ious", "negative_ious"):
            if len(getattr(self, name)) != len(self.classes):
                _refuse(name, f"one for each of the {len(self.classes)} classes", getattr(self, name))
        self._check_anchors()
        self._check_widths()
        self._check_grid()

    def _check_anchors(self) -> None:
        for size in self.anchor_sizes_m:
            if len(size) != _SIDES or not all(math.isfinite(side) and side > 0 for side in size):
                _refuse("anchor_sizes_m", "length, width and height above 0 of each class", size)
        for name in ("anchor_bottoms_m", "anchor_yaws"):
            if not all(map(math.isfinite, getattr(self, name))):
                _refuse(name, "finite numbers", getattr(self, name))
        if not self.anchor_yaws:
            _refuse("anchor_yaws", "at least one", ())
        for low, high in zip(self.negative_ious, self.positive_ious, strict=True):
            if not 0 < low <= high <= 1:
                _refuse("negative_ious", "numbers above 0, none above its positive_ious or 1", (low, high))

    def _check_widths(self) -> None:
        groups: dict[str, Sequence[int]] = {
            "voxel_widths": self.voxel_widths,
            "image_depths": self.image_depths,
            "plane_widths": self.plane_widths,
            "plane_strides": self.plane_strides,
            "plane_outputs": self.plane_outputs,
            "sparse_widths": [width for stage in self.sparse_widths for width in stage] if all(self.sparse_widths) else [],
        }
        for name in (
            "fused_width",
            "fusion_heads",
            "image_base",
            "image_width",
            "image_levels",
            "sparse_base",
            "sparse_output",
        ):
            groups[name] = (getattr(self, name),)
        for name, values in groups.items():
            if not values or min(values) < 1:
                _refuse(name, "numbers of 1 or more", getattr(self, name))
        if self.point_columns < _SIDES:
            _refuse("point_columns", "3 (x, y, z) or more", self.point_columns)
        self._check_lengths()

    def _check_lengths(self) -> None:
        if self.image_levels < len(self.image_depths):
            _refuse("image_levels", f"at least one for each of the {len(self.image_depths)} stages", self.image_levels)
        for name in ("plane_depths", "plane_strides", "plane_outputs"):
            if len(getattr(self, name)) != len(self.plane_widths):
                _refuse(name, f"one for each of the {len(self.plane_widths)} plane_widths", getattr(self, name))
        if min(self.plane_depths) < 0:
            _refuse("plane_depths", "0 or more", self.plane_depths)
        for width in self.fused_widths:
            if width % self.fusion_heads:
                _refuse("fusion_heads", f"a divisor of the width {width}", self.fusion_heads)

    def _check_grid(self) -> None:
        if len(self.range_m) != 2 * _SIDES or not all(map(math.isfinite, self.range_m)):
            _refuse("range_m", "six numbers, least x, y, z, then largest", list(self.range_m))
        for name, low, high in zip("xyz", self.range_m[:3], self.range_m[3:], strict=True):
            if not low < high:
                _refuse("range_m", f"the least {name} below the largest", (low, high))
        if len(self.voxel_m) != _SIDES or not all(math.isfinite(side) and side > 0 for side in self.voxel_m):
            _refuse("voxel_m", "three numbers of metres above 0", list(self.voxel_m))
        depth, rows, columns = self.sparse_shape
        if depth * rows * columns > _LARGEST_CELLS:
            _refuse("voxel_m", f"at most {_LARGEST_CELLS} voxels", depth * rows * columns)
        whole = 2 ** (len(self.sparse_widths) - 1) * math.prod(self.plane_strides)
        if rows % whole or columns % whole:
            _refuse("voxel_m", f"multiples of {whole} voxels along x and y", (columns, rows))
        if self.depth_out < 1:
            _refuse("range_m", "enough voxels along z for the sparse encoder's strides", depth - 1)

    @property
    def voxels(self) -> tuple[int, int, int]:
        """Voxels along z, y, x."""
        x, y, z = (
            round((high - low) / side) for low, high, side in zip(self.range_m[:3], self.range_m[3:], self.voxel_m, strict=True)
        )
        return z, y, x

    @property
    def sparse_shape(self) -> tuple[int, int, int]:
        """The sparse encoder's grid along z, y, x: one layer more than there are voxels, so that the strides come out even."""
        depth, rows, columns = self.voxels
        return depth + 1, rows, columns

    @property
    def depth_out(self) -> int:
        """Layers along z behind the sparse encoder."""
        depth, stages = self.sparse_shape[0], len(self.sparse_widths)
        for stage in range(1, stages):
            depth = (depth + (0 if stage == stages - 1 else 2) - 3) // 2 + 1
        return (depth - 3) // 2 + 1

    @property
    def map_shape(self) -> tuple[int, int]:
        """Rows (along +y) and columns (along +x) of the head's maps."""
        whole = 2 ** (len(self.sparse_widths) - 1) * self.plane_strides[0]
        return self.sparse_shape[1] // whole, self.sparse_shape[2] // whole

    @property
    def fused_widths(self) -> tuple[int, ...]:
        """Channels behind the fusion of each of the voxel feature encoder's layers."""
        return (*self.voxel_widths[:-1], self.fused_width)

    @property
    def anchors_per_cell(self) -> int:
        """Anchors at each cell of the maps."""
        return len(self.classes) * len(self.anchor_yaws)


def _refuse(name: str, expected: str, got: object) -> None:
    msg = f"detector {name}: expected {expected}, got {got}"
    raise ConfigError(msg)

"""The pillar detector: points, with the image's features fused into them, to oriented boxes. Tensors in, tensors out.

It shares the fused backbone with the segmentation head: what it takes of an image are the backbone's features. Without them,
or where the image does not see a point, the points do alone. Points may come of a LiDAR or of a depth image.

Everything behind ``Detector.maps`` has fixed shapes for fixed numbers of points, and no branch on values, so that it can be
exported; ``Detector.forward`` first leaves out what cannot count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn

from gemini_core.errors import ConfigError, ShapeError
from gemini_core.model.detection.interface import Cloud, Found
from gemini_core.model.detection.pillars.bev import BEV_STRIDE, BevNetwork
from gemini_core.model.detection.pillars.codec import BevMaps, Targets, decode, encode
from gemini_core.model.detection.pillars.encoder import BevGrid, PillarEncoder, Points
from gemini_core.model.detection.pillars.head import CentreHead
from gemini_core.model.detection.sampling import map_and_sample
from gemini_core.model.streams import STAGES

FUSIONS = ("gemini", "none", "lidar")
_RANGE_NAMES = ("x", "y", "z")
_LARGEST_GRID = 2048  # cells a side

_LEAST_PROBABILITY = 1e-3  # below it all are alike


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """What a detector is made of; saved with its weights.

    ``classes`` are names of boxes. ``range_m`` is x, y, z from which on and then up to which points and boxes count, in the
    detector's frame; ``cell_m`` the side of a pillar (the head's cells are twice as large). ``fusion`` says what becomes of
    the image at a point: "gemini", "none" (the average of both sides), "lidar" (there is no image: points alone).
    ``image_levels`` are the stages of the backbone that are sampled, 0 the finest; ``painted``: so is the masks' ``paint``,
    after PointPainting (Vora et al., CVPR 2020, arXiv 1911.10150), which is nothing to fusion "lidar". ``point_columns`` is
    x, y, z and what else is known of a point, by default its intensity. ``point_widths`` are channels before and after the
    fusion, whose attention has ``fusion_heads``; ``bev_widths`` and ``bev_depths`` those of the BEV stages and their
    convolutions; ``head_width`` is that of the head. ``covariance``: give variances of place and yaw.
    """

    classes: tuple[str, ...]
    range_m: tuple[float, float, float, float, float, float] = (0.0, -25.6, -3.0, 51.2, 25.6, 4.0)
    cell_m: float = 0.2
    fusion: Literal["gemini", "none", "lidar"] = "gemini"
    image_levels: tuple[int, ...] = (0, 1, 2, 3)
    painted: bool = False
    point_columns: int = 4
    point_widths: tuple[int, int] = (24, 16)
    fusion_heads: int = 4
    bev_widths: tuple[int, ...] = (32, 64, 96)
    bev_depths: tuple[int, ...] = (1, 2, 2)
    head_width: int = 40
    covariance: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: an unknown fusion, classes that are not distinct, an empty range, or a number that cannot be.
        """
        if not self.classes or len(set(self.classes)) != len(self.classes) or not all(self.classes):
            msg = f"detector classes: expected at least one name and each once, got {list(self.classes)}"
            raise ConfigError(msg)
        if self.fusion not in FUSIONS:
            msg = f"detector fusion: expected one of {', '.join(FUSIONS)}, got {self.fusion!r}"
            raise ConfigError(msg)
        self._check_range()
        if (
            not self.image_levels
            or sorted(set(self.image_levels)) != list(self.image_levels)
            or not set(self.image_levels) <= set(range(STAGES))
        ):
            msg = f"detector image_levels: expected some of 0 to {STAGES - 1}, rising, got {list(self.image_levels)}"
            raise ConfigError(msg)
        if self.point_columns < 3:  # noqa: PLR2004 - x, y, z
            msg = f"detector point_columns: expected 3 (x, y, z) or more, got {self.point_columns}"
            raise ConfigError(msg)
        self._check_widths()

    def _check_range(self) -> None:
        if len(self.range_m) != 6 or not all(map(math.isfinite, self.range_m)):  # noqa: PLR2004 - from and to of x, y, z
            msg = f"detector range_m: expected six numbers, least x, y, z, then largest, got {list(self.range_m)}"
            raise ConfigError(msg)
        for name, low, high in zip(_RANGE_NAMES, self.range_m[:3], self.range_m[3:], strict=True):
            if not low < high:
                msg = f"detector range_m: expected the least {name} below the largest, got {low:g} and {high:g}"
                raise ConfigError(msg)
        if not (math.isfinite(self.cell_m) and self.cell_m > 0):
            msg = f"detector cell_m: expected metres above 0, got {self.cell_m:g}"
            raise ConfigError(msg)
        side = max(self.range_m[3] - self.range_m[0], self.range_m[4] - self.range_m[1]) / self.cell_m
        if side > _LARGEST_GRID:
            msg = f"detector cell_m: expected at most {_LARGEST_GRID} cells a side, got {side:.0f} of {self.cell_m:g} m"
            raise ConfigError(msg)

    def _check_widths(self) -> None:
        if len(self.point_widths) != 2:  # noqa: PLR2004 - before and after the fusion
            msg = f"detector point_widths: expected two numbers, got {list(self.point_widths)}"
            raise ConfigError(msg)
        if not self.bev_widths or len(self.bev_widths) != len(self.bev_depths) or min(self.bev_depths) < 0:
            msg = (
                "detector bev_depths: expected one number from 0 up for each of bev_widths, "
                f"got {list(self.bev_depths)} for {list(self.bev_widths)}"
            )
            raise ConfigError(msg)
        for name in ("point_widths", "bev_widths", "head_width", "fusion_heads"):
            value = getattr(self, name)
            if min(value if isinstance(value, tuple) else (value,)) < 1:
                msg = f"detector {name}: expected 1 or more, got {value}"
                raise ConfigError(msg)
        if self.fusion == "gemini" and self.point_widths[1] % self.fusion_heads:
            msg = f"detector fusion_heads: expected a divisor of the width {self.point_widths[1]}, got {self.fusion_heads}"
            raise ConfigError(msg)

    @property
    def takes_masks(self) -> bool:
        """Whether an ``Image`` has to have paint."""
        return self.painted and self.fusion != "lidar"

    @property
    def pillar_grid(self) -> BevGrid:
        """The pillars; where the cell does not divide the range, the last ones reach beyond it."""
        x, y, _, x_end, y_end, _ = self.range_m
        columns, rows = (math.ceil((end - start) / self.cell_m - 1e-6) for start, end in ((x, x_end), (y, y_end)))
        return BevGrid(x, y, self.cell_m, columns, rows)

    @property
    def head_grid(self) -> BevGrid:
        """The cells of the head's maps."""
        return self.pillar_grid.coarser(BEV_STRIDE)


class Image(NamedTuple):
    """What a network saw; ``Detector.look`` puts it together.

    ``features`` (S*B, C, h, w) of each stage of the backbone, S streams (1 or 2); ``size`` (H, W) of the network's grid;
    ``paint`` (B, num_classes, h, w) of the masks, at the finest stage's size, for a detector that takes them.
    """

    features: Sequence[Tensor]
    size: tuple[int, int]
    paint: Tensor | None = None


def paint(logits: Tensor) -> Tensor:
    """Give log(1000 p) of the masks' probabilities p, from 0 for a thousandth and less to 6.9: (B, num_classes, h, w).

    Probabilities themselves are nearly 0 nearly everywhere, while the features beside them have deviations of about 1: a fresh
    linear map of both would hardly show them. Logarithms also tell an unlikely class from an impossible one. Paint is
    detached: what the masks say is taught by masks.
    """
    logarithms = logits.detach().float().log_softmax(1)
    return F.relu(logarithms - math.log(_LEAST_PROBABILITY))


class Detector(nn.Module):
    """Pillars with point fusion, a BEV network, and a head for centres."""

    def __init__(self, config: DetectorConfig, image_widths: Sequence[int] = (), num_classes: int = 0) -> None:
        """Build the detector.

        Args:
            config: what it is made of.
            image_widths: channels of the backbone's stages (``SegmenterConfig.backbone_config.widths``); not looked at for
                "lidar".
            num_classes: of the masks, for a detector that takes them.

        Raises:
            ConfigError: there are none, or not all of the levels, where the fusion needs them; no classes for a painted one.
        """
        super().__init__()
        self.config = config
        image_width = 0
        if config.fusion != "lidar":
            if max(config.image_levels) >= len(image_widths):
                msg = (
                    f"detector image_widths: expected those of the stages {list(config.image_levels)} for fusion "
                    f"{config.fusion}, got {list(image_widths)}"
                )
                raise ConfigError(msg)
            if config.takes_masks and num_classes < 1:
                msg = f"detector num_classes: expected those of the masks for a painted detector, got {num_classes}"
                raise ConfigError(msg)
            image_width = sum(image_widths[level] for level in config.image_levels)
        self.level_widths = tuple(image_widths)
        self.paint_width = num_classes if config.takes_masks else 0
        self.pillars = PillarEncoder(
            config.pillar_grid,
            (config.range_m[2], config.range_m[5]),
            config.point_columns,
            config.point_widths,
            image_width=image_width + self.paint_width,
            heads=config.fusion_heads,
            joining="none" if config.fusion == "none" else "gemini",
        )
        self.bev = BevNetwork(config.point_widths[1], config.bev_widths, config.bev_depths, config.head_width)
        self.head = CentreHead(config.head_width, len(config.classes), covariance=config.covariance)
        self.image_streams = nn.Parameter(torch.ones(2)) if image_width else None

    def look(self, features: Sequence[Tensor], size: tuple[int, int], logits: Tensor) -> Image:
        """Put together what this detector takes of images.

        Args:
            features: of the backbone's stages, as ``Image`` has them.
            size: (H, W) of the network's grid.
            logits: (B, num_classes, h, w) of the masks; not looked at by a detector that does not take them.
        """
        return Image(features, size, paint(logits) if self.config.takes_masks else None)

    def forward(self, clouds: Sequence[Cloud], image: Image | None = None) -> BevMaps:
        """Say what is where, for a batch.

        Args:
            clouds: one of each sample.
            image: of the same samples; None: there is none.

        Returns:
            Maps on ``config.head_grid``.

        Raises:
            ShapeError: no cloud, or shapes that differ from these.
        """
        if not clouds:
            msg = "detector clouds: expected one for each sample of a batch, got none"
            raise ShapeError(msg)
        for cloud in clouds:
            self._check_cloud(cloud)
        if image is not None and self.config.fusion != "lidar":
            self._check_image(image, len(clouds))
        else:
            image = None
        seen, pixels, counts, rest = self._sort(clouds, image)
        return self.maps(seen, pixels, counts, rest, image)

    def maps(self, seen: Points, pixels: Tensor, counts: Sequence[int], rest: Points, image: Image | None) -> BevMaps:
        """Say what is where, of points that are sorted already.

        Args:
            seen: those that the image sees, of the first sample first. Points that are not finite or out of range change
                nothing, so they can fill up to a fixed number; then ``pixels`` still have to be finite.
            pixels: (N_seen, 2), on the grid.
            counts: how many of ``seen`` each sample has.
            rest: those that it does not see.
            image: of all samples; None: there is none.
        """
        mapped = None
        if image is not None and (fusion := self.pillars.fusion).image_map is not None:
            levels = [self._one_stream(image.features[level], len(counts)) for level in self.config.image_levels]
            levels += [] if image.paint is None else [image.paint]
            mapped = map_and_sample(levels, fusion.image_map, pixels, counts, image.size)
        output: BevMaps = self.head(self.bev(self.pillars(seen, rest, mapped, len(counts))))
        return output

    def targets(self, boxes: Sequence[Tensor], classes: Sequence[Tensor]) -> Targets:
        """Say what the maps should be for boxes (N_b, 7) and classes (N_b,) of each sample; see ``codec.encode``."""
        return encode(boxes, classes, self.config.head_grid, len(self.config.classes))

    def find(self, maps: BevMaps, *, max_boxes: int = 200, min_score: float = 0.1, max_iou: float = 0.2) -> list[Found]:
        """Find each sample's boxes in maps; see ``codec.decode``."""
        return decode(maps, self.config.head_grid, max_boxes=max_boxes, min_score=min_score, max_iou=max_iou)

    def _one_stream(self, level: Tensor, batch: int) -> Tensor:
        """Weigh the streams of (S*B, C, h, w): (B, C, h, w)."""
        if len(level) == batch or self.image_streams is None:
            return level
        first, second = level.chunk(2)
        shares = self.image_streams.softmax(0)
        return shares[0] * first + shares[1] * second

    def _sort(self, clouds: Sequence[Cloud], image: Image | None) -> tuple[Points, Tensor, list[int], Points]:
        """Leave out the points that do not count, and tell those that the image sees from the others."""
        seen: list[Tensor] = []
        pixels: list[Tensor] = []
        rest: list[Tensor] = []
        for cloud in clouds:
            points = cloud.points.float()
            in_range = self._in_range(points)
            if image is None or cloud.pixels is None or cloud.visible is None:
                seen.append(points[:0])
                pixels.append(points.new_zeros(0, 2))
                rest.append(points[in_range])
                continue
            from_edge = cloud.pixels + 0.5
            visible = cloud.visible & ((from_edge >= 0) & (from_edge < from_edge.new_tensor(image.size[::-1]))).all(1)
            seen.append(points[in_range & visible])
            pixels.append(cloud.pixels[in_range & visible].float())
            rest.append(points[in_range & ~visible])
        return _packed(seen), torch.cat(pixels), [len(points) for points in seen], _packed(rest)

    def _in_range(self, points: Tensor) -> Tensor:
        low, high = (points.new_tensor(ends) for ends in (self.config.range_m[:3], self.config.range_m[3:]))
        return ((points[:, :3] >= low) & (points[:, :3] < high)).all(1)  # NaN is in no range

    def _check_cloud(self, cloud: Cloud) -> None:
        points, count = cloud.points, len(cloud.points)
        if points.ndim != 2 or points.shape[1] != self.config.point_columns:  # noqa: PLR2004 - rows and columns
            msg = f"detector points: expected (N, {self.config.point_columns}), got {tuple(points.shape)}"
            raise ShapeError(msg)
        for name, tensor, shape in (("pixels", cloud.pixels, (count, 2)), ("visible", cloud.visible, (count,))):
            if tensor is not None and tensor.shape != shape:
                msg = f"detector {name}: expected {shape} for {count} points, got {tuple(tensor.shape)}"
                raise ShapeError(msg)

    def _check_image(self, image: Image, batch: int) -> None:
        for level in self.config.image_levels:
            shape = tuple(image.features[level].shape) if level < len(image.features) else None
            width = self.level_widths[level]
            if shape is None or len(shape) != 4 or shape[0] not in (batch, 2 * batch) or shape[1] != width:  # noqa: PLR2004
                expected = f"({batch} or {2 * batch}, {width}, h, w)"
                msg = f"detector features of stage {level}: expected {expected}, got {shape or 'none'}"
                raise ShapeError(msg)
        # The head's logits have the size of the finest stage.
        wanted = (batch, self.paint_width, *image.features[0].shape[2:]) if self.paint_width else None
        got = None if image.paint is None else tuple(image.paint.shape)
        if got != wanted:
            msg = f"detector paint of the masks: expected {wanted or 'none'}, got {got or 'none'}"
            raise ShapeError(msg)


def _packed(points: list[Tensor]) -> Points:
    samples = [torch.full((len(own),), index, dtype=torch.long, device=own.device) for index, own in enumerate(points)]
    return Points(torch.cat(points), torch.cat(samples))

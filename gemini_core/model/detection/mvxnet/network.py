"""MVX-Net (Sindagi et al., ICRA 2019, arXiv 1904.01649) with GeminiFusion at the points: the paper's own detector.

ResNet and pyramid of the image; dynamic voxels whose points are fused with it after both layers of their encoder; a sparse 3D
encoder; a BEV network; anchors. Names of modules are those of the released model (``importing.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gemini_core.errors import ShapeError
from gemini_core.model.detection.interface import Cloud, Found
from gemini_core.model.detection.mvxnet.config import MvxNetConfig
from gemini_core.model.detection.mvxnet.head import (
    AnchorHead,
    MvxLoss,
    MvxMaps,
    Second,
    SecondPyramid,
    anchor_loss,
    assign,
    find_boxes,
    make_anchors,
)
from gemini_core.model.detection.mvxnet.image import FeaturePyramid, ResNet, pad
from gemini_core.model.detection.mvxnet.points import SeenPoints, VoxelEncoder, fill_voxels, place_points
from gemini_core.model.detection.mvxnet.sparse import Runtime, SparseEncoder

_IMAGE_DIMS = 4


class MvxNet(nn.Module):
    """Points and an image of each sample to anchors' scores, boxes and directions."""

    def __init__(self, config: MvxNetConfig | None = None, *, runtime: Runtime = "spconv") -> None:
        """Build the detector.

        Args:
            config: what it is made of; None: what the released KITTI model is.
            runtime: what computes the sparse convolutions: "spconv", a package of its own, or "torch", which needs nothing else
                and is slower on a GPU. Weights fit both.

        Raises:
            ConfigError: spconv cannot be imported.
        """
        super().__init__()
        config = MvxNetConfig() if config is None else config
        self.config = config
        self.img_backbone = ResNet(config.image_depths, config.image_base, frozen=config.image_frozen)
        self.img_neck = FeaturePyramid(
            self.img_backbone.widths, config.image_width, config.image_levels, frozen=config.image_frozen
        )
        self.pts_voxel_encoder = VoxelEncoder(config)
        self.pts_middle_encoder = SparseEncoder(config, runtime)
        self.pts_backbone = Second(config.sparse_output * config.depth_out, config)
        self.pts_neck = SecondPyramid(config)
        self.pts_bbox_head = AnchorHead(config)

    def forward(self, clouds: Sequence[Cloud], images: Tensor | None = None) -> MvxMaps:
        """Say what is where, for a batch.

        Args:
            clouds: one of each sample; points as ``Cloud`` has them (x forward, y left, z up, metres; intensity 0 to 1), pixels
                on the grid of ``images``.
            images: (B, 3, H, W) as ``mvxnet_image.to_caffe`` gives them; None: there are none.

        Returns:
            Maps of ``config.map_shape``.

        Raises:
            ShapeError: no cloud, or shapes that differ from these.
        """
        self._check(clouds, images)
        levels: list[Tensor] = []
        size = (0, 0)
        if images is not None:
            padded = pad(images)
            size = (padded.shape[2], padded.shape[3])
            levels = self.img_neck(self.img_backbone(padded))
        points, index, sample, seen, pixels = [], [], [], [], []
        for number, cloud in enumerate(clouds):
            values = cloud.points.float()
            place, inside = place_points(values, self.config)
            points.append(values[inside])
            index.append(place[inside])
            sample.append(torch.full((len(points[-1]),), number, dtype=torch.long, device=values.device))
            if images is not None:
                visible = self._visible(cloud, images.shape[-2:])[inside]
                seen.append(visible)
                if cloud.pixels is not None:
                    pixels.append(cloud.pixels[inside][visible].float())
                else:
                    pixels.append(values.new_zeros(0, 2))
        voxels = fill_voxels(torch.cat(points), torch.cat(index), torch.cat(sample), self.config)
        image = None
        if images is not None:
            image = SeenPoints(levels, torch.cat(seen), torch.cat(pixels), [len(own) for own in pixels], size)
        features = self.pts_voxel_encoder(voxels, image)
        plane = self.pts_middle_encoder(features, voxels.places, len(clouds))
        maps: MvxMaps = self.pts_bbox_head(self.pts_neck(self.pts_backbone(plane)))
        return maps

    def loss(
        self,
        maps: MvxMaps,
        boxes: Sequence[Tensor],
        classes: Sequence[Tensor],
        known: Sequence[Callable[[Tensor], Tensor]] | None = None,
    ) -> MvxLoss:
        """Compare maps with labels; see ``assign`` and ``anchor_loss``.

        Args:
            maps: of the batch.
            boxes: (N_b, 7) of each sample.
            classes: (N_b,) of each sample.
            known: of each sample, says of places (..., 2), x and y, whether labels speak of them: (...) bool. Elsewhere no
                anchor is taken to be background. None: they do everywhere.
        """
        anchors = self.anchors(maps)
        with torch.no_grad():
            targets = [assign(own, named, anchors, self.config) for own, named in zip(boxes, classes, strict=True)]
            if known is not None:
                targets = [
                    own.known_only(knows(anchors[..., :2]), len(self.config.classes))
                    for own, knows in zip(targets, known, strict=True)
                ]
        return anchor_loss(maps, targets, anchors)

    def find(
        self,
        maps: MvxMaps,
        *,
        candidates: int = 100,
        max_boxes: int = 50,
        min_score: float = 0.1,
        max_iou: float = 0.01,
    ) -> list[Found]:
        """Find each sample's boxes in maps; see ``head.find_boxes``."""
        return find_boxes(
            maps, self.anchors(maps), candidates=candidates, max_boxes=max_boxes, min_score=min_score, max_iou=max_iou
        )

    def anchors(self, maps: MvxMaps) -> Tensor:
        """Make the anchors, fp32, on the maps' device."""
        return make_anchors(self.config, maps.boxes.new_zeros(0, dtype=torch.float32))

    @staticmethod
    def _visible(cloud: Cloud, size: Sequence[int]) -> Tensor:
        """Which of a cloud's points the image (H, W) sees: (N,) bool."""
        if cloud.pixels is None or cloud.visible is None:
            return torch.zeros(len(cloud.points), dtype=torch.bool, device=cloud.points.device)
        from_edge = cloud.pixels + 0.5
        return cloud.visible & ((from_edge >= 0) & (from_edge < from_edge.new_tensor([size[1], size[0]]))).all(1)

    def _check(self, clouds: Sequence[Cloud], images: Tensor | None) -> None:
        if not clouds:
            msg = "detector clouds: expected one for each sample of a batch, got none"
            raise ShapeError(msg)
        for cloud in clouds:
            count = len(cloud.points)
            shapes = (
                ("points", cloud.points, (count, self.config.point_columns)),
                ("pixels", cloud.pixels, (count, 2)),
                ("visible", cloud.visible, (count,)),
            )
            for name, tensor, shape in shapes:
                if tensor is not None and tensor.shape != shape:
                    msg = f"detector {name}: expected {shape}, got {tuple(tensor.shape)}"
                    raise ShapeError(msg)
        if images is not None:
            got = tuple(images.shape)
            if len(got) != _IMAGE_DIMS or got[:2] != (len(clouds), 3) or not all(got):
                msg = f"detector images: expected ({len(clouds)}, 3, H, W), got {got}"
                raise ShapeError(msg)

"""MVX-Net: the released model's names and shapes, its parts against formulas, both runtimes, and a scene learnt by heart."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import json
import math
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from gemini_core.errors import ConfigError, ShapeError, WeightsError
from gemini_core.model.detection.interface import IGNORED, Cloud
from gemini_core.model.detection.mvxnet.config import MvxNetConfig
from gemini_core.model.detection.mvxnet.head import (
    MvxMaps,
    anchor_loss,
    assign,
    decode_boxes,
    direction_of,
    encode_boxes,
    find_boxes,
    make_anchors,
    nearest_iou,
    turn_to,
)
from gemini_core.model.detection.mvxnet.image import FeaturePyramid, ResNet, pad, to_caffe
from gemini_core.model.detection.mvxnet.importing import import_mvxnet, released_shapes
from gemini_core.model.detection.mvxnet.network import MvxNet
from gemini_core.model.detection.mvxnet.points import LevelFusion, SeenPoints, VoxelEncoder, fill_voxels, place_points
from gemini_core.model.detection.mvxnet.sparse import SparseConv, SparseEncoder, SparseTensor
from mvxnets import config, lively, random_cloud, random_images, released_tensors, small
from networks import randomize

GOLDEN = Path(__file__).parents[3] / "golden"
PEDESTRIAN, CAR = 0, 1
needs_spconv = pytest.mark.skipif(
    importlib.util.find_spec("spconv") is None, reason="spconv is not installed (pip install 'gemini_ros[mvxnet]')"
)


def assert_same_maps(got, expected, tolerance=1e-5):
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


# --------------------------------------------------------------------------------------------------------------------
# Configuration


def test_the_default_grid_is_that_of_the_released_model():
    released = MvxNetConfig()
    assert released.sparse_shape == (41, 1600, 1408)
    assert (released.depth_out, released.map_shape, released.anchors_per_cell) == (2, (200, 176), 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("car", "car")}, "classes"),
        ({"classes": ("car",)}, "anchor_sizes_m: expected one for each of the 1 classes"),
        ({"anchor_sizes_m": ((1.0, 1.0, 1.0), (1.0, 0.0, 1.0))}, "anchor_sizes_m"),
        ({"anchor_bottoms_m": (0.0, math.nan)}, "anchor_bottoms_m"),
        ({"anchor_yaws": ()}, "anchor_yaws"),
        ({"negative_ious": (0.4, 0.2)}, "negative_ious"),
        ({"range_m": (0.0, 0.0, 0.0, 1.0, 1.0)}, "range_m"),
        ({"range_m": (0.0, 3.2, -1.6, 6.4, 3.2, 1.6)}, "the least y below the largest"),
        ({"range_m": (0.0, -3.2, -0.8, 6.4, 3.2, 0.8)}, "enough voxels along z"),
        ({"voxel_m": (0.1, 0.0, 0.1)}, "voxel_m"),
        ({"voxel_m": (0.2, 0.128, 0.1)}, r"multiples of 16 voxels along x and y, got \(32, 50\)"),
        ({"voxel_m": (1e-5, 1e-5, 0.1)}, "at most"),
        ({"point_columns": 2}, "point_columns"),
        ({"voxel_widths": (8, 0)}, "voxel_widths"),
        ({"sparse_widths": ((4,), ())}, "sparse_widths"),
        ({"plane_depths": (1,)}, "plane_depths"),
        ({"plane_depths": (1, -1)}, "plane_depths"),
        ({"image_levels": 3}, "image_levels: expected at least one for each of the 4 stages"),
        ({"fusion_heads": 3}, "fusion_heads: expected a divisor of the width 8"),
    ],
)
def test_configurations_that_cannot_be(changes, message):
    with pytest.raises(ConfigError, match=f"^detector .*{message}"):
        config(**changes)


def test_spconv_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "spconv", None)
    monkeypatch.setitem(sys.modules, "spconv.pytorch", None)
    with pytest.raises(ConfigError, match=r"expected the package spconv for MVX-Net \(pip install 'gemini_ros\[mvxnet\]'\)"):
        MvxNet(config())
    with pytest.raises(ConfigError, match="runtime: expected one of spconv, torch, got 'cuda'"):
        MvxNet(config(), runtime="cuda")


# --------------------------------------------------------------------------------------------------------------------
# The released model's tensors


def norm_shapes(name, width):
    return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")} | {
        f"{name}.num_batches_tracked": ()
    }


def conv_norm_shapes(name, shape, conv="conv", norm="bn", width=None):
    return {f"{name}.{conv}.weight": shape} | norm_shapes(f"{name}.{norm}", shape[0] if width is None else width)


def linear_shapes(name, outputs, inputs, kernel=()):
    return {f"{name}.weight": (outputs, inputs, *kernel), f"{name}.bias": (outputs,)}


def kitti_image_branch():
    """ResNet-50 and a pyramid of 256 channels with norms, as mmdetection names them."""
    shapes = {"img_backbone.conv1.weight": (64, 3, 7, 7)} | norm_shapes("img_backbone.bn1", 64)
    inputs = 64
    for stage, (inner, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for block in range(depth):
            name = f"img_backbone.layer{stage}.{block}"
            kernels = ((inner, inputs, 1, 1), (inner, inner, 3, 3), (4 * inner, inner, 1, 1))
            for number, kernel in enumerate(kernels, start=1):
                shapes[f"{name}.conv{number}.weight"] = kernel
                shapes |= norm_shapes(f"{name}.bn{number}", kernel[0])
            if block == 0:
                shapes |= conv_norm_shapes(f"{name}.downsample", (4 * inner, inputs, 1, 1), "0", "1")
            inputs = 4 * inner
    for level, channels in enumerate((256, 512, 1024, 2048)):
        shapes |= conv_norm_shapes(f"img_neck.lateral_convs.{level}", (256, channels, 1, 1))
        shapes |= conv_norm_shapes(f"img_neck.fpn_convs.{level}", (256, 256, 3, 3))
    return shapes


def kitti_fusion(name, width):
    shapes = {f"{name}.alpha": (2,), f"{name}.k_noise.weight": (2, width), f"{name}.v_noise.weight": (2, width)}
    for level in range(5):
        shapes |= linear_shapes(f"{name}.lateral_convs.{level}.conv", width, 256, (3, 3))
    shapes |= linear_shapes(f"{name}.img_transform.0", width, 5 * width) | norm_shapes(f"{name}.img_transform.1", width)
    shapes |= linear_shapes(f"{name}.pts_transform.0", width, 64) | norm_shapes(f"{name}.pts_transform.1", width)
    shapes |= linear_shapes(f"{name}.relation_judger.0.fc1", width, 2 * width)
    shapes |= linear_shapes(f"{name}.relation_judger.0.fc2", width, width)
    for direction in ("0_to_1", "1_to_0"):
        attention = f"{name}.cross_attn_{direction}"
        shapes |= {f"{attention}.in_proj_weight": (3 * width, width), f"{attention}.in_proj_bias": (3 * width,)}
        shapes |= linear_shapes(f"{attention}.out_proj", width, width)
    return shapes


def kitti_shapes():
    """Every tensor of ``geminifusion_mvxnet``, written down from its training configuration, not from our modules."""
    shapes = kitti_image_branch()
    shapes |= conv_norm_shapes("pts_voxel_encoder.vfe_layers.0", (64, 4 + 3 + 3), "0", "1")
    shapes |= conv_norm_shapes("pts_voxel_encoder.vfe_layers.1", (64, 2 * 64), "0", "1")
    shapes |= kitti_fusion("pts_voxel_encoder.fusion_layer.0", 64) | kitti_fusion("pts_voxel_encoder.fusion_layer.1", 128)
    middle = "pts_middle_encoder"
    shapes |= conv_norm_shapes(f"{middle}.conv_input", (16, 3, 3, 3, 128), "0", "1")
    for stage, channels in enumerate(((16, 16), (16, 32, 32, 32), (32, 64, 64, 64), (64, 64, 64, 64)), start=1):
        for block, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
            name = f"{middle}.encoder_layers.encoder_layer{stage}.{block}"
            shapes |= conv_norm_shapes(name, (outputs, 3, 3, 3, inputs), "0", "1")
    shapes |= conv_norm_shapes(f"{middle}.conv_out", (128, 3, 1, 1, 64), "0", "1")
    for stage, (inputs, outputs) in enumerate(((256, 128), (128, 256))):
        for layer in range(6):
            name, shape = f"pts_backbone.blocks.{stage}", (outputs, inputs if layer == 0 else outputs, 3, 3)
            shapes |= conv_norm_shapes(name, shape, str(3 * layer), str(3 * layer + 1))
        transposed = (outputs, 256, stage + 1, stage + 1)
        shapes |= conv_norm_shapes(f"pts_neck.deblocks.{stage}", transposed, "0", "1", width=256)
    for name, numbers in (("conv_cls", 3), ("conv_reg", 7), ("conv_dir_cls", 2)):
        shapes |= linear_shapes(f"pts_bbox_head.{name}", 6 * numbers, 512, (1, 1))
    return shapes


def test_names_and_shapes_are_those_of_the_released_model():
    expected = kitti_shapes()
    assert released_shapes(MvxNetConfig()) == expected
    trained = {name: math.prod(shape) for name, shape in expected.items() if "running_" not in name and "tracked" not in name}
    # Its README: 34.8M parameters, and 33.8M without GeminiFusion, that is one fusion and no attention in it.
    assert round(sum(trained.values()) / 1e6, 1) == 34.8
    own = ("alpha", "noise", "relation_judger", "cross_attn", "fusion_layer.0.")
    assert round(sum(count for name, count in trained.items() if not any(part in name for part in own)) / 1e6, 1) == 33.8


def test_released_tensors_arrive_whole():
    tensors = released_tensors(config())
    model = import_mvxnet({"meta": {"epoch": 40}, "state_dict": tensors}, config(), runtime="torch")
    assert not model.training
    state = model.state_dict()
    fusion = "pts_voxel_encoder.fusion_layer"
    same = [name for name in tensors if not name.startswith(fusion) or "lateral_convs" in name]
    assert all(torch.equal(state[name], tensors[name]) for name in same)
    assert {name for name in state if ".fusion." not in name} == set(same)
    for layer in (0, 1):
        ours, theirs = f"{fusion}.{layer}.fusion", f"{fusion}.{layer}"
        assert torch.equal(state[f"{ours}.image_map.weight"], tensors[f"{theirs}.img_transform.0.weight"])
        assert torch.equal(state[f"{ours}.stream_weights"], tensors[f"{theirs}.alpha"].flip(0))
        # theirs: image first; ours: points first
        assert torch.equal(
            state[f"{ours}.fusion.attention.0.query.weight"], tensors[f"{theirs}.cross_attn_1_to_0.in_proj_weight"].chunk(3)[0]
        )
        assert torch.equal(state[f"{ours}.fusion.key_noise"], tensors[f"{theirs}.k_noise.weight"].flip(0))


def test_the_order_of_spconv_1_is_turned():
    tensors = released_tensors(config())
    old = {name: tensor.permute(1, 2, 3, 4, 0) if tensor.ndim == 5 else tensor for name, tensor in tensors.items()}
    assert sum(tensor.ndim == 5 for tensor in old.values()) == 7
    expected = import_mvxnet(tensors, config(), runtime="torch").state_dict()
    got = import_mvxnet(old, config(), runtime="torch").state_dict()
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())
    mixed = {**old, "pts_middle_encoder.conv_out.0.weight": tensors["pts_middle_encoder.conv_out.0.weight"]}
    with pytest.raises(WeightsError, match=r"6 .* of another shape"):
        import_mvxnet(mixed, config(), runtime="torch")


def test_released_tensors_are_taken_whole_or_not_at_all():
    tensors = released_tensors(config())
    changed = {**tensors, "img_rpn_head.rpn_conv.weight": torch.ones(2), "pts_bbox_head.conv_cls.bias": torch.ones(9)}
    del changed["pts_voxel_encoder.fusion_layer.1.alpha"], changed["img_neck.lateral_convs.0.bn.bias"]
    message = (
        r"2 \(img_neck.lateral_convs.0.bn.bias, pts_voxel_encoder.fusion_layer.1.alpha\) missing, "
        r"1 \(img_rpn_head.rpn_conv.weight\) unknown and "
        r"1 \(pts_bbox_head.conv_cls.bias \(9,\) for \(8,\)\) of another shape"
    )
    with pytest.raises(WeightsError, match=message):
        import_mvxnet(changed, config(), runtime="torch")
    with pytest.raises(WeightsError, match=r"nothing but tensors in the state dict, got 1 \(epoch: int\)"):
        import_mvxnet({**tensors, "epoch": 3}, config(), runtime="torch")


def test_counters_of_batches_may_be_missing():
    tensors = {name: tensor for name, tensor in released_tensors(config()).items() if not name.endswith("tracked")}
    assert len(tensors) < len(released_shapes(config()))
    import_mvxnet(tensors, config(), runtime="torch")


def test_the_imported_fusion_computes_what_the_released_code_does():
    """The recorded numbers of the released point fusion, as the second fusion of a model of the same widths."""
    with safe_open(GOLDEN / "point_fusion.safetensors", framework="pt") as file:
        recorded = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    weights = {name.removeprefix("weights."): tensor for name, tensor in recorded.items() if name.startswith("weights.")}
    width, inputs = weights["img_transform.0.weight"].shape
    levels, point_width = inputs // width, weights["pts_transform.0.weight"].shape[1]
    numbers = config(
        voxel_widths=(8, point_width), fused_width=width, fusion_heads=8, image_levels=levels, image_depths=(1,) * levels
    )
    tensors = released_tensors(numbers)
    tensors |= {f"pts_voxel_encoder.fusion_layer.1.{name}": tensor for name, tensor in weights.items()}
    model = import_mvxnet(tensors, numbers, runtime="torch")
    with torch.no_grad():
        fused = model.pts_voxel_encoder.fusion_layer[1].fusion(
            recorded["input.point_features"], recorded["input.image_features_at_points"]
        )
    assert (fused - recorded["output"]).abs().max() <= 1e-5 * recorded["output"].std()


# --------------------------------------------------------------------------------------------------------------------
# What the released code computes, from random weights of a small model (golden/README.md)


@pytest.fixture(scope="module")
def released():
    """A configuration, the recorded tensors, and the model with the recorded weights."""
    with safe_open(GOLDEN / "mvxnet.safetensors", framework="pt") as file:
        recorded = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        numbers = json.loads(file.metadata()["config"], object_hook=lambda fields: {n: tuples(v) for n, v in fields.items()})
    weights = {name.removeprefix("weights."): tensor for name, tensor in recorded.items() if name.startswith("weights.")}
    return MvxNetConfig(**numbers), recorded, weights


def tuples(value):
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def recorded_maps(recorded):
    return MvxMaps(*(recorded[f"output.{name}"] for name in MvxMaps._fields))


@pytest.mark.parametrize("runtime", ["torch", pytest.param("spconv", marks=needs_spconv)])
def test_the_whole_network_computes_what_the_released_code_does(released, runtime):
    numbers, recorded, weights = released
    model = import_mvxnet(weights, numbers, runtime=runtime)
    clouds = []
    for sample in range(2):
        points, pixels = recorded[f"input.points.{sample}"], recorded[f"input.pixels.{sample}"]
        clouds.append(Cloud(points, pixels, torch.ones(len(points), dtype=torch.bool)))
    with torch.no_grad():
        maps = model(clouds, recorded["input.images"])
    for got, expected in zip(maps, recorded_maps(recorded), strict=True):
        assert got.shape == expected.shape
        assert (got - expected).abs().max() <= 1e-4 * expected.std()  # some seventy layers of fp32


def test_losses_are_those_of_the_released_code(released):
    numbers, recorded, _ = released
    maps = recorded_maps(recorded)
    anchors = make_anchors(numbers, maps.boxes)
    targets = [
        assign(recorded[f"input.boxes.{sample}"], recorded[f"input.classes.{sample}"], anchors, numbers) for sample in range(2)
    ]
    loss = anchor_loss(maps, targets, anchors)
    got = torch.stack((loss.scores, 2.0 * loss.boxes, 0.2 * loss.directions))
    torch.testing.assert_close(got, recorded["output.losses"], rtol=1e-5, atol=1e-5)


def test_boxes_are_those_of_the_released_code(released):
    """Its z is that of the lower face."""
    numbers, recorded, _ = released
    maps = recorded_maps(recorded)
    for sample, found in enumerate(find_boxes(maps, make_anchors(numbers, maps.boxes))):
        boxes = recorded[f"output.found.{sample}.boxes_from_bottom"].clone()
        boxes[:, 2] += boxes[:, 5] / 2
        turned = torch.remainder(found.boxes[:, 6] - boxes[:, 6] + math.pi, 2 * math.pi) - math.pi
        torch.testing.assert_close(found.boxes[:, :6], boxes[:, :6], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(turned, torch.zeros_like(turned), rtol=0, atol=1e-5)
        torch.testing.assert_close(found.scores, recorded[f"output.found.{sample}.scores"])
        assert torch.equal(found.classes, recorded[f"output.found.{sample}.classes"])


# --------------------------------------------------------------------------------------------------------------------
# Image branch


def test_caffe_images_are_bgr_less_the_mean():
    rgb = torch.tensor([255.0, 100.0, 0.0])[None, :, None, None]
    expected = torch.tensor([0 - 102.9801, 100 - 115.9465, 255 - 122.7717])
    torch.testing.assert_close(to_caffe(rgb / 255)[0, :, 0, 0], expected)


def test_images_are_filled_up_at_the_right_and_the_bottom():
    images = random_images()
    padded = pad(images)
    assert padded.shape == (1, 3, 64, 96)
    assert torch.equal(padded[..., :60, :90], images)
    assert padded[..., 60:, :].abs().sum() == padded[..., 90:].abs().sum() == 0
    assert pad(padded).shape == padded.shape


def test_the_resnet_has_caffes_strides_and_sizes():
    network = ResNet((1, 2, 1, 1), 4, frozen=False)
    levels = network(torch.randn(2, 3, 64, 96))
    assert [tuple(level.shape) for level in levels] == [(2, 16, 16, 24), (2, 32, 8, 12), (2, 64, 4, 6), (2, 128, 2, 3)]
    first, second = network.layer2
    assert (first.conv1.stride, first.conv2.stride, second.conv1.stride) == ((2, 2), (1, 1), (1, 1))


def test_a_bottleneck_is_its_formula():
    """With norms as they are made (mean 0, deviation 1, eps 1e-5), three convolutions and a shortcut."""
    block = randomize(ResNet((1,), 4, frozen=False), std=0.2).eval().layer1[0]
    values = torch.randn(1, 4, 6, 7)

    def normed(norm, inputs):
        weight, bias = (part[:, None, None] for part in (norm.weight, norm.bias))
        return inputs / math.sqrt(1 + 1e-5) * weight + bias

    inner = normed(block.bn1, F.conv2d(values, block.conv1.weight)).relu()
    inner = normed(block.bn2, F.conv2d(inner, block.conv2.weight, padding=1)).relu()
    inner = normed(block.bn3, F.conv2d(inner, block.conv3.weight))
    shortcut = normed(block.downsample[1], F.conv2d(values, block.downsample[0].weight))
    torch.testing.assert_close(block(values), (inner + shortcut).relu())


def test_what_is_frozen_does_not_learn():
    model = small(image_frozen=True).train()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    stem = {name for name, _ in model.named_parameters() if name.startswith(("img_backbone.conv1.", "img_backbone.layer1."))}
    norms = {
        name for name, _ in model.named_parameters() if name.startswith("img_") and (".bn" in name or "downsample.1" in name)
    }
    assert frozen == stem | norms
    before = model.img_backbone.bn1.running_mean.clone()
    model([random_cloud()], random_images())
    assert torch.equal(model.img_backbone.bn1.running_mean, before)


def test_the_pyramid_adds_coarser_levels_onto_finer_ones():
    pyramid = randomize(FeaturePyramid((3, 5), 4, 3, frozen=False)).eval()
    fine, coarse = torch.randn(1, 3, 6, 9), torch.randn(1, 5, 3, 5)
    got = pyramid((fine, coarse))
    lateral, top = (conv(level) for conv, level in zip(pyramid.lateral_convs, (fine, coarse), strict=True))
    rows, columns = torch.arange(6) // 2, (torch.arange(9) * 5) // 9
    torch.testing.assert_close(got[0], pyramid.fpn_convs[0](lateral + top[:, :, rows][:, :, :, columns]))
    torch.testing.assert_close(got[1], pyramid.fpn_convs[1](top))
    torch.testing.assert_close(got[2], F.max_pool2d(got[1], 1, stride=2))


# --------------------------------------------------------------------------------------------------------------------
# Voxels and points


def voxels_of(points, sample=None, **changes):
    numbers = config(**changes)
    index, inside = place_points(points, numbers)
    assert inside.all()
    sample = torch.zeros(len(points), dtype=torch.long) if sample is None else sample
    return fill_voxels(points, index, sample, numbers)


def test_points_are_placed_by_z_y_x():
    points = torch.tensor([[0.05, -3.15, -1.55, 0.5], [6.35, 3.15, 1.55, 0.5], [1.05, 0.05, 0.35, 0.5]])
    index, inside = place_points(points, config())
    assert index.tolist() == [[0, 0, 0], [31, 63, 63], [19, 32, 10]]
    assert inside.all()


def test_points_out_of_range_or_not_finite_are_in_no_voxel():
    edge = [[6.4, 0, 0, 1], [-0.01, 0, 0, 1], [1, 3.2, 0, 1], [1, 0, 1.6, 1], [math.nan, 0, 0, 1], [1, math.inf, 0, 1]]
    _, inside = place_points(torch.tensor([*edge, [0.0, -3.2, -1.6, 1.0]]), config())
    assert inside.tolist() == [False] * 6 + [True]


def test_voxels_of_samples_are_apart():
    points = torch.tensor([[1.05, 0.05, 0.35, 0.5], [1.06, 0.06, 0.36, 0.1], [1.05, 0.05, 0.35, math.nan]])
    voxels = voxels_of(points, torch.tensor([0, 0, 1]))
    assert voxels.places.tolist() == [[0, 19, 32, 10], [1, 19, 32, 10]]
    assert voxels.voxel.tolist() == [0, 0, 1]
    assert voxels.points[2, 3] == 0  # what else is not finite is not known


def test_a_points_own_numbers():
    points = torch.tensor([[1.01, 0.02, 0.33, 0.5], [1.05, 0.08, 0.37, 0.1], [2.05, 0.05, 0.35, 0.7]])
    own = VoxelEncoder(config()).own_features(voxels_of(points))
    mean, centre = torch.tensor([1.03, 0.05, 0.35]), torch.tensor([1.05, 0.05, 0.35])
    torch.testing.assert_close(own[:, :4], points)
    torch.testing.assert_close(own[:2, 4:7], points[:2, :3] - mean, atol=1e-6, rtol=0)
    torch.testing.assert_close(own[:2, 7:], points[:2, :3] - centre, atol=1e-6, rtol=0)
    torch.testing.assert_close(own[2, 4:], torch.zeros(6), atol=1e-6, rtol=0)


def test_voxels_hold_the_largest_of_their_points_and_points_learn_of_it():
    encoder = randomize(VoxelEncoder(config())).eval()
    points = torch.rand(40, 4) * torch.tensor([0.3, 0.3, 0.3, 1.0]) + torch.tensor([1.0, 0.0, 0.3, 0.0])
    voxels = voxels_of(points)
    got = encoder(voxels, None)
    features = encoder.own_features(voxels)
    for number, (layer, fusion) in enumerate(zip(encoder.vfe_layers, encoder.fusion_layer, strict=True)):
        features = fusion.fusion.alone(layer(features))
        largest = torch.stack([features[voxels.voxel == row].amax(0) for row in range(len(voxels.places))])
        if number == 0:
            features = torch.cat((features, largest[voxels.voxel]), 1)
    torch.testing.assert_close(got, largest)
    assert (got > 0).any()


def test_pixels_are_sampled_where_the_released_model_does():
    """Pixel u of W at u w / W - 0.5 cells, zeros beyond; a level that holds its cells' numbers gives the places back."""
    layer = LevelFusion(1, 1, 4, 2, 1).eval()
    with torch.no_grad():
        layer.lateral_convs[0].conv.weight.zero_()
        layer.lateral_convs[0].conv.weight[:, 0, 1, 1] = 1.0
        layer.lateral_convs[0].conv.bias.zero_()
        layer.fusion.image_map.weight.copy_(torch.eye(2))
        layer.fusion.image_map.bias.copy_(torch.tensor([0.0, 100.0]))
        level = torch.arange(12.0).expand(1, 1, 8, 12)  # of a picture of 64 x 96
        pixels = torch.tensor([[4.0, 4.0], [48.0, 30.0], [91.9, 30.0], [2.0, 30.0], [95.0, 30.0]])
        got = layer.image_at_points(SeenPoints([level], torch.ones(5, dtype=torch.bool), pixels, [5], (64, 96)))
    places = pixels[:, 0] / 8 - 0.5
    expected = torch.tensor([0.0, 5.5, 10.9875, 0.0, 11 * (12 - places[4])])
    torch.testing.assert_close(got[:, 0], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(got[:, 1], expected + 100, atol=1e-4, rtol=0)


def test_mapping_before_sampling_changes_nothing():
    torch.manual_seed(0)
    layer = randomize(LevelFusion(2, 3, 4, 8, 4)).eval()
    levels = [torch.randn(2, 3, 8, 12), torch.randn(2, 3, 4, 6)]
    pixels = torch.rand(9, 2) * torch.tensor([95.0, 63.0])
    got = layer.image_at_points(SeenPoints(levels, torch.ones(9, dtype=torch.bool), pixels, [4, 5], (64, 96)))
    laterals = [conv(level) for conv, level in zip(layer.lateral_convs, levels, strict=True)]
    grid = (2 * pixels / torch.tensor([96.0, 64.0]) - 1)[None, :, None]
    parts = []
    for sample, some in ((0, slice(0, 4)), (1, slice(4, 9))):
        at = [F.grid_sample(own[sample : sample + 1], grid[:, some], align_corners=False)[0, :, :, 0].T for own in laterals]
        parts.append(torch.cat(at, 1))
    torch.testing.assert_close(got, layer.fusion.image_map(torch.cat(parts)), atol=1e-5, rtol=1e-5)


def test_half_a_million_points():
    encoder = VoxelEncoder(config()).eval()
    cloud = random_cloud(500_000)
    index, inside = place_points(cloud.points, encoder.config)
    points = cloud.points[inside]
    voxels = fill_voxels(points, index[inside], torch.zeros(len(points), dtype=torch.long), encoder.config)
    with torch.no_grad():
        features = encoder(voxels, None)
    assert features.shape == (len(voxels.places), 12)
    assert features.isfinite().all()
    assert torch.bincount(voxels.voxel).sum() == inside.sum() > 350_000


# --------------------------------------------------------------------------------------------------------------------
# Sparse convolutions


def all_cells(batch, shape):
    return torch.cartesian_prod(*(torch.arange(size) for size in (batch, *shape)))


def dense(features, indices, shape, batch):
    result = features.new_zeros(batch, *shape, features.shape[1])
    result[tuple(indices.long().T)] = features
    return result.permute(0, 4, 1, 2, 3)


KERNELS = [
    ((3, 3, 3), (1, 1, 1), (1, 1, 1), True),
    ((3, 3, 3), (2, 2, 2), (1, 1, 1), False),
    ((3, 3, 3), (2, 2, 2), (0, 1, 1), False),
    ((3, 1, 1), (2, 1, 1), (0, 0, 0), False),
]


@pytest.mark.parametrize(("kernel", "stride", "padding", "submanifold"), KERNELS)
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_sparse_convolutions_equal_dense_ones(kernel, stride, padding, submanifold, share):
    """Where there is an output; elsewhere the dense one is zero, unless it is a submanifold one, which then says nothing."""
    torch.manual_seed(0)
    shape, batch = (5, 6, 7), 2
    indices = all_cells(batch, shape)
    indices = indices[torch.randperm(len(indices))[: int(share * len(indices))]]
    conv = SparseConv(3, 4, kernel, stride, padding, submanifold=submanifold)
    features = torch.randn(len(indices), 3, requires_grad=True)
    result = conv(SparseTensor(features, indices, shape, batch))
    got = dense(result.features, result.indices, result.spatial_shape, batch)
    expected = F.conv3d(
        dense(features, indices, shape, batch), conv.weight.permute(0, 4, 1, 2, 3), stride=stride, padding=padding
    )
    if submanifold:
        expected = expected * dense(torch.ones(len(indices), 1), indices, shape, batch)
        assert torch.equal(result.indices, indices)
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert len(result.indices.unique(dim=0)) == len(result.indices)
    wanted = torch.randn_like(expected)
    ours = torch.autograd.grad((got * wanted).sum(), (features, conv.weight))
    theirs = torch.autograd.grad((expected * wanted).sum(), (features, conv.weight))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-5)


def test_the_encoder_on_a_full_grid_is_dense_convolutions():
    numbers = config(range_m=(0.0, -0.8, -1.6, 1.6, 0.8, 1.6), fused_width=4, voxel_widths=(4,))
    encoder = randomize(SparseEncoder(numbers, "torch"), std=0.3).eval()
    places = all_cells(1, numbers.sparse_shape)
    features = torch.randn(len(places), 4)
    values = dense(features, places, numbers.sparse_shape, 1)
    last = encoder.encoder_layers.encoder_layer4[0]
    strided = {encoder.conv_out: ((2, 1, 1), 0), last: (2, (0, 1, 1))}
    strided |= {encoder.get_submodule(f"encoder_layers.encoder_layer{stage}.0"): (2, 1) for stage in (2, 3)}
    stages = [block for stage in encoder.encoder_layers for block in stage]
    for block in (encoder.conv_input, *stages, encoder.conv_out):
        stride, padding = strided.get(block, (1, 1))
        values = F.conv3d(values, block[0].weight.permute(0, 4, 1, 2, 3), stride=stride, padding=padding)
        norm = block[1]
        values = F.batch_norm(values, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-3).relu()
    got = encoder(features, places, 1)
    assert got.shape == (1, 16 * numbers.depth_out, 2, 2)
    torch.testing.assert_close(got, values.flatten(1, 2), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("runtime", ["torch", pytest.param("spconv", marks=needs_spconv)])
def test_no_voxel_gives_an_empty_map(runtime):
    encoder = SparseEncoder(config(), runtime).eval()
    got = encoder(torch.zeros(0, 12), torch.zeros(0, 4, dtype=torch.long), 2)
    assert got.shape == (2, 16, 8, 8)
    assert not got.any()


@needs_spconv
def test_both_runtimes_give_the_same_and_take_the_same_weights():
    ours, theirs = lively(), lively("spconv")
    clouds = [random_cloud(), random_cloud(seed=1)]
    with torch.no_grad():
        got, expected = theirs(clouds, random_images(2)), ours(clouds, random_images(2))
    assert expected.boxes.std() > 0.1
    assert_same_maps(got, expected, 1e-4)
    copied = copy.deepcopy(theirs)
    with torch.no_grad():
        assert_same_maps(copied(clouds, random_images(2)), got)


@needs_spconv
def test_both_runtimes_have_the_same_gradients(monkeypatch):
    """spconv asks for a CUDA stream even for its CPU kernels, which take none; without a device, only that is left out here."""
    if not torch.cuda.is_available():
        import spconv.pytorch.ops

        monkeypatch.setattr(spconv.pytorch.ops, "get_current_stream", lambda: 0)
    torch.manual_seed(0)
    ours = SparseEncoder(config(), "torch").eval()
    theirs = SparseEncoder(config(), "spconv").eval()
    theirs.load_state_dict(ours.state_dict())
    places = all_cells(1, config().sparse_shape)
    places = places[torch.randperm(len(places))[:300]]
    features = torch.randn(300, 12)
    gradients = []
    for encoder in (ours, theirs):
        values = features.clone().requires_grad_()
        result = encoder(values, places, 1)
        loss = (result * torch.linspace(-1, 1, result.numel()).view(result.shape)).sum()
        gradients.append(torch.autograd.grad(loss, (values, *encoder.parameters())))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


@needs_spconv
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device, on which spconv trains")
def test_training_with_spconv_needs_a_gpu():
    with pytest.raises(ConfigError, match="expected a CUDA device to train with spconv"):
        small(runtime="spconv").train()([random_cloud()])


# --------------------------------------------------------------------------------------------------------------------
# Anchors


def test_anchors_of_the_released_model():
    """From edge to edge of the range, in the order of the head's channels; z is at the centre."""
    anchors = make_anchors(MvxNetConfig(), torch.zeros(0))
    assert anchors.shape == (200, 176, 3, 2, 7)
    car, pedestrian = anchors[0, 0, 2, 1], anchors[199, 175, 0, 0]
    torch.testing.assert_close(car, torch.tensor([0.0, -40.0, -1.78 + 0.78, 3.9, 1.6, 1.56, 1.57]))
    torch.testing.assert_close(pedestrian, torch.tensor([70.4, 40.0, -0.6 + 0.865, 0.8, 0.6, 1.73, 0.0]))
    torch.testing.assert_close(anchors[7, 9, 1, 0, :2], torch.tensor([9 * 70.4 / 175, -40 + 7 * 80 / 199]))


place = st.floats(-70, 70)
side = st.floats(0.3, 12)  # of a box within fifty times of its anchor
numbers_of_a_box = st.tuples(place, place, st.floats(-5, 5), side, side, side, st.floats(-math.pi, math.pi))


@given(numbers_of_a_box, numbers_of_a_box)
def test_boxes_come_back_from_their_numbers(box, anchor):
    box, anchor = torch.tensor(box, dtype=torch.float64), torch.tensor(anchor, dtype=torch.float64)
    torch.testing.assert_close(decode_boxes(encode_boxes(box, anchor), anchor), box, atol=1e-9, rtol=1e-9)


def test_numbers_of_a_box_are_the_released_models():
    """Its encoding holds z at the bottom of both and adds half the heights first; worked by hand for a 3-4-5 anchor."""
    anchor = torch.tensor([1.0, 2.0, -1.0 + 0.75, 4.0, 3.0, 1.5, 0.5])
    box = torch.tensor([6.0, -8.0, 0.5 + 1.0, 8.0, 1.5, 2.0, 0.8])
    expected = torch.tensor([1.0, -2.0, ((0.5 + 1.0) - (-1.0 + 0.75)) / 1.5, math.log(2), -math.log(2), math.log(4 / 3), 0.3])
    torch.testing.assert_close(encode_boxes(box, anchor), expected)


@given(st.floats(-math.pi + 1e-3, math.pi), st.integers(-3, 3))
def test_the_direction_settles_which_way_is_forward(yaw, halves):
    yaw = torch.tensor(yaw, dtype=torch.float64)
    got = turn_to(yaw + halves * math.pi, direction_of(yaw))
    assert -math.pi < got <= math.pi
    # At the border of both halves, the smallest rounding decides: then the axis is right and the way is not.
    if abs(abs(float(yaw)) - math.pi / 2) > 1e-6:
        assert abs(float(torch.remainder(got - yaw + math.pi, 2 * math.pi)) - math.pi) < 1e-9


def test_directions_are_halves_of_the_circle():
    degrees = torch.tensor([-179.0, -91.0, -89.0, 0.0, 89.0, 91.0, 180.0, 271.0])
    assert direction_of(degrees * math.pi / 180).tolist() == [1, 1, 0, 0, 0, 1, 1, 0]


def test_nearest_overlap_turns_boxes_to_the_nearer_axis():
    a = torch.tensor([[0.0, 0.0, 0.0, 4.0, 2.0, 1.0, 0.0]])
    b = torch.tensor(
        [[0.0, 0.0, 9.0, 4.0, 2.0, 1.0, yaw] for yaw in (0.7, 0.8, math.pi - 0.1, -1.57)] + [[3.0, 0, 0, 4, 2, 1, 0]]
    )
    torch.testing.assert_close(nearest_iou(a, b), torch.tensor([[1.0, 1 / 3, 1.0, 1 / 3, 1 / 7]]))


CLASSES = (PEDESTRIAN, CAR)


def on_anchor(row, column, kind, turn=0, shift=0.0):
    box = make_anchors(config(), torch.zeros(0))[row, column, kind, turn].clone()
    box[0] += shift
    return box


def test_anchors_become_the_class_of_the_box_they_overlap():
    numbers = config()
    anchors = make_anchors(numbers, torch.zeros(0))
    box = on_anchor(3, 4, CAR)
    targets = assign(box[None], torch.tensor([CAR]), anchors, numbers)
    overlap = nearest_iou(box[None], anchors[:, :, CAR].reshape(-1, 7)).view(8, 8, 2)
    assert (targets.classes[:, :, PEDESTRIAN] == 2).all()  # boxes of other classes do not count
    assert targets.classes[3, 4, CAR, 0] == CAR
    torch.testing.assert_close(targets.boxes[3, 4, CAR, 0], box)
    car = targets.classes[:, :, CAR]
    assert torch.equal(car == CAR, overlap >= 0.5)
    assert torch.equal(car == IGNORED, (overlap >= 0.35) & (overlap < 0.5))
    assert (car == IGNORED).any()
    assert targets.boxes[targets.classes != CAR].abs().sum() == 0


def test_a_box_that_no_anchor_fits_well_still_has_its_best():
    numbers = config(positive_ious=(0.9, 0.9), negative_ious=(0.2, 0.2))
    anchors = make_anchors(numbers, torch.zeros(0))
    box = on_anchor(3, 4, CAR, shift=0.4)
    targets = assign(box[None], torch.tensor([CAR]), anchors, numbers)
    assert (targets.classes == CAR).nonzero().tolist() == [[3, 4, CAR, 0]]
    far = on_anchor(3, 4, CAR)
    far[:2] += 100
    assert (assign(far[None], torch.tensor([CAR]), anchors, numbers).classes == 2).all()


def test_what_overlaps_an_ignored_box_is_no_background():
    numbers = config()
    anchors = make_anchors(numbers, torch.zeros(0))
    boxes = torch.stack((on_anchor(3, 4, CAR), on_anchor(6, 1, CAR), on_anchor(0, 0, CAR)))
    boxes[2, 3] = 0.0  # not real
    targets = assign(boxes, torch.tensor([IGNORED, CAR, CAR]), anchors, numbers)
    assert targets.classes[3, 4, CAR, 0] == IGNORED
    assert targets.classes[6, 1, CAR, 0] == CAR
    assert targets.classes[0, 0, CAR, 0] == 2
    with pytest.raises(ShapeError, match=r"expected classes from -1 \(ignored\) to 1, got 2"):
        assign(boxes, torch.tensor([0, 1, 2]), anchors, numbers)
    with pytest.raises(ShapeError, match=r"expected boxes \(N, 7\)"):
        assign(boxes[:, :6], torch.tensor([0, 1, 1]), anchors, numbers)


# --------------------------------------------------------------------------------------------------------------------
# Losses and boxes out of maps


def maps_of(targets, anchors, certain=8.0):
    """What a perfect head would say."""
    kinds = anchors.shape[2]
    positive = (targets.classes >= 0) & (targets.classes < kinds)
    classes = torch.where(positive, targets.classes, kinds)
    scores = F.one_hot(classes, kinds + 1)[..., :kinds].float() * 2 * certain - certain
    numbers = torch.where(positive[..., None], encode_boxes(targets.boxes.clamp(min=-1e3), anchors), 0.0)
    yaw = targets.boxes[..., 6]
    numbers[..., 6] = torch.where(positive, torch.remainder(yaw - anchors[..., 6] + math.pi / 2, math.pi) - math.pi / 2, 0.0)
    directions = F.one_hot(direction_of(yaw), 2).float() * certain
    return MvxMaps(*(part.flatten(2)[None].permute(0, 3, 1, 2) for part in (scores, numbers.nan_to_num(), directions)))


def a_scene():
    boxes = torch.stack((on_anchor(2, 5, CAR, shift=0.2), on_anchor(6, 1, PEDESTRIAN)))
    boxes[0, 6], boxes[1, 6] = 2.9, -0.3
    boxes[:, 2] += 0.2
    boxes[0, 3:6] *= 1.1
    return boxes, torch.tensor([CAR, PEDESTRIAN])


def test_boxes_come_back_from_maps():
    numbers = config()
    anchors = make_anchors(numbers, torch.zeros(0))
    boxes, classes = a_scene()
    targets = assign(boxes, classes, anchors, numbers)
    (found,) = find_boxes(maps_of(targets, anchors), anchors)
    order = found.classes.argsort(descending=True)
    assert found.classes[order].tolist() == classes.tolist()
    torch.testing.assert_close(found.boxes[order], boxes, atol=1e-4, rtol=1e-4)
    assert (found.scores > 0.99).all()
    assert not len(find_boxes(maps_of(targets, anchors), anchors, min_score=0.9999)[0].boxes)
    assert len(find_boxes(maps_of(targets, anchors), anchors, max_boxes=1)[0].boxes) == 1


def test_one_anchor_may_be_of_two_classes_and_worse_boxes_are_left_out():
    anchors = make_anchors(config(), torch.zeros(0))
    maps = MvxMaps(torch.full((1, 8, 8, 8), -9.0), torch.zeros(1, 28, 8, 8), torch.zeros(1, 8, 8, 8))
    scores = maps.scores.view(1, 2, 2, 2, 8, 8)  # B, class and yaw of the anchor, class that it is, rows, columns
    scores[0, CAR, 0, :, 3, 4] = torch.tensor([1.0, 2.0])
    scores[0, CAR, 0, CAR, 3, 5] = 1.5  # overlaps the first car
    scores[0, CAR, 0, CAR, 3, 0] = 0.5
    (found,) = find_boxes(maps, anchors)
    assert found.classes.tolist() == [CAR, PEDESTRIAN, CAR]
    torch.testing.assert_close(found.scores, torch.tensor([2.0, 1.0, 0.5]).sigmoid())
    torch.testing.assert_close(found.boxes[:2], anchors[3, 4, CAR, 0].expand(2, 7))
    assert len(find_boxes(maps, anchors, candidates=1)[0].boxes) == 2


def test_a_perfect_head_has_no_loss_left():
    numbers = config()
    anchors = make_anchors(numbers, torch.zeros(0))
    targets = assign(*a_scene(), anchors, numbers)
    loss = anchor_loss(maps_of(targets, anchors, certain=20.0), [targets], anchors)
    assert loss.positives >= 2
    assert loss.total < 1e-5
    torch.testing.assert_close(loss.total, loss.scores + 2.0 * loss.boxes + 0.2 * loss.directions)


def test_the_opposite_heading_costs_only_the_direction():
    numbers = config()
    anchors = make_anchors(numbers, torch.zeros(0))
    boxes, classes = a_scene()
    turned = boxes.clone()
    turned[:, 6] += math.pi
    torch.manual_seed(0)
    maps = MvxMaps(torch.randn(1, 8, 8, 8), torch.randn(1, 28, 8, 8), torch.randn(1, 8, 8, 8))
    one, other = (anchor_loss(maps, [assign(own, classes, anchors, numbers)], anchors) for own in (boxes, turned))
    torch.testing.assert_close(one.boxes, other.boxes)
    torch.testing.assert_close(one.scores, other.scores)
    assert (one.directions - other.directions).abs() > 0.01


def test_losses_are_their_formulas():
    """Two positives, one anchor that does not count, all else background; worked out one anchor at a time."""
    numbers = config()
    anchors = make_anchors(numbers, torch.zeros(0))
    targets = assign(*a_scene(), anchors, numbers)
    torch.manual_seed(1)
    maps = MvxMaps(torch.randn(1, 8, 8, 8), torch.randn(1, 28, 8, 8), torch.randn(1, 8, 8, 8))
    loss = anchor_loss(maps, [targets], anchors)
    focal = smooth = cross = 0.0
    for row, column, kind, turn in all_cells(8, (8, 2, 2)).tolist():
        anchor = 2 * kind + turn
        logits = maps.scores[0, 2 * anchor : 2 * anchor + 2, row, column]
        named = int(targets.classes[row, column, kind, turn])
        if named == IGNORED:
            continue
        for other, logit in enumerate(logits.tolist()):
            share = 1 / (1 + math.exp(-logit))
            focal -= 0.25 * (1 - share) ** 2 * math.log(share) if other == named else 0.75 * share**2 * math.log(1 - share)
        if named < 2:
            truth = encode_boxes(targets.boxes[row, column, kind, turn], anchors[row, column, kind, turn])
            off = maps.boxes[0, 7 * anchor : 7 * anchor + 7, row, column] - truth
            off[6] = math.sin(off[6])
            smooth += sum(4.5 * d * d if abs(d) < 1 / 9 else abs(d) - 1 / 18 for d in off.tolist())
            ways = maps.directions[0, 2 * anchor : 2 * anchor + 2, row, column].log_softmax(0)
            cross -= float(ways[direction_of(targets.boxes[row, column, kind, turn, 6])])
    expected = torch.tensor([focal, smooth, cross]) / loss.positives
    torch.testing.assert_close(torch.stack(loss[1:4]), expected, atol=1e-4, rtol=1e-4)


def test_a_sample_without_boxes_counts_as_one_positive():
    """So the released model shares losses out, over all samples of a batch."""
    numbers = config()
    anchors = make_anchors(numbers, torch.zeros(0))
    targets = [
        assign(*a_scene(), anchors, numbers),
        assign(torch.zeros(0, 7), torch.zeros(0, dtype=torch.long), anchors, numbers),
    ]
    maps = MvxMaps(torch.zeros(2, 8, 8, 8), torch.zeros(2, 28, 8, 8), torch.zeros(2, 8, 8, 8))
    loss = anchor_loss(maps, targets, anchors)
    torch.testing.assert_close(loss.directions, torch.tensor(math.log(2) * loss.positives / (loss.positives + 1)))


def test_a_scene_without_boxes_still_trains_the_scores():
    model = small().train()
    maps = model([random_cloud()], random_images())
    loss = model.loss(maps, [torch.zeros(0, 7)], [torch.zeros(0, dtype=torch.long)])
    assert (loss.boxes, loss.directions, loss.positives) == (0, 0, 0)
    assert loss.total > 0
    loss.total.backward()
    assert model.pts_bbox_head.conv_cls.weight.grad.abs().sum() > 0


# --------------------------------------------------------------------------------------------------------------------
# The whole


def test_maps_have_their_shapes():
    maps = small().eval()([random_cloud(), random_cloud(seed=1)], random_images(2))
    assert [tuple(part.shape) for part in maps] == [(2, 8, 8, 8), (2, 28, 8, 8), (2, 8, 8, 8)]


def test_norms_are_the_released_models():
    model = small()
    for name, norm in model.named_modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            assert (norm.eps, norm.momentum) == ((1e-5, 0.1) if name.startswith("img_") else (1e-3, 0.01)), name


def test_an_untrained_head_finds_nothing():
    maps = small().eval()([random_cloud()], random_images())
    assert (maps.scores.sigmoid() - 0.01).abs().max() < 0.005
    assert not len(small().find(maps)[0].boxes)


def test_the_sparse_part_stays_in_single_precision():
    model = lively()
    places = all_cells(1, config().sparse_shape)[::97]
    features = torch.randn(len(places), 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.pts_middle_encoder(features, places, 1)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(model.pts_middle_encoder(features, places, 1), expected)
            assert model.pts_middle_encoder(features.bfloat16(), places, 1).dtype == torch.float32
            assert all(part.isfinite().all() for part in model([random_cloud()], random_images()))


def test_samples_of_a_batch_do_not_see_each_other():
    model = lively()
    clouds, images = [random_cloud(), random_cloud(100, seed=1)], random_images(2)
    with torch.no_grad():
        both = model(clouds, images)
        alone = [model([cloud], image[None]) for cloud, image in zip(clouds, images, strict=True)]
    assert both.boxes[0].sub(both.boxes[1]).abs().max() > 0.1
    assert_same_maps(both, MvxMaps(*(torch.cat(parts) for parts in zip(*alone, strict=True))), 1e-4)


def test_an_image_of_any_size_is_one_that_is_filled_up():
    model, cloud, images = lively(), random_cloud(), random_images()
    with torch.no_grad():
        assert_same_maps(model([cloud], images), model([cloud], F.pad(images, (0, 6, 0, 4))))


def test_order_and_bad_points_change_nothing():
    model = lively()
    cloud, images = random_cloud(), random_images()
    order = torch.randperm(len(cloud.points))
    bad = torch.tensor([[math.nan, 0, 0, 0], [1, math.inf, 0, 0], [99, 0, 0, 0]])
    pixels = torch.tensor([[math.nan, 0], [5, 5], [5.0, 5]])
    more = Cloud(
        torch.cat((cloud.points[order], bad)),
        torch.cat((cloud.pixels[order], pixels)),
        torch.cat((cloud.visible[order], torch.ones(3).bool())),
    )
    with torch.no_grad():
        assert_same_maps(model([more], images), model([cloud], images), 1e-4)


def test_points_outside_the_image_are_alone():
    model = lively()
    cloud, images = random_cloud(visible=1.0), random_images()
    with torch.no_grad():
        seen, unseen = model([cloud], images), model([cloud._replace(visible=None)], images)
        outside = model([cloud._replace(pixels=cloud.pixels + 1000)], images)
        assert_same_maps(model([cloud]), unseen)
        assert_same_maps(outside, unseen)
        assert_same_maps(model([Cloud(cloud.points)], images), unseen)
    assert (seen.boxes - unseen.boxes).abs().max() > 0.1


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_points(count, training):
    model = small().train(training)
    maps = model([random_cloud(count), random_cloud(0)], random_images(2))
    assert all(part.isfinite().all() for part in maps)
    assert len(model.find(maps)) == 2


def test_wrong_shapes_are_named():
    model, cloud = small().eval(), random_cloud(10)
    for clouds, images, message in (
        ([], None, "clouds: expected one for each sample"),
        ([Cloud(torch.zeros(5, 3))], None, r"points: expected \(5, 4\), got \(5, 3\)"),
        ([cloud._replace(pixels=torch.zeros(9, 2))], None, r"pixels: expected \(10, 2\), got \(9, 2\)"),
        ([cloud._replace(visible=torch.zeros(9))], None, r"visible: expected \(10,\), got \(9,\)"),
        ([cloud], random_images(2), r"images: expected \(1, 3, H, W\), got \(2, 3, 60, 90\)"),
    ):
        with pytest.raises(ShapeError, match=f"^detector {message}"):
            model(clouds, images)


def scene_cloud(boxes, seed=0):
    """Points on the ground and inside of boxes."""
    generator = torch.Generator().manual_seed(seed)
    ground = torch.rand(300, 3, generator=generator) * torch.tensor([6.4, 6.4, 0.05]) + torch.tensor([0.0, -3.2, -1.55])
    parts = [ground]
    for x, y, z, length, width, height, yaw in boxes.tolist():
        own = (torch.rand(120, 3, generator=generator) - 0.5) * torch.tensor([length, width, height])
        turn = torch.tensor([[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1.0]])
        parts.append(own @ turn.T + torch.tensor([x, y, z]))
    points = torch.cat(parts)
    pixels = torch.stack((45 - 12 * points[:, 1], 30 - 15 * points[:, 2]), 1)
    return Cloud(torch.cat((points, torch.ones(len(points), 1)), 1), pixels, torch.ones(len(points), dtype=torch.bool))


def test_a_scene_is_learnt_by_heart():
    torch.manual_seed(0)
    model = small().train()
    boxes, classes = a_scene()
    cloud, images = scene_cloud(boxes), random_images()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(35):
        loss = model.loss(model([cloud], images), [boxes], [classes])
        optimizer.zero_grad()
        loss.total.backward()
        losses.append(loss.total.item())
        if len(losses) == 1:
            silent = [name for name, own in model.named_parameters() if own.grad is None or not own.grad.any()]
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]
    (found,) = model.find(model([cloud], images), min_score=0.4)
    order = found.classes.argsort(descending=True)
    assert found.classes[order].tolist() == classes.tolist()
    assert (found.boxes[order][:, :3] - boxes[:, :3]).norm(dim=1).max() < 0.3
    assert not silent

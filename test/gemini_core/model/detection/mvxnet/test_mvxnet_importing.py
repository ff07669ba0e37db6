"""The released MVX-Net's names and shapes, its tensors taken in, and its recorded numbers."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import pytest
import torch

from gemini_core.errors import WeightsError
from gemini_core.model.detection.interface import Cloud
from gemini_core.model.detection.mvxnet.config import MvxNetConfig
from gemini_core.model.detection.mvxnet.head import MvxMaps, anchor_loss, assign, find_boxes, make_anchors
from gemini_core.model.detection.mvxnet.importing import import_mvxnet, released_shapes
from gemini_core.model.detection.mvxnet.sparse import SparseTensor
from golden import GOLDEN, of_prefix, read_tensors
from mvxnets import config, needs_spconv, released_tensors

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
    recorded, _ = read_tensors(GOLDEN / "point_fusion.safetensors")
    weights = of_prefix(recorded, "weights.")
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
    recorded, metadata = read_tensors(GOLDEN / "mvxnet.safetensors")
    numbers = json.loads(metadata["config"], object_hook=lambda fields: {n: tuples(v) for n, v in fields.items()})
    return MvxNetConfig(**numbers), recorded, of_prefix(recorded, "weights.")


def tuples(value):
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def in_fp64(model):
    """Let every layer compute in fp64, while points keep the places and voxels that they have in fp32."""

    def widened(value):
        if isinstance(value, SparseTensor):
            return replace(value, features=value.features.double())
        return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    for module in model.double().modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_pre_hook(lambda _, given: tuple(map(widened, given)))
    return model


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
        exact = in_fp64(import_mvxnet(weights, numbers, runtime="torch"))(clouds, recorded["input.images"])
    for got, more, expected in zip(maps, exact, recorded_maps(recorded), strict=True):
        assert got.shape == expected.shape
        # Random weights let the rounding of fp32 grow through seventy layers, to 4e-3 of the maps' deviation. Kernels that
        # add up in the order of the recording come within 1e-4 of it, others within a tenth of that rounding
        # (an epsilon of the norms that is off by 1 % makes 2e-2).
        rounding = (got - more).abs().max() / expected.std()
        assert rounding < 1e-2
        assert (got - expected).abs().max() <= max(1e-4, 0.1 * rounding) * expected.std()


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

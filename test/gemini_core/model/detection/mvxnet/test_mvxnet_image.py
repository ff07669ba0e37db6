"""MVX-Net's image branch: Caffe's images and strides, bottleneck and pyramid by their formulas."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name

from gemini_core.model.detection.mvxnet.image import FeaturePyramid, ResNet, pad, to_caffe
from mvxnets import random_cloud, random_images, small
from networks import randomize


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

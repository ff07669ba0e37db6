"""Sparse convolutions against dense ones, in both runtimes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name

from gemini_core.errors import ConfigError
from gemini_core.model.detection.mvxnet.sparse import SparseConv, SparseEncoder, SparseTensor
from mvxnets import all_cells, assert_same_maps, config, lively, needs_spconv, random_cloud, random_images, small
from networks import randomize


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

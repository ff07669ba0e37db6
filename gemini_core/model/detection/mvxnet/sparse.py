"""SECOND's sparse 3D encoder (Yan et al., Sensors 2018): convolutions over the voxels that hold something.

Two runtimes compute the same from the same weights: the package ``spconv``, whose kernels are made for GPUs, and plain torch
operations on any device, which the tests hold against dense convolutions and, where it is installed, against spconv. A
submanifold convolution (Graham et al., CVPR 2018) has outputs only where it has inputs; a strided one wherever any input
reaches. Weights are (outputs, kernel z, y, x, inputs), spconv 2's layout.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from gemini_core.errors import ConfigError
from gemini_core.model.detection.mvxnet.config import MvxNetConfig
from gemini_core.model.detection.mvxnet.points import norm

Runtime: TypeAlias = Literal["spconv", "torch"]
"""What computes sparse convolutions."""

RUNTIMES: tuple[Runtime, ...] = ("spconv", "torch")
AUTO = "auto"
"""In place of a runtime: spconv on a GPU for which it is installed, else torch."""

_Triple: TypeAlias = tuple[int, int, int]
_Pairs: TypeAlias = list[tuple[Tensor, Tensor]]  # for each place of the kernel: rows of inputs, and of the outputs they add to


@dataclass(frozen=True, slots=True, eq=False)
class SparseTensor:
    """Voxels with features: what spconv's tensor is, as far as it is used here.

    ``features`` (V, C); ``indices`` (V, 4) sample and index along z, y, x; ``spatial_shape`` cells along z, y, x; ``pairs`` of
    submanifold convolutions on these voxels, by kernel, found once.
    """

    features: Tensor
    indices: Tensor
    spatial_shape: Sequence[int]
    batch_size: int
    pairs: dict[_Triple, _Pairs] = field(default_factory=dict)

    def replace_feature(self, features: Tensor) -> SparseTensor:
        """Put other features on the same voxels."""
        return replace(self, features=features)


class SparseConv(nn.Module):
    """A sparse convolution without bias, in torch's operations."""

    def __init__(
        self, inputs: int, outputs: int, kernel: _Triple, stride: _Triple, padding: _Triple, *, submanifold: bool
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding, self.submanifold = kernel, stride, padding, submanifold
        self.weight = nn.Parameter(torch.empty(outputs, *kernel, inputs))
        nn.init.kaiming_uniform_(self.weight.view(outputs, -1), a=math.sqrt(5))  # as torch's own convolutions

    def forward(self, voxels: SparseTensor) -> SparseTensor:
        """Convolve."""
        result, pairs = self._targets(voxels)
        summed = voxels.features.new_zeros(len(result.indices), len(self.weight))
        for (rows, targets), weight in zip(pairs, self.weight.flatten(1, 3).unbind(1), strict=True):
            summed = summed.index_add_(0, targets, voxels.features[rows] @ weight.T)
        return result.replace_feature(summed)

    def _targets(self, voxels: SparseTensor) -> tuple[SparseTensor, _Pairs]:
        """Find the voxels of the result, and which inputs add to which of them."""
        if self.submanifold and self.kernel in voxels.pairs:
            return voxels, voxels.pairs[self.kernel]
        shape = tuple(
            size if self.submanifold else (size + 2 * padding - kernel) // stride + 1
            for size, kernel, stride, padding in zip(voxels.spatial_shape, self.kernel, self.stride, self.padding, strict=True)
        )
        indices = voxels.indices.long()
        reached = [
            self._reach(indices, place, shape) for place in torch.cartesian_prod(*map(torch.arange, self.kernel)).tolist()
        ]
        if self.submanifold:
            known, order = _key(indices, shape).sort()
        else:
            known = torch.unique(torch.cat([key for _, key in reached]))
            order = torch.arange(len(known), device=known.device)
        pairs = []
        for rows, key in reached:
            spot = torch.searchsorted(known, key).clamp(max=max(0, len(known) - 1))
            hit = known[spot] == key if len(known) else torch.zeros_like(key, dtype=torch.bool)
            pairs.append((rows[hit], order[spot[hit]]))
        if self.submanifold:
            voxels.pairs[self.kernel] = pairs
            return voxels, pairs
        return SparseTensor(voxels.features, _unkey(known, shape), shape, voxels.batch_size), pairs

    def _reach(self, indices: Tensor, place: Sequence[int], shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Find which inputs (rows) add to which place of the result (key) through one place of the kernel."""
        stride = indices.new_tensor(self.stride)
        shifted = indices[:, 1:] + indices.new_tensor(self.padding) - indices.new_tensor(place)
        target = shifted.div(stride, rounding_mode="floor")
        inside = ((target * stride == shifted) & (target >= 0) & (target < target.new_tensor(shape))).all(1)
        rows = inside.nonzero().flatten()
        return rows, _key(torch.cat((indices[rows, :1], target[rows]), dim=1), shape)


def _key(indices: Tensor, shape: Sequence[int]) -> Tensor:
    """Count cells (V, 4) over samples, z, y, x: (V,)."""
    sample, z, y, x = indices.unbind(1)
    return ((sample * shape[0] + z) * shape[1] + y) * shape[2] + x


def _unkey(key: Tensor, shape: Sequence[int]) -> Tensor:
    depth, rows, columns = shape
    return torch.stack(
        (key // (depth * rows * columns), key // (rows * columns) % depth, key // columns % rows, key % columns), 1
    )


class SparseEncoder(nn.Module):
    """Voxels to a BEV map: stages that halve the grid, then the layers along z joined as channels."""

    def __init__(self, config: MvxNetConfig, runtime: Runtime) -> None:
        """Build the encoder.

        Raises:
            ConfigError: the runtime is unknown, or it is spconv and cannot be imported.
        """
        super().__init__()
        if runtime not in RUNTIMES:
            msg = f"detector runtime: expected one of {', '.join(RUNTIMES)}, got {runtime!r}"
            raise ConfigError(msg)
        self.config = config
        self.runtime = runtime
        make = _torch_conv if runtime == "torch" else _spconv_conv
        self.conv_input = _block(make(config.fused_width, config.sparse_base, "subm1"), config.sparse_base)
        self.encoder_layers = nn.Sequential()
        inputs, last = config.sparse_base, len(config.sparse_widths) - 1
        for stage, widths in enumerate(config.sparse_widths):
            blocks = []
            for index, width in enumerate(widths):
                if stage > 0 and index == 0:
                    strided = _Strided((3, 3, 3), (2, 2, 2), (0 if stage == last else 1, 1, 1))
                    blocks.append(_block(make(inputs, width, f"spconv{stage + 1}", strided), width))
                else:
                    blocks.append(_block(make(inputs, width, f"subm{stage + 1}"), width))
                inputs = width
            self.encoder_layers.add_module(f"encoder_layer{stage + 1}", nn.Sequential(*blocks))
        strided = _Strided((3, 1, 1), (2, 1, 1), (0, 0, 0))
        self.conv_out = _block(make(inputs, config.sparse_output, "spconv_down2", strided), config.sparse_output)

    def forward(self, features: Tensor, places: Tensor, batch: int) -> Tensor:
        """Encode voxels, in fp32 whatever the precision around it.

        Args:
            features: (V, fused_width).
            places: (V, 4) sample and index along z, y, x.
            batch: B.

        Returns:
            (B, sparse_output * depth_out, rows, columns), rows along +y and columns along +x.

        Raises:
            ConfigError: training with spconv where there is no CUDA device.
        """
        config = self.config
        if self.runtime == "spconv" and self.training and torch.is_grad_enabled() and not torch.cuda.is_available():
            msg = "detector runtime: expected a CUDA device to train with spconv, which has no gradients without one, got none"
            raise ConfigError(msg)
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            voxels: Any
            if self.runtime == "torch":
                voxels = SparseTensor(features, places, config.sparse_shape, batch)
            else:
                voxels = _import_spconv().SparseConvTensor(features, places.int(), list(config.sparse_shape), batch)
            if len(places):
                for block in self._blocks():
                    voxels = block[0](voxels)
                    voxels = voxels.replace_feature(block[2](block[1](voxels.features)))
                features, places = voxels.features, voxels.indices.long()
            else:
                features = features.new_zeros(0, config.sparse_output)
            factor = 2 ** (len(config.sparse_widths) - 1)
            shape = (config.depth_out, config.sparse_shape[1] // factor, config.sparse_shape[2] // factor)
            return _from_above(features, places, shape, batch)

    def _blocks(self) -> list[nn.Sequential]:
        stages = [block for stage in self.encoder_layers for block in stage if isinstance(block, nn.Sequential)]  # type: ignore[attr-defined]  # lists of modules
        return [self.conv_input, *stages, self.conv_out]


class _Strided(NamedTuple):
    """A sparse convolution that has outputs wherever an input reaches; others are submanifold, 3 x 3 x 3."""

    kernel: _Triple
    stride: _Triple
    padding: _Triple


def _torch_conv(inputs: int, outputs: int, _: str, strided: _Strided | None = None) -> nn.Module:
    if strided is None:
        return SparseConv(inputs, outputs, (3, 3, 3), (1, 1, 1), (1, 1, 1), submanifold=True)
    return SparseConv(inputs, outputs, *strided, submanifold=False)


def _spconv_conv(inputs: int, outputs: int, key: str, strided: _Strided | None = None) -> Any:  # noqa: ANN401 - as spconv
    """Make spconv's; it keeps what it finds of the voxels' neighbours by ``key``."""
    spconv = _import_spconv()
    if strided is None:
        return spconv.SubMConv3d(inputs, outputs, 3, padding=1, bias=False, indice_key=key)
    return spconv.SparseConv3d(inputs, outputs, *strided, bias=False, indice_key=key)


def _block(conv: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(conv, norm(width), nn.ReLU())


def _from_above(features: Tensor, places: Tensor, shape: _Triple, batch: int) -> Tensor:
    """Put (V, C) of cells (V, 4) into (B, C * depth, rows, columns), zeros elsewhere; channels outside, layers inside."""
    depth, rows, columns = shape
    dense = features.new_zeros(batch * depth * rows * columns, features.shape[1])
    dense = dense.index_copy(0, _key(places, shape), features)
    return dense.view(batch, depth, rows, columns, -1).permute(0, 4, 1, 2, 3).flatten(1, 2)


def choose_runtime(wanted: str, device: torch.device) -> Runtime:
    """Give the runtime that is wanted, or what ``AUTO`` means on a device.

    Raises:
        ConfigError: it is unknown.
    """
    if wanted == AUTO:
        return "spconv" if device.type == "cuda" and _spconv_has_kernels() else "torch"
    for known in RUNTIMES:
        if wanted == known:
            return known
    msg = f"detector runtime: expected one of {', '.join((AUTO, *RUNTIMES))}, got {wanted!r}"
    raise ConfigError(msg)


def _spconv_has_kernels() -> bool:
    """Whether spconv is installed and no build for the CPU alone, which cannot take what is on a GPU."""
    try:
        return not importlib.import_module("spconv.cppconstants").CPU_ONLY_BUILD
    except ImportError:
        return False


def _import_spconv() -> Any:  # noqa: ANN401 - a module without types
    try:
        return importlib.import_module("spconv.pytorch")
    except ImportError:
        msg = "detector: expected the package spconv for MVX-Net (pip install 'gemini_ros[mvxnet]'), got none"
        raise ConfigError(msg) from None

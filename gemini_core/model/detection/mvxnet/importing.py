"""Import of the released KITTI model's weights (``geminifusion_mvxnet``) into ``MvxNet``.

Modules have the released names, so almost every tensor keeps its own. Two things differ:

- The inside of each fusion, ``pts_voxel_encoder.fusion_layer.0`` and ``.1``: there ``alpha``, ``img_transform``,
  ``cross_attn_0_to_1`` and so on stand beside ``lateral_convs``; here they are a ``PointFusion`` called ``fusion``
  (``importing.load_released``).
- The order of the sparse convolutions' dimensions. mmdetection3d with spconv 1, or with the operations that mmcv took from it,
  saves (kernel z, y, x, inputs, outputs), with spconv 2 (outputs, kernel z, y, x, inputs); no name tells which. The shapes do,
  since a kernel's sides are 3 and 1 and no width of the released model is: a file whose sparse weights all have the first order
  is turned, and one with some of each is refused. (An order that only spconv 2.0 had, with outputs before inputs behind the
  kernel, cannot be told from spconv 1's where both are as many; mmdetection3d never wrote it.)

Counters of batches (``num_batches_tracked``), which no output depends on, may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gemini_core.errors import WeightsError
from gemini_core.model.detection.importing import load_released
from gemini_core.model.detection.mvxnet.config import MvxNetConfig
from gemini_core.model.detection.mvxnet.network import MvxNet
from gemini_core.model.detection.mvxnet.sparse import Runtime
from gemini_core.model.importing import open_tensors
from gemini_core.model.strict import fill, some

_COUNTER = "num_batches_tracked"
_FUSION = "pts_voxel_encoder.fusion_layer."
_SPARSE = "pts_middle_encoder."
_KERNEL_DIMS = 5


def released_shapes(config: MvxNetConfig) -> dict[str, tuple[int, ...]]:
    """Name the tensors of a released model of these numbers, with their shapes; sparse weights in spconv 2's order."""
    with torch.device("meta"):
        ours = MvxNet(config, runtime="torch").state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in ours.items() if not _inside_fusion(name)}
    for layer, (inputs, width) in enumerate(zip(config.voxel_widths, config.fused_widths, strict=True)):
        root = f"{_FUSION}{layer}"
        shapes |= {f"{root}.alpha": (2,), f"{root}.k_noise.weight": (2, width), f"{root}.v_noise.weight": (2, width)}
        linears = {
            f"{root}.img_transform.0": (width, config.image_levels * width),
            f"{root}.pts_transform.0": (width, inputs),
            f"{root}.relation_judger.0.fc1": (width, 2 * width),
            f"{root}.relation_judger.0.fc2": (width, width),
            f"{root}.cross_attn_0_to_1.out_proj": (width, width),
            f"{root}.cross_attn_1_to_0.out_proj": (width, width),
        }
        for name, shape in linears.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        for name in ("cross_attn_0_to_1", "cross_attn_1_to_0"):
            shapes |= {f"{root}.{name}.in_proj_weight": (3 * width, width), f"{root}.{name}.in_proj_bias": (3 * width,)}
        for name in ("img_transform", "pts_transform"):
            shapes |= {f"{root}.{name}.1.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
            shapes[f"{root}.{name}.1.{_COUNTER}"] = ()
    return shapes


def import_mvxnet(
    source: str | Path | Mapping[str, Any], config: MvxNetConfig | None = None, *, runtime: Runtime = "spconv"
) -> MvxNet:
    """Make an MVX-Net, in fp32 and evaluation mode, of a released model's tensors.

    Args:
        source: a state dict by the released names, or a file of one; as for ``checkpoints.load_official``.
        config: what the weights are for; None: the released KITTI model.
        runtime: see ``MvxNet``.

    Raises:
        WeightsError: the file cannot be read as tensors, or something is missing, unknown or of another shape.
        ConfigError: the runtime is spconv and cannot be imported.
    """
    config = MvxNetConfig() if config is None else config
    opened = open_tensors(source)
    tensors, where = opened.tensors, opened.where
    expected = released_shapes(config)
    tensors |= {name: torch.zeros((), dtype=torch.long) for name in expected if name.endswith(_COUNTER) and name not in tensors}
    tensors = _turn(tensors, expected)
    _check(expected, tensors, where)
    state = {name: tensor for name, tensor in tensors.items() if not name.startswith(_FUSION) or ".lateral_convs." in name}
    for layer in range(len(config.voxel_widths)):
        root = f"{_FUSION}{layer}"
        own = {name: tensor for name, tensor in tensors.items() if name not in state and name.startswith(f"{root}.")}
        fusion = load_released(own, root, where, heads=config.fusion_heads)
        state |= {f"{root}.fusion.{name}": tensor for name, tensor in fusion.state_dict().items()}
    return fill(lambda: MvxNet(config, runtime=runtime), state, where)


def _inside_fusion(name: str) -> bool:
    return name.startswith(_FUSION) and ".lateral_convs." not in name


def _turn(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Bring sparse weights to (outputs, kernel, inputs), if all of them have spconv 1's order."""
    sparse = [name for name, shape in expected.items() if name.startswith(_SPARSE) and len(shape) == _KERNEL_DIMS]
    turned = {
        name: tensors[name].permute(4, 0, 1, 2, 3) for name in sparse if name in tensors and tensors[name].ndim == _KERNEL_DIMS
    }
    if any(tensor.shape != expected[name] for name, tensor in turned.items()):
        return dict(tensors)
    return {**tensors, **turned}


def _check(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor], where: str) -> None:
    missing, unknown = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    shaped = [
        f"{name} {tuple(tensor.shape)} for {expected[name]}"
        for name, tensor in sorted(tensors.items())
        if name in expected and tensor.shape != expected[name]
    ]
    if missing or unknown or shaped:
        msg = (
            f"{where}: expected exactly the released model's tensors, got {some(missing)} missing, {some(unknown)} unknown "
            f"and {some(shaped)} of another shape"
        )
        raise WeightsError(msg)

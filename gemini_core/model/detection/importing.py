"""Import of the released weights of the point fusion."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from gemini_core.model.detection.point_fusion import PointFusion
from gemini_core.model.importing import Account, convert_fusion
from gemini_core.model.strict import check_shapes


def load_released(tensors: Mapping[str, Tensor], name: str, where: str, *, heads: int = 8) -> PointFusion:
    """Make a point fusion, in evaluation mode, of one of a released KITTI model, by its own names (``alpha``, ...).

    There the image is stream 0. Here the points are, since they are always there; the two directions swap their places.

    Args:
        tensors: those of a model, of which the ones under ``name`` are taken.
        name: of the point fusion in that model.
        where: where they come from, for errors.
        heads: of the fusion's attention, which no shape tells.

    Raises:
        WeightsError: a tensor is missing, unknown or of another shape.
    """
    own = {key: tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}
    account = Account(own, released=True)
    state = convert_fusion(account, name, "fusion")
    for noise in ("fusion.key_noise", "fusion.value_noise"):
        state[noise] = state[noise].flip(0)
    other = {"0": "1", "1": "0"}
    state = {re.sub(r"(?<=attention\.)\d", lambda found: other[found[0]], key): tensor for key, tensor in state.items()}
    state["stream_weights"] = account.take(f"{name}.alpha").flip(0)
    for theirs, ours in (("img_transform", "image"), ("pts_transform", "point")):
        state |= account.layer(f"{name}.{theirs}.0", f"{ours}_map")
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            state[f"{ours}_norm.{part}"] = account.take(f"{name}.{theirs}.1.{part}")
    account.close(where, "the weights of a released point fusion")
    image, points = state["image_map.weight"], state["point_map.weight"]
    layer = PointFusion(image.shape[-1], points.shape[-1], points.shape[0], heads=heads)
    check_shapes(layer.state_dict(), state, where)
    layer.load_state_dict(state)
    return layer.eval()

"""Optimization: learning-rate schedule, parameter groups by rate and weight decay, moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from training.config import OptimizerConfig


class ParameterGroup(NamedTuple):
    """Parameters that learn alike: at ``factor`` times the learning rate, with this weight decay."""

    params: list[nn.Parameter]
    factor: float
    weight_decay: float


def learning_rate(step: int, config: OptimizerConfig) -> float:
    """The backbone's rate at a step: linear warm-up from a millionth of it, then (1 - progress)^power, in equal phases."""
    length = math.ceil(config.steps / config.phases)
    phase, within = divmod(step, length)
    peak: float = config.lr * 0.5**phase
    if within < config.warmup_steps:
        return peak * (1e-6 + (1 - 1e-6) * within / config.warmup_steps)
    return peak * math.pow(1.0 - within / length, config.power)


def parameter_groups(network: nn.Module, faster: Mapping[str, float], weight_decay: float) -> list[ParameterGroup]:
    """Group what learns by rate and weight decay, which norms, biases and the streams' weights do not have.

    ``faster`` are factors of the learning rate by how the names of parameters begin; of the others the factor is 1.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            plain = parameter.ndim == 1 or name.endswith("bias") or "norm" in name
            factor = next((factor for start, factor in faster.items() if name.startswith(start)), 1.0)
            groups.setdefault((factor, 0.0 if plain else weight_decay), []).append(parameter)
    return [ParameterGroup(own, factor, decay) for (factor, decay), own in groups.items()]


@torch.no_grad()
def update_average(averaged: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Follow the weights: a' = d a + (1 - d) w, with a smaller d in the first steps; counters and statistics are copied."""
    decay = min(decay, (1 + step) / (10 + step))
    for ours, theirs in zip(averaged.parameters(), network.parameters(), strict=True):
        ours.lerp_(theirs, 1.0 - decay)
    for kept, current in zip(averaged.buffers(), network.buffers(), strict=True):
        kept.copy_(current)

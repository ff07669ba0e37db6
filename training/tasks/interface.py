"""The contract between the training loop and a task: its network, loss, validation and weights file.

A new task is a file beside this one and a line in ``choose.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from torch import Tensor, nn

from training.cache import CachedBag
from training.config import AugmentConfig
from training.data import Batch, FrameDataset
from training.optimizer import ParameterGroup

Network = TypeVar("Network", bound=nn.Module)


class Loss(NamedTuple):
    """The loss of one micro-batch: the sum of ``terms``, scalars, already weighted. ``logged`` are named parts for the log."""

    terms: tuple[Tensor, ...]
    logged: Mapping[str, Tensor]


class Scores(NamedTuple):
    """What a validation found.

    ``overall``, above -1, chooses the best weights: the larger, the better. ``logged`` is for the log, ``said`` for people.
    """

    overall: float
    logged: Mapping[str, float]
    said: str


class Task(ABC, Generic[Network]):
    """What a run trains, on the frames that it trains on."""

    @abstractmethod
    def dataset(self, bags: tuple[CachedBag, ...], augmentation: AugmentConfig | None = None) -> FrameDataset:
        """Give frames as the network takes them, augmented for training and as they are for validation.

        Raises:
            DataError: a shard is damaged or lacks what is trained on.
        """

    @abstractmethod
    def build(self, frames: FrameDataset) -> Network:
        """Make the network on the CPU, in training mode, with what does not learn frozen; weights begin as configured.

        Raises:
            ConfigError: a network that cannot be, or begun from weights of another one.
            WeightsError: weights that cannot be read.
            DataError: a shard is damaged or lacks what is trained on.
        """

    @abstractmethod
    def parameter_groups(self, network: Network) -> Sequence[ParameterGroup]:
        """Sort what learns by learning rate and weight decay."""

    @abstractmethod
    def loss(self, network: Network, forward: nn.Module, batch: Batch, number: int) -> Loss:
        """Run a micro-batch and compare what comes out with its labels.

        Args:
            network: that learns.
            forward: what to call in its place: the network, or what shares its gradients among processes.
            batch: the frames, on the CPU.
            number: of the micro-batch in the run. Random choices on which the graph depends follow from it alone, since they
                have to be the same in all processes; torch's own generator is seeded for each process.
        """

    @abstractmethod
    def validate(self, network: Network, frames: FrameDataset) -> Scores:
        """Score a network, in evaluation mode, on all frames.

        Raises:
            DataError: a frame cannot be read.
        """

    @abstractmethod
    def save(self, network: Network, path: Path, description: str) -> None:
        """Write a weights file, whole or not at all; ``description`` says for people where it comes from.

        Raises:
            WeightsError: it cannot be written.
        """


AnyTask = Task[Any]
"""A task whose network only the task itself knows."""

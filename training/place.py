"""Devices and processes: where this process trains, and how it joins the others where torchrun started it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist

from gemini_core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Place:
    """Where this process trains: its device, and its number among ``world`` processes; number 0 writes the files."""

    device: torch.device
    rank: int
    world: int

    @property
    def main(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process do something before the others, which find it done."""
        if not self.main:
            dist.barrier()
        yield
        if self.main and self.world > 1:
            dist.barrier()


def find_place(device: str) -> Place:
    """Give the place of this process; ``device`` as of ``run.device``.

    Raises:
        ConfigError: a CUDA device is asked for where there is none.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if device == "cuda" and not torch.cuda.is_available():
        msg = "run.device: expected a CUDA device that torch can use, got none"
        raise ConfigError(msg)
    if device == "cpu" or not torch.cuda.is_available():
        return Place(torch.device("cpu"), rank, world)
    return Place(torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))), rank, world)


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Join the other processes where torchrun started this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()

"""CPU time on one thread, on a machine that others use too: in turns, so that what slows one down slows all down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

SHORTEST_S = 2e-3
"""What takes less is repeated within a round until it takes as long."""

Seconds = Mapping[str, np.ndarray]
"""CPU seconds of one run in each round (rounds,), by contender."""


def in_turns(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Run every contender once untimed, then once a round (the short ones several times)."""
    repeats = {}
    for name, run in contenders.items():
        run()
        spent = _spent(run, 1)
        repeats[name] = max(1, min(100, round(SHORTEST_S / max(spent, 1e-6))))
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            seconds[name].append(_spent(run, repeats[name]))
    return {name: np.array(values) for name, values in seconds.items()}


def _spent(run: Callable[[], object], repeats: int) -> float:
    began = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - began) / repeats


def ratio(slow: np.ndarray, fast: np.ndarray) -> float:
    """How many times faster one is than the other: the median over rounds."""
    return float(np.median(slow / fast))

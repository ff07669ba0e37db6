"""Times several functions on a machine that others may use too: in turns, so that what slows one down slows all down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

PAUSE_S = 0.05  # thread pools of some runtimes spin a while before they sleep


def in_turns(
    contenders: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, np.ndarray]:
    """Run every contender once untimed, then once a round: seconds per round (rounds,) by ``clock``, by name."""
    for run in contenders.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            time.sleep(PAUSE_S)
            began = clock()
            run()
            seconds[name].append(clock() - began)
    return {name: np.array(values) for name, values in seconds.items()}


def ratio(seconds: Mapping[str, np.ndarray], slow: str, fast: str) -> float:
    """How many times faster one contender is than another: the median over rounds."""
    return float(np.median(seconds[slow] / seconds[fast]))

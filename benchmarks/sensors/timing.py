"""CPU time on one thread, on a machine that others use too: in turns, so that what slows one down slows all down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

SHORTEST_S = 2e-3
"""What takes less is repeated within a round until it takes as long."""

_LOOK_S, _LOOKS = 1e-3, 1000
"""How often to look whether other threads are still running, and how many times at most."""


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
    _wait_for_other_threads()
    began = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - began) / repeats


def _wait_for_other_threads() -> None:
    """Wait until no thread that an earlier contender left behind is running, since the process's CPU time counts them all.

    Threads of a BLAS or of OpenMP spin for milliseconds after their work: what ran next paid for that.
    """
    for _ in range(_LOOKS):
        if not _others_run():
            return
        time.sleep(_LOOK_S)


def _others_run() -> bool:
    """Whether another thread of this process is running or wants to; False where the system does not tell (no /proc)."""
    own = str(threading.get_native_id())
    for task in Path("/proc/self/task").glob("[0-9]*"):
        try:
            state = (task / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except OSError:  # it has ended
            continue
        if state == "R" and task.name != own:
            return True
    return False


def ratio(slow: np.ndarray, fast: np.ndarray) -> float:
    """How many times faster one is than the other: the median over rounds."""
    return float(np.median(slow / fast))

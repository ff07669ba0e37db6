"""One process that takes damaged messages of one kind; it may die of them, and its parent sees at which.

A message is made of (kind, chunk, number) alone. Its arrays lie between forbidden pages (``guarded``), so that one byte read
outside of them ends the process (SIGSEGV); by turns they end and begin right at such a page. More than ``SECONDS`` of CPU on
one message end it as well (SIGPROF), and more than ``ROOM`` bytes beside what the process has are a MemoryError.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import resource
import signal
import struct
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2] / "test" / "builders"))
from benchmarks.fuzz.guarded import Guard
from benchmarks.fuzz.kinds import all_kinds
from gemini_core.config.fusion import from_flat
from gemini_core.decode.intake import Intake
from mutations import assert_consistent, mutated

SECONDS = 5.0
ROOM = 2**30
_LARGEST_MESSAGE = 1 << 16
_PLACE = struct.Struct("<q")


@dataclass(frozen=True)
class Chunk:
    """What came of the messages of one chunk: by outcome ("sample", "empty" or a reason of refusal); what must not be.

    ``uncounted``: messages that the intake's counts do not account for; ``raised``: errors that left it, by number.
    """

    number: int
    messages: int
    outcomes: dict[str, int]
    uncounted: int
    raised: dict[str, str]
    slowest_s: float


def run_chunk(name: str, number: int, size: int, at: mmap.mmap | None = None) -> Chunk:
    """Take one chunk of messages; ``at`` is told the number of each before it is taken."""
    kinds = all_kinds()
    kind = kinds[name]
    rng = np.random.default_rng([list(kinds).index(name), number])
    config = from_flat(kind.options)
    intake = Intake(config, {"event.packets": kind.events.replace("/", "/msg/")} if kind.events else None)
    guard = Guard(_LARGEST_MESSAGE)
    raised: dict[str, str] = {}
    slowest = 0.0
    for i in range(size):
        message = kind.originals[int(rng.integers(len(kind.originals)))]
        if i % 16:
            message = mutated(message, rng, kind.words)
        message = guard.around(message, at_end=i % 4 != 0)
        if at is not None:
            at[: _PLACE.size] = _PLACE.pack(i)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        began = time.thread_time()
        try:
            sample = intake.accept(kind.role, message)
            if sample is not None:
                assert_consistent(sample)
        except Exception as error:  # noqa: BLE001 - whatever leaves the intake is what is looked for
            raised[str(i)] = f"{type(error).__name__}: {error}"
        slowest = max(slowest, time.thread_time() - began)
        sample = None  # it may show memory that the next message takes
        signal.setitimer(signal.ITIMER_PROF, 0)
    outcomes: Counter[str] = Counter()
    for count in intake.counts():
        what = count.what.removeprefix(f"{kind.role}.")
        if what == "accepted":
            outcomes["sample"] = count.number
        elif what == "empty" or what.startswith("refused."):
            outcomes[what.removeprefix("refused.")] = count.number
    return Chunk(number, size, dict(outcomes), size - sum(outcomes.values()) - len(raised), raised, slowest)


def main() -> None:
    """Arguments: kind, first chunk, chunk after the last, messages in each, file for the number of the current message."""
    name, first, after, size, place = sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5])
    run_chunk(name, -1 % 2**32, 64)  # whatever is loaded or allocated once
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    with place.open("r+b") as file, contextlib.closing(mmap.mmap(file.fileno(), 0)) as at:
        for number in range(first, after):
            print(json.dumps(asdict(run_chunk(name, number, size, at))), flush=True)


if __name__ == "__main__":
    main()

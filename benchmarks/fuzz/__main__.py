"""Damages messages of every kind and gives them to the intake: ``python -m benchmarks.fuzz [--messages 200000]``.

Two kinds are of files instead (``--files 1000``): ``parameters`` (parameter files, recipes, ``--set`` values) and ``bags``.

Goes on where it was stopped (out/fuzz); the result becomes a part of benchmarks/results/sensors.md. Exit code 1 when a
message crashed the decoder, hung it, left it as an error, was not counted, or had it read outside of the message.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fuzz import bags, parameters, worker
from benchmarks.fuzz.kinds import all_kinds
from benchmarks.page import replace_section
from gemini_core.files import write_whole

CHUNK = 5_000
"""Messages that one decoder sees in a row."""

_FILES = {parameters.KIND: ("parameters", parameters.CHUNK), bags.KIND: ("bags", bags.CHUNK)}
"""The kinds that are of files: module and size of a chunk."""


_METHOD = (
    "whole messages with one to three fields, lengths or runs of bytes changed at random (seeded), and one in sixteen left "
    "whole, through `Intake.accept` in a process of its own. The arrays of each lie between two forbidden pages (mprotect), "
    "three of four messages ending and one beginning right at one, so that a byte read outside of them is a segmentation "
    f"fault. A message may take {worker.SECONDS:g} s of CPU and {worker.ROOM / 2**30:g} GiB. A sample that comes out is "
    "checked for shapes, types and ranges; the counts of the intake have to account for every message. The kinds "
    "parameters and bags are of files: each is read, or refused in one sentence; bags whose loss is said are `damaged`."
)


@dataclass
class Findings:
    """What is known of one kind so far; ``deaths``: how a chunk ended that a message ended."""

    chunks: dict[str, dict[str, Any]] = field(default_factory=dict)
    deaths: dict[str, str] = field(default_factory=dict)

    def missing(self, chunks: int) -> int:
        """The first chunk that was not run yet, ``chunks`` where all were."""
        return next((i for i in range(chunks) if str(i) not in self.chunks and str(i) not in self.deaths), chunks)

    def problems(self) -> list[str]:
        """Everything that must not be, one line each."""
        found = [f"chunk {number}: {how}" for number, how in self.deaths.items()]
        for number, chunk in self.chunks.items():
            found += [f"chunk {number}, message {i}: {error}" for i, error in chunk["raised"].items()]
            if chunk["uncounted"]:
                found.append(f"chunk {number}: {chunk['uncounted']} messages that no count tells of")
        return found


def run_kind(name: str, messages: int, folder: Path) -> Findings:
    """Run the chunks of one kind that are missing in ``folder``."""
    file, place = folder / f"{name}.json", folder / "at"
    found = Findings(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else Findings()
    module, size = _FILES.get(name, ("worker", CHUNK))
    chunks = -(-messages // size)
    while (first := found.missing(chunks)) < chunks:
        place.write_bytes(bytes(8))
        command = [sys.executable, "-m", f"benchmarks.fuzz.{module}", name, str(first), str(chunks), str(size), str(place)]
        with (
            (folder / f"{name}.log").open("w", encoding="utf-8") as log,  # libpng's complaints, and a worker's own
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                chunk = json.loads(line)
                found.chunks[str(chunk["number"])] = chunk
                write_whole(file, json.dumps(vars(found)))
                print(f"{time.strftime('%H:%M:%S')} {name}: chunk {chunk['number'] + 1} of {chunks}", flush=True)
        if process.returncode:
            at = int.from_bytes(place.read_bytes(), "little")
            found.deaths[str(found.missing(chunks))] = f"message {at} ended the process: {_ending(process.returncode)}"
            write_whole(file, json.dumps(vars(found)))
    return found


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return {"SIGPROF": f"{name}, more than {worker.SECONDS:g} s", "SIGSEGV": f"{name}, memory outside of the message"}.get(
        name, name
    )


def section(found: dict[str, Findings]) -> str:
    """The results as Markdown."""
    lines = [
        f"`python -m benchmarks.fuzz`, {dt.datetime.now(tz=dt.timezone.utc).date()}: {_METHOD}",
        "",
        "| kind | messages | crashes, hangs, errors, uncounted | slowest, ms | sample | refused |",
        "|---|---|---|---|---|---|",
    ]
    for name, findings in found.items():
        outcomes: Counter[str] = Counter()
        for chunk in findings.chunks.values():
            outcomes.update(chunk["outcomes"])
        total = sum(chunk["messages"] for chunk in findings.chunks.values())
        slowest = max((chunk["slowest_s"] for chunk in findings.chunks.values()), default=0.0)
        reasons = ", ".join(f"{what} {number:,}" for what, number in sorted(outcomes.items()) if what != "sample")
        problems = len(findings.problems())
        lines.append(f"| {name} | {total:,} | {problems} | {1e3 * slowest:.1f} | {outcomes['sample']:,} | {reasons} |")
    for name, findings in found.items():
        lines += [f"\n**{name}**: {problem}" for problem in findings.problems()]
    return "\n".join(lines)


def main() -> int:
    """Run what is missing, print and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000, help="of each kind (default 200,000)")
    parser.add_argument("--files", type=int, default=1_000, help=f"of the kinds {' and '.join(_FILES)} (default 1,000)")
    kinds = [*all_kinds(), *_FILES]
    parser.add_argument("--kinds", nargs="*", choices=kinds, help="default: all")
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"), help="where it goes on from (default out/fuzz)")
    parser.add_argument("--page", action="store_true", help="write the results into benchmarks/results/sensors.md")
    options = parser.parse_args()
    os.nice(10)
    options.out.mkdir(parents=True, exist_ok=True)
    numbers = dict.fromkeys(kinds, options.messages) | dict.fromkeys(_FILES, options.files)
    found = {name: run_kind(name, numbers[name], options.out) for name in options.kinds or kinds}
    text = section(found)
    print(text)
    if options.page:
        replace_section("Damaged messages", text)
    return int(any(findings.problems() for findings in found.values()))


if __name__ == "__main__":
    sys.exit(main())

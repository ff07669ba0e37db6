"""Random parameter files, recipes and ``--set`` values: each is read as a whole, or refused in one sentence.

A file is a shipped one with lines, tokens or bytes changed at random (seeded); a value is made of tokens that parsers have
stumbled over. What is not a ``ConfigError`` of at most ``LONGEST`` characters is a problem.
"""

from __future__ import annotations

import itertools
import json
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.fuzz.worker import ROOM, SECONDS, Chunk
from gemini_core.cli.common import read_config
from gemini_core.config.engine import options
from gemini_core.config.fusion import FusionConfig, load_config
from gemini_core.errors import ConfigError
from training.config import TrainingConfig, load_training_config, parse_override
from training.recipe import RECIPES

KIND = "parameters"
CHUNK = 250
LONGEST = 2000
"""Characters of a sentence; one that lists all options is the longest."""

_ROOT = Path(__file__).resolve().parents[2]
_TOKENS = (
    *(
        "2001-99-99",
        "2001-01-01 25:61:61",
        "0x_",
        "0b_",
        "0_",
        "-_",
        "1e-4",
        "6e-5",
        "1e999",
        "1:99:99",
        "-.inf",
        ".nan",
        "010",
    ),
    *(
        "[",
        "]",
        "{",
        "}",
        "&a ",
        "*a",
        "&a [*a]",
        "<<: *a",
        "? ",
        ": ",
        "- ",
        "| ",
        "> ",
        "'",
        '"',
        "`",
        "@",
        "%",
        "#",
        "---",
        "...",
        ",",
    ),
    *(
        "!!int ",
        "!!int x",
        "!!float x",
        "!!bool x",
        "!!null x",
        "!!timestamp x",
        "!!binary x",
        "!!set {a}",
        "!!omap [a]",
        "!x ",
        "!<",
    ),
    *(
        "!!python/object:os.system x",
        "\t",
        "\x00",
        "\x07",
        "\ufeff",
        "\u2028",
        "\udc80",
        "\U0001f600",
        "~",
        "yes",
        "null",
        "=",
        "<<",
    ),
    *("9" * 30, "9" * 5000, "0x" + "f" * 5000, "[" * 2000, "{a: " * 500, "- " * 500, "x" * 10_000, "&a [&b [&c [*a, *b]]]"),
)


def run_chunk(number: int, size: int, folder: Path) -> Chunk:
    """Read ``size`` files and values, made of ``number`` alone."""
    turns = itertools.cycle(_READERS)

    def read(rng: np.random.Generator) -> str:
        next(turns)(rng, folder / "file.yaml")
        return "sample"

    return run_files(number, size, read, ConfigError)


def run_files(number: int, size: int, read: Callable[[np.random.Generator], str], refusal: type[Exception]) -> Chunk:
    """Call ``read``, which makes and reads a file and says what came of it, ``size`` times, and sort what it raises."""
    rng = np.random.default_rng([7, number])
    outcomes: Counter[str] = Counter()
    raised: dict[str, str] = {}
    slowest = 0.0
    for i in range(size):
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        began = time.thread_time()
        try:
            outcomes[read(rng)] += 1
        except refusal as error:
            if len(str(error)) <= LONGEST and "\n" not in str(error):
                outcomes["refused"] += 1
            else:
                raised[str(i)] = f"a sentence of {len(str(error))} characters: {str(error)[:100]}"
        except Exception as error:  # noqa: BLE001 - whatever else leaves the readers is what is looked for
            raised[str(i)] = f"{type(error).__name__}: {str(error)[:100]}"
        slowest = max(slowest, time.thread_time() - began)
        signal.setitimer(signal.ITIMER_PROF, 0)
    return Chunk(number, size, dict(outcomes), size - sum(outcomes.values()) - len(raised), raised, slowest)


def _file_of_the_node(rng: np.random.Generator, file: Path) -> None:
    file.write_bytes(changed_text(rng, _shipped(rng, _ROOT / "config")))
    load_config(file)


def _recipe(rng: np.random.Generator, file: Path) -> None:
    file.write_bytes(changed_text(rng, _shipped(rng, RECIPES)))
    load_training_config(str(file))


def _set(rng: np.random.Generator, file: Path) -> None:
    del file
    read_config(None, [f"{_key(rng, FusionConfig)}={_value(rng)}"])


def _override(rng: np.random.Generator, file: Path) -> None:
    file.write_text("data.train: [a]\n", encoding="utf-8")
    load_training_config(str(file), dict([parse_override(f"{_key(rng, TrainingConfig)}={_value(rng)}")]))


_READERS = (_file_of_the_node, _set, _recipe, _override)


def _shipped(rng: np.random.Generator, folder: Path) -> str:
    files = sorted(folder.glob("*.yaml"))
    return files[int(rng.integers(len(files)))].read_text(encoding="utf-8")


def _key(rng: np.random.Generator, kind: type) -> str:
    keys = [option.key for option in options(kind)]
    return keys[int(rng.integers(len(keys)))] if rng.random() < 0.9 else _value(rng)


def _value(rng: np.random.Generator) -> str:
    return "".join(_TOKENS[int(rng.integers(len(_TOKENS)))] for _ in range(int(rng.integers(1, 4))))


def changed_text(rng: np.random.Generator, text: str) -> bytes:
    """Change one to three lines, tokens or bytes."""
    for _ in range(int(rng.integers(1, 4))):
        lines = text.splitlines()
        at = int(rng.integers(len(lines) or 1))
        name, colon, _value_of = (lines[at] if lines else "").partition(": ")
        what = int(rng.integers(5))
        if what == 0 and lines:
            lines[at] = f"{name}{colon or ': '}{_value(rng)}"
        elif what == 1 and lines:
            lines.insert(at, lines[int(rng.integers(len(lines)))])
        elif what == 2 and lines:
            cut = int(rng.integers(len(lines[at]) + 1))
            lines[at] = lines[at][:cut] + _value(rng) + lines[at][cut:]
        elif what == 3 and lines:
            del lines[at:]
        else:
            lines.insert(at, " " * int(rng.integers(5)) + _value(rng))
        text = "\n".join(lines)
    raw = bytearray(text.encode(errors="surrogatepass"))
    if raw and rng.random() < 0.2:
        raw[int(rng.integers(len(raw)))] = int(rng.integers(256))
    return bytes(raw)


def run_worker(run: Callable[[int, int, Path], Chunk], size_of_chunk: int) -> None:
    """Run chunks with bounded memory and print each; arguments as of ``worker.main``, without any the first four chunks."""
    _, first, after, size, _ = sys.argv[1:] if len(sys.argv) > 1 else ("", "0", "4", str(size_of_chunk), "")
    with tempfile.TemporaryDirectory() as folder:
        run(2**32 - 1, 8, Path(folder))  # whatever is loaded or allocated once
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
        for number in range(int(first), int(after)):
            print(json.dumps(asdict(run(number, int(size), Path(folder)))), flush=True)


def main() -> None:
    """Arguments as of ``worker.main``; without any, the first 1,000."""
    run_worker(run_chunk, CHUNK)


if __name__ == "__main__":
    main()

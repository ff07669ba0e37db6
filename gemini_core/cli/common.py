"""What the commands share: exit codes, options and their values, the configuration, a bar of progress."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from tqdm import tqdm

from gemini_core.config.fusion import FusionConfig, from_flat, load_config
from gemini_core.documents import parse_yaml
from gemini_core.errors import ConfigError, shown
from gemini_core.files import is_file, read_text

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - argparse has no public name for it

EXIT_DONE, EXIT_WRONG_INPUT, EXIT_MISALIGNED = 0, 2, 3


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Declare ``--config`` and ``--set``."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="rig and parameters, YAML (without: the defaults)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override one option of the file, e.g. --set model.enabled=false; may be repeated",
    )


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Declare how a bag is written."""
    parser.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap", help="file format in the bag (default mcap)")
    parser.add_argument("--overwrite", action="store_true", help="replace a bag that is already there")


def positive(text: str) -> float:
    """Read a number above 0."""
    value = float(text)
    if not 0.0 < value < float("inf"):
        msg = f"expected a number above 0, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def whole_number(text: str) -> int:
    """Read a whole number from 1 to 1000."""
    if not text.isdecimal() or not 1 <= int(text) <= 1000:  # noqa: PLR2004 - more would not fit into memory
        msg = f"expected a whole number from 1 to 1000, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def name_list(text: str) -> tuple[str, ...]:
    """Read names separated by commas, or the lines of a file."""
    if "," not in text and is_file(text):
        try:
            lines = read_text(text, ConfigError).splitlines()
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return tuple(line.strip() for line in lines if line.strip())
    return tuple(name.strip() for name in text.split(",") if name.strip())


def read_config(path: Path | None, overrides: list[str]) -> FusionConfig:
    """Read the configuration that ``--config`` and ``--set`` ask for.

    Raises:
        ConfigError: the file or an override cannot be used.
    """
    values: dict[str, object] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            msg = f"--set: expected KEY=VALUE, got {shown(text)}"
            raise ConfigError(msg)
        values[key.strip()] = parse_yaml(value, f"--set {shown(key)[1:-1]}", ConfigError) if value.strip() else ""
    return from_flat(values, where="--set") if path is None else load_config(path, values)


@contextmanager
def progress_bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error while the block runs; only where a person looks at it."""
    with tqdm(desc=what, unit=f" {unit}", disable=None, leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show

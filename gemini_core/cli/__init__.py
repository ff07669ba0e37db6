"""The ``gemini-fusion`` command: simulate, inspect, check the alignment, replay, convert, label, import and export weights.

A mistake of the user, or a file that is not as it should be, is one line on standard error and exit code 2. Each file has the
commands of one kind: ``add`` declares them.
"""

from __future__ import annotations

import argparse
import sys

from gemini_core.cli import bags, frames, simulate, weights
from gemini_core.cli.common import EXIT_INTERRUPTED, EXIT_WRONG_INPUT
from gemini_core.errors import GeminiError
from gemini_core.runtimes.process_settings import prepare_process


def main(arguments: list[str] | None = None) -> int:
    """Run one command and give its exit code: 0 done, 2 wrong input, 3 a sensor is off (check-alignment), 130 interrupted."""
    options = _parser().parse_args(arguments)
    prepare_process()
    try:
        code: int = options.run(options)
    except GeminiError as error:
        print(f"gemini-fusion: {error}", file=sys.stderr)
        return EXIT_WRONG_INPUT
    except KeyboardInterrupt:
        print("gemini-fusion: interrupted; nothing unfinished was left behind", file=sys.stderr)
        return EXIT_INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gemini-fusion",
        description="Perception from camera, depth camera, event camera and LiDAR, on recorded bags and without ROS.",
        epilog="'gemini-fusion COMMAND --help' says more about one command.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for kind in (simulate, bags, frames, weights):
        kind.add(commands)
    return parser

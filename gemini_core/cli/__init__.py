"""The ``gemini-fusion`` command: simulate, inspect, check the alignment, replay, convert, label, import and export weights.

A mistake of the user, or a file that is not as it should be, is one line on standard error and exit code 2. Each file has the
commands of one kind: ``add`` declares them.
"""

from __future__ import annotations

import argparse

from gemini_core.runtimes.process_settings import prepare_process
from gemini_core.runtimes.programs import run_program, starting


def main(arguments: list[str] | None = None) -> int:
    """Run one command and give its exit code.

    0 done, 2 wrong input, 3 a sensor is off (check-alignment), 130 interrupted, 141 nobody reads on, 143 terminated.
    """
    return run_program("gemini-fusion", lambda: _run(arguments), interrupted="interrupted; nothing unfinished was left behind")


def _run(arguments: list[str] | None) -> int:
    options = _parser().parse_args(arguments)
    code: int = options.run(options)
    return code


def _parser() -> argparse.ArgumentParser:
    prepare_process()
    with starting():
        from gemini_core.cli import bags, frames, simulate, weights

    parser = argparse.ArgumentParser(
        prog="gemini-fusion",
        description="Perception from camera, depth camera, event camera and LiDAR, on recorded bags and without ROS.",
        epilog="'gemini-fusion COMMAND --help' says more about one command.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for kind in (simulate, bags, frames, weights):
        kind.add(commands)
    return parser

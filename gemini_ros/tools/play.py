"""Play a bag's messages onto a live ROS graph, at their own rate and, if asked, with stamps of now.

On a full ROS installation ``ros2 bag play`` does this too; this one also works on the PyPI wheels, waits until somebody
listens, can move all stamps to the present (so that a node's "age at publish" is real wall-clock time) and reports what
it sent.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gemini_core.runtimes.programs import run_program, starting


def main(arguments: list[str] | None = None) -> int:
    """Play a bag; exit code 0 when all was sent, 2 on wrong input, 3 when nobody listened, 130 or 143 after a signal."""
    return run_program("gemini_bag_play", lambda: _play(arguments))


def _play(arguments: list[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="gemini_bag_play", description="Play a bag onto a live ROS 2 graph.")
    parser.add_argument("bag", type=Path, help="bag folder or .mcap/.db3 file")
    parser.add_argument("--rate", type=float, default=1.0, help="speed; 0.5 plays at half speed (default 1)")
    parser.add_argument("--loop", type=int, default=1, metavar="N", help="play N times (default 1)")
    parser.add_argument("--restamp", action="store_true", help="move all stamps so that the bag begins now")
    parser.add_argument("--exclude", action="append", default=[], metavar="PREFIX", help="leave out topics that begin so")
    parser.add_argument("--wait-for", action="append", default=[], metavar="TOPIC", help="start when TOPIC has a listener")
    parser.add_argument("--wait-s", type=float, default=30.0, help="longest time to wait for listeners (default 30)")
    parser.add_argument("--into", default="", metavar="NAMESPACE", help="play topics (not transforms) into this namespace")
    parser.add_argument("--report", type=Path, help="write what was sent to this JSON file")
    options, ros_arguments = parser.parse_known_args(arguments)
    if not options.rate > 0 or options.loop < 1:  # not: a rate of nan is none either
        print(
            f"gemini_bag_play: expected a rate above 0 and at least one loop, got {options.rate}, {options.loop}",
            file=sys.stderr,
        )
        return 2
    with starting():
        from gemini_ros.tools import player  # noqa: PLC0415 - it takes seconds
    return player.run(options, ros_arguments)


if __name__ == "__main__":
    sys.exit(main())

"""``gemini-fusion simulate``: bags with ground truth out of the simulator."""

from __future__ import annotations

import argparse
from pathlib import Path

from gemini_core.cli.common import (
    EXIT_DONE,
    Commands,
    add_output_options,
    positive,
    progress_bar,
)


def add(commands: Commands) -> None:
    """``simulate``."""
    from gemini_core.simulation.clip import CONDITIONS, FAILURES, SPLITS, WORLDS

    simulate = commands.add_parser(
        "simulate",
        help="make a bag of a simulated street or room, with ground truth, or the whole benchmark set of them",
        description="One bag with --out, or the benchmark set with --set: a folder per split, a bag per clip. A clip that is "
        "there already is left as it is, so that a set can be continued.",
    )
    target = simulate.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, metavar="BAG", help="folder to write, a ROS 2 bag")
    target.add_argument("--set", type=Path, metavar="FOLDER", dest="folder", help="folder to write the benchmark set to")
    simulate.add_argument("--seed", type=int, default=0, help="another number, another scene; of a set the first (default 0)")
    simulate.add_argument("--seconds", type=positive, help="length of a recording (default 10, in a set 3)")
    simulate.add_argument("--split", choices=SPLITS, default="test", help="worlds of two splits share no scene (default test)")
    simulate.add_argument("--world", choices=WORLDS, default="street", help="default street")
    simulate.add_argument("--condition", choices=CONDITIONS, default="day", help="default day; in a room fog is smoke")
    simulate.add_argument("--failure", choices=FAILURES, default="none", help="default none")
    simulate.add_argument(
        "--no-clutter",
        action="store_true",
        help="no things of a person's size on the pavements, more cars",
    )
    simulate.add_argument("--scale", type=positive, help="of all sensors; 0.5: a 320x240 camera (default 1, in a set 0.5)")
    simulate.add_argument("--color-scale", type=positive, help="of the colour camera, where it is another one; 1: 640x480")
    simulate.add_argument(
        "--clips",
        type=_three_counts,
        default=(120, 30, 60),
        metavar="A,B,C",
        help="of a set: clips of train, val and test (default 120,30,60)",
    )
    add_output_options(simulate)
    simulate.set_defaults(run=_simulate)


def _simulate(options: argparse.Namespace) -> int:
    from gemini_core.simulation.clip import SPLITS, Clip, plan
    from gemini_core.simulation.record import record, record_set
    from gemini_core.simulation.rig import default_rig

    clutter = not options.no_clutter
    if options.folder is not None:
        clips = plan(dict(zip(SPLITS, options.clips, strict=True)), options.seconds or 3.0, options.seed, clutter=clutter)
        with progress_bar("simulating", "clips") as progress:
            made = record_set(
                options.folder,
                clips,
                options.scale or 0.5,
                options.storage,
                progress,
                color_scale=options.color_scale,
                overwrite=options.overwrite,
            )
        print(f"{options.folder}: {len(clips)} clips, {made} of them recorded now")
        return EXIT_DONE
    seconds = options.seconds or 10.0
    clip = Clip(options.split, options.world, options.condition, options.failure, options.seed, seconds, clutter)
    with progress_bar("simulating", "frames") as progress:
        rig = default_rig(options.scale or 1.0, clip.world, color_scale=options.color_scale)
        record(options.out, clip, options.storage, progress, rig=rig, overwrite=options.overwrite)
    what = f"{clip.world} {clip.seed} of {clip.split}, {clip.condition}"
    print(f"wrote {options.out}: {seconds:g} s of {what}{'' if clip.failure == 'none' else ', ' + clip.failure}")
    return EXIT_DONE


def _three_counts(text: str) -> tuple[int, int, int]:
    """Read three numbers separated by commas."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):  # noqa: PLR2004 - train, val and test
        msg = f"expected three numbers, for train, val and test, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return int(parts[0]), int(parts[1]), int(parts[2])

"""Commands on recorded bags: ``inspect``, ``check-alignment``, ``replay``, and ``bag``, which makes them of other formats."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gemini_core.cli.common import (
    EXIT_DONE,
    EXIT_MISALIGNED,
    EXIT_WRONG_INPUT,
    Commands,
    add_config_options,
    add_output_options,
    progress_bar,
    read_config,
    whole_number,
)

if TYPE_CHECKING:
    from gemini_core.bag.kitti import Converted
    from gemini_core.replay import ReplayResult


def add(commands: Commands) -> None:
    """``inspect``, ``check-alignment``, ``replay`` and ``bag``."""
    _add_inspect(commands)
    _add_check_alignment(commands)
    _add_replay(commands)
    _add_bag(commands)


def _add_inspect(commands: Commands) -> None:
    inspect = commands.add_parser("inspect", help="what is in a bag, what the rig uses of it, how well it is synchronized")
    inspect.add_argument("bag", type=Path, help="bag folder, or one .mcap or .db3 file")
    add_config_options(inspect)
    inspect.add_argument("--json", action="store_true", help="write JSON instead of text")
    inspect.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    from gemini_core.inspection.bag import inspect, to_json, to_text

    config = read_config(options.config, options.overrides)
    with progress_bar("reading", "messages") as progress:
        inspection = inspect(options.bag, config, progress)
    print(to_json(inspection) if options.json else to_text(inspection))
    if not sys.stdout.isatty():  # else they stand in what was just printed
        for note in inspection.notes:
            print(f"gemini-fusion: {options.bag}: {note}", file=sys.stderr)
    return EXIT_WRONG_INPUT if inspection.damage else EXIT_DONE


def _add_check_alignment(commands: Commands) -> None:
    check = commands.add_parser(
        "check-alignment",
        help="whether the sensors of a bag lie on each other as their calibration says",
        description="Compares outlines in depth, LiDAR and events with the edges of the reference image, and warns (exit code "
        "3) where a small rotation of a sensor would fit clearly better (docs/alignment.md).",
    )
    check.add_argument("bag", type=Path, help="bag folder, or one .mcap or .db3 file")
    check.add_argument("--out", type=Path, metavar="FOLDER", help="write pictures, alignment.json and alignment.txt there")
    check.add_argument("--frames", type=whole_number, default=12, help="frames to look at, spread over the bag (default 12)")
    check.add_argument(
        "--tolerance", type=_tolerance, default=0.5, metavar="DEGREES", help="rotations are a warning from here (default 0.5)"
    )
    check.add_argument("--json", action="store_true", help="write JSON instead of text")
    add_config_options(check)
    check.set_defaults(run=_check_alignment)


def _check_alignment(options: argparse.Namespace) -> int:
    from gemini_core.alignment.check import check_alignment
    from gemini_core.alignment.report import to_json, to_text, write_report

    config = read_config(options.config, options.overrides)
    with progress_bar("reading", "messages") as progress:
        checked = check_alignment(options.bag, config, options.frames, options.tolerance, progress)
    print(to_json(checked.report) if options.json else to_text(checked.report))
    if options.out is not None:
        paths = write_report(checked, options.out)
        print(f"wrote {len(paths)} files to {options.out}", file=sys.stderr)
    if checked.report.warned:
        return EXIT_MISALIGNED
    return EXIT_WRONG_INPUT if checked.report.damage else EXIT_DONE


def _add_replay(commands: Commands) -> None:
    replay = commands.add_parser("replay", help="run a bag through the whole pipeline; masks and boxes go to another bag")
    replay.add_argument("bag", type=Path, help="bag folder, or one .mcap or .db3 file")
    replay.add_argument("--out", type=Path, required=True, metavar="BAG", help="folder to write, a ROS 2 bag")
    replay.add_argument(
        "--labelled-points", action="store_true", help="also write the sweeps with the mask's value at each point"
    )
    add_config_options(replay)
    add_output_options(replay)
    replay.set_defaults(run=_replay)


def _replay(options: argparse.Namespace) -> int:
    from gemini_core.replay import replay

    config = read_config(options.config, options.overrides)
    with progress_bar("replaying", "messages") as progress:
        result = replay(
            options.bag,
            config,
            options.out,
            options.storage,
            overwrite=options.overwrite,
            progress=progress,
            labelled_points=options.labelled_points,
        )
    _print_replay(result, options.out)
    if result.damage:
        print(f"gemini-fusion: {result.damage}", file=sys.stderr)
        return EXIT_WRONG_INPUT
    return EXIT_DONE


def _print_replay(result: ReplayResult, out: Path) -> None:
    from gemini_core.tables import distributions_text, findings_text

    print(f"wrote {out}: {result.frames} masks, {result.complete} from frames with every sensor")
    print(f"network: {result.network}")
    if result.trained is False:
        print("THE WEIGHTS WERE NEVER TRAINED: the masks show that everything runs, not what is where.")
    for note in result.notes:
        print(f"Note: {note}")
    for entry in result.rig:
        if entry.problem:
            print(f"{entry.role} on {entry.topic}: {entry.problem}")
    for line in (*findings_text("Missing", result.missing), *findings_text("Doubtful", result.doubts)):
        print(line)
    print("Time per frame:")
    print(distributions_text(result.stages))
    print("Counted:")
    for count in result.counts:
        print(f"  {count.what}: {count.number}")


def _add_bag(commands: Commands) -> None:
    bag = commands.add_parser("bag", help="make bags of recordings in other formats")
    formats = bag.add_subparsers(title="formats", required=True, metavar="FORMAT")
    raw = formats.add_parser("from-kitti-raw", help="one drive of KITTI raw: left colour camera and Velodyne")
    raw.add_argument("folder", type=Path, help="the drive: image_02 and velodyne_points (or velodyne) in it")
    raw.set_defaults(run=_kitti_raw)
    objects = formats.add_parser("from-kitti-object", help="frames of KITTI object, with labelled boxes where there are any")
    objects.add_argument("folder", type=Path, help="image_2, velodyne, calib and perhaps label_2 in it")
    objects.set_defaults(run=_kitti_object)
    for each in (raw, objects):
        each.add_argument("out", type=Path, help="folder to write, a ROS 2 bag")
        add_output_options(each)


def _kitti_raw(options: argparse.Namespace) -> int:
    from gemini_core.bag.kitti import from_kitti_raw

    return _convert(options, from_kitti_raw)


def _kitti_object(options: argparse.Namespace) -> int:
    from gemini_core.bag.kitti import from_kitti_object

    return _convert(options, from_kitti_object)


def _convert(options: argparse.Namespace, convert: Callable[..., Converted]) -> int:
    with progress_bar("converting", "files") as progress:
        done = convert(options.folder, options.out, options.storage, overwrite=options.overwrite, progress=progress)
    print(f"wrote {options.out}: {done.images} images, {done.sweeps} sweeps, {done.boxes} labelled boxes")
    if done.images_without_sweep:
        print(f"{done.images_without_sweep} images have no sweep of the same number")
    return EXIT_DONE


def _tolerance(text: str) -> float:
    value = float(text)
    if not 0.2 <= value <= 1.0:  # noqa: PLR2004 - finer than the search, or half of its span
        msg = f"expected 0.2 to 1 degrees, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value

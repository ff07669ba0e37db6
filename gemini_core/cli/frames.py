"""``gemini-fusion frames``: frames of a bag for labelling tools, and their labels back."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gemini_core.cli.common import (
    EXIT_DONE,
    EXIT_WRONG_INPUT,
    Commands,
    add_config_options,
    add_output_options,
    progress_bar,
    read_config,
    whole_number,
)


def add(commands: Commands) -> None:
    """``frames export`` and ``frames import``."""
    frames = commands.add_parser("frames", help="frames of a bag as pictures for labelling tools, and their labels back")
    directions = frames.add_subparsers(title="directions", required=True, metavar="DIRECTION")

    export = directions.add_parser(
        "export",
        help="write pictures, JSON and what labels there are already",
        description="Writes the reference images, what the other sensors saw on the same pixels, and the classes and labels in "
        "COCO's and CVAT's form (docs/training.md, 'Labelling frames').",
    )
    export.add_argument("bag", type=Path, metavar="BAG", help="bag folder, or one .mcap or .db3 file")
    export.add_argument("folder", type=Path, metavar="DIR", help="folder to write")
    export.add_argument("--every", type=whole_number, default=10, metavar="N", help="write every Nth frame (default 10)")
    export.add_argument("--labels", default="/ground_truth/segmentation", help="topic of labels that the bag has already")
    export.add_argument("--label-info", default="/ground_truth/label_info", help="topic of their names; '': indices of classes")
    export.add_argument("--overwrite", action="store_true", help="replace frames that were exported, with all labels in DIR")
    add_config_options(export)
    export.set_defaults(run=_export_frames)

    back = directions.add_parser(
        "import",
        help="read labels back into a bag beside the bag",
        description="Reads masks/*.png, annotations/instances_default.json (COCO) or SegmentationClass/*.png (CVAT), and "
        "boxes.json, and writes the bag BAG-labels, which training uses.",
    )
    back.add_argument("bag", type=Path, metavar="BAG", help="the bag that the frames are of")
    back.add_argument("folder", type=Path, metavar="DIR", help="the folder that they were exported to")
    back.add_argument(
        "--from", choices=("masks", "coco", "cvat"), dest="source", help="form of the labels, where DIR has several"
    )
    add_output_options(back)
    back.set_defaults(run=_import_frames)


def _export_frames(options: argparse.Namespace) -> int:
    from gemini_core.bag.labels import LabelTopics
    from gemini_core.labelling.export import export_frames

    config = read_config(options.config, options.overrides)
    topics = LabelTopics(options.labels, options.label_info)
    with progress_bar("exporting", "messages") as progress:
        done = export_frames(
            options.bag,
            config,
            options.folder,
            topics,
            every=options.every,
            overwrite=options.overwrite,
            progress=progress,
        )
    labels = f"{done.labelled} with labels of the bag, {done.boxed} with boxes"
    print(f"wrote {options.folder}: {done.frames} of {done.seen} frames, {labels}")
    if done.repeated:
        print(f"left out {done.repeated} frames with the stamp of another one, since labels belong to stamps")
    if done.damage:
        print(f"gemini-fusion: {done.damage}", file=sys.stderr)
        return EXIT_WRONG_INPUT
    return EXIT_DONE


def _import_frames(options: argparse.Namespace) -> int:
    from gemini_core.labelling.imported import import_labels

    done = import_labels(options.bag, options.folder, options.source, options.storage, overwrite=options.overwrite)
    share = f", {100 * done.labelled_share:.1f} % of their pixels" if done.labelled else ""
    print(f"wrote {done.path}: labels of {done.labelled} of {done.frames} frames{share}; boxes of {done.boxed}")
    return EXIT_DONE

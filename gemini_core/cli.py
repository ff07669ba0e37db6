"""The ``gemini-fusion`` command: simulate, inspect, replay, bags from other formats, and weights from other people's files.

A mistake of the user, or a file that is not as it should be, is one line on standard error and exit code 2.
"""

# The stages import torch, Open3D and numba, which takes seconds; `--help` should not wait for them.
# ruff: noqa: PLC0415

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import yaml
from tqdm import tqdm

from gemini_core.config import BACKBONES, FusionConfig, from_flat, load_config
from gemini_core.errors import ConfigError, DataError, GeminiError
from gemini_core.runtimes.process_settings import prepare_process

if TYPE_CHECKING:
    from gemini_core.bag.kitti import Converted
    from gemini_core.model.checkpoints import CheckpointInfo
    from gemini_core.replay import ReplayResult
    from gemini_core.runtimes.export import Images, Target
    from gemini_core.types import F32

_Item = TypeVar("_Item")

EXIT_DONE, EXIT_WRONG_INPUT, EXIT_MISALIGNED, EXIT_INTERRUPTED = 0, 2, 3, 130


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


# --------------------------------------------------------------------------------------------------------------------
# What can be typed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gemini-fusion",
        description="Perception from camera, depth camera, event camera and LiDAR, on recorded bags and without ROS.",
        epilog="'gemini-fusion COMMAND --help' says more about one command.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    _add_simulate(commands)

    inspect = commands.add_parser("inspect", help="what is in a bag, what the rig uses of it, how well it is synchronized")
    inspect.add_argument("bag", type=Path, help="bag folder, or one .mcap or .db3 file")
    _add_config_options(inspect)
    inspect.add_argument("--json", action="store_true", help="write JSON instead of text")
    inspect.set_defaults(run=_inspect)

    _add_check_alignment(commands)

    replay = commands.add_parser("replay", help="run a bag through the whole pipeline; masks and boxes go to another bag")
    replay.add_argument("bag", type=Path, help="bag folder, or one .mcap or .db3 file")
    replay.add_argument("--out", type=Path, required=True, metavar="BAG", help="folder to write, a ROS 2 bag")
    replay.add_argument(
        "--labelled-points", action="store_true", help="also write the sweeps with the mask's value at each point"
    )
    _add_config_options(replay)
    _add_output_options(replay)
    replay.set_defaults(run=_replay)

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
        _add_output_options(each)

    _add_frames(commands)

    weights = commands.add_parser(
        "import-weights",
        help="make our weights file of GeminiFusion's released models, or of a pretrained SegFormer or Swin",
        description="The kind of file is found by the names in it. What it has nothing for is initialised, and said. With "
        "--detector, of the options below only --classes counts.",
    )
    weights.add_argument("input", type=Path, metavar="IN", help=".pth, .pth.tar, .bin or .safetensors, only tensors in it")
    weights.add_argument("output", type=Path, metavar="OUT", help="safetensors file to write")
    network = weights.add_mutually_exclusive_group(required=True)
    network.add_argument("--backbone", choices=BACKBONES, help="backbone that the weights are for")
    network.add_argument("--detector", choices=("mvxnet",), help="the weights are of the released KITTI model, boxes alone")
    weights.add_argument(
        "--modalities", type=_names, default=("rgb", "depth"), metavar="A,B", help="sensors, rgb first (default rgb,depth)"
    )
    weights.add_argument(
        "--classes",
        type=_names,
        required=True,
        metavar="A,B",
        help="class names, of masks or with --detector of boxes, in order, or a text file with one per line",
    )
    weights.add_argument("--head-width", type=int, default=256, help="256 for NYUDv2 and SUN, 512 for DeLiVER (default 256)")
    weights.add_argument(
        "--logits-size", choices=("auto", "quarter", "full"), default="auto", help="size of the logits (default auto)"
    )
    weights.add_argument("--fused-blocks", type=int, metavar="K", help="fuse in the last K blocks only (default: in all)")
    weights.add_argument("--backbone-only", action="store_true", help="leave a head in the file out, e.g. of other classes")
    weights.add_argument("--seed", type=int, default=0, help="of what the file has nothing for (default 0)")
    weights.set_defaults(run=_import_weights)
    _add_export(commands)
    return parser


def _add_simulate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
    simulate.add_argument("--seconds", type=_positive, help="length of a recording (default 10, in a set 3)")
    simulate.add_argument("--split", choices=SPLITS, default="test", help="worlds of two splits share no scene (default test)")
    simulate.add_argument("--world", choices=WORLDS, default="street", help="default street")
    simulate.add_argument("--condition", choices=CONDITIONS, default="day", help="default day; in a room fog is smoke")
    simulate.add_argument("--failure", choices=FAILURES, default="none", help="default none")
    simulate.add_argument(
        "--no-clutter",
        action="store_true",
        help="no things of a person's size on the pavements, more cars",
    )
    simulate.add_argument("--scale", type=_positive, help="of all sensors; 0.5: a 320x240 camera (default 1, in a set 0.5)")
    simulate.add_argument("--color-scale", type=_positive, help="of the colour camera, where it is another one; 1: 640x480")
    simulate.add_argument(
        "--clips",
        type=_clips,
        default=(120, 30, 60),
        metavar="A,B,C",
        help="of a set: clips of train, val and test (default 120,30,60)",
    )
    _add_output_options(simulate)
    simulate.set_defaults(run=_simulate)


def _add_check_alignment(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check = commands.add_parser(
        "check-alignment",
        help="whether the sensors of a bag lie on each other as their calibration says",
        description="Compares outlines in depth, LiDAR and events with the edges of the reference image, and warns (exit code "
        "3) where a small rotation of a sensor would fit clearly better (docs/alignment.md).",
    )
    check.add_argument("bag", type=Path, help="bag folder, or one .mcap or .db3 file")
    check.add_argument("--out", type=Path, metavar="FOLDER", help="write pictures, alignment.json and alignment.txt there")
    check.add_argument("--frames", type=_count, default=12, help="frames to look at, spread over the bag (default 12)")
    check.add_argument(
        "--tolerance", type=_tolerance, default=0.5, metavar="DEGREES", help="rotations are a warning from here (default 0.5)"
    )
    check.add_argument("--json", action="store_true", help="write JSON instead of text")
    _add_config_options(check)
    check.set_defaults(run=_check_alignment)


def _add_frames(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
    export.add_argument("--every", type=_count, default=10, metavar="N", help="write every Nth frame (default 10)")
    export.add_argument("--labels", default="/ground_truth/segmentation", help="topic of labels that the bag has already")
    export.add_argument("--label-info", default="/ground_truth/label_info", help="topic of their names; '': indices of classes")
    export.add_argument("--overwrite", action="store_true", help="replace frames that were exported, with all labels in DIR")
    _add_config_options(export)
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
    _add_output_options(back)
    back.set_defaults(run=_import_frames)


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    export = commands.add_parser(
        "export",
        help="make a folder of graphs for a faster runtime, held against torch before it is written",
        description="The folder goes into model.weights. It has a graph for frames with every sensor and one for RGB alone, "
        "and gives boxes, too, where the weights have a detector.",
    )
    export.add_argument("weights", type=Path, metavar="WEIGHTS", help="safetensors file written by gemini_ros")
    export.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    export.add_argument("--runtime", required=True, help="openvino, onnx or tensorrt")
    export.add_argument("--precision", default="fp32", help="fp32, bf16, fp16 or int8, as the runtime can (default fp32)")
    export.add_argument(
        "--size",
        type=_size,
        default=(640, 480),
        metavar="WIDTHxHEIGHT",
        help="of the network's input, as grid.width and grid.height (default 640x480)",
    )
    export.add_argument(
        "--without",
        type=_names,
        action="append",
        default=[],
        metavar="A,B",
        help="add a graph for frames that lack these sensors; may be repeated",
    )
    real = export.add_mutually_exclusive_group(required=True)
    real.add_argument("--image", type=Path, metavar="FILE", help="picture to hold the graphs against torch on")
    real.add_argument(
        "--calibration", type=Path, metavar="BAG", help="bag of this robot to do so on, and to calibrate int8 with"
    )
    export.add_argument("--frames", type=_count, default=32, help="frames of the bag to calibrate with (default 32)")
    export.add_argument("--tolerance", type=_positive, help="largest difference from torch, in deviations of the outputs")
    _add_config_options(export)
    export.set_defaults(run=_export)


def _add_config_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="rig and parameters, YAML (without: the defaults)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override one option of the file, e.g. --set model.enabled=false; may be repeated",
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap", help="file format in the bag (default mcap)")
    parser.add_argument("--overwrite", action="store_true", help="replace a bag that is already there")


def _positive(text: str) -> float:
    value = float(text)
    if not 0.0 < value < float("inf"):
        msg = f"expected a number above 0, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _clips(text: str) -> tuple[int, int, int]:
    """Read three numbers separated by commas."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):  # noqa: PLR2004 - train, val and test
        msg = f"expected three numbers, for train, val and test, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return int(parts[0]), int(parts[1]), int(parts[2])


def _tolerance(text: str) -> float:
    value = float(text)
    if not 0.2 <= value <= 1.0:  # noqa: PLR2004 - finer than the search, or half of its span
        msg = f"expected 0.2 to 1 degrees, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _size(text: str) -> tuple[int, int]:
    """Read a width and a height with an x between them."""
    parts = text.split("x")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):  # noqa: PLR2004 - width and height
        msg = f"expected WIDTHxHEIGHT, like 640x480, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return int(parts[0]), int(parts[1])


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:  # noqa: PLR2004 - more would not fit into memory
        msg = f"expected a whole number from 1 to 1000, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _names(text: str) -> tuple[str, ...]:
    """Read names separated by commas, or the lines of a file."""
    path = Path(text)
    if "," not in text and path.is_file():
        return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _config(path: Path | None, overrides: list[str]) -> FusionConfig:
    values: dict[str, object] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            msg = f"--set: expected KEY=VALUE, got {text!r}"
            raise ConfigError(msg)
        try:
            values[key.strip()] = yaml.safe_load(value) if value.strip() else ""
        except yaml.YAMLError:
            msg = f"--set {key}: expected a value that YAML can read, got {value!r}"
            raise ConfigError(msg) from None
    return from_flat(values, where="--set") if path is None else load_config(path, values)


@contextmanager
def _progress(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error while the block runs; only where a person looks at it."""
    with tqdm(desc=what, unit=f" {unit}", disable=None, leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


# --------------------------------------------------------------------------------------------------------------------
# The commands


def _simulate(options: argparse.Namespace) -> int:
    from gemini_core.simulation.clip import SPLITS, Clip, plan
    from gemini_core.simulation.record import record, record_set
    from gemini_core.simulation.rig import default_rig

    clutter = not options.no_clutter
    if options.folder is not None:
        clips = plan(dict(zip(SPLITS, options.clips, strict=True)), options.seconds or 3.0, options.seed, clutter=clutter)
        with _progress("simulating", "clips") as progress:
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
    with _progress("simulating", "frames") as progress:
        rig = default_rig(options.scale or 1.0, clip.world, color_scale=options.color_scale)
        record(options.out, clip, options.storage, progress, rig=rig, overwrite=options.overwrite)
    what = f"{clip.world} {clip.seed} of {clip.split}, {clip.condition}"
    print(f"wrote {options.out}: {seconds:g} s of {what}{'' if clip.failure == 'none' else ', ' + clip.failure}")
    return EXIT_DONE


def _inspect(options: argparse.Namespace) -> int:
    from gemini_core.inspection.bag import inspect, to_json, to_text

    config = _config(options.config, options.overrides)
    with _progress("reading", "messages") as progress:
        inspection = inspect(options.bag, config, progress)
    print(to_json(inspection) if options.json else to_text(inspection))
    if not sys.stdout.isatty():  # else they stand in what was just printed
        for note in inspection.notes:
            print(f"gemini-fusion: {options.bag}: {note}", file=sys.stderr)
    return EXIT_WRONG_INPUT if inspection.damage else EXIT_DONE


def _check_alignment(options: argparse.Namespace) -> int:
    from gemini_core.alignment.check import check_alignment
    from gemini_core.alignment.report import to_json, to_text, write_report

    config = _config(options.config, options.overrides)
    with _progress("reading", "messages") as progress:
        checked = check_alignment(options.bag, config, options.frames, options.tolerance, progress)
    print(to_json(checked.report) if options.json else to_text(checked.report))
    if options.out is not None:
        paths = write_report(checked, options.out)
        print(f"wrote {len(paths)} files to {options.out}", file=sys.stderr)
    if checked.report.warned:
        return EXIT_MISALIGNED
    return EXIT_WRONG_INPUT if checked.report.damage else EXIT_DONE


def _replay(options: argparse.Namespace) -> int:
    from gemini_core.replay import replay

    config = _config(options.config, options.overrides)
    with _progress("replaying", "messages") as progress:
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
    from gemini_core.tables import distributions_text, missing_text

    print(f"wrote {out}: {result.frames} masks, {result.complete} from frames with every sensor")
    print(f"network: {result.network}")
    if result.trained is False:
        print("THE WEIGHTS WERE NEVER TRAINED: the masks show that everything runs, not what is where.")
    for entry in result.rig:
        if entry.problem:
            print(f"{entry.role} on {entry.topic}: {entry.problem}")
    for line in missing_text(result.missing):
        print(line)
    print("Time per frame:")
    print(distributions_text(result.stages))
    print("Counted:")
    for count in result.counts:
        print(f"  {count.what}: {count.number}")


def _kitti_raw(options: argparse.Namespace) -> int:
    from gemini_core.bag.kitti import from_kitti_raw

    return _convert(options, from_kitti_raw)


def _kitti_object(options: argparse.Namespace) -> int:
    from gemini_core.bag.kitti import from_kitti_object

    return _convert(options, from_kitti_object)


def _convert(options: argparse.Namespace, convert: Callable[..., Converted]) -> int:
    with _progress("converting", "files") as progress:
        done = convert(options.folder, options.out, options.storage, overwrite=options.overwrite, progress=progress)
    print(f"wrote {options.out}: {done.images} images, {done.sweeps} sweeps, {done.boxes} labelled boxes")
    if done.images_without_sweep:
        print(f"{done.images_without_sweep} images have no sweep of the same number")
    return EXIT_DONE


def _import_weights(options: argparse.Namespace) -> int:
    if options.detector is not None:
        return _import_mvxnet(options)
    import torch

    from gemini_core.model import checkpoints
    from gemini_core.model.importing import load_pretrained
    from gemini_core.model.segmentation import SegmenterConfig

    config = SegmenterConfig(
        options.backbone,
        options.modalities,
        len(options.classes),
        options.head_width,
        logits_size=options.logits_size,
        fused_blocks=options.fused_blocks,
    )
    torch.manual_seed(options.seed)
    imported = load_pretrained(options.input, config, backbone_only=options.backbone_only)
    complete = not imported.initialised
    checkpoints.save(
        imported.segmenter,
        options.output,
        options.classes,
        trained=complete,
        description=f"{imported.family} weights from {options.input.name}",
    )
    print(f"wrote {options.output}: {imported.family} weights, {'complete' if complete else 'as a start for training'}")
    for what, names in (
        ("initialised, since the file has nothing for them", imported.initialised),
        ("dropped", imported.dropped),
    ):
        if names:
            print(f"{len(names)} {what}:")
            print("\n".join(f"  {name}" for name in names))
    return EXIT_DONE


def _import_mvxnet(options: argparse.Namespace) -> int:
    from gemini_core.model.detection.mvxnet.checkpoint import save_mvxnet
    from gemini_core.model.detection.mvxnet.config import MvxNetConfig
    from gemini_core.model.detection.mvxnet.importing import import_mvxnet

    released = MvxNetConfig()
    if len(options.classes) != len(released.classes):
        wanted, got = ", ".join(released.classes), ", ".join(options.classes)
        msg = f"--classes: expected names for the released model's {wanted}, in this order, got {got}"
        raise ConfigError(msg)
    network = import_mvxnet(options.input, replace(released, classes=options.classes), runtime="torch")
    save_mvxnet(network, options.output, trained=True, description=f"MVX-Net weights from {options.input.name}")
    print(f"wrote {options.output}: MVX-Net weights, complete")
    return EXIT_DONE


def _export(options: argparse.Namespace) -> int:
    from gemini_core.model import checkpoints
    from gemini_core.runtimes.export import Target, export

    width, height = options.size
    target = Target(options.runtime, options.precision, height, width)
    segmenter, info = checkpoints.load(options.weights)
    names = segmenter.config.modalities
    subsets = [_without(lacking, names) for lacking in options.without]
    images = _export_images(options, target, names, info)
    done = export(segmenter, info, target, options.out, images, subsets=subsets, tolerance=options.tolerance)
    detector = done.segmenter.detector
    gives = "masks" if detector is None else f"masks and boxes of {', '.join(detector.classes)}"
    print(f"wrote {options.out}: {done.precision} for {done.runtime}, {done.width}x{done.height}, {gives}")
    print(f"checked {done.verified}")
    return EXIT_DONE


def _export_frames(options: argparse.Namespace) -> int:
    from gemini_core.bag.labels import LabelTopics
    from gemini_core.labelling.export import export_frames

    config = _config(options.config, options.overrides)
    topics = LabelTopics(options.labels, options.label_info)
    with _progress("exporting", "messages") as progress:
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


def _without(lacking: tuple[str, ...], names: tuple[str, ...]) -> tuple[int, ...]:
    for name in lacking:
        if name not in names[1:]:
            msg = f"--without: expected sensors out of {', '.join(names[1:])}, got {name!r}"
            raise ConfigError(msg)
    return tuple(index for index, name in enumerate(names) if name not in lacking)


def _export_images(options: argparse.Namespace, target: Target, names: tuple[str, ...], info: CheckpointInfo) -> Images:
    """Get the images to check an export with: of a bag, or of a picture."""
    from gemini_core.runtimes.export import Images
    from gemini_core.runtimes.images import from_picture, normalise

    if options.calibration is not None:
        frames, what = _bag_images(options, target, names, info), f"a frame of {options.calibration.name}"
    elif target.precision == "int8":
        msg = "--calibration: expected a bag of this robot, which int8 is calibrated with, got none"
        raise ConfigError(msg)
    else:
        frames, what = [from_picture(options.image, len(names), target.height, target.width)], options.image.name
    return Images([normalise(channels, info.normalization) for channels in frames], what)


def _bag_images(options: argparse.Namespace, target: Target, names: tuple[str, ...], info: CheckpointInfo) -> list[F32]:
    """Read frames with every sensor out of a bag, spread over its length: (M, 3, H, W) in [0, 1] each."""
    import numpy as np

    from gemini_core.bag.reader import BagReader
    from gemini_core.predictor import check_encodings
    from gemini_core.project.projector import Projector
    from gemini_core.replay import Replay

    size = [f"grid.height={target.height}", f"grid.width={target.width}", f"modalities=[{', '.join(names)}]"]
    config = _config(options.config, [*options.overrides, *size])
    check_encodings(config, info, options.weights)
    projector = Projector(config)
    with _progress("reading", "messages") as progress, BagReader(options.calibration) as bag:
        frames = Replay(bag, config, progress=progress).frames()
        complete = (frame for frame in frames if all(status.present for status in frame.status))
        kept = _spread(complete, options.frames + 1)  # one to check with
    if not kept:
        msg = f"{options.calibration}: expected a frame with {', '.join(names)} in it, got none"
        raise DataError(msg)
    grids = [projector.project(frame) for frame in kept]
    return [np.stack([grid.channels for name in config.modalities if (grid := each.grid(name))]) for each in grids]


def _spread(items: Iterable[_Item], wanted: int) -> list[_Item]:
    """Keep up to ``wanted`` items, spread over a length that is not known before, without holding more than twice as many."""
    kept: list[_Item] = []
    step = 1
    for number, item in enumerate(items):
        if number % step == 0:
            kept.append(item)
        if len(kept) > 2 * wanted:  # go on with every other one
            kept, step = kept[::2], 2 * step
    if len(kept) <= wanted:
        return kept
    return [kept[index * len(kept) // wanted] for index in range(wanted)]


if __name__ == "__main__":
    sys.exit(main())

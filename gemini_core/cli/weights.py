"""Weights: ``import-weights`` makes our file of other people's, ``export`` a folder of graphs for a faster runtime."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gemini_core.cli.common import (
    EXIT_DONE,
    Commands,
    add_config_options,
    name_list,
    positive,
    progress_bar,
    read_config,
    whole_number,
)
from gemini_core.config.sections import BACKBONES
from gemini_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from gemini_core.model.checkpoints import CheckpointInfo
    from gemini_core.runtimes.export import Images, Target
    from gemini_core.types import F32

_Item = TypeVar("_Item")


def add(commands: Commands) -> None:
    """``import-weights`` and ``export``."""
    _add_import(commands)
    _add_export(commands)


def _add_import(commands: Commands) -> None:
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
        "--modalities", type=name_list, default=("rgb", "depth"), metavar="A,B", help="sensors, rgb first (default rgb,depth)"
    )
    weights.add_argument(
        "--classes",
        type=name_list,
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


def _add_export(commands: Commands) -> None:
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
        type=name_list,
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
    export.add_argument("--frames", type=whole_number, default=32, help="frames of the bag to calibrate with (default 32)")
    export.add_argument("--tolerance", type=positive, help="largest difference from torch, in deviations of the outputs")
    add_config_options(export)
    export.set_defaults(run=_export)


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
    config = read_config(options.config, [*options.overrides, *size])
    check_encodings(config, info, options.weights)
    projector = Projector(config)
    with progress_bar("reading", "messages") as progress, BagReader(options.calibration) as bag:
        frames = Replay(bag, config, progress=progress).frames()
        complete = (frame for frame in frames if all(status.present for status in frame.status))
        kept = spread(complete, options.frames + 1)  # one to check with
    if not kept:
        msg = f"{options.calibration}: expected a frame with {', '.join(names)} in it, got none"
        raise DataError(msg)
    grids = [projector.project(projector.rectified(frame)) for frame in kept]
    return [np.stack([grid.channels for name in config.modalities if (grid := each.grid(name))]) for each in grids]


def spread(items: Iterable[_Item], wanted: int) -> list[_Item]:
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


def _size(text: str) -> tuple[int, int]:
    """Read a width and a height with an x between them."""
    parts = text.split("x")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):  # noqa: PLR2004 - width and height
        msg = f"expected WIDTHxHEIGHT, like 640x480, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return int(parts[0]), int(parts[1])

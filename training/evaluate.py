"""Score trained weights on labelled bags: ``python -m training.evaluate --weights FILE --data BAGS --fusion CONFIG ...``.

Every frame is segmented with each subset of the sensors, as the node does it when a sensor is missing; scores are grouped by
what the bags say of themselves (condition, failure, world). Writes ``evaluation.json`` and ``index.html``. With
``--task detection``, boxes are scored instead (``evaluate_detection.py``).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from gemini_core.config.fusion import FusionConfig, load_config
from gemini_core.errors import ConfigError, WeightsError
from gemini_core.evaluate.segmentation import ConfusionMatrix, SegmentationScores
from gemini_core.model import checkpoints
from gemini_core.model.segmentation import Segmenter, upsample
from gemini_core.render import mask_image, palette
from gemini_core.runtimes.programs import run_program
from gemini_core.types import U8, UNLABELLED
from training.box_finders import load_box_finder
from training.cache import CachedBag, cached
from training.config import DataConfig
from training.data import Batch, FrameDataset, plain_batches
from training.evaluate_detection import MIN_POINTS, evaluate_detection, write_detection
from training.report import ALL, write_panels, write_report

_WRONG = (200, 30, 30)


@dataclass(frozen=True, slots=True)
class GroupScores:
    """The scores of one group of frames ("all", "condition=night") with one subset of the sensors."""

    group: str
    subset: str
    modalities: tuple[str, ...]
    frames: int
    scores: SegmentationScores


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame on the page: its title, its mean IoU, and the files of its panels by caption."""

    title: str
    mean_iou: float
    panels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that the page says."""

    weights: str
    description: str
    classes: tuple[str, ...]
    modalities: tuple[str, ...]
    groups: tuple[str, ...]
    subsets: tuple[str, ...]
    results: tuple[GroupScores, ...]
    pictures: tuple[Picture, ...]

    def result(self, group: str, subset: str) -> GroupScores | None:
        """Look up one result."""
        return next((each for each in self.results if (each.group, each.subset) == (group, subset)), None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 done, 1 an error in one sentence, 130 and 143 after a signal, 141 where nobody reads on."""
    return run_program("error", lambda: _run(arguments), wrong_input=1)


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description="Score trained weights on labelled bags.")
    parser.add_argument("--weights", required=True, type=Path, help="safetensors file that training wrote")
    parser.add_argument("--data", required=True, nargs="+", help="bags, folders of bags, or patterns")
    parser.add_argument("--fusion", required=True, help="the node's configuration that the weights were trained with")
    parser.add_argument("--cache", type=Path, default=Path("out/training/cache"), help="folder for the aligned frames")
    parser.add_argument("--out", required=True, type=Path, help="folder for evaluation.json (detection.json) and index.html")
    parser.add_argument("--task", default="segmentation", choices=("segmentation", "detection"), help="masks or boxes")
    labels_help = "topic of the label images; '' for none, where boxes are scored"
    parser.add_argument("--labels", default="/ground_truth/segmentation", help=labels_help)
    parser.add_argument("--label-info", default="/ground_truth/label_info", help="topic of the labels' names; '' for none")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="score every Nth frame only")
    parser.add_argument("--only-all", action="store_true", help="all sensors together, no subsets of them")
    parser.add_argument("--workers", type=int, default=1, help="processes that load frames")
    boxes = parser.add_argument_group("with --task detection")
    boxes.add_argument("--boxes", default="/ground_truth/detections", help="topic of the labelled boxes")
    points_help = f"points in a labelled box from which on it counts ({MIN_POINTS})"
    boxes.add_argument("--min-points", type=int, default=MIN_POINTS, metavar="N", help=points_help)
    given_help = "modalities that the network was trained with (model.given): no subsets then"
    boxes.add_argument("--given", nargs="+", default=(), metavar="MODALITY", help=given_help)
    source_help = "whose points it was trained with (detection.points): no subsets then, but for auto"
    boxes.add_argument("--points", default="auto", choices=("auto", "lidar", "depth"), help=source_help)
    given = parser.parse_args(arguments)
    if given.every < 1:
        msg = f"--every: expected 1 or more, got {given.every}"
        raise ConfigError(msg)
    fusion = load_config(given.fusion)
    if given.task == "detection":
        print(_evaluate_boxes(given, fusion))
        return 0
    if not given.labels:
        msg = "--labels: expected a topic of label images, but for --task detection, got none"
        raise ConfigError(msg)
    bags = _cached(given, fusion)
    subsets_wanted = not given.only_all
    evaluation = evaluate(given.weights, bags, given.out, every=given.every, subsets=subsets_wanted, workers=given.workers)
    write_evaluation(evaluation, given.out)
    overall = evaluation.results[0]
    print(f"mean IoU {100 * overall.scores.mean_iou:.1f} % over {overall.frames} frames; {given.out / 'index.html'}")
    return 0


def _cached(given: argparse.Namespace, fusion: FusionConfig, *, boxes: bool = False) -> tuple[CachedBag, ...]:
    """Open the frames of all bags."""
    data = DataConfig(cache=str(given.cache), labels=given.labels, label_info=given.label_info, boxes=given.boxes)
    return cached(data, fusion, tuple(given.data), "--data", boxes=boxes)


def _evaluate_boxes(given: argparse.Namespace, fusion: FusionConfig) -> str:
    """Score boxes and write their page; gives what to say of it."""
    if given.min_points < 0:
        msg = f"--min-points: expected 0 or more, got {given.min_points}"
        raise ConfigError(msg)
    if not given.boxes:
        msg = "--boxes: expected a topic of labelled boxes, got none"
        raise ConfigError(msg)
    load_box_finder(given.weights, fusion.detections.classes)  # before the frames are made, which takes long
    bags = _cached(given, fusion, boxes=True)
    evaluation = evaluate_detection(
        given.weights,
        bags,
        given.out,
        every=given.every,
        subsets=not given.only_all,
        workers=given.workers,
        points=given.points,
        given=tuple(given.given),
        min_points=given.min_points,
    )
    write_detection(evaluation, fusion.model.classes, given.out)
    overall = evaluation.result(ALL, ALL)
    mean = overall.mean.everywhere
    found = f"mean AP of boxes {100 * mean.bev_r40:.1f} % from above, {100 * mean.space_r40:.1f} % in 3D"
    return f"{found}, over {mean.objects} in {overall.frames} frames; {given.out / 'index.html'}"


def evaluate(
    weights: Path, bags: tuple[CachedBag, ...], out: Path, *, every: int = 1, subsets: bool = True, workers: int = 0
) -> Evaluation:
    """Score weights on every ``every``-th frame of cached bags; pictures of some frames go to ``out``.

    Raises:
        WeightsError: the weights cannot be read or were trained for other classes.
        DataError: frames that cannot be read, or pictures that cannot be written.
    """
    segmenter, info = checkpoints.load(weights)
    modalities = segmenter.config.modalities
    for bag in bags:
        if bag.classes != info.class_names:
            msg = f"{weights}: expected weights for classes {', '.join(bag.classes)}, got {', '.join(info.class_names)}"
            raise WeightsError(msg)
    wanted = modality_subsets(modalities) if subsets else {ALL: modalities}
    dataset = FrameDataset(bags, modalities, info.normalization)
    matrices: dict[tuple[str, str], ConfusionMatrix] = {}
    frames: dict[str, int] = {}
    pictures: dict[str, Picture] = {}
    count = len(range(0, len(dataset), every))
    for batch in tqdm(plain_batches(dataset, 1, workers, every), total=count, desc="evaluate", unit="frame"):
        label = batch.label[0].numpy().astype(np.uint8)
        tags = dataset.reader.bag_of(int(batch.number[0])).tags
        groups = (ALL, *(f"{key}={value}" for key, value in tags.items()))
        for group in groups:
            frames[group] = frames.get(group, 0) + 1
        for subset, kept in wanted.items():
            prediction = _segment(segmenter, batch, kept)
            one = ConfusionMatrix(len(info.class_names))
            one.add(label, prediction)
            for group in groups:
                matrices.setdefault((group, subset), ConfusionMatrix(len(info.class_names))).merge(one)
            title = " ".join(tags.values()) or "frame"
            if subset == ALL and title not in pictures:
                images = {modality: dataset.image(batch, place) for place, modality in enumerate(modalities)}
                masks = {"label": mask_image(label, info.class_names), "prediction": mask_image(prediction, info.class_names)}
                panels = {**images, **masks, "errors": _errors(images["rgb"], label, prediction)}
                pictures[title] = Picture(title, one.scores().mean_iou, write_panels(title, panels, out))
    names = sorted(frames, key=lambda group: (group != ALL, group))
    results = tuple(
        GroupScores(group, subset, wanted[subset], frames[group], matrices[group, subset].scores())
        for group in names
        for subset in wanted
    )
    return Evaluation(
        weights=weights.name,
        description=info.description,
        classes=info.class_names,
        modalities=modalities,
        groups=tuple(names),
        subsets=tuple(wanted),
        results=results,
        pictures=tuple(pictures[name] for name in sorted(pictures)),
    )


def modality_subsets(modalities: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The subsets that are scored, by name: all, all but one, rgb with one other, and rgb alone."""
    reference, *extras = modalities
    subsets = {ALL: modalities}
    for extra in extras if len(extras) > 1 else ():
        subsets[f"without {extra}"] = tuple(each for each in modalities if each != extra)
    for extra in extras if len(extras) > 2 else ():  # noqa: PLR2004 - of two, all but one is the same
        subsets[f"{reference}+{extra}"] = (reference, extra)
    if extras:
        subsets[f"{reference} alone"] = (reference,)
    return subsets


@torch.inference_mode()
def _segment(segmenter: Segmenter, batch: Batch, kept: tuple[str, ...]) -> U8:
    """Segment the one frame of a batch with the sensors in ``kept`` that it has."""
    there = batch.present[:, 0].tolist()
    present = [flag and name in kept for flag, name in zip(there, segmenter.config.modalities, strict=True)]
    logits: Tensor = segmenter.quarter_logits(tuple(batch.images), present).ensemble
    mask: U8 = upsample(logits, batch.label.shape[1:]).argmax(dim=1)[0].to(torch.uint8).numpy()
    return mask


def _errors(image: U8, label: U8, prediction: U8) -> U8:
    """The picture in grey, wrong pixels in red."""
    errors = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(np.uint8)
    errors[(label != prediction) & (label != UNLABELLED)] = _WRONG
    return errors


def write_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Write ``evaluation.json`` and ``index.html``.

    Raises:
        WeightsError: they cannot be written.
    """
    colors = palette(evaluation.classes)
    legend = [(name, f"#{bytes(colors[index]).hex()}") for index, name in enumerate(evaluation.classes)]
    write_report(evaluation, out / "evaluation.json", "evaluation.html", legend=legend)


if __name__ == "__main__":
    sys.exit(main())

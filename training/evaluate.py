"""Score trained weights on labelled bags: ``python -m training.evaluate --weights FILE --data BAGS --fusion CONFIG ...``.

Every frame is segmented with each subset of the sensors, as the node does it when a sensor is missing; scores are grouped by
what the bags say of themselves (condition, failure, world). Writes ``evaluation.json`` and ``index.html``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import jinja2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from gemini_core.bag.labels import LabelTopics
from gemini_core.config import load_config
from gemini_core.errors import ConfigError, GeminiError, WeightsError
from gemini_core.evaluate.report import write_png
from gemini_core.evaluate.segmentation import ConfusionMatrix, SegmentationScores
from gemini_core.model import checkpoints
from gemini_core.model.segmentation import Segmenter, upsample
from gemini_core.render import mask_image, palette
from gemini_core.types import U8, UNLABELLED
from training.cache import CachedBag, cache_bag
from training.checkpoint import write_whole
from training.data import Batch, FrameDataset, plain_batches
from training.frames import find_bags

ALL = "all"
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
    """Run the command; 0 done, 1 an error in one sentence."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description="Score trained weights on labelled bags.")
    parser.add_argument("--weights", required=True, type=Path, help="safetensors file that training wrote")
    parser.add_argument("--data", required=True, nargs="+", help="bags, folders of bags, or patterns")
    parser.add_argument("--fusion", required=True, help="the node's configuration that the weights were trained with")
    parser.add_argument("--cache", type=Path, default=Path("out/training/cache"), help="folder for the aligned frames")
    parser.add_argument("--out", required=True, type=Path, help="folder for evaluation.json and index.html")
    parser.add_argument("--labels", default="/ground_truth/segmentation", help="topic of the label images")
    parser.add_argument("--label-info", default="/ground_truth/label_info", help="topic of the labels' names; '' for none")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="score every Nth frame only")
    parser.add_argument("--only-all", action="store_true", help="all sensors together, no subsets of them")
    parser.add_argument("--workers", type=int, default=1, help="processes that load frames")
    given = parser.parse_args(arguments)
    try:
        if given.every < 1:
            msg = f"--every: expected 1 or more, got {given.every}"
            raise ConfigError(msg)
        fusion = load_config(given.fusion)
        topics = LabelTopics(given.labels, given.label_info)
        with tqdm(find_bags(tuple(given.data), "--data"), desc="frames", unit="bag") as paths:
            bags = tuple(cache_bag(path, fusion, topics, given.cache) for path in paths)
        subsets_wanted = not given.only_all
        evaluation = evaluate(given.weights, bags, given.out, every=given.every, subsets=subsets_wanted, workers=given.workers)
        write_evaluation(evaluation, given.out)
    except GeminiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    overall = evaluation.results[0]
    print(f"mean IoU {100 * overall.scores.mean_iou:.1f} % over {overall.frames} frames; {given.out / 'index.html'}")
    return 0


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
                pictures[title] = Picture(title, one.scores().mean_iou, _write_panels(title, panels, out))
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


def _write_panels(title: str, panels: dict[str, U8], out: Path) -> tuple[tuple[str, str], ...]:
    """Write pictures into ``out``: (caption, file) of each."""
    files = tuple((caption, f"pictures/{title.replace(' ', '-')}-{caption}.png") for caption in panels)
    for caption, name in files:
        write_png(out / name, panels[caption])
    return files


def write_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Write ``evaluation.json`` and ``index.html``.

    Raises:
        WeightsError: they cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("training"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["percent"] = lambda share: "–" if math.isnan(share) else f"{100 * share:.1f}"
    colors = palette(evaluation.classes)
    legend = [(name, f"#{bytes(colors[index]).hex()}") for index, name in enumerate(evaluation.classes)]
    page = environment.get_template("evaluation.html").render(evaluation=evaluation, legend=legend, all=ALL)
    plain = json.dumps(_plain(dataclasses.asdict(evaluation)), indent=1)
    write_whole(out / "evaluation.json", lambda temporary: temporary.write_text(plain, encoding="utf-8"))
    write_whole(out / "index.html", lambda temporary: temporary.write_text(page, encoding="utf-8"))


def _plain(value: object) -> object:
    """NaN, which JSON does not have, becomes null."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


if __name__ == "__main__":
    sys.exit(main())

"""The page of results/boxes.md: the contenders, and the shipped checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from benchmarks.boxes.runs import (
    CHECKPOINT,
    CONTENDERS,
    IMAGE_RECIPE,
    INPUTS,
    LEAST_POINTS,
    RECIPE,
    best,
    image_config,
    result_folder,
)
from gemini_core.errors import DataError
from training.evaluate_detection import MIN_POINTS
from training.report import ALL

RESULTS, SHIPPED, TIME = "What is found", "What the shipped weights find", "What it costs"
ALSO = {"world=street": "The same in streets:", "condition=night": "The same at night:"}
"""Groups of frames that get a table of their own."""


def sections(runs: Path) -> dict[str, str]:
    """Give the sections of all evaluations that are there, by their titles.

    Raises:
        DataError: there is none.
    """
    parts = {RESULTS: _contenders(runs), SHIPPED: _checkpoint(runs)}
    there = {title: text for title, text in parts.items() if text}
    if not there:
        msg = f"{runs}: expected evaluations of contenders, got none; run python -m benchmarks.boxes"
        raise DataError(msg)
    return there


def _contenders(runs: Path) -> str:
    parts = []
    for least in LEAST_POINTS:
        read = {name: content for name in CONTENDERS if (content := _read(runs, name, least)) is not None}
        contenders = {CONTENDERS[name]: content for name, content in read.items()}
        if not contenders:
            continue
        if not parts:
            name, content = list(read.items())[-1]  # the first has no image
            parts.append(_introduction(content, runs, name, least))
        parts.append(f"Labelled boxes count from {least} point{'' if least == 1 else 's'} of the LiDAR on:")
        parts.append(_table({title: (content, ALL, ALL) for title, content in contenders.items()}))
        for group, heading in ALSO.items():
            if all(group in content["groups"] for content in contenders.values()):
                parts.append(heading)
                parts.append(_table({title: (content, group, ALL) for title, content in contenders.items()}))
    return "\n\n".join(parts)


def _checkpoint(runs: Path) -> str:
    content = _read(runs, CHECKPOINT, MIN_POINTS)
    if content is None:
        return ""
    frames, command = _result(content, ALL, ALL)["frames"], _command(runs, CHECKPOINT, MIN_POINTS, f" --only {CHECKPOINT}")
    introduction = (
        f"{command}: {content['description']}; {frames} test frames, with sensors taken away at run time. {_measure(content)} "
        f"Boxes of {MIN_POINTS} points or more."
    )
    parts = [introduction, _table({subset: (content, ALL, subset) for subset in content["subsets"]})]
    groups = [group for group in content["groups"] if group != ALL]
    if groups:
        parts.append("With all sensors, by condition and failure:")
        parts.append(_table({group: (content, group, ALL) for group in groups}))
    return "\n\n".join(parts)


def _introduction(content: dict[str, Any], runs: Path, name: str, least: int) -> str:
    told = yaml.safe_load((runs / name / "config.yaml").read_text(encoding="utf-8"))
    budget = f"{told['optimizer.steps']} steps of {told['optimizer.batch_size']} frames"
    image = f"`{told['model.weights']}`"
    painted = " and what its masks say" if told.get("detection.painted") else ""
    if told["model.weights"] == best(image_config(runs, {})):
        image = f"trained by masks before (recipe `{IMAGE_RECIPE}`)"
    return (
        f"{_command(runs, name, least)}: the same data, budget and seed for each (recipe `{RECIPE}`: {budget}), and the same "
        f"image branch of RGB alone, {image} and left as it is; those with an image take its features{painted}. "
        f"{_result(content, ALL, ALL)['frames']} test frames of scenes that no training saw, all conditions. "
        f"{_measure(content)} One seed."
    )


def _command(runs: Path, name: str, least: int, arguments: str = "") -> str:
    """The command that gives these results: with every which frame they were."""
    every = json.loads((result_folder(runs, name, least) / INPUTS).read_text(encoding="utf-8"))["every"]
    return f"`python -m benchmarks.boxes{arguments}{'' if every == 1 else f' --every {every}'}`"


def _measure(content: dict[str, Any]) -> str:
    return (
        f"Average precision seen from above at IoU {content['min_iou']:g} (KITTI, 40 recalls), percent, within "
        f"{content['near_m']:g} m."
    )


def _table(rows: dict[str, tuple[dict[str, Any], str, str]]) -> str:
    names = next(iter(rows.values()))[0]["classes"]
    lines = ["| | " + " | ".join(names) + " | mean |", "|---|" + "---:|" * (len(names) + 1)]
    for title, (content, group, subset) in rows.items():
        result = _result(content, group, subset)
        by_name = {each["name"]: each["near"] for each in result["classes"]}
        cells = [_cell(by_name.get(name)) for name in names]
        lines.append(f"| {title} | " + " | ".join([*cells, _percent(result["mean"]["near"]["bev_r40"])]) + " |")
    return "\n".join(lines)


def _cell(precision: dict[str, Any] | None) -> str:
    if precision is None or not precision["objects"]:
        return "–"
    return f"{_percent(precision['bev_r40'])} ({precision['objects']})"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _result(content: dict[str, Any], group: str, subset: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in content["results"] if (each["group"], each["subset"]) == (group, subset))
    return found


def _read(runs: Path, name: str, least: int) -> dict[str, Any] | None:
    path = result_folder(runs, name, least) / "detection.json"
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content

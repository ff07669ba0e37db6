"""The page: what was found, of the contenders and of the shipped checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.boxes.runs import CHECKPOINT, CONTENDERS
from gemini_core.errors import DataError
from training.report import ALL

RESULTS, TIME = "What is found", "What it costs"


def write_results(runs: Path) -> str:
    """Give the section of all evaluations that are there.

    Raises:
        DataError: there is none.
    """
    found = {name: _read(runs / name / "test" / "detection.json") for name in (*CONTENDERS, CHECKPOINT)}
    there = {name: content for name, content in found.items() if content is not None}
    if not there:
        msg = f"{runs}: expected evaluations of contenders, got none; run python -m benchmarks.boxes"
        raise DataError(msg)
    parts = []
    contenders = {title: there[name] for name, title in CONTENDERS.items() if name in there}
    if contenders:
        first = next(iter(contenders.values()))
        frames = _result(first, ALL, ALL)["frames"]
        parts.append(
            "`python -m benchmarks.boxes`: the same data, budget and seed for each (recipe `simulated_boxes`: 2000 steps of 4 "
            f"frames, the image branch is the segmentation's, frozen, given RGB alone). {frames} test frames of scenes that no "
            "training saw, all conditions. "
            f"Average precision seen from above at IoU {first['min_iou']:g} (KITTI, 40 recalls), percent, within "
            f"{first['near_m']:g} m; labelled boxes count from {first['min_points']} points of the LiDAR on. One seed."
        )
        parts.append(_table({title: (content, ALL, ALL) for title, content in contenders.items()}))
        parts.append("At night:")
        parts.append(_table({title: (content, "condition=night", ALL) for title, content in contenders.items()}))
    if CHECKPOINT in there:
        content = there[CHECKPOINT]
        parts.append(f"The shipped checkpoint ({content['description']}), with sensors taken away at run time:")
        parts.append(_table({subset: (content, ALL, subset) for subset in content["subsets"]}))
        parts.append("With all sensors, by condition and failure:")
        groups = [group for group in content["groups"] if group != ALL]
        parts.append(_table({group: (content, group, ALL) for group in groups}))
    return "\n\n".join(parts)


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


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content

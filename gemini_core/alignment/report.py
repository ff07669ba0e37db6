"""Reports of ``gemini-fusion check-alignment``: a table, the same as JSON, and pictures with the outlines drawn in."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from gemini_core.alignment.check import Checked
from gemini_core.alignment.edges import UPRIGHT
from gemini_core.alignment.search import seen_from
from gemini_core.alignment.verdict import AXES, AlignmentReport, AxisFit, Look, Pair
from gemini_core.files import write_png, write_whole
from gemini_core.tables import table
from gemini_core.types import F64, U8

UPRIGHT_COLOR, LEVEL_COLOR = (255, 140, 0), (0, 200, 255)
PICTURES = 3  # of a sensor, spread over the frames checked
_WIDE_SHAPE = 1.6  # pictures wider than this many times their height stand below each other
_DIMMED = 0.6


def to_json(report: AlignmentReport) -> str:
    """The report as one JSON object; what was not measured is null."""
    content = dataclasses.asdict(report)
    for entry, pair in zip(content["pairs"], report.pairs, strict=True):
        entry["pair"] = pair.name
    return json.dumps({**content, "warned": report.warned}, indent=2)


def to_text(report: AlignmentReport) -> str:
    """The report for people: a table, the sentence of each sensor, and what to correct where one is off."""
    rows = [_row(pair) for pair in report.pairs]
    head = ("pair", "verdict", "frames", "coverage %", "points", "score", "best", "pitch", "yaw", "roll")
    parts = [f"{report.path}: {report.frames} frame(s) checked", table(head, rows)]
    if any(pair.axes for pair in report.pairs):
        parts.append(
            "Best rotations, degrees about the reference camera's x (right), y (down), z (forward) [95 %]; ! off, ? cannot tell"
        )
    if report.depth_lidar is not None:
        agreement = report.depth_lidar
        parts.append(
            f"depth-lidar: depths differ by {100 * agreement.median_share:.1f} % (median of {agreement.pixels} common pixels)"
        )
    parts += [f"{pair.name}: {'; '.join((pair.message, *pair.notes))}" for pair in report.pairs if pair.verdict != "off"]
    parts += [line for pair in report.pairs if pair.verdict == "off" for line in _warning(pair)]
    parts += [f"Note: {note}." for note in report.notes]
    if report.damage:
        parts.append(f"DAMAGED: {report.damage}")
    return "\n".join(parts)


def write_report(checked: Checked, folder: str | Path) -> list[Path]:
    """Write alignment.json, alignment.txt and pictures ``<pair>_<frame>.png`` into a folder; give their paths.

    Raises:
        DataError: a file cannot be written.
    """
    folder = Path(folder)
    paths = [folder / "alignment.json", folder / "alignment.txt"]
    for path, text in zip(paths, (to_json(checked.report), to_text(checked.report)), strict=True):
        write_whole(path, f"{text}\n")
    for pair in checked.report.pairs:
        looks = checked.looks.get(pair.modality, ())
        chosen = np.unique(np.linspace(0, len(looks) - 1, min(PICTURES, len(looks))).round().astype(int))
        for look in (looks[index] for index in chosen):
            path = folder / f"{pair.name}_{look.frame.index:06d}.png"
            write_png(path, overlay(pair, look))
            paths.append(path)
    return paths


def overlay(pair: Pair, look: Look) -> U8:
    """Draw a sensor's outlines over the dimmed image (h, w, 3); where it is off, once more as they would be if corrected."""
    panels = [_panel(look, np.zeros(3), f"{pair.name}, as calibrated")]
    if pair.verdict == "off" and pair.rotation_deg is not None:
        turned = ", ".join(f"{name} {value:+.2f}" for name, value in zip(AXES, pair.rotation_deg, strict=True))
        panels.append(_panel(look, np.array(pair.rotation_deg), f"{pair.name}, turned: {turned} degrees"))
    height, width = panels[0].shape[:2]
    return np.vstack(panels) if width > _WIDE_SHAPE * height else np.hstack(panels)


def _panel(look: Look, rotation_deg: F64, caption: str) -> U8:
    dimmed = (look.image.grey * np.float32(_DIMMED)).astype(np.uint8)
    panel = np.repeat(dimmed[..., None], 3, axis=2)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec(rotation_deg, degrees=True).as_matrix()
    pixels, visible = seen_from(look.image, look.points, turn)
    column, row = np.floor(pixels[:, visible] + 0.5).astype(np.int64)
    height, width = dimmed.shape
    for down, right in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)):  # a small cross
        rows, columns = np.clip(row + down, 0, height - 1), np.clip(column + right, 0, width - 1)
        upright = (look.points.kind[visible] == UPRIGHT)[:, None]
        panel[rows, columns] = np.where(upright, np.array(UPRIGHT_COLOR), np.array(LEVEL_COLOR))
    panel[:20] //= 3
    cv2.putText(panel, caption, (5, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return panel


def _row(pair: Pair) -> tuple[str, ...]:
    axes = [_interval(axis) for axis in pair.axes] or ["-"] * 3
    return (
        pair.name,
        pair.verdict.upper() if pair.verdict == "off" else pair.verdict,
        str(pair.frames),
        "-" if pair.coverage is None else f"{100 * pair.coverage:.1f}",
        str(pair.points),
        "-" if pair.score is None else f"{pair.score:.3f}",
        "-" if pair.best_score is None else f"{pair.best_score:.3f}",
        *axes,
    )


def _interval(axis: AxisFit) -> str:
    mark = {"off": " !", "cannot tell": " ?", "fits": ""}[axis.verdict]
    return f"{axis.best_deg:+.2f} [{axis.low_deg:+.2f} {axis.high_deg:+.2f}]{mark}"


def _warning(pair: Pair) -> Sequence[str]:
    lines = [f"WARNING: {pair.name}: {pair.message}."]
    if pair.sensor_rotation_deg is not None:
        own = ", ".join(f"{axis} {value:+.2f}" for axis, value in zip("xyz", pair.sensor_rotation_deg, strict=True))
        lines.append(f"  In the frame {pair.sensor_frame!r}: a rotation vector of {own} degrees about its own place.")
    if pair.correction is not None:
        new = pair.correction
        where = "/tf_static" if new.static else "/tf, as it was first"
        lines.append(f"  Transform to correct: parent {new.parent!r}, child {new.child!r} ({where})")
        lines.append(f"    is        {_numbers(new.translation_m, new.quaternion_xyzw)}")
        lines.append(f"    should be {_numbers(new.new_translation_m, new.new_quaternion_xyzw)}")
    else:
        lines.append(f"  Transform to correct: the one between {pair.reference_frame!r} and {pair.sensor_frame!r}")
    lines += [f"  Note: {note}." for note in pair.notes]
    return lines


def _numbers(translation_m: Sequence[float], quaternion_xyzw: Sequence[float]) -> str:
    place = " ".join(f"{value:.4f}" for value in translation_m)
    turn = " ".join(f"{value:.6f}" for value in quaternion_xyzw)
    return f"x y z {place}  qx qy qz qw {turn}"

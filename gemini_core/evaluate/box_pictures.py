"""Pictures of 3D boxes for people: in the camera's image, and in BEV (from above). All are (H, W, 3) uint8, RGB.

Boxes are those of ``gemini_core/model/detection/boxes.py``, in a base frame with x forward, y left, z up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch

from gemini_core.errors import ShapeError
from gemini_core.evaluate.detection_labels import edges_before_camera
from gemini_core.model.detection.boxes import BOX_SIZE, corners_3d, corners_bev, real_boxes
from gemini_core.render import palette
from gemini_core.rig.geometry import invert_transform
from gemini_core.types import F32, F64, I64, U8, CameraModel

TRUTH_COLOR = (0, 190, 90)
"""Of labelled boxes; no class of boxes has it."""

GROUND_COLOR = (244, 246, 248)
SEEN_COLOR = (255, 255, 255)
POINT_COLOR = (130, 135, 142)
RING_COLOR = (205, 210, 216)
RING_TEXT_COLOR = (120, 126, 134)
TEXT_COLOR = (255, 255, 255)
RING_M = 10.0

_FRACTION_BITS = 4  # of a pixel, in OpenCV's whole coordinates
_FARTHEST_PX = 1e6  # what is farther out of a picture is drawn as if it were here, so that whole numbers can hold it
_STROKE_PX = 400.0  # of a picture's shorter side, for each pixel of an outline


@dataclass(frozen=True, slots=True, eq=False)
class ShownBoxes:
    """Boxes, and how they look: ``boxes`` (N, 7), ``colors`` (N, 3) uint8, ``captions`` (N, "" for none), ``wide`` outlines.

    Boxes that are not real (a size of 0, a number that is none) are not drawn.

    Raises:
        ShapeError: not a colour and a caption for each box.
    """

    boxes: F32
    colors: U8
    captions: tuple[str, ...]
    wide: bool = False

    def __post_init__(self) -> None:
        """Refuse what does not belong together."""
        count = len(self.captions)
        if self.boxes.shape != (count, BOX_SIZE) or self.colors.shape != (count, 3):
            msg = (
                f"shown boxes: expected ({count}, {BOX_SIZE}) boxes and ({count}, 3) colours for {count} captions, got "
                f"{self.boxes.shape} and {self.colors.shape}"
            )
            raise ShapeError(msg)


class Wedge(NamedTuple):
    """What a camera sees of the ground: from (x, y), metres, directions up to ``half_rad`` to both sides of ``middle_rad``."""

    x_m: float
    y_m: float
    middle_rad: float
    half_rad: float


def box_colors(box_classes: Sequence[str], mask_classes: Sequence[str] = ()) -> U8:
    """Give each class of boxes its colour, (K, 3): that of the masks where it is one of their classes as well."""
    of_masks, own = palette(mask_classes), palette(box_classes)
    places = {name: place for place, name in enumerate(mask_classes)}
    rows = [of_masks[places[name]] if name in places else own[index] for index, name in enumerate(box_classes)]
    return np.array(rows, np.uint8).reshape(-1, 3)


def truth_boxes(boxes: F32, color: tuple[int, int, int] = TRUTH_COLOR) -> ShownBoxes:
    """Show labelled boxes (N, 7): wide outlines of one colour, without captions, so that found ones can lie on them."""
    colors = np.tile(np.array(color, np.uint8), (len(boxes), 1))
    return ShownBoxes(boxes, colors, ("",) * len(boxes), wide=True)


def found_boxes(boxes: F32, classes: I64, scores: F32, names: Sequence[str], colors: U8) -> ShownBoxes:
    """Show found boxes (N, 7) in their classes' colours, with name and score.

    Args:
        boxes: (N, 7).
        classes: (N,) indices of ``names``.
        scores: (N,) 0 to 1.
        names: of the K classes.
        colors: (K, 3), such as ``box_colors`` gives.
    """
    captions = tuple(f"{names[index]} {score:.2f}" for index, score in zip(classes.tolist(), scores.tolist(), strict=True))
    return ShownBoxes(boxes, colors[classes].reshape(-1, 3), captions)


def camera_wedge(camera: CameraModel, reference_from_base: F64) -> Wedge:
    """Give what a camera sees of the ground at the height of its image's middle row, distortion left out of account.

    Args:
        camera: its image's size and intrinsics.
        reference_from_base: (4, 4), from the base frame to the camera's optical one.
    """
    base_from_reference = invert_transform(reference_from_base)
    row = ((camera.height - 1) / 2 - camera.cy) / camera.fy
    sides = np.array([[(u - camera.cx) / camera.fx, row, 1.0] for u in (-0.5, camera.width - 0.5)])
    directions = sides @ base_from_reference[:3, :3].T
    left, right = np.arctan2(directions[:, 1], directions[:, 0])
    half = math.remainder(left - right, 2 * math.pi) / 2
    x, y = base_from_reference[:2, 3]
    return Wedge(float(x), float(y), float(right + half), abs(float(half)))


# --------------------------------------------------------------------------------------------------------------------
# In the image


def draw_boxes_in_image(image: U8, shown: Sequence[ShownBoxes], camera: CameraModel, reference_from_base: F64) -> U8:
    """Draw the edges of boxes over an image, far boxes first; a copy.

    Edges are cut off where they come nearer to the camera's plane than ``detection_labels.NEAREST_M``. The camera is taken for
    a pinhole: on a distorted image, boxes are off by the distortion.

    Args:
        image: (H, W, 3).
        shown: boxes, the later ones over the earlier.
        camera: intrinsics of an image of this size.
        reference_from_base: (4, 4), from the boxes' frame to the camera's optical one.
    """
    picture: U8 = np.ascontiguousarray(image).copy()
    for each in shown:
        real = _real(each.boxes)
        corners = corners_3d(torch.from_numpy(each.boxes[real].astype(np.float64))).numpy()
        in_camera = corners @ reference_from_base[:3, :3].T + reference_from_base[:3, 3]
        ends = edges_before_camera(in_camera)
        pixels = ends[..., :2] / ends[..., 2:] * (camera.fx, camera.fy) + (camera.cx, camera.cy)  # (N, 24, 2)
        for row in np.argsort(-in_camera[..., 2].mean(axis=1), kind="stable"):
            which = int(np.flatnonzero(real)[row])
            color = _rgb(each.colors[which])
            before = np.isfinite(pixels[row]).all(axis=1)[:12]
            edges = np.stack([pixels[row, :12], pixels[row, 12:]], axis=1)[before]  # (E, 2 ends, 2)
            for edge in edges:
                _line(picture, edge, color, wide=each.wide)
            if each.captions[which] and len(edges):
                _caption(picture, each.captions[which], edges.reshape(-1, 2), color)
    return picture


def _caption(picture: U8, text: str, places: F64, color: tuple[int, int, int]) -> None:
    """Write at the top left of places (N, 2), within the picture, on a ground of this colour; nothing for places out of it."""
    height, width = picture.shape[:2]
    low, high = places.min(axis=0), places.max(axis=0)
    if (high < 0).any() or low[0] >= width or low[1] >= height:
        return
    scale = max(min(height, width) / 900.0, 0.33)
    (wide, tall), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    left = int(np.clip(low[0], 0, max(width - wide - 4, 0)))
    top = int(np.clip(low[1] - tall - base - 2, 0, max(height - tall - base - 2, 0)))
    cv2.rectangle(picture, (left, top), (left + wide + 3, top + tall + base + 1), color, cv2.FILLED)
    ink = TEXT_COLOR if np.dot(color, (0.299, 0.587, 0.114)) < 150 else (0, 0, 0)  # noqa: PLR2004 - BT.601; the rest is light
    cv2.putText(picture, text, (left + 2, top + tall + 1), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)


# --------------------------------------------------------------------------------------------------------------------
# BEV


def birds_eye(
    points: F32,
    shown: Sequence[ShownBoxes],
    range_m: tuple[float, float, float, float],
    pixels: int,
    wedge: Wedge | None = None,
) -> U8:
    """Draw points and boxes in BEV, x up and y to the left: (pixels, W, 3), W as the range's shape asks for.

    Rings around the base frame's origin are 10 m apart. A line from a box's middle leads to its front.

    Args:
        points: (N, 3) or more columns, x, y first (metres).
        shown: boxes, the later ones over the earlier.
        range_m: x and y from which on, then up to which the picture goes, metres.
        pixels: the picture's height.
        wedge: what the camera sees, which is lighter; None: nothing is said of it.
    """
    above = _Above(range_m, pixels)
    picture = np.full((above.height, above.width, 3), GROUND_COLOR, np.uint8)
    if wedge is not None:
        _draw_wedge(picture, wedge, above)
    _draw_rings(picture, above)
    _draw_points(picture, points, above)
    for each in shown:
        for which in np.flatnonzero(_real(each.boxes)):
            box = each.boxes[which : which + 1].astype(np.float64)
            color = _rgb(each.colors[which])
            corners = corners_bev(torch.from_numpy(box))[0].numpy()  # (4, 2), front left first, front right last
            outline = above.place(corners)
            for start in range(4):
                _line(picture, outline[[start, (start + 1) % 4]], color, wide=each.wide)
            front = (corners[0] + corners[3]) / 2
            _line(picture, above.place(np.stack([box[0, :2], front])), color, wide=each.wide)
    _write_rings(picture, above)
    return picture


class _Above:
    """Places of the ground on a BEV picture."""

    def __init__(self, range_m: tuple[float, float, float, float], pixels: int) -> None:
        self.x_min, self.y_min, self.x_max, self.y_max = range_m
        self.scale = pixels / (self.x_max - self.x_min)  # pixels per metre
        self.height, self.width = pixels, max(round((self.y_max - self.y_min) * self.scale), 1)

    def place(self, xy: F64 | F32) -> F64:
        """Give columns and rows (N, 2), fractions too, of (N, 2) metres; a pixel's centre is a whole number."""
        column = (self.y_max - xy[:, 1].astype(np.float64)) * self.scale - 0.5
        row = (self.x_max - xy[:, 0].astype(np.float64)) * self.scale - 0.5
        return np.stack([column, row], axis=1)

    def rings_m(self) -> list[float]:
        """The rings' radii that reach into the picture."""
        farthest = math.hypot(max(abs(self.x_min), abs(self.x_max)), max(abs(self.y_min), abs(self.y_max)))
        return [RING_M * number for number in range(1, int(farthest / RING_M) + 1)]


def _draw_wedge(picture: U8, wedge: Wedge, above: _Above) -> None:
    reach = math.hypot(above.x_max - above.x_min, above.y_max - above.y_min) + math.hypot(wedge.x_m, wedge.y_m)
    angles = wedge.middle_rad + np.linspace(-wedge.half_rad, wedge.half_rad, 64)
    rim = np.stack([wedge.x_m + reach * np.cos(angles), wedge.y_m + reach * np.sin(angles)], axis=1)
    cv2.fillPoly(
        picture, [_whole(above.place(np.vstack([[wedge.x_m, wedge.y_m], rim])))], SEEN_COLOR, cv2.LINE_AA, _FRACTION_BITS
    )


def _draw_rings(picture: U8, above: _Above) -> None:
    centre = _whole(above.place(np.zeros((1, 2))))[0]
    for radius in above.rings_m():
        size = round(radius * above.scale * (1 << _FRACTION_BITS))
        cv2.circle(picture, (int(centre[0]), int(centre[1])), size, RING_COLOR, 1, cv2.LINE_AA, _FRACTION_BITS)


def _write_rings(picture: U8, above: _Above) -> None:
    """Write each ring's radius where it crosses the x axis, ahead, on top of everything."""
    scale = max(min(picture.shape[:2]) / 1100.0, 0.33)
    for radius in above.rings_m():
        column, row = np.rint(above.place(np.array([[radius, 0.0]]))[0]).astype(int)
        text = f"{radius:.0f} m"
        (_, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        if tall < row < picture.shape[0]:
            place = (int(column) + 3, int(row) - 2)
            cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, RING_TEXT_COLOR, 1, cv2.LINE_AA)


def _draw_points(picture: U8, points: F32, above: _Above) -> None:
    height, width = picture.shape[:2]
    finite = points[np.isfinite(points[:, :2]).all(axis=1)]
    column, row = np.floor(above.place(finite[:, :2]) + 0.5).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    picture[row[inside].astype(np.int64), column[inside].astype(np.int64)] = POINT_COLOR


# --------------------------------------------------------------------------------------------------------------------
# Lines


def _line(picture: U8, ends: F64, color: tuple[int, int, int], *, wide: bool) -> None:
    """Draw a line between two ends (2, 2) of pixels."""
    thin = max(round(min(picture.shape[:2]) / _STROKE_PX), 1)
    one, two = _whole(ends).tolist()
    cv2.line(picture, one, two, color, thin + 1 if wide else thin, cv2.LINE_AA, _FRACTION_BITS)


def _whole(places: F64) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    """Pixels (N, 2) as OpenCV takes them, with bits for fractions."""
    return np.rint(np.clip(places, -_FARTHEST_PX, _FARTHEST_PX) * (1 << _FRACTION_BITS)).astype(np.int32)


def _real(boxes: F32) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    found: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = real_boxes(torch.from_numpy(boxes.astype(np.float32))).numpy()
    return found


def _rgb(color: U8) -> tuple[int, int, int]:
    red, green, blue = color.tolist()
    return red, green, blue

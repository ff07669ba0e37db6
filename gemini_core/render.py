"""Pictures for people: masks, aligned grids, and how well they lie on each other. All are (H, W, 3) uint8, RGB."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

from gemini_core.types import F32, U8, UNLABELLED, AlignedGrid, AlignedGrids, Bool, Perception

CLASS_COLORS = {
    "road": (128, 64, 128),
    "lane_marking": (255, 255, 255),
    "ground": (152, 140, 90),
    "building": (110, 110, 118),
    "pole": (240, 200, 60),
    "tree": (60, 140, 40),
    "car": (30, 60, 200),
    "pedestrian": (230, 40, 60),
    "sky": (120, 185, 230),
    "sidewalk": (230, 120, 215),
    "truck": (70, 200, 205),
    "two_wheeler": (120, 20, 60),
    "traffic_sign": (255, 225, 0),
    "wall": (205, 170, 140),
    "floor": (95, 75, 55),
    "ceiling": (195, 195, 215),
    "door": (245, 130, 30),
    "table": (35, 120, 120),
    "chair": (140, 215, 60),
    "cabinet": (110, 60, 150),
}
GOLDEN_ANGLE = 0.618033988749895  # of a turn: hues that never come close to each other soon

DARKER_COLOR = (215, 40, 40)
BRIGHTER_COLOR = (40, 80, 220)
BOTH_COLOR = (150, 40, 150)
NO_DATA_COLOR = (24, 24, 28)
EDGE_COLOR = (255, 255, 255)
TEXT_COLOR = (255, 255, 255)

EDGE_THRESHOLDS = (60, 140)  # Canny's, for 8-bit images of streets
WIDE_SHAPE = 2.0  # panels wider than this many times their height stand below each other
LIDAR_POINT_PX = 3


def palette(class_names: Sequence[str]) -> U8:
    """Give a colour for every value of a mask, (256, 3); the same names always get the same colours.

    Known classes have their own colour, others get hues a golden angle apart; values without a class are black.
    """
    colors = np.zeros((256, 3), dtype=np.uint8)
    for index, name in enumerate(class_names):
        if name in CLASS_COLORS:
            colors[index] = CLASS_COLORS[name]
            continue
        hue, ring = (index * GOLDEN_ANGLE) % 1.0, index % 3
        red, green, blue = colorsys.hsv_to_rgb(hue, (0.85, 0.55, 0.95)[ring], (0.95, 0.85, 0.6)[ring])
        colors[index] = round(red * 255), round(green * 255), round(blue * 255)
    return colors


def mask_image(mask: U8, class_names: Sequence[str]) -> U8:
    """Paint a mask (H, W) in the classes' colours; undecided pixels are black."""
    picture: U8 = palette(class_names)[mask]
    return picture


def overlay(perception: Perception, alpha: float) -> U8:
    """Lay the mask's colours over its image with weight ``alpha``; undecided pixels stay as they are."""
    mask, image = perception.mask, perception.image
    colors = mask_image(mask, perception.class_names)
    mixed = cv2.addWeighted(image, 1.0 - alpha, colors, alpha, 0.0)
    return np.where((mask == UNLABELLED)[..., None], image, mixed)


def depth_image(depth_m: F32, valid: Bool, max_m: float | None = None) -> U8:
    """Paint depths (H, W) in metres, red near and blue far (logarithmic); dark where ``valid`` is False.

    ``max_m`` is where the colours end; None: the 98th percentile of the valid depths.
    """
    if not valid.any():
        return np.full((*depth_m.shape, 3), NO_DATA_COLOR, dtype=np.uint8)
    values = depth_m[valid]
    near, far = float(np.percentile(values, 2)), float(np.percentile(values, 98)) if max_m is None else max_m
    near = max(min(near, 0.9 * far), 1e-3)
    share = np.log(np.where(valid, np.maximum(depth_m, near), near) / near) / np.log(max(far / near, 1.001))
    levels = (255 * (1.0 - np.clip(share, 0.0, 1.0))).astype(np.uint8)
    colors = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    return np.where(valid[..., None], colors, np.array(NO_DATA_COLOR, np.uint8))


def points_image(background: U8, depth_m: F32, valid: Bool, size_px: int = LIDAR_POINT_PX) -> U8:
    """Draw LiDAR points as squares of ``size_px``, coloured by depth and near before far, over a grey, dimmed background.

    Shapes: background (H, W, 3), depth_m and valid (H, W).
    """
    kernel = np.ones((size_px, size_px), np.uint8)
    nothing = np.finfo(np.float32).max  # what OpenCV itself takes for the pixels outside the picture
    # the smallest depth in a pixel's neighbourhood is the nearest point that covers it
    nearest = cv2.erode(np.where(valid, depth_m, nothing).astype(np.float32), kernel)
    covered = nearest < nothing
    grey = cv2.cvtColor(cv2.cvtColor(background, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) // 2
    return np.where(covered[..., None], depth_image(np.where(covered, nearest, np.float32(0)), covered), grey)


def event_image(darker: Bool, brighter: Bool) -> U8:
    """Paint events (H, W) on white: red where it got darker, blue where brighter, purple where both."""
    picture = np.full((*darker.shape, 3), 255, dtype=np.uint8)
    picture[darker] = DARKER_COLOR
    picture[brighter] = BRIGHTER_COLOR
    picture[darker & brighter] = BOTH_COLOR
    return picture


def rgb_image(grid: AlignedGrid) -> U8:
    """Give the colour image back as the network's pixels show it."""
    return np.ascontiguousarray(np.rint(grid.channels.transpose(1, 2, 0) * 255.0).astype(np.uint8))  # (3, h, w) -> (h, w, 3)


def grid_image(grids: AlignedGrids, grid: AlignedGrid) -> U8:
    """Paint one aligned grid in the way that suits its sensor, (h, w, 3)."""
    if grid.modality == "rgb":
        return rgb_image(grid)
    if grid.modality == "event":
        return event_image(*_polarities(grid))
    depth_m = np.zeros(grid.valid.shape, np.float32) if grid.depth_m is None else grid.depth_m
    if grid.modality == "lidar":
        rgb = grids.grid("rgb")
        background = np.zeros((*grid.valid.shape, 3), np.uint8) if rgb is None else rgb_image(rgb)
        return points_image(background, depth_m, grid.valid)
    return depth_image(depth_m, grid.valid)


def _polarities(grid: AlignedGrid) -> tuple[Bool, Bool]:
    """Find where an event grid shows something darker and something brighter.

    A polarity image has nothing in its second channel; a voxel grid has 0.5 wherever nothing happened.
    """
    red, *others = grid.channels
    if len(others) == 2 and not others[0].any():  # noqa: PLR2004 - red, green, blue
        return red > 0, others[1] > 0
    happened = np.where(grid.valid, grid.channels - np.float32(0.5), np.float32(0.0))
    return (happened < 0).any(axis=0), (happened > 0).any(axis=0)


def alignment(grids: AlignedGrids) -> U8:
    """Show how well the sensors lie on each other: one panel per configured modality, with the colour image's edges drawn over.

    Each panel says which share of the pixels its sensor covers, or why it is missing. Panels have the grid's size and
    stand two in a row, wide ones below each other.
    """
    rgb = grids.grid("rgb")
    shape = (grids.geometry.height, grids.geometry.width)
    edges = np.zeros(shape, np.bool_) if rgb is None else _edges(rgb_image(rgb))
    panels = []
    for status in grids.status:
        grid = grids.grid(status.modality)
        if grid is None:
            panel = np.full((*shape, 3), NO_DATA_COLOR, dtype=np.uint8)
            caption = f"{status.modality}: missing ({status.reason.replace('_', ' ')})"
        else:
            panel = grid_image(grids, grid)
            if grid.modality != "rgb":
                panel[edges] = EDGE_COLOR if grid.modality != "event" else (90, 90, 90)
            caption = f"{status.modality}: {100 * grid.coverage:.1f} % of pixels"
        panels.append(_captioned(panel, caption))
    columns = 1 if shape[1] > WIDE_SHAPE * shape[0] or len(panels) == 1 else 2
    while len(panels) % columns:
        panels.append(np.full((*shape, 3), NO_DATA_COLOR, dtype=np.uint8))
    rows = [np.hstack(panels[start : start + columns]) for start in range(0, len(panels), columns)]
    return np.ascontiguousarray(np.vstack(rows))


def _edges(image: U8) -> Bool:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    edges: Bool = cv2.Canny(grey, *EDGE_THRESHOLDS) > 0
    return edges


def _captioned(panel: U8, text: str) -> U8:
    """Write text on a dark band at the panel's top left; the panel itself is changed."""
    scale = max(panel.shape[0] / 960.0, 0.4)
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    band = panel[: height + base + 6, : width + 10]
    band //= 4
    cv2.putText(panel, text, (5, height + 3), cv2.FONT_HERSHEY_SIMPLEX, scale, TEXT_COLOR, 1, cv2.LINE_AA)
    return panel

"""Augmentation of a frame. Geometry moves all modalities and the label together; photometry is each sensor's own.

All randomness comes from the generator that the caller gives, so a frame's augmentation depends on nothing but its seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from gemini_core.types import F32, MODALITIES, U8, UNLABELLED
from training.config import AugmentConfig
from training.points_and_boxes import PointsAndBoxes, PointSet

Frame: TypeAlias = dict[str, F32]
"""Channels (3, h, w) float32 in [0, 1] of each modality that the frame has."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

Plane: TypeAlias = npt.NDArray[Any]


def augment(  # noqa: PLR0917 - what is augmented, and how
    frame: Frame,
    label: U8,
    config: AugmentConfig,
    rng: np.random.Generator,
    points_and_boxes: PointsAndBoxes | None = None,
    focus: Sequence[int] = (),
) -> tuple[Frame, U8, PointsAndBoxes | None]:
    """Mirror, scale, crop, and disturb each sensor.

    Args:
        frame: (3, h, w) per modality.
        label: (h, w).
        config: what may happen, and how much.
        rng: this frame's own random numbers; equally many are drawn whatever the frame holds.
        points_and_boxes: of the frame. They are mirrored with the image, and turned and scaled by themselves; each point stays
            with its pixel, or loses it where the crop leaves it out.
        focus: values of the label that ``augment.focus`` places crops around; none: all but ``UNLABELLED``.

    Returns:
        The same at the size of the crop; ``UNLABELLED`` and zeros where the crop reaches beyond the frame.
    """
    geometry = _draw_geometry(label, config, rng, focus)
    seeds = dict(zip(MODALITIES, rng.integers(1 << 62, size=len(MODALITIES)), strict=True))
    color = cv2.INTER_AREA if geometry.size < label.shape else cv2.INTER_LINEAR
    moved = {}
    for modality, channels in frame.items():
        # The others hold measurements, between which there may be nothing.
        interpolation = color if modality == "rgb" else cv2.INTER_NEAREST_EXACT
        planes = np.stack([geometry.move(plane, interpolation, 0.0) for plane in channels])
        moved[modality] = _disturbed(modality, planes, config, np.random.default_rng(seeds[modality]))
    if points_and_boxes is not None:
        points_and_boxes = _moved(points_and_boxes, (label.shape[0], label.shape[1]), geometry, config, rng)
    return moved, geometry.move(label, cv2.INTER_NEAREST_EXACT, UNLABELLED), points_and_boxes


def _moved(
    moved: PointsAndBoxes, shape: tuple[int, int], geometry: _Geometry, config: AugmentConfig, rng: np.random.Generator
) -> PointsAndBoxes:
    """Do to points and boxes what was done to the image of this shape, then what is theirs alone."""
    if geometry.flip:
        moved = moved.mirrored(shape[1])
    angle, factor = (rng.uniform(-most, most) for most in (np.radians(config.turn_deg), config.stretch))
    moved = moved.turned(float(angle), float(1.0 + factor))
    lost = rng.uniform(0.0, config.drop_points)
    points = {}
    for source, own in moved.points.items():
        pixels = geometry.move_pixels(own.pixels, shape)
        height, width = geometry.crop
        in_crop = ((pixels > -0.5) & (pixels < np.array([width - 0.5, height - 0.5]))).all(axis=1)  # noqa: PLR2004 - half a pixel
        left = rng.random(len(pixels), np.float32) >= lost if lost and source == "lidar" else np.ones(len(pixels), np.bool_)
        points[source] = PointSet(own.values, pixels, own.visible & in_crop).take(left)
    return replace(moved, points=points)


@dataclass(frozen=True, slots=True)
class _Geometry:
    """One frame's way: mirrored, brought to ``size``, and cut from ``start`` in the scaled frame to ``to`` in the crop."""

    flip: bool
    size: tuple[int, int]
    crop: tuple[int, int]
    start: tuple[int, int]
    to: tuple[int, int]

    def move(self, plane: Plane, interpolation: int, outside: float) -> Plane:
        """Move one (h, w) plane; ``outside`` is what lies beyond the frame."""
        if self.flip:
            plane = plane[:, ::-1]
        if plane.shape != self.size:
            plane = cv2.resize(np.ascontiguousarray(plane), self.size[::-1], interpolation=interpolation)
        rows, columns = (
            min(crop - to, size - start)
            for crop, to, size, start in zip(self.crop, self.to, self.size, self.start, strict=True)
        )
        moved = np.full(self.crop, outside, plane.dtype)
        (y, x), (from_y, from_x) = self.to, self.start
        moved[y : y + rows, x : x + columns] = plane[from_y : from_y + rows, from_x : from_x + columns]
        return moved

    def move_pixels(self, pixels: F32, shape: tuple[int, int]) -> F32:
        """Move places (N, 2) u, v on a mirrored (where it is) frame of this shape (h, w) as ``move`` moves what is there."""
        factor = np.array([self.size[1] / shape[1], self.size[0] / shape[0]], np.float32)
        shift = np.array([self.to[1] - self.start[1], self.to[0] - self.start[0]], np.float32)
        moved: F32 = (pixels + np.float32(0.5)) * factor - np.float32(0.5) + shift
        return moved


def _draw_geometry(label: U8, config: AugmentConfig, rng: np.random.Generator, focus: Sequence[int]) -> _Geometry:
    flip = bool(rng.random() < config.flip)
    scale = float(np.exp(rng.uniform(np.log(config.scale_min), np.log(config.scale_max))))
    height, width = label.shape
    size = (max(round(height * scale), 1), max(round(width * scale), 1))
    crop = (config.crop_height or height, config.crop_width or width)
    free = [have - want for have, want in zip(size, crop, strict=True)]
    shares = rng.random(2)
    places = [round(share * abs(room)) for share, room in zip(shares, free, strict=True)]
    if config.focus:
        wanted, of_classes, of_pixels = rng.random(3)
        pixel = _pixel_of_a_class(label[:, ::-1] if flip else label, focus, of_classes, of_pixels)
        if wanted < config.focus and pixel is not None:
            # Anywhere in the middle half of the crop, so that being in the middle says nothing about a pixel.
            from_start = [(0.25 + 0.5 * share) * want for share, want in zip(shares, crop, strict=True)]
            starts = [round((at + 0.5) * scale - start) for at, start in zip(pixel, from_start, strict=True)]
            places = [
                min(max(at, 0), room) if room >= 0 else place for at, room, place in zip(starts, free, places, strict=True)
            ]
    # A frame larger than the crop is cut anywhere; one that is smaller lies anywhere in it.
    start = tuple(at if room >= 0 else 0 for at, room in zip(places, free, strict=True))
    to = tuple(at if room < 0 else 0 for at, room in zip(places, free, strict=True))
    return _Geometry(flip, size, crop, (start[0], start[1]), (to[0], to[1]))


def _pixel_of_a_class(label: U8, values: Sequence[int], of_classes: float, of_pixels: float) -> tuple[int, int] | None:
    """Give row and column of a pixel of one of these values of a label, each value there as likely; None: there is none.

    ``of_classes`` and ``of_pixels``, in 0 to 1, choose among values and among pixels.
    """
    there = np.bincount(label.ravel(), minlength=UNLABELLED + 1) > 0
    there[UNLABELLED] = False
    if values:
        asked = np.zeros_like(there)
        asked[list(values)] = True
        there &= asked
    found = np.flatnonzero(there)
    if not len(found):
        return None
    pixels = np.flatnonzero(label.ravel() == found[int(of_classes * len(found))])
    row, column = divmod(int(pixels[int(of_pixels * len(pixels))]), label.shape[1])
    return row, column


def _disturbed(modality: str, channels: F32, config: AugmentConfig, rng: np.random.Generator) -> F32:
    if modality == "rgb":
        return _photographed(channels, config, rng)
    error = np.float32(1.0 + rng.uniform(-config.noise, config.noise))
    lost = rng.uniform(0.0, config.drop_points) if config.drop_points else 0.0
    if modality == "depth":
        nearer: F32 = np.minimum(channels * error, np.float32(1.0))
        return nearer
    if lost:
        channels = channels * (rng.random(channels.shape[1:], np.float32) >= lost)
    if modality == "lidar":
        channels = np.concatenate([np.minimum(channels[:1] * error, np.float32(1.0)), channels[1:]])
    return channels


def _photographed(channels: F32, config: AugmentConfig, rng: np.random.Generator) -> F32:
    """Change brightness, contrast and saturation by up to ``color_jitter``, and blur some frames."""
    brightness, contrast, saturation = (np.float32(1.0 + rng.uniform(-1, 1) * config.color_jitter) for _ in range(3))
    blurred, sigma = rng.random() < config.blur, rng.uniform(0.3, 1.5)
    if config.color_jitter:
        grey = np.tensordot(_LUMA, channels, 1)[None]  # (1, h, w)
        channels = grey + saturation * (channels - grey)
        mean = channels.mean(dtype=np.float32)
        channels = np.clip(brightness * (mean + contrast * (channels - mean)), np.float32(0.0), np.float32(1.0))
    if blurred:
        channels = np.stack([cv2.GaussianBlur(plane, (0, 0), sigma) for plane in channels])
    return channels

"""Events that a renderer has drawn, as sensor_msgs/Image: of each only its pixel and polarity are left."""

from __future__ import annotations

import numpy as np

from gemini_core.decode.event_reading import EventReading, SensorEvents
from gemini_core.decode.image import Image, decode_color
from gemini_core.types import U8, Bool

_CLEAR = 32
"""Levels of 255 by which a pixel has to differ to be an event."""


def read_event_image(message: Image, topic: str) -> EventReading:
    """Read an image in any colour or grey encoding.

    The background is the most frequent value of each channel. A pixel that differs from it is

    * darker where its red exceeds its green, brighter where its blue does; both, so two events, where both do (as
      event_camera_renderer draws: brighter blue, darker red, on black);
    * brighter where its green exceeds red and blue;
    * else, without a colour (mono8 on a grey background), brighter where it is lighter than the background.

    Each becomes an event one nanosecond before the image's stamp, so that the window that ends at the stamp holds them all,
    and the image settles that window. How the renderer's events lay in time is lost: they fill one bin of a voxel grid.

    Raises:
        DecodeError: as ``decode_color`` does.
    """
    image = decode_color(message, topic)
    darker, brighter = _polarities(image.pixels)
    height, width = darker.shape
    rows, columns = (np.concatenate(pair) for pair in zip(np.nonzero(darker), np.nonzero(brighter), strict=True))
    polarity = np.ones(rows.size, np.uint8)
    polarity[: np.count_nonzero(darker)] = 0
    events = SensorEvents(
        x=columns.astype(np.uint16),
        y=rows.astype(np.uint16),
        polarity=polarity,
        time_ns=np.full(rows.size, image.stamp_ns - 1, np.int64),
        last_ns=image.stamp_ns,
    )
    return EventReading(image.stamp_ns, image.frame_id, width, height, events, on_ros_clock=True)


def _polarities(pixels: U8) -> tuple[Bool, Bool]:
    """Which pixels (H, W) of an image (H, W, 3) got darker and which brighter."""
    background = [np.bincount(pixels[..., channel].reshape(-1), minlength=256).argmax() for channel in range(3)]
    away = pixels.astype(np.int16) - np.array(background, np.int16)
    differs = np.abs(away).max(axis=2) > _CLEAR
    red, green, blue = (pixels[..., channel].astype(np.int16) for channel in range(3))
    darker: Bool = differs & (red - green > _CLEAR)
    brighter: Bool = differs & (blue - green > _CLEAR)
    plain = differs & ~darker & ~brighter
    lighter = (green - np.maximum(red, blue) > _CLEAR) | (away.sum(axis=2) > 0)
    return darker | (plain & ~lighter), brighter | (plain & lighter)

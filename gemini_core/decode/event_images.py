"""Events that a renderer has drawn, as sensor_msgs/Image: of each only its pixel and polarity are left."""

from __future__ import annotations

import numpy as np

from gemini_core.compiling import compiled
from gemini_core.decode.event_reading import EventReading, SensorEvents
from gemini_core.decode.image import Image, decode_color
from gemini_core.errors import DecodeError
from gemini_core.types import U8

_LARGEST_SIZE = 1 << 16  # columns and rows that uint16 can address
_CLEAR = 32  # levels of 255 by which a pixel has to differ to be an event
_DARKER, _BRIGHTER = np.uint8(1), np.uint8(2)


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
        DecodeError: as ``decode_color`` does, or more columns or rows than an event can name.
    """
    image = decode_color(message, topic)
    height, width = image.pixels.shape[:2]
    if max(width, height) > _LARGEST_SIZE:
        msg = f"expected at most {_LARGEST_SIZE} x {_LARGEST_SIZE} pixels of events on topic {topic!r}, got {width} x {height}"
        raise DecodeError(reason="wrong_size", message=msg)
    marks = np.empty((height, width), np.uint8)
    _mark(np.ascontiguousarray(image.pixels), marks)
    darker, brighter = np.flatnonzero(marks & _DARKER), np.flatnonzero(marks & _BRIGHTER)
    rows, columns = np.divmod(np.concatenate([darker, brighter]), width)
    polarity = np.ones(rows.size, np.uint8)
    polarity[: darker.size] = 0
    events = SensorEvents(
        x=columns.astype(np.uint16),
        y=rows.astype(np.uint16),
        polarity=polarity,
        time_ns=np.full(rows.size, image.stamp_ns - 1, np.int64),
        last_ns=image.stamp_ns,
    )
    return EventReading(image.stamp_ns, image.frame_id, width, height, events, on_ros_clock=True)


@compiled("void(Array(uint8, 3, 'C', readonly=True, aligned=False), uint8[:, ::1])")
def _mark(pixels: U8, marks: U8) -> None:
    """Mark (H, W) which pixels of an image (H, W, 3) got darker, brighter, or both."""
    counts = np.zeros((3, 256), np.int64)
    height, width = marks.shape
    for row in range(height):
        for column in range(width):
            for channel in range(3):
                counts[channel, pixels[row, column, channel]] += 1
    background = np.array([counts[0].argmax(), counts[1].argmax(), counts[2].argmax()])
    for row in range(height):
        for column in range(width):
            red, green = np.int64(pixels[row, column, 0]), np.int64(pixels[row, column, 1])
            blue = np.int64(pixels[row, column, 2])
            away_red, away_green, away_blue = red - background[0], green - background[1], blue - background[2]
            mark = np.uint8(0)
            if max(abs(away_red), abs(away_green), abs(away_blue)) > _CLEAR:
                if red - green > _CLEAR:
                    mark |= _DARKER
                if blue - green > _CLEAR:
                    mark |= _BRIGHTER
                if mark == 0:
                    lighter = green - max(red, blue) > _CLEAR or away_red + away_green + away_blue > 0
                    mark = _BRIGHTER if lighter else _DARKER
            marks[row, column] = mark

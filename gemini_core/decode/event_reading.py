"""Decoded events before their times are on the ROS clock: what every kind of event message is read to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from gemini_core.types import I64, U8, U16

NO_TIME = int(np.iinfo(np.int64).min)
"""Says that a packet tells no time."""


@dataclass(frozen=True, slots=True, eq=False)
class SensorEvents:
    """Events of one packet, on the clock of whoever wrote it.

    ``x``, ``y`` (N,) uint16, ``polarity`` (N,) uint8, ``time_ns`` (N,) int64, which its reader may still change in place;
    ``last_ns``: the latest time that the packet knows of, None where it knows none; how many events were left out because they
    lie ``outside`` the sensor, or because their time or place is ``unknown``.
    """

    x: U16
    y: U16
    polarity: U8
    time_ns: I64
    last_ns: int | None
    outside: int = 0
    unknown: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class EventReading:
    """One message with events; ``width`` and ``height`` are 0 where it does not tell the sensor's size.

    ``on_ros_clock``: the times are those of the ROS clock already; else of the sensor's own.
    """

    stamp_ns: int
    frame_id: str
    width: int
    height: int
    events: SensorEvents
    on_ros_clock: bool


class Codec(ABC):
    """One encoding of EventPacket, with what it knows from the packets before."""

    dtype: ClassVar[np.dtype[Any]]
    """The words that the bytes are made of."""
    addressable: ClassVar[int]
    """Columns and rows that its words can address."""
    event_bytes: ClassVar[int] = 0
    """Bytes of an event where that is more than a word."""

    def skip(self) -> None:  # noqa: B027 - most remember nothing
        """Packets are missing: forget what they may have changed."""

    @abstractmethod
    def read(self, words: npt.NDArray[Any], width: int, height: int, time_base_ns: int) -> SensorEvents:
        """Read the words (N,) of the next packet of a sensor of ``width`` x ``height``, no larger than ``addressable``."""


def sensor_events(  # noqa: PLR0917 - as a kernel gives them back
    x: U16, y: U16, polarity: U8, time_ns: I64, count: int, last_ns: int, outside: int, unknown: int
) -> SensorEvents:
    """Cut what a kernel wrote to the ``count`` events that there are; ``last_ns`` NO_TIME: none."""
    last = None if last_ns == NO_TIME else last_ns
    return SensorEvents(x[:count], y[:count], polarity[:count], time_ns[:count], last, outside, unknown)

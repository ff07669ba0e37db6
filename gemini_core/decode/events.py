"""Event decoding: messages of one topic, of whichever type is configured, to event samples on the ROS clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from gemini_core.config.sections import EVENT_TYPES
from gemini_core.decode.event_arrays import read_event_array
from gemini_core.decode.event_clouds import read_event_cloud
from gemini_core.decode.event_images import read_event_image
from gemini_core.decode.event_packets import PacketReader
from gemini_core.decode.event_reading import EventReading, SensorEvents
from gemini_core.decode.sensor_clock import ClockState, SensorClock
from gemini_core.errors import DecodeError
from gemini_core.types import Count, EventSample

_LONGEST_PACKET_NS = 2_000_000_000


class EventDecoder:
    """The decoder of one event camera's topic; its state runs on from message to message.

    Events are left out, and counted, where they lie outside the sensor or where packets were lost and their time or place is
    not known any more. Sensor time becomes ROS time by ``SensorClock``. Where times leap to more than ``longest_packet_ns``
    after the stamp (the sensor began anew, a word was damaged), those events are dropped and what is known is forgotten, both
    counted: such a packet would seem to cover all the time up to there.

    Args:
        event_type: which of ``EVENT_TYPES`` the messages are; others are refused.
        longest_packet_ns: how far after its stamp a packet's events may lie.
    """

    def __init__(self, event_type: str = "event_camera_msgs/EventPacket", longest_packet_ns: int = _LONGEST_PACKET_NS) -> None:
        self._event_type = event_type
        self._longest_packet_ns = longest_packet_ns
        self._counts: Counter[str] = Counter()
        self._clock = SensorClock()
        self._packets = PacketReader(self._counts)

    def reset(self) -> None:
        """Forget all messages, as after a jump of the clock; counts stay."""
        self._packets.reset()
        self._clock.forget()

    def counts(self) -> tuple[Count, ...]:
        """Events, dropped events, lost packets and clock steps since the start."""
        counts = self._counts + Counter({"clock_steps": self._clock.steps})
        return tuple(Count(f"event.packets.{what}", number) for what, number in sorted(counts.items()))

    def clock(self) -> ClockState | None:
        """How the sensor's clock goes against the ROS clock; None where the events are on the ROS clock, or none came yet."""
        return self._clock.state()

    def decode(self, message: Any, topic: str) -> EventSample:  # noqa: ANN401 - a message of any client library, or RawMessage
        """Read the next message; one without events still tells how far time has come.

        ``end_ns`` is the last time known in the message, which may lie before a late stamp; without events at least its stamp.

        Raises:
            DecodeError: a message of another kind, or what the reader of this kind says; the message is then a lost one.
        """
        reading = self._read(message, topic)
        events, stamp = reading.events, reading.stamp_ns
        self._count("dropped.outside_sensor", events.outside)
        self._count("dropped.unsynchronized", events.unknown)
        if not reading.on_ros_clock:
            events = self._on_ros_clock(events, stamp)
        end = _end_ns(events, stamp)
        if end - stamp > self._longest_packet_ns:
            events = self._without_leap(events, stamp)
            end = _end_ns(events, stamp)
        self._count("events", events.time_ns.size)
        return EventSample(
            stamp_ns=stamp,
            frame_id=reading.frame_id,
            width=reading.width,
            height=reading.height,
            x=events.x,
            y=events.y,
            polarity=events.polarity,
            time_ns=events.time_ns,
            end_ns=end,
        )

    def _read(self, message: Any, topic: str) -> EventReading:  # noqa: ANN401 - as above
        match self._event_type:
            case "event_camera_msgs/EventPacket":
                return self._packets.read(message, topic)
            case "dvs_msgs/EventArray" | "prophesee_event_msgs/EventArray":
                return read_event_array(message, topic)
            case "sensor_msgs/PointCloud2":
                return read_event_cloud(message, topic)
            case "sensor_msgs/Image":
                return read_event_image(message, topic)
        msg = f"expected one of {', '.join(EVENT_TYPES)} on topic {topic!r}, got {self._event_type}"
        raise DecodeError(reason="wrong_type", message=msg)

    def _on_ros_clock(self, events: SensorEvents, stamp_ns: int) -> SensorEvents:
        if events.time_ns.size:
            self._clock.observe(int(events.time_ns[0]), stamp_ns)
        offset_ns = self._clock.offset_ns
        if offset_ns is None or events.last_ns is None:
            return replace(events, last_ns=None)
        time_ns = events.time_ns
        time_ns += offset_ns
        self._clock.reached(events.last_ns)
        return replace(events, last_ns=events.last_ns + offset_ns)

    def _without_leap(self, events: SensorEvents, stamp_ns: int) -> SensorEvents:
        kept = events.time_ns <= stamp_ns + self._longest_packet_ns
        self._packets.forget()
        self._clock.forget()
        self._count("time_jumps", 1)
        self._count("dropped.time_jump", int(kept.size - kept.sum()))
        time_ns = events.time_ns[kept]
        last_ns = int(time_ns.max()) if time_ns.size else None
        return SensorEvents(events.x[kept], events.y[kept], events.polarity[kept], time_ns, last_ns)

    def _count(self, what: str, number: int) -> None:
        if number:
            self._counts[what] += number


def _end_ns(events: SensorEvents, stamp_ns: int) -> int:
    """Up to when time has passed; the stamp of a packet with events says when it was sent, not that all up to it is there."""
    if events.last_ns is None:
        return stamp_ns
    return events.last_ns if events.time_ns.size else max(stamp_ns, events.last_ns)

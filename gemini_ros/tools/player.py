"""The player: publishes a bag's messages on a live ROS graph, at their own rate and, if asked, with stamps of now."""

from __future__ import annotations

import argparse
import json
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import rclpy
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from gemini_core.bag.messages import typestore
from gemini_core.bag.reader import BagReader
from gemini_core.errors import BagError, nearest_names
from gemini_core.files import write_whole
from gemini_ros.launching import within
from gemini_ros.message_types import message_class

_TF_TYPE = "tf2_msgs/msg/TFMessage"
_READ_AHEAD = 512  # messages; about two seconds of four sensors
_LEAD_NS = 500_000_000  # between the static transforms and the first message
_HEADER_STAMP = slice(4, 12)  # behind the 4 bytes of the CDR encapsulation: int32 sec, uint32 nanosec


@dataclass(frozen=True)
class Stored:
    """One serialized message and its log time in the bag."""

    topic: str
    log_ns: int
    data: bytes


def has_header(cls: type[Any]) -> bool:
    """Whether the message starts with a std_msgs/Header."""
    fields = cls.get_fields_and_field_types()
    return next(iter(fields.items()), None) == ("header", "std_msgs/Header")


def shift_header(data: bytes, offset_ns: int) -> bytes:
    """Move the stamp of a serialized message that starts with a Header."""
    order: Literal["little", "big"] = "little" if data[1] & 1 else "big"
    seconds = int.from_bytes(data[4:8], order, signed=True)
    nanoseconds = int.from_bytes(data[8:12], order)
    seconds, nanoseconds = divmod(seconds * 1_000_000_000 + nanoseconds + offset_ns, 1_000_000_000)
    shifted = bytearray(data)
    shifted[_HEADER_STAMP] = seconds.to_bytes(4, order, signed=True) + nanoseconds.to_bytes(4, order)
    return bytes(shifted)


def shift_transforms(data: bytes, offset_ns: int) -> bytes:
    """Move the stamps of a serialized TFMessage."""
    store = typestore()
    message: Any = store.deserialize_cdr(data, _TF_TYPE)
    for transform in message.transforms:
        stamp = transform.header.stamp
        total = stamp.sec * 1_000_000_000 + stamp.nanosec + offset_ns
        stamp.sec, stamp.nanosec = divmod(total, 1_000_000_000)
    return bytes(store.serialize_cdr(message, _TF_TYPE))


class Player:
    """Publishes the topics of one bag.

    Args:
        node: the ROS node to publish from.
        path: the bag.
        exclude: prefixes of topics that are not played, e.g. ``/ground_truth``.
        into: namespace into which topics are played, but for those of transforms; "" for where they were recorded.
    """

    def __init__(self, node: Node, path: Path, exclude: tuple[str, ...] = (), into: str = "") -> None:
        self._node = node
        self._path = path
        with BagReader(path) as bag:
            wanted = [topic for topic in bag.topics() if not (exclude and topic.name.startswith(exclude))]
        topics = [topic for topic in wanted if not topic.problem]
        for topic in wanted:
            if topic.problem:
                node.get_logger().warning(f"{topic.name} is not played: {topic.problem}")
        self.types = {topic.name: topic.type for topic in topics}
        self._classes = {name: message_class(kind) for name, kind in self.types.items()}
        self._publishers: dict[str, Publisher[Any]] = {
            name: node.create_publisher(cls, within(into, name), _qos(name)) for name, cls in self._classes.items()
        }
        self.sent: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.late_ns = 0

    def wait_for_listeners(self, topics: tuple[str, ...], timeout_s: float) -> list[str]:
        """Wait until each of ``topics`` has a subscription; give back those that have none.

        Raises:
            BagError: one of them is not played.
        """
        for name in topics:
            if name not in self._publishers:
                nearest = nearest_names(name, self._publishers)
                msg = f"{self._path}: expected a topic that is played to wait for, got {name} ({nearest})"
                raise BagError(msg)
        deadline = time.monotonic() + timeout_s
        while True:
            deaf = [name for name in topics if not self._publishers[name].get_subscription_count()]
            if not deaf or time.monotonic() > deadline:
                return deaf
            time.sleep(0.05)

    def play(self, rate: float, loops: int, restamp: bool) -> int:
        """Publish everything, in order of log time; gives back how far stamps were moved, in nanoseconds.

        Static transforms go out first, once, so that nobody has to guess where the sensors are.
        """
        with BagReader(self._path) as bag:
            first_ns, last_ns = bag.span_ns
        ahead = self._read_ahead(loops)
        start_ns = time.monotonic_ns() + _LEAD_NS
        offset_ns = time.time_ns() + _LEAD_NS - first_ns if restamp else 0
        loop_ns = last_ns - first_ns + 1_000_000
        for stored in self._stored(static=True):
            self._publish(stored, offset_ns)
        loop = 0
        while (item := ahead.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, int):
                loop = item
                continue
            due_ns = start_ns + int((item.log_ns - first_ns + loop * loop_ns) / rate)
            wait_ns = due_ns - time.monotonic_ns()
            if wait_ns > 0:
                time.sleep(wait_ns / 1e9)
            self.late_ns = max(self.late_ns, -wait_ns)
            self._publish(item, offset_ns + loop * loop_ns if restamp else 0)
        return offset_ns

    def _publish(self, stored: Stored, offset_ns: int) -> None:
        try:
            self._publishers[stored.topic].publish(self._shifted(stored.topic, stored.data, offset_ns))
        except Exception as error:  # noqa: BLE001 - one message that does not go out must not end all others
            if not self.failed[stored.topic]:
                self._node.get_logger().error(f"a message on {stored.topic} cannot be published: {error!r}; others are counted")
            self.failed[stored.topic] += 1
            return
        self.sent[stored.topic] += 1

    def _stored(self, *, static: bool) -> Iterator[Stored]:
        topics = [name for name in self._publishers if (name == "/tf_static") == static]
        if not topics:
            return
        with BagReader(self._path) as bag:
            for message in bag.messages(topics):
                yield Stored(message.topic, message.log_ns, bytes(message.data))

    def _read_ahead(self, loops: int) -> queue.Queue[Stored | int | BaseException | None]:
        """Read on a thread, and some messages before the first is due: unpacking the bag must not make one late.

        The queue gives the number of each loop, then its messages; an exception; and None at the end.
        """
        ahead: queue.Queue[Stored | int | BaseException | None] = queue.Queue(_READ_AHEAD)

        def read() -> None:
            try:
                for loop in range(loops):
                    ahead.put(loop)
                    for stored in self._stored(static=False):
                        ahead.put(stored)
                ahead.put(None)
            except Exception as error:  # noqa: BLE001 - handed to the playing thread, which raises it
                ahead.put(error)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        while reader.is_alive() and not ahead.full():
            time.sleep(0.01)
        return ahead

    def _shifted(self, topic: str, data: bytes, offset_ns: int) -> bytes:
        if offset_ns == 0:
            return data
        if self.types[topic] == _TF_TYPE:
            return shift_transforms(data, offset_ns)
        return shift_header(data, offset_ns) if has_header(self._classes[topic]) else data


def run(options: argparse.Namespace, ros_arguments: list[str]) -> int:
    """Carry out the options of ``play.main``.

    Raises:
        GeminiError: the bag cannot be read or played, or the report not be written.
    """
    rclpy.init(args=ros_arguments, signal_handler_options=rclpy.SignalHandlerOptions.NO)
    node = rclpy.create_node("gemini_bag_play")
    try:
        player = Player(node, options.bag, tuple(options.exclude), options.into)
        if options.wait_for:
            deaf = player.wait_for_listeners(tuple(options.wait_for), options.wait_s)
            if deaf:
                print(f"gemini_bag_play: nobody listens to {', '.join(deaf)} after {options.wait_s:g} s", file=sys.stderr)
                return 3
        offset_ns = player.play(options.rate, options.loop, options.restamp)
        failed = dict(player.failed)
        report = {"offset_ns": offset_ns, "late_ms": player.late_ns / 1e6, "sent": dict(player.sent), "failed": failed}
        if options.report:
            write_whole(options.report, json.dumps(report, indent=1))
        lost = f", {sum(failed.values())} that could not be published" if failed else ""
        print(
            f"played {sum(player.sent.values())} messages on {len(player.sent)} topics{lost}, at most "
            f"{report['late_ms']:.0f} ms late"
        )
        time.sleep(0.5)  # reliable readers may still be fetching the last messages
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _qos(topic: str) -> QoSProfile:
    latched = topic == "/tf_static"
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=100 if topic.startswith("/tf") else 10,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )

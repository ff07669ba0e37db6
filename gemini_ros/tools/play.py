"""Play a bag's messages onto a live ROS graph, at their own rate and, if asked, with stamps of now.

On a full ROS installation ``ros2 bag play`` does this too; this one also works on the PyPI wheels, waits until somebody
listens, can move all stamps to the present (so that a node's "age at publish" is real wall-clock time) and reports what
it sent.
"""

from __future__ import annotations

import argparse
import importlib
import json
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from gemini_core.bag.messages import typestore
from gemini_core.bag.reader import BagReader
from gemini_core.errors import BagError, GeminiError
from gemini_ros.tools.files import write_whole

_TF_TYPE = "tf2_msgs/msg/TFMessage"
_PREFETCH = 256
_HEADER_STAMP = slice(4, 12)  # behind the 4 bytes of the CDR encapsulation: int32 sec, uint32 nanosec


@dataclass(frozen=True)
class Outgoing:
    """One serialized message and the bag time at which it is due."""

    topic: str
    due_ns: int
    data: bytes


def message_class(type_name: str) -> type[Any]:
    """Import the class of a type such as ``sensor_msgs/msg/Image``.

    Raises:
        BagError: the message package is not installed.
    """
    package, _, name = type_name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError):
        msg = f"expected the message type {type_name} to be installed, to play its topic; package {package} lacks it"
        raise BagError(msg) from None


def has_header(cls: type[Any]) -> bool:
    """Whether the message starts with a std_msgs/Header."""
    fields = cls.get_fields_and_field_types()
    return next(iter(fields.items()), None) == ("header", "std_msgs/Header")


def shift_header(data: bytes, offset_ns: int) -> bytes:
    """Move the stamp of a serialized message that starts with a Header."""
    order = "little" if data[1] & 1 else "big"
    seconds = int.from_bytes(data[4:8], order, signed=True)
    nanoseconds = int.from_bytes(data[8:12], order)
    seconds, nanoseconds = divmod(seconds * 1_000_000_000 + nanoseconds + offset_ns, 1_000_000_000)
    shifted = bytearray(data)
    shifted[_HEADER_STAMP] = seconds.to_bytes(4, order, signed=True) + nanoseconds.to_bytes(4, order)
    return bytes(shifted)


def shift_transforms(data: bytes, offset_ns: int) -> bytes:
    """Move the stamps of a serialized TFMessage."""
    store = typestore()
    message = store.deserialize_cdr(data, _TF_TYPE)
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
    """

    def __init__(self, node: Node, path: Path, exclude: tuple[str, ...] = ()) -> None:
        self._path = path
        with BagReader(path) as bag:
            topics = [topic for topic in bag.topics() if not topic.name.startswith(exclude)] if exclude else list(bag.topics())
        self.types = {topic.name: topic.type for topic in topics}
        self._classes = {name: message_class(kind) for name, kind in self.types.items()}
        self._publishers: dict[str, Publisher] = {
            name: node.create_publisher(cls, name, _qos(name)) for name, cls in self._classes.items()
        }
        self.sent: Counter[str] = Counter()
        self.late_ns = 0

    def wait_for_listeners(self, topics: tuple[str, ...], timeout_s: float) -> list[str]:
        """Wait until each of ``topics`` (all played ones when empty) has a subscription; give back those that have none."""
        wanted = topics or tuple(self._publishers)
        deadline = time.monotonic() + timeout_s
        while True:
            deaf = [name for name in wanted if name in self._publishers and not self._publishers[name].get_subscription_count()]
            if not deaf or time.monotonic() > deadline:
                return deaf
            time.sleep(0.05)

    def play(self, rate: float, loops: int, restamp: bool) -> int:
        """Publish everything, in order of log time; gives back how far stamps were moved, in nanoseconds.

        Static transforms go out first, once, so that nobody has to guess where the sensors are.
        """
        first_ns, last_ns = self._span()
        lead_ns = 500_000_000
        start_wall_ns = time.time_ns() + lead_ns
        offset_ns = start_wall_ns - first_ns if restamp else 0
        start_ns = time.monotonic_ns() + lead_ns
        loop_ns = last_ns - first_ns + 1_000_000
        self._play_static(offset_ns)
        for loop in range(loops):
            base_ns = start_ns + int(loop * loop_ns / rate)
            shift_ns = offset_ns + (loop * loop_ns if restamp else 0)
            for outgoing in self._prefetched(shift_ns):
                due_ns = base_ns + int((outgoing.due_ns - first_ns) / rate)
                wait_ns = due_ns - time.monotonic_ns()
                if wait_ns > 0:
                    time.sleep(wait_ns / 1e9)
                else:
                    self.late_ns = max(self.late_ns, -wait_ns)
                self._publishers[outgoing.topic].publish(outgoing.data)
                self.sent[outgoing.topic] += 1
        return offset_ns

    def _span(self) -> tuple[int, int]:
        with BagReader(self._path) as bag:
            times = [message.log_ns for message in bag.messages()]
        if not times:
            msg = f"{self._path}: expected messages to play, got an empty bag"
            raise BagError(msg)
        return min(times), max(times)

    def _play_static(self, offset_ns: int) -> None:
        for outgoing in self._messages(offset_ns, static=True):
            self._publishers[outgoing.topic].publish(outgoing.data)
            self.sent[outgoing.topic] += 1

    def _messages(self, offset_ns: int, *, static: bool) -> Iterator[Outgoing]:
        with BagReader(self._path) as bag:
            for message in bag.messages():
                if message.topic not in self._publishers or (message.topic == "/tf_static") != static:
                    continue
                yield Outgoing(message.topic, message.log_ns, self._shifted(message.topic, bytes(message.data), offset_ns))

    def _shifted(self, topic: str, data: bytes, offset_ns: int) -> bytes:
        if offset_ns == 0:
            return data
        if self.types[topic] == _TF_TYPE:
            return shift_transforms(data, offset_ns)
        return shift_header(data, offset_ns) if has_header(self._classes[topic]) else data

    def _prefetched(self, offset_ns: int) -> Iterator[Outgoing]:
        """Read ahead on a thread: unpacking a chunk of the bag must not delay a message that is due."""
        ahead: queue.Queue[Outgoing | BaseException | None] = queue.Queue(_PREFETCH)

        def read() -> None:
            try:
                for outgoing in self._messages(offset_ns, static=False):
                    ahead.put(outgoing)
                ahead.put(None)
            except Exception as error:  # noqa: BLE001 - handed to the playing thread, which raises it
                ahead.put(error)

        threading.Thread(target=read, daemon=True).start()
        while (item := ahead.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item


def _qos(topic: str) -> QoSProfile:
    latched = topic == "/tf_static"
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=100 if topic.startswith("/tf") else 10,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def main(arguments: list[str] | None = None) -> int:
    """Play a bag; exit code 0 when everything was sent, 2 on wrong input, 3 when nobody listened."""
    parser = argparse.ArgumentParser(prog="gemini_bag_play", description="Play a bag onto a live ROS 2 graph.")
    parser.add_argument("bag", type=Path, help="bag folder or .mcap/.db3 file")
    parser.add_argument("--rate", type=float, default=1.0, help="speed; 0.5 plays at half speed (default 1)")
    parser.add_argument("--loop", type=int, default=1, metavar="N", help="play N times (default 1)")
    parser.add_argument("--restamp", action="store_true", help="move all stamps so that the bag begins now")
    parser.add_argument("--exclude", action="append", default=[], metavar="PREFIX", help="leave out topics that begin so")
    parser.add_argument("--wait-for", action="append", default=[], metavar="TOPIC", help="start when TOPIC has a listener")
    parser.add_argument("--wait-s", type=float, default=30.0, help="longest time to wait for listeners (default 30)")
    parser.add_argument("--report", type=Path, help="write what was sent to this JSON file")
    options, ros_arguments = parser.parse_known_args(arguments)
    if options.rate <= 0 or options.loop < 1:
        print(f"gemini_bag_play: expected a rate above 0 and at least one loop, got {options.rate}, {options.loop}", file=sys.stderr)
        return 2
    rclpy.init(args=ros_arguments)
    node = rclpy.create_node("gemini_bag_play")
    try:
        player = Player(node, options.bag, tuple(options.exclude))
        if options.wait_for:
            deaf = player.wait_for_listeners(tuple(options.wait_for), options.wait_s)
            if deaf:
                print(f"gemini_bag_play: nobody listens to {', '.join(deaf)} after {options.wait_s:g} s", file=sys.stderr)
                return 3
        offset_ns = player.play(options.rate, options.loop, options.restamp)
        report = {"offset_ns": offset_ns, "late_ms": player.late_ns / 1e6, "sent": dict(player.sent)}
        if options.report:
            write_whole(options.report, json.dumps(report, indent=1))
        print(f"played {sum(player.sent.values())} messages on {len(player.sent)} topics, at most {report['late_ms']:.0f} ms late")
        time.sleep(0.5)  # reliable readers may still be fetching the last messages
    except GeminiError as error:
        print(f"gemini_bag_play: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

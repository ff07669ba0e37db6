"""Record topics of a live ROS graph into a bag, as they come (serialized, never unpacked).

On a full ROS installation ``ros2 bag record`` does this too; this one also works on the PyPI wheels.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message

from gemini_core.bag.writer import BagWriter
from gemini_core.errors import GeminiError
from gemini_ros.message_types import message_class


class Recorder:
    """Subscribes to topics as soon as somebody publishes them, with the publisher's own quality of service."""

    def __init__(self, node: Node, writer: BagWriter, topics: tuple[str, ...], *, print_timing: bool = False) -> None:
        self._node = node
        self._writer = writer
        self._wanted = set(topics)
        self._print_timing = print_timing
        self.counts: Counter[str] = Counter()
        self.last_message = time.monotonic()
        node.create_timer(0.1, self._look_for_topics)

    def _look_for_topics(self) -> None:
        for name, types in self._node.get_topic_names_and_types():
            if name in self._wanted and (info := self._node.get_publishers_info_by_topic(name)):
                self._wanted.discard(name)
                self._subscribe(name, types[0], info[0].qos_profile)
                print(f"recording {name} ({types[0]})", flush=True)

    def _subscribe(self, name: str, type_name: str, offered: QoSProfile) -> None:
        reliable = offered.reliability == ReliabilityPolicy.RELIABLE
        latched = offered.durability == DurabilityPolicy.TRANSIENT_LOCAL
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=200,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )

        def receive(data: bytes) -> None:
            self._writer.write_raw(name, type_name, data, time.time_ns())
            self.counts[name] += 1
            self.last_message = time.monotonic()
            if self._print_timing and name.endswith("/timing"):
                print(timing_line(deserialize_message(data, DiagnosticArray)), flush=True)

        self._node.create_subscription(message_class(type_name), name, receive, qos, raw=True)


def timing_line(message: Any) -> str:  # noqa: ANN401 - generated message classes have no useful static type
    """One line for people about one ~/timing message: its status' own sentence."""
    return "; ".join(status.message for status in message.status)


def main(arguments: list[str] | None = None) -> int:
    """Record until SIGINT or SIGTERM; exit code 0 when the bag was written, 2 on wrong input."""
    parser = argparse.ArgumentParser(prog="gemini_bag_record", description="Record topics of a live ROS 2 graph.")
    parser.add_argument("out", type=Path, help="bag folder to write")
    parser.add_argument("topics", nargs="+", help="absolute topic names")
    parser.add_argument("--print-timing", action="store_true", help="print one line per message on a */timing topic")
    options, ros_arguments = parser.parse_known_args(arguments)
    rclpy.init(args=ros_arguments, signal_handler_options=rclpy.SignalHandlerOptions.NO)
    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    node = rclpy.create_node("gemini_bag_record")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        with BagWriter(options.out) as writer:
            recorder = Recorder(node, writer, tuple(options.topics), print_timing=options.print_timing)
            while not stopping:
                executor.spin_once(timeout_sec=0.1)
        print("recorded " + ", ".join(f"{recorder.counts[name]} on {name}" for name in sorted(options.topics)), flush=True)
    except GeminiError as error:
        print(f"gemini_bag_record: {error}", file=sys.stderr)
        return 2
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

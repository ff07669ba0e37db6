"""The order in which the live node works messages off, jumps of the clock, and its worker."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("vision_msgs.msg", reason="needs the ROS message packages")

from geometry_msgs.msg import TransformStamped
from sensor_msgs.msg import Image
from tf2_msgs.msg import TFMessage

from gemini_core.types import MODALITIES, Role
from gemini_ros.ordering import StampOrder
from gemini_ros.worker import Worker
from live_graph import MAKERS, MS, START_NS, header, names, stamp_of, values

pytestmark = pytest.mark.ros


def test_the_clock_may_jump_back(running):
    running.activate(*MODALITIES)
    running.await_masks(running.send(3))
    now = running.stamp_ns
    running.stamp_ns = START_NS - 3_600_000 * MS
    running.await_masks(running.send(3))
    said = values(running.diagnostics()["frames"])
    assert said["resets"] == "1"
    running.stamp_ns = now


def test_a_thread_that_was_held_up_reads_what_waits_before_it_closes_frames(graph):
    graph.start(node__idle_flush_ms=100.0)
    graph.activate(*MODALITIES)
    stamp = graph.stamp_ns = graph.stamp_ns + 100 * MS
    early = [role for role in MAKERS if role.startswith("rgb.")]
    for role in early:
        graph.publishers[role].publish(MAKERS[role](stamp))
    graph.spin_until(lambda: graph.node._session.health.records["rgb.image"].received)
    for role in MAKERS.keys() - early:
        graph.publishers[role].publish(MAKERS[role](stamp))
    time.sleep(0.3)  # the executor stands still; then its timer is due together with the messages
    graph.await_masks([stamp])
    graph.spin_until(lambda: graph.received["~/timing"])
    (entry,) = graph.received["~/timing"][0].status
    assert names(values(entry)["modalities"]) == set(MODALITIES), entry.message


def ordered(order: StampOrder, *batch: tuple[Role, int]) -> list[tuple[Role, int]]:
    messages = [
        (role, TFMessage(transforms=[TransformStamped(header=header(ms * MS, "a"))]))
        if role.startswith("tf")
        else (role, Image(header=header(ms * MS, "a")))
        for role, ms in batch
    ]

    def milliseconds(message: Any) -> int:
        return stamp_of(message.transforms[0] if isinstance(message, TFMessage) else message) // MS

    return [(role, milliseconds(message)) for role, message in order.sort(messages)]


def test_messages_that_waited_together_are_ordered_by_stamp():
    order = StampOrder(1000 * MS)
    batch = [
        ("rgb.image", 100),
        ("rgb.image", 200),
        ("lidar.points", 90),
        ("event.packets", 150),
        ("tf", 300),
        ("tf_static", 0),
    ]
    assert ordered(order, *batch) == [
        ("tf_static", 0),
        ("tf", 300),
        ("lidar.points", 90),
        ("rgb.image", 100),
        ("event.packets", 150),
        ("rgb.image", 200),
    ]
    # one topic's own order is kept, also where a stamp is a little older than the one before
    assert ordered(order, ("rgb.image", 300), ("rgb.image", 290), ("lidar.points", 295))[0] == ("lidar.points", 295)
    assert ordered(order, ("rgb.image", 310), ("rgb.image", 305)) == [("rgb.image", 310), ("rgb.image", 305)]


def test_what_came_after_a_jump_back_stays_after_it():
    order = StampOrder(1000 * MS)
    ordered(order, ("rgb.image", 8900), ("lidar.points", 8900), ("event.packets", 8900))
    batch = [("rgb.image", 9000), ("rgb.image", 100), ("lidar.points", 9000), ("lidar.points", 110), ("event.packets", 8990)]
    assert ordered(order, *batch) == [
        ("event.packets", 8990),
        ("rgb.image", 9000),
        ("lidar.points", 9000),
        ("rgb.image", 100),
        ("lidar.points", 110),
    ]


def test_one_wrong_stamp_does_not_put_a_topic_after_all_others_for_good():
    order = StampOrder(1000 * MS)
    for batch in ([("rgb.image", 9000), ("lidar.points", 9000)], [("lidar.points", 3_600_000)], [("lidar.points", 9100)]):
        ordered(order, *batch)
    batch = [("rgb.image", 9100), ("rgb.image", 9200), ("lidar.points", 9190), ("rgb.image", 9300), ("lidar.points", 9290)]
    assert [stamp_ms for _, stamp_ms in ordered(order, *batch)] == [9100, 9190, 9200, 9290, 9300]
    # a sensor that began anew with stamps of zero, until its clock was set
    for batch in ([("lidar.points", 0)], [("rgb.image", 9400), ("lidar.points", 100)], [("lidar.points", 9400)]):
        ordered(order, *batch)
    batch = [("rgb.image", 9500), ("rgb.image", 9600), ("lidar.points", 9490), ("lidar.points", 9590)]
    assert [stamp_ms for _, stamp_ms in ordered(order, *batch)] == [9490, 9500, 9590, 9600]


def test_transforms_with_stamps_of_their_own_still_come_before_what_needs_them():
    order = StampOrder(1000 * MS)
    for start in (8900, 9000):  # one publisher leaves its stamps at zero
        batch = [("rgb.image", start), ("tf", start), ("tf", 0), ("tf", start + 10)]
        assert ordered(order, *batch) == [("tf", start), ("tf", 0), ("tf", start + 10), ("rgb.image", start)]
    # a topic that begins now is ordered among the others
    assert ordered(order, ("rgb.image", 9200), ("lidar.points", 9100))[0] == ("lidar.points", 9100)
    # after a jump back, transforms of the new time stay between the old data and the new
    batch = [("tf", 9250), ("tf", 90), ("rgb.image", 9300), ("rgb.image", 100), ("lidar.points", 9300), ("lidar.points", 110)]
    assert ordered(order, *batch) == [batch[0], batch[2], batch[4], batch[1], batch[3], batch[5]]


def test_the_worker_keeps_the_order_and_skips_the_oldest():
    free, done = threading.Event(), []

    def work(item: int) -> None:
        free.wait(5)
        done.append(item)

    worker = Worker(work, limit=2)
    worker.put(0)
    while worker.waiting:  # until it is being worked on
        time.sleep(0.001)
    for item in (1, 2, 3, 4):
        worker.put(item)
    free.set()
    worker.finish()
    assert done == [0, 3, 4]
    assert worker.skipped == 2

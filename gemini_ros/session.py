"""Session of an active node, from activate to deactivate: subscriptions, both halves of the pipeline, one worker.

The front runs on the executor's thread, which receives messages and closes frames; the back on the worker's thread, which
processes frames and publishes. They share the queue between them, and frames, which are complete in themselves.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

from gemini_core.config import FusionConfig
from gemini_core.decode.message import RAW_TYPES, Message, RawMessage, message_stamp_ns
from gemini_core.pipeline.back import Back, PredictorLike
from gemini_core.pipeline.front import Front
from gemini_core.types import Count, Role, SensorFrame
from gemini_ros import qos
from gemini_ros.cv_bridge_images import ImageConverter, find_cv_bridge
from gemini_ros.diagnostics import BoxHealth, InputHealth
from gemini_ros.message_types import input_classes
from gemini_ros.ordering import Arrival, StampOrder
from gemini_ros.outputs import Outputs, QueuedFrame
from gemini_ros.worker import Worker

_TRANSFORM_ROLES: tuple[Role, ...] = ("tf", "tf_static")
_REMEMBERED_ARRIVALS = 1000


class Session:
    """Runs from ``start`` to ``finish``.

    Args:
        node: subscribes, logs, and has the clock.
        config: replaced as a whole when live options change.
        predictor: the network, or None without one.
        outputs: where results go.
    """

    def __init__(self, node: LifecycleNode, config: FusionConfig, predictor: PredictorLike | None, outputs: Outputs) -> None:
        self.config = config
        self._node = node
        self._outputs = outputs
        self._front = Front(config, clock=time.perf_counter_ns)
        self._images = ImageConverter(find_cv_bridge(), node.get_logger().info)
        self._back = Back(config, predictor, clock=time.perf_counter_ns)
        self._order = StampOrder(round(config.sync.reset_jump_ms * 1e6))
        topics = {role: node.resolve_topic_name(topic) for role, topic in config.topics_by_role().items()}
        self.health = InputHealth(config.modalities, topics)
        self.box_health = BoxHealth()
        self.types = config.types_by_role()
        self.profiles: dict[Role, QoSProfile] = {role: qos.input_qos(role, self.types[role]) for role in topics}
        self._classes = input_classes(config)
        self._arrived_ns: OrderedDict[int, int] = OrderedDict()  # reference stamp -> steady clock
        self._take_ns = 0
        self._last_sensor_ns = time.perf_counter_ns()
        self._idle = True
        self._counts = Counter({"frames.published": 0, "frames.failed": 0, "messages.failed": 0, "flushes.failed": 0})
        self._last_failure = ""
        self._resets = 0
        self._refused: Counter[tuple[Role, str]] = Counter()
        self._worker: Worker[QueuedFrame] = Worker(self._work, config.node.queue_size)
        self._subscriptions: dict[Role, Subscription[Any]] = {}
        self._timer = node.create_timer(
            config.node.idle_flush_ms / 4000.0, self._flush_when_idle, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def start(self, events: Callable[[str, QoSProfile], Any]) -> None:
        """Subscribe; ``events`` makes the event callbacks of a subscription from its topic and profile."""
        for role, topic in self.config.topics_by_role().items():
            self._subscribe(role, topic, events)

    def finish(self) -> None:
        """Stop listening, publish what waits, end the worker."""
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self._node.destroy_timer(self._timer)
        self._close_waiting_frames()
        self._worker.finish()

    def counts(self) -> tuple[Count, ...]:
        """Everything counted by this session and both halves of the pipeline."""
        own = {**self._counts, "frames.skipped_busy": self._worker.skipped, "frames.queued": self._worker.waiting}
        own_counts = tuple(Count(what, number) for what, number in own.items())
        return (*own_counts, *self._images.counts(), *self._front.counts(), *self._back.counts())

    def take_up_clocks(self) -> None:
        """Note in the inputs' records how the clocks of the sensors go, and what is doubtful of the data."""
        self.health.doubts = self._front.doubts()
        for role, state in self._front.clocks():
            self.health.records[role].clock = state

    @property
    def last_failure(self) -> str:
        """The last unexpected error of a stage, "" before any."""
        return self._last_failure

    # ----------------------------------------------------------------------------------------------------------------
    # The executor's thread

    def _subscribe(self, role: Role, topic: str, events: Callable[[str, QoSProfile], Any]) -> None:
        profile = self.profiles[role]  # overrides change it in place
        subscription = self._node.create_subscription(
            self._classes[role],
            topic,
            lambda message: self._work_off([(role, self._wrapped(role, message))]),
            profile,
            event_callbacks=events(self._node.resolve_topic_name(topic), profile),
            qos_overriding_options=qos.overridable(),
            raw=self.types[role] in RAW_TYPES,
        )
        self._subscriptions[role] = subscription

    def _wrapped(self, role: Role, message: Message) -> Message:
        """What comes as bytes, with the name of its type."""
        return RawMessage(self.types[role], message) if self.types[role] in RAW_TYPES else message

    def _work_off(self, batch: list[Arrival]) -> None:
        """Work off these messages and all that wait on any topic, in the order of their stamps.

        That is also far cheaper than to let the executor wait anew for each (0.01 against 0.36 ms of CPU a message). No more
        than a full queue is taken of a topic: timers and services have their turn, however fast a topic is.
        """
        began_ns = time.perf_counter_ns()
        for role, subscription in self._subscriptions.items():
            with subscription.handle:
                for _ in range(self.profiles[role].depth):
                    taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
                    if taken is None:
                        break
                    batch.append((role, self._wrapped(role, taken[0])))
        self._take_ns += time.perf_counter_ns() - began_ns
        for each in self._order.sort(batch):
            self._receive(*each)

    def _receive(self, role: Role, message: Message) -> None:
        now_ns, stamp_ns = time.perf_counter_ns(), _regular_stamp_ns(role, message)
        record = self.health.records[role]
        record.arrived(time.monotonic(), stamp_ns)
        record.accept()  # unless it is refused
        if role not in _TRANSFORM_ROLES:
            self._last_sensor_ns = now_ns
            self._idle = False
        if role == "rgb.image" and stamp_ns is not None:
            self._arrived_ns[stamp_ns] = now_ns
            if len(self._arrived_ns) > _REMEMBERED_ARRIVALS:
                self._arrived_ns.popitem(last=False)
        try:
            frames = self._front.push(role, self._images.converted(role, message))
        except Exception as error:  # noqa: BLE001 - whatever a message does, the node lives and says so
            self._counts["messages.failed"] += 1
            record.refuse(f"{record.topic}: {error!r}")
            self._report_failure(f"a message on {record.topic} failed", error)
            return
        self._take_up_refusals()
        if self._front.resets != self._resets:
            self._resets = self._front.resets
            jumps = f"jump {self._resets} since activation"
            self._node.get_logger().warning(f"the clock jumped back on {record.topic}: begin anew ({jumps})")
        self._submit(frames)

    def _take_up_refusals(self) -> None:
        """Note what was refused since the last look."""
        for refusal in self._front.last_refusals():
            key = (refusal.role, refusal.reason)
            if refusal.count > self._refused[key]:
                self._refused[key] = refusal.count
                self.health.records[refusal.role].refuse(refusal.message)

    def _submit(self, frames: list[SensorFrame]) -> None:
        now_ns = time.perf_counter_ns()
        for frame in frames:
            self.health.saw_frame(frame.status, time.monotonic(), self._front.expects_motion(frame))
            self.box_health.saw_frame(frame, time.monotonic())
            arrived_ns = self._arrived_ns.pop(frame.stamp_ns, now_ns)
            self._worker.put(QueuedFrame(frame, arrived_ns, now_ns, self._take_ns))
            self._take_ns = 0

    def _flush_when_idle(self) -> None:
        """The last frames of a stream wait for messages that never come; let them go."""
        if not self._idle and self._quiet():
            self._work_off([])  # where this thread itself was held up, messages wait that the frames need
        if not self._idle and self._quiet():
            self._idle = True
            self._close_waiting_frames()

    def _quiet(self) -> bool:
        return (time.perf_counter_ns() - self._last_sensor_ns) / 1e6 >= self.config.node.idle_flush_ms

    def _close_waiting_frames(self) -> None:
        try:
            self._submit(self._front.finish())
        except Exception as error:  # noqa: BLE001 - neither the executor nor the way down may end here
            self._counts["flushes.failed"] += 1
            self._report_failure("closing the waiting frames failed", error)

    # ----------------------------------------------------------------------------------------------------------------
    # The worker's thread

    def _work(self, queued: QueuedFrame) -> None:
        started_ns = time.perf_counter_ns()
        try:
            perception = self._back.process(queued.frame, with_points=self._outputs.wants_points)
            self._outputs.publish(queued, perception, started_ns, self.config)
        except Exception as error:  # noqa: BLE001 - one bad frame must not end the worker
            self._counts["frames.failed"] += 1
            self._report_failure(f"frame {queued.frame.index} failed", error)
            return
        self._counts["frames.published"] += 1

    def _report_failure(self, what: str, error: Exception) -> None:
        """Log an unexpected error with its trace, once for each kind in a row."""
        sentence = repr(error)
        if sentence != self._last_failure:
            self._node.get_logger().error(f"{what}: {sentence}\n{traceback.format_exc()}")
        self._last_failure = sentence


def _regular_stamp_ns(role: Role, message: Message) -> int | None:
    """The stamp of a message that comes at a steady rate, so that holes tell of losses; event packets have seq for that."""
    return message_stamp_ns(message) if role in ("rgb.image", "depth.image", "lidar.points") else None

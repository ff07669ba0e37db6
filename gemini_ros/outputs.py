"""The node's results as topics. Stamp and frame of every message are those of the reference image."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection3DArray, LabelInfo

from gemini_core.render import alignment, overlay
from gemini_core.types import Perception, SensorFrame
from gemini_ros import qos
from gemini_ros.convert import detections_message, header_of, image_message, label_info
from gemini_ros.diagnostics import OK, WARN, status

NS_PER_MS = 1e6


@dataclass(frozen=True, eq=False)
class QueuedFrame:
    """A closed frame on its way to the worker; times are nanoseconds of a steady clock.

    ``decode_ns`` and ``synchronize_ns`` are what these stages cost for all messages since the frame before.
    """

    frame: SensorFrame
    arrived_ns: int
    closed_ns: int
    decode_ns: int
    synchronize_ns: int


class Outputs:
    """The publishers of one lifecycle node, which publish only while it is active, and what they say."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._publishers: list[Publisher] = []

    def offer(self, events: Callable[[str, QoSProfile], object]) -> None:
        """Put the topics on the graph; ``events`` makes the event callbacks of a publisher from its topic and profile."""

        def publisher(kind: type, topic: str, profile: QoSProfile) -> Publisher:
            made = self._node.create_lifecycle_publisher(
                kind,
                topic,
                profile,
                event_callbacks=events(self._node.resolve_topic_name(topic), profile),
                qos_overriding_options=qos.overridable(),
            )
            self._publishers.append(made)
            return made

        self._mask = publisher(Image, "~/segmentation/mask", qos.output_qos())
        self._label_info = publisher(LabelInfo, "~/segmentation/label_info", qos.latched_qos())
        self._overlay = publisher(Image, "~/segmentation/overlay", qos.output_qos())
        self._detections = publisher(Detection3DArray, "~/detections", qos.output_qos())
        self._timing = publisher(DiagnosticArray, "~/timing", qos.output_qos())
        self._alignment = publisher(Image, "~/debug/alignment", qos.output_qos())

    def destroy(self) -> None:
        """Take the topics off the graph."""
        for made in self._publishers:
            self._node.destroy_lifecycle_publisher(made)
        self._publishers.clear()

    def announce_classes(self, class_names: tuple[str, ...]) -> None:
        """Latch the names of the mask's values."""
        header = Header(stamp=self._node.get_clock().now().to_msg())
        self._label_info.publish(label_info(header, class_names))

    def publish(self, queued: QueuedFrame, perception: Perception, started_ns: int, overlay_alpha: float) -> None:
        """Publish all that somebody may listen to, ~/timing last; pictures are only made for listeners."""
        begin_ns = time.perf_counter_ns()
        header = header_of(perception)
        self._mask.publish(image_message(header, perception.mask))
        self._detections.publish(detections_message(header, perception.detections))
        published_ns = time.perf_counter_ns()
        age_ms = (self._node.get_clock().now().nanoseconds - perception.stamp_ns) / NS_PER_MS
        if self._overlay.get_subscription_count():
            self._overlay.publish(image_message(header, overlay(perception, overlay_alpha)))
        if self._alignment.get_subscription_count():
            self._alignment.publish(image_message(header, alignment(perception.grids)))
        pictured_ns = time.perf_counter_ns()
        stages = {"decode": queued.decode_ns, "synchronize": queued.synchronize_ns}
        stages.update({timing.stage: timing.duration_ns for timing in perception.timings})
        stages.update({"publish": published_ns - begin_ns, "render": pictured_ns - published_ns})
        waits = {
            "sync_wait_ms": queued.closed_ns - queued.arrived_ns,
            "queue_ms": started_ns - queued.closed_ns,
            "total_ms": published_ns - queued.arrived_ns,
        }
        self._timing.publish(self._timing_message(header, perception, stages, waits, age_ms))

    def _timing_message(
        self, header: Header, perception: Perception, stages: dict[str, int], waits: dict[str, int], age_ms: float
    ) -> DiagnosticArray:
        missing = [entry for entry in perception.status if not entry.present]
        used = [entry for entry in perception.status if entry.present]
        names = ", ".join(entry.modality for entry in used)
        message = f"frame {perception.index}: {names}; {age_ms:.1f} ms old"
        if missing:
            message += "; missing " + ", ".join(f"{entry.modality} ({entry.reason})" for entry in missing)
        values: dict[str, str] = {"frame": str(perception.index), "modalities": names}
        values.update({f"missing.{entry.modality}": entry.reason for entry in missing})
        values.update({f"missing_detail.{entry.modality}": entry.detail for entry in missing})
        values.update({f"skew_ms.{entry.modality}": f"{(entry.skew_ns or 0) / NS_PER_MS:.3f}" for entry in used})
        values.update({f"coverage.{grid.modality}": f"{grid.coverage:.4f}" for grid in perception.grids.grids})
        values.update({f"stage_ms.{stage}": f"{duration / NS_PER_MS:.3f}" for stage, duration in stages.items()})
        values.update({key: f"{duration / NS_PER_MS:.3f}" for key, duration in waits.items()})
        values["age_ms"] = f"{age_ms:.3f}"
        level = WARN if missing else OK
        entry: DiagnosticStatus = status(
            f"{self._node.get_name()}: frame", level, message, values, self._node.get_fully_qualified_name()
        )
        return DiagnosticArray(header=header, status=[entry])

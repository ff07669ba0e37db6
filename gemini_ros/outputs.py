"""Publishers of the node's results. Stamp and frame of a message are those of the reference image.

But for boxes in the frame that ``detections.frame`` asks for, and for labelled points, which have the sweep's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header
from vision_msgs.msg import Detection3DArray, LabelInfo
from visualization_msgs.msg import MarkerArray

from gemini_core.config.fusion import FusionConfig
from gemini_core.pipeline.published_boxes import NO_POINTS, OutgoingBoxes, outgoing_boxes
from gemini_core.project.points import labelled_sweep
from gemini_core.render import alignment, overlay
from gemini_core.types import CloudSample, Perception, SensorFrame
from gemini_ros import qos
from gemini_ros.convert import (
    cloud_message,
    detections_message,
    header_of,
    image_message,
    label_info,
    marker_array,
    stamp_to_ros,
)
from gemini_ros.diagnostics import OK, WARN, status, status_name

NS_PER_MS = 1e6


@dataclass(frozen=True, eq=False)
class QueuedFrame:
    """A closed frame on its way to the worker; times are nanoseconds of a steady clock.

    ``take_ns`` is what it cost to take all messages since the frame before from DDS.
    """

    frame: SensorFrame
    arrived_ns: int
    closed_ns: int
    take_ns: int


class Outputs:
    """The publishers of one lifecycle node, which publish only while it is active, and what they say."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._publishers: list[LifecyclePublisher[Any]] = []

    def offer(self, events: Callable[[str, QoSProfile], Any]) -> None:
        """Put the topics on the graph; ``events`` makes the event callbacks of a publisher from its topic and profile."""

        def publisher(kind: type[Any], topic: str, profile: QoSProfile) -> LifecyclePublisher[Any]:
            made: LifecyclePublisher[Any] = self._node.create_lifecycle_publisher(
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
        self._markers = publisher(MarkerArray, "~/debug/detections", qos.output_qos())
        self._points = publisher(PointCloud2, "~/points_labelled", qos.output_qos())

    def destroy(self) -> None:
        """Take the topics off the graph."""
        for made in self._publishers:
            self._node.destroy_lifecycle_publisher(made)
        self._publishers.clear()

    def announce_classes(self, class_names: tuple[str, ...]) -> None:
        """Latch the names of the mask's values."""
        header = Header(stamp=self._node.get_clock().now().to_msg())
        self._label_info.publish(label_info(header, class_names))

    @property
    def wants_points(self) -> bool:
        """Whether somebody listens to labelled points, for which the pipeline has to keep them."""
        return self._points.get_subscription_count() > 0

    def publish(self, queued: QueuedFrame, perception: Perception, started_ns: int, config: FusionConfig) -> None:
        """Publish all that somebody may listen to, ~/timing last; pictures, markers and labelled points only for listeners."""
        begin_ns = time.perf_counter_ns()
        header = header_of(perception)
        self._mask.publish(image_message(header, perception.mask))
        outgoing = outgoing_boxes(perception, config.detections)
        if outgoing is not None:
            placed = Header(stamp=header.stamp, frame_id=outgoing.frame_id)
            self._detections.publish(detections_message(placed, outgoing.boxes))
        published_ns = time.perf_counter_ns()
        age_ms = (self._node.get_clock().now().nanoseconds - perception.stamp_ns) / NS_PER_MS
        if self._overlay.get_subscription_count():
            self._overlay.publish(image_message(header, overlay(perception, config.node.overlay_alpha)))
        if self._alignment.get_subscription_count():
            self._alignment.publish(image_message(header, alignment(perception.grids)))
        if self._markers.get_subscription_count():
            self._publish_markers(header, outgoing, config.detections.classes)
        if self.wants_points and queued.frame.lidar is not None:
            self._publish_points(queued.frame.lidar, perception)
        pictured_ns = time.perf_counter_ns()
        stages = {timing.stage: timing.duration_ns for timing in (*queued.frame.timings, *perception.timings)}
        stages["decode"] += queued.take_ns
        stages.update({"publish": published_ns - begin_ns, "render": pictured_ns - published_ns})
        waits = {
            "sync_wait_ms": queued.closed_ns - queued.arrived_ns,
            "queue_ms": started_ns - queued.closed_ns,
            "total_ms": published_ns - queued.arrived_ns,
        }
        self._timing.publish(self._timing_message(header, perception, outgoing, stages, waits, age_ms))

    def _publish_markers(self, header: Header, outgoing: OutgoingBoxes | None, class_names: tuple[str, ...]) -> None:
        """Where boxes are not known, the markers of the frame before are taken away all the same."""
        if outgoing is None:
            self._markers.publish(marker_array(header, (), class_names))
            return
        placed = Header(stamp=header.stamp, frame_id=outgoing.frame_id)
        self._markers.publish(marker_array(placed, outgoing.boxes, class_names))

    def _publish_points(self, sweep: CloudSample, perception: Perception) -> None:
        """The sweep as it was measured, in its own frame and at its own stamp, with the label of each point."""
        labelled = labelled_sweep(sweep, perception)
        if labelled is not None:  # else it was not aligned, or the listener came while the frame was worked on
            header = Header(stamp=stamp_to_ros(sweep.stamp_ns), frame_id=sweep.frame_id)
            self._points.publish(cloud_message(header, labelled))

    def _timing_message(  # noqa: PLR0917 - all of one frame
        self,
        header: Header,
        perception: Perception,
        outgoing: OutgoingBoxes | None,
        stages: dict[str, int],
        waits: dict[str, int],
        age_ms: float,
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
        if (frames := perception.detection_frames) is not None:
            values["boxes"] = "unknown" if outgoing is None else str(len(outgoing.boxes))
            values.update({"missing_detail.boxes": frames.detail or NO_POINTS} if outgoing is None else {})
        values.update({f"stage_ms.{stage}": f"{duration / NS_PER_MS:.3f}" for stage, duration in stages.items()})
        values.update({key: f"{duration / NS_PER_MS:.3f}" for key, duration in waits.items()})
        values["age_ms"] = f"{age_ms:.3f}"
        level = WARN if missing else OK
        entry: DiagnosticStatus = status(
            f"{status_name(self._node)}: frame", level, message, values, self._node.get_fully_qualified_name()
        )
        return DiagnosticArray(header=header, status=[entry])

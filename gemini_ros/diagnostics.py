"""Contents of /diagnostics: for each sensor whether it is there and, if not, why; and every counter.

The executor's thread alone calls this; nothing here reads the graph, the node hands in what it found there.
"""

from __future__ import annotations

import itertools
import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.node import Node

from gemini_core.decode.sensor_clock import ClockState
from gemini_core.pipeline.published_boxes import why_no_boxes
from gemini_core.tables import Findings
from gemini_core.types import Count, Doubt, MissingReason, Modality, ModalityStatus, MotionNote, Role, SensorFrame

# rclpy has the levels as bytes
OK, WARN, ERROR, STALE = (DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE)

DATA_ROLE: dict[Modality, Role] = {
    "rgb": "rgb.image",
    "depth": "depth.image",
    "event": "event.packets",
    "lidar": "lidar.points",
}
INFO_ROLE: dict[Modality, Role] = {"rgb": "rgb.camera_info", "depth": "depth.camera_info", "event": "event.camera_info"}

Reason = (
    Literal["no_publisher", "other_type", "qos_incompatible", "nothing_received", "silent", "refused", "camera_info_refused"]
    | MissingReason
)

_RATE_WINDOW = 50
_JUMP_NS = 1_000_000_000
_FEWEST_STAMPS = 10  # below this, holes in the stamps say little
_LOST_SHARE_TO_WARN = 0.1
_DRIFT_PPM_TO_WARN = 200.0  # crystals are within 100 of their nominal rate, so two of them within 200 of each other


@dataclass
class TopicRecord:
    """What came on one topic so far; times are seconds of a steady clock."""

    role: Role
    topic: str
    received: int = 0
    refused: int = 0
    last_refusal: str = ""
    refused_last: bool = False
    clock: ClockState | None = None
    arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=_RATE_WINDOW))
    stamps_ns: deque[int] = field(default_factory=lambda: deque(maxlen=_RATE_WINDOW))

    def arrived(self, now: float, stamp_ns: int | None = None) -> None:
        """Count one message; ``stamp_ns`` is its header's, None for messages without a regular rate."""
        self.received += 1
        self.arrivals.append(now)
        if stamp_ns is not None:
            if self.stamps_ns and stamp_ns < self.stamps_ns[-1] - _JUMP_NS:
                self.stamps_ns.clear()
            self.stamps_ns.append(stamp_ns)

    def lost_share(self) -> float:
        """Share of the last messages that never came, from holes in their stamps; 0 before there are enough.

        The sender's interval is the mean of those that are not much longer than the median (jitter must not count as loss), so
        a loss of more than half looks like a lower rate.
        """
        if len(self.stamps_ns) < _FEWEST_STAMPS:
            return 0.0
        stamps = sorted(self.stamps_ns)
        intervals_ns = [later - earlier for earlier, later in itertools.pairwise(stamps)]
        longest_ns = 1.5 * statistics.median(intervals_ns)
        typical_ns = statistics.fmean(interval for interval in intervals_ns if interval <= longest_ns)
        if typical_ns <= 0:
            return 0.0
        expected = round((stamps[-1] - stamps[0]) / typical_ns) + 1
        return max(0.0, 1.0 - len(stamps) / expected)

    def accept(self) -> None:
        """The message that arrived was good."""
        self.refused_last = False

    def refuse(self, sentence: str) -> None:
        """The message that arrived was not usable."""
        self.refused += 1
        self.refused_last = True
        self.last_refusal = sentence

    def age_s(self, now: float) -> float | None:
        """Seconds since the last message, None before the first."""
        return now - self.arrivals[-1] if self.arrivals else None

    def rate_hz(self) -> float:
        """Messages a second over the last few, 0 before the second."""
        if len(self.arrivals) < 2 or self.arrivals[-1] == self.arrivals[0]:  # noqa: PLR2004 - a rate needs two
            return 0.0
        return (len(self.arrivals) - 1) / (self.arrivals[-1] - self.arrivals[0])


@dataclass(frozen=True)
class Trouble:
    """Why a sensor is missing: a stable reason and one sentence for people."""

    reason: Reason
    sentence: str


@dataclass
class Absence:
    """Since when frames lack a modality for the same reason, or the odometry that would move its data."""

    status: ModalityStatus
    since_s: float
    frames: int = 1


class InputHealth:
    """Follows every input topic and what the frames say of each modality; ``doubts`` are those of the latest data."""

    def __init__(self, modalities: tuple[Modality, ...], topics: Mapping[Role, str]) -> None:
        self._modalities = modalities
        self.records = {role: TopicRecord(role, topic) for role, topic in topics.items()}
        self._absences: dict[Modality, Absence] = {}
        self._unmoved: dict[Modality, Absence] = {}
        self._motion: dict[Modality, MotionNote] = {}
        self._missing = Findings()
        self.doubts: tuple[Doubt, ...] = ()
        self._may_move = False

    def saw_frame(self, status: tuple[ModalityStatus, ...], now: float, may_move: bool) -> None:
        """Take up what one closed frame has and lacks; ``may_move``: whether the transforms say that the camera may move."""
        self._may_move = may_move
        for entry in status:
            absence = self._absences.get(entry.modality)
            if not entry.present:
                self._missing.add(entry.modality, entry.reason, entry.detail)
            if entry.present:
                self._absences.pop(entry.modality, None)
                self._saw_motion(entry, now)
            elif absence is None or absence.status.reason != entry.reason:
                self._absences[entry.modality] = Absence(entry, now)
            else:
                absence.status = entry
                absence.frames += 1

    def _saw_motion(self, entry: ModalityStatus, now: float) -> None:
        self._motion[entry.modality] = entry.motion
        unmoved = self._unmoved.get(entry.modality)
        if entry.motion != "no_odometry":
            self._unmoved.pop(entry.modality, None)
        elif unmoved is None:
            self._unmoved[entry.modality] = Absence(entry, now)
        else:
            unmoved.status = entry
            unmoved.frames += 1

    def troubles(self, graph: Mapping[Role, Trouble], stale_after_s: float, now: float) -> dict[Modality, Trouble]:
        """Every missing modality and why; ``graph`` says of a topic why nothing can arrive on it."""
        found = {}
        for modality in self._modalities:
            trouble = self._trouble(modality, graph, stale_after_s, now)
            if trouble is not None:
                found[modality] = trouble
        return found

    def _trouble(self, modality: Modality, graph: Mapping[Role, Trouble], stale_after_s: float, now: float) -> Trouble | None:
        role = DATA_ROLE[modality]
        data = self.records[role]
        age_s = data.age_s(now)
        if age_s is None:
            return graph.get(role) or Trouble("nothing_received", f"{data.topic} has a publisher, but nothing was received")
        if age_s > stale_after_s:
            why = f"; {graph[role].sentence}" if role in graph else ""
            return Trouble("silent", f"{data.topic} silent for {age_s:.1f} s{why}")
        if data.refused_last:
            return Trouble("refused", f"{data.last_refusal} ({data.refused} refused)")
        return self._lacking(modality, graph, now)

    def _lacking(self, modality: Modality, graph: Mapping[Role, Trouble], now: float) -> Trouble | None:
        """Data comes; say what its calibration or its stamps lack."""
        absence = self._absences.get(modality)
        info_role = INFO_ROLE.get(modality)
        info = self.records.get(info_role) if info_role else None
        if info is not None and (absence is not None or modality == "rgb"):
            if info.refused_last:
                return Trouble("camera_info_refused", f"{info.last_refusal} ({info.refused} refused)")
            if not info.received:
                why = graph[info.role].sentence if info.role in graph else f"nothing received on {info.topic}"
                return Trouble("no_camera_info", f"no intrinsics: {why}")
        if absence is None:
            return None
        sentence = f"{absence.status.detail} (for {now - absence.since_s:.1f} s, {absence.frames} frames)"
        return Trouble(absence.status.reason, sentence)

    def statuses(self, name: str, hardware_id: str, troubles: Mapping[Modality, Trouble], now: float) -> list[DiagnosticStatus]:
        """The summary over all inputs, then one status per modality."""
        level, message = self._summary(troubles)
        summary = {
            "modalities": ", ".join(self._modalities),
            "missing": ", ".join(troubles),
            **{f"{modality}.missing": trouble.reason for modality, trouble in troubles.items()},
            **{f"doubt.{doubt.about}.{doubt.reason}": doubt.detail for doubt in self.doubts},
        }
        found = [status(f"{name}: inputs", level, message, summary, hardware_id)]
        for modality in self._modalities:
            trouble = troubles.get(modality)
            severity = OK if trouble is None else ERROR if modality == "rgb" else WARN
            values: dict[str, Any] = {}
            for role, record in self.records.items():
                if role.startswith(f"{modality}."):
                    values.update(_record_values(record, now))
            message = "ok" if trouble is None else trouble.sentence
            if self._motion.get(modality):
                values[f"{modality}.motion"] = self._motion[modality]
            for row in self._missing.rows():
                if row.modality == modality:
                    values[f"{modality}.missing_detail.{row.reason}"] = f"{row.detail} (in {row.number} frames, the latest)"
            said = [each.detail for each in self.doubts if each.about == modality]
            doubt = "; ".join(filter(None, [_doubt(self.records[DATA_ROLE[modality]]), *said]))
            still = self._standing_still(modality, now)
            if trouble is None and (doubt or still):
                severity, message = (WARN if doubt or self._may_move else OK), doubt or still
            found.append(status(f"{name}: input {modality}", severity, message, values, hardware_id))
        return found

    def _standing_still(self, modality: Modality, now: float) -> str:
        """Say since when and why data is placed as if nothing had moved, "" where it is not."""
        unmoved = self._unmoved.get(modality)
        if unmoved is None:
            return ""
        sentence = (
            f"placed as if nothing had moved since its stamp, for want of motion.fixed_frame: {unmoved.status.detail} "
            f"(for {now - unmoved.since_s:.1f} s, {unmoved.frames} frames)"
        )
        return sentence if self._may_move else f"ok where the sensors stand still, as no transform says otherwise; {sentence}"

    def _summary(self, troubles: Mapping[Modality, Trouble]) -> tuple[bytes, str]:
        if not troubles:
            there = "all there: " + ", ".join(self._modalities)
            doubtful = "; ".join(f"{doubt.about} doubtful: {doubt.detail}" for doubt in self.doubts)
            return (WARN, f"{there}; {doubtful}") if doubtful else (OK, there)
        missing = "; ".join(f"{modality} missing: {trouble.sentence}" for modality, trouble in troubles.items())
        if "rgb" not in troubles:
            return WARN, missing
        if troubles["rgb"].reason in ("no_camera_info", "camera_info_refused"):
            return ERROR, f"the reference camera's intrinsics are unknown, so nothing can be aligned to it; {missing}"
        return ERROR, f"no reference image, so there is no output; {missing}"


class BoxHealth:
    """Follows whether the frames' boxes can be made and placed."""

    def __init__(self) -> None:
        self._detail = ""
        self._since_s = 0.0
        self._frames = 0

    def saw_frame(self, frame: SensorFrame, now: float) -> None:
        """Take up what one closed frame lacks for 3D detection."""
        self._detail = why_no_boxes(frame)
        if not self._detail:
            self._frames = 0
            return
        if not self._frames:
            self._since_s = now
        self._frames += 1

    def status(self, name: str, hardware_id: str, values: Mapping[str, str], now: float) -> DiagnosticStatus:
        """What is known of the boxes' frames; ``values`` are the options."""
        if not self._frames:
            return status(f"{name}: detections", OK, "ok", values, hardware_id)
        sentence = f"no boxes go out: {self._detail} (for {now - self._since_s:.1f} s, {self._frames} frames)"
        return status(f"{name}: detections", WARN, sentence, values, hardware_id)


def _doubt(record: TopicRecord) -> str:
    """What is wrong with a topic whose messages do come, "" where nothing is."""
    lost = record.lost_share()
    if lost > _LOST_SHARE_TO_WARN:
        return f"about {100 * lost:.0f} % of the messages on {record.topic} never came"
    if record.clock is not None and abs(record.clock.drift_ppm) > _DRIFT_PPM_TO_WARN:
        drift = f"{record.clock.drift_ppm:.0f} millionths"
        return f"the stamps on {record.topic} drift against the sensor's clock by {drift}: one of the clocks is wrong"
    return ""


def _record_values(record: TopicRecord, now: float) -> dict[str, Any]:
    age_s, clock = record.age_s(now), record.clock
    clock_values = (
        {}
        if clock is None
        else {
            f"{record.role}.clock_drift_ppm": f"{clock.drift_ppm:.1f}",
            f"{record.role}.clock_jitter_ms": f"{clock.jitter_ns / 1e6:.2f}",
        }
    )
    return {
        f"{record.role}.topic": record.topic,
        f"{record.role}.received": record.received,
        f"{record.role}.rate_hz": f"{record.rate_hz():.1f}",
        f"{record.role}.lost_share": f"{record.lost_share():.2f}",
        f"{record.role}.last_s": "never" if age_s is None else f"{age_s:.2f}",
        f"{record.role}.refused": record.refused,
        f"{record.role}.last_refusal": record.last_refusal,
        **clock_values,
    }


def status_name(node: Node) -> str:
    """What the names of a node's statuses begin with: its full name, since an aggregator tells statuses apart by name alone."""
    return node.get_fully_qualified_name().lstrip("/")


def status(
    name: str, level: bytes, message: str, values: Mapping[str, Any] | Iterable[Count], hardware_id: str
) -> DiagnosticStatus:
    """One DiagnosticStatus; values become text."""
    pairs = values.items() if isinstance(values, Mapping) else ((count.what, count.number) for count in values)
    return DiagnosticStatus(
        level=level,
        name=name,
        message=message,
        hardware_id=hardware_id,
        values=[KeyValue(key=key, value=value if isinstance(value, str) else f"{value}") for key, value in pairs],
    )

"""Calibration of the rig: intrinsics and extrinsics as they become known, resolved for each frame."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

import numpy as np

from gemini_core.config.fusion import FusionConfig
from gemini_core.rig.geometry import OPTICAL_FROM_BODY
from gemini_core.rig.motion import Motion, buffer_ns
from gemini_core.rig.transform_tree import TransformTree, frame_name
from gemini_core.types import (
    F64,
    CameraInfoSample,
    CameraModel,
    Count,
    DetectionFrames,
    Doubt,
    FrameCalibration,
    MissingReason,
    Modality,
    ModalityStatus,
    MotionNote,
    Placement,
    Role,
    SensorFrame,
    SweepMotion,
    TransformSample,
)

Lack = tuple[MissingReason, str]
"""Why calibration is missing: the reason and one sentence for people."""

_INFO_ROLE: dict[Modality, Role] = {"rgb": "rgb.camera_info", "depth": "depth.camera_info", "event": "event.camera_info"}

_KEPT_INFOS = 100
"""Different intrinsics kept of one camera: more than images can wait (``sync.max_pending_frames``), as a rule."""

_ROUNDING_PX = 0.5
"""By which a size may differ from the exact multiple of another one, on one axis at least."""

_STEADY_NS = 1_000_000_000
"""CameraInfo of several stamps, the newest no older than this and ``sync.max_wait_ms``, come with the images."""


class CalibrationStore:
    """The CameraInfo of each camera and the tree of transforms; fills frames, and says what they lack.

    Of a camera whose intrinsics change, a frame gets those of its image's own stamp, or the last before it; of one whose
    CameraInfo are all stamped later, the newest. It waits for its own where an earlier change, or the size of the image, shows
    that the camera changes, and CameraInfo come steadily. One of another size is scaled to the image where both have the same
    aspect ratio, and the status says so; where they have not, it is none.

    A modality beside the reference needs the reference's intrinsics, its own where it is a camera, and the transform to the
    reference's frame at the frame's stamp (none where both have the same frame_id). Events with ``event.alignment``
    "same_view" need nothing. The reference itself is never absent: without intrinsics it is only alone. Odometry is never
    needed: what lacks it is placed as if nothing had moved, and its status says so.

    Where boxes are asked for, ``detections.base_frame`` and ``detections.frame`` are looked up at the frame's stamp, too, and
    frames wait for them as for other transforms.
    """

    def __init__(self, config: FusionConfig) -> None:
        max_wait_ns = round(config.sync.max_wait_ms * 1e6)
        self._same_view = config.event.alignment == "same_view"
        self._topics = config.topics_by_role()
        self._boxes = config.detections
        self._steady_ns = max_wait_ns + _STEADY_NS
        self._infos: dict[Modality, list[CameraInfoSample]] = {}  # where the camera changes, by stamp
        self._info_span_ns: dict[Modality, tuple[int, int]] = {}  # first and newest stamp
        self._changing: set[Modality] = set()
        self._scalings: dict[Modality, str] = {}  # of the latest frame
        self._tree = TransformTree(buffer_ns(max_wait_ns))
        self._motion = Motion(config, self._tree)

    def push(self, sample: CameraInfoSample | TransformSample) -> None:
        """Learn intrinsics or transforms; of two CameraInfo with one stamp the later counts."""
        if isinstance(sample, CameraInfoSample):
            self._learn_camera(sample)
            return
        for transform in sample.transforms:
            self._tree.add(transform, sample.static)

    def begin(self, stamp_ns: int) -> None:
        """Learn the stamp of a reference image: from the first one on odometry is waited for."""
        self._motion.begin(stamp_ns)

    def missing(self, data: Placement) -> Lack | None:
        """Say what calibration a modality lacks to be brought to the reference; None where nothing is missing."""
        if data.modality == "rgb" or (data.modality == "event" and self._same_view):
            return None
        for camera in ("rgb", data.modality):
            if camera != "lidar" and camera not in self._infos:
                return "no_camera_info", f"expected CameraInfo on topic {self._topic(camera)!r}, got none that can be used yet"
        if frame_name(data.frame_id) == frame_name(data.reference_frame_id):
            return None
        reason = self._tree.why_not(data.reference_frame_id, data.frame_id, data.stamp_ns)
        if not reason:
            return None
        named = all(repr(frame_name(name)) in reason for name in (data.frame_id, data.reference_frame_id))
        return "no_transform", reason if named else f"from {data.frame_id!r} to {data.reference_frame_id!r}: {reason}"

    def must_wait(self, data: Placement) -> bool:
        """Whether a frame should wait before it takes this data: for what is missing, its own CameraInfo, or odometry.

        Of the reference, also for the frames of 3D detection.
        """
        if data.modality == "rgb" and (frames := self._detection_frames(data.frame_id, data.stamp_ns)) and not frames.known:
            return True
        return self.missing(data) is not None or self._awaits_camera(data) or self._motion.must_wait(data)

    def expects_motion(self, reference_frame_id: str) -> bool:
        """Whether the transforms so far say that the reference camera may move, so that lacking odometry is worth a warning."""
        return self._motion.expected(reference_frame_id)

    def resolve(self, frame: SensorFrame) -> SensorFrame:
        """Fill in the calibration at the frame's stamp; what lacks it becomes absent, with the reason in its status."""
        placements = {data.modality: data for data in _placements(frame)}
        lacks = {name: lack for name, data in placements.items() if (lack := self._lack(data, placements["rgb"]))}
        notes = {name: self._note(frame, data) for name, data in placements.items() if name not in lacks}
        depth, lidar = frame.depth if "depth" in notes else None, frame.lidar if "lidar" in notes else None
        event = frame.event if "event" in notes else None
        calibrated_event = event if not self._same_view else None
        calibration = FrameCalibration(
            reference=self._camera(placements["rgb"]) if self._wrong_size(placements["rgb"]) is None else None,
            depth=self._camera(placements["depth"]) if depth else None,
            event=self._camera(placements["event"]) if calibrated_event else None,
            reference_from_depth=self._reference_from(placements["depth"], depth.stamp_ns, notes["depth"]) if depth else None,
            reference_from_event=(
                self._reference_from(placements["event"], frame.stamp_ns, notes["event"]) if calibrated_event else None
            ),
            reference_from_lidar=self._reference_from(placements["lidar"], lidar.stamp_ns, notes["lidar"]) if lidar else None,
            lidar_motion=self._sweep(placements["lidar"], notes["lidar"]) if lidar else None,
            detections=self._detection_frames(frame.frame_id, frame.stamp_ns),
        )
        self._scalings = {name: said for name in notes if (said := self._scaling(placements[name]))}
        notes = {name: (note, "; ".join(filter(None, (why, self._scalings.get(name))))) for name, (note, why) in notes.items()}
        status = tuple(
            _absent(entry, lacks[entry.modality]) if entry.modality in lacks else _noted(entry, notes.get(entry.modality))
            for entry in frame.status
        )
        header = replace(frame.header, status=status)
        return replace(frame, header=header, depth=depth, lidar=lidar, event=event, calibration=calibration)

    def clear(self) -> None:
        """Forget moving transforms, as after a jump of the clock; fixed ones and the newest intrinsics stay."""
        self._tree.clear()
        self._motion.clear()
        self._info_span_ns.clear()
        for infos in self._infos.values():
            del infos[:-1]

    def doubts(self) -> tuple[Doubt, ...]:
        """Which frames have several parents, and whose intrinsics were scaled for the latest frame."""
        scaled_ones = (Doubt(name, "scaled_camera_info", sentence) for name, sentence in self._scalings.items())
        return (*(Doubt("tf", "two_parents", sentence) for sentence in self._tree.conflicts()), *scaled_ones)

    def counts(self) -> tuple[Count, ...]:
        """Transforms that were refused, dropped or that replaced others."""
        return self._tree.counts()

    def _topic(self, modality: Modality) -> str:
        role = _INFO_ROLE[modality]
        return self._topics.get(role, role)

    # ----------------------------------------------------------------------------------------------------------------
    # Intrinsics

    def _learn_camera(self, sample: CameraInfoSample) -> None:
        modality, stamp_ns = sample.modality, sample.stamp_ns
        infos = self._infos.setdefault(modality, [])
        first_ns, newest_ns = self._info_span_ns.get(modality, (stamp_ns, stamp_ns))
        self._info_span_ns[modality] = min(first_ns, stamp_ns), max(newest_ns, stamp_ns)
        place = bisect_right(infos, stamp_ns, key=_stamp)
        if place == 0 or infos[place - 1].camera != sample.camera:
            self._changing.update([modality] if infos else [])
            infos.insert(place, sample)
            del infos[:-_KEPT_INFOS]

    def _camera(self, data: Placement) -> CameraModel | None:
        """The intrinsics of a camera at its data's stamp, for its size where they can be; None where nothing is known."""
        camera = self._told(data)
        return camera if camera is None or data.size is None else scaled(camera, data.size)

    def _told(self, data: Placement) -> CameraModel | None:
        """The intrinsics at the data's stamp as they came, of whatever size."""
        infos = self._infos.get(data.modality)
        if not infos:
            return None
        return infos[bisect_right(infos, data.start_ns, key=_stamp) - 1].camera  # -1, the newest, where all are later

    def _awaits_camera(self, data: Placement) -> bool:
        first_ns, newest_ns = self._info_span_ns.get(data.modality, (0, 0))
        if first_ns == newest_ns or not data.start_ns - self._steady_ns <= newest_ns < data.start_ns:
            return False
        told = self._told(data)
        return data.modality in self._changing or (told is not None and data.size not in {None, (told.width, told.height)})

    def _wrong_size(self, data: Placement) -> Lack | None:
        camera = self._camera(data)
        if camera is None or data.size is None or data.size == (camera.width, camera.height):
            return None
        return "no_camera_info", (
            f"expected CameraInfo for the {data.modality} image's {data.size[0]} x {data.size[1]} on topic "
            f"{self._topic(data.modality)!r}, got one for {camera.width} x {camera.height}"
        )

    def _scaling(self, data: Placement) -> str:
        """One sentence where the intrinsics in use came for another size, else ""."""
        told, used = self._told(data), self._camera(data)
        if told is None or told == used or (data.modality == "event" and self._same_view):
            return ""
        width, height = data.size or (0, 0)
        return (
            f"the CameraInfo on topic {self._topic(data.modality)!r} is for {told.width} x {told.height}, and is scaled to the "
            f"{data.modality} image's {width} x {height}, which has the same aspect ratio"
        )

    def _lack(self, data: Placement, reference: Placement) -> Lack | None:
        """What a modality of a frame lacks, the sizes of images looked at too."""
        if data.modality == "rgb" or (data.modality == "event" and self._same_view):
            return None
        return self.missing(data) or self._wrong_size(reference) or self._wrong_size(data)

    # ----------------------------------------------------------------------------------------------------------------
    # Extrinsics

    def _note(self, frame: SensorFrame, data: Placement) -> tuple[MotionNote, str]:
        """What is done about motion, and the sentence that says why where nothing is."""
        if data.modality not in {"depth", "lidar"} or not self._motion.enabled:
            return "", ""
        lack = self._motion.lack(data)
        if lack:
            return "no_odometry", lack
        whole = data.modality == "lidar" and frame.lidar is not None and frame.lidar.time_ns is None
        return ("no_point_times" if whole else "compensated"), ""

    def _reference_from(self, data: Placement, stamp_ns: int, note: tuple[MotionNote, str]) -> F64:
        """From the sensor's frame, at its data's stamp where motion is known, to the reference's at the frame's."""
        if note[0] in {"compensated", "no_point_times"} and self._motion.needed(data):
            stamp_ns = min(max(stamp_ns, data.start_ns), data.end_ns)  # odometry is known there
            moved: F64 = self._motion.reference_from_sensor(data, np.array([stamp_ns]))[0]
            return moved
        if frame_name(data.frame_id) == frame_name(data.reference_frame_id):
            return np.eye(4)
        return self._tree.lookup(data.reference_frame_id, data.frame_id, data.stamp_ns)

    def _detection_frames(self, reference: str, stamp_ns: int) -> DetectionFrames | None:
        """Where boxes are made and go to, None where none are asked for."""
        if not self._boxes.enabled:
            return None
        base, output = self._boxes.base_frame, self._boxes.frame
        reference_from_base, base_lack = self._look_up(reference, base, stamp_ns) if base else (OPTICAL_FROM_BODY, "")
        output_from_reference, output_lack = self._look_up(output or reference, reference, stamp_ns)
        lacks = {"base_frame": base_lack, "frame": output_lack}
        detail = "; ".join(f"detections.{name}: {lack}" for name, lack in lacks.items() if lack)
        return DetectionFrames(reference_from_base, output or reference, output_from_reference, detail)

    def _look_up(self, target: str, source: str, stamp_ns: int) -> tuple[F64 | None, str]:
        """Give a transform, or None and why it is not known."""
        lack = self._tree.why_not(target, source, stamp_ns)
        return (None, lack) if lack else (self._tree.lookup(target, source, stamp_ns), "")

    def _sweep(self, data: Placement, note: tuple[MotionNote, str]) -> SweepMotion | None:
        return self._motion.sweep(data) if note[0] == "compensated" and data.start_ns < data.end_ns else None


def _placements(frame: SensorFrame) -> list[Placement]:
    """All data of a frame, the reference first."""
    there = (data for data in (frame.rgb, frame.depth, frame.event, frame.lidar) if data is not None)
    return [Placement.of(data, frame.rgb) for data in there]


def scaled(camera: CameraModel, size: tuple[int, int]) -> CameraModel:
    """Give a camera's model for its image resized to (width, height), the same where the aspect ratio is another one.

    Pixel centres are whole numbers on both sides: ``u_resized = (u + 0.5) * width / camera.width - 0.5``.
    """
    width, height = size
    scale_x, scale_y = width / camera.width, height / camera.height
    if min(abs(camera.width * scale_y - width), abs(camera.height * scale_x - height)) > _ROUNDING_PX:
        return camera
    return replace(
        camera,
        width=width,
        height=height,
        fx=camera.fx * scale_x,
        skew=camera.skew * scale_x,
        fy=camera.fy * scale_y,
        cx=(camera.cx + 0.5) * scale_x - 0.5,
        cy=(camera.cy + 0.5) * scale_y - 0.5,
    )


def _stamp(sample: CameraInfoSample) -> int:
    return sample.stamp_ns


def _absent(status: ModalityStatus, lack: Lack) -> ModalityStatus:
    reason, detail = lack
    return replace(status, present=False, reason=reason, skew_ns=None, detail=detail)


def _noted(status: ModalityStatus, note: tuple[MotionNote, str] | None) -> ModalityStatus:
    return status if note is None or note == ("", "") else replace(status, motion=note[0], detail=note[1])

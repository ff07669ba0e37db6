"""What is known of the rig: the cameras' intrinsics and the transforms between the sensors, put into each frame."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

import numpy as np

from gemini_core.config import FusionConfig
from gemini_core.transform_tree import TransformTree, frame_name
from gemini_core.types import (
    F64,
    CameraInfoSample,
    CameraModel,
    Count,
    FrameCalibration,
    MissingReason,
    Modality,
    ModalityStatus,
    Role,
    SensorFrame,
    TransformSample,
)

Lack = tuple[MissingReason, str]
"""Why calibration is missing: the reason and one sentence for people."""

_INFO_ROLE: dict[Modality, Role] = {"rgb": "rgb.camera_info", "depth": "depth.camera_info", "event": "event.camera_info"}

_KEPT_INFOS = 100
"""Different intrinsics kept of one camera: more than images can wait (``sync.max_pending_frames``), as a rule."""


class CalibrationStore:
    """The CameraInfo of each camera and the tree of transforms; fills frames, and says what they lack.

    Of a camera whose intrinsics change, a frame gets those that its image's stamp follows; of one whose CameraInfo are all
    stamped later, the newest.

    A modality beside the reference needs the reference's intrinsics, its own where it is a camera, and the transform to the
    reference's frame at the frame's stamp (none where both have the same frame_id). Events with ``event.alignment``
    "same_view" need nothing. The reference itself is never absent: without intrinsics it is only alone.
    """

    def __init__(self, config: FusionConfig) -> None:
        self._same_view = config.event.alignment == "same_view"
        self._topics = config.topics_by_role()
        self._infos: dict[Modality, list[CameraInfoSample]] = {}  # where the camera changes, by stamp
        self._tree = TransformTree()

    def push(self, sample: CameraInfoSample | TransformSample) -> None:
        """Learn intrinsics or transforms; of two CameraInfo with one stamp the later counts."""
        if isinstance(sample, CameraInfoSample):
            infos = self._infos.setdefault(sample.modality, [])
            place = bisect_right(infos, sample.stamp_ns, key=_stamp)
            if place == 0 or infos[place - 1].camera != sample.camera:
                infos.insert(place, sample)
                del infos[:-_KEPT_INFOS]
            return
        for transform in sample.transforms:
            self._tree.add(transform, sample.static)

    def missing(self, modality: Modality, frame_id: str, reference_frame_id: str, stamp_ns: int) -> Lack | None:
        """Say what calibration a modality lacks to be brought to the reference at a stamp; None where nothing is missing."""
        if modality == "rgb" or (modality == "event" and self._same_view):
            return None
        for camera in ("rgb", modality):
            if camera != "lidar" and camera not in self._infos:
                return "no_camera_info", f"expected CameraInfo on topic {self._topic(camera)!r}, got none that can be used yet"
        if frame_name(frame_id) == frame_name(reference_frame_id):
            return None
        reason = self._tree.why_not(reference_frame_id, frame_id, stamp_ns)
        return ("no_transform", reason) if reason else None

    def resolve(self, frame: SensorFrame) -> SensorFrame:
        """Fill in the calibration at the frame's stamp; what lacks it becomes absent, with the reason in its status."""
        lacks = {
            status.modality: lack
            for status in frame.status
            if status.present and (lack := self._lack(status.modality, frame)) is not None
        }
        status = tuple(
            _absent(status, lacks[status.modality]) if status.modality in lacks else status for status in frame.status
        )
        depth = frame.depth if "depth" not in lacks else None
        lidar = frame.lidar if "lidar" not in lacks else None
        event = frame.event if "event" not in lacks else None
        calibrated_event = event if not self._same_view else None
        calibration = FrameCalibration(
            reference=self._camera("rgb", frame) if self._wrong_size("rgb", frame) is None else None,
            depth=self._camera("depth", frame) if depth else None,
            event=self._camera("event", frame) if calibrated_event else None,
            reference_from_depth=self._reference_from(depth.frame_id, frame) if depth else None,
            reference_from_event=self._reference_from(calibrated_event.frame_id, frame) if calibrated_event else None,
            reference_from_lidar=self._reference_from(lidar.frame_id, frame) if lidar else None,
        )
        return replace(frame, depth=depth, lidar=lidar, event=event, status=status, calibration=calibration)

    def clear(self) -> None:
        """Forget moving transforms, as after a jump of the clock; fixed ones and the newest intrinsics stay."""
        self._tree.clear()
        for infos in self._infos.values():
            del infos[:-1]

    def counts(self) -> tuple[Count, ...]:
        """Transforms that were refused, dropped or that replaced others."""
        return self._tree.counts()

    def _topic(self, modality: Modality) -> str:
        role = _INFO_ROLE[modality]
        return self._topics.get(role, role)

    def _lack(self, modality: Modality, frame: SensorFrame) -> Lack | None:
        """What a modality of this frame lacks, the sizes of images looked at too."""
        data = {"rgb": frame.rgb, "depth": frame.depth, "lidar": frame.lidar, "event": frame.event}[modality]
        if data is None or modality == "rgb" or (modality == "event" and self._same_view):
            return None
        return (
            self.missing(modality, data.frame_id, frame.frame_id, frame.stamp_ns)
            or self._wrong_size("rgb", frame)
            or self._wrong_size(modality, frame)
        )

    def _camera(self, modality: Modality, frame: SensorFrame) -> CameraModel | None:
        """The intrinsics of a modality for what a frame has of it, None where nothing is known."""
        infos = self._infos.get(modality)
        if not infos:
            return None
        stamp_ns = frame.depth.stamp_ns if modality == "depth" and frame.depth is not None else frame.stamp_ns
        return infos[bisect_right(infos, stamp_ns, key=_stamp) - 1].camera  # -1, the newest, where all are later

    def _wrong_size(self, modality: Modality, frame: SensorFrame) -> Lack | None:
        camera = self._camera(modality, frame)
        size = _image_size(modality, frame)
        if camera is None or size is None or size == (camera.width, camera.height):
            return None
        return "no_camera_info", (
            f"expected CameraInfo for the {modality} image's {size[0]} x {size[1]} on topic {self._topic(modality)!r}, got one "
            f"for {camera.width} x {camera.height}"
        )

    def _reference_from(self, frame_id: str, frame: SensorFrame) -> F64:
        if frame_name(frame_id) == frame_name(frame.frame_id):
            return np.eye(4)
        return self._tree.lookup(frame.frame_id, frame_id, frame.stamp_ns)


def _stamp(sample: CameraInfoSample) -> int:
    return sample.stamp_ns


def _absent(status: ModalityStatus, lack: Lack) -> ModalityStatus:
    reason, detail = lack
    return replace(status, present=False, reason=reason, skew_ns=None, detail=detail)


def _image_size(modality: Modality, frame: SensorFrame) -> tuple[int, int] | None:
    """Width and height of a camera's image in a frame, None for the LiDAR and for what is absent."""
    if modality == "rgb":
        return frame.rgb.pixels.shape[1], frame.rgb.pixels.shape[0]
    if modality == "depth" and frame.depth is not None:
        return frame.depth.depth_m.shape[1], frame.depth.depth_m.shape[0]
    if modality == "event" and frame.event is not None:
        return frame.event.width, frame.event.height
    return None

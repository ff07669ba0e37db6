"""One frame becomes aligned grids."""

from __future__ import annotations

from gemini_core.config import FusionConfig
from gemini_core.project.color import align_color
from gemini_core.project.depth import align_depth
from gemini_core.project.event import EventMap, align_events, map_by_plane, map_by_size
from gemini_core.project.geometry import grid_camera, grid_geometry
from gemini_core.project.lidar import align_lidar
from gemini_core.types import (
    F64,
    AlignedGrid,
    AlignedGrids,
    CameraModel,
    EventWindow,
    FrameCalibration,
    GridGeometry,
    MissingReason,
    Modality,
    ModalityStatus,
    SensorFrame,
)

_NO_INTRINSICS: MissingReason = "no_camera_info"
_NO_EXTRINSICS: MissingReason = "no_transform"


class Projector:
    """Puts what a frame has on the network's pixels; a frame leaves nothing behind but tables of its cameras."""

    def __init__(self, config: FusionConfig) -> None:
        self._config = config

    def project(self, frame: SensorFrame) -> AlignedGrids:
        """Align every modality of a frame whose calibration is resolved.

        A modality that cannot be placed gets no grid and a status that says why: its intrinsics or transform are unknown,
        or a CameraInfo is for another image size. Without the reference camera's intrinsics only colour is left, and events
        where they share the reference camera's lens.
        """
        height, width = frame.rgb.pixels.shape[:2]
        geometry = grid_geometry(self._config.grid, width, height)
        calibration = frame.calibration or FrameCalibration(reference=None)
        camera: CameraModel | None = None
        problem: _CannotPlaceError | None = None
        try:
            camera = grid_camera(_intrinsics("rgb", calibration.reference, width, height), geometry)
        except _CannotPlaceError as error:
            problem = error

        grids: list[AlignedGrid] = []
        status: list[ModalityStatus] = []
        for entry in frame.status:
            try:
                grid = self._align(entry.modality, frame, calibration, geometry, camera) if entry.present else None
            except _CannotPlaceError as error:
                status.append((problem or error).status(entry.modality))
                continue
            status.append(entry)
            grids += [] if grid is None else [grid]
        return AlignedGrids(frame.index, frame.stamp_ns, frame.frame_id, geometry, camera, tuple(grids), tuple(status))

    def _align(
        self,
        modality: Modality,
        frame: SensorFrame,
        calibration: FrameCalibration,
        geometry: GridGeometry,
        camera: CameraModel | None,
    ) -> AlignedGrid | None:
        """Align one modality; ``camera`` is the reference camera at grid size."""
        if modality == "rgb":
            return align_color(frame.rgb, geometry)
        if modality == "event" and frame.event is not None:
            event_map = self._event_map(frame.event, calibration, geometry, camera)
            return align_events(frame.event, event_map, geometry.height, geometry.width)
        if modality == "depth" and frame.depth is not None:
            height, width = frame.depth.depth_m.shape
            depth_camera = _intrinsics("depth", calibration.depth, width, height)
            transform = _extrinsics("depth", calibration.reference_from_depth)
            return align_depth(frame.depth, depth_camera, _target(camera), transform, self._config.depth)
        if modality == "lidar" and frame.lidar is not None:
            transform = _extrinsics("lidar", calibration.reference_from_lidar)
            return align_lidar(frame.lidar, _target(camera), transform, self._config.lidar)
        return None

    def _event_map(
        self, window: EventWindow, calibration: FrameCalibration, geometry: GridGeometry, camera: CameraModel | None
    ) -> EventMap:
        if self._config.event.alignment == "same_view":
            return map_by_size(window.width, window.height, geometry)
        event_camera = _intrinsics("event", calibration.event, window.width, window.height)
        transform = _extrinsics("event", calibration.reference_from_event)
        return map_by_plane(event_camera, _target(camera), transform, self._config.event.plane_m)


class _CannotPlaceError(Exception):
    """A modality's data cannot be placed in the reference camera; becomes the modality's status."""

    def __init__(self, reason: MissingReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def status(self, modality: Modality) -> ModalityStatus:
        return ModalityStatus(modality, present=False, reason=self.reason, skew_ns=None, detail=self.detail)


def _intrinsics(modality: Modality, camera: CameraModel | None, width: int, height: int) -> CameraModel:
    if camera is None:
        detail = f"no CameraInfo of {modality} has come"
        raise _CannotPlaceError(_NO_INTRINSICS, detail)
    if (camera.width, camera.height) != (width, height):
        expected, got = f"{width} x {height}", f"{camera.width} x {camera.height}"
        detail = f"expected a CameraInfo of {modality} for images of {expected}, got one for {got}"
        raise _CannotPlaceError(_NO_INTRINSICS, detail)
    return camera


def _extrinsics(modality: Modality, reference_from_sensor: F64 | None) -> F64:
    if reference_from_sensor is None:
        detail = f"no transform from {modality} to the reference camera is known"
        raise _CannotPlaceError(_NO_EXTRINSICS, detail)
    return reference_from_sensor


def _target(camera: CameraModel | None) -> CameraModel:
    if camera is None:
        detail = "the intrinsics of the reference camera are unknown"
        raise _CannotPlaceError(_NO_INTRINSICS, detail)
    return camera

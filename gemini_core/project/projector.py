"""The projector: one frame to aligned grids, and to points for boxes."""

from __future__ import annotations

from gemini_core.config.fusion import FusionConfig
from gemini_core.errors import CalibrationError
from gemini_core.project.color import align_color
from gemini_core.project.depth import align_depth
from gemini_core.project.event import EventMap, align_events, map_by_plane, map_by_size
from gemini_core.project.grid import grid_camera, grid_geometry
from gemini_core.project.lidar import PlacedCloud, encode_cloud, place_cloud
from gemini_core.project.points import points_of_cloud, points_of_depth
from gemini_core.project.rectify import rectify
from gemini_core.rig.geometry import OPTICAL_FROM_BODY
from gemini_core.types import (
    AlignedGrid,
    AlignedGrids,
    AlignedPoints,
    CameraModel,
    EventWindow,
    FrameCalibration,
    GridGeometry,
    Modality,
    SensorFrame,
)


class Projector:
    """Puts what a frame has on the network's pixels; a frame leaves nothing behind but tables of its cameras."""

    def __init__(self, config: FusionConfig) -> None:
        self._config = config

    def rectified(self, frame: SensorFrame) -> SensorFrame:
        """Give the frame with the image that masks belong to: with ``rgb.rectify`` the rectified one, else as it is.

        A frame without intrinsics of its reference cannot be rectified and stays as it is; so does a rectified one.
        """
        return rectify(frame) if self._config.rgb.rectify else frame

    def project(self, frame: SensorFrame, *, with_points: bool = False) -> AlignedGrids:
        """Align every modality that the frame has to its image; its calibration must be resolved.

        The frame need not be :meth:`rectified` before. The image size may change from frame to frame. Points in space are made
        ``with_points``, or where ``detections.enabled`` asks for them: of the sweep, or, where there is none or it is empty,
        of the depth grid. There are none where the base frame is configured but not known.

        Raises:
            CalibrationError: a modality has data but not the calibration to place it, which ``CalibrationStore.resolve``
                does not let through.
        """
        frame = self.rectified(frame)
        height, width = frame.rgb.pixels.shape[:2]
        geometry = grid_geometry(self._config.grid, width, height)
        calibration = frame.calibration or FrameCalibration(reference=None)
        camera = None if calibration.reference is None else grid_camera(calibration.reference, geometry)
        placed = self._placed(frame, calibration, camera)
        grids = (align_color(frame.rgb, geometry), *self._others(frame, calibration, geometry, camera, placed))
        wanted = with_points or self._config.detections.enabled
        points = self._points(frame, calibration, camera, placed, grids) if wanted else None
        return AlignedGrids(frame.index, frame.stamp_ns, frame.frame_id, geometry, camera, grids, frame.status, points)

    def _placed(self, frame: SensorFrame, calibration: FrameCalibration, camera: CameraModel | None) -> PlacedCloud | None:
        if frame.lidar is None:
            return None
        if camera is None or calibration.reference_from_lidar is None:
            raise _unplaced(frame, "lidar")
        return place_cloud(
            frame.lidar, camera, calibration.reference_from_lidar, calibration.lidar_motion, self._config.lidar.point_size_px
        )

    def _others(
        self,
        frame: SensorFrame,
        calibration: FrameCalibration,
        geometry: GridGeometry,
        camera: CameraModel | None,
        placed: PlacedCloud | None,
    ) -> list[AlignedGrid]:
        """Grids of all modalities but the reference; ``camera`` is the reference camera at grid size."""
        grids: list[AlignedGrid] = []
        if frame.depth is not None:
            if camera is None or calibration.depth is None or calibration.reference_from_depth is None:
                raise _unplaced(frame, "depth")
            transform = calibration.reference_from_depth
            grids.append(align_depth(frame.depth, calibration.depth, camera, transform, self._config.depth))
        if frame.event is not None:
            event_map = self._event_map(frame, frame.event, calibration, geometry, camera)
            grids.append(align_events(frame.event, event_map, geometry.height, geometry.width, self._config.event))
        if frame.lidar is not None and placed is not None:
            grids.append(encode_cloud(frame.lidar, placed, self._config.lidar))
        return grids

    def _points(
        self,
        frame: SensorFrame,
        calibration: FrameCalibration,
        camera: CameraModel | None,
        placed: PlacedCloud | None,
        grids: tuple[AlignedGrid, ...],
    ) -> AlignedPoints | None:
        frames = calibration.detections
        base = OPTICAL_FROM_BODY if frames is None else frames.reference_from_base
        if camera is None or base is None:
            return None
        depth = next((grid for grid in grids if grid.modality == "depth"), None)
        if frame.lidar is not None and placed is not None and (placed.z.size or depth is None):
            return points_of_cloud(frame.lidar, placed, camera, base, self._config.lidar.max_intensity)
        return None if depth is None else points_of_depth(depth, camera, base, self._config.detections.depth_stride)

    def _event_map(
        self,
        frame: SensorFrame,
        window: EventWindow,
        calibration: FrameCalibration,
        geometry: GridGeometry,
        camera: CameraModel | None,
    ) -> EventMap:
        if self._config.event.alignment == "same_view":
            return map_by_size(window.width, window.height, geometry)
        if camera is None or calibration.event is None or calibration.reference_from_event is None:
            raise _unplaced(frame, "event")
        return map_by_plane(calibration.event, camera, calibration.reference_from_event, self._config.event.plane_m)


def _unplaced(frame: SensorFrame, modality: Modality) -> CalibrationError:
    return CalibrationError(
        f"frame {frame.index}: expected the intrinsics and the transform that place {modality} in the reference camera, got an "
        "incomplete calibration"
    )

"""Event encodings on the grid: DeLiVER's polarity image (red where it got darker, blue where brighter), or a voxel grid.

Events have no depth. They are taken to lie on the plane z = ``plane_m`` before the event camera, which induces the homography
K_ref (R + t nᵀ / d) K_event⁻¹ between the two images (Hartley and Zisserman, "Multiple View Geometry", ch. 13). Here it is
walked point by point, so that both lenses' distortions are part of it, and both ways: each event to its grid pixel, so that
none is lost where the event camera is finer than the grid; and each grid pixel to its event pixel, so that no holes remain
where it is coarser.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gemini_core.compiling import compiled
from gemini_core.config.sections import EventConfig
from gemini_core.project.voxel import BINS, voxels_of, voxels_on_grid
from gemini_core.rig.geometry import invert_transform, project_points, ray_table, transform_points
from gemini_core.types import F32, F64, U8, U16, AlignedGrid, Bool, CameraModel, EventWindow, GridGeometry

_I32: TypeAlias = npt.NDArray[np.int32]
_Floats: TypeAlias = npt.NDArray[np.floating[Any]]

_DARKER, _BRIGHTER = np.uint8(1), np.uint8(2)


@dataclass(frozen=True, slots=True, eq=False)
class EventMap:
    """Where grid and event sensor meet; flat pixel numbers (row by row), -1 where the other one does not see.

    ``width``: columns of the event sensor; ``grid_from_event`` (event height * width,) int32, ``event_from_grid`` (grid
    height * width,) int32.
    """

    width: int
    grid_from_event: _I32
    event_from_grid: _I32


def map_by_plane(event: CameraModel, grid_camera: CameraModel, reference_from_event: F64, plane_m: float) -> EventMap:
    """Map through the plane z = ``plane_m`` of the event camera; kept for as long as nothing changes.

    Args:
        event: the event camera.
        grid_camera: the reference camera at grid size.
        reference_from_event: (4, 4) from the event camera's optical frame to the reference's.
        plane_m: metres.
    """
    return _map_by_plane(event, grid_camera, reference_from_event.astype(np.float64).tobytes(), plane_m)


def map_by_size(width: int, height: int, geometry: GridGeometry) -> EventMap:
    """Map by size alone, for an event sensor of ``width`` x ``height`` behind the reference camera's own lens."""
    return _map_by_size(width, height, geometry)


def align_events(window: EventWindow, event_map: EventMap, height: int, width: int, config: EventConfig) -> AlignedGrid:
    """Bring the window's events to a grid of ``height`` x ``width``; valid is what the event sensor sees at all.

    ``event.encoding`` "polarity" gives three channels: 1 in the first where an event got darker, in the third where one got
    brighter. "voxel" gives three moments, from the oldest to the newest: 0.5 where nothing happened, 1 for
    ``event.voxel_limit`` events brighter, 0 for as many darker (``voxel.py`` has the formula). Both are 0 outside the view.
    """
    if config.encoding == "voxel":
        sensor_height = event_map.grid_from_event.size // event_map.width
        voxels = voxels_of(window, event_map.width, sensor_height).reshape(BINS, -1)
        stack, seen = voxels_on_grid(voxels, event_map.grid_from_event, event_map.event_from_grid, config.voxel_limit)
        return AlignedGrid("event", stack.reshape(-1, height, width), seen.reshape(height, width))
    channels = np.empty((3, height, width), np.float32)
    valid = np.empty((height, width), np.bool_)
    _draw(
        np.ascontiguousarray(window.x),
        np.ascontiguousarray(window.y),
        np.ascontiguousarray(window.polarity),
        event_map.width,
        np.zeros(event_map.grid_from_event.size, np.uint8),
        event_map.grid_from_event,
        event_map.event_from_grid,
        np.zeros(height * width, np.uint8),
        channels.reshape(3, -1),
        valid.reshape(-1),
    )
    return AlignedGrid("event", channels, valid)


# One rig has one pair of cameras; the other places serve a resolution that changes and comes back.
@lru_cache(maxsize=4)
def _map_by_plane(event: CameraModel, grid_camera: CameraModel, reference_from_event: bytes, plane_m: float) -> EventMap:
    to_reference = np.frombuffer(reference_from_event).reshape(4, 4)
    to_event = invert_transform(to_reference)
    on_plane = ray_table(event).reshape(3, -1) * np.float32(plane_m)
    pixels, _, visible = project_points(grid_camera, transform_points(to_reference, on_plane))
    grid_from_event = _flat(pixels, visible, grid_camera.width)

    turned = transform_points(_rotation_only(to_event), ray_table(grid_camera).reshape(3, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = (plane_m - to_event[2, 3]) / turned[2]  # where the ray meets the plane; NaN rays stay NaN
    meets = scale > 0.0
    on_plane = turned * scale + to_event[:3, 3:]
    pixels, _, visible = project_points(event, np.where(meets, on_plane, np.nan).astype(np.float32))
    return EventMap(event.width, grid_from_event, _flat(pixels, visible, event.width))


@lru_cache(maxsize=4)
def _map_by_size(width: int, height: int, geometry: GridGeometry) -> EventMap:
    # Edges of pixels instead of centres, so that rounding is floor: edge_ref = edge_grid / scale + left.
    event_per_u, event_per_v = width / geometry.reference_width, height / geometry.reference_height
    columns = ((np.arange(width) + 0.5) / event_per_u - geometry.left) * geometry.scale_x
    rows = ((np.arange(height) + 0.5) / event_per_v - geometry.top) * geometry.scale_y
    grid_from_event = _outer(rows, columns, geometry.height, geometry.width)
    columns = ((np.arange(geometry.width) + 0.5) / geometry.scale_x + geometry.left) * event_per_u
    rows = ((np.arange(geometry.height) + 0.5) / geometry.scale_y + geometry.top) * event_per_v
    return EventMap(width, grid_from_event, _outer(rows, columns, height, width))


def _outer(rows: _Floats, columns: _Floats, height: int, width: int) -> _I32:
    """Flat pixel numbers of all pairs of a row and a column, -1 outside ``height`` x ``width``."""
    row, column = np.floor(rows).astype(np.int32), np.floor(columns).astype(np.int32)
    inside = ((row >= 0) & (row < height))[:, None] & ((column >= 0) & (column < width))[None, :]
    return np.where(inside, row[:, None] * width + column[None, :], -1).astype(np.int32).reshape(-1)


def _flat(pixels: F32, visible: Bool, width: int) -> _I32:
    """Flat number of the pixel that each projected point (2, N) falls into, -1 where it is not visible."""
    column, row = np.floor(np.where(visible, pixels, 0.0) + 0.5).astype(np.int32)
    return np.where(visible, row * width + column, -1).astype(np.int32)


def _rotation_only(a_from_b: F64) -> F64:
    rotation = np.eye(4)
    rotation[:3, :3] = a_from_b[:3, :3]
    return rotation


_U8_IN, _U16_IN, _I32_IN = (  # these also take arrays that may be written to
    f"Array({kind}, 1, 'C', readonly=True, aligned=False)" for kind in ("uint8", "uint16", "int32")
)


@compiled(
    f"void({_U16_IN}, {_U16_IN}, {_U8_IN}, int64, uint8[::1], {_I32_IN}, {_I32_IN}, uint8[::1], float32[:,::1], b1[::1])",
)
def _draw(  # noqa: PLR0917 - compiled functions take arguments by position
    x: U16,
    y: U16,
    polarity: U8,
    sensor_width: int,
    sensor: U8,
    grid_from_event: _I32,
    event_from_grid: _I32,
    grid: U8,
    channels: F32,
    valid: Bool,
) -> None:
    """Mark sensor and grid pixels by polarity (both zero before), then read the sensor's marks back through the map."""
    for i in range(x.shape[0]):
        pixel = np.int64(y[i]) * sensor_width + np.int64(x[i])
        if np.int64(x[i]) >= sensor_width or pixel >= sensor.shape[0]:
            continue
        mark = _BRIGHTER if polarity[i] else _DARKER
        sensor[pixel] |= mark
        if grid_from_event[pixel] >= 0:
            grid[grid_from_event[pixel]] |= mark
    for i in range(grid.shape[0]):
        source = event_from_grid[i]
        marks = grid[i] | sensor[source] if source >= 0 else np.uint8(0)
        channels[0, i] = np.float32(1.0) if marks & _DARKER else np.float32(0.0)
        channels[1, i] = np.float32(0.0)
        channels[2, i] = np.float32(1.0) if marks & _BRIGHTER else np.float32(0.0)
        valid[i] = source >= 0

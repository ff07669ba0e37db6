"""The simulated robot: where its sensors sit and when they fire.

``base_link`` lies on the ground below the robot, x ahead, y left, z up (REP 103). Simulated time is seconds since START_NS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from gemini_core.simulation.clip import World
from gemini_core.types import F64, CameraModel

START_NS = 1_700_000_000_000_000_000
WORLD_FRAME = "odom"
BASE_FRAME = "base_link"

_BODY_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])  # REP 103


@dataclass(frozen=True, slots=True, eq=False)
class CameraMount:
    """A camera on the robot; ``base_from_camera`` (4, 4) from its optical frame."""

    frame_id: str
    camera: CameraModel
    base_from_camera: F64


@dataclass(frozen=True, slots=True, eq=False)
class LidarMount:
    """A spinning LiDAR: ``elevations_rad`` (beams,) by ring, ``columns`` firings a turn, clockwise seen from above.

    A turn begins and ends at ``cut_rad``, just right of the camera's view, so that the camera sees one turn's points.
    """

    frame_id: str
    base_from_lidar: F64
    elevations_rad: F64
    columns: int
    cut_rad: float
    min_range_m: float = 1.0
    max_range_m: float = 110.0


@dataclass(frozen=True, slots=True)
class Timing:
    """When the sensors fire, nanoseconds; the colour camera sets the beat.

    The depth camera fires ``depth_lead_ns`` before the colour camera. The LiDAR looks straight ahead when the colour camera
    fires. The event camera's packets, ``packets_per_frame`` to a colour image, end at equal steps, one of them at its stamp.
    """

    frame_ns: int = 100_000_000
    depth_lead_ns: int = 8_000_000
    packets_per_frame: int = 8
    transform_ns: int = 10_000_000

    @property
    def packet_ns(self) -> int:
        """Time between the ends of two event packets."""
        return self.frame_ns // self.packets_per_frame


@dataclass(frozen=True, slots=True, eq=False)
class Rig:
    """All sensors of the robot."""

    rgb: CameraMount
    depth: CameraMount
    event: CameraMount
    lidar: LidarMount
    timing: Timing = field(default_factory=Timing)

    def sweep_start_ns(self, frame_ns: int) -> int:
        """Start of the sweep that looks straight ahead at ``frame_ns``."""
        ahead = 1.0 + self.lidar.cut_rad / (2 * math.pi)  # share of the turn done when it does; the cut is negative
        return frame_ns - round(self.timing.frame_ns * ahead)


def _mount(x: float, y: float, z: float, yaw: float = 0.0, pitch: float = 0.0) -> F64:
    """Base-from-body (4, 4); positive pitch looks down."""
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1.0]]) @ np.array([[cp, 0, sp], [0, 1.0, 0], [-sp, 0, cp]])
    matrix[:3, 3] = x, y, z
    return matrix


def _camera(frame_id: str, size: tuple[int, int], focal: float, scale: float, base_from_body: F64) -> CameraMount:
    width, height = 2 * round(size[0] * scale / 2), 2 * round(size[1] * scale / 2)  # even: rays are cast in pairs
    model = CameraModel(
        width, height, focal * scale, focal * scale, (width - 1) / 2, (height - 1) / 2, "plumb_bob", (0.0, 0.0, 0.0, 0.0, 0.0)
    )
    base_from_camera = base_from_body.copy()
    base_from_camera[:3, :3] = base_from_body[:3, :3] @ _BODY_FROM_OPTICAL
    return CameraMount(frame_id, model, base_from_camera)


def default_rig(scale: float = 1.0, world: World = "street", *, color_scale: float | None = None) -> Rig:
    """Four sensors on a car's roof or, in a room, on a robot's mast; ``scale`` shrinks everything that costs time.

    ``color_scale`` is that of the colour camera, where it is another one: most robots' cameras see finer than their LiDAR.

    Colour 640 x 480 with 80 degrees of view; depth 480 x 360, 6 cm to the right and turned by 2 degrees; events 640 x 480,
    5 cm to the left and turned by 1 degree; a LiDAR of 64 beams and 1024 firings a turn above them; 8 packets of events to a
    colour image. At scale 0.5 (a 320 x 240 camera): 32 beams, 512 firings, 5 packets; at 0.25: 16 beams, 256 firings.
    """
    up, ahead = (0.0, 0.0) if world == "street" else (-0.5, -0.75)
    beams = 64 if scale > 0.7 else 32 if scale > 0.35 else 16  # noqa: PLR2004 - as many as the image has rows for
    low, high = (-24.0, 14.0) if world == "street" else (-32.0, 26.0)

    def camera(
        name: str,
        size: tuple[int, int],
        focal: float,
        place: tuple[float, float],
        turn_deg: tuple[float, float],
        *,
        scale: float = scale,
    ) -> CameraMount:
        mount = _mount(0.9 + ahead, place[0], place[1] + up, math.radians(turn_deg[0]), math.radians(turn_deg[1]))
        return _camera(name, size, focal, scale, mount)

    return Rig(
        rgb=camera("rgb_optical", (640, 480), 381.4, (0.0, 1.62), (0.0, 2.0), scale=color_scale or scale),
        depth=camera("depth_optical", (480, 360), 300.0, (-0.06, 1.61), (-2.0, 3.0)),
        event=camera("event_optical", (640, 480), 400.0, (0.05, 1.63), (1.0, 2.0)),
        lidar=LidarMount(
            "lidar",
            _mount(0.5 + ahead, 0.0, 1.95 + up),
            np.radians(np.linspace(low, high, beams)),
            2 * round(512 * scale),
            math.radians(-43.2),
            min_range_m=1.0 if world == "street" else 0.3,
        ),
        timing=Timing(packets_per_frame=8 if scale > 0.7 else 5),  # noqa: PLR2004
    )


def low_resolution_events(rig: Rig) -> Rig:
    """The rig with an event camera of the same view and four times fewer pixels a side."""
    factor = 4
    camera = rig.event.camera
    smaller = replace(
        camera,
        width=camera.width // factor,
        height=camera.height // factor,
        fx=camera.fx / factor,
        fy=camera.fy / factor,
        cx=(camera.cx + 0.5) / factor - 0.5,
        cy=(camera.cy + 0.5) / factor - 0.5,
    )
    return replace(rig, event=replace(rig.event, camera=smaller))

"""Contact sheets: ``python -m gemini_core.simulation.gallery docs/images`` makes the pictures of docs/simulation.md."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from gemini_core.files import write_whole
from gemini_core.render import depth_image, event_image, mask_image, palette, points_image
from gemini_core.simulation.classes import CLASS_NAMES
from gemini_core.simulation.clip import CONDITIONS, Clip, Failure
from gemini_core.simulation.record import SimulatedFrame, Simulation
from gemini_core.simulation.rig import default_rig
from gemini_core.types import F32, U8

_WIDTH, _HEIGHT, _BAND = 216, 162, 18
_QUALITY = 68
_FRAME = 2
_NEWEST_PACKETS = 4  # half of those between two pictures: 50 ms
SHOWN_IN: dict[Failure, str] = {
    "motion_blur": "rgb",
    "over_exposure": "rgb",
    "under_exposure": "rgb",
    "lidar_jitter": "LiDAR",
    "event_low_resolution": "events, 50 ms",
}


def tiles(simulation: Simulation, frame: SimulatedFrame) -> dict[str, U8]:
    """What each sensor of a frame reports, and the truth, as pictures by name."""
    camera, event = simulation.rig.rgb.camera, simulation.rig.event.camera
    darker, brighter = np.zeros((2, event.height, event.width), bool)
    for packet in frame.packets[-_NEWEST_PACKETS:]:
        darker[packet.y[packet.polarity == 0], packet.x[packet.polarity == 0]] = True
        brighter[packet.y[packet.polarity == 1], packet.x[packet.polarity == 1]] = True
    depth_m = (frame.depth_mm * 1e-3).astype(np.float32)
    lidar_m = _lidar_depth(simulation, frame)
    labels = mask_image(frame.view.label, CLASS_NAMES)
    return {
        "rgb": frame.picture,
        "depth": depth_image(depth_m, frame.depth_mm > 0, 20.0),
        "LiDAR": points_image(np.zeros((camera.height, camera.width, 3), np.uint8), lidar_m, lidar_m > 0),
        "events, 50 ms": event_image(darker, brighter),
        "classes": labels,
    }


def _lidar_depth(simulation: Simulation, frame: SimulatedFrame) -> F32:
    """Depth (H, W) of the sweep's points in the colour camera, 0 where there is none."""
    mount = simulation.rig.rgb
    camera = mount.camera
    rgb_from_lidar = np.linalg.inv(mount.base_from_camera) @ simulation.rig.lidar.base_from_lidar
    points = np.stack([frame.sweep.points[axis] for axis in "xyz"]).astype(np.float64)
    x, y, z = rgb_from_lidar[:3, :3] @ points + rgb_from_lidar[:3, 3:]
    ahead = z > 0.1  # noqa: PLR2004 - metres
    x, y, z = x[ahead], y[ahead], z[ahead]
    column, row = np.round(camera.fx * x / z + camera.cx).astype(int), np.round(camera.fy * y / z + camera.cy).astype(int)
    inside = (column >= 0) & (row >= 0) & (column < camera.width) & (row < camera.height)
    depth = np.zeros((camera.height, camera.width), np.float32)
    depth[row[inside], column[inside]] = z[inside]
    return depth


def sheet(clips: Sequence[tuple[str, Clip]], shown: Sequence[str] | None = None) -> U8:
    """One row per clip, named; one column per sensor."""
    rows = []
    for name, clip in clips:
        simulation = Simulation(clip, default_rig(1.0, clip.world))
        frame = list(simulation.frames())[-1]
        pictures = tiles(simulation, frame)
        rows.append(np.hstack([_tile(pictures[each], f"{name}: {each}".replace("_", " ")) for each in shown or pictures]))
    return np.vstack(rows)


def _tile(picture: U8, text: str) -> U8:
    area = cv2.INTER_NEAREST if picture.shape[1] <= _WIDTH else cv2.INTER_AREA
    tile = np.zeros((_HEIGHT + _BAND, _WIDTH, 3), np.uint8)
    tile[_BAND:] = cv2.resize(picture, (_WIDTH, _HEIGHT), interpolation=area)
    cv2.putText(tile, text, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (235, 235, 235), 1, cv2.LINE_AA)
    return tile


def legend() -> U8:
    """The classes' colours and names."""
    columns, wide, high = 5, _WIDTH, 22
    colors = palette(CLASS_NAMES)
    picture = np.full((high * -(-len(CLASS_NAMES) // columns), columns * wide, 3), 255, np.uint8)
    for k, name in enumerate(CLASS_NAMES):
        x, y = wide * (k % columns), high * (k // columns)
        picture[y + 4 : y + 18, x + 6 : x + 34] = colors[k]
        cv2.putText(picture, name, (x + 42, y + 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (20, 20, 20), 1, cv2.LINE_AA)
    return picture


def main(arguments: Sequence[str]) -> int:
    """Write the sheets to a folder."""
    if len(arguments) != 1:
        print("usage: python -m gemini_core.simulation.gallery FOLDER", file=sys.stderr)  # noqa: T201 - a command
        return 2
    folder = Path(arguments[0])
    seconds = 0.1 * _FRAME
    streets = [(each, Clip(split="val", condition=each, seed=21, seconds=seconds)) for each in CONDITIONS]
    rooms = [
        (each, Clip(split="val", world="room", condition=each, seed=30 + k, seconds=seconds))
        for k, each in enumerate(CONDITIONS)
        if each != "rain"
    ]
    bad = [
        sheet([(failure, Clip(split="val", failure=failure, seed=21, seconds=seconds))], (sensor,))
        for failure, sensor in SHOWN_IN.items()
    ]
    for name, picture in (
        ("streets", np.vstack([sheet(streets), legend()])),
        ("rooms", sheet(rooms)),
        ("failures", np.hstack(bad)),
    ):
        _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        write_whole(folder / f"simulation_{name}.jpg", data.tobytes())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

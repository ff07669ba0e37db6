"""The renderer of a scene: cameras by rasterizing and shading, beams by Open3D's RaycastingScene (ray casting).

What stands still is set up once. What moves is put where it is for every moment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import open3d as o3d

from gemini_core.simulation import shading
from gemini_core.simulation.classes import CEILING, SKY
from gemini_core.simulation.compiling import compiled
from gemini_core.simulation.conditions import Surroundings
from gemini_core.simulation.mesh import I32, Mesh, chunks_of, triangle_table
from gemini_core.simulation.raster import rasterize
from gemini_core.simulation.rig import CameraMount
from gemini_core.simulation.scene import Scene
from gemini_core.types import F32, F64, U8, CameraModel

FAR_M = 260.0
SHADOW_STEP_M, OPEN_STEP_M = 0.14, 0.2
_SUN_AWAY_M = 20_000.0
"""Of the cameras that look down for shadows: so far away that their rays are nearly parallel."""
_LAMPS = 10
HEADLIGHTS = ((1.9, 0.6, 0.65), (0.05, 0.048, 0.043), 0.6)
"""Of the robot in a street: place of the left one in base_link, radiance at 1 m, half angle."""
_MOVER_NEAR_M, _SHADOW_NEAR_M, _BEHIND_M = 150.0, 60.0, 12.0


@dataclass(frozen=True, slots=True, eq=False)
class RenderedView:
    """What a camera sees before its sensor.

    Radiance ``color`` (H, W, 3), ``label`` (H, W) classes, ``actor`` (H, W) numbers or -1, ``depth_m`` (H, W) along z, +inf
    for the sky.
    """

    color: F32
    label: U8
    actor: I32
    depth_m: F32


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """What N infrared rays meet: ``distance_m`` (inf: nothing), and what shading.reflectances says of it."""

    distance_m: F32
    reflectance: F32
    gloss: F32
    cosine: F32
    label: U8
    actor: I32


def intrinsics(camera: CameraModel) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy."""
    return camera.fx, camera.fy, camera.cx, camera.cy


class Renderer:
    """A scene under a condition. ``set_time`` puts what moves where it is then; everything else follows from that."""

    def __init__(self, scene: Scene, air: Surroundings) -> None:
        self.scene, self.air = scene, air
        self.movers = [actor for actor in scene.actors if actor.moves]
        moving = [_numbered(actor.mesh, actor.number) for actor in self.movers]
        meshes = [scene.static, *moving]
        first_surface = np.cumsum([0, *(len(mesh.surfaces) for mesh in meshes)])
        # Everything that moves has its own rows in the table of triangles, filled where it is near.
        self._first_triangle = np.cumsum([len(mesh.corners) for mesh in meshes])
        count = sum(len(mesh.corners) for mesh in moving)
        self._corners = np.zeros((count, 3, 4), np.float32)  # position in its own frame, and swing
        if moving:
            self._corners[..., :3] = np.concatenate([mesh.corners for mesh in moving])
            self._corners[..., 3] = np.concatenate([mesh.swing for mesh in moving])
        table = np.concatenate([triangle_table(mesh) for mesh in meshes])
        self._static_chunks = chunks_of(scene.static.corners)
        self._chunks = self._static_chunks
        self._beams = _beam_scene(scene.static.corners)
        self._moving_beams: tuple[o3d.t.geometry.RaycastingScene, I32] | None = None
        shadow, shadow_camera = _sun_map(table, self._static_chunks, scene)
        open_share, open_origin = _open_map(table, scene)
        self.world = shading.World(
            triangles=table,
            surface_of=np.concatenate([m.surface_of + np.int32(k) for m, k in zip(meshes, first_surface[:-1], strict=True)]),
            surfaces=np.concatenate([mesh.surfaces for mesh in meshes]),
            light=air.light(scene.sun, indoors=scene.indoors),
            lamps=np.zeros((0, 10)),
            shadow=shadow,
            shadow_camera=shadow_camera,
            open=open_share,
            open_origin=open_origin,
            movers=np.zeros((0, 7)),
        )
        self._lamps = _lit_lamps(scene, air)

    def set_time(self, time_s: float | F64, viewer: F64, *, around: bool = False) -> None:
        """Put what moves where it is at ``time_s`` (one for all, or (M,), one each).

        ``viewer`` (4, 4) is who looks, ahead only or all ``around``; what is too far away to be seen is left out.
        """
        times = np.broadcast_to(np.asarray(time_s, np.float64), len(self.movers))
        chunks, boxes = [], []
        triangles = self.world.triangles
        for m, actor in enumerate(self.movers):
            time = float(times[m])
            at = actor.way(time)
            x, y = float(at[0, 3] - viewer[0, 3]), float(at[1, 3] - viewer[1, 3])
            away, ahead = math.hypot(x, y), x * viewer[0, 0] + y * viewer[1, 0]
            if away > min(_MOVER_NEAR_M, 50.0 * max(actor.size_m)) or (ahead < -_BEHIND_M and not around):
                continue
            first, end = int(self._first_triangle[m]), int(self._first_triangle[m + 1])
            start = int(self._first_triangle[0])
            _put(triangles, self._corners, first, end, start, at, actor.stride(time))
            length, width, height = actor.size_m
            radius = 0.5 * float(np.sqrt(length**2 + width**2 + height**2)) + 0.3
            chunks.append((at[0, 3], at[1, 3], at[2, 3] + height / 2, radius, first, end))
            if away < _SHADOW_NEAR_M:
                boxes.append((at[0, 3], at[1, 3], at[0, 0], at[1, 0], length / 2, width / 2, height))
        moving = np.array(chunks, np.float64).reshape(-1, 6)
        self._chunks = np.concatenate([moving, self._static_chunks])
        self._moving_beams = None
        lamps = self._lamps
        if len(lamps) > _LAMPS and not self.scene.indoors:
            ahead = lamps[:, :2] - viewer[:2, 3] - 12.0 * viewer[:2, 0]
            lamps = lamps[np.argsort(np.hypot(ahead[:, 0], ahead[:, 1]), kind="stable")[:_LAMPS]]
        if self.air.headlights and not self.scene.indoors:
            lamps = np.concatenate([lamps, _headlights(viewer)])
        self.world = self.world._replace(movers=np.array(boxes, np.float64).reshape(-1, 7), lamps=np.ascontiguousarray(lamps))

    def view(self, mount: CameraMount, base: F64) -> RenderedView:
        """Look through a camera on the robot at ``base`` (4, 4)."""
        camera, world_from_camera = mount.camera, base @ mount.base_from_camera
        found, inverse = self._look(camera, world_from_camera)
        color, label, actor = shading.shade(self.world, world_from_camera, intrinsics(camera), found, inverse)
        label[found < 0] = SKY
        with np.errstate(divide="ignore"):
            depth = np.float32(1.0) / inverse
        return RenderedView(color, label, actor, depth)

    def _look(self, camera: CameraModel, world_from_camera: F64) -> tuple[I32, F32]:
        size = (camera.height, camera.width)
        return rasterize(self.world.triangles, self._chunks, world_from_camera, intrinsics(camera), size, FAR_M)

    def depth(self, mount: CameraMount, base: F64) -> Hits:
        """What the rays of a camera (H * W,) meet, ``distance_m`` along z."""
        camera, world_from_camera = mount.camera, base @ mount.base_from_camera
        found, inverse = self._look(camera, world_from_camera)
        rays, length = _camera_rays(intrinsics(camera), (camera.height, camera.width), world_from_camera)
        with np.errstate(divide="ignore"):
            depth = np.float32(1.0) / inverse.reshape(-1)
        triangle = found.reshape(-1)
        origins = np.broadcast_to(world_from_camera[:3, 3].astype(np.float32), (len(rays), 3))
        seen = shading.reflectances(self.world, np.ascontiguousarray(origins), rays, depth * length, triangle)
        return Hits(depth, *seen)

    def beams(self, origins: F32, directions: F32) -> Hits:
        """What rays (N, 3) with unit directions (N, 3) meet."""
        rays = np.concatenate([origins, directions], axis=1)
        distance, triangle = _cast(self._beams, rays)
        if self._moving_beams is None:
            self._moving_beams = self._moving_scene()
        scene, rows = self._moving_beams
        if len(rows):
            near, hit = _cast(scene, rays)
            closer = near < distance
            distance[closer], triangle[closer] = near[closer], rows[hit[closer]]
        return Hits(distance, *shading.reflectances(self.world, origins, directions, distance, triangle))

    def _moving_scene(self) -> tuple[o3d.t.geometry.RaycastingScene, I32]:
        present = self._chunks[: len(self._chunks) - len(self._static_chunks), 4:].astype(np.int64)
        rows = np.concatenate([np.zeros(0, np.int32), *(np.arange(a, b, dtype=np.int32) for a, b in present)])
        corner = self.world.triangles[rows, None, 0:3]
        corners = np.concatenate([corner, corner + self.world.triangles[rows, 3:9].reshape(-1, 2, 3)], axis=1)
        return _beam_scene(corners), rows

    def extent(self, number: int, at: F64, mount: CameraMount, base: F64) -> int:
        """Pixels that an actor would cover if nothing hid it and the image had no edge (counted at half resolution)."""
        mesh = self.scene.actors[number].mesh
        table = np.zeros((len(mesh.corners), shading.TRIANGLE_COLUMNS), np.float32)
        corners = np.zeros((len(mesh.corners), 3, 4), np.float32)
        corners[..., :3] = mesh.corners
        table[:, 12] = mesh.closed
        _put(table, corners, 0, len(table), 0, at, 0.0)
        camera = mount.camera
        chunk = np.array([[*at[:3, 3], 20.0, 0, len(table)]])
        half = (camera.fx / 2, camera.fy / 2, camera.cx, camera.cy)
        found, _ = rasterize(table, chunk, base @ mount.base_from_camera, half, (camera.height, camera.width), FAR_M)
        return 4 * int(np.count_nonzero(found >= 0))


def _numbered(mesh: Mesh, actor: int) -> Mesh:
    surfaces = mesh.surfaces.copy()
    surfaces[:, shading.ACTOR] = actor
    return Mesh(mesh.corners, mesh.swing, mesh.texture, mesh.closed, mesh.surface_of, surfaces)


@compiled
def _put(  # noqa: PLR0917 - compiled functions take arrays one by one
    table: F32, corners: F32, first: int, end: int, start: int, pose: F64, stride: float
) -> None:
    """Write corner, edges and normal of triangles ``first`` to ``end`` of the table, at a pose (4, 4).

    Row k is triangle k - ``start`` of ``corners`` (T, 3, 4).
    """
    point = np.empty((3, 3))
    for k in range(first, end):
        for c in range(3):
            q = corners[k - start, c]
            x = q[0] + q[3] * stride
            for axis in range(3):
                point[c, axis] = pose[axis, 0] * x + pose[axis, 1] * q[1] + pose[axis, 2] * q[2] + pose[axis, 3]
        for axis in range(3):
            table[k, axis] = point[0, axis]
            table[k, 3 + axis] = point[1, axis] - point[0, axis]
            table[k, 6 + axis] = point[2, axis] - point[0, axis]
        x = table[k, 4] * table[k, 8] - table[k, 5] * table[k, 7]
        y = table[k, 5] * table[k, 6] - table[k, 3] * table[k, 8]
        z = table[k, 3] * table[k, 7] - table[k, 4] * table[k, 6]
        length = max(np.sqrt(x * x + y * y + z * z), 1e-12)
        table[k, 9], table[k, 10], table[k, 11] = x / length, y / length, z / length


@compiled
def _camera_rays(
    intrinsics: tuple[float, float, float, float], size: tuple[int, int], world_from_camera: F64
) -> tuple[F32, F32]:
    """Unit directions (H * W, 3) through pixels in the world, and their lengths (H * W,) for z = 1."""
    fx, fy, cx, cy = intrinsics
    height, width = size
    rays, lengths = np.empty((height * width, 3), np.float32), np.empty(height * width, np.float32)
    for i in range(height):
        for j in range(width):
            x, y = (j - cx) / fx, (i - cy) / fy
            length = np.sqrt(x * x + y * y + 1.0)
            lengths[i * width + j] = length
            for axis in range(3):
                row = world_from_camera[axis]
                rays[i * width + j, axis] = (row[0] * x + row[1] * y + row[2]) / length
    return rays, lengths


def _beam_scene(corners: F32) -> o3d.t.geometry.RaycastingScene:
    scene = o3d.t.geometry.RaycastingScene()
    if len(corners):
        vertices = np.ascontiguousarray(corners.reshape(-1, 3))
        triangles = np.arange(len(vertices), dtype=np.uint32).reshape(-1, 3)
        scene.add_triangles(o3d.core.Tensor.from_numpy(vertices), o3d.core.Tensor.from_numpy(triangles))
    return scene


def _cast(scene: o3d.t.geometry.RaycastingScene, rays: F32) -> tuple[F32, I32]:
    """Distance in units of the ray's direction (inf: nothing) and triangle (-1: nothing) of rays (..., 6) float32."""
    hits = scene.cast_rays(o3d.core.Tensor.from_numpy(rays), nthreads=1)
    return hits["t_hit"].numpy(), hits["primitive_ids"].numpy().view(np.int32)  # nothing is 2³² - 1, so -1


# --------------------------------------------------------------------------------------------------------------------
# Light


def _lit_lamps(scene: Scene, air: Surroundings) -> F64:
    """The lamps (L, 10) that shine: exit lamps (without a direction) always, the others as the condition says."""
    share = air.ceiling_lamps if scene.indoors else float(air.street_lamps)
    rows = np.array([lamp.row() for lamp in scene.lamps], np.float64).reshape(-1, 10)
    directed = rows[:, 9] > -1
    rows[directed, 3:6] *= share
    return rows[rows[:, 3:6].max(axis=1) > 0] if len(rows) else rows


def _headlights(base: F64) -> F64:
    """The robot's own headlights as lamps (2, 10): each looks a little outwards and down."""
    (x, y, z), color, half_angle = HEADLIGHTS
    lamps = np.empty((2, 10))
    for n, side in enumerate((-1, 1)):
        lamps[n, :3] = (base @ np.array([x, side * y, z, 1.0]))[:3]
        lamps[n, 3:6] = color
        lamps[n, 6:9] = base[:3, :3] @ np.array([0.994, side * 0.10, -0.03])
        lamps[n, 9] = np.cos(half_angle)
    return lamps


def _looking(direction: F64) -> F64:
    """World-from-camera (4, 4) of a camera far away that looks along ``direction`` at the origin."""
    z = direction / np.linalg.norm(direction)
    x = np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z)  # noqa: PLR2004 - any vector not along it
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = x, np.cross(z, x), z, -_SUN_AWAY_M * z
    return pose


def _depth_map(table: F32, chunks: F64, pose: F64, scene: Scene, step_m: float) -> tuple[F32, F64]:
    """Depth (h, w) from far away over a scene's bounds, inf where nothing is, and the camera (16,) of shading.World."""
    x0, x1, y0, y1 = scene.bounds
    corners = np.array([(x, y, z, 1.0) for x in (x0, x1) for y in (y0, y1) for z in (0.0, 12.0 if not scene.indoors else 3.5)])
    local = corners @ np.linalg.inv(pose).T
    focal = _SUN_AWAY_M / step_m
    pixels = local[:, :2] / local[:, 2:3] * focal
    low, high = np.floor(pixels.min(axis=0)), np.ceil(pixels.max(axis=0))  # whole: the map's grid is that of any other bounds
    size = (int(high[1] - low[1]) + 1, int(high[0] - low[0]) + 1)
    _, inverse = rasterize(table, chunks, pose, (focal, focal, -float(low[0]), -float(low[1])), size, 1e6)
    with np.errstate(divide="ignore"):
        depth = np.float32(1.0) / inverse
    camera = np.array([*pose[:3, :3].T.reshape(-1), *pose[:3, 3], focal, -low[0], -low[1], step_m])
    return depth, camera


def _sun_map(table: F32, chunks: F64, scene: Scene) -> tuple[F32, F64]:
    step = SHADOW_STEP_M if not scene.indoors else 0.03
    return _depth_map(table, chunks, _looking(-scene.sun), scene, step)


def _open_map(table: F32, scene: Scene) -> tuple[F32, tuple[float, float, float]]:
    """Share of the sky or ceiling (X, Y) that is open from the ground: less where things stand, softened."""
    mesh = scene.static
    kept = np.flatnonzero(mesh.surfaces[mesh.surface_of, shading.CLASS] != CEILING)
    step = OPEN_STEP_M if not scene.indoors else 0.06
    x0, x1, y0, y1 = (math.floor(edge / step) for edge in scene.bounds)
    pose = np.eye(4)  # looks down: x along x, y along -y
    pose[:3, :3] = np.diag([1.0, -1.0, -1.0])
    pose[2, 3] = _SUN_AWAY_M
    focal = _SUN_AWAY_M / step
    size = (y1 - y0 + 1, x1 - x0 + 1)
    chunks = chunks_of(mesh.corners[kept])
    below = np.ascontiguousarray(table[kept])
    _, inverse = rasterize(below, chunks, pose, (focal, focal, float(-x0), float(y1)), size, 1e6)
    raised = _SUN_AWAY_M - 1.0 / np.maximum(inverse, 1e-9)
    covered = np.clip((raised - 0.25) / 0.4, 0.0, 1.0).astype(np.float32)
    near, wide = cv2.GaussianBlur(covered, (0, 0), 0.25 / step), cv2.GaussianBlur(covered, (0, 0), 1.2 / step)
    share = (1.0 - 0.5 * near) * (1.0 - 0.3 * wide)
    return np.ascontiguousarray(share[::-1].T.astype(np.float32)), (x0 * step, y0 * step, step)

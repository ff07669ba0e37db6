"""Cameras, depth camera and LiDAR: rays into the street with Open3D's RaycastingScene.

What stands still is one scene, built once. What moves is put into a second, small scene for every moment, and only the rays
that pass near something that moves are cast into it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import open3d as o3d

from gemini_core.simulation import shading
from gemini_core.simulation.rig import EGO_MPS, CameraMount, LidarMount, ego_pose, ego_poses
from gemini_core.simulation.scene import (
    ACTOR,
    BUILDING,
    CAR,
    CLASS,
    CURB_M,
    I32,
    PEDESTRIAN,
    TREE,
    Actor,
    Mesh,
    Street,
    road_center,
)
from gemini_core.types import F32, F64, I64, U8, U16

NEAR_M = {CAR: 150.0, PEDESTRIAN: 80.0}
"""Things that move farther away than this (some 8 pixels high) are left out."""
SHADOW_NEAR_M = {CAR: 60.0, PEDESTRIAN: 30.0}
"""Things that move farther away than this cast no shadow."""
DEPTH_MAX_M = 20.0
POINT_TYPE = np.dtype(
    {
        "names": ["x", "y", "z", "intensity", "ring", "time"],
        "formats": ["<f4", "<f4", "<f4", "<f4", "<u2", "<f4"],
        "offsets": [0, 4, 8, 12, 16, 18],
        "itemsize": 22,
    }
)
"""A point as Velodyne's driver lays it out; time in seconds since the sweep's stamp."""

_LIGHT_HALF_M = 16.0


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What a camera sees, image by image.

    Linear ``color`` (H, W, 3), ``label`` (H, W) classes, ``actor`` (H, W) numbers or -1, ``depth_m`` (H, W) along z, +inf for
    the sky.
    """

    color: F32
    label: U8
    actor: I32
    depth_m: F32


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """One turn of the LiDAR.

    ``points`` (N,) of POINT_TYPE in the order of firing, each in the LiDAR's frame at its own time; ``label`` (N,) their
    classes.
    """

    points: np.ndarray[tuple[int], np.dtype[np.void]]
    label: U8


def _scene(vertices: F32, triangles: I32) -> o3d.t.geometry.RaycastingScene:
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        o3d.core.Tensor.from_numpy(np.ascontiguousarray(vertices)), o3d.core.Tensor.from_numpy(triangles.astype(np.uint32))
    )
    return scene


def _cast(scene: o3d.t.geometry.RaycastingScene, rays: F32) -> tuple[F32, I32]:
    """Distance in units of the ray's direction (inf: nothing) and triangle (-1: nothing) of rays (..., 6) float32."""
    hits = scene.cast_rays(o3d.core.Tensor.from_numpy(rays))
    return hits["t_hit"].numpy(), hits["primitive_ids"].numpy().view(np.int32)  # nothing is 2³² - 1, so -1


@shading.compiled
def _near_movers(rays: F32, boxes: F64, margin: float, spread: float) -> I64:
    """Numbers of the rays (N, 6) that pass through one of the boxes (M, 7) of shading.World, widened by ``margin``.

    All rays begin within ``spread`` of the middle one.
    """
    near = np.empty(len(rays), np.int64)
    spheres = np.empty((len(boxes), 4))
    middle = rays[len(rays) // 2]
    for m in range(len(boxes)):
        half_height = 0.5 * (boxes[m, 6] + CURB_M)
        x, y, z = boxes[m, 0] - middle[0], boxes[m, 1] - middle[1], half_height - middle[2]
        radius = math.sqrt(boxes[m, 4] ** 2 + boxes[m, 5] ** 2 + half_height**2) + 2 * margin + spread
        spheres[m, 0], spheres[m, 1], spheres[m, 2] = x, y, z
        spheres[m, 3] = x * x + y * y + z * z - radius * radius
    count = 0
    for n in range(len(rays)):
        dx, dy, dz = float(rays[n, 3]), float(rays[n, 4]), float(rays[n, 5])
        square = dx * dx + dy * dy + dz * dz
        for m in range(len(boxes)):
            along = spheres[m, 0] * dx + spheres[m, 1] * dy + spheres[m, 2] * dz
            if spheres[m, 3] > 0 and (along <= 0 or spheres[m, 3] * square > along * along):
                continue
            half_x, half_y, height = boxes[m, 4] + margin, boxes[m, 5] + margin, boxes[m, 6] + CURB_M + margin
            x, y, z = boxes[m, 0] - rays[n, 0], boxes[m, 1] - rays[n, 1], 0.5 * height - rays[n, 2]
            # The sphere around the box is met; is the box itself?
            c, s = boxes[m, 2], boxes[m, 3]
            ux, uy = 1.0 / (c * dx + s * dy + 1e-12), 1.0 / (c * dy - s * dx + 1e-12)
            uz = 1.0 / (dz + 1e-12)
            mx, my = c * x + s * y, c * y - s * x
            ax, bx, ay, by = (mx - half_x) * ux, (mx + half_x) * ux, (my - half_y) * uy, (my + half_y) * uy
            az, bz = (z - 0.5 * height - margin) * uz, (z + 0.5 * height) * uz
            if max(min(ax, bx), min(ay, by), min(az, bz)) <= min(max(ax, bx), max(ay, by), max(az, bz)):
                near[count] = n
                count += 1
                break
    return near[:count]


@shading.compiled
def _place(  # noqa: PLR0917 - compiled functions take arrays one by one
    present: I64, poses: F64, strides: F64, parts: F32, first_vertex: I64, first_triangle: I64, corner_of: I32
) -> tuple[F32, I32, I32]:
    """Vertices (V, 3), triangles (T, 3) and their rows in the table (T,) of the things in ``present``.

    ``parts`` (all vertices, 4) are positions in the thing's frame and their swing; ``first_vertex`` (M + 1,) and
    ``first_triangle`` (M + 1,) say where each thing begins, the latter in the table; ``corner_of`` has all their triangles.
    """
    vertex_count, triangle_count = 0, 0
    for m in present:
        vertex_count += first_vertex[m + 1] - first_vertex[m]
        triangle_count += first_triangle[m + 1] - first_triangle[m]
    vertices = np.empty((vertex_count, 3), np.float32)
    triangles, rows = np.empty((triangle_count, 3), np.int32), np.empty(triangle_count, np.int32)
    v, t = 0, 0
    for n in range(len(present)):
        m = present[n]
        for k in range(first_triangle[m], first_triangle[m + 1]):
            for corner in range(3):
                triangles[t, corner] = corner_of[k - first_triangle[0], corner] + v
            rows[t] = k
            t += 1
        for k in range(first_vertex[m], first_vertex[m + 1]):
            x = parts[k, 0] + parts[k, 3] * strides[n]
            for axis in range(3):
                pose = poses[n, axis]
                vertices[v, axis] = pose[0] * x + pose[1] * parts[k, 1] + pose[2] * parts[k, 2] + pose[3]
            v += 1
    return vertices, triangles, rows


@shading.compiled
def _fill_triangles(table: F32, rows: I32, vertices: F32, triangles: I32) -> None:
    """Write corner, edges and normal of triangles (T, 3) into rows (T,) of shading.World's table."""
    for t in range(len(triangles)):
        a, b, c, row = triangles[t, 0], triangles[t, 1], triangles[t, 2], rows[t]
        for axis in range(3):
            table[row, axis] = vertices[a, axis]
            table[row, 3 + axis] = vertices[b, axis] - vertices[a, axis]
            table[row, 6 + axis] = vertices[c, axis] - vertices[a, axis]
        x = table[row, 4] * table[row, 8] - table[row, 5] * table[row, 7]
        y = table[row, 5] * table[row, 6] - table[row, 3] * table[row, 8]
        z = table[row, 3] * table[row, 7] - table[row, 4] * table[row, 6]
        length = max(np.sqrt(x * x + y * y + z * z), 1e-12)
        table[row, 9], table[row, 10], table[row, 11] = x / length, y / length, z / length


@shading.compiled
def _cosines(triangles: F32, triangle: I32, rays: F32) -> F32:
    """Cosine between rays (N, 6) and the normals of what they hit (N,); 1 for the sky."""
    cosine = np.ones(len(rays), np.float32)
    for n in range(len(rays)):
        k = triangle[n]
        if k >= 0:
            dx, dy, dz = rays[n, 3], rays[n, 4], rays[n, 5]
            along = dx * triangles[k, 9] + dy * triangles[k, 10] + dz * triangles[k, 11]
            cosine[n] = abs(along) / np.sqrt(dx * dx + dy * dy + dz * dz)
    return cosine


class Stage:
    """The street set up for rays. ``set_time`` puts what moves where it is then; everything else follows from that."""

    def __init__(self, street: Street, seed: int) -> None:
        self._movers = [actor for actor in street.actors if actor.moves]
        moving = [_numbered(actor) for actor in self._movers]
        meshes = [street.static, *moving]
        first_surface = np.cumsum([0, *(len(mesh.surfaces) for mesh in meshes)])
        # Everything that moves has its own rows in the table of triangles, filled where it is near.
        self._first_triangle = np.cumsum([len(mesh.triangles) for mesh in meshes])
        self._first_vertex = np.cumsum([0, *(len(mesh.vertices) for mesh in moving)])
        self._parts = np.concatenate(
            [np.zeros((0, 4), np.float32), *(np.column_stack([mesh.vertices, mesh.swing]) for mesh in moving)]
        )
        self._corner_of = np.concatenate([np.zeros((0, 3), np.int32), *(mesh.triangles for mesh in moving)])
        static = street.static
        self._static = _scene(static.vertices, static.triangles)
        self._boxes = np.zeros((0, 7))
        self._moving: o3d.t.geometry.RaycastingScene | None = None
        self._moving_triangles = np.zeros(0, np.int32)
        light, light_origin = _light_map(street, self._static)
        self.world = shading.World(
            triangles=np.zeros((self._first_triangle[-1], 12), np.float32),
            surface_of=np.concatenate([m.surface_of + np.int32(k) for m, k in zip(meshes, first_surface[:-1], strict=True)]),
            surfaces=np.concatenate([mesh.surfaces for mesh in meshes]),
            noise=shading.noise_tile(seed),
            light=light,
            light_origin=light_origin,
            movers=np.zeros((0, 7)),
            sun=(float(street.sun[0]), float(street.sun[1]), float(street.sun[2])),
        )
        rows = np.arange(len(static.triangles), dtype=np.int32)
        _fill_triangles(self.world.triangles, rows, static.vertices, static.triangles)

    def set_time(self, time_s: float | F64, viewer: F64) -> None:
        """Put what moves where it is at ``time_s`` (one for all, or (M,), one each); ``viewer`` (3,) is who looks."""
        times = np.broadcast_to(np.asarray(time_s, np.float64), len(self._movers))
        away = [abs(actor.x_at(float(time)) - viewer[0]) for actor, time in zip(self._movers, times, strict=True)]
        present = [m for m, actor in enumerate(self._movers) if away[m] < NEAR_M[actor.label]]
        poses, strides = np.empty((len(present), 4, 4)), np.empty(len(present))
        boxes = np.empty((len(present), 7))
        for n, m in enumerate(present):
            actor, time = self._movers[m], float(times[m])
            poses[n], strides[n] = actor.world_from_actor(time), actor.stride(time)
            length, width, height = actor.size_m
            boxes[n] = (*poses[n, :2, 3], poses[n, 0, 0], poses[n, 1, 0], length / 2, width / 2, height)
        shadowing = [n for n, m in enumerate(present) if away[m] < SHADOW_NEAR_M[self._movers[m].label]]
        self.world = self.world._replace(movers=boxes[shadowing])
        self._boxes, self._moving = boxes, None
        if present:
            vertices, triangles, self._moving_triangles = _place(
                np.array(present), poses, strides, self._parts, self._first_vertex, self._first_triangle, self._corner_of
            )
            self._moving = _scene(vertices, triangles)
            _fill_triangles(self.world.triangles, self._moving_triangles, vertices, triangles)

    def cast(self, rays: F32, camera_from_world: F64 | None = None, spread: float = 0.0) -> tuple[F32, I32]:
        """Cast rays (N, 6): distance in units of the direction (N,), inf for the sky, and triangle (N,), -1 for the sky.

        ``camera_from_world`` spares the rays of a camera a look at what is behind it; ``spread`` is how far from the middle
        one rays begin, metres.
        """
        distance, triangle = _cast(self._static, rays)
        boxes = self._boxes
        if camera_from_world is not None:
            ahead = boxes[:, :2] @ camera_from_world[2, :2] + camera_from_world[2, 3]
            boxes = boxes[ahead > -np.hypot(boxes[:, 4], boxes[:, 5]) - 0.5]
        if self._moving is not None:
            near = _near_movers(rays, boxes, 0.15, spread)
            moving_distance, moving_triangle = _cast(self._moving, rays[near])
            closer = moving_distance < distance[near]
            distance[near[closer]] = moving_distance[closer]
            triangle[near[closer]] = self._moving_triangles[moving_triangle[closer]]
        return distance, triangle

    def _look(self, mount: CameraMount, time_s: float) -> tuple[F64, F32, F32, I32]:
        """World-from-camera (4, 4), rays (H * W, 6), their distances and triangles through a camera, one ray a pixel.

        First every second row and column is cast; where nine such rays around hit one triangle, so do those between them,
        and only the others are cast too. A thing narrower than two pixels can fall between the first rays.
        """
        world_from_camera = ego_pose(time_s) @ mount.base_from_camera
        camera_from_world = np.linalg.inv(world_from_camera).astype(np.float64, copy=False)
        camera = mount.camera
        self.set_time(time_s, world_from_camera[:3, 3])
        columns, rows = np.arange(float(camera.width)), np.arange(float(camera.height))
        coarse_rays = _camera_rays(mount, world_from_camera, columns[::2] + 0.5, rows[::2] + 0.5)
        coarse = self.cast(coarse_rays, camera_from_world)[1].reshape(len(rows) // 2, len(columns) // 2)
        rays = _camera_rays(mount, world_from_camera, columns, rows)
        distance, triangle = np.empty(len(rays), np.float32), np.empty(len(rays), np.int32)
        rest = shading.fill_uniform(
            self.world.triangles, world_from_camera[:3, 3].copy(), rays, coarse, shading.uniform(coarse), distance, triangle
        )
        distance[rest], triangle[rest] = self.cast(rays[rest], camera_from_world)
        return world_from_camera, rays, distance, triangle

    def view(self, mount: CameraMount, time_s: float) -> View:
        """Look through a camera."""
        world_from_camera, rays, distance, triangle = self._look(mount, time_s)
        camera = mount.camera
        shape = (camera.height, camera.width)
        color, label, actor = shading.shade_image(
            self.world,
            world_from_camera[:3, 3].copy(),
            rays[:, 3:].reshape(*shape, 3),
            distance.reshape(shape),
            triangle.reshape(shape),
            1.0 / camera.fx,
        )
        return View(color, label, actor, distance.reshape(shape))

    def depth_m(self, mount: CameraMount, time_s: float) -> tuple[F32, F32]:
        """Depth along z (H, W) in metres, inf for the sky, and the cosine (H, W) at which the ray meets the surface."""
        _, rays, distance, triangle = self._look(mount, time_s)
        camera = mount.camera
        cosine = _cosines(self.world.triangles, triangle, rays)
        return distance.reshape(camera.height, camera.width), cosine.reshape(camera.height, camera.width)

    def brightness(self, mount: CameraMount, time_s: float) -> F32:
        """Luminance (H, W) through a camera, rays cast at half resolution; see shading.brightness_image."""
        world_from_camera = ego_pose(time_s) @ mount.base_from_camera
        camera_from_world = np.linalg.inv(world_from_camera).astype(np.float64, copy=False)
        camera = mount.camera
        self.set_time(time_s, world_from_camera[:3, 3])
        columns, rows = np.arange(0.5, camera.width, 2.0), np.arange(0.5, camera.height, 2.0)
        distance, triangle = self.cast(_camera_rays(mount, world_from_camera, columns, rows), camera_from_world)
        shape = (len(rows), len(columns))
        return shading.brightness_image(
            self.world,
            world_from_camera[:3, 3].copy(),
            world_from_camera[:3, :3].copy(),
            (camera.fx, camera.fy, camera.cx, camera.cy),
            distance.reshape(shape),
            triangle.reshape(shape),
        )

    def sweep(self, mount: LidarMount, start_s: float, turn_s: float, rng: np.random.Generator) -> Sweep:
        """Measure one turn from the moving robot: each firing has its own time and pose.

        Every thing that moves stands still in the turn, where it is when the beam passes its middle.
        """
        beams, share = len(mount.elevations_rad), np.arange(mount.columns) / mount.columns
        poses = ego_poses(start_s + share * turn_s) @ mount.base_from_lidar  # (columns, 4, 4)
        self.set_time(self._passing_times(mount, start_s, turn_s), poses[0, :3, 3])
        azimuth = mount.cut_rad - 2 * np.pi * share
        elevation = mount.elevations_rad
        local = np.stack(
            [
                np.cos(azimuth)[:, None] * np.cos(elevation),
                np.sin(azimuth)[:, None] * np.cos(elevation),
                np.broadcast_to(np.sin(elevation), (mount.columns, beams)),
            ],
            axis=-1,
        )  # (columns, beams, 3)
        rays = np.empty((mount.columns * beams, 6), np.float32)
        rays[:, :3] = np.repeat(poses[:, :3, 3], beams, axis=0)
        turned = local.astype(np.float32) @ poses[:, :3, :3].astype(np.float32).transpose(0, 2, 1)
        rays[:, 3:] = turned.reshape(-1, 3)
        distance, triangle = self.cast(rays, spread=EGO_MPS * turn_s)
        strength, label = shading.lidar_returns(self.world, rays[:, :3], rays[:, 3:], distance, triangle)
        measured = distance + np.float32(0.015) * rng.standard_normal(len(distance), dtype=np.float32)
        # The light that comes back falls with the square of the range; the detector's threshold is noisy.
        with np.errstate(over="ignore", invalid="ignore"):
            signal = strength * (mount.max_range_m / measured) ** 2
        enough = signal > 0.08 * rng.standard_exponential(len(distance), dtype=np.float32)
        kept = np.flatnonzero((triangle >= 0) & (measured > mount.min_range_m) & (measured < mount.max_range_m) & enough)
        points = np.zeros(len(kept), POINT_TYPE)
        position = local.reshape(-1, 3)[kept] * measured[kept, None]
        points["x"], points["y"], points["z"] = position.T
        points["intensity"] = np.floor(strength[kept] * 255.0)
        points["ring"] = kept % beams
        points["time"] = (kept // beams) * (turn_s / mount.columns)
        return Sweep(points, label[kept])

    def _passing_times(self, mount: LidarMount, start_s: float, turn_s: float) -> F64:
        """When in a turn the beam passes each thing that moves (M,), seconds."""
        lidar_from_world = np.linalg.inv(ego_pose(start_s + turn_s / 2) @ mount.base_from_lidar)
        times = np.empty(len(self._movers))
        for m, actor in enumerate(self._movers):
            position = lidar_from_world @ actor.world_from_actor(start_s + turn_s / 2)[:, 3]
            share = ((mount.cut_rad - np.arctan2(position[1], position[0])) / (2 * np.pi)) % 1.0
            times[m] = start_s + share * turn_s
        return times


def _numbered(actor: Actor) -> Mesh:
    surfaces = actor.mesh.surfaces.copy()
    surfaces[:, ACTOR] = actor.number
    return Mesh(actor.mesh.vertices, actor.mesh.triangles, actor.mesh.surface_of, surfaces, actor.mesh.swing)


def _camera_rays(mount: CameraMount, world_from_camera: F64, columns: F64, rows: F64) -> F32:
    """Rays (rows * columns, 6) through pixels; the directions have z = 1 in the camera, so a distance is a depth."""
    camera = mount.camera
    return _fill_rays((columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy, world_from_camera)


@shading.compiled
def _fill_rays(x: F64, y: F64, world_from_camera: F64) -> F32:
    rays = np.empty((len(y) * len(x), 6), np.float32)
    for i in range(len(y)):
        for j in range(len(x)):
            for axis in range(3):
                row = world_from_camera[axis]
                rays[i * len(x) + j, axis] = row[3]
                rays[i * len(x) + j, 3 + axis] = row[0] * x[j] + row[1] * y[i] + row[2]
    return rays


def _light_map(street: Street, everything: o3d.t.geometry.RaycastingScene) -> tuple[F32, tuple[float, float]]:
    """Where on the ground the sun and the sky are seen; shading.World says how it is laid out."""
    step = shading.LIGHT_STEP_M
    x = np.arange(street.start_m, street.end_m, step)
    lateral = np.arange(-_LIGHT_HALF_M, _LIGHT_HALF_M, step)
    ground = np.empty((len(x), len(lateral), 3), np.float32)
    ground[..., 0] = x[:, None]
    ground[..., 1] = road_center(x)[:, None] + lateral
    ground[..., 2] = CURB_M + 0.01
    mesh = street.static
    solid = np.isin(mesh.surfaces[mesh.surface_of, CLASS].astype(int), (BUILDING, TREE))
    houses = _scene(mesh.vertices, mesh.triangles[solid])
    light = np.ones((len(x), len(lateral), 3), np.float32)
    for channel, scene in ((0, everything), (1, houses)):
        light[..., channel] = np.isinf(_open(scene, ground, street.sun))
    # Openness to the sky, nearby things only: directions spread evenly over the hemisphere, weighted by the cosine.
    coarse = ground[::2, ::2]
    seen = np.zeros(coarse.shape[:2], np.float32)
    directions = 12
    for k in range(directions):
        square, angle = (k + 0.5) / directions, k * 2.399963  # the golden angle
        radius = np.sqrt(square)
        direction = np.array([radius * np.cos(angle), radius * np.sin(angle), np.sqrt(1 - square)])
        seen += np.minimum(_open(everything, coarse, direction) / 6.0, 1.0) / directions
    size = (len(lateral), len(x))
    light[..., 2] = 0.25 + 0.75 * cv2.GaussianBlur(cv2.resize(seen, size, interpolation=cv2.INTER_LINEAR), (0, 0), 1.5)
    light[..., :2] = cv2.GaussianBlur(light[..., :2].copy(), (0, 0), 0.6)
    return light, (float(x[0]), float(lateral[0]))


def _open(scene: o3d.t.geometry.RaycastingScene, points: F32, direction: F64) -> F32:
    """How far it is free from points (..., 3) in one direction, metres; inf where nothing is in the way."""
    rays = np.empty((*points.shape[:-1], 6), np.float32)
    rays[..., :3], rays[..., 3:] = points, direction
    return _cast(scene, rays)[0]


# --------------------------------------------------------------------------------------------------------------------
# From what is seen to what a sensor reports


def _tone_curve() -> U8:
    """8-bit values of linear light in steps of 1/2048: a shoulder for bright skies, then the display's gamma."""
    linear = np.arange(4096) / 2048
    display = np.minimum((1 - np.exp(-1.9 * linear)) / (1 - np.exp(-3.2)), 1.0) ** (1 / 2.2)
    curve: U8 = np.round(255 * display).astype(np.uint8)
    return curve


_TONE_CURVE = _tone_curve()


def expose(color: F32, rng: np.random.Generator) -> U8:
    """Make the 8-bit picture (H, W, 3) of linear light: the lens's blur, shot and read noise, the tone curve."""
    blurred = cv2.GaussianBlur(color, (0, 0), 0.45)
    linear: F32 = blurred.reshape(-1).astype(np.float32, copy=False)
    picture: U8 = _develop(linear, rng.integers(1 << 63, dtype=np.uint64), _TONE_CURVE).reshape(color.shape)
    return picture


@shading.compiled
def _develop(linear: F32, seed: np.uint64, curve: U8) -> U8:
    picture = np.empty(len(linear), np.uint8)
    state = seed
    for n in range(len(linear)):
        # Knuth's linear congruential generator (MMIX); the sum of four numbers of 12 bits is near enough to a normal one.
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        total = ((state >> np.uint64(52)) & np.uint64(4095)) + ((state >> np.uint64(40)) & np.uint64(4095))
        total += ((state >> np.uint64(28)) & np.uint64(4095)) + ((state >> np.uint64(16)) & np.uint64(4095))
        noise = (np.float32(total) - np.float32(8190.0)) * np.float32(math.sqrt(3.0) / 4096.0)
        level = linear[n] + noise * np.sqrt(np.float32(1.5e-4) * linear[n] + np.float32(4e-6))
        picture[n] = curve[min(max(int(level * 2048), 0), len(curve) - 1)]
    return picture


def measure_depth(depth_m: F32, cosine: F32, rng: np.random.Generator) -> U16:
    """Make the 16UC1 image of true depth: noise that grows with z², lost readings, 0 beyond DEPTH_MAX_M."""
    z = np.where(np.isfinite(depth_m), depth_m, 0.0).astype(np.float32)
    noisy = z + rng.standard_normal(z.shape, dtype=np.float32) * (0.001 + 0.0006 * z * z)
    lost = rng.random(z.shape, dtype=np.float32) < 0.004 + 0.25 * np.maximum(0.0, 0.06 - cosine) / 0.06
    valid = (z > 0.2) & (z <= DEPTH_MAX_M) & (noisy <= DEPTH_MAX_M) & ~lost  # noqa: PLR2004 - metres, too near to be matched
    return np.where(valid, np.round(noisy * 1000.0), 0).astype(np.uint16)

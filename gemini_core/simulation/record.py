"""Simulated drives: frame by frame, as ROS messages, and as a bag.

What is measured when, and with which approximations:

* Cameras have no rolling shutter. The colour camera's picture is that of the middle of the time its shutter is open;
  only the failure "motion_blur" smears it. The depth camera fires 8 ms before the colour camera.
* Each firing of the LiDAR has its own time and pose of the robot; what moves stands still within a turn, where it is when
  the beam passes it.
* The event camera sees ``packets_per_frame`` images per colour image; gemini_core.simulation.events says what happens between
  two of them.
* Boxes are those of the bodies, not of what is visible of them. A box is listed when the colour camera sees enough of it, or
  when one of the LiDAR's points lies on it and the camera looks its way, though it may see only what stands before it. How
  much of it either sees is said on another topic.

Messages carry the log time at which a driver would have them: after exposure, turn or packet, and transfer.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from gemini_core.bag import messages
from gemini_core.bag.messages import Message
from gemini_core.bag.reader import BagReader
from gemini_core.bag.writer import BagWriter, Storage
from gemini_core.errors import BagError
from gemini_core.rig.geometry import project_points
from gemini_core.simulation import camera, ranging
from gemini_core.simulation.classes import BOXED, CLASS_NAMES
from gemini_core.simulation.clip import (
    DESCRIPTION_TOPIC,
    FORMAT,
    Clip,
    describe,
    describe_with_format,
    to_json,
)
from gemini_core.simulation.conditions import surroundings
from gemini_core.simulation.events import Events, EventSensor, encode_evt3
from gemini_core.simulation.renderer import RenderedView, Renderer, intrinsics
from gemini_core.simulation.rig import (
    BASE_FRAME,
    START_NS,
    WORLD_FRAME,
    CameraMount,
    Rig,
    default_rig,
    low_resolution_events,
)
from gemini_core.simulation.room import build_room
from gemini_core.simulation.scene import Actor
from gemini_core.simulation.street import build_street
from gemini_core.types import F64, U8, U16, CameraModel, Detection3D, StampedTransform

__all__ = ["TOPICS", "SimulatedFrame", "Simulation", "Visibility", "describe", "record", "record_set", "simulate"]

VISIBLE_SHARE = 2e-4
"""Share of the image's pixels from which on a thing that they show has its box listed (61 of 640 x 480)."""
LISTED_POINTS = 1
"""Points of the LiDAR from which on a thing whose middle is within the image is listed, seen or not (as nuScenes counts)."""

TOPICS = {
    "rgb": "/rgb/image",
    "rgb_info": "/rgb/camera_info",
    "depth": "/depth/image",
    "depth_info": "/depth/camera_info",
    "lidar": "/lidar/points",
    "events": "/events",
    "events_info": "/events/camera_info",
    "tf": "/tf",
    "tf_static": "/tf_static",
    "mask": "/ground_truth/segmentation",
    "boxes": "/ground_truth/detections",
    "visibility": "/ground_truth/visibility",
    "labels": "/ground_truth/label_info",
    "description": DESCRIPTION_TOPIC,
}

_IMAGE_DELAY_NS = 5_000_000
_TRUTH_DELAY_NS = 5_500_000
_SWEEP_DELAY_NS = 1_500_000
_PACKET_DELAY_NS = 1_000_000
_TRANSFORM_DELAY_NS = 300_000
_SENSOR_CLOCK_AT_START_US = (1 << 24) - 700_000
"""Time of the event camera's own clock at START_NS: it wraps early in every recording, as it does every 16.8 s."""
_EVENT_LENS_BLUR_PX = 0.6
_EVENT_STREAK_S = 4e-3

# Streams of random numbers of the sensors.
_DEPTH, _EVENTS, _LIDAR, _COLOR, _SHAKE, _RAIN, _LENS = range(7)

Logged = tuple[str, Message, int]
"""Topic, message, log time in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Visibility:
    """How much of a boxed thing the sensors see.

    ``id`` is its box's; ``pixels`` of it in the colour image, and ``share`` of those it would have if nothing hid it and the
    image had no edge (0 to 1); ``lidar_points`` of the frame's sweep that lie on it.
    """

    id: str
    class_name: str
    pixels: int
    share: float
    lidar_points: int


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedFrame:
    """Everything that belongs to one colour image, with the truth about it.

    ``picture`` (H, W, 3) uint8; ``view`` the same before the sensor (classes, actors, depth); ``depth_mm`` (h, w) uint16 at
    ``depth_stamp_ns``; ``sweep`` from ``sweep_start_ns``; ``packets`` the events since the image before; ``boxes`` in the
    colour camera's frame, and ``visibility`` of each.
    """

    index: int
    stamp_ns: int
    picture: U8
    view: RenderedView
    depth_stamp_ns: int
    depth_mm: U16
    sweep_start_ns: int
    sweep: ranging.Sweep
    packets: tuple[Events, ...]
    boxes: tuple[Detection3D, ...]
    visibility: tuple[Visibility, ...]


class Simulation:
    """A recording of a clip; the same arguments give the same bits on the same machine."""

    def __init__(self, clip: Clip, rig: Rig | None = None) -> None:
        self.clip = clip
        self.rig = rig or default_rig(1.0, clip.world)
        if clip.failure == "event_low_resolution":
            self.rig = low_resolution_events(self.rig)
        self.frame_count = max(1, round(clip.seconds * 1e9 / self.rig.timing.frame_ns))
        self.air = surroundings(clip.world, clip.condition)
        self.scene = build_street(clip) if clip.world == "street" else build_room(clip)
        self.renderer = Renderer(self.scene, self.air)

    def frames(self) -> Iterator[SimulatedFrame]:
        """The frames in order. Frame k is stamped k + 1 periods after the start, so that a window of events precedes it."""
        watcher = self._watch()
        for index in range(self.frame_count):
            yield self._frame(index, tuple(next(watcher) for _ in range(self.rig.timing.packets_per_frame)))

    def messages(self, progress: Callable[[int, int], None] | None = None) -> Iterator[Logged]:
        """All messages in the order of their log times, no two of which are equal.

        After the last frame come what completes it: two packets of events, one more depth image, and transforms.
        ``progress`` is told the frames done and their number after each.
        """
        return _in_order(self._batches(progress))

    def base(self, stamp_ns: int) -> F64:
        """World-from-base (4, 4) at a stamp."""
        return self.scene.ego(_seconds(stamp_ns))

    def depth_at(self, stamp_ns: int) -> U16:
        """The depth image (h, w) uint16 in millimetres at a stamp; 0 is no reading."""
        base = self.base(stamp_ns)
        self.renderer.set_time(_seconds(stamp_ns), base)
        hits = self.renderer.depth(self.rig.depth, base)
        return ranging.measure_depth(hits, self.rig.depth, self.air, self.clip.sensor_rng(_DEPTH, stamp_ns - START_NS))

    def _look(self, mount: CameraMount, stamp_ns: int) -> RenderedView:
        base = self.base(stamp_ns)
        self.renderer.set_time(_seconds(stamp_ns), base)
        return self.renderer.view(mount, base)

    def _watch(self) -> Iterator[Events]:
        """The event camera: endless, packet by packet."""
        sensor, step = None, 0
        to_gray = np.array([0.2126, 0.7152, 0.0722], np.float32)
        while True:
            stamp_ns = START_NS + step * self.rig.timing.packet_ns
            radiance = self._look(self.rig.event, stamp_ns).color @ to_gray
            if self.air.rain:
                rng, bright = self.clip.sensor_rng(_RAIN, step), float(self.air.airlight[1])
                camera.add_streaks(radiance, rng, 0.4 * self.air.rain, bright, _EVENT_STREAK_S)
            radiance = cv2.GaussianBlur(radiance, (0, 0), _EVENT_LENS_BLUR_PX).astype(np.float32, copy=False)
            if sensor is None:
                sensor = EventSensor(radiance, stamp_ns // 1000, self.clip.sensor_rng(_EVENTS))
            else:
                yield sensor.see(radiance, stamp_ns // 1000)
            step += 1

    def _frame(self, index: int, packets: tuple[Events, ...]) -> SimulatedFrame:
        rig = self.rig
        stamp_ns = START_NS + (index + 1) * rig.timing.frame_ns
        depth_stamp_ns, sweep_start_ns = stamp_ns - rig.timing.depth_lead_ns, rig.sweep_start_ns(stamp_ns)
        view = self._look(rig.rgb, stamp_ns)
        picture = self._expose(view, index, stamp_ns)
        turn_s, rng = rig.timing.frame_ns * 1e-9, self.clip.sensor_rng(_LIDAR, index)
        sweep = ranging.sweep(self.renderer, rig.lidar, _seconds(sweep_start_ns), turn_s, failure=self.clip.failure, rng=rng)
        boxes, visibility = self._boxes(view, sweep, stamp_ns)
        return SimulatedFrame(
            index=index,
            stamp_ns=stamp_ns,
            picture=picture,
            view=view,
            depth_stamp_ns=depth_stamp_ns,
            depth_mm=self.depth_at(depth_stamp_ns),
            sweep_start_ns=sweep_start_ns,
            sweep=sweep,
            packets=packets,
            boxes=boxes,
            visibility=visibility,
        )

    def _expose(self, view: RenderedView, index: int, stamp_ns: int) -> U8:
        """The picture (H, W, 3) of a view."""
        clip, color = self.clip, view.color
        exposure = camera.meter(color, clip.failure)
        if self.air.rain:
            color = color.copy()
            camera.add_streaks(color, clip.sensor_rng(_RAIN, 1 << 20, index), self.air.rain, self.air.airlight[1], 10e-3)
            camera.add_lens_drops(color, clip.sensor_rng(_LENS))
        if clip.failure == "motion_blur":
            shake = clip.sensor_rng(_SHAKE, index).normal(0.0, camera.SHAKE_RAD_S, 3)
            motion = self._camera_motion(stamp_ns) + np.concatenate([np.zeros(3), shake])
            color = camera.blur_by_motion(color, view.depth_m, intrinsics(self.rig.rgb.camera), motion, camera.SHAKEN_S)
        return camera.develop(color, exposure, clip.sensor_rng(_COLOR, index))

    def _camera_motion(self, stamp_ns: int) -> F64:
        """Velocity and angular velocity (6,) of the colour camera in its own frame, by a difference over 2 ms."""
        before, after = (self.base(stamp_ns + step) @ self.rig.rgb.base_from_camera for step in (-1_000_000, 1_000_000))
        between = np.linalg.inv(before) @ after
        turn = np.array([between[2, 1] - between[1, 2], between[0, 2] - between[2, 0], between[1, 0] - between[0, 1]]) / 2
        return np.concatenate([between[:3, 3], turn]) / 2e-3

    def _boxes(
        self, view: RenderedView, sweep: ranging.Sweep, stamp_ns: int
    ) -> tuple[tuple[Detection3D, ...], tuple[Visibility, ...]]:
        base = self.base(stamp_ns)
        camera_from_world = np.linalg.inv(base @ self.rig.rgb.base_from_camera)
        count = len(self.scene.actors)
        pixels = np.bincount(view.actor[view.actor >= 0], minlength=count)
        points = np.bincount(sweep.actor[sweep.actor >= 0], minlength=count)
        boxes, visibility = [], []
        for actor in self.scene.actors:
            seen, hit = int(pixels[actor.number]), int(points[actor.number])
            visible = seen >= VISIBLE_SHARE * view.actor.size
            if actor.label not in BOXED or not (visible or hit >= LISTED_POINTS):
                continue
            at = actor.way(_seconds(stamp_ns))
            body = _box(actor, camera_from_world @ at)
            if not visible and not project_points(self.rig.rgb.camera, np.array([body.center_m], np.float32).T)[2][0]:
                continue
            whole = max(self.renderer.extent(actor.number, at, self.rig.rgb, base), seen, 1)
            boxes.append(body)
            visibility.append(Visibility(str(actor.number), body.class_name, seen, round(seen / whole, 3), hit))
        return tuple(boxes), tuple(visibility)

    # ----------------------------------------------------------------------------------------------------------------
    # Messages

    def _batches(self, progress: Callable[[int, int], None] | None) -> Iterator[tuple[int, list[Logged]]]:
        """Messages in batches, each with a time before which no later batch logs anything."""
        timing, offset_us = self.rig.timing, START_NS // 1000 - _SENSOR_CLOCK_AT_START_US
        yield START_NS, self._fixed()
        watcher, sequence, transforms = self._watch(), 0, START_NS
        for index in range(self.frame_count + 1):
            batch: list[Logged] = []
            last = index == self.frame_count
            stamp_ns = START_NS + (index + 1) * timing.frame_ns
            packets = tuple(next(watcher) for _ in range(2 if last else timing.packets_per_frame))
            for events in packets:
                batch += self._packet(events, sequence, offset_us)
                sequence += 1
            while transforms <= stamp_ns:
                batch.append(self._moving_transform(transforms))
                transforms += timing.transform_ns
            if last:
                depth_stamp_ns = stamp_ns - timing.depth_lead_ns
                batch += self._depth(self.depth_at(depth_stamp_ns), depth_stamp_ns)
            else:
                batch += self._sensors(self._frame(index, packets))
                if progress:
                    progress(index + 1, self.frame_count)
            yield stamp_ns, batch

    def _fixed(self) -> list[Logged]:
        rig = self.rig
        mounts = {
            rig.rgb.frame_id: rig.rgb.base_from_camera,
            rig.depth.frame_id: rig.depth.base_from_camera,
            rig.event.frame_id: rig.event.base_from_camera,
            rig.lidar.frame_id: rig.lidar.base_from_lidar,
        }
        transforms = [StampedTransform(START_NS, BASE_FRAME, frame, matrix) for frame, matrix in mounts.items()]
        labels = messages.label_info(CLASS_NAMES, START_NS, rig.rgb.frame_id)
        description = messages.make("std_msgs/msg/String", data=to_json(self.clip))
        return [
            (TOPICS["tf_static"], messages.tf_message(transforms), START_NS),
            (TOPICS["labels"], labels, START_NS + 1),
            (TOPICS["description"], description, START_NS + 2),
        ]

    def _moving_transform(self, stamp_ns: int) -> Logged:
        transform = StampedTransform(stamp_ns, WORLD_FRAME, BASE_FRAME, self.base(stamp_ns))
        return TOPICS["tf"], messages.tf_message([transform]), stamp_ns + _TRANSFORM_DELAY_NS

    def _packet(self, events: Events, sequence: int, offset_us: int) -> list[Logged]:
        mount = self.rig.event
        stamp_ns = 1000 * int(events.time_us[0] if len(events.time_us) else events.end_us)
        log_ns = events.end_us * 1000 + _PACKET_DELAY_NS
        packet = messages.event_packet(
            encode_evt3(events, offset_us),
            width=mount.camera.width,
            height=mount.camera.height,
            seq=sequence,
            stamp_ns=stamp_ns,
            frame_id=mount.frame_id,
        )
        info = messages.camera_info(mount.camera, stamp_ns, mount.frame_id)
        return [(TOPICS["events_info"], info, log_ns - 1000), (TOPICS["events"], packet, log_ns)]

    def _depth(self, depth_mm: U16, stamp_ns: int) -> list[Logged]:
        mount = self.rig.depth
        info = messages.camera_info(mount.camera, stamp_ns, mount.frame_id)
        image = messages.image(depth_mm, "16UC1", stamp_ns, mount.frame_id)
        log_ns = stamp_ns + _IMAGE_DELAY_NS
        return [(TOPICS["depth_info"], info, log_ns - 1000), (TOPICS["depth"], image, log_ns)]

    def _sensors(self, frame: SimulatedFrame) -> list[Logged]:
        rig, stamp_ns = self.rig, frame.stamp_ns
        frame_id, log_ns, truth_ns = rig.rgb.frame_id, stamp_ns + _IMAGE_DELAY_NS, stamp_ns + _TRUTH_DELAY_NS
        sweep_end_ns = frame.sweep_start_ns + rig.timing.frame_ns
        cloud = messages.point_cloud(frame.sweep.points, frame.sweep_start_ns, rig.lidar.frame_id)
        return [
            *self._depth(frame.depth_mm, frame.depth_stamp_ns),
            (TOPICS["rgb_info"], messages.camera_info(rig.rgb.camera, stamp_ns, frame_id), log_ns - 1000),
            (TOPICS["rgb"], messages.image(frame.picture, "rgb8", stamp_ns, frame_id), log_ns),
            (TOPICS["mask"], messages.mask(frame.view.label, stamp_ns, frame_id), truth_ns),
            (TOPICS["boxes"], _detections(frame, frame_id), truth_ns + 1000),
            (TOPICS["visibility"], _visibility(frame), truth_ns + 2000),
            (TOPICS["lidar"], cloud, sweep_end_ns + _SWEEP_DELAY_NS),
        ]


def simulate(
    out: str | Path,
    seed: int,
    seconds: float,
    progress: Callable[[int, int], None] | None = None,
    *,
    clutter: bool = True,
    rig: Rig | None = None,
) -> int:
    """Record a drive through a test street by day as a bag at ``out`` and give the number of messages; the rest as ``record``.

    Raises:
        BagError: the bag cannot be written there.
    """
    return record(out, Clip(seed=seed, seconds=seconds, clutter=clutter), progress=progress, rig=rig)


def record(
    out: str | Path,
    clip: Clip,
    storage: Storage = "mcap",
    progress: Callable[[int, int], None] | None = None,
    *,
    rig: Rig | None = None,
    overwrite: bool = False,
) -> int:
    """Record a clip as a bag at ``out`` and give the number of messages. The bag appears there when it is whole.

    Raises:
        BagError: the bag cannot be written there.
    """
    count = 0
    with BagWriter(out, storage, overwrite=overwrite) as writer:
        for topic, message, log_ns in Simulation(clip, rig).messages(progress):
            writer.write(topic, message, log_ns)
            count += 1
    return count


def record_set(
    folder: str | Path,
    clips: Sequence[Clip],
    scale: float = 0.5,
    storage: Storage = "mcap",
    progress: Callable[[int, int], None] | None = None,
    *,
    color_scale: float | None = None,
    overwrite: bool = False,
) -> int:
    """Record clips (see clip.plan) as ``folder/<split>/<clip's name>`` and give the number of those recorded now.

    A bag that is there already is whole, since bags appear whole; it is left as it is when it says that it is of the same
    clip and size of picture, and that this version's rules made it. ``scale`` and ``color_scale`` are those of
    rig.default_rig; ``progress`` is told the clips done and their number.

    Raises:
        BagError: a bag cannot be written, or what is in its place is not of the clip and ``overwrite`` is False.
    """
    made = 0
    for number, clip in enumerate(clips):
        out = Path(folder) / clip.split / clip.name
        if not (out.exists() and not overwrite):
            record(out, clip, storage, rig=default_rig(scale, clip.world, color_scale=color_scale), overwrite=overwrite)
            made += 1
        else:
            there, made_by = describe_with_format(out) or (None, FORMAT)
            if there != clip:
                msg = f"{out}: expected nothing, or the recording of {clip}, got that of {there}"
                raise BagError(msg)
            if made_by != FORMAT:
                msg = (
                    f"{out}: expected nothing, or a recording of format {FORMAT}, got one of format {made_by} with other boxes"
                )
                raise BagError(msg)
            _check_size(out, default_rig(scale, clip.world, color_scale=color_scale).rgb.camera)
        if progress:
            progress(number + 1, len(clips))
    return made


def _check_size(bag: Path, camera: CameraModel) -> None:
    """Refuse a bag whose colour images are not of this camera's size."""
    with BagReader(bag) as reader:
        there = next((each.message for each in reader.messages([TOPICS["rgb_info"]])), None)
    if there is not None and (there.width, there.height) != (camera.width, camera.height):
        msg = f"{bag}: expected nothing, or images of {camera.width}x{camera.height}, got some of {there.width}x{there.height}"
        raise BagError(msg)


def _seconds(stamp_ns: int) -> float:
    """Simulated time of a stamp; exact, since the difference is small."""
    return (stamp_ns - START_NS) * 1e-9


def _box(actor: Actor, camera_from_actor: F64) -> Detection3D:
    center = camera_from_actor @ np.array([0.0, 0.0, actor.size_m[2] / 2, 1.0])
    return Detection3D(
        class_name=CLASS_NAMES[actor.label],
        score=1.0,
        center_m=(float(center[0]), float(center[1]), float(center[2])),
        size_m=actor.size_m,
        orientation_xyzw=messages.quaternion_xyzw(camera_from_actor[:3, :3]),
    )


def _detections(frame: SimulatedFrame, frame_id: str) -> Message:
    """The boxes, each with its thing's number as id, so that it can be followed from frame to frame."""
    message = messages.detections(frame.boxes, frame.stamp_ns, frame_id)
    for detection, visible in zip(message.detections, frame.visibility, strict=True):
        detection.id = visible.id
    return message


def _visibility(frame: SimulatedFrame) -> Message:
    """JSON: the stamp of the boxes, and of each how much of it is seen."""
    objects = [asdict(visible) for visible in frame.visibility]
    return messages.make("std_msgs/msg/String", data=json.dumps({"stamp_ns": frame.stamp_ns, "objects": objects}))


def _in_order(batches: Iterator[tuple[int, list[Logged]]]) -> Iterator[Logged]:
    """Sort messages by log time; of two with the same one, the second gets a nanosecond more."""
    waiting: list[tuple[int, int, str, Message]] = []
    number, newest = 0, 0
    for until_ns, batch in batches:
        for topic, message, log_ns in batch:
            heapq.heappush(waiting, (log_ns, number, topic, message))
            number += 1
        while waiting and waiting[0][0] <= until_ns:
            log_ns, _, topic, message = heapq.heappop(waiting)
            newest = max(newest + 1, log_ns)
            yield topic, message, newest
    while waiting:
        log_ns, _, topic, message = heapq.heappop(waiting)
        newest = max(newest + 1, log_ns)
        yield topic, message, newest

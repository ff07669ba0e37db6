"""Simulated drives: frame by frame, as ROS messages, and as a bag.

What is measured when, and with which approximations:

* Cameras have no rolling shutter and no motion blur. The depth camera fires 8 ms before the colour camera.
* Each firing of the LiDAR has its own time and pose of the robot; what moves stands still within a turn, where it is when
  the beam passes it.
* The event camera sees ``packets_per_frame`` images per colour image, rays cast at half resolution and outlines brought to
  full resolution (shading.brightness_image); gemini_core.simulation.events says what happens between two images.
* Boxes are those of the bodies, not of what is visible of them; a box is listed when enough pixels of it are.

Messages carry the log time at which a driver would have them: after exposure, turn or packet, and transfer.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from gemini_core.bag import messages
from gemini_core.bag.messages import Message
from gemini_core.bag.writer import BagWriter, Storage
from gemini_core.simulation.events import Events, EventSensor, encode_evt3
from gemini_core.simulation.rig import BASE_FRAME, EGO_MPS, START_NS, WORLD_FRAME, Rig, default_rig, ego_pose
from gemini_core.simulation.scene import CLASS_NAMES, I32, Actor, build_street
from gemini_core.simulation.sensors import Stage, Sweep, View, expose, measure_depth
from gemini_core.types import F32, F64, U8, U16, Detection3D, StampedTransform

VISIBLE_SHARE = 2e-4
"""Share of the image's pixels that must show a car or pedestrian for its box to be listed (61 of 640 x 480)."""

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
    "labels": "/ground_truth/label_info",
}

_IMAGE_DELAY_NS = 5_000_000
_TRUTH_DELAY_NS = 5_500_000
_SWEEP_DELAY_NS = 1_500_000
_PACKET_DELAY_NS = 1_000_000
_TRANSFORM_DELAY_NS = 300_000
_SENSOR_CLOCK_AT_START_US = (1 << 24) - 700_000
"""Time of the event camera's own clock at START_NS: it wraps early in every recording, as it does every 16.8 s."""

Logged = tuple[str, Message, int]
"""Topic, message, log time in nanoseconds."""


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedFrame:
    """Everything that belongs to one colour image, with the truth about it.

    ``picture`` (H, W, 3) uint8; ``view`` the same before the sensor (classes, actors, depth); ``depth_mm`` (h, w) uint16 at
    ``depth_stamp_ns``; ``sweep`` from ``sweep_start_ns``; ``packets`` the events since the image before; ``boxes`` in the
    colour camera's frame.
    """

    index: int
    stamp_ns: int
    picture: U8
    view: View
    depth_stamp_ns: int
    depth_mm: U16
    sweep_start_ns: int
    sweep: Sweep
    packets: tuple[Events, ...]
    boxes: tuple[Detection3D, ...]


class Simulation:
    """A drive of ``seconds`` through the street of ``seed``; the same arguments give the same bits on the same machine."""

    def __init__(self, seed: int, seconds: float, rig: Rig | None = None) -> None:
        self.rig = rig or default_rig()
        self.frame_count = max(1, round(seconds * 1e9 / self.rig.timing.frame_ns))
        self.seed = seed
        # The street does not depend on the length of the drive except at its far end.
        self.street = build_street(seed, EGO_MPS * (seconds + 1.0), EGO_MPS)
        self.stage = Stage(self.street, seed)

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

    def depth_at(self, stamp_ns: int) -> U16:
        """The depth image (h, w) uint16 in millimetres at a stamp; 0 is no reading."""
        depth_m, cosine = self.stage.depth_m(self.rig.depth, _seconds(stamp_ns))
        return measure_depth(depth_m, cosine, self._rng(4, stamp_ns - START_NS))

    def _rng(self, stream: int, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, stream, index])

    def _watch(self) -> Iterator[Events]:
        """The event camera: endless, packet by packet."""
        sensor, step = None, 0
        while True:
            stamp_ns = START_NS + step * self.rig.timing.packet_ns
            sharp = self.stage.brightness(self.rig.event, _seconds(stamp_ns))
            brightness: F32 = cv2.GaussianBlur(sharp, (0, 0), 0.6).astype(np.float32, copy=False)  # the lens
            if sensor is None:
                sensor = EventSensor(brightness, stamp_ns // 1000, self._rng(5, 0))
            else:
                yield sensor.see(brightness, stamp_ns // 1000)
            step += 1

    def _frame(self, index: int, packets: tuple[Events, ...]) -> SimulatedFrame:
        rig = self.rig
        stamp_ns = START_NS + (index + 1) * rig.timing.frame_ns
        depth_stamp_ns, sweep_start_ns = stamp_ns - rig.timing.depth_lead_ns, rig.sweep_start_ns(stamp_ns)
        view = self.stage.view(rig.rgb, _seconds(stamp_ns))
        sweep = self.stage.sweep(rig.lidar, _seconds(sweep_start_ns), rig.timing.frame_ns * 1e-9, self._rng(6, index))
        return SimulatedFrame(
            index=index,
            stamp_ns=stamp_ns,
            picture=expose(view.color, self._rng(7, index)),
            view=view,
            depth_stamp_ns=depth_stamp_ns,
            depth_mm=self.depth_at(depth_stamp_ns),
            sweep_start_ns=sweep_start_ns,
            sweep=sweep,
            packets=packets,
            boxes=self._boxes(view.actor, _seconds(stamp_ns)),
        )

    def _boxes(self, actor_image: I32, time_s: float) -> tuple[Detection3D, ...]:
        camera_from_world = np.linalg.inv(ego_pose(time_s) @ self.rig.rgb.base_from_camera)
        pixels = np.bincount(actor_image[actor_image >= 0], minlength=len(self.street.actors))
        return tuple(
            _box(actor, camera_from_world @ actor.world_from_actor(time_s))
            for actor in self.street.actors
            if pixels[actor.number] >= VISIBLE_SHARE * actor_image.size
        )

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
        return [(TOPICS["tf_static"], messages.tf_message(transforms), START_NS), (TOPICS["labels"], labels, START_NS + 1)]

    def _moving_transform(self, stamp_ns: int) -> Logged:
        transform = StampedTransform(stamp_ns, WORLD_FRAME, BASE_FRAME, ego_pose(_seconds(stamp_ns)))
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
            (TOPICS["boxes"], messages.detections(frame.boxes, stamp_ns, frame_id), truth_ns + 1000),
            (TOPICS["lidar"], cloud, sweep_end_ns + _SWEEP_DELAY_NS),
        ]


def simulate(
    out: str | Path,
    seed: int,
    seconds: float,
    storage: Storage = "mcap",
    progress: Callable[[int, int], None] | None = None,
    *,
    rig: Rig | None = None,
    overwrite: bool = False,
) -> int:
    """Record a drive as a bag at ``out`` and give the number of messages; see Simulation for the arguments.

    Raises:
        BagError: the bag cannot be written there.
    """
    count = 0
    with BagWriter(out, storage, overwrite=overwrite) as writer:
        for topic, message, log_ns in Simulation(seed, seconds, rig).messages(progress):
            writer.write(topic, message, log_ns)
            count += 1
    return count


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

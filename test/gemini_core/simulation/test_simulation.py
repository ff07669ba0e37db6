"""The simulated drive: truth agrees with what the sensors report, events with the light, messages with what a node expects."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_core.bag import messages
from gemini_core.bag.reader import BagReader
from gemini_core.config.fusion import FusionConfig
from gemini_core.decode.events import EventDecoder
from gemini_core.simulation import events as event_camera
from gemini_core.simulation.classes import CAR, CLASS_NAMES, LANE_MARKING, PEDESTRIAN, ROAD, SKY, TRUCK, TWO_WHEELER
from gemini_core.simulation.clip import Clip
from gemini_core.simulation.record import Simulation, simulate
from gemini_core.simulation.rig import START_NS, default_rig
from gemini_core.simulation.scene import poses

SECOND_NS = 1_000_000_000


@pytest.fixture(scope="module")
def drive():
    """A short drive with small sensors, its frames and its messages."""
    simulation = Simulation(Clip(seed=3, seconds=0.3), default_rig(0.5))
    return simulation, list(simulation.frames()), list(simulation.messages())


def by_topic(log, topic):
    return [(message, log_ns) for name, message, log_ns in log if name == topic]


def stamp_ns(message):
    return message.header.stamp.sec * SECOND_NS + message.header.stamp.nanosec


def project(mount, base_from_world, world):
    """Pixels (2, N) and depth (N,) of world points (3, N)."""
    camera_from_world = np.linalg.inv(mount.base_from_camera) @ base_from_world
    points = camera_from_world[:3, :3] @ world + camera_from_world[:3, 3:]
    camera = mount.camera
    pixels = np.array([camera.fx * points[0] / points[2] + camera.cx, camera.fy * points[1] / points[2] + camera.cy])
    return pixels, points[2]


def sweep_in_world(simulation, frame):
    """Every point of a frame's sweep in the world (3, N), through the robot's pose at the point's own time."""
    points = frame.sweep.points
    time_s = (frame.sweep_start_ns - START_NS) * 1e-9 + points["time"].astype(np.float64)
    world_from_lidar = poses(simulation.scene.ego, time_s) @ simulation.rig.lidar.base_from_lidar
    local = np.stack([points["x"], points["y"], points["z"]], axis=1).astype(np.float64)
    return (np.einsum("nij,nj->ni", world_from_lidar[:, :3, :3], local) + world_from_lidar[:, :3, 3]).T


def uniform_neighbourhood(mask):
    """Where the eight neighbours have the same class."""
    same = np.ones(mask.shape, bool)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            same &= np.roll(mask, (dy, dx), (0, 1)) == mask
    same[[0, -1]] = same[:, [0, -1]] = False
    return same


def test_classes_are_those_of_the_default_configuration():
    assert FusionConfig().model.classes == CLASS_NAMES


def test_picture_shows_a_street(drive):
    _, frames, _ = drive
    label = frames[0].view.label
    share = np.bincount(label.ravel(), minlength=256) / label.size
    assert label.max() < len(CLASS_NAMES)
    for name in ("road", "lane_marking", "ground", "building", "pole", "tree", "car", "sky"):
        assert share[CLASS_NAMES.index(name)] > 0.002, name
    assert np.array_equal(label == SKY, np.isinf(frames[0].view.depth_m))
    assert 60 < frames[0].picture.mean() < 190
    assert frames[0].picture.std() > 25


def test_lidar_points_have_the_class_of_the_pixel_they_fall_on(drive):
    simulation, frames, _ = drive
    for frame in frames:
        world = sweep_in_world(simulation, frame)
        base_from_world = np.linalg.inv(simulation.base(frame.stamp_ns))
        pixels, z = project(simulation.rig.rgb, base_from_world, world)
        column, row = np.round(pixels).astype(int)
        height, width = frame.view.label.shape
        inside = (z > 0.5) & (column >= 0) & (row >= 0) & (column < width) & (row < height)
        column, row, z, label = column[inside], row[inside], z[inside], frame.sweep.label[inside]
        # The LiDAR sits higher than the camera and sees some things that the camera does not.
        seen = np.abs(frame.view.depth_m[row, column] - z) < 0.1 + 0.05 * z
        static = ~np.isin(label, (CAR, PEDESTRIAN, TRUCK, TWO_WHEELER)) & uniform_neighbourhood(frame.view.label)[row, column]
        chosen = seen & static
        assert np.count_nonzero(chosen) > 1000
        assert np.mean(label[chosen] == frame.view.label[row, column][chosen]) > 0.95
        assert np.mean(seen) > 0.8


def test_lidar_points_lie_on_the_road_that_they_hit(drive):
    simulation, frames, _ = drive
    frame = frames[1]
    height = sweep_in_world(simulation, frame)[2, np.isin(frame.sweep.label, (ROAD, LANE_MARKING))]
    assert abs(np.median(height)) < 0.005
    assert np.percentile(np.abs(height), 99) < 0.05


def test_sweep_is_laid_out_in_the_order_of_firing(drive):
    simulation, frames, _ = drive
    points, lidar = frames[0].sweep.points, simulation.rig.lidar
    assert np.all(np.diff(points["time"]) >= 0)
    assert 0 <= points["time"].min() <= points["time"].max() < 0.1
    horizontal = np.hypot(points["x"], points["y"])
    elevation = np.arctan2(points["z"], horizontal)
    np.testing.assert_allclose(elevation, lidar.elevations_rad[points["ring"]], atol=1e-4)
    azimuth = np.arctan2(points["y"], points["x"])
    turned = (lidar.cut_rad - azimuth) % (2 * np.pi) / (2 * np.pi) * 0.1
    apart = (turned - points["time"] + 0.05) % 0.1 - 0.05  # a turn is a circle
    np.testing.assert_allclose(apart, 0, atol=1e-6)
    assert points["intensity"].min() >= 0
    assert points["intensity"].max() <= 255


def true_depth(simulation, stamp_ns):
    """Depth (H, W) along z that the depth camera's rays meet at a stamp."""
    base, mount = simulation.base(stamp_ns), simulation.rig.depth
    simulation.stage.set_time((stamp_ns - START_NS) * 1e-9, base)
    return simulation.stage.depth(mount, base).distance_m.reshape(mount.camera.height, mount.camera.width)


def test_depth_of_the_road_is_that_of_the_plane_below_the_camera(drive):
    simulation, _, _ = drive
    mount, stamp = simulation.rig.depth, START_NS + 150_000_000
    depth_m = true_depth(simulation, stamp)
    camera, world_from_camera = mount.camera, simulation.base(stamp) @ mount.base_from_camera
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], axis=-1)
    down = rays @ world_from_camera[2, :3]
    plane_m = np.where(down < -1e-3, -world_from_camera[2, 3] / np.minimum(down, -1e-3), np.inf)
    near = plane_m < 40.0
    assert np.all(depth_m[near] <= plane_m[near] * (1 + 1e-4))  # nothing lies below the road
    on_road = np.isfinite(plane_m) & np.isclose(depth_m, plane_m, rtol=1e-4)
    assert on_road.mean() > 0.15
    assert on_road[-1].mean() > 0.5


def test_depth_noise_grows_with_the_square_of_depth():
    simulation = Simulation(Clip(seed=3, seconds=0.1, condition="night"), default_rig(0.5))
    stamp = START_NS + 100_000_000
    depth_mm, true_m = simulation.depth_at(stamp), true_depth(simulation, stamp)
    measured = depth_mm > 0
    assert not measured[true_m > 21.0].any()
    assert measured[true_m < 4.0].mean() > 0.9
    error = np.abs(depth_mm * 1e-3 - true_m)
    near, far = measured & (true_m < 4.0), measured & (true_m > 8.0) & (true_m < 12.0)
    assert np.median(error[near]) < 0.015
    assert 4 * np.median(error[near]) < np.median(error[far]) < 0.15


def test_boxes_hold_the_pixels_of_their_actor(drive):
    simulation, frames, _ = drive
    frame = frames[0]
    assert {box.class_name for box in frame.boxes} <= {"car", "pedestrian", "truck", "two_wheeler"}
    actors = [number for number in np.unique(frame.view.actor) if number >= 0]
    listed = [n for n in actors if np.count_nonzero(frame.view.actor == n) >= 2e-4 * frame.view.actor.size]
    boxes = {int(seen.id): box for seen, box in zip(frame.visibility, frame.boxes, strict=True)}
    assert len(listed) > 2
    assert set(listed) <= set(boxes)
    camera = simulation.rig.rgb.camera
    for number, box in boxes.items():
        v, u = np.nonzero(frame.view.actor == number)
        z = frame.view.depth_m[v, u]
        points = np.stack([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z])
        rotation = messages.Rotation.from_quat(box.orientation_xyzw).as_matrix()
        local = rotation.T @ (points - np.array(box.center_m)[:, None])
        assert np.all(np.abs(local) <= np.array(box.size_m)[:, None] / 2 + 0.12), box
        assert np.any(frame.view.actor == number) or np.any(frame.sweep.actor == number)
        # The vertical of the box is up: against the image's y axis.
        assert rotation[1, 2] < -0.9


# --------------------------------------------------------------------------------------------------------------------
# Events


def test_a_brightening_edge_gives_positive_events_on_its_line_in_time():
    start, end = 1_000_000, 1_010_000
    dark = np.full((20, 30), 0.2, np.float32)
    bright = dark.copy()
    bright[:, :10], bright[:, 20:] = 2.0, 0.02
    sensor = event_camera.EventSensor(dark, start, np.random.default_rng(0))
    events = sensor.see(bright, end)
    brighter, darker, same = events.x < 10, events.x >= 20, (events.x >= 10) & (events.x < 20)
    assert np.all(events.polarity[brighter] == 1)
    assert np.all(events.polarity[darker] == 0)
    assert np.count_nonzero(same) <= 5  # noise
    assert np.all(np.diff(events.time_us) >= 0)
    assert np.all((events.time_us > start) & (events.time_us <= end))
    # As often as the threshold fits into the change, give or take where the memory stood.
    change = np.log(10.0)
    count = np.bincount(events.y[brighter] * 10 + events.x[brighter], minlength=200)
    assert abs(count.mean() - change / event_camera.THRESHOLD) < 0.8
    # A pixel's events are a threshold apart in a change that is linear in time.
    times = events.time_us[(events.x == 4) & (events.y == 7)]
    apart = np.diff(times)
    assert apart.max() - apart.min() <= event_camera.READOUT_US
    assert apart.mean() == pytest.approx((end - start) * event_camera.THRESHOLD / change, rel=0.35)


@pytest.mark.parametrize(
    ("level", "noise_hz"),
    [(0.5, event_camera.NOISE_HZ), (event_camera.SHOT_NOISE_LIGHT, event_camera.NOISE_HZ + event_camera.SHOT_NOISE_HZ / 2)],
)
def test_no_change_gives_no_events_but_noise_and_that_grows_in_the_dark(level, noise_hz):
    still = np.full((100, 100), level, np.float32)
    sensor = event_camera.EventSensor(still, 0, np.random.default_rng(2))
    count = sum(len(sensor.see(still, 10_000 * k).x) for k in range(1, 101))
    assert count == pytest.approx(100 * 100 * noise_hz, rel=0.2)


def test_the_photoreceptor_follows_late_in_the_dark():
    def answered(level):
        sensor = event_camera.EventSensor(np.full((40, 40), level, np.float32), 0, np.random.default_rng(0))
        return len(sensor.see(np.full((40, 40), 4 * level, np.float32), 10_000).x)

    assert answered(1e-6) < 0.35 * answered(1e-2)


def test_after_an_event_a_pixel_is_silent_for_the_refractory_time():
    sensor = event_camera.EventSensor(np.full((4, 4), 0.01, np.float32), 0, np.random.default_rng(0))
    events = sensor.see(np.full((4, 4), 8.0, np.float32), 1000)
    for pixel in range(16):
        times = events.time_us[events.y * 4 + events.x == pixel]
        assert np.all(np.diff(times) >= event_camera.REFRACTORY_US)


def plain_evt3(data):
    """A slow decoder by the book: (x, y, polarity, 24-bit time) of every event."""
    events, y, high, low, base, sign = [], None, None, None, 0, 0
    for word in np.frombuffer(data, "<u2"):
        word = int(word)  # noqa: PLW2901 - Python's integers, not numpy's
        code, value = word >> 12, word & 0xFFF
        if code == 0x0:
            y = value & 0x7FF
        elif code == 0x2:
            events.append((value & 0x7FF, y, value >> 11, high << 12 | low))
        elif code == 0x3:
            base, sign = value & 0x7FF, value >> 11
        elif code in (0x4, 0x5):
            width = 12 if code == 0x4 else 8
            events += [(base + bit, y, sign, high << 12 | low) for bit in range(width) if value >> bit & 1]
            base += width
        elif code == 0x6:
            low = value
        elif code == 0x8:
            high = value
        else:
            pytest.fail(f"word {word:#06x}")
    return events, high << 12 | low


@st.composite
def sorted_events(draw):
    first = draw(st.integers(0, 1 << 26))
    rows = draw(
        st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 4), st.integers(0, 30), st.integers(0, 1)), max_size=80)
    )
    rows.sort()
    time, y, x, polarity = np.array(rows, np.int64).reshape(-1, 4).T
    return event_camera.Events(
        x.astype(np.uint16), y.astype(np.uint16), polarity.astype(np.uint8), first + time, first + int(time.max(initial=0)) + 5
    )


@settings(max_examples=200, deadline=None)
@given(sorted_events())
def test_evt3_says_exactly_the_events(events):
    decoded, end = plain_evt3(event_camera.encode_evt3(events, 0))
    assert decoded == list(zip(events.x, events.y, events.polarity, events.time_us & 0xFFFFFF, strict=True))
    assert end == events.end_us & 0xFFFFFF


def test_evt3_uses_vectors_for_neighbours():
    x = np.arange(100, 112, dtype=np.uint16)
    events = event_camera.Events(x, np.full(12, 7, np.uint16), np.ones(12, np.uint8), np.full(12, 5000), 5000)
    words = np.frombuffer(event_camera.encode_evt3(events, 0), "<u2")
    assert [f"{word:#06x}" for word in words] == ["0x8001", "0x6388", "0x0007", "0x3864", "0x4fff"]


def test_packets_decode_to_the_events_of_the_frames(drive):
    _, frames, log = drive
    packets = [message for message, _ in by_topic(log, "/events")]
    seen = [events for frame in frames for events in frame.packets]
    assert len(packets) == len(seen) + 2
    decoder = EventDecoder()
    for packet, events in zip(packets, seen, strict=False):
        sample = decoder.decode(packet, "/events")
        np.testing.assert_array_equal(sample.time_ns, events.time_us * 1000)
        np.testing.assert_array_equal(sample.x, events.x)
        np.testing.assert_array_equal(sample.y, events.y)
        np.testing.assert_array_equal(sample.polarity, events.polarity)
        assert sample.end_ns == events.end_us * 1000
        assert stamp_ns(packet) == events.time_us[0] * 1000
        assert len(events.x) > 50


def test_sensor_clock_wraps_without_a_jump_in_ros_time():
    simulation = Simulation(Clip(seed=1, seconds=0.9), default_rig(0.1))
    decoder, previous = EventDecoder(), START_NS
    for topic, message, _ in simulation.messages():
        if topic == "/events":
            end = decoder.decode(message, topic).end_ns
            assert end - previous == simulation.rig.timing.packet_ns
            previous = end
    assert previous > START_NS + 700_000_000  # past the wrap


# --------------------------------------------------------------------------------------------------------------------
# Messages


def test_every_frame_finds_what_belongs_to_it(drive):
    _, frames, log = drive
    rgb = [stamp_ns(message) for message, _ in by_topic(log, "/rgb/image")]
    assert rgb == [frame.stamp_ns for frame in frames] == [START_NS + k * 100_000_000 for k in (1, 2, 3)]
    sweeps = [(stamp_ns(message), stamp_ns(message) + 100_000_000) for message, _ in by_topic(log, "/lidar/points")]
    depth = [stamp_ns(message) for message, _ in by_topic(log, "/depth/image")]
    decoder = EventDecoder()
    ends = [decoder.decode(message, "/events").end_ns for message, _ in by_topic(log, "/events")]
    transforms = [
        t.header.stamp.sec * SECOND_NS + t.header.stamp.nanosec
        for message, _ in by_topic(log, "/tf")
        for t in message.transforms
    ]
    for stamp in rgb:
        assert sum(start <= stamp <= end for start, end in sweeps) == 1
        assert stamp - 8_000_000 in depth
        assert max(depth) >= stamp
        assert stamp in ends
        assert min(ends) <= stamp - 50_000_000
        assert max(ends) > stamp
    for start, end in sweeps:
        assert min(transforms) <= start
        assert end <= max(transforms)
    assert sweeps[0][1] - rgb[0] == 12_000_000


def test_log_is_in_order_and_says_first_what_is_fixed(drive):
    _, _, log = drive
    times = [log_ns for _, _, log_ns in log]
    assert all(a < b for a, b in itertools.pairwise(times))
    assert log[0][0] == "/tf_static"
    assert log[0][2] == START_NS
    assert sorted(t.child_frame_id for t in log[0][1].transforms) == ["depth_optical", "event_optical", "lidar", "rgb_optical"]
    topics = [topic for topic, _, _ in log]
    for image, info in (
        ("/rgb/image", "/rgb/camera_info"),
        ("/depth/image", "/depth/camera_info"),
        ("/events", "/events/camera_info"),
    ):
        assert topics.count(image) == topics.count(info) > 0
        assert topics.index(info) < topics.index(image)
        stamps = [[stamp_ns(message) for message, _ in by_topic(log, topic)] for topic in (image, info)]
        assert stamps[0] == stamps[1]
    packets = [message for message, _ in by_topic(log, "/events")]
    assert [packet.seq for packet in packets] == list(range(len(packets)))
    assert {packet.time_base for packet in packets} == {0}
    for topic, message, log_ns in log:
        if hasattr(message, "header") and topic != "/lidar/points":
            assert 0 <= log_ns - stamp_ns(message) < 25_000_000, topic


def test_truth_has_the_stamp_and_frame_of_the_picture(drive):
    _, frames, log = drive
    images, masks = by_topic(log, "/rgb/image"), by_topic(log, "/ground_truth/segmentation")
    boxes = by_topic(log, "/ground_truth/detections")
    for frame, (image, _), (mask, _), (found, _) in zip(frames, images, masks, boxes, strict=True):
        assert mask.header == image.header == found.header
        assert (mask.encoding, image.encoding) == ("mono8", "rgb8")
        np.testing.assert_array_equal(mask.data.reshape(mask.height, mask.width), frame.view.label)
        np.testing.assert_array_equal(image.data.reshape(image.height, image.width, 3), frame.picture)
        assert [d.results[0].hypothesis.class_id for d in found.detections] == [box.class_name for box in frame.boxes]


def test_the_same_seed_gives_the_same_bits_and_another_one_another_street():
    def recorded(seed):
        store = messages.typestore()
        return [
            (topic, bytes(store.serialize_cdr(message, message.__msgtype__)), log_ns)
            for topic, message, log_ns in Simulation(Clip(seed=seed, seconds=0.2), default_rig(0.25)).messages()
        ]

    first = recorded(5)
    assert recorded(5) == first
    assert recorded(6) != first


def test_another_colour_camera_changes_nothing_but_its_picture():
    clip = Clip(seed=3, seconds=0.1)
    plain, finer = (next(Simulation(clip, default_rig(0.25, color_scale=scale)).frames()) for scale in (None, 0.5))
    assert (plain.picture.shape, finer.picture.shape) == ((120, 160, 3), (240, 320, 3))
    assert plain.sweep.points.tobytes() == finer.sweep.points.tobytes()
    np.testing.assert_array_equal(plain.depth_mm, finer.depth_mm)
    smaller = finer.picture.astype(float).reshape(120, 2, 160, 2, 3).mean(axis=(1, 3))
    assert np.abs(smaller - plain.picture).mean() < 12  # of 255: the same street


def test_a_longer_drive_begins_like_a_shorter_one():
    short, long = (next(Simulation(Clip(seed=4, seconds=seconds), default_rig(0.25)).frames()) for seconds in (0.1, 20.0))
    near = short.view.depth_m < 150.0  # the house that closes the street is farther
    assert near.mean() > 0.5
    assert np.mean(short.view.label[near] == long.view.label[near]) > 0.999
    assert np.mean(np.abs(short.picture[near].astype(int) - long.picture[near]) <= 1) > 0.99


def test_a_bag_is_written_whole(tmp_path: Path):
    done = []
    out = tmp_path / "drive"
    count = simulate(out, 2, 0.2, progress=lambda *state: done.append(state), rig=default_rig(0.25))
    assert done == [(1, 2), (2, 2)]
    with BagReader(out) as bag:
        topics = {topic.name: topic for topic in bag.topics()}
        read = [(message.topic, message.log_ns) for message in bag.messages()]
    assert len(read) == count
    assert read == sorted(read, key=lambda item: item[1])
    assert topics["/ground_truth/detections"].type == "vision_msgs/msg/Detection3DArray"
    assert topics["/events"].type == "event_camera_msgs/msg/EventPacket"

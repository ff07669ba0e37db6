"""``gemini-fusion inspect`` names every topic's format and what becomes of it."""

from __future__ import annotations

import dataclasses
import json
import struct

import numpy as np
import pytest

from gemini_core.bag import kitti, messages
from gemini_core.bag.writer import BagWriter
from gemini_core.config.fusion import FusionConfig, from_flat, load_config
from gemini_core.decode.color import LAYOUTS
from gemini_core.inspection.bag import inspect, to_json, to_text
from gemini_core.inspection.topics import READ_TYPES
from gemini_core.types import CameraModel, StampedTransform
from source_imports import REPOSITORY

MS = 1_000_000
STAMP = 1_700_000_000_000 * MS
FRAMES = 4
LENS = CameraModel(64, 48, 40.0, 40.0, 31.5, 23.5, "equidistant", (0.1, 0.02, 0.0, 0.0))
EVT3 = np.array([0x8001, 0x6001, 0x0001, 0x2003], "<u2").tobytes()


def cloud(stamp_ns, names, offsets, kinds, step):
    points = np.zeros(5, np.dtype({"names": names, "formats": kinds, "offsets": offsets, "itemsize": step}))
    points["z"] = 5
    if "t" in names:
        points["t"] = np.linspace(0, 90 * MS, 5)
    return messages.point_cloud(points, stamp_ns, "lidar")


def ouster(stamp_ns):
    names = ("x", "y", "z", "intensity", "t", "reflectivity", "ring", "ambient", "range")
    kinds = ("<f4", "<f4", "<f4", "<f4", "<u4", "<u2", "<u2", "<u2", "<u4")
    return cloud(stamp_ns, names, (0, 4, 8, 16, 20, 24, 26, 28, 32), kinds, 48)


def mosaic(stamp_ns):
    """A Bayer image with padded rows."""
    grey = messages.image(np.zeros((48, 70), np.uint8), "mono8", stamp_ns, "camera")
    return dataclasses.replace(grey, encoding="bayer_rggb8", width=64)


def write(path, *, odometry=False):
    fixed = [StampedTransform(STAMP, "base_link", name, np.eye(4)) for name in ("camera", "lidar")]
    array = struct.pack("<4BiII6s2xIII", 0, 1, 0, 0, 1_700_000_000, 0, 6, b"event\0", 260, 346, 0)
    depth = messages.image(np.full((48, 64), 900, np.uint16), "16UC1", STAMP, "depth")
    with BagWriter(path) as bag:
        bag.write("/tf_static", messages.tf_message(fixed), STAMP - 200 * MS)
        for k in range(-2, 10 if odometry else -2):
            at = STAMP + k * 100 * MS
            bag.write("/tf", messages.tf_message([StampedTransform(at, "odom", "base_link", np.eye(4))]), at)
        for k in range(FRAMES):
            stamp = STAMP + k * 100 * MS
            bag.write("/rgb/camera_info", messages.camera_info(LENS, stamp, "camera"), stamp)
            bag.write("/rgb/image", mosaic(stamp), stamp)
            bag.write("/lidar/points", ouster(stamp - 50 * MS), stamp)
        bag.write("/front/depth", depth, STAMP)
        bag.write("/front/camera_info", messages.camera_info(LENS, STAMP, "depth"), STAMP)
        bag.write("/front/thermal", dataclasses.replace(depth, encoding="14UC1"), STAMP)
        bag.write("/radar", cloud(STAMP, ("range", "z"), (0, 4), ("<f4", "<f4"), 8), STAMP)
        packet = messages.event_packet(EVT3, width=640, height=480, seq=1, stamp_ns=STAMP, frame_id="event")
        bag.write("/evk/events", packet, STAMP)
        bag.write("/evk/picture", dataclasses.replace(depth, encoding="mono8", step=64), STAMP)
        bag.write_raw("/davis/events", "dvs_msgs/msg/EventArray", array, STAMP)
        boxes = messages.detections((), STAMP, "camera")
        bag.write("/boxes", boxes, STAMP)
    return path


@pytest.fixture(scope="module")
def inspection(tmp_path_factory):
    config = from_flat({"modalities": ["rgb", "lidar"], "grid.width": 64, "grid.height": 32})
    return inspect(write(tmp_path_factory.mktemp("formats") / "bag"), config)


def of(inspection, topic):
    return next(entry for entry in inspection.formats if entry.topic == topic)


def test_the_rigs_topics_say_what_they_are_and_what_becomes_of_them(inspection):
    image, info, points = (of(inspection, name) for name in ("/rgb/image", "/rgb/camera_info", "/lidar/points"))
    assert image.format == "bayer_rggb8 64x48 step 70 rows padded"
    assert image.outcome == "demosaiced; 64x32 of it on 64x32 of the network"
    assert info.format == "equidistant (0.1, 0.02, 0, 0) 64x48 fx 40.0 fy 40.0"
    assert info.outcome == "lens of rgb: K and D"
    assert points.format.startswith("like Ouster's: x y z intensity float32, t uint32, reflectivity ring ambient uint16, range")
    assert points.format.endswith("5 points of 48 bytes, measured +0.0 to +90.0 ms from the stamp")
    assert points.outcome == "onto the image as range_height_intensity, each point by its own time"
    assert {entry.role for entry in (image, info, points)} == {"rgb.image", "rgb.camera_info", "lidar.points"}


def swept(path, values, field="t", **changes):
    """A bag of two clouds at 10 Hz with these values in one field."""
    points = np.ones(values.size, np.dtype([*((axis, "<f4") for axis in "xyz"), (field, values.dtype.str)]))
    points[field] = values
    with BagWriter(path) as bag:
        for k in range(2):
            stamp = STAMP + k * 100 * MS
            bag.write("/lidar/points", dataclasses.replace(messages.point_cloud(points, stamp, "lidar"), **changes), stamp)
    return path


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (np.linspace(0, 99e6, 60).astype("<u4"), {}, "(t as nanoseconds after the stamp), 60 points"),
        (np.linspace(0, 99e3, 60).astype("<u4"), {}, "(t as microseconds after the stamp), 60 points"),
        (np.linspace(0, 1, 60).astype("<f4"), {}, "(t as fractions of a sweep of 100.0 ms), 60 points"),
        (np.linspace(0, 1, 60).astype("<f4"), {"lidar.time_unit": "s"}, "(t as seconds after the stamp), 60 points"),
        (np.linspace(0, 1, 60).astype("<f4"), {"lidar.time_unit": "none"}, "(no times, as lidar.time_unit says), 60 points"),
        (np.linspace(9, 99, 60).astype("<f4"), {"lidar.time_field": "x"}, "(x as seconds after the stamp), 60 points"),
        (np.full(60, 4e9, "<f4"), {}, "(no times: those of t (4000000000 to 4000000000, but for a quarter at either end)"),
    ],
)
def test_point_times_are_named_with_what_they_were_taken_for(tmp_path, values, options, words):
    found = inspect(swept(tmp_path / "bag", values), from_flat({"modalities": ["rgb", "lidar"], **options}))
    assert words in of(found, "/lidar/points").format


def test_a_bad_point_time_is_counted_in_the_words(tmp_path):
    values = np.linspace(0, 99e6, 60).astype("<u4")
    values[7] = 4_294_967_000
    found = inspect(swept(tmp_path / "bag", values), from_flat({"modalities": ["rgb", "lidar"]}))
    assert "measured +0.0 to +99.0 ms from the stamp, 1 of them at a time that no sweep can have" in to_text(found)
    assert "Not used: 2 (lidar.points.times_unknown)" in to_text(found)


def test_rows_and_lenses_that_are_taken_otherwise_than_they_say(tmp_path):
    path = swept(tmp_path / "bag", np.zeros(60, "<u4"), height=6, width=10, row_step=960)
    found = inspect(path, from_flat({"modalities": ["rgb", "lidar"]}))
    assert "rows without gaps (its row_step of 960 does not fit the data)" in of(found, "/lidar/points").format
    lens = dataclasses.replace(
        LENS, distortion_model="plumb_bob", distortion=(0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), skew=2.0
    )
    with BagWriter(tmp_path / "lens") as bag:
        bag.write("/rgb/camera_info", messages.camera_info(lens, STAMP, "camera"), STAMP)
        bag.write(
            "/depth/camera_info",
            messages.camera_info(dataclasses.replace(LENS, distortion_model="none"), STAMP, "depth"),
            STAMP,
        )
    found = inspect(tmp_path / "lens", from_flat({"modalities": ["rgb", "depth"]}))
    assert of(found, "/rgb/camera_info").format.endswith("fx 40.0 fy 40.0 skew 2")
    assert of(found, "/depth/camera_info").format.endswith("plumb_bob (0, 0, 0, 0, 0) 64x48 fx 40.0 fy 40.0 taken as no lens")


def test_topics_that_the_rig_leaves_out_say_which_options_would_use_them(inspection):
    expected = {
        "/front/depth": ("16UC1 64x48 step 128", "could be depth.image: to read it, set topics.depth.image to /front/depth"),
        "/front/camera_info": ("equidistant", "could be the lens of a camera: topics.<rgb, depth or event>.camera_info"),
        "/evk/events": ("evt3 640x480", "could be event.packets: to read it, set topics.event.packets to /evk/events"),
        "/davis/events": ("an array of events, 346x260", "topics.event.type to dvs_msgs/EventArray"),
        "/evk/picture": ("mono8 64x48 step 64", "could be rgb.image: "),
    }
    for topic, (words, outcome) in expected.items():
        entry = of(inspection, topic)
        assert entry.role == ""
        assert words in entry.format
        assert outcome in entry.outcome
        assert entry.problem == ""


def test_what_cannot_be_read_says_what_is_known(inspection):
    thermal, radar = of(inspection, "/front/thermal"), of(inspection, "/radar")
    assert thermal.outcome == radar.outcome == ""
    assert all(name in thermal.problem for name in (*LAYOUTS, "16UC1, 32FC1", "'/front/thermal', got '14UC1'"))
    assert "expected fields x, y, z" in radar.problem
    assert "a polarity (p, polarity, pol)" in radar.problem
    text = to_text(inspection)
    assert "/boxes (vision_msgs/msg/Detection3DArray)" in text
    assert f"(read are {', '.join(READ_TYPES)})" in text
    assert "    -> CANNOT BE READ: expected encoding" in text


def test_a_tree_without_the_fixed_frame_says_so(inspection, tmp_path):
    tree = of(inspection, "/tf_static")
    assert tree.format == "base_link > camera, lidar"
    assert tree.outcome == "where the sensors are; there is no frame 'odom' (motion.fixed_frame): taken as if nothing moved"
    (row,) = inspection.sync.motion
    assert (row.modality, row.note, row.frames) == ("lidar", "no_odometry", FRAMES)
    assert "no frame 'odom'" in row.detail
    text = to_text(inspection)
    assert f"Motion: lidar in {FRAMES} frame(s): taken as if nothing had moved\n  {row.detail}" in text

    moving = inspect(write(tmp_path / "bag", odometry=True), from_flat({"modalities": ["rgb", "lidar"]}))
    assert of(moving, "/tf").outcome == "where the sensors are, and how they moved in 'odom' (motion.fixed_frame)"
    assert of(moving, "/tf_static").outcome == "where the sensors are"
    assert [(row.note, row.frames, row.detail) for row in moving.sync.motion] == [("compensated", FRAMES, "")]


def test_json_says_the_same(inspection):
    found = json.loads(to_json(inspection))
    assert found["formats"] == [dataclasses.asdict(entry) for entry in inspection.formats]
    assert found["sync"]["motion"] == [dataclasses.asdict(row) for row in inspection.sync.motion]
    assert found["sync"]["clock"] is None


def test_a_rig_that_a_topic_does_not_fit_says_why(tmp_path):
    config = from_flat({"topics.rgb.image": "/front/thermal", "topics.rgb.camera_info": "/front/camera_info"})
    found = inspect(write(tmp_path / "bag"), config)
    entry = of(found, "/front/thermal")
    assert entry.role == "rgb.image"
    assert entry.problem.startswith("expected encoding rgb8, ")
    assert found.sync.frames == 0


def test_a_real_event_bag(real_dir):
    config = from_flat({"topics.event.packets": "/event_camera/events"})
    found = inspect(real_dir / "events" / "evt3_640x480_bag", config)
    (entry,) = found.formats
    assert (entry.role, entry.format, entry.problem) == ("event.packets", "evt3 640x480", "")
    assert found.sync.clock.steps == 0
    assert "Event camera's clock: stamps are 167595" in to_text(found)
    assert "Decoded: 343474 events" in to_text(found)
    assert "could be event.packets" in to_text(inspect(real_dir / "events" / "evt3_640x480_bag", FusionConfig()))


def test_a_real_drive(real_dir, tmp_path):
    kitti.from_kitti_raw(real_dir / "kitti_raw", tmp_path / "bag")
    found = inspect(tmp_path / "bag", load_config(REPOSITORY / "config" / "kitti.yaml"))
    points, image = of(found, "/lidar/points"), of(found, "/rgb/image")
    assert "x y z intensity float32, 114278 points of 16 bytes" in points.format
    assert "no point times" in points.outcome
    assert image.format == "bgr8 1242x375 step 3726"
    assert "there is no frame 'odom'" in of(found, "/tf_static").outcome
    assert (found.sync.doubts, found.first_to_do) == ((), "")  # a rig that is right


# --------------------------------------------------------------------------------------------------------------------
# Sentences


def write_doubtful(
    path, *, clock_ms=0, info_size=(64, 48), lidar_parent="base_link", two_parents=False, stamped=True, second="", frames=20
):
    """A camera and a LiDAR at 10 Hz, whose clock, CameraInfo or place may be wrong."""
    points = np.zeros(200, np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4")]))
    points["z"] = np.linspace(3, 9, 200)  # ahead of the camera, as everything has its axes
    fixed = [StampedTransform(STAMP, *pair, np.eye(4)) for pair in (("base_link", "camera"), (lidar_parent, "lidar"))]
    lens = dataclasses.replace(LENS, width=info_size[0], height=info_size[1])
    with BagWriter(path) as bag:
        bag.write("/tf_static", messages.tf_message(fixed), STAMP - 200 * MS)
        for k in range(frames):
            stamp = STAMP + k * 100 * MS
            for parent in ("odom", "map")[: 1 + two_parents]:
                bag.write("/tf", messages.tf_message([StampedTransform(stamp, parent, "base_link", np.eye(4))]), stamp)
            bag.write("/rgb/camera_info", messages.camera_info(lens, stamp, "camera"), stamp)
            bag.write("/rgb/image", mosaic(stamp if stamped else 0), stamp)
            frame_id = second if second and k % 2 else "lidar"
            bag.write("/lidar/points", messages.point_cloud(points, stamp + clock_ms * MS, frame_id), stamp)
    return path


def sentences(path, **wrong):
    found = inspect(write_doubtful(path / "bag", **wrong), from_flat({"modalities": ["rgb", "lidar"]}))
    assert json.loads(to_json(found))["first_to_do"] == found.first_to_do
    return found, to_text(found)


def test_a_good_bag_ends_with_ready(tmp_path):
    found, text = sentences(tmp_path)
    assert (found.sync.missing, found.sync.doubts, found.first_to_do) == ((), (), "")
    assert text.endswith("\nReady: 20 of 20 frames have every sensor.")


def test_the_size_of_a_clocks_offset_is_the_last_word(tmp_path):
    found, text = sentences(tmp_path, clock_ms=37_000)
    (row,) = found.sync.missing
    assert (row.modality, row.reason, row.number) == ("lidar", "never_seen", 20)
    assert row.detail.endswith("; the stamps of lidar are 37.0 s ahead of rgb's: TAI against UTC?")
    assert f"Missing: lidar in 20 frame(s), never_seen\n  {row.detail}\n" in text
    assert text.endswith(f"\nTo do first: lidar is missing in 20 of 20 frames: {row.detail}")
    assert json.loads(to_json(found))["sync"]["missing"] == [dataclasses.asdict(row)]


def test_camera_info_of_another_size_is_said_with_both_sizes(tmp_path):
    found, text = sentences(tmp_path, info_size=(96, 50))
    (row,) = found.sync.missing
    assert row.reason == "no_camera_info"
    assert "64 x 48" in row.detail
    assert "96 x 50" in row.detail
    assert text.endswith(row.detail)


def test_a_missing_transform_is_said_with_both_frames(tmp_path):
    found, text = sentences(tmp_path, lidar_parent="mast")
    (row,) = found.sync.missing
    assert row.reason == "no_transform"
    assert "'lidar'" in row.detail
    assert "'camera'" in row.detail
    assert text.endswith(row.detail)


def test_two_parents_are_said_and_both_are_known(tmp_path):
    found, text = sentences(tmp_path, two_parents=True)
    (row,) = found.sync.doubts
    assert (row.modality, row.reason) == ("tf", "two_parents")
    assert "'base_link' has two parents, 'map' and 'odom'" in row.detail
    assert "there is no frame" not in "".join(entry.outcome for entry in found.formats)
    assert text.endswith(f"\nTo do first: {row.detail}")


def test_images_without_stamps_are_said_though_they_make_no_frames(tmp_path):
    found, text = sentences(tmp_path, stamped=False)
    (row,) = found.sync.doubts
    assert (row.modality, row.reason, found.sync.frames) == ("rgb", "no_stamps", 1)
    assert text.endswith(
        "\nTo do first: all stamps of rgb are zero, 20 of 20 messages: expected the time when they were measured"
    )


def test_two_frames_on_one_topic_are_what_to_do_first(tmp_path):
    found, text = sentences(tmp_path, second="rear")
    (row,) = found.sync.doubts
    assert (row.modality, row.reason) == ("lidar", "several_frames")
    assert "'lidar' (10) and 'rear' (10)" in row.detail
    assert text.endswith(f"\nTo do first: {row.detail}")


def test_a_bag_without_the_reference_says_that_first(tmp_path):
    found = inspect(write(tmp_path / "bag"), from_flat({"modalities": ["rgb", "lidar"], "topics.rgb.image": "/front/image"}))
    assert found.first_to_do.startswith("rgb.image on /front/image: ")

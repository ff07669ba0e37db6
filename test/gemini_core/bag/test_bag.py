"""Bags: what is written is read back, by every way in; damaged ones give what they have and one clear sentence."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from gemini_core.bag import messages as build
from gemini_core.bag.reader import BagReader, TopicInfo
from gemini_core.bag.topics import match_rig
from gemini_core.bag.writer import BagWriter
from gemini_core.config.fusion import from_flat
from gemini_core.decode.message import RawMessage
from gemini_core.errors import BagError
from gemini_core.types import CameraModel, Detection3D, StampedTransform

STORAGES = ("mcap", "sqlite3")
FRAMES = 12
PERIOD_NS = 100_000_000
POINTS = np.zeros(50, dtype=[("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("ring", "<u2"), ("time", "<f8")])

RELEASED_HASHES = {  # of the packages that run on robots
    "vision_msgs/msg/Detection3DArray": "793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018",
    "vision_msgs/msg/LabelInfo": "3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783",
    "vision_msgs/msg/VisionInfo": "95d3116a17484ad91c9a2686e1d54890bbfc3ff6c6a2de137738c4950d45d284",
    "tf2_msgs/msg/TFMessage": "e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087",
    "event_camera_msgs/msg/EventPacket": "d6fa176260b1f37e5a40845305315e150a0f18191241eb64f407442aa29844aa",
}


def write_bag(path: Path, storage: str = "mcap", frames: int = FRAMES, side: int = 64) -> Path:
    random = np.random.default_rng(0)
    with BagWriter(path, storage) as bag:
        bag.write("/tf_static", build.tf_message([StampedTransform(0, "base", "camera", np.eye(4))]), 0)
        for index in range(frames):
            stamp = index * PERIOD_NS
            pixels = random.integers(0, 255, (side, side, 3), dtype=np.uint8)
            bag.write("/rgb/image", build.image(pixels, "rgb8", stamp, "camera"), stamp)
            bag.write("/points", build.point_cloud(POINTS, stamp, "lidar"), stamp)
            bag.write("/label_info", build.label_info(("road", "car"), stamp, "camera"), stamp)
    return path


def storage_file(bag: Path) -> Path:
    return next(path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))


def read_until_error(path: Path) -> tuple[list, str]:
    read, sentence = [], ""
    try:
        with BagReader(path) as bag:
            read.extend((stored.topic, stored.log_ns, bytes(stored.data)) for stored in bag.messages())
    except BagError as error:
        sentence = str(error)
    assert "\n" not in sentence
    return read, sentence


@pytest.mark.parametrize("name", RELEASED_HASHES)
def test_definitions_are_the_released_ones(name):
    assert build.typestore().hash_rihs01(name) == f"RIHS01_{RELEASED_HASHES[name]}"


@pytest.mark.parametrize("storage", STORAGES)
def test_written_messages_are_read_back(tmp_path, storage):
    path = write_bag(tmp_path / "bag", storage)
    with BagReader(path) as bag:
        topics = {topic.name: topic for topic in bag.topics()}
        assert {name: topic.count for name, topic in topics.items()} == {
            "/rgb/image": FRAMES,
            "/points": FRAMES,
            "/label_info": FRAMES,
            "/tf_static": 1,
        }
        assert topics["/rgb/image"].rate_hz == pytest.approx(10.0)
        assert topics["/tf_static"].rate_hz == 0.0
        assert bag.damage == ""
        stamps = [stored.log_ns for stored in bag.messages()]
        assert stamps == sorted(stamps)
        only = list(bag.messages(["/points"]))
        assert len(only) == FRAMES
        cloud = only[3].message
        assert [(each.name, each.offset, each.datatype) for each in cloud.fields] == [
            ("x", 0, 7),
            ("y", 4, 7),
            ("z", 8, 7),
            ("ring", 12, 4),
            ("time", 14, 8),
        ]
        assert cloud.point_step == 22
        assert cloud.data.size == 22 * 50
        assert cloud.header.stamp.nanosec == 300_000_000
        labels = next(bag.messages(["/label_info"])).message
        assert [(each.class_id, each.class_name) for each in labels.class_map] == [(0, "road"), (1, "car"), (255, "unlabelled")]


@pytest.mark.parametrize("storage", STORAGES)
def test_a_single_file_and_a_folder_without_metadata_are_bags_too(tmp_path, storage):
    path = write_bag(tmp_path / "bag", storage)
    whole, _ = read_until_error(path)
    alone, sentence = read_until_error(storage_file(path))
    assert (alone, sentence) == (whole, "")
    (path / "metadata.yaml").unlink()
    assert read_until_error(path) == (whole, "")


def test_metadata_is_what_ros2_bag_reads(tmp_path):
    path = write_bag(tmp_path / "bag")
    about = yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert about["version"] == 8
    assert about["storage_identifier"] == "mcap"
    assert about["relative_file_paths"] == ["bag.mcap"]
    assert about["message_count"] == 3 * FRAMES + 1
    durability = {}
    for topic in about["topics_with_message_count"]:
        described = topic["topic_metadata"]
        (profile,) = yaml.safe_load(described["offered_qos_profiles"])
        durability[described["name"]] = profile["durability"]
        assert described["type_description_hash"].startswith("RIHS01_")
    transient_local, volatile = 1, 2
    assert durability == {
        "/tf_static": transient_local,
        "/label_info": transient_local,
        "/rgb/image": volatile,
        "/points": volatile,
    }


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("share", [0.98, 0.9, 0.6, 0.3])
def test_a_cut_bag_gives_its_front_and_says_how_much(tmp_path, storage, share):
    path = write_bag(tmp_path / "bag", storage, side=128)
    whole = Counter(read_until_error(path)[0])
    file = storage_file(path)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    read, sentence = read_until_error(path)
    assert 0.7 * share * whole.total() < len(read) <= whole.total()
    assert Counter(read) <= whole
    assert f"{len(read)} messages were read before" in sentence
    assert str(path) in sentence


@pytest.mark.parametrize("storage", STORAGES)
def test_nothing_but_a_beginning_is_refused(tmp_path, storage):
    path = write_bag(tmp_path / "bag", storage)
    file = storage_file(path)
    content = file.read_bytes()
    for size in (0, 1, 7, 100, 1000):
        file.write_bytes(content[:size])
        read, sentence = read_until_error(path)
        assert read == []
        assert "expected" in sentence


@settings(max_examples=30, deadline=None)
@example(share=0.7818156216486047, size=10, seed=1)  # an index entry of more bytes than an integer, or the memory, holds
@given(share=st.floats(0, 1), size=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_damaged_bytes_never_end_in_another_error(tmp_path_factory, share, size, seed):
    base = tmp_path_factory.getbasetemp() / "intact"
    if not base.exists():
        write_bag(base / "mcap", "mcap", frames=4, side=16)
        write_bag(base / "sqlite3", "sqlite3", frames=4, side=16)
    for storage in STORAGES:
        path = base.parent / f"damaged_{storage}"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(base / storage, path)
        file = storage_file(path)
        content = bytearray(file.read_bytes())
        start = int(share * (len(content) - size))
        content[start : start + size] = np.random.default_rng(seed).bytes(size)
        file.write_bytes(content)
        try:
            with BagReader(path) as bag:
                for stored in bag.messages():
                    _ = stored.message
        except BagError as error:
            assert "expected" in str(error)  # noqa: PT017 - many damages do no harm, and then there is no error


def test_paths_that_are_no_bags(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    for path, words in ((empty, "folder without any"), (tmp_path / "missing", "nothing at this path"), (text, ".txt")):
        with pytest.raises(BagError, match=words), BagReader(path):
            pass


def test_metadata_of_a_lost_file_falls_back_to_what_is_there(tmp_path):
    path = write_bag(tmp_path / "bag")
    about = path / "metadata.yaml"
    about.write_text(about.read_text().replace("- bag.mcap", "- bag.mcap\n  - bag_1.mcap"))
    read, sentence = read_until_error(path)
    assert len(read) == 3 * FRAMES + 1
    assert "bag_1.mcap" in sentence


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_with_topics_but_without_messages_spans_no_time(tmp_path, storage):
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin[storage.upper()]) as bag:
        bag.add_connection("/rgb/image", "sensor_msgs/msg/Image", typestore=build.typestore())
    with BagReader(tmp_path / "bag") as read:
        assert read.span_ns == (0, 0)
        assert [(topic.name, topic.count, topic.rate_hz) for topic in read.topics()] == [("/rgb/image", 0, 0.0)]
        assert list(read.messages()) == []


def test_a_topic_that_is_not_there_is_named_with_the_nearest(tmp_path):
    with BagReader(write_bag(tmp_path / "bag")) as bag, pytest.raises(BagError, match="nearest known: /rgb/image"):
        bag.messages(["/rgb/imag"])


def test_unknown_types_use_the_definition_in_the_bag(tmp_path):
    theirs = get_typestore(Stores.EMPTY)
    theirs.register(get_types_from_msg("float32 level\nstring[] names", "robot_msgs/msg/Battery"))
    battery = theirs.types["robot_msgs/msg/Battery"](level=0.5, names=["left"])
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/battery", "robot_msgs/msg/Battery", typestore=theirs)
        writer.write(connection, 5, theirs.serialize_cdr(battery, "robot_msgs/msg/Battery"))
        silent = writer.add_connection("/secret", "robot_msgs/msg/Secret", msgdef="", rihs01="RIHS01_0")
        writer.write(silent, 6, b"\0\1\0\0")
    with BagReader(tmp_path / "bag") as bag:
        read = next(bag.messages(["/battery"])).message
        assert (read.level, read.names) == (0.5, ["left"])
        assert "/secret" in {topic.name for topic in bag.topics()}
        unknown = next(bag.messages(["/secret"]))
        with pytest.raises(BagError, match="robot_msgs/msg/Secret"):
            _ = unknown.message


EVENTS = "dvs_msgs/msg/EventArray"


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_event_arrays_come_raw(tmp_path, storage):
    event = build.make("dvs_msgs/msg/Event", x=3, y=4, ts=build.time(7), polarity=True)
    array = build.make(EVENTS, header=build.header(7, "event"), height=48, width=64, events=[event] * 3)
    with BagWriter(tmp_path / "bag", storage) as bag:
        bag.write("/events", array, 7)
    with BagReader(tmp_path / "bag") as bag:
        (stored,) = bag.messages()
        assert isinstance(stored.message, RawMessage)
        assert stored.message.type == EVENTS
        assert bytes(stored.message.data) == bytes(build.typestore().serialize_cdr(array, EVENTS))


def test_event_arrays_of_another_layout_are_refused_before_they_are_misread(tmp_path):
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg("uint16 x\nuint64 time", "dvs_msgs/msg/Event"))
    store.register(get_types_from_msg("dvs_msgs/Event[] events", EVENTS))
    array = store.types[EVENTS](events=[store.types["dvs_msgs/msg/Event"](x=1, time=2)])
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP) as bag:
        bag.write(bag.add_connection("/events", EVENTS, typestore=store), 1, store.serialize_cdr(array, EVENTS))
    with BagReader(tmp_path / "bag") as bag:
        (stored,) = bag.messages()
        with pytest.raises(
            BagError, match="expected dvs_msgs/msg/EventArray with the fields that this project knows, got another"
        ):
            _ = stored.message


IMAGE, COMPRESSED, CLOUD = (f"sensor_msgs/msg/{name}" for name in ("Image", "CompressedImage", "PointCloud2"))


@pytest.mark.parametrize(
    ("role", "name", "kind", "overrides", "problem"),
    [
        ("rgb.image", "/rgb/image", IMAGE, {}, ""),
        ("rgb.image", "/rgb/image", COMPRESSED, {}, ""),
        ("rgb.image", "/rgb/image", CLOUD, {}, f"expected {IMAGE} or {COMPRESSED}, got {CLOUD}; "),
        (
            "rgb.image",
            "/rgb/image/compressed",
            COMPRESSED,
            {},
            "not in the bag; there is /rgb/image/compressed; to read it, set",
        ),
        ("rgb.image", "/rgb/image/compressed", COMPRESSED, {"topics.rgb.transport": "compressed"}, ""),
        ("depth.image", "/depth/image/compressedDepth", COMPRESSED, {"topics.depth.transport": "compressedDepth"}, ""),
        ("event.packets", "/events", EVENTS, {}, ""),
        ("event.packets", "/events", CLOUD, {}, ""),
        ("event.packets", "/events", CLOUD, {"event.alignment": "same_view"}, "expected event_camera_msgs/msg/EventPacket or"),
        (
            "lidar.points",
            "/lidar/points",
            "sensor_msgs/msg/LaserScan",
            {},
            f"expected {CLOUD}, got sensor_msgs/msg/LaserScan; ",
        ),
    ],
)
def test_a_topic_of_any_type_that_its_role_reads_is_used(role, name, kind, overrides, problem):
    entries = match_rig((TopicInfo(name, kind, 1, 0.0),), from_flat(overrides))
    (entry,) = (entry for entry in entries if entry.role == role)
    assert entry.problem.startswith(problem) if problem else not entry.problem
    assert entry.type == (kind if entry.topic == name else "")


def test_the_writer_leaves_a_whole_bag_or_nothing(tmp_path):
    path = tmp_path / "bag"
    with pytest.raises(RuntimeError), BagWriter(path) as bag:  # noqa: PT012 - it is the block's end that is tested
        bag.write("/label_info", build.label_info(("road",), 0, "camera"), 0)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    write_bag(path)
    before = storage_file(path).read_bytes()
    with pytest.raises(BagError, match="overwriting was not asked for"), BagWriter(path):
        pass
    assert storage_file(path).read_bytes() == before
    with BagWriter(path, overwrite=True) as bag:
        bag.write("/label_info", build.label_info(("road",), 0, "camera"), 0)
    with BagReader(path) as read:
        assert [topic.name for topic in read.topics()] == ["/label_info"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["bag"]


def test_only_a_bag_is_replaced(tmp_path):
    write_bag(tmp_path / "folder")
    (tmp_path / "folder" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("more of it")
    for name, other in (("folder", "thesis.tex"), ("file", "a file")):
        with pytest.raises(BagError, match=f"expected a bag to replace.*{other}"), BagWriter(tmp_path / name, overwrite=True):
            pass
    assert (tmp_path / "folder" / "thesis.tex").exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]
    (tmp_path / "empty").mkdir()
    with BagWriter(tmp_path / "empty", overwrite=True) as bag:
        bag.write("/label_info", build.label_info(("road",), 0, "camera"), 0)
    assert (tmp_path / "empty" / "metadata.yaml").exists()


def test_a_bag_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    path = tmp_path / "bag"
    write_bag(path)
    before = storage_file(path).read_bytes()
    move = os.replace

    def disk_error(source, target):
        if Path(target) == path and Path(source).name == "bag":
            raise OSError(5, "Input/output error")
        move(source, target)

    monkeypatch.setattr(os, "replace", disk_error)
    with pytest.raises(BagError, match="expected to finish the bag"), BagWriter(path, overwrite=True) as bag:
        bag.write("/label_info", build.label_info(("road",), 0, "camera"), 0)
    assert storage_file(path).read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["bag"]


def test_the_writer_says_what_does_not_fit(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        with pytest.raises(BagError, match="vision_msgs/msg/Detection3DArray"):
            bag.write_raw("/boxes", "vision_msgs/msg/Detection3DArrays", b"", 0)
        bag.write("/labels", build.label_info(("road",), 0, "camera"), 0)
        with pytest.raises(BagError, match="as before"):
            bag.write_raw("/labels", "sensor_msgs/msg/Image", b"", 0)
        message = build.label_info(("road",), 0, "camera")
        message.threshold = "high"
        with pytest.raises(BagError, match="LabelInfo"):
            bag.write("/labels", message, 0)
    with pytest.raises(BagError, match="leave out"), BagWriter(tmp_path / "bag.mcap"):
        pass


def test_builders_say_what_they_are_given():
    camera = CameraModel(640, 480, 500.0, 501.0, 320.0, 240.0, "equidistant", (0.1, 0.2, 0.3, 0.4))
    info = build.camera_info(camera, 1_500_000_000, "camera")
    assert info.k.tolist() == [500.0, 0.0, 320.0, 0.0, 501.0, 240.0, 0.0, 0.0, 1.0]
    assert info.p.tolist() == [500.0, 0.0, 320.0, 0.0, 0.0, 501.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert (info.distortion_model, info.d.tolist()) == ("equidistant", [0.1, 0.2, 0.3, 0.4])
    assert (info.header.stamp.sec, info.header.stamp.nanosec) == (1, 500_000_000)
    box = Detection3D("car", 0.5, (1.0, 2.0, 3.0), (4.0, 2.0, 1.5), (0.0, 0.0, 0.0, 1.0))
    found = build.detections([box], 0, "camera").detections[0]
    assert (found.bbox.center.position.z, found.bbox.size.x) == (3.0, 4.0)
    assert (found.results[0].hypothesis.class_id, found.results[0].hypothesis.score) == ("car", 0.5)
    depth = build.image(np.full((2, 3), 1.5, np.float32), "32FC1", 0, "camera")
    assert (depth.step, depth.data.size) == (12, 24)
    with pytest.raises(BagError, match="encoding"):
        build.image(np.zeros((2, 3), np.uint8), "yuv", 0, "camera")
    with pytest.raises(BagError, match="3 channel"):
        build.image(np.zeros((2, 3), np.uint8), "rgb8", 0, "camera")
    with pytest.raises(BagError, match="structured"):
        build.point_cloud(np.zeros(3), 0, "lidar")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6))
def test_transforms_keep_their_rotation(values):
    from scipy.spatial.transform import Rotation

    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(values[:3]).as_matrix()
    matrix[:3, 3] = values[3:]
    written = build.tf_message([StampedTransform(7, "a", "b", matrix)]).transforms[0]
    turn, shift = written.transform.rotation, written.transform.translation
    assert np.allclose(Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix(), matrix[:3, :3], atol=1e-12)
    assert [shift.x, shift.y, shift.z] == values[3:]
    assert (written.header.frame_id, written.child_frame_id) == ("a", "b")


def test_definitions_are_found_or_missed_with_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "__file__", str(tmp_path / "x" / "y" / "z.py"))
    monkeypatch.setattr("sys.prefix", str(tmp_path / "none"))
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    with pytest.raises(BagError, match="vision_msgs"):
        build.interfaces_dir()
    installed = tmp_path / "ros" / "share" / "gemini_ros" / "interfaces"
    (installed / "vision_msgs" / "msg").mkdir(parents=True)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'other'}:{tmp_path / 'ros'}")
    assert build.interfaces_dir() == installed


def test_a_real_event_bag_is_read_whole(real_dir):
    with BagReader(real_dir / "events" / "evt3_640x480_bag") as bag:
        (topic,) = bag.topics()
        assert (topic.name, topic.count) == ("/event_camera/events", 517)
        packets = [stored.message for stored in bag.messages()]
    assert len(packets) == 517
    assert {(packet.encoding, packet.width, packet.height) for packet in packets} == {("evt3", 640, 480)}


def test_a_real_cloud_off_the_wire_goes_through_a_bag(real_dir, tmp_path):
    data = (real_dir / "point_cloud2" / "velodyne_xyzir_timestamp.cdr").read_bytes()
    with BagWriter(tmp_path / "bag") as bag:
        bag.write_raw("/points", "sensor_msgs/msg/PointCloud2", data, 0)
    with BagReader(tmp_path / "bag") as bag:
        stored = next(bag.messages())
        assert bytes(stored.data) == data
        assert (stored.message.width * stored.message.height, stored.message.point_step) == (64000, 26)

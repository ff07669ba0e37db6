"""Bags that are whole and odd: everything in them is read, what is foreign is named, and nothing is called damaged."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
from rosbags.rosbag2.storage_mcap import zstd
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from gemini_core.bag import messages as build
from gemini_core.bag.reader import BagReader
from gemini_core.bag.topics import match_rig
from gemini_core.bag.writer import BagWriter
from gemini_core.config import from_flat
from gemini_core.errors import BagError
from test.builders.mcap_files import PACKERS, McapChannel, McapOptions, write_mcap

STORAGES = ("mcap", "sqlite3")
CHUNK_HEAD_BYTES = 9 + 28 + 7 + 8  # of a record of a chunk of compression "lz4", before what is compressed
STRING = "std_msgs/msg/String"
PLAIN = [
    McapChannel(1, "/a", STRING, "ros2msg", "string data"),
    McapChannel(2, "/b", STRING, "ros2msg", "string data\n# the same in other words"),
    McapChannel(7, "/a", STRING, "ros2msg", "string data", metadata={"offered_qos_profiles": "[]"}),
]


def string(words: str) -> bytes:
    return bytes(build.typestore().serialize_cdr(build.make(STRING, data=words), STRING))


def rows(count: int = 20, channels: tuple[int, ...] = (1, 2, 7)) -> list[tuple[int, int, bytes]]:
    return [(channels[index % len(channels)], 1000 + 10 * index, string(f"{index}")) for index in range(count)]


def read(path: Path) -> tuple[list[tuple[str, int, str]], str, tuple[str, ...]]:
    """Everything that a bag says: its messages, its damage or the error of reading it, its notes."""
    found = []
    with BagReader(path) as bag:
        damage = bag.damage
        try:
            found.extend((each.topic, each.log_ns, each.message.data) for each in bag.messages())
        except BagError as error:
            damage = str(error)
        counts = {topic.name: topic.count for topic in bag.topics()}
        if not damage:
            assert counts == {name: sum(each[0] == name for each in found) for name in counts}
        return found, damage, bag.notes


def strings_bag(path: Path, storage: str, count: int = 30) -> Path:
    with BagWriter(path, storage) as bag:
        for index in range(count):
            bag.write("/a", build.make(STRING, data=f"{index}"), 1000 + index)
    return path


def words_of(found: list[tuple[str, int, str]]) -> list[str]:
    return [words for _, _, words in found]


# --------------------------------------------------------------------------------------------------------------------
# MCAP


@settings(max_examples=60, deadline=None)
@given(
    options=st.builds(
        McapOptions,
        chunks=st.sampled_from(["all", "none", "mixed"]),
        compression=st.sampled_from(sorted(PACKERS)),
        per_chunk=st.integers(1, 30),
        profile=st.sampled_from(["ros2", "", "x"]),
        **{each.name: st.booleans() for each in dataclasses.fields(McapOptions) if isinstance(each.default, bool)},
    ),
    order=st.permutations(range(20)),
)
def test_every_combination_of_indexes_gives_the_same_messages_in_order_of_time(tmp_path_factory, options, order):
    file = tmp_path_factory.getbasetemp() / "any.mcap"
    written = rows()
    file.write_bytes(write_mcap(PLAIN, [written[index] for index in order], options))
    topics = {1: "/a", 2: "/b", 7: "/a"}
    found, damage, notes = read(file)
    assert found == [(topics[number], log_ns, f"{index}") for index, (number, log_ns, _) in enumerate(written)]
    assert (damage, notes) == ("", ())


def test_messages_of_one_time_come_as_they_were_written(tmp_path):
    file = tmp_path / "a.mcap"
    file.write_bytes(
        write_mcap(PLAIN, [(1, 5 + (index == 0), string(f"{index}")) for index in range(10)], McapOptions(per_chunk=4))
    )
    assert words_of(read(file)[0]) == ["1", "2", "3", "4", "5", "6", "7", "8", "9", "0"]


def test_overlapping_chunks_larger_than_what_is_kept_are_merged_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("gemini_core.bag.blocks.KEPT_BYTES", 100)
    file = tmp_path / "a.mcap"
    order = [index for begin in range(5) for index in range(begin, 100, 5)]  # every chunk spans all of the time
    file.write_bytes(write_mcap(PLAIN, [rows(100)[index] for index in order], McapOptions(per_chunk=20, compression="zstd")))
    assert words_of(read(file)[0]) == [f"{index}" for index in range(100)]


@pytest.mark.parametrize("more", [-4, 3])
def test_what_the_statistics_promise_and_the_file_lacks_is_said_with_both_numbers(tmp_path, more):
    whole = write_mcap(PLAIN, rows(20))
    other = write_mcap(PLAIN, rows(20 + more))
    number = whole.index(b"\x0b" + (46 + 30).to_bytes(8, "little")) + 9
    place = other.index(b"\x0b" + (46 + 30).to_bytes(8, "little")) + 9
    file = tmp_path / "a.mcap"
    file.write_bytes(other[:place] + whole[number : number + 76] + other[place + 76 :])
    found, damage, _ = read(file)
    assert len(found) == 20 + more
    assert ("expected 20 messages as its statistics says, got 16" in damage) == (more < 0)
    assert bool(damage) == (more < 0)


@pytest.mark.parametrize("has_index", [True, False])
def test_a_damaged_chunk_takes_only_its_own_messages(tmp_path, has_index):
    options = McapOptions(compression="zstd", message_index=has_index, checksums=True)
    content = bytearray(write_mcap(PLAIN, rows(60), options))
    packed = [place for place in range(len(content)) if content[place : place + 4] == b"\x28\xb5\x2f\xfd"]
    content[packed[3] + 12] ^= 0xFF
    file = tmp_path / "a.mcap"
    file.write_bytes(content)
    found, damage, _ = read(file)
    assert words_of(found) == [f"{index}" for index in range(60) if index // 3 != 3]
    assert "damaged chunk at byte" in damage
    assert "57 messages were read" in damage


def test_a_chunk_that_only_the_index_knows_of_is_missed_without_statistics(tmp_path):
    content = bytearray(write_mcap(PLAIN, rows(60), McapOptions(compression="lz4", statistics=False)))
    packed = [place for place in range(len(content)) if content[place : place + 4] == b"\x04\x22\x4d\x18"]
    assert content[packed[5] - CHUNK_HEAD_BYTES] == 6
    content[packed[5] - CHUNK_HEAD_BYTES] = 0x86  # a private record now, which readers pass over
    file = tmp_path / "a.mcap"
    file.write_bytes(content)
    found, damage, _ = read(file)
    assert len(found) == 57
    assert "as its index says, got none" in damage


def test_reading_goes_on_behind_a_damaged_length(tmp_path):
    content = bytearray(write_mcap(PLAIN, rows(60), McapOptions(compression="lz4")))
    packed = [place for place in range(len(content)) if content[place : place + 4] == b"\x04\x22\x4d\x18"]
    start = packed[5] - CHUNK_HEAD_BYTES
    assert content[start] == 6
    content[start + 1 : start + 9] = b"\xff" * 8
    file = tmp_path / "a.mcap"
    file.write_bytes(content)
    found, damage, _ = read(file)
    assert len(found) >= 57
    assert "whole record at byte" in damage


def test_a_compression_that_nobody_knows_is_named(tmp_path):
    content = write_mcap(PLAIN, rows(6), McapOptions(compression="lz4")).replace(b"\x03\0\0\0lz4", b"\x03\0\0\0br2")
    file = tmp_path / "a.mcap"
    file.write_bytes(content)
    with (
        pytest.raises(BagError, match="expected chunks of a compression out of none, zstd, lz4, bz2, got 'br2'"),
        BagReader(file),
    ):
        pass


FOREIGN = {
    "json": McapChannel(9, "/x", "Log", "jsonschema", '{"type": "object"}', "json"),
    "protobuf": McapChannel(9, "/x", "foxglove.Pose", "protobuf", "\n\x05a.txt", "protobuf"),
    "no schema": McapChannel(9, "/x", "", "", "", "json"),
    "known by name": McapChannel(9, "/rgb/image", "sensor_msgs/msg/Image", "jsonschema", "{}", "json"),
    "ros2idl of no dependency": McapChannel(
        9, "/x", "p/msg/A", "ros2idl", "module p { module msg { struct A { q::msg::B b; }; }; };"
    ),
    "no definition": McapChannel(9, "/x", "p/msg/Secret", "", ""),
    "no IDL": McapChannel(9, "/x", "p/msg/A", "ros2idl", "module { \xe9 '"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_topic_beside_others_is_listed_with_why_it_is_not_read(tmp_path, kind):
    file = tmp_path / "a.mcap"
    file.write_bytes(write_mcap([*PLAIN, FOREIGN[kind]], [*rows(20), (9, 1001, b'{"a": 1}')]))
    with BagReader(file) as bag:
        topics = {topic.name: topic for topic in bag.topics()}
        foreign = topics[FOREIGN[kind].topic]
        assert (foreign.count, bag.damage) == (1, "")
        assert foreign.problem.startswith("expected ")
        assert FOREIGN[kind].encoding == "cdr" or "json" in foreign.problem or "protobuf" in foreign.problem
        assert [topics[name].problem for name in ("/a", "/b")] == ["", ""]
        assert len(list(bag.messages(["/a", "/b"]))) == 20
        with pytest.raises(BagError, match="expected"):
            _ = next(bag.messages([foreign.name])).message
        (entry,) = (each for each in match_rig(bag.topics(), from_flat({})) if each.role == "rgb.image")
        assert entry.problem == foreign.problem or foreign.name != "/rgb/image"


# --------------------------------------------------------------------------------------------------------------------
# Folders and what their metadata.yaml says


def change(path: Path, edit) -> None:
    about = yaml.safe_load((path / "metadata.yaml").read_text())
    edit(about["rosbag2_bagfile_information"])
    (path / "metadata.yaml").write_text(yaml.safe_dump(about))


def set_identifier(about):
    about["storage_identifier"] = ""


def set_qos(about):
    for topic in about["topics_with_message_count"]:
        topic["topic_metadata"]["offered_qos_profiles"] = "- history: 3\n  depth: 0\n"


def set_hash(about):
    for topic in about["topics_with_message_count"]:
        topic["topic_metadata"]["type_description_hash"] = "RIHS01_" + 64 * "0"


def drop_topics(about):
    about["topics_with_message_count"] = []


@pytest.mark.parametrize("edit", [set_identifier, set_qos, set_hash, drop_topics])
@pytest.mark.parametrize("storage", STORAGES)
def test_other_words_in_metadata_change_nothing(tmp_path, storage, edit):
    path = strings_bag(tmp_path / "bag", storage)
    change(path, edit)
    found, damage, notes = read(path)
    assert (len(found), damage, notes) == (30, "", ())


@pytest.mark.parametrize("storage", STORAGES)
def test_renamed_files_are_read_and_named(tmp_path, storage):
    path = strings_bag(tmp_path / "bag", storage)
    file = next(each for each in path.iterdir() if each.name != "metadata.yaml")
    file.rename(path / f"drive{file.suffix}")
    found, damage, (note,) = read(path)
    assert (len(found), damage) == (30, "")
    assert file.name in note
    assert f"drive{file.suffix}" in note


@pytest.mark.parametrize(
    "content",
    ["", "a: [", "[" * 100_000, "rosbag2_bagfile_information: 3", "a: &a [1]\nb: [*a, *a]", "\x00", "? " * 5000 + "a"],
)
def test_a_metadata_file_that_says_nothing_takes_nothing_away(tmp_path, content):
    path = strings_bag(tmp_path / "bag", "mcap")
    (path / "metadata.yaml").write_text(content)
    found, damage, (note,) = read(path)
    assert (len(found), damage) == (30, "")
    assert "metadata.yaml" in note
    assert len(note) < 600


def test_messages_that_only_metadata_promises_are_lost_where_the_file_cannot_tell(tmp_path):
    path = strings_bag(tmp_path / "bag", "sqlite3")
    with sqlite3.connect(path / "bag.db3") as database:
        database.execute("DELETE FROM messages WHERE id > 20")
    found, damage, _ = read(path)
    assert len(found) == 20
    assert "expected 30 messages of /a as metadata.yaml says, got 20" in damage


def test_a_filtered_mcap_under_its_old_metadata_is_whole(tmp_path):
    path = strings_bag(tmp_path / "bag", "mcap")
    (path / "bag.mcap").write_bytes(write_mcap(PLAIN[:1], rows(12, (1,))))
    found, damage, (note,) = read(path)
    assert (len(found), damage) == (12, "")
    assert "expected 30 messages of /a as metadata.yaml says, got 12" in note


def test_files_of_one_bag_are_merged_by_time(tmp_path):
    path = tmp_path / "bag"
    path.mkdir()
    for part in range(3):
        mine = [row for index, row in enumerate(rows(30)) if index % 3 == part]
        (path / f"bag_{part}.mcap").write_bytes(write_mcap(PLAIN, mine))
    assert words_of(read(path)[0]) == [f"{index}" for index in range(30)]


# --------------------------------------------------------------------------------------------------------------------
# sqlite3 and its logs


def with_log(tmp_path: Path, mode: str) -> Path:
    """A bag whose recorder was killed: half of its messages lie in the log beside it."""
    source = strings_bag(tmp_path / "source", "sqlite3", 100) / "source.db3"
    work, killed = tmp_path / "work", tmp_path / "killed"
    work.mkdir()
    killed.mkdir()
    shutil.copy(source, work / "bag.db3")
    database = sqlite3.connect(work / "bag.db3", isolation_level=None)
    kept = database.execute("SELECT * FROM messages WHERE id > 50").fetchall()
    database.execute("DELETE FROM messages WHERE id > 50")
    database.execute(f"PRAGMA journal_mode={mode}")
    database.execute("PRAGMA wal_autocheckpoint=0")
    database.execute("PRAGMA cache_size=1")  # so that what is not committed lies in the file
    database.execute("BEGIN")
    database.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", [(*row[:3], bytes(row[3]) + bytes(5000)) for row in kept])
    if mode == "WAL":
        database.execute("COMMIT")
    for file in work.iterdir():
        if not file.name.endswith("-shm"):
            shutil.copy(file, killed / file.name)
    database.close()
    return killed


@pytest.mark.parametrize("is_file", [True, False])
def test_messages_in_a_write_ahead_log_are_read_and_nothing_is_written(tmp_path, is_file):
    path = with_log(tmp_path, "WAL")
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    assert set(before) == {"bag.db3", "bag.db3-wal"}
    path.chmod(0o500)
    with BagReader(path / "bag.db3" if is_file else path) as bag:
        assert [each.log_ns for each in bag.messages()] == list(range(1000, 1100))
        assert {topic.count for topic in bag.topics()} == {100}
        assert bag.damage == ""
        assert any("bag.db3-wal" in note for note in bag.notes)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_an_unfinished_write_is_rolled_back_in_a_copy(tmp_path):
    path = with_log(tmp_path, "DELETE")
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    assert "bag.db3-journal" in before
    with BagReader(path) as bag:
        assert len(list(bag.messages())) in (50, 100)  # SQLite may roll back the deletion with it
        assert bag.damage == ""
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


@pytest.mark.parametrize("columns", ["id, name, type, serialization_format", "id, name, type"])
def test_tables_of_older_versions_are_read(tmp_path, columns):
    path = strings_bag(tmp_path / "bag", "sqlite3")
    with sqlite3.connect(path / "bag.db3") as database:
        database.executescript(
            f"CREATE TABLE old AS SELECT {columns} FROM topics;"  # noqa: S608 - of the list above
            "DROP TABLE topics; ALTER TABLE old RENAME TO topics;"
            "DROP TABLE message_definitions; DROP TABLE schema; DROP TABLE metadata; DROP INDEX timestamp_idx;"
        )
    found, damage, (note,) = read(path)
    assert (len(found), damage) == (30, "")
    assert note == f"read as this project knows them, since the bag has no definition: {STRING}"


# --------------------------------------------------------------------------------------------------------------------
# Compression of messages and files


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("mode", ["MESSAGE", "FILE"])
def test_compressed_bags_are_read_with_and_without_metadata_and_alone(tmp_path, storage, mode):
    path = tmp_path / "bag"
    writer = Writer(path, version=8, storage_plugin=StoragePlugin[storage.upper()])
    writer.set_compression(CompressionMode[mode], CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/a", STRING, typestore=build.typestore())
        for index in range(30):
            writer.write(connection, 1000 + index, string(f"{index}"))
    file = next(each for each in path.iterdir() if each.name != "metadata.yaml")
    assert file.name.endswith(".zstd") == (mode == "FILE")
    whole = read(path)
    assert words_of(whole[0]) == [f"{index}" for index in range(30)]
    assert whole[1:] == ("", ())
    assert read(file) == whole
    (path / "metadata.yaml").unlink()
    assert read(path) == whole
    assert [each.name for each in path.iterdir()] == [file.name]


def test_of_a_compressed_file_that_is_cut_off_the_front_is_read(tmp_path):
    options = McapOptions(per_chunk=20)
    content = zstd.compress(
        write_mcap(PLAIN, [(1, index, np.random.default_rng(index).bytes(3000)) for index in range(500)], options)
    )
    file = tmp_path / "a.mcap.zstd"
    file.write_bytes(content[: len(content) // 2])
    with BagReader(file) as bag:
        with pytest.raises(BagError, match="damaged after") as caught:  # noqa: PT012 - the messages come first
            count = 0
            for _ in bag.messages():
                count += 1
        assert 100 < count < 500
        assert f"{count} messages were read" in str(caught.value)


# --------------------------------------------------------------------------------------------------------------------
# ROS 1


def ros1_bag(path: Path, compression: str | None = None, count: int = 10) -> Path:
    store = get_typestore(Stores.ROS1_NOETIC)
    store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", "tf/msg/tfMessage"))
    writer = Ros1Writer(path)
    if compression:
        writer.set_compression(Ros1Writer.CompressionFormat[compression])
    with writer:
        make = store.types
        image, info, tf = (
            writer.add_connection(topic, kind, typestore=store)
            for topic, kind in (
                ("/rgb/image", "sensor_msgs/msg/Image"),
                ("/rgb/camera_info", "sensor_msgs/msg/CameraInfo"),
                ("/tf", "tf/msg/tfMessage"),
            )
        )
        for index in range(count):
            stamp = make["builtin_interfaces/msg/Time"](sec=5, nanosec=index)
            header = make["std_msgs/msg/Header"](seq=index, stamp=stamp, frame_id="camera")
            pixels = np.full(12, index % 256, np.uint8)
            message = make["sensor_msgs/msg/Image"](header, 2, 2, "rgb8", 0, 6, pixels)
            writer.write(image, 5_000_000_000 + index, store.serialize_ros1(message, image.msgtype))
            region = make["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
            lens = make["sensor_msgs/msg/CameraInfo"](
                header, 2, 2, "plumb_bob", np.zeros(5), np.arange(9.0), np.eye(3).reshape(-1), np.zeros(12), 0, 0, region
            )
            writer.write(info, 5_000_000_000 + index, store.serialize_ros1(lens, info.msgtype))
        writer.write(tf, 5_000_000_000, store.serialize_ros1(make["tf/msg/tfMessage"]([]), tf.msgtype))
    return path


@pytest.mark.parametrize("compression", [None, "BZ2", "LZ4"])
def test_a_bag_of_ros1_is_read_as_ros2_has_it_and_named(tmp_path, compression):
    path = ros1_bag(tmp_path / "drive.bag", compression)
    with BagReader(path) as bag:
        assert {topic.name: (topic.type, topic.count, topic.problem) for topic in bag.topics()} == {
            "/rgb/camera_info": ("sensor_msgs/msg/CameraInfo", 10, ""),
            "/rgb/image": ("sensor_msgs/msg/Image", 10, ""),
            "/tf": ("tf2_msgs/msg/TFMessage", 1, ""),
        }
        assert bag.damage == ""
        (note,) = bag.notes
        assert "ROS 1" in note
        assert f"rosbags-convert --src {path} --dst drive" in note
        images = [each.message for each in bag.messages(["/rgb/image"])]
        assert [(each.header.stamp.nanosec, each.data[0]) for each in images] == [(index, index) for index in range(10)]
        again = build.typestore().serialize_cdr(images[3], "sensor_msgs/msg/Image")
        assert bytes(again) == [each.data for each in bag.messages(["/rgb/image"])][3]
        lens = next(bag.messages(["/rgb/camera_info"])).message
        assert (lens.k.tolist(), lens.distortion_model) == (list(range(9)), "plumb_bob")
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(path, folder / "a.bag")
    with BagReader(folder) as bag:
        assert len(list(bag.messages())) == 21


@pytest.mark.parametrize("share", [0.9, 0.8])
def test_of_a_cut_bag_of_ros1_the_front_is_read(tmp_path, share):
    path = ros1_bag(tmp_path / "drive.bag", count=300)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    found = []
    with BagReader(path) as bag, pytest.raises(BagError, match="messages were read before"):
        found.extend(each.log_ns for each in bag.messages() if each.message)
    assert found == sorted(found)
    assert 600 * share - 200 < len(found) < 601


def test_an_mcap_of_ros1_is_read_too(tmp_path):
    store = get_typestore(Stores.ROS1_NOETIC)
    text = store.generate_msgdef("std_msgs/msg/Header", ros_version=1)[0]
    stamp = store.types["builtin_interfaces/msg/Time"](sec=5, nanosec=6)
    header = store.types["std_msgs/msg/Header"](seq=9, stamp=stamp, frame_id="map")
    data = bytes(store.serialize_ros1(header, "std_msgs/msg/Header"))
    file = tmp_path / "a.mcap"
    channel = McapChannel(1, "/a", "std_msgs/Header", "ros1msg", text, "ros1")
    file.write_bytes(write_mcap([channel], [(1, 3, data)], McapOptions(profile="ros1")))
    with BagReader(file) as bag:
        (stored,) = bag.messages()
        assert (stored.type, stored.message.frame_id, stored.message.stamp.nanosec) == ("std_msgs/msg/Header", "map", 6)
        assert "ROS 1" in bag.notes[0]


# --------------------------------------------------------------------------------------------------------------------
# Bags of other people


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("rosbag2/talker_sqlite3", {"/topic": 10, "/rosout": 10}),
        ("rosbag2/convert_a_mcap", {"a_empty": 100, "b_basictypes": 50}),
        ("rosbag2/rewriter_b_sqlite3", {"a_empty": 25, "c_strings": 50}),
        ("tests/test_events_2", {"/event_camera/events": 100}),
    ],
)
def test_bags_of_other_projects_are_read_to_the_last_message(shared_dir, name, counts):
    path = shared_dir / "field" / "samples" / name
    if not path.is_dir():
        pytest.skip(f"no sample bags in {path.parent}")
    with BagReader(path) as bag:
        readable = {topic.name for topic in bag.topics() if not topic.problem}
        found = Counter()
        for stored in bag.messages():
            found[stored.topic] += 1
            assert stored.message is not None if stored.topic in readable else True
        assert found == counts
        assert bag.damage == ""
        assert readable.isdisjoint(counts) == (name == "rosbag2/rewriter_b_sqlite3")  # it has no definitions of test_msgs


def test_a_damaged_page_of_sqlite_takes_only_its_own_messages(tmp_path):
    with BagWriter(tmp_path / "bag", "sqlite3") as bag:
        for index in range(40):
            bag.write("/a", build.make(STRING, data=f"{index:03}" * 5000), 1000 - index)
    file = tmp_path / "bag" / "bag.db3"
    content = bytearray(file.read_bytes())
    page = content.index(b"020020020") // 4096 * 4096  # the first bytes of a page that goes on say which page is next
    content[page : page + 4] = b"\xff" * 4
    file.write_bytes(content)
    found, damage, _ = read(tmp_path / "bag")
    words = [words[:3] for words in words_of(found)]
    assert "expected an intact sqlite3 file" in damage
    assert len(set(words)) == len(words) >= 38
    assert set(words) <= {f"{index:03}" for index in range(40)}

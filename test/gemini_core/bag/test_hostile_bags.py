"""Bags that mean harm, or are no bags at all: one sentence, soon, and within little memory."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2.storage_mcap import zstd
from rosbags.typesys import get_types_from_idl

from gemini_core.bag import compressed
from gemini_core.bag.compressed import unpack
from gemini_core.bag.definitions import reading_of
from gemini_core.bag.idl import parse_idl
from gemini_core.bag.messages import typestore
from gemini_core.bag.reader import BagReader
from gemini_core.bag.stored import Channel
from gemini_core.bag.writer import BagWriter
from gemini_core.errors import BagError
from test.builders.mcap_files import McapChannel, McapOptions, record, text, write_mcap

STRING = "std_msgs/msg/String"
CHANNEL = McapChannel(1, "/a", STRING, "ros2msg", "string data")
EIGHT_GB = 8 << 30
DATA = b"\x00\x01\x00\x00\x02\x00\x00\x00a\x00"
FRAME_OF_8_GB = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", EIGHT_GB) + b"\x01\x00\x00"


def sentence_of(path: Path) -> str:
    said = ""
    try:
        with BagReader(path) as bag:
            for _ in bag.messages():
                pass
    except BagError as error:
        said = str(error)
    assert "\n" not in said
    return said


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.parametrize("name", ["a.mcap", "a.db3", "a.bag", "a.mcap.zstd"])
def test_a_fifo_is_no_bag_and_does_not_block(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert "expected a regular file, got a FIFO" in sentence_of(tmp_path / name)
    assert "expected a bag with" in sentence_of(tmp_path)


def test_a_fifo_in_place_of_the_metadata_is_passed_over(tmp_path):
    (tmp_path / "a.mcap").write_bytes(write_mcap([CHANNEL], [(1, 5, DATA)]))
    os.mkfifo(tmp_path / "metadata.yaml")
    with BagReader(tmp_path) as bag:
        assert len(list(bag.messages())) == 1
        assert "got a FIFO" in bag.notes[0]


def test_paths_that_the_system_refuses_end_in_a_sentence(tmp_path):
    loop = tmp_path / "loop.mcap"
    loop.symlink_to(loop)
    folder = tmp_path / "folder.mcap"
    folder.mkdir()
    for path, words in (
        (Path("/dev/zero"), "got a device"),
        (tmp_path / ("x" * 5000 + ".mcap"), "File name too long"),
        (loop, "levels of symbolic links"),
        (folder, "folder without any"),
        (tmp_path / "a\0.mcap", "nothing at this path"),
    ):
        sentence = sentence_of(path)
        assert "expected" in sentence
        assert words in sentence
        assert len(sentence) < 1000


def test_a_folder_named_like_a_file_is_a_bag_or_passed_over_within_one(tmp_path):
    bag = tmp_path / "drive.mcap"
    bag.mkdir()
    (bag / "a.mcap").write_bytes(write_mcap([CHANNEL], [(1, 5, DATA)]))
    (bag / "b.mcap").mkdir()
    with BagReader(bag) as read:
        assert len(list(read.messages())) == 1
        assert read.damage == ""
        assert "b.mcap" in read.notes[0]


CHUNKS = {
    "the chunk claims it": struct.pack("<QQQI", 0, 9, EIGHT_GB, 0) + text("zstd") + struct.pack("<Q", 30) + bytes(30),
    "the frame claims it": struct.pack("<QQQI", 0, 9, 100, 0) + text("zstd") + struct.pack("<Q", 16) + FRAME_OF_8_GB,
    "the chunk claims less than it has": struct.pack("<QQQI", 0, 9, 100, 0)
    + text("zstd")
    + struct.pack("<Q", len(ZEROS := zstd.compress(bytes(100 << 20))))
    + ZEROS,
}

GUARDED = """
import resource, sys
from gemini_core.bag.reader import BagReader
from gemini_core.errors import BagError
import gemini_core.bag.messages
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (600 << 20),) * 2)
try:
    with BagReader(sys.argv[1]) as bag:
        for message in bag.messages():
            message.message
except BagError as error:
    print(error)
"""


def guarded(path: Path) -> str:
    """Read a bag in a process that gets 600 MB beside what Python and the libraries have."""
    done = subprocess.run([sys.executable, "-c", GUARDED, str(path)], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts memory as Linux does")
def test_chunks_messages_and_files_that_claim_8_gb_take_no_memory(tmp_path):
    for name, chunk in CHUNKS.items():
        whole = write_mcap([CHANNEL], [(1, 5, DATA)])
        place = whole.index(b"\x0f" + (4).to_bytes(8, "little"))
        file = tmp_path / f"{name}.mcap"
        file.write_bytes(whole[:place] + record(6, chunk) + whole[place:])
    bombed = tmp_path / "message.mcap"
    bombed.write_bytes(write_mcap([CHANNEL], [(1, 5, FRAME_OF_8_GB), (1, 6, DATA)]))
    packed = tmp_path / "file.mcap.zstd"
    packed.write_bytes(FRAME_OF_8_GB)
    folder = tmp_path / "all"
    folder.mkdir()
    for file in [*tmp_path.glob("*.mcap"), packed]:
        (folder / f"{len(file.name)}_{file.name}").write_bytes(file.read_bytes())
    said = guarded(folder)
    assert "4 messages were read before" in said  # the whole ones of all files
    assert "1 could not be" in said


def test_a_file_that_unpacks_to_more_than_a_recording_can_is_refused_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(compressed, "MIN_FILE_BYTES", 1 << 20)
    file = tmp_path / "a.mcap.zstd"
    file.write_bytes(zstd.compress(bytes(64 << 20)))
    assert "unpack it with 'zstd -d'" in sentence_of(file)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300), many=st.integers(1, 3), size=st.sampled_from([None, 0, 1]))
def test_unpacking_is_the_inverse_of_packing_and_holds_the_size(data, many, size):
    packed = zstd.compress(data) * many
    if size is None:
        assert unpack(packed, "zstd") == data * many == unpack(packed, "zstd", len(data) * many)
    elif size != len(data) * many:
        with pytest.raises(BagError, match="expected"):
            unpack(packed, "zstd", size)


# --------------------------------------------------------------------------------------------------------------------
# Definitions

HEADER = "module std_msgs { module msg { struct Header { builtin_interfaces::msg::Time stamp; string frame_id; }; }; };"
TIME = "module builtin_interfaces { module msg { struct Time { int32 sec; uint32 nanosec; }; }; };"
IMAGE = """
#include "std_msgs/msg/Header.idl"
#pragma once
module sensor_msgs { module msg {
  @verbatim (language="comment", text="in two" "parts of \\"it\\"")
  struct Image {
    @verbatim (language="comment", text="a")
    std_msgs::msg::Header header;
    uint32 height, width; /* both */
    string encoding; // of it
    @default (value=0) octet is_bigendian;
    uint32 step;
    sequence<uint8> data;
  };
}; };
"""


def idl(type_name: str, *parts: tuple[str, str]) -> Channel:
    body = "".join(f"{'=' * 80}\nIDL: {name}\n{part}\n" for name, part in parts)
    return Channel("/a", type_name, definition=MessageDefinition(MessageDefinitionFormat.IDL, body))


def test_idl_with_includes_annotations_and_parts_is_the_same_type():
    image = ("sensor_msgs/msg/Image", IMAGE.replace("octet", "uint8"))
    parts = [image, ("std_msgs/msg/Header", HEADER), ("builtin_interfaces/msg/Time", TIME)]
    reading = reading_of(idl(image[0], *parts))
    assert (reading.store is typestore(), reading.note, reading.problem) == (True, "", "")


def test_a_known_type_whose_definition_lacks_another_is_read_by_ours_and_said():
    reading = reading_of(idl("sensor_msgs/msg/Image", ("sensor_msgs/msg/Image", IMAGE)))
    assert reading.store is typestore()
    assert "std_msgs/msg/Header" in reading.note


def test_an_unknown_type_that_lacks_a_known_one_borrows_it():
    text_of = "module p { module msg { struct A { std_msgs::msg::Header header; sequence<string<4>, 3> names; }; }; };"
    reading = reading_of(idl("p/msg/A", ("p/msg/A", text_of)))
    assert reading.problem == ""
    data = b"\x00\x01\x00\x00" + struct.pack("<iII", 3, 4, 2) + b"m\0\0\0" + struct.pack("<II", 1, 2) + b"x\0"
    message = reading.decode("p/msg/A", data)
    assert (message.header.stamp.sec, message.header.frame_id, message.names) == (3, "m", ["x"])


@pytest.mark.parametrize(
    "body",
    [
        "module a { module msg { struct B { long x; unsigned long long y; octet z; char c; wstring s; double d[9]; }; }; };",
        "module a { module msg { module B_Constants { const uint8 X = 3; }; struct B { float f[2]; string<10> t; }; }; };",
        "module a { module msg { typedef double d9[9]; typedef sequence<float, 4> fs; struct B { d9 x; fs f; }; }; };",
        "module a{module msg{struct C{long x;};struct B{sequence<a::msg::C,2> x;::a::msg::C y;C z;};};};",
        "module a { module msg { @final struct B { @key long k; @range (min=1, max=5) long z; uint16 a, b; }; }; };",
    ],
)
def test_idl_that_rosbags_can_read_is_read_the_same(body):
    ours, theirs = parse_idl(body), get_types_from_idl(body)
    assert {name: fields for name, (_, fields) in ours.items()} == {name: fields for name, (_, fields) in theirs.items()}


HOSTILE = {
    "modules": "module a { " * 20_000,
    "sequences": "struct B { " + "sequence<" * 20_000,
    "brackets": "const long X = " + "(" * 20_000,
    "annotation": "@a" + "(" * 20_000,
    "itself": "module p { module msg { struct A { p::msg::A a; }; }; };",
    "quote": "module p { '",
    "union": "module p { union U switch (long) { case 1: long x; }; };",
    "long": " " * 2_000_000,
    "digits": "struct A { long x[" + "9" * 5000 + "]; };",
    "nothing": "",
}


@pytest.mark.parametrize("form", [MessageDefinitionFormat.IDL, MessageDefinitionFormat.MSG])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_definitions_are_a_problem_of_their_topic_alone(kind, form):
    began = time.process_time()
    channel = Channel("/a", "p/msg/A", definition=MessageDefinition(form, HOSTILE[kind]))
    problem = reading_of(channel).problem
    assert time.process_time() - began < 5
    assert len(problem) < 1000
    if not (form == MessageDefinitionFormat.MSG and kind == "nothing"):  # that is a message without fields
        assert problem.startswith("expected a usable definition of p/msg/A in the bag")


def test_types_that_hold_others_many_times_over_are_read_in_no_time():
    parts = [f"MSG: p/A{index}\nA{index + 1} x\nA{index + 1} y\n" for index in range(60)]
    body = ("=" * 80 + "\n").join([*parts, "MSG: p/A60\nbool x\n"]).removeprefix("MSG: p/A0\n")
    channel = Channel("/a", "p/msg/A0", definition=MessageDefinition(MessageDefinitionFormat.MSG, body))
    assert reading_of(channel).problem == ""


def test_a_definition_that_does_not_fit_its_messages_gives_way_to_ours(tmp_path):
    file = tmp_path / "a.mcap"
    channel = McapChannel(1, "/a", "geometry_msgs/msg/Point", "ros2msg", "float32 x")
    file.write_bytes(write_mcap([channel], [(1, 5, b"\0\1\0\0" + struct.pack("<ddd", 7, 8, 9))]))
    with BagReader(file) as bag:
        (stored,) = bag.messages()
        assert (stored.message.x, stored.message.z) == (7, 9)
        assert "does not fit" in bag.notes[0]


# --------------------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@example(place=0.0, what=b"")
@given(place=st.floats(0, 1), what=st.binary(min_size=1, max_size=30))
@pytest.mark.parametrize("compression", ["", "zstd"])
def test_any_bytes_in_an_mcap_end_in_messages_or_a_sentence(tmp_path_factory, compression, place, what):
    options = McapOptions(compression=compression, chunks="mixed", extras=True, checksums=True)
    content = bytearray(write_mcap([CHANNEL], [(1, index, DATA) for index in range(30)], options))
    start = int(place * (len(content) - len(what)))
    content[start : start + len(what)] = what
    file = tmp_path_factory.getbasetemp() / "any.mcap"
    file.write_bytes(content)
    found = 0
    try:
        with BagReader(file) as bag:
            for stored in bag.messages():
                found += 1
                with contextlib.suppress(BagError):
                    _ = stored.message
    except BagError as error:
        assert len(str(error)) < 2000  # noqa: PT017 - most damages do harm, not all
    assert found <= 60


def test_a_bag_is_not_written_to_a_path_that_the_system_refuses(tmp_path):
    for name in ("x" * 5000, "a\0b"):
        with pytest.raises(BagError, match="expected"), BagWriter(tmp_path / name):
            pass


def test_a_name_of_a_megabyte_is_shortened_in_what_is_said(tmp_path):
    name = "/rgb/" + "9" * 1_000_000
    (tmp_path / "a.mcap").write_bytes(write_mcap([CHANNEL], [(1, 5, DATA)]))
    topic = f"{{topic_metadata: {{name: {name}, type: {STRING}}}, message_count: 12}}"
    files = "relative_file_paths: [a.mcap]"
    (tmp_path / "metadata.yaml").write_text(
        f"rosbag2_bagfile_information: {{{files}, topics_with_message_count: [{topic}]}}\n", encoding="utf-8"
    )
    with BagReader(tmp_path) as bag:
        said = [bag.damage, *bag.notes]
    assert any("expected 12 messages of /rgb/999" in text for text in said)
    assert max(map(len, said)) < 1000

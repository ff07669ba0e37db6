"""YAML and JSON: whatever comes is plain values or one short sentence, in little time and memory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gemini_core.cli.common import read_config
from gemini_core.config.files import read_flat
from gemini_core.config.fusion import load_config
from gemini_core.documents import MOST_DEPTH, parse_json, parse_yaml, read_json, read_yaml
from gemini_core.errors import MOST_SHOWN, ConfigError, DataError, GeminiError, WeightsError, shown
from gemini_core.files import is_file, read_bytes
from gemini_core.labelling.index import read_index
from gemini_core.model import checkpoints
from gemini_core.model.importing import open_tensors
from gemini_core.runtimes.artifact import is_export, read_description

LONGEST = 600
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("6e-5", 6e-5),
        ("1.5e3", 1500.0),
        ("-.5", -0.5),
        ("1_000.5", 1000.5),
        ("010", 8),
        ("yes", True),
        ("2001-01-01", "2001-01-01"),
        ("2001-99-99", "2001-99-99"),
        ("1e", "1e"),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("{<<: {a: 1, b: 1}, b: 2}", {"a": 1, "b": 2}),
        ("", None),
    ],
)
def test_plain_values_are_read(text: str, value: object):
    assert parse_yaml(text, "here", ConfigError) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0x_", "'0x_'"),
        ("[", "expected the node content"),
        ("a: 1\nb: 2\na: 3", "here, line 3: .*the key 'a' comes twice"),
        ("{a: {b: 1, b: 2}}", "the key 'b' comes twice"),
        ("&a [*a]", "an alias of what it stands in"),
        ("!!bool x", "'x'"),
        ("!!int ''", "!!int"),
        ("!!timestamp x", "constructor"),
        ("!!set {a}", "constructor"),
        ("!!python/object:os.system x", "constructor"),
        ("? [a]\n: b", "unhashable"),
        ("a\x00", "character"),
        ("9" * 30, "64 bits"),
        ("0x" + "f" * 5000, "64 bits"),
        ("9" * 5000, "9999"),
        ("[" * 5000, f"more than {MOST_DEPTH} deep"),
        ("[" * 51 + "]" * 51 + "\n", f"more than {MOST_DEPTH} deep"),
        ("a: " + "x" * (1 << 20), "at most 1048576 characters"),
        (BOMB, "more than 100000 values, aliases followed"),
    ],
)
def test_other_yaml_is_refused_in_one_short_sentence(text: str, reason: str):
    with pytest.raises(ConfigError, match=reason) as refused:
        parse_yaml(text, "here", ConfigError)
    assert str(refused.value).startswith("here")
    assert len(str(refused.value)) < LONGEST
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, f"more than {MOST_DEPTH} deep"),
        ('{"a":' * 60 + "1" + "}" * 60, f"more than {MOST_DEPTH} deep"),
        ('{"a": 1, "a": 2}', "the key 'a' comes twice"),
        ('{"a":', "breaks off"),
        ("nope", "'nope'"),
        ("9" * 5000, "9999"),
        ("9" * 30, "64 bits"),
        ("x" * 10_000, "xxx"),
    ],
)
def test_other_json_is_refused_in_one_short_sentence(text: str, reason: str):
    with pytest.raises(DataError, match=reason) as refused:
        parse_json(text, "here", DataError)
    assert len(str(refused.value)) < LONGEST


def test_as_deep_as_the_bound_is_read():
    assert parse_json("[" * MOST_DEPTH + "]" * MOST_DEPTH, "here", DataError) is not None
    assert parse_yaml("[" * MOST_DEPTH + "]" * MOST_DEPTH, "here", DataError) is not None


def test_an_alias_bomb_takes_no_memory(tmp_path: Path):
    (tmp_path / "bomb.yaml").write_text(BOMB, encoding="utf-8")
    program = f"""
import resource
from gemini_core.config.fusion import load_config
from gemini_core.errors import ConfigError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load_config({str(tmp_path / "bomb.yaml")!r})
except ConfigError as error:
    print(len(str(error)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    length, kilobytes = map(int, done.stdout.split())
    assert length < LONGEST
    assert kilobytes < 100_000


def test_what_came_is_shown_in_few_characters():
    deep: list[object] = []
    for _ in range(1000):
        deep = [deep] * 2
    for value in ("x" * 10**6, list(range(10**5)), deep, 10**10_000, {str(i): i for i in range(1000)}):
        assert len(shown(value)) <= MOST_SHOWN
    assert shown(["a", 1]) == "['a', 1]"


@pytest.mark.parametrize("value", ["0x_", "[", "x: y: z", "!!bool x", "*a", "[" * 3000])
def test_a_value_of_set_that_is_none_is_a_configuration_error(value: str):
    with pytest.raises(ConfigError, match=r"^--set grid.width: expected YAML, got "):
        read_config(None, [f"grid.width={value}"])


def test_an_option_that_stands_twice_is_refused(tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text("grid.width: 320\ngrid:\n  width: 640\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"expected each option once, got 'grid\.width' twice"):
        read_flat(file)


@pytest.mark.parametrize("value", ["1e-3", "9e-1"])
def test_a_number_with_an_exponent_is_an_option_s_number(value: str):
    assert read_config(None, [f"detections.min_score={value}"]).detections.min_score == float(value)


# --------------------------------------------------------------------------------------------------------------------
# What is no regular file


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(path))


def _circle(path: Path) -> None:
    path.symlink_to(path)


IRREGULAR = {
    "fifo": (_fifo, "a FIFO"),
    "socket": (_socket, "a socket"),
    "folder": (Path.mkdir, "a folder"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "circle": (_circle, "symbolic links"),
    "none": (Path.exists, "No such file"),
}
READERS = {
    "yaml": lambda path: read_yaml(path, ConfigError),
    "json": lambda path: read_json(path, DataError),
    "configuration": load_config,
    "weights": checkpoints.load,
    "kind of weights": checkpoints.network_of,
    "other people's weights": open_tensors,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", IRREGULAR)
def test_only_regular_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, reader: str):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    make, name = IRREGULAR[kind]
    path = Path("odd.yaml")
    make(path)
    with pytest.raises(GeminiError, match=rf"odd\.yaml: expected .*, got .*{name}"):
        READERS[reader](path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "/".join(["y" * 200] * 40)], ids=["name", "null", "path"])
def test_a_path_that_cannot_be_is_one_sentence(reader: str, path: str):
    with pytest.raises(GeminiError, match=r"expected a readable (configuration |safetensors |weights )?file") as refused:
        READERS[reader](Path(path))
    assert len(str(refused.value)) < LONGEST
    assert not is_file(path)
    assert not is_export(path)


def test_a_description_of_an_export_that_is_a_fifo_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "export.json")
    assert not is_export(tmp_path)
    with pytest.raises(WeightsError, match="a FIFO"):
        read_description(tmp_path)


def test_a_file_larger_than_its_bound_is_not_read(tmp_path: Path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match="at most 10 bytes, got 1099511627776"):
        read_bytes(tmp_path / "large", DataError, 10)


def test_a_bound_takes_no_memory_by_itself(tmp_path):
    (tmp_path / "small").write_bytes(b"content")
    assert read_bytes(tmp_path / "small", DataError, 1 << 50) == b"content"


def test_frames_of_impossible_sizes_are_refused(tmp_path: Path):
    frame = '{"name": "1", "stamp_ns": 1, "frame_id": "", "width": 1000000000, "height": 1000000000}'
    text = f'{{"format": 1, "image_topic": "/a", "classes": [], "box_classes": [], "frames": [{frame}]}}'
    (tmp_path / "frames.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="expected images of 1 to 268435456 pixels, got 1000000000 x 1000000000 of '1'"):
        read_index(tmp_path)

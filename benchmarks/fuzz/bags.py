"""Damaged bags: each is read to its last message, with what is lost said, or refused in one sentence.

A bag is a whole one (MCAP in chunks, outside of them, in a zstd file; sqlite3) whose storage file, or metadata.yaml, has bytes,
numbers, runs, lines or tokens changed at random (seeded), or ends early. All of its messages are read, and those of types
with fields are decoded. An error other than ``BagError``, and what is said in several lines or at great length, is a problem.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2] / "test" / "builders"))
from benchmarks.fuzz.parameters import LONGEST, changed_text, run_files, run_worker
from benchmarks.fuzz.worker import Chunk
from gemini_core.bag import messages
from gemini_core.bag.compressed import zstd
from gemini_core.bag.metadata import METADATA_NAME
from gemini_core.bag.reader import BagMessage, BagReader
from gemini_core.bag.writer import BagWriter
from gemini_core.errors import BagError
from gemini_core.types import CameraModel
from mcap_files import McapChannel, McapOptions, write_mcap

KIND = "bags"
CHUNK = 250
_STAMP = 1_700_000_000_000_000_000
_STRING = McapChannel(1, "/text", "std_msgs/msg/String", "ros2msg", "string data")
_CDR_TEXT = b"\x00\x01\x00\x00\x02\x00\x00\x00a\x00"
_INTERESTING = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


def run_chunk(number: int, size: int, folder: Path) -> Chunk:
    """Read ``size`` bags, made of ``number`` alone; "sample" is one in which nothing is said to be damaged."""

    def read(rng: np.random.Generator) -> str:
        place = folder / "bag"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for name, data in _damaged(rng).items():
            (place / name).write_bytes(data)
        return read_all(place if rng.random() < 0.7 else _storage(place))

    return run_files(number, size, read, BagError)


def read_all(path: Path) -> str:
    """Read a bag to its end and decode what has fields; gives "sample" or "damaged".

    Raises:
        BagError: it cannot be read, or something is said in more than one line, or at great length.
    """
    with BagReader(path) as bag:
        lost = ""
        try:
            for message in bag.messages():
                _decode(message)
        except BagError as error:  # after everything that can be read
            lost = str(error)
        for text in (lost, bag.damage, *bag.notes, *(topic.problem for topic in bag.topics())):
            _require_sentence(text)
        return "damaged" if lost or bag.damage else "sample"


def _decode(message: BagMessage) -> None:
    try:
        _ = message.message
    except BagError as error:
        _require_sentence(str(error))


def _require_sentence(text: str) -> None:
    if "\n" in text or len(text) > 2 * LONGEST:
        msg = f"a sentence of {len(text)} characters and {text.count(chr(10)) + 1} lines: {text[:100]}"
        raise AssertionError(msg)


def _storage(place: Path) -> Path:
    return next(path for path in sorted(place.iterdir()) if path.name != METADATA_NAME)


def _damaged(rng: np.random.Generator) -> dict[str, bytes]:
    """The files of a bag by name, one of them (or, rarely, all) changed."""
    bags = _whole_bags()
    files = dict(bags[int(rng.integers(len(bags)))])
    names = sorted(files)
    chosen = names if rng.random() < 0.1 else [names[int(rng.integers(len(names)))]]
    for name in chosen:
        if name == METADATA_NAME:
            files[name] = changed_text(rng, files[name].decode())
        else:
            files[name] = _changed(rng, files[name])
    return files


def _changed(rng: np.random.Generator, data: bytes) -> bytes:
    for _ in range(int(rng.integers(1, 4))):
        raw = bytearray(data)
        at = int(rng.integers(len(raw) or 1))
        if rng.random() < 0.5 and raw:
            at = min(at, int(rng.integers(256))) if rng.random() < 0.5 else max(at, len(raw) - int(rng.integers(1, 600)), 0)
        data = bytes(_CHANGES[int(rng.integers(len(_CHANGES)))](rng, raw, at))
    return data


def _some_bytes(rng: np.random.Generator, raw: bytearray, at: int) -> bytearray:
    raw[at : at + int(rng.integers(1, 9))] = rng.bytes(int(rng.integers(1, 9)))
    return raw


def _one_bit(rng: np.random.Generator, raw: bytearray, at: int) -> bytearray:
    if raw:
        raw[at % len(raw)] ^= 1 << int(rng.integers(8))
    return raw


def _a_number(rng: np.random.Generator, raw: bytearray, at: int) -> bytearray:
    size = int(rng.choice([2, 4, 8]))
    number = _INTERESTING[int(rng.integers(len(_INTERESTING)))] % 2 ** (8 * size)
    raw[at : at + size] = number.to_bytes(size, "little" if rng.random() < 0.7 else "big")
    return raw


def _a_run(rng: np.random.Generator, raw: bytearray, at: int) -> bytearray:
    run = raw[at : at + int(rng.integers(1, 5000))]
    raw[at : at + len(run)] = bytes([int(rng.choice([0, 255]))]) * len(run)
    return raw


def _removed(rng: np.random.Generator, raw: bytearray, at: int) -> bytearray:
    del raw[at : at + int(rng.integers(1, 500))]
    return raw


def _repeated(rng: np.random.Generator, raw: bytearray, at: int) -> bytearray:
    return raw[:at] + raw[max(0, at - int(rng.integers(1, 2000))) :]


def _cut(_rng: np.random.Generator, raw: bytearray, at: int) -> bytearray:
    return raw[:at]


_CHANGES: tuple[Callable[[np.random.Generator, bytearray, int], bytearray], ...] = (
    _some_bytes,
    _one_bit,
    _a_number,
    _a_number,
    _a_run,
    _removed,
    _repeated,
    _cut,
)


@cache
def _whole_bags() -> tuple[dict[str, bytes], ...]:
    """Whole bags: the files of each, by name."""
    bags = []
    with tempfile.TemporaryDirectory() as folder:
        for storage in ("mcap", "sqlite3"):
            path = Path(folder) / storage
            with BagWriter(path, storage) as bag:  # type: ignore[arg-type] # the two words of the tuple above
                _write(bag)
            bags.append({file.name: file.read_bytes() for file in path.iterdir()})
    mcap = next(data for name, data in bags[0].items() if name.endswith(".mcap"))
    rows = [(1, 5 + i, _CDR_TEXT) for i in range(20)]
    bags += [
        {"a.mcap": write_mcap([_STRING], rows, McapOptions())},
        {"a.mcap.zstd": zstd.compress(mcap)},
    ]
    return tuple(bags)


def _write(bag: BagWriter) -> None:
    lens = CameraModel(640, 480, 500.0, 500.0, 320.0, 240.0, "plumb_bob", (0.1, 0.0, 0.0, 0.0, 0.0))
    points = np.zeros(9, [("x", "<f4"), ("y", "<f4"), ("z", "<f4")])
    for i in range(12):
        at_ns = _STAMP + i * 50_000_000
        bag.write("/rgb/camera_info", messages.camera_info(lens, at_ns, "camera"), at_ns)
        bag.write("/rgb/compressed", messages.compressed_image(b"\xff\xd8" * 20, "jpeg", at_ns, "camera"), at_ns)
        bag.write("/lidar/points", messages.point_cloud(points, at_ns, "lidar"), at_ns)


def main() -> None:
    """Arguments as of ``worker.main``; without any, the first 1,000."""
    run_worker(run_chunk, CHUNK)


if __name__ == "__main__":
    main()

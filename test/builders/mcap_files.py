"""MCAP files of other writers' taste: every record that the specification leaves open may be there or not."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

import lz4.frame
from rosbags.rosbag2.storage_mcap import zstd

MAGIC = b"\x89MCAP0\r\n"
PACKERS = {"": bytes, "zstd": zstd.compress, "lz4": lz4.frame.compress}


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<I", len(data)) + data


def record(code: int, body: bytes) -> bytes:
    return struct.pack("<BQ", code, len(body)) + body


@dataclass(frozen=True)
class McapChannel:
    """A channel of its own schema; ``number`` is both numbers."""

    number: int
    topic: str
    schema: str
    schema_encoding: str
    definition: str
    encoding: str = "cdr"
    metadata: dict[str, str] = field(default_factory=dict)

    def records(self) -> bytes:
        about = b"".join(text(key) + text(value) for key, value in self.metadata.items())
        schema = record(
            3, struct.pack("<H", self.number) + text(self.schema) + text(self.schema_encoding) + text(self.definition)
        )
        head = struct.pack("<HH", self.number, self.number if self.schema else 0)
        return (schema if self.schema else b"") + record(4, head + text(self.topic) + text(self.encoding) + text(about))


@dataclass(frozen=True)
class McapOptions:
    """What a writer leaves to itself."""

    chunks: str = "all"  # "none", "mixed": every second run of messages lies outside
    compression: str = ""
    per_chunk: int = 3
    repeat_channels: bool = True  # in the summary
    channels_first: bool = False  # before all chunks, outside
    message_index: bool = True
    chunk_index: bool = True
    statistics: bool = True
    data_end: bool = True
    checksums: bool = False
    extras: bool = False  # attachments, metadata, private records, empty chunks
    profile: str = "ros2"


def write_mcap(channels: list[McapChannel], rows: list[tuple[int, int, bytes]], options: McapOptions = McapOptions()) -> bytes:
    """Write rows (number of the channel, log time, data) in their order."""
    names = b"".join(channel.records() for channel in channels)
    out = bytearray(MAGIC + record(1, text(options.profile) + text("test")))
    others = record(9, struct.pack("<QQ", 0, 0) + text("a.txt") + text("text/plain") + struct.pack("<Q", 3) + b"abc" + bytes(4))
    others += record(12, text("about") + text(b"")) + record(0x80, b"private") + record(0x7F, b"of a later version")
    if options.channels_first or options.chunks == "none":
        out += names
    indexes = []
    for run, begin in enumerate(range(0, len(rows), options.per_chunk)):
        part = rows[begin : begin + options.per_chunk]
        body = bytearray(b"" if run or options.channels_first else names)
        entries: dict[int, list[tuple[int, int]]] = {}
        loose = options.chunks == "none" or (options.chunks == "mixed" and run % 2)
        for number, log_ns, data in part:
            entries.setdefault(number, []).append((log_ns, len(body)))
            body += record(5, struct.pack("<HIQQ", number, 0, log_ns, log_ns) + data)
        if options.extras:
            out += others
        if loose:
            out += body
        else:
            indexes.append(_chunk(out, bytes(body), [log_ns for _, log_ns, _ in part], entries, options))
        if options.extras:
            indexes.append(_chunk(out, b"", [0], {}, options))
    if options.data_end:
        out += record(15, bytes(4))
    summary = names if options.repeat_channels else b""
    if options.statistics:
        summary += _statistics(channels, rows, len(indexes))
    if options.chunk_index:
        summary += b"".join(indexes)
    return bytes(out + summary + record(2, struct.pack("<QQI", len(out) if summary else 0, 0, 0)) + MAGIC)


def _statistics(channels: list[McapChannel], rows: list[tuple[int, int, bytes]], chunks: int) -> bytes:
    counts = {channel.number: sum(number == channel.number for number, _, _ in rows) for channel in channels}
    times = [log_ns for _, log_ns, _ in rows] or [0]
    pairs = b"".join(struct.pack("<HQ", *pair) for pair in counts.items())
    head = struct.pack("<QHIIIIQQ", len(rows), len(channels), len(channels), 0, 0, chunks, min(times), max(times))
    return record(11, head + text(pairs))


def _chunk(
    out: bytearray, body: bytes, times: list[int], entries: dict[int, list[tuple[int, int]]], options: McapOptions
) -> bytes:
    """Append a chunk with its message indexes; gives its chunk index."""
    packed = PACKERS[options.compression](body)
    start = len(out)
    checksum = zlib.crc32(body) if options.checksums else 0
    head = struct.pack("<QQQI", min(times), max(times), len(body), checksum)
    out += record(6, head + text(options.compression) + struct.pack("<Q", len(packed)) + packed)
    length, offsets = len(out) - start, {}
    for number, pairs in (entries if options.message_index else {}).items():
        offsets[number] = len(out)
        out += record(7, struct.pack("<H", number) + text(b"".join(struct.pack("<QQ", *pair) for pair in pairs)))
    place = b"".join(struct.pack("<HQ", *pair) for pair in offsets.items())
    index = (
        struct.pack("<QQQQ", min(times), max(times), start, length) + text(place) + struct.pack("<Q", len(out) - start - length)
    )
    return record(8, index + text(options.compression) + struct.pack("<QQ", len(packed), len(body)))

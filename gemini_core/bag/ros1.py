"""The bags of ROS 1 (``#ROSBAG V2.0``, http://wiki.ros.org/Bags/Format/2.0), also those without an index and those cut off."""

from __future__ import annotations

import struct
from enum import IntEnum
from pathlib import Path
from typing import final

import numpy as np
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat

from gemini_core.bag.blocks import Block, BlockFile, Entry
from gemini_core.bag.definitions import ros2_type
from gemini_core.bag.stored import ROS1, Channel, Tally
from gemini_core.errors import BagError

ROS1_MAGIC = b"#ROSBAG V2.0\n"

MAX_HEADER_BYTES = 16 << 20
"""Of a record's header. Those of connections hold a definition in some versions; none comes near."""


class _Op(IntEnum):
    """What a record is."""

    MESSAGE = 2
    BAG_HEADER = 3
    INDEX = 4
    CHUNK = 5
    CHUNK_INFO = 6
    CONNECTION = 7


_SIZE = struct.Struct("<I")
_INDEX_ENTRY = np.dtype([("seconds", "<u4"), ("nanoseconds", "<u4"), ("offset", "<u4")])
_BROKEN = (struct.error, UnicodeDecodeError, LookupError, OSError, OverflowError, ValueError)


@final
class Ros1File(BlockFile):
    """One bag of ROS 1, open; a Storage, whose channels are of the encoding ros1.

    Raises:
        BagError: on construction, it is no bag of ROS 1.
    """

    def __init__(self, path: Path) -> None:
        self._promised: dict[int, int] = {}
        self._chunk_count = 0
        super().__init__(path)

    def _scan(self) -> None:
        if self._bytes(0, len(ROS1_MAGIC)) != ROS1_MAGIC:
            msg = f"{self.path}: expected a bag of ROS 1, format 2.0, got other bytes at its beginning"
            raise BagError(msg)
        self._find_blocks()
        found = {number: tally.messages for number, tally in self._tallies_by_number().items()}
        is_indexed = all(block.indexed or not block.size for block in self._blocks)
        if not is_indexed or found != self._promised or not found.keys() <= self._channels.keys():
            self._count()
        chunks = sum(not block.is_loose for block in self._blocks)
        if chunks < self._chunk_count:
            self._lost(f"expected {self._chunk_count} chunks as its header says, got {chunks}")
        self._compare(self._promised, sum(self._promised.values()), "its index")

    def _find_blocks(self) -> None:
        at, block = len(ROS1_MAGIC), None
        while at < self._size:
            try:
                fields, start, size = self._head(at)
                is_whole = start + size <= self._size
                block = self._record(fields, start, min(size, self._size - start), block, is_cut=not is_whole)
            except _BROKEN:
                is_whole, start, size = False, 0, 0
            if not is_whole:
                self._lost(f"expected a whole record at byte {at}, got one that is damaged or cut off")
                return
            at = start + size

    def _head(self, at: int) -> tuple[dict[str, bytes], int, int]:
        """Read the head of a record: its fields, where its data begins, and how much there is."""
        (size,) = _SIZE.unpack(self._bytes(at, _SIZE.size))
        if size > MAX_HEADER_BYTES:
            msg = "a header of this size"
            raise struct.error(msg)
        fields = _fields(self._bytes(at + _SIZE.size, size), size)
        start = at + _SIZE.size + size
        return fields, start + _SIZE.size, _SIZE.unpack(self._bytes(start, _SIZE.size))[0]

    def _record(self, fields: dict[str, bytes], start: int, size: int, block: Block | None, *, is_cut: bool) -> Block | None:
        match fields["op"][0]:
            case _Op.CHUNK:
                compression = fields["compression"].decode().replace("none", "")
                block = Block(start, size, compression, _number(fields["size"]), is_cut=is_cut)
                self._blocks.append(block)
                return block
            case _Op.INDEX if block is not None and not is_cut:  # of one connection in the chunk before it
                _take_index(fields, self._bytes(start, size), block)
                return block
            case _Op.BAG_HEADER:
                self._chunk_count = _number(fields["chunk_count"])
                if not _number(fields["index_pos"]):
                    self._lost("expected an index at the end, got a bag that the recorder did not finish")
            case _Op.CHUNK_INFO:
                for number, count in struct.iter_unpack("<II", self._bytes(start, size)):
                    self._promised[number] = self._promised.get(number, 0) + count
            case _Op.CONNECTION if not is_cut:
                self._connection(fields, self._bytes(start, size))
        return None

    def _connection(self, fields: dict[str, bytes], data: bytes) -> None:
        about = _fields(data, len(data))
        kind = ros2_type(about["type"].decode())
        definition = MessageDefinition(MessageDefinitionFormat.MSG, about["message_definition"].decode(errors="replace"))
        channel = Channel(fields["topic"].decode(), kind, ROS1, definition)
        self._channels.setdefault(_number(fields["conn"]), channel)

    def _entries(self, content: bytes, block: Block) -> list[Entry]:
        found: list[Entry] = []
        at, size = 0, len(content)
        try:
            while at < size:
                (header,) = _SIZE.unpack_from(content, at)
                start = at + 4 + header
                fields = _fields(content[at + 4 : start], header)
                (length,) = _SIZE.unpack_from(content, start)
                start, at = start + 4, start + 4 + length
                if at > size:
                    break
                if fields["op"][0] == _Op.MESSAGE:
                    seconds, nanoseconds = struct.unpack("<II", fields["time"])
                    found.append((_number(fields["conn"]), seconds * 1_000_000_000 + nanoseconds, start, at))
                elif fields["op"][0] == _Op.CONNECTION:
                    self._connection(fields, content[start:at])
            else:
                return found
        except _BROKEN:
            pass
        if not block.is_cut:
            self._lost(f"damaged chunk at byte {block.offset}: expected whole records, got one that is not")
        return found


def _take_index(fields: dict[str, bytes], data: bytes, block: Block) -> None:
    entries = np.frombuffer(data, _INDEX_ENTRY, count=len(data) // _INDEX_ENTRY.itemsize)
    times = entries["seconds"].astype(np.int64) * 1_000_000_000 + entries["nanoseconds"]
    block.indexed = True
    if len(times):
        block.add(_number(fields["conn"]), Tally(len(times), int(times.min()), int(times.max())))


def _fields(header: bytes, size: int) -> dict[str, bytes]:
    """Read the fields of a header: size, name=value."""
    if len(header) != size:
        msg = "a header that ends too early"
        raise struct.error(msg)
    found: dict[str, bytes] = {}
    at = 0
    while at < size:
        (length,) = _SIZE.unpack_from(header, at)
        name, _, value = header[at + 4 : at + 4 + length].partition(b"=")
        found[name.decode()] = value
        at += 4 + length
    if at != size:
        msg = "a field that ends too late"
        raise struct.error(msg)
    return found


def _number(value: bytes) -> int:
    return int.from_bytes(value, "little")

"""MCAP files, read by what is in them and not by their indexes: those may be missing, wrong or of another writer's taste.

The records of a file (https://mcap.dev/spec) are gone through from the front, chunks and attachments by their lengths. That
finds every chunk, also where there is no index of them. How many messages of which times are in a chunk is told by the message
indexes behind it; where these are missing or contradict the statistics, the chunk is unpacked and counted. What is read is then
compared with what the statistics promise. A file that is cut off or damaged goes the same way, as far as it leads; behind a
damaged place it goes on from the next chunk that the index at the end names.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import final

import numpy as np
from rosbags.interfaces import MessageDefinition

from gemini_core.bag.blocks import LARGEST_TIME_NS, Block, BlockFile, Entry
from gemini_core.bag.compressed import KNOWN_COMPRESSIONS
from gemini_core.bag.definitions import ros2_type
from gemini_core.bag.stored import CDR, DEFINITION_FORMATS, NO_DEFINITION, ROS1, Channel, Tally, shortened
from gemini_core.errors import BagError

MCAP_MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX, STATISTICS = 1, 2, 3, 4, 5, 6, 7, 8, 11

LOOSE_BYTES = 1 << 20
"""Messages outside of chunks are read in runs of this size, like chunks."""

_HEAD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<HIQQ")
_INDEX = struct.Struct("<HI")
_CHUNK_BYTES = 40  # of the fields of a chunk that have a fixed size
_COMPRESSION_BYTES = 64  # more than any name of a compression has
_FOOTER_BYTES = _HEAD.size + 20 + len(MCAP_MAGIC)

_BROKEN = (struct.error, UnicodeDecodeError, LookupError, OSError, OverflowError)
"""What reading a record that breaks its own format, or the disk, ends in."""


@final
class McapFile(BlockFile):
    """One MCAP file, open; a Storage.

    Raises:
        BagError: on construction, it is no MCAP file.
    """

    def __init__(self, path: Path) -> None:
        self.profile = ""
        self._schemas: dict[int, tuple[str, str, MessageDefinition]] = {}
        self._promised: dict[int, int] | None = None
        self._promised_total = 0
        self._offsets: list[int] | None = None
        self._starts: dict[int, int] = {}  # of the records that an index may name: place -> code
        super().__init__(path)

    def _scan(self) -> None:
        if self._bytes(0, len(MCAP_MAGIC)) != MCAP_MAGIC:
            msg = f"{self.path}: expected an MCAP file, got {'other bytes at its beginning' if self._size else 'an empty file'}"
            raise BagError(msg)
        self._find_blocks()
        if not self._indexes_agree():
            self._count()
        self._compare(self._promised, self._promised_total, "its statistics")
        if self._promised is None and not self.losses:
            self._compare_places()

    def _compare_places(self) -> None:
        """Without statistics, only the places in the index tell of records that are gone or unrecognizable."""
        try:
            summary, chunks = self._read_index()
        except _BROKEN:
            return
        gone = [place for place in chunks if self._starts.get(place) != CHUNK]
        if gone or (summary and summary not in self._starts):
            self._lost(f"expected a record at byte {[*gone, summary][0]} as its index says, got none")

    def _find_blocks(self) -> None:
        """Go through the records; stops at the footer, or at what makes no sense and no index leads beyond."""
        at, block = len(MCAP_MAGIC), None
        while at + _HEAD.size <= self._size:
            start, size, is_whole = at + _HEAD.size, 0, False
            try:
                code, size = _HEAD.unpack(self._bytes(at, _HEAD.size))
                if code not in (MESSAGE, MESSAGE_INDEX):
                    self._starts[at] = code
                if code == FOOTER and self._bytes(start + size, len(MCAP_MAGIC)) == MCAP_MAGIC:
                    return
                is_whole = code not in (0, FOOTER) and start + size <= self._size
                block = self._record(code, start, min(size, self._size - start), block, is_cut=not is_whole)
            except _BROKEN:
                is_whole = False
            following: int | None = start + size
            if not is_whole:
                self._lost(f"expected a whole record at byte {at}, got one that is damaged or cut off")
                following, block = self._chunk_behind(at), None
            if following is None:
                return
            at = following
        self._lost(f"expected the end of an MCAP file within its {self._size} bytes, got none: not finished, or cut off")

    def _record(self, code: int, start: int, size: int, block: Block | None, *, is_cut: bool) -> Block | None:
        """Take in one record; gives the block that a following message or message index belongs to."""
        if code == CHUNK:
            return self._chunk(start, size, is_cut=is_cut)
        if is_cut:
            return None
        if code == MESSAGE:
            return self._loose(start, size, block)
        if code == MESSAGE_INDEX:
            _take_index(self._bytes(start, size), block)
            return block
        if code == HEADER:
            self.profile = _Fields(self._bytes(start, size)).text()
        elif code in (SCHEMA, CHANNEL, STATISTICS):
            self._definition(code, self._bytes(start, size))
        return None

    def _chunk(self, start: int, size: int, *, is_cut: bool) -> Block | None:
        record = _Fields(self._bytes(start, min(size, _CHUNK_BYTES + _COMPRESSION_BYTES)))
        record.take(16)  # start and end time: the messages say them, too
        unpacked, checksum, compression = record.number("<Q"), record.number("<I"), record.text()
        packed = record.number("<Q")
        offset = start + record.offset
        if not is_cut and packed > size - record.offset:
            msg = "a chunk longer than its record"
            raise struct.error(msg)
        if compression not in KNOWN_COMPRESSIONS:
            known = ", ".join(name or "none" for name in KNOWN_COMPRESSIONS)
            self._lost(f"expected chunks of a compression out of {known}, got {compression!r}")
            return None
        block = Block(offset, min(packed, start + size - offset), compression, unpacked, checksum, is_cut=is_cut)
        self._blocks.append(block)
        return block

    def _loose(self, start: int, size: int, block: Block | None) -> Block:
        """Take a message outside of chunks into the run of those before it, or begin a new run."""
        number, _, log_ns, _ = _MESSAGE.unpack(self._bytes(start, _MESSAGE.size))
        if size < _MESSAGE.size or log_ns > LARGEST_TIME_NS:
            msg = "a message shorter than its head, or of no time"
            raise struct.error(msg)
        begin = start - _HEAD.size
        if block is None or not block.is_loose or block.size > LOOSE_BYTES:
            block = Block(begin, 0, indexed=True, is_loose=True)
            self._blocks.append(block)
        block.size = block.unpacked = start + size - block.offset
        block.add(number, Tally(1, log_ns, log_ns))
        return block

    def _definition(self, code: int, record: bytes) -> None:
        """Take in a schema, a channel or the statistics. The first of a number counts; they may be repeated."""
        fields = _Fields(record)
        if code == STATISTICS:
            total = fields.number("<Q")
            fields.take(34)
            self._promised = dict(struct.iter_unpack("<HQ", fields.take(fields.number("<I"))))
            self._promised_total = max(total, sum(self._promised.values()))
        elif code == SCHEMA:
            number, name, encoding = fields.number("<H"), fields.text(), fields.text()
            form = DEFINITION_FORMATS.get(encoding)
            text = fields.take(fields.number("<I")).decode(errors="replace")
            self._schemas.setdefault(number, (name, encoding, MessageDefinition(form, text) if form else NO_DEFINITION))
        else:
            self._channel(fields)

    def _channel(self, fields: _Fields) -> None:
        number = fields.number("<H")
        name, schema, definition = self._schemas.get(fields.number("<H"), ("", "", NO_DEFINITION))
        topic, encoding = fields.text(), fields.text()
        if not encoding and schema in DEFINITION_FORMATS:
            encoding = ROS1 if schema == "ros1msg" else CDR
        channel = Channel(topic, ros2_type(name) if encoding in (CDR, ROS1) else name, encoding, definition)
        before = self._channels.setdefault(number, channel)
        if before.topic != topic or (before.type and channel.type and before.type != channel.type):
            msg = f"channel {number} is of {shortened(before.topic)} and of {shortened(topic)}"
            raise struct.error(msg)
        if channel.type and not before.type:  # its schema stood behind it
            self._channels[number] = channel

    def _indexes_agree(self) -> bool:
        """Say whether every channel is known, every chunk indexed, and both give what the statistics promise."""
        if self._promised is None or any(block.size and not block.indexed for block in self._blocks):
            return False
        found = {number: tally.messages for number, tally in self._tallies_by_number().items()}
        promised = {number: count for number, count in self._promised.items() if count}
        return found == promised and self._promised_total == sum(found.values()) and found.keys() <= self._channels.keys()

    # ----------------------------------------------------------------------------------------------------------------
    # Behind damage

    def _chunk_behind(self, at: int) -> int | None:
        """The next chunk that the index at the end of the file names, behind a damaged place."""
        if self._offsets is None:
            try:
                summary, chunks = self._read_index()
                self._offsets = [place for place in sorted([*chunks, summary]) if place < self._size]
            except _BROKEN:
                self._offsets = []
        return next((offset for offset in self._offsets if offset > at), None)

    def _read_index(self) -> tuple[int, list[int]]:
        """Where the summary begins as the footer says (0: there is none), and where the chunks begin as the summary says."""
        end = self._bytes(self._size - _FOOTER_BYTES, _FOOTER_BYTES)
        if not end.endswith(MCAP_MAGIC) or end[0] != FOOTER:
            return 0, []
        at = summary = int(struct.unpack_from("<Q", end, _HEAD.size)[0])
        chunks = []
        while at and at + _HEAD.size <= self._size - _FOOTER_BYTES:
            code, size = _HEAD.unpack(self._bytes(at, _HEAD.size))
            if code == CHUNK_INDEX:
                chunks.append(struct.unpack("<Q", self._bytes(at + _HEAD.size + 16, 8))[0])
            at += _HEAD.size + size
        return summary, chunks

    # ----------------------------------------------------------------------------------------------------------------
    # In a chunk

    def _entries(self, content: bytes, block: Block) -> list[Entry]:
        found: list[Entry] = []
        at, size, head, message = 0, len(content), _HEAD.unpack_from, _MESSAGE.unpack_from
        try:
            while at < size:
                code, length = head(content, at)
                start = at + 9
                at = start + length
                if at > size or not code:
                    break
                if code == MESSAGE:
                    number, _, log_ns, _ = message(content, start)
                    if length < _MESSAGE.size or log_ns > LARGEST_TIME_NS:
                        break
                    found.append((number, log_ns, start + 22, at))
                elif code in (SCHEMA, CHANNEL):
                    self._definition(code, content[start:at])
            else:
                return found
        except _BROKEN:
            pass
        if not block.is_cut:
            self._lost(f"damaged chunk at byte {block.offset}: expected whole records, got one that is not")
        return found


def _take_index(record: bytes, block: Block | None) -> None:
    """Take a message index into the chunk that it stands behind."""
    if block is None or block.is_loose:
        return
    number, size = _INDEX.unpack_from(record)
    count = min(size, len(record) - _INDEX.size) // 16
    times = np.frombuffer(record, "<u8", count=2 * count, offset=_INDEX.size)[::2]
    block.indexed = True
    if len(times) and int(times.max()) <= LARGEST_TIME_NS:
        block.add(number, Tally(len(times), int(times.min()), int(times.max())))


class _Fields:
    """Reads the fields of one record in order."""

    def __init__(self, record: bytes) -> None:
        self._record = record
        self.offset = 0

    def number(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self._record, self.offset)
        self.offset += struct.calcsize(form)
        return int(value)

    def text(self) -> str:
        return self.take(self.number("<I")).decode()

    def take(self, size: int) -> bytes:
        part = self._record[self.offset : self.offset + size]
        if len(part) != size:
            msg = "the record ends too early"
            raise struct.error(msg)
        self.offset += size
        return part

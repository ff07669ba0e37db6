"""Storage files that are runs of records, in chunks: MCAP, and the bags of ROS 1. What both have in common of reading them."""

from __future__ import annotations

import os
import zlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

from gemini_core.bag.compressed import MAX_BLOCK_BYTES, unpack
from gemini_core.bag.stored import Channel, Part, StoredMessage, Tally, in_time_order, require_regular, shortened
from gemini_core.errors import BagError

KEPT_BYTES = 256 << 20
"""Of unpacked chunks kept at once. In order of time one or two are enough; where all overlap, they are unpacked anew."""

LARGEST_TIME_NS = 2**63 - 1
"""Later ones are damage: ROS counts in int64."""

Entry: TypeAlias = tuple[int, int, int, int]
"""One message of a block: number of its channel, log time, where its data begins and ends in the unpacked block."""


@dataclass(slots=True)
class Block:
    """A chunk, or a run of messages outside of chunks: where its content lies, and what is known to be in it.

    ``tallies`` are by number of channel, from the indexes behind it or from counting; ``indexed`` is False before.
    ``is_loose``: outside of chunks; ``is_cut``: the file, or what can be read of it, ends within.
    """

    offset: int
    size: int
    compression: str = ""
    unpacked: int = 0
    checksum: int = 0
    tallies: dict[int, Tally] = field(default_factory=dict)
    indexed: bool = False
    is_loose: bool = False
    is_cut: bool = False

    @property
    def count(self) -> int:
        """Number of messages that are known to be in it."""
        return sum(tally.messages for tally in self.tallies.values())

    def add(self, number: int, tally: Tally) -> None:
        """Know of more messages of a channel."""
        self.tallies[number] = self.tallies[number].and_of(tally) if number in self.tallies else tally


class BlockFile(ABC):
    """One storage file of chunks, open; a Storage. Its kind finds the blocks in ``_scan`` and what is in each in ``_entries``.

    Raises:
        BagError: on construction, it is not of this kind, or cannot be read at all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = require_regular(path).st_size
        self.losses: list[str] = []
        self.notes: list[str] = []
        self.keeps_count = False
        self._channels: dict[int, Channel] = {}
        self._blocks: list[Block] = []
        try:
            self._file = path.open("rb")
        except OSError as error:
            msg = f"{path}: expected a file that can be read, got {error.strerror}"
            raise BagError(msg) from None
        try:
            self._scan()
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _scan(self) -> None:
        """Find the blocks, the channels, and how many messages of each are in a block."""

    @abstractmethod
    def _entries(self, content: bytes, block: Block) -> list[Entry]:
        """Find the messages of an unpacked block, as they were written; learn the channels that it names."""

    @property
    def channels(self) -> list[Channel]:
        """Every channel that the file names, also those without messages."""
        return list(dict.fromkeys(self._channels.values()))

    @property
    def tallies(self) -> dict[Channel, Tally]:
        """Number of messages and first and last log time of each channel that has any."""
        found: dict[Channel, Tally] = {}
        for number, tally in self._tallies_by_number().items():
            channel = self._channels.get(number)
            if channel is not None:
                found[channel] = found[channel].and_of(tally) if channel in found else tally
        return found

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(self, wanted: Collection[Channel]) -> Iterator[StoredMessage]:
        """Give the messages of some channels in order of log time; ``losses`` grows by the chunks that cannot be read."""
        numbers = {number: channel for number, channel in self._channels.items() if channel in wanted}
        kept = _Kept(self._content)
        parts = []
        for block in self._blocks:
            times = [tally.first_ns for number, tally in block.tallies.items() if number in numbers]
            if times:
                parts.append(Part(min(times), partial(self._messages_of, block, numbers, kept)))
        return in_time_order(parts)

    # ----------------------------------------------------------------------------------------------------------------
    # For the kinds of files

    def _tallies_by_number(self) -> dict[int, Tally]:
        found: dict[int, Tally] = {}
        for block in self._blocks:
            for number, tally in block.tallies.items():
                found[number] = found[number].and_of(tally) if number in found else tally
        return found

    def _count(self) -> None:
        """Unpack and count all chunks, which also finds the channels that stand in them alone."""
        for block in self._blocks:
            expected = block.count
            content = self._content(block)
            block.tallies = {}
            for number, log_ns, _, _ in self._entries(content, block):
                block.add(number, Tally(1, log_ns, log_ns))
            if block.count < expected and content:
                self._lost(f"expected {expected} messages in the chunk at byte {block.offset}, got {block.count}")

    def _compare(self, promised: dict[int, int] | None, total: int, source: str) -> None:
        """Say what the file itself promises, by number of channel and in all, and does not have."""
        found = self._tallies_by_number()
        homeless = sum(tally.messages for number, tally in found.items() if number not in self._channels)
        if homeless:
            self._lost(f"expected a channel for each message, got {homeless} messages of channels that are not described")
        if promised is None:
            return
        count = sum(tally.messages for tally in found.values())
        if total > count:
            self._lost(f"expected {total} messages as {source} says, got {count}")
        else:
            for number, least in promised.items():
                got = found[number].messages if number in found else 0
                if got < least:
                    name = shortened(self._channels[number].topic) if number in self._channels else f"channel {number}"
                    self._lost(f"expected {least} messages of {name} as {source} says, got {got}")
        self.keeps_count = not self.losses

    def _bytes(self, offset: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, offset)

    def _lost(self, what: str) -> None:
        if what not in self.losses:
            self.losses.append(what)

    # ----------------------------------------------------------------------------------------------------------------
    # Reading

    def _messages_of(self, block: Block, numbers: dict[int, Channel], kept: _Kept) -> Iterator[StoredMessage]:
        entries = [entry for entry in self._entries(kept.of(block), block) if entry[0] in numbers]
        entries.sort(key=_log_time)
        expected = sum(tally.messages for number, tally in block.tallies.items() if number in numbers)
        if len(entries) < expected:
            self._lost(f"expected {expected} messages in the chunk at byte {block.offset}, got {len(entries)}")
        for number, log_ns, start, end in entries:
            content = kept.content if kept.block is block else kept.of(block)
            yield StoredMessage(numbers[number], log_ns, content[start:end])

    def _content(self, block: Block) -> bytes:
        """Unpack a block; b"" and a loss where that fails. One that is cut off is as long as it is."""
        try:
            packed = self._bytes(block.offset, min(block.size, MAX_BLOCK_BYTES))
            if block.is_cut and not block.compression:
                return packed
            content = unpack(packed, block.compression, block.unpacked)
        except (BagError, OSError) as error:
            self._lost(f"damaged chunk at byte {block.offset}: {error}")
            return b""
        if block.checksum and zlib.crc32(content) != block.checksum:
            self._lost(f"damaged chunk at byte {block.offset}: expected bytes of its checksum, got others")
            return b""
        return content


class _Kept:
    """Unpacked blocks, the most recently used ones up to ``KEPT_BYTES``; ``block`` and its ``content`` are the last."""

    def __init__(self, load: Callable[[Block], bytes]) -> None:
        self._load = load
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._bytes = 0
        self.block: Block | None = None
        self.content = b""

    def of(self, block: Block) -> bytes:
        """Unpack a block, or find it unpacked."""
        if block.offset in self._blocks:
            content = self._blocks[block.offset]
            self._blocks.move_to_end(block.offset)
        else:
            content = self._blocks[block.offset] = self._load(block)
            self._bytes += len(content)
            while self._bytes > KEPT_BYTES and len(self._blocks) > 1:
                _, oldest = self._blocks.popitem(last=False)
                self._bytes -= len(oldest)
        self.block, self.content = block, content
        return content


def _log_time(entry: Entry) -> int:
    return entry[1]

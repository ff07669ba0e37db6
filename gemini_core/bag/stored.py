"""What the readers of storage files have in common: the messages as they are stored, and their order in time."""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat

from gemini_core.errors import BagError

NO_DEFINITION = MessageDefinition(MessageDefinitionFormat.NONE, "")
DEFINITION_FORMATS = {
    "ros2msg": MessageDefinitionFormat.MSG,
    "ros1msg": MessageDefinitionFormat.MSG,
    "ros2idl": MessageDefinitionFormat.IDL,
    "omgidl": MessageDefinitionFormat.IDL,
}
"""Encodings of definitions as MCAP and sqlite3 bags name them."""

CDR, ROS1 = "cdr", "ros1"
"""Encodings of messages that are read; ros1 is turned into cdr."""


class Channel(NamedTuple):
    """One stream of messages; ``type`` as ROS 2 names it, ``definition`` as it stands in the file.

    A topic may have several, of one type and of several.
    """

    topic: str
    type: str
    encoding: str = CDR
    definition: MessageDefinition = NO_DEFINITION


class StoredMessage(NamedTuple):
    """One message as it is stored."""

    channel: Channel
    log_ns: int
    data: bytes


class Tally(NamedTuple):
    """How many messages there are, and the log times of the first and the last."""

    messages: int
    first_ns: int
    last_ns: int

    def and_of(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(self.messages + other.messages, min(self.first_ns, other.first_ns), max(self.last_ns, other.last_ns))


class Storage(Protocol):
    """One storage file, open.

    ``tallies`` are of the messages that are there; channels without any are left out of them and stand in ``channels``.
    ``losses`` says in sentences what is damaged; reading may add to it. ``keeps_count``: the file tells how many messages it
    should have, and has them.
    """

    path: Path
    losses: list[str]
    notes: list[str]
    keeps_count: bool

    @property
    def channels(self) -> list[Channel]:
        """Every channel that the file names."""
        ...

    @property
    def tallies(self) -> dict[Channel, Tally]:
        """What is there of each channel."""
        ...

    def messages(self, wanted: Collection[Channel]) -> Iterator[StoredMessage]:
        """Give the messages of some channels in order of log time, those of one time as they were written."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class Part(NamedTuple):
    """A run of messages that are in order: the time that none of them is before, and how to read them."""

    start_ns: int
    read: Callable[[], Iterator[StoredMessage]]


def in_time_order(parts: Iterable[Part]) -> Iterator[StoredMessage]:
    """Merge parts by log time; those of one time in the order of the parts. A part is read from when its time has come."""
    waiting = sorted(enumerate(parts), key=lambda part: part[1].start_ns, reverse=True)
    heap: list[tuple[int, int, StoredMessage, Iterator[StoredMessage]]] = []
    while waiting or heap:
        while waiting and (not heap or waiting[-1][1].start_ns <= heap[0][0]):
            number, part = waiting.pop()
            stream = part.read()
            if (first := next(stream, None)) is not None:
                heapq.heappush(heap, (first.log_ns, number, first, stream))
        if len(heap) == 1:  # nearly always; then nothing has to be compared before the time of the part that waits
            _, number, message, stream = heap.pop()
            yield message
            if not waiting:
                yield from stream
                return
            until_ns = waiting[-1][1].start_ns
            for following in stream:
                if following.log_ns >= until_ns:
                    heap.append((following.log_ns, number, following, stream))
                    break
                yield following
        elif heap:
            _, number, message, stream = heap[0]
            yield message
            if (following_one := next(stream, None)) is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (following_one.log_ns, number, following_one, stream))


def require_regular(path: Path) -> os.stat_result:
    """Look at a file, which must be a regular one: a FIFO would block for ever, a device never ends.

    Raises:
        BagError: it is something else, or is not there.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:  # a null byte in the name is a ValueError
        msg = f"{shortened(path)}: expected a bag file, got {_reason(error)}"
        raise BagError(msg) from None
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for test, name in _KINDS if test(found.st_mode)), "something else")
        msg = f"{path}: expected a regular file, got {kind}"
        raise BagError(msg)
    return found


def shortened(name: object) -> str:
    """Name a path, topic or type in an error: a damaged file may have names of a megabyte, which are no part of a sentence."""
    text = str(name)
    most = 300
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 2 :]}"


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())


_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)

"""Reading bags of ROS 2 without ROS: folders and single files, MCAP and sqlite3, also damaged ones."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Protocol, final

import apsw
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.errors import ReaderError
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from gemini_core.bag.messages import Message, typestore
from gemini_core.bag.salvage import Salvage, StoredMessage
from gemini_core.decode.message import RAW_TYPES, RawMessage
from gemini_core.errors import BagError, nearest_names

STORAGE_SUFFIXES = (".mcap", ".db3")
NANOSECONDS = 1_000_000_000

_READ_ERRORS = (
    ReaderError,
    apsw.Error,
    sqlite3.Error,
    OSError,
    EOFError,
    struct.error,
    TypeError,
    ValueError,
    LookupError,
    AssertionError,
    OverflowError,  # a size that no file has, and
    MemoryError,  # one that no memory has
)
"""What rosbags lets through from a damaged file: its own error, and those of the bytes that it stumbles over."""


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """One topic of a bag; ``rate_hz`` is over log time, 0 for fewer than two messages."""

    name: str
    type: str
    count: int
    rate_hz: float


@dataclass(frozen=True, eq=False)
class BagMessage:
    """One message: ``data`` is its CDR as recorded, ``message`` the same with fields, decoded when first asked for.

    A message of RAW_TYPES stays as it is: ``message`` is then a RawMessage.
    """

    topic: str
    type: str
    log_ns: int
    data: bytes = field(repr=False)
    _decode: Callable[[BagMessage], Message] = field(repr=False)

    @cached_property
    def message(self) -> Message:
        """The message with its fields.

        Raises:
            BagError: the type is unknown and the bag has no definition of it, or the bytes do not fit the definition.
        """
        return self._decode(self)


@final
class BagReader:
    """Reads one bag; a context manager.

    A damaged bag opens as long as anything of it can be read: ``damage`` then says what is wrong (else it is ""), and
    :meth:`messages` raises that sentence with the number of messages read, after the last readable one.

    Raises:
        BagError: on entering, there is no such bag, or nothing of it can be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.damage = ""
        self._sources: list[_Source] = []
        self._definitions: dict[str, MessageDefinition] = {}
        self._stores: dict[str, Typestore] = {}

    def __enter__(self) -> BagReader:
        """Open the bag."""
        try:
            self._sources = [_Intact(self.path)] if self._is_openable() else []
        except _READ_ERRORS as error:
            self.damage = _sentence(error)
        if not self._sources:
            self._sources = [self._open_file(path) for path in self._storage_files()]
        for source in self._sources:
            self._definitions.update(source.definitions)
        if self.damage and not any(source.counts for source in self._sources):
            self.close()
            msg = f"{self.path}: expected a bag with messages, got none that can be read ({self.damage})"
            raise BagError(msg)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Close the bag."""
        self.close()

    def close(self) -> None:
        """Close the bag; reading from it is over."""
        for source in self._sources:
            source.close()
        self._sources = []

    def topics(self) -> tuple[TopicInfo, ...]:
        """List the topics by name, without reading the messages of an intact bag; rates are over the whole bag's length."""
        counts: dict[tuple[str, str], int] = {}
        for source in self._sources:
            for topic, count in source.counts.items():
                counts[topic] = counts.get(topic, 0) + count
        first_ns, last_ns = self.span_ns
        seconds = (last_ns - first_ns) / NANOSECONDS
        return tuple(
            TopicInfo(name, kind, count, (count - 1) / seconds if count > 1 and seconds > 0 else 0.0)
            for (name, kind), count in sorted(counts.items())
        )

    @property
    def span_ns(self) -> tuple[int, int]:
        """Log times of the first and the last message; (0, 0) for a bag without messages."""
        spans = [source.span_ns for source in self._sources if any(source.counts.values())]
        return (min(start for start, _ in spans), max(end for _, end in spans)) if spans else (0, 0)

    def measured_topics(self) -> tuple[TopicInfo, ...]:
        """List the topics with rates over the time from their own first to their own last message; reads the whole bag."""
        spans: dict[tuple[str, str], list[int]] = {}
        with contextlib.suppress(BagError):  # of a damaged bag this is what can be read; reading it says what is wrong
            for stored in self.messages():
                span = spans.setdefault((stored.topic, stored.type), [0, stored.log_ns, stored.log_ns])
                span[:] = span[0] + 1, min(span[1], stored.log_ns), max(span[2], stored.log_ns)
        silent = {(topic.name, topic.type): (0, 0, 0) for topic in self.topics()}
        return tuple(
            TopicInfo(name, kind, count, (count - 1) * NANOSECONDS / (last - first) if last > first else 0.0)
            for (name, kind), (count, first, last) in sorted((silent | spans).items())
        )

    def messages(self, topics: Collection[str] | None = None) -> Iterator[BagMessage]:
        """Give the messages of some topics, or of all, in order of log time (a damaged file: in order of writing).

        Raises:
            BagError: a topic is not in the bag; or, after the last readable message, the bag is damaged.
        """
        known = {topic for source in self._sources for topic, _ in source.counts}
        for topic in topics or ():
            if topic not in known:
                msg = f"{self.path}: expected a topic of this bag, got {topic!r} ({nearest_names(topic, known)})"
                raise BagError(msg)
        return self._read(known if topics is None else set(topics))

    def _read(self, topics: Collection[str]) -> Iterator[BagMessage]:
        count = 0
        damage = self.damage
        for source in self._sources:
            messages = source.messages(topics)
            while True:
                try:
                    raw = next(messages, None)
                except _READ_ERRORS as error:
                    damage = _sentence(error)
                    break
                if raw is None:
                    break
                count += 1
                yield BagMessage(raw.topic, raw.type, raw.log_ns, raw.data, self._decode)
        if damage:
            msg = f"{self.path}: expected an intact bag, got one that is damaged; {count} messages were read before ({damage})"
            raise BagError(msg)

    # ----------------------------------------------------------------------------------------------------------------
    # Opening

    def _is_openable(self) -> bool:
        """Say whether rosbags can be asked at once; a folder without metadata.yaml is read file by file."""
        if not self.path.exists():
            msg = f"{self.path}: expected a bag (a folder, or a file that ends in .mcap or .db3), got nothing at this path"
            raise BagError(msg)
        if self.path.is_dir():
            return (self.path / "metadata.yaml").exists()
        if self.path.suffix not in STORAGE_SUFFIXES:
            msg = f"{self.path}: expected a folder or a file that ends in .mcap or .db3, got {self.path.suffix or 'no suffix'}"
            raise BagError(msg)
        return True

    def _storage_files(self) -> list[Path]:
        """List the storage files of the bag in the order of recording (recorders number them)."""
        if self.path.is_file():
            return [self.path]
        files = [path for path in self.path.iterdir() if path.suffix in STORAGE_SUFFIXES]
        if not files:
            msg = f"{self.path}: expected a bag with .mcap or .db3 files, got a folder without any"
            raise BagError(msg)
        return sorted(files, key=lambda path: (len(path.name), path.name))

    def _open_file(self, path: Path) -> _Source:
        """Open one storage file through its index, or from its front where that is damaged."""
        try:
            return _Intact(path)
        except _READ_ERRORS as error:
            self.damage = self.damage or _sentence(error)
            return _Damaged(path)

    # ----------------------------------------------------------------------------------------------------------------
    # Types

    def _decode(self, stored: BagMessage) -> Message:
        store = self._stores.get(stored.type)
        if store is None:
            store = self._stores[stored.type] = self._store_for(stored.type)
        if stored.type in RAW_TYPES:
            return RawMessage(stored.type, stored.data)
        try:
            return store.deserialize_cdr(stored.data, stored.type)
        except (SerdeError, struct.error, ValueError, TypeError, AssertionError, IndexError) as error:
            msg = f"{self.path}: expected {stored.type} on {stored.topic} at log time {stored.log_ns}, got {_sentence(error)}"
            raise BagError(msg) from None

    def _store_for(self, type_name: str) -> Typestore:
        """Choose the definition: ours where the bag has the same or none, else the bag's own."""
        ours = typestore()
        definition = self._definitions.get(type_name)
        if definition is None or definition.format == MessageDefinitionFormat.NONE:
            if type_name not in ours.fielddefs:
                msg = f"{self.path}: expected a known message type, got {type_name!r}, of which the bag has no definition"
                raise BagError(msg)
            return ours
        try:
            theirs = get_typestore(Stores.EMPTY)
            theirs.register(_parse(definition, type_name))
            same = type_name in ours.fielddefs and ours.hash_rihs01(type_name) == theirs.hash_rihs01(type_name)
        except (TypesysError, KeyError) as error:
            msg = f"{self.path}: expected a usable definition of {type_name} in the bag, got {_sentence(error)}"
            raise BagError(msg) from None
        if type_name in RAW_TYPES and not same:  # read without a definition, so it has to be this one
            msg = (
                f"{self.path}: expected {type_name} with the fields that this project knows, got another definition in the bag"
            )
            raise BagError(msg)
        return ours if same else theirs


def _parse(definition: MessageDefinition, type_name: str) -> dict[str, tuple[list, list]]:  # type: ignore[type-arg]  # rosbags' own nesting
    if definition.format == MessageDefinitionFormat.MSG:
        return get_types_from_msg(definition.data, type_name)
    types = {}
    for part in definition.data.split("=" * 80 + "\n"):
        header, _, idl = part.partition("\n")
        if part.strip():
            types.update(get_types_from_idl(idl if header.startswith("IDL: ") else part))
    return types


def _sentence(error: Exception) -> str:
    """Put an error of another library on one line, with its kind where it says nothing itself."""
    text = " ".join(str(error).split()).rstrip(".")
    return text if text and not isinstance(error, KeyError) else f"{type(error).__name__} {text}".strip()


# --------------------------------------------------------------------------------------------------------------------
# Where the bytes come from


class _Source(Protocol):
    """A part of a bag: (topic, type) -> number of messages, first and last log time, definitions by type."""

    counts: dict[tuple[str, str], int]
    span_ns: tuple[int, int]
    definitions: dict[str, MessageDefinition]

    def messages(self, topics: Collection[str]) -> Iterator[StoredMessage]: ...
    def close(self) -> None: ...


class _Intact:
    """A bag, or one storage file of it, that rosbags can open."""

    def __init__(self, path: Path) -> None:
        self._reader = Reader(path)
        self._reader.open()
        self.counts: dict[tuple[str, str], int] = {}
        self.definitions: dict[str, MessageDefinition] = {}
        for connection in self._reader.connections:
            topic = connection.topic, connection.msgtype
            self.counts[topic] = self.counts.get(topic, 0) + connection.msgcount
            self.definitions[connection.msgtype] = connection.msgdef
        self.span_ns = self._reader.start_time, self._reader.end_time - 1

    def messages(self, topics: Collection[str]) -> Iterator[StoredMessage]:
        connections = [connection for connection in self._reader.connections if connection.topic in topics]
        if not connections:
            return  # rosbags takes an empty selection for all
        for connection, log_ns, data in self._reader.messages(connections):
            yield StoredMessage(connection.topic, connection.msgtype, log_ns, data)

    def close(self) -> None:
        self._reader.close()


class _Damaged:
    """One storage file that only its front can be read of; counting is reading."""

    def __init__(self, path: Path) -> None:
        self._salvage = Salvage(path)
        self.counts: dict[tuple[str, str], int] = {}
        stamps = [0, 0]
        for raw in self._salvage.messages():
            stamps = [raw.log_ns, raw.log_ns] if not self.counts else [min(stamps[0], raw.log_ns), max(stamps[1], raw.log_ns)]
            self.counts[raw.topic, raw.type] = self.counts.get((raw.topic, raw.type), 0) + 1
        self.span_ns = stamps[0], stamps[1]
        self.definitions = self._salvage.definitions

    def messages(self, topics: Collection[str]) -> Iterator[StoredMessage]:
        return (raw for raw in self._salvage.messages() if raw.topic in topics)

    def close(self) -> None:
        pass

"""Reading bags without ROS: folders and single files, MCAP, sqlite3 and those of ROS 1, also odd and damaged ones.

What is said of a bag comes in three kinds (docs/bags.md): ``damage`` is for bytes that are lost; ``notes`` for what is odd and
was read all the same; a topic's ``problem`` for messages that are whole and cannot be read, since they are of another kind.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, final

from gemini_core.bag.compressed import COMPRESSED_SUFFIXES, ZSTD_MAGIC, unpack, unpack_file
from gemini_core.bag.definitions import NO_DEFINITION_NOTE, Reading, reading_of
from gemini_core.bag.mcap import MCAP_MAGIC, McapFile
from gemini_core.bag.messages import Message
from gemini_core.bag.metadata import METADATA_NAME, Metadata, listed_files, read_metadata
from gemini_core.bag.ros1 import ROS1_MAGIC, Ros1File
from gemini_core.bag.sqlite import SqliteFile
from gemini_core.bag.stored import (
    CDR,
    ROS1,
    Channel,
    Part,
    Storage,
    Tally,
    in_time_order,
    require_regular,
    shortened,
)
from gemini_core.errors import BagError, nearest_names

STORAGE_SUFFIXES = (".mcap", ".db3")
"""Of the files that rosbag2 writes, uncompressed."""

READABLE_SUFFIXES = tuple(suffix + packed for suffix in (*STORAGE_SUFFIXES, ".bag") for packed in ("", *COMPRESSED_SUFFIXES))
"""Of all files that are read: those, the bags of ROS 1, and each compressed as a whole."""

NANOSECONDS = 1_000_000_000

_SQLITE_MAGIC = b"SQLite format 3\x00"
_MOST_NAMED = 5  # topics or types in one sentence
_MOST_LOSSES = 3


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """One topic of a bag; ``rate_hz`` is over log time, 0 for fewer than two messages.

    ``problem`` says why its messages cannot be read, else "".
    """

    name: str
    type: str
    count: int
    rate_hz: float
    problem: str = ""


@dataclass(frozen=True, eq=False)
class BagMessage:
    """One message: ``data`` is its CDR as recorded, ``message`` the same with fields, decoded when first asked for.

    A message of RAW_TYPES stays as it is: ``message`` is then a RawMessage. ``data`` of a topic that has a problem may be of
    another encoding.
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
            BagError: the topic has a problem (its type is known nowhere, say), or the bytes do not fit the definition.
        """
        return self._decode(self)


def bag_name(path: Path) -> str:
    """Give the name of a bag without the endings of a storage file."""
    name = path.name
    for suffix in READABLE_SUFFIXES[::-1]:
        name = name.removesuffix(suffix)
    return name or path.name


def is_storage_file(path: Path) -> bool:
    """Say whether a path is named like a file that holds messages of a bag."""
    return path.name.lower().endswith(READABLE_SUFFIXES)


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
        self._losses: list[str] = []
        self._notes: list[str] = []
        self._misfits: set[str] = set()
        self._storages: list[Storage] = []
        self._unpacked: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> BagReader:
        """Open the bag."""
        try:
            metadata, files = self._find_files()
            for path in files:
                self._open_file(path)
            self._compare(metadata)
            self._note_kinds()
            self._require_some()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Close the bag."""
        self.close()

    def close(self) -> None:
        """Close the bag; reading from it is over."""
        for storage in self._storages:
            storage.close()
        self._storages = []
        if self._unpacked is not None:
            self._unpacked.cleanup()
            self._unpacked = None

    @property
    def damage(self) -> str:
        """What is lost of the bag, as far as is known by now, in a sentence; "" where nothing is."""
        losses = [*(f"{storage.path.name}: {loss}" for storage in self._storages for loss in storage.losses), *self._losses]
        more = f"; and {len(losses) - _MOST_LOSSES} more" if len(losses) > _MOST_LOSSES else ""
        return "; ".join(losses[:_MOST_LOSSES]) + more

    @property
    def notes(self) -> tuple[str, ...]:
        """What is unusual about the bag and was read all the same, a sentence each; looks at all definitions.

        Whether those fit is known of the messages that were decoded by now.
        """
        notes = [*self._notes, *(note for storage in self._storages for note in storage.notes)]
        readings = {channel.type: reading_of(channel) for channel in self._tallies}
        missing = [kind for kind, reading in readings.items() if reading.note.endswith(NO_DEFINITION_NOTE)]
        if missing:
            notes.append(f"read as this project knows them, since the bag has no definition: {_some(missing)}")
        notes.extend(f"{kind}: the bag's definition does not fit its messages; {_AS_KNOWN}" for kind in sorted(self._misfits))
        others = {reading.note for kind, reading in readings.items() if reading.note and kind not in missing}
        notes.extend(f"{note}; {_AS_KNOWN}" for note in sorted(others))
        return tuple(notes)

    def topics(self) -> tuple[TopicInfo, ...]:
        """List the topics by name, without reading the messages of an intact bag; rates are over the whole bag's length."""
        counts = {key: 0 for channel in self._channels for key in (_key(channel),)}
        for channel, tally in self._tallies.items():
            counts[_key(channel)] += tally.messages
        first_ns, last_ns = self.span_ns
        seconds = (last_ns - first_ns) / NANOSECONDS
        return tuple(
            TopicInfo(*key, count, (count - 1) / seconds if count > 1 and seconds > 0 else 0.0, self._problem(key))
            for key, count in sorted(counts.items())
        )

    @property
    def span_ns(self) -> tuple[int, int]:
        """Log times of the first and the last message; (0, 0) for a bag without messages."""
        tallies = self._tallies.values()
        return (min(each.first_ns for each in tallies), max(each.last_ns for each in tallies)) if tallies else (0, 0)

    def measured_topics(self) -> tuple[TopicInfo, ...]:
        """List the topics with rates over the time from their own first to their own last message; reads the whole bag."""
        spans: dict[tuple[str, str], list[int]] = {}
        with contextlib.suppress(BagError):  # of a damaged bag this is what can be read; reading it says what is wrong
            for stored in self.messages():
                span = spans.setdefault((stored.topic, stored.type), [0, stored.log_ns, stored.log_ns])
                span[:] = span[0] + 1, min(span[1], stored.log_ns), max(span[2], stored.log_ns)
        silent = {(topic.name, topic.type): (0, 0, 0) for topic in self.topics()}
        return tuple(
            TopicInfo(*key, count, (count - 1) * NANOSECONDS / (last - first) if last > first else 0.0, self._problem(key))
            for key, (count, first, last) in sorted((silent | spans).items())
        )

    def messages(self, topics: Collection[str] | None = None) -> Iterator[BagMessage]:
        """Give the messages of some topics, or of all, in order of log time.

        Raises:
            BagError: a topic is not in the bag; or, after the last readable message, the bag is damaged.
        """
        known = {channel.topic for channel in self._channels}
        for topic in topics or ():
            if topic not in known:
                msg = f"{self.path}: expected a topic of this bag, got {topic!r} ({nearest_names(topic, known)})"
                raise BagError(msg)
        return self._read(known if topics is None else set(topics))

    def _read(self, topics: Collection[str]) -> Iterator[BagMessage]:
        wanted = {
            channel: _Stream(channel, reading_of(channel), self.path, self._misfits)
            for channel in self._channels
            if channel.topic in topics
        }
        parts = []
        for storage in self._storages:
            times = [tally.first_ns for channel, tally in storage.tallies.items() if channel in wanted]
            if times:
                parts.append(Part(min(times), partial(storage.messages, wanted)))
        count = unreadable = 0
        last: Channel | None = None
        for channel, log_ns, data in in_time_order(parts):
            if channel is not last:
                last, stream = channel, wanted[channel]
                topic, kind, decode = channel.topic, channel.type, stream.decode
                is_cdr = channel.encoding == CDR
            if not is_cdr or data[:4] == ZSTD_MAGIC:
                try:
                    data = stream.cdr_of(data)  # noqa: PLW2901 - the same message in other bytes
                except BagError as error:
                    unreadable += 1
                    self._lose(f"{shortened(topic)} at log time {log_ns}: {error}")
                    continue
            count += 1
            yield BagMessage(topic, kind, log_ns, data, decode)
        if self.damage:
            lost = f", {unreadable} could not be" if unreadable else ""
            msg = (
                f"{self.path}: expected an intact bag, got one that is damaged; "
                f"{count} messages were read before and behind the damage{lost} ({self.damage})"
            )
            raise BagError(msg)

    # ----------------------------------------------------------------------------------------------------------------
    # Opening

    def _find_files(self) -> tuple[Metadata, list[Path]]:
        """List the storage files of the bag in the order of recording."""
        try:
            is_folder, is_there = self.path.is_dir(), self.path.exists()
        except (OSError, ValueError):  # a name that is too long for the system; require_regular says so
            is_folder, is_there = False, True
        if not is_there and not self.path.is_symlink():
            msg = (
                f"{shortened(self.path)}: expected a bag (a folder, or a file that ends in .mcap, .db3 or .bag),"
                f" got nothing at this path"
            )
            raise BagError(msg)
        if is_folder:
            return self._find_files_in_folder()
        require_regular(self.path)
        if not is_storage_file(self.path) and _magic(self.path) not in _KINDS:
            ends = f"{', '.join(STORAGE_SUFFIXES)} or .bag"
            msg = f"{self.path}: expected a folder or a file that ends in {ends}, got {self.path.suffix or 'no suffix'}"
            raise BagError(msg)
        return Metadata(), [self.path]

    def _find_files_in_folder(self) -> tuple[Metadata, list[Path]]:
        try:
            there = [path for path in self.path.iterdir() if is_storage_file(path)]
        except OSError as error:
            msg = f"{self.path}: expected a folder that can be read, got {error.strerror}"
            raise BagError(msg) from None
        for path in [path for path in there if not path.is_file()]:
            there.remove(path)
            self._notes.append(f"{path.name}: not read, since it is no regular file")
        there = _without_packed_twice(sorted(there, key=lambda path: (len(path.name), path.name)))  # recorders number them
        metadata = self._read_metadata()
        listed, missing = listed_files(self.path, metadata)
        listed = [path for path in listed if path in there]
        if missing and len(there) < len(metadata.files):
            self._lose(f"expected the files that {METADATA_NAME} lists, got none of the name {_some(missing)}")
        elif missing:
            self._notes.append(
                f"{METADATA_NAME} lists {_some(missing)}, which is not there; read are {_some([p.name for p in there])}"
            )
        if not there:
            msg = f"{self.path}: expected a bag with .mcap, .db3 or .bag files, got a folder without any"
            raise BagError(msg)
        if missing or not listed:
            return metadata, there
        extra = [path.name for path in there if path not in listed]
        if extra:
            self._notes.append(f"not read, since {METADATA_NAME} does not list it: {_some(extra)}")
        return metadata, listed

    def _read_metadata(self) -> Metadata:
        path = self.path / METADATA_NAME
        if not path.exists():
            return Metadata()
        try:
            return read_metadata(path)
        except BagError as error:
            self._notes.append(f"read without {METADATA_NAME}, of which nothing is needed: {error}")
            return Metadata()

    def _open_file(self, path: Path) -> None:
        """Open one storage file by what it is, whatever it is called; one that cannot be opened is lost."""
        try:
            require_regular(path)
            if path.name.lower().endswith(COMPRESSED_SUFFIXES) or _magic(path) == ZSTD_MAGIC:
                path = self._unpack(path)
            opener = _KINDS.get(_magic(path)) or _opener_by_name(path)
            self._storages.append(opener(path))
        except BagError as error:
            self._lose(str(error))

    def _unpack(self, path: Path) -> Path:
        if self._unpacked is None:
            self._unpacked = tempfile.TemporaryDirectory(prefix="gemini-bag-")
        name = path.name
        for suffix in COMPRESSED_SUFFIXES:
            name = name.removesuffix(suffix)
        target = Path(self._unpacked.name, name)
        try:
            unpack_file(path, target)
        except OSError as error:
            msg = f"{path}: expected to unpack it in {target.parent}, got {error.strerror} (TMPDIR chooses another place)"
            raise BagError(msg) from None
        except BagError as error:
            if not target.exists() or not target.stat().st_size:
                raise
            self._lose(str(error))  # and the front of it is read
        return target

    def _compare(self, metadata: Metadata) -> None:
        """Hold what is there against what metadata.yaml promises.

        Files that tell their own count and have it have lost nothing: metadata.yaml is then of before they were converted.
        """
        found: dict[str, int] = {}
        for channel, tally in self._tallies.items():
            found[channel.topic] = found.get(channel.topic, 0) + tally.messages
        promised: dict[str, int] = {}
        for (topic, _), count in metadata.counts.items():
            promised[topic] = promised.get(topic, 0) + count
        short = [topic for topic, count in promised.items() if found.get(topic, 0) < count]
        if not short:
            return
        got, expected = sum(found.get(topic, 0) for topic in short), sum(promised[topic] for topic in short)
        what = f"expected {expected} messages of {_some(short)} as {METADATA_NAME} says, got {got}"
        if self._storages and all(storage.keeps_count for storage in self._storages) and not self._losses:
            self._notes.append(f"{what}, and the files are whole: filtered or converted, it seems")
        else:
            self._lose(what)

    def _require_some(self) -> None:
        if self.damage and not self._tallies:
            msg = f"{self.path}: expected a bag with messages, got none that can be read ({self.damage})"
            raise BagError(msg)

    def _note_kinds(self) -> None:
        """Say what bags of ROS 1 are, and how many topics are of what is not read."""
        if any(channel.encoding == ROS1 for channel in self._channels):
            files = [str(storage.path) for storage in self._storages if isinstance(storage, Ros1File)]
            source = " ".join(files) or "FILE.bag"
            which = "it" if files else "the .bag that it was made of"
            self._notes.append(
                "recorded with ROS 1; its messages are read as ROS 2 has them "
                f"('rosbags-convert --src {source} --dst {bag_name(self.path)}' converts {which} once for all)"
            )

    def _lose(self, what: str) -> None:
        if what not in self._losses:
            self._losses.append(what)

    # ----------------------------------------------------------------------------------------------------------------
    # Channels

    @property
    def _channels(self) -> list[Channel]:
        return list(dict.fromkeys(channel for storage in self._storages for channel in storage.channels))

    @property
    def _tallies(self) -> dict[Channel, Tally]:
        found: dict[Channel, Tally] = {}
        for storage in self._storages:
            for channel, tally in storage.tallies.items():
                found[channel] = found[channel].and_of(tally) if channel in found else tally
        return found

    def _problem(self, key: tuple[str, str]) -> str:
        """Why none of the messages of a topic can be read, else ""; types that are known here always can be."""
        channels = [channel for channel in self._channels if _key(channel) == key]
        problems = [reading_of(channel).problem for channel in channels]
        return "" if "" in problems else problems[0]


class _Stream(NamedTuple):
    """How the messages of one channel become what is given."""

    channel: Channel
    reading: Reading
    path: Path
    misfits: set[str]

    def cdr_of(self, data: bytes) -> bytes:
        """Unpack a message of rosbag2's compression mode "message", and put one of ROS 1 into CDR.

        Raises:
            BagError: it is damaged.
        """
        if self.channel.encoding == CDR:
            return unpack(data, "zstd") if data[:4] == ZSTD_MAGIC else data
        return data if self.reading.to_cdr is None else self.reading.to_cdr(data)

    def decode(self, stored: BagMessage) -> Message:
        try:
            return self.reading.decode(stored.type, stored.data, self.misfits)
        except BagError as error:
            where = f"{shortened(stored.type)} on {shortened(stored.topic)} at log time {stored.log_ns}"
            msg = (
                f"{self.path}: {self.reading.problem}"
                if self.reading.problem
                else f"{self.path}: expected {where}, got {error}"
            )
            raise BagError(msg) from None


_AS_KNOWN = "read as this project knows it"

_KINDS: dict[bytes, Callable[[Path], Storage]] = {MCAP_MAGIC: McapFile, _SQLITE_MAGIC: SqliteFile, ROS1_MAGIC: Ros1File}


def _magic(path: Path) -> bytes:
    """The first bytes of a file that say what it is; b"" where none of the known do."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        msg = f"{shortened(path)}: expected a file that can be read, got {error.strerror}"
        raise BagError(msg) from None
    return next((magic for magic in (*_KINDS, ZSTD_MAGIC) if head.startswith(magic)), b"")


def _opener_by_name(path: Path) -> Callable[[Path], Storage]:
    """For a file whose first bytes say nothing: the opener says what is wrong with it, or finds it all in the log beside."""
    name = path.name.lower()
    return SqliteFile if name.endswith(".db3") else Ros1File if name.endswith(".bag") else McapFile


def _without_packed_twice(files: list[Path]) -> list[Path]:
    """Leave out a compressed file that lies beside what it unpacks to."""
    names = {path.name for path in files}
    return [path for path in files if not any(path.name.removesuffix(s) in names - {path.name} for s in COMPRESSED_SUFFIXES)]


def _key(channel: Channel) -> tuple[str, str]:
    return channel.topic, channel.type


def _some(names: Collection[str]) -> str:
    first = [shortened(name) for name in list(names)[:_MOST_NAMED]]
    return ", ".join(first) + (f" and {len(names) - len(first)} more" if len(names) > len(first) else "")

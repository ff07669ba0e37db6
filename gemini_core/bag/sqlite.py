"""sqlite3 bags, also with messages that are still in their write-ahead log, and damaged ones.

Nothing is ever written beside a bag. A bag alone is opened as immutable. What lies in a ``.db3-wal`` (the recorder was killed)
is read through a copy of the log, with the index of it in memory; a bag with a ``-journal`` of a write that was never
finished is copied and rolled back there.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, final

import apsw
from rosbags.interfaces import MessageDefinition

from gemini_core.bag.definitions import ros2_type, sentence
from gemini_core.bag.stored import CDR, DEFINITION_FORMATS, NO_DEFINITION, Channel, StoredMessage, Tally, require_regular
from gemini_core.errors import BagError

MOST_DAMAGED_PLACES = 1000
"""Reading on behind a damaged place costs a search for the next one that can be read."""

_names = itertools.count()
_MOST = 2**63  # no row and no time is as large


@final
class SqliteFile:
    """One sqlite3 file, open; a Storage.

    Raises:
        BagError: on construction, it is no sqlite3 bag, or is too damaged to name its topics.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        size = require_regular(path).st_size
        self._page_bytes, pages = _layout(path)
        self._is_whole = self._page_bytes * pages <= size or _has_content(
            _beside(path, "-wal")
        )  # then the header may be of before
        self.losses: list[str] = []
        self.notes: list[str] = []
        self.keeps_count = False
        self.channels: list[Channel] = []
        self.tallies: dict[Channel, Tally] = {}
        self._by_number: dict[int, Channel] = {}
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._vfs: apsw.VFS | None = None
        self._ordered = True
        try:
            self._database = self._connect()
            self._read_topics()
            self._count()
        except (apsw.Error, OSError, UnicodeDecodeError, ValueError, TypeError) as error:
            self.close()
            msg = f"{path}: expected an sqlite3 bag, got {_reason(error)}"
            raise BagError(msg) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file, and remove what was copied."""
        if (database := getattr(self, "_database", None)) is not None:
            database.close(True)  # also where a query still runs
        self._vfs = None
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def messages(self, wanted: Collection[Channel]) -> Iterator[StoredMessage]:
        """Give the messages of some channels by log time; of a damaged file those that are left follow as written."""
        numbers = {number: channel for number, channel in self._by_number.items() if channel in wanted}
        chosen = ",".join(str(number) for number in numbers)
        last = (-_MOST, -_MOST)  # log time and row of what was given: everything up to it was
        if self._ordered:
            query = f"SELECT id, topic_id, timestamp, data FROM messages WHERE topic_id IN ({chosen}) ORDER BY timestamp, id"  # noqa: S608 - numbers
            try:
                for row, number, log_ns, data in self._database.execute(query):
                    if type(data) is bytes and type(log_ns) is int:
                        last = log_ns, row
                        yield StoredMessage(numbers[number], log_ns, data)
                    else:
                        self._lost(f"expected a time and bytes in row {row}, got something else")
            except apsw.Error as error:
                self._lost(f"expected an intact sqlite3 file, got {_reason(error)}")
            else:
                return
        yield from self._salvaged(numbers, last)

    # ----------------------------------------------------------------------------------------------------------------
    # Opening

    def _connect(self) -> apsw.Connection:
        log, journal = _beside(self.path, "-wal"), _beside(self.path, "-journal")
        if _has_content(log):
            return self._with_log(log)
        if _has_content(journal):
            return self._rolled_back(journal)
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        if not self._is_whole:  # SQLite fills up the page that the file ends in with zeros, which would be given as a message's
            name = f"gemini-bag-{next(_names)}"
            self._vfs = _CutVfs(name, self._page_bytes)
            return apsw.Connection(f"{_uri(self.path)}?immutable=1", flags=flags, vfs=name)
        return apsw.Connection(f"{_uri(self.path)}?immutable=1", flags=flags)

    def _with_log(self, log: Path) -> apsw.Connection:
        """Read the file where it lies, and its write-ahead log from a copy: SQLite wants to write to that."""
        folder = self._copy(log, as_name="bag-wal")
        (folder / "bag").touch()  # SQLite takes the log's permissions from the file beside it
        name = f"gemini-bag-{next(_names)}"
        self._vfs = _LogVfs(name, str(folder / "bag-wal"))
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        database = apsw.Connection(f"{_uri(self.path)}?mode=ro", flags=flags, vfs=name)
        database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        database.execute("PRAGMA locking_mode=EXCLUSIVE")  # keeps the log's index in memory, not in a file beside the bag
        self.notes.append(f"{log.name}: read, too; the recorder did not put its messages into {self.path.name}")
        return database

    def _rolled_back(self, journal: Path) -> apsw.Connection:
        folder = self._copy(self.path, as_name="bag")
        shutil.copyfile(journal, folder / "bag-journal")
        self.notes.append(f"{journal.name}: the last write into {self.path.name} was not finished; it was taken back in a copy")
        return apsw.Connection(str(folder / "bag"))

    def _copy(self, path: Path, as_name: str) -> Path:
        self._temporary = tempfile.TemporaryDirectory(prefix="gemini-bag-")
        folder = Path(self._temporary.name)
        size, free = path.stat().st_size, shutil.disk_usage(folder).free
        if size > free:
            msg = f"{path}: expected {size} bytes free in {folder.parent} for a copy (TMPDIR chooses another place), got {free}"
            raise BagError(msg)
        shutil.copyfile(path, folder / as_name)
        return folder

    def _read_topics(self) -> None:
        self._database.execute("PRAGMA writable_schema=ON")  # else SQLite refuses a file shorter than its header says
        definitions: dict[str, MessageDefinition] = {}
        if self._columns("message_definitions"):  # older ROS 2 has no such table
            query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            for name, encoding, text in self._database.execute(query):
                form = DEFINITION_FORMATS.get(encoding)
                if form is not None and isinstance(text, str):
                    definitions[name] = MessageDefinition(form, text)
        columns = self._columns("topics")
        encoding = "serialization_format" if "serialization_format" in columns else f"'{CDR}'"
        for number, name, kind, form in self._database.execute(f"SELECT id, name, type, {encoding} FROM topics ORDER BY id"):  # noqa: S608 - a column of ours or a constant
            definition = definitions.get(kind, NO_DEFINITION)
            channel = Channel(str(name), ros2_type(str(kind)), str(form or CDR), definition)
            self._by_number[int(number)] = channel
        self.channels = list(dict.fromkeys(self._by_number.values()))

    def _columns(self, table: str) -> list[str]:
        return [str(row[1]) for row in self._database.execute(f"PRAGMA table_info({table})")]

    def _count(self) -> None:
        query = "SELECT topic_id, COUNT(*), MIN(timestamp), MAX(timestamp) FROM messages GROUP BY topic_id"
        try:
            for number, count, first_ns, last_ns in self._database.execute(query):
                self._tally(number, Tally(count, int(first_ns), int(last_ns)))
            if not self._is_whole:
                msg = "a file shorter than its own header says"
                raise BagError(msg)  # noqa: TRY301 - the same way out as for what SQLite says of it
        except (apsw.Error, TypeError, ValueError, BagError) as error:
            self._lost(f"expected an intact sqlite3 file, got {_reason(error)}")
            self._ordered = False
            self.tallies = {}
            for message in self._salvaged(self._by_number, (-_MOST, -_MOST)):
                self._tally_of(message)

    def _tally(self, number: object, tally: Tally) -> None:
        channel = self._by_number.get(number) if isinstance(number, int) else None
        if channel is None:
            self._lost(f"expected a topic for each message, got {tally.messages} messages of number {number}, which names none")
            return
        self.tallies[channel] = self.tallies[channel].and_of(tally) if channel in self.tallies else tally

    def _tally_of(self, message: StoredMessage) -> None:
        tally = Tally(1, message.log_ns, message.log_ns)
        channel = message.channel
        self.tallies[channel] = self.tallies[channel].and_of(tally) if channel in self.tallies else tally

    # ----------------------------------------------------------------------------------------------------------------
    # Reading

    def _message(self, numbers: dict[int, Channel], row: int, number: int, log_ns: Any, data: Any) -> StoredMessage | None:  # noqa: ANN401 - whatever a damaged row has
        if not isinstance(log_ns, int) or not isinstance(data, bytes):
            self._lost(f"expected a time and bytes in row {row}, got something else")
            return None
        return StoredMessage(numbers[number], log_ns, data)

    def _salvaged(self, numbers: dict[int, Channel], last: tuple[int, int]) -> Iterator[StoredMessage]:
        """Give the messages as they were written, less those that were given; goes on behind what cannot be read."""
        row = -_MOST
        for _ in range(MOST_DAMAGED_PLACES):
            query = f"SELECT id, topic_id, timestamp, data FROM messages WHERE id > {row} ORDER BY id"  # noqa: S608 - a number
            try:
                for row, number, log_ns, data in self._database.execute(query):
                    if number not in numbers:
                        continue
                    message = self._message(numbers, row, number, log_ns, data)
                    if message is not None and (message.log_ns, row) > last:
                        yield message
            except apsw.Error:
                following = self._next_row(row)
                if following is None:
                    return
                row = following
            else:
                return

    def _next_row(self, row: int) -> int | None:
        """Give the row before the next one that may be readable behind a damaged one, None where no more can be found."""
        try:
            found = self._database.execute(f"SELECT MIN(id) FROM messages WHERE id > {row}").fetchone()  # noqa: S608 - a number
        except apsw.Error:
            return None
        return None if found is None or found[0] is None else int(found[0])

    def _lost(self, what: str) -> None:
        if what not in self.losses:
            self.losses.append(what)


class _CutFile(apsw.VFSFile):
    """A file that is cut off, as long as its whole pages."""

    def __init__(self, name: Any, flags: list[int], page_bytes: int) -> None:  # noqa: ANN401 - apsw's own kind of name
        self._page_bytes = page_bytes
        super().__init__("", name, flags)

    def xFileSize(self) -> int:  # noqa: N802 - SQLite's name
        size = super().xFileSize()
        return size - size % self._page_bytes


class _CutVfs(apsw.VFS):
    """Opens a file that is cut off."""

    def __init__(self, name: str, page_bytes: int) -> None:
        self._page_bytes = page_bytes
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802, ANN401
        return _CutFile(name, flags, self._page_bytes)


class _LogFile(apsw.VFSFile):
    """The bag itself: no other process is asked, since nothing is written."""

    def xLock(self, level: int) -> None:  # noqa: N802 - SQLite's name
        pass

    def xUnlock(self, level: int) -> None:  # noqa: N802
        pass

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False


class _LogVfs(apsw.VFS):
    """Opens the copy of a write-ahead log in place of the one beside the bag."""

    def __init__(self, name: str, log: str) -> None:
        self._log = log
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802, ANN401
        if flags[0] & apsw.SQLITE_OPEN_WAL:
            return apsw.VFSFile("", self._log, flags)
        return _LogFile("", name, flags)

    def xAccess(self, pathname: str, _flags: int) -> bool:  # noqa: N802
        return pathname.endswith("-wal")

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        pass


def _layout(path: Path) -> tuple[int, int]:
    """Read the size of a page and the number of pages from the header of a file (https://sqlite.org/fileformat.html)."""
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except OSError as error:
        msg = f"{path}: expected a file that can be read, got {error.strerror}"
        raise BagError(msg) from None
    page = int.from_bytes(head[16:18], "big")
    return (65536 if page == 1 else page) or 1, int.from_bytes(head[28:32], "big")


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _has_content(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False


def _uri(path: Path) -> str:
    return path.absolute().as_uri()


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else sentence(error)

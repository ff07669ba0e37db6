"""Recovery of damaged bag files: what can still be read of one that was cut off, e.g. by a recorder that lost power.

An intact bag is read by rosbags, through its index. A damaged one has no usable index, so these read from the front of the
file, message after message in the order of writing, and end at the first byte that makes no sense.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2.storage_mcap import decompress

from gemini_core.errors import BagError

MCAP_MAGIC = b"\x89MCAP0\r\n"
# Record codes of the MCAP specification, https://mcap.dev/spec
SCHEMA, CHANNEL, MESSAGE, CHUNK = 3, 4, 5, 6
RECORD_HEADER_BYTES = 9

_FORMATS = {"ros2msg": MessageDefinitionFormat.MSG, "ros2idl": MessageDefinitionFormat.IDL}
_NO_DEFINITION = MessageDefinition(MessageDefinitionFormat.NONE, "")


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message as it is stored."""

    topic: str
    type: str
    log_ns: int
    data: bytes


@dataclass(slots=True)
class Salvage:
    """One damaged storage file: the definitions found so far by type name, and why it ended."""

    path: Path
    definitions: dict[str, MessageDefinition] = field(default_factory=dict)

    def messages(self) -> Iterator[StoredMessage]:
        """Give the readable messages in the order of writing, ending where the damage begins.

        Raises:
            BagError: not even the beginning can be read.
        """
        if self.path.suffix == ".mcap":
            yield from self._mcap_messages()
        else:
            yield from self._sqlite_messages()

    def _mcap_messages(self) -> Iterator[StoredMessage]:
        with self.path.open("rb") as file:
            if file.read(len(MCAP_MAGIC)) != MCAP_MAGIC:
                msg = f"{self.path}: expected an MCAP file, got other bytes at its beginning"
                raise BagError(msg)
            schemas: dict[int, tuple[str, MessageDefinition]] = {}
            channels: dict[int, tuple[str, str]] = {}
            try:
                for code, record in _records(file):
                    if code == SCHEMA:
                        schema = _Fields(record)
                        number, name = schema.number("<H"), schema.text()
                        form = _FORMATS.get(schema.text(), MessageDefinitionFormat.NONE)
                        schemas[number] = name, MessageDefinition(form, schema.text())
                        self.definitions[name] = schemas[number][1]
                    elif code == CHANNEL:
                        channel = _Fields(record)
                        number, schema_number = channel.number("<H"), channel.number("<H")
                        channels[number] = channel.text(), schemas.get(schema_number, ("", _NO_DEFINITION))[0]
                    elif code == MESSAGE:
                        number, _, log_ns, _ = struct.unpack_from("<HIQQ", record)
                        yield StoredMessage(*channels[number], log_ns, bytes(record[22:]))
            except (struct.error, KeyError, UnicodeDecodeError):
                return  # a record that breaks its own format: the damage begins here

    def _sqlite_messages(self) -> Iterator[StoredMessage]:
        try:
            database = sqlite3.connect(f"{self.path.absolute().as_uri()}?immutable=1", uri=True)
            database.execute("PRAGMA writable_schema=ON")  # else SQLite refuses a file shorter than its header says
        except sqlite3.Error as error:
            msg = f"{self.path}: expected an sqlite3 bag, got {error}"
            raise BagError(msg) from None
        try:
            topics = {number: (name, kind) for number, name, kind in database.execute("SELECT id, name, type FROM topics")}
        except sqlite3.Error as error:
            database.close()
            msg = f"{self.path}: expected an sqlite3 bag, got {error}"
            raise BagError(msg) from None
        try:
            query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            for name, encoding, text in database.execute(query):
                self.definitions[name] = MessageDefinition(_FORMATS.get(encoding, MessageDefinitionFormat.NONE), text)
        except sqlite3.Error:
            pass  # bags of older ROS 2 have no such table; the messages may be of known types all the same
        try:
            for topic, log_ns, data in database.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY id"):
                if topic not in topics:
                    return
                yield StoredMessage(*topics[topic], log_ns, data)
        except sqlite3.Error:
            return  # the page that comes next is missing or damaged
        finally:
            database.close()


class _Fields:
    """Reads the fields of one MCAP record in order."""

    def __init__(self, record: memoryview) -> None:
        self._record = record
        self._offset = 0

    def number(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self._record, self._offset)
        self._offset += struct.calcsize(form)
        return int(value)

    def text(self) -> str:
        return bytes(self.take(self.number("<I"))).decode()

    def rest(self) -> memoryview:
        return self._record[self._offset :]

    def take(self, size: int) -> memoryview:
        part = self._record[self._offset : self._offset + size]
        if len(part) != size:
            msg = "the record ends too early"
            raise struct.error(msg)
        self._offset += size
        return part


def _records(file: BinaryIO) -> Iterator[tuple[int, memoryview]]:
    """Give (code, content) of the complete records of an MCAP file, those inside chunks too."""
    left = os.fstat(file.fileno()).st_size - file.tell()
    while left >= RECORD_HEADER_BYTES:
        code, size = struct.unpack("<BQ", file.read(RECORD_HEADER_BYTES))
        left -= RECORD_HEADER_BYTES
        content = memoryview(file.read(min(size, left)))
        if code == CHUNK:
            yield from _chunk_records(content)
        elif len(content) == size:
            yield code, content
        left -= size


def _chunk_records(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    chunk = _Fields(content)
    chunk.take(16)  # start and end time
    uncompressed_size, checksum, compression = chunk.number("<Q"), chunk.number("<I"), chunk.text()
    compressed_size = chunk.number("<Q")
    inner = chunk.rest()[:compressed_size]
    if len(inner) == compressed_size or compression:  # else: an uncompressed chunk is readable up to the cut
        try:
            inner = memoryview(decompress(bytes(inner), compression, uncompressed_size, checksum))
        except Exception as error:  # noqa: BLE001 - every compression has an error class of its own
            raise struct.error(*error.args) from None
    offset = 0
    while offset + RECORD_HEADER_BYTES <= len(inner):
        code, size = struct.unpack_from("<BQ", inner, offset)
        offset += RECORD_HEADER_BYTES
        if offset + size > len(inner):
            return
        yield code, inner[offset : offset + size]
        offset += size

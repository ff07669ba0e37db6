"""Writing bags that ``ros2 bag`` reads: a folder with metadata.yaml and one storage file, MCAP or sqlite3."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Literal, final

from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.serde import SerdeError

from gemini_core.bag.messages import Message, typestore
from gemini_core.bag.reader import STORAGE_SUFFIXES
from gemini_core.bag.stored import shortened
from gemini_core.errors import BagError, nearest_names

Storage = Literal["mcap", "sqlite3"]

METADATA_VERSION: Literal[8] = 8
"""Version 9 writes the QoS in a way that ROS 2 before Jazzy cannot read; 8 is read by all."""

LATCHED_TOPICS = ("tf_static", "label_info", "description")
"""Last parts of topic names whose newest message a late subscriber must still get (transient local)."""

_INFINITE = QosTime(9223372036, 854775807)  # RMW_DURATION_INFINITE


@final
class BagWriter:
    """Writes one bag; a context manager.

    The bag appears at ``path`` only when the block ends without an exception; until then it grows in a temporary folder
    beside it, which is removed when an exception ends the block. ``overwrite`` replaces a bag, and nothing but a bag.

    Raises:
        BagError: on entering, ``path`` exists and ``overwrite`` is False or it holds anything but a bag, or it cannot be
            created; on leaving, it cannot be finished, and what was there before is there again.
    """

    def __init__(self, path: str | Path, storage: Storage = "mcap", *, overwrite: bool = False) -> None:
        self._path = Path(path).absolute()
        self._storage = storage
        self._overwrite = overwrite
        self._temporary: Path | None = None
        self._writer: Writer | None = None
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> BagWriter:
        """Create the temporary folder."""
        if self._storage not in ("mcap", "sqlite3"):
            msg = f"{self._path}: expected storage mcap or sqlite3, got {self._storage!r}"
            raise BagError(msg)
        if self._path.suffix in STORAGE_SUFFIXES:
            msg = f"{self._path}: expected the name of a folder, since a bag is one; leave out {self._path.suffix}"
            raise BagError(msg)
        try:
            is_there = self._path.exists()
        except (OSError, ValueError) as error:
            msg = f"{shortened(self._path)}: expected a path that the system takes, got {getattr(error, 'strerror', error)}"
            raise BagError(msg) from None
        if is_there and not self._overwrite:
            msg = f"{self._path}: expected a path where nothing is yet, got one that exists (overwriting was not asked for)"
            raise BagError(msg)
        self._refuse_to_replace_other_files()
        plugin = StoragePlugin.MCAP if self._storage == "mcap" else StoragePlugin.SQLITE3
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary = Path(tempfile.mkdtemp(prefix=f".{self._path.name}.", suffix=".partial", dir=self._path.parent))
            self._writer = Writer(self._temporary / self._path.name, version=METADATA_VERSION, storage_plugin=plugin)
            self._writer.open()
        except (OSError, ValueError) as error:  # a null byte in the name is a ValueError
            self._discard()
            msg = f"{self._path}: expected a folder that can be written, got {getattr(error, 'strerror', error)}"
            raise BagError(msg) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Move the finished bag to its place, or remove what was written when an exception came."""
        if kind is not None:
            self._discard()
            return
        writer, temporary = self._open()
        try:
            writer.close()
            if self._path.exists():
                os.replace(self._path, temporary / "replaced")  # noqa: PTH105 - os.replace is the brief word for it
            os.replace(temporary / self._path.name, self._path)  # noqa: PTH105
        except (OSError, sqlite3.Error) as error:
            if (temporary / "replaced").exists():
                os.replace(temporary / "replaced", self._path)  # noqa: PTH105
            self._discard()
            msg = f"{self._path}: expected to finish the bag, got {error}"
            raise BagError(msg) from None
        self._writer = None
        self._discard()

    def write(self, topic: str, message: Message, log_ns: int) -> None:
        """Write a message of a class of :func:`gemini_core.bag.messages.typestore`, logged at ``log_ns``.

        Raises:
            BagError: the message does not fit its definition, or the topic carries another type already.
        """
        type_name: str = message.__msgtype__
        try:
            data = typestore().serialize_cdr(message, type_name)
        except (SerdeError, struct.error, AttributeError, TypeError, ValueError, OverflowError, AssertionError) as error:
            msg = f"{self._path}: expected fields that fit {type_name} on {topic}, got {type(error).__name__}: {error}"
            raise BagError(msg) from None
        self.write_raw(topic, type_name, data, log_ns)

    def write_raw(self, topic: str, type_name: str, data: bytes | memoryview, log_ns: int) -> None:
        """Write a message that is CDR bytes already, logged at ``log_ns``.

        Raises:
            BagError: the type is unknown, the topic carries another type already, or the disk is full.
        """
        writer, _ = self._open()
        connection = self._connections.get(topic)
        if connection is None:
            connection = self._connections[topic] = self._connect(writer, topic, type_name)
        if connection.msgtype != type_name:
            msg = f"{self._path}: expected {connection.msgtype} on {topic}, as before, got {type_name}"
            raise BagError(msg)
        try:
            writer.write(connection, int(log_ns), data)
        except (OSError, sqlite3.Error) as error:
            msg = f"{self._path}: expected to write a message of {topic}, got {error}"
            raise BagError(msg) from None

    def _connect(self, writer: Writer, topic: str, type_name: str) -> Connection:
        store = typestore()
        if type_name not in store.fielddefs:
            nearest = nearest_names(type_name, store.fielddefs)
            msg = f"{self._path}: expected a known message type on {topic}, got {type_name!r} ({nearest})"
            raise BagError(msg)
        latched = topic.rsplit("/", 1)[-1] in LATCHED_TOPICS
        qos = Qos(
            history=QosHistory.KEEP_LAST,
            depth=1 if latched else 10,
            reliability=QosReliability.RELIABLE,
            durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
            deadline=_INFINITE,
            lifespan=_INFINITE,
            liveliness=QosLiveliness.AUTOMATIC,
            liveliness_lease_duration=_INFINITE,
            avoid_ros_namespace_conventions=False,
        )
        return writer.add_connection(topic, type_name, typestore=store, offered_qos_profiles=[qos])

    def _refuse_to_replace_other_files(self) -> None:
        if not self._path.exists():
            return
        found = "a file"
        if self._path.is_dir():
            suffixes = set(STORAGE_SUFFIXES)
            others = (
                item.name
                for item in self._path.iterdir()
                if item.name != "metadata.yaml" and suffixes.isdisjoint(item.suffixes)
            )
            found = next(others, "")
        if found:
            msg = f"{self._path}: expected a bag to replace, got something else there ({found})"
            raise BagError(msg)

    def _open(self) -> tuple[Writer, Path]:
        if self._writer is None or self._temporary is None:
            msg = f"{self._path}: expected an open bag (use 'with BagWriter(path) as bag'), got one that is closed"
            raise BagError(msg)
        return self._writer, self._temporary

    def _discard(self) -> None:
        """Close what is open and remove the temporary folder."""
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

"""How the messages of a channel are read: by the definition in the bag, by this project's own, or not at all, and why.

The definition of the bag wins where it can be read and differs. Where it is missing, incomplete or unreadable and the type is
known here, it is read as this project knows it, and ``Reading.note`` says so.
"""

from __future__ import annotations

import contextlib
import functools
import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

from rosbags.convert.converter import is_same_wireformat, migrate_bytes
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from gemini_core.bag.idl import TypeDefinitions, parse_idl
from gemini_core.bag.messages import Message, typestore
from gemini_core.bag.stored import CDR, ROS1, Channel, shortened
from gemini_core.decode.message import RAW_TYPES, RawMessage
from gemini_core.errors import BagError

MAX_DEFINITION_CHARACTERS = 1 << 20
"""The largest of the published ones, with all that they refer to, have some 30,000."""

DECODE_ERRORS = (
    SerdeError,
    struct.error,
    ValueError,
    TypeError,
    AssertionError,
    IndexError,
    OverflowError,
    MemoryError,
    RecursionError,
)
"""What rosbags lets through from bytes that do not fit a definition."""

NO_DEFINITION_NOTE = ": the bag has no definition of it"
"""What notes end in that can be told in one sentence for all types."""

_SEPARATOR = re.compile(r"^={80}[ \t]*\r?\n", re.MULTILINE)
_PART = re.compile(r"\s*(MSG|IDL): *([\w/]+)[ \t]*\r?\n")
_RENAMED = {"tf/msg/tfMessage": "tf2_msgs/msg/TFMessage"}
"""Types of ROS 1 that have another name in ROS 2 and the same fields."""

_HEADER = "std_msgs/msg/Header"
_TIMES = ("builtin_interfaces/msg/Time", "builtin_interfaces/msg/Duration")  # of no definition in ROS 1: they are its own

# Encapsulations of CDR, RTPS 2.3 section 10.2: the second byte of a message. The others have members or sizes in between.
_PLAIN_CDR = (0, 1)


@dataclass(frozen=True)
class Reading:
    """How a type of a bag is read.

    ``problem`` says why its messages cannot be decoded, else ""; ``note`` what is wrong with the bag's definition, else "".
    ``to_cdr`` is there for messages that are stored in another encoding. ``ours`` is there where the definition of the bag
    differs from this project's: for messages that the bag's own does not fit.
    """

    store: Typestore | None
    problem: str = ""
    note: str = ""
    to_cdr: Callable[[bytes], bytes] | None = None
    ours: Typestore | None = None

    def decode(self, type_name: str, data: bytes, misfits: set[str] | None = None) -> Message:
        """Read the fields of a message in CDR; one of RAW_TYPES stays as it is.

        A message that only this project's definition fits is read by that, and its type added to ``misfits``.

        Raises:
            BagError: the type cannot be read, or the bytes do not fit its definition.
        """
        if self.store is None:
            raise BagError(self.problem)
        if type_name in RAW_TYPES:
            return RawMessage(type_name, data)
        if len(data) > 1 and (data[0] or data[1] not in _PLAIN_CDR):
            msg = f"expected plain CDR, got bytes that begin with {bytes(data[:4]).hex(' ')}"
            raise BagError(msg)
        try:
            return self.store.deserialize_cdr(data, type_name)
        except DECODE_ERRORS as error:
            with contextlib.suppress(*DECODE_ERRORS):
                if self.ours is not None:
                    message = self.ours.deserialize_cdr(data, type_name)
                    (set() if misfits is None else misfits).add(type_name)
                    return message
            raise BagError(sentence(error)) from None


def ros2_type(name: str) -> str:
    """Name a type as ROS 2 does: "std_msgs/String" of ROS 1 and "std_msgs::msg::dds_::String_" of a DDS recorder alike."""
    if "::" in name:
        parts = [part for part in name.split("::") if part and part != "dds_"]
        name = "/".join((*parts[:-1], parts[-1].removesuffix("_") if "::dds_::" in name else parts[-1])) if parts else name
    parts = name.split("/")
    two = 2
    name = f"{parts[0]}/msg/{parts[1]}" if len(parts) == two and all(parts) else name
    return _RENAMED.get(name, name)


def reading_of(channel: Channel) -> Reading:
    """Choose how the messages of a channel are read."""
    if channel.encoding == CDR:
        return _reading(channel.type, channel.definition)
    if channel.encoding == ROS1:
        return _ros1_reading(channel.type, channel.definition)
    kind = f" ({shortened(channel.type)})" if channel.type else ""
    return Reading(None, f"expected messages in {CDR}, got {shortened(channel.encoding) or 'no encoding'}{kind}")


@functools.lru_cache(maxsize=512)
def _reading(type_name: str, definition: MessageDefinition) -> Reading:
    ours = typestore()
    known = type_name in ours.fielddefs
    if definition.format == MessageDefinitionFormat.NONE:
        return _undefined(type_name)
    try:
        theirs, borrowed = _store_of(type_name, definition)
        same = known and _is_same(type_name, theirs, ours)
    except (BagError, TypesysError, *DECODE_ERRORS, KeyError, SyntaxError) as error:
        if known:
            return Reading(ours, note=f"{type_name}: the bag's definition cannot be read ({sentence(error)})")
        return Reading(None, f"expected a usable definition of {type_name} in the bag, got {sentence(error)}")
    if borrowed and known:
        return Reading(ours, note=f"{type_name}: the bag's definition lacks that of {', '.join(borrowed)}")
    if type_name in RAW_TYPES and not same:  # read without a definition, so it has to be this one
        return Reading(None, f"expected {type_name} with the fields that this project knows, got another definition in the bag")
    note = f"{', '.join(borrowed)}: lacking in the bag's definition of {type_name}" if borrowed else ""
    return Reading(ours) if same else Reading(theirs, note=note, ours=ours if known else None)


def _undefined(type_name: str) -> Reading:
    if type_name in typestore().fielddefs:
        return Reading(typestore(), note=f"{type_name}{NO_DEFINITION_NOTE}")
    return Reading(None, f"expected a known message type, got {type_name!r}, of which the bag has no definition")


@functools.lru_cache(maxsize=512)
def _ros1_reading(type_name: str, definition: MessageDefinition) -> Reading:
    """Read a type of ROS 1: its bytes are put into CDR, field by field by name where ROS 2 has changed the type."""
    ours = typestore()
    note = ""
    try:
        theirs, _ = _store_of(type_name, definition)
    except (BagError, TypesysError, *DECODE_ERRORS, KeyError, SyntaxError) as error:
        theirs = get_typestore(Stores.ROS1_NOETIC)
        if type_name not in theirs.fielddefs:
            return Reading(None, f"expected a usable ROS 1 definition of {type_name} in the bag, got {sentence(error)}")
        if definition.format != MessageDefinitionFormat.NONE:
            note = f"{type_name}: the bag's definition cannot be read ({sentence(error)})"
    target = ours if type_name in ours.fielddefs else theirs
    as_it_is = is_same_wireformat(theirs, target, type_name, type_name)
    cache: dict[str, object] = {}

    def to_cdr(data: bytes) -> bytes:
        try:
            if as_it_is:
                return bytes(target.ros1_to_cdr(data, type_name))
            return bytes(migrate_bytes(theirs, target, type_name, type_name, cache, data, src_is2=False, dst_is2=True))
        except DECODE_ERRORS as error:
            msg = f"expected {type_name} of ROS 1, got {sentence(error)}"
            raise BagError(msg) from None

    return Reading(target, note=note, to_cdr=to_cdr)


def _store_of(type_name: str, definition: MessageDefinition) -> tuple[Typestore, list[str]]:
    """Register a definition with all that it refers to; also gives the types that were taken from ours, where it lacks them.

    Raises:
        BagError: it cannot be parsed, does not define the type, or refers to a type that is known nowhere.
    """
    types = _parse(type_name, definition)
    if type_name not in types:
        msg = f"one of {', '.join(sorted(types)) or 'nothing'}"
        raise BagError(msg)
    borrowed = _complete(type_name, types)
    store = get_typestore(Stores.EMPTY)
    header = types.get(_HEADER)
    if header is not None and "seq" in dict(header[1]):  # that of ROS 1, which rosbags' converters know to pass over
        types[_HEADER] = cast("Any", typestore().fielddefs[_HEADER])
    store.register(cast("Any", types))
    return store, borrowed


def _complete(type_name: str, types: TypeDefinitions) -> list[str]:
    """Add from ours what a definition refers to and lacks; gives the names, less those that are built into ROS 1."""
    known = typestore().fielddefs
    borrowed: list[str] = []
    seen: set[str] = set()
    waiting = [type_name]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in types:
            if name not in known:
                msg = f"one that lacks the definition of {name}"
                raise BagError(msg)
            types[name] = cast("Any", known[name])
            borrowed.append(name)
        waiting.extend(_named_types(types[name][1]))
    _refuse_circles(type_name, types)
    return sorted(name for name in borrowed if name not in _TIMES)


def _refuse_circles(type_name: str, types: TypeDefinitions) -> None:
    """A type that holds itself would have no end."""
    open_types: list[str] = []
    done: set[str] = set()
    stack = [(type_name, False)]
    while stack:
        name, leaving = stack.pop()
        if leaving:
            open_types.pop()
            done.add(name)
        elif name in open_types:
            msg = f"one in which {name} holds itself"
            raise BagError(msg)
        elif name not in done:
            open_types.append(name)
            stack.append((name, True))
            stack.extend((inner, False) for inner in _named_types(types[name][1]))


def _is_same(type_name: str, theirs: Typestore, ours: Typestore) -> bool:
    """Compare fields by name and type, inner types included, each once (hashes of types take every path to each)."""
    seen: set[str] = set()
    waiting = [type_name]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            fields = theirs.fielddefs[name][1]
            if name not in ours.fielddefs or list(fields) != list(ours.fielddefs[name][1]):
                return False
            waiting.extend(_named_types(fields))
    return True


def _named_types(fields: Iterable[tuple[str, Any]]) -> list[str]:
    """The types that fields are of, in sequences and arrays too."""
    found = []
    for _, (kind, detail) in fields:
        if kind in (Nodetype.SEQUENCE, Nodetype.ARRAY):
            kind, detail = detail[0]  # noqa: PLW2901 - of each element
        if kind == Nodetype.NAME:
            found.append(detail)
    return found


def _parse(type_name: str, definition: MessageDefinition) -> TypeDefinitions:
    """Parse the parts of a definition, each in its own language: rosbag2 puts those that a type refers to behind it."""
    if len(definition.data) > MAX_DEFINITION_CHARACTERS:
        msg = f"one of {len(definition.data)} characters"
        raise BagError(msg)
    types: TypeDefinitions = {}
    for number, part in enumerate(parts := _SEPARATOR.split(definition.data)):
        heading = _PART.match(part)
        if not part.strip() and len(parts) > 1 and (number or definition.format == MessageDefinitionFormat.IDL):
            continue  # the separator stands before the first part too, or behind the last; alone it is a message without fields
        is_idl = heading[1] == "IDL" if heading else definition.format == MessageDefinitionFormat.IDL
        name, text = (ros2_type(heading[2]), part[heading.end() :]) if heading else (type_name, part)
        found = parse_idl(text) if is_idl else _parse_msg(text, name)
        for key, value in found.items():
            types.setdefault(key, value)
    return types


def _parse_msg(text: str, name: str) -> TypeDefinitions:
    text = text.replace("\r\n", "\n")
    return cast("TypeDefinitions", dict(get_types_from_msg(text, name)))


def sentence(error: BaseException) -> str:
    """Put an error of another library on one short line, with its kind where it says nothing itself."""
    most = 300
    text = " ".join(str(error).split()).rstrip(".")
    text = text if len(text) <= most else f"{text[:most]}..."
    return text if text and not isinstance(error, KeyError) else f"{type(error).__name__} {text}".strip()

"""metadata.yaml of a bag: which files it has, how many messages. Nothing of it is needed to read them, so all is optional."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from gemini_core.bag.definitions import sentence
from gemini_core.bag.stored import require_regular
from gemini_core.errors import BagError

METADATA_NAME = "metadata.yaml"

MAX_METADATA_BYTES = 64 << 20
"""A bag of a thousand topics in a thousand files has about 2 MB."""
MAX_DEPTH = 32
"""Of lists in lists; rosbag2 writes 7."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STARTS = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_ENDS = (yaml.MappingEndEvent, yaml.SequenceEndEvent)


@dataclass(frozen=True)
class Metadata:
    """What metadata.yaml says: names of the files, and number of messages by (topic, type)."""

    files: tuple[str, ...] = ()
    counts: dict[tuple[str, str], int] = field(default_factory=dict)


def read_metadata(path: Path) -> Metadata:
    """Read the metadata.yaml of a bag of any version.

    Raises:
        BagError: there is none, or it is not what rosbag2 writes.
    """
    size = require_regular(path).st_size
    if size > MAX_METADATA_BYTES:
        msg = f"{path.name}: expected at most {MAX_METADATA_BYTES} bytes, got {size}"
        raise BagError(msg)
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_bombs(text)
        about = yaml.load(text, _Loader)["rosbag2_bagfile_information"]  # noqa: S506 - one of the two safe loaders
        files = tuple(str(name) for name in about.get("relative_file_paths") or ())
        counts: dict[tuple[str, str], int] = {}
        for topic in about.get("topics_with_message_count") or ():
            named = topic["topic_metadata"]
            key = str(named["name"]), str(named["type"])
            counts[key] = counts.get(key, 0) + int(topic["message_count"])
    except (
        OSError,
        yaml.YAMLError,
        UnicodeDecodeError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
    ) as error:
        msg = f"{path.name}: expected what rosbag2 writes, got {sentence(error)}"
        raise BagError(msg) from None
    return Metadata(files, counts)


def listed_files(folder: Path, metadata: Metadata) -> tuple[list[Path], list[str]]:
    """Find the files that metadata.yaml lists, in the folder and nowhere else; gives them and the names of those not there.

    ROS 2 before Foxy wrote the names with the folder before them.
    """
    found, missing = [], []
    for name in metadata.files:
        path = folder / PurePosixPath(name.replace("\\", "/")).name
        try:
            is_there = path.is_file()
        except (OSError, ValueError):
            is_there = False
        if is_there and path not in found:
            found.append(path)
        elif not is_there:
            missing.append(name)
    return found, missing


def _refuse_bombs(text: str) -> None:
    """Lists in lists would exhaust the stack, aliases of aliases the memory; rosbag2 writes neither."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, _STARTS):
            depth += 1
        elif isinstance(event, _ENDS):
            depth -= 1
        is_alias = isinstance(event, yaml.AliasEvent)
        if is_alias or depth > MAX_DEPTH:
            raise ValueError("an alias" if is_alias else f"more than {MAX_DEPTH} levels")

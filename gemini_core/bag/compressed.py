"""Unpacking what recorders compress, with bounds: a few bytes can claim, or really become, more than a machine has."""

from __future__ import annotations

import bz2
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import lz4.frame
from rosbags.rosbag2 import storage_mcap

from gemini_core.errors import BagError

zstd: Any = vars(storage_mcap)["zstd"]  # Python's since 3.14, else its backport: what rosbags was installed with

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""No message in CDR begins like this: its first byte is 0."""

COMPRESSED_SUFFIXES = (".zstd", ".zst")

MAX_BLOCK_BYTES = 512 << 20
"""Of one chunk or message, unpacked. Recorders close a chunk at 1 to 8 MB; the largest messages, of maps and dense clouds,
have some 100 MB. Twice this has to fit into the memory of a small machine."""

MAX_FILE_RATIO = 100
"""A recording shrinks 2 to 10 times; what shrinks more than this, and has more than ``MIN_FILE_BYTES``, is taken for a bomb."""
MIN_FILE_BYTES = 1 << 30
FREE_BYTES = 1 << 30
"""What has to stay free on the disk that a file is unpacked to."""

_PIECE_BYTES = 4 << 20


class _Decompressor(Protocol):
    eof: bool
    unused_data: bytes | None

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


_DECOMPRESSORS = {"zstd": zstd.ZstdDecompressor, "lz4": lz4.frame.LZ4FrameDecompressor, "bz2": bz2.BZ2Decompressor}
KNOWN_COMPRESSIONS = ("", *_DECOMPRESSORS)


def unpack(data: bytes, compression: str, size: int | None = None) -> bytes:
    """Unpack one chunk or message: "zstd", "lz4", "bz2" (ROS 1), or "" (as it is); ``size`` is what it claims to unpack to.

    Raises:
        BagError: an unknown compression, damaged data, another size than ``size``, or more than ``MAX_BLOCK_BYTES``.
    """
    if compression not in KNOWN_COMPRESSIONS:
        msg = f"expected the compression zstd, lz4, bz2 or none, got {compression!r}"
        raise BagError(msg)
    most = MAX_BLOCK_BYTES if size is None else size
    if most > MAX_BLOCK_BYTES:
        msg = f"expected at most {MAX_BLOCK_BYTES} bytes in one piece, got one that claims {most}"
        raise BagError(msg)
    unpacked = _frames(data, compression, most) if compression else data
    if size is not None and len(unpacked) != size:
        msg = f"expected {size} bytes in a compressed piece, got {'more' if len(unpacked) > size else len(unpacked)}"
        raise BagError(msg)
    return unpacked


def _frames(data: bytes, compression: str, most: int) -> bytes:
    """Unpack frame after frame to at most one byte more than ``most``."""
    if compression == "zstd" and _is_of_at_most(data, most):
        return _one_frame(data)
    parts: list[bytes] = []
    left = most + 1
    while data and left > 0:
        frame: _Decompressor = _DECOMPRESSORS[compression]()
        try:
            part = frame.decompress(data, left)
        except (zstd.ZstdError, RuntimeError, OSError, EOFError, ValueError, MemoryError) as error:
            msg = f"expected {compression} data, got {_brief(error)}"
            raise BagError(msg) from None
        parts.append(part)
        left -= len(part)
        if not frame.eof and left > 0:
            msg = f"expected whole {compression} data, got some that ends early"
            raise BagError(msg)
        data = frame.unused_data or b""
    if left <= 0 and most == MAX_BLOCK_BYTES:
        msg = f"expected at most {MAX_BLOCK_BYTES} bytes in one piece, got more"
        raise BagError(msg)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _is_of_at_most(data: bytes, most: int) -> bool:
    """Say whether data is one frame that says its size, at most ``most``: it cannot become more, and is unpacked quickly."""
    try:
        size = zstd.get_frame_info(data).decompressed_size
        return size is not None and size <= most and zstd.get_frame_size(data) == len(data)
    except zstd.ZstdError:
        return False


def _one_frame(data: bytes) -> bytes:
    try:
        return bytes(zstd.decompress(data))
    except (zstd.ZstdError, MemoryError) as error:
        msg = f"expected zstd data, got {_brief(error)}"
        raise BagError(msg) from None


def unpack_file(path: Path, target: Path) -> None:
    """Unpack a zstd file to another file, of at most ``MAX_FILE_RATIO`` times its size and what is free on the disk.

    Raises:
        BagError: it is larger, or damaged. What could be unpacked of a damaged file stays at ``target``.
    """
    packed = path.stat().st_size
    free = shutil.disk_usage(target.parent).free - FREE_BYTES
    most = min(max(MIN_FILE_BYTES, MAX_FILE_RATIO * packed), free)
    size = 0
    try:
        with path.open("rb") as source, target.open("wb") as sink:
            for piece in _pieces(source):
                size += len(piece)
                if size > most:
                    break
                sink.write(piece)
    except (zstd.ZstdError, EOFError, MemoryError) as error:
        msg = f"{path}: expected a zstd file, got one that is damaged after {size} unpacked bytes ({_brief(error)})"
        raise BagError(msg) from None
    if size > most:
        target.unlink()
        room = "free on the disk" if most == free else "which a recording does not shrink by"
        msg = (
            f"{path}: expected a file that unpacks from {packed} to at most {most} bytes ({room}), got more; "
            f"unpack it with 'zstd -d' where there is room, and give that file"
        )
        raise BagError(msg)


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    """Unpack frame after frame, a few megabytes at a time; ends in EOFError within a frame."""
    frame = zstd.ZstdDecompressor()
    is_begun = False
    while packed := source.read(_PIECE_BYTES):
        while True:
            if frame.eof:
                frame, is_begun = zstd.ZstdDecompressor(), False
            is_begun = is_begun or bool(packed)
            yield frame.decompress(packed, _PIECE_BYTES)
            packed = frame.unused_data if frame.eof else b""
            if not packed and (frame.eof or frame.needs_input):
                break
    if is_begun and not frame.eof:
        msg = "it ends within a frame"
        raise EOFError(msg)


def _brief(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

"""Atomic writes of files and folders: a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2

from gemini_core.errors import DataError, GeminiError, shown_path
from gemini_core.types import U8

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def is_file(path: str | Path) -> bool:
    """Whether there is a regular file; unlike ``Path.is_file`` also False where the path is too long or forbidden."""
    return os.path.isfile(path)  # noqa: PTH113 - see above


def check_regular(
    path: str | Path, error: type[GeminiError] | Callable[[str], GeminiError] = DataError, kind: str = "file"
) -> None:
    """Check, before a file is opened, that it is one: opening a FIFO or a device may wait for ever. ``kind`` is its name.

    Raises:
        GeminiError: ``error``; it is missing, forbidden, too long a path, a circle of links, or no regular file.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - also of a path that pathlib does not take
    except (OSError, ValueError) as failed:
        msg = f"{shown_path(path)}: expected a readable {kind}, got {getattr(failed, 'strerror', None) or failed}"
        raise error(msg) from None
    if not stat.S_ISREG(mode):
        msg = f"{shown_path(path)}: expected a regular file, got {_KINDS.get(stat.S_IFMT(mode), 'something else')}"
        raise error(msg)


def read_bytes(
    path: str | Path,
    error: type[GeminiError] | Callable[[str], GeminiError] = DataError,
    most_bytes: int = 1 << 30,
    kind: str = "file",
) -> bytes:
    """Read a regular file of at most ``most_bytes``; ``kind`` is what an error calls it.

    Raises:
        GeminiError: ``error``; as of ``check_regular``, or it is larger or cannot be read.
    """
    check_regular(path, error, kind)
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(size) if size <= most_bytes else b""  # Python makes room for as much as it is asked to read
    except OSError as failed:
        msg = f"{shown_path(path)}: expected a readable {kind}, got {failed.strerror or failed}"
        raise error(msg) from None
    if size > most_bytes:
        msg = f"{shown_path(path)}: expected a file of at most {most_bytes} bytes, got {size}"
        raise error(msg)
    return content


def read_text(
    path: str | Path,
    error: type[GeminiError] | Callable[[str], GeminiError] = DataError,
    most_bytes: int = 1 << 30,
    kind: str = "file",
) -> str:
    """Read a regular file of UTF-8; arguments as of ``read_bytes``.

    Raises:
        GeminiError: ``error``; as of ``read_bytes``, or it is not UTF-8.
    """
    try:
        return read_bytes(path, error, most_bytes, kind).decode()
    except UnicodeDecodeError as broken:
        msg = f"{shown_path(path)}: expected text in UTF-8, got byte {broken.object[broken.start]:#04x} at {broken.start}"
        raise error(msg) from None


def write_whole(
    path: Path,
    content: str | bytes | Callable[[Path], object],
    error: type[GeminiError] | Callable[[str], GeminiError] = DataError,
) -> None:
    """Write a file under a temporary name beside ``path``, then rename it; makes the folder where there is none.

    Args:
        path: of the file.
        content: text (written as UTF-8), bytes, or a function that writes the path that it is given.
        error: what to raise.

    Raises:
        GeminiError: ``error``; the file cannot be written, and nothing half written stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    except (OSError, RuntimeError) as failed:  # torch raises RuntimeError where its file cannot be written
        # Torch says that its archive ends in the wrong place; what it was about is the error of its file.
        cause = failed.__context__ if isinstance(failed.__context__, OSError) else failed
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else " ".join(str(cause).split())[:200]
        msg = f"{path}: expected a path that can be written, got {reason}"
        raise error(msg) from None
    finally:
        with contextlib.suppress(OSError):  # where no file can be, none is left
            temporary.unlink(missing_ok=True)


def write_png(path: Path, image: U8) -> None:
    """Write a picture (H, W, 3), red-green-blue, whole or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        msg = f"{path}: expected a picture that PNG can hold, got {image.shape} of {image.dtype}"
        raise DataError(msg)
    write_whole(path, data.tobytes())


@contextmanager
def whole_folder(folder: Path, error: type[GeminiError] = DataError) -> Iterator[Path]:
    """Give an empty folder to write to, which takes the place of ``folder`` when the block ends well.

    What was there before is gone then, and is as it was when the block or the last step fails; who must not replace just
    anything looks before.

    Raises:
        GeminiError: ``error``; the disk cannot be written.
    """
    folder = folder.absolute()
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
        building, replaced = temporary / folder.name, temporary / ".replaced"
        building.mkdir()
        yield building
        if folder.exists():
            folder.replace(replaced)
        try:
            building.replace(folder)
        except OSError:
            if replaced.exists():
                replaced.replace(folder)
            raise
    except OSError as failed:
        msg = f"{folder}: expected a folder that can be written, got {failed.strerror or failed}"
        raise error(msg) from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)

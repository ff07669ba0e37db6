"""Compilation by numba, kept on disk so that only the first run after a change waits for the compiler.

numba compiles what a function calls, and the values of the constants that it uses, into the function, but compiles it anew
only when the function's own file has changed. So what it keeps lies in a folder named by a hash of that file and of every file
of the package that it imports, directly or through others: code of before an update is never found again.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numba

_settings: Any = numba.config  # it makes its names as it is loaded
_Function = TypeVar("_Function", bound=Callable[..., object])

_KEPT_S = 30 * 24 * 3600
"""Seconds since it was last used after which the compiled code of other versions is deleted."""


def compiled(
    signatures: str | list[str] | None = None,
    *,
    error_model: Literal["python", "numpy"] = "python",
    fastmath: bool = False,
    inline: Literal["never", "always"] = "never",
) -> Callable[[_Function], _Function]:
    """Compile a function with ``numba.njit``, whose arguments these are; without ``signatures``, when it is first called."""

    def compile_function(function: _Function) -> _Function:
        folder = _folder(function.__module__)
        before = _settings.CACHE_DIR
        _settings.CACHE_DIR = "" if folder is None else str(folder)  # numba reads it now, and keeps it for this function
        try:
            compiler = numba.njit(
                signatures, cache=folder is not None, error_model=error_model, fastmath=fastmath, inline=inline
            )
            return cast("_Function", compiler(function))
        finally:
            _settings.CACHE_DIR = before

    return compile_function


@cache
def _folder(module: str) -> Path | None:
    """Where a module's compiled functions are kept; None (nothing is) where nothing can be written, or it is in no package."""
    package = module.partition(".")[0]
    root = Path(sys.modules[package].__file__ or "").parent
    if _source(module, root) is None:
        return None
    name = _digest(module, root)
    for place in _places(root, package):
        folder = place / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.utime(folder)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        _forget_old(place)
        return folder
    return None


def _places(root: Path, package: str) -> list[Path]:
    """Folders for compiled code, the best first: numba's own setting, beside the sources, the user's cache."""
    places = [root / "__pycache__"]
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        places.insert(0, Path(chosen, package))
    with suppress(RuntimeError):  # there may be no home
        places.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", package))
    return [place / "compiled" for place in places]


def _forget_old(place: Path) -> None:
    """Delete what other versions have left, once it has not been used for long."""
    now = time.time()
    for folder in place.iterdir():
        with suppress(OSError):  # another process was first, or it is another user's
            if now - folder.stat().st_mtime > _KEPT_S:
                shutil.rmtree(folder)


def _digest(module: str, root: Path) -> str:
    """A hash of a module's source and of all of its package's that it imports, directly or through others."""
    found: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _source(name, root)
        if name in found or path is None:
            continue
        found[name] = path.read_bytes()
        waiting += _imported(name, path)
    whole = hashlib.sha256()
    for name, source in sorted(found.items()):
        whole.update(f"{name} {len(source)} ".encode() + source)
    return whole.hexdigest()[:20]


def _source(module: str, root: Path) -> Path | None:
    """The file of a dotted name; None where it is no module of the package whose folder is ``root``."""
    package, *parts = module.split(".")
    if package != root.name:
        return None
    path = root.joinpath(*parts)
    files = (path.with_suffix(".py") if parts else path / "__init__.py", path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


@cache
def _imported(module: str, path: Path) -> tuple[str, ...]:
    """All dotted names that a file imports from; some may be names within a module."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: (1 if path.name == "__init__.py" else 0) - node.level or None] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(names)

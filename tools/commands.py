"""What the steps of set-up share: running programs, and telling whether files have changed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"


class SetupError(Exception):
    """One sentence: what was expected, what came."""


def environment(**extra: str) -> dict[str, str]:
    """The caller's environment without what another virtual environment may have left in it."""
    foreign = {"VIRTUAL_ENV", "PYTHONHOME", "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
    return {name: value for name, value in os.environ.items() if name not in foreign} | extra


def content_hash(paths: Iterable[Path], *more: str) -> str:
    """Hash of the files (names and content; folders with all that is in them) and of further strings."""
    digest = hashlib.sha256("\0".join(more).encode())
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"\0{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def run(command: list[str], log: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Run a command from the project's folder; with ``log``, its output goes there and shows only on failure.

    Raises:
        SetupError: the command failed.
    """
    if log is None:
        done = subprocess.run(command, check=False, cwd=ROOT, env=env or environment())
    else:
        with log.open("ab") as file:
            done = subprocess.run(command, check=False, cwd=ROOT, env=env or environment(), stdout=file, stderr=file)
    if done.returncode != 0:
        if log is not None:
            sys.stderr.write("\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-40:]) + "\n")
        msg = f"expected this command to succeed, it ended with {done.returncode}: {' '.join(command)}"
        raise SetupError(msg)

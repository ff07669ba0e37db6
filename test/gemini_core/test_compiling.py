"""Compiled code is kept, and never outlives the sources that it was made of, in whatever file they are."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numba
import pytest

import gemini_core.rig.geometry  # it compiles
from gemini_core.compiling import compiled
from source_imports import REPOSITORY, imports_of_file, sources

SOURCES = {
    "__init__.py": "",
    "constants.py": "STEP = 1\n",
    "deeper/__init__.py": "from ..constants import STEP\n",
    "deeper/inner.py": (
        "from gemini_core.compiling import compiled\nfrom . import STEP\n"
        "@compiled('int64(int64)', inline='always')\ndef inner(x):\n    return x + STEP\n"
    ),
    "outer.py": (
        "from gemini_core.compiling import compiled\nfrom robot.deeper.inner import inner\n"
        "@compiled('int64(int64)')\ndef outer(x):\n    return 10 * inner(x)\n"
        "@compiled()\ndef later(x):\n    return 10 * inner(x)\n"
    ),
}
"""A package whose compiled functions use what stands in other files."""
PROGRAM = """
from robot.outer import later, outer
hits = sum(outer.stats.cache_hits.values())
print(outer(4), later(4), hits, sum(later.stats.cache_hits.values()))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "robot"
    for name, source in SOURCES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")
    return folder


def run(package: Path, **environment: str) -> list[int]:
    """[outer(4), later(4), whether outer was loaded from disk, whether later was]."""
    paths = os.pathsep.join((str(package.parent), str(REPOSITORY)))
    unset = {"NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "PYTHONPATH"}
    variables = {name: value for name, value in os.environ.items() if name not in unset}
    variables |= {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


def test_code_is_kept_until_a_file_changes_that_it_uses_through_others(package):
    assert run(package) == [50, 50, 0, 0]
    assert run(package) == [50, 50, 1, 1]
    constants = package / "constants.py"
    before = constants.stat()
    constants.write_text("STEP = 2\n", encoding="utf-8")
    os.utime(constants, ns=(before.st_atime_ns, before.st_mtime_ns))  # as some tools that update files do
    assert run(package) == [60, 60, 0, 0]
    (package / "deeper" / "inner.py").write_text(SOURCES["deeper/inner.py"].replace("x + STEP", "x - STEP"), encoding="utf-8")
    assert run(package) == [20, 20, 0, 0]
    constants.write_text(SOURCES["constants.py"], encoding="utf-8")
    (package / "deeper" / "inner.py").write_text(SOURCES["deeper/inner.py"], encoding="utf-8")
    assert run(package) == [50, 50, 1, 1]  # back to what is known


def test_code_goes_where_numba_is_told_to_and_else_to_the_user_where_sources_cannot_be_written(package, tmp_path):
    chosen, users = tmp_path / "chosen", tmp_path / "users"
    run(package, NUMBA_CACHE_DIR=str(chosen), XDG_CACHE_HOME=str(users))
    assert list(chosen.rglob("*.nbc"))
    assert not users.exists()
    (package / "__pycache__").write_text("no folder can be made here", encoding="utf-8")
    assert run(package, XDG_CACHE_HOME=str(users)) == [50, 50, 0, 0]
    assert run(package, XDG_CACHE_HOME=str(users)) == [50, 50, 1, 1]
    assert list(users.rglob("*.nbc"))


def test_where_nothing_can_be_written_nothing_is_kept(package):
    (package / "__pycache__").write_text("no folder can be made here", encoding="utf-8")
    nowhere = str(package / "__pycache__")
    assert run(package, XDG_CACHE_HOME=nowhere) == [50, 50, 0, 0]
    assert run(package, XDG_CACHE_HOME=nowhere) == [50, 50, 0, 0]
    assert not list(package.parent.rglob("*.nbc"))


def test_what_other_versions_left_is_deleted_once_it_is_old(package):
    place = package / "__pycache__" / "compiled"
    for name, days in (("recent", 29), ("old", 31)):
        (place / name).mkdir(parents=True)
        (place / name / "code.nbc").write_bytes(b"\0")
        os.utime(place / name, (time.time() - 86400 * days,) * 2)
    run(package)
    assert (place / "recent").exists()
    assert not (place / "old").exists()


def test_numba_itself_stays_as_others_set_it(monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", "theirs")
    assert compiled("int64(int64)")(_plain)(3) == 4
    assert numba.config.CACHE_DIR == "theirs"


def _plain(x: int) -> int:
    return x + 1


def test_everything_is_compiled_that_way():
    users = [path.name for path in sources("gemini_core") if any(name.startswith("numba") for name in imports_of_file(path))]
    assert users == ["compiling.py"]
    assert "compiled" in str(gemini_core.rig.geometry.project_into._cache.cache_path)

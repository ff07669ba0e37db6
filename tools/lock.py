#!/usr/bin/env python3
"""Turn requirements/*.in into requirements/lock.txt: exact versions of everything, for each Python given.

    tools/lock.py python3.10 python3.11 python3.12 python3.13

Every interpreter resolves for itself (pip's dry run), and what differs between them gets a marker. Torch is not resolved: which
accelerator libraries it brings depends on where it comes from, so its line is exact and its plain dependencies stand below.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements"
SOURCES = ("runtime.in", "simulation.in", "openvino.in", "onnx.in", "training.in", "labelling.in", "development.in", "ros.in")
TORCH = ("torch==2.13.0", "torchmetrics==1.9.0")  # the second asks for the first
TORCH_NEEDS = (
    "filelock",
    "fsspec>=0.8.5",
    "jinja2",
    "lightning-utilities>=0.8",
    "networkx>=2.5.1",
    "setuptools>=77.0.3",
    "sympy>=1.13.3",
    "typing-extensions>=4.10",
)
HEADER = """\
# Made by tools/lock.py out of requirements/*.in: exact versions for CPython {pythons} on x86-64 Linux.
# Torch brings its own accelerator libraries, at the versions that its own metadata names; they are not listed here.
"""


def requirements() -> list[str]:
    """Every line of the .in files but those of TORCH, and what these need instead."""
    lines = [line.strip() for source in SOURCES for line in (REQUIREMENTS / source).read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith(("#", "torch"))] + list(TORCH_NEEDS)


def python_version(python: str) -> str:
    """Version of an interpreter, as '3.11'."""
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


def resolve(python: str, folder: Path) -> dict[str, str]:
    """Name (normalized) to version of everything that this interpreter's pip would install."""
    wanted, report = folder / "wanted.txt", folder / "report.json"
    wanted.write_text("\n".join(requirements()), encoding="utf-8")
    pip = [python, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    subprocess.run([*pip, "--report", str(report), "-r", str(wanted)], check=True)
    chosen = [item["metadata"] for item in json.loads(report.read_text(encoding="utf-8"))["install"]]
    return {re.sub(r"[-_.]+", "-", item["name"]).lower(): item["version"] for item in chosen}


def merge(resolved: dict[str, dict[str, str]]) -> list[str]:
    """One line for each name and version; a marker says which Pythons, unless all."""
    lines = [*TORCH]
    for name in {name for versions in resolved.values() for name in versions}:
        by_version: dict[str, list[str]] = {}
        for python, versions in resolved.items():
            if name in versions:
                by_version.setdefault(versions[name], []).append(python)
        for version, pythons in by_version.items():
            marker = " or ".join(f'python_version == "{python}"' for python in pythons)
            lines.append(f"{name}=={version}" + ("" if len(pythons) == len(resolved) else f" ; {marker}"))
    return sorted(lines)


def main() -> int:
    """Resolve for every interpreter of the command line and write the lock."""
    if len(sys.argv) == 1:
        sys.stderr.write("lock.py: expected the interpreters to lock for, such as python3.10 python3.13\n")
        return 2
    resolved: dict[str, dict[str, str]] = {}
    for python in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            resolved[python_version(python)] = resolve(python, Path(folder))
    resolved = dict(sorted(resolved.items(), key=lambda item: [int(part) for part in item[0].split(".")]))
    text = HEADER.format(pythons=", ".join(resolved)) + "\n".join(merge(resolved)) + "\n"
    unfinished = REQUIREMENTS / ".lock.txt"
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(REQUIREMENTS / "lock.txt")
    return 0


if __name__ == "__main__":
    sys.exit(main())

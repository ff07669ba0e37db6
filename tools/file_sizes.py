#!/usr/bin/env python3
"""Refuse large files: all that git has, or would add, or those of the command line (pre-commit gives what a commit adds).

A repository keeps every version of a file for ever, so recordings, caches and runs stay out. Shipped weights may be larger.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMITS_MB = {"gemini_core/weights/": 25, "": 5}
"""Beginning of the path to megabytes (10⁶ bytes); the first that fits counts."""


def known_to_git() -> list[str]:
    """Paths of the checkout that git tracks or would add; none, after saying so, where git knows no checkout here."""
    # whoever owns it: a container's checkout may belong to another user
    git = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(git, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        sys.stdout.write(f"file sizes: left out, since git knows no checkout here: {done.stderr.strip()}\n")
    return done.stdout.split("\0")[:-1]


def too_large(paths: list[str]) -> list[str]:
    """One sentence for each of these paths (below the project's folder) whose file is over its limit."""
    found = []
    for path in paths:
        limit = next(limit for beginning, limit in LIMITS_MB.items() if path.startswith(beginning))
        size = (ROOT / path).stat().st_size / 1e6 if (ROOT / path).is_file() else 0.0
        if size > limit:
            found.append(f"{path}: expected at most {limit} MB, got {size:.1f} MB")
    return found


def main() -> int:
    """Check and say what is too large."""
    found = too_large(sys.argv[1:] or known_to_git())
    sys.stderr.write("".join(f"{line}\n" for line in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

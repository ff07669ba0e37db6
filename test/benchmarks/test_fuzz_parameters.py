"""The fuzz of parameter files: a few of each kind, and that it can find something."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.fuzz import parameters
from benchmarks.fuzz.parameters import run_chunk


def test_random_files_and_values_are_read_or_refused(tmp_path: Path):
    chunk = run_chunk(1000, 60, tmp_path)
    assert (chunk.raised, chunk.uncounted) == ({}, 0)
    assert min(chunk.outcomes["sample"], chunk.outcomes["refused"]) > 0


def test_what_is_no_sentence_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(_rng: object, _file: Path) -> None:
        raise KeyError

    monkeypatch.setattr(parameters, "_READERS", (broken,))
    assert run_chunk(0, 3, tmp_path).raised == {str(i): "KeyError: " for i in range(3)}

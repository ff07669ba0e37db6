"""The fuzz of bags: a few of each kind, that whole ones count as such, and that it can find something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.fuzz import bags
from benchmarks.fuzz.bags import run_chunk


def test_damaged_bags_are_read_or_refused(tmp_path: Path):
    chunk = run_chunk(1000, 80, tmp_path)
    assert (chunk.raised, chunk.uncounted) == ({}, 0)
    assert min(chunk.outcomes[what] for what in ("sample", "damaged", "refused")) > 0


def test_bags_that_nothing_was_done_to_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bags, "_changed", lambda _rng, data: data)
    monkeypatch.setattr(bags, "changed_text", lambda _rng, text: text.encode())
    assert run_chunk(1, 12, tmp_path).outcomes == {"sample": 12}


def test_what_is_no_sentence_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(_rng: np.random.Generator) -> dict[str, bytes]:
        raise KeyError

    monkeypatch.setattr(bags, "_damaged", broken)
    assert run_chunk(0, 3, tmp_path).raised == {str(i): "KeyError: " for i in range(3)}

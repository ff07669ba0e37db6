"""Damaged messages of every kind, a few of each, as ``python -m benchmarks.fuzz`` does with many; and that it could fail."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.fuzz.kinds import all_kinds, rvl_encoded
from benchmarks.page import replace_section
from gemini_core.decode.rvl import decode_rvl
from gemini_core.types import ROLES
from source_imports import REPOSITORY

ALL = """
import json
from dataclasses import asdict
from benchmarks.fuzz.kinds import all_kinds
from benchmarks.fuzz.worker import run_chunk
print(json.dumps({name: asdict(run_chunk(name, 1_000_000, 150)) for name in all_kinds()}))
"""
OUTSIDE = """
import ctypes
import numpy as np
from benchmarks.fuzz.guarded import GuardedBlock
array = GuardedBlock(5000).put(np.arange(999, dtype=np.uint8), at_end={at_end})
ctypes.string_at(array.ctypes.data, 999)
print("whole", flush=True)
ctypes.string_at(array.ctypes.data + {offset}, 1)
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_no_damaged_message_does_harm_or_goes_uncounted():
    done = run(ALL)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert set(found) == set(all_kinds())
    for name, chunk in found.items():
        assert not chunk["raised"], name
        assert chunk["uncounted"] == 0, name
        assert chunk["outcomes"]["sample"] >= 9, name  # the whole ones at least
        assert len(chunk["outcomes"]) > 2, name


@pytest.mark.parametrize(("at_end", "offset"), [(True, 999), (False, -1)])
def test_a_byte_outside_of_a_message_would_end_the_process(at_end, offset):
    done = run(OUTSIDE.format(at_end=at_end, offset=offset))
    assert done.stdout == "whole\n"
    assert done.returncode == -signal.SIGSEGV


def test_every_role_and_encoding_is_among_the_kinds():
    kinds = all_kinds().values()
    of_other_cameras = {"depth.camera_info", "event.camera_info", "tf_static"}  # the same decoders
    assert {kind.role for kind in kinds} | of_other_cameras == set(ROLES)


def test_the_packed_depth_images_are_what_was_packed():
    values = np.array([[0, 0, 900], [65535, 1, 0]], np.uint16)
    out = np.zeros(6, np.uint16)
    assert decode_rvl(np.frombuffer(rvl_encoded(values), np.uint8), out) == 6
    assert out.tolist() == values.reshape(-1).tolist()


def test_a_section_of_the_page_is_replaced_alone(tmp_path):
    page = tmp_path / "page.md"
    for title, text in (("One", "first"), ("Two", "second\n\nmore"), ("One", "third")):
        replace_section(title, text, page)
    assert page.read_text().split("\n\n", 1)[1] == "## One\n\nthird\n\n## Two\n\nsecond\n\nmore\n"

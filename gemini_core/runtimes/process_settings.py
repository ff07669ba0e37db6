"""Process settings (OpenMP, malloc) of perception programs; only programs call this, before they import torch."""

from __future__ import annotations

import ctypes
import os

# mallopt's parameters, from glibc's malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_KEPT = 1 << 30  # bytes: larger than any image, cloud or feature map here
_PAD = 64 << 20

OPENMP_SETTINGS = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads of torch that wait for each other sleep instead of spinning.

A robot's processors are never idle, and a spinning thread keeps the one that it waits for from running: with other programs
on both of two cores, MiT-B0 took 0.2 s of CPU time a frame with this setting, and 2.2 s without
(benchmarks/results/findings.md).
"""


def prepare_process() -> None:
    """Keep large blocks of memory, and let waiting threads sleep. What the environment says already stays."""
    keep_large_blocks()
    for name, value in OPENMP_SETTINGS.items():
        os.environ.setdefault(name, value)  # OpenMP reads it when torch is loaded


def keep_large_blocks() -> bool:
    """Tell glibc to keep and reuse large blocks; False where there is no glibc.

    By default, glibc maps every block above 128 KiB anew and gives it back when it is freed, so that each image and each
    feature map pays for fresh pages from the kernel. The environment variables MALLOC_MMAP_THRESHOLD_ and so on do the same,
    but only for processes that somebody else starts.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_MMAP_THRESHOLD, _KEPT), (_TRIM_THRESHOLD, _KEPT), (_TOP_PAD, _PAD))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)

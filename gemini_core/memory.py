"""Keep large blocks of memory, instead of returning them to the kernel after each frame."""

from __future__ import annotations

import ctypes

# mallopt's parameters, from glibc's malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_KEPT = 1 << 30  # bytes: larger than any image, cloud or feature map here
_PAD = 64 << 20


def keep_large_blocks() -> bool:
    """Tell glibc to keep and reuse large blocks; False where there is no glibc. Only programs call this, at their start.

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

"""Memory that ends where a message ends: one byte further lies a page that nobody may touch (a segmentation fault)."""

from __future__ import annotations

import ctypes
import dataclasses
import mmap
from typing import Any

import numpy as np

from gemini_core.decode.message import RawMessage

_NO_ACCESS = 0  # PROT_NONE


class GuardedBlock:
    """Room for ``capacity`` bytes or a little more, between two forbidden pages; what is put there replaces what was."""

    def __init__(self, capacity: int) -> None:
        pages = -(-capacity // mmap.PAGESIZE)
        self._memory = mmap.mmap(-1, (pages + 2) * mmap.PAGESIZE)
        everything = np.frombuffer(self._memory, np.uint8)
        self._inside = everything[mmap.PAGESIZE : -mmap.PAGESIZE]
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        for address in (everything.ctypes.data, everything.ctypes.data + everything.size - mmap.PAGESIZE):
            if protect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), _NO_ACCESS) != 0:
                msg = f"expected the system to forbid a page, got error {ctypes.get_errno()} of mprotect"
                raise OSError(msg)

    def put(self, data: np.ndarray, *, at_end: bool) -> np.ndarray:
        """Copy an array (N,) to the very end, or the very beginning, of the block; what is given back lies there."""
        size = data.nbytes
        if size > self._inside.size:
            msg = f"expected at most {self._inside.size} bytes, got {size}"
            raise ValueError(msg)
        place = self._inside[self._inside.size - size :] if at_end else self._inside[:size]
        place[:] = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        return place.view(data.dtype)


class Guard:
    """Moves the arrays of one message at a time into guarded blocks; those of the message before are then gone."""

    def __init__(self, capacity: int, arrays: int = 4) -> None:
        self._blocks = [GuardedBlock(capacity) for _ in range(arrays)]

    def around(self, message: Any, *, at_end: bool) -> Any:  # noqa: ANN401 - a bag's message of any type, or a RawMessage
        """The same message with every array of numbers among its fields between forbidden pages."""
        if isinstance(message, RawMessage):
            data = self._blocks[0].put(np.frombuffer(message.data, np.uint8), at_end=at_end)
            return dataclasses.replace(message, data=memoryview(data))
        arrays = {
            field.name: value
            for field in dataclasses.fields(message)
            if isinstance(value := getattr(message, field.name), np.ndarray) and value.ndim == 1
        }
        moved = {
            name: block.put(value, at_end=at_end)
            for (name, value), block in zip(arrays.items(), self._blocks[: len(arrays)], strict=True)
        }
        return dataclasses.replace(message, **moved)

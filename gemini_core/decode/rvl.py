"""RVL, the lossless compression of depth images that compressedDepth offers beside PNG.

A stream of numbers in groups of three bits, lowest group first, each in a nibble whose top bit says that more follow; eight
nibbles to a little-endian 32-bit word, highest nibble first. The numbers: how many pixels are 0, how many follow that are not,
and for each of these its difference to the last such pixel, zigzag (0, -1, 1, -2, ... are 0, 1, 2, 3, ...); and so on.
(A. D. Wilson, "Fast Lossless Depth Image Compression", ISS 2017.)
"""

from __future__ import annotations

import numpy as np

from gemini_core.compiling import compiled
from gemini_core.types import U8, U16

_MOST_BITS = 33  # eleven groups: what a number of 32 bits needs


@compiled("UniTuple(int64, 2)(Array(uint8, 1, 'C', readonly=True), int64, int64)")
def _number(data: U8, at: int, end: int) -> tuple[int, int]:
    """Read the number that begins at nibble ``at``: it, and the nibble after it; (-1, at) where it ends nowhere."""
    value = shift = 0
    for nibble in range(at, min(end, at + _MOST_BITS // 3)):
        byte = np.int64(data[(nibble >> 3) * 4 + 3 - ((nibble & 7) >> 1)])
        bits = byte & 15 if nibble & 1 else byte >> 4
        value |= (bits & 7) << shift
        shift += 3
        if bits < 8:  # noqa: PLR2004 - the top bit is not set
            return value, nibble + 1
    return -1, at


@compiled("int64(Array(uint8, 1, 'C', readonly=True), uint16[::1])")
def decode_rvl(data: U8, pixels: U16) -> int:
    """Decode into ``pixels`` (N,), which are 0 before; gives the number of pixels that the data had: N, or fewer if damaged."""
    end = data.size // 4 * 8  # whole words only
    at = done = previous = 0
    while done < pixels.size:
        zeros, at = _number(data, at, end)
        if zeros < 0 or zeros > pixels.size - done:
            return done
        done += zeros
        if done == pixels.size:
            break
        others, at = _number(data, at, end)
        if others < 0 or others > pixels.size - done:
            return done
        for _ in range(others):
            difference, at = _number(data, at, end)
            if difference < 0:
                return done
            previous = (previous + ((difference >> 1) ^ -(difference & 1))) & 0xFFFF
            pixels[done] = previous
            done += 1
    return done

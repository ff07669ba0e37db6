"""Damaged messages for any decoder: fields, lengths and bytes changed at random (seeded), and what has to hold then.

A decoder gives a sample whose arrays fit together, or raises DecodeError; it takes bounded time, and reads nothing outside
the message. For the last, every byte array lies inside a larger block, and two decoders get the same messages with different
surroundings: they must agree. GEMINI_MUTATIONS=200000 makes every such test that long.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from gemini_core.bag import messages
from gemini_core.decode.message import RAW_TYPES, RawMessage
from gemini_core.errors import DecodeError
from gemini_core.types import CameraInfoSample, CloudSample, DepthSample, EventSample, ImageSample, Sample

Decode = Callable[[Any, str], Sample]

COUNT = 2_000
"""Mutated messages of a test that asks for no other number: some seconds at most."""

_INTEGERS = {"int": 32, "uint": 32, **{f"{sign}int{bits}": bits for sign in ("", "u") for bits in (8, 16, 32, 64)}}
_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 12, 16, 100, 255, 256, 640, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-300, 1e300, 1e9, 0.5, float("nan"), float("inf"), float("-inf"))
_MARGIN = 64  # bytes around every byte array


def mutated(message: Any, rng: np.random.Generator, words: tuple[str, ...] = ()) -> Any:
    """A copy of a bag's message (or a RawMessage) with one to three things changed; ``words`` are strings worth trying."""
    for _ in range(rng.integers(1, 4)):
        message = _change(message, rng, words, "")
    return message


def assert_survives(
    make_decoder: Callable[[], Decode],
    originals: list[Any],
    *,
    words: tuple[str, ...] = (),
    count: int = COUNT,
    seed: int = 0,
    seconds: float = 1.0,
) -> Counter[str]:
    """Mutate the originals ``count`` times in all, decode each, and assert what this module promises.

    ``make_decoder`` makes a fresh decoder, which sees the messages as one stream (and an unchanged one now and then).
    ``seconds`` of CPU is the most that one message may take. Gives what came out: "sample", and the reasons of refusal.
    """
    count = int(os.environ.get("GEMINI_MUTATIONS", count))
    rng = np.random.default_rng(seed)
    one, other = make_decoder(), make_decoder()
    outcomes: Counter[str] = Counter()
    for number in range(count):
        message = originals[int(rng.integers(len(originals)))]
        if number % 16:
            message = mutated(message, rng, words)
        before = time.thread_time()
        first = _outcome(one, _surrounded(message, 0x00))
        spent = time.thread_time() - before
        assert spent < seconds, f"message {number} took {spent:.1f} s: {_brief(message)}"
        second = _outcome(other, _surrounded(message, 0xFF))
        assert _same(first, second), f"what lies around message {number} changes the result: {_brief(message)}"
        if isinstance(first, DecodeError):
            assert first.reason
            assert str(first)
            assert "\n" not in str(first)
        else:
            assert_consistent(first)
        outcomes[first.reason if isinstance(first, DecodeError) else "sample"] += 1
    return outcomes


def assert_consistent(sample: Sample) -> None:
    """The arrays of a sample have the shapes and types that gemini_core/types.py promises."""
    if isinstance(sample, ImageSample):
        assert sample.pixels.dtype == np.uint8
        assert sample.pixels.ndim == 3
        assert sample.pixels.shape[2] == 3
        assert sample.pixels.size > 0
    elif isinstance(sample, DepthSample):
        assert sample.depth_m.dtype == np.float32
        assert sample.depth_m.ndim == 2
        assert sample.depth_m.size > 0
        assert not (sample.depth_m[np.isfinite(sample.depth_m)] <= 0).any()
    elif isinstance(sample, CloudSample):
        number = sample.points.shape[1]
        assert sample.points.shape == (3, number)
        assert np.isfinite(sample.points).all()
        for values in (sample.intensity, sample.ring, sample.time_ns):
            assert values is None or values.shape == (number,)
        assert sample.start_ns <= sample.end_ns
    elif isinstance(sample, EventSample):
        shapes = {values.shape for values in (sample.x, sample.y, sample.polarity, sample.time_ns)}
        assert shapes == {(sample.x.size,)}
        assert (sample.width == 0) == (sample.height == 0)  # both where the message does not tell
        assert sample.width == 0 or (sample.x < sample.width).all()
        assert sample.height == 0 or (sample.y < sample.height).all()
        assert (sample.polarity <= 1).all()
        assert sample.time_ns.dtype == np.int64
    elif isinstance(sample, CameraInfoSample):
        camera = sample.camera
        numbers = (camera.fx, camera.fy, camera.cx, camera.cy, *camera.distortion)
        assert np.isfinite(numbers).all()
        assert min(camera.fx, camera.fy, camera.width, camera.height) > 0


# --------------------------------------------------------------------------------------------------------------------
# Changing


def _change(value: Any, rng: np.random.Generator, words: tuple[str, ...], kind: str) -> Any:  # noqa: PLR0911 - one line each
    """Change one thing somewhere in a value; ``kind`` is the integer type of its field, such as "uint32"."""
    if isinstance(value, RawMessage):
        if rng.random() < 0.1:
            return dataclasses.replace(value, type=str(rng.choice([*RAW_TYPES, "std_msgs/msg/String"])))
        return dataclasses.replace(value, data=_change_bytes(np.frombuffer(value.data, np.uint8), rng).tobytes())
    if dataclasses.is_dataclass(value):
        return _change_field(value, rng, words)
    if isinstance(value, bool | np.bool_):
        return not value
    if isinstance(value, int | np.integer):
        return _change_integer(int(value), rng, kind)
    if isinstance(value, float | np.floating):
        return _FLOATS[rng.integers(len(_FLOATS))]
    if isinstance(value, str):
        return _change_text(value, rng, words)
    if isinstance(value, np.ndarray):
        return _change_bytes(value, rng) if value.dtype == np.uint8 else _change_numbers(value, rng)
    if isinstance(value, list):
        return _change_list(value, rng, words)
    return value


def _change_field(message: Any, rng: np.random.Generator, words: tuple[str, ...]) -> Any:
    fields = dict(messages.typestore().fielddefs[message.__msgtype__][1])
    name = str(rng.choice(sorted(fields)))
    base = fields[name][1]
    kind = base[0] if isinstance(base, tuple) and isinstance(base[0], str) else ""
    return dataclasses.replace(message, **{name: _change(getattr(message, name), rng, words, kind)})


def _change_integer(value: int, rng: np.random.Generator, kind: str) -> int:
    choices = (*_NUMBERS, value + 1, value - 1, value * 2, value // 2, -value, int(rng.integers(0, 70)))
    value = choices[rng.integers(len(choices))]
    bits = _INTEGERS.get(kind, 32)
    value %= 2**bits  # as the wire holds it
    return value - 2**bits if kind.startswith("int") and value >= 2 ** (bits - 1) else value


def _change_text(value: str, rng: np.random.Generator, words: tuple[str, ...]) -> str:
    what = rng.integers(4)
    if words and what < 2:
        return str(rng.choice(words))
    if what == 2 and value:
        place = int(rng.integers(len(value)))
        return value[:place] + chr(int(rng.integers(32, 0x250))) + value[place + 1 :]
    return value[: rng.integers(len(value) + 1)]


def _change_bytes(value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    what = rng.integers(6)
    if what == 0 or not value.size:  # longer
        return np.concatenate([value, rng.integers(0, 256, rng.integers(1, 40), np.uint8)])
    if what == 1:  # cut off, often by little
        return (
            value[: max(0, value.size - int(rng.integers(1, 20)))] if rng.random() < 0.5 else value[: rng.integers(value.size)]
        )
    value = value.copy()
    if what == 2:  # a piece taken out
        start = rng.integers(value.size)
        return np.delete(value, slice(start, start + int(rng.integers(1, 9))))
    # some bytes, or a whole number, and more often at the front, where headers are
    start = int(rng.integers(value.size if rng.random() < 0.5 else min(value.size, 64)))
    stop = start + int(rng.choice([1, 2, 4, 8]))
    value[start:stop] = int(rng.choice([0x00, 0xFF, 0x7F])) if what == 3 else rng.integers(0, 256, value[start:stop].size)
    return value


def _change_numbers(value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if not value.size or rng.random() < 0.2:
        return value[: rng.integers(value.size + 1)]
    value = value.copy()
    place = rng.integers(value.size)
    value[place] = _FLOATS[rng.integers(len(_FLOATS))] if value.dtype.kind == "f" else 0
    return value


def _change_list(value: list[Any], rng: np.random.Generator, words: tuple[str, ...]) -> list[Any]:
    if not value:
        return value
    place = int(rng.integers(len(value)))
    what = rng.integers(5)
    if what == 0:
        return value[:place] + value[place + 1 :]
    if what == 1:
        return [*value, value[place]]
    return [*value[:place], _change(value[place], rng, words, ""), *value[place + 1 :]]


# --------------------------------------------------------------------------------------------------------------------
# Judging


def _surrounded(message: Any, fill: int) -> Any:
    """The same message with its byte array (any field of uint8) in the middle of a larger block."""
    if isinstance(message, RawMessage):
        inner = _block(np.frombuffer(message.data, np.uint8), fill)
        return dataclasses.replace(message, data=memoryview(inner))
    changes = {
        field.name: _block(value, fill)
        for field in dataclasses.fields(message)
        if isinstance(value := getattr(message, field.name), np.ndarray) and value.dtype == np.uint8
    }
    return dataclasses.replace(message, **changes)


def _block(data: np.ndarray, fill: int) -> np.ndarray:
    block = np.full(data.size + 2 * _MARGIN, fill, np.uint8)
    inner = block[_MARGIN : _MARGIN + data.size]
    inner[:] = data
    return inner


def _outcome(decode: Decode, message: Any) -> Sample | DecodeError:
    try:
        return decode(message, "topic")
    except DecodeError as error:
        return error


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, DecodeError):
        return isinstance(other, DecodeError) and (one.reason, str(one)) == (other.reason, str(other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    if dataclasses.is_dataclass(one):
        return type(one) is type(other) and all(
            _same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one)
        )
    return one == other


def _brief(message: Any) -> str:
    with np.printoptions(threshold=20):
        return repr(message)[:1000]

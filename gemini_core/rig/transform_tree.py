"""The transform tree (extrinsics over time): where every frame was, when."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from gemini_core.compiling import compiled
from gemini_core.errors import CalibrationError, nearest_names
from gemini_core.rig.geometry import invert_transform
from gemini_core.types import F64, I64, Count, StampedTransform


@dataclass(slots=True, eq=False)
class _Edge:
    """The way from one frame to its parent: one fixed matrix, or matrices in the order of their stamps."""

    parent: str
    static: bool
    stamps: list[int] = field(default_factory=list)
    parent_from_child: list[F64] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """A part of a path: a constant matrix, or a moving edge that is gone up (parent_from_child) or down."""

    matrix: F64 | None = None
    child: str = ""
    edge: _Edge | None = None
    up: bool = True


_MOST_STAMPS = 20_000  # of one moving frame: 20 s at 1 kHz; stamps that hardly advance would fill the memory
_MOST_FRAMES = 1000  # that move; robots have tens, a tracker of people that numbers its frames would fill the memory
_MOST_CONFLICTS = 10  # frames of several parents that are named
_MOST_PATHS = 1000  # that are kept; a rig needs a few, a driver that numbers its frames would fill the memory


class TransformTree:
    """The transforms between frames over time, as tf2 keeps them.

    A leading "/" of a frame's name is ignored. A frame has one parent: a transform that names another one, or that is fixed
    where the last was moving, replaces what was known of the frame. A transform that would close a loop is refused. Moving
    transforms are kept for ``buffer_ns`` before the newest of their frame, may come out of order (one that is older than
    the buffer is dropped; one with a known stamp replaces the older one), and are interpolated,
    never extrapolated. All this is counted.
    """

    def __init__(self, buffer_ns: int = 10_000_000_000) -> None:
        self._buffer_ns = buffer_ns
        self._edges: dict[str, _Edge] = {}
        self._paths: dict[tuple[str, str], tuple[_Step, ...] | str] = {}
        self._counts: Counter[str] = Counter()
        self._parents: dict[str, tuple[str, str]] = {}

    def add(self, transform: StampedTransform, static: bool) -> None:
        """Learn one transform; ``static`` ones hold at any time."""
        parent, child = frame_name(transform.parent), frame_name(transform.child)
        edge = self._edges.get(child)
        if edge is None or edge.parent != parent or edge.static != static:
            if child in self._ancestors(parent):
                self._counts["tf.refused.loop"] += 1
                return
            if edge is not None:
                self._counts["tf.replaced_parent"] += 1
                if edge.parent != parent:
                    self._note_conflict(child, edge.parent, parent)
            elif not static:
                self._make_room()
            edge = self._edges[child] = _Edge(parent, static)
            self._paths.clear()
        if static:
            if not (edge.parent_from_child and np.array_equal(edge.parent_from_child[0], transform.parent_from_child)):
                edge.parent_from_child = [transform.parent_from_child]
                self._paths.clear()
            return
        self._insert(edge, transform)

    def _make_room(self) -> None:
        """Forget the frame that has not moved for the longest time, where there are too many."""
        newest = {child: edge.stamps[-1] for child, edge in self._edges.items() if not edge.static}
        if len(newest) >= _MOST_FRAMES:
            del self._edges[min(newest, key=newest.__getitem__)]
            self._counts["tf.dropped.too_many_frames"] += 1

    def _insert(self, edge: _Edge, transform: StampedTransform) -> None:
        stamps, stamp_ns = edge.stamps, transform.stamp_ns
        if stamps and stamp_ns < stamps[-1] - self._buffer_ns:
            self._counts["tf.dropped.older_than_buffer"] += 1
            return
        place = bisect_left(stamps, stamp_ns)
        if place < len(stamps) and stamps[place] == stamp_ns:
            edge.parent_from_child[place] = transform.parent_from_child
            return
        stamps.insert(place, stamp_ns)
        edge.parent_from_child.insert(place, transform.parent_from_child)
        old = bisect_left(stamps, stamps[-1] - self._buffer_ns)
        if old == 0 and len(stamps) > _MOST_STAMPS:
            old = 1
            self._counts["tf.dropped.too_many"] += 1
        del stamps[:old], edge.parent_from_child[:old]

    def lookup(self, target: str, source: str, stamp_ns: int) -> F64:
        """``target_from_source`` (4, 4) float64 at a stamp: moves linearly, turns by slerp between two known stamps.

        Raises:
            CalibrationError: no path between the frames, or a moving transform on it that does not cover the stamp.
        """
        found: F64 = self.lookups(target, source, np.array([stamp_ns]))[0]
        return found

    def lookups(self, target: str, source: str, stamps_ns: I64) -> F64:
        """``target_from_source`` (K, 4, 4) float64 at K >= 1 stamps, far cheaper than one by one; see ``lookup``."""
        path = self._path(frame_name(target), frame_name(source))
        for stamp_ns in (int(stamps_ns.min()), int(stamps_ns.max())):
            reason = _why_not(path, stamp_ns)
            if isinstance(path, str) or reason:
                raise CalibrationError(reason)
        target_from_source = np.broadcast_to(np.eye(4), (stamps_ns.size, 4, 4))
        for step in cast("tuple[_Step, ...]", path):
            target_from_source = target_from_source @ _matrices(step, stamps_ns)
        return target_from_source

    def why_not(self, target: str, source: str, stamp_ns: int) -> str:
        """Say in one sentence why ``lookup`` would fail, "" where it would not; cheap enough to ask for each message."""
        return _why_not(self._path(frame_name(target), frame_name(source)), stamp_ns)

    def stamps_between(self, target: str, source: str, start_ns: int, end_ns: int) -> list[int]:
        """Stamps between two others, rising, at which the way between two frames may bend; none where nothing moves."""
        found: set[int] = set()
        for edge in _moving(self._path(frame_name(target), frame_name(source))):
            found.update(edge.stamps[bisect_right(edge.stamps, start_ns) : bisect_left(edge.stamps, end_ns)])
        return sorted(found)

    def told_within(self, target: str, source: str, start_ns: int, end_ns: int) -> bool:
        """Whether there is a path and each moving transform on it has a stamp from ``start_ns`` to ``end_ns``."""
        path = self._path(frame_name(target), frame_name(source))
        return not isinstance(path, str) and all(
            bisect_left(edge.stamps, start_ns) < bisect_right(edge.stamps, end_ns) for edge in _moving(path)
        )

    def moves(self, frame: str) -> bool:
        """Whether a moving transform is known on the way from a frame to the root of its tree."""
        return any(name in self._edges and not self._edges[name].static for name in self._ancestors(frame_name(frame)))

    def knows(self, frame: str) -> bool:
        """Whether the frame is part of any tree."""
        name = frame_name(frame)
        return name in self._edges or any(edge.parent == name for edge in self._edges.values())

    def clear(self) -> None:
        """Forget the moving transforms, as after a jump of the clock; fixed ones hold at any time and stay."""
        self._edges = {child: edge for child, edge in self._edges.items() if edge.static}
        self._parents.clear()
        self._paths.clear()

    def frames(self) -> tuple[str, ...]:
        """All known frames, sorted."""
        return tuple(sorted({*self._edges, *(edge.parent for edge in self._edges.values())}))

    def counts(self) -> tuple[Count, ...]:
        """What was refused, dropped or replaced since the start."""
        return tuple(Count(what, number) for what, number in sorted(self._counts.items()))

    def conflicts(self) -> tuple[str, ...]:
        """A sentence for each frame whose parent was replaced by another one, with the latest two."""
        why = "each transform replaces the one before, where a frame may have one parent (do two publishers give it?)"
        return tuple(
            f"frame {child!r} has two parents, {first!r} and {second!r}: {why}"
            for child, (first, second) in sorted(self._parents.items())
        )

    def _note_conflict(self, child: str, before: str, parent: str) -> None:
        first, second = sorted((before, parent))
        if child in self._parents or len(self._parents) < _MOST_CONFLICTS:
            self._parents[child] = (first, second)

    def _ancestors(self, frame: str) -> Iterator[str]:
        """Yield the frame itself, its parent, and so on to the root."""
        yield frame
        while (edge := self._edges.get(frame)) is not None:
            frame = edge.parent
            yield frame

    def _path(self, target: str, source: str) -> tuple[_Step, ...] | str:
        """Find the steps whose matrices, multiplied in order, are target_from_source; or the sentence why there is none."""
        key = (target, source)
        if key not in self._paths:
            if len(self._paths) >= _MOST_PATHS:
                self._paths.clear()
            self._paths[key] = self._find_path(target, source)
        return self._paths[key]

    def _find_path(self, target: str, source: str) -> tuple[_Step, ...] | str:
        if target == source:
            return ()
        down, up = list(self._ancestors(target)), list(self._ancestors(source))
        if down[-1] != up[-1]:
            return self._no_path(target, source, down[-1], up[-1])
        common = next(frame for frame in up if frame in down)
        steps = [self._step(child, up=False) for child in down[: down.index(common)]]
        steps += [self._step(child, up=True) for child in reversed(up[: up.index(common)])]
        return tuple(_joined(steps))

    def _step(self, child: str, *, up: bool) -> _Step:
        edge = self._edges[child]
        if not edge.static:
            return _Step(child=child, edge=edge, up=up)
        return _Step(edge.parent_from_child[0] if up else invert_transform(edge.parent_from_child[0]))

    def _no_path(self, target: str, source: str, target_root: str, source_root: str) -> str:
        known = self.frames()
        start = f"expected transforms that connect {source!r} to {target!r}, got "
        unknown = [f"no frame {name!r} ({nearest_names(name, known)})" for name in (source, target) if name not in known]
        if unknown:
            return start + " and ".join(unknown) + " in the transform tree"
        return start + (
            f"two trees: {source!r} is part of the one of {source_root!r}, {target!r} of the one of {target_root!r}, and "
            f"nothing connects {source_root!r} and {target_root!r}"
        )


def frame_name(name: str) -> str:
    """A frame's name without the leading "/" that old drivers write."""
    return name.lstrip("/")


def _joined(steps: list[_Step]) -> Iterator[_Step]:
    """Multiply neighbouring constant steps, once for all lookups."""
    constant: F64 | None = None
    for step in steps:
        if step.matrix is not None:
            constant = step.matrix if constant is None else constant @ step.matrix
            continue
        if constant is not None:
            yield _Step(constant)
            constant = None
        yield step
    if constant is not None:
        yield _Step(constant)


def _why_not(path: tuple[_Step, ...] | str, stamp_ns: int) -> str:
    if isinstance(path, str):
        return path
    for step in path:
        if step.edge is None:
            continue
        first, last = step.edge.stamps[0], step.edge.stamps[-1]
        if not first <= stamp_ns <= last:
            return (
                f"expected the transform from {step.child!r} to {step.edge.parent!r} at {_seconds(stamp_ns)} s, got it from "
                f"{_seconds(first)} to {_seconds(last)} s only"
            )
    return ""


def _seconds(stamp_ns: int) -> str:
    """Nanoseconds as seconds, all digits."""
    return f"{'-' if stamp_ns < 0 else ''}{abs(stamp_ns) // 10**9}.{abs(stamp_ns) % 10**9:09d}"


def _moving(path: tuple[_Step, ...] | str) -> Iterator[_Edge]:
    if not isinstance(path, str):
        yield from (step.edge for step in path if step.edge is not None)


def _matrices(step: _Step, stamps_ns: I64) -> F64:
    """(4, 4) of a constant step, (K, 4, 4) at K stamps of a moving one."""
    edge = step.edge
    if edge is None:
        return cast("F64", step.matrix)
    known = edge.stamps
    first = max(bisect_right(known, int(stamps_ns.min())) - 1, 0)
    last = min(bisect_left(known, int(stamps_ns.max())), len(known) - 1)
    part = slice(first, last + 1)
    found = np.empty((stamps_ns.size, 4, 4))
    _interpolate(np.array(known[part]), np.array(edge.parent_from_child[part], np.float64), stamps_ns.astype(np.int64), found)
    return found if step.up else _inverted(found)


def _inverted(matrices: F64) -> F64:
    """Invert rigid transforms (K, 4, 4)."""
    inverse = np.zeros_like(matrices)
    inverse[:, :3, :3] = matrices[:, :3, :3].transpose(0, 2, 1)
    inverse[:, :3, 3:] = -inverse[:, :3, :3] @ matrices[:, :3, 3:]
    inverse[:, 3, 3] = 1.0
    return inverse


@compiled("float64[::1](float64[:,::1])")
def _quaternion(matrix: F64) -> F64:
    """Unit quaternion (x, y, z, w) of the rotation in a (4, 4) matrix, from its largest component (Shepperd, 1978)."""
    xx, yy, zz = matrix[0, 0], matrix[1, 1], matrix[2, 2]
    x, y, z = matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]
    xy, xz, yz = matrix[1, 0] + matrix[0, 1], matrix[0, 2] + matrix[2, 0], matrix[2, 1] + matrix[1, 2]
    if xx + yy + zz >= max(xx, yy, zz):
        found = np.array([x, y, z, 1.0 + xx + yy + zz])
    elif xx >= yy and xx >= zz:
        found = np.array([1.0 + xx - yy - zz, xy, xz, x])
    elif yy >= zz:
        found = np.array([xy, 1.0 + yy - xx - zz, yz, y])
    else:
        found = np.array([xz, yz, 1.0 + zz - xx - yy, z])
    return found / math.sqrt(np.sum(found * found))


@compiled("void(int64[::1], float64[:,:,::1], int64[::1], float64[:,:,::1])")
def _interpolate(stamps: I64, matrices: F64, wanted: I64, found: F64) -> None:
    """Fill ``found`` (K, 4, 4) at the wanted stamps (K,) from matrices (N, 4, 4) at rising stamps (N,); the ends hold beyond.

    Shoemake's slerp (SIGGRAPH 1985); the angle by Kahan's formula, which is exact for small ones too.
    """
    for k in range(wanted.size):
        after = np.searchsorted(stamps, wanted[k])
        if after == stamps.size:
            found[k] = matrices[after - 1]
            continue
        if after == 0 or stamps[after] == wanted[k]:
            found[k] = matrices[after]
            continue
        before = after - 1
        # Differences of whole numbers first: a stamp since 1970 does not fit a float.
        share = (wanted[k] - stamps[before]) / (stamps[after] - stamps[before])
        one, other = _quaternion(matrices[before]), _quaternion(matrices[after])
        if np.sum(one * other) < 0.0:  # both signs are the same turn; take the short way
            other = -other
        difference, total = one - other, one + other
        angle = 2.0 * math.atan2(math.sqrt(np.sum(difference * difference)), math.sqrt(np.sum(total * total)))
        if angle > 0.0:
            x, y, z, w = (math.sin((1.0 - share) * angle) * one + math.sin(share * angle) * other) / math.sin(angle)
        else:
            x, y, z, w = one
        found[k, 0] = 1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w), 0.0
        found[k, 1] = 2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w), 0.0
        found[k, 2] = 2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y), 0.0
        found[k, 3] = 0.0, 0.0, 0.0, 1.0
        found[k, :3, 3] = (1.0 - share) * matrices[before, :3, 3] + share * matrices[after, :3, 3]

"""Clock offset between a topic's stamps and the reference camera's: a clock that is off, or that counts from another epoch."""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from gemini_core.types import Doubt, Modality

SINCE_1970_NS = 10**18
"""The year 2001: later stamps are of a clock that counts from 1970. It is never set to zero: a stamp of zero is none there."""

_NS = 10**9
_RECENT = 20
"""Frames whose offsets are looked at."""

_FEWEST = 5
"""Offsets that say something."""

_STEADY_SHARE = 0.75
_ARRIVAL_JITTER_NS, _NEAREST_JITTER_NS = 250_000_000, 10_000_000
"""Offsets are steady when most lie no farther from the median; messages are late by more or less, so by arrival more is."""

_MAY_BE_LATE_NS = 1 * _NS
"""Messages are that late at times, on a network or for their processing; by arrival that looks like a clock that is behind."""

_KNOWN = (
    (18 * _NS, "GPS time against UTC?"),  # GPS is ahead of UTC by 18 s and TAI by 37 s since 2017 (IERS Bulletin C)
    (19 * _NS, "TAI against GPS time?"),
    (37 * _NS, "TAI against UTC?"),
    (315_964_800 * _NS, "counted from 1980 (GPS) against 1970?"),
)
_KNOWN_WITHIN_NS = 450_000_000
_HALF_HOUR_NS, _MOST_HOURS_NS = 1800 * _NS, 14 * 3600 * _NS


@dataclass(slots=True)
class _SinceImage:
    """Of one topic since the newest image: how far its first stamp is ahead of that image, and its newest stamp."""

    first_ahead_ns: int
    newest_ns: int


class ClockOffsets:
    """Follows how far each topic's stamps are from the reference's as they arrive, and from the frames.

    Between two images, the first sample of a topic is ahead of the image before it by the offset of its clock and at most one
    interval of images more; the last one is ahead of the image after it by that offset and at most its own interval less (each
    less by what the sample arrives later than the image). So a clock is surely ahead when the second is positive, and behind
    when the first is negative. No wall clock is looked at: live and in replay, the same order of arrival says the same.
    """

    def __init__(self, max_wait_ns: int) -> None:
        self._max_wait_ns = max_wait_ns
        self._all: Counter[Modality] = Counter()
        self._zeros: Counter[Modality] = Counter()
        self.clear()

    def clear(self) -> None:
        """Forget all offsets, as after a jump of the clock."""
        self._image_ns: int | None = None
        self._since: dict[Modality, _SinceImage] = {}
        self._most: dict[Modality, deque[int]] = {}
        self._least: dict[Modality, deque[int]] = {}

    def received(self, modality: Modality, stamp_ns: int) -> None:
        """Take the stamp of any sample, also of one that is dropped."""
        self._all[modality] += 1
        self._zeros[modality] += stamp_ns == 0

    def accepted(self, modality: Modality, stamp_ns: int) -> None:
        """Take the stamp of a sample that is used."""
        if modality == "rgb":
            for topic, since in self._since.items():
                self._most.setdefault(topic, deque(maxlen=_RECENT)).append(since.first_ahead_ns)
                self._least.setdefault(topic, deque(maxlen=_RECENT)).append(since.newest_ns - stamp_ns)
            self._since.clear()
            self._image_ns = stamp_ns
        elif modality in self._since:
            self._since[modality].newest_ns = stamp_ns
        elif self._image_ns is not None:
            self._since[modality] = _SinceImage(stamp_ns - self._image_ns, stamp_ns)

    def explain(self, modality: Modality, nearest_ns: Sequence[int], slop_ns: int) -> str:
        """Say why no sample of a topic fits frames, as far as stamps tell; "" where they do not.

        ``nearest_ns``: of the latest frames, how far the nearest sample was ahead; ``slop_ns``: how far it may be.
        """
        for topic in (modality, "rgb"):
            if sentence := self._no_stamps(topic):
                return sentence
        offset_ns = self._offset(modality)
        if offset_ns is not None:
            return self._sentence(modality, offset_ns)
        offset_ns = steady(nearest_ns, _NEAREST_JITTER_NS)
        if offset_ns is None or abs(offset_ns) <= slop_ns:
            return ""
        return f"the stamps of {modality} are steadily {_length(abs(offset_ns))} {_direction(offset_ns)} rgb's"

    def doubts(self) -> tuple[Doubt, ...]:
        """Say which topics have no stamps, and which are ahead of the reference by more than frames wait.

        One that is behind by as much is missing in frames, whose ``explain`` says so; or it arrives late, and all is well.
        """
        found = [Doubt(topic, "no_stamps", sentence) for topic in self._all if (sentence := self._no_stamps(topic))]
        unstamped = {doubt.about for doubt in found}
        if "rgb" not in unstamped:
            offsets_ns = {topic: self._offset(topic) or 0 for topic in self._least if topic not in unstamped}
            ahead = {topic: offset_ns for topic, offset_ns in offsets_ns.items() if offset_ns > 0}
            found += [Doubt(topic, "clock_offset", self._sentence(topic, offset_ns)) for topic, offset_ns in ahead.items()]
        return tuple(found)

    def _no_stamps(self, modality: Modality) -> str:
        number = self._all[modality]
        if number < _FEWEST or self._zeros[modality] < number:
            return ""
        return f"all stamps of {modality} are zero, {number} of {number} messages: expected the time when they were measured"

    def _offset(self, modality: Modality) -> int | None:
        """How far a topic is ahead, where the order of arrival proves that it is off by more than frames wait; else None."""
        most_ns = steady(self._most.get(modality, ()), _ARRIVAL_JITTER_NS)
        least_ns = steady(self._least.get(modality, ()), _ARRIVAL_JITTER_NS)
        if most_ns is None or least_ns is None:
            return None
        return most_ns if least_ns >= self._max_wait_ns or most_ns <= -self._max_wait_ns else None

    def _sentence(self, modality: Modality, offset_ns: int) -> str:
        sentence = f"the stamps of {modality} are {_length(abs(offset_ns))} {_direction(offset_ns)} rgb's"
        hint = self._epoch(modality, offset_ns) or _known(abs(offset_ns))
        if not hint and abs(offset_ns) < _MAY_BE_LATE_NS:
            hint = f"a clock that is off, or {'rgb' if offset_ns > 0 else modality} comes late?"
        return f"{sentence}: {hint}" if hint else sentence

    def _epoch(self, modality: Modality, offset_ns: int) -> str:
        """Say whose stamps are near zero, where the other's count from 1970."""
        image_ns = self._image_ns or 0
        early, late = sorted((image_ns, image_ns + offset_ns))
        if not early < SINCE_1970_NS <= late or abs(offset_ns) < SINCE_1970_NS // 2:
            return ""
        return f"is {'rgb' if offset_ns > 0 else modality} stamped with the time since boot, or of a simulation?"


def steady(offsets_ns: Sequence[int], jitter_ns: int) -> int | None:
    """The median of offsets where most are near it, else None."""
    if len(offsets_ns) < _FEWEST:
        return None
    median_ns = int(statistics.median_low(offsets_ns))
    near = sum(abs(offset - median_ns) <= jitter_ns for offset in offsets_ns)
    return median_ns if near >= _STEADY_SHARE * len(offsets_ns) else None


def _known(size_ns: int) -> str:
    """What clocks differ by such an offset, "" where none that are known do."""
    for known_ns, words in _KNOWN:
        if abs(size_ns - known_ns) <= _KNOWN_WITHIN_NS:
            return words
    half_hours = round(size_ns / _HALF_HOUR_NS)
    if half_hours and size_ns <= _MOST_HOURS_NS and abs(size_ns - half_hours * _HALF_HOUR_NS) <= _KNOWN_WITHIN_NS:
        return f"{half_hours / 2:g} h: local time against UTC?"
    return ""


def _direction(offset_ns: int) -> str:
    return "ahead of" if offset_ns > 0 else "behind"


def _length(size_ns: int) -> str:
    return f"{size_ns / 1e6:.0f} ms" if size_ns < 2 * _NS else f"{size_ns / 1e9:.1f} s"

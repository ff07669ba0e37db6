"""Stream time, as the stamps of the topics tell it: how it goes on, jumps, and is told wrong by one topic alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gemini_core.types import Modality


@dataclass(frozen=True, slots=True)
class _Leap:
    """A stamp that leapt ahead of all topics: where its topic was before (None: it is its first), and where it went."""

    from_ns: int | None
    to_ns: int


@dataclass(slots=True)
class _Topic:
    """The newest stamp of one topic, and the newest that time is told by (None: none yet); they differ after a leap."""

    newest_ns: int
    told_ns: int | None
    leap: _Leap | None = None


class StreamTime:
    """What the newest stamp of each topic says of time.

    * A stamp that leaps ahead of every topic by more than the jump (``sync.reset_jump_ms``) may be wrong: it tells time only
      when the next of its topic goes on from there, or another topic follows it. A real jump ahead of the clock shows that way
      one sample later; a single wrong stamp never does.
    * The topic may take its leap back: when no other has followed it, its next stamp, or one where the others are, is older.
      One that leapt with its first stamp may only come to where the others are.
    * Any other stamp older than the newest of its topic by more than the jump means that the clock jumped back.
    * A topic that is past a frame's end of waiting when the frame's image comes (its clock is ahead, or the image is late)
      tells that frame only how time goes on from there.
    """

    def __init__(self, max_wait_ns: int, jump_ns: int) -> None:
        self._max_wait_ns = max_wait_ns
        self._jump_ns = jump_ns
        self._topics: dict[Modality, _Topic] = {}

    def newest(self, modality: Modality) -> int | None:
        """The newest stamp of a topic, None before the first."""
        topic = self._topics.get(modality)
        return None if topic is None else topic.newest_ns

    def in_doubt(self, modality: Modality) -> bool:
        """Whether the newest stamp of a topic is a leap that may still be taken back."""
        topic = self._topics.get(modality)
        return topic is not None and topic.told_ns != topic.newest_ns

    def told(self, modality: Modality) -> int | None:
        """The newest stamp of a topic that time is told by, None before the first."""
        topic = self._topics.get(modality)
        return None if topic is None else topic.told_ns

    def accept(self, modality: Modality, stamp_ns: int) -> None:
        """Take the stamp of a sample that is newer than all of its topic."""
        topic = self._topics.get(modality)
        from_ns = None if topic is None else topic.newest_ns
        newest_of_all_ns = max((known.newest_ns for known in self._topics.values()), default=stamp_ns)
        leaps = stamp_ns > newest_of_all_ns + self._jump_ns
        if topic is None:
            topic = self._topics[modality] = _Topic(stamp_ns, stamp_ns)
        if leaps and topic.leap is None:
            topic.leap = _Leap(from_ns, stamp_ns)
        topic.told_ns = from_ns if leaps else stamp_ns
        topic.newest_ns = stamp_ns
        for other, known in self._topics.items():
            if other != modality and known.leap is not None and stamp_ns >= known.leap.to_ns - self._jump_ns:
                known.leap, known.told_ns = None, known.newest_ns

    def takes_back(self, modality: Modality, stamp_ns: int) -> int | None:
        """The stamp from which on a topic was wrong, where this stamp takes back a leap; else None."""
        topic = self._topics.get(modality)
        if topic is None or topic.leap is None or stamp_ns >= topic.newest_ns:
            return None
        from_ns, to_ns = topic.leap.from_ns, topic.leap.to_ns
        if from_ns is not None and stamp_ns <= from_ns:
            return None
        others = [known.newest_ns for other, known in self._topics.items() if other != modality]
        with_others = bool(others) and stamp_ns >= max(others) - self._jump_ns
        return to_ns if with_others or (topic.newest_ns == to_ns and from_ns is not None) else None

    def take_back(self, modality: Modality) -> None:
        """Set a topic back to where it was before its leap."""
        leap = self._topics.pop(modality).leap
        if leap is not None and leap.from_ns is not None:
            self._topics[modality] = _Topic(leap.from_ns, leap.from_ns)

    def jumped_back(self, modality: Modality, stamp_ns: int) -> bool:
        """Whether the stamp shows that the clock jumped back."""
        newest_ns = self.newest(modality)
        if newest_ns is None or newest_ns - stamp_ns <= self._jump_ns:
            return False
        return self.takes_back(modality, stamp_ns) is None

    def ahead(self, stamp_ns: int) -> dict[Modality, int]:
        """The topics that are past the end of waiting of an image that comes now, and their newest stamps."""
        return {
            modality: topic.newest_ns
            for modality, topic in self._topics.items()
            if topic.newest_ns - stamp_ns >= self._max_wait_ns
        }

    def has_passed(self, stamp_ns: int, ahead: Mapping[Modality, int]) -> bool:
        """Whether time has passed a stamp by ``sync.max_wait_ms``; topics that were ahead count from where they were."""
        return any(
            topic.told_ns is not None and topic.told_ns - ahead.get(modality, stamp_ns) >= self._max_wait_ns
            for modality, topic in self._topics.items()
        )

    def clear(self) -> None:
        """Forget all stamps."""
        self._topics.clear()

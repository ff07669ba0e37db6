"""Topics that several sensors share: the frames (frame_id) and image sizes of the latest samples of each."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from gemini_core.types import CloudSample, DepthSample, Doubt, ImageSample, Modality, SensorSample

_LATEST = 50
_MOST_NAMED = 4


@dataclass(slots=True)
class _Latest:
    frames: deque[str] = field(default_factory=lambda: deque(maxlen=_LATEST))
    sizes: deque[str] = field(default_factory=lambda: deque(maxlen=_LATEST))


class SharedTopics:
    """Looks at the latest samples of each modality; what a topic was earlier, such as before a new start, does not count.

    Args:
        topics: the topic of each modality, for people.
    """

    def __init__(self, topics: dict[Modality, str]) -> None:
        self._topics = topics
        self._latest: dict[Modality, _Latest] = {}

    def saw(self, sample: SensorSample) -> None:
        """Take up one sample."""
        modality, size = _described(sample)
        latest = self._latest.setdefault(modality, _Latest())
        latest.frames.append(sample.frame_id.lstrip("/"))
        if size:
            latest.sizes.append(size)

    def doubts(self) -> tuple[Doubt, ...]:
        """Say which topics come in several frames or sizes."""
        found = []
        for modality, latest in self._latest.items():
            topic = f"topic {self._topics.get(modality, modality)!r} of {modality}"
            if len(frames := Counter(latest.frames)) > 1:
                counted = _listed((f"{name!r} ({number})" for name, number in sorted(frames.items())))
                sentence = (
                    f"expected one frame (frame_id) on {topic}, got {counted} in the latest {len(latest.frames)} messages"
                )
                found.append(Doubt(modality, "several_frames", f"{sentence}: do two publishers share it?"))
            if len(sizes := Counter(latest.sizes)) > 1:
                counted = _listed((f"{size} ({number})" for size, number in sorted(sizes.items())))
                sentence = f"expected one size on {topic}, got {counted} in the latest {len(latest.sizes)} messages"
                found.append(Doubt(modality, "several_sizes", f"{sentence}: do two publishers share it?"))
        return tuple(found)


def _described(sample: SensorSample) -> tuple[Modality, str]:
    """Whose sample it is, and its size ("" where a sample has none that is fixed)."""
    if isinstance(sample, ImageSample):
        return "rgb", f"{sample.pixels.shape[1]} x {sample.pixels.shape[0]}"
    if isinstance(sample, DepthSample):
        return "depth", f"{sample.depth_m.shape[1]} x {sample.depth_m.shape[0]}"
    if isinstance(sample, CloudSample):
        return "lidar", ""
    return "event", f"{sample.width} x {sample.height}" if sample.width else ""


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _MOST_NAMED} more" if len(every) > _MOST_NAMED else ""
    return " and ".join(every) if len(every) <= 2 else ", ".join(every[:_MOST_NAMED]) + more  # noqa: PLR2004 - a pair

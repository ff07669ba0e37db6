"""Topics that several sensors share: the frames (frame_id) and image sizes of the latest samples of each."""

from __future__ import annotations

from collections import Counter, deque

from gemini_core.types import DepthSample, Doubt, EventSample, ImageSample, Modality, SensorSample

_LATEST = 50
_MOST_NAMED = 4


_Size = tuple[int, int] | None
"""Width and height, None where samples have none that is fixed."""


class SharedTopics:
    """Looks at the latest samples of each modality; what a topic was earlier, such as before a new start, does not count.

    Args:
        topics: the topic of each modality, for people.
    """

    def __init__(self, topics: dict[Modality, str]) -> None:
        self._topics = topics
        self._latest: dict[Modality, deque[tuple[str, _Size]]] = {}

    def saw(self, sample: SensorSample) -> None:
        """Take up one sample."""
        modality, size = _described(sample)
        latest = self._latest.get(modality)
        if latest is None:
            latest = self._latest[modality] = deque(maxlen=_LATEST)
        latest.append((sample.frame_id, size))

    def doubts(self) -> tuple[Doubt, ...]:
        """Say which topics come in several frames or sizes."""
        found = []
        for modality, latest in self._latest.items():
            if len(set(latest)) == 1:
                continue
            frames = Counter(repr(name.lstrip("/")) for name, _ in latest)
            sizes = Counter(f"{size[0]} x {size[1]}" for _, size in latest if size)
            if len(frames) > 1:
                found.append(Doubt(modality, "several_frames", self._sentence(modality, "frame (frame_id)", frames)))
            if len(sizes) > 1:
                found.append(Doubt(modality, "several_sizes", self._sentence(modality, "size", sizes)))
        return tuple(found)

    def _sentence(self, modality: Modality, what: str, counted: Counter[str]) -> str:
        topic = f"topic {self._topics.get(modality, modality)!r} of {modality}"
        each = [f"{name} ({number})" for name, number in sorted(counted.items())]
        more = [f"{len(each) - _MOST_NAMED} more"] if len(each) > _MOST_NAMED else []
        got = " and ".join([*each[:_MOST_NAMED], *more])
        return (
            f"expected one {what} on {topic}, got {got} in the latest {counted.total()} messages: do two publishers share it?"
        )


def _described(sample: SensorSample) -> tuple[Modality, _Size]:
    """Whose sample it is, and its size."""
    if isinstance(sample, EventSample):
        return "event", (sample.width, sample.height) if sample.width else None
    if isinstance(sample, ImageSample):
        return "rgb", (sample.pixels.shape[1], sample.pixels.shape[0])
    if isinstance(sample, DepthSample):
        return "depth", (sample.depth_m.shape[1], sample.depth_m.shape[0])
    return "lidar", None

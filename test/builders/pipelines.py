"""Both halves of the pipeline one after the other, as a replay has them, for samples that a test makes itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gemini_core.config import FusionConfig
from gemini_core.pipeline.back import Back, PredictorLike
from gemini_core.pipeline.front import Front
from gemini_core.types import Count, Perception, Sample


class WholePipeline:
    """A front that is given samples, and the back that is given its frames."""

    def __init__(
        self, config: FusionConfig, predictor: PredictorLike | None = None, clock: Callable[[], int] | None = None
    ) -> None:
        self.front = Front(config)
        self.back = Back(config, predictor, clock)

    def push(self, sample: Sample) -> list[Perception]:
        return [self.back.process(frame) for frame in self.front.push_sample(sample)]

    def push_all(self, samples: Iterable[Sample]) -> list[Perception]:
        return [perception for sample in samples for perception in self.push(sample)]

    def flush(self) -> list[Perception]:
        return [self.back.process(frame) for frame in self.front.finish()]

    def counts(self) -> tuple[Count, ...]:
        return (*self.front.counts(), *self.back.counts())


def numbers(counted: Iterable[Count]) -> dict[str, int]:
    """Counts by their keys."""
    return {count.what: count.number for count in counted}

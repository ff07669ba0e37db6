"""Replay a bag through the pipeline, offline: the same decoders, frames, masks and boxes as in the live node."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gemini_core.bag import messages
from gemini_core.bag.reader import BagMessage, BagReader
from gemini_core.bag.topics import RigEntry, match_rig, require_reference
from gemini_core.bag.writer import BagWriter, Storage
from gemini_core.config import FusionConfig
from gemini_core.decode.sensor_clock import ClockState
from gemini_core.errors import BagError
from gemini_core.pipeline.back import Back, PredictorLike
from gemini_core.pipeline.front import Front
from gemini_core.pipeline.published_boxes import outgoing_boxes
from gemini_core.project.points import labelled_sweep
from gemini_core.tables import Distribution, Finding, Findings
from gemini_core.types import Count, Perception, SensorFrame

MASK_TOPIC = "/gemini_fusion/segmentation/mask"
LABEL_INFO_TOPIC = "/gemini_fusion/segmentation/label_info"
DETECTIONS_TOPIC = "/gemini_fusion/detections"
LABELLED_POINTS_TOPIC = "/gemini_fusion/points_labelled"

Progress = Callable[[int, int], None]
"""Called with the number of messages read and the number of all that the rig uses."""


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What a replay did: frames that came out, and of these the complete ones; times per frame; what was counted.

    ``network`` says what ran, ``trained`` is False for weights from a seed (None without a network). ``rig`` has the rig's
    topics and their problems; ``missing`` and ``doubts`` have the latest sentence of each reason. ``notes``: what is odd about
    the bag and was read all the same. ``damage`` is "" or says how it ends early.
    """

    frames: int
    complete: int
    network: str
    trained: bool | None
    rig: tuple[RigEntry, ...]
    stages: tuple[Distribution, ...]
    missing: tuple[Finding, ...]
    doubts: tuple[Finding, ...]
    counts: tuple[Count, ...]
    notes: tuple[str, ...]
    damage: str


class Replay:
    """One pass of one open bag through one pipeline.

    Take either :meth:`frames` (decode and synchronize only) or :meth:`perceptions` (everything), once, to its end; then
    ``stages``, ``missing``, ``counts`` and ``damage`` say how it went. A damaged bag is worked off as far as it can be read.

    Raises:
        BagError: on construction, the bag has no images of the reference camera, and ``needs_reference`` is not False.
    """

    def __init__(
        self,
        bag: BagReader,
        config: FusionConfig,
        predictor: PredictorLike | None = None,
        progress: Progress | None = None,
        *,
        needs_reference: bool = True,
    ) -> None:
        self.rig = match_rig(bag.topics(), config)
        if needs_reference:
            require_reference(self.rig, bag.path)
        self.damage = ""
        self.closed = 0
        self.complete = 0
        self._bag = bag
        self._progress = progress
        self._roles = {entry.topic: entry.role for entry in self.rig if not entry.problem}
        types = {entry.role: entry.type for entry in self.rig if not entry.problem}
        self._front = Front(config, types, clock=time.perf_counter_ns)
        self._back = Back(config, predictor, clock=time.perf_counter_ns)
        self._read_ns = 0
        self._durations_ns: dict[str, list[int]] = {stage: [] for stage in ("read", "decode", "synchronize")}
        self._missing = Findings()
        self._doubts = Findings()
        self._skews_ns: dict[str, list[int]] = {name: [] for name in config.modalities if name != "rgb"}
        self._unreadable: Counter[str] = Counter()

    def perceptions(self) -> Iterator[Perception]:
        """Give what the pipeline says about every reference image, in the order of their stamps."""
        for frame in self.frames():
            yield self.process(frame)

    def process(self, frame: SensorFrame, *, with_points: bool = False) -> Perception:
        """Project one of :meth:`frames` and predict from it; see ``Back.process``."""
        perception = self._back.process(frame, with_points=with_points)
        for timing in perception.timings:
            self.record(timing.stage, timing.duration_ns)
        return perception

    def frames(self) -> Iterator[SensorFrame]:
        """Give the synchronized frames, as they would go to the network."""
        began_ns = time.perf_counter_ns()
        for stored in self._messages():
            role = self._roles[stored.topic]
            try:
                message = stored.message
            except BagError:
                self._unreadable[f"{role}.refused.unreadable"] += 1
                continue
            self._read_ns += time.perf_counter_ns() - began_ns
            for frame in self._front.push(role, message):
                yield self._closed(frame)
            began_ns = time.perf_counter_ns()
        for frame in self._front.finish():
            yield self._closed(frame)
        said = {(row.modality, row.reason) for row in self.doubts()}
        for doubt in self._front.doubts():  # of data that no frame came after, such as images whose stamps stand still
            if (doubt.about, doubt.reason) not in said:
                self._doubts.add(doubt.about, doubt.reason, doubt.detail)

    def record(self, stage: str, duration_ns: int) -> None:
        """Add the time that one frame took in one stage."""
        self._durations_ns.setdefault(stage, []).append(duration_ns)

    def stages(self) -> tuple[Distribution, ...]:
        """How long a frame took in each stage: read, decode and synchronize of all messages since the frame before."""
        return tuple(Distribution.of_ns(stage, durations) for stage, durations in self._durations_ns.items())

    def skews(self) -> tuple[Distribution, ...]:
        """How far the stamps of each modality were from the reference's, without sign."""
        return tuple(Distribution.of_ns(name, map(abs, skews)) for name, skews in self._skews_ns.items())

    def missing(self) -> tuple[Finding, ...]:
        """How many frames lacked which modality, and why."""
        return self._missing.rows()

    def doubts(self) -> tuple[Finding, ...]:
        """What is probably wrong with the data, and in how many frames it was."""
        return self._doubts.rows()

    def counts(self) -> tuple[Count, ...]:
        """Everything that was counted on the way."""
        unreadable = tuple(Count(what, number) for what, number in sorted(self._unreadable.items()))
        return (*unreadable, *self._front.counts(), *self._back.counts())

    def last_refusals(self) -> tuple[str, ...]:
        """One sentence per kind of message that could not be used."""
        return tuple(refusal.message for refusal in self._front.last_refusals())

    def clock(self) -> ClockState | None:
        """How the event sensor's own clock went against its stamps, None where it has none."""
        return next((state for role, state in self._front.clocks() if role == "event.packets"), None)

    def _messages(self) -> Iterator[BagMessage]:
        """Give the messages of the rig's topics up to the end or the damage, which is kept for later."""
        total = sum(topic.count for topic in self._bag.topics() if topic.name in self._roles)
        stream = self._bag.messages(tuple(self._roles))
        done = 0
        while True:
            try:
                stored = next(stream, None)
            except BagError as error:
                self.damage = str(error)
                return
            if stored is None:
                return
            yield stored
            done += 1
            if self._progress is not None:
                self._progress(done, total)

    def _closed(self, frame: SensorFrame) -> SensorFrame:
        self.record("read", self._read_ns)
        self._read_ns = 0
        for timing in frame.timings:
            self.record(timing.stage, timing.duration_ns)
        self.closed += 1
        self.complete += all(status.present for status in frame.status)
        for status in frame.status:
            if not status.present:
                self._missing.add(status.modality, status.reason, status.detail)
            elif status.skew_ns is not None and status.modality in self._skews_ns:
                self._skews_ns[status.modality].append(status.skew_ns)
        for doubt in self._front.doubts():
            self._doubts.add(doubt.about, doubt.reason, doubt.detail)
        return frame


def replay(
    path: str | Path,
    config: FusionConfig,
    out: str | Path,
    storage: Storage = "mcap",
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    labelled_points: bool = False,
) -> ReplayResult:
    """Run a bag through the pipeline and write masks, class names and boxes as a bag, logged at the reference stamps.

    With ``labelled_points`` also the sweeps, with the mask's value at each point. Boxes are left out of frames whose transforms
    they lack, as in the node.

    Raises:
        BagError: the bag cannot be read, has no usable reference image, or ``out`` cannot be written.
        WeightsError: the network's weights do not fit the configuration.
    """
    with BagReader(path) as bag:
        require_reference(match_rig(bag.topics(), config), path)  # before the weights are loaded
        predictor = None
        if config.predicts:
            from gemini_core.predictor import make_predictor  # noqa: PLC0415 - loads torch, which nothing else here needs

            predictor = make_predictor(config)
        run = Replay(bag, config, predictor, progress)
        with BagWriter(out, storage, overwrite=overwrite) as results:
            for frame in run.frames():
                perception = run.process(frame, with_points=labelled_points)
                began_ns = time.perf_counter_ns()
                _write(results, perception, config, with_labels=run.closed == 1)
                if labelled_points:
                    _write_points(results, frame, perception)
                run.record("write", time.perf_counter_ns() - began_ns)
            if not run.closed:
                reasons = run.last_refusals()
                msg = f"{path}: expected reference images that can be used, got none" + "".join(f"; {each}" for each in reasons)
                raise BagError(msg)
        notes = bag.notes
    return ReplayResult(
        frames=run.closed,
        complete=run.complete,
        network="none (model.enabled is false)" if predictor is None else predictor.describe(),
        trained=None if predictor is None else predictor.trained,
        rig=run.rig,
        stages=run.stages(),
        missing=run.missing(),
        doubts=run.doubts(),
        counts=run.counts(),
        notes=notes,
        damage=run.damage,
    )


def _write(bag: BagWriter, perception: Perception, config: FusionConfig, *, with_labels: bool) -> None:
    stamp_ns, frame_id = perception.stamp_ns, perception.frame_id
    if with_labels:
        bag.write(LABEL_INFO_TOPIC, messages.label_info(perception.class_names, stamp_ns, frame_id), stamp_ns)
    bag.write(MASK_TOPIC, messages.mask(perception.mask, stamp_ns, frame_id), stamp_ns)
    outgoing = outgoing_boxes(perception, config.detections)
    if outgoing is not None:
        bag.write(DETECTIONS_TOPIC, messages.detections(outgoing.boxes, stamp_ns, outgoing.frame_id), stamp_ns)


def _write_points(bag: BagWriter, frame: SensorFrame, perception: Perception) -> None:
    cloud = labelled_sweep(frame.lidar, perception)
    if frame.lidar is not None and cloud is not None:
        message = messages.point_cloud(cloud, frame.lidar.stamp_ns, frame.lidar.frame_id)
        bag.write(LABELLED_POINTS_TOPIC, message, perception.stamp_ns)

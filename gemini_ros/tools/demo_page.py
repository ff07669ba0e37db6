"""The demo's page, its contents: what the live run published, compared with the offline replay of the same bag."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from gemini_core.bag.labels import GROUND_TRUTH, BagLabels, where_labels_are
from gemini_core.bag.reader import BagReader
from gemini_core.config.fusion import FusionConfig
from gemini_core.errors import DataError
from gemini_core.evaluate.segmentation import ConfusionMatrix
from gemini_core.files import write_png
from gemini_core.pipeline.published_boxes import outgoing_boxes
from gemini_core.predictor import BoxPredictor, Predictor, make_predictor
from gemini_core.render import grid_image, mask_image
from gemini_core.replay import Replay
from gemini_core.tables import Distribution, Finding, Findings
from gemini_core.types import U8, AlignedGrids, Count, Detection3D, ModalityStatus, Perception
from gemini_ros.tools.demo_boxes import BoxPage, truth_by_stamp
from gemini_ros.tools.demo_report import DemoReport, Fact, FrameRow, Picture, render_demo_page
from gemini_ros.tools.live import LiveRun

MAX_FRAMES_SHOWN = 60
_TITLES = {"rgb": "camera", "depth": "depth, registered", "lidar": "LiDAR, projected", "event": "events"}


def write_page(out: Path, bag: Path, config: FusionConfig, run: LiveRun, problems: tuple[str, ...]) -> tuple[int, Path]:
    """Replay the bag, compare with the live masks, write pictures and page.

    Where the bag says what there was (``GROUND_TRUTH``), live masks are scored against it, and it is shown beside them; so are
    boxes, where the configuration asks for these.

    Returns:
        How many live frames differ from the replayed ones, in mask or boxes (one that the replay does not know differs too),
        and the page's path.

    Raises:
        GeminiError: the bag cannot be read, or the page cannot be written.
    """
    predictor = make_predictor(config)
    truth, why_none = _ground_truth(bag, config)
    comparison = _Comparison(out, bag, config, run, truth)
    with BagReader(bag) as reader:
        replay = Replay(reader, config, predictor)
        for frame in replay.frames():
            if frame.stamp_ns in run.masks:
                comparison.add(replay.process(frame))
    differing = len(run.masks) - comparison.equal
    if differing:
        problems = (*problems, f"{differing} live frames differ from the replay of the same bag")
    facts = _facts(bag, config, predictor, run, comparison.equal)
    report = DemoReport(
        title="gemini_ros: four sensors on the same pixels, live",
        facts=(*facts, *_score(comparison.scored, why_none), *comparison.boxes.tally.facts()),
        trained=predictor is not None and predictor.trained,
        frames_in=run.frames_in,
        frames_out=len(run.masks),
        frames_skipped=run.counter("frames.skipped_busy"),
        problems=problems,
        drops=_drops(run.counters),
        missing=missing_of(run),
        doubts=replay.doubts(),
        skews=_distributions(run, "skew_ms."),
        stages=_stages(run),
        ages=_ages(run),
        class_names=config.model.classes,
        frames=tuple(comparison.rows),
    )
    return differing, render_demo_page(report, out)


class _Comparison:
    """Holds live frames against the replay's, and scores them; pictures of the first ``MAX_FRAMES_SHOWN`` are written."""

    def __init__(self, out: Path, bag: Path, config: FusionConfig, run: LiveRun, truth: BagLabels | None) -> None:
        self._out = out
        self._config = config
        self._run = run
        self._truth = truth
        self._wants_boxes = config.detections.enabled and config.predicts
        self.boxes = BoxPage(out, config, truth_by_stamp(where_labels_are(bag)) if self._wants_boxes else {})
        self.scored = ConfusionMatrix(len(config.model.classes))
        self.rows: list[FrameRow] = []
        self.equal = 0

    def add(self, perception: Perception) -> None:
        """Take one frame that the replay made and the node published."""
        stamp_ns = perception.stamp_ns
        mask, live_boxes = self._run.masks[stamp_ns], self._run.boxes.get(stamp_ns)
        same = np.array_equal(perception.mask, mask) and _same_boxes(perception, self._config, live_boxes)
        self.equal += same
        label = None if self._truth is None else self._truth.at(stamp_ns)
        if label is not None:
            self.scored.add(label, mask)
        shown = len(self.rows) < MAX_FRAMES_SHOWN
        pictures = self.boxes.frame(perception, live_boxes, draw=shown) if self._wants_boxes else []
        if shown:
            row = _row(self._out, perception, self._run, label, same=same)
            self.rows.append(replace(row, pictures=(*row.pictures, *pictures)))


def _same_boxes(perception: Perception, config: FusionConfig, live: tuple[Detection3D, ...] | None) -> bool:
    """Whether the node published the boxes that the replay makes, number for number; None: it published none."""
    outgoing = outgoing_boxes(perception, config.detections)
    return live == (None if outgoing is None else outgoing.boxes)


def _ground_truth(bag: Path, config: FusionConfig) -> tuple[BagLabels | None, str]:
    """The labels of a bag that has some, or None and why the masks cannot be held against those that it has ("": none)."""
    with BagReader(where_labels_are(bag)) as reader:
        names = {topic.name for topic in reader.topics()}
    if not {GROUND_TRUTH.images, GROUND_TRUTH.names} <= names:
        return None, ""
    if config.rgb.rectify:
        return None, "not compared: it belongs to the image as recorded, masks to the rectified one"
    try:
        return BagLabels(bag, config.model.classes, GROUND_TRUTH), ""
    except DataError as error:  # somebody's own recording with other classes: a demo all the same
        return None, f"not compared: {error}"


def _score(scored: ConfusionMatrix, why_none: str) -> tuple[Fact, ...]:
    name = "live masks against the recording's ground truth"
    scores = scored.scores()
    if not scores.pixels:
        return (Fact(name, why_none),) if why_none else ()
    right = f"{100 * scores.pixel_accuracy:.1f} % of pixels right"
    return (Fact(name, f"mean IoU {100 * scores.mean_iou:.1f} % over {scores.counted} classes; {right}"),)


def _row(out: Path, perception: Perception, run: LiveRun, label: U8 | None, *, same: bool) -> FrameRow:
    name = f"{perception.index:04d}"
    pictures = [_picture(out, name, perception.grids, status) for status in perception.status]
    overlay = run.overlays.get(perception.stamp_ns)
    if overlay is None:
        pictures.append(Picture("mask: no overlay was recorded", ""))
    else:
        path = f"frames/{name}_mask.png"
        write_png(out / path, overlay)
        pictures.append(Picture("mask, as published live", path))
    if label is not None:
        path = f"frames/{name}_truth.png"
        write_png(out / path, mask_image(label, perception.class_names))
        pictures.append(Picture("what there was: the recording's ground truth", path))
    missing = [
        f"{status.modality} missing: {status.detail or status.reason}" for status in perception.status if not status.present
    ]
    sentence = "; ".join(missing) or "all sensors"
    sentence += "; live output equals the replay's" if same else "; LIVE OUTPUT DIFFERS FROM THE REPLAY"
    return FrameRow(perception.index, perception.stamp_ns, not missing, sentence, tuple(pictures))


def _picture(out: Path, name: str, grids: AlignedGrids, status: ModalityStatus) -> Picture:
    title = _TITLES[status.modality]
    grid = grids.grid(status.modality)
    if grid is None:
        return Picture(f"{title}: {status.reason}", "")
    path = f"frames/{name}_{status.modality}.png"
    write_png(out / path, grid_image(grids, grid))
    return Picture(f"{title}, {100 * grid.coverage:.0f} % of the pixels", path)


def _facts(
    bag: Path, config: FusionConfig, predictor: Predictor | BoxPredictor | None, run: LiveRun, equal: int
) -> tuple[Fact, ...]:
    played = ", ".join(f"{number} {topic}" for topic, number in sorted(run.sent.items()))
    return (
        Fact("recording", bag.name),
        Fact("messages played", played),
        Fact("network", "none" if predictor is None else predictor.describe()),
        Fact("network input", f"{config.grid.width} x {config.grid.height}, {', '.join(config.modalities)}"),
        Fact("live masks and boxes equal to the replay's, bit for bit", f"{equal} of {len(run.masks)}"),
        Fact("played at", f"{run.rate:g} times its own rate"),
        Fact("the player was late by at most", f"{run.player_late_ms:.0f} ms"),
        Fact("machine", f"{platform.machine()}, {platform.system()} {platform.release()}, Python {platform.python_version()}"),
    )


def _drops(counters: Mapping[str, str]) -> tuple[Count, ...]:
    """Every counter of something that did not make it; refusals by reason, without their sums per topic."""
    words = ("dropped", "refused", "skipped", "lost", "forced", "failed", "crowded_out", "resets")
    found = {key: int(value) for key, value in counters.items() if value.isdigit() and any(word in key for word in words)}
    return tuple(Count(key, number) for key, number in sorted(found.items()) if number and not key.endswith(".refused"))


def missing_of(run: LiveRun) -> tuple[Finding, ...]:
    """What the published frames lacked, with the latest sentence of each reason."""
    found = Findings()
    for timing in run.timings:
        for key, reason in timing.items():
            if key.startswith("missing."):
                modality = key.removeprefix("missing.")
                found.add(modality, reason, timing.get(f"missing_detail.{modality}", ""))
    return found.rows()


def _distribution(run: LiveRun, key: str, name: str) -> Distribution:
    return Distribution.of(name, [abs(float(timing[key])) for timing in run.timings if key in timing])


def _distributions(run: LiveRun, prefix: str) -> tuple[Distribution, ...]:
    keys = dict.fromkeys(key for timing in run.timings for key in timing if key.startswith(prefix))
    return tuple(_distribution(run, key, key.removeprefix(prefix)) for key in keys)


def _ages(run: LiveRun) -> tuple[Distribution, ...]:
    """Arrival to publish, and the age of the stamp, which means something only at the recording's own rate."""
    total = _distribution(run, "total_ms", "arrival to publish")
    return (_distribution(run, "age_ms", "age at publish"), total) if run.rate == 1.0 else (total,)


def _stages(run: LiveRun) -> tuple[Distribution, ...]:
    waits = (
        _distribution(run, "sync_wait_ms", "wait for the other sensors"),
        _distribution(run, "queue_ms", "wait for the network"),
    )
    return (*waits, *_distributions(run, "stage_ms."))

"""One live run: the node, a recorder and a player as three processes on one DDS domain; what came out of it.

Used by the demo, by the benchmark and by the tests that compare live with replay.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gemini_core.bag.messages import read_detections
from gemini_core.bag.reader import BagReader
from gemini_core.config.fusion import load_config
from gemini_core.errors import GeminiError
from gemini_core.types import U8, Detection3D
from gemini_ros.dds import environment
from gemini_ros.tools.processes import LiveProcess, cpu_seconds

NODE = "/gemini_fusion"
MASK, TIMING, OVERLAY = f"{NODE}/segmentation/mask", f"{NODE}/timing", f"{NODE}/segmentation/overlay"
BOXES = f"{NODE}/detections"
OUTPUTS = (MASK, f"{NODE}/segmentation/label_info", BOXES, TIMING, "/diagnostics")
_BILLION = 1_000_000_000


class LiveRunError(GeminiError):
    """A live run that could not be carried through."""


@dataclass(frozen=True)
class LiveRun:
    """What came out of a live run; all stamps are those of the bag (restamping undone).

    ``masks`` and ``boxes`` by stamp; ``timings`` one mapping of the ~/timing status' keys per frame; ``counters`` from the last
    /diagnostics; ``rate`` is the speed of playing; ``frames_in`` reference images that were played; ``seconds`` of wall time
    that the playing took; ``node_cpu_s`` CPU time of the node's process while it played.
    """

    recorded: Path
    rate: float
    frames_in: int
    masks: Mapping[int, U8]
    boxes: Mapping[int, tuple[Detection3D, ...]]
    overlays: Mapping[int, U8]
    timings: tuple[Mapping[str, str], ...]
    counters: Mapping[str, str]
    sent: Mapping[str, int]
    player_late_ms: float
    seconds: float
    node_cpu_s: float
    node_exit: int

    def counter(self, name: str) -> int:
        """A counter of the node; 0 where it never counted that."""
        return int(self.counters.get(name, "0"))


@dataclass(frozen=True)
class LivePlan:
    """What to run: the bag, the node's parameter file and overrides, how to play, and where logs and outputs go."""

    bag: Path
    params_file: Path
    out: Path
    overrides: Mapping[str, object] = field(default_factory=dict)
    rate: float = 1.0
    loops: int = 1
    record_overlay: bool = False
    exclude: tuple[str, ...] = ("/ground_truth",)
    quiet_s: float = 3.0
    start_timeout_s: float = 120.0


def run_live(plan: LivePlan, echo: Callable[[str], None] = lambda _line: None) -> LiveRun:
    """Carry out a plan.

    Raises:
        LiveRunError: a process did not start, ended early or printed an error; the sentence names its log file.
        GeminiError: the bag or the parameter file cannot be used.
    """
    config = load_config(plan.params_file, plan.overrides)
    plan.out.mkdir(parents=True, exist_ok=True)
    played = [name for name in config.roles_by_absolute_topic() if name in _bag_topics(plan.bag)]
    outputs = (*OUTPUTS, OVERLAY) if plan.record_overlay else OUTPUTS
    recorded = plan.out / "recorded"
    if recorded.exists():
        msg = f"{recorded}: expected a path where nothing is yet, to record to"
        raise LiveRunError(msg)
    variables = _isolated_environment()
    node_arguments = ["--ros-args", "--params-file", str(plan.params_file)]
    for key, value in plan.overrides.items():
        node_arguments += ["-p", f"{key}:={json.dumps(value)}"]
    report = plan.out / "played.json"
    player_arguments = [
        str(plan.bag),
        "--rate",
        str(plan.rate),
        "--loop",
        str(plan.loops),
        "--report",
        str(report),
        "--restamp",
    ]
    for topic in played:
        player_arguments += ["--wait-for", topic]
    for prefix in plan.exclude:
        player_arguments += ["--exclude", prefix]
    player_arguments += ["--wait-s", str(plan.start_timeout_s)]

    def start(name: str, module: str, arguments: list[str]) -> LiveProcess:
        return LiveProcess(name, module, arguments, environment=variables, log=plan.out / f"{name}.log", echo=echo)

    processes: list[LiveProcess] = []
    try:
        recorder = start("recorder", "gemini_ros.tools.record", [str(recorded), *outputs, "--print-timing"])
        processes.append(recorder)
        node = start("node", "gemini_ros.main", node_arguments)
        processes.append(node)
        _await_topics(recorder, node, outputs, plan)
        player = start("player", "gemini_ros.tools.play", player_arguments)
        processes.append(player)
        cpu_before_s, started = cpu_seconds(node.process_id), time.monotonic()
        while player.wait(0.5) is None:
            _must_run(node, plan)
            _must_run(recorder, plan)
        seconds = time.monotonic() - started
        if player.wait(0.0) != 0:
            msg = f"expected the player to end well, got: {player.last_words()} (log: {plan.out / 'player.log'})"
            raise LiveRunError(msg)
        _await_quiet(recorder, node, plan)
        node_cpu_s = cpu_seconds(node.process_id) - cpu_before_s
        node_exit = node.stop()
        if recorder.stop() != 0:
            msg = f"expected the recorder to end well, got: {recorder.last_words()} (log: {plan.out / 'recorder.log'})"
            raise LiveRunError(msg)
    finally:
        for process in reversed(processes):
            process.stop()
    played_report = json.loads(report.read_text(encoding="utf-8"))
    outcome = _Outcome(config.topics.rgb.image, plan.rate, node_cpu_s, seconds, node_exit)
    return _read_back(recorded, played_report, outcome)


@dataclass(frozen=True)
class _Outcome:
    """What is known of a run beside its recording."""

    image_topic: str
    rate: float
    node_cpu_s: float
    seconds: float
    node_exit: int


def _bag_topics(bag: Path) -> set[str]:
    with BagReader(bag) as reader:
        return {topic.name for topic in reader.topics()}


def _isolated_environment() -> dict[str, str]:
    """The large-message settings, and a domain of its own on this machine, so that no other graph is disturbed."""
    variables = environment()
    variables["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    variables["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)  # above 101, Linux' own ports get in the way
    return variables


def _must_run(process: LiveProcess, plan: LivePlan) -> None:
    if not process.running:
        msg = f"the {process.name} ended early: {process.last_words()} (log: {plan.out / f'{process.name}.log'})"
        raise LiveRunError(msg)


def _await_topics(recorder: LiveProcess, node: LiveProcess, outputs: tuple[str, ...], plan: LivePlan) -> None:
    def complete(lines: list[str]) -> bool:
        return all(any(line.startswith(f"recording {topic} ") for line in lines) for topic in outputs)

    deadline = time.monotonic() + plan.start_timeout_s
    while not recorder.wait_for(complete, 0.5):
        _must_run(recorder, plan)
        _must_run(node, plan)
        if time.monotonic() > deadline:
            msg = f"the node did not offer its topics in {plan.start_timeout_s:g} s (log: {plan.out / 'node.log'})"
            raise LiveRunError(msg)


def _await_quiet(recorder: LiveProcess, node: LiveProcess, plan: LivePlan) -> None:
    """Wait until the recorder has printed nothing for ``quiet_s``: the node has worked off what waited."""
    count = -1
    while count != len(recorder.lines):
        count = len(recorder.lines)
        time.sleep(plan.quiet_s)
        _must_run(node, plan)


def _read_back(recorded: Path, report: Mapping[str, object], outcome: _Outcome) -> LiveRun:
    offset_ns = int(str(report["offset_ns"]))
    sent: dict[str, int] = dict(report["sent"])  # type: ignore[call-overload] # our own file, written by the player
    masks: dict[int, U8] = {}
    boxes: dict[int, tuple[Detection3D, ...]] = {}
    overlays: dict[int, U8] = {}
    timings: list[Mapping[str, str]] = []
    counters: dict[str, str] = {}
    with BagReader(recorded) as bag:
        for item in bag.messages():
            message = item.message
            stamp = message.header.stamp  # every output has a header
            stamp_ns = stamp.sec * _BILLION + stamp.nanosec - offset_ns
            if item.topic == MASK:
                masks[stamp_ns] = np.asarray(message.data).reshape(message.height, message.width)
            elif item.topic == BOXES:
                boxes[stamp_ns] = read_detections(message)
            elif item.topic == OVERLAY:
                overlays[stamp_ns] = np.asarray(message.data).reshape(message.height, message.width, 3)
            elif item.topic == TIMING:
                timings.extend({value.key: value.value for value in status.values} for status in message.status)
            elif item.topic == "/diagnostics":
                for status in message.status:
                    counters.update({value.key: value.value for value in status.values})
    image_topic = outcome.image_topic if outcome.image_topic.startswith("/") else f"/{outcome.image_topic}"
    return LiveRun(
        recorded=recorded,
        rate=outcome.rate,
        frames_in=sent.get(image_topic, 0),
        masks=masks,
        boxes=boxes,
        overlays=overlays,
        timings=tuple(timings),
        counters=counters,
        sent=sent,
        player_late_ms=float(str(report["late_ms"])),
        seconds=outcome.seconds,
        node_cpu_s=outcome.node_cpu_s,
        node_exit=outcome.node_exit,
    )

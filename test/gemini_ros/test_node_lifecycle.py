"""The live node's lifecycle: transitions, weights and parameters that do not fit, quality of service, the executable."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("vision_msgs.msg", reason="needs the ROS message packages")

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from gemini_core.config import FusionConfig
from gemini_core.model import checkpoints
from gemini_core.model.segmentation import Segmenter, SegmenterConfig
from gemini_core.types import MODALITIES
from live_graph import DOMAIN, change_state, state_by_service, values

pytestmark = pytest.mark.ros

ROOT = Path(__file__).resolve().parents[2]


def test_a_lifecycle_manager_can_drive_it(graph):
    node = graph.start()
    node.start()  # autostart is off
    for transition, state in (
        (Transition.TRANSITION_CONFIGURE, "inactive"),
        (Transition.TRANSITION_ACTIVATE, "active"),
        (Transition.TRANSITION_DEACTIVATE, "inactive"),
        (Transition.TRANSITION_ACTIVATE, "active"),
        (Transition.TRANSITION_DEACTIVATE, "inactive"),
        (Transition.TRANSITION_CLEANUP, "unconfigured"),
        (Transition.TRANSITION_CONFIGURE, "inactive"),
        (Transition.TRANSITION_INACTIVE_SHUTDOWN, "finalized"),
    ):
        assert change_state(graph, transition)
        assert state_by_service(graph) == node.state == state
        said = graph.diagnostics()["state"]
        assert values(said)["state"] == state
    assert not any(thread.name == "gemini_fusion_worker" for thread in threading.enumerate())


def test_autostart(graph):
    node = graph.start(node__autostart=True)
    node.start()
    assert node.state == "active"


def test_what_waits_is_published_on_the_way_down(graph):
    graph.start(node__idle_flush_ms=60000.0)
    graph.activate("rgb")
    stamps = graph.send(1)
    graph.spin(0.2)
    assert not graph.masks()  # it waits for the other sensors
    graph.node.trigger_deactivate()
    graph.await_masks(stamps)


def weights_file(folder: Path, modalities: tuple[str, ...], classes: tuple[str, ...]) -> str:
    path = folder / "weights.safetensors"
    segmenter = Segmenter(SegmenterConfig("mit_b0", modalities, len(classes), 8))
    checkpoints.save(segmenter, path, classes, trained=False)
    return str(path)


CLASSES = FusionConfig().model.classes


@pytest.mark.parametrize(
    ("modalities", "classes", "says"),
    [
        (None, CLASSES, "nowhere.safetensors"),
        (("rgb", "depth"), CLASSES, "weights for modalities rgb, depth, event, lidar as configured, got rgb, depth"),
        (MODALITIES, CLASSES[:-1], "weights for classes road"),
    ],
)
def test_weights_that_do_not_fit_leave_the_node_alive(graph, tmp_path, modalities, classes, says):
    path = str(tmp_path / "nowhere.safetensors") if modalities is None else weights_file(tmp_path, modalities, classes)
    node = graph.start(model__enabled=True, model__weights=path)
    assert not change_state(graph, Transition.TRANSITION_CONFIGURE)
    assert node.state == state_by_service(graph) == "unconfigured"
    said = graph.diagnostics()["state"]
    assert said.level == DiagnosticStatus.ERROR
    assert said.message.startswith("configure failed: ")
    assert says in said.message
    assert node.set_parameters([Parameter("model.enabled", value=False)])[0].successful
    assert change_state(graph, Transition.TRANSITION_CONFIGURE)
    assert graph.diagnostics()["state"].level == DiagnosticStatus.WARN  # inactive


def test_parameters_that_do_not_fit_leave_the_node_alive(graph):
    node = graph.start(lidar__min_height_m=20.0, grid__heigth=96)
    node.trigger_configure()
    assert node.state == "unconfigured"
    assert "unknown parameter 'grid.heigth' (nearest known: grid.height" in graph.diagnostics()["state"].message


def test_a_fixed_parameter_is_refused_while_active_and_taken_up_after_cleanup(graph):
    node = graph.start()
    graph.activate("rgb")
    (result,) = node.set_parameters([Parameter("grid.height", value=64)])
    assert not result.successful
    assert result.reason == "grid.height: changes only while the node is unconfigured, and it is active; clean it up first"
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert node.set_parameters([Parameter("grid.height", value=64)])[0].successful
    node.trigger_configure()
    assert node.state == "inactive"


def test_a_live_parameter_stays_for_the_next_activation(graph):
    node = graph.start(node__overlay_alpha=0.25)
    node.trigger_configure()
    assert node.set_parameters([Parameter("node.overlay_alpha", value=0.5)])[0].successful  # while inactive
    node.trigger_activate()
    assert node._session.config.node.overlay_alpha == 0.5
    assert node.set_parameters([Parameter("node.overlay_alpha", value=1.0)])[0].successful  # while active
    assert node._session.config.node.overlay_alpha == 1.0
    node.trigger_deactivate()
    node.trigger_activate()
    assert node._session.config.node.overlay_alpha == 1.0


# --------------------------------------------------------------------------------------------------------------------
# Quality of service


def test_a_qos_mismatch_is_reported_with_both_profiles(graph):
    graph.start(**{"qos_overrides./rgb/image.subscription.reliability": "reliable"})
    best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    graph.withdraw()
    graph.node.trigger_configure()
    graph.clear()
    graph.node.trigger_activate()
    publisher = graph.rig.create_publisher(Image, "/rgb/image", best_effort)
    expected = "QoS incompatible on /rgb/image: rig offers best_effort, volatile, this node asks for reliable, volatile"
    graph.spin_until(lambda: graph.diagnostics()["connections"].level == DiagnosticStatus.WARN)
    report = graph.last_diagnostics()
    assert report["connections"].message == expected
    assert values(report["inputs"])["rgb.missing"] == "qos_incompatible"
    assert expected in report["inputs"].message
    graph.rig.destroy_publisher(publisher)
    graph.spin_until(lambda: graph.diagnostics()["connections"].level == DiagnosticStatus.OK)


def test_a_listener_that_cannot_be_served_is_reported(graph):
    graph.start()
    graph.activate("rgb")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    subscription = graph.listen("~/segmentation/mask", Image, latched)
    graph.spin_until(lambda: graph.diagnostics()["connections"].level == DiagnosticStatus.WARN)
    assert graph.last_diagnostics()["connections"].message == (
        "QoS incompatible on /gemini_fusion/segmentation/mask: rig asks for reliable, transient_local, "
        "this node offers reliable, volatile"
    )
    graph.rig.destroy_subscription(subscription)


@pytest.mark.parametrize(
    ("override", "value", "says"),
    [
        ("/rgb/image.subscription.reliability", "bogus", "expected one of system_default, reliable, best_effort"),
        ("/rgb/image.subscription.depth", "ten", "expected an integer from 1 to 2147483647, got 'ten'"),
        ("/rgb/image.subscription.depth", -1, "expected an integer from 1 to 2147483647, got -1"),
        ("/gemini_fusion/timing.publisher.history", 3, "expected one of system_default, keep_last, keep_all"),
    ],
)
def test_a_qos_override_that_cannot_be_is_one_sentence(graph, override, value, says):
    node = graph.start(**{f"qos_overrides.{override}": value})
    assert not change_state(graph, Transition.TRANSITION_CONFIGURE)
    assert node.state == state_by_service(graph) == "unconfigured"
    said = graph.diagnostics()["state"].message
    assert said.startswith(f"configure failed: parameters: qos_overrides.{override}: {says}")
    assert "\n" not in said


def test_a_topic_name_that_cannot_be_is_one_sentence(graph):
    node = graph.start(topics__depth__image="/depth image")
    assert not change_state(graph, Transition.TRANSITION_CONFIGURE)
    assert node.state == "unconfigured"
    said = graph.diagnostics()["state"].message
    assert said.startswith("configure failed: parameters: topic of depth.image: expected a topic name, got '/depth image' (")


def test_an_activation_that_breaks_off_leaves_the_node_alive(graph):
    node = graph.start()
    assert change_state(graph, Transition.TRANSITION_CONFIGURE)
    other = graph.rig.create_publisher(Header, "/depth/image", 10)  # one DDS participant may not have two types on a topic
    assert not change_state(graph, Transition.TRANSITION_ACTIVATE)
    assert node.state == state_by_service(graph) == "unconfigured"
    assert graph.diagnostics()["state"].message.startswith("activate failed")
    assert not any(thread.name == "gemini_fusion_worker" for thread in threading.enumerate())
    graph.rig.destroy_publisher(other)
    assert change_state(graph, Transition.TRANSITION_CONFIGURE)
    assert change_state(graph, Transition.TRANSITION_ACTIVATE)
    assert node.state == "active"


def test_diagnostics_that_cannot_be_published_end_no_node_and_are_counted(graph, monkeypatch):
    node = graph.start()
    graph.spin(0.1)
    with monkeypatch.context() as broken:
        broken.setattr(node._diagnostics, "publish", _cannot_publish)  # what a middleware does under load cannot be had
        for _ in range(3):
            node._diagnose()
    graph.spin_until(lambda: int(values(graph.diagnostics()["state"])["diagnostics.failed"]) >= 3)


def _cannot_publish(_message):
    raise RuntimeError  # what rclpy's RCLError is


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["fifo", "device"])
def test_weights_that_are_no_regular_file_leave_the_node_alive(graph, tmp_path, make):
    make(tmp_path / "weights")
    node = graph.start(model__enabled=True, model__weights=str(tmp_path / "weights"))
    assert not change_state(graph, Transition.TRANSITION_CONFIGURE)
    assert node.state == "unconfigured"
    assert "expected a regular file, got a" in graph.diagnostics()["state"].message


# --------------------------------------------------------------------------------------------------------------------
# The executable


def run_node(*arguments: str) -> subprocess.Popen[str]:
    variables = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN % 100 + 1), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "gemini_ros.main", "--ros-args", *arguments],
        cwd=ROOT,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_line(process: subprocess.Popen[str], part: str) -> list[str]:
    """Read up to the line with ``part``; a process that never says it is ended after a minute."""
    lines, watchdog = [], threading.Timer(60, process.kill)
    watchdog.start()
    try:
        for line in process.stdout:
            lines.append(line)
            if part in line:
                return lines
    finally:
        watchdog.cancel()
    raise AssertionError("".join(lines))


def test_a_parameter_file_that_is_not_there_is_one_line():
    said, _ = (process := run_node("--params-file", "nowhere.yaml")).communicate(timeout=30)
    assert process.returncode == 2
    assert "Traceback" not in said
    assert "nowhere.yaml" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_process_in_order(number):
    if number == signal.SIGINT:
        arguments, line = ["--params-file", "config/fusion.yaml", "-p", "model.enabled:=false"], "activate: done, active"
    else:
        arguments, line = ["-p", "grid.heigth:=96"], "unknown parameter 'grid.heigth' (nearest known: grid.height"
    process = run_node(*arguments)
    lines = wait_for_line(process, line)
    process.send_signal(number)
    rest, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in "".join(lines) + rest
    assert "shutdown: done, finalized" in rest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after_s", [0.6, 1.5])
def test_a_signal_while_it_is_loaded_ends_the_process_without_a_traceback(number, after_s):
    process = run_node("-p", "model.enabled:=false")
    time.sleep(after_s)
    began = time.monotonic()
    process.send_signal(number)
    said, _ = process.communicate(timeout=30)
    assert time.monotonic() - began < 5.0
    assert process.returncode in (0, 128 + number)  # 0 where it was up already
    assert "Traceback" not in said

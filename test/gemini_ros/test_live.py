"""The node as its own process on a real graph, with player and recorder: what comes out live equals the replay."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no rclpy on this machine")

from gemini_core.bag import kitti, messages
from gemini_core.bag.labels import GROUND_TRUTH, BagLabels
from gemini_core.bag.reader import BagReader
from gemini_core.bag.writer import BagWriter
from gemini_core.config.fusion import FusionConfig, load_config
from gemini_core.errors import ConfigError
from gemini_core.evaluate.segmentation import ConfusionMatrix
from gemini_core.pipeline.published_boxes import outgoing_boxes
from gemini_core.predictor import Predictor
from gemini_core.replay import Replay
from gemini_core.simulation.record import simulate
from gemini_core.simulation.rig import default_rig
from gemini_core.tables import Finding
from gemini_core.types import StampedTransform
from gemini_ros.dds import config_file
from gemini_ros.tools import play, player
from gemini_ros.tools.demo import judge
from gemini_ros.tools.demo_page import missing_of, write_page
from gemini_ros.tools.live import LivePlan, LiveRun, LiveRunError, run_live

# A long queue and much patience: these tests are about what comes out, on a machine of any speed.
PATIENT = {"sync.max_wait_ms": 20000.0, "node.queue_size": 50, "node.idle_flush_ms": 3000.0, "model.threads": 2}


def replayed(bag, config):
    with BagReader(bag) as reader:
        perceptions = Replay(reader, config, Predictor(config)).perceptions()
        return {perception.stamp_ns: (perception, outgoing_boxes(perception, config.detections)) for perception in perceptions}


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_four_sensors_live_equal_the_replay_bit_for_bit(tmp_path):
    pytest.importorskip("open3d", reason="the extra 'simulation' is not installed")
    bag = tmp_path / "street"
    simulate(bag, seed=3, seconds=1.0, rig=default_rig(0.25))
    boxes = {"detections.enabled": True, "detections.base_frame": "base_link", "detections.frame": "odom"}
    trained = {"model.weights": "shipped:simulated", "lidar.point_size_px": 3, "detections.min_score": 0.05}
    overrides = {**PATIENT, "grid.height": 96, "grid.width": 128, **boxes, **trained}
    params_file = config_file("fusion.yaml")
    run = run_live(LivePlan(bag=bag, params_file=params_file, out=tmp_path / "live", overrides=overrides))
    assert run.frames_in == 10
    assert judge(run) == ()
    expected = replayed(bag, load_config(params_file, overrides))
    assert sorted(run.masks) == sorted(expected) == sorted(run.boxes)
    for stamp_ns, (perception, outgoing) in expected.items():
        np.testing.assert_array_equal(run.masks[stamp_ns], perception.mask)
        assert run.boxes[stamp_ns] == outgoing.boxes
        assert all(entry.present for entry in perception.status)
    assert any(run.boxes.values())
    assert all(timing["modalities"] == "rgb, depth, event, lidar" for timing in run.timings)
    with BagReader(run.recorded) as recorded:  # the outputs carry the reference's frame, and the names of the classes
        found = {item.topic: item.message for item in recorded.messages()}
    assert found["/gemini_fusion/segmentation/mask"].header.frame_id == "rgb_optical"
    assert found["/gemini_fusion/detections"].header.frame_id == "odom"
    assert [entry.class_name for entry in found["/gemini_fusion/segmentation/label_info"].class_map][:2] == [
        "road",
        "lane_marking",
    ]
    hold_the_page(tmp_path, bag, load_config(params_file, overrides), run)
    other = load_config(params_file, {**overrides, "model.classes": ["anything", "else"], "model.enabled": False})
    _, page = write_page(tmp_path / "other", bag, other, run, ())
    assert "not compared: " in page.read_text()  # a recording whose classes are not those of the network


def hold_the_page(folder: Path, bag: Path, config: FusionConfig, run: LiveRun) -> None:
    """The page shows the recording's ground truth beside every mask, and the score of what was published."""
    differing, page = write_page(folder / "page", bag, config, run, ())
    assert differing == 0
    labels, matrix = BagLabels(bag, config.model.classes, GROUND_TRUTH), ConfusionMatrix(len(config.model.classes))
    for stamp_ns, mask in run.masks.items():
        matrix.add(labels.at(stamp_ns), mask)
    text = page.read_text()
    assert text.count("from above, ground truth in green</figcaption>") == len(run.masks)
    assert "live boxes against the ground truth" in text
    assert text.count("ground truth</figcaption>") == len(run.masks)
    assert f"mean IoU {100 * matrix.scores().mean_iou:.1f} % over {matrix.scores().counted} classes" in text


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_kitti_live_sixteen_frames_in_sixteen_masks_out(tmp_path, real_dir):
    bag = tmp_path / "kitti"
    kitti.from_kitti_raw(real_dir / "kitti_raw", bag)
    params_file = config_file("kitti.yaml")
    overrides = {**PATIENT, "grid.height": 96, "grid.width": 320}
    run = run_live(LivePlan(bag=bag, params_file=params_file, out=tmp_path / "live", overrides=overrides, rate=0.5))
    assert (run.frames_in, len(run.masks)) == (16, 16)
    expected = replayed(bag, load_config(params_file, overrides))
    for stamp_ns, mask in run.masks.items():
        assert mask.shape == (375, 1242)
        np.testing.assert_array_equal(mask, expected[stamp_ns][0].mask)


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_every_event_of_a_real_recording_is_decoded_live(tmp_path, real_dir):
    overrides = {"modalities": ["rgb", "event"], "topics.event.packets": "/event_camera/events", "event.alignment": "same_view"}
    plan = LivePlan(
        bag=real_dir / "events" / "evt3_640x480_bag",
        params_file=config_file("fusion.yaml"),
        out=tmp_path / "live",
        overrides={**overrides, "model.enabled": False},
        rate=0.5,
    )
    run = run_live(plan)
    assert run.counter("event.packets.events") == 343_474
    assert not [name for name in run.counters if name.startswith("event.packets.dropped")]
    assert "rgb" in run.counters["missing"]  # there is no reference camera, and the node says so
    assert not run.masks


@pytest.mark.ros
@pytest.mark.timeout(120)
def test_a_node_that_does_not_start_is_named_with_its_log(tmp_path):
    bag = tmp_path / "street"
    with BagWriter(bag) as writer:
        writer.write("/rgb/image", messages.image(np.zeros((64, 64, 3), np.uint8), "rgb8", 10**9, "rgb_optical"), 10**9)
    plan = LivePlan(
        bag=bag,
        params_file=config_file("fusion.yaml"),
        out=tmp_path / "live",
        overrides={"model.weights": str(tmp_path / "absent.safetensors")},
        start_timeout_s=15.0,
    )
    with pytest.raises(LiveRunError, match=r"node\.log"):
        run_live(plan)
    assert "absent.safetensors" in (tmp_path / "live" / "node.log").read_text(encoding="utf-8")


def run_of(frames_in, masks, *, node_exit=0, **counters):
    return LiveRun(
        recorded=Path("recorded"),
        rate=1.0,
        frames_in=frames_in,
        boxes={},
        masks={stamp_ns: np.zeros((2, 2), np.uint8) for stamp_ns in range(masks)},
        overlays={},
        timings=(),
        counters={f"frames.{name}": str(number) for name, number in counters.items()},
        sent={},
        player_late_ms=0.0,
        seconds=1.0,
        node_cpu_s=1.0,
        node_exit=node_exit,
    )


def test_every_frame_of_the_demo_is_held_to_account():
    assert judge(run_of(10, 10)) == ()
    assert judge(run_of(10, 7, skipped_busy=3)) == ()
    (lost,) = judge(run_of(10, 7, skipped_busy=2))
    assert "10 reference images were played, 7 masks came out and 2 were skipped" in lost
    assert "1 are unaccounted for" in lost
    assert "came out too many" in judge(run_of(10, 11))[0]
    assert judge(run_of(10, 0, skipped_busy=10)) == ("no mask came out of the node",)
    assert judge(run_of(10, 10, node_exit=-9)) == ("the node ended with exit code -9",)


def test_the_page_has_the_latest_sentence_of_each_reason_with_its_count():
    lacking = [{"missing.depth": "late", "missing_detail.depth": f"{age} ms older"} for age in (200, 300)]
    run = dataclasses.replace(run_of(3, 3), timings=(*lacking, {"missing.lidar": "never_seen"}))
    assert missing_of(run) == (Finding("depth", "late", 2, "300 ms older"), Finding("lidar", "never_seen", 1))


def test_restamping_moves_headers_and_transforms_exactly():
    store = messages.typestore()
    stamp_ns, offset_ns = 1_700_000_000_999_999_999, 95_380_186_123_456_789
    image = messages.image(np.zeros((2, 2, 3), np.uint8), "rgb8", stamp_ns, "camera")
    moved = player.shift_header(bytes(store.serialize_cdr(image, "sensor_msgs/msg/Image")), offset_ns)
    stamp = store.deserialize_cdr(moved, "sensor_msgs/msg/Image").header.stamp
    assert stamp.sec * 10**9 + stamp.nanosec == stamp_ns + offset_ns
    back = player.shift_header(moved, -offset_ns)
    assert back == bytes(store.serialize_cdr(image, "sensor_msgs/msg/Image"))


def test_restamping_moves_every_transform():
    store = messages.typestore()
    stamps_ns = (10**9 + 7, 2 * 10**9 + 999_999_999)
    transforms = [StampedTransform(stamp_ns, "odom", f"link{stamp_ns}", np.eye(4)) for stamp_ns in stamps_ns]
    data = bytes(store.serialize_cdr(messages.tf_message(transforms), "tf2_msgs/msg/TFMessage"))
    moved = store.deserialize_cdr(player.shift_transforms(data, 1), "tf2_msgs/msg/TFMessage")
    stamps = [transform.header.stamp for transform in moved.transforms]
    assert [stamp.sec * 10**9 + stamp.nanosec for stamp in stamps] == [stamp_ns + 1 for stamp_ns in stamps_ns]


def test_the_player_refuses_what_it_cannot_play(tmp_path, capsys):
    assert play.main([str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no_such_msgs"):
        player.message_class("no_such_msgs/msg/Thing")


@pytest.mark.ros
@pytest.mark.timeout(120)
def test_the_player_says_who_does_not_listen(tmp_path, capsys):
    bag = tmp_path / "one"
    with BagWriter(bag) as writer:
        writer.write("/lonely", messages.image(np.zeros((4, 4, 3), np.uint8), "rgb8", 10**9, "camera"), 10**9)
    report = tmp_path / "report.json"
    assert play.main([str(bag), "--wait-for", "/lonely", "--wait-s", "0.2"]) == 3
    assert "/lonely" in capsys.readouterr().err
    assert play.main([str(bag), "--wait-for", "/lonly"]) == 2
    assert "got /lonly (nearest known: /lonely)" in capsys.readouterr().err
    assert play.main([str(bag), "--rate", "nan"]) == 2
    assert play.main([str(bag), "--report", str(report)]) == 0
    assert json.loads(report.read_text(encoding="utf-8"))["sent"] == {"/lonely": 1}


@pytest.mark.ros
@pytest.mark.timeout(120)
def test_a_message_that_cannot_be_published_does_not_end_the_player(tmp_path, monkeypatch, capsys):
    bag, report = tmp_path / "two", tmp_path / "report.json"
    with BagWriter(bag) as writer:
        for name in ("/broken", "/whole"):
            for stamp_ns in (10**9, 10**9 + 10**7):
                image = messages.image(np.zeros((4, 4, 3), np.uint8), "rgb8", stamp_ns, "camera")
                writer.write(name, image, stamp_ns)
    shifted = player.Player._shifted

    def broken(self, topic, data, offset_ns):
        return 7 if topic == "/broken" else shifted(self, topic, data, offset_ns)  # no message: rclpy raises

    monkeypatch.setattr(player.Player, "_shifted", broken)
    assert play.main([str(bag), "--report", str(report)]) == 0
    told = json.loads(report.read_text(encoding="utf-8"))
    assert (told["sent"], told["failed"]) == ({"/whole": 2}, {"/broken": 2})
    assert "2 that could not be published" in capsys.readouterr().out


@pytest.mark.ros
@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_player_with_its_exit_code(tmp_path, number):
    with BagWriter(tmp_path / "bag") as writer:
        writer.write("/a", messages.image(np.zeros((4, 4, 3), np.uint8), "rgb8", 10**9, "camera"), 10**9)
    command = [sys.executable, "-m", "gemini_ros.tools.play", str(tmp_path / "bag"), "--wait-for", "/a"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    time.sleep(4.0)
    process.send_signal(number)
    said, _ = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in said) == (128 + number, False), said

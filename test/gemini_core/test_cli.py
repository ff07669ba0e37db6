"""The gemini-fusion command: bags in, bags and sentences out; every mistake is one line and exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gemini_core import cli
from gemini_core.bag import messages as build
from gemini_core.bag.reader import BagReader
from gemini_core.bag.writer import BagWriter
from gemini_core.replay import DETECTIONS_TOPIC, LABEL_INFO_TOPIC, LABELLED_POINTS_TOPIC, MASK_TOPIC
from gemini_core.types import UNLABELLED
from source_imports import REPOSITORY
from wall_bags import FRAMES, HEIGHT, PERIOD_NS, START_NS, WIDTH, write_rig

SMALL = ["--set", "grid.width=64", "--set", "grid.height=64", "--set", "model.head_width=16", "--set", "model.threads=1"]
NO_NETWORK = [*SMALL, "--set", "model.enabled=false"]


@pytest.fixture(scope="module")
def rig_bag(tmp_path_factory) -> Path:
    return write_rig(tmp_path_factory.mktemp("rig") / "bag")


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def fails(capsys, *arguments: object) -> str:
    """The one line that a command says before it ends with exit code 2."""
    code, out, error = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert error.startswith("gemini-fusion: ")
    assert error.count("\n") == 1
    return error


def masks_of(path: Path) -> dict[int, bytes]:
    with BagReader(path) as bag:
        return {stored.log_ns: bytes(stored.data) for stored in bag.messages([MASK_TOPIC])}


def test_inspect_tells_topics_rig_and_synchronisation(capsys, rig_bag):
    code, text, _ = run(capsys, "inspect", rig_bag, *NO_NETWORK)
    assert code == 0
    assert f"Frames: {FRAMES}, with every sensor: {FRAMES}" in text
    assert "not offer" not in text
    code, output, _ = run(capsys, "inspect", rig_bag, "--json")
    found = json.loads(output)
    rates = {topic["name"]: (topic["count"], topic["rate_hz"]) for topic in found["topics"]}
    assert rates["/rgb/image"] == (FRAMES, pytest.approx(10.0))
    assert rates["/tf_static"] == (1, 0.0)
    assert rates["/events"][0] == 2 * FRAMES
    skews = {row["name"]: (row["median"], row["largest"]) for row in found["sync"]["skews"]}
    assert skews == {"depth": (5.0, 5.0), "lidar": (10.0, 10.0), "event": (0.0, 0.0)}
    assert found["sync"]["missing"] == []
    assert all(entry["problem"] == "" for entry in found["rig"])
    assert found["damage"] == ""


def test_inspect_names_what_is_near_by_name_and_by_type(capsys, tmp_path):
    bag = write_rig(tmp_path / "bag", leave_out=("/lidar/points",), rgb="/rgb/image_raw")
    code, text, _ = run(capsys, "inspect", bag)
    assert code == 0
    problems = {line.split()[0]: line for line in text.splitlines() if " on /" in line}
    rgb, lidar = problems["rgb.image"], problems["lidar.points"]
    assert "nearest by name: /rgb/image_raw" in rgb
    assert "of type sensor_msgs/msg/Image: /depth/image, /rgb/image_raw" in rgb
    assert "of type sensor_msgs/msg/PointCloud2: none" in lidar
    assert "No frames can be made" in text
    code, text, _ = run(capsys, "inspect", bag, "--set", "topics.rgb.image=/rgb/image_raw")
    assert f"Missing: lidar in {FRAMES} frame(s), never_seen" in text
    code, text, _ = run(capsys, "inspect", bag, "--set", "topics.lidar.points=/rgb/image_raw")
    assert "expected sensor_msgs/msg/PointCloud2, got sensor_msgs/msg/Image" in text


def test_replay_says_the_same_for_every_image_twice(capsys, rig_bag, tmp_path):
    code, text, _ = run(capsys, "replay", rig_bag, "--out", tmp_path / "out", *SMALL)
    assert code == 0
    assert run(capsys, "replay", rig_bag, "--out", tmp_path / "again", "--storage", "sqlite3", *SMALL)[0] == 0
    assert masks_of(tmp_path / "out") == masks_of(tmp_path / "again")  # bit for bit
    assert f"{FRAMES} masks, {FRAMES} from frames with every sensor" in text
    assert "NEVER TRAINED" in text
    for stage in ("read", "decode", "synchronize", "project", "predict", "write"):
        assert any(line.split()[:2] == [stage, str(FRAMES)] for line in text.splitlines())
    assert f"frames.closed: {FRAMES}" in text
    stamps = [START_NS + (index + 1) * PERIOD_NS for index in range(FRAMES)]
    with BagReader(tmp_path / "out") as bag:
        counts = {topic.name: topic.count for topic in bag.topics()}
        assert counts == {MASK_TOPIC: FRAMES, DETECTIONS_TOPIC: FRAMES, LABEL_INFO_TOPIC: 1}
        masks = [stored.message for stored in bag.messages([MASK_TOPIC])]
        names = next(bag.messages([LABEL_INFO_TOPIC])).message.class_map
    assert [mask.header.stamp.sec * 10**9 + mask.header.stamp.nanosec for mask in masks] == stamps
    assert {(mask.encoding, mask.width, mask.height, mask.step, mask.header.frame_id) for mask in masks} == {
        ("mono8", WIDTH, HEIGHT, WIDTH, "rgb")
    }
    assert [each.class_name for each in names][-1] == "unlabelled"
    values = set(np.concatenate([mask.data for mask in masks]).tolist())
    assert values <= {*range(len(names) - 1), UNLABELLED}


def test_replay_without_a_network_decides_nothing(capsys, rig_bag, tmp_path):
    code, text, _ = run(capsys, "replay", rig_bag, "--out", tmp_path / "out", "--labelled-points", *NO_NETWORK)
    assert code == 0
    assert "network: none" in text
    assert "TRAINED" not in text
    with BagReader(tmp_path / "out") as bag:
        assert all((stored.message.data == UNLABELLED).all() for stored in bag.messages([MASK_TOPIC]))
        labels = [stored.message.data.reshape(-1, 20)[:, 16] for stored in bag.messages([LABELLED_POINTS_TOPIC])]
    assert len(labels) == FRAMES
    assert all((each == UNLABELLED).all() for each in labels)


def test_replay_says_what_is_odd_about_a_bag_that_is_whole(capsys, tmp_path):
    bag = write_rig(tmp_path / "bag")
    (file,) = bag.glob("*.mcap")
    file.rename(bag / "renamed.mcap")
    code, text, _ = run(capsys, "replay", bag, "--out", tmp_path / "out", *NO_NETWORK)
    assert code == 0
    assert f"{FRAMES} masks, {FRAMES} from frames with every sensor" in text
    (note,) = [line for line in text.splitlines() if line.startswith("Note: ")]
    assert "renamed.mcap" in note


def test_replay_goes_on_without_a_sensor_and_says_which(capsys, tmp_path):
    bag = write_rig(tmp_path / "bag", leave_out=("/depth/image",))
    code, text, _ = run(capsys, "replay", bag, "--out", tmp_path / "out", *NO_NETWORK)
    assert code == 0
    assert f"{FRAMES} masks, 0 from frames with every sensor" in text
    assert "depth.image on /depth/image: not in the bag" in text
    sentence = "no depth sample up to this stamp since the start"
    assert f"Missing: depth in {FRAMES} frame(s), never_seen\n  {sentence}\n" in text


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_cut_bag_is_worked_off_as_far_as_it_goes(capsys, tmp_path, storage):
    bag = write_rig(tmp_path / "bag", storage)
    file = next(path for path in bag.iterdir() if path.suffix != ".yaml")
    content = file.read_bytes()
    file.write_bytes(content[: int(0.6 * len(content))])
    code, text, error = run(capsys, "replay", bag, "--out", tmp_path / "out", *NO_NETWORK)
    assert code == 2
    assert error.startswith("gemini-fusion: ")
    assert "messages were read before" in error
    frames = len(masks_of(tmp_path / "out"))
    assert 0 < frames < FRAMES
    assert f"{frames} masks" in text
    code, text, _ = run(capsys, "inspect", bag)
    assert code == 2
    assert "DAMAGED" in text


def test_messages_that_cannot_be_used_are_counted(capsys, tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        good = build.image(pixels, "rgb8", START_NS, "rgb")
        bag.write("/rgb/image", good, START_NS)
        odd = build.image(pixels, "rgb8", START_NS + PERIOD_NS, "rgb")
        odd.encoding = "plaid"
        bag.write("/rgb/image", odd, START_NS + PERIOD_NS)
        bag.write_raw("/rgb/image", "sensor_msgs/msg/Image", b"\0\1\0\0\7", START_NS + 2 * PERIOD_NS)
    code, text, _ = run(capsys, "replay", tmp_path / "bag", "--out", tmp_path / "out", *NO_NETWORK)
    assert code == 0
    assert "1 masks" in text
    assert "rgb.image.refused.unreadable: 1" in text
    assert "rgb.image.refused.unknown_encoding: 1" in text
    with BagWriter(tmp_path / "odd") as bag:
        bag.write("/rgb/image", odd, START_NS)
    sentence = fails(capsys, "replay", tmp_path / "odd", "--out", tmp_path / "none", *NO_NETWORK)
    assert "got none" in sentence
    assert "plaid" in sentence
    assert not (tmp_path / "none").exists()


def test_mistakes_are_one_line_with_exit_code_2(capsys, rig_bag, tmp_path):
    out = ["--out", tmp_path / "out"]
    assert "nothing at this path" in fails(capsys, "inspect", tmp_path / "nowhere")
    assert "grid.width" in fails(capsys, "replay", rig_bag, *out, "--set", "grid.widht=64")
    assert "KEY=VALUE" in fails(capsys, "replay", rig_bag, *out, "--set", "grid.width")
    assert "YAML" in fails(capsys, "replay", rig_bag, *out, "--set", "grid.width=[1")
    assert "configuration file" in fails(capsys, "replay", rig_bag, *out, "--config", tmp_path / "no.yaml")
    assert "topics.rgb.image" in fails(capsys, "replay", rig_bag, *out, "--set", "topics.rgb.image=/front/image")
    assert "such.safetensors" in fails(capsys, "replay", rig_bag, *out, "--set", "model.weights=/no/such.safetensors")
    assert "nothing at this path" in fails(capsys, "bag", "from-kitti-raw", tmp_path / "nowhere", tmp_path / "out")
    assert "image_2" in fails(capsys, "bag", "from-kitti-object", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    assert "overwriting" in fails(capsys, "replay", rig_bag, *out, *NO_NETWORK)
    assert run(capsys, "replay", rig_bag, *out, *NO_NETWORK, "--overwrite")[0] == 0


@pytest.mark.parametrize("arguments", [[], ["fly"], ["replay"], ["simulate", "--out", "x", "--seconds", "-1"], ["bag"]])
def test_wrong_usage_is_explained(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: gemini-fusion" in capsys.readouterr().err


def test_the_command_works_as_a_process_of_its_own(rig_bag):
    command = [sys.executable, "-m", "gemini_core.cli"]
    shown = subprocess.run([*command, "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in ("simulate", "inspect", "replay", "bag"):
        assert name in shown.stdout
    wrong = subprocess.run([*command, "inspect", f"{rig_bag}_no"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr
    assert wrong.stderr.count("\n") == 1


def test_kitti_becomes_sixteen_complete_frames(capsys, real_dir, tmp_path):
    code, text, _ = run(capsys, "bag", "from-kitti-raw", real_dir / "kitti_raw", tmp_path / "bag")
    assert code == 0
    assert "16 images, 16 sweeps" in text
    arguments = ["--config", REPOSITORY / "config" / "kitti.yaml", "--set", "model.enabled=false"]
    code, text, _ = run(capsys, "replay", tmp_path / "bag", "--out", tmp_path / "out", *arguments)
    assert code == 0
    assert "16 masks, 16 from frames with every sensor" in text
    assert len(masks_of(tmp_path / "out")) == 16


def test_kitti_objects_become_complete_frames(capsys, real_dir, tmp_path):
    assert run(capsys, "bag", "from-kitti-object", real_dir / "kitti_object", tmp_path / "bag")[0] == 0
    code, text, _ = run(capsys, "inspect", tmp_path / "bag", "--config", REPOSITORY / "config" / "kitti.yaml")
    assert code == 0
    assert "Frames: 2, with every sensor: 2" in text


def test_simulate_without_open3d_names_the_extra(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    code, _, error = run(capsys, "simulate", "--seconds", "0.1", "--out", tmp_path / "street")
    assert code == 2
    assert error.startswith("gemini-fusion: simulation: expected Open3D to be installed (pip install 'gemini_ros[simulation]')")
    assert error.count("\n") == 1
    assert not (tmp_path / "street").exists()


@pytest.mark.slow
def test_simulate_writes_a_bag_that_is_complete(capsys, tmp_path):
    pytest.importorskip("open3d", reason="the extra 'simulation' is not installed")
    code, text, _ = run(capsys, "simulate", "--seconds", "0.3", "--seed", "4", "--out", tmp_path / "street")
    assert code == 0
    assert "0.3 s of street 4" in text
    code, output, _ = run(capsys, "inspect", tmp_path / "street", "--json")
    found = json.loads(output)
    assert code == 0
    assert found["sync"]["frames"] == found["sync"]["complete"] == 3

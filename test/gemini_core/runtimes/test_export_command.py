"""The command that exports, and the images that it exports with."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from exports import ENCODINGS, HEIGHT, WIDTH, config_of, grids_of, need, network, save
from gemini_core.cli import main
from gemini_core.cli.weights import spread
from gemini_core.errors import DataError
from gemini_core.predictor import Predictor
from gemini_core.runtimes import images
from wall_bags import write_rig


def test_command_exports_what_the_predictor_runs(tmp_path, capsys):
    need("openvino")
    picture, weights, out = (tmp_path / name for name in ("picture.png", "weights", "out"))
    save(network(1), weights)
    cv2.imwrite(str(picture), np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8))
    arguments = ["export", str(weights), str(out), "--runtime", "openvino", "--size", f"{WIDTH}x{HEIGHT}"]
    arguments += ["--image", str(picture)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"wrote {out}: fp32 for openvino, 96x64" in printed
    assert "checked on picture.png, against eager torch: rgb: largest difference" in printed
    assert Predictor(config_of(out, modalities=["rgb"])).predict(grids_of()).mask.shape == (HEIGHT, WIDTH)
    assert main(arguments) == 2
    assert "expected a folder that does not exist yet" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "picture.png", "weights"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--without", "lidar", "--image", "picture.png"], "--without: expected sensors out of depth, got 'lidar'"),
        (["--precision", "int8", "--image", "picture.png"], "--calibration: expected a bag of this robot"),
        (["--image", "nowhere.png"], "nowhere.png: expected a picture, got nothing that OpenCV reads"),
    ],
)
def test_command_names_what_is_wrong(tmp_path, weights, capsys, arguments, sentence):
    assert main(["export", str(weights), str(tmp_path / "out"), "--runtime", "openvino", *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "one of the arguments --image --calibration is required"),
        (["--image", "a.png", "--calibration", "bag"], "not allowed with argument --image"),
        (["--image", "a.png", "--size", "640"], "expected WIDTHxHEIGHT, like 640x480, got 640"),
        (["--calibration", "bag", "--frames", "0"], "expected a whole number from 1 to 1000, got 0"),
    ],
)
def test_command_line_that_makes_no_sense_is_refused(tmp_path, weights, capsys, arguments, sentence):
    with pytest.raises(SystemExit):
        main(["export", str(weights), str(tmp_path / "out"), "--runtime", "openvino", *arguments])
    assert sentence in capsys.readouterr().err


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write_rig(tmp_path_factory.mktemp("bags") / "bag")


@pytest.mark.parametrize(("runtime", "precision"), [("onnx", "fp32"), ("openvino", "int8")])
def test_command_exports_with_frames_of_a_bag(tmp_path, bag, capsys, runtime, precision):
    need(runtime)
    if precision == "int8":
        pytest.importorskip("nncf")
    save(network(), tmp_path / "weights")
    arguments = ["export", str(tmp_path / "weights"), str(tmp_path / "out"), "--runtime", runtime, "--precision", precision]
    assert main([*arguments, "--size", f"{WIDTH}x{HEIGHT}", "--calibration", str(bag), "--frames", "2"]) == 0
    assert f"checked on a frame of {bag.name}, against eager torch: rgb+depth: largest" in capsys.readouterr().out
    predictor = Predictor(config_of(tmp_path / "out", **{"model.precision": precision}))
    expected = Predictor(config_of(tmp_path / "weights")).predict(grids_of()).mask
    assert np.mean(predictor.predict(grids_of()).mask == expected) > (0.999 if precision == "fp32" else 0.8)


def test_calibration_with_other_encodings_than_in_training_is_refused(tmp_path, bag, capsys):
    save(network(), tmp_path / "weights", encodings=ENCODINGS)
    arguments = ["export", str(tmp_path / "weights"), str(tmp_path / "out"), "--runtime", "onnx", "--calibration", str(bag)]
    assert main([*arguments, "--set", "depth.max_m=8.0"]) == 2
    assert "depth.max_m: expected 7.5, with which" in capsys.readouterr().err


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 9, 10, 17, 100, 1000])
def test_frames_are_spread_over_a_length_that_is_not_known(count):
    kept = spread(iter(range(count)), 4)
    assert len(kept) == min(count, 4)
    if count <= 4:
        assert kept == list(range(count))
        return
    gaps = np.diff([*kept, count])
    assert kept[0] == 0
    assert gaps.min() > 0.4 * count / 4
    assert gaps.max() < 2.0 * count / 4


def test_pictures_become_inputs(tmp_path):
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.full((10, 20, 3), (0, 0, 255), np.uint8))  # red, in OpenCV's order
    channels = images.from_picture(path, 2, 32, 64)
    assert channels.shape == (2, 3, 32, 64)
    assert channels[0, :, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert channels[1, :, 0, 0] == pytest.approx([76 / 255] * 3)
    with pytest.raises(DataError, match="expected a picture"):
        images.from_picture(tmp_path / "none", 2, 32, 64)


def test_made_up_images_are_always_the_same():
    first = images.made_up(2, 32, 48)
    assert np.array_equal(first, images.made_up(2, 32, 48))
    assert first.shape == (2, 3, 32, 48)
    assert 0.0 <= first.min() < 0.4
    assert 0.6 < first.max() <= 1.0

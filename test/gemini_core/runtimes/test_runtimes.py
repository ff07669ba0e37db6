"""Exported networks: the same masks and boxes as torch, refused where they do not fit or are not what was exported."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from gemini_core import cli
from gemini_core.cli import main
from gemini_core.config.fusion import from_flat
from gemini_core.errors import ConfigError, DataError, ShapeError, WeightsError
from gemini_core.model import checkpoints
from gemini_core.model.checkpoints import CheckpointInfo, Normalization
from gemini_core.model.detection.mvxnet.checkpoint import save_mvxnet
from gemini_core.model.detection.pillars.codec import BevMaps
from gemini_core.model.detection.pillars.detector import DetectorConfig
from gemini_core.model.mit import MiTConfig
from gemini_core.predictor import Predictor
from gemini_core.runtimes import artifact, boxes, images, openvino
from gemini_core.runtimes.eager import TorchRuntime
from gemini_core.runtimes.export import Difference, Images, Target, Verified, compare, compare_maps, export
from gemini_core.runtimes.exported import ExportedRuntime
from gemini_core.runtimes.tensorrt import TensorRtRuntime
from gemini_core.types import AlignedGrid, AlignedGrids, AlignedPoints, GridGeometry
from grids import points_of
from mvxnets import small
from networks import trained
from wall_bags import write_rig

HEIGHT, WIDTH = 64, 96
CLASSES = ("road", "building", "tree", "car", "sky")
MODULE = {"openvino": "openvino", "onnx": "onnxruntime", "tensorrt": "onnxruntime"}
MODALITIES = ("rgb", "depth")
# Nothing that anybody has by default, so that an export which lost its own would decide otherwise.
NORMALIZATION = (
    Normalization((0.1, 0.5, 0.9), (0.2, 0.5, 0.3)),
    Normalization((0.5, 0.2, 0.7), (0.3, 0.1, 0.4)),
)
# Converting takes a second for every block, whatever its size.
SHORT = MiTConfig(widths=(8, 16, 24, 32), depths=(1, 1, 1, 1), heads=(1, 2, 3, 4), mlp_ratio=2, fusion_heads=4)


BOX_CLASSES = ("car", "pedestrian")
DETECTOR = DetectorConfig(BOX_CLASSES, range_m=(0.0, -10.0, -1.0, 20.0, 10.0, 3.0), covariance=True)
OTHER_DETECTOR = dataclasses.replace(DETECTOR, classes=("car", "pedestrian", "truck"))


def network(modalities=2, detector=None):
    segmenter = trained(modalities, SHORT, detector=detector)
    if detector is not None:
        torch.nn.init.constant_(segmenter.detector.head.heat[1].bias, -1.0)  # boxes to compare, and not everywhere
    constant = [parameter for name, parameter in segmenter.head.named_parameters() if "bias" in name]
    for tensor in (*constant, segmenter.head.norm.running_mean):
        torch.nn.init.zeros_(tensor)  # so that what the images hold decides
    return segmenter


def need(runtime):
    if importlib.util.find_spec(MODULE[runtime]) is None:
        pytest.skip(f"{MODULE[runtime]} is not installed")


def normalization_of(segmenter):
    return NORMALIZATION[: len(segmenter.config.modalities)]


def info_of(segmenter):
    return CheckpointInfo(CLASSES, normalization_of(segmenter), trained=True)


def save(segmenter, path, **others):
    checkpoints.save(segmenter, path, CLASSES, trained=True, normalization=normalization_of(segmenter), **others)


def inputs_of(segmenter):
    normalization = normalization_of(segmenter)
    return Images([images.normalise(images.made_up(len(normalization), HEIGHT, WIDTH), normalization)], "made-up images")


def config_of(folder, **changes):
    values = {"model.weights": str(folder), "model.classes": list(CLASSES), "grid.height": HEIGHT, "grid.width": WIDTH}
    return from_flat({"modalities": list(MODALITIES), **values, "model.threads": 2, "model.device": "cpu", **changes})


def grids_of(modalities=MODALITIES, seed=0, height=HEIGHT):
    rng = np.random.default_rng(seed)
    shape = (height, WIDTH)
    grids = [AlignedGrid(name, rng.random((3, *shape), dtype=np.float32), np.ones(shape, bool)) for name in MODALITIES]
    geometry = GridGeometry(WIDTH, height, WIDTH, height, 0, 0, WIDTH, height)
    return AlignedGrids(0, 0, "camera", geometry, None, tuple(grid for grid in grids if grid.modality in modalities), ())


def with_points(grids, count=3000, source="lidar"):
    """Points some of which are out of range, behind the image's edge or not finite."""
    rng = np.random.default_rng(count)
    places = rng.uniform((-1, -11, -1.2), (21, 11, 3.2), (count, 3)).astype(np.float32)
    places[::97] = np.nan
    pixels = rng.uniform((-20, -20), (WIDTH + 20, HEIGHT + 20), (count, 2)).astype(np.float32)
    own = rng.random(count, dtype=np.float32), pixels, rng.random(count) < 0.7, np.arange(count, dtype=np.int32)
    return dataclasses.replace(grids, points=AlignedPoints(source, places, *own, np.eye(4)))


def boxes_config(folder, **changes):
    return config_of(folder, **{"detections.enabled": True, "detections.classes": list(BOX_CLASSES), **changes})


def numbers_of(found):
    """Boxes as rows; their class counts for more than any place."""
    rows = [
        (
            100.0 * BOX_CLASSES.index(box.class_name),
            box.score,
            *box.center_m,
            *box.size_m,
            *box.orientation_xyzw,
            *box.covariance,
        )
        for box in found
    ]
    return np.array(rows)


def assert_same_boxes(got, expected):
    """All but one in fifty: of two whose scores are equal but for rounding, either may be the one that is kept."""
    got, expected = numbers_of(got), numbers_of(expected)
    assert len(expected) > 3
    distances = np.abs(got[:, None] - expected[None]).max(2)  # (found, expected)
    for nearest in (distances.min(0), distances.min(1)):
        assert np.mean(nearest < 1e-3) >= 0.98


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save(network(detector=DETECTOR), path)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Gives the folder of an export for one runtime, made once, with graphs for both modalities and for rgb."""
    made = {}

    def make(runtime):
        need(runtime)
        if runtime not in made:
            made[runtime] = tmp_path_factory.mktemp("exports") / runtime
            segmenter, target = network(detector=DETECTOR), Target(runtime, "fp32", HEIGHT, WIDTH)
            export(segmenter, info_of(segmenter), target, made[runtime], inputs_of(segmenter))
        return made[runtime]

    return make


# --------------------------------------------------------------------------------------------------------------------
# Equal to torch


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
@pytest.mark.parametrize("present", [MODALITIES, ("rgb",)])
def test_mask_is_that_of_torch(exported, weights, runtime, present):
    expected = Predictor(config_of(weights)).predict(grids_of(present)).mask
    predictor = Predictor(config_of(exported(runtime)))
    mask = predictor.predict(grids_of(present)).mask
    assert np.mean(mask == expected) > 0.999
    assert len(np.unique(mask)) > 1
    assert predictor.trained
    assert predictor.class_names == CLASSES
    predictor.predict(grids_of(seed=1))
    assert np.array_equal(predictor.predict(grids_of(present)).mask, mask)
    assert np.array_equal(Predictor(config_of(exported(runtime))).predict(grids_of(present)).mask, mask)


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_do_not_get_lost_in_a_runtime(exported, runtime, modality, value):
    predictor = Predictor(config_of(exported(runtime)))
    expected = predictor.predict(grids_of()).mask
    grids = grids_of()
    grids.grid(modality).channels[1, 5, 6] = value  # OpenVINO would give a mask of one class
    with pytest.raises(DataError, match=f"grid of {modality}: expected finite numbers, got others at 1 pixels"):
        predictor.predict(grids)
    assert np.array_equal(predictor.predict(grids_of()).mask, expected)


def test_boxes_of_an_mvxnet_go_with_masks_of_an_export(exported, tmp_path):
    detector = small()
    torch.nn.init.constant_(detector.pts_bbox_head.conv_cls.bias, 0.0)  # scores about a half: there are boxes
    save_mvxnet(detector, tmp_path / "boxes", trained=True)
    options = {"detections.weights": str(tmp_path / "boxes"), "detections.classes": ["pedestrian", "car"]}
    plain = config_of(exported("openvino"))
    both = config_of(exported("openvino"), **options, **{"detections.enabled": True})
    grids = dataclasses.replace(grids_of(), points=points_of())
    found = Predictor(both).predict(grids)
    assert found.detections
    assert np.array_equal(found.mask, Predictor(plain).predict(grids).mask)


def test_description_says_what_runs_where(exported):
    described = Predictor(config_of(exported("openvino"))).describe()
    assert "MiT on rgb+depth, 5 classes, boxes of 2 classes at 96x64, trained weights" in described
    assert "fp32 in OpenVINO" in described
    assert described.endswith("on cpu with 2 threads")


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
@pytest.mark.parametrize("present", [MODALITIES, ("rgb",)])
def test_boxes_are_those_of_torch(exported, weights, runtime, present):
    grids = with_points(grids_of(present))
    expected = Predictor(boxes_config(weights)).predict(grids)
    predictor = Predictor(boxes_config(exported(runtime)))
    got = predictor.predict(grids)
    assert_same_boxes(got.detections, expected.detections)
    assert np.mean(got.mask == expected.mask) > 0.999
    predictor.predict(with_points(grids_of(seed=1)))
    again = predictor.predict(grids)
    assert again.detections == got.detections
    assert np.array_equal(again.mask, got.mask)
    assert np.array_equal(Predictor(config_of(exported(runtime))).predict(grids).mask, got.mask)
    assert predictor.predict(grids_of(present)).detections == ()


def test_what_the_image_shows_decides_about_boxes_of_an_export(exported):
    """So that a graph whose features are those of another frame, or none, would show."""
    predictor = Predictor(boxes_config(exported("onnx")))
    first, second = (predictor.predict(with_points(grids_of(seed=seed))).detections for seed in range(2))
    assert [box.score for box in first] != [box.score for box in second]


@pytest.mark.parametrize(("count", "source"), [(0, "lidar"), (1, "lidar"), (120, "depth"), (500_000, "depth")])
def test_an_export_takes_any_number_of_points(exported, weights, count, source):
    grids = with_points(grids_of(), count, source)
    expected = Predictor(boxes_config(weights)).predict(grids).detections
    assert_same_boxes(Predictor(boxes_config(exported("onnx"))).predict(grids).detections, expected)


def test_a_description_says_which_boxes_there_are(exported):
    description = artifact.read_description(exported("onnx"))
    assert description.segmenter.detector == DETECTOR
    assert description.detector.file == boxes.FILE
    assert "maps of boxes: largest difference" in description.verified


def test_a_painted_detector_gets_the_masks_of_its_export(tmp_path):
    need("onnx")
    segmenter = network(2, dataclasses.replace(DETECTOR, painted=True))
    done = export(segmenter, info_of(segmenter), Target("onnx", "fp32", HEIGHT, WIDTH), tmp_path / "out", inputs_of(segmenter))
    cloud = boxes.made_up_points(DETECTOR, HEIGHT, WIDTH)
    inputs = torch.randn(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    runtimes = ExportedRuntime(tmp_path / "out", done, 1), TorchRuntime(segmenter, torch.device("cpu"), "fp32")
    got, expected = (runtime.run_with_boxes(inputs, (0, 1), cloud)[1] for runtime in runtimes)
    assert compare_maps(expected, got).largest < 1e-4
    with torch.no_grad():
        segmenter.head.classifier.bias[0] += 3.0
    repainted = TorchRuntime(segmenter, torch.device("cpu"), "fp32").run_with_boxes(inputs, (0, 1), cloud)[1]
    assert compare_maps(repainted, got).largest > 1e-3


def test_a_painted_detector_stays_in_fp32_beside_masks_in_bf16():
    segmenter = network(2, dataclasses.replace(DETECTOR, painted=True))
    cloud = boxes.made_up_points(DETECTOR, HEIGHT, WIDTH)
    inputs = torch.randn(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    got, expected = (
        TorchRuntime(segmenter, torch.device("cpu"), precision).run_with_boxes(inputs, (0, 1), cloud)[1]
        for precision in ("bf16", "fp32")
    )
    assert got.heat.dtype == torch.float32
    assert compare_maps(expected, got).largest < 0.2


def test_a_detector_without_an_image_needs_no_features(tmp_path):
    need("onnx")
    segmenter = network(1, dataclasses.replace(DETECTOR, fusion="lidar"))
    target = Target("onnx", "fp32", HEIGHT, WIDTH)
    done = export(segmenter, info_of(segmenter), target, tmp_path / "out", inputs_of(segmenter))
    graph = pytest.importorskip("onnx").load(tmp_path / "out" / done.graphs[0].file).graph
    assert [output.name for output in graph.output] == ["logits"]
    cloud = boxes.made_up_points(DETECTOR, HEIGHT, WIDTH)
    inputs = torch.randn(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    runtimes = ExportedRuntime(tmp_path / "out", done, 1), TorchRuntime(segmenter, torch.device("cpu"), "fp32")
    got, expected = (runtime.run_with_boxes(inputs, (0,), cloud)[1] for runtime in runtimes)
    assert compare_maps(expected, got).largest < 1e-5


def test_frame_without_its_own_graph_goes_to_the_one_that_uses_most_of_it():
    graphs = tuple(artifact.Graph(present, "", {}) for present in [(0, 1, 2), (0, 2), (0,)])
    segmenter = network()
    description = artifact.Export("onnx", "fp32", 64, 96, segmenter.config, info_of(segmenter), graphs, "", {})
    used = {present: description.graph_for(present).present for present in [(0, 1, 2), (0, 1), (0, 2, 3), (0,)]}
    assert used == {(0, 1, 2): (0, 1, 2), (0, 1): (0,), (0, 2, 3): (0, 2), (0,): (0,)}


def test_torch_compile_gives_the_same_mask(weights, monkeypatch):
    # Everything but the C++ compiler, which would take minutes and need not be there.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    monkeypatch.setenv("CXX", sys.executable)
    expected = Predictor(config_of(weights)).predict(grids_of()).mask
    predictor = Predictor(config_of(weights, **{"model.runtime": "torch_compile"}))
    assert np.array_equal(predictor.predict(grids_of()).mask, expected)
    assert "compiled" in predictor.describe()


def test_torch_compile_without_a_compiler_is_refused_at_the_start(weights, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/g++")
    with pytest.raises(ConfigError, match=r"expected a C\+\+ compiler for torch_compile .*, got no '/nowhere/g\+\+'"):
        Predictor(config_of(weights, **{"model.runtime": "torch_compile"}))


@pytest.fixture(scope="module")
def for_tensorrt(tmp_path_factory):
    need("tensorrt")
    folder = tmp_path_factory.mktemp("tensorrt") / "out"
    segmenter = network(1, DETECTOR)
    export(segmenter, info_of(segmenter), Target("tensorrt", "fp16", HEIGHT, WIDTH), folder, inputs_of(segmenter))
    return folder


def test_tensorrt_export_has_checked_shapes(for_tensorrt):
    description = artifact.read_description(for_tensorrt)
    assert (description.runtime, description.precision) == ("tensorrt", "fp16")
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(for_tensorrt / description.graphs[0].file).graph
    sizes = {item.name: [size.dim_value for size in item.type.tensor_type.shape.dim] for item in (*graph.input, *graph.output)}
    stages = {f"features{stage}": [1, 8 * (stage + 1), HEIGHT // 4 >> stage, WIDTH // 4 >> stage] for stage in range(4)}
    assert sizes == {"images": [1, 3, HEIGHT, WIDTH], "logits": [1, 5, HEIGHT // 4, WIDTH // 4], **stages}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_tensorrt_decides_as_torch_does(tmp_path, weights, precision):
    pytest.importorskip("tensorrt")
    segmenter, out = network(), tmp_path / "out"
    export(segmenter, info_of(segmenter), Target("tensorrt", precision, HEIGHT, WIDTH), out, inputs_of(segmenter))
    expected = Predictor(config_of(weights)).predict(grids_of()).mask
    config = config_of(out, **{"model.device": "cuda", "model.precision": precision})
    for _ in range(2):  # the second time from the kept engine
        assert np.mean(Predictor(config).predict(grids_of()).mask == expected) > 0.95
    assert list(out.glob("*.plan"))


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_low_precision_decides_nearly_the_same(tmp_path, precision):
    need("openvino")
    if precision == "int8":
        pytest.importorskip("nncf")
    segmenter, weights, out = network(1), tmp_path / "weights", tmp_path / "out"
    save(segmenter, weights)
    done = export(segmenter, info_of(segmenter), Target("openvino", precision, HEIGHT, WIDTH), out, inputs_of(segmenter))
    assert "decided alike" in done.verified
    config = config_of(out, **{"modalities": ["rgb"], "model.precision": precision})
    if openvino.emulated(precision):
        with pytest.raises(ConfigError, match="expected a CPU with bf16 instructions"):
            Predictor(config)
        return
    expected = Predictor(config_of(weights, modalities=["rgb"])).predict(grids_of()).mask
    assert np.mean(Predictor(config).predict(grids_of()).mask == expected) > 0.85
    if precision == "int8":
        assert_one_scale_per_activation(out / done.graphs[0].file)


def assert_one_scale_per_activation(graph):
    operations = importlib.import_module("openvino").Core().read_model(graph).get_ops()
    scales = [operation.input(1).get_shape() for operation in operations if operation.get_type_name() == "FakeQuantize"]
    assert scales
    assert {int(np.prod(shape)) for shape in scales} == {1}  # others run by themselves, outside of the products


def test_difference_is_relative_to_the_spread():
    exact = torch.tensor([0.0, 2.0, 0.0, 2.0]).view(1, 2, 1, 2)
    got = exact + torch.tensor([0.0, 0.0, 3.0, 0.0]).view(1, 2, 1, 2)
    deviation = (4.0 / 3.0) ** 0.5
    assert compare(exact, got) == Difference(pytest.approx(3.0 / deviation), pytest.approx(1.5 / deviation), 0.5)
    assert compare(exact, exact) == Difference(0.0, 0.0, 1.0)


def test_the_worst_of_all_outputs_decides():
    exact = torch.tensor([0.0, 2.0, 0.0, 2.0]).view(1, 2, 1, 2)
    maps = BevMaps(exact, exact, exact)
    far, unknown = compare(exact, exact + 1), compare(exact, exact * torch.nan)
    assert compare_maps(maps, maps._replace(log_variance=exact + 1)) == dataclasses.replace(far, agreement=1.0)
    near = Difference(0.0, 0.0, 1.0)
    assert Verified(near, far).distance("fp32") == Verified(far, near).distance("fp32") == far.largest
    assert Verified(near, far).distance("bf16") == far.rms
    assert np.isnan([Verified(near, unknown).distance("fp32"), Verified(unknown, near).distance("fp32")]).all()
    broken = maps._replace(boxes=exact * torch.nan)
    assert np.isnan([compare_maps(maps, broken).largest, compare_maps(maps, broken).rms]).all()


# --------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model.classes": [*CLASSES[:-1], "water"]}, "weights for classes road, .*water as configured, got .*sky in"),
        ({"modalities": ["rgb", "lidar"]}, "weights for modalities rgb, lidar as configured, got rgb, depth in"),
        ({"grid.height": 480}, r"an export for grid\.height 480 as configured, got 64 in"),
        ({"grid.width": 640}, r"an export for grid\.width 640 as configured, got 96 in"),
        ({"model.precision": "int8"}, r"an export for model\.precision int8 as configured, got fp32 in"),
        ({"model.runtime": "openvino"}, r"an export for model\.runtime openvino as configured, got onnx in"),
        ({"model.runtime": "torch"}, r"an export for model\.runtime torch as configured, got onnx in"),
    ],
)
def test_export_for_another_robot_is_refused(exported, changes, sentence):
    with pytest.raises(WeightsError, match=sentence):
        Predictor(config_of(exported("onnx"), **changes))


@pytest.mark.parametrize("kind", ["weights", "export"])
def test_numbers_that_mean_something_else_are_refused(tmp_path, monkeypatch, kind):
    need("onnx")
    segmenter, encodings = network(), {"depth.max_m": 7.5}
    if kind == "weights":
        save(segmenter, tmp_path / "out", encodings=encodings)
    else:
        target = Target("onnx", "fp32", HEIGHT, WIDTH)
        info = CheckpointInfo(CLASSES, NORMALIZATION, trained=True, encodings=encodings)
        monkeypatch.setattr("gemini_core.runtimes.export._convert", lambda *_: artifact.Graph((0, 1), "", {}))
        monkeypatch.setattr("gemini_core.runtimes.export._verify", lambda *_: Verified(Difference(0.0, 0.0, 1.0)))
        export(segmenter, info, target, tmp_path / "out", inputs_of(segmenter))
    with pytest.raises(WeightsError, match=r"depth\.max_m: expected 7\.5, with which .*out was trained, got 8"):
        Predictor(config_of(tmp_path / "out", **{"depth.max_m": 8.0}))


def test_folder_without_a_description_is_named(copied):
    (copied / "export.json").unlink()
    with pytest.raises(WeightsError, match=r"a file, or a folder with export\.json in it, got .*copy without one"):
        Predictor(config_of(copied))


def test_images_of_another_size_are_refused(exported):
    with pytest.raises(ShapeError, match=r"expected \(64, 96\), height and width of the export, got \(32, 96\)"):
        Predictor(config_of(exported("onnx"))).predict(grids_of(height=32))


@pytest.fixture
def copied(exported, tmp_path):
    shutil.copytree(exported("onnx"), tmp_path / "copy")
    return tmp_path / "copy"


def rewrite(folder, **changes):
    """Change the description of an export and seal it anew."""
    path = folder / artifact.DESCRIPTION
    path.write_text(artifact._to_json(dataclasses.replace(artifact.read_description(folder), **changes)))
    return json.loads(path.read_text())


def test_an_export_of_masks_only_is_refused_for_boxes(copied):
    """As they were written before exports had detectors: nothing is said of one but in the network's configuration."""
    content = rewrite(copied, detector=None)
    del content["detector"], content["seal"]
    (copied / artifact.DESCRIPTION).write_text(json.dumps({**content, "seal": artifact._seal(content)}))
    (copied / boxes.FILE).unlink()
    with pytest.raises(
        WeightsError,
        match=r"detections\.enabled: expected weights that torch runs or an export with a detector, got masks only in .*copy",
    ):
        Predictor(boxes_config(copied))
    predictor = Predictor(config_of(copied))
    assert "boxes" not in predictor.describe()
    assert predictor.predict(with_points(grids_of())).detections == ()
    runtime = ExportedRuntime(copied, artifact.read_description(copied), 1)
    with pytest.raises(ConfigError, match="expected an export with a detector, got one of masks only"):
        runtime.run_with_boxes(torch.zeros(2, 3, HEIGHT, WIDTH), (0, 1), None)


def test_a_broken_detector_is_refused(copied):
    weights = copied / boxes.FILE
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(WeightsError, match=r"detector\.safetensors: expected the file that was exported"):
        Predictor(config_of(copied))
    digest = artifact.sha256(weights)
    rewrite(copied, detector=artifact.DetectorFile(boxes.FILE, digest), segmenter=network(detector=OTHER_DETECTOR).config)
    with pytest.raises(WeightsError, match=r"detector\.safetensors: expected head\.heat\.1\.bias of shape \(3,\), got \(2,\)"):
        Predictor(config_of(copied))
    rewrite(copied, segmenter=network().config)
    with pytest.raises(WeightsError, match="expected no weights of a detector beside a network without one, got some"):
        Predictor(config_of(copied))
    weights.unlink()
    with pytest.raises(WeightsError, match=r"detector\.safetensors: expected the file that export\.json names, got none"):
        Predictor(config_of(copied))


def test_an_export_for_other_boxes_is_refused(exported):
    with pytest.raises(
        WeightsError, match=r"detections\.classes: expected those of the detector in .*, car, pedestrian, got car"
    ):
        Predictor(boxes_config(exported("onnx"), **{"detections.classes": ["car"]}))


def test_broken_graph_is_refused(copied):
    graph = copied / "rgb.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    with pytest.raises(
        WeightsError, match=r"rgb\.onnx: expected the file that was exported \(SHA-256 .*got another or a broken"
    ):
        Predictor(config_of(copied))
    graph.unlink()
    with pytest.raises(WeightsError, match=r"rgb\.onnx: expected the file that export\.json names, got none"):
        Predictor(config_of(copied))


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_graph_that_a_runtime_does_not_read_is_named(exported, tmp_path, runtime):
    folder = exported(runtime)
    description = artifact.read_description(folder)
    graph = tmp_path / description.graphs[-1].file
    graph.write_bytes(b"from a later version")
    new = artifact.Graph((0,), graph.name, {graph.name: artifact.sha256(graph)})
    with pytest.raises(WeightsError, match=f"expected graphs that {runtime} as installed here reads, got: "):
        ExportedRuntime(tmp_path, dataclasses.replace(description, graphs=(new,), detector=None), 1)


class Engines:
    """What is needed of TensorRT to keep engines: plans of these bytes are read, others are broken."""

    __version__ = "10"

    def deserialize_cuda_engine(self, plan):
        return plan if plan == b"plan" else None


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Gives the engine of a graph, as the first start on a GPU and the later ones do."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU 1")
    engines = Engines()
    runtime = SimpleNamespace(_tensorrt=engines, _runtime=engines, _build=lambda *_: b"plan")
    runtime._opened = functools.partial(TensorRtRuntime._opened, runtime)
    return lambda: TensorRtRuntime._engine(runtime, tmp_path / "rgb.onnx", "0123456789abcdef", "fp16")


def test_tensorrt_engine_is_kept_and_refused_where_it_is_broken(engine, tmp_path):
    assert engine() == engine() == b"plan"
    (kept,) = tmp_path.iterdir()
    assert kept.name == "rgb.0123456789ab.fp16.GPU_1.10.plan"
    kept.write_bytes(b"pl")
    with pytest.raises(WeightsError, match=r"\.plan: expected an engine that TensorRT reads, got a broken one; without"):
        engine()


def test_tensorrt_engine_that_cannot_be_kept_is_named(engine, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(WeightsError, match="expected a folder to keep TensorRT's engine in, got No space left"):
        engine()
    assert list(tmp_path.iterdir()) == []


def test_changed_description_is_refused(copied):
    path = copied / "export.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "precision": "int8"}))
    with pytest.raises(WeightsError, match="its seal"):
        Predictor(config_of(copied))
    path.write_text(json.dumps({**content, "export_version": 2}))
    with pytest.raises(WeightsError, match="expected an export of version 1, got 2"):
        Predictor(config_of(copied))
    path.write_text(path.read_text()[:100])
    with pytest.raises(WeightsError, match=r"export\.json: expected the description of an export"):
        Predictor(config_of(copied))


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_absent_runtime_is_named(exported, monkeypatch, runtime):
    folder = exported(runtime)
    monkeypatch.setitem(sys.modules, MODULE[runtime], None)
    with pytest.raises(ConfigError, match=rf"to be installed \(pip install 'gemini_ros\[{runtime}\]'\), got no module"):
        Predictor(config_of(folder))


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_absent_tensorrt_is_named(for_tensorrt):
    with pytest.raises(ConfigError, match="expected TensorRT"):
        Predictor(config_of(for_tensorrt, **{"modalities": ["rgb"], "model.precision": "fp16", "model.device": "auto"}))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model.runtime": "openvino"}, "expected a folder written by 'gemini-fusion export --runtime openvino'"),
        ({"model.precision": "int8"}, r"model\.precision: expected an exported folder in model\.weights for int8"),
    ],
)
def test_weights_that_are_not_exported_are_refused(weights, changes, sentence):
    for path in (weights, ""):
        with pytest.raises(ConfigError, match=sentence):
            Predictor(config_of(path, **changes))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="model.device: cuda is refused before")
@pytest.mark.gpu
def test_wrong_device_for_a_runtime_is_refused(exported):
    with pytest.raises(ConfigError, match=r"model\.device: expected cpu for onnx, got cuda"):
        Predictor(config_of(exported("onnx"), **{"model.device": "cuda"}))


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (("ncnn", "fp32", 64, 96), "--runtime: expected one of openvino, onnx, tensorrt, got 'ncnn'"),
        (("onnx", "int8", 64, 96), "--precision: expected one of fp32 for onnx, got 'int8'"),
        (("openvino", "fp32", 16, 96), "--size: expected 32 or more either way, got 96x16"),
    ],
)
def test_wrong_targets_are_refused(target, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Target(*target)


def test_export_that_differs_is_not_written(tmp_path):
    need("onnx")
    segmenter = network(1)
    with pytest.raises(
        WeightsError, match=r"export of rgb: expected logits within 1e-12 of eager torch on made-up images, got larg"
    ):
        export(
            segmenter,
            info_of(segmenter),
            Target("onnx", "fp32", HEIGHT, WIDTH),
            tmp_path / "out",
            inputs_of(segmenter),
            tolerance=1e-12,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk_under_an_openvino_graph_is_one_sentence(tmp_path):
    need("openvino")
    for name in ("rgb.xml", "rgb.bin"):
        (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(WeightsError, match=r"export: expected room to write the graph rgb\.xml, got: "):
        openvino.convert(torch.nn.Conv2d(3, 1, 3), torch.zeros(1, 3, 8, 8), "fp32", (), tmp_path / "rgb.xml")


# --------------------------------------------------------------------------------------------------------------------
# The command


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


def test_int8_is_checked_on_a_frame_that_it_was_not_calibrated_with(tmp_path, monkeypatch):
    calibrated, checked = [], []

    def convert(_segmenter, _target, inputs, subset, _stem):
        calibrated.append([float(image[0, 0, 0, 0]) for image in inputs])
        return artifact.Graph(subset, "", {})

    def verify(_segmenter, _target, image, *_):
        checked.append(float(image[0, 0, 0, 0]))
        return Verified(Difference(0.0, 0.0, 1.0))

    monkeypatch.setattr("gemini_core.runtimes.export._convert", convert)
    monkeypatch.setattr("gemini_core.runtimes.export._verify", verify)
    segmenter = network(1)
    frames = [np.full((1, 3, HEIGHT, WIDTH), value, np.float32) for value in range(3)]
    for name, inputs in (("several", frames), ("one", frames[:1])):
        target = Target("openvino", "int8", HEIGHT, WIDTH)
        export(segmenter, info_of(segmenter), target, tmp_path / name, Images(inputs, "frames"))
    assert calibrated == [[1.0, 2.0], [0.0]]
    assert checked == [0.0, 0.0]


def test_calibration_with_other_encodings_than_in_training_is_refused(tmp_path, bag, capsys):
    save(network(), tmp_path / "weights", encodings={"depth.max_m": 7.5})
    arguments = ["export", str(tmp_path / "weights"), str(tmp_path / "out"), "--runtime", "onnx", "--calibration", str(bag)]
    assert main([*arguments, "--set", "depth.max_m=8.0"]) == 2
    assert "depth.max_m: expected 7.5, with which" in capsys.readouterr().err


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 9, 10, 17, 100, 1000])
def test_frames_are_spread_over_a_length_that_is_not_known(count):
    kept = cli._spread(iter(range(count)), 4)
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


def test_runtime_without_its_files_is_refused(exported, tmp_path):
    description = artifact.read_description(exported("onnx"))
    with pytest.raises(WeightsError, match="expected the file that export"):
        ExportedRuntime(tmp_path, description, 1)

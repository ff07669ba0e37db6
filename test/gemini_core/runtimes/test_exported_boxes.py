"""Exported detectors: the same boxes as torch, beside masks or from them, and what does not fit."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from exports import BOX_CLASSES, DETECTOR, HEIGHT, MODALITIES, WIDTH, config_of, grids_of, info_of, inputs_of, need, network
from gemini_core.errors import ConfigError, WeightsError
from gemini_core.model.detection.mvxnet.checkpoint import save_mvxnet
from gemini_core.predictor import Predictor
from gemini_core.runtimes import artifact, boxes
from gemini_core.runtimes.eager import TorchRuntime
from gemini_core.runtimes.export import Target, compare_maps, export
from gemini_core.runtimes.exported import ExportedRuntime
from gemini_core.types import AlignedPoints
from grids import points_of
from mvxnets import small

OTHER_DETECTOR = dataclasses.replace(DETECTOR, classes=("car", "pedestrian", "truck"))


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


# --------------------------------------------------------------------------------------------------------------------
# Equal to torch


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


# --------------------------------------------------------------------------------------------------------------------
# What is refused


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

"""The folder of an export: refused where it does not fit, is broken or was changed."""

from __future__ import annotations

import dataclasses
import json

import pytest

from exports import CLASSES, ENCODINGS, config_of, network, save
from gemini_core.errors import WeightsError
from gemini_core.predictor import Predictor
from gemini_core.runtimes import artifact
from gemini_core.runtimes.exported import ExportedRuntime


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
def test_numbers_that_mean_something_else_are_refused(exported, tmp_path, kind):
    if kind == "weights":
        save(network(), tmp_path / "out", encodings=ENCODINGS)
    folder = tmp_path / "out" if kind == "weights" else exported("onnx")
    with pytest.raises(WeightsError, match=rf"depth\.max_m: expected 7\.5, with which .*{folder.name} was trained, got 8"):
        Predictor(config_of(folder, **{"depth.max_m": 8.0}))


def test_folder_without_a_description_is_named(copied):
    (copied / "export.json").unlink()
    with pytest.raises(WeightsError, match=r"a file, or a folder with export\.json in it, got .*copy without one"):
        Predictor(config_of(copied))


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

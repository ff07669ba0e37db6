"""Exported networks: the same masks as torch, and what a runtime does not take."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
import torch

from exports import CLASSES, MODALITIES, MODULE, config_of, grids_of, info_of, network
from gemini_core.errors import ConfigError, DataError, ShapeError, WeightsError
from gemini_core.predictor import Predictor
from gemini_core.runtimes import artifact
from gemini_core.runtimes.exported import ExportedRuntime, open_graphs

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
    grids.grid(modality).channels.setflags(write=True)
    grids.grid(modality).channels[1, 5, 6] = value  # OpenVINO would give a mask of one class
    with pytest.raises(DataError, match=f"grid of {modality}: expected finite numbers, got others at 1 pixels"):
        predictor.predict(grids)
    assert np.array_equal(predictor.predict(grids_of()).mask, expected)


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_an_export_whose_weights_are_no_numbers_is_refused(exported, tmp_path, runtime):
    shutil.copytree(exported(runtime), tmp_path / "copy")
    graph = artifact.read_description(tmp_path / "copy").graphs[0]
    if runtime == "onnx":
        onnx = pytest.importorskip("onnx")
        model = onnx.load(str(tmp_path / "copy" / graph.file))
        weights = max(model.graph.initializer, key=lambda each: len(each.raw_data))
        weights.raw_data = np.float32(np.nan).tobytes() + weights.raw_data[4:]
        onnx.save(model, str(tmp_path / "copy" / graph.file))
    else:
        file = (tmp_path / "copy" / graph.file).with_suffix(".bin")
        content = np.fromfile(file, np.float32, file.stat().st_size // 4)
        content[len(content) // 2] = np.nan
        content.tofile(file)
    with pytest.raises(WeightsError, match="expected weights that are numbers, got NaN in 1 of the"):
        open_graphs(tmp_path / "copy", runtime, "fp32", [graph], 1)


def test_description_says_what_runs_where(exported):
    described = Predictor(config_of(exported("openvino"))).describe()
    assert "MiT on rgb+depth, 5 classes, boxes of 2 classes at 96x64, trained weights" in described
    assert "fp32 in OpenVINO" in described
    assert described.endswith("on cpu with 2 threads")


def test_frame_without_its_own_graph_goes_to_the_one_that_uses_most_of_it():
    graphs = tuple(artifact.Graph(present, "", {}) for present in [(0, 1, 2), (0, 2), (0,)])
    segmenter = network()
    description = artifact.Export("onnx", "fp32", 64, 96, segmenter.config, info_of(segmenter), graphs, "", {})
    used = {present: description.graph_for(present).present for present in [(0, 1, 2), (0, 1), (0, 2, 3), (0,)]}
    assert used == {(0, 1, 2): (0, 1, 2), (0, 1): (0,), (0, 2, 3): (0, 2), (0,): (0,)}


# --------------------------------------------------------------------------------------------------------------------
# What is refused


def test_images_of_another_size_are_refused(exported):
    with pytest.raises(ShapeError, match=r"expected \(64, 96\), height and width of the export, got \(32, 96\)"):
        Predictor(config_of(exported("onnx"))).predict(grids_of(height=32))


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_absent_runtime_is_named(exported, monkeypatch, runtime):
    folder = exported(runtime)
    monkeypatch.setitem(sys.modules, MODULE[runtime], None)
    with pytest.raises(ConfigError, match=rf"to be installed \(pip install 'gemini_ros\[{runtime}\]'\), got no module"):
        Predictor(config_of(folder))


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


# --------------------------------------------------------------------------------------------------------------------
# The command


def test_runtime_without_its_files_is_refused(exported, tmp_path):
    description = artifact.read_description(exported("onnx"))
    with pytest.raises(WeightsError, match="expected the file that export"):
        ExportedRuntime(tmp_path, description, 1)

"""TensorRT: shapes of an export, engines that are kept, and how it decides where there is one."""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest
import torch

from exports import DETECTOR, HEIGHT, WIDTH, config_of, grids_of, info_of, inputs_of, need, network, save
from gemini_core.errors import ConfigError, WeightsError
from gemini_core.predictor import Predictor
from gemini_core.runtimes import artifact, openvino
from gemini_core.runtimes.export import Target, export
from gemini_core.runtimes.tensorrt import KeptEngines

# --------------------------------------------------------------------------------------------------------------------
# Equal to torch


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


# --------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Gives the engine of a graph, as the first start on a GPU and the later ones do."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU 1")
    engines = KeptEngines("10", read=lambda plan: plan if plan == b"plan" else None, build=lambda *_: b"plan")
    return lambda: engines.engine(tmp_path / "rgb.onnx", "0123456789abcdef", "fp16")


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
    with pytest.raises(WeightsError, match=r"plan: expected a path that can be written, got No space left"):
        engine()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_absent_tensorrt_is_named(for_tensorrt):
    with pytest.raises(ConfigError, match="expected TensorRT"):
        Predictor(config_of(for_tensorrt, **{"modalities": ["rgb"], "model.precision": "fp16", "model.device": "auto"}))

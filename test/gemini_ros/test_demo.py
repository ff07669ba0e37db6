"""The demo chooses what runs its network: OpenVINO on a CPU, unless the configuration says otherwise."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import yaml

from gemini_core.config.fusion import load_config
from gemini_core.model import checkpoints
from gemini_core.predictor import make_predictor
from gemini_core.simulation.record import simulate
from gemini_core.simulation.rig import default_rig
from gemini_ros.dds import config_file
from gemini_ros.tools.demo import faster_network
from networks import tiny

DEMO = config_file("demo.yaml")
ON_CPU = {"model.device": "cpu"}


def installed(monkeypatch, there):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object() if there else None)


@pytest.mark.parametrize(
    "chosen",
    [
        {"model.runtime": "torch"},
        {"model.enabled": False},
        {"model.weights": ""},
        {"model.weights": "config"},  # a folder, as of an export
        {"model.precision": "bf16"},
        {"model.device": "cuda"},
    ],
)
def test_what_the_configuration_chooses_stays(chosen, tmp_path, monkeypatch):
    installed(monkeypatch, there=True)
    monkeypatch.chdir(Path(DEMO).parents[1])
    assert faster_network(load_config(DEMO, ON_CPU | chosen), DEMO, tmp_path / "none", tmp_path) == {}
    assert not list(tmp_path.iterdir())


def test_without_openvino_torch_runs_it_and_that_is_said(tmp_path, monkeypatch, capsys):
    installed(monkeypatch, there=False)
    assert faster_network(load_config(DEMO, ON_CPU), DEMO, tmp_path / "none", tmp_path) == {}
    assert "OpenVINO is not installed: torch runs the network" in capsys.readouterr().out


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "bag"
    simulate(path, seed=1, seconds=0.3, rig=default_rig(0.25))
    return path


def test_the_network_is_exported_once_and_the_predictor_takes_it(bag, tmp_path, capfd):
    pytest.importorskip("openvino")
    weights, params = tmp_path / "tiny.safetensors", tmp_path / "params.yaml"
    names = load_config(DEMO).model.classes
    checkpoints.save(tiny(4, num_classes=len(names)), weights, names, trained=True, description="a test")
    values = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    values["/**"]["ros__parameters"] |= {
        "model": {"weights": str(weights)},
        "grid": {"height": 64, "width": 96},
        "detections": {"enabled": False},
    }
    params.write_text(yaml.safe_dump(values), encoding="utf-8")
    fusion = load_config(params, ON_CPU)

    options = faster_network(fusion, params, bag, tmp_path)
    said = capfd.readouterr().out
    assert "gemini-fusion export" in said
    assert "checked" in said
    assert options["model.runtime"] == "openvino"
    assert "openvino" in make_predictor(load_config(params, ON_CPU | options)).describe().lower()

    assert faster_network(fusion, params, bag, tmp_path) == options
    assert "gemini-fusion export" not in capfd.readouterr().out

    weights.write_bytes(b"no tensors")  # other weights: what was exported before is not theirs
    assert faster_network(fusion, params, bag, tmp_path) == {}
    output = capfd.readouterr()
    assert "there is no export: torch runs the network" in output.out
    assert "tiny.safetensors" in output.err

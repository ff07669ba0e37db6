"""The demo chooses what runs its network: OpenVINO on a CPU, unless the configuration says otherwise."""

from __future__ import annotations

import pytest
from networks import tiny

from gemini_core.config import load_config
from gemini_core.errors import WeightsError
from gemini_core.model import checkpoints
from gemini_core.predictor import make_predictor
from gemini_core.simulation.record import simulate
from gemini_core.simulation.rig import default_rig
from gemini_ros.tools.demo import faster_network
from gemini_ros.transport import config_file

DEMO = config_file("demo.yaml")
ON_CPU = {"model.device": "cpu"}


@pytest.mark.parametrize(
    "chosen",
    [
        {"model.runtime": "torch"},
        {"model.enabled": False},
        {"model.weights": ""},
        {"model.precision": "bf16"},
        {"model.device": "cuda"},
    ],
)
def test_what_the_configuration_chooses_stays(chosen, tmp_path):
    assert faster_network(load_config(DEMO, ON_CPU | chosen), DEMO, tmp_path / "none", tmp_path) == {}
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "bag"
    simulate(path, seed=1, seconds=0.3, rig=default_rig(0.25))
    return path


def test_the_network_is_exported_once_the_predictor_takes_it_and_a_failure_is_one_sentence(bag, tmp_path, capfd):
    pytest.importorskip("openvino")
    params = tmp_path / "params.yaml"
    weights = tmp_path / "tiny.safetensors"
    names = load_config(DEMO).model.classes
    checkpoints.save(tiny(4, num_classes=len(names)), weights, names, trained=True, description="a test")
    text = DEMO.read_text(encoding="utf-8").replace("shipped:simulated", str(weights))
    text = text.replace("height: 240, width: 320", "height: 64, width: 96").replace("enabled: true, base_frame", "base_frame")
    params.write_text(text, encoding="utf-8")
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
    with pytest.raises(WeightsError, match=r"expected an export of .*tiny.safetensors, got none; model.runtime=torch does"):
        faster_network(fusion, params, bag, tmp_path)

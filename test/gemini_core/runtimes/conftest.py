"""What the runtimes are tested with, made once."""

from __future__ import annotations

import shutil

import pytest

from exports import DETECTOR, HEIGHT, WIDTH, info_of, inputs_of, need, network, save
from gemini_core.runtimes.export import Target, export


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Weights of the network that is exported."""
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save(network(detector=DETECTOR), path)
    return path


@pytest.fixture(scope="session")
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


@pytest.fixture
def copied(exported, tmp_path):
    """A copy of an ONNX export, to break."""
    shutil.copytree(exported("onnx"), tmp_path / "copy")
    return tmp_path / "copy"

"""Exporting: how far a graph may be from torch, and targets that cannot be."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from exports import HEIGHT, WIDTH, info_of, inputs_of, need, network
from gemini_core.errors import ConfigError, WeightsError
from gemini_core.model.detection.pillars.codec import BevMaps
from gemini_core.runtimes import artifact, openvino
from gemini_core.runtimes.export import Difference, Images, Target, Verified, compare, compare_maps, export

# --------------------------------------------------------------------------------------------------------------------
# Equal to torch


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


def test_int8_is_checked_on_a_frame_that_it_was_not_calibrated_with(tmp_path):
    calibrated, checked = [], []

    def convert(_segmenter, _target, inputs, subset, _stem):
        calibrated.append([float(image[0, 0, 0, 0]) for image in inputs])
        return artifact.Graph(subset, "", {})

    def verify(_segmenter, _target, image, *_):
        checked.append(float(image[0, 0, 0, 0]))
        return Verified(Difference(0.0, 0.0, 1.0))

    segmenter = network(1)
    frames = [np.full((1, 3, HEIGHT, WIDTH), value, np.float32) for value in range(3)]
    for name, inputs in (("several", frames), ("one", frames[:1])):
        target = Target("openvino", "int8", HEIGHT, WIDTH)
        export(segmenter, info_of(segmenter), target, tmp_path / name, Images(inputs, "frames"), convert=convert, verify=verify)
    assert calibrated == [[1.0, 2.0], [0.0]]
    assert checked == [0.0, 0.0]

"""What the benchmark measures against is what the released models compute, and its tools count right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.model import contenders, cost, growth
from benchmarks.model.reference import Reference
from benchmarks.model.timing import in_turns, ratio
from gemini_core.model import importing
from gemini_core.model.checkpoints import read_safetensors
from gemini_core.model.segmentation import Segmenter, SegmenterConfig
from networks import trained

TOLERANCE = 1e-5  # of the output's standard deviation, fp32


def assert_close(got, expected):
    assert ((got - expected).abs().max() / expected.std()).item() < TOLERANCE


@pytest.mark.parametrize(
    ("name", "config", "inputs", "outputs"),
    [
        ("mit_b0_rgbd", SegmenterConfig("mit_b0", ("rgb", "depth"), 40), "rgb depth", "rgb depth ensemble"),
        (
            "mit_b0_rgb_depth_event_lidar",
            SegmenterConfig("mit_b0", ("rgb", "depth", "event", "lidar"), 25, 512),
            "img depth event lidar",
            "rgb fused ensemble",
        ),
    ],
)
def test_reference_equals_the_released_code(fixtures_dir, name, config, inputs, outputs):
    path = fixtures_dir / f"segmentation_{name}.safetensors"
    tensors, _ = read_safetensors(path)
    reference = Reference(importing.load_official(path, config))
    with torch.no_grad():
        output = reference([tensors[f"input.{which}"] for which in inputs.split()])
    for got, which in zip((*output.streams, output.ensemble), outputs.split(), strict=True):
        assert_close(got, tensors[f"output.{which}"])


@pytest.mark.parametrize(("modalities", "changes"), [(2, {}), (4, {}), (2, {"fused_blocks": 2})])
def test_reference_equals_ours(modalities, changes):
    segmenter = trained(modalities, **changes)
    generator = torch.Generator().manual_seed(3)
    inputs = [torch.randn(2, 3, 65, 97, generator=generator) for _ in range(modalities)]
    with torch.no_grad():
        expected, got = segmenter(inputs), Reference(segmenter)(inputs)
        assert_close(Reference(segmenter).quarter_logits(inputs), segmenter.quarter_logits(inputs).ensemble)
    for ours, plain in zip((*expected.streams, expected.ensemble), (*got.streams, got.ensemble), strict=True):
        assert_close(plain, ours)


def test_fused_blocks_hold_the_parameters_of_the_paper():
    counts = []
    for blocks in cost.PAPER:
        with torch.device("meta"):
            segmenter = Segmenter(SegmenterConfig("mit_b3", ("rgb", "depth"), cost.CLASSES, fused_blocks=blocks))
        counts.append(sum(parameter.numel() for parameter in segmenter.parameters()) / 1e6)
    without = [millions - counts[-1] for millions in counts]
    assert without == pytest.approx([millions - cost.PAPER[0][0] for millions, _ in cost.PAPER.values()], abs=0.1)


def test_exponents_are_fitted():
    assert growth.exponent([3e-6 * tokens for tokens in growth.TOKENS]) == pytest.approx(1.0)
    assert growth.exponent([2e-9 * tokens**2 for tokens in growth.TOKENS]) == pytest.approx(2.0)


@pytest.mark.parametrize("kind", growth.KINDS)
def test_growth_measures_one_size(kind):
    point = growth.measure(kind, 1024)
    assert point.seconds > 0
    assert point.megabytes >= 0


def test_growth_does_not_take_the_memory_of_who_started_it_for_its_own():
    ballast = np.ones(2**27)  # 1 GB: Linux hands the peak of this process on to what it starts
    here = Path(growth.__file__).resolve().parents[2]
    command = [sys.executable, "-m", "benchmarks.model.growth", "fusion", "16384"]
    point = json.loads(subprocess.run(command, cwd=here, capture_output=True, text=True, check=True).stdout)
    assert point["megabytes"] > 2 * 16384 * growth.WIDTH * 4 / 1e6  # at least what comes out
    assert ballast.all()


def test_contenders_run_in_turns():
    order = []
    seconds = in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert seconds["a"].shape == (2,)
    assert ratio({"a": np.array([2.0, 9.0, 4.0]), "b": np.array([1.0, 3.0, 1.0])}, "a", "b") == 3.0


@pytest.mark.usefixtures("real_dir")
def test_frames_are_real_colour_and_depth():
    frames = contenders.real_frames(3, 96, 128)
    assert [frame.shape for frame in frames] == [(3, 3, 96, 128)] * 5
    for frame in frames:
        assert np.array_equal(frame[1], frame[2])
        assert not np.array_equal(frame[0], frame[1])
        assert 0.5 < np.mean(frame[1] > 0) <= 1.0  # most pixels have depth
        assert 0.0 <= frame.min() <= frame.max() <= 1.0

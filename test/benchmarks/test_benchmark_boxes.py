"""The comparison of detectors, small, from end to end."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.boxes import page as boxes_page
from benchmarks.boxes import runs as boxes_runs
from benchmarks.boxes.__main__ import main
from benchmarks.boxes.runs import CONTENDERS, IMAGE_RECIPE, contender_config, image_config
from boxed_bags import RECIPE, write_boxed_training
from gemini_core.errors import ConfigError
from training.config import load_training_config, to_flat_lists
from training.train import train


def test_contenders_differ_in_the_fusion_alone(tmp_path):
    recipe = to_flat_lists(load_training_config("simulated_boxes"))
    for name in CONTENDERS:
        options = to_flat_lists(contender_config(name, tmp_path, {}))
        changed = {key for key, value in options.items() if value != recipe[key]}
        assert changed - {"detection.fusion"} == {"run.out", "model.weights"}
        assert options["model.weights"] == str(tmp_path / "image" / "best.safetensors")
    image = image_config(tmp_path, {"run.threads": 1, "optimizer.steps": 7})
    assert (image.run.out, image.run.threads, image.detection.enabled) == (str(tmp_path / "image"), 1, False)
    assert image.optimizer == load_training_config(IMAGE_RECIPE).optimizer  # the budget of the overrides is the detectors'
    with pytest.raises(ConfigError, match=r"detection\.fusion: expected an option that all contenders share"):
        contender_config("gemini", tmp_path, {"detection.fusion": "none"})


def test_a_small_comparison_from_end_to_end(tmp_path, capsys, monkeypatch):
    folder = write_boxed_training(tmp_path)
    network = {"model.modalities": ["rgb"], "model.head_width": 32}
    frames = {f"data.{split}": [str(folder / split)] for split in ("train", "val")}
    frames |= {"data.fusion": str(folder / "fusion.yaml"), "data.cache": str(folder / "cache"), "data.workers": 0}
    budget = {"optimizer.steps": 2, "optimizer.warmup_steps": 1, "optimizer.batch_size": 2, "run.threads": 1}
    options = [f"{key}={json.dumps(value)}" for key, value in (network | frames | budget).items()]
    # The image branch, and a checkpoint of more modalities, as the shipped one is.
    branch = [
        f"{line}\n" for line in RECIPE.format(folder=folder).splitlines() if not line.startswith(("detection:", "model:"))
    ]
    (tmp_path / "image.yaml").write_text(
        "".join(branch).replace("modality_dropout: 0.3, turn_deg: 10.0, stretch: 0.05, paste: 2", "flip: 0.5")
    )
    monkeypatch.setattr(boxes_runs, "IMAGE_RECIPE", str(tmp_path / "image.yaml"))
    checkpoint = tmp_path / "checkpoint"
    train(load_training_config(str(folder / "recipe.yaml"), {"run.out": str(checkpoint)}))
    page = tmp_path / "page.md"
    options += ["--runs", str(tmp_path / "runs"), "--page", str(page), "--test", str(folder / "val")]
    options += ["--checkpoint-test", str(folder / "val"), "--checkpoint-fusion", str(folder / "fusion.yaml")]
    options += ["--weights", str(checkpoint / "best.safetensors")]
    assert main(options) == 0
    text = page.read_text()
    assert "(recipe `simulated_boxes`: 2 steps of 2 frames)" in text
    rows = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if line.startswith("| ")]
    assert rows.count(CONTENDERS["gemini"]) == 2  # from one point and from five
    assert "without depth" in rows
    content = json.loads((tmp_path / "runs" / "none" / "test-5" / "detection.json").read_text())
    assert content["min_points"] == 5
    assert set(content["subsets"]) == {"all"}
    image, *others = (load_file(tmp_path / "runs" / name / "best.safetensors") for name in ("image", "none", "gemini"))
    for other in others:
        assert all(torch.equal(other[key], tensor.to(other[key].dtype)) for key, tensor in image.items())

    # What is there is neither trained nor evaluated again.
    files = sorted((tmp_path / "runs").glob("*/test-*/*.json")) + sorted((tmp_path / "runs").glob("*/*.safetensors"))
    before = [path.stat().st_mtime_ns for path in files]
    assert main(options) == 0
    assert [path.stat().st_mtime_ns for path in files] == before
    # Groups that all contenders have get a table of their own.
    monkeypatch.setattr(boxes_page, "ALSO", {"all": "All of them again:", "world=sea": "At sea:"})
    assert main([*options, "--report"]) == 0
    assert page.read_text().count("All of them again:") == 2
    assert "At sea:" not in page.read_text()
    assert main([*options, "--report", "--runs", str(tmp_path / "nothing")]) == 1
    assert "expected evaluations of contenders, got none" in capsys.readouterr().err

"""Scores of trained masks."""

from __future__ import annotations

import json

from training import evaluate as evaluation
from training.train import train


def test_evaluation_scores_every_subset_and_shows_it(masks_folder, masks_recipe, tmp_path):
    train(masks_recipe())
    arguments = ["--weights", str(tmp_path / "run" / "last.safetensors"), "--data", str(masks_folder / "val")]
    arguments += ["--fusion", str(masks_folder / "fusion.yaml"), "--cache", str(masks_folder / "cache")]
    assert evaluation.main([*arguments, "--out", str(tmp_path / "page"), "--workers", "0"]) == 0
    content = json.loads((tmp_path / "page" / "evaluation.json").read_text())
    assert content["subsets"] == ["all", "rgb alone"]
    assert content["groups"] == ["all"]
    assert all(result["frames"] == 2 for result in content["results"])
    page = (tmp_path / "page" / "index.html").read_text()
    assert "rgb alone" in page
    assert (tmp_path / "page" / "pictures" / "frame-prediction.png").is_file()

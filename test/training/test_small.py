"""The recipe of twenty minutes: its set is whole and goes on, and what it reached is held against what is stated."""

from __future__ import annotations

import pytest

from gemini_core.errors import BagError
from gemini_core.simulation.clip import CONDITIONS, SPLITS, Clip, plan
from training import small
from training.config import load_training_config


def test_the_set_has_every_split_and_the_test_every_condition():
    clips = plan(small.CLIPS, small.SECONDS)
    assert {clip.split for clip in clips} == set(SPLITS)
    tested = [clip.condition for clip in clips if clip.split == "test"]
    assert all(tested.count(condition) >= 4 for condition in CONDITIONS)
    recipe = load_training_config(small.RECIPE)
    assert recipe.data.train == (str(small.FOLDER / "train"),)
    assert recipe.data.val == (str(small.FOLDER / "val"),)


def test_clearly_less_than_stated_is_a_failure(capsys):
    assert small.verdict(small.STATED_MEAN_IOU + 0.01, 150) == 0
    assert small.verdict(small.STATED_MEAN_IOU - small.TOLERANCE + 0.001, 150) == 0
    said = capsys.readouterr()
    assert f"stated: {100 * small.STATED_MEAN_IOU:.1f} %" in said.out
    assert not said.err
    assert small.verdict(small.STATED_MEAN_IOU - small.TOLERANCE - 0.001, 150) == 1
    assert "error: training: expected a mean IoU of at least" in capsys.readouterr().err


@pytest.mark.slow
def test_a_small_set_from_end_to_end(tmp_path, monkeypatch):
    pytest.importorskip("open3d", reason="the extra 'simulation' is not installed")
    clips = {"train": 2, "val": 1, "test": 1}
    overrides = {
        "data.train": [str(tmp_path / "set" / "train")],
        "data.val": [str(tmp_path / "set" / "val")],
        "data.cache": str(tmp_path / "cache"),
        "run.out": str(tmp_path / "run"),
        "optimizer.steps": 2,
        "optimizer.warmup_steps": 1,
        "optimizer.batch_size": 1,
    }
    monkeypatch.setattr(small, "SCALE", 0.25)
    evaluation = small.small(tmp_path / "set", clips, 0.1, overrides)
    assert evaluation.groups[0] == "all"
    assert evaluation.results[0].frames == 1
    assert (tmp_path / "run" / "test" / "index.html").is_file()

    # What is there stays as it is, also the trained weights.
    files = sorted([*(tmp_path / "set").rglob("*.mcap"), *(tmp_path / "run").glob("*.safetensors")])
    assert len(files) == 6
    before = [path.stat().st_mtime_ns for path in files]
    again = small.small(tmp_path / "set", clips, 0.1, overrides)
    assert [path.stat().st_mtime_ns for path in files] == before
    assert again.results[0].scores.mean_iou == evaluation.results[0].scores.mean_iou

    with pytest.raises(BagError, match="expected nothing, or the recording of"):
        small.simulate(tmp_path / "set", [Clip("test", "street", "day", "none", 0, 0.2)])

"""The comparison of sensors and fusions: its arithmetic on made-up evaluations, and one small one from end to end."""

from __future__ import annotations

import json

import pytest
import yaml

from benchmarks.segmentation.__main__ import main
from benchmarks.segmentation.contenders import CONTENDERS, contender_config
from benchmarks.segmentation.page import page
from benchmarks.segmentation.results import costs, gain, night_share, read_evaluation, read_runs, spread
from gemini_core.errors import ConfigError, DataError
from gemini_core.simulation.clip import CONDITIONS, Clip
from gemini_core.simulation.record import record_set
from training.config import load_training_config, to_flat_lists


def write_evaluation(folder, scores, **inputs):
    """An evaluation as training.evaluate writes it; ``scores`` are shares by (group, subset)."""
    folder.mkdir(parents=True)
    results = [
        {"group": group, "subset": subset, "frames": 10, "scores": {"mean_iou": share}}
        for (group, subset), share in scores.items()
    ]
    (folder / "evaluation.json").write_text(json.dumps({"description": "step 5 of 5, seed 0", "results": results}))
    (folder / "inputs.json").write_text(json.dumps({"weights_sha256": "", "every": 1, "frames": ["a"], **inputs}))


def write_run(runs, name, seed, overall, night, *, inputs=None, **options):
    folder = runs / f"{name}-seed{seed}"
    scores = {("all", "all"): overall, ("condition=night", "all"): night, ("condition=fog", "all"): None}
    write_evaluation(folder / "test", scores, **(inputs or {}))
    config = to_flat_lists(contender_config(name, seed, runs, "simulated", {}))
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, **options}))


@pytest.fixture
def runs(tmp_path):
    write_run(tmp_path, "rgb", 0, 0.40, 0.20)
    write_run(tmp_path, "rgb", 1, 0.44, 0.24)
    write_run(tmp_path, "rgbdel", 0, 0.50, 0.40, **{"run.threads": 1, "data.workers": 3})
    write_run(tmp_path, "rgbdel-none", 0, 0.51, 0.30)
    return tmp_path


def test_seeds_give_a_mean_with_its_spread(runs):
    found = read_runs(runs)
    assert [(run.name, run.seed) for run in found] == [("rgb", 0), ("rgb", 1), ("rgbdel", 0), ("rgbdel-none", 0)]
    assert spread(found, "rgb", "all").text() == "42.0 (40.0–44.0)"
    assert spread(found, "rgbdel", "all").text() == "50.0"
    assert spread(found, "rgbdel", "condition=fog") is None
    assert spread(found, "rgbd", "all") is None


def test_gains_are_held_against_their_bars(runs):
    found = read_runs(runs)
    assert gain(found, "rgbdel", "rgb", "all") == pytest.approx(8.0)
    assert gain(found, "rgbdel", "rgb", "condition=night") == pytest.approx(18.0)
    assert gain(found, "rgbdel", "rgbdel-exchange", "all") is None
    text = page(runs, "simulated", [0, 1])
    assert "| four sensors over RGB, all | +8.0 | at least 8 | reached |" in text
    assert "| four sensors over RGB, night | +18.0 | at least 15 | reached |" in text
    assert "| gemini over none, all | -1.0 | above 0 | **missed** |" in text
    assert "gemini over exchange" not in text
    assert "| RGB | 42.0 (40.0–44.0) | – | – | 22.0 (20.0–24.0) | – | – |" in text
    assert "4,000 steps of 8 frames, 32,000 in all" in text


def test_the_page_says_what_is_missing(runs):
    (runs / "rgbe-seed0").mkdir()
    (runs / "rgbe-seed0" / "log.jsonl").write_text('{"step": 1200, "loss": 1.0}\n')
    (runs / "rgbe-seed0" / "config.yaml").write_text("optimizer.steps: 4000\n")
    text = page(runs, "simulated", [0])
    assert "- RGB+E, seed 0: 1,200 of 4,000 steps trained" in text
    assert "- RGB+L, seed 0: not trained" in text
    assert "- RGB, seed 0" not in text
    assert "taken away: not evaluated" in text
    assert "## One checkpoint" not in text


def test_a_checkpoint_without_its_sensors(runs):
    scores = {("all", "all"): 0.5, ("all", "without depth"): 0.48, ("all", "without lidar"): 0.43, ("all", "rgb alone"): 0.2}
    scores |= {("condition=day", "all"): 0.6, ("condition=night", "all"): 0.45, ("condition=night", "rgb alone"): 0.1}
    write_evaluation(runs / "checkpoint", scores)
    evaluated = read_evaluation(runs / "checkpoint")
    assert costs(evaluated) == pytest.approx({"depth": 2.0, "lidar": 7.0})
    assert night_share(evaluated) == pytest.approx(75.0)
    text = page(runs, "simulated", [0])
    assert "| cost of losing depth, points | 2.0 | at most 6 | reached |" in text
    assert "| cost of losing lidar, points | 7.0 | at most 6 | **missed** |" in text
    assert "| night, percent of day | 75 | at least 80 | **missed** |" in text
    assert "| rgb alone | 20.0 | – | – | 10.0 | – | – |" in text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"optimizer.steps": 5000}, r"rgbd-seed0: expected optimizer\.steps as in rgb-seed0, 4000, got 5000"),
        ({"inputs": {"frames": ["b"]}}, "rgbd-seed0: expected the test frames of rgb-seed0, got others"),
    ],
)
def test_what_had_more_of_anything_is_not_compared(runs, options, sentence):
    write_run(runs, "rgbd", 0, 0.9, 0.9, **options)
    with pytest.raises(DataError, match=sentence):
        page(runs, "simulated", [0])


def test_contenders_differ_in_sensors_and_fusion_alone(tmp_path):
    flat = {name: to_flat_lists(contender_config(name, 3, tmp_path, "simulated", {})) for name in CONTENDERS}
    recipe = to_flat_lists(load_training_config("simulated"))
    for name, options in flat.items():
        changed = {key for key, value in options.items() if value != recipe[key]}
        assert changed <= {"model.modalities", "model.fusion", "run.out", "run.seed"}, name
    assert len({(tuple(each["model.modalities"]), each["model.fusion"]) for each in flat.values()}) == len(CONTENDERS)
    with pytest.raises(ConfigError, match=r"model\.fusion: expected an option that all contenders share"):
        contender_config("rgb", 0, tmp_path, "simulated", {"model.fusion": "none"})


# --------------------------------------------------------------------------------------------------------------------
# From end to end

RECIPE = """
data:
  fusion: {folder}/fusion.yaml
  train: ["{folder}/set/train"]
  val: ["{folder}/set/val"]
  cache: {folder}/cache
  workers: 0
model: {{head_width: 32}}
optimizer: {{steps: 2, warmup_steps: 1, batch_size: 2}}
run: {{validate_every: 2, checkpoint_every: 1, log_every: 1, threads: 1}}
"""
FUSION = """
sync: {max_wait_ms: 2000.0}
depth: {min_interval_ms: 60.0}
lidar: {min_interval_ms: 60.0}
grid: {height: 64, width: 96}
"""


@pytest.mark.slow
def test_a_small_comparison_from_end_to_end(tmp_path, capsys):
    pytest.importorskip("open3d", reason="the extra 'simulation' is not installed")
    clips = [Clip("train", "street", "day", "none", seed, 0.2) for seed in (0, 1)]
    clips += [Clip("val", "room", "day", "none", 0, 0.1)]
    clips += [Clip("test", "room", condition, "none", 0, 0.1) for condition in CONDITIONS if condition != "rain"]
    record_set(tmp_path / "set", clips, 0.25)
    (tmp_path / "fusion.yaml").write_text(FUSION)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path))
    options = ["--config", str(tmp_path / "recipe.yaml"), "--runs", str(tmp_path / "runs"), "--page", str(tmp_path / "page.md")]
    options += ["--test", str(tmp_path / "set" / "test"), "--only", "rgb", "rgbdel-none", "rgbdel"]
    assert main(["optimizer.lr=1.0e-4", *options, "checkpoint"]) == 0
    text = (tmp_path / "page.md").read_text()
    assert "with `optimizer.lr=0.0001`, 2 steps of 2 frames, 4 in all" in text
    assert "train 2 clips (0 s, 4 frames); val 1 clips (0 s, 1 frames); test 4 clips (0 s, 4 frames)" in text
    for start in (
        "| RGB |",
        "| RGB+D+E+L, gemini |",
        "| RGB+D+E+L, none",
        "| four sensors over RGB, night |",
        "| without event |",
    ):
        assert f"\n{start}" in text
    assert "\n- RGB+E, seed 0: not trained" in text
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in text.splitlines() if line.startswith("| ")}
    content = json.loads((tmp_path / "runs" / "rgb-seed0" / "test" / "evaluation.json").read_text())
    shares = {each["group"]: each["scores"]["mean_iou"] for each in content["results"]}
    assert rows["RGB"][0] == f"{100 * shares['all']:.1f}"

    # What is there is neither trained nor evaluated again, and another budget is refused.
    files = sorted(path for path in (tmp_path / "runs").rglob("*") if path.is_file())
    before = [path.stat().st_mtime_ns for path in files]
    assert main(["optimizer.lr=1.0e-4", *options, "checkpoint"]) == 0
    assert [path.stat().st_mtime_ns for path in files] == before
    assert main(["--report", *options]) == 0
    assert (tmp_path / "page.md").read_text() == text
    assert main([*options]) == 1
    assert "expected a checkpoint of the same configuration" in capsys.readouterr().err.splitlines()[-1]

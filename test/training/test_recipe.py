"""Recipes by name and path, and those that build on others."""

from __future__ import annotations

import pytest
import yaml

from gemini_core.errors import ConfigError
from labelled_bags import recipe_of
from training.config import load_training_config, to_flat_lists
from training.recipe import RECIPES, read_recipe
from training.train import train


def test_the_recipes_can_be_read():
    names = sorted(path.stem for path in RECIPES.glob("*.yaml"))
    assert {"nyudv2", "sunrgbd", "deliver", "simulated", "simulated_small"} <= set(names)
    for name in names:
        load_training_config(name)


def test_a_recipe_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="expected a YAML file or the name of a recipe, got 'nyu'"):
        load_training_config("nyu")


def test_a_recipe_overrides_keys_of_its_base(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "grand.yaml").write_text("optimizer: {steps: 700, lr: 2.0e-4}\nmodel: {head_width: 48, backbone: mit_b1}\n")
    (tmp_path / "inner" / "parent.yaml").write_text("base: ../grand.yaml\noptimizer: {steps: 800}\ndata.val: [one, two]\n")
    (tmp_path / "child.yaml").write_text("base: inner/parent.yaml\ndata: {val: [three]}\nmodel.head_width: 64\n")
    config = load_training_config(str(tmp_path / "child.yaml"), {"optimizer.batch_size": 3})
    assert read_recipe(tmp_path / "child.yaml") == {
        "optimizer.steps": 800,
        "optimizer.lr": 2.0e-4,
        "model.head_width": 64,
        "model.backbone": "mit_b1",
        "data.val": ["three"],  # a list is replaced as a whole
    }
    assert (config.optimizer.steps, config.optimizer.batch_size, config.data.val) == (800, 3, ("three",))


def test_a_base_may_be_a_shipped_recipe_or_lie_where_the_command_runs(tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    (tmp_path / "there.yaml").write_text("base: nyudv2\noptimizer: {steps: 100000}\n")
    (tmp_path / "own" / "child.yaml").write_text("base: there.yaml\nrun: {seed: 5}\n")
    monkeypatch.chdir(tmp_path)
    child, shipped = (to_flat_lists(load_training_config(name)) for name in ("own/child.yaml", "nyudv2"))
    assert {key for key, value in child.items() if value != shipped[key]} == {"optimizer.steps", "run.seed"}


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("nyu", r"child.yaml: base: expected a YAML file or the name of a recipe, got 'nyu' \(nearest known: .*nyudv2"),
        ("gone.yaml", "child.yaml: base: expected a YAML file or the name of a recipe, got 'gone.yaml', which is not there"),
        ("[simulated]", r"child.yaml: base: expected the name or path of a recipe, got \['simulated'\]"),
        ("child.yaml", "expected recipes of which one builds on no other, got a circle of bases: .*child.yaml -> .*child.yaml"),
        ("other.yaml", "got a circle of bases: .*child.yaml -> .*other.yaml -> .*child.yaml"),
        ("wrong.yaml", "child.yaml: unknown key 'optimizer.lrr'"),
    ],
)
def test_a_base_that_cannot_be_is_one_sentence(tmp_path, base, words):
    (tmp_path / "child.yaml").write_text(f"base: {base}\n")
    (tmp_path / "other.yaml").write_text("base: ./child.yaml\n")
    (tmp_path / "wrong.yaml").write_text("optimizer: {lrr: 1.0}\n")
    with pytest.raises(ConfigError, match=words) as raised:
        load_training_config(str(tmp_path / "child.yaml"))
    assert "\n" not in str(raised.value)


def test_a_run_keeps_its_options_whole(masks_folder, tmp_path):
    (tmp_path / "recipe.yaml").write_text(f"base: {masks_folder / 'recipe.yaml'}\noptimizer: {{steps: 1, warmup_steps: 0}}\n")
    config = recipe_of(tmp_path, tmp_path / "run")()
    train(config)
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text()) == to_flat_lists(config)
    assert load_training_config(str(tmp_path / "run" / "config.yaml")) == config

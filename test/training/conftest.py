"""Bags to train on, with the recipes of runs that take seconds; no test may change them."""

from __future__ import annotations

import pytest

from boxed_bags import BOXES, write_boxed_training
from gemini_core.config.fusion import load_config
from labelled_bags import TOPICS, recipe_of, write_training
from mvxnet_bags import write_mvxnet_training
from training.cache import cache_bag


@pytest.fixture(scope="session")
def masks_folder(tmp_path_factory):
    return write_training(tmp_path_factory.mktemp("masks"))


@pytest.fixture(scope="session")
def boxed_folder(tmp_path_factory):
    return write_boxed_training(tmp_path_factory.mktemp("boxed"))


@pytest.fixture(scope="session")
def mvxnet_folder(tmp_path_factory):
    return write_mvxnet_training(tmp_path_factory.mktemp("mvxnet"))


@pytest.fixture
def masks_recipe(masks_folder, tmp_path):
    """A run of its own, with the shared bags and cache."""
    return recipe_of(masks_folder, tmp_path / "run")


@pytest.fixture
def boxed_recipe(boxed_folder, tmp_path):
    return recipe_of(boxed_folder, tmp_path / "run")


@pytest.fixture
def mvxnet_recipe(mvxnet_folder, tmp_path):
    return recipe_of(mvxnet_folder, tmp_path / "run")


@pytest.fixture(scope="session")
def boxed_fusion(boxed_folder):
    return load_config(boxed_folder / "fusion.yaml")


@pytest.fixture(scope="session")
def boxed(boxed_folder, boxed_fusion):
    """The cached frames to train boxes on."""
    return cache_bag(boxed_folder / "train", boxed_fusion, TOPICS, boxed_folder / "cache", boxes=BOXES)

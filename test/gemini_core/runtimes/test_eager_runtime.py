"""What torch runs by itself, compiled too."""

from __future__ import annotations

import functools
import sys

import numpy as np
import pytest
import torch

from exports import config_of, grids_of
from gemini_core.errors import ConfigError
from gemini_core.predictor import Predictor


def test_torch_compile_gives_the_same_mask(weights, monkeypatch):
    # Everything but the C++ compiler, which would take minutes and need not be there.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    monkeypatch.setenv("CXX", sys.executable)
    expected = Predictor(config_of(weights)).predict(grids_of()).mask
    predictor = Predictor(config_of(weights, **{"model.runtime": "torch_compile"}))
    assert np.array_equal(predictor.predict(grids_of()).mask, expected)
    assert "compiled" in predictor.describe()


def test_torch_compile_without_a_compiler_is_refused_at_the_start(weights, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/g++")
    with pytest.raises(ConfigError, match=r"expected a C\+\+ compiler for torch_compile .*, got no '/nowhere/g\+\+'"):
        Predictor(config_of(weights, **{"model.runtime": "torch_compile"}))

"""The learning-rate schedule."""

from __future__ import annotations

import pytest

from training.optimizer import learning_rate


def test_the_rate_warms_up_and_falls_in_every_phase(masks_recipe):
    settings = masks_recipe(optimizer__steps=300, optimizer__warmup_steps=10, optimizer__phases=3, optimizer__lr=1e-3).optimizer
    assert learning_rate(0, settings) == pytest.approx(1e-9)
    assert learning_rate(10, settings) == pytest.approx(1e-3 * 0.9)
    assert learning_rate(100, settings) == pytest.approx(0.5e-9)
    assert learning_rate(255, settings) == pytest.approx(0.25e-3 * 0.45)
    assert learning_rate(299, settings) == pytest.approx(0.25e-3 * 0.01)

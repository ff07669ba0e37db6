"""Where the tests find real recordings and the released code's numbers: beside the checkout, or nowhere (then they skip)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from gemini_core.runtimes.process_settings import prepare_process
from source_imports import REPOSITORY

_TESTS = Path(__file__).resolve().parent

prepare_process()  # before any test imports torch

# Seeded like everything else: a test that fails, fails again. HYPOTHESIS_PROFILE=search looks for new counter-examples.
settings.register_profile("seeded", derandomize=True)
settings.register_profile("search", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "seeded"))

_QUICK = (
    "gemini_core/decode",
    "gemini_core/rig",
    "gemini_core/synchronize",
    "gemini_ros/test_launch.py",
    "gemini_ros/test_parameters.py",
)
"""What ``colcon test`` runs, in a minute or two: on a robot, nobody waits for the whole suite."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out all but the quick part where colcon runs the tests; colcon alone gives this option, the package's name."""
    if config.getoption("junitprefix") != "gemini_ros" or not collection_path.is_relative_to(_TESTS):
        return None
    quick = [_TESTS / part for part in _QUICK]
    wanted = any(collection_path.is_relative_to(part) or part.is_relative_to(collection_path) for part in quick)
    return None if wanted else True


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with recordings and golden numbers; too large, or not ours, to be part of the project."""
    path = Path(os.environ.get("GEMINI_SHARED", REPOSITORY.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no recordings on this machine (looked in {path}; GEMINI_SHARED names another folder)")
    return path


@pytest.fixture(scope="session")
def real_dir(shared_dir: Path) -> Path:
    """Real recordings, one folder per source."""
    return shared_dir / "real"


@pytest.fixture(scope="session")
def fixtures_dir(shared_dir: Path) -> Path:
    """Numbers that the released GeminiFusion computes."""
    return shared_dir / "fixtures"

"""What training and evaluation make of bad data and of a full disk: one sentence, status 1, and nothing half-written."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess

import pytest
import torch
from safetensors.torch import load_file

from gemini_core.errors import DataError
from labelled_bags import write_bag, write_training
from training import evaluate as evaluation
from training import report
from training.cache import open_cached
from training.checkpoint import save_state
from training.config import load_training_config
from training.train import main, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bags, their cached frames and a finished run, none of which a test may change."""
    folder = write_training(tmp_path_factory.mktemp("faults"))
    train(load_training_config(str(folder / "recipe.yaml")))
    return folder


def last_line(capsys):
    """The error that a command ended with; all it said besides is progress."""
    lines = capsys.readouterr().err.splitlines()
    assert not [line for line in lines if line.startswith("Traceback")]
    return lines[-1]


# --------------------------------------------------------------------------------------------------------------------
# Data


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"labels": False}, "odd: expected labels on topic '/ground_truth/segmentation', got no such topic"),
        ({"largest": 7}, "odd: label at 0.100000000 s: expected values of 2 classes or 255, got 7 at 1 pixels"),
        ({"label_size": 32}, "odd: label at 100000000 ns: expected the image's 64 x 64, got 32 x 32"),
    ],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_bad_labels_end_training_with_one_sentence(folder, tmp_path, capsys, *, options, sentence, split):
    write_bag(tmp_path / "odd", 4, **options)
    overrides = [f"run.out={tmp_path / 'run'}", f"data.cache={tmp_path / 'cache'}", f"data.{split}=[{tmp_path / 'odd'}]"]
    assert main(["--config", str(folder / "recipe.yaml"), *overrides]) == 1
    said = last_line(capsys)
    assert said.startswith("error: ")
    assert sentence in said
    assert not [path for path in (tmp_path / "cache").iterdir() if "odd" in path.name]
    assert not list((tmp_path / "run").iterdir())


def evaluation_arguments(folder, out, **changed):
    given = {
        "weights": folder / "run" / "best.safetensors",
        "data": folder / "val",
        "fusion": folder / "fusion.yaml",
        "cache": folder / "cache",
        "out": out,
        "workers": 0,
        **changed,
    }
    return [str(word) for key, value in given.items() for word in (f"--{key}", value)]


def test_bad_labels_end_evaluation_with_one_sentence(folder, tmp_path, capsys):
    write_bag(tmp_path / "odd", 4, largest=7)
    assert (
        evaluation.main(evaluation_arguments(folder, tmp_path / "page", data=tmp_path / "odd", cache=tmp_path / "cache")) == 1
    )
    assert "expected values of 2 classes or 255, got 7 at 1 pixels" in last_line(capsys)
    assert not list((tmp_path / "cache").iterdir())
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_shard_ends_both_commands_with_one_sentence(folder, tmp_path, capsys, workers):
    shutil.copytree(folder / "cache", tmp_path / "cache")
    for shard in (tmp_path / "cache").glob("*/shard-0000.safetensors"):
        content = bytearray(shard.read_bytes())
        content[-100] ^= 1
        shard.write_bytes(content)
    overrides = [f"run.out={tmp_path / 'run'}", f"data.cache={tmp_path / 'cache'}", f"data.workers={workers}"]
    assert main(["--config", str(folder / "recipe.yaml"), *overrides]) == 1
    assert "shard-0000.safetensors: expected the shard as it was written, got other bytes" in last_line(capsys)
    arguments = evaluation_arguments(folder, tmp_path / "page", cache=tmp_path / "cache", workers=workers)
    assert evaluation.main(arguments) == 1
    assert "shard-0000.safetensors: expected the shard as it was written, got other bytes" in last_line(capsys)
    assert not (tmp_path / "page" / "evaluation.json").exists()


@pytest.mark.parametrize("content", ["[]", "5", "{}", '{"format": 1, "shards": 3}', "not JSON", "\x00"])
def test_a_damaged_index_is_refused(tmp_path, content):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(DataError, match=r"expected aligned frames of format 2, got .*; delete the folder"):
        open_cached(tmp_path)


# --------------------------------------------------------------------------------------------------------------------
# A full disk: no file may grow beyond a limit, so that a real write fails

KILOBYTE = 1000


@contextlib.contextmanager
def largest_file(size):
    """Let writes beyond ``size`` bytes fail with EFBIG; Python ignores the signal that comes along."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room_for_frames(folder, tmp_path, capsys):
    overrides = [f"run.out={tmp_path / 'run'}", f"data.cache={tmp_path / 'cache'}", "optimizer.steps=2"]
    with largest_file(20 * KILOBYTE):
        assert main(["--config", str(folder / "recipe.yaml"), *overrides]) == 1
    said = last_line(capsys)
    assert f"error: {tmp_path / 'cache' / 'train-'}" in said
    assert "expected a place to write aligned frames to, got" in said
    assert "File too large" in said
    assert not list((tmp_path / "cache").iterdir())
    assert main(["--config", str(folder / "recipe.yaml"), *overrides]) == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own thread says it too
@pytest.mark.parametrize(
    ("size", "sentence", "left"),
    [
        (500, "config.yaml: expected a path that can be written, got File too large", set()),
        (2500, "run: expected a place to write the log to, got File too large", {"config.yaml", "log.jsonl", "tensorboard"}),
        (
            1000 * KILOBYTE,
            "last.safetensors: expected a path that can be written, got Error while serializing: I/O error: File too large",
            {"config.yaml", "log.jsonl", "tensorboard"},
        ),
        (
            40_000 * KILOBYTE,
            "last.pt: expected a path that can be written, got File too large",
            {"config.yaml", "log.jsonl", "tensorboard", "last.safetensors"},
        ),
    ],
)
def test_no_room_in_the_folder_of_a_run(folder, tmp_path, capsys, *, size, sentence, left):
    overrides = [f"run.out={tmp_path / 'run'}"]
    if size == 2500:  # a longer log than that, before there are weights
        overrides += ["optimizer.steps=30", "run.checkpoint_every=30", "run.validate_every=30"]
    with largest_file(size):
        assert main(["--config", str(folder / "recipe.yaml"), *overrides]) == 1
    assert sentence in last_line(capsys)
    assert {path.name for path in (tmp_path / "run").iterdir()} == left
    if "last.safetensors" in left:
        load_file(tmp_path / "run" / "last.safetensors")


def test_after_a_full_disk_the_run_goes_on_from_its_last_checkpoint(folder, tmp_path, capsys, monkeypatch):
    """The second checkpoint finds no room; the first one stays, and leads to the same weights as a run without trouble."""
    arguments = ["--config", str(folder / "recipe.yaml"), f"run.out={tmp_path / 'run'}"]
    with contextlib.ExitStack() as stack, monkeypatch.context() as patched:

        def save_and_fill(state, path):
            save_state(state, path)
            stack.enter_context(largest_file(path.stat().st_size // 2))

        patched.setattr("training.train.save_state", save_and_fill)
        assert main(arguments) == 1
    assert "last.pt: expected a path that can be written, got File too large" in last_line(capsys)
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["step"] == 2
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]
    assert main(arguments) == 0
    whole, resumed = (load_file(run / "last.safetensors") for run in (folder / "run", tmp_path / "run"))
    assert all(torch.equal(tensor, resumed[key]) for key, tensor in whole.items())


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        (200, "frame-rgb.png: expected a path that can be written, got File too large"),
        (1000, "evaluation.json: expected a path that can be written, got File too large"),
    ],
)
def test_no_room_for_an_evaluation(folder, tmp_path, capsys, monkeypatch, *, size, sentence):
    if size == 1000:  # less than the pictures need; they find room
        monkeypatch.setattr(report, "write_png", unlimited(report.write_png))
    with largest_file(size):
        assert evaluation.main(evaluation_arguments(folder, tmp_path / "page")) == 1
    assert sentence in last_line(capsys)
    assert {path.suffix for path in (tmp_path / "page").rglob("*") if path.is_file()} <= {".png"}
    assert not list((tmp_path / "page").rglob(".*"))


def unlimited(write):
    def writes(*arguments):
        with largest_file(resource.getrlimit(resource.RLIMIT_FSIZE)[1]):
            write(*arguments)

    return writes


def test_an_evaluation_needs_a_folder(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert evaluation.main(evaluation_arguments(folder, tmp_path / "file" / "page")) == 1
    assert "expected a path that can be written, got Not a directory" in last_line(capsys)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="only root can mount a disk of one megabyte")
def test_a_disk_that_is_really_full(folder, tmp_path, capsys):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no disk could be mounted: {mounted.stderr.decode().strip()}")
    try:
        assert main(["--config", str(folder / "recipe.yaml"), f"run.out={disk / 'run'}"]) == 1
        said = last_line(capsys)
        assert "last.safetensors: expected a path that can be written" in said
        assert "No space left on device" in said
        assert {path.name for path in (disk / "run").iterdir()} == {"config.yaml", "log.jsonl", "tensorboard"}
    finally:
        subprocess.run(["umount", disk], check=True)

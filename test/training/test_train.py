"""The training loop: it learns, goes on after a kill with the same bits, on several processes, and knows no task."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from gemini_core.errors import WeightsError
from gemini_core.model import checkpoints
from labelled_bags import CLASSES
from source_imports import imports_of_file, module_name, sources
from training.checkpoint import load_state, save_state
from training.data import FrameDataset, plain_batches
from training.optimizer import ParameterGroup
from training.tasks.interface import Loss, Scores, Task
from training.train import main, train

MODULES = {module_name(path): path for path in sources("training")}
NETWORKS = ("MvxNet", "Segmenter", "Detector", "Task", "Finder")


def imports_of(module):
    return imports_of_file(MODULES[module])


def test_a_run_learns_and_leaves_weights_that_say_what_they_are(masks_recipe, tmp_path):
    best = train(masks_recipe(optimizer__steps=40, optimizer__lr=1e-3, run__validate_every=20, augment__modality_dropout=0.0))
    assert best > 0.8
    segmenter, info = checkpoints.load(tmp_path / "run" / "best.safetensors")
    assert info.trained
    assert info.class_names == CLASSES
    assert segmenter.config.modalities == ("rgb", "depth")
    assert "validation" in info.description
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    curves = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [point.step for point in curves.Scalars("loss")] == [line["step"] for line in lines if "loss" in line]
    np.testing.assert_allclose([point.value for point in curves.Scalars("loss")], losses, rtol=1e-4)


def test_a_killed_run_ends_with_the_same_bits(masks_folder, masks_recipe, tmp_path):
    train(masks_recipe(run__out=str(tmp_path / "whole")))
    options = ["--config", str(masks_folder / "recipe.yaml"), f"run.out={tmp_path / 'cut'}"]
    command = [sys.executable, "-m", "training.train", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2])
    until = time.monotonic() + 120
    while not (tmp_path / "cut" / "last.pt").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr.read().decode()
    process.stderr.close()
    step = torch.load(tmp_path / "cut" / "last.pt", weights_only=True)["step"]
    assert 0 < step < 6
    train(masks_recipe(run__out=str(tmp_path / "cut"), data__workers=1))  # who loads the frames makes no difference
    for name in ("last.safetensors", "best.safetensors"):
        whole, cut = (load_file(tmp_path / run / name) for run in ("whole", "cut"))
        assert whole.keys() == cut.keys()
        for key, tensor in whole.items():
            assert torch.equal(tensor, cut[key]), key
    logs = [
        [{**json.loads(line), "seconds": 0, "waited": 0} for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "cut")
    ]
    assert logs[0] == logs[1]


TOGETHER = """
import json, sys
import torch
import torch.distributed as dist
from training import train

follow, load, frames = train.update_average, train.training_batches, []

def noted(*arguments, **options):
    for batch in load(*arguments, **options):
        frames.append(sorted(batch.number.tolist()))
        yield batch

def compared(averaged, network, decay, step):
    follow(averaged, network, decay, step)
    if step < 4:
        return
    ours = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    weights, seen = [torch.empty_like(ours) for _ in range(2)], [None, None]
    dist.all_gather(weights, ours)
    dist.all_gather_object(seen, frames)
    if dist.get_rank() == 0:
        print(json.dumps({"same": torch.equal(*weights), "frames": seen}))

train.training_batches, train.update_average = noted, compared
sys.exit(train.main(sys.argv[1:]))
"""


def test_two_processes_train_one_network_on_different_frames(masks_folder, tmp_path):
    (tmp_path / "together.py").write_text(TOGETHER)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(tmp_path / "together.py"), "--config", str(masks_folder / "recipe.yaml"), f"run.out={tmp_path / 'run'}"]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, "optimizer.steps=4"],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=root,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert said["same"]
    for ours, theirs in zip(*said["frames"], strict=True):
        assert len(ours) == len(theirs) == 2
        assert not set(ours) & set(theirs)
    _, info = checkpoints.load(tmp_path / "run" / "last.safetensors")
    assert info.trained
    steps = {json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()}
    assert steps == {1, 2, 3, 4}


# --------------------------------------------------------------------------------------------------------------------
# The loop and its tasks


class DepthOfColor(Task[nn.Conv2d]):
    """A task that the loop has never heard of, of one image to another: how near things are, by how bright they are."""

    def dataset(self, bags, augmentation=None):
        return FrameDataset(bags, ("rgb", "depth"), (checkpoints.Normalization(),) * 2, augmentation)

    def build(self, _frames):
        return nn.Conv2d(3, 1, 1).train()

    def parameter_groups(self, network):
        return [ParameterGroup([network.weight], 1.0, 0.0), ParameterGroup([network.bias], 0.5, 0.0)]

    def loss(self, _network, forward, batch, _number):
        away = (forward(batch.images[0]) - batch.images[1, :, :1]).abs().mean()
        return Loss((away, 2 * away), {"away": away})

    @torch.inference_mode()
    def validate(self, network, frames):
        away = [float(self.loss(network, network, batch, 0).logged["away"]) for batch in plain_batches(frames, 1, 0)]
        mean = sum(away) / len(away)
        return Scores(1 - mean, {"near": 1 - mean}, f"{mean:.3f} away")

    def save(self, network, path, description):
        save_file(network.state_dict(), path, {"said": description})


def test_a_task_that_the_loop_has_never_heard_of_runs_through_it(masks_recipe, tmp_path, monkeypatch):
    def run(out):
        config = masks_recipe(optimizer__steps=20, optimizer__lr=0.05, optimizer__accumulate=3, run__out=str(tmp_path / out))
        return train(config, lambda *_: DepthOfColor())

    best = run("whole")
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    losses = [line for line in lines if "loss" in line]
    assert [line["step"] for line in losses] == list(range(1, 21))
    assert all(line["loss"] == pytest.approx(3 * line["away"], rel=1e-4) for line in losses)
    assert losses[-1]["loss"] < 0.5 * losses[0]["loss"]
    assert best == pytest.approx(max(line["near"] for line in lines if "near" in line), rel=1e-4)

    def stop(state, path):
        save_state(state, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("training.train.save_state", stop)
        with pytest.raises(KeyboardInterrupt):
            run("cut")
    assert run("cut") == best
    for name in ("last.safetensors", "best.safetensors"):
        whole, cut = (load_file(tmp_path / out / name) for out in ("whole", "cut"))
        assert all(torch.equal(tensor, cut[key]) for key, tensor in whole.items())


def test_the_loop_imports_no_task_but_through_the_place_that_chooses():
    """Nor does anything that the loop imports, but for that place."""
    seen, waiting = set(), ["training.train"]
    while waiting:
        module = waiting.pop()
        imported = {known for name in imports_of(module) for known in MODULES if name == known or name.startswith(known + ".")}
        tasks = {name for name in imported if name.startswith("training.tasks.")}
        assert tasks <= {"training.tasks.choose", "training.tasks.interface"}, module
        seen.add(module)
        waiting += imported - seen - {"training.tasks.choose"}
    assert {"training.tasks.interface", "training.data", "training.checkpoint"} <= seen
    implementations = set(MODULES) - seen
    assert {"training.tasks.masks", "training.tasks.mvxnet"} <= implementations
    choosing = imports_of("training.tasks.choose")
    assert {"training.tasks.masks.MasksTask", "training.tasks.mvxnet.MvxNetTask"} <= choosing


def test_nothing_that_trains_or_evaluates_asks_which_network_it_has():
    for module, path in MODULES.items():
        called = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        asked = [ast.unparse(node) for node in called if ast.unparse(node.func) == "isinstance"]
        assert not [text for text in asked if any(name in text for name in NETWORKS)], module


# --------------------------------------------------------------------------------------------------------------------
# Bad input


def test_a_checkpoint_of_another_run_is_refused(masks_recipe, tmp_path):
    train(masks_recipe(optimizer__steps=2))
    with pytest.raises(WeightsError, match="expected a checkpoint of the same configuration"):
        train(masks_recipe(optimizer__steps=2, optimizer__lr=1e-4))
    (tmp_path / "run" / "last.pt").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"last\.pt: expected a checkpoint of this version"):
        load_state(tmp_path / "run" / "last.pt", "")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("optimizer.lrr=1", "unknown key 'optimizer.lrr'"),
        ("optimizer.batch_size=100", "data.train: expected 100 labelled frames for a batch, got 6"),
        ("model.modalities=[rgb, lidar]", "model.modalities: expected some of rgb, depth"),
        ("data.train=[/nowhere/*]", "data.train: expected bags at '/nowhere/*', got none"),
        ("optimizer.warmup_steps=6", "optimizer.warmup_steps: expected less than the 6 steps"),
        ("augment.focus=0.5", "augment.focus: expected 0 without augment.crop_height and crop_width, got 0.5"),
        ("augment.focus_classes=[car]", "augment.focus_classes: expected none without augment.focus, got car"),
        ("noise", "expected section.option=value"),
        ("model.weights=/nowhere.safetensors", "/nowhere.safetensors: expected a readable safetensors file"),
    ],
)
def test_wrong_options_end_with_one_sentence(masks_folder, tmp_path, capsys, override, sentence):
    assert main(["--config", str(masks_folder / "recipe.yaml"), f"run.out={tmp_path / 'run'}", override]) == 1
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_a_focus_on_a_class_that_is_not_there_ends_with_one_sentence(masks_folder, tmp_path, capsys):
    options = ["augment.crop_height=32", "augment.crop_width=32", "augment.focus=0.5", "augment.focus_classes=[unicorn]"]
    assert main(["--config", str(masks_folder / "recipe.yaml"), f"run.out={tmp_path / 'run'}", *options]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"augment.focus_classes: expected some of {', '.join(CLASSES)} (" in said
    assert said.endswith("), got unicorn")
    labels = ["data.labels=''", "detection.enabled=true", "detection.alone=true", *options[:3]]
    assert main(["--config", str(masks_folder / "recipe.yaml"), f"run.out={tmp_path / 'run'}", *labels]) == 1
    assert "augment.focus: expected 0 without data.labels, got 0.5" in capsys.readouterr().err

"""Training: frames out of bags, their cache, the loop and how it goes on, and what bad input gets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gemini_core.bag import messages
from gemini_core.bag.writer import BagWriter
from gemini_core.errors import BagError, ConfigError, DataError, WeightsError
from gemini_core.model import checkpoints
from gemini_core.types import UNLABELLED
from labelled_bags import CLASSES, FUSION, SIZE, STEP_NS, TOPICS, picture, recipe_of, write_bag, write_training
from training import evaluate as evaluation
from training.cache import ShardReader, cache_bag, open_cached, pack, unpack
from training.checkpoint import load_state
from training.config import RECIPES, load_training_config
from training.data import FrameDataset, plain_batches
from training.frames import find_bags, labelled_frames
from training.train import learning_rate, main, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_training(tmp_path_factory.mktemp("training"))


@pytest.fixture
def recipe(folder, tmp_path):
    """A run of its own, with the shared bags and cache."""

    return recipe_of(folder, tmp_path / "run")


def fusion_config(folder):
    from gemini_core.config.fusion import load_config

    return load_config(folder / "fusion.yaml")


# --------------------------------------------------------------------------------------------------------------------
# Frames and their cache


def test_a_frame_has_the_label_of_its_own_stamp_on_its_own_pixels(folder):
    rng = np.random.default_rng(1)
    frames = list(labelled_frames(folder / "train", fusion_config(folder), TOPICS))
    assert len(frames) == 6
    for frame in frames:
        pixels, depth, label = picture(rng)
        np.testing.assert_array_equal(frame.label, label)
        np.testing.assert_array_equal(np.rint(frame.grids.grid("rgb").channels * 255), pixels.transpose(2, 0, 1))
        np.testing.assert_allclose(frame.grids.grid("depth").depth_m, depth / 1000.0, rtol=1e-6)


def test_the_cache_gives_back_what_the_frames_were(folder):
    config = fusion_config(folder)
    bag = cache_bag(folder / "train", config, TOPICS, folder / "cache")
    assert bag.frames == 6
    assert sum(bag.class_pixels) == 6 * SIZE * SIZE
    assert bag.class_pixels[1] == 6 * 24 * 24
    reader = ShardReader((bag,))
    for index, frame in enumerate(labelled_frames(folder / "train", config, TOPICS)):
        channels, label = reader.read(index, ("rgb", "depth"))
        np.testing.assert_array_equal(label, frame.label)
        np.testing.assert_allclose(channels["rgb"], frame.grids.grid("rgb").channels, rtol=0, atol=1e-7)
        np.testing.assert_allclose(channels["depth"], frame.grids.grid("depth").channels, atol=1 / 131070)


@pytest.mark.parametrize("levels", [255, 65535])
def test_packing_loses_nothing_at_its_levels(levels):
    channels = (np.random.default_rng(0).integers(0, levels + 1, (3, 5, 7)) / levels).astype(np.float32)
    packed = pack(channels)
    assert packed.dtype == (np.uint8 if levels == 255 else np.uint16)
    np.testing.assert_array_equal(unpack(torch.from_numpy(packed)), channels)
    assert pack(np.repeat(channels[:1], 3, axis=0)).shape == (1, 5, 7)


def test_another_configuration_or_a_changed_bag_makes_another_cache(folder, tmp_path):
    config = fusion_config(folder)
    first = cache_bag(folder / "val", config, TOPICS, tmp_path)
    assert cache_bag(folder / "val", config, TOPICS, tmp_path).folder == first.folder
    (tmp_path / "fusion.yaml").write_text(FUSION + "depth: {max_m: 10.0}\n")
    assert cache_bag(folder / "val", fusion_config(tmp_path), TOPICS, tmp_path).folder != first.folder
    os.utime(next(folder.joinpath("val").glob("*.mcap")))
    assert cache_bag(folder / "val", config, TOPICS, tmp_path).folder != first.folder


def test_labels_may_stand_in_a_bag_beside_the_bag(folder, tmp_path):
    write_bag(tmp_path / "drive", 5, labels=False)
    with BagWriter(tmp_path / "drive-labels") as bag:
        bag.write(TOPICS.names, messages.label_info(CLASSES, 0, "camera"), 1)
        bag.write(TOPICS.images, messages.mask(np.ones((SIZE, SIZE), np.uint8), 3 * STEP_NS, "camera"), 3)
    frames = list(labelled_frames(tmp_path / "drive", fusion_config(folder), TOPICS))
    assert [frame.grids.stamp_ns for frame in frames] == [3 * STEP_NS]
    assert (frames[0].label == 1).all()
    assert find_bags((str(tmp_path),), "data.train") == (tmp_path / "drive",)


# --------------------------------------------------------------------------------------------------------------------
# The loop


def test_a_run_learns_and_leaves_weights_that_say_what_they_are(recipe, tmp_path):
    best = train(recipe(optimizer__steps=40, optimizer__lr=1e-3, run__validate_every=20, augment__modality_dropout=0.0))
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


def test_a_killed_run_ends_with_the_same_bits(folder, recipe, tmp_path):
    train(recipe(run__out=str(tmp_path / "whole")))
    command = [sys.executable, "-m", "training.train", "--config", str(folder / "recipe.yaml"), f"run.out={tmp_path / 'cut'}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2])
    until = time.monotonic() + 120
    while not (tmp_path / "cut" / "last.pt").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr.read().decode()
    process.stderr.close()
    step = torch.load(tmp_path / "cut" / "last.pt", weights_only=True)["step"]
    assert 0 < step < 6
    train(recipe(run__out=str(tmp_path / "cut"), data__workers=1))  # who loads the frames makes no difference
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


def test_two_processes_train_one_network_on_different_frames(folder, tmp_path):
    (tmp_path / "together.py").write_text(TOGETHER)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(tmp_path / "together.py"), "--config", str(folder / "recipe.yaml"), f"run.out={tmp_path / 'run'}"]
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


def test_the_rate_warms_up_and_falls_in_every_phase(recipe):
    settings = recipe(optimizer__steps=300, optimizer__warmup_steps=10, optimizer__phases=3, optimizer__lr=1e-3).optimizer
    assert learning_rate(0, settings) == pytest.approx(1e-9)
    assert learning_rate(10, settings) == pytest.approx(1e-3 * 0.9)
    assert learning_rate(100, settings) == pytest.approx(0.5e-9)
    assert learning_rate(255, settings) == pytest.approx(0.25e-3 * 0.45)
    assert learning_rate(299, settings) == pytest.approx(0.25e-3 * 0.01)


def test_the_recipes_can_be_read():
    names = sorted(path.stem for path in RECIPES.glob("*.yaml"))
    assert {"nyudv2", "sunrgbd", "deliver", "simulated", "simulated_small"} <= set(names)
    for name in names:
        load_training_config(name)


# --------------------------------------------------------------------------------------------------------------------
# Evaluation


def test_evaluation_scores_every_subset_and_shows_it(folder, recipe, tmp_path):
    train(recipe())
    arguments = ["--weights", str(tmp_path / "run" / "last.safetensors"), "--data", str(folder / "val")]
    arguments += ["--fusion", str(folder / "fusion.yaml"), "--cache", str(folder / "cache"), "--out", str(tmp_path / "page")]
    assert evaluation.main([*arguments, "--workers", "0"]) == 0
    content = json.loads((tmp_path / "page" / "evaluation.json").read_text())
    assert content["subsets"] == ["all", "rgb alone"]
    assert content["groups"] == ["all"]
    assert all(result["frames"] == 2 for result in content["results"])
    page = (tmp_path / "page" / "index.html").read_text()
    assert "rgb alone" in page
    assert (tmp_path / "page" / "pictures" / "frame-prediction.png").is_file()


# --------------------------------------------------------------------------------------------------------------------
# Bad input


def test_a_bag_without_labels_is_refused_by_topic(folder, tmp_path):
    write_bag(tmp_path / "bare", 3, labels=False)
    with pytest.raises(BagError, match=r"bare: expected labels on topic '/ground_truth/segmentation', got no such topic"):
        cache_bag(tmp_path / "bare", fusion_config(folder), TOPICS, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_labels_without_a_frame_are_refused(folder, tmp_path):
    write_bag(tmp_path / "drive", 3, labels=False)
    with BagWriter(tmp_path / "drive-labels") as bag:
        bag.write(TOPICS.names, messages.label_info(CLASSES, 0, "camera"), 1)
        bag.write(TOPICS.images, messages.mask(np.ones((SIZE, SIZE), np.uint8), 5, "camera"), 3)
    with pytest.raises(BagError, match="with the stamps of its 6 frames, got none that fits"):
        list(labelled_frames(tmp_path / "drive", fusion_config(folder), TOPICS))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"largest": 7}, r"label at 0\.100000000 s: expected values of 2 classes or 255, got 7 at 1 pixels"),
        ({"label_size": 32}, r"label at 100000000 ns: expected the image's 64 x 64, got 32 x 32"),
        ({"names": ("ground", "boxx")}, r"among the classes ground, box \(model\.classes\), got boxx besides"),
    ],
)
def test_labels_that_do_not_fit_are_refused(folder, tmp_path, options, sentence):
    write_bag(tmp_path / "odd", 4, **options)
    with pytest.raises(DataError, match=sentence):
        cache_bag(tmp_path / "odd", fusion_config(folder), TOPICS, tmp_path / "cache")


def test_names_of_nothing_become_unlabelled(folder, tmp_path):
    write_bag(tmp_path / "drive", 4, names=("ground", "void"))
    frame = next(labelled_frames(tmp_path / "drive", fusion_config(folder), TOPICS))
    assert set(np.unique(frame.label)) == {0, UNLABELLED}


def test_a_damaged_shard_is_refused(folder, tmp_path):
    bag = cache_bag(folder / "val", fusion_config(folder), TOPICS, tmp_path)
    shard = bag.folder / bag.shards[0][0]
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"shard-0000\.safetensors: expected the shard as it was written, got other bytes"):
        ShardReader((bag,)).read(0, ("rgb",))
    shard.unlink()
    with pytest.raises(DataError, match=r"shard-0000\.safetensors"):
        ShardReader((bag,)).read(0, ("rgb",))
    (bag.folder / "index.json").write_text("{}")
    with pytest.raises(DataError, match="delete the folder"):
        open_cached(bag.folder)


def test_a_checkpoint_of_another_run_is_refused(recipe, tmp_path):
    train(recipe(optimizer__steps=2))
    with pytest.raises(WeightsError, match="expected a checkpoint of the same configuration"):
        train(recipe(optimizer__steps=2, optimizer__lr=1e-4))
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
    ],
)
def test_wrong_options_end_with_one_sentence(folder, tmp_path, capsys, override, sentence):
    assert main(["--config", str(folder / "recipe.yaml"), f"run.out={tmp_path / 'run'}", override]) == 1
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_a_focus_on_a_class_that_is_not_there_ends_with_one_sentence(folder, tmp_path, capsys):
    options = ["augment.crop_height=32", "augment.crop_width=32", "augment.focus=0.5", "augment.focus_classes=[unicorn]"]
    assert main(["--config", str(folder / "recipe.yaml"), f"run.out={tmp_path / 'run'}", *options]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"augment.focus_classes: expected some of {', '.join(CLASSES)} (" in said
    assert said.endswith("), got unicorn")
    labels = ["data.labels=''", "detection.enabled=true", "detection.alone=true", *options[:3]]
    assert main(["--config", str(folder / "recipe.yaml"), f"run.out={tmp_path / 'run'}", *labels]) == 1
    assert "augment.focus: expected 0 without data.labels, got 0.5" in capsys.readouterr().err


def test_rgb_alone_begins_with_what_a_network_of_more_knows_of_it(recipe, tmp_path):
    train(recipe(optimizer__steps=2))
    both = tmp_path / "run" / "last.safetensors"
    rate = {"optimizer__lr": 1e-8, "optimizer__steps": 2, "run__out": str(tmp_path / "alone"), "run__half": False}
    train(recipe(model__modalities=("rgb",), model__weights=str(both), **rate))
    theirs, own = (checkpoints.load(path)[0] for path in (both, tmp_path / "alone" / "last.safetensors"))
    assert own.config.modalities == ("rgb",)
    head = [each.state_dict()["head.classifier.weight"] for each in (theirs, own)]
    torch.testing.assert_close(*head, atol=1e-4, rtol=0)
    norms = [each.state_dict()["backbone.stages.0.embed.norm.weight"] for each in (theirs, own)]
    torch.testing.assert_close(norms[0][:1], norms[1], atol=1e-4, rtol=0)
    with pytest.raises(ConfigError, match=r"model\.weights: expected weights of"):
        train(recipe(model__weights=str(tmp_path / "alone" / "last.safetensors"), run__out=str(tmp_path / "back")))


def test_a_recipe_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="expected a YAML file or the name of a recipe, got 'nyu'"):
        load_training_config("nyu")


def test_weights_refuse_another_meaning_of_their_inputs(folder, recipe, tmp_path):
    from gemini_core.config.fusion import load_config
    from gemini_core.predictor import Predictor

    train(recipe(optimizer__steps=2, run__half=True))
    weights = tmp_path / "run" / "last.safetensors"
    kinds = {name: tensor.dtype for name, tensor in load_file(weights).items()}
    assert kinds.pop("head.norm.num_batches_tracked") == torch.int64
    assert set(kinds.values()) == {torch.float16}
    Predictor(load_config(folder / "fusion.yaml", {"model.weights": str(weights)}))
    with pytest.raises(WeightsError, match=r"depth\.max_m: expected 20\.0, with which .* was trained, got 10\.0"):
        Predictor(load_config(folder / "fusion.yaml", {"model.weights": str(weights), "depth.max_m": 10.0}))


@pytest.mark.timeout(120)
def test_loading_processes_start_where_opencv_has_threads(folder):
    config = fusion_config(folder)
    bag = cache_bag(folder / "train", config, TOPICS, folder / "cache")
    dataset = FrameDataset((bag,), bag.modalities, checkpoints.default_normalization(bag.modalities))
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        cv2.GaussianBlur(np.zeros((2000, 2000), np.float32), (0, 0), 3.0)  # which starts them
        batches = list(plain_batches(dataset, 2, workers=1))
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(before)
    assert sum(len(batch.number) for batch in batches) == len(dataset) == 6

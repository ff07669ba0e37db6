"""The task of masks, with boxes, and of boxes alone on masks that stay: runs, their beginnings and their weights."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from boxed_bags import (
    BOX_CLASSES,
    BOXES,
)
from gemini_core.bag import kitti
from gemini_core.bag.labels import LabelTopics
from gemini_core.config.fusion import load_config
from gemini_core.errors import ConfigError, WeightsError
from gemini_core.model import checkpoints
from gemini_core.model.detection.boxes import iou_3d
from gemini_core.model.detection.interface import IGNORED
from labelled_bags import CLASSES, recipe_of
from training.cache import cache_bag
from training.checkpoint import save_state
from training.config import load_training_config
from training.data import FrameDataset, collate
from training.tasks.inputs import point_clouds
from training.tasks.masks import make_segmenter
from training.train import train


def test_rgb_alone_begins_with_what_a_network_of_more_knows_of_it(masks_recipe, tmp_path):
    train(masks_recipe(optimizer__steps=2))
    both = tmp_path / "run" / "last.safetensors"
    rate = {"optimizer__lr": 1e-8, "optimizer__steps": 2, "run__out": str(tmp_path / "alone"), "run__half": False}
    train(masks_recipe(model__modalities=("rgb",), model__weights=str(both), **rate))
    theirs, own = (checkpoints.load(path)[0] for path in (both, tmp_path / "alone" / "last.safetensors"))
    assert own.config.modalities == ("rgb",)
    head = [each.state_dict()["head.classifier.weight"] for each in (theirs, own)]
    torch.testing.assert_close(*head, atol=1e-4, rtol=0)
    norms = [each.state_dict()["backbone.stages.0.embed.norm.weight"] for each in (theirs, own)]
    torch.testing.assert_close(norms[0][:1], norms[1], atol=1e-4, rtol=0)
    with pytest.raises(ConfigError, match=r"model\.weights: expected weights of"):
        train(masks_recipe(model__weights=str(tmp_path / "alone" / "last.safetensors"), run__out=str(tmp_path / "back")))


def test_weights_refuse_another_meaning_of_their_inputs(masks_folder, masks_recipe, tmp_path):
    from gemini_core.config.fusion import load_config
    from gemini_core.predictor import Predictor

    train(masks_recipe(optimizer__steps=2, run__half=True))
    weights = tmp_path / "run" / "last.safetensors"
    kinds = {name: tensor.dtype for name, tensor in load_file(weights).items()}
    assert kinds.pop("head.norm.num_batches_tracked") == torch.int64
    assert set(kinds.values()) == {torch.float16}
    Predictor(load_config(masks_folder / "fusion.yaml", {"model.weights": str(weights)}))
    with pytest.raises(WeightsError, match=r"depth\.max_m: expected 20\.0, with which .* was trained, got 10\.0"):
        Predictor(load_config(masks_folder / "fusion.yaml", {"model.weights": str(weights), "depth.max_m": 10.0}))


# --------------------------------------------------------------------------------------------------------------------
# With boxes


@pytest.fixture
def boxed_recipe(boxed_folder, tmp_path):
    return recipe_of(boxed_folder, tmp_path / "run")


@pytest.fixture(scope="module")
def whole(boxed_folder):
    """A run of masks and boxes to its end."""
    out = boxed_folder / "whole"
    train(load_training_config(str(boxed_folder / "recipe.yaml"), {"run.out": str(out)}))
    return out


def test_a_run_trains_masks_and_boxes_and_saves_both(whole):
    segmenter, info = checkpoints.load(whole / "best.safetensors")
    assert info.class_names == CLASSES
    assert segmenter.detector.config.classes == BOX_CLASSES
    assert segmenter.detector.config.range_m == (0.0, -6.4, -2.0, 12.8, 6.4, 2.0)
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert all(0 < line["boxes_loss"] < line["loss"] for line in lines if "loss" in line)
    assert {"mean_iou", "bev_ap"} <= lines[-1].keys()
    assert "mean AP of boxes" in info.description
    fresh, trained = (load_file(path) for path in (whole / "best.safetensors", whole / "last.safetensors"))
    assert any(key.startswith("detector.") for key in trained)
    assert fresh.keys() == trained.keys()


def test_a_stopped_run_with_boxes_ends_with_the_same_bits(boxed_recipe, whole, tmp_path, monkeypatch):
    def stop(state, path):
        save_state(state, path)
        if state.step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("training.train.save_state", stop)
        with pytest.raises(KeyboardInterrupt):
            train(boxed_recipe())
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["step"] == 2
    train(boxed_recipe())
    ours, theirs = (load_file(boxed_folder / "last.safetensors") for boxed_folder in (tmp_path / "run", whole))
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        assert torch.equal(tensor, ours[key]), key


@pytest.mark.parametrize("painted", [False, True])
def test_a_detector_trained_alone_leaves_everything_else_as_it_was(boxed_recipe, whole, tmp_path, painted):
    own = {"detection__alone": True, "detection__painted": painted, "data__labels": "", "run__seed": 1}
    own |= {"run__precision": "bf16"} if painted else {}  # in which the masks come, too
    config = boxed_recipe(model__weights=str(whole / "best.safetensors"), **own)
    torch.manual_seed(1)
    before = make_segmenter(config, 2, BOX_CLASSES).state_dict()
    train(config)
    after = load_file(tmp_path / "run" / "last.safetensors")
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        if not key.startswith("detector."):
            assert torch.equal(tensor, after[key]), key
    mapped = "detector.pillars.fusion.image_map.weight"
    moved = (after[mapped] - before[mapped]).abs().sum(dim=0) > 0
    assert moved.shape == (512 + (2 if painted else 0),)  # features of all stages, classes of the masks
    assert moved[-2:].all()
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[-1].keys() == {"step", "bev_ap"}


def test_a_detector_begins_anew_where_the_weights_have_another_one(boxed_recipe, whole):
    config = boxed_recipe(model__weights=str(whole / "best.safetensors"), detection__cell_m=0.4)
    torch.manual_seed(0)
    segmenter = make_segmenter(config, 2, BOX_CLASSES)
    before = load_file(whole / "best.safetensors")
    state = segmenter.state_dict()
    assert all(torch.equal(state[key], before[key]) for key in before if not key.startswith("detector.") and key in state)
    assert any(not torch.equal(state[key], before[key]) for key in before if key.startswith("detector."))


# --------------------------------------------------------------------------------------------------------------------
# Real frames


KITTI = """
modalities: [rgb, lidar]
lidar: {{slop_ms: 60.0, max_m: 80.0, max_intensity: 1.0}}
grid: {{height: 64, width: 224}}
motion: {{fixed_frame: ""}}
model: {{classes: [road, car]}}
detections: {{classes: [{classes}]}}
"""


KITTI_RECIPE = """
data: {{fusion: {folder}/fusion.yaml, train: ["{folder}/kitti"], val: [], cache: {folder}/cache, workers: 0, labels: ""}}
model: {{modalities: [rgb, lidar], given: [rgb], head_width: 32, drop_path: 0.0}}
detection:
  {{enabled: true, alone: true, x_max_m: 51.2, y_max_m: 12.8, cell_m: 0.4, points: lidar, lr_factor: 1.0, min_points: 5}}
augment: {{flip: 0.0, scale_min: 1.0, scale_max: 1.0, color_jitter: 0.0, blur: 0.0, modality_dropout: 0.0}}
optimizer: {{lr: 3.0e-3, steps: 60, warmup_steps: 10, batch_size: 2, clip_norm: 10.0}}
run: {{out: {folder}/run, checkpoint_every: 1000, threads: 1}}
"""


def test_training_on_real_frames_gives_back_their_boxes(real_dir, tmp_path):
    if not (real_dir / "kitti_object").is_dir():
        pytest.skip("no frames of KITTI object")
    kitti.from_kitti_object(real_dir / "kitti_object", tmp_path / "kitti")
    classes = ("car", "cyclist", "misc")
    (tmp_path / "fusion.yaml").write_text(KITTI.format(classes=", ".join(classes)))
    (tmp_path / "recipe.yaml").write_text(KITTI_RECIPE.format(folder=tmp_path))
    config = load_training_config(str(tmp_path / "recipe.yaml"))
    train(config)
    segmenter, info = checkpoints.load(tmp_path / "run" / "last.safetensors")
    bag = cache_bag(
        tmp_path / "kitti", load_config(tmp_path / "fusion.yaml"), LabelTopics("", ""), tmp_path / "cache", boxes=BOXES
    )
    dataset = FrameDataset((bag,), ("rgb", "lidar"), info.normalization, min_points=5)
    count = 0
    for index in range(len(dataset)):
        batch = collate([dataset[index, 0]])
        labelled = batch.labelled_clouds[0]
        clouds = point_clouds(config, batch, [True, False], torch.device("cpu"))
        with torch.inference_mode():
            maps = segmenter.quarter_logits(tuple(batch.images), [True, False], clouds=clouds).boxes
        found = segmenter.detector.find(maps, min_score=0.3)[0]
        grid = segmenter.detector.config.head_grid
        wanted = (
            (labelled.classes != IGNORED)
            & labelled.field_of_view.holds(labelled.boxes[:, :2])
            & grid.holds(grid.place(labelled.boxes[:, :2]))
        )
        for box, named in zip(labelled.boxes[wanted], labelled.classes[wanted], strict=True):
            same = found.classes == named
            assert iou_3d(box[None], found.boxes[same]).max() >= 0.7
            count += 1
    assert count == 3  # a truck and a car are farther than 51.2 m

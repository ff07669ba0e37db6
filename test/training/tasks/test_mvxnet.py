"""MVX-Net from labelled frames to boxes: a run, its weights file, scores, the predictor and replay, and what bad input gets."""

from __future__ import annotations

import dataclasses
import json
import math
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation

from boxed_bags import (
    BOX_CLASSES,
    BOXES,
)
from gemini_core.bag.labels import LabelTopics
from gemini_core.bag.reader import BagReader
from gemini_core.cli import main as command
from gemini_core.config.fusion import load_config
from gemini_core.errors import ConfigError, WeightsError
from gemini_core.model import checkpoints
from gemini_core.model.detection.boxes import iou_3d
from gemini_core.model.detection.mvxnet.checkpoint import load_mvxnet, save_mvxnet
from gemini_core.model.detection.mvxnet.config import MvxNetConfig
from gemini_core.model.detection.mvxnet.points import MOMENTUM
from gemini_core.model.detection.mvxnet.sparse import choose_runtime
from gemini_core.predictor import BoxPredictor, make_predictor
from gemini_core.replay import Replay
from gemini_core.types import UNLABELLED
from labelled_bags import recipe_of
from mvxnets import released_tensors, small
from networks import tiny
from training import evaluate
from training.box_finders import mvxnet_subsets
from training.cache import ShardReader, cache_bag
from training.checkpoint import save_state
from training.config import load_training_config
from training.tasks.mvxnet import MvxNetTask, make_mvxnet, mean_anchors
from training.train import train


class QuickTask(MvxNetTask):
    """The norms' statistics arrive after 20 steps, not after 400."""

    def build(self, frames):
        network = super().build(frames)
        for module in network.modules():
            if getattr(module, "momentum", None) == MOMENTUM:
                module.momentum = 0.3
        return network


def choose_quick(config, fusion, _bags, device):
    return QuickTask(config, fusion, device)


@pytest.fixture(scope="module")
def learnt(mvxnet_folder):
    """Weights that know the one frame by heart. How long that takes depends on how the processor rounds."""
    for steps in (40, 60, 76, 50):
        out = mvxnet_folder / f"run-{steps}"
        own = {"optimizer.steps": steps, "run.out": str(out)}
        train(load_training_config(str(mvxnet_folder / "recipe.yaml"), own), choose_quick)
        options = {"detections.enabled": True, "detections.weights": str(out / "last.safetensors"), "model.enabled": False}
        config = load_config(mvxnet_folder / "fusion.yaml", options | {"model.threads": 1})
        if max((each.score for each in perceptions(mvxnet_folder, config)[0].detections), default=0.0) > 0.6:
            return out / "last.safetensors"
    pytest.fail("expected to learn one frame by heart, which none of four runs did")


def cached(mvxnet_folder, name, classes):
    config = load_config(mvxnet_folder / "fusion.yaml", {"detections.classes": list(classes)})
    return ShardReader((cache_bag(mvxnet_folder / name, config, LabelTopics("", ""), mvxnet_folder / "cache", boxes=BOXES),))


@pytest.fixture(scope="module")
def pair(mvxnet_folder):
    """Two frames, and their boxes of both classes."""
    return cached(mvxnet_folder, "pair", BOX_CLASSES)


@pytest.fixture
def mvxnet_recipe(mvxnet_folder, tmp_path):
    return recipe_of(mvxnet_folder, tmp_path / "run")


@pytest.fixture
def node(mvxnet_folder, learnt):
    """The node's configuration, by default for the boxes of what was learnt, and no masks."""

    def load(**options):
        dotted = {"detections.enabled": True, "detections.weights": str(learnt), "model.enabled": False, "model.threads": 1}
        dotted |= {key.replace("__", "."): value for key, value in options.items()}
        return load_config(mvxnet_folder / "fusion.yaml", dotted)

    return load


def perceptions(mvxnet_folder, config):
    with BagReader(mvxnet_folder / "bag") as opened:
        return list(Replay(opened, config, make_predictor(config)).perceptions())


def test_boxes_learnt_by_heart_come_back_from_a_replay(mvxnet_folder, node):
    (perception,) = perceptions(mvxnet_folder, node())
    assert (perception.mask == UNLABELLED).all()
    found, *others = perception.detections  # in the base frame, as labels are
    yaw = Rotation.from_quat(found.orientation_xyzw).as_euler("zyx")[0]
    box = torch.tensor([[*found.center_m, *found.size_m, yaw]], dtype=torch.float32)
    labelled = cached(mvxnet_folder, "bag", ("box",)).points_and_boxes(0).boxes
    assert float(iou_3d(box, torch.from_numpy(labelled))) > 0.6
    assert found.class_name == "box"
    assert found.score > 0.4 > max((other.score for other in others), default=0.0)


def test_masks_of_one_file_go_with_boxes_of_another(mvxnet_folder, node):
    options = {"model__backbone": "mit_b0", "model__head_width": 32, "model__enabled": True}
    plain = perceptions(mvxnet_folder, node(**options, detections__enabled=False))
    both = perceptions(mvxnet_folder, node(**options))
    alone = perceptions(mvxnet_folder, node())
    for masks, boxed, boxes in zip(plain, both, alone, strict=True):
        assert np.array_equal(masks.mask, boxed.mask)
        assert boxed.detections == boxes.detections != ()
    assert isinstance(make_predictor(node()), BoxPredictor)
    assert "boxes of box by MVX-Net" in make_predictor(node(**options)).describe()


def test_depth_gives_points_where_there_is_no_lidar(mvxnet_folder, node):
    (first,) = perceptions(mvxnet_folder, node(modalities=["rgb", "depth"]))
    assert first.grids.points.source == "depth"
    assert all(math.isfinite(number) for box in first.detections for number in (*box.center_m, box.score))


def test_it_is_scored_with_each_source_of_points_and_without_the_image(mvxnet_folder, learnt, tmp_path, capsys):
    arguments = ["--task", "detection", "--weights", str(learnt), "--data", str(mvxnet_folder / "bag"), "--labels", ""]
    arguments += ["--fusion", str(mvxnet_folder / "fusion.yaml"), "--cache", str(mvxnet_folder / "cache"), "--workers", "0"]
    assert evaluate.main([*arguments, "--out", str(tmp_path)]) == 0
    assert "over 1 in 1 frames" in capsys.readouterr().out
    content = json.loads((tmp_path / "detection.json").read_text())
    assert list(content["subsets"]) == list(mvxnet_subsets(("lidar", "depth")))
    scores = {each["subset"]: each["mean"]["everywhere"]["distance"] for each in content["results"]}
    assert scores["all"] > 0.9
    assert (tmp_path / "index.html").is_file()
    assert evaluate.main([*arguments, "--out", str(tmp_path), "--given", "rgb", "depth"]) == 1
    assert "--given: expected rgb and others of rgb, got rgb, depth" in capsys.readouterr().err


@pytest.mark.parametrize("half", [False, True])
def test_what_is_saved_is_loaded(tmp_path, half):
    network = small(3).eval()
    save_mvxnet(network, tmp_path / "w", trained=True, description="a test", encodings={"lidar.max_intensity": 1.0}, half=half)
    back, info = load_mvxnet(tmp_path / "w", runtime="torch")
    assert back.config == network.config
    assert not back.training
    assert (info.class_names, info.trained, info.description) == ((), True, "a test")
    assert info.encodings == {"lidar.max_intensity": 1.0}
    for name, tensor in network.state_dict().items():
        kept = tensor.half().float() if half and tensor.is_floating_point() else tensor
        assert torch.equal(back.state_dict()[name], kept), name


def test_what_a_network_trains_is_the_same_after_loading(tmp_path):
    network = small(image_frozen=True)
    save_mvxnet(network, tmp_path / "w", trained=True)
    back, _ = load_mvxnet(tmp_path / "w", runtime="torch")
    trained = [{name: own.requires_grad for name, own in each.named_parameters()} for each in (network, back)]
    assert trained[0] == trained[1]
    assert set(trained[0].values()) == {True, False}


def test_one_network_is_not_taken_for_the_other(tmp_path):
    save_mvxnet(small(), tmp_path / "boxes", trained=True)
    checkpoints.save(tiny(), tmp_path / "masks", tuple("abcde"), trained=True)
    with pytest.raises(WeightsError, match=r"of a segmenter, got those of MVX-Net; detections.weights takes those"):
        checkpoints.load(tmp_path / "boxes")
    with pytest.raises(WeightsError, match=r"masks: expected weights of MVX-Net, got those of a segmenter$"):
        load_mvxnet(tmp_path / "masks", runtime="torch")
    tensors, content = checkpoints.read(tmp_path / "boxes", checkpoints.MVXNET)
    content["config"]["colour"] = "red"
    checkpoints.write(small(), tmp_path / "odd", content, half=False)
    with pytest.raises(WeightsError, match=r"odd: expected metadata of MVX-Net, got something that breaks at .*colour"):
        load_mvxnet(tmp_path / "odd", runtime="torch")
    assert tensors.keys() == small().state_dict().keys()


def test_command_imports_the_released_model(tmp_path, capsys):
    torch.save({"meta": {"epoch": 40}, "state_dict": released_tensors(MvxNetConfig())}, tmp_path / "released.pth")
    arguments = ["import-weights", str(tmp_path / "released.pth"), str(tmp_path / "out"), "--detector", "mvxnet"]
    assert command([*arguments, "--classes", "pedestrian,cyclist,car"]) == 0
    network, info = load_mvxnet(tmp_path / "out", runtime="torch")
    assert network.config == dataclasses.replace(MvxNetConfig(), classes=("pedestrian", "cyclist", "car"))
    assert (info.trained, info.description) == (True, "MVX-Net weights from released.pth")
    capsys.readouterr()
    assert command([*arguments, "--classes", "car"]) == 2
    expected = "--classes: expected names for the released model's Pedestrian, Cyclist, Car, in this order, got car"
    assert capsys.readouterr().err == f"gemini-fusion: {expected}\n"


def test_anchors_are_like_the_labelled_boxes(pair):
    sizes, bottoms = mean_anchors(pair, BOX_CLASSES, 1)
    assert sizes == ((1.6, 1.0, 1.2), (0.6, 0.6, 1.8))
    assert bottoms == (-0.6, -0.9)
    with pytest.raises(ConfigError, match=r"data\.train: expected labelled boxes of every class .* got none of chair"):
        mean_anchors(pair, (*BOX_CLASSES, "chair"), 1)
    with pytest.raises(ConfigError, match="got none of box"):
        mean_anchors(pair, BOX_CLASSES, 10_000)


def test_voxels_too_large_for_a_class_are_refused(pair, mvxnet_recipe):
    config = mvxnet_recipe(detection__voxel_m=0.1, detection__x_min_m=3.2, detection__y_max_m=3.2)
    words = (
        r"detection.voxel_m: expected anchors, one in 8 voxels, near enough to each other for post of 0.6 x 0.6 m, got 0.1 m"
    )
    with pytest.raises(ConfigError, match=words):
        make_mvxnet(config, BOX_CLASSES, pair, torch.device("cpu"))


def test_short_things_need_less_overlap(mvxnet_recipe):
    made = mvxnet_recipe().mvxnet(("person", "car"), ((0.8, 0.6, 1.7), (3.9, 1.6, 1.5)), (0.0, 0.0))
    assert (made.positive_ious, made.negative_ious) == ((0.35, 0.6), (0.2, 0.45))
    whole = mvxnet_recipe(detection__channels=1.0, detection__x_min_m=0.0, detection__x_max_m=70.4, detection__y_max_m=40.0)
    names = MvxNetConfig().classes
    made = whole.mvxnet(names, MvxNetConfig().anchor_sizes_m, MvxNetConfig().anchor_bottoms_m)
    range_m = (0.0, -40.0, -1.6, 70.4, 40.0, 1.6)
    assert made == dataclasses.replace(MvxNetConfig(), range_m=range_m, image_frozen=False)


def test_a_stopped_run_ends_with_the_same_bits(mvxnet_folder, mvxnet_recipe, tmp_path, monkeypatch):
    options = {"optimizer__steps": 2, "optimizer__warmup_steps": 1, "optimizer__ema_decay": 0.5, "run__checkpoint_every": 1}
    options |= {"data__train": [str(mvxnet_folder / "pair")], "data__val": [str(mvxnet_folder / "bag")]}
    train(mvxnet_recipe(**options, run__out=str(tmp_path / "whole")))
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert lines[-1].keys() == {"step", "bev_ap"}
    assert all(line["loss"] == line["boxes_loss"] for line in lines if "loss" in line)

    def stop(state, path):
        save_state(state, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("training.train.save_state", stop)
        with pytest.raises(KeyboardInterrupt):
            train(mvxnet_recipe(**options))
    train(mvxnet_recipe(**options))
    ours, theirs = (load_file(tmp_path / name / "last.safetensors") for name in ("run", "whole"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, ours[key]) for key, tensor in theirs.items())
    assert "mean AP of boxes" in load_mvxnet(tmp_path / "run" / "best.safetensors", runtime="torch")[1].description


def test_a_run_goes_on_from_weights_with_a_frozen_stem(learnt, mvxnet_recipe, tmp_path):
    train(mvxnet_recipe(model__weights=str(learnt), optimizer__steps=1, optimizer__warmup_steps=0, optimizer__lr=1e-3))
    before, after = load_file(learnt), load_file(tmp_path / "run" / "last.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "img_backbone.conv1.weight" not in changed
    assert {"img_backbone.layer4.0.conv1.weight", "pts_bbox_head.conv_cls.weight"} <= changed


def test_weights_that_do_not_fit_a_run_are_refused(learnt, pair, mvxnet_recipe, tmp_path):
    def make(classes=("box",), **options):
        return make_mvxnet(mvxnet_recipe(**{"model__weights": str(learnt), **options}), classes, pair, torch.device("cpu"))

    with pytest.raises(ConfigError, match=r"MVX-Net of the classes box, post \(detections.classes\), got box in"):
        make(BOX_CLASSES)
    with pytest.raises(ConfigError, match=r"model.weights: expected an MVX-Net with voxel_m \(0.1, 0.1, 0.1\), got \(0.05"):
        make(detection__voxel_m=0.1)
    checkpoints.save(tiny(), tmp_path / "masks", tuple("abcde"), trained=True)
    with pytest.raises(WeightsError, match="expected weights of MVX-Net, got those of a segmenter"):
        make(model__weights=str(tmp_path / "masks"))


def test_spconv_that_is_asked_for_and_missing_is_named(pair, node, mvxnet_recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "spconv", None)
    monkeypatch.setitem(sys.modules, "spconv.pytorch", None)
    words = r"MVX-Net: expected spconv to be installed \(pip install 'gemini_ros\[mvxnet\]'\)"
    with pytest.raises(ConfigError, match=words):
        make_predictor(node(detections__sparse="spconv"))
    with pytest.raises(ConfigError, match=words):
        make_mvxnet(mvxnet_recipe(detection__sparse="spconv"), BOX_CLASSES, pair, torch.device("cpu"))
    assert choose_runtime("auto", torch.device("cuda")) == choose_runtime("auto", torch.device("cpu")) == "torch"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"detections__classes": ["box", "post"]},
            r"detections.classes: expected those of the detector in .*, box, got box, post",
        ),
        ({"lidar__max_intensity": 1.0}, r"lidar.max_intensity: expected 255.0, with which .* was trained, got 1.0"),
        ({"detections__weights": "nowhere.safetensors"}, "nowhere.safetensors: expected a readable safetensors file"),
    ],
)
@pytest.mark.parametrize("masks", [False, True])
def test_weights_that_do_not_fit_the_node_are_refused(node, options, words, masks):
    with pytest.raises(WeightsError, match=words):
        make_predictor(node(**options, model__enabled=masks, model__head_width=32))


def test_boxes_that_are_not_finite_are_named(mvxnet_folder, learnt, node, tmp_path):
    network, _ = load_mvxnet(learnt, runtime="torch")
    torch.nn.init.constant_(network.pts_bbox_head.conv_reg.bias, math.nan)
    save_mvxnet(network, tmp_path / "broken", trained=True)
    with pytest.raises(WeightsError, match=r"detections.weights: expected weights that give finite boxes, got others from"):
        perceptions(mvxnet_folder, node(detections__weights=str(tmp_path / "broken")))


def test_nothing_to_run_is_no_predictor(node):
    assert make_predictor(node(detections__weights="")) is None
    assert make_predictor(node(detections__enabled=False)) is None

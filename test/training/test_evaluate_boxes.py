"""Scores of trained detectors: which boxes count, the page, and what bad input gets."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest

from boxed_bags import BOXES, write_boxed, write_boxed_training
from boxed_networks import LabelFinder, boxed_segmenter
from gemini_core.config.fusion import load_config
from gemini_core.errors import WeightsError
from gemini_core.evaluate.detection import FoundFrame, TruthFrame
from gemini_core.model import checkpoints
from labelled_bags import CLASSES, SIZE, TOPICS
from networks import ORDER
from training.box_finders import pillar_subsets
from training.cache import cache_bag
from training.detection import Scored
from training.evaluate import main
from training.evaluate_detection import FoundBoxes, evaluate_detection, score_boxes, scores_of


def write_weights(path, **changes):
    checkpoints.save(boxed_segmenter(**changes), path, CLASSES, trained=True, description="of a test")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_boxed_training(tmp_path_factory.mktemp("scored"))
    write_weights(folder / "weights.safetensors")
    return folder


@pytest.fixture(scope="module")
def bags(folder):
    return (cache_bag(folder / "val", load_config(folder / "fusion.yaml"), TOPICS, folder / "cache", boxes=BOXES),)


def command(folder, out, *more, weights="weights.safetensors", data="val"):
    arguments = ["--task", "detection", "--weights", str(folder / weights), "--data", str(folder / data)]
    arguments += ["--fusion", str(folder / "fusion.yaml"), "--cache", str(folder / "cache"), "--out", str(out)]
    return [*arguments, "--workers", "0", *more]


def rows(*boxes):
    return np.array(boxes, np.float32).reshape(-1, 7)


def frame_of(truth, hidden, found, names=None):
    """One frame of objects of the class box; ``hidden`` ones are ignored."""
    labels = TruthFrame(
        rows(*truth), ("box",) * len(truth), occlusion=np.array([3 if each else 0 for each in hidden], np.int64)
    )
    scores = np.linspace(0.9, 0.5, len(found)).astype(np.float32)
    return FoundBoxes.of(Scored(labels, FoundFrame(rows(*found), names or ("box",) * len(found), scores)))


def test_all_found_and_nothing_else_is_the_most_that_there_can_be():
    truth = [[5.0 + 5 * index, 0, 0, 2, 1, 1, 0.1] for index in range(8)]
    scores = scores_of([frame_of(truth, [False] * 8, truth)] * 6, ("box", "post"), "all", "all")
    box, post = scores.classes
    assert box.everywhere.objects == 48
    assert box.near.objects == 30
    for part in (box.everywhere, scores.mean.everywhere):
        assert (part.bev_r40, part.bev_r11, part.space_r40, part.space_r11, part.distance) == pytest.approx((1, 1, 1, 1, 1))
    assert post.everywhere.objects == 0
    assert math.isnan(post.everywhere.bev_r40)
    assert math.isnan(post.near.distance)
    assert scores.frames == 6


def test_a_box_in_the_air_is_right_from_above_only():
    truth = [[5.0 + 3 * index, 0, 0, 2, 1, 1, 0] for index in range(5)]
    raised = [[*box[:2], 1.5, *box[3:]] for box in truth]
    part = scores_of([frame_of(truth, [False] * 5, raised)] * 9, ("box",), "all", "all").classes[0].everywhere
    assert part.bev_r40 == pytest.approx(1)
    assert part.space_r40 == 0
    assert part.distance == pytest.approx(1)


def test_what_lies_on_an_ignored_box_is_no_false_alarm():
    counted, ignored, alone = [5, 0, 0, 2, 1, 1, 0], [10, 0, 0, 2, 1, 1, 0], [15, 0, 0, 2, 1, 1, 0]
    frames = [frame_of([counted, ignored], [False, True], [ignored, counted])] * 41
    part = scores_of(frames, ("box",), "all", "all").classes[0].everywhere
    assert part.objects == 41
    assert part.bev_r40 == pytest.approx(1)
    assert part.distance == pytest.approx(1)
    frames = [frame_of([counted, ignored], [False, True], [alone, counted])] * 41  # where nothing is
    part = scores_of(frames, ("box",), "all", "all").classes[0].everywhere
    assert part.bev_r40 == pytest.approx(0.5)
    # precision is half of recall between the two scores: the mean of (r / 2 - 0.1) / 0.9 over r from 0.2 on, of 0.11 to 1
    assert part.distance == pytest.approx(0.2)


def test_a_box_between_both_belongs_to_the_one_that_counts():
    counted, ignored = [5, 0, 0, 2, 1, 1, 0], [6.5, 0, 0, 2, 1, 1, 0]
    kept = frame_of([counted, ignored], [False, True], [[5.2, 0, 0, 2, 1, 1, 0], [6.3, 0, 0, 2, 1, 1, 0]])
    np.testing.assert_allclose(kept.found.boxes[:, 0], [5.2])
    assert kept.truth.class_names == ("box",)


def test_boxes_are_scored_and_shown(folder, tmp_path, capsys):
    assert main(command(folder, tmp_path / "page")) == 0
    assert "over 3 in 3 frames" in capsys.readouterr().out
    content = json.loads((tmp_path / "page" / "detection.json").read_text())
    assert list(content["subsets"]) == list(pillar_subsets(("rgb", "depth", "lidar")))
    assert content["groups"] == ["all"]
    assert content["min_points"] == 5
    assert {result["subset"] for result in content["results"]} == set(content["subsets"])
    assert sum(each["everywhere"]["objects"] for each in content["results"][0]["classes"]) == 3
    assert content["results"][0]["mean"]["everywhere"]["objects"] == 3
    page = (tmp_path / "page" / "index.html").read_text()
    assert "at least 5 points" in page
    assert "points of the LiDAR alone" in page
    for picture in ("frame-image.png", "frame-above.png"):
        assert (tmp_path / "page" / "pictures" / picture).is_file()
        assert f"pictures/{picture}" in page


def test_boxes_with_few_points_do_not_count(folder, tmp_path):
    assert main(command(folder, tmp_path, "--min-points", "81", "--only-all", "--every", "2")) == 0
    content = json.loads((tmp_path / "detection.json").read_text())
    assert content["min_points"] == 81
    assert list(content["subsets"]) == ["all"]
    (result,) = content["results"]
    assert result["frames"] == 2
    assert result["mean"]["everywhere"]["objects"] == 0
    assert result["mean"]["everywhere"]["bev_r40"] is None
    assert "81 points" in (tmp_path / "index.html").read_text()


def test_a_bag_without_label_images_will_do(folder, tmp_path):
    write_boxed(folder / "unmasked", 4, frames=2, masks=False)
    arguments = command(folder, tmp_path, "--labels", "", "--given", "rgb", "--points", "lidar", data="unmasked")
    assert main(arguments) == 0
    content = json.loads((tmp_path / "detection.json").read_text())
    assert content["subsets"] == {"all": {"modalities": ["rgb"], "points": "lidar"}}


def test_a_right_detector_scores_full(bags, tmp_path):
    finder = LabelFinder()
    subsets = {"all": finder.subsets(("lidar", "depth"))["all"]}
    evaluation = score_boxes(finder, bags, tmp_path, subsets, weights="labels", every=1, workers=0, min_points=5)
    result = evaluation.result("all", "all")
    for each in result.classes:
        if each.everywhere.objects:
            assert each.everywhere.distance == pytest.approx(1)
            assert each.everywhere.bev_r40 == pytest.approx((each.everywhere.objects - 1) / 40)
    (picture,) = evaluation.pictures
    assert picture.labelled == picture.found == 1

    image = cv2.imread(str(tmp_path / picture.panels[0][1]))
    assert image.shape[1] % SIZE == 0


@pytest.mark.parametrize(
    ("weights", "more", "words"),
    [
        (
            {"detector": False},
            (),
            "expected weights with a detector of boxes (detection.enabled in training), got some without",
        ),
        ({"classes": ("post", "box")}, (), "expected a detector of the classes box, post (detections.classes), got post, box"),
        ({"modalities": ORDER}, (), "expected weights for boxes of box, post and some of rgb, depth, lidar"),
        ({}, ("--given", "lidar"), "--given: expected rgb and others of rgb, depth, lidar, got lidar"),
        ({}, ("--min-points", "-1"), "--min-points: expected 0 or more, got -1"),
        ({}, ("--boxes", ""), "--boxes: expected a topic of labelled boxes, got none"),
        (
            {},
            ("--task", "segmentation", "--labels", ""),
            "--labels: expected a topic of label images, but for --task detection",
        ),
    ],
)
def test_what_cannot_be_scored_is_one_sentence(folder, capsys, weights, more, words):
    write_weights(folder / "other.safetensors", **weights)
    assert main(command(folder, folder / "page", *more, weights="other.safetensors")) == 1
    said = capsys.readouterr().err
    assert words in said
    assert said.splitlines()[-1].startswith("error: ")


def test_boxes_of_other_classes_in_the_cache_are_refused(folder, bags, tmp_path):
    from dataclasses import replace

    with pytest.raises(WeightsError, match=r"expected a detector of the classes box, chair"):
        evaluate_detection(folder / "weights.safetensors", (replace(bags[0], box_classes=("box", "chair")),), tmp_path)

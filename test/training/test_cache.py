"""The cache of labelled frames: what comes back, what makes another cache, and what is refused."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from boxed_bags import (
    BOX_CLASSES,
    BOXES,
    scene,
    write_boxed,
)
from gemini_core.bag.labels import LabelTopics
from gemini_core.config.fusion import load_config
from gemini_core.errors import BagError, DataError
from labelled_bags import FUSION, SIZE, TOPICS, write_bag
from labelled_frames import LEVEL_CAMERA
from training.cache import ShardReader, cache_bag, open_cached, pack, unpack
from training.frames import labelled_frames


def test_the_cache_gives_back_what_the_frames_were(masks_folder):
    config = load_config(masks_folder / "fusion.yaml")
    bag = cache_bag(masks_folder / "train", config, TOPICS, masks_folder / "cache")
    assert bag.frames == 6
    assert sum(bag.class_pixels) == 6 * SIZE * SIZE
    assert bag.class_pixels[1] == 6 * 24 * 24
    reader = ShardReader((bag,))
    for index, frame in enumerate(labelled_frames(masks_folder / "train", config, TOPICS)):
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


def test_another_configuration_or_a_changed_bag_makes_another_cache(masks_folder, tmp_path):
    config = load_config(masks_folder / "fusion.yaml")
    bag = Path(shutil.copytree(masks_folder / "val", tmp_path / "val"))
    first = cache_bag(bag, config, TOPICS, tmp_path)
    assert cache_bag(bag, config, TOPICS, tmp_path).folder == first.folder
    (tmp_path / "fusion.yaml").write_text(FUSION + "depth: {max_m: 10.0}\n")
    assert cache_bag(bag, load_config(tmp_path / "fusion.yaml"), TOPICS, tmp_path).folder != first.folder
    os.utime(next(bag.glob("*.mcap")))
    assert cache_bag(bag, config, TOPICS, tmp_path).folder != first.folder


def test_cached_frames_know_their_points_and_boxes(boxed):
    rng = np.random.default_rng(1)
    reader = ShardReader((boxed,))
    assert boxed.box_classes == BOX_CLASSES
    listed = reader.labelled_boxes()
    assert [(frame, row) for frame, row, _, _ in listed] == [(frame, 0) for frame in range(6)]
    for index in range(6):
        box, named, _, _, _, points = scene(rng)
        labelled = reader.points_and_boxes(index)
        np.testing.assert_allclose(labelled.boxes, box[None], atol=1e-4)
        assert labelled.classes.tolist() == [BOX_CLASSES.index(named)] == [listed[index][2]]
        assert labelled.counts.tolist() == [80] == [listed[index][3]]
        np.testing.assert_allclose(np.sort(labelled.points["lidar"].values[:, 0]), np.sort(points[:, 0]), atol=1e-4)
        seen = labelled.points["lidar"]
        np.testing.assert_allclose(
            seen.pixels[seen.visible], LEVEL_CAMERA.project(seen.values[seen.visible, :3].astype(np.float64))[:, :2], atol=0.05
        )
        assert labelled.camera.same(LEVEL_CAMERA)
        # a quarter of the pixels, at the wall or at the thing
        depth = labelled.points["depth"].values
        assert len(depth) == SIZE * SIZE // 4
        distances = np.unique(np.rint(depth[:, 0] * 1000)) / 1000
        np.testing.assert_allclose(distances, [np.floor(1000 * box[0]) / 1000, 11.0], atol=1e-6)


def test_another_topic_of_boxes_makes_another_cache(boxed_fusion, tmp_path):
    bag = write_boxed(tmp_path / "bag", 3, frames=1, topics=(BOXES, "/others"))
    folders = {cache_bag(bag, boxed_fusion, TOPICS, tmp_path / "cache", boxes=topic).folder for topic in (BOXES, "/others", "")}
    assert len(folders) == 3
    other = dataclasses.replace(boxed_fusion, detections=dataclasses.replace(boxed_fusion.detections, depth_stride=4))
    assert cache_bag(bag, other, TOPICS, tmp_path / "cache", boxes=BOXES).folder not in folders
    assert cache_bag(bag, other, TOPICS, tmp_path / "cache").folder in folders  # frames without boxes do not depend on it


# --------------------------------------------------------------------------------------------------------------------
# Bad input


def test_a_bag_without_labels_is_refused_by_topic(masks_folder, tmp_path):
    write_bag(tmp_path / "bare", 3, labels=False)
    with pytest.raises(BagError, match=r"bare: expected labels on topic '/ground_truth/segmentation', got no such topic"):
        cache_bag(tmp_path / "bare", load_config(masks_folder / "fusion.yaml"), TOPICS, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"largest": 7}, r"label at 0\.100000000 s: expected values of 2 classes or 255, got 7 at 1 pixels"),
        ({"label_size": 32}, r"label at 100000000 ns: expected the image's 64 x 64, got 32 x 32"),
        ({"names": ("ground", "boxx")}, r"among the classes ground, box \(model\.classes\), got boxx besides"),
    ],
)
def test_labels_that_do_not_fit_are_refused(masks_folder, tmp_path, options, sentence):
    write_bag(tmp_path / "odd", 4, **options)
    with pytest.raises(DataError, match=sentence):
        cache_bag(tmp_path / "odd", load_config(masks_folder / "fusion.yaml"), TOPICS, tmp_path / "cache")


def test_a_damaged_shard_is_refused(masks_folder, tmp_path):
    bag = cache_bag(masks_folder / "val", load_config(masks_folder / "fusion.yaml"), TOPICS, tmp_path)
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


@pytest.mark.parametrize("content", ["[]", "5", "{}", '{"format": 1, "shards": 3}', "not JSON", "\x00"])
def test_a_damaged_index_is_refused(tmp_path, content):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(DataError, match=r"expected aligned frames of format 2, got .*; delete the folder"):
        open_cached(tmp_path)


def test_frames_without_boxes_say_so(boxed_folder, boxed_fusion):
    plain = cache_bag(boxed_folder / "val", boxed_fusion, TOPICS, boxed_folder / "cache")
    reader = ShardReader((plain,))
    assert plain.box_classes == ()
    with pytest.raises(
        DataError, match=r"shard-0000.safetensors: expected the shard as it was written, got no points and boxes"
    ):
        reader.points_and_boxes(0)
    with pytest.raises(DataError, match=r"shard-0000.safetensors: expected the shard as it was written, got .*boxes.at"):
        reader.labelled_boxes()


def test_a_damaged_shard_of_boxes_is_named(boxed_fusion, tmp_path):
    bag = cache_bag(write_boxed(tmp_path / "bag", 3, frames=1), boxed_fusion, TOPICS, tmp_path / "cache", boxes=BOXES)
    path = bag.folder / bag.shards[0][0]
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    for use in (lambda: ShardReader((bag,)).points_and_boxes(0), lambda: ShardReader((bag,)).labelled_boxes()):
        with pytest.raises(DataError, match=r"shard-0000.safetensors: expected .* got other bytes than were written; delete"):
            use()


def test_frames_without_boxes_are_left_out_and_a_bag_of_none_is_refused(boxed_fusion, tmp_path):
    path = write_boxed(tmp_path / "bag", 3, frames=2, boxes_frame="elsewhere")
    with pytest.raises(DataError, match="in one of the frames camera, got 'elsewhere'"):
        cache_bag(path, boxed_fusion, TOPICS, tmp_path / "cache", boxes=BOXES)
    unlabelled = cache_bag(
        write_boxed(tmp_path / "bare", 3, frames=2, masks=False), boxed_fusion, LabelTopics("", ""), tmp_path, boxes=BOXES
    )
    assert unlabelled.frames == 2
    assert sum(unlabelled.class_pixels) == 0

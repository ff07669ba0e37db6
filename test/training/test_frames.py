"""Labelled frames out of bags: which label belongs to which frame, and labels that do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from gemini_core.bag import messages
from gemini_core.bag.writer import BagWriter
from gemini_core.config.fusion import load_config
from gemini_core.errors import BagError
from gemini_core.types import UNLABELLED
from labelled_bags import CLASSES, SIZE, STEP_NS, TOPICS, picture, write_bag
from training.frames import find_bags, labelled_frames


def test_a_frame_has_the_label_of_its_own_stamp_on_its_own_pixels(masks_folder):
    rng = np.random.default_rng(1)
    frames = list(labelled_frames(masks_folder / "train", load_config(masks_folder / "fusion.yaml"), TOPICS))
    assert len(frames) == 6
    for frame in frames:
        pixels, depth, label = picture(rng)
        np.testing.assert_array_equal(frame.label, label)
        np.testing.assert_array_equal(np.rint(frame.grids.grid("rgb").channels * 255), pixels.transpose(2, 0, 1))
        np.testing.assert_allclose(frame.grids.grid("depth").depth_m, depth / 1000.0, rtol=1e-6)


def test_labels_may_stand_in_a_bag_beside_the_bag(masks_folder, tmp_path):
    write_bag(tmp_path / "drive", 5, labels=False)
    with BagWriter(tmp_path / "drive-labels") as bag:
        bag.write(TOPICS.names, messages.label_info(CLASSES, 0, "camera"), 1)
        bag.write(TOPICS.images, messages.mask(np.ones((SIZE, SIZE), np.uint8), 3 * STEP_NS, "camera"), 3)
    frames = list(labelled_frames(tmp_path / "drive", load_config(masks_folder / "fusion.yaml"), TOPICS))
    assert [frame.grids.stamp_ns for frame in frames] == [3 * STEP_NS]
    assert (frames[0].label == 1).all()
    assert find_bags((str(tmp_path),), "data.train") == (tmp_path / "drive",)


def test_labels_without_a_frame_are_refused(masks_folder, tmp_path):
    write_bag(tmp_path / "drive", 3, labels=False)
    with BagWriter(tmp_path / "drive-labels") as bag:
        bag.write(TOPICS.names, messages.label_info(CLASSES, 0, "camera"), 1)
        bag.write(TOPICS.images, messages.mask(np.ones((SIZE, SIZE), np.uint8), 5, "camera"), 3)
    with pytest.raises(BagError, match="with the stamps of its 6 frames, got none that fits"):
        list(labelled_frames(tmp_path / "drive", load_config(masks_folder / "fusion.yaml"), TOPICS))


def test_names_of_nothing_become_unlabelled(masks_folder, tmp_path):
    write_bag(tmp_path / "drive", 4, names=("ground", "void"))
    frame = next(labelled_frames(tmp_path / "drive", load_config(masks_folder / "fusion.yaml"), TOPICS))
    assert set(np.unique(frame.label)) == {0, UNLABELLED}

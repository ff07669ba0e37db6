"""The tree of transforms by hand and by property."""

from __future__ import annotations

from math import radians

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from frames import pose
from gemini_core.errors import CalibrationError
from gemini_core.rig.geometry import transform_matrix
from gemini_core.rig.transform_tree import _MOST_FRAMES, _MOST_STAMPS, TransformTree
from gemini_core.types import StampedTransform

SECOND = 1_000_000_000
EPOCH = 1_714_506_077_250_967_979  # a stamp that float64 cannot hold to the nanosecond


def stamped(parent, child, matrix, stamp_ns=0):
    return StampedTransform(stamp_ns, parent, child, matrix)


def test_fixed_transforms_multiply_along_the_path_at_any_time():
    tree = TransformTree()
    camera, lidar = pose(1, 2, 3, yaw=radians(30)), pose(-1, 0, 2, yaw=radians(-80))
    tree.add(stamped("base", "mast", pose(0, 0, 1)), static=True)
    tree.add(stamped("mast", "camera", camera), static=True)
    tree.add(stamped("/base", "/lidar", lidar), static=True)
    expected = np.linalg.inv(pose(0, 0, 1) @ camera) @ lidar
    np.testing.assert_allclose(tree.lookup("camera", "lidar", EPOCH), expected, atol=1e-12)
    np.testing.assert_allclose(tree.lookup("/lidar", "camera", 0), np.linalg.inv(expected), atol=1e-12)
    np.testing.assert_array_equal(tree.lookup("camera", "camera", 5), np.eye(4))
    np.testing.assert_allclose(tree.lookup("base", "camera", 5), pose(0, 0, 1) @ camera, atol=1e-12)


def test_between_two_stamps_it_moves_linearly_and_turns_by_slerp():
    tree = TransformTree()
    tree.add(stamped("odom", "base", pose(0, 0, 0), EPOCH), static=False)
    tree.add(stamped("odom", "base", pose(4, 8, 0, yaw=radians(90)), EPOCH + 4), static=False)
    np.testing.assert_allclose(tree.lookup("odom", "base", EPOCH + 1), pose(1, 2, 0, yaw=radians(22.5)), atol=1e-9)
    np.testing.assert_allclose(tree.lookup("odom", "base", EPOCH + 2), pose(2, 4, 0, yaw=radians(45)), atol=1e-9)
    np.testing.assert_allclose(tree.lookup("base", "odom", EPOCH + 2), np.linalg.inv(pose(2, 4, 0, yaw=radians(45))), atol=1e-9)
    np.testing.assert_array_equal(tree.lookup("odom", "base", EPOCH + 4), pose(4, 8, 0, yaw=radians(90)))


@pytest.mark.parametrize("turn", [0.0, 1e-9, 1e-4, 0.3, 3.0, np.pi - 1e-7])
def test_many_stamps_at_once_agree_with_scipy(turn):
    """Moving edges up and down the path, stamps in any order, turns from none to the largest that has one short way."""
    rng = np.random.default_rng(7)
    stamps = EPOCH + np.sort(rng.choice(np.arange(1, 1000), 8, replace=False)) * 1_000_000
    wanted = rng.integers(stamps[0], stamps[-1], 50)
    tree, expected = TransformTree(), {}
    for child, parent in (("left", "root"), ("right", "root")):
        axes = rng.normal(size=(8, 3))
        turns = turn * axes / np.linalg.norm(axes, axis=1, keepdims=True)
        rotations = [Rotation.from_rotvec(rng.normal(size=3))]
        for each in turns[1:]:
            rotations.append(rotations[-1] * Rotation.from_rotvec(each))
        places = rng.normal(size=(8, 3))
        for i in rng.permutation(8):
            matrix = transform_matrix(places[i], rotations[i].as_quat())
            tree.add(stamped(parent, child, matrix, int(stamps[i])), static=False)
        seconds = (stamps - EPOCH) * 1e-9
        expected[child] = np.tile(np.eye(4), (50, 1, 1))
        times = (wanted - EPOCH) * 1e-9
        expected[child][:, :3, :3] = Slerp(seconds, Rotation.concatenate(rotations))(times).as_matrix()
        expected[child][:, :3, 3] = np.stack([np.interp(times, seconds, places[:, axis]) for axis in range(3)], axis=1)
    found = tree.lookups("left", "right", wanted)
    np.testing.assert_allclose(found, np.linalg.inv(expected["left"]) @ expected["right"], atol=1e-9)
    np.testing.assert_array_equal(found[3], tree.lookup("left", "right", int(wanted[3])))


def test_where_a_path_bends_and_whether_it_was_told_of():
    tree = TransformTree()
    tree.add(stamped("base", "lidar", pose()), static=True)
    for stamp in (10, 20, 30):
        tree.add(stamped("odom", "base", pose(), stamp), static=False)
    for stamp in (5, 20, 25):
        tree.add(stamped("base", "head", pose(), stamp), static=False)
    assert tree.stamps_between("odom", "head", 10, 30) == [20, 25]
    assert tree.stamps_between("odom", "lidar", 9, 31) == [10, 20, 30]
    assert tree.stamps_between("base", "lidar", 0, 100) == tree.stamps_between("odom", "nowhere", 0, 100) == []
    assert tree.told_within("odom", "head", 25, 30)
    assert not tree.told_within("odom", "head", 26, 30)
    assert tree.told_within("base", "lidar", 0, 0)
    assert not tree.told_within("odom", "nowhere", 0, 100)


def test_stamps_that_hardly_advance_do_not_fill_the_memory():
    tree = TransformTree()
    for stamp in range(_MOST_STAMPS + 10):
        tree.add(stamped("odom", "base", pose(), EPOCH + stamp), static=False)
    assert {count.what: count.number for count in tree.counts()} == {"tf.dropped.too_many": 10}
    assert "got it from" in tree.why_not("odom", "base", EPOCH + 9)
    assert tree.why_not("odom", "base", EPOCH + 10) == ""


def test_a_tracker_that_numbers_its_frames_does_not_fill_the_memory():
    tree = TransformTree()
    tree.add(stamped("base", "camera", pose()), static=True)
    for number in range(_MOST_FRAMES + 10):
        tree.add(stamped("odom", "base", pose(), EPOCH + number), static=False)
        tree.add(stamped("camera", f"person_{number}", pose(), EPOCH + number), static=False)
    assert len(tree.frames()) == _MOST_FRAMES + 2  # camera and odom are none that move
    assert {count.what: count.number for count in tree.counts()} == {"tf.dropped.too_many_frames": 11}
    assert tree.why_not("odom", "camera", EPOCH) == ""
    assert "person_0" not in tree.frames()


def test_a_new_fixed_value_is_seen_although_paths_are_kept():
    tree = TransformTree()
    tree.add(stamped("a", "b", pose(1)), static=True)
    assert tree.lookup("a", "b", 0)[0, 3] == 1
    tree.add(stamped("a", "b", pose(2)), static=True)
    assert tree.lookup("a", "b", 0)[0, 3] == 2


def test_out_of_order_stamps_are_sorted_and_repeated_ones_replaced():
    tree = TransformTree()
    for stamp, x in ((0, 0.0), (20, 2.0), (10, 5.0), (10, 1.0)):
        tree.add(stamped("a", "b", pose(x), stamp), static=False)
    assert [tree.lookup("a", "b", stamp)[0, 3] for stamp in (0, 5, 10, 15, 20)] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert tree.counts() == ()


def test_the_buffer_is_ten_seconds_by_stamp():
    tree = TransformTree()
    for second in range(31):
        tree.add(stamped("a", "b", pose(second), second * SECOND), static=False)
    assert tree.lookup("a", "b", 20 * SECOND)[0, 3] == 20
    assert "from 20.000000000 to 30.000000000 s" in tree.why_not("a", "b", 20 * SECOND - 1)
    tree.add(stamped("a", "b", pose(0), 3 * SECOND), static=False)
    assert {count.what: count.number for count in tree.counts()} == {"tf.dropped.older_than_buffer": 1}


def test_frames_with_a_new_name_each_time_do_not_pile_up():
    tree = TransformTree()
    tree.add(StampedTransform(0, "base", "camera", np.eye(4)), static=True)
    for number in range(5000):
        assert f"no frame 'camera_{number}'" in tree.why_not("base", f"camera_{number}", 0)
    assert len(tree._paths) <= 1000
    assert tree.why_not("base", "camera", 0) == ""


def test_outside_the_known_range_is_an_error():
    tree = TransformTree()
    for second in (1, 2):
        tree.add(stamped("odom", "base", pose(second), second * SECOND), static=False)
    for stamp in (0, SECOND - 1, 2 * SECOND + 1):
        with pytest.raises(CalibrationError, match=r"'base' to 'odom' at .* got it from 1\.000000000 to 2\.000000000 s only"):
            tree.lookup("odom", "base", stamp)


def test_missing_frames_and_separate_trees_are_named():
    tree = TransformTree()
    assert "no frame 'camera' (known: none)" in tree.why_not("base", "camera", 0)
    tree.add(stamped("base_link", "camera_link", pose()), static=True)
    tree.add(stamped("odom", "lidar", pose()), static=True)
    with pytest.raises(CalibrationError, match=r"no frame 'camera_lnk' \(nearest known: camera_link"):
        tree.lookup("base_link", "camera_lnk", 0)
    with pytest.raises(CalibrationError, match="nothing connects 'odom' and 'base_link'"):
        tree.lookup("camera_link", "lidar", 0)
    tree.add(stamped("odom", "base_link", pose()), static=True)
    assert tree.why_not("camera_link", "lidar", 0) == ""


def test_loops_are_refused_and_a_new_parent_replaces_the_old():
    tree = TransformTree()
    tree.add(stamped("a", "b", pose(1)), static=True)
    tree.add(stamped("b", "c", pose(1)), static=True)
    tree.add(stamped("c", "a", pose(1)), static=True)
    tree.add(stamped("a", "a", pose(1)), static=True)
    tree.add(stamped("a", "c", pose(5)), static=True)
    assert tree.lookup("a", "c", 0)[0, 3] == 5
    tree.add(stamped("a", "c", pose(7), SECOND), static=False)
    assert tree.why_not("a", "c", 0)
    assert {count.what: count.number for count in tree.counts()} == {"tf.refused.loop": 2, "tf.replaced_parent": 2}
    (sentence,) = tree.conflicts()  # that the parent is the same, and moves now, is none
    assert "frame 'c' has two parents, 'a' and 'b'" in sentence


def test_two_parents_of_a_frame_are_named_until_a_reset():
    tree = TransformTree()
    for k in range(3):
        tree.add(stamped("odom", "base", pose(1), k * SECOND), static=False)
        tree.add(stamped("/map", "base", pose(1), k * SECOND), static=False)
    (sentence,) = tree.conflicts()
    assert "frame 'base' has two parents, 'map' and 'odom'" in sentence
    tree.clear()
    assert tree.conflicts() == ()


def test_clear_forgets_what_moves():
    tree = TransformTree()
    tree.add(stamped("odom", "base", pose(), SECOND), static=False)
    tree.add(stamped("base", "camera", pose(1)), static=True)
    assert tree.why_not("odom", "camera", SECOND) == ""
    tree.clear()
    assert tree.why_not("odom", "camera", SECOND)
    assert tree.lookup("base", "camera", 0)[0, 3] == 1
    assert tree.frames() == ("base", "camera")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_tree_agrees_with_the_product_of_its_edges(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    tree, root_from = TransformTree(), {"f0": np.eye(4)}
    for i in range(1, 8):
        parent = data.draw(st.sampled_from(sorted(root_from)))
        matrix = transform_matrix(rng.normal(size=3), rng.normal(size=4))
        static = data.draw(st.booleans())
        tree.add(stamped(parent, f"f{i}", matrix, EPOCH), static=static)
        root_from[f"f{i}"] = root_from[parent] @ matrix
    a, b = data.draw(st.tuples(st.sampled_from(sorted(root_from)), st.sampled_from(sorted(root_from))))
    np.testing.assert_allclose(tree.lookup(a, b, EPOCH), np.linalg.inv(root_from[a]) @ root_from[b], atol=1e-9)

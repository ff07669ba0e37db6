"""Voxel grids of events: by hand, against plain numpy on random windows, and on the network's grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_core.config.sections import EventConfig, GridConfig
from gemini_core.project.event import align_events, map_by_plane, map_by_size
from gemini_core.project.grid import grid_geometry
from gemini_core.project.voxel import BINS, voxels_of
from gemini_core.types import CameraModel, EventWindow

START = 1_700_000_000_000_000_000
CAMERA = CameraModel(40, 30, 30.0, 30.0, 19.5, 14.5)
VOXELS = EventConfig(encoding="voxel", voxel_limit=2.0)


def window(x, y, polarity, after_ns, size=(40, 30)):
    """Events after_ns after START of a sensor of this width and height."""
    return EventWindow(
        start_ns=START - 5,
        end_ns=START + 10**9,
        frame_id="event",
        width=size[0],
        height=size[1],
        x=np.array(x, np.uint16),
        y=np.array(y, np.uint16),
        polarity=np.array(polarity, np.uint8),
        time_ns=START + np.array(after_ns, np.int64),
    )


def voxels(events):
    return voxels_of(events, events.width, events.height)


def plain_voxels(events):
    """The formula, event by event and bin by bin."""
    grid = np.zeros((BINS, events.height, events.width))
    if not events.time_ns.size:
        return grid
    first, last = int(events.time_ns.min()), int(events.time_ns.max())
    for x, y, polarity, time in zip(events.x, events.y, events.polarity, events.time_ns.tolist(), strict=True):
        if x < events.width and y < events.height:
            t = (BINS - 1) * (time - first) / (last - first) if last > first else 0.0
            for b in range(BINS):
                grid[b, y, x] += (2 * int(polarity) - 1) * max(0.0, 1 - abs(b - t))
    return grid


def test_events_are_shared_out_between_the_two_bins_next_to_them():
    grid = voxels(window([1, 2, 3, 3, 4], [0, 0, 0, 0, 9], [1, 0, 1, 1, 1], [0, 500, 500, 625, 1000]))
    assert grid.shape == (3, 30, 40)
    assert grid.dtype == np.float32
    expected = np.zeros((3, 30, 40))
    expected[0, 0, 1], expected[1, 0, 2], expected[1, 0, 3], expected[2, 0, 3], expected[2, 9, 4] = 1, -1, 1.75, 0.25, 1
    np.testing.assert_array_equal(grid, expected)


def test_events_of_one_moment_lie_in_the_first_bin():
    grid = voxels(window([7, 7, 8], [3, 3, 3], [1, 1, 0], [77, 77, 77]))
    assert (grid[0, 3, 7], grid[0, 3, 8]) == (2, -1)
    assert np.abs(grid).sum() == 3


def test_a_window_without_events_is_empty():
    assert not voxels(window([], [], [], [])).any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 60), st.sampled_from([1, 50, 10**9]))
def test_any_window_is_as_the_formula_says(seed, number, longest_ns):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 14, number), rng.integers(0, 10, number)  # some outside
    events = window(x, y, rng.integers(0, 2, number), rng.integers(0, longest_ns, number), (12, 9))
    grid = voxels(events)
    np.testing.assert_allclose(grid, plain_voxels(events), atol=2e-5)
    inside = (x < 12) & (y < 9)
    assert grid.sum() == pytest.approx(np.sum((2.0 * events.polarity - 1)[inside]), abs=1e-4)


def test_on_the_grid_half_is_nothing_and_the_limits_are_zero_and_one():
    event_map = map_by_plane(CAMERA, CAMERA, np.eye(4), 5.0)
    events = window([3] * 5 + [4] * 3 + [5], [2] * 9, [1] * 5 + [0] * 3 + [1], [0] * 8 + [1000])
    grid = align_events(events, event_map, 30, 40, VOXELS)
    assert grid.channels.shape == (3, 30, 40)
    assert grid.coverage == 1.0
    assert (grid.channels[0, 2, 3], grid.channels[0, 2, 4], grid.channels[2, 2, 5]) == (1.0, 0.0, 0.75)
    np.testing.assert_array_equal(np.unique(grid.channels), [0.0, 0.5, 0.75, 1.0])
    assert np.count_nonzero(grid.channels != 0.5) == 3


def test_a_coarser_grid_holds_the_sum_of_the_sensors_pixels():
    fine = CameraModel(160, 120, 120.0, 120.0, 79.5, 59.5)
    event_map = map_by_plane(fine, CAMERA, np.eye(4), 5.0)
    events = window([40, 43, 41, 44], [80, 83, 81, 80], [1, 1, 0, 1], [0, 0, 0, 0], (160, 120))
    grid = align_events(events, event_map, 30, 40, EventConfig(encoding="voxel", voxel_limit=4.0))
    assert grid.channels[0, 20, 10] == pytest.approx(0.5 + 1 / 8)
    assert grid.channels[0, 20, 11] == pytest.approx(0.5 + 1 / 8)
    assert np.count_nonzero(grid.channels != 0.5) == 2
    corner = align_events(window([0, 1], [0, 1], [1, 1], [0, 0], (160, 120)), event_map, 30, 40, VOXELS)
    assert corner.channels[0, 0, 0] == 1.0


def test_a_finer_grid_has_no_holes_and_counts_no_event_twice():
    coarse = CameraModel(10, 8, 7.5, 7.5, 4.5, 3.5)
    event_map = map_by_plane(coarse, CAMERA, np.eye(4), 5.0)
    grid = align_events(window([2], [3], [1], [0], (10, 8)), event_map, 30, 40, VOXELS)
    rows, columns = np.nonzero(grid.channels[0] != 0.5)
    assert (rows.size, np.ptp(rows), np.ptp(columns)) == (16, 3, 3)
    np.testing.assert_array_equal(np.unique(grid.channels), [0.5, 0.75])


def test_outside_the_view_is_zero():
    shifted = np.eye(4)
    shifted[0, 3] = 1.0  # 30 * 1 / 5 = 6 pixels
    grid = align_events(window([0], [0], [0], [0]), map_by_plane(CAMERA, CAMERA, shifted, 5.0), 30, 40, VOXELS)
    assert not grid.channels[:, :, :6].any()
    assert not grid.valid[:, :6].any()
    assert grid.valid[:, 6:].all()
    assert (grid.channels[:, :, 6:] > 0).all()
    assert grid.channels[0, 0, 6] == 0.25


def test_behind_a_shared_lens():
    geometry = grid_geometry(GridConfig(width=64, height=48), 640, 240)
    grid = align_events(window([20, 0], [15, 0], [1, 1], [0, 9]), map_by_size(40, 30, geometry), 48, 64, VOXELS)
    assert grid.channels.shape == (BINS, 48, 64)
    assert 0.0 <= grid.channels.min() <= grid.channels.max() <= 1.0
    assert (grid.channels[0] > 0.5).any()


def test_the_size_of_the_sensor_is_the_maps_where_the_events_do_not_tell_it():
    event_map = map_by_plane(CAMERA, CAMERA, np.eye(4), 5.0)
    for config in (VOXELS, EventConfig()):
        known = align_events(window([3, 40], [2, 2], [1, 1], [0, 0]), event_map, 30, 40, config)
        unknown = align_events(window([3, 40], [2, 2], [1, 1], [0, 0], (0, 0)), event_map, 30, 40, config)
        np.testing.assert_array_equal(unknown.channels, known.channels)
        assert known.channels[2 if config is not VOXELS else 0, 2, 3] > 0.5

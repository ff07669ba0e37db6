"""The sensor's clock against the ROS clock: drift, jitter, delays that are no steps, steps that are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_core.decode.sensor_clock import SensorClock

OFFSET = 1_700_000_000_123_456_789
MS, SECOND = 1_000_000, 1_000_000_000
PACKET = 4 * MS


def run(clock, first_ns, delays_ns, offsets_ns):
    """Packets with these first events; gives the ROS times that they and their last events got."""
    starts, ends = [], []
    for first, delay, offset in zip(first_ns.tolist(), delays_ns.tolist(), offsets_ns.tolist(), strict=True):
        clock.observe(first, first + offset + delay)
        starts.append(first + clock.offset_ns)
        ends.append(first + PACKET - 1000 + clock.offset_ns)
        clock.reached(first + PACKET - 1000)
    return np.array(starts), np.array(ends)


def drifting(seconds, ppm, jitter_ns, seed=0):
    """First times, delays (never negative, a few very long) and true offsets of packets every 4 ms."""
    rng = np.random.default_rng(seed)
    first = np.arange(0, seconds * SECOND, PACKET) + 77 * SECOND
    delays = rng.exponential(jitter_ns, first.size).astype(np.int64) if jitter_ns else np.zeros(first.size, np.int64)
    delays[rng.random(first.size) < 0.002] += 200 * MS
    return first, delays, OFFSET + np.rint((first - first[0]) * (ppm * 1e-6)).astype(np.int64)


@pytest.mark.parametrize("ppm", [-150.0, -20.0, 0.0, 35.0, 400.0])
def test_drift_is_found_and_followed_under_jitter(ppm):
    first, delays, offsets = drifting(90, ppm, 300_000)
    clock = SensorClock()
    starts, ends = run(clock, first, delays, offsets)
    state = clock.state()
    assert state.drift_ppm == pytest.approx(ppm, abs=2.0)
    assert state.jitter_ns == pytest.approx(300_000, rel=0.15)  # the very long delays are no part of it
    assert state.steps == 0
    error = starts - (first + offsets)
    settled = first - first[0] > 10 * SECOND
    assert np.abs(error[settled]).max() < 100_000
    assert (starts[1:] >= ends[:-1]).all()


def test_perfect_stamps_give_the_stamps():
    first, delays, offsets = drifting(30, 0.0, 0)
    starts, _ = run(SensorClock(), first, delays * 0, offsets)
    np.testing.assert_array_equal(starts, first + OFFSET)


def test_a_late_first_stamp_is_made_good():
    first, delays, offsets = drifting(20, 0.0, 0)
    delays[:] = 0
    delays[0] = 4 * MS
    clock = SensorClock()
    starts, ends = run(clock, first, delays, offsets)
    assert starts[0] == first[0] + OFFSET + 4 * MS
    assert clock.offset_ns - OFFSET < MS
    assert (starts[1:] >= ends[:-1]).all()


@pytest.mark.parametrize("stall_ms", [6, 100, 400])
def test_a_stall_is_no_step(stall_ms):
    """Packets pile up behind a stall, then come at once: their stamps are late by less and less."""
    first, delays, offsets = drifting(5, 0.0, 0)
    late = stall_ms * MS - (first - first[500])
    delays = np.where((first >= first[500]) & (late > 0), late, 0)
    clock = SensorClock()
    starts, _ = run(clock, first, delays, offsets)
    np.testing.assert_array_equal(starts, first + OFFSET)
    assert clock.steps == 0


@pytest.mark.parametrize(("step_ms", "patience_ms"), [(-6, 0), (-5000, 0), (20, 500), (900, 500), (1100, 0), (10**7, 0)])
def test_a_clock_that_was_set_is_one_step(step_ms, patience_ms):
    first, delays, offsets = drifting(5, 0.0, 0)
    offsets[500:] += step_ms * MS
    clock = SensorClock()
    starts, _ = run(clock, first, delays * 0, offsets)
    right = starts == first + offsets
    assert right[:500].all()
    assert right[500 + patience_ms * MS // PACKET :].all()
    assert clock.steps == 1
    assert clock.state().offset_ns == OFFSET + step_ms * MS


def test_after_a_pause_the_clock_is_where_its_drift_took_it():
    first, _, offsets = drifting(40, 50.0, 0)
    clock = SensorClock()
    run(clock, first, offsets * 0, offsets)
    pause = 1800 * SECOND  # 90 ms of drift: as a step it would be counted
    clock.observe(int(first[-1]) + pause, int(first[-1]) + pause + int(offsets[-1]) + 90 * MS)
    assert clock.steps == 0
    assert clock.offset_ns == pytest.approx(int(offsets[-1]) + 90 * MS, abs=10_000)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-(2**40), 2**40), st.integers(-(2**61), 2**61)), max_size=200))
def test_any_stamps_at_all_do_no_harm(packets):
    one, other = SensorClock(), SensorClock()
    for first, stamp in packets:
        for clock in (one, other):
            clock.observe(first, stamp)
            clock.reached(first + 5)
        assert one.state() == other.state()
        assert one.offset_ns is not None
    one.forget()
    assert one.state() is None

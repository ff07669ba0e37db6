"""Times of a sweep's points: what a bad one does (nothing to the others), and what field, unit and clock are taken for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_core.bag import messages
from gemini_core.config import from_flat
from gemini_core.decode.cloud import decode_cloud
from gemini_core.decode.cloud_times import SweepPeriod, TimeReading
from gemini_core.decode.intake import Intake
from gemini_core.errors import DecodeError

STAMP = 1_700_000_000_000_000_000
COUNT = 400
AFTER_NS = np.linspace(0, 99_000_000, COUNT).astype(np.int64)  # a sweep of 10 Hz


def cloud(name, times, stamp_ns=STAMP, **others):
    """Points with one field of times."""
    fields = {"x": "f4", "y": "f4", "z": "f4", name: times.dtype.str, **{key: value.dtype.str for key, value in others.items()}}
    points = np.ones(times.size, np.dtype(list(fields.items())))
    for field, values in {name: times, **others}.items():
        points[field] = values
    return messages.point_cloud(points, stamp_ns, "lidar")


def decoded(name, times, **reading):
    return decode_cloud(cloud(name, times), "lidar/points", TimeReading(**reading))


# name, values of AFTER_NS, how exactly float times can be told
FORMS = {
    "Ouster's t, uint32 nanoseconds": ("t", AFTER_NS.astype("u4"), 0),
    "Aeva's offsets, int32 nanoseconds": ("time_offset_ns", AFTER_NS.astype("i4"), 0),
    "uint32 microseconds": ("t", (AFTER_NS / 1e3).astype("u4"), 1000),
    "uint16 milliseconds": ("offset_time", (AFTER_NS / 1e6).astype("u2"), 1_000_000),
    "Velodyne's time, float32 seconds": ("time", (AFTER_NS / 1e9).astype("f4"), 10),
    "float32 milliseconds": ("time_offset", (AFTER_NS / 1e6).astype("f4"), 10),
    "float32 microseconds": ("timeoffset", (AFTER_NS / 1e3).astype("f4"), 10),
    "float32 nanoseconds": ("time", AFTER_NS.astype("f4"), 10),
    "Hesai's timestamp, absolute seconds": ("timestamp", STAMP / 1e9 + AFTER_NS / 1e9, 500),
    "absolute microseconds": ("TimeStamp", STAMP / 1e3 + AFTER_NS / 1e3, 500),
    "Livox's timestamp, absolute nanoseconds": ("timestamp", np.float64(STAMP) + AFTER_NS, 500),
    "float64 seconds after the stamp": ("time", AFTER_NS / 1e9, 1),
}
BAD = {  # none of them is within what a sweep can last of the others, in any of the forms
    "u": (4_294_967_000, 4_000_000_000, 2**32 - 1),
    "i": (-(2**31), 2**31 - 1, -2_000_000_000),
    "f": (np.nan, np.inf, -np.inf, 1e30, -1e30, 3.4e9),
}


def bad_values(values):
    limit = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else np.inf
    found = [value for value in BAD[values.dtype.kind] if value <= limit or value != value]  # noqa: PLR0124 - NaN
    return found + ([0.0, 1.0] if values.dtype.kind == "f" and values.min() > 1e6 else [])  # 0 is none among absolute ones


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_times(form):
    name, values, exact_ns = FORMS[form]
    sample = decoded(name, values)
    assert np.abs(sample.time_ns - STAMP - AFTER_NS).max() <= exact_ns
    assert (sample.start_ns, sample.end_ns, sample.times_unknown) == (sample.time_ns.min(), sample.time_ns.max(), 0)
    assert sample.times_taken_for.startswith(name + " as ")
    unit = next(word for word in ("nano", "micro", "milli", "seconds") if word in form or (word == "nano" and "ns" in form))
    assert unit in sample.times_taken_for
    assert ("absolute" in sample.times_taken_for) == ("absolute" in form)


@pytest.mark.parametrize("at", [0, 5, COUNT - 1])
@pytest.mark.parametrize("form", FORMS)
def test_one_bad_time_is_unknown_and_changes_nothing_else(form, at):
    name, values, _ = FORMS[form]
    right = decoded(name, values)
    others = np.arange(COUNT) != at
    for bad in bad_values(values):
        changed = values.copy()
        changed[at] = bad
        sample = decoded(name, changed)
        assert sample.times_unknown == 1, bad
        np.testing.assert_array_equal(sample.time_ns[others], right.time_ns[others])
        assert (sample.start_ns, sample.end_ns) == (right.time_ns[others].min(), right.time_ns[others].max())
        assert sample.time_ns[at] == np.sort(right.time_ns[others])[(COUNT - 1) // 2]  # the median of those that are known
        assert sample.times_taken_for == right.times_taken_for


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(list(FORMS)),
    st.sets(st.integers(0, COUNT - 1), min_size=1, max_size=COUNT // 5),
    st.randoms(use_true_random=False),
)
def test_up_to_a_fifth_of_bad_times_harm_no_other(form, where, random):
    name, values, _ = FORMS[form]
    choices = bad_values(values)
    if not choices:  # uint16 cannot be so wrong
        return
    right, changed = decoded(name, values), values.copy()
    for at in where:
        changed[at] = random.choice(choices)
    sample = decoded(name, changed)
    others = np.setdiff1d(np.arange(COUNT), list(where))
    assert sample.times_unknown == len(where)
    np.testing.assert_array_equal(sample.time_ns[others], right.time_ns[others])
    assert (sample.start_ns, sample.end_ns) == (right.time_ns[others].min(), right.time_ns[others].max())


def test_the_first_fifth_of_a_sweep_may_have_wrapped():
    """A driver that takes differences to a stamp within the sweep, in uint32."""
    after = (AFTER_NS - 20_000_000).astype("u4")  # wraps
    sample = decoded("t", after)
    wrapped = AFTER_NS < 20_000_000
    assert sample.times_unknown == np.count_nonzero(wrapped) == 81
    np.testing.assert_array_equal(sample.time_ns[~wrapped], STAMP + AFTER_NS[~wrapped] - 20_000_000)
    assert (sample.start_ns, sample.end_ns) == (sample.time_ns[~wrapped].min(), STAMP + 79_000_000)


@pytest.mark.parametrize("stray_s", [0.4, 1.0, 1.5, 1.99, -0.5, -1.9])
def test_a_time_within_two_seconds_of_the_stamp_is_still_none_of_a_sweep_of_100_ms(stray_s):
    after = AFTER_NS.astype("i4")
    after[7] = stray_s * 1e9
    sample = decoded("t", after)
    assert (sample.times_unknown, sample.start_ns, sample.end_ns) == (1, STAMP, STAMP + 99_000_000)
    seconds = (AFTER_NS / 1e9).astype("f4")
    seconds[7] = stray_s
    assert decoded("time", seconds).times_unknown == 1


def test_points_without_a_position_have_no_say():
    after = AFTER_NS.astype("u4")
    after[:200] = 4_000_000_000
    message = cloud("t", after)
    data = message.data.reshape(COUNT, -1).copy()
    data[:200, :12] = 0
    sample = decode_cloud(dataclasses.replace(message, data=data.reshape(-1)), "l")
    assert (sample.times_unknown, sample.time_ns.size) == (0, 200)


@pytest.mark.parametrize("lasts_s", [0.0, 0.05, 0.2, 0.5, 1.0, 1.9])
@pytest.mark.parametrize("begins", [0.0, -0.5, -1.0])
def test_slow_sweeps_keep_all_their_times(lasts_s, begins):
    after = (np.linspace(0, 1, COUNT) + begins) * lasts_s * 1e9
    sample = decoded("t", after.astype("i4"))
    np.testing.assert_array_equal(sample.time_ns, STAMP + after.astype("i4").astype(np.int64))
    assert sample.times_unknown == 0


def test_a_sweep_with_holes_keeps_the_times_of_its_few_far_points():
    """All but a hundredth of the points within 5 ms, the others anywhere in 200 ms."""
    after = np.concatenate([np.linspace(50, 55, 990), np.linspace(0, 199, 10)]) * 1e6
    sample = decoded("t", after.astype("u4"))
    np.testing.assert_array_equal(sample.time_ns, STAMP + after.astype("u4").astype(np.int64))
    assert sample.times_unknown == 0


def test_a_cloud_of_few_points_may_be_cut_out_of_a_sweep():
    after = np.arange(40, dtype="u4") * 1000
    np.testing.assert_array_equal(decoded("t", after).time_ns, STAMP + after.astype(np.int64))


def test_a_short_piece_late_in_a_sweep_is_no_sweep_in_another_unit():
    after = 70_000_000 + np.arange(COUNT, dtype="u4") * 100
    np.testing.assert_array_equal(decoded("t", after).time_ns, STAMP + after.astype(np.int64))


@pytest.mark.parametrize("bad", [4_294_967_000, 1_500_000, 2_900_000])
def test_microseconds_with_a_stray_are_no_nanoseconds(bad):
    micros = (AFTER_NS / 1e3).astype("u4")
    micros[3] = bad
    sample = decoded("t", micros)
    assert sample.times_unknown == 1
    assert (sample.start_ns, sample.end_ns) == (STAMP, STAMP + 99_000_000)


@pytest.mark.parametrize(
    "times",
    [
        np.full(COUNT, np.nan, "f4"),
        np.full(COUNT, np.inf),
        AFTER_NS / 1e9 + 300.0,
        STAMP / 1e9 - 3600 + AFTER_NS / 1e9,
        np.linspace(0, 2**32 - 1, COUNT).astype("u4"),
        np.where(np.arange(COUNT) % 2, 0.0, 4e4),
    ],
)
def test_what_is_no_sweep_has_no_times_and_says_why(times):
    sample = decoded("timestamp", times)
    assert (sample.time_ns, sample.start_ns, sample.end_ns, sample.times_unknown) == (None, STAMP, STAMP, 0)
    assert sample.times_taken_for.startswith("no times: those of timestamp ")


# --------------------------------------------------------------------------------------------------------------------
# Options, fractions of a sweep


@pytest.mark.parametrize(
    ("unit", "values"),
    [
        ("ns", AFTER_NS.astype("u4")),
        ("us", (AFTER_NS / 1e3).astype("u4")),
        ("ms", (AFTER_NS / 1e6).astype("f4")),
        ("s", (AFTER_NS / 1e9).astype("f4")),
        ("s", STAMP / 1e9 + AFTER_NS / 1e9),
        ("us", STAMP / 1e3 + AFTER_NS / 1e3),
    ],
)
def test_a_unit_by_option(unit, values):
    sample = decoded("curvature", values, field="curvature", unit=unit)
    assert np.abs(sample.time_ns - STAMP - AFTER_NS).max() <= 1000
    values[3] = -(2**31) if values.dtype.kind == "i" else 4e9
    assert decoded("curvature", values, field="curvature", unit=unit).times_unknown == 1


def test_a_unit_by_option_is_taken_even_where_another_one_would_seem_right():
    sample = decoded("t", (AFTER_NS / 1e3).astype("u4"), unit="ns")
    np.testing.assert_array_equal(sample.time_ns, STAMP + AFTER_NS // 1000)
    assert decoded("t", AFTER_NS.astype("u4"), unit="us").time_ns is None  # 99 s
    assert decoded("t", AFTER_NS.astype("u4"), unit="none").time_ns is None


def test_a_field_by_option_is_the_only_one():
    message = cloud("t", AFTER_NS.astype("u4"), late=(AFTER_NS + 7).astype("u4"))
    assert decode_cloud(message, "l").start_ns == STAMP
    assert decode_cloud(message, "l", TimeReading("late")).start_ns == STAMP + 7
    with pytest.raises(
        DecodeError, match=r"the field 'dt' \(lidar.time_field\) .* 'lidar/points', got late, t, x, y, z"
    ) as error:
        decode_cloud(message, "lidar/points", TimeReading("dt"))
    assert error.value.reason == "no_time_field"


FRACTIONS = np.linspace(0, 1, COUNT).astype("f4")


def test_fractions_of_a_sweep_are_known_where_sweeps_come_too_often_for_seconds():
    alone = decoded("time", FRACTIONS)
    assert alone.time_ns is None
    assert "lidar.time_unit" in alone.times_taken_for
    sample = decoded("time", FRACTIONS, period_ns=100_000_000)
    assert np.abs(sample.time_ns - STAMP - FRACTIONS.astype(float) * 1e8).max() <= 1
    assert sample.times_taken_for == "time as fractions of a sweep of 100.0 ms"
    once_a_second = decoded("time", FRACTIONS, period_ns=1_000_000_000)  # seconds and fractions are one
    assert np.abs(once_a_second.time_ns - STAMP - FRACTIONS.astype(float) * 1e9).max() <= 1
    assert decoded("time", FRACTIONS, period_ns=2_000_000_000).time_ns is None
    assert decoded("time", FRACTIONS, unit="s").end_ns == STAMP + 1_000_000_000


@pytest.mark.parametrize("bad", [np.nan, 4e9, -3.0])
def test_a_bad_fraction_is_unknown(bad):
    changed = FRACTIONS.copy()
    changed[9] = bad
    for unit in ("auto", "fraction"):
        sample = decoded("time", changed, period_ns=100_000_000, unit=unit)
        assert (sample.times_unknown, sample.start_ns, sample.end_ns) == (1, STAMP, STAMP + 100_000_000)


def test_the_intake_learns_how_often_sweeps_come_and_counts_what_is_unknown():
    bad = FRACTIONS.copy()
    bad[5] = np.nan
    intake = Intake(from_flat({"modalities": ["rgb", "lidar"], "lidar.time_field": "phase", "lidar.time_unit": "fraction"}))
    samples = [intake.accept("lidar.points", cloud("phase", bad, STAMP + i * 100_000_000)) for i in range(3)]
    assert [sample.time_ns is None for sample in samples] == [True, False, False]
    assert samples[2].end_ns == STAMP + 300_000_000
    counts = {count.what: count.number for count in intake.counts()}
    assert (counts["lidar.points.times_unknown"], counts["lidar.points.without_point_times"]) == (2, 1)
    intake.reset()
    assert intake.accept("lidar.points", cloud("phase", bad, STAMP)).time_ns is None


@pytest.mark.parametrize(
    ("stamps_ms", "period_ms"),
    [
        ([0], None),
        ([0, 100], 100),
        ([0, 100, 300, 400, 800], 100),
        ([0, 0, 0], None),
        ([0, 101, 200, 301], 101),
        ([100, 0], None),
    ],
)
def test_the_period_of_sweeps_misses_none(stamps_ms, period_ms):
    period = SweepPeriod()
    found = [period.take(stamp * 1_000_000) for stamp in stamps_ms][-1]
    assert found == (None if period_ms is None else period_ms * 1_000_000)

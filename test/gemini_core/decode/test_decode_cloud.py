"""Clouds by field name: the layouts of real drivers, their times, a real message, damaged ones, and what is refused."""

from __future__ import annotations

import dataclasses
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gemini_core.bag import messages
from gemini_core.decode.cloud import decode_cloud
from gemini_core.errors import DecodeError
from mutations import assert_survives

STAMP = 1_714_506_077_250_967_979
SECOND = 1_000_000_000
CODES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 8}
RNG = np.random.default_rng(0)
XYZ = RNG.uniform(1, 50, (6, 3)).astype(np.float32)


def cloud(columns, offsets, step, *, order="<", shape=None, row_padding=0, stamp_ns=STAMP):
    """A message of columns {name: values with their little-endian dtype} at byte offsets in points of ``step`` bytes."""
    count = len(next(iter(columns.values())))
    height, width = shape or (1, count)
    names, values = list(columns), [np.asarray(column) for column in columns.values()]
    layout = {"names": names, "formats": [order + v.dtype.str[1:] for v in values], "offsets": offsets, "itemsize": step}
    points = np.zeros(count, np.dtype(layout))
    for name, value in zip(names, values, strict=True):
        points[name] = value
    rows = np.frombuffer(points.tobytes(), np.uint8).reshape(height, width * step)
    rows = np.pad(rows, ((0, 0), (0, row_padding)), constant_values=0x7F)
    return messages.make(
        "sensor_msgs/msg/PointCloud2",
        header=messages.header(stamp_ns, "lidar"),
        height=height,
        width=width,
        fields=[
            messages.make("sensor_msgs/msg/PointField", name=name, offset=offset, datatype=CODES[value.dtype.str[1:]], count=1)
            for name, offset, value in zip(names, offsets, values, strict=True)
        ],
        is_bigendian=order == ">",
        point_step=step,
        row_step=rows.shape[1],
        data=rows.reshape(-1),
        is_dense=False,
    )


def xyz(points=XYZ, dtype=np.float32):
    return dict(zip("xyz", points.T.astype(dtype), strict=True))


AFTER_MS = np.array([0, 10, 20, 30, 40, 99.5])
INTENSITY = np.arange(6, dtype=np.float32)
RING = np.arange(6, dtype=np.uint16)
SECONDS = STAMP / SECOND + AFTER_MS / 1e3


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("extra", "offsets", "step", "after_ns"),
    [
        ({"intensity": INTENSITY, "ring": RING, "time": (AFTER_MS / 1e3).astype("f4")}, [12, 16, 18], 22, AFTER_MS * 1e6),
        ({"intensity": INTENSITY, "ring": RING, "time": (AFTER_MS / -1e3).astype("f4")}, [12, 16, 18], 22, -AFTER_MS * 1e6),
        ({"intensity": INTENSITY, "t": (AFTER_MS * 1e6).astype("u4"), "ring": RING}, [16, 20, 26], 48, AFTER_MS * 1e6),
        ({"intensity": INTENSITY, "ring": RING, "timestamp": SECONDS}, [12, 16, 18], 26, AFTER_MS * 1e6),
        ({"intensity": INTENSITY, "ring": RING, "timestamp": SECONDS * 1e9}, [12, 16, 18], 26, AFTER_MS * 1e6),
        ({"intensity": INTENSITY, "ring": RING, "timestamp": SECONDS * 1e6}, [12, 16, 18], 26, AFTER_MS * 1e6),
        (
            {"intensity": INTENSITY, "ring": RING, "offset_time": (AFTER_MS * 1e6).astype("u4")},
            [12, 16, 18],
            22,
            AFTER_MS * 1e6,
        ),
        ({"intensity": INTENSITY, "ring": RING, "time_stamp": (AFTER_MS * 1e6).astype("u4")}, [12, 16, 18], 22, AFTER_MS * 1e6),
        ({"intensity": INTENSITY, "ring": RING, "time": AFTER_MS / 1e3}, [12, 16, 18], 26, AFTER_MS * 1e6),
        ({"intensity": INTENSITY, "ring": RING, "timestamp": AFTER_MS / 1e3}, [12, 16, 18], 26, AFTER_MS * 1e6),
    ],
    ids=[
        "velodyne",
        "velodyne that stamps the end",
        "ouster",
        "hesai",
        "livox",
        "microseconds",
        "livox offset",
        "autoware",
        "float64 time",
        "timestamp after the stamp",
    ],
)
def test_layouts_of_drivers(extra, offsets, step, after_ns, order):
    sample = decode_cloud(cloud({**xyz(), **extra}, [0, 4, 8, *offsets], step, order=order), "lidar/points")
    np.testing.assert_array_equal(sample.points, XYZ.T)
    assert sample.points.flags.c_contiguous
    np.testing.assert_array_equal(sample.intensity, INTENSITY)
    np.testing.assert_array_equal(sample.ring, RING)
    assert (sample.points.dtype, sample.intensity.dtype, sample.ring.dtype) == (np.float32, np.float32, np.uint16)
    assert sample.time_ns.dtype == np.int64
    np.testing.assert_allclose(sample.time_ns - STAMP, after_ns, atol=500)  # float64 seconds since 1970
    assert (sample.start_ns, sample.end_ns) == (sample.time_ns.min(), sample.time_ns.max())
    assert (sample.stamp_ns, sample.frame_id) == (STAMP, "lidar")


OTHER = np.arange(6)
DRIVERS = {  # fields, their offsets, size of a point, name of the intensity, name of the ring, nanoseconds after the stamp
    "velodyne": (
        {**xyz(), "intensity": INTENSITY, "ring": RING, "time": (AFTER_MS / 1e3).astype("f4")},
        [0, 4, 8, 12, 16, 18],
        22,
        ("intensity", "ring", AFTER_MS * 1e6),
    ),
    "ouster": (
        {
            **xyz(),
            "intensity": INTENSITY,
            "t": (AFTER_MS * 1e6).astype("u4"),
            "reflectivity": (OTHER + 100).astype("u2"),
            "ring": RING,
            "ambient": OTHER.astype("u2"),
            "range": (OTHER * 1000).astype("u4"),
        },
        [0, 4, 8, 16, 20, 24, 26, 28, 32],
        48,
        ("intensity", "ring", AFTER_MS * 1e6),
    ),
    "hesai": (
        {**xyz(), "intensity": INTENSITY, "ring": RING, "timestamp": SECONDS},
        [0, 4, 8, 12, 16, 18],
        26,
        ("intensity", "ring", AFTER_MS * 1e6),
    ),
    "livox": (
        {
            **xyz(),
            "intensity": INTENSITY,
            "tag": OTHER.astype("u1"),
            "line": OTHER.astype("u1"),
            "timestamp": SECONDS * 1e9,
        },
        [0, 4, 8, 12, 16, 17, 18],
        26,
        ("intensity", "line", AFTER_MS * 1e6),
    ),
    "realsense": (
        {**xyz(), "rgb": np.array([0x00FF8040, 0x7FC00001, 0x7F800000, 0, 1, 2], np.uint32).view(np.float32)},
        [0, 4, 8, 16],
        20,
        ("", "", None),
    ),
}


@pytest.mark.parametrize("shape", [(1, 6), (2, 3)])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("driver", DRIVERS)
def test_drivers_in_either_byte_order_and_with_padded_rows(driver, order, shape):
    columns, offsets, step, (intensity, ring, after_ns) = DRIVERS[driver]
    sample = decode_cloud(cloud(columns, offsets, step, order=order, shape=shape, row_padding=7), "l")
    np.testing.assert_array_equal(sample.points, XYZ.T)
    np.testing.assert_array_equal(sample.intensity, columns[intensity] if intensity else np.zeros(6))
    assert (sample.ring is None) == (ring == "")
    if ring:
        np.testing.assert_array_equal(sample.ring, columns[ring])
    assert (sample.time_ns is None) == (after_ns is None)
    if after_ns is not None:
        np.testing.assert_allclose(sample.time_ns - STAMP, after_ns, atol=500)


@pytest.mark.parametrize("name", ["i", "intensities", "reflectivity", "reflectance"])
@pytest.mark.parametrize("kind", ["f4", "u1", "u2", "f8"])
def test_other_names_and_types_of_intensity(name, kind):
    columns = {**xyz(), name: (INTENSITY * 7).astype(kind), "channel": np.arange(6, dtype="i4")}
    sample = decode_cloud(cloud(columns, [0, 4, 8, 12, 20], 24), "l")
    np.testing.assert_array_equal(sample.intensity, INTENSITY * 7)
    np.testing.assert_array_equal(sample.ring, np.arange(6))
    both = decode_cloud(cloud({**columns, "intensity": INTENSITY}, [0, 4, 8, 12, 20, 24], 28), "l")
    np.testing.assert_array_equal(both.intensity, INTENSITY)


@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("unit_ns", [1e9, 1e6, 1e3, 1.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_unit_of_times_after_the_stamp_follows_from_their_size(kind, unit_ns, sign):
    after_ns = AFTER_MS * 1e6 * sign
    sample = decode_cloud(cloud({**xyz(), "time": (after_ns / unit_ns).astype(kind)}, [0, 4, 8, 12], 20), "l")
    np.testing.assert_allclose(sample.time_ns - STAMP, after_ns, atol=20)


def test_whole_nanoseconds_are_exact():
    message = cloud({**xyz(), "t": (AFTER_MS * 1e6).astype("u4")}, [0, 4, 8, 12], 16)
    np.testing.assert_array_equal(decode_cloud(message, "l").time_ns, STAMP + (AFTER_MS * 1e6).astype(np.int64))


def test_simulated_time_starts_at_zero():
    stamp = 12_300_000_000
    for value in (12.3 + AFTER_MS / 1e3, (12.3 + AFTER_MS / 1e3) * 1e9):
        message = cloud({**xyz(), "timestamp": value}, [0, 4, 8, 12], 20, stamp_ns=stamp)
        np.testing.assert_allclose(decode_cloud(message, "l").time_ns - stamp, AFTER_MS * 1e6, atol=10)


@pytest.mark.parametrize(
    "times",
    [300.0 + AFTER_MS / 1e3, SECONDS - 3600, np.full(6, np.nan), np.full(6, 4_000_000_000, np.uint32), np.full(6, -np.inf)],
)
def test_times_of_another_clock_are_no_times(times):
    sample = decode_cloud(cloud({**xyz(), "timestamp": times}, [0, 4, 8, 12], 20), "l")
    assert sample.time_ns is None
    assert (sample.start_ns, sample.end_ns) == (STAMP, STAMP)
    np.testing.assert_array_equal(sample.points, XYZ.T)


def test_an_organised_cloud_with_padded_rows_and_holes():
    """Like a RealSense: x y z, colour, no intensity, NaN where nothing came back."""
    points = XYZ.copy()
    points[1, 2], points[3] = np.nan, np.inf
    points[4] = 0.0  # the other mark of no return
    columns = {**xyz(points), "rgb": np.zeros(6, np.float32)}
    sample = decode_cloud(cloud(columns, [0, 4, 8, 16], 20, shape=(2, 3), row_padding=5), "l")
    np.testing.assert_array_equal(sample.points, XYZ[[0, 2, 5]].T)
    np.testing.assert_array_equal(sample.intensity, np.zeros(3, np.float32))
    assert sample.ring is None
    assert sample.time_ns is None


def test_float64_positions_and_whole_intensities():
    points = XYZ.astype(np.float64)
    points[2, 0] = 1e300
    columns = {**xyz(points, np.float64), "intensity": np.arange(6, dtype=np.uint8)}
    sample = decode_cloud(cloud(columns, [0, 8, 16, 24], 25), "l")
    np.testing.assert_array_equal(sample.points, XYZ[[0, 1, 3, 4, 5]].T)
    np.testing.assert_array_equal(sample.intensity, [0, 1, 3, 4, 5])


def test_an_intensity_that_is_no_number_is_zero():
    columns = {**xyz(), "intensity": np.array([1, np.nan, np.inf, 2, -np.inf, 3], np.float32)}
    np.testing.assert_array_equal(decode_cloud(cloud(columns, [0, 4, 8, 12], 16), "l").intensity, [1, 0, 0, 2, 0, 3])


@pytest.mark.parametrize("shape", [(1, 0), (0, 6), (0, 0)])
def test_an_empty_cloud_says_that_nothing_was_seen(shape):
    message = cloud({**xyz(), "t": np.zeros(6, np.uint32), "ring": RING}, [0, 4, 8, 12, 16], 18)
    message = dataclasses.replace(message, height=shape[0], width=shape[1], data=np.empty(0, np.uint8))
    sample = decode_cloud(message, "l")
    assert (sample.points.shape, sample.intensity.shape, sample.ring.shape) == ((3, 0), (0,), (0,))
    assert (sample.start_ns, sample.end_ns) == (STAMP, STAMP)


def test_one_row_needs_no_row_step():
    message = dataclasses.replace(cloud(xyz(), [0, 4, 8], 12), row_step=0)
    np.testing.assert_array_equal(decode_cloud(message, "l").points, XYZ.T)


@pytest.mark.parametrize("row_step", [0, 1, 11, 36, 71, 72, 10**9])
@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (6, 1)])
def test_rows_lie_without_gaps_where_only_that_fits_the_data(shape, row_step):
    """Drivers leave row_step out, or write the size of one point or of the whole cloud."""
    message = cloud(xyz(), [0, 4, 8], 12, shape=shape)
    np.testing.assert_array_equal(decode_cloud(dataclasses.replace(message, row_step=row_step), "l").points, XYZ.T)


GOOD = cloud({**xyz(), "intensity": INTENSITY}, [0, 4, 8, 12], 16, shape=(2, 3))


def renamed(**names):
    return [dataclasses.replace(field, **names.get(field.name, {})) for field in GOOD.fields]


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"data": GOOD.data[:-1]}, "short_data", "96 bytes for 3 x 2 points in the cloud on topic 'lidar/points', got 95"),
        ({"height": 2**32 - 1, "width": 2**32 - 1, "row_step": 2**40}, "short_data", "got 96"),
        (
            {"row_step": 47, "data": np.append(GOOD.data, GOOD.data[:1])},
            "short_row_step",
            "at least 48 for 3 points of 16 bytes",
        ),
        ({"row_step": 0, "data": GOOD.data[:-1]}, "short_row_step", "got 0, and 95 bytes, which are not those of 2 rows"),
        ({"row_step": 96, "data": GOOD.data[:-1]}, "short_data", "got 95"),
        ({"point_step": 15}, "short_point_step", "at least 16 for field 'intensity' on topic 'lidar/points', got 15"),
        ({"point_step": 0}, "short_point_step", "got 0"),
        ({"fields": renamed(z={"name": "depth"})}, "no_position", "expected fields x, y, z"),
        ({"fields": renamed(z={"name": "depth"})}, "no_position", "known beside them: intensity, i, intensities"),
        ({"fields": renamed(z={"name": "depth"})}, "no_position", "got depth, intensity, x, y"),
        ({"fields": []}, "no_position", "got none"),
        ({"fields": renamed(y={"datatype": 5})}, "unknown_datatype", "float32 or float64 (datatype 7 or 8), got datatype 5"),
        ({"fields": renamed(intensity={"datatype": 9})}, "unknown_datatype", "'intensity' on topic 'lidar/points', got 9"),
        ({"fields": renamed(intensity={"datatype": 0})}, "unknown_datatype", "1 int8, 2 uint8, 3 int16"),
        ({"fields": renamed(intensity={"offset": 2**32 - 1})}, "short_point_step", "got 16"),
        ({"data": [0] * 96}, "unreadable_data", "got list"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(changes, reason, words):
    with pytest.raises(DecodeError) as error:
        decode_cloud(dataclasses.replace(GOOD, **changes), "lidar/points")
    assert error.value.reason == reason
    assert words in str(error.value)


@given(
    data=hnp.arrays(np.uint8, st.integers(0, 120)),
    size=st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 40), st.integers(0, 90)),
    fields=st.lists(
        st.tuples(
            st.sampled_from(["x", "y", "z", "intensity", "ring", "t", "time", "timestamp"]),
            st.integers(0, 30),
            st.integers(0, 9),
        ),
        max_size=8,
    ),
    is_bigendian=st.booleans(),
)
def test_any_cloud_is_read_or_refused(data, size, fields, is_bigendian):
    floats = [("x", 0, 7), ("y", 4, 7), ("z", 8, 7)]
    for chosen in (fields, floats + fields):
        message = dataclasses.replace(
            GOOD,
            data=data,
            height=size[0],
            width=size[1],
            point_step=size[2],
            row_step=size[3],
            is_bigendian=is_bigendian,
            fields=[
                messages.make("sensor_msgs/msg/PointField", name=name, offset=offset, datatype=datatype, count=1)
                for name, offset, datatype in chosen
            ],
        )
        try:
            sample = decode_cloud(message, "l")
        except DecodeError:
            continue
        assert np.isfinite(sample.points).all()
        assert np.isfinite(sample.intensity).all()
        assert sample.points.shape[1] == sample.intensity.size <= size[0] * size[1]
        assert sample.start_ns <= sample.end_ns


@st.composite
def layouts(draw):
    """Fields in any order at any offsets that do not overlap, with gaps; rows padded; either byte order."""
    position = draw(st.sampled_from(["f4", "f8"]))
    kinds = dict.fromkeys("xyz", position) | {
        "intensity": draw(st.sampled_from(["f4", "u1", "u2", "f8", "i4"])),
        "ring": draw(st.sampled_from(["u1", "u2", "u4"])),
        "t": draw(st.sampled_from(["u4", "i4"])),
        "spare": draw(st.sampled_from(list(CODES))),
    }
    names = draw(st.permutations(list(kinds)))
    offsets, at = {}, 0
    for name in names:
        at += draw(st.integers(0, 3))
        offsets[name] = at
        at += np.dtype(kinds[name]).itemsize
    step = at + draw(st.integers(0, 5))
    shape = draw(st.sampled_from([(1, 7), (3, 4), (5, 1)]))
    return kinds, offsets, step, shape, draw(st.sampled_from("<>")), draw(st.integers(0, 9)), draw(st.integers(0, 2**32 - 1))


@settings(max_examples=150, deadline=None)
@given(layouts())
def test_any_layout_is_read_as_struct_reads_it(layout):
    kinds, offsets, step, (height, width), order, padding, seed = layout
    rng = np.random.default_rng(seed)
    count = height * width
    values = {name: rng.integers(0, 100, count).astype(kind) for name, kind in kinds.items()}
    for name in "xyz":
        values[name][rng.random(count) < 0.1] = rng.choice([np.nan, np.inf, -np.inf, 0.0])
    if kinds["t"] == "i4":
        values["t"] -= 50  # a stamp within the sweep
    columns, at = {name: values[name] for name in kinds}, [offsets[name] for name in kinds]
    message = cloud(columns, at, step, order=order, shape=(height, width), row_padding=padding)
    expected = []
    for row in range(height):
        for column in range(width):
            start = row * message.row_step + column * step
            point = {
                name: struct.unpack_from(order + np.dtype(kinds[name]).char, message.data, start + offsets[name])[0]
                for name in ("x", "y", "z", "intensity", "ring", "t")
            }
            position = (point["x"], point["y"], point["z"])
            if np.isfinite(position).all() and any(position):
                expected.append([*position, point["intensity"], point["ring"], point["t"] + STAMP])
    sample = decode_cloud(message, "l")
    assert sample.points.shape[1] == len(expected)
    assert sample.points.flags.c_contiguous
    for i, values_of_point in enumerate(expected):
        assert [*sample.points[:, i], sample.intensity[i], sample.ring[i], sample.time_ns[i]] == values_of_point


def test_damaged_clouds_are_read_or_refused_and_never_beyond_their_end():
    originals = [
        cloud(columns, offsets, step, order=order, shape=shape, row_padding=3)
        for columns, offsets, step, _ in DRIVERS.values()
        for order, shape in (("<", (1, 6)), (">", (2, 3)))
    ]
    words = ("x", "y", "z", "intensity", "i", "ring", "line", "t", "time", "timestamp", "")
    outcomes = assert_survives(lambda: decode_cloud, originals, words=words)
    assert outcomes["sample"] > 300
    refused = {"no_position", "unknown_datatype", "short_point_step", "short_row_step", "short_data"}
    assert set(outcomes) - {"sample"} == refused


def test_a_cloud_off_the_wire(real_dir):
    raw = (real_dir / "point_cloud2/velodyne_xyzir_timestamp.cdr").read_bytes()
    message = messages.typestore().deserialize_cdr(raw, "sensor_msgs/msg/PointCloud2")
    sample = decode_cloud(message, "lidar/points")
    stored = np.frombuffer(
        message.data,
        np.dtype({"names": ["xyz", "ring", "t"], "formats": ["(3,)<f4", "<u2", "<f8"], "offsets": [0, 16, 18], "itemsize": 26}),
    )
    seen = stored["xyz"].any(axis=1)
    assert (stored.size, np.count_nonzero(seen)) == (64_000, 59_422)  # the others are (0, 0, 0)
    np.testing.assert_array_equal(sample.points, stored["xyz"][seen].T)
    np.testing.assert_array_equal(sample.ring, stored["ring"][seen])
    np.testing.assert_allclose(sample.time_ns, stored["t"][seen] * 1e9, rtol=0, atol=256)
    assert sample.ring.max() == 31
    assert -SECOND < sample.start_ns - sample.stamp_ns <= sample.end_ns - sample.stamp_ns < SECOND


def test_no_field_of_a_large_cloud_is_copied(real_dir):
    raw = (real_dir / "point_cloud2/velodyne_xyzir_timestamp.cdr").read_bytes()
    message = messages.typestore().deserialize_cdr(raw, "sensor_msgs/msg/PointCloud2")
    decode_cloud(message, "l")
    tracemalloc.start()
    try:
        sample = decode_cloud(message, "l")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # What is given back, for all 64,000 points (x y z 12, intensity 4, ring 2, time 8 bytes), and one byte each for which
    # to keep. Closing up the rows of x, y, z takes one row more for a moment, before the others are there.
    assert sample.points.shape == (3, 59_422)
    assert most < 64_000 * (12 + 4 + 2 + 8 + 1) + 20_000


@pytest.mark.parametrize("value", [1e30, -3e38, 1e-38])
def test_huge_and_tiny_coordinates_are_kept_as_they_are(value):
    points = XYZ.copy()
    points[2] = value
    np.testing.assert_array_equal(decode_cloud(cloud(xyz(points), [0, 4, 8], 12), "l").points, points.T)

"""Event arrays out of their CDR bytes, clouds of events and rendered event images."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from gemini_core.bag import messages
from gemini_core.config.fusion import FusionConfig, from_flat
from gemini_core.decode.events import EventDecoder
from gemini_core.decode.intake import Intake
from gemini_core.decode.message import RAW_TYPES, RawMessage
from gemini_core.decode.sensor_clock import ClockState
from gemini_core.errors import ConfigError, DecodeError
from gemini_core.render import event_image
from gemini_core.synchronize.synchronizer import Synchronizer
from mutations import assert_survives

STAMP = 1_700_000_000_123_456_789
WIDTH, HEIGHT = 346, 260

# The published definitions, in words of our own.
EVENT = "uint16 x\nuint16 y\nbuiltin_interfaces/Time ts\nbool polarity\n"
ARRAY = "std_msgs/Header header\nuint32 height\nuint32 width\n{package}/Event[] events\n"


@pytest.fixture(scope="module")
def store():
    """A type store with both packages' event arrays."""
    store, types = get_typestore(Stores.ROS2_HUMBLE), {}
    for package in ("dvs_msgs", "prophesee_event_msgs"):
        types.update(get_types_from_msg(EVENT, f"{package}/msg/Event"))
        types.update(get_types_from_msg(ARRAY.format(package=package), f"{package}/msg/EventArray"))
    store.register(types)
    return store


def raw_array(store, columns, *, kind=RAW_TYPES[0], frame_id="event", little=True, stamp_ns=STAMP, size=(WIDTH, HEIGHT)):
    """An array of (x, y, time_ns, polarity), serialised by rosbags."""

    def time(ns):
        return store.types["builtin_interfaces/msg/Time"](*divmod(int(ns), 10**9))

    event = store.types[kind.replace("EventArray", "Event")]
    listed = [event(int(x), int(y), time(t), bool(p)) for x, y, t, p in zip(*columns, strict=True)]
    header = store.types["std_msgs/msg/Header"](time(stamp_ns), frame_id)
    array = store.types[kind](header, size[1], size[0], listed)
    return RawMessage(kind, bytes(store.serialize_cdr(array, kind, little_endian=little)))


def random_columns(rng, number):
    time_ns = STAMP + np.cumsum(rng.integers(0, 10**6, number))
    return rng.integers(0, WIDTH, number), rng.integers(0, HEIGHT, number), time_ns, rng.integers(0, 2, number)


def assert_events(sample, columns):
    for name, expected in zip(("x", "y", "time_ns", "polarity"), columns, strict=True):
        np.testing.assert_array_equal(getattr(sample, name), expected)


def counts(decoder):
    return {count.what.removeprefix("event.packets."): count.number for count in decoder.counts()}


# --------------------------------------------------------------------------------------------------------------------
# Arrays


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.sampled_from(RAW_TYPES), st.text("abc/_ é", max_size=9), st.booleans())
def test_what_rosbags_serialises_is_read_back(store, number, kind, frame_id, little):
    columns = random_columns(np.random.default_rng(number), number)
    message = raw_array(store, columns, kind=kind, frame_id=frame_id, little=little)
    sample = EventDecoder(kind.replace("/msg/", "/")).decode(message, "events")
    assert_events(sample, columns)
    assert (sample.frame_id, sample.stamp_ns, sample.width, sample.height) == (frame_id, STAMP, WIDTH, HEIGHT)
    assert sample.end_ns == max([STAMP, *columns[2].tolist()])
    assert (sample.x.dtype, sample.polarity.dtype, sample.time_ns.dtype) == (np.uint16, np.uint8, np.int64)


def test_events_outside_the_sensor_are_left_out_and_counted(store):
    columns = np.array([[0, WIDTH, 5, 65535, 6], [0, 0, HEIGHT, 65535, 7], [STAMP] * 5, [1, 0, 1, 1, 0]])
    decoder = EventDecoder("dvs_msgs/EventArray")
    sample = decoder.decode(raw_array(store, columns), "events")
    assert_events(sample, columns[:, [0, 4]])
    assert counts(decoder) == {"events": 2, "dropped.outside_sensor": 3}


def test_times_of_another_clock_go_through_the_sensors_clock(store):
    decoder = EventDecoder("dvs_msgs/EventArray")
    for number in range(3):
        time_ns = np.array([0, 10**6]) + number * 10**7
        stamp_ns = STAMP + number * 10**7 + number * 10**5  # each later than it should be
        sample = decoder.decode(raw_array(store, ([1, 2], [3, 4], time_ns, [0, 1]), stamp_ns=stamp_ns), "events")
        assert sample.time_ns.tolist() == (time_ns + STAMP).tolist()
    assert decoder.clock().offset_ns == STAMP


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:3], "unknown_encapsulation"),
        (lambda data: b"\0\x03" + data[2:], "unknown_encapsulation"),
        (lambda data: data[:20], "short_data"),
        (lambda data: data[:-1], "short_data"),
        (lambda data: data[:12] + struct.pack("<I", 2**32 - 1) + data[16:], "short_data"),
        (lambda data: data[:24] + struct.pack("<II", 0, 0) + data[32:], "no_size"),
        (lambda data: data[:32] + struct.pack("<I", 2**32 - 1) + data[36:], "short_data"),
    ],
)
def test_arrays_that_are_damaged_are_refused(store, change, reason):
    data = raw_array(store, random_columns(np.random.default_rng(0), 3), frame_id="event12").data
    assert struct.unpack_from("<III", data, 24) == (HEIGHT, WIDTH, 3)
    with pytest.raises(DecodeError) as error:
        EventDecoder("dvs_msgs/EventArray").decode(RawMessage(RAW_TYPES[0], change(data)), "events")
    assert error.value.reason == reason
    assert "on topic 'events'" in str(error.value)


def test_arrays_as_objects_or_of_another_type_are_refused():
    decoder = EventDecoder("prophesee_event_msgs/EventArray")
    packet = messages.event_packet(b"", width=1, height=1, seq=1, stamp_ns=0, frame_id="")
    for message in (RawMessage("std_msgs/msg/String", b"\0\1\0\0"), packet):
        with pytest.raises(DecodeError, match="expected the bytes of dvs_msgs/msg/EventArray or prophesee") as error:
            decoder.decode(message, "events")
        assert error.value.reason == "wrong_type"


def test_damaged_arrays_do_no_harm(store):
    rng = np.random.default_rng(2)
    originals = [raw_array(store, random_columns(rng, number), little=number % 2 == 0) for number in (0, 1, 2, 30, 31)]
    outcomes = assert_survives(lambda: EventDecoder("dvs_msgs/EventArray").decode, originals)
    assert set(outcomes) >= {"sample", "short_data", "no_size", "unknown_encapsulation", "wrong_type"}


# --------------------------------------------------------------------------------------------------------------------
# Clouds


def cloud(kinds, columns, stamp_ns=STAMP):
    """A cloud of events; ``kinds`` are the numpy types of the fields by their names, ``columns`` in the same order."""
    points = np.zeros(len(columns[0]), np.dtype([(name, kind) for name, kind in kinds.items()]))
    for name, column in zip(kinds, columns, strict=True):
        points[name] = column
    return messages.point_cloud(points, stamp_ns, "event")


AFTER_NS = np.array([0, 1_000_000, 49_999_000])


@pytest.mark.parametrize(
    ("kinds", "times"),
    [
        ({"x": "<u2", "y": "<u2", "t": "<u4", "p": "u1"}, AFTER_NS),
        ({"x": "<i4", "y": "<i4", "ts": "<i4", "polarity": "i1"}, AFTER_NS),
        ({"x": "<f4", "y": "<f4", "t": "<f4", "p": "<f4"}, AFTER_NS / 1e9),
        ({"x": "<f4", "y": "<f4", "time": "<f8", "pol": "<f4"}, AFTER_NS / 1e9),
        ({"x": "<u2", "y": "<u2", "timestamp": "<f8", "p": "u1"}, (STAMP + AFTER_NS) / 1e9),
        ({"x": "<f8", "y": "<f8", "t": "<f8", "p": "<f8"}, (STAMP + AFTER_NS) / 1e3),
    ],
)
@pytest.mark.parametrize("off", [0, -1])
def test_clouds_of_events_in_any_type(kinds, times, off):
    off = 0 if list(kinds.values())[3] == "u1" else off
    decoder = EventDecoder("sensor_msgs/PointCloud2")
    sample = decoder.decode(cloud(kinds, ([0, 345, 7], [259, 0, 8], times, [1, off, 1])), "events")
    assert (sample.x.tolist(), sample.y.tolist(), sample.polarity.tolist()) == ([0, 345, 7], [259, 0, 8], [1, 0, 1])
    np.testing.assert_allclose(sample.time_ns - STAMP, AFTER_NS, atol=300)  # what float64 and float32 can hold
    assert (sample.width, sample.height, sample.frame_id) == (0, 0, "event")
    assert sample.end_ns == sample.time_ns.max()
    assert decoder.clock() is None


def test_whole_times_near_a_simulated_clock_may_be_absolute():
    stamp = 3_700_000_000
    kinds = {"x": "<u2", "y": "<u2", "t": "<u4", "p": "u1"}
    sample = EventDecoder("sensor_msgs/PointCloud2").decode(cloud(kinds, ([1], [2], [stamp + 5], [1]), stamp), "events")
    assert sample.time_ns.tolist() == [stamp + 5]


def test_points_without_a_place_or_a_time_are_left_out():
    kinds = {"x": "<f4", "y": "<f4", "t": "<f8", "p": "<f4"}
    nan, inf = float("nan"), float("inf")
    columns = ([1.4, nan, -1, 3, 70000, 5], [2.5, 1, 1, inf, 1, 5], [0, 0, 0, 0, 0, nan], [1, 1, 1, 1, 1, 1])
    decoder = EventDecoder("sensor_msgs/PointCloud2")
    sample = decoder.decode(cloud(kinds, columns), "events")
    assert (sample.x.tolist(), sample.y.tolist()) == ([1], [2])
    assert counts(decoder) == {"events": 1, "dropped.outside_sensor": 5}
    empty = decoder.decode(cloud(kinds, ([], [], [], [])), "events")
    assert (empty.x.size, empty.end_ns) == (0, STAMP)


def test_clouds_that_are_no_events_say_what_was_expected():
    decoder = EventDecoder("sensor_msgs/PointCloud2")
    with pytest.raises(DecodeError, match=r"a time \(t, ts, time, timestamp, time_stamp\) .* got intensity, x, y, z") as error:
        decoder.decode(cloud({"x": "<f4", "y": "<f4", "z": "<f4", "intensity": "<f4"}, ([1], [2], [3], [4])), "events")
    assert error.value.reason == "no_events"
    with pytest.raises(DecodeError, match="within 2 s of the stamp, after it or absolute, in field 't'") as error:
        decoder.decode(cloud({"x": "<u2", "y": "<u2", "t": "<f4", "p": "u1"}, ([1], [2], [100], [1])), "events")
    assert error.value.reason == "unknown_time"


def test_damaged_clouds_do_no_harm():
    rng = np.random.default_rng(3)
    columns = (*rng.integers(0, 200, (2, 20)), np.sort(rng.integers(0, 10**7, 20)), rng.integers(0, 2, 20))
    originals = [cloud({"x": "<u2", "y": "<u2", "t": "<u4", "p": "u1"}, columns)]
    originals.append(cloud({"x": "<f4", "y": "<f4", "t": "<f8", "p": "<f4"}, (*columns[:2], columns[2] / 1e9, columns[3])))
    outcomes = assert_survives(lambda: EventDecoder("sensor_msgs/PointCloud2").decode, originals, words=("x", "y", "t", "p"))
    assert set(outcomes) >= {"sample", "no_events", "short_data", "unknown_time"}


def test_a_cloud_needs_the_sensors_camera_info():
    assert from_flat({"topics.event.type": "sensor_msgs/PointCloud2"})
    with pytest.raises(ConfigError, match=r"event\.alignment: expected 'calibrated' for events as sensor_msgs/PointCloud2"):
        from_flat({"topics.event.type": "sensor_msgs/PointCloud2", "event.alignment": "same_view"})


# --------------------------------------------------------------------------------------------------------------------
# Images


DARKER, BRIGHTER = np.zeros((2, 6, 8), bool)
DARKER[1, 2] = DARKER[5, 7] = BRIGHTER[0, 0] = BRIGHTER[3, 4] = BRIGHTER[5, 7] = True


def drawn(image, encoding):
    sample = EventDecoder("sensor_msgs/Image").decode(
        messages.image(image.astype(np.uint8), encoding, STAMP, "event"), "events"
    )
    darker, brighter = np.zeros((2, 6, 8), bool)
    darker[sample.y[sample.polarity == 0], sample.x[sample.polarity == 0]] = True
    brighter[sample.y[sample.polarity == 1], sample.x[sample.polarity == 1]] = True
    assert sample.x.size == darker.sum() + brighter.sum()
    assert (sample.time_ns == STAMP - 1).all()
    assert (sample.end_ns, sample.width, sample.height) == (STAMP, 8, 6)
    return darker, brighter


def test_red_on_black_is_darker_and_blue_brighter():
    image = np.stack([DARKER * 255, DARKER * 0, BRIGHTER * 255], axis=-1)
    np.testing.assert_array_equal(drawn(image, "rgb8"), (DARKER, BRIGHTER))
    np.testing.assert_array_equal(drawn(image[..., ::-1], "bgr8"), (DARKER, BRIGHTER))


def test_so_they_are_on_white_as_this_project_paints_them():
    np.testing.assert_array_equal(drawn(event_image(DARKER, BRIGHTER), "rgb8"), (DARKER, BRIGHTER))


@pytest.mark.parametrize("background", [(20, 90, 200), (200, 20, 90), (90, 200, 20)])
def test_a_coloured_background_is_none(background):
    image = np.full((6, 8, 3), background)
    image[DARKER & ~BRIGHTER], image[BRIGHTER & ~DARKER] = (255, 0, 0), (0, 0, 255)
    np.testing.assert_array_equal(drawn(image, "rgb8"), (DARKER & ~BRIGHTER, BRIGHTER & ~DARKER))


def test_green_is_brighter():
    image = np.stack([DARKER * 255, BRIGHTER * 255, DARKER * 0], axis=-1) * ~(DARKER & BRIGHTER)[..., None]
    np.testing.assert_array_equal(drawn(image, "rgb8"), (DARKER & ~BRIGHTER, BRIGHTER & ~DARKER))


@pytest.mark.parametrize("background", [0, 100, 128, 255])
def test_grey_images_are_lighter_or_darker_than_their_background(background):
    darker, brighter = DARKER & ~BRIGHTER & (background > 0), BRIGHTER & (background < 255)
    image = np.where(brighter, 255, np.where(darker, 0, background))
    np.testing.assert_array_equal(drawn(image, "mono8"), (darker, brighter))


@pytest.mark.parametrize(("width", "height"), [(65_537, 1), (1, 65_537)])
def test_an_image_with_more_pixels_than_an_event_can_name_is_refused(width, height):
    image = messages.image(np.zeros((height, width), np.uint8), "mono8", STAMP, "event")
    with pytest.raises(
        DecodeError, match=f"65536 x 65536 pixels of events on topic 'events', got {width} x {height}"
    ) as refused:
        EventDecoder("sensor_msgs/Image").decode(image, "events")
    assert refused.value.reason == "wrong_size"


def test_an_empty_image_is_a_message_without_events():
    assert not np.any(drawn(np.zeros((6, 8, 3)), "rgb8"))


def test_an_image_settles_the_window_that_ends_at_its_stamp():
    config = from_flat({"modalities": ["rgb", "event"], "topics.event.type": "sensor_msgs/Image", "event.window_ms": 5.0})
    synchronizer, intake = Synchronizer(config), Intake(config)
    pixels = np.zeros((6, 8, 3), np.uint8)
    assert synchronizer.push(intake.accept("rgb.image", messages.image(pixels, "rgb8", STAMP, "camera"))) == []
    pixels[2, 3, 0] = 255
    (frame,) = synchronizer.push(intake.accept("event.packets", messages.image(pixels, "rgb8", STAMP, "event")))
    assert (frame.event.x.tolist(), frame.event.y.tolist(), frame.event.polarity.tolist()) == ([3], [2], [0])


def test_the_intake_takes_the_configured_kind_and_no_other(store):
    intake = Intake(from_flat({"topics.event.type": "sensor_msgs/Image", "event.alignment": "same_view"}))
    assert intake.accept("event.packets", messages.image(np.zeros((6, 8), np.uint8), "mono8", STAMP, "event")) is not None
    array = raw_array(store, random_columns(np.random.default_rng(0), 2))
    assert intake.accept("event.packets", array) is None
    assert intake.clocks() == ()
    packets = Intake(FusionConfig())
    assert packets.accept("event.packets", array) is None
    assert packets.last_refusals()[0].reason == "wrong_type"
    words = np.array([0x8001, 0x6001, 0x0001, 0x2003], "<u2").tobytes()
    message = messages.event_packet(words, width=640, height=480, seq=1, stamp_ns=STAMP, frame_id="event")
    assert packets.accept("event.packets", message) is not None
    ((role, state),) = packets.clocks()
    assert (role, state) == ("event.packets", ClockState(STAMP - 4_097_000, 0.0, 0, 0))

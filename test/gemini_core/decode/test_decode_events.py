"""EVT3 against a plain decoder written from the format's table, a real recording, time, lost packets, and what is refused."""

from __future__ import annotations

import array
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import Reader

from gemini_core.bag import messages
from gemini_core.decode.events import EventDecoder
from gemini_core.errors import DecodeError
from packets import ANY_LENGTH, STAMP, counts, events, packet

MS = 1_000_000


def addr_y(y):
    return y


def addr_x(x, polarity=1):
    return 0x2000 | polarity << 11 | x


def base_x(x, polarity=1):
    return 0x3000 | polarity << 11 | x


def vect_12(mask):
    return 0x4000 | mask


def vect_8(mask):
    return 0x5000 | mask


def time(us):
    """The two words of a time in microseconds."""
    return [0x8000 | us >> 12 & 0xFFF, 0x6000 | us & 0xFFF]


def test_every_code_by_hand():
    words = [
        *time(5000),
        addr_y(7),
        addr_x(3),
        addr_x(4, 0),
        base_x(100, 0),
        vect_12(0b1000_0000_0001),
        vect_8(0b10),
        *time(5250),
    ]
    words += [addr_y(8), 0xA001, 0x7123, 0xE000, 0xF00F, vect_8(0b1)]  # a trigger and continuations are skipped
    sample = EventDecoder().decode(packet(words), "events")
    later = STAMP + 250_000
    assert events(sample) == [
        (3, 7, 1, STAMP),
        (4, 7, 0, STAMP),
        (100, 7, 0, STAMP),
        (111, 7, 0, STAMP),
        (113, 7, 0, STAMP),
        (120, 8, 0, later),
    ]
    assert (sample.x.dtype, sample.y.dtype, sample.polarity.dtype, sample.time_ns.dtype) == (
        np.uint16,
        np.uint16,
        np.uint8,
        np.int64,
    )
    assert (sample.stamp_ns, sample.end_ns, sample.frame_id, sample.width, sample.height) == (
        STAMP,
        later,
        "event_camera",
        640,
        480,
    )


def plain_decoder(packets):  # noqa: C901, PLR0912 - one table, read from top to bottom
    """The table of the format, word by word; yields (x, y, polarity, sensor microseconds) of all packets."""
    high = low = y = base = None
    wraps = polarity = 0
    for words in packets:
        for word in words:
            code, value = word >> 12, word & 0xFFF
            hits = []
            if code == 0x0:
                y = value & 0x7FF
            elif code == 0x2:
                hits = [(value & 0x7FF, value >> 11)]
            elif code == 0x3:
                base, polarity = value & 0x7FF, value >> 11
            elif code in {0x4, 0x5}:
                size = 12 if code == 0x4 else 8
                if base is not None:
                    hits = [(base + i, polarity) for i in range(size) if value >> i & 1]
                    base += size
            elif code == 0x6 and high is not None:
                low = value
            elif code == 0x8:
                if high is not None and high - value > 10:
                    wraps += 1
                elif high is not None and value - high >= 4096 - 10:
                    wraps -= 1
                if low is not None and value != high:
                    low = 0
                high = value
            if low is None or y is None:
                continue
            for x, p in hits:
                if x < 640 and y < 480:
                    yield x, y, p, wraps << 24 | high << 12 | low


word_values = st.one_of(
    st.builds(addr_y, st.integers(0, 0x7FF)),
    st.builds(addr_y, st.integers(0, 479)),
    st.builds(addr_x, st.integers(0, 0x7FF), st.integers(0, 1)),
    st.builds(base_x, st.integers(0, 640), st.integers(0, 1)),
    st.builds(vect_12, st.integers(0, 0xFFF)),
    st.builds(vect_8, st.integers(0, 0xFFF)),
    st.integers(0x6000, 0x6FFF),
    st.integers(0x8000, 0x8FFF),
    st.sampled_from([0x8000, 0x8005, 0x8FFA, 0x8FFF]),
    st.integers(0, 0xFFFF),
)
streams = st.lists(st.lists(word_values, max_size=40), min_size=1, max_size=5)


@settings(max_examples=300, deadline=None)
@given(streams, st.sampled_from("<>"))
def test_any_stream_decodes_as_the_plain_decoder_does(packets, order):
    decoder = EventDecoder(longest_packet_ns=ANY_LENGTH)
    samples = [decoder.decode(packet(words, seq, order=order), "events") for seq, words in enumerate(packets, start=9)]
    expected = list(plain_decoder(packets))
    got = [event for sample in samples for event in events(sample)]
    assert [event[:3] for event in got] == [event[:3] for event in expected]
    for sample in samples:
        assert sample.end_ns >= (sample.time_ns.max() if sample.x.size else sample.stamp_ns)
    # Times: sensor time and an offset that a jump of the random clock may change between packets, never within one.
    place = 0
    for sample in samples:
        sensor_ns = np.array([event[3] for event in expected[place : place + sample.x.size]], np.int64) * 1000
        assert np.unique(sample.time_ns - sensor_ns).size <= 1
        place += sample.x.size


def test_a_random_stream_at_length():
    rng = np.random.default_rng(0)
    words = rng.integers(0, 0x10000, 200_000)
    decoder = EventDecoder(longest_packet_ns=ANY_LENGTH)
    got = np.array(events(decoder.decode(packet(words), "events")))
    expected = np.array(list(plain_decoder([words.tolist()])))
    np.testing.assert_array_equal(got[:, :3], expected[:, :3])
    np.testing.assert_array_equal(got[:, 3] - STAMP, (expected[:, 3] - expected[0, 3]) * 1000)


def test_time_wraps_and_small_steps_back_do_not():
    decoder = EventDecoder(longest_packet_ns=ANY_LENGTH)
    highs = [4090, 4095, 4088, 4095, 0, 5, 4095, 1, 11, 0]  # jitter, the wrap, jitter over the wrap, the wrap is counted once
    words = [addr_y(1)]
    for high in highs:
        words += [0x8000 | high, 0x6000, addr_x(1)]
    ticks = (decoder.decode(packet(words), "events").time_ns - STAMP) // (4096 * 1000)
    assert ticks.tolist() == [0, 5, -2, 5, 6, 11, 5, 7, 17, 4096 + 6]


def test_the_old_lower_bits_do_not_go_with_new_upper_ones():
    sample = EventDecoder().decode(packet([addr_y(1), *time(4095), addr_x(1), 0x8001, addr_x(2), 0x6003, addr_x(3)]), "events")
    assert (sample.time_ns - STAMP).tolist() == [0, 1000, 4000]


def test_the_state_runs_on_to_the_next_packet():
    decoder = EventDecoder()
    decoder.decode(packet([*time(1000), addr_y(5), base_x(10)], 1), "events")
    sample = decoder.decode(packet([vect_8(1), 0x6000 | 1500, addr_x(2)], 2), "events")
    assert [event[:3] for event in events(sample)] == [(10, 5, 1), (2, 5, 1)]
    assert (np.diff(sample.time_ns)).tolist() == [500_000]


def test_events_before_a_known_state_and_outside_the_sensor_are_counted():
    decoder = EventDecoder()
    unknown = [addr_y(3), addr_x(1), 0x8001, addr_x(1), 0x6001, vect_8(0b11), addr_x(1)]
    sample = decoder.decode(
        packet([*unknown, addr_x(640), addr_y(480), addr_x(5), addr_y(1), base_x(636), vect_12(0xFFF)]), "events"
    )
    assert sample.x.tolist() == [1, 636, 637, 638, 639]
    assert counts(decoder) == {"events": 5, "dropped.unsynchronized": 4, "dropped.outside_sensor": 10}


@pytest.mark.parametrize("size", [(2**32 - 1, 480), (640, 2**32 - 1), (2049, 480)])
def test_a_sensor_larger_than_evt3_can_address_is_refused(size):
    with pytest.raises(DecodeError, match="at most 2048 x 2048") as error:
        EventDecoder().decode(packet([*time(1), addr_y(0), addr_x(0)], size=size), "events")
    assert error.value.reason == "wrong_size"


def test_vectors_that_run_past_the_largest_coordinate_are_outside_the_sensor():
    decoder = EventDecoder()
    words = [*time(1), addr_y(2047), base_x(0x7FF), *[vect_12(0xFFF)] * 6000]
    assert decoder.decode(packet(words, size=(2048, 2048)), "events").x.tolist() == [2047]
    assert counts(decoder) == {"events": 1, "dropped.outside_sensor": 71_999}


@pytest.mark.parametrize("turns", [1, 1000])
def test_a_jump_of_the_sensors_time_inside_a_packet_ends_what_can_be_trusted_of_it(turns):
    """A flipped bit, or a sensor that began anew: else the packet would reach into the future and settle all frames there."""
    decoder = EventDecoder()
    jump = [0x8800, 0x8000] * turns
    sample = decoder.decode(packet([*time(5000), addr_y(1), addr_x(1), *jump, addr_x(2), addr_y(3), addr_x(3)], 1), "events")
    assert sample.x.tolist() == [1]
    assert sample.end_ns == STAMP
    assert counts(decoder) == {"events": 1, "dropped.time_jump": 2, "time_jumps": 1}
    after = decoder.decode(packet([*time(9000), addr_y(1), addr_x(4)], 2, stamp_ns=STAMP + 4 * MS), "events")
    assert events(after) == [(4, 1, 1, STAMP + 4 * MS)]
    assert after.end_ns == STAMP + 4 * MS


def test_a_jump_of_the_sensors_time_in_a_packet_without_events_does_not_move_its_end():
    decoder = EventDecoder()
    decoder.decode(packet([*time(9_000_000), addr_y(1), addr_x(1)], 1), "events")
    sample = decoder.decode(packet(time(0), 2, stamp_ns=STAMP + MS), "events")
    assert sample.end_ns == STAMP + MS


def test_lost_packets_are_counted_and_what_was_known_is_forgotten():
    decoder = EventDecoder()
    full = [*time(1000), addr_y(1), addr_x(1)]
    decoder.decode(packet(full, 5), "events")
    assert decoder.decode(packet([addr_x(2)], 6), "events").x.size == 1
    assert decoder.decode(packet([addr_x(3)], 9), "events").x.size == 0
    assert decoder.decode(packet(full, 10), "events").x.size == 1
    assert decoder.decode(packet([addr_x(4)], 3), "events").x.size == 0  # the driver began anew
    assert decoder.decode(packet(full, 3), "events").x.size == 1
    assert decoder.decode(packet([addr_x(5)], 3), "events").x.size == 1  # a driver that does not count
    assert counts(decoder) == {"events": 5, "lost_packets": 2, "restarts": 1, "dropped.unsynchronized": 2}


def test_the_offset_to_ros_time_is_kept_until_a_clock_was_set():
    decoder = EventDecoder()

    def first_after(us, stamp_ns, seq):
        return int(decoder.decode(packet([*time(us), addr_y(1), addr_x(1)], seq, stamp_ns=stamp_ns), "events").time_ns[0])

    assert first_after(1000, STAMP, 1) == STAMP
    assert first_after(2000, STAMP + 4 * MS, 2) == STAMP + MS  # a late stamp is jitter
    assert "clock_steps" not in counts(decoder)
    assert first_after(3000, STAMP + 50 * MS, 3) == STAMP + 2 * MS  # a much too late one is, too
    assert "clock_steps" not in counts(decoder)
    assert first_after(4000, STAMP + 5000 * MS, 4) == STAMP + 5000 * MS
    assert first_after(5000, STAMP + 5001 * MS, 5) == STAMP + 5001 * MS
    assert first_after(6000, STAMP, 6) == STAMP
    assert counts(decoder)["clock_steps"] == 2
    decoder.reset()
    assert decoder.clock() is None
    assert first_after(5000, STAMP, 1) == STAMP
    assert decoder.clock().steps == 2
    assert counts(decoder) == {"events": 7, "clock_steps": 2}


def test_packets_without_events_tell_how_far_time_has_come():
    decoder = EventDecoder()
    empty = decoder.decode(packet([], 1, stamp_ns=STAMP), "events")
    assert (empty.x.size, empty.end_ns) == (0, STAMP)
    assert decoder.decode(packet(time(1000), 2, stamp_ns=STAMP), "events").end_ns == STAMP
    decoder.decode(packet([addr_y(1), addr_x(1)], 3, stamp_ns=STAMP), "events")
    sample = decoder.decode(packet(time(9000), 4, stamp_ns=STAMP + 2 * MS), "events")
    assert (sample.x.size, sample.end_ns) == (0, STAMP + 8 * MS)


def test_a_late_stamp_does_not_say_that_all_events_up_to_it_are_there():
    decoder = EventDecoder()
    decoder.decode(packet([*time(1000), addr_y(1), addr_x(1)], 1), "events")
    sample = decoder.decode(packet([*time(5000), addr_x(1), *time(6000)], 2, stamp_ns=STAMP + 200 * MS), "events")
    assert events(sample) == [(1, 1, 1, STAMP + 4 * MS)]
    assert sample.end_ns == STAMP + 5 * MS


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: array.array("B", data)])
def test_every_kind_of_byte_array(kind):
    message = packet([*time(1), addr_y(1), addr_x(2)])
    sample = EventDecoder().decode(dataclasses.replace(message, events=kind(message.events.tobytes())), "events")
    assert sample.x.tolist() == [2]


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        (
            {"encoding": "evt4"},
            "unknown_encoding",
            "expected encoding evt3, evt2, mono, libcaer, libcaer_cmp on topic 'events', got 'evt4'",
        ),
        ({"events": np.zeros(7, np.uint8)}, "odd_length", "expected whole 16-bit words of evt3 on topic 'events', got 7 bytes"),
        ({"encoding": "libcaer", "events": np.zeros(12, np.uint8)}, "odd_length", "whole 64-bit words of libcaer"),
        ({"time_base": 2**63}, "wrong_time_base", "got 9223372036854775808"),
        ({"width": 0}, "no_size", "got 0 x 480"),
        ({"events": [0, 0]}, "unreadable_data", "got list"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error_and_a_lost_packet(changes, reason, words):
    decoder = EventDecoder()
    good = [*time(1), addr_y(1), addr_x(2)]
    decoder.decode(packet(good, 1), "events")
    with pytest.raises(DecodeError) as error:
        decoder.decode(dataclasses.replace(packet(good, 2), **changes), "events")
    assert error.value.reason == reason
    assert words in str(error.value)
    assert decoder.decode(packet(good, 3), "events").x.size == 1
    assert counts(decoder) == {"events": 2, "lost_packets": 1}


def test_a_real_recording_decodes_exactly(real_dir):
    decoder, store, samples = EventDecoder(), messages.typestore(), []
    with Reader(real_dir / "events/evt3_640x480_bag") as reader:
        for connection, _, raw in reader.messages():
            samples.append(decoder.decode(store.deserialize_cdr(raw, connection.msgtype), "events"))
    assert (len(samples), sum(sample.x.size for sample in samples)) == (517, 343_474)
    assert counts(decoder) == {"events": 343_474}
    assert max(int(sample.x.max()) for sample in samples if sample.x.size) <= 639
    assert max(int(sample.y.max()) for sample in samples if sample.y.size) <= 479
    time_ns = np.concatenate([sample.time_ns for sample in samples])
    assert (np.diff(time_ns) >= 0).all()
    assert 2.07e9 < time_ns[-1] - time_ns[0] < 2.08e9

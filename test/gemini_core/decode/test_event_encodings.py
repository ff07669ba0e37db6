"""Every encoding of EventPacket beside EVT3, against plain decoders written from their tables; real data; damaged packets."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import packets
from gemini_core.bag import messages
from gemini_core.decode.event_packets import CODECS
from gemini_core.decode.events import EventDecoder
from mutations import assert_survives
from packets import ANY_LENGTH, BASE, STAMP, counts, events

MS = 1_000_000
WIDTH, HEIGHT = 346, 260
packet = functools.partial(packets.packet, size=(WIDTH, HEIGHT))


# --------------------------------------------------------------------------------------------------------------------
# The tables, word by word: each yields (x, y, polarity, sensor nanoseconds)


def plain_evt2(words):
    high, wraps = None, 0
    for word in words:
        kind, value = word >> 28, word & 0xFFFFFFF
        if kind == 8:
            if high is not None:
                wraps += (value < high - 2**27) - (wraps > 0 and value > high + 2**27)
            high = value
        elif kind in {0, 1} and high is not None:
            yield word >> 11 & 0x7FF, word & 0x7FF, kind, ((wraps << 28 | high) << 6 | word >> 22 & 0x3F) * 1000


def plain_mono(words):
    for word in words:
        yield word >> 32 & 0xFFFF, word >> 48 & 0x7FFF, word >> 63, BASE + (word & 0xFFFFFFFF)


def plain_libcaer(words):
    for data, time in zip(words[::2], words[1::2], strict=True):
        yield data >> 17, data >> 2 & 0x7FFF, data >> 1 & 1, BASE + time * 1000


def plain_libcaer_cmp(words):
    high = low = polarity = 0
    x = base = None
    for word in words:
        code, value = word >> 12, word & 0xFFF
        if code == 0:
            high = value
        elif code == 1:
            low = value
        elif code == 2:
            x = value & 0x7FF
        elif code == 4:
            base, polarity = value & 0x7FF, value >> 11
        hits = [(value & 0x7FF, value >> 11)] if code == 3 else []
        if code == 5 and base is not None:
            hits = [(base + i, polarity) for i in range(8) if value >> i & 1]
            base += 8
        for y, p in hits:
            if x is not None:
                yield x, y, p, BASE + (high << 12 | low) * 1000


PLAIN = {"evt2": plain_evt2, "mono": plain_mono, "libcaer": plain_libcaer, "libcaer_cmp": plain_libcaer_cmp}


def inside(found):
    return [event for event in found if event[0] < WIDTH and event[1] < HEIGHT]


def random_words(encoding, rng, number):
    """Words with all codes, most events inside the sensor or near its edge, times in steps up and sometimes back."""
    x, y, p = rng.integers(0, WIDTH + 9, number), rng.integers(0, HEIGHT + 9, number), rng.integers(0, 2, number)
    if encoding == "evt2":
        code = rng.choice([0, 1, 8, 10, 14], number, p=[0.4, 0.4, 0.1, 0.05, 0.05])
        high = np.cumsum(rng.integers(-2, 8, number)) % 2**28  # begins below 0: wraps
        return np.where(code == 8, high, rng.integers(0, 64, number) << 22 | x << 11 | y) | code << 28
    if encoding == "mono":
        time = rng.integers(0, 2**32, number)
        return (p << 31 | y << 16 | x).astype(np.uint64) << np.uint64(32) | time.astype(np.uint64)
    if encoding == "libcaer":
        words = np.empty(2 * number, np.int64)
        words[::2], words[1::2] = x << 17 | y << 2 | p << 1 | 1, np.cumsum(rng.integers(-5, 90, number)) + 5 * number
        return words
    code = rng.integers(0, 16, number)
    code = np.where(code > 6, np.array([1, 2, 3, 3, 3, 4, 5, 5, 5])[code - 7], code)
    value = rng.integers(0, 0x1000, number)
    value = np.where(code == 2, x, np.where((code == 3) | (code == 4), y | p << 11, value))
    return code << 12 | value


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(PLAIN)), st.sampled_from("<>"), st.integers(0, 10**6), st.integers(0, 300))
def test_any_stream_decodes_as_the_plain_decoder_does(encoding, order, seed, number):
    words = random_words(encoding, np.random.default_rng(seed), number)
    sample = EventDecoder(longest_packet_ns=ANY_LENGTH).decode(packet(words, encoding=encoding, order=order), "events")
    expected = inside(PLAIN[encoding](words.tolist()))
    first = expected[0][3] if expected else 0
    assert events(sample) == [(x, y, p, STAMP + time - first) for x, y, p, time in expected]
    assert sample.end_ns >= max([STAMP, *sample.time_ns.tolist()])


@pytest.mark.parametrize("encoding", sorted(CODECS))
def test_any_bytes_at_all_do_no_harm(encoding):
    rng = np.random.default_rng(1)
    for seq in range(40):
        words = rng.integers(0, 256, 16 * int(rng.integers(0, 200)), np.uint8).view(CODECS[encoding].dtype)
        sample = EventDecoder().decode(packet(words, seq, encoding=encoding), "events")
        assert (sample.x < WIDTH).all()
        assert (sample.y < HEIGHT).all()


def test_evt2_waits_for_its_first_time_and_wraps():
    decoder = EventDecoder(longest_packet_ns=ANY_LENGTH)
    high = [8 << 28 | value for value in (2**28 - 2, 2**28 - 1, 0, 2**28 - 1, 1)]  # the wrap, a step back over it, and on
    event = 1 << 28 | 5 << 22 | 7 << 11 | 9
    sample = decoder.decode(packet([event, *(word for each in high for word in (each, event))], encoding="evt2"), "events")
    assert sample.x.tolist() == [7] * 5
    assert ((sample.time_ns - STAMP) // 64_000).tolist() == [0, 1, 2, 1, 3]
    assert counts(decoder) == {"events": 5, "dropped.unsynchronized": 1}


@pytest.mark.parametrize("encoding", ["evt2", "evt3"])
def test_lost_packets_drop_what_is_not_known_but_not_the_clock(encoding):
    """The offset between the clocks outlives a gap: else each would take that of one late packet."""

    def full(us):
        if encoding == "evt2":
            return [8 << 28 | us >> 6, 1 << 28 | (us & 0x3F) << 22 | 3 << 11 | 4]
        return [0x8000 | us >> 12, 0x6000 | us & 0xFFF, 0x0004, 0x2003]

    decoder = EventDecoder()
    decoder.decode(packet(full(1000), 1, encoding=encoding), "events")
    assert decoder.decode(packet(full(2000)[-1:], 3, encoding=encoding), "events").x.size == 0
    late = decoder.decode(packet(full(3000), 4, encoding=encoding, stamp_ns=STAMP + 5 * MS), "events")
    assert events(late) == [(3, 4, late.polarity[0], STAMP + 2 * MS)]
    assert counts(decoder) == {"events": 2, "lost_packets": 1, "dropped.unsynchronized": 1}


def test_a_gap_longer_than_evt3s_time_is_one_step_of_the_clock():
    decoder = EventDecoder()
    words = [0x8001, 0x6000, 0x0004, 0x2003]
    decoder.decode(packet(words, 1, encoding="evt3"), "events")
    sample = decoder.decode(packet(words, 9000, encoding="evt3", stamp_ns=STAMP + 20_000 * MS), "events")
    assert sample.time_ns.tolist() == [STAMP + 20_000 * MS]
    assert counts(decoder) == {"events": 2, "lost_packets": 8998, "clock_steps": 1}


def test_libcaer_wraps_within_a_packet_and_small_steps_back_do_not():
    times = [2**31 - 10, 2**31 - 20, 2**31 - 1, 3, 2**31 - 2, 5]
    words = [word for time in times for word in (4 << 17 | 5 << 2, time)]
    sample = EventDecoder(longest_packet_ns=ANY_LENGTH).decode(packet(words, encoding="libcaer"), "events")
    assert ((sample.time_ns - STAMP) // 1000).tolist() == [0, -10, 9, 13, 8, 15]


def test_an_encoding_that_changes_begins_anew():
    decoder = EventDecoder()
    decoder.decode(packet([8 << 28 | 9, 1 << 28 | 3 << 11 | 4], 1, encoding="evt2"), "events")
    assert decoder.decode(packet([1 << 63 | 4 << 48 | 3 << 32], 2, encoding="mono"), "events").x.tolist() == [3]
    assert decoder.decode(packet([1 << 28 | 3 << 11 | 4], 3, encoding="evt2"), "events").x.size == 0


def test_a_real_evt2_file_decodes_exactly(real_dir):
    content = (real_dir / "events" / "evt2_sample.raw").read_bytes()
    while content.startswith(b"%"):
        content = content[content.index(b"\n") + 1 :]
    words = np.frombuffer(content, "<u4").astype(np.int64)
    expected = np.array(list(plain_evt2(words.tolist())))
    expected[:, 3] += STAMP - expected[0, 3]
    before = np.cumsum(words >> 28 <= 1)  # events up to each word
    decoder, samples = EventDecoder(), []
    for seq, start in enumerate(range(0, len(content), 40_000)):
        stamp = int(expected[before[start // 4], 3])
        data = content[start : start + 40_000]
        message = messages.event_packet(data, width=640, height=480, seq=seq, stamp_ns=stamp, frame_id="event")
        samples.append(decoder.decode(dataclasses.replace(message, encoding="evt2"), "events"))
    assert counts(decoder) == {"events": 539_481}
    for column, name in enumerate(("x", "y", "polarity", "time_ns")):
        np.testing.assert_array_equal(np.concatenate([getattr(sample, name) for sample in samples]), expected[:, column])
    assert 45 * MS < np.ptp(expected[:, 3]) < 55 * MS


def test_damaged_packets_are_read_as_far_as_they_go_or_refused():
    rng = np.random.default_rng(5)
    originals = [packet(random_words(encoding, rng, 100), seq, encoding=encoding) for seq, encoding in enumerate(sorted(PLAIN))]
    originals.append(packet([0x8001, 0x6001, 0x0001, 0x2003, 0x3004, 0x4FFF, 0x5123], 9, encoding="evt3"))
    outcomes = assert_survives(lambda: EventDecoder().decode, originals, words=tuple(CODECS))
    assert set(outcomes) >= {"sample", "odd_length", "unknown_encoding", "wrong_size", "no_size", "wrong_time_base"}

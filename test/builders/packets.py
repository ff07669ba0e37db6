"""EventPacket messages out of words, and what a decoder made of them."""

from __future__ import annotations

import dataclasses

import numpy as np

from gemini_core.bag import messages
from gemini_core.decode.event_packets import CODECS

STAMP = 1_700_000_000_123_456_789
BASE = 1_699_999_999_000_000_000
ANY_LENGTH = 1 << 60  # for streams whose time leaps as it likes


def packet(words, seq=1, *, encoding="evt3", order="<", stamp_ns=STAMP, size=(640, 480)):
    """A packet of a sensor of a width and height with these words in an encoding and a byte order."""
    kind = CODECS[encoding].dtype
    data = np.array(words, kind).astype(kind.newbyteorder(order)).tobytes()
    message = messages.event_packet(data, width=size[0], height=size[1], seq=seq, stamp_ns=stamp_ns, frame_id="event_camera")
    return dataclasses.replace(message, encoding=encoding, is_bigendian=order == ">", time_base=BASE)


def events(sample):
    """Column, row, polarity and time (nanoseconds) of each event."""
    return list(zip(sample.x.tolist(), sample.y.tolist(), sample.polarity.tolist(), sample.time_ns.tolist(), strict=True))


def counts(decoder):
    """What a decoder of events counted, by its short name."""
    return {count.what.removeprefix("event.packets."): count.number for count in decoder.counts()}

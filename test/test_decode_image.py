"""Colour and depth images: every encoding by hand, padding, byte order, kinds of byte arrays, and what is refused."""

from __future__ import annotations

import array
import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gemini_core.bag import messages
from gemini_core.decode.image import decode_color, decode_depth
from gemini_core.errors import DecodeError

STAMP = 1_714_506_077_250_967_979


def image(data, encoding, width, height, step, *, is_bigendian=0):
    return messages.make(
        "sensor_msgs/msg/Image",
        header=messages.header(STAMP, "camera"),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=is_bigendian,
        step=step,
        data=data,
    )


def padded(pixels, padding, fill=0xAB):
    """Rows of an array as bytes, ``padding`` bytes after each."""
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(pixels.shape[0], -1)
    return np.pad(rows, ((0, 0), (0, padding)), constant_values=fill).reshape(-1), rows.shape[1] + padding


COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize("padding", [0, 1, 11])
@pytest.mark.parametrize(("encoding", "stored"), [("rgb8", COLOURS), ("bgr8", COLOURS[..., ::-1])])
def test_colours(encoding, stored, padding):
    data, step = padded(stored, padding)
    sample = decode_color(image(data, encoding, 7, 5, step), "rgb/image")
    np.testing.assert_array_equal(sample.pixels, COLOURS)
    assert sample.pixels.dtype == np.uint8
    assert (sample.stamp_ns, sample.frame_id) == (STAMP, "camera")
    assert np.shares_memory(sample.pixels, data) == (encoding == "rgb8")


@pytest.mark.parametrize("padding", [0, 3])
def test_grey_is_repeated(padding):
    data, step = padded(COLOURS[..., 0], padding)
    pixels = decode_color(image(data, "mono8", 7, 5, step), "rgb/image").pixels
    np.testing.assert_array_equal(pixels, np.repeat(COLOURS[..., :1], 3, axis=2))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: array.array("B", data)])
def test_every_kind_of_byte_array(kind):
    data = COLOURS.tobytes()
    for encoding, pixels in (("rgb8", COLOURS), ("bgr8", COLOURS[..., ::-1])):
        sample = decode_color(image(kind(data), encoding, 7, 5, 21), "rgb/image")
        np.testing.assert_array_equal(sample.pixels, pixels)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_millimetres(order, padding):
    millimetres = np.array([[0, 1, 1000], [65535, 1234, 0]], order + "u2")
    data, step = padded(millimetres, padding)
    sample = decode_depth(image(data, "16UC1", 3, 2, step, is_bigendian=int(order == ">")), "depth/image")
    expected = np.array([[np.nan, 0.001, 1], [65.535, 1.234, np.nan]], np.float32)
    np.testing.assert_array_equal(sample.depth_m, expected)
    assert sample.depth_m.dtype == np.float32


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_metres_keep_what_rep_118_says(order, padding):
    metres = np.array([[0, -1, 1.5], [np.nan, np.inf, -np.inf]], order + "f4")
    data, step = padded(metres, padding)
    depth = decode_depth(image(data, "32FC1", 3, 2, step, is_bigendian=int(order == ">")), "depth/image").depth_m
    np.testing.assert_array_equal(depth, np.array([[np.nan, np.nan, 1.5], [np.nan, np.inf, -np.inf]], np.float32))
    assert depth.dtype == np.float32


def test_metres_without_change_are_not_copied():
    data, step = padded(np.full((2, 3), 2, np.float32), 4)
    assert np.shares_memory(decode_depth(image(data, "32FC1", 3, 2, step), "depth/image").depth_m, data)


def test_real_depth_is_read_unchanged(real_dir):
    depth = np.load(real_dir / "nyuv2/depth_0.npy").astype(np.float32)
    sample = decode_depth(messages.image(depth, "32FC1", STAMP, "depth"), "depth/image")
    np.testing.assert_array_equal(sample.depth_m, depth)


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"encoding": "yuv422"}, "unknown_encoding", "rgb8, bgr8, mono8 on topic 'rgb/image', got 'yuv422'"),
        ({"encoding": "16UC1"}, "unknown_encoding", "got '16UC1'"),
        ({"step": 20}, "short_step", "at least 21 bytes for 7 pixels of rgb8 on topic 'rgb/image', got 20"),
        ({"data": np.zeros(104, np.uint8)}, "short_data", "105 bytes for 5 rows of 21 on topic 'rgb/image', got 104"),
        ({"data": np.zeros(0, np.uint8)}, "short_data", "got 0"),
        ({"data": [0] * 105}, "unreadable_data", "array of bytes, got list"),
        ({"width": 0}, "no_pixels", "got 0 x 5"),
        ({"height": 0}, "no_pixels", "got 7 x 0"),
        ({"height": 2**32 - 1, "step": 2**32 - 1}, "short_data", "got 105"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(changes, reason, words):
    message = dataclasses.replace(image(COLOURS.reshape(-1), "rgb8", 7, 5, 21), **changes)
    with pytest.raises(DecodeError) as error:
        decode_color(message, "rgb/image")
    assert error.value.reason == reason
    assert words in str(error.value)


def test_another_type_of_message_is_named():
    with pytest.raises(DecodeError, match=r"expected sensor_msgs/Image on topic 'depth/image', got .*Header"):
        decode_depth(messages.header(0, "x"), "depth/image")


@given(
    data=hnp.arrays(np.uint8, st.integers(0, 64)),
    encoding=st.sampled_from(["rgb8", "bgr8", "mono8", "16UC1", "32FC1", "bayer_rggb8", ""]),
    size=st.tuples(*[st.one_of(st.integers(0, 6), st.just(2**32 - 1))] * 3),
    is_bigendian=st.integers(0, 255),
)
def test_any_image_is_read_or_refused(data, encoding, size, is_bigendian):
    message = image(data, encoding, *size, is_bigendian=is_bigendian)
    for decode in (decode_color, decode_depth):
        try:
            sample = decode(message, "image")
        except DecodeError:
            continue
        pixels = sample.pixels if decode is decode_color else sample.depth_m
        assert pixels.shape[:2] == (message.height, message.width)

"""Colour and depth images: every encoding by hand, padding, byte order, kinds of byte arrays, and what is refused."""

from __future__ import annotations

import array
import contextlib
import dataclasses
import importlib.metadata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gemini_core.bag import messages
from gemini_core.decode.color import LAYOUTS
from gemini_core.decode.image import decode_color, decode_depth
from gemini_core.errors import DecodeError
from mutations import assert_survives

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


# --------------------------------------------------------------------------------------------------------------------
# The other colour encodings, each held to arithmetic written here

WORDS = np.random.default_rng(1).integers(0, 2**16, (6, 8, 4), dtype=np.uint16)
CHANNELS = {"rgb": [0, 1, 2], "bgr": [2, 1, 0], "rgba": [0, 1, 2, 3], "bgra": [2, 1, 0, 3], "mono": [0, 0, 0]}


def stored_bytes(encoding, order, padding):
    """An image of WORDS in an encoding (6 x 8 pixels), and the red, green and blue in it, of 16 or of 8 bits."""
    name, bits = {"8UC1": ("mono", "8"), "8UC3": ("bgr", "8"), "8UC4": ("bgra", "8")}.get(
        encoding, (encoding.rstrip("0123456789"), encoding[len(encoding.rstrip("0123456789")) :])
    )
    pixels = WORDS if bits == "16" else (WORDS >> 8).astype(np.uint8)
    colours = pixels[..., CHANNELS[name][:3]] if name == "mono" else pixels[..., :3]
    stored = pixels[..., :1] if name == "mono" else pixels[..., CHANNELS[name]]
    data, step = padded(stored.astype(stored.dtype.newbyteorder(order)), padding)
    return data, step, colours


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("padding", [0, 1, 6])
@pytest.mark.parametrize(
    "encoding",
    ["rgba8", "bgra8", "8UC1", "8UC3", "8UC4", "rgb16", "bgr16", "rgba16", "bgra16", "mono16"],
)
def test_interleaved_encodings(encoding, padding, order):
    data, step, colours = stored_bytes(encoding, order, padding)
    pixels = decode_color(image(data, encoding, 8, 6, step, is_bigendian=int(order == ">")), "rgb/image").pixels
    expected = colours if colours.dtype == np.uint8 else np.round(colours / 257)
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.dtype == np.uint8


def rgb_of_yuv(y, cb, cr):
    """ITU-R BT.601, Y from 16 (black) to 235 (white), Cb and Cr from 16 to 240 around 128."""
    luma = np.maximum(np.asarray(y, np.float64) - 16, 0) / 219
    blue, red = (np.asarray(cb, np.float64) - 128) / 224, (np.asarray(cr, np.float64) - 128) / 224
    rgb = np.stack(
        [
            luma + 2 * (1 - 0.299) * red,
            luma - 2 * (1 - 0.114) * 0.114 / 0.587 * blue - 2 * (1 - 0.299) * 0.299 / 0.587 * red,
            luma + 2 * (1 - 0.114) * blue,
        ],
        axis=-1,
    )
    return np.clip(255 * rgb, 0, 255)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21", "nv24"])
def test_luma_and_chroma(encoding, padding):
    height, width = 6, 8
    rng = np.random.default_rng(2)
    y = rng.integers(0, 256, (height, width))
    shape = {"nv12": (3, 4), "nv21": (3, 4), "nv24": (6, 8)}.get(encoding, (6, 4))
    cb, cr = rng.integers(0, 256, (2, *shape))
    if encoding in ("nv12", "nv21", "nv24"):
        chroma = np.stack([cr, cb] if encoding == "nv21" else [cb, cr], axis=-1).astype(np.uint8)
        luma, step = padded(y.astype(np.uint8), padding)
        lines, _ = padded(chroma.reshape(-1, width), padding)
        data = np.concatenate([luma, lines])
    else:
        parts = [y[:, ::2], cb, y[:, 1::2], cr]
        if encoding in ("yuv422", "uyvy"):
            parts = [cb, y[:, ::2], cr, y[:, 1::2]]
        data, step = padded(np.stack(parts, axis=-1).astype(np.uint8), padding)
    pixels = decode_color(image(data, encoding, width, height, step), "rgb/image").pixels
    full = [np.kron(plane, np.ones((height // plane.shape[0], width // plane.shape[1]))) for plane in (cb, cr)]
    assert np.abs(pixels - rgb_of_yuv(y, *full)).max() < 1.6  # OpenCV calculates with whole numbers


PATTERNS = ("rggb", "bggr", "gbrg", "grbg")


def mosaic(pattern, colours):
    """What a sensor with this pattern (its first row's two pixels, then its second's) sees of an image (H, W, 3)."""
    out = np.empty(colours.shape[:2], colours.dtype)
    for place, name in enumerate(pattern):
        corner = np.s_[place // 2 :: 2, place % 2 :: 2]
        out[corner] = colours[..., "rgb".index(name)][corner]
    return out


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_mosaic_of_one_colour_and_of_a_gradient(pattern, bits):
    scale, dtype = (1, np.uint8) if bits == 8 else (257, np.uint16)
    for size in ((8, 10), (7, 9), (3, 3)):
        colours = np.broadcast_to(np.array([200, 120, 40], dtype) * dtype(scale), (*size, 3))
        data, step = padded(mosaic(pattern, colours), 2)
        pixels = decode_color(image(data, f"bayer_{pattern}{bits}", size[1], size[0], step), "rgb/image").pixels
        np.testing.assert_array_equal(pixels, colours // dtype(scale))
    # A linear image is what bilinear interpolation gives back exactly, but at the border.
    v, u = np.mgrid[:20, :24]
    colours = (np.stack([2 * u + 4 * v, 200 - 4 * u, 30 + 2 * v + 2 * u], axis=-1) * scale).astype(dtype)
    data, step = padded(mosaic(pattern, colours), 0)
    pixels = decode_color(image(data, f"bayer_{pattern}{bits}", 24, 20, step), "rgb/image").pixels
    np.testing.assert_array_equal(pixels[1:-1, 1:-1], (colours // dtype(scale))[1:-1, 1:-1])


@pytest.mark.parametrize(
    ("encoding", "width", "height"),
    [("yuyv", 7, 4), ("uyvy", 5, 4), ("nv12", 8, 5), ("nv21", 7, 4), ("bayer_rggb8", 2, 8), ("bayer_grbg16", 8, 1)],
)
def test_sizes_that_an_encoding_cannot_have(encoding, width, height):
    with pytest.raises(DecodeError, match=rf"multiple of .* for {encoding} on topic 'rgb/image', got {width} x {height}"):
        decode_color(image(np.zeros(1000, np.uint8), encoding, width, height, 32), "rgb/image")


@pytest.mark.parametrize("encoding", LAYOUTS)
def test_every_encoding_survives_damage(encoding):
    original = image(np.random.default_rng(4).integers(0, 256, 3 * 6 * 64, np.uint8), encoding, 8, 6, 64)
    outcomes = assert_survives(lambda: decode_color, [original], words=(*LAYOUTS, "16UC1", "jpeg"), count=150)
    assert outcomes["sample"] > 20


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_depth_survives_damage(encoding):
    original = image(np.random.default_rng(5).integers(0, 256, 6 * 64, np.uint8), encoding, 8, 6, 64)
    outcomes = assert_survives(lambda: decode_depth, [original], words=("16UC1", "32FC1", "mono8"))
    assert {"sample", "short_data", "short_step", "unknown_encoding", "no_pixels"} == set(outcomes)


def test_cv_bridge_agrees():
    cv_bridge = pytest.importorskip("cv_bridge", reason="no cv_bridge here: it comes with a ROS installation")
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        if importlib.metadata.version("cv_bridge").startswith("1."):
            pytest.skip("this cv_bridge is the one of ROS 1 from PyPI, which reads 16-bit images wrongly")
    from sensor_msgs.msg import Image

    bridge = cv_bridge.CvBridge()
    # padded rows; cv_bridge takes a step for whole pixels, so it has to be a multiple of every pixel size here (1 to 6 bytes)
    data = np.random.default_rng(3).integers(0, 256, 6 * 72, dtype=np.uint8)
    for encoding in ("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16", "rgb16", "bgr16", "yuv422", "yuv422_yuy2"):
        message = Image(height=6, width=8, encoding=encoding, step=72, data=array.array("B", data.tobytes()))
        theirs = bridge.imgmsg_to_cv2(message, "rgb8")
        np.testing.assert_array_equal(decode_color(message, "rgb/image").pixels, theirs, err_msg=encoding)


# --------------------------------------------------------------------------------------------------------------------


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
    for name in ("mono16", "16uc1", " MONO16 "):  # of drivers that know no 16UC1, or write it otherwise
        again = decode_depth(image(data, name, 3, 2, step, is_bigendian=int(order == ">")), "depth/image")
        np.testing.assert_array_equal(again.depth_m, expected)


@pytest.mark.parametrize(("written", "encoding"), [("RGB8", "rgb8"), ("Bgr8 ", "bgr8"), ("MONO8", "mono8"), ("8uc3", "8UC3")])
def test_names_of_encodings_in_another_case(written, encoding):
    layout = LAYOUTS[encoding]
    data = np.random.default_rng(0).integers(0, 256, 6 * layout.row_bytes(8), np.uint8)
    as_written, as_known = (
        decode_color(image(data, name, 8, 6, layout.row_bytes(8)), "rgb/image").pixels for name in (written, encoding)
    )
    np.testing.assert_array_equal(as_written, as_known)


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
        ({"encoding": "yuv420"}, "unknown_encoding", f"{', '.join(LAYOUTS)} on topic 'rgb/image', got 'yuv420'"),
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

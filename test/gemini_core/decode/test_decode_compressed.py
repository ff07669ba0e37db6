"""CompressedImage: colour and depth from every format there is, and bombs, cuts and damage refused."""

from __future__ import annotations

import dataclasses
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemini_core.bag import messages
from gemini_core.decode import compressed
from gemini_core.decode.compressed import decode_compressed_color, decode_compressed_depth
from gemini_core.decode.rvl import decode_rvl
from gemini_core.errors import DecodeError
from mutations import assert_survives

STAMP = 1_714_506_077_250_967_979
V, U = np.mgrid[:48, :64]
COLOURS = np.stack([3 * U, 4 * V, 255 - 2 * U - 2 * V], axis=-1).astype(np.uint8)  # (H, W, 3) red, green, blue; smooth
MILLIMETRES = np.where((U + V) % 7 == 0, 0, 500 + 37 * U + 101 * V).astype(np.uint16)
METRES = np.where(MILLIMETRES == 0, np.nan, MILLIMETRES / np.float32(1000)).astype(np.float32)


def packed(suffix, pixels, *options):
    done, data = cv2.imencode(suffix, pixels, options)
    assert done
    return data.tobytes()


def message(data, image_format):
    return messages.compressed_image(data, image_format, STAMP, "camera")


# --------------------------------------------------------------------------------------------------------------------
# Colour


@pytest.mark.parametrize(
    "image_format", ["png", "bgr8; png compressed bgr8", "rgb8; png compressed", "rgb8; png compressed bgr8", "", "jpeg"]
)
def test_png(image_format):
    sample = decode_compressed_color(message(packed(".png", COLOURS[..., ::-1]), image_format), "rgb/image/compressed")
    np.testing.assert_array_equal(sample.pixels, COLOURS)
    assert (sample.stamp_ns, sample.frame_id, sample.pixels.dtype) == (STAMP, "camera", np.uint8)


@pytest.mark.parametrize("image_format", ["jpeg", "jpg", "bgr8; jpeg compressed bgr8", "rgb8; jpeg compressed bgr8"])
@pytest.mark.parametrize("progressive", [0, 1])
def test_jpeg(image_format, progressive):
    options = (cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    data = packed(".jpg", COLOURS[..., ::-1], *options)
    pixels = decode_compressed_color(message(data, image_format), "rgb/image/compressed").pixels
    assert np.abs(pixels.astype(int) - COLOURS).max() <= 6  # red and blue taken for each other would be off by 200


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_grey_and_deep_and_transparent(suffix):
    grey = COLOURS[..., 0]
    pixels = decode_compressed_color(message(packed(suffix, grey), f"mono8; {suffix[1:]} compressed "), "rgb").pixels
    assert np.abs(pixels.astype(int) - grey[..., None]).max() <= (0 if suffix == ".png" else 3)
    if suffix == ".png":
        deep = (COLOURS.astype(np.uint16) << 8) + 77
        pixels = decode_compressed_color(message(packed(".png", deep[..., ::-1]), "rgb16; png compressed bgr16"), "rgb").pixels
        np.testing.assert_array_equal(pixels, np.round(deep / 257))
        clear = np.dstack([COLOURS[..., ::-1], grey])
        pixels = decode_compressed_color(message(packed(".png", clear), "bgra8; png compressed bgra8"), "rgb").pixels
        np.testing.assert_array_equal(pixels, COLOURS)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_mosaic_is_demosaiced_after_unpacking(pattern, bits):
    colour, dtype = np.array([200, 120, 40]), np.uint8 if bits == 8 else np.uint16
    stored = np.empty((8, 10), dtype)
    for place, name in enumerate(pattern):
        stored[place // 2 :: 2, place % 2 :: 2] = colour["rgb".index(name)] * (1 if bits == 8 else 257)
    image_format = f"bayer_{pattern}{bits}; png compressed "
    pixels = decode_compressed_color(message(packed(".png", stored), image_format), "rgb").pixels
    np.testing.assert_array_equal(pixels, np.broadcast_to(colour, (8, 10, 3)))
    # image_transport may have made colours of it before packing
    pixels = decode_compressed_color(message(packed(".png", COLOURS[..., ::-1]), image_format + "bgr8"), "rgb").pixels
    np.testing.assert_array_equal(pixels, COLOURS)


def test_an_image_of_one_colour_packs_very_well_and_is_still_read():
    for suffix in (".png", ".jpg"):
        data = packed(suffix, np.full((2000, 3000), 255, np.uint8), cv2.IMWRITE_PNG_COMPRESSION, 9)
        assert decode_compressed_color(message(data, suffix[1:]), "rgb").pixels.min() == 255


def test_an_orientation_tag_does_not_turn_the_image():
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: turn by 90 degrees
    plain = packed(".jpg", COLOURS[..., ::-1])
    tagged = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    pixels = decode_compressed_color(message(tagged, "jpeg"), "rgb").pixels
    np.testing.assert_array_equal(pixels, decode_compressed_color(message(plain, "jpeg"), "rgb").pixels)


# --------------------------------------------------------------------------------------------------------------------
# Depth


def rvl_number(value):
    """The nibbles of one number of an RVL stream: three bits each from the lowest up, 8 added where more follow."""
    nibbles = []
    while True:
        more = value >> 3
        nibbles.append(value & 7 | (8 if more else 0))
        if not more:
            return nibbles
        value = more


def rvl(pixels):
    """Pack as the paper describes it; runs of zeros and of others in turns, differences zigzag."""
    nibbles, previous, flat = [], 0, pixels.reshape(-1).astype(int).tolist()
    at = 0
    while at < len(flat):
        start = at
        while at < len(flat) and not flat[at]:
            at += 1
        nibbles += rvl_number(at - start)
        start = at
        while at < len(flat) and flat[at]:
            at += 1
        nibbles += rvl_number(at - start)
        for value in flat[start:at]:
            difference, previous = value - previous, value
            nibbles += rvl_number(2 * difference if difference >= 0 else -2 * difference - 1)
    nibbles += [0] * (-len(nibbles) % 8)
    words = [sum(nibble << (28 - 4 * i) for i, nibble in enumerate(nibbles[k : k + 8])) for k in range(0, len(nibbles), 8)]
    return struct.pack("<II", *pixels.shape[::-1]) + struct.pack(f"<{len(words)}I", *words)


def transported(values, compression="png", a=0.0, b=0.0):
    body = rvl(values) if compression == "rvl" else packed(".png", values)
    return struct.pack("<iff", 0, a, b) + body


@pytest.mark.parametrize(
    "image_format",
    [
        "16UC1; compressedDepth",
        "16UC1; compressedDepth png",
        "16UC1; compressedDepth rvl",
        "16UC1;compressedDepth",
        "mono16; compressedDepth",
        "mono16; compressedDepth png",
        " mono16 ; compressedDepth rvl ",
        "16uc1; compresseddepth PNG",
    ],
)
def test_millimetres_of_compressed_depth(image_format):
    data = transported(MILLIMETRES, "rvl" if "rvl" in image_format else "png", 3.0, 4.0)  # A and B mean nothing here
    sample = decode_compressed_depth(message(data, image_format), "depth/image/compressedDepth")
    np.testing.assert_array_equal(sample.depth_m, METRES)
    assert (sample.stamp_ns, sample.frame_id, sample.depth_m.dtype) == (STAMP, "camera", np.float32)


@pytest.mark.parametrize("image_format", ["png", "16UC1; png compressed ", "mono16; png compressed "])
def test_millimetres_of_a_plain_png(image_format):
    sample = decode_compressed_depth(message(packed(".png", MILLIMETRES), image_format), "depth/image/compressed")
    np.testing.assert_array_equal(sample.depth_m, METRES)


@pytest.mark.parametrize("compression", ["", "png", "rvl"])
def test_metres_are_stored_inverse(compression):
    values = np.array([[0, 1, 2], [101, 1001, 65535]], np.uint16)
    a, b = 1000.0, 1.5
    data = transported(values, compression, a, b)
    depth = decode_compressed_depth(message(data, f"32FC1; compressedDepth {compression}"), "depth").depth_m
    nan = np.nan  # 0 is no reading; so is 1, which would be behind the camera
    np.testing.assert_allclose(depth, [[nan, nan, 2000.0], [1000 / 99.5, 1000 / 999.5, 1000 / 65533.5]], rtol=1e-6)


@given(st.lists(st.integers(0, 65535) | st.just(0), min_size=1, max_size=60), st.integers(1, 5))
def test_rvl_gives_back_any_image(values, rows):
    pixels = np.resize(np.array(values, np.uint16), (rows, len(values)))
    depth = decode_compressed_depth(message(transported(pixels, "rvl"), "16UC1; compressedDepth rvl"), "depth").depth_m
    np.testing.assert_array_equal(depth, np.where(pixels == 0, np.nan, pixels.astype(np.float32) / np.float32(1000)))


@given(st.binary(max_size=64), st.integers(1, 300))
def test_rvl_reads_any_bytes_and_stays_inside(data, size):
    results = []
    for fill in (0x00, 0xFF):
        block = np.frombuffer(bytes([fill]) * 16 + data + bytes([fill]) * 64, np.uint8)
        pixels = np.full(size + 8, 0xABCD, np.uint16)
        pixels[:size] = 0
        done = decode_rvl(block[16 : 16 + len(data)], pixels[:size])
        assert 0 <= done <= size
        assert (pixels[size:] == 0xABCD).all()
        results.append((done, pixels.tobytes()))
    assert results[0] == results[1]


# --------------------------------------------------------------------------------------------------------------------
# Refusals


def png_that_claims(width, height):
    """A valid, tiny PNG of 16-bit grey whose header claims any size."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def jpeg_that_claims(width, height):
    data = bytearray(packed(".jpg", COLOURS))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


BOMBS = {
    "png": (decode_compressed_color, png_that_claims(2**31 - 1, 2**31 - 1), "png"),
    "png just too large": (decode_compressed_color, png_that_claims(8193, 4096), "png"),
    "jpeg": (decode_compressed_color, jpeg_that_claims(65500, 65500), "jpeg"),
    "depth png": (decode_compressed_depth, bytes(12) + png_that_claims(60000, 60000), "16UC1; compressedDepth"),
    "rvl": (
        decode_compressed_depth,
        bytes(12) + struct.pack("<II", 2**32 - 1, 2**32 - 1) + b"\xff" * 8,
        "16UC1; compressedDepth rvl",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_anything_is_unpacked(name, monkeypatch):
    decode, data, image_format = BOMBS[name]
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("unpacked it"))
    tracemalloc.start()
    with pytest.raises(DecodeError, match=f"at most {compressed.MAX_PIXELS} pixels to unpack on topic 't', got ") as error:
        decode(message(data, image_format), "t")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert error.value.reason == "too_large"
    assert peak < 200_000


JPEG, PNG = packed(".jpg", COLOURS[..., ::-1]), packed(".png", COLOURS[..., ::-1])
DEPTH_PNG = packed(".png", MILLIMETRES)


@pytest.mark.parametrize(
    ("data", "image_format", "reason", "words"),
    [
        (
            b"\0\0\0\x01gC42",
            "h264",
            "unknown_compression",
            "got format 'h264' and data that begin with 00 00 00 01 67 43 34 32",
        ),
        (b"", "jpeg", "unknown_compression", "begin with nothing"),
        (bytes(12) + PNG, "16UC1; compressedDepth", "unknown_compression", "expected a JPEG or PNG image on topic 't'"),
        (JPEG[:-2], "jpeg", "damaged_image", f"got {len(JPEG) - 2} bytes of a damaged one, format 'jpeg'"),
        (JPEG[: len(JPEG) // 2], "jpeg", "damaged_image", "expected a whole image on topic 't'"),
        (JPEG[:4], "jpeg", "damaged_image", "got 4 bytes"),
        (PNG[: len(PNG) // 2], "png", "damaged_image", "damaged"),
        (PNG[:20], "png", "damaged_image", "got 20 bytes"),
        (png_that_claims(5000, 5000), "png", "damaged_image", "damaged"),  # 50 MB do not fit into 70 bytes
        (jpeg_that_claims(5000, 5000), "jpeg", "damaged_image", "damaged"),
        (png_that_claims(0, 5), "png", "no_pixels", "got 0 x 5"),
        (
            packed(".png", np.zeros((2, 8), np.uint8)),
            "bayer_rggb8; png",
            "unknown_encoding",
            "3 x 3 pixels or more, on topic 't'",
        ),
        (packed(".png", np.zeros((8, 8), np.uint8)), "bayer_rgbw8; png", "unknown_encoding", "got 8 x 8 of 'bayer_rgbw8'"),
    ],
)
def test_colours_that_cannot_be_read_are_one_clear_error(data, image_format, reason, words):
    with pytest.raises(DecodeError) as error:
        decode_compressed_color(message(data, image_format), "t")
    assert error.value.reason == reason
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("data", "image_format", "reason", "words"),
    [
        (JPEG, "jpeg", "wrong_pixels", "16-bit grey PNG on topic 't', got 3 channel(s) of 8 bits, format 'jpeg'"),
        (PNG, "16UC1; png compressed ", "wrong_pixels", "got 3 channel(s) of 8 bits"),
        (DEPTH_PNG, "32FC1; png compressed ", "unknown_encoding", "got '32FC1; png compressed '"),
        (transported(MILLIMETRES), "64FC1; compressedDepth", "unknown_encoding", "<16UC1 or 32FC1 or mono16>; compressedDepth"),
        (transported(MILLIMETRES), "16UC1; compressedDepth zstd", "unknown_encoding", "<nothing, png or rvl> on topic 't'"),
        (bytes(12), "16UC1; compressedDepth", "short_data", "more than the 12 bytes"),
        (bytes(15), "16UC1; compressedDepth rvl", "short_data", "the 8 bytes of an RVL image's size on topic 't', got 3"),
        (
            transported(MILLIMETRES, "rvl")[:400],
            "16UC1; compressedDepth rvl",
            "damaged_image",
            "64 x 48 pixels in the RVL data",
        ),
        (transported(MILLIMETRES), "16UC1; compressedDepth rvl", "too_large", "pixels to unpack"),
        (transported(MILLIMETRES, "png", 0.0, 1.0), "32FC1; compressedDepth", "wrong_header", "finite A > 0 and B"),
        (transported(MILLIMETRES, "png", 1.0, np.nan), "32FC1; compressedDepth", "wrong_header", "got 1.0 and nan"),
        (transported(MILLIMETRES, "png", np.inf, 1.0), "32FC1; compressedDepth", "wrong_header", "got inf and 1.0"),
    ],
)
def test_depth_that_cannot_be_read_is_one_clear_error(data, image_format, reason, words):
    with pytest.raises(DecodeError) as error:
        decode_compressed_depth(message(data, image_format), "t")
    assert error.value.reason == reason
    assert words in str(error.value)


def test_another_type_of_message_is_named():
    for decode in (decode_compressed_color, decode_compressed_depth):
        with pytest.raises(DecodeError, match=r"expected sensor_msgs/CompressedImage on topic 't', got .*Header"):
            decode(messages.header(0, "x"), "t")


WORDS = (
    "jpeg",
    "png",
    "bayer_rggb8; png",
    "mono8; jpeg compressed ",
    *(f"{name}; compressedDepth" for name in ("16UC1", "32FC1")),
)


def test_colours_survive_damage():
    small = COLOURS[:16, :16, ::-1]
    formats = {".jpg": "bgr8; jpeg compressed bgr8", ".png": "bgr8; png compressed bgr8"}
    originals = [message(packed(suffix, small), name) for suffix, name in formats.items()]
    originals.append(message(packed(".png", small[..., 0]), "bayer_rggb8; png compressed "))
    outcomes = assert_survives(lambda: decode_compressed_color, originals, words=WORDS)
    assert {"sample", "damaged_image", "unknown_compression"} <= set(outcomes)


def test_depth_survives_damage():
    originals = [
        message(transported(MILLIMETRES[:8, :9], compression, 100.0, 1.0), f"{encoding}; compressedDepth {compression}")
        for encoding in ("16UC1", "32FC1")
        for compression in ("png", "rvl")
    ]
    originals.append(dataclasses.replace(message(packed(".png", MILLIMETRES[:8, :9]), "png")))
    outcomes = assert_survives(lambda: decode_compressed_depth, originals, words=WORDS)
    assert {"sample", "damaged_image", "unknown_compression", "too_large", "unknown_encoding", "short_data"} <= set(outcomes)

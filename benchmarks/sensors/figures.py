"""The single figures: each ours and the plain ways to the same result, which is compared before anything is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.sensors import plain, scenes
from gemini_core.bag.reader import BagReader
from gemini_core.config.sections import DepthConfig
from gemini_core.decode.cloud import decode_cloud
from gemini_core.decode.compressed import decode_compressed_color, decode_compressed_depth
from gemini_core.decode.evt3 import Evt3
from gemini_core.decode.image import decode_color, decode_depth
from gemini_core.project.depth import align_depth
from gemini_core.project.deskew import deskew_points
from gemini_core.project.voxel import voxels_of
from gemini_core.rig.geometry import project_points, ray_table, z_buffer
from gemini_core.types import EventWindow

WIDTH, HEIGHT = 1280, 720
_ANY = 2048  # a sensor as large as EVT3 can address


@dataclass(frozen=True)
class Figure:
    """What is timed: ``ours`` first among the contenders; ``events``: how many a run decodes, where that is the figure.

    ``bar`` in milliseconds, or in million events a second; 0: none. ``times``: what a plain way's time is to be multiplied
    by, where it does a part of the work only.
    """

    name: str
    contenders: dict[str, Callable[[], object]]
    bar: float = 0.0
    events: int = 0
    times: float = 1.0


def all_figures(real: Path | None) -> Iterator[Figure]:
    """Every figure; ``real``: the folder of real recordings, where there is one."""
    yield from _evt3(real)
    yield _voxels()
    yield _sweep()
    yield _registration()
    yield from _pictures()
    yield from _depths()


def _same(one: Any, other: Any, tolerance: float = 0.0) -> None:  # noqa: ANN401 - arrays or tuples of them
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=0, atol=tolerance)


# --------------------------------------------------------------------------------------------------------------------
# Events


def _ours(words: np.ndarray) -> plain.Events:
    read = Evt3().read(words, _ANY, _ANY, 0)
    return read.x, read.y, read.polarity, read.time_ns


def equal_on_random_streams(number: int, words: int = 4000) -> int:
    """Hold ours and numpy's EVT3 against Python's on random streams of all codes; gives the events compared."""
    compared = 0
    for seed in range(number):
        stream = scenes.any_evt3_words(words, np.random.default_rng(seed))
        expected = np.array(list(plain.evt3_python(stream.tolist())), np.int64).reshape(-1, 4).T
        x, y, polarity, time_ns = _ours(stream)
        _same((x, y, polarity, time_ns // 1000), expected)
        _same(plain.evt3_numpy(stream), expected)
        compared += expected.shape[1]
    return compared


def _evt3(real: Path | None) -> Iterator[Figure]:
    rng = np.random.default_rng(1)
    streams = {kind: scenes.evt3_words(kind, 500_000, rng) for kind in ("mixed", "vectors", "single")}
    if real is not None and (bag := real / "events" / "evt3_640x480_bag").exists():
        with BagReader(bag) as reader:
            packets = [np.asarray(item.message.events).view("<u2") for item in reader.messages()]
        streams["real recording"] = np.concatenate(packets)
    for kind, words in streams.items():
        x, _, _, time_ns = ours = _ours(words)
        _same((*ours[:3], time_ns // 1000), plain.evt3_numpy(words))
        part = words[: words.size // 20]
        whole = words.tolist()
        listed = whole[: part.size]
        yield Figure(
            f"EVT3, {kind} ({x.size / words.size:.2f} events a word)",
            {
                "ours": lambda words=words: _ours(words),
                "numpy": lambda words=words: plain.evt3_numpy(words),
                "Python (a twentieth)": lambda listed=listed: list(plain.evt3_python(listed)),
            },
            bar=100.0,
            events=x.size,
            times=20.0,
        )


def _voxels() -> Figure:
    size = (640, 480)
    x, y, polarity, time_ns = events = scenes.events(1_000_000, *size, np.random.default_rng(2))
    window = EventWindow(scenes.STAMP, scenes.STAMP + 50 * scenes.MS, "event", *size, x, y, polarity, time_ns)
    ours = voxels_of(window, *size)
    _same([ours], [plain.voxels_add_at(events, *size)], 1e-3)
    _same([ours], [plain.voxels_bincount(events, *size)], 1e-3)
    return Figure(
        "voxel grid, 1,000,000 events into 640x480x3",
        {
            "ours": lambda: voxels_of(window, *size),
            "np.bincount": lambda: plain.voxels_bincount(events, *size),
            "np.add.at": lambda: plain.voxels_add_at(events, *size),
        },
        bar=10.0,
    )


# --------------------------------------------------------------------------------------------------------------------
# LiDAR and depth


def _sweep() -> Figure:
    message = scenes.cloud(scenes.STAMP, np.random.default_rng(3))
    motion, camera = scenes.sweep_motion(scenes.STAMP), scenes.camera(640, 480)
    shape = (camera.height, camera.width)

    def ours() -> np.ndarray:
        sample = decode_cloud(message, "lidar")
        assert sample.time_ns is not None
        pixels, z, visible = project_points(camera, deskew_points(sample.points, sample.time_ns, motion))
        index = z_buffer(pixels, z, visible, shape)
        return np.where(index >= 0, z[index], np.inf)

    def numpy() -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return plain.sweep(message.data.view(scenes.VELODYNE), scenes.STAMP, motion, camera)

    # numpy keeps points that the lens would fold back into the image, and rounds in float32: few pixels may differ
    differ = np.mean(~np.isclose(ours(), numpy(), rtol=0, atol=5e-3))
    assert differ < 0.01, differ
    return Figure(
        f"{scenes.POINTS:,} points: decode, deskew, project, z-buffer into 640x480", {"ours": ours, "numpy": numpy}, bar=4.0
    )


def _registration() -> Figure:
    depth_camera, camera = scenes.camera(640, 480), scenes.camera(640, 480)
    values = scenes.millimetres(640, 480, np.random.default_rng(4))
    message = scenes.image(values, "16UC1", 640)
    to_reference = scenes.moved_at(5 * scenes.MS)
    config, rays = DepthConfig(), ray_table(depth_camera)

    def ours() -> np.ndarray:
        grid = align_depth(decode_depth(message, "depth"), depth_camera, camera, to_reference, config)
        assert grid.depth_m is not None
        return grid.depth_m

    def numpy() -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return plain.registered(values, rays, to_reference, camera)

    both = np.isfinite(ours()) & np.isfinite(numpy())
    assert both.mean() > 0.5
    assert np.mean(np.abs(ours()[both] - numpy()[both]) < 0.02) > 0.9  # footprints hide what is behind, single pixels do not
    return Figure(
        "depth registration 640x480, decoded from 16UC1", {"ours": ours, "numpy, one pixel a reading": numpy}, bar=6.0
    )


# --------------------------------------------------------------------------------------------------------------------
# Pictures


def _pictures() -> Iterator[Figure]:
    bgr = scenes.picture(WIDTH, HEIGHT, np.random.default_rng(5))
    yuyv = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_YUYV) if hasattr(cv2, "COLOR_BGR2YUV_YUYV") else bgr[..., :2].copy()
    bayer = np.ascontiguousarray(bgr[..., 1])
    jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].reshape(-1)

    def timed(name: str, message: Any, plain_name: str, way: Callable[[], np.ndarray], tolerance: float) -> Figure:  # noqa: ANN401 - a bag's message
        decode = decode_compressed_color if hasattr(message, "format") else decode_color
        _same([decode(message, "rgb").pixels], [way()], tolerance)
        return Figure(f"image {name} 1280x720", {"ours": lambda: decode(message, "rgb"), plain_name: way})

    yield timed("bgr8", scenes.image(bgr, "bgr8", WIDTH), "numpy, bgr[..., ::-1].copy()", bgr[..., ::-1].copy, 0)
    yield timed("yuyv", scenes.image(yuyv, "yuyv", WIDTH), "numpy", lambda: plain.rgb_of_yuyv(yuyv.reshape(HEIGHT, -1)), 2)
    yield timed(
        "bayer_rggb8",
        scenes.image(bayer, "bayer_rggb8", WIDTH),
        "OpenCV alone",
        lambda: cv2.cvtColor(bayer, cv2.COLOR_BayerBG2RGB),
        0,
    )
    message = scenes.messages.compressed_image(jpeg.tobytes(), "bgr8; jpeg compressed bgr8", scenes.STAMP, "camera")
    yield timed(f"jpeg ({jpeg.size // 1024} KiB)", message, "OpenCV alone", lambda: plain.rgb_of_jpeg(jpeg), 0)


def _depths() -> Iterator[Figure]:
    values = scenes.millimetres(WIDTH, HEIGHT, np.random.default_rng(6))
    expected = np.where(values == 0, np.nan, values / np.float32(1000)).astype(np.float32)
    png, rvl = (scenes.compressed_depth(values, how) for how in ("png", "rvl"))
    for message in (png, rvl):
        np.testing.assert_array_equal(decode_compressed_depth(message, "depth").depth_m, expected)
    packed = np.asarray(png.data)[12:]
    yield Figure(
        f"depth compressedDepth png 1280x720 ({png.data.size // 1024} KiB)",
        {"ours": lambda: decode_compressed_depth(png, "depth"), "OpenCV and numpy alone": lambda: plain.metres_of_png(packed)},
    )
    part = values[: HEIGHT // 24]
    small = scenes.compressed_depth(part, "rvl").data[20:].tobytes()
    assert plain.rvl_python(small, part.size) == part.reshape(-1).tolist()
    yield Figure(
        f"depth compressedDepth rvl 1280x720 ({rvl.data.size // 1024} KiB)",
        {
            "ours": lambda: decode_compressed_depth(rvl, "depth"),
            "Python (a twenty-fourth)": lambda: plain.rvl_python(small, part.size),
        },
        times=24.0,
    )

"""Message formats of a topic in words for people: encoding and size, fields and times, lens, frames."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gemini_core.bag.messages import Message
from gemini_core.config.fusion import COMPRESSED_TYPE, ROLE_TYPES
from gemini_core.decode.cloud_fields import DATATYPES, lies_tight
from gemini_core.decode.color import LAYOUTS
from gemini_core.decode.compressed import source_encoding
from gemini_core.decode.image import DEPTH_ENCODINGS
from gemini_core.decode.message import RAW_TYPES
from gemini_core.types import CameraInfoSample, CameraModel, CloudSample, DepthSample, EventSample, ImageSample, Sample

_DRIVERS = (
    ("Ouster's", {"t", "ring", "reflectivity"}),
    ("Velodyne's", {"ring", "time"}),
    ("Hesai's", {"ring", "timestamp"}),
    ("Livox's", {"line", "tag"}),
    ("a depth camera's", {"rgb"}),
)
"""Fields that tell whose driver wrote a cloud; the first that fits."""

_COLOURS = {
    "rgb": "taken as it is",
    "bgr": "put in the order red, green, blue",
    "8UC3": "taken as blue, green, red",
    "8UC4": "taken as blue, green, red, alpha",
    "bayer": "demosaiced",
    "mono": "grey, the same three times",
    "8UC1": "grey, the same three times",
    **dict.fromkeys(("uyvy", "yuv", "yuyv", "nv"), "converted from YUV (BT.601, video range)"),
}
"""What becomes of a colour image, by how the name of its encoding begins."""


def describe(message: Message, type_name: str, sample: Sample | None) -> str:
    """Say what one message is; ``sample`` is what some role made of it, None where none could.

    Transforms, of which one message says little (:func:`tree_of`), and types that no role reads give "".
    """
    readers: dict[str, Callable[[Message, Sample | None], str]] = {
        ROLE_TYPES["rgb.image"]: _image,
        COMPRESSED_TYPE: _compressed,
        ROLE_TYPES["rgb.camera_info"]: _camera_info,
        ROLE_TYPES["lidar.points"]: _cloud,
        ROLE_TYPES["event.packets"]: _packet,
        **dict.fromkeys(RAW_TYPES, _event_array),
    }
    reader = readers.get(type_name)
    return "" if reader is None else reader(message, sample)


def colour_outcome(encoding: str) -> str:
    """Say what becomes of the pixels of a colour encoding that is read."""
    what = next(words for start, words in _COLOURS.items() if encoding.startswith(start))
    return f"{what}, 16 bits scaled to 8" if encoding.endswith("16") else what


def depth_outcome(encoding: str) -> str:
    """Say what becomes of the numbers of a depth encoding that is read."""
    if encoding == "32FC1":
        return "metres; NaN no reading, ±inf out of range"
    return "millimetres to metres, 0 is no reading"


def frames_of(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Every pair of parent and child frame in TFMessages, names without a leading "/"; a child should have one parent."""
    pairs = {
        (transform.header.frame_id.lstrip("/"), transform.child_frame_id.lstrip("/"))
        for message in messages
        for transform in message.transforms
    }
    return sorted(pairs)


def tree_of(frames: Sequence[tuple[str, str]]) -> str:
    """Show the parent of every child as trees."""
    children: dict[str, list[str]] = {}
    for parent, child in frames:
        children.setdefault(parent, []).append(child)
    return "; ".join(f"{parent} > {', '.join(sorted(names))}" for parent, names in children.items())


def _image(message: Message, _sample: Sample | None) -> str:
    words = [message.encoding or "no encoding", f"{message.width}x{message.height}", f"step {message.step}"]
    encoding = source_encoding(message.encoding)
    layout = LAYOUTS.get(encoding)
    if layout is not None and message.step > layout.row_bytes(message.width):
        words.append("rows padded")
    wide = (layout is not None and layout.item_bytes > 1) or encoding in DEPTH_ENCODINGS
    if wide and message.is_bigendian:
        words.append("big-endian")
    return " ".join(words)


def _compressed(message: Message, sample: Sample | None) -> str:
    begin = bytes(message.data[:8])
    container = "JPEG" if begin.startswith(b"\xff\xd8") else "PNG" if begin.startswith(b"\x89PNG") else ""
    words = [f"format {message.format!r}", container]
    if isinstance(sample, ImageSample):
        words.append(_size(sample.pixels))
    if isinstance(sample, DepthSample):
        words.append(_size(sample.depth_m))
    return " ".join([*filter(None, words), f"{len(message.data)} bytes"])


def _size(pixels: np.ndarray[Any, Any]) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _camera_info(message: Message, sample: Sample | None) -> str:
    numbers = ", ".join(f"{float(value):.4g}" for value in message.d)
    words = [f"{message.distortion_model or 'no distortion model'} ({numbers})", f"{message.width}x{message.height}"]
    words.append(f"fx {float(message.k[0]):.1f} fy {float(message.k[4]):.1f}")
    if message.binning_x > 1 or message.binning_y > 1:
        words.append(f"binning {message.binning_x}x{message.binning_y}")
    if message.roi.width or message.roi.height:
        roi = message.roi
        words.append(f"region {roi.width}x{roi.height} from ({roi.x_offset}, {roi.y_offset})")
    if isinstance(sample, CameraInfoSample):
        words.extend(_lens_taken(message, sample.camera))
    return " ".join(words)


def _lens_taken(message: Message, camera: CameraModel) -> list[str]:
    """What the lens was taken for where that is not what the message calls it."""
    words = [f"skew {camera.skew:.4g}"] if camera.skew else []
    if camera.distortion_model != message.distortion_model:
        numbers = f" ({len(camera.distortion)} coefficients)" if camera.distortion else ""
        words.append(f"taken as {'no lens' if camera.distortion_model == 'none' else camera.distortion_model}{numbers}")
    return words


def _cloud(message: Message, sample: Sample | None) -> str:
    names = {field.name for field in message.fields}
    driver = next((f"like {whose}: " for whose, needed in _DRIVERS if needed <= names), "")
    fields = ", ".join(
        f"{' '.join(field.name for field in group)} {_number(code)}"
        for code, group in itertools.groupby(message.fields, key=lambda field: int(field.datatype))
    )
    shape = f"{message.height}x{message.width}" if message.height > 1 else f"{message.width}"
    times = f" ({sample.times_taken_for})" if isinstance(sample, CloudSample) and sample.times_taken_for else ""
    words = [f"{driver}{fields or 'no fields'}{times}", f"{shape} points of {message.point_step} bytes"]
    if message.is_bigendian:
        words.append("big-endian")
    if message.height > 1 and message.row_step != message.width * message.point_step and lies_tight(message, len(message.data)):
        words.append(f"rows without gaps (its row_step of {message.row_step} does not fit the data)")
    if isinstance(sample, CloudSample):
        words.extend(_cloud_times(sample))
    return ", ".join(words)


def _cloud_times(sample: CloudSample) -> list[str]:
    """Where around the stamp the points' times put them."""
    words = []
    if sample.time_ns is not None and sample.time_ns.size:
        first, last = ((end - sample.stamp_ns) / 1e6 for end in (sample.start_ns, sample.end_ns))
        words.append(f"measured {first:+.1f} to {last:+.1f} ms from the stamp")
    if sample.times_unknown:
        words.append(f"{sample.times_unknown} of them at a time that no sweep can have (taken for its median)")
    return words


def _number(code: int) -> str:
    return str(np.dtype(DATATYPES[code])) if code in DATATYPES else f"datatype {code}"


def _packet(message: Message, _sample: Sample | None) -> str:
    order = " big-endian" if message.is_bigendian else ""
    return f"{message.encoding or 'no encoding'}{order} {message.width}x{message.height}"


def _event_array(_message: Message, sample: Sample | None) -> str:
    if not isinstance(sample, EventSample):
        return "an array of events"
    return f"an array of events, {sample.width}x{sample.height}"

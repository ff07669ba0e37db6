"""One made-up frame through the whole pipeline, so that nothing is compiled or allocated while the first real one waits."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
from event_camera_msgs.msg import EventPacket
from geometry_msgs.msg import TransformStamped
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from gemini_core.config.fusion import ROLE_TYPES, FusionConfig
from gemini_core.decode.intake import Intake
from gemini_core.errors import GeminiError
from gemini_core.pipeline.pipeline import Pipeline, PredictorLike
from gemini_core.types import Modality, Perception, Role
from gemini_ros.convert import stamp_to_ros

_STAMP_NS = 1_000_000_000
_WIDTH, _HEIGHT = 64, 48
_FRAMES: dict[Modality, str] = {"rgb": "rgb", "depth": "depth", "event": "event", "lidar": "lidar"}


def warm_up(config: FusionConfig, predictor: PredictorLike | None) -> Perception:
    """Process one made-up frame with every configured modality, in a pipeline that is thrown away.

    Raises:
        GeminiError: the frame did not come out, with what the stages said.
    """
    intake, pipeline = Intake(config, {"event.packets": ROLE_TYPES["event.packets"]}), Pipeline(config, predictor)
    frames = []
    for role, message in _messages(config):
        sample = intake.accept(role, message)
        frames += [] if sample is None else pipeline.advance(sample)
    frames += pipeline.finish()
    if not frames:
        msg = f"warm-up: expected one frame to close, got none; refused: {intake.last_refusals()}"
        raise GeminiError(msg)
    return pipeline.process(frames[0])


def _messages(config: FusionConfig) -> Iterator[tuple[Role, Any]]:
    roles = config.topics_by_role()
    boxes_in = {config.detections.base_frame, config.detections.frame} - {"", *_FRAMES.values()}
    made: dict[Role, Any] = {
        "tf_static": TFMessage(
            transforms=[_transform(frame_id) for frame_id in ("depth", "event", "lidar", *sorted(boxes_in))]
        ),
        "rgb.camera_info": _camera_info("rgb", config.grid.width, config.grid.height),
        "depth.camera_info": _camera_info("depth", _WIDTH, _HEIGHT),
        "event.camera_info": _camera_info("event", _WIDTH, _HEIGHT),
        "rgb.image": _image("rgb", "rgb8", np.zeros((config.grid.height, config.grid.width, 3), np.uint8)),
        "depth.image": _image("depth", "16UC1", np.full((_HEIGHT, _WIDTH), 5000, np.uint16)),
        "lidar.points": _cloud(),
        "event.packets": _packet(),
    }
    yield from ((role, message) for role, message in made.items() if role in roles)


def _header(frame_id: str) -> Header:
    return Header(stamp=stamp_to_ros(_STAMP_NS), frame_id=frame_id)


def _transform(child: str) -> TransformStamped:
    """Every sensor sits in the reference camera's place; rotation (0, 0, 0, 1) is the message's default."""
    return TransformStamped(header=_header("rgb"), child_frame_id=child)


def _camera_info(frame_id: str, width: int, height: int) -> CameraInfo:
    focal = float(width)
    k = [focal, 0.0, width / 2 - 0.5, 0.0, focal, height / 2 - 0.5, 0.0, 0.0, 1.0]
    p = [*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0]  # for images that are configured as rectified
    return CameraInfo(header=_header(frame_id), width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5, k=k, p=p)


def _image(frame_id: str, encoding: str, pixels: np.ndarray[Any, Any]) -> Image:
    height, width = pixels.shape[:2]
    step = pixels.nbytes // height
    data = array("B", pixels.tobytes())
    return Image(header=_header(frame_id), height=height, width=width, encoding=encoding, step=step, data=data)


def _cloud() -> PointCloud2:
    """Eight points ahead: x y z intensity, float32."""
    points = np.tile(np.array([0.0, 0.0, 5.0, 1.0], np.float32), (8, 1))
    fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate(("x", "y", "z", "intensity"))
    ]
    data = array("B", points.tobytes())
    return PointCloud2(
        header=_header("lidar"), height=1, width=8, fields=fields, point_step=16, row_step=128, data=data, is_dense=True
    )


def _packet() -> EventPacket:
    """EVT3 from 10 ms before the stamp up to it: TIME_HIGH, TIME_LOW, ADDR_Y, two events, TIME_HIGH, TIME_LOW."""
    words = np.array([0x8000, 0x6001, 0x0000 | 10, 0x2000 | 10, 0x2800 | 11, 0x8002, 0x6000 | 1809], "<u2")
    header = Header(stamp=stamp_to_ros(_STAMP_NS - 10_000_000), frame_id="event")
    data = array("B", words.tobytes())
    return EventPacket(header=header, width=_WIDTH, height=_HEIGHT, encoding="evt3", time_base=0, seq=0, events=data)

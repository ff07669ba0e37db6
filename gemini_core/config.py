"""The validated configuration: one YAML file for the node, for replay and for training.

The file is a ROS 2 parameter file (``/**: ros__parameters: ...``) or the same keys without that wrapper. Every option
carries its description and range here; the node's parameter descriptors, the shipped config/ files' test and the tables
in docs/node.md are made from them, so they cannot drift apart.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

import yaml

from gemini_core.errors import ConfigError, nearest_names
from gemini_core.types import MODALITIES, UNLABELLED, Modality, Role

BACKBONES = (
    *(f"mit_b{size}" for size in range(6)),
    *(f"swin_{size}{window}" for window in ("", "_w12") for size in "tsbl"),
)
"""Every backbone of ``gemini_core.model`` that has a name (a test holds the two equal)."""

ROLE_TYPES: dict[Role, str] = {
    "rgb.image": "sensor_msgs/msg/Image",
    "rgb.camera_info": "sensor_msgs/msg/CameraInfo",
    "depth.image": "sensor_msgs/msg/Image",
    "depth.camera_info": "sensor_msgs/msg/CameraInfo",
    "lidar.points": "sensor_msgs/msg/PointCloud2",
    "event.packets": "event_camera_msgs/msg/EventPacket",
    "event.camera_info": "sensor_msgs/msg/CameraInfo",
    "tf": "tf2_msgs/msg/TFMessage",
    "tf_static": "tf2_msgs/msg/TFMessage",
}
"""The message type of every role where the configuration asks for nothing else (``FusionConfig.types_by_role``)."""

COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"

EVENT_TYPES = (
    "event_camera_msgs/EventPacket",
    "dvs_msgs/EventArray",
    "prophesee_event_msgs/EventArray",
    "sensor_msgs/PointCloud2",
    "sensor_msgs/Image",
)
"""Message types that carry events."""

ENCODING_KEYS = {
    "depth": ("encoding", "min_m", "max_m"),
    "lidar": ("encoding", "max_m", "min_height_m", "max_height_m", "max_intensity"),
    "event": ("encoding", "voxel_limit"),
}
"""The options of each modality that say what the numbers at the network's input mean."""

OptionValue = bool | int | float | str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Option:
    """What is known of one option: its dotted key, type, default, and the rules for its value.

    ``live`` options may change while the node runs; the others only before it is configured.
    """

    key: str
    type: type
    default: OptionValue
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False


def option(
    default: OptionValue,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
) -> Any:  # noqa: ANN401 - a dataclass field stands in for the value's own type, as dataclasses.field does
    """Declare one option of a configuration section."""
    rules = {"description": description, "minimum": minimum, "maximum": maximum, "choices": choices, "live": live}
    return field(default=default, metadata=rules)


# --------------------------------------------------------------------------------------------------------------------
# Sections


@dataclass(frozen=True, slots=True)
class RgbTopics:
    """Topics of the reference colour camera."""

    image: str = option("rgb/image", "sensor_msgs/Image of the reference colour camera; its base name where it is compressed")
    camera_info: str = option("rgb/camera_info", "sensor_msgs/CameraInfo of the reference colour camera")
    transport: str = option(
        "raw",
        "how the images come: 'raw', or 'compressed' (sensor_msgs/CompressedImage on <image>/compressed)",
        choices=("raw", "compressed"),
    )


@dataclass(frozen=True, slots=True)
class DepthTopics:
    """Topics of the depth camera."""

    image: str = option(
        "depth/image", "sensor_msgs/Image of the depth camera (16UC1 mm or 32FC1 m); its base name where it is compressed"
    )
    camera_info: str = option("depth/camera_info", "sensor_msgs/CameraInfo of the depth camera")
    transport: str = option(
        "raw",
        "how the images come: 'raw', 'compressedDepth' or 'compressed' (sensor_msgs/CompressedImage on <image>/<transport>)",
        choices=("raw", "compressedDepth", "compressed"),
    )


@dataclass(frozen=True, slots=True)
class LidarTopics:
    """Topics of the LiDAR."""

    points: str = option("lidar/points", "sensor_msgs/PointCloud2 of the LiDAR")


@dataclass(frozen=True, slots=True)
class EventTopics:
    """Topics of the event camera."""

    packets: str = option("events", "events of the event camera, messages of topics.event.type")
    camera_info: str = option("events/camera_info", "sensor_msgs/CameraInfo of the event camera")
    type: str = option(
        "event_camera_msgs/EventPacket",
        "message type of the events; a PointCloud2 has fields x, y, t, p; an Image is one that a renderer has drawn",
        choices=EVENT_TYPES,
    )


@dataclass(frozen=True, slots=True)
class TransformTopics:
    """Topics of the transform tree."""

    dynamic: str = option("/tf", "tf2_msgs/TFMessage of moving transforms")
    static: str = option("/tf_static", "tf2_msgs/TFMessage of fixed transforms")


@dataclass(frozen=True, slots=True)
class TopicsConfig:
    """The rig: which topic is which sensor. Relative names are resolved in the node's namespace (in a bag: in /)."""

    rgb: RgbTopics = field(default_factory=RgbTopics)
    depth: DepthTopics = field(default_factory=DepthTopics)
    lidar: LidarTopics = field(default_factory=LidarTopics)
    event: EventTopics = field(default_factory=EventTopics)
    tf: TransformTopics = field(default_factory=TransformTopics)


@dataclass(frozen=True, slots=True)
class SyncConfig:
    """How samples become frames."""

    max_wait_ms: float = option(
        150.0,
        "a frame closes with what it has when message stamps have passed its own by this much, milliseconds",
        minimum=0.0,
        maximum=60000.0,
    )
    max_pending_frames: int = option(
        30, "reference images that may wait at once; the oldest closes when there are more", minimum=1, maximum=1000
    )
    reset_jump_ms: float = option(
        1000.0,
        "a stamp this much older than the newest of its topic means the clock jumped back: everything waiting is "
        "reset, milliseconds",
        minimum=1.0,
        maximum=3600000.0,
    )


@dataclass(frozen=True, slots=True)
class MotionConfig:
    """How motion between the sensors' stamps is undone."""

    fixed_frame: str = option(
        "odom",
        "frame of the transform tree that does not move with the robot (REP 105): depth images and every LiDAR point are "
        "brought to where the camera was at the image's stamp; empty: taken as if nothing moved",
    )


@dataclass(frozen=True, slots=True)
class RgbConfig:
    """The reference camera's lens."""

    rectified: bool = option(False, "rgb.image is rectified already: the P of its CameraInfo holds, and no distortion")
    rectify: bool = option(
        False, "undo the reference camera's distortion first; masks and overlays then belong to the rectified image"
    )


@dataclass(frozen=True, slots=True)
class DepthConfig:
    """The depth camera's rule and encoding."""

    slop_ms: float = option(
        30.0, "largest difference between depth and reference stamp, milliseconds", minimum=0.0, maximum=10000.0
    )
    min_interval_ms: float = option(
        0.0,
        "depth images are never closer in time than this, so the nearest one is known without waiting for the next; "
        "0: unknown, milliseconds",
        minimum=0.0,
        maximum=10000.0,
    )
    rectified: bool = option(False, "depth.image is rectified already: the P of its CameraInfo holds, and no distortion")
    encoding: str = option(
        "linear",
        "what the network gets: 'linear' depth three times, as released RGB-D models expect it; 'inverse' depth three times; "
        "'hha': horizontal disparity, height above ground, angle with gravity",
        choices=("linear", "inverse", "hha"),
    )
    min_m: float = option(0.3, "depth that inverse encodings take to 1, metres", minimum=0.01, maximum=1000.0)
    max_m: float = option(
        20.0, "depth that 'linear' encodes to 1 and inverse encodings to 0, metres", minimum=0.1, maximum=1000.0
    )


@dataclass(frozen=True, slots=True)
class LidarConfig:
    """The LiDAR's rule and encoding."""

    slop_ms: float = option(
        60.0,
        "largest distance in time between the reference stamp and a sweep that does not cover it, milliseconds",
        minimum=0.0,
        maximum=10000.0,
    )
    min_interval_ms: float = option(
        0.0, "sweeps are never closer in time than this; 0: unknown, milliseconds", minimum=0.0, maximum=10000.0
    )
    max_m: float = option(80.0, "range that encodes to 1 at the network input, metres", minimum=0.1, maximum=1000.0)
    min_height_m: float = option(
        -4.0,
        "height above the LiDAR (its frame's z) that encodes to 0, metres",
        minimum=-100.0,
        maximum=100.0,
    )
    max_height_m: float = option(
        8.0, "height above the LiDAR (its frame's z) that encodes to 1, metres", minimum=-100.0, maximum=1000.0
    )
    max_intensity: float = option(255.0, "intensity that encodes to 1, in the driver's unit", minimum=1e-6, maximum=1e6)
    encoding: str = option(
        "range_height_intensity",
        "what the network gets: range, height and intensity; or 'grey': DeLiVER's one range image three times",
        choices=("range_height_intensity", "grey"),
    )
    densify_px: int = option(
        0,
        "pixels without a point take the nearest point's values up to this far away, grid pixels; 0: off",
        minimum=0,
        maximum=32,
    )
    point_size_px: int = option(
        1, "side of the square a point covers in the aligned grid, grid pixels (odd)", minimum=1, maximum=15
    )


@dataclass(frozen=True, slots=True)
class EventConfig:
    """The event camera's rule and alignment."""

    window: str = option(
        "duration",
        "'duration': the events of event.window_ms before the reference stamp; 'count': the last event.count before it, none "
        "older than event.window_ms",
        choices=("duration", "count"),
    )
    window_ms: float = option(
        50.0, "length of the event window that ends at the reference stamp, milliseconds", minimum=0.1, maximum=10000.0
    )
    count: int = option(50000, "events of a window by count", minimum=1, maximum=10_000_000)
    rectified: bool = option(False, "the events are rectified already: the P of their CameraInfo holds, and no distortion")
    encoding: str = option(
        "polarity",
        "what the network gets: 'polarity': DeLiVER's image, red darker, blue brighter; 'voxel': a time-bilinear voxel grid",
        choices=("polarity", "voxel"),
    )
    voxel_bins: int = option(3, "time bins of a voxel grid; networks take 3", minimum=1, maximum=32)
    voxel_limit: float = option(
        3.0, "signed events per cell of a voxel grid that encode to 1 (and minus as many to 0)", minimum=0.1, maximum=1e4
    )
    plane_m: float = option(
        10.0,
        "distance of the plane on which events are taken to lie when they are brought to the reference camera, metres",
        minimum=0.1,
        maximum=10000.0,
    )
    alignment: str = option(
        "calibrated",
        "'calibrated': by CameraInfo and transforms; 'same_view': the event sensor shares the reference camera's lens, "
        "only its size differs",
        choices=("calibrated", "same_view"),
    )


@dataclass(frozen=True, slots=True)
class GridConfig:
    """The network's pixels."""

    height: int = option(480, "height of the aligned grids and of the network input, pixels", minimum=32, maximum=4096)
    width: int = option(640, "width of the aligned grids and of the network input, pixels", minimum=32, maximum=8192)
    resize: str = option(
        "crop",
        "'crop': keep the aspect ratio and cut what does not fit, centred; 'stretch': show all, change the aspect ratio",
        choices=("crop", "stretch"),
    )


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The network and where it runs."""

    enabled: bool = option(
        True, "run the network; without it masks are all unlabelled, and there are no boxes but those of detections.weights"
    )
    weights: str = option(
        "",
        "safetensors file written by gemini_ros, 'shipped:NAME' for one that comes with it, or a folder written by "
        "gemini-fusion export; empty: untrained weights from the seed",
    )
    runtime: str = option(
        "auto",
        "what runs the network; auto: torch, or what an exported folder is for; torch_compile starts slowly",
        choices=("auto", "torch", "torch_compile", "openvino", "onnx", "tensorrt"),
    )
    backbone: str = option("mit_b0", "backbone of untrained weights", choices=BACKBONES)
    head_width: int = option(256, "width of the segmentation head of untrained weights", minimum=8, maximum=4096)
    classes: tuple[str, ...] = option(
        (
            "road",
            "lane_marking",
            "ground",
            "building",
            "pole",
            "tree",
            "car",
            "pedestrian",
            "sky",
            "sidewalk",
            "truck",
            "two_wheeler",
            "traffic_sign",
            "wall",
            "floor",
            "ceiling",
            "door",
            "table",
            "chair",
            "cabinet",
        ),
        "class names in the order of the mask's values; must equal those of the weights",
    )
    seed: int = option(0, "seed of untrained weights", minimum=0, maximum=2**31 - 1)
    device: str = option("auto", "where the network runs", choices=("auto", "cpu", "cuda"))
    precision: str = option(
        "fp32", "arithmetic of the network; int8 only in an exported folder", choices=("fp32", "bf16", "fp16", "int8")
    )
    threads: int = option(0, "CPU threads of the network; 0: torch decides", minimum=0, maximum=256)


@dataclass(frozen=True, slots=True)
class DetectionsConfig:
    """3D boxes: in which frame they are made, and which of them go out where."""

    enabled: bool = option(False, "find 3D boxes; takes weights of a detector, and points of a LiDAR or a depth camera")
    classes: tuple[str, ...] = option(
        ("car", "pedestrian", "truck", "two_wheeler", "table", "chair", "cabinet"),
        "class names of boxes; must equal those of the weights' detector",
    )
    base_frame: str = option(
        "",
        "frame with body axes (x forward, y left, z up) in which the detector works, such as base_link; it has to stand as it "
        "did in training; empty: the reference camera's own place, axes turned",
    )
    frame: str = option(
        "", "frame in which boxes go out, brought there at the reference stamp, such as odom; empty: the reference image's own"
    )
    weights: str = option(
        "",
        "safetensors file of an MVX-Net, which finds the boxes from the image and the points by itself; empty: the detector of "
        "model.weights does",
    )
    sparse: str = option(
        "auto",
        "what computes the sparse convolutions of an MVX-Net; auto: spconv on a GPU where it is installed, else torch",
        choices=("auto", "spconv", "torch"),
    )
    depth_stride: int = option(
        2, "of points that a depth image gives: every n-th row and column of the grid", minimum=1, maximum=16
    )
    min_score: float = option(0.3, "boxes below this score do not go out", minimum=0.0, maximum=1.0, live=True)
    class_scores: str = option(
        "", "min_score of single classes instead, as 'class:score, class:score', such as 'pedestrian:0.2, car:0.4'", live=True
    )
    max_boxes: int = option(
        200, "most boxes of a frame that go out, those of the highest scores", minimum=1, maximum=10000, live=True
    )

    def least_scores(self) -> dict[str, float]:
        """The score from which on boxes of each class go out.

        Raises:
            ConfigError: a part of ``class_scores`` is not 'class:score', names no class of ``classes`` or one twice, or has
                a score outside of [0, 1].
        """
        single = named_numbers(
            self.class_scores, "detections.class_scores", ("class", "detections.classes", self.classes), ("score", 1.0)
        )
        return {name: single.get(name, self.min_score) for name in self.classes}


def named_numbers(
    text: str, key: str, named: tuple[str, str, tuple[str, ...]], numbered: tuple[str, float]
) -> dict[str, float]:
    """Read 'name:number, name:number'; names may have colons themselves.

    Args:
        text: the value of an option.
        key: that option's name.
        named: what a name is of, the option that lists the names, and these.
        numbered: what a number is, and the largest; the least is 0.

    Raises:
        ConfigError: a part has another form, a name is unknown or there twice, or a number is outside of its range.
    """
    (kind, source, names), (quantity, largest) = named, numbered
    numbers: dict[str, float] = {}
    for entry in (part.strip() for part in text.split(",") if part.strip()):
        name, colon, number = (part.strip() for part in entry.rpartition(":"))
        if not colon:
            msg = f"{key}: expected '{kind}:{quantity}', got {entry!r}"
            raise ConfigError(msg)
        if name not in names:
            msg = f"{key}: expected a {kind} of {source} ({nearest_names(name, names)}), got {entry!r}"
            raise ConfigError(msg)
        if name in numbers:
            msg = f"{key}: expected each {kind} once, got {name!r} again in {entry!r}"
            raise ConfigError(msg)
        try:
            numbers[name] = float(number)
        except ValueError:
            numbers[name] = math.nan
        if not 0.0 <= numbers[name] <= largest:
            msg = f"{key}: expected a {quantity} from 0 to {largest:g} after the {kind}, got {entry!r}"
            raise ConfigError(msg)
    return numbers


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What only the live node uses."""

    autostart: bool = option(True, "configure and activate at start, without a lifecycle manager")
    queue_size: int = option(
        2, "frames that may wait for the network; the oldest is skipped and counted when there are more", minimum=1, maximum=100
    )
    idle_flush_ms: float = option(
        500.0,
        "frames still waiting close when no message has come for this long by the wall clock, milliseconds",
        minimum=10.0,
        maximum=60000.0,
    )
    diagnostics_period_s: float = option(1.0, "seconds between messages on /diagnostics", minimum=0.1, maximum=60.0)
    stale_after_s: float = option(
        2.0, "an input is reported as silent when nothing came for this long, seconds", minimum=0.1, maximum=600.0, live=True
    )
    overlay_alpha: float = option(0.5, "weight of the mask's colours in the overlay image", minimum=0.0, maximum=1.0, live=True)


@dataclass(frozen=True, slots=True)
class FusionConfig:
    """Everything that can be configured; see the sections."""

    modalities: tuple[Modality, ...] = option(
        MODALITIES, "sensors of this robot, in the order of the network's inputs; rgb first, it is the reference"
    )
    topics: TopicsConfig = field(default_factory=TopicsConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    motion: MotionConfig = field(default_factory=MotionConfig)
    rgb: RgbConfig = field(default_factory=RgbConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    lidar: LidarConfig = field(default_factory=LidarConfig)
    event: EventConfig = field(default_factory=EventConfig)
    grid: GridConfig = field(default_factory=GridConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    detections: DetectionsConfig = field(default_factory=DetectionsConfig)
    node: NodeConfig = field(default_factory=NodeConfig)

    def __post_init__(self) -> None:
        """Check what a single option's range cannot say.

        Raises:
            ConfigError: a modality is unknown, repeated, or rgb is not the first; heights out of order; an even point size;
                events that need a CameraInfo without one; no class, too many, or one name twice; two roles on one topic; boxes
                without a sensor that gives points; thresholds of unknown classes.
        """
        _check_modalities(self.modalities)
        _check_names("model.classes", self.model.classes)
        _check_names("detections.classes", self.detections.classes)
        self.detections.least_scores()
        if self.detections.enabled and not {"depth", "lidar"} & set(self.modalities):
            msg = f"detections.enabled: expected depth or lidar among the modalities, got {', '.join(self.modalities)}"
            raise ConfigError(msg)
        if self.lidar.min_height_m >= self.lidar.max_height_m:
            msg = (
                f"lidar.min_height_m: expected less than lidar.max_height_m, got {self.lidar.min_height_m} and "
                f"{self.lidar.max_height_m}"
            )
            raise ConfigError(msg)
        if self.depth.min_m >= self.depth.max_m:
            msg = f"depth.min_m: expected less than depth.max_m, got {self.depth.min_m} and {self.depth.max_m}"
            raise ConfigError(msg)
        if self.topics.event.type == "sensor_msgs/PointCloud2" and self.event.alignment == "same_view":
            msg = (
                "event.alignment: expected 'calibrated' for events as sensor_msgs/PointCloud2, which do not tell the sensor's "
                "size, got 'same_view'"
            )
            raise ConfigError(msg)
        if self.lidar.point_size_px % 2 == 0:
            msg = f"lidar.point_size_px: expected an odd number, got {self.lidar.point_size_px}"
            raise ConfigError(msg)
        _check_topics(self.topics_by_role())

    @property
    def predicts(self) -> bool:
        """Whether there is a network to run, for masks or for boxes alone."""
        return self.model.enabled or bool(self.detections.enabled and self.detections.weights)

    def topics_by_role(self) -> dict[Role, str]:
        """The topic of every role that the configured modalities need, names as written (relative ones stay so)."""
        topics: dict[Role, str] = {
            "rgb.image": _transported(self.topics.rgb.image, self.topics.rgb.transport),
            "rgb.camera_info": self.topics.rgb.camera_info,
        }
        if "depth" in self.modalities:
            topics["depth.image"] = _transported(self.topics.depth.image, self.topics.depth.transport)
            topics["depth.camera_info"] = self.topics.depth.camera_info
        if "lidar" in self.modalities:
            topics["lidar.points"] = self.topics.lidar.points
        if "event" in self.modalities:
            topics["event.packets"] = self.topics.event.packets
            if self.event.alignment == "calibrated":
                topics["event.camera_info"] = self.topics.event.camera_info
        topics["tf"] = self.topics.tf.dynamic
        topics["tf_static"] = self.topics.tf.static
        return topics

    def types_by_role(self) -> dict[Role, str]:
        """The message type of every role's topic, such as "sensor_msgs/msg/Image"."""
        types: dict[Role, str] = {role: ROLE_TYPES[role] for role in self.topics_by_role()}
        if self.topics.rgb.transport != "raw":
            types["rgb.image"] = COMPRESSED_TYPE
        if "depth.image" in types and self.topics.depth.transport != "raw":
            types["depth.image"] = COMPRESSED_TYPE
        if "event.packets" in types:
            types["event.packets"] = self.topics.event.type.replace("/", "/msg/")
        return types

    def encodings(self) -> dict[str, OptionValue]:
        """What the numbers at the network's input mean, by dotted key; weights are for one meaning."""
        return {
            f"{modality}.{name}": getattr(getattr(self, modality), name)
            for modality in self.modalities
            for name in ENCODING_KEYS.get(modality, ())
        }

    def roles_by_absolute_topic(self, namespace: str = "/") -> dict[str, Role]:
        """The role of every topic, relative names resolved in ``namespace``; what a bag reader looks topics up in."""
        prefix = "/" + namespace.strip("/")
        return {
            topic if topic.startswith("/") else f"{prefix.rstrip('/')}/{topic}": role
            for role, topic in self.topics_by_role().items()
        }


def _transported(topic: str, transport: str) -> str:
    """The topic that a transport of image_transport uses beside its base topic."""
    return f"{topic}/{transport}" if topic and transport != "raw" else topic


def _check_modalities(modalities: tuple[str, ...]) -> None:
    for modality in modalities:
        if modality not in MODALITIES:
            msg = f"modalities: expected names out of {', '.join(MODALITIES)}, got {modality!r}"
            raise ConfigError(msg)
    if len(set(modalities)) != len(modalities):
        msg = f"modalities: expected each sensor once, got {list(modalities)}"
        raise ConfigError(msg)
    if not modalities or modalities[0] != "rgb":
        msg = f"modalities: expected 'rgb' first, since it is the reference, got {list(modalities)}"
        raise ConfigError(msg)


def _check_names(key: str, names: tuple[str, ...]) -> None:
    if not 1 <= len(names) <= UNLABELLED:
        msg = f"{key}: expected 1 to {UNLABELLED} names, got {len(names)}"
        raise ConfigError(msg)
    if len(set(names)) != len(names):
        msg = f"{key}: expected each name once, got {list(names)}"
        raise ConfigError(msg)


def _check_topics(topics: Mapping[Role, str]) -> None:
    seen: dict[str, Role] = {}
    for role, topic in topics.items():
        if not topic:
            msg = f"topics: expected a topic name for {role}, got an empty string"
            raise ConfigError(msg)
        if topic in seen:
            msg = f"topics: expected one topic per role, got {topic!r} for both {seen[topic]} and {role}"
            raise ConfigError(msg)
        seen[topic] = role


# --------------------------------------------------------------------------------------------------------------------
# Reading, writing, listing

_Section = TypeVar("_Section")


def options(section: type = FusionConfig, prefix: str = "") -> Iterator[Option]:
    """List every option with its dotted key, in the order of the file."""
    hints = get_type_hints(section)
    for item in dataclasses.fields(section):
        if dataclasses.is_dataclass(hints[item.name]):
            yield from options(hints[item.name], f"{prefix}{item.name}.")
            continue
        default = cast("OptionValue", item.default)
        rules = {name: value for name, value in item.metadata.items() if name != "description"}
        yield Option(
            key=prefix + item.name,
            type=tuple if isinstance(default, tuple) else type(default),
            default=default,
            description=item.metadata["description"],
            **rules,
        )


def check_value(known: Option, value: object) -> OptionValue:
    """Check one value against its option and give it back in the option's own type.

    Raises:
        ConfigError: wrong type, out of range, or not among the choices; says the key, what was expected and what came.
    """
    if known.type is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            msg = f"{known.key}: expected a list of strings, got {value!r}"
            raise ConfigError(msg)
        return tuple(value)
    if known.type is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not known.type:
        names = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
        msg = f"{known.key}: expected {names[known.type]}, got {value!r}"
        raise ConfigError(msg)
    if isinstance(value, int | float) and not isinstance(value, bool):
        low = -math.inf if known.minimum is None else known.minimum
        high = math.inf if known.maximum is None else known.maximum
        if not low <= value <= high:
            msg = f"{known.key}: expected a value from {low:g} to {high:g}, got {value!r}"
            raise ConfigError(msg)
    if known.choices and value not in known.choices:
        msg = f"{known.key}: expected one of {', '.join(known.choices)}, got {value!r}"
        raise ConfigError(msg)
    return cast("OptionValue", value)


def from_flat(values: Mapping[str, object], where: str = "configuration") -> FusionConfig:
    """Build a configuration from dotted keys; what is not named keeps its default.

    Raises:
        ConfigError: an unknown key (the nearest known one is named) or a value that breaks its option's rules.
    """
    return build(FusionConfig, values, where)


def build(kind: type[_Section], values: Mapping[str, object], where: str) -> _Section:
    """Build a dataclass made of ``option`` fields and such sections from dotted keys.

    Raises:
        ConfigError: an unknown key (the nearest known one is named) or a value that breaks its option's rules.
    """
    known = {item.key: item for item in options(kind)}
    for key in values:
        if key not in known:
            msg = f"{where}: unknown key {key!r} ({nearest_names(key, known)})"
            raise ConfigError(msg)
    try:
        checked = {key: check_value(known[key], value) for key, value in values.items()}
        return _build(kind, checked, "")
    except ConfigError as error:
        msg = f"{where}: {error}"
        raise ConfigError(msg) from None


def _build(section: type[_Section], checked: Mapping[str, OptionValue], prefix: str) -> _Section:
    hints = get_type_hints(section)
    arguments: dict[str, Any] = {}
    for item in dataclasses.fields(cast("Any", section)):
        key = prefix + item.name
        if dataclasses.is_dataclass(hints[item.name]):
            arguments[item.name] = _build(cast("type", hints[item.name]), checked, key + ".")
        elif key in checked:
            arguments[item.name] = checked[key]
    return section(**arguments)


def to_flat(config: object) -> dict[str, OptionValue]:
    """Every option's dotted key and value, of a configuration made of ``option`` fields."""
    flat: dict[str, OptionValue] = {}
    for item in options(type(config)):
        value: Any = config
        for name in item.key.split("."):
            value = getattr(value, name)
        flat[item.key] = value
    return flat


def load_config(path: str | Path, overrides: Mapping[str, object] | None = None) -> FusionConfig:
    """Read a configuration file; ``overrides`` (dotted keys) win over the file.

    Raises:
        ConfigError: the file is missing, is not YAML of the expected shape, or breaks an option's rules.
    """
    return from_flat({**read_flat(path), **(overrides or {})}, where=str(path))


def read_flat(path: str | Path) -> dict[str, object]:
    """Read a YAML file of options as dotted keys, unchecked; the wrapper of a ROS 2 parameter file is taken off.

    Raises:
        ConfigError: the file is missing, or is not YAML of the expected shape.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path}: expected a readable configuration file, got {error.strerror}"
        raise ConfigError(msg) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path}: expected YAML, got {' '.join(str(error).split())}"
        raise ConfigError(msg) from None
    return dict(_flatten(_unwrap({} if content is None else content, path), path, ""))


def _unwrap(content: object, path: Path) -> object:
    """Take the parameters out of a ROS 2 parameter file; a file without the wrapper is given back as it is."""
    if not isinstance(content, dict):
        msg = f"{path}: expected a mapping of options, got {type(content).__name__}"
        raise ConfigError(msg)
    nodes = [name for name, body in content.items() if isinstance(body, dict) and "ros__parameters" in body]
    if not nodes:
        return content
    if len(nodes) > 1 or len(content) > 1:
        msg = f"{path}: expected the parameters of one node, got {', '.join(map(str, content))}"
        raise ConfigError(msg)
    return content[nodes[0]]["ros__parameters"]


def _flatten(content: object, path: Path, prefix: str) -> Iterator[tuple[str, object]]:
    if not isinstance(content, dict):
        msg = f"{path}: expected a mapping of options at {prefix.rstrip('.') or 'the top'}, got {content!r}"
        raise ConfigError(msg)
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flatten(value, path, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

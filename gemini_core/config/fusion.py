"""The whole configuration of a robot's fusion: the sections together, what they need of each other, and how it is loaded.

The file is a ROS 2 parameter file (``/**: ros__parameters: ...``) or the same keys without that wrapper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gemini_core.config.engine import OptionValue, build, option
from gemini_core.config.files import load
from gemini_core.config.sections import (
    DepthConfig,
    DetectionsConfig,
    EventConfig,
    GridConfig,
    LidarConfig,
    ModelConfig,
    MotionConfig,
    NodeConfig,
    RgbConfig,
    SyncConfig,
    TopicsConfig,
)
from gemini_core.errors import ConfigError
from gemini_core.types import MODALITIES, UNLABELLED, Modality, Role

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

ENCODING_KEYS = {
    "depth": ("encoding", "min_m", "max_m"),
    "lidar": ("encoding", "max_m", "min_height_m", "max_height_m", "max_intensity"),
    "event": ("encoding", "voxel_limit"),
}
"""The options of each modality that say what the numbers at the network's input mean."""


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


def from_flat(values: Mapping[str, object], where: str = "configuration") -> FusionConfig:
    """Build a configuration from dotted keys; what is not named keeps its default.

    Raises:
        ConfigError: an unknown key (the nearest known one is named) or a value that breaks its option's rules.
    """
    return build(FusionConfig, values, where)


def load_config(path: str | Path, overrides: Mapping[str, object] | None = None) -> FusionConfig:
    """Read a configuration file; ``overrides`` (dotted keys) win over the file.

    Raises:
        ConfigError: the file is missing, is not YAML of the expected shape, or breaks an option's rules.
    """
    return load(FusionConfig, path, overrides)

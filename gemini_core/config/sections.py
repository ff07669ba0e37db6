"""The options, section by section: key, default, meaning, range.

Options are read from the file in the order in which they stand here; ``fusion.FusionConfig`` puts the sections together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gemini_core.config.engine import named_numbers, option

BACKBONES = (
    *(f"mit_b{size}" for size in range(6)),
    *(f"swin_{size}{window}" for window in ("", "_w12") for size in "tsbl"),
)
"""Every backbone of ``gemini_core.model`` that has a name (a test holds the two equal)."""

EVENT_TYPES = (
    "event_camera_msgs/EventPacket",
    "dvs_msgs/EventArray",
    "prophesee_event_msgs/EventArray",
    "sensor_msgs/PointCloud2",
    "sensor_msgs/Image",
)
"""Message types that carry events."""


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
    time_field: str = option("", "field of a point's time; empty: the first that has a known name (docs/sensors.md)")
    time_unit: str = option(
        "auto",
        "unit of the points' times; 'auto': from type, name and size of the values; 'fraction': of a sweep, 0 to 1; "
        "'none': no times, each sweep is moved as one piece",
        choices=("auto", "ns", "us", "ms", "s", "fraction", "none"),
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
    voxel_bins: int = option(3, "time bins of a voxel grid, one for each channel that networks take", minimum=3, maximum=3)
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

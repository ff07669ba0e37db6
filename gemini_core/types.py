"""The dataclasses between stages: Sample, SensorFrame, AlignedGrids, Perception (docs/architecture.md shows the way).

Conventions, for every field here:

* Time is ``stamp_ns: int``, nanoseconds of the message header's clock. The core never reads a clock.
* Optical frames follow REP 103: x right, y down, z forward. Lengths are metres, angles radians.
* A transform ``a_from_b`` is a (4, 4) float64 matrix that takes homogeneous points of frame b to frame a.
* Pixels are (u, v) = (column, row); the centre of the top-left pixel is (0, 0), as in CameraInfo.
* The dataclasses are frozen; their arrays are shared and must not be written to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Modality = Literal["rgb", "depth", "event", "lidar"]
MODALITIES: tuple[Modality, ...] = ("rgb", "depth", "event", "lidar")

Role = Literal[
    "rgb.image",
    "rgb.camera_info",
    "depth.image",
    "depth.camera_info",
    "lidar.points",
    "event.packets",
    "event.camera_info",
    "tf",
    "tf_static",
]
ROLES: tuple[Role, ...] = (
    "rgb.image",
    "rgb.camera_info",
    "depth.image",
    "depth.camera_info",
    "lidar.points",
    "event.packets",
    "event.camera_info",
    "tf",
    "tf_static",
)

F32: TypeAlias = npt.NDArray[np.float32]
F64: TypeAlias = npt.NDArray[np.float64]
U8: TypeAlias = npt.NDArray[np.uint8]
U16: TypeAlias = npt.NDArray[np.uint16]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
Bool: TypeAlias = npt.NDArray[np.bool_]

UNLABELLED = 255
"""Mask value of a pixel that no class was decided for: what consumers of mono8 masks take for unlabelled."""

NO_READING, READING, TOO_NEAR, TOO_FAR = 0, 1, 2, 3
"""Values of ``AlignedGrid.reading``: what REP 118 tells apart of a depth pixel (NaN, metres, -inf, +inf)."""


# --------------------------------------------------------------------------------------------------------------------
# Calibration


@dataclass(frozen=True, slots=True)
class CameraModel:
    """A pinhole or fisheye camera as sensor_msgs/CameraInfo describes it, for raw (unrectified) images.

    ``distortion_model`` is "none", "plumb_bob" (k1 k2 t1 t2 k3), "rational_polynomial" (k1 k2 t1 t2 k3 k4 k5 k6, with OpenCV's
    thin prism s1 s2 s3 s4 of 12 coefficients, and the tilt tx ty of 14) or "equidistant" (k1 k2 k3 k4). Focal lengths,
    principal point and ``skew``, K[0, 1], are in pixels of an image of ``width`` x ``height``.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion_model: str = "none"
    distortion: tuple[float, ...] = ()
    skew: float = 0.0

    @property
    def matrix(self) -> F64:
        """The (3, 3) intrinsic matrix K."""
        return np.array([[self.fx, self.skew, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, slots=True, eq=False)
class StampedTransform:
    """One geometry_msgs/TransformStamped: ``parent_from_child`` (4, 4) at ``stamp_ns``."""

    stamp_ns: int
    parent: str
    child: str
    parent_from_child: F64


# --------------------------------------------------------------------------------------------------------------------
# Samples: what decode makes of one message


@dataclass(frozen=True, slots=True, eq=False)
class ImageSample:
    """One colour image; ``pixels`` (H, W, 3) uint8, red-green-blue, grey images repeated to three channels."""

    stamp_ns: int
    frame_id: str
    pixels: U8


@dataclass(frozen=True, slots=True, eq=False)
class DepthSample:
    """One depth image (REP 118); ``depth_m`` (H, W) float32, metres along z.

    NaN is no reading, -inf nearer than the sensor can measure, +inf farther.
    """

    stamp_ns: int
    frame_id: str
    depth_m: F32


@dataclass(frozen=True, slots=True, eq=False)
class CloudSample:
    """One LiDAR sweep or point cloud; points without a finite position, or at exactly (0, 0, 0) (no return), removed.

    ``points`` (3, N) float32 metres in ``frame_id``; ``intensity`` (N,) float32 in the driver's unit (zeros where the
    cloud has none); ``ring`` (N,) uint16 or None; ``time_ns`` (N,) int64, the absolute stamp of each point, or None
    where the cloud carries no point times. ``start_ns`` <= ``end_ns`` is what the sweep covers (both ``stamp_ns``
    without point times). ``times_unknown`` of the points have no time that a sweep could last to, and the median of the
    others in ``time_ns``; ``times_taken_for`` says for people which field, unit and clock the times are, or why there are none.
    """

    stamp_ns: int
    frame_id: str
    points: F32
    intensity: F32
    ring: U16 | None
    time_ns: I64 | None
    start_ns: int
    end_ns: int
    times_unknown: int = 0
    times_taken_for: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class EventSample:
    """The change events of one packet, in the order of the sensor.

    ``x`` (N,) and ``y`` (N,) uint16 pixels of a ``width`` x ``height`` sensor (0 x 0 where the message does not tell: the
    CameraInfo does), ``polarity`` (N,) uint8 (1 brighter, 0 darker), ``time_ns`` (N,) int64 on the ROS clock. N may be 0: the
    packet still tells that time has passed, up to ``end_ns``: but for what a sensor steps back, no event up to it is to come.
    """

    stamp_ns: int
    frame_id: str
    width: int
    height: int
    x: U16
    y: U16
    polarity: U8
    time_ns: I64
    end_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class CameraInfoSample:
    """The intrinsics of one camera; ``modality`` says whose."""

    stamp_ns: int
    frame_id: str
    modality: Modality
    camera: CameraModel


@dataclass(frozen=True, slots=True, eq=False)
class TransformSample:
    """The transforms of one tf2_msgs/TFMessage; ``static`` when it came from /tf_static. Stamp: the newest inside."""

    stamp_ns: int
    static: bool
    transforms: tuple[StampedTransform, ...]


SensorSample: TypeAlias = ImageSample | DepthSample | CloudSample | EventSample
Sample: TypeAlias = SensorSample | CameraInfoSample | TransformSample


# --------------------------------------------------------------------------------------------------------------------
# SensorFrame: what synchronize makes of samples


MotionNote = Literal[
    "",  # absent, the reference itself, or motion is not looked at (motion.fixed_frame is empty)
    "compensated",  # brought to where the reference camera was at its own stamp; a sweep point by point
    "no_point_times",  # a sweep without point times, brought there as one piece
    "no_odometry",  # the fixed frame is not known at the stamps needed: taken as if nothing had moved
]

MissingReason = Literal[
    "",  # present
    "not_configured",  # the rig has no such sensor
    "never_seen",  # no sample since the start or the last reset
    "late",  # samples came before, none in time for this frame
    "outside_slop",  # samples on time, but none close enough in stamp
    "no_camera_info",  # intrinsics of this modality or of the reference unknown
    "no_transform",  # no path between the frames in the transform tree
]


@dataclass(frozen=True, slots=True)
class ModalityStatus:
    """What one frame has of one modality.

    ``skew_ns`` is the stamp of the data used minus the stamp of the reference (for a sweep that covers the stamp and for
    an event window: 0), None when missing. ``detail`` is one sentence for people when missing, when ``motion`` is
    "no_odometry" or when the intrinsics came for an image of another size, else "".
    """

    modality: Modality
    present: bool
    reason: MissingReason
    skew_ns: int | None
    detail: str = ""
    motion: MotionNote = ""


DoubtReason = Literal[
    "clock_offset",  # stamps are ahead of the reference's by more than frames wait
    "no_stamps",  # all stamps are zero
    "several_frames",  # messages of one topic name several frames
    "several_sizes",  # images of one topic have several sizes
    "two_parents",  # transforms give one frame several parents
    "outside_image",  # no point of a sweep falls into the reference's image
    "scaled_camera_info",  # CameraInfo came for another size of the same aspect ratio
    "body_axes",  # the frame of a camera has the axes of a body, not optical ones
]


@dataclass(frozen=True, slots=True)
class Doubt:
    """What is probably wrong with data that comes all the same; ``detail`` is one sentence for people."""

    about: Modality | Literal["tf"]
    reason: DoubtReason
    detail: str


@dataclass(frozen=True, slots=True, eq=False)
class EventWindow:
    """Events with ``start_ns`` <= t < ``end_ns`` joined over packets; arrays as in EventSample.

    Of a window by count, ``start_ns`` is the time of its first event.
    """

    start_ns: int
    end_ns: int
    frame_id: str
    width: int
    height: int
    x: U16
    y: U16
    polarity: U8
    time_ns: I64


@dataclass(frozen=True, slots=True)
class Placement:
    """Data that a frame would take, as asked of the calibration: can it be brought to the reference camera at ``stamp_ns``?

    ``start_ns`` <= ``end_ns``: when the data was measured, one stamp but for a sweep with point times (an event window: the
    reference's stamp, at which it ends). ``size`` is the image's (width, height), None for the LiDAR.
    """

    modality: Modality
    frame_id: str
    start_ns: int
    end_ns: int
    size: tuple[int, int] | None
    reference_frame_id: str
    stamp_ns: int

    @classmethod
    def of(cls, data: SensorSample | EventWindow, image: ImageSample) -> Placement:
        """Say it of what the frame of a reference image takes; of events, one packet of the window tells it as well."""
        modality: Modality = "rgb"
        start_ns = end_ns = image.stamp_ns
        size: tuple[int, int] | None = None
        if isinstance(data, ImageSample):
            size = data.pixels.shape[1], data.pixels.shape[0]
        elif isinstance(data, DepthSample):
            modality, start_ns, end_ns = "depth", data.stamp_ns, data.stamp_ns
            size = data.depth_m.shape[1], data.depth_m.shape[0]
        elif isinstance(data, CloudSample):
            modality, start_ns, end_ns = "lidar", data.start_ns, data.end_ns
        else:
            modality = "event"
            size = (data.width, data.height) if data.width else None  # clouds of events do not tell it
        return cls(modality, data.frame_id, start_ns, end_ns, size, image.frame_id, image.stamp_ns)


@dataclass(frozen=True, slots=True, eq=False)
class SweepMotion:
    """How the LiDAR moved during a sweep, seen from where the reference camera was at its stamp.

    ``stamps_ns`` (K,) int64, rising, K >= 2, from the first point's time to the last one's; ``reference_from_lidar``
    (K, 4, 4) float64, from the LiDAR's frame at that time to the reference's optical frame at the reference stamp. Between
    two of them a point is blended linearly, so they lie close enough for that.
    """

    stamps_ns: I64
    reference_from_lidar: F64


@dataclass(frozen=True, slots=True, eq=False)
class DetectionFrames:
    """The frames of 3D detection at the reference stamp, as far as the transform tree knows them.

    ``reference_from_base`` (4, 4): from the detector's frame, which has body axes (REP 103: x forward, y left, z up), to the
    reference's optical frame. ``output_from_reference`` (4, 4): from there to ``output_frame_id``, in which boxes go out. None
    where unknown, and then ``detail`` is one sentence for people that names both frames, else "".
    """

    reference_from_base: F64 | None
    output_frame_id: str
    output_from_reference: F64 | None
    detail: str = ""

    @property
    def known(self) -> bool:
        """Whether boxes can be made and placed."""
        return self.reference_from_base is not None and self.output_from_reference is not None


@dataclass(frozen=True, slots=True, eq=False)
class FrameCalibration:
    """Intrinsics and extrinsics of one frame, resolved at its stamp; None where unknown or not needed.

    Extrinsics lead to the reference's frame at the reference stamp, from the sensor's frame at its own data's stamp where
    odometry is known (``ModalityStatus.motion``). ``lidar_motion`` is there where each point has its own pose. ``detections``
    is there where ``detections.enabled`` asks for boxes.
    """

    reference: CameraModel | None
    depth: CameraModel | None = None
    event: CameraModel | None = None
    reference_from_depth: F64 | None = None
    reference_from_event: F64 | None = None
    reference_from_lidar: F64 | None = None
    lidar_motion: SweepMotion | None = None
    detections: DetectionFrames | None = None


@dataclass(frozen=True, slots=True)
class StageTime:
    """Time one stage took for one frame, by the clock that the caller gave to the pipeline."""

    stage: str
    duration_ns: int


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """Which frame this is and what it has; one header goes with all that is made of one reference image.

    ``index`` counts frames from 0; stamp and frame are the reference image's. ``status`` has one entry per configured modality,
    in the order of the configuration.
    """

    index: int
    stamp_ns: int
    frame_id: str
    status: tuple[ModalityStatus, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _OfFrame:
    """Something made of one reference image; the header's fields are read from it directly."""

    header: FrameHeader

    @property
    def index(self) -> int:
        """The frame's number, from 0."""
        return self.header.index

    @property
    def stamp_ns(self) -> int:
        """The reference image's stamp."""
        return self.header.stamp_ns

    @property
    def frame_id(self) -> str:
        """The reference image's frame."""
        return self.header.frame_id

    @property
    def status(self) -> tuple[ModalityStatus, ...]:
        """What the frame has of each configured modality."""
        return self.header.status


@dataclass(frozen=True, slots=True, eq=False)
class SensorFrame(_OfFrame):
    """What the sensors saw at the stamp of one reference image.

    A modality whose status says absent has None here. ``calibration`` is None until the front of the pipeline has resolved it.
    ``timings`` are of the stages up to here, for all messages since the frame before; none without a clock.
    """

    rgb: ImageSample
    depth: DepthSample | None
    lidar: CloudSample | None
    event: EventWindow | None
    calibration: FrameCalibration | None = None
    timings: tuple[StageTime, ...] = ()


# --------------------------------------------------------------------------------------------------------------------
# AlignedGrids: what project makes of a frame


@dataclass(frozen=True, slots=True, eq=False)
class AlignedGrid:
    """One modality on the pixels of the network's input.

    ``channels`` (3, h, w) float32 in [0, 1] (docs/projection.md has the formula per modality and encoding; zeros where
    there is no data); ``valid`` (h, w) bool, where this modality has data; ``depth_m`` (h, w) float32 metres along the
    reference camera's z, NaN where invalid, for depth and LiDAR, None for the others; ``reading`` (h, w) uint8 for depth
    alone: NO_READING, READING, TOO_NEAR or TOO_FAR (``valid`` is where it is READING).
    """

    modality: Modality
    channels: F32
    valid: Bool
    depth_m: F32 | None = None
    reading: U8 | None = None

    @property
    def coverage(self) -> float:
        """Share of pixels with data, 0 to 1."""
        return float(np.count_nonzero(self.valid)) / self.valid.size


@dataclass(frozen=True, slots=True)
class GridGeometry:
    """How the network's grid lies in the reference image: ``u_ref = (u_grid + 0.5) / scale_x + left - 0.5``, same for v.

    ``reference_width`` x ``reference_height`` is the image, ``width`` x ``height`` the grid, (left, top, crop_width,
    crop_height) the part of the image that the grid shows, in reference pixels.
    """

    reference_width: int
    reference_height: int
    width: int
    height: int
    left: int
    top: int
    crop_width: int
    crop_height: int

    @property
    def scale_x(self) -> float:
        """Grid pixels per reference pixel, horizontally."""
        return self.width / self.crop_width

    @property
    def scale_y(self) -> float:
        """Grid pixels per reference pixel, vertically."""
        return self.height / self.crop_height


PointSource = Literal["lidar", "depth"]


@dataclass(frozen=True, slots=True, eq=False)
class AlignedPoints:
    """One frame's points in space, and where the grid shows them; N may be 0.

    ``points_m`` (N, 3) float32: x, y, z in the base frame (body axes: x forward, y left, z up) at the reference stamp, all
    finite; motion is undone as in the grids. ``intensity`` (N,) float32 in [0, 1]: the LiDAR's / ``lidar.max_intensity``, 0
    where there is none. ``pixels`` (N, 2) float32: u, v on the grid, -1 where the point is outside of it. ``visible`` (N,)
    bool: inside the grid, and no nearer surface hides it (``gemini_core/project/points.py`` has the rule). ``rows`` (N,) int32,
    rising: index into the CloudSample's points, or, of points that depth made, flat index of the grid's pixel. ``dropped``:
    points left out since their place in the base frame is not finite. ``reference_from_base`` (4, 4) leads to the reference's
    optical frame.
    """

    source: PointSource
    points_m: F32
    intensity: F32
    pixels: F32
    visible: Bool
    rows: I32
    reference_from_base: F64
    dropped: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class AlignedGrids(_OfFrame):
    """Everything one frame has, on the same pixels. ``camera`` is the reference camera at grid size (None if unknown).

    ``points`` are there where boxes or labelled points are wanted and the frame has a sweep, or a depth image, and a base frame
    to bring them to.
    """

    geometry: GridGeometry
    camera: CameraModel | None
    grids: tuple[AlignedGrid, ...]
    points: AlignedPoints | None = None

    def grid(self, modality: Modality) -> AlignedGrid | None:
        """The grid of a modality, None where the frame lacks it."""
        return next((grid for grid in self.grids if grid.modality == modality), None)


# --------------------------------------------------------------------------------------------------------------------
# Perception: what comes out


@dataclass(frozen=True, slots=True)
class Detection3D:
    """One oriented box: centre (metres), size along its own x, y, z (metres), orientation quaternion (x, y, z, w).

    ``covariance`` (36 numbers, row by row) is of x, y, z (metres) and of turns about the frame's x, y, z (radians), as
    geometry_msgs/PoseWithCovariance has it; None where it is not known.
    """

    class_name: str
    score: float
    center_m: tuple[float, float, float]
    size_m: tuple[float, float, float]
    orientation_xyzw: tuple[float, float, float, float]
    covariance: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Perception(_OfFrame):
    """What the pipeline says about one reference image.

    ``mask`` (H, W) uint8 class indices at the size of the reference image, 255 where undecided (outside the crop, or no
    model); ``class_names[i]`` names index i; ``detections`` are in the base frame, as ``grids.points`` are. ``image`` (H, W, 3)
    uint8 is what the mask lies on: the reference image, rectified where ``rgb.rectify`` asks for it. ``detection_frames`` (None
    where boxes are not asked for) leads to where boxes go out; where it is not ``known``, that there are no detections says
    nothing. ``timings`` are of the stages from the frame on.
    """

    mask: U8
    class_names: tuple[str, ...]
    detections: tuple[Detection3D, ...]
    grids: AlignedGrids
    image: U8
    timings: tuple[StageTime, ...] = ()
    detection_frames: DetectionFrames | None = None


# --------------------------------------------------------------------------------------------------------------------
# Counters


@dataclass(frozen=True, slots=True)
class Count:
    """How often something happened: ``what`` is a stable key such as "frames_closed" or "depth.dropped.out_of_order"."""

    what: str
    number: int

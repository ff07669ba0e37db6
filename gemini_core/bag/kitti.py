"""KITTI recordings as bags, so that the same node and the same replay run on them.

Two layouts of KITTI raw are read: a drive as published (``image_02/data/*.png``, ``velodyne_points/data/*.bin``,
``timestamps.txt`` in both, ``calib_*.txt`` in the folder of the date above), and the short one with ``calib.json``,
``image_02/*.png`` and ``velodyne/*.bin``. KITTI object is ``image_2 velodyne calib label_2`` with one file per frame.

The geometry follows Geiger et al., "Vision meets Robotics: The KITTI Dataset", IJRR 2013, section IV:
``pixel ~ P_rect @ R_rect @ camera0_from_velodyne @ point``. P_rect = K [I | t], so the rectified colour camera's own frame is
camera 0's moved by t; its transform to the Velodyne goes to /tf_static. Points are metres, stamps nanoseconds.
"""

from __future__ import annotations

import calendar
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from gemini_core.bag import messages
from gemini_core.bag.writer import BagWriter, Storage
from gemini_core.errors import DataError
from gemini_core.types import F64, CameraModel, Detection3D, StampedTransform

IMAGE_TOPIC = "/rgb/image"
CAMERA_INFO_TOPIC = "/rgb/camera_info"
POINTS_TOPIC = "/lidar/points"
GROUND_TRUTH_TOPIC = "/ground_truth/detections"
CAMERA_FRAME = "rgb_optical_frame"
LIDAR_FRAME = "velodyne"

EPOCH_NS = 1_000_000_000 * 1_000_000_000
"""Stamp of the first frame of a recording that has no times of its own (9 September 2001)."""
RAW_PERIOD_NS = 100_000_000
OBJECT_PERIOD_NS = 1_000_000_000

POINT_DTYPE = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4")])

LABEL_COLUMNS = 15  # type truncated occluded alpha, box in the image (4), h w l, x y z, rotation_y; results add a score

Progress = Callable[[int, int], None]
"""Called with the number of frames written and the number of all."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What a conversion wrote: numbers of messages, and the sweeps missing beside an image."""

    images: int
    sweeps: int
    boxes: int
    images_without_sweep: int


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """One frame's calibration; ``projection`` (3, 4) of the rectified colour camera, pixels from metres."""

    projection: F64
    rectified_from_velodyne: F64

    @property
    def camera_from_rectified(self) -> F64:
        """The (4, 4) shift from rectified camera 0 to the colour camera, from P_rect = K [I | t]."""
        shift = np.eye(4)
        shift[:3, 3] = np.linalg.solve(self.projection[:, :3], self.projection[:, 3])
        return shift

    @property
    def velodyne_from_camera(self) -> F64:
        """The (4, 4) transform for /tf_static, with the nearest true rotation to the rounded numbers of the file."""
        camera_from_velodyne = self.camera_from_rectified @ self.rectified_from_velodyne
        velodyne_from_camera = np.eye(4)
        velodyne_from_camera[:3, :3] = Rotation.from_matrix(camera_from_velodyne[:3, :3]).as_matrix().T
        velodyne_from_camera[:3, 3] = -velodyne_from_camera[:3, :3] @ camera_from_velodyne[:3, 3]
        return velodyne_from_camera

    def camera(self, width: int, height: int) -> CameraModel:
        """Give the intrinsics for an image of this size; rectified images have no distortion."""
        k = self.projection
        return CameraModel(width, height, float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2]))


# --------------------------------------------------------------------------------------------------------------------
# Conversions


def from_kitti_raw(
    folder: str | Path, out: str | Path, storage: Storage = "mcap", *, overwrite: bool = False, progress: Progress | None = None
) -> Converted:
    """Write one drive of KITTI raw as a bag: left colour camera and Velodyne, each with its own stamps.

    Raises:
        DataError: a file is missing, cannot be read, or has an impossible size.
        BagError: the bag cannot be written.
    """
    folder = Path(folder)
    image_folder, sweep_folder = _raw_folders(folder)
    calibration = _read_raw_calibration(folder)
    images = _numbered(image_folder, ".png")
    sweeps = _numbered(sweep_folder, ".bin")
    image_stamps = _raw_stamps(image_folder, images)
    sweep_stamps = _raw_stamps(sweep_folder, sweeps)
    jobs = [(image_stamps[number], 0, path) for number, path in images.items()]
    jobs += [(sweep_stamps[number], 1, path) for number, path in sweeps.items()]
    jobs.sort()
    with BagWriter(out, storage, overwrite=overwrite) as bag:
        _write_transform(bag, "/tf_static", calibration, jobs[0][0])
        for done, (stamp_ns, is_sweep, path) in enumerate(jobs):
            if is_sweep:
                _write_sweep(bag, path, stamp_ns)
            else:
                _write_image(bag, path, calibration, stamp_ns)
            if progress is not None:
                progress(done + 1, len(jobs))
    return Converted(len(images), len(sweeps), 0, len(images.keys() - sweeps.keys()))


def from_kitti_object(
    folder: str | Path, out: str | Path, storage: Storage = "mcap", *, overwrite: bool = False, progress: Progress | None = None
) -> Converted:
    """Write frames of KITTI object as a bag, one second apart, with the labelled boxes where label_2 exists.

    The frames come from different drives, so where their calibrations differ the transform goes to /tf with each frame.

    Raises:
        DataError: a file is missing, cannot be read, or is not what KITTI's formats promise.
        BagError: the bag cannot be written.
    """
    folder = Path(folder)
    images = _numbered(folder / "image_2", ".png")
    labelled = (folder / "label_2").is_dir()
    calibrations = [_read_object_calibration(folder / "calib" / f"{path.stem}.txt") for path in images.values()]
    first = calibrations[0].velodyne_from_camera
    same = all(np.array_equal(each.velodyne_from_camera, first) for each in calibrations)
    boxes = 0
    with BagWriter(out, storage, overwrite=overwrite) as bag:
        for done, (path, calibration) in enumerate(zip(images.values(), calibrations, strict=True)):
            stamp_ns = EPOCH_NS + done * OBJECT_PERIOD_NS
            if not (same and done):
                _write_transform(bag, "/tf_static" if same else "/tf", calibration, stamp_ns)
            _write_image(bag, path, calibration, stamp_ns)
            _write_sweep(bag, folder / "velodyne" / f"{path.stem}.bin", stamp_ns)
            if labelled:
                found = read_labels(folder / "label_2" / f"{path.stem}.txt", calibration)
                bag.write(GROUND_TRUTH_TOPIC, messages.detections(found, stamp_ns, CAMERA_FRAME), stamp_ns)
                boxes += len(found)
            if progress is not None:
                progress(done + 1, len(images))
    return Converted(len(images), len(images), boxes, 0)


def _write_transform(bag: BagWriter, topic: str, calibration: Calibration, stamp_ns: int) -> None:
    transform = StampedTransform(stamp_ns, LIDAR_FRAME, CAMERA_FRAME, calibration.velodyne_from_camera)
    bag.write(topic, messages.tf_message([transform]), stamp_ns)


def _write_image(bag: BagWriter, path: Path, calibration: Calibration, stamp_ns: int) -> None:
    pixels = read_image(path)
    height, width = pixels.shape[:2]
    info = messages.camera_info(calibration.camera(width, height), stamp_ns, CAMERA_FRAME)
    bag.write(CAMERA_INFO_TOPIC, info, stamp_ns)
    bag.write(IMAGE_TOPIC, messages.image(pixels, "bgr8", stamp_ns, CAMERA_FRAME), stamp_ns)


def _write_sweep(bag: BagWriter, path: Path, stamp_ns: int) -> None:
    bag.write(POINTS_TOPIC, messages.point_cloud(read_sweep(path), stamp_ns, LIDAR_FRAME), stamp_ns)


# --------------------------------------------------------------------------------------------------------------------
# Files


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read a PNG as (H, W, 3) uint8, blue-green-red.

    Raises:
        DataError: missing, or not an image.
    """
    pixels = cv2.imdecode(np.frombuffer(_read_bytes(path) or b"\0", np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        msg = f"{path}: expected an image, got bytes that cannot be decoded as one"
        raise DataError(msg)
    return pixels.astype(np.uint8, copy=False)


def read_sweep(path: Path) -> npt.NDArray[np.void]:
    """Read a Velodyne sweep as a structured array (N,) of x, y, z (metres) and intensity (reflectance 0 to 1).

    Raises:
        DataError: missing, empty, or not a whole number of points.
    """
    data = _read_bytes(path)
    if not data or len(data) % POINT_DTYPE.itemsize:
        msg = f"{path}: expected points of {POINT_DTYPE.itemsize} bytes (x y z reflectance, float32), got {len(data)} bytes"
        raise DataError(msg)
    return np.frombuffer(data, dtype=POINT_DTYPE)


def read_labels(path: Path, calibration: Calibration) -> tuple[Detection3D, ...]:
    """Read the labelled boxes (but DontCare) of one frame, in the colour camera's frame.

    KITTI gives h, w, l, the centre of the bottom face in rectified camera 0 (y down) and the heading ry about y; a box of ours
    has its centre in the middle and own axes x forward, y left, z up with the size (l, w, h).

    Raises:
        DataError: missing, or a line that is not a KITTI label.
    """
    boxes = []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        columns = line.split()
        if not columns or columns[0] == "DontCare":
            continue
        try:
            values = [float(value) for value in columns[1:]]
        except ValueError:
            values = []
        if len(columns) not in (LABEL_COLUMNS, LABEL_COLUMNS + 1) or len(values) != len(columns) - 1:
            msg = f"{path}:{number}: expected a type and {LABEL_COLUMNS - 1} numbers, got {line!r}"
            raise DataError(msg)
        height, width, length, x, y, z, heading = values[7:14]
        shift = calibration.camera_from_rectified[:3, 3]
        center = np.array([x, y - height / 2, z]) + shift
        # columns: where the box's own forward, left and up point in a camera that the object's heading is 0 to
        upright = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
        turned = Rotation.from_euler("y", heading).as_matrix() @ upright
        boxes.append(
            Detection3D(
                class_name=columns[0].lower(),
                score=values[14] if len(values) == LABEL_COLUMNS else 1.0,
                center_m=(float(center[0]), float(center[1]), float(center[2])),
                size_m=(length, width, height),
                orientation_xyzw=messages.quaternion_xyzw(turned),
            )
        )
    return tuple(boxes)


def _read_raw_calibration(folder: Path) -> Calibration:
    if (folder / "calib.json").is_file():
        path = folder / "calib.json"
        try:
            values = json.loads(_read_text(path))
            return _calibration(path, values["P_rect"], values["R_rect"], values["camera0_from_velodyne"])
        except (ValueError, KeyError, TypeError) as error:
            msg = f"{path}: expected P_rect, R_rect and camera0_from_velodyne as matrices, got {type(error).__name__} {error}"
            raise DataError(msg) from None
    cameras_path, velodyne_path = _date_file(folder, "calib_cam_to_cam.txt"), _date_file(folder, "calib_velo_to_cam.txt")
    cameras = _read_table(cameras_path, {"P_rect_02": (3, 4), "R_rect_00": (3, 3)})
    velodyne = _read_table(velodyne_path, {"R": (3, 3), "T": (3, 1)})
    camera0_from_velodyne = np.vstack([np.hstack([velodyne["R"], velodyne["T"]]), [0.0, 0.0, 0.0, 1.0]])
    return _calibration(cameras_path, cameras["P_rect_02"], cameras["R_rect_00"], camera0_from_velodyne)


def _read_object_calibration(path: Path) -> Calibration:
    table = _read_table(path, {"P2": (3, 4), "R0_rect": (3, 3), "Tr_velo_to_cam": (3, 4)})
    camera0_from_velodyne = np.vstack([table["Tr_velo_to_cam"], [0.0, 0.0, 0.0, 1.0]])
    return _calibration(path, table["P2"], table["R0_rect"], camera0_from_velodyne)


def _calibration(path: Path, projection: object, rotation: object, camera0_from_velodyne: object) -> Calibration:
    shapes = {"projection": (3, 4), "rectification": (3, 3), "Velodyne transform": (4, 4)}
    matrices = []
    for (name, shape), values in zip(shapes.items(), (projection, rotation, camera0_from_velodyne), strict=True):
        matrix = np.asarray(values, dtype=np.float64)
        if matrix.shape != shape or not np.isfinite(matrix).all():
            msg = f"{path}: expected a {name} of {shape[0]} x {shape[1]} finite numbers, got {matrix.shape}"
            raise DataError(msg)
        matrices.append(matrix)
    if matrices[0][0, 0] <= 0 or matrices[0][1, 1] <= 0 or np.linalg.det(matrices[1]) <= 0:
        msg = f"{path}: expected focal lengths above 0 and a rotation, got a camera that cannot be"
        raise DataError(msg)
    rectification = np.eye(4)
    rectification[:3, :3] = matrices[1]
    return Calibration(matrices[0], rectification @ matrices[2])


def _read_table(path: Path, shapes: dict[str, tuple[int, int]]) -> dict[str, F64]:
    """Read some lines ``name: numbers`` of a KITTI calibration file as matrices."""
    lines = dict(line.split(":", 1) for line in _read_text(path).splitlines() if ":" in line)
    return {name: _parse_matrix(path, name, lines.get(name, ""), shape) for name, shape in shapes.items()}


def _parse_matrix(path: Path, name: str, text: str, shape: tuple[int, int]) -> F64:
    try:
        return np.array(text.split(), dtype=np.float64).reshape(shape)
    except ValueError:
        msg = f"{path}: expected a line '{name}:' with {shape[0] * shape[1]} numbers, got {text.strip() or 'none'!r}"
        raise DataError(msg) from None


def _date_file(folder: Path, name: str) -> Path:
    """Find a calibration file in the drive's folder or, as published, in the folder of its date."""
    for candidate in (folder / name, folder.absolute().parent / name):
        if candidate.is_file():
            return candidate
    msg = f"{folder}: expected calib.json here, or {name} here or in the folder above, got neither"
    raise DataError(msg)


def _raw_folders(folder: Path) -> tuple[Path, Path]:
    if not folder.is_dir():
        msg = f"{folder}: expected a folder with a KITTI raw drive, got nothing at this path"
        raise DataError(msg)
    sweeps = folder / "velodyne"
    if not sweeps.is_dir():
        sweeps = folder / "velodyne_points"
    return _data_folder(folder / "image_02"), _data_folder(sweeps)


def _data_folder(folder: Path) -> Path:
    return folder / "data" if (folder / "data").is_dir() else folder


def _numbered(folder: Path, suffix: str) -> dict[int, Path]:
    """Give the files ``<number><suffix>`` of a folder by number, in order."""
    paths = sorted(folder.glob(f"*{suffix}")) if folder.is_dir() else []
    if not paths:
        msg = f"{folder}: expected files 0000000000{suffix}, ..., got none"
        raise DataError(msg)
    for path in paths:
        if not path.stem.isdecimal():
            msg = f"{path}: expected a frame number as the file's name, got {path.stem!r}"
            raise DataError(msg)
    return {int(path.stem): path for path in paths}


def _raw_stamps(folder: Path, numbers: Iterable[int]) -> dict[int, int]:
    """Give the stamp of each frame number: line N of timestamps.txt, or 10 Hz from :data:`EPOCH_NS` without that file."""
    path = next((each for each in (folder / "timestamps.txt", folder.parent / "timestamps.txt") if each.is_file()), None)
    if path is None:
        return {number: EPOCH_NS + number * RAW_PERIOD_NS for number in numbers}
    lines = _read_text(path).split("\n")
    stamps = {}
    for number in numbers:
        line = lines[number].strip() if number < len(lines) else ""
        try:
            stamps[number] = _parse_stamp(line)
        except ValueError:
            msg = f"{path}:{number + 1}: expected a time like 2011-09-26 13:02:25.964389445, got {line!r}"
            raise DataError(msg) from None
    return stamps


def _parse_stamp(text: str) -> int:
    """Turn KITTI's time, which names no zone, into nanoseconds as if it were UTC."""
    seconds, _, fraction = text.partition(".")
    whole = calendar.timegm(time.strptime(seconds, "%Y-%m-%d %H:%M:%S"))
    return whole * 1_000_000_000 + int(fraction.ljust(9, "0")[:9] or "0")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        msg = f"{path}: expected a readable file, got {error.strerror}"
        raise DataError(msg) from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: expected a readable text file, got {error}"
        raise DataError(msg) from None

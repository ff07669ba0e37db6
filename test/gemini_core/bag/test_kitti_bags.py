"""KITTI as bags: geometry held against the facts known of these recordings, and bad files named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gemini_core.bag import kitti
from gemini_core.bag.reader import BagReader
from gemini_core.config.fusion import load_config
from gemini_core.errors import DataError

REPOSITORY = Path(__file__).resolve().parents[3]


def camera_from_velodyne(bag: BagReader) -> np.ndarray:
    (transform,) = next(bag.messages(["/tf_static"])).message.transforms
    assert (transform.header.frame_id, transform.child_frame_id) == (kitti.LIDAR_FRAME, kitti.CAMERA_FRAME)
    turn, shift = transform.transform.rotation, transform.transform.translation
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
    matrix[:3, 3] = [shift.x, shift.y, shift.z]
    return np.linalg.inv(matrix)


def points_in_camera(message, matrix: np.ndarray) -> np.ndarray:
    points = np.frombuffer(message.data, np.float32).reshape(-1, 4)[:, :3].T.astype(float)
    return matrix[:3, :3] @ points + matrix[:3, 3:]


@pytest.fixture(scope="session")
def raw_bag(real_dir, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("kitti") / "raw"
    done = kitti.from_kitti_raw(real_dir / "kitti_raw", path)
    assert (done.images, done.sweeps, done.images_without_sweep) == (16, 16, 0)
    return path


def test_raw_points_fall_into_the_image_as_known(raw_bag):
    with BagReader(raw_bag) as bag:
        counts = {topic.name: (topic.count, round(topic.rate_hz, 3)) for topic in bag.topics()}
        assert counts == {
            "/rgb/image": (16, 10.0),
            "/rgb/camera_info": (16, 10.0),
            "/lidar/points": (16, 10.0),
            "/tf_static": (1, 0.0),
        }
        info = next(bag.messages(["/rgb/camera_info"])).message
        image = next(bag.messages(["/rgb/image"])).message
        cloud = next(bag.messages(["/lidar/points"])).message
        points = points_in_camera(cloud, camera_from_velodyne(bag))
    assert (info.width, info.height) == (image.width, image.height) == (1242, 375)
    assert cloud.header.stamp == image.header.stamp == info.header.stamp
    assert 100_000 < points.shape[1] < 130_000
    points = points[:, points[2] > 0]
    u, v, _ = info.k.reshape(3, 3) @ points / points[2]
    inside = int(((u >= 0) & (u < 1242) & (v >= 0) & (v < 375)).sum())
    assert inside == pytest.approx(16_430, rel=0.01)


def test_images_are_kept_pixel_for_pixel(raw_bag, real_dir):
    with BagReader(raw_bag) as bag:
        image = next(bag.messages(["/rgb/image"])).message
    assert image.encoding == "bgr8"
    expected = cv2.imread(str(real_dir / "kitti_raw" / "image_02" / "0000000000.png"))
    assert np.array_equal(image.data.reshape(375, 1242, 3), expected)


def test_labelled_boxes_hold_the_known_points(real_dir, tmp_path):
    """The known counts take in points up to 0.1 m below the bottom face; without that margin frame 2 has 1351 and 67."""
    done = kitti.from_kitti_object(real_dir / "kitti_object", tmp_path / "object")
    assert (done.images, done.boxes) == (2, 5)
    with_margin, strict = [], []
    with BagReader(tmp_path / "object") as bag:
        matrix = camera_from_velodyne(bag)
        sweeps = [points_in_camera(stored.message, matrix) for stored in bag.messages(["/lidar/points"])]
        truths = [stored.message for stored in bag.messages(["/ground_truth/detections"])]
    for points, truth in zip(sweeps, truths, strict=True):
        assert truth.header.frame_id == kitti.CAMERA_FRAME
        for box in truth.detections:
            at, turn, size = box.bbox.center.position, box.bbox.center.orientation, box.bbox.size
            box_from_camera = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix().T
            x, y, z = box_from_camera @ (points - np.array([[at.x], [at.y], [at.z]]))
            column = (np.abs(x) <= size.x / 2) & (np.abs(y) <= size.y / 2) & (z <= size.z / 2)
            name = box.results[0].hypothesis.class_id
            with_margin.append((name, int((column & (z >= -size.z / 2 - 0.1)).sum())))
            strict.append((name, int((column & (z >= -size.z / 2)).sum())))
    assert with_margin == [("truck", 70), ("car", 9), ("cyclist", 18), ("misc", 1429), ("car", 80)]
    assert strict == [("truck", 70), ("car", 9), ("cyclist", 18), ("misc", 1351), ("car", 67)]


# --------------------------------------------------------------------------------------------------------------------
# A small recording of our own, in the layout that KITTI publishes

P_RECT = np.array([[700.0, 0.0, 8.0, 35.0], [0.0, 700.0, 6.0, 0.7], [0.0, 0.0, 1.0, 0.002]])
CAMERA0_FROM_VELODYNE = np.array(
    [[0.0, -1.0, 0.0, 0.1], [0.0, 0.0, -1.0, -0.2], [1.0, 0.0, 0.0, -0.3], [0.0, 0.0, 0.0, 1.0]],
)


def numbers(matrix: np.ndarray) -> str:
    return " ".join(f"{value:.9e}" for value in np.ravel(matrix))


def write_frame_files(images: Path, sweeps: Path, names: list[str]) -> None:
    images.mkdir(parents=True)
    sweeps.mkdir(parents=True)
    for name in names:
        assert cv2.imwrite(str(images / f"{name}.png"), np.full((12, 16, 3), 90, np.uint8))
        np.arange(40, dtype="<f4").tofile(sweeps / f"{name}.bin")


@pytest.fixture
def published_drive(tmp_path) -> Path:
    drive = tmp_path / "2011_09_26" / "2011_09_26_drive_0001_sync"
    write_frame_files(drive / "image_02" / "data", drive / "velodyne_points" / "data", ["0000000000", "0000000001"])
    (drive / "image_02" / "timestamps.txt").write_text("2011-09-26 13:02:25.964389445\n2011-09-26 13:02:26.074\n")
    (drive / "velodyne_points" / "timestamps.txt").write_text("2011-09-26 13:02:25.95\n2011-09-26 13:02:26.05\n")
    cameras = f"calib_time: 09-Jan-2012 13:57:47\nR_rect_00: {numbers(np.eye(3))}\nP_rect_02: {numbers(P_RECT)}\n"
    velodyne = f"R: {numbers(CAMERA0_FROM_VELODYNE[:3, :3])}\nT: {numbers(CAMERA0_FROM_VELODYNE[:3, 3])}\n"
    (drive.parent / "calib_cam_to_cam.txt").write_text(cameras)
    (drive.parent / "calib_velo_to_cam.txt").write_text(velodyne)
    return drive


@pytest.fixture
def objects(tmp_path) -> Path:
    folder = tmp_path / "objects"
    write_frame_files(folder / "image_2", folder / "velodyne", ["000007", "000009"])
    (folder / "calib").mkdir()
    table = f"P2: {numbers(P_RECT)}\nR0_rect: {numbers(np.eye(3))}\nTr_velo_to_cam: {numbers(CAMERA0_FROM_VELODYNE[:3])}\n"
    for name in ("000007", "000009"):
        (folder / "calib" / f"{name}.txt").write_text(table)
    return folder


def test_a_drive_as_published_keeps_its_times_and_its_projection(published_drive, tmp_path):
    kitti.from_kitti_raw(published_drive, tmp_path / "bag", storage="sqlite3")
    with BagReader(tmp_path / "bag") as bag:
        stamps = {topic: [stored.log_ns for stored in bag.messages([topic])] for topic in ("/rgb/image", "/lidar/points")}
        info = next(bag.messages(["/rgb/camera_info"])).message
        matrix = camera_from_velodyne(bag)
    second = 1_317_042_145_000_000_000  # 2011-09-26 13:02:25 UTC
    assert stamps["/rgb/image"] == [second + 964_389_445, second + 1_074_000_000]
    assert stamps["/lidar/points"] == [second + 950_000_000, second + 1_050_000_000]
    point = np.array([9.0, 1.5, -0.5, 1.0])  # through tf_static and K as through KITTI's own formula
    u, v, w = P_RECT @ CAMERA0_FROM_VELODYNE @ point
    ours = info.k.reshape(3, 3) @ (matrix @ point)[:3]
    assert ours[:2] / ours[2] == pytest.approx([u / w, v / w], abs=1e-6)


def test_a_box_stands_on_its_bottom_and_faces_along_its_x(objects):
    label = (
        "Car 0.00 0 0.0 0 0 9 9 1.5 1.6 4.0 2.0 1.7 20.0 {heading}\nDontCare -1 -1 -10 1 1 2 2 -1 -1 -1 -1000 -1000 -1000 -10\n"
    )
    calibration = kitti.Calibration(np.hstack([np.eye(3), np.zeros((3, 1))]), np.eye(4))
    path = objects / "label.txt"
    for heading, forward in ((0.0, (1, 0, 0)), (-np.pi / 2, (0, 0, 1)), (np.pi / 2, (0, 0, -1))):
        path.write_text(label.format(heading=heading))
        (box,) = kitti.read_labels(path, calibration)
        axes = Rotation.from_quat(box.orientation_xyzw).as_matrix()
        assert axes[:, 0] == pytest.approx(forward, abs=1e-9)
        assert axes[:, 2] == pytest.approx([0, -1, 0], abs=1e-9)  # up is against the camera's y
        assert np.linalg.det(axes) == pytest.approx(1.0)
        assert box.center_m == pytest.approx((2.0, 0.95, 20.0))
        assert box.size_m == (4.0, 1.6, 1.5)
        assert (box.class_name, box.score) == ("car", 1.0)


def test_frames_of_differing_calibration_carry_their_own_transform(objects, tmp_path):
    path = objects / "calib" / "000009.txt"
    path.write_text(path.read_text().replace(numbers(CAMERA0_FROM_VELODYNE[:3]), numbers(CAMERA0_FROM_VELODYNE[:3] * 0.999)))
    changed = kitti.from_kitti_object(objects, tmp_path / "bag")
    assert changed.boxes == 0
    with BagReader(tmp_path / "bag") as bag:
        counts = {topic.name: topic.count for topic in bag.topics()}
    assert counts == {"/tf": 2, "/rgb/image": 2, "/rgb/camera_info": 2, "/lidar/points": 2}


def spoil_sweep(drive: Path) -> None:
    (drive / "velodyne_points" / "data" / "0000000001.bin").write_bytes(b"\0" * 33)


def empty_sweep(drive: Path) -> None:
    (drive / "velodyne_points" / "data" / "0000000001.bin").write_bytes(b"")


def spoil_image(drive: Path) -> None:
    (drive / "image_02" / "data" / "0000000001.png").write_bytes(b"\x89PNG nothing")


def empty_image(drive: Path) -> None:
    (drive / "image_02" / "data" / "0000000001.png").write_bytes(b"")


def remove_calibration(drive: Path) -> None:
    (drive.parent / "calib_velo_to_cam.txt").unlink()


def shorten_calibration(drive: Path) -> None:
    (drive.parent / "calib_velo_to_cam.txt").write_text("R: 1 0 0 0 1 0 0 0\nT: 0 0 0\n")


def zero_focal_length(drive: Path) -> None:
    path = drive.parent / "calib_cam_to_cam.txt"
    path.write_text(path.read_text().replace(numbers(P_RECT), numbers(P_RECT * 0)))


def shorten_times(drive: Path) -> None:
    (drive / "image_02" / "timestamps.txt").write_text("2011-09-26 13:02:25.964389445\n")


def remove_sweeps(drive: Path) -> None:
    shutil.rmtree(drive / "velodyne_points")


def rename_image(drive: Path) -> None:
    (drive / "image_02" / "data" / "0000000001.png").rename(drive / "image_02" / "data" / "last.png")


def break_json(drive: Path) -> None:
    (drive / "calib.json").write_text(json.dumps({"P_rect": [[1]]}))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_sweep, "0000000001.bin.*33 bytes"),
        (empty_sweep, "0000000001.bin.*0 bytes"),
        (spoil_image, "0000000001.png.*image"),
        (empty_image, "0000000001.png.*image"),
        (remove_calibration, "calib_velo_to_cam.txt"),
        (shorten_calibration, "'R:' with 9 numbers"),
        (zero_focal_length, "focal lengths"),
        (shorten_times, "timestamps.txt:2"),
        (remove_sweeps, "velodyne_points"),
        (rename_image, "last.png.*frame number"),
        (break_json, "calib.json.*R_rect"),
    ],
)
def test_bad_drives_are_one_sentence_and_no_bag(published_drive, tmp_path, spoil, words):
    spoil(published_drive)
    with pytest.raises(DataError, match=words) as caught:
        kitti.from_kitti_raw(published_drive, tmp_path / "bag")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bag").exists()


def test_bad_object_folders_are_one_sentence_and_no_bag(objects, tmp_path):
    (objects / "label_2").mkdir()
    (objects / "label_2" / "000007.txt").write_text("Car 0.00 0 0.0 0 0 9 9 1.5 1.6 4.0\n")
    with pytest.raises(DataError, match=r"000007.txt:1: expected a type and 14 numbers"):
        kitti.from_kitti_object(objects, tmp_path / "bag")
    shutil.rmtree(objects / "label_2")
    (objects / "velodyne" / "000009.bin").unlink()
    with pytest.raises(DataError, match=r"000009.bin"):
        kitti.from_kitti_object(objects, tmp_path / "bag")
    with pytest.raises(DataError, match="nothing at this path"):
        kitti.from_kitti_raw(tmp_path / "nowhere", tmp_path / "bag")
    assert not (tmp_path / "bag").exists()


def test_the_shipped_rig_names_the_topics_of_these_bags():
    config = load_config(REPOSITORY / "config" / "kitti.yaml")
    assert config.modalities == ("rgb", "lidar")
    assert {kitti.IMAGE_TOPIC, kitti.CAMERA_INFO_TOPIC, kitti.POINTS_TOPIC} <= set(config.roles_by_absolute_topic())

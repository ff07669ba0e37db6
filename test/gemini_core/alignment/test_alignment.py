"""The check of alignment finds what was planted, names the transform to correct, and is quiet where all is well."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import cv2
import numpy as np
import open3d as o3d
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gemini_core.alignment.check import check_alignment, check_frames
from gemini_core.alignment.edges import LEVEL, UPRIGHT, depth_edges, image_edges, lidar_edges
from gemini_core.alignment.mount import Mount, correct
from gemini_core.alignment.report import to_text
from gemini_core.alignment.verdict import AXES, AlignmentReport, AxisFit, Pair, common_cause
from gemini_core.bag import kitti, messages
from gemini_core.bag.reader import BagReader
from gemini_core.bag.writer import BagWriter
from gemini_core.cli import EXIT_MISALIGNED, EXIT_WRONG_INPUT, main
from gemini_core.config.fusion import FusionConfig, from_flat
from gemini_core.decode.transforms import decode_transforms
from gemini_core.errors import DataError
from gemini_core.replay import Replay
from gemini_core.rig.geometry import project_points
from gemini_core.simulation.record import simulate
from gemini_core.types import (
    CameraModel,
    CloudSample,
    DepthSample,
    EventWindow,
    FrameCalibration,
    ImageSample,
    ModalityStatus,
    SensorFrame,
    StampedTransform,
)

KITTI = from_flat({"modalities": ["rgb", "lidar"]})
FOUND_DEG = 0.4  # a planted rotation is found to this
CAMERA = CameraModel(320, 240, 200.0, 200.0, 159.5, 119.5)


def turn(rotation_deg) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(rotation_deg, degrees=True).as_matrix()
    return matrix


def turned_bag(source: Path, target: Path, rotations_deg: dict[str, tuple[float, float, float]]) -> Path:
    """Copy a bag with the fixed transforms of some children turned, in the child's own frame."""
    with BagReader(source) as bag, BagWriter(target) as out:
        for stored in bag.messages():
            if stored.topic != "/tf_static":
                out.write_raw(stored.topic, stored.type, stored.data, stored.log_ns)
                continue
            known = decode_transforms(stored.message, static=True, topic=stored.topic).transforms
            changed = [
                dataclasses.replace(each, parent_from_child=each.parent_from_child @ turn(rotations_deg[each.child]))
                if each.child in rotations_deg
                else each
                for each in known
            ]
            out.write(stored.topic, messages.tf_message(changed), stored.log_ns)
    return target


def turned(frame: SensorFrame, rotation_deg) -> SensorFrame:
    """The frame with its LiDAR's transform turned about the reference's axes."""
    known = frame.calibration
    wrong = known.reference_from_lidar.copy()
    wrong[:3, :3] = turn(rotation_deg)[:3, :3] @ wrong[:3, :3]
    return dataclasses.replace(frame, calibration=dataclasses.replace(known, reference_from_lidar=wrong))


# --------------------------------------------------------------------------------------------------------------------
# Simulated recordings


@pytest.fixture(scope="session")
def street(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("alignment") / "street"
    simulate(path, seed=3, seconds=0.8, clutter=False)  # a street with enough near for depth to be held to the picture
    return path


@pytest.fixture(scope="session")
def well(street) -> AlignmentReport:
    """The report on the street as it is."""
    return check_alignment(street, FusionConfig()).report


def observable(report: AlignmentReport, modality: str) -> list[bool]:
    """Whether there is enough to be seen for a rotation about each axis; of depth, that depends on what is near."""
    (pair,) = (pair for pair in report.pairs if pair.modality == modality)
    return [axis.verdict == "fits" for axis in pair.axes]


def test_quiet_on_a_simulated_street(well):
    assert not well.warned
    assert observable(well, "lidar") == observable(well, "event") == [True] * 3
    assert any(observable(well, "depth"))
    for pair in well.pairs:
        assert pair.verdict == "fits", pair
        assert pair.score > 0.1
        assert max(abs(axis.best_deg) for axis in pair.axes if axis.verdict == "fits") <= FOUND_DEG
    assert well.depth_lidar.median_share < 0.02


# Axes of the LiDAR's own frame are forward, left, up; those of the cameras' right, down, forward.
REFERENCE_AXIS = {"lidar": (2, 0, 1), "depth": (0, 1, 2), "event": (0, 1, 2)}
PLANTED = (
    {"lidar": (1.0, 0.0, 0.0), "depth_optical": (0.0, 1.0, 0.0), "event_optical": (0.0, 0.0, -1.0)},
    {"lidar": (0.0, -1.0, 0.0), "depth_optical": (0.0, 0.0, 1.0), "event_optical": (1.0, 0.0, 0.0)},
    {"lidar": (0.0, 0.0, 1.0), "depth_optical": (-1.0, 0.0, 0.0), "event_optical": (0.0, -1.0, 0.0)},
)


@pytest.mark.parametrize("planted", PLANTED)
def test_finds_one_degree_planted_in_a_simulated_street(street, well, planted, tmp_path):
    wrong = turned_bag(street, tmp_path / "wrong", planted)
    report = check_alignment(wrong, FusionConfig()).report
    with BagReader(street) as bag:
        stored = next(bag.messages(("/tf_static",)))
        true = {each.child: each for each in decode_transforms(stored.message, static=True, topic="").transforms}
    for pair in report.pairs:
        rotation = planted[pair.sensor_frame]
        own_axis = int(np.flatnonzero(rotation)[0])
        seen = observable(well, pair.modality)
        if not seen[REFERENCE_AXIS[pair.modality][own_axis]]:
            continue
        assert pair.verdict == "off", to_text(report)
        assert pair.axes[REFERENCE_AXIS[pair.modality][own_axis]].verdict == "off"
        assert pair.sensor_rotation_deg[own_axis] == pytest.approx(-rotation[own_axis], abs=FOUND_DEG)
        correction = pair.correction
        assert (correction.parent, correction.child, correction.static) == ("base_link", pair.sensor_frame, True)
        assert correction.new_translation_m == pytest.approx(correction.translation_m)
        if all(seen):
            right = Rotation.from_matrix(true[pair.sensor_frame].parent_from_child[:3, :3])
            assert math.degrees((Rotation.from_quat(correction.new_quaternion_xyzw).inv() * right).magnitude()) < FOUND_DEG


def test_command_warns_and_writes_its_pictures(street, tmp_path, capsys):
    wrong = turned_bag(street, tmp_path / "wrong", {"rgb_optical": (0.0, -1.2, 0.0)})
    out = tmp_path / "out"
    assert main(["check-alignment", str(wrong), "--frames", "4", "--out", str(out), "--json"]) == EXIT_MISALIGNED
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "alignment.json").read_text())
    assert printed["warned"]
    off = [pair["pair"] for pair in printed["pairs"] if pair["verdict"] == "off"]
    assert {"rgb-lidar", "rgb-event"} <= set(off)
    text = (out / "alignment.txt").read_text()
    assert text.count("WARNING") == len(off)
    assert "-1.2 degrees of yaw" in text or "-1.1 degrees of yaw" in text
    assert "parent 'base_link', child 'lidar' (/tf_static)" in text
    pictures = sorted(out.glob("rgb-lidar_*.png"))
    assert len(pictures) == 3
    assert cv2.imread(str(pictures[0])).shape == (480, 2 * 640, 3)  # as calibrated, and turned


# --------------------------------------------------------------------------------------------------------------------
# Real recordings


@pytest.fixture(scope="session")
def kitti_frames(real_dir, tmp_path_factory) -> list[SensorFrame]:
    path = tmp_path_factory.mktemp("alignment") / "kitti"
    kitti.from_kitti_raw(real_dir / "kitti_raw", path)
    with BagReader(path) as bag:
        return list(Replay(bag, KITTI).frames())[::2]


def test_quiet_on_kitti(kitti_frames):
    (pair,) = check_frames(kitti_frames, KITTI).report.pairs
    assert pair.verdict == "fits"
    assert [axis.verdict for axis in pair.axes] == ["fits"] * 3


@pytest.mark.parametrize("planted", [(1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)])
def test_finds_one_degree_planted_in_kitti(kitti_frames, planted):
    report = check_frames([turned(frame, planted) for frame in kitti_frames[:4]], KITTI).report
    (pair,) = report.pairs
    assert pair.verdict == "off", to_text(report)
    found = np.array([axis.best_deg for axis in pair.axes])
    assert np.abs(found + planted).max() < FOUND_DEG


def lidar_frame(pixels: np.ndarray, camera: CameraModel, cloud: CloudSample, reference_from_lidar: np.ndarray) -> SensorFrame:
    status = (ModalityStatus("rgb", True, "", 0), ModalityStatus("lidar", True, "", 0))
    calibration = FrameCalibration(camera, reference_from_lidar=reference_from_lidar)
    image = ImageSample(0, "camera", np.ascontiguousarray(pixels))
    return SensorFrame(0, 0, "camera", image, None, cloud, None, status, calibration)


def sweep(points: np.ndarray, intensity: np.ndarray, ring: np.ndarray | None) -> CloudSample:
    """A sweep of points (N, 3)."""
    kept = np.isfinite(points).all(axis=1) & points.any(axis=1)
    ring = None if ring is None else ring[kept].astype(np.uint16)
    points = np.ascontiguousarray(points[kept].T, dtype=np.float32)
    return CloudSample(0, "lidar", points, intensity[kept].astype(np.float32), ring, None, 0, 0)


def test_quiet_on_a_road_seen_through_a_distorting_lens(real_dir):
    folder = real_dir / "road_camera_lidar"
    lines = dict(line.split(":") for line in (folder / "calib.txt").read_text().splitlines())
    k, d, t = (np.array(lines[name].split(), float) for name in "KDT")
    pixels = cv2.imread(str(folder / "calib.jpg"))[..., ::-1]
    camera = CameraModel(pixels.shape[1], pixels.shape[0], k[0], k[4], k[2], k[5], "plumb_bob", tuple(d))
    cloud = o3d.t.io.read_point_cloud(str(folder / "calib.pcd")).point
    points = sweep(*(cloud[name].numpy().squeeze() for name in ("positions", "intensity", "ring")))
    frame = lidar_frame(pixels, camera, points, np.vstack([t.reshape(3, 4), [0.0, 0.0, 0.0, 1.0]]))
    checked = check_frames([frame], KITTI)
    assert not checked.report.warned
    assert checked.report.pairs[0].points > 150


def test_quiet_on_the_six_cameras_of_nuscenes(real_dir):
    folder = real_dir / "nuscenes"
    sample = json.loads((folder / "sample.json").read_text())["sample"]
    data = np.fromfile(next(folder.glob("*LIDAR_TOP*")), np.float32).reshape(-1, 5)
    cloud = sweep(data[:, :3], data[:, 3], data[:, 4])
    for name, image in sample["images"].items():
        pixels = cv2.imread(str(folder / image["img_path"]))[..., ::-1]
        k = np.array(image["cam2img"])
        camera = CameraModel(pixels.shape[1], pixels.shape[0], k[0, 0], k[1, 1], k[0, 2], k[1, 2])
        report = check_frames([lidar_frame(pixels, camera, cloud, np.array(image["lidar2cam"]))], KITTI).report
        assert not report.warned, (name, to_text(report))


# --------------------------------------------------------------------------------------------------------------------
# Known answers


def boxes_image(shift_px: float = 0.0) -> np.ndarray:
    """Bright boxes on a dark wall, moved to the right by whole or broken pixels."""
    rng = np.random.default_rng(5)
    large = np.full((240, 480), 60.0, np.float32)
    for _ in range(25):
        x, y, w, h = (int(value) for value in rng.integers((0, 0, 20, 20), (440, 200, 60, 50)))
        large[y : y + h, x : x + w] = rng.uniform(90, 220)
    moved = cv2.warpAffine(
        large, np.array([[1.0, 0.0, shift_px], [0.0, 1.0, 0.0]]), (480, 240), borderMode=cv2.BORDER_REPLICATE
    )
    return np.repeat(moved[:, 80:400, None], 3, axis=2).astype(np.uint8)


def event_window(speed_px_s: float, late_ms: float, times: int = 50) -> EventWindow:
    """What an event camera at the reference's place sees of the boxes that move to the right; its stamps are late."""
    x, y, polarity, time_ns = [], [], [], []
    before = boxes_image(-0.05 * speed_px_s)[..., 0].astype(int)
    for step in range(1, times + 1):
        seconds = -0.05 + 0.05 * step / times
        now = boxes_image((seconds - late_ms / 1e3) * speed_px_s)[..., 0].astype(int)
        rows, columns = np.nonzero(np.abs(now - before) > 12)
        x.append(columns), y.append(rows), polarity.append(now[rows, columns] > before[rows, columns])
        time_ns.append(np.full(rows.size, round(1e9 * (1.0 + seconds)) - 1))
        before = now
    flat = [np.concatenate(each) for each in (x, y, polarity, time_ns)]
    types = (np.uint16, np.uint16, np.uint8, np.int64)
    x, y, polarity, time_ns = (each.astype(kind) for each, kind in zip(flat, types, strict=True))
    return EventWindow(950_000_000, 1_000_000_000, "events", 320, 240, x, y, polarity, time_ns)


def event_frame(window: EventWindow) -> SensorFrame:
    status = (ModalityStatus("rgb", True, "", 0), ModalityStatus("event", True, "", 0))
    calibration = FrameCalibration(CAMERA, event=CAMERA, reference_from_event=np.eye(4))
    image = ImageSample(0, "camera", boxes_image())
    return SensorFrame(0, 10**9, "camera", image, None, None, window, status, calibration)


EVENTS = from_flat({"modalities": ["rgb", "event"]})


def test_events_late_by_the_clock_are_not_taken_for_a_wrong_mounting_alone():
    # 400 pixels a second are 114 degrees a second, so 10 ms are more than a degree.
    late = check_frames([event_frame(event_window(400.0, late_ms=10.0))] * 2, EVENTS).report
    (pair,) = late.pairs
    assert pair.verdict == "off"
    assert pair.axes[1].verdict == "off"
    assert pair.axes[1].best_deg == pytest.approx(math.degrees(400.0 * 0.010 / 200.0), abs=FOUND_DEG)
    assert "ms too late" in " ".join(pair.notes)
    on_time = check_frames([event_frame(event_window(400.0, late_ms=0.0))] * 2, EVENTS).report
    assert on_time.pairs[0].verdict == "fits"
    # Where the image moves to both sides, no offset of the clock explains a rotation; a late clock is none either.
    both = [event_frame(event_window(speed, late_ms=10.0)) for speed in (400.0, -400.0)]
    assert check_frames(both, EVENTS).report.pairs[0].verdict != "off"


def test_cannot_tell_without_motion_or_without_a_lit_image():
    still = check_frames([event_frame(event_window(0.0, late_ms=0.0))], EVENTS).report
    assert still.pairs[0].verdict == "cannot tell"
    assert "motion" in still.pairs[0].message
    moving = event_frame(event_window(400.0, late_ms=0.0))
    night = dataclasses.replace(moving, rgb=ImageSample(0, "camera", np.zeros((240, 320, 3), np.uint8)))
    dark = check_frames([night] * 4, EVENTS).report
    assert dark.pairs[0].verdict == "cannot tell"
    assert "chance" in dark.pairs[0].message


def test_one_rotation_of_all_sensors_is_that_of_the_camera():
    def pair(modality, *axes):
        fits = [
            AxisFit(name, best, best - 0.1, best + 0.1, 0.5, verdict) for name, (best, verdict) in zip(AXES, axes, strict=True)
        ]
        return Pair(modality, "off", "", 1, "sensor", "camera", axes=tuple(fits))

    lidar = pair("lidar", (1.1, "off"), (0.0, "fits"), (0.1, "fits"))
    same = pair("depth", (0.9, "off"), (-0.2, "fits"), (2.0, "cannot tell"))
    other = pair("depth", (1.0, "off"), (0.8, "off"), (0.0, "fits"))
    (note,) = common_cause([lidar, same])
    assert "reference camera, 'camera'" in note
    assert not common_cause([lidar, other])
    assert not common_cause([lidar])
    assert not common_cause([lidar, same, dataclasses.replace(same, modality="event", verdict="fits")])


def test_same_view_has_nothing_to_check():
    config = from_flat({"modalities": ["rgb", "event"], "event.alignment": "same_view"})
    frame = event_frame(event_window(0.0, late_ms=0.0))
    frame = dataclasses.replace(frame, calibration=FrameCalibration(CAMERA))
    with pytest.raises(DataError, match="same_view"):
        check_frames([frame], config)


def test_a_bag_without_another_sensor_is_refused_in_one_sentence(tmp_path, capsys):
    with BagWriter(tmp_path / "bag") as bag:
        for stamp_ns in range(10**9, 2 * 10**9, 10**8):
            image = messages.image(boxes_image(), "rgb8", stamp_ns, "camera")
            bag.write("/rgb/camera_info", messages.camera_info(CAMERA, stamp_ns, "camera"), stamp_ns)
            bag.write("/rgb/image", image, stamp_ns + 1)
    assert main(["check-alignment", str(tmp_path / "bag")]) == EXIT_WRONG_INPUT
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "/lidar/points: not in the bag" in said


def test_edges_of_an_image_by_their_direction():
    pixels = np.full((240, 320, 3), 60, np.uint8)
    pixels[80:160, 100:220] = 200
    edges = image_edges(pixels, CAMERA, 0.5)
    upright, level = edges.closeness
    assert upright[120, 98:102].max() > 0.7
    assert upright[120, 108:115].max() < 0.1
    assert level[120, 98:102].max() < 1e-6
    assert level[78:82, 160].max() > 0.7
    assert upright[78:82, 160].max() < 1e-6


def box_before_wall(azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """Ranges of a LiDAR 2 m above ground that looks at a box 10 m ahead, 2 m wide and 2 m high, before a wall at 30 m."""
    direction = np.stack([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    wall = 30.0 / direction[0]
    ground = np.where(direction[2] < 0, -2.0 / np.minimum(direction[2], -1e-9), np.inf)
    y, z = 10.0 * direction[1] / direction[0], 10.0 * direction[2] / direction[0]
    box = np.where((np.abs(y) < 1.0) & (z < 0.0) & (z > -2.0), 10.0 / direction[0], np.inf)
    return np.minimum(np.minimum(wall, ground), box) * direction


@pytest.mark.parametrize("with_ring", [True, False])
def test_lidar_outlines_are_those_of_the_box_in_any_order(with_ring):
    azimuth, elevation = np.meshgrid(np.radians(np.arange(-30, 30, 0.2)), np.radians(np.arange(-20.25, 10, 0.5)))
    points = box_before_wall(azimuth.ravel(), elevation.ravel()).T
    ring = np.repeat(np.arange(azimuth.shape[0]), azimuth.shape[1]) if with_ring else None
    reference_from_lidar = np.eye(4)
    reference_from_lidar[:3, :3] = [[0, -1, 0], [0, 0, -1], [1, 0, 0]]
    found = lidar_edges(sweep(points, np.zeros(len(points)), ring), reference_from_lidar, None)
    x, y, z = found.arm
    upright = found.kind == UPRIGHT
    # sides at +-1 m and the top at the LiDAR's height, each to half the distance of two beams there
    assert z == pytest.approx(10.0, abs=0.1)
    assert np.abs(np.abs(x[upright]) - 1.0).max() < 10.0 * math.radians(0.11)
    assert np.abs(y[~upright]).max() < 10.0 * math.radians(0.26)
    assert np.abs(x[~upright]).max() <= 1.0
    assert min(upright.sum(), (~upright).sum()) > 40

    shuffled = np.random.default_rng(1).permutation(len(points))
    ring = None if ring is None else ring[shuffled]
    again = lidar_edges(sweep(points[shuffled], np.zeros(len(points)), ring), reference_from_lidar, None)
    order, order_again = np.lexsort((*found.arm, found.kind)), np.lexsort((*again.arm, again.kind))
    assert np.array_equal(found.arm[:, order], again.arm[:, order_again])


def test_depth_outlines_lie_between_the_two_pixels():
    depth = np.full((240, 320), 8.0, np.float32)
    depth[80:160, 100:220] = 3.0
    depth[:, :20] = np.nan
    found = depth_edges(DepthSample(0, "depth", depth), CAMERA, np.eye(4))
    pixels, z, visible = project_points(CAMERA, found.arm + found.place)
    assert visible.all()
    assert (z == 3.0).all()
    upright = found.kind == UPRIGHT
    assert set(np.round(pixels[0, upright], 3)) == {99.5, 219.5}
    assert set(np.round(pixels[1, found.kind == LEVEL], 3)) == {79.5, 159.5}
    assert upright.sum() == 2 * 80
    # a floor seen at a grazing angle has no outlines
    rows = np.arange(240, dtype=np.float32)[:, None]
    floor = np.where(rows > 125, 1.0 * 200.0 / np.maximum(rows - 119.5, 1.0), np.nan) * np.ones((1, 320), np.float32)
    assert depth_edges(DepthSample(0, "depth", floor.astype(np.float32)), CAMERA, np.eye(4)).kind.size == 0


poses = st.tuples(*[st.floats(-180, 180)] * 3, *[st.floats(-3, 3)] * 3)


@given(poses, poses, st.tuples(*[st.floats(-2, 2)] * 3), st.booleans())
def test_corrected_transform_turns_the_sensor_about_its_own_place(one, other, rotation_deg, sensor_is_root):
    first, second = turn(one[:3]), turn(other[:3])
    first[:3, 3], second[:3, 3] = one[3:], other[3:]

    def mount(parent, child, matrix):
        return Mount(StampedTransform(0, parent, child, matrix), static=True)

    if sensor_is_root:  # sensor <- arm <- camera
        mounts = {"arm": mount("sensor", "arm", first), "camera": mount("arm", "camera", second)}
        camera_from_sensor = np.linalg.inv(first @ second)
    else:  # base <- sensor, base <- camera
        mounts = {"sensor": mount("base", "sensor", first), "camera": mount("base", "camera", second)}
        camera_from_sensor = np.linalg.inv(second) @ first
    new = correct(mounts, "sensor", "/camera", np.array(rotation_deg))
    changed = np.eye(4)
    changed[:3, :3] = Rotation.from_quat(new.new_quaternion_xyzw).as_matrix()
    changed[:3, 3] = new.new_translation_m
    after = np.linalg.inv(changed @ second) if sensor_is_root else np.linalg.inv(second) @ changed
    assert after == pytest.approx(camera_from_sensor @ turn(rotation_deg), abs=1e-9)
    assert (new.parent, new.child) == (("sensor", "arm") if sensor_is_root else ("base", "sensor"))
    assert correct({}, "sensor", "camera", np.zeros(3)) is None

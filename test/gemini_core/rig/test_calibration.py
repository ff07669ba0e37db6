"""What calibration each modality needs, what is said where it is missing, and what a frame gets."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemini_core.config.fusion import from_flat
from gemini_core.rig.calibration import CalibrationStore, scaled
from gemini_core.rig.geometry import project_points
from gemini_core.types import (
    CameraInfoSample,
    CameraModel,
    CloudSample,
    DepthSample,
    EventWindow,
    FrameHeader,
    ImageSample,
    ModalityStatus,
    Placement,
    SensorFrame,
    StampedTransform,
    TransformSample,
)

STAMP = 1_700_000_000_000_000_000
CAMERAS = {
    "rgb": CameraModel(64, 48, 50.0, 50.0, 32.0, 24.0),
    "depth": CameraModel(32, 24, 25.0, 25.0, 16.0, 12.0),
    "event": CameraModel(40, 30, 30.0, 30.0, 20.0, 15.0),
}


def shifted(x):
    matrix = np.eye(4)
    matrix[0, 3] = x
    return matrix


def transforms(static, *edges, stamp_ns=STAMP):
    parts = tuple(StampedTransform(stamp_ns, parent, child, shifted(x)) for parent, child, x in edges)
    return TransformSample(stamp_ns, static, parts)


def info(modality, camera=None, stamp_ns=STAMP):
    return CameraInfoSample(stamp_ns, f"{modality}_frame", modality, camera or CAMERAS[modality])


def zoomed(modality, fx):
    return dataclasses.replace(CAMERAS[modality], fx=fx)


RIG = transforms(
    True, ("base", "rgb_frame", 1.0), ("base", "depth_frame", 2.0), ("base", "event_frame", 3.0), ("base", "lidar_frame", 4.0)
)


def store(*samples, **options):
    calibration = CalibrationStore(from_flat(options))
    for sample in samples:
        calibration.push(sample)
    return calibration


def frame(depth_frame="depth_frame", stamp_ns=STAMP, present=("rgb", "depth", "event", "lidar")):
    no_events = np.empty(0, np.uint16)
    status = tuple(
        ModalityStatus(modality, present=True, reason="", skew_ns=0)
        if modality in present
        else ModalityStatus(modality, present=False, reason="late", skew_ns=None, detail="too late")
        for modality in ("rgb", "depth", "event", "lidar")
    )
    return SensorFrame(
        header=FrameHeader(0, stamp_ns, "rgb_frame", status),
        rgb=ImageSample(stamp_ns, "rgb_frame", np.zeros((48, 64, 3), np.uint8)),
        depth=DepthSample(stamp_ns, depth_frame, np.ones((24, 32), np.float32)) if "depth" in present else None,
        lidar=CloudSample(
            stamp_ns, "lidar_frame", np.ones((3, 5), np.float32), np.zeros(5, np.float32), None, None, stamp_ns, stamp_ns
        )
        if "lidar" in present
        else None,
        event=EventWindow(
            stamp_ns - 1,
            stamp_ns,
            "event_frame",
            40,
            30,
            no_events,
            no_events,
            no_events.astype(np.uint8),
            no_events.astype(np.int64),
        )
        if "event" in present
        else None,
    )


def placed(modality, frame_id, stamp_ns=STAMP, taken_ns=None, size=None):
    taken_ns = stamp_ns if taken_ns is None else taken_ns
    return Placement(modality, frame_id, taken_ns, taken_ns, size, "rgb_frame", stamp_ns)


def reasons(resolved):
    return {status.modality: status.reason for status in resolved.status}


ALL = [info("rgb"), info("depth"), info("event"), RIG]


def test_a_whole_rig():
    resolved = store(*ALL).resolve(frame())
    assert reasons(resolved) == {"rgb": "", "depth": "", "event": "", "lidar": ""}
    calibration = resolved.calibration
    assert (calibration.reference, calibration.depth, calibration.event) == tuple(CAMERAS[m] for m in ("rgb", "depth", "event"))
    for matrix, x in (
        (calibration.reference_from_depth, 1.0),
        (calibration.reference_from_event, 2.0),
        (calibration.reference_from_lidar, 3.0),
    ):
        np.testing.assert_array_equal(matrix, shifted(x))


def test_without_anything_only_the_reference_is_left():
    calibration = store()
    before = frame()
    resolved = calibration.resolve(before)
    assert reasons(resolved) == {"rgb": "", "depth": "no_camera_info", "event": "no_camera_info", "lidar": "no_camera_info"}
    assert (resolved.depth, resolved.event, resolved.lidar) == (None, None, None)
    assert resolved.rgb is before.rgb
    assert resolved.calibration.reference is None
    assert all("'rgb/camera_info'" in status.detail for status in resolved.status[1:])
    assert all(status.skew_ns is None and not status.present for status in resolved.status[1:])


@pytest.mark.parametrize(
    ("modality", "samples", "reason", "words"),
    [
        ("lidar", [RIG], "no_camera_info", "'rgb/camera_info'"),
        ("depth", [RIG, info("rgb")], "no_camera_info", "'depth/camera_info'"),
        ("event", [RIG, info("rgb")], "no_camera_info", "'events/camera_info'"),
        ("lidar", [info("rgb")], "no_transform", "'lidar_frame' to 'rgb_frame'"),
        ("depth", [info("rgb"), info("depth")], "no_transform", "'depth_frame' to 'rgb_frame'"),
    ],
)
def test_what_is_missing_is_named(modality, samples, reason, words):
    calibration = store(*samples)
    lack = calibration.missing(placed(modality, f"{modality}_frame"))
    assert lack is not None
    assert lack[0] == reason
    assert words in lack[1]
    status = next(status for status in calibration.resolve(frame()).status if status.modality == modality)
    assert (status.present, status.reason, status.detail) == (False, *lack)


def test_a_transform_that_lacks_the_stamp_is_said_with_the_frames_of_both_sensors():
    """The transform on the way alone says neither whose data it is nor where it should go."""
    fixed = transforms(True, ("mast", "lidar_frame", 1.0), ("base", "rgb_frame", 1.0))
    calibration = store(info("rgb"), fixed, transforms(False, ("base", "mast", 1.0), stamp_ns=STAMP - 10**9))
    reason, sentence = calibration.missing(placed("lidar", "lidar_frame"))
    assert reason == "no_transform"
    assert sentence.startswith("from 'lidar_frame' to 'rgb_frame': expected the transform from 'mast' to 'base' at ")


def test_nothing_is_missing_of_a_whole_rig_nor_ever_of_the_reference():
    for modality in ("rgb", "depth", "event", "lidar"):
        assert store(*ALL).missing(placed(modality, f"{modality}_frame")) is None
    assert store().missing(placed("rgb", "rgb_frame")) is None


def test_one_frame_id_needs_no_transform():
    calibration = store(info("rgb"), info("depth"))
    assert calibration.missing(placed("depth", "/rgb_frame")) is None
    resolved = calibration.resolve(frame(depth_frame="/rgb_frame"))
    np.testing.assert_array_equal(resolved.calibration.reference_from_depth, np.eye(4))


def test_events_of_the_same_view_need_nothing():
    calibration = store(**{"event.alignment": "same_view"})
    assert calibration.missing(placed("event", "event_frame")) is None
    resolved = calibration.resolve(frame())
    assert reasons(resolved)["event"] == ""
    assert resolved.event is not None
    assert (resolved.calibration.event, resolved.calibration.reference_from_event) == (None, None)


def test_what_was_absent_stays_so_for_its_own_reason():
    resolved = store(*ALL).resolve(frame(present=("rgb", "lidar")))
    assert reasons(resolved) == {"rgb": "", "depth": "late", "event": "late", "lidar": ""}
    assert resolved.status[1].detail == "too late"
    assert (resolved.calibration.depth, resolved.calibration.reference_from_depth) == (None, None)


def of_size(name, width, height):
    return dataclasses.replace(CAMERAS[name], width=width, height=height)


def test_camera_info_of_another_aspect_ratio_is_no_camera_info():
    resolved = store(*ALL, info("depth", of_size("depth", 64, 40))).resolve(frame())
    assert reasons(resolved) == {"rgb": "", "depth": "no_camera_info", "event": "", "lidar": ""}
    assert "32 x 24" in resolved.status[1].detail
    assert "64 x 40" in resolved.status[1].detail
    resolved = store(*ALL, info("rgb", of_size("rgb", 32, 20))).resolve(frame())
    assert reasons(resolved) == {"rgb": "", "depth": "no_camera_info", "event": "no_camera_info", "lidar": "no_camera_info"}
    assert resolved.calibration.reference is None
    assert "the rgb image's 64 x 48 on topic 'rgb/camera_info', got one for 32 x 20" in resolved.status[3].detail


def test_camera_info_of_another_size_is_scaled_and_the_status_says_so():
    full = dataclasses.replace(CAMERAS["rgb"], width=256, height=192, fx=200.0, fy=204.0, cx=127.5, cy=95.5, skew=2.0)
    known = store(*ALL, info("rgb", full), info("depth", of_size("depth", 64, 48)))
    resolved = known.resolve(frame())
    assert reasons(resolved) == dict.fromkeys(("rgb", "depth", "event", "lidar"), "")
    camera = resolved.calibration.reference
    assert (camera.width, camera.height, camera.fx, camera.fy, camera.skew) == (64, 48, 50.0, 51.0, 0.5)
    assert (camera.cx, camera.cy) == (31.5, 23.5)  # the middle of the image stays the middle
    assert (resolved.calibration.depth.width, resolved.calibration.depth.fx) == (32, CAMERAS["depth"].fx / 2)
    assert "'rgb/camera_info' is for 256 x 192, and is scaled to the rgb image's 64 x 48" in resolved.status[0].detail
    assert "'depth/camera_info' is for 64 x 48, and is scaled to the depth image's 32 x 24" in resolved.status[1].detail
    doubts = {doubt.about: doubt.detail for doubt in known.doubts() if doubt.reason == "scaled_camera_info"}
    assert doubts == {"rgb": resolved.status[0].detail, "depth": resolved.status[1].detail}
    assert [status.detail for status in resolved.status[2:]] == ["", ""]


@pytest.mark.parametrize(
    ("told", "size", "same_aspect"),
    [
        ((1280, 720), (640, 360), True),
        ((1280, 720), (427, 240), True),  # 426.7
        ((1280, 720), (426, 240), True),  # 239.6
        ((1280, 720), (640, 480), False),
        ((640, 480), (641, 480), False),
        ((640, 480), (640, 400), False),
        ((1920, 1200), (1920, 1080), False),
        ((640, 480), (1280, 960), True),
    ],
)
def test_the_same_aspect_ratio_but_for_rounding(told, size, same_aspect):
    camera = CameraModel(*told, 500.0, 500.0, 320.0, 240.0)
    found = scaled(camera, size)
    assert ((found.width, found.height) == size) == same_aspect
    assert same_aspect or found == camera


@given(st.integers(1, 4000), st.integers(1, 4000), st.floats(0.05, 20.0))
def test_a_point_stays_at_its_place_in_a_scaled_image(width, height, factor):
    camera = CameraModel(
        width, height, 0.8 * width, 0.9 * width, 0.4 * width, 0.6 * height, "plumb_bob", (-0.1, 0.02, 0.0, 0.0)
    )
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    found = scaled(camera, size)
    if found == camera:
        return
    points = np.array([[0.1, -0.2, 0.0], [0.05, 0.1, 0.0], [1.0, 1.0, 1.0]], np.float32)
    share, found_share = (
        (project_points(each, points)[0] + 0.5) / np.array([[each.width], [each.height]]) for each in (camera, found)
    )
    np.testing.assert_allclose(found_share, share, atol=2e-5)


def test_transforms_are_taken_at_the_frame_s_stamp():
    calibration = store(info("rgb"))
    calibration.push(transforms(False, ("rgb_frame", "lidar_frame", 0.0), stamp_ns=STAMP))
    calibration.push(transforms(False, ("rgb_frame", "lidar_frame", 2.0), stamp_ns=STAMP + 20))
    lidar_only = frame(stamp_ns=STAMP + 5, present=("rgb", "lidar"))
    assert calibration.resolve(lidar_only).calibration.reference_from_lidar[0, 3] == 0.5
    assert calibration.missing(placed("lidar", "lidar_frame", STAMP + 21))[0] == "no_transform"


def test_intrinsics_are_those_of_the_frame_s_stamp_whatever_has_come_since():
    """A frame may close when the CameraInfo of the next image is known already."""
    zooming = [info(name, zoomed(name, 50.0 + step), STAMP + 10 * step) for step in range(3) for name in ("rgb", "depth")]
    for order in (zooming, zooming[::-1]):
        calibration = store(RIG, *order)
        for after, fx in ((0, 50.0), (9, 50.0), (10, 51.0), (25, 52.0)):
            found = calibration.resolve(frame(stamp_ns=STAMP + after, present=("rgb", "depth"))).calibration
            assert (found.reference.fx, found.depth.fx) == (fx, fx)


def test_intrinsics_stamped_later_than_every_frame_hold_too():
    calibration = store(info("rgb", zoomed("rgb", 1.0), STAMP + 10), info("rgb", zoomed("rgb", 2.0), STAMP + 20))
    assert calibration.resolve(frame()).calibration.reference.fx == 2.0


def test_intrinsics_that_change_with_every_image_are_kept_for_a_while_only_and_survive_a_jump():
    calibration = store(*(info("rgb", zoomed("rgb", 1.0 + step), STAMP + step) for step in range(500)))
    assert calibration.resolve(frame(stamp_ns=STAMP + 480)).calibration.reference.fx == 481.0
    calibration.clear()
    assert calibration.resolve(frame()).calibration.reference.fx == 500.0
    for step in range(500):
        calibration.push(info("rgb", zoomed("rgb", 1000.0 + step), STAMP - 1000 + step))
    assert calibration.resolve(frame(stamp_ns=STAMP - 510)).calibration.reference.fx == 1490.0


def test_a_frame_waits_for_the_camera_info_of_its_own_zoom():
    """Drivers send an image and its CameraInfo with one stamp, the image first."""
    calibration = store(RIG, info("depth"), *(info("rgb", zoomed("rgb", 50.0 + i), STAMP - 20 + 10 * i) for i in range(2)))
    image = placed("rgb", "rgb_frame", STAMP, size=(64, 48))
    assert calibration.must_wait(image)
    calibration.push(info("rgb", zoomed("rgb", 80.0), STAMP))
    assert not calibration.must_wait(image)
    assert calibration.resolve(frame()).calibration.reference.fx == 80.0


def test_a_frame_waits_for_the_camera_info_of_another_size_where_they_come_steadily():
    image = placed("rgb", "rgb_frame", STAMP, size=(128, 96))
    steady = store(RIG, *(info("rgb", stamp_ns=STAMP - 20 + 10 * i) for i in range(2)))
    assert steady.must_wait(image)
    assert not steady.must_wait(placed("rgb", "rgb_frame", STAMP, size=(64, 48)))
    steady.push(info("rgb", stamp_ns=STAMP))  # its own, and of another size
    assert not steady.must_wait(image)
    assert not store(RIG, info("rgb", stamp_ns=STAMP - 20)).must_wait(image)  # sent once
    assert not store(RIG, *(info("rgb", stamp_ns=STAMP - 9_000_000_000 + i) for i in range(2))).must_wait(image)  # long ago


MS = 1_000_000


def driving(**options):
    """A whole rig that goes 1 m a second along x, known from 100 ms before the frame to 60 ms after it."""
    calibration = store(*ALL, **options)
    for stamp_ms in (-100, 60):
        calibration.push(transforms(False, ("odom", "base", stamp_ms * 1e-3), stamp_ns=STAMP + stamp_ms * MS))
    return calibration


def moving_frame(points=True, sweep_end_ms=60, depth_ms=-20):
    """A frame whose sweep was stamped 40 ms before it."""
    before = frame()
    start_ns, end_ns = STAMP - 40 * MS, STAMP + sweep_end_ms * MS
    lidar = dataclasses.replace(before.lidar, stamp_ns=start_ns, start_ns=start_ns, end_ns=start_ns)
    if points:
        lidar = dataclasses.replace(lidar, time_ns=np.linspace(start_ns, end_ns, 5).astype(np.int64), end_ns=end_ns)
    return dataclasses.replace(before, lidar=lidar, depth=dataclasses.replace(before.depth, stamp_ns=STAMP + depth_ms * MS))


def motions(resolved):
    return {status.modality: status.motion for status in resolved.status}


def test_depth_and_every_point_come_to_where_the_camera_was():
    resolved = driving().resolve(moving_frame())
    assert motions(resolved) == {"rgb": "", "depth": "compensated", "event": "", "lidar": "compensated"}
    calibration = resolved.calibration
    np.testing.assert_allclose(calibration.reference_from_depth, shifted(1.0 - 0.020), atol=1e-12)
    np.testing.assert_array_equal(calibration.reference_from_event, shifted(2.0))
    np.testing.assert_allclose(calibration.reference_from_lidar, shifted(3.0 - 0.040), atol=1e-12)
    assert calibration.lidar_motion.stamps_ns.tolist() == [STAMP - 40 * MS, STAMP + 60 * MS]
    np.testing.assert_allclose(calibration.lidar_motion.reference_from_lidar[:, 0, 3], [2.96, 3.06], atol=1e-12)
    assert all(status.detail == "" for status in resolved.status)


def test_a_sweep_without_point_times_moves_as_one_piece():
    resolved = driving().resolve(moving_frame(points=False))
    assert motions(resolved)["lidar"] == "no_point_times"
    assert resolved.calibration.lidar_motion is None
    np.testing.assert_allclose(resolved.calibration.reference_from_lidar, shifted(2.96), atol=1e-12)


def test_without_odometry_nothing_moves_and_the_status_says_what_was_missing():
    resolved = driving().resolve(moving_frame(sweep_end_ms=61))
    assert motions(resolved) == {"rgb": "", "depth": "compensated", "event": "", "lidar": "no_odometry"}
    assert "'base' to 'odom'" in resolved.status[3].detail
    assert resolved.status[3].present
    np.testing.assert_array_equal(resolved.calibration.reference_from_lidar, shifted(3.0))
    assert resolved.calibration.lidar_motion is None
    resolved = store(*ALL).resolve(moving_frame())
    assert motions(resolved)["depth"] == "no_odometry"
    assert "no frame 'odom'" in resolved.status[1].detail


def test_motion_is_looked_at_only_where_there_is_a_fixed_frame():
    resolved = driving(**{"motion.fixed_frame": ""}).resolve(moving_frame())
    assert set(motions(resolved).values()) == {""}
    np.testing.assert_array_equal(resolved.calibration.reference_from_depth, shifted(1.0))
    assert resolved.calibration.lidar_motion is None


def test_what_lacks_calibration_has_no_motion():
    resolved = store(info("rgb"), RIG, transforms(True, ("odom", "base", 0.0))).resolve(moving_frame())
    assert motions(resolved) == {"rgb": "", "depth": "", "event": "", "lidar": "compensated"}
    assert reasons(resolved)["depth"] == "no_camera_info"


def test_clear_keeps_what_does_not_move():
    calibration = store(*ALL)
    calibration.push(transforms(False, ("odom", "base", 0.0)))
    assert calibration.missing(placed("lidar", "odom")) is None
    calibration.clear()
    assert calibration.missing(placed("lidar", "odom"))[0] == "no_transform"
    assert reasons(calibration.resolve(frame())) == {"rgb": "", "depth": "", "event": "", "lidar": ""}


def test_what_the_tree_refuses_is_counted():
    calibration = store(transforms(True, ("a", "b", 1.0), ("b", "a", 1.0)))
    assert {count.what: count.number for count in calibration.counts()} == {"tf.refused.loop": 1}

"""Our clouds hold what ROS' own reader of clouds reads, where it is installed."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

theirs = pytest.importorskip(
    "sensor_msgs_py.point_cloud2", reason="no sensor_msgs_py here: it comes with a ROS installation, and PyPI has none"
)
serialization = pytest.importorskip("rclpy.serialization", reason="needs rclpy")

from gemini_core.bag import messages
from gemini_core.decode.cloud import decode_cloud

STAMP = 1_700_000_000_000_000_000
XYZ = (("x", "<f4", 0), ("y", "<f4", 4), ("z", "<f4", 8))
LAYOUTS = {
    "velodyne": ((*XYZ, ("intensity", "<f4", 12), ("ring", "<u2", 16), ("time", "<f4", 18)), 22),
    "ouster": ((*XYZ, ("intensity", "<f4", 16), ("t", "<u4", 20), ("reflectivity", "<u2", 24), ("ring", "<u2", 26)), 48),
    "hesai": ((*XYZ, ("intensity", "<f4", 12), ("ring", "<u2", 16), ("timestamp", "<f8", 18)), 26),
    "livox": ((*XYZ, ("intensity", "<f4", 12), ("tag", "u1", 16), ("line", "u1", 17), ("timestamp", "<f8", 18)), 26),
    "realsense": ((*XYZ, ("rgb", "<f4", 16)), 20),
}


def of_client(message):
    data = messages.typestore().serialize_cdr(message, message.__msgtype__)
    kind = importlib.import_module("sensor_msgs.msg").PointCloud2
    return serialization.deserialize_message(bytes(data), kind)


def agrees(message):
    read = theirs.read_points(message, skip_nans=False)
    kept = np.isfinite([read[name] for name in "xyz"]).all(axis=0) & (np.array([read[name] for name in "xyz"]) != 0).any(axis=0)
    read = read[kept]
    sample = decode_cloud(message, "lidar/points")
    np.testing.assert_array_equal(sample.points, [read[name] for name in "xyz"])
    names = read.dtype.names
    if "intensity" in names:
        np.testing.assert_array_equal(sample.intensity, read["intensity"])
    if ring := next((name for name in ("ring", "line") if name in names), ""):
        np.testing.assert_array_equal(sample.ring, read[ring])
    return sample.points.shape[1]


@pytest.mark.parametrize("driver", LAYOUTS)
def test_the_points_of_every_driver(driver):
    fields, step = LAYOUTS[driver]
    names, formats, offsets = zip(*fields, strict=True)
    rng = np.random.default_rng(0)
    points = np.zeros(200, np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": step}))
    for name in names:
        points[name] = rng.integers(0, 100, points.size)
    points["x"][::7] = np.nan
    for name in "xyz":
        points[name][::11] = 0
    message = of_client(messages.point_cloud(points, STAMP, "lidar", is_dense=False))
    assert agrees(message) == points.size - len({*range(0, 200, 7), *range(0, 200, 11)})


def test_a_cloud_off_the_wire(real_dir):
    raw = (real_dir / "point_cloud2" / "velodyne_xyzir_timestamp.cdr").read_bytes()
    kind = importlib.import_module("sensor_msgs.msg").PointCloud2
    assert agrees(serialization.deserialize_message(raw, kind)) > 10_000

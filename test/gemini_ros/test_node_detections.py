"""3D boxes and labelled points of the live node on a real ROS 2 graph: frames, thresholds while it runs, markers, listeners."""

from __future__ import annotations

import numpy as np
import pytest
import torch

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("vision_msgs.msg", reason="needs the ROS message packages")

from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from rclpy.parameter import Parameter
from sensor_msgs.msg import PointCloud2
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

from gemini_core.config.fusion import from_flat
from gemini_core.decode.cloud import decode_cloud
from gemini_core.model.detection.mvxnet.checkpoint import save_mvxnet
from gemini_core.predictor import Prediction
from gemini_core.types import UNLABELLED, Detection3D
from gemini_ros import outputs
from gemini_ros.warmup import warm_up
from live_graph import BASE, HEIGHT, MAKERS, MS, WIDTH, Graph, header, stamp_of, values
from mvxnets import small

pytestmark = pytest.mark.ros

BOXES = (
    Detection3D("car", 0.5, (2.0, 1.0, 10.0), (4.0, 2.0, 1.5), (0.5, -0.5, 0.5, 0.5)),
    Detection3D("pedestrian", 0.9, (0.0, 0.0, 5.0), (0.6, 0.5, 1.8), (0.5, -0.5, 0.5, 0.5)),
)
"""In the camera's optical frame, upright and looking ahead."""


class KnownBoxes:
    """Stands in for the network: the same boxes in every frame, and a mask whose values say which column a pixel is in."""

    trained = True

    def __init__(self, _config):
        self.points = []

    def predict(self, grids):
        self.points.append(grids.points)
        mask = np.broadcast_to(np.arange(WIDTH) // 8, (HEIGHT, WIDTH)).astype(np.uint8)
        return Prediction(mask, BOXES)

    def describe(self):
        return "known boxes"


def moved(parent, child, stamp_ns, at, turn=(0.0, 0.0, 0.0, 1.0)):
    sent = TransformStamped(header=header(stamp_ns, parent), child_frame_id=child)
    sent.transform.translation.x, sent.transform.translation.y, sent.transform.translation.z = at
    rotation = sent.transform.rotation
    rotation.x, rotation.y, rotation.z, rotation.w = turn
    return sent


@pytest.fixture(scope="module")
def graph():
    made = Graph()
    yield made
    made.close()


@pytest.fixture
def start(graph, monkeypatch):
    """Begin with a predictor that gives boxes, a camera and a LiDAR, and base_link 1.5 m below the camera."""
    monkeypatch.setattr("gemini_core.predictor.Predictor", KnownBoxes)

    def begin(**options):
        asked = {"model__enabled": True, "detections__enabled": True, **options}
        graph.start(modalities=["rgb", "lidar"], **asked)
        graph.activate("rgb", "lidar")
        ahead = (-0.5, 0.5, -0.5, 0.5)  # from optical axes to body axes
        graph.publishers["tf_static"].publish(
            TFMessage(transforms=[moved("base_link", "rgb", graph.stamp_ns, (0.0, 0.0, 1.5), ahead)])
        )
        graph.spin(0.2)
        return graph

    yield begin
    graph.drop_node()


def last(graph, name):
    graph.spin_until(lambda: graph.received[name])
    return graph.received[name][-1]


def boxes_of_next_frame(graph):
    """What ~/detections says of one more frame."""
    (stamp,) = graph.send(1)
    graph.spin_until(lambda: [each for each in graph.received["~/detections"] if stamp_of(each) == stamp])
    return graph.received["~/detections"][-1]


def place(detection):
    position, orientation = detection.bbox.center.position, detection.bbox.center.orientation
    return (position.x, position.y, position.z), (orientation.x, orientation.y, orientation.z, orientation.w)


def classes(message):
    return [found.results[0].hypothesis.class_id for found in message.detections]


def test_boxes_of_the_frame_go_out_in_the_references_own_frame(start):
    graph = start(detections__min_score=0.4)
    (stamp,) = graph.send(1)
    graph.await_masks([stamp])
    message = last(graph, "~/detections")
    assert (stamp_of(message), message.header.frame_id) == (stamp, "rgb")
    assert classes(message) == ["pedestrian", "car"]  # the best first
    for found, known in zip(message.detections, BOXES[::-1], strict=True):
        assert found.header == message.header
        assert place(found) == (known.center_m, known.orientation_xyzw)
        assert (found.bbox.size.x, found.bbox.size.y, found.bbox.size.z) == known.size_m
    (points,) = graph.node._predictor.points[-1:]
    assert points.points_m.shape == (200, 3)
    assert graph.diagnostics()["detections"].level == DiagnosticStatus.OK


def test_an_mvxnet_gives_boxes_without_masks(start, tmp_path):
    network = small()
    torch.nn.init.constant_(network.pts_bbox_head.conv_cls.bias, 0.0)  # scores about a half: there are boxes
    save_mvxnet(network, tmp_path / "weights", trained=True)
    options = {"detections__weights": str(tmp_path / "weights"), "detections__classes": ["pedestrian", "car"]}
    graph = start(**options, model__enabled=False)
    (stamp,) = graph.send(1)
    mask = graph.await_masks([stamp])[stamp]
    message = last(graph, "~/detections")
    assert stamp_of(message) == stamp
    assert set(classes(message)) <= {"pedestrian", "car"}
    assert len(message.detections) > 1
    assert (mask == UNLABELLED).all()
    status = graph.diagnostics()["model"]
    assert status.level == DiagnosticStatus.OK
    assert status.message.startswith("no masks (model.enabled is false), boxes of pedestrian, car by MVX-Net")


def test_boxes_go_out_in_the_frame_asked_for_as_it_was_at_the_stamp(start):
    """odom drives under the robot: 1 m in the 100 ms around the image, that is 0.5 m at its stamp."""
    graph = start(detections__frame="odom", detections__base_frame="base_link", motion__fixed_frame="")
    graph.publishers["tf"] = graph.rig.create_publisher(TFMessage, "/tf", 10)
    graph.await_match()
    stamp = graph.stamp_ns + 100 * MS
    for shift_ms, x in ((-50, 7.0), (50, 8.0)):
        graph.publishers["tf"].publish(TFMessage(transforms=[moved("odom", "base_link", stamp + shift_ms * MS, (x, 0.0, 0.0))]))
    graph.spin(0.2)
    graph.send(1)
    graph.await_masks([stamp])
    message = last(graph, "~/detections")
    assert (stamp_of(message), message.header.frame_id) == (stamp, "odom")
    (pedestrian, car) = message.detections
    np.testing.assert_allclose(place(pedestrian)[0], (12.5, 0.0, 1.5), atol=1e-9)  # 7.5 driven, 5 ahead
    np.testing.assert_allclose(place(car)[0], (17.5, -2.0, 0.5), atol=1e-9)
    np.testing.assert_allclose(place(car)[1], (0.0, 0.0, 0.0, 1.0), atol=1e-9)  # upright, looking ahead
    points = graph.node._predictor.points[-1]
    np.testing.assert_allclose(points.reference_from_base @ (0.0, 0.0, 0.0, 1.0), (0.0, 1.5, 0.0, 1.0), atol=1e-9)
    said = graph.diagnostics()["detections"]
    assert (said.level, values(said)["frame"]) == (DiagnosticStatus.OK, "odom")


@pytest.mark.parametrize("option", ["frame", "base_frame"])
def test_a_missing_frame_is_named_on_diagnostics_and_no_boxes_go_out(start, option):
    graph = start(**{f"detections__{option}": "map"})
    stamps = graph.send(3)
    graph.await_masks(stamps)  # masks go on
    graph.spin_until(lambda: len(graph.received["~/timing"]) == 3)
    assert graph.received["~/detections"] == []
    said = graph.diagnostics()["detections"]
    assert said.level == DiagnosticStatus.WARN
    assert said.message.startswith(f"no boxes go out: detections.{option}: expected transforms that connect ")
    assert "'rgb'" in said.message
    assert "'map'" in said.message
    assert said.message.endswith("3 frames)")
    timing = values(graph.received["~/timing"][-1].status[0])
    assert timing["boxes"] == "unknown"
    assert "'map'" in timing["missing_detail.boxes"]
    assert values(graph.diagnostics()["frames"])["detections.missing.no_transform"] == "3"
    graph.publishers["tf_static"].publish(TFMessage(transforms=[moved("map", "base_link", stamps[0], (0.0, 0.0, 0.0))]))
    graph.spin(0.2)
    assert boxes_of_next_frame(graph).header.frame_id == ("map" if option == "frame" else "rgb")
    assert graph.diagnostics()["detections"].level == DiagnosticStatus.OK


def test_thresholds_change_while_the_node_runs(start):
    graph = start(detections__min_score=0.6)
    assert classes(boxes_of_next_frame(graph)) == ["pedestrian"]
    graph.node.set_parameters([Parameter("detections.class_scores", value="car:0.4, pedestrian:0.95")])
    assert classes(boxes_of_next_frame(graph)) == ["car"]
    (result,) = graph.node.set_parameters([Parameter("detections.class_scores", value="cart:0.4")])
    assert not result.successful
    assert "expected a class of detections.classes (nearest known: car" in result.reason
    (result,) = graph.node.set_parameters([Parameter("detections.min_score", value=2.0)])
    assert not result.successful
    changes = [Parameter("detections.min_score", value=0.0), Parameter("detections.class_scores", value="")]
    assert graph.node.set_parameters_atomically(changes).successful
    assert classes(boxes_of_next_frame(graph)) == ["pedestrian", "car"]
    graph.node.set_parameters([Parameter("detections.max_boxes", value=1)])
    assert classes(boxes_of_next_frame(graph)) == ["pedestrian"]
    (result,) = graph.node.set_parameters([Parameter("detections.frame", value="odom")])
    assert "changes only while the node is unconfigured" in result.reason
    assert "car:0" in values(graph.diagnostics()["detections"])["classes"]


def test_without_boxes_asked_for_the_topic_stays_as_it_was(start):
    graph = start(detections__enabled=False, detections__frame="nowhere")
    assert boxes_of_next_frame(graph).header.frame_id == "rgb"
    assert graph.node._predictor.points[-1] is None  # nobody pays for points that nobody wants
    assert "detections" not in graph.diagnostics()
    graph.spin_until(lambda: graph.received["~/timing"])
    assert "boxes" not in values(graph.received["~/timing"][-1].status[0])


def test_markers_are_made_for_listeners_only(start, monkeypatch):
    made = []
    render = outputs.marker_array
    monkeypatch.setattr(outputs, "marker_array", lambda *given: made.append(1) or render(*given))
    graph = start(detections__frame="base_link")
    graph.await_masks(graph.send(1))
    graph.spin_until(lambda: graph.received["~/timing"])
    assert made == []
    subscription = graph.listen("~/debug/detections", MarkerArray)
    graph.spin(0.2)
    (stamp,) = graph.send(1)
    markers = last(graph, "~/debug/detections").markers
    graph.rig.destroy_subscription(subscription)
    assert all((marker.header.frame_id, stamp_of(marker)) == ("base_link", stamp) for marker in markers)
    assert [marker.action for marker in markers] == [Marker.DELETEALL] + [Marker.ADD] * 4
    bodies = [marker for marker in markers if marker.ns == "boxes"]
    texts = [marker for marker in markers if marker.ns == "names"]
    assert [marker.text for marker in texts] == ["pedestrian 0.90", "car 0.50"]
    car = bodies[1]
    assert car.type == Marker.CUBE
    np.testing.assert_allclose((car.scale.x, car.scale.y, car.scale.z), (4.0, 2.0, 1.5))
    np.testing.assert_allclose((car.pose.position.x, car.pose.position.y, car.pose.position.z), (10.0, -2.0, 0.5), atol=1e-9)
    np.testing.assert_allclose((car.color.r, car.color.g, car.color.b), np.array((30, 60, 200)) / 255, atol=1e-6)  # the mask's
    np.testing.assert_allclose(texts[1].pose.position.z, 0.5 + 0.75 + 0.4, atol=1e-9)  # above its top
    assert len({(marker.ns, marker.id) for marker in markers[1:]}) == 4


def test_markers_are_taken_away_where_boxes_are_not_known(start):
    graph = start(detections__frame="map")
    subscription = graph.listen("~/debug/detections", MarkerArray)
    graph.spin(0.2)
    graph.send(1)
    (marker,) = last(graph, "~/debug/detections").markers
    graph.rig.destroy_subscription(subscription)
    assert marker.action == Marker.DELETEALL


@pytest.mark.parametrize("enabled", [True, False])
def test_labelled_points_are_made_for_listeners_only(start, enabled):
    graph = start(detections__enabled=enabled)
    graph.await_masks(graph.send(1))
    assert (graph.node._predictor.points[-1] is not None) == enabled
    subscription = graph.listen("~/points_labelled", PointCloud2)
    graph.spin(0.2)
    (stamp,) = graph.send(1)
    message = last(graph, "~/points_labelled")
    graph.rig.destroy_subscription(subscription)
    assert (stamp_of(message), message.header.frame_id) == (stamp, "lidar")
    assert [(field.name, field.offset) for field in message.fields] == [
        ("x", 0),
        ("y", 4),
        ("z", 8),
        ("intensity", 12),
        ("label", 16),
    ]
    sent, got = decode_cloud(MAKERS["lidar.points"](stamp), "sent"), decode_cloud(message, "got")
    np.testing.assert_array_equal(got.points, sent.points)
    np.testing.assert_array_equal(got.intensity, sent.intensity)
    labels = np.frombuffer(message.data, np.uint8).reshape(-1, 20)[:, 16]
    # the LiDAR sits in the camera (static_transforms); pixel of a point, and the mask's value there: its column / 8
    x, y, z = sent.points
    u, v = WIDTH * x / z + WIDTH / 2 - 0.5, WIDTH * y / z + HEIGHT / 2 - 0.5
    inside = (u >= -0.5) & (u < WIDTH - 0.5) & (v >= -0.5) & (v < HEIGHT - 0.5)
    column = np.floor(u + 0.5).astype(int)
    expected = np.where(inside, column // 8, UNLABELLED)
    hidden = inside & (labels == UNLABELLED)
    assert 0 < hidden.sum() < 0.5 * inside.sum()  # points at random: some lie behind others
    np.testing.assert_array_equal(labels[~hidden], expected[~hidden])


def test_a_sweep_that_cannot_be_aligned_is_not_labelled(start):
    graph = start()
    graph.activate("rgb", "lidar", with_transforms=False)
    subscription = graph.listen("~/points_labelled", PointCloud2)
    graph.spin(0.2)
    graph.await_masks(graph.send(2))
    graph.rig.destroy_subscription(subscription)
    assert graph.received["~/points_labelled"] == []
    assert graph.diagnostics()["input lidar"].level == DiagnosticStatus.WARN


def test_the_warm_up_frame_knows_the_frames_of_the_boxes():
    for frames in ({"base_frame": "base_link", "frame": "odom"}, {"base_frame": "lidar", "frame": "rgb"}, {}):
        options = {f"detections.{name}": value for name, value in frames.items()}
        predictor = KnownBoxes(None)
        perception = warm_up(from_flat({**BASE, "detections.enabled": True, **options}), predictor)
        assert perception.detection_frames.known
        assert predictor.points[0].points_m.shape == (8, 3)

"""The live node says what the pipeline says without ROS, bit for bit; its warm-up has every modality."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("vision_msgs.msg", reason="needs the ROS message packages")

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.serialization import serialize_message

from gemini_core.config import FusionConfig, from_flat
from gemini_core.decode.message import RAW_TYPES, RawMessage
from gemini_core.pipeline.back import Back
from gemini_core.pipeline.front import Front
from gemini_core.predictor import Predictor
from gemini_core.types import MODALITIES
from gemini_ros.warmup import warm_up
from live_graph import BASE, MAKERS, Graph, compressed_depth, event_array, jpeg, names, static_transforms, values

pytestmark = pytest.mark.ros


def test_live_masks_equal_those_of_the_pipeline(graph):
    assert_live_equals_pipeline(graph, {})


def test_masks_from_compressed_images_and_event_arrays(graph):
    pytest.importorskip("dvs_msgs.msg", reason="no dvs_msgs in this ROS installation")
    changed = {
        "topics.rgb.transport": "compressed",
        "topics.depth.transport": "compressedDepth",
        "topics.event.type": "dvs_msgs/EventArray",
    }
    graph.config = from_flat(changed)
    graph.makers = {**MAKERS, "rgb.image": jpeg, "depth.image": compressed_depth, "event.packets": event_array}
    try:
        assert_live_equals_pipeline(graph, changed)
        topics = {subscription.topic_name for subscription in graph.node.subscriptions}
        assert {"/rgb/image/compressed", "/depth/image/compressedDepth"} <= topics
        counted = {count.what: count.number for count in graph.node._session.counts()}
        assert counted["event.packets.events"] == 12
        assert not [what for what in counted if ".refused." in what or ".dropped." in what]
    finally:
        graph.drop_node()
        graph.withdraw()
        graph.config, graph.makers = FusionConfig(), MAKERS


def assert_live_equals_pipeline(graph: Graph, changed: dict[str, Any]) -> None:
    """Masks of four frames with every sensor, from the graph and from the same messages without ROS."""
    changed = {"model.enabled": True, "model.head_width": 8, "modalities": list(MODALITIES), **changed}
    graph.start(**{key.replace(".", "__"): value for key, value in changed.items()})
    graph.activate(*MODALITIES)
    stamps = graph.send(4)
    live = graph.await_masks(stamps)
    graph.spin_until(lambda: len(graph.received["~/timing"]) == len(stamps))
    for message in graph.received["~/timing"]:
        assert names(values(message.status[0])["modalities"]) == set(MODALITIES), message.status[0].message
    assert graph.diagnostics()["model"].level == DiagnosticStatus.WARN
    assert "never trained" in graph.last_diagnostics()["model"].message

    config = from_flat({**BASE, **changed})
    front, back = Front(config), Back(config, Predictor(config))
    frames = []
    for role, message in [("tf_static", static_transforms())] + [
        (role, make(stamp_ns)) for stamp_ns in stamps for role, make in graph.makers.items()
    ]:
        kind = config.types_by_role()[role]
        raw = RawMessage(kind, serialize_message(message)) if kind in RAW_TYPES else message
        frames += front.push(role, raw)
    offline = [back.process(frame) for frame in (*frames, *front.finish())]
    assert [perception.stamp_ns for perception in offline] == stamps
    for perception in offline:
        assert all(status.present for status in perception.status)
        np.testing.assert_array_equal(live[perception.stamp_ns], perception.mask)
    assert len({perception.mask.tobytes() for perception in offline}) > 1


def test_the_warm_up_frame_has_every_modality():
    config = from_flat(BASE)
    assert [status.present for status in warm_up(config, None).status] == [True] * 4
    same_view = from_flat({**BASE, "event.alignment": "same_view", "modalities": ["rgb", "event"]})
    assert [status.present for status in warm_up(same_view, None).status] == [True] * 2
    others = {
        "topics.event.type": "dvs_msgs/EventArray",
        "topics.rgb.transport": "compressed",
        **{f"{modality}.rectified": True for modality in ("rgb", "depth", "event")},
    }
    assert [status.present for status in warm_up(from_flat({**BASE, **others}), None).status] == [True] * 4

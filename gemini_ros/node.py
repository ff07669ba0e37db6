"""The lifecycle node: ROS messages in, masks and boxes out. What runs while it is active is session.py."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, qos_policy_name_from_kind
from rclpy.timer import Timer
from rclpy.utilities import get_rmw_implementation_identifier

from gemini_core.config.fusion import FusionConfig
from gemini_core.decode.advice import advice, advice_for_missing
from gemini_core.errors import GeminiError, nearest_names
from gemini_core.predictor import BoxPredictor, Predictor, make_predictor
from gemini_core.types import Count, Role
from gemini_ros import qos
from gemini_ros.dds import PROFILE_VARIABLE, transport_problem
from gemini_ros.diagnostics import ERROR, OK, WARN, Trouble, status, status_name
from gemini_ros.message_types import input_classes
from gemini_ros.outputs import Outputs
from gemini_ros.parameters import NodeParameters
from gemini_ros.session import Session
from gemini_ros.warmup import warm_up

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # ROS 2 Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks


class FusionNode(LifecycleNode):
    """Aligns the sensors of one robot and segments what they see.

    configure builds the network, activate subscribes. A transition that fails logs one sentence and leaves the node alive,
    unconfigured; /diagnostics repeats the sentence.

    Args:
        options: passed on to rclpy's node, e.g. ``context`` and ``parameter_overrides``.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - rclpy's own options
        super().__init__("gemini_fusion", automatically_declare_parameters_from_overrides=True, **options)
        self._state = "unconfigured"
        self._failure = ""
        self._diagnostics_failed, self._diagnostics_failure = 0, ""
        self._declared = NodeParameters(self, lambda: self._state, self._take_live_options)
        self._config: FusionConfig | None = None
        self._predictor: Predictor | BoxPredictor | None = None
        self._outputs: Outputs | None = None
        self._session: Session | None = None
        self._skipped_before = 0
        self._mismatches: dict[str, Callable[[], tuple[str, ...]]] = {}
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.output_qos())
        self._diagnostics_timer: Timer | None = None
        self._diagnostics_timer = self._diagnose_every(self.get_parameter("node.diagnostics_period_s").value)

    @property
    def state(self) -> str:
        """The lifecycle state: unconfigured, inactive, active or finalized."""
        return self._state

    def start(self) -> None:
        """Configure and activate, if the parameter ``node.autostart`` asks for it."""
        wanted = self.get_parameter("node.autostart").value
        if wanted and self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def stop(self) -> None:
        """Go down in order: what waits is worked off, the worker ends, the topics leave the graph."""
        if self._state != "finalized":
            self.trigger_shutdown()

    # ----------------------------------------------------------------------------------------------------------------
    # Transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters, build the network, try it once, offer the outputs."""
        return self._transition("configure", "inactive", self._configure, lambda: LifecycleNode.on_configure(self, state))

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let the outputs through, then subscribe."""
        return self._transition("activate", "active", lambda: LifecycleNode.on_activate(self, state), self._begin_session)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, publish what still waits, then stop the outputs."""
        return self._transition("deactivate", "inactive", self._end_session, lambda: LifecycleNode.on_deactivate(self, state))

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the network and the outputs."""
        return self._transition("cleanup", "unconfigured", self._tear_down, lambda: LifecycleNode.on_cleanup(self, state))

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The end, from any state."""
        return self._transition("shutdown", "finalized", self._tear_down, lambda: LifecycleNode.on_shutdown(self, state))

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an unexpected error: unconfigured again, and alive; finalized where not even that works."""
        try:
            self._tear_down()
        except Exception as error:  # noqa: BLE001 - rclpy would end the node without a word
            self._state = "finalized"
            self.get_logger().fatal(f"cleaning up after the error failed, too: {error!r}\n{traceback.format_exc()}")
            return TransitionCallbackReturn.FAILURE
        self._state = "unconfigured"
        return LifecycleNode.on_error(self, state)

    def _transition(self, name: str, goal: str, *steps: Callable[[], object]) -> TransitionCallbackReturn:
        """Carry out one transition; rclpy itself would swallow an exception without a word."""
        self._failure = ""
        try:
            for step in steps:
                step()
        except GeminiError as error:
            self._failure = f"{name} failed: {error}"
            self.get_logger().error(self._failure)
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # noqa: BLE001 - the node stays alive and says what happened
            self._failure = f"{name} failed unexpectedly: {error!r}"
            self.get_logger().error(f"{self._failure}\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        self._state = goal
        self.get_logger().info(f"{name}: done, {goal}")
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        config = self._declared.config()
        input_classes(config)  # else a missing message package would show only at activate
        predictor = make_predictor(config)
        warm_up(config, predictor)
        self._config, self._predictor = config, predictor
        self._outputs = Outputs(self)
        self._outputs.offer(self._publisher_events)
        self._diagnostics_timer = self._diagnose_every(config.node.diagnostics_period_s)
        if problem := self._transport_problem():
            self.get_logger().warning(problem)

    def _transport_problem(self) -> str:
        fast_dds = get_rmw_implementation_identifier().startswith("rmw_fastrtps")
        return transport_problem(os.environ) if fast_dds else ""

    def _begin_session(self) -> None:
        config, outputs = self._config, self._outputs
        if config is None or outputs is None:
            msg = "expected a configured node to activate"
            raise GeminiError(msg)
        outputs.announce_classes(config.model.classes)
        self._skipped_before = 0
        self._session = Session(self, config, self._predictor, outputs)
        self._session.start(self._subscription_events)
        for name in self._declared.unused_qos_overrides():
            self.get_logger().warning(f"a QoS override without effect: {name}")

    def _end_session(self) -> None:
        if self._session is not None:
            try:
                self._session.finish()
                self._diagnose()
            finally:
                self._session = None

    def _tear_down(self) -> None:
        self._end_session()
        if self._outputs is not None:
            self._outputs.destroy()
        self._config, self._predictor, self._outputs = None, None, None
        self._mismatches.clear()

    def _take_live_options(self, config: FusionConfig) -> None:
        if self._config is not None:
            self._config = config
        if self._session is not None:
            self._session.config = config

    # ----------------------------------------------------------------------------------------------------------------
    # Connections that do not come about

    def _subscription_events(self, topic: str, profile: QoSProfile) -> SubscriptionEventCallbacks:
        def find() -> tuple[str, ...]:
            return qos.mismatched_publishers(self, topic, profile)

        return SubscriptionEventCallbacks(incompatible_qos=lambda event: self._note_mismatch(topic, find, event))

    def _publisher_events(self, topic: str, profile: QoSProfile) -> PublisherEventCallbacks:
        def find() -> tuple[str, ...]:
            return qos.mismatched_subscriptions(self, topic, profile)

        return PublisherEventCallbacks(incompatible_qos=lambda event: self._note_mismatch(topic, find, event))

    def _note_mismatch(self, topic: str, find: Callable[[], tuple[str, ...]], event: Any) -> None:  # noqa: ANN401 - rclpy's
        """Log it now; /diagnostics repeats it as long as it lasts."""
        self._mismatches[topic] = find
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        for sentence in find() or (f"QoS incompatible on {topic}: {policy} of another node does not fit",):
            self.get_logger().warning(sentence)

    def _why_nothing_arrives(self, role: Role, topic: str, kind: str, profile: QoSProfile) -> Trouble | None:
        """What the graph says of an input topic of type ``kind``; None when a publisher fits."""
        endpoints = self.get_publishers_info_by_topic(topic)
        if not endpoints:
            own = self.get_fully_qualified_name() + "/"
            offered = {
                name: types[0]
                for name, types in self.get_topic_names_and_types()
                if not name.startswith(own) and self.count_publishers(name)
            }
            near = nearest_names(topic, [name for name, offered_kind in offered.items() if offered_kind == kind])
            hint = advice_for_missing(role, topic, offered) or near
            return Trouble("no_publisher", f"no publisher on {topic} ({kind}; {hint})")
        others = [endpoint for endpoint in endpoints if endpoint.topic_type != kind]
        if len(others) == len(endpoints):
            sentence = f"{others[0].node_name} publishes {topic} as {others[0].topic_type}, expected {kind}"
            hint = advice(role, topic, others[0].topic_type)
            return Trouble("other_type", f"{sentence}; {hint}" if hint else sentence)
        mismatches = qos.mismatched_publishers(self, topic, profile)
        if len(mismatches) + len(others) == len(endpoints):
            return Trouble("qos_incompatible", "; ".join(mismatches))
        return None

    # ----------------------------------------------------------------------------------------------------------------
    # Diagnostics

    def _diagnose_every(self, period_s: float) -> Timer:
        """By the wall clock: the node speaks even where /clock stands still."""
        if self._diagnostics_timer is not None:
            self.destroy_timer(self._diagnostics_timer)
        return self.create_timer(period_s, self._diagnose, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _diagnose(self) -> None:
        """Publish the diagnostics; where that fails, the node lives, logs the first failure of a kind, and counts them all."""
        try:
            self._publish_diagnostics()
        except Exception as error:  # noqa: BLE001 - the timer would hand it to the executor, which ends the node
            self._diagnostics_failed += 1
            sentence = f"/diagnostics: expected to publish, got {error!r}"
            if sentence != self._diagnostics_failure:
                self.get_logger().error(sentence)
            self._diagnostics_failure = sentence

    def _publish_diagnostics(self) -> None:
        message = DiagnosticArray(status=[self._state_status(), self._connection_status()])
        message.header.stamp = self.get_clock().now().to_msg()
        if self._config is not None:
            message.status.append(self._model_status(self._config))
        if self._session is not None:
            message.status += self._session_statuses(self._session)
        self._diagnostics.publish(message)

    def _status(self, what: str, level: bytes, message: str, values: Mapping[str, Any] | Iterable[Count]) -> DiagnosticStatus:
        return status(f"{status_name(self)}: {what}", level, message, values, self.get_fully_qualified_name())

    def _state_status(self) -> DiagnosticStatus:
        level = ERROR if self._failure else OK if self._state == "active" else WARN
        values = {
            "state": self._state,
            "failure": self._failure,
            PROFILE_VARIABLE: os.environ.get(PROFILE_VARIABLE, "not set"),
            "transport": self._transport_problem() or "ok",
            "diagnostics.failed": str(self._diagnostics_failed),
        }
        return self._status("state", level, self._failure or self._state, values)

    def _connection_status(self) -> DiagnosticStatus:
        found = {topic: "; ".join(find()) for topic, find in self._mismatches.items()}
        found = {topic: sentence for topic, sentence in found.items() if sentence}
        return self._status("connections", WARN if found else OK, "; ".join(found.values()) or "ok", found)

    def _model_status(self, config: FusionConfig) -> DiagnosticStatus:
        values = {
            "enabled": str(self._predictor is not None).lower(),
            "trained": str(self._predictor is not None and self._predictor.trained).lower(),
            "weights": config.model.weights,
            "box_weights": config.detections.weights,
            "device": config.model.device,
            "precision": config.model.precision,
            "classes": ", ".join(config.model.classes),
        }
        if self._predictor is None:
            return self._status("model", OK, "no network (model.enabled is false): masks are all unlabelled", values)
        if not self._predictor.trained:
            return self._status("model", WARN, f"never trained, its masks mean nothing: {self._predictor.describe()}", values)
        return self._status("model", OK, self._predictor.describe(), values)

    def _session_statuses(self, session: Session) -> list[DiagnosticStatus]:
        now = time.monotonic()
        stale_after_s = session.config.node.stale_after_s
        graph = {}
        for role, record in session.health.records.items():
            age_s = record.age_s(now)
            if age_s is None or age_s > stale_after_s:
                trouble = self._why_nothing_arrives(role, record.topic, session.types[role], session.profiles[role])
                if trouble is not None:
                    graph[role] = trouble
        session.take_up_clocks()
        troubles = session.health.troubles(graph, stale_after_s, now)
        inputs = session.health.statuses(status_name(self), self.get_fully_qualified_name(), troubles, now)
        return [*inputs, *self._boxes_status(session, now), self._frames_status(session)]

    def _boxes_status(self, session: Session, now: float) -> list[DiagnosticStatus]:
        boxes = session.config.detections
        if not boxes.enabled:
            return []
        values = {
            "base_frame": boxes.base_frame,
            "frame": boxes.frame,
            "classes": ", ".join(f"{name}:{score:g}" for name, score in boxes.least_scores().items()),
            "max_boxes": str(boxes.max_boxes),
        }
        return [session.box_health.status(status_name(self), self.get_fully_qualified_name(), values, now)]

    def _frames_status(self, session: Session) -> DiagnosticStatus:
        counts = session.counts()
        numbers = {count.what: count.number for count in counts}
        skipped = numbers["frames.skipped_busy"] - self._skipped_before
        self._skipped_before = numbers["frames.skipped_busy"]
        message = f"{numbers['frames.published']} published"
        if session.last_failure:
            return self._status("frames", ERROR, f"{message}; failed: {session.last_failure}", counts)
        if skipped:
            message += f"; {skipped} skipped since the last report, since the network is slower than the camera"
        return self._status("frames", WARN if skipped else OK, message, counts)

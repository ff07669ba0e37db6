"""The node's parameters: every option of gemini_core.config.sections, with its description and range.

Parameters change as a set and are validated as a set. Options marked live change at any time; all others only while the
node is unconfigured, so that what a parameter says is what runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import NameValidationException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.validate_topic_name import validate_topic_name

from gemini_core.config.engine import Option, OptionValue, check_value, options
from gemini_core.config.fusion import FusionConfig, from_flat
from gemini_core.errors import ConfigError, nearest_names
from gemini_core.types import Role
from gemini_ros.qos import override_problem

QOS_PREFIX = "qos_overrides."
_OF_RCLPY = ("use_sim_time", "start_type_description_service")
_AT_START_ONLY = ("node.autostart",)  # read once, when the process starts


def descriptor(option: Option) -> ParameterDescriptor:
    """What ``ros2 param describe`` shows of an option."""
    described = ParameterDescriptor(description=option.description, read_only=option.key in _AT_START_ONLY)
    constraints = []
    if option.choices:
        constraints.append("one of: " + ", ".join(option.choices))
    if described.read_only:
        constraints.append("read when the process starts")
    elif not option.live:
        constraints.append("changes only while the node is unconfigured")
    described.additional_constraints = "; ".join(constraints)
    if option.minimum is not None and option.maximum is not None:
        if option.type is int:
            described.integer_range = [IntegerRange(from_value=int(option.minimum), to_value=int(option.maximum))]
        else:
            described.floating_point_range = [FloatingPointRange(from_value=option.minimum, to_value=option.maximum)]
    return described


def _to_ros(value: OptionValue) -> bool | int | float | str | list[str]:
    return list(value) if isinstance(value, tuple) else value


def _check_topic(role: Role, topic: str) -> None:
    try:
        validate_topic_name(topic)
    except NameValidationException as error:
        reason = str(error).splitlines()[0].rstrip(":")  # a picture of the place follows
        msg = f"parameters: topic of {role}: expected a topic name, got {topic!r} ({reason})"
        raise ConfigError(msg) from None


class NodeParameters:
    """Declares the options on a node, refuses wrong changes, and gives the validated configuration.

    The node must be made with ``automatically_declare_parameters_from_overrides=True``: that is rclpy's public way to see
    every override, those of unknown names too.

    Args:
        node: where the parameters are declared.
        state: tells the node's lifecycle state, such as "unconfigured".
        changed: called with the new configuration just before rclpy takes up an accepted change.
    """

    def __init__(self, node: Node, state: Callable[[], str], changed: Callable[[FusionConfig], None]) -> None:
        self._node = node
        self._state = state
        self._changed = changed
        self._options = {option.key: option for option in options(FusionConfig)}
        self._problems: dict[str, str] = {}
        overrides = self._take_overrides()
        self._qos_overrides = [name for name in overrides if name.startswith(QOS_PREFIX)]
        found = {name: override_problem(name, overrides[name]) for name in self._qos_overrides}
        self._problems.update({name: sentence for name, sentence in found.items() if sentence})
        for option in self._options.values():
            self._declare(option, overrides)
        for name in overrides:
            if name not in self._options and name not in self._qos_overrides:
                self._problems[name] = f"unknown parameter {name!r} ({nearest_names(name, self._options)})"
        node.add_on_set_parameters_callback(self._check)

    def _take_overrides(self) -> dict[str, Any]:
        """Take back what rclpy declared from the overrides (without descriptors), and give the values."""
        taken = {
            name: parameter.value
            for name, parameter in self._node.get_parameters_by_prefix("").items()
            if name not in _OF_RCLPY
        }
        for name in taken:
            self._node.undeclare_parameter(name)
        return taken

    def _declare(self, option: Option, overrides: Mapping[str, Any]) -> None:
        value = option.default
        if option.key in overrides:
            try:
                value = check_value(option, overrides[option.key])
            except ConfigError as error:
                self._problems[option.key] = str(error)
        self._node.declare_parameter(option.key, _to_ros(value), descriptor(option), ignore_override=True)

    def config(self) -> FusionConfig:
        """The configuration that the parameters describe now.

        Raises:
            ConfigError: an override (of quality of service, too) with an unknown name or a value outside its range, values that
                do not go together, or a topic name that ROS refuses.
        """
        if self._problems:
            raise ConfigError("parameters: " + "; ".join(self._problems.values()))
        config = from_flat(self._values(), where="parameters")
        for role, topic in config.topics_by_role().items():
            _check_topic(role, topic)
        return config

    def unused_qos_overrides(self) -> list[str]:
        """QoS overrides given at start that no subscription or publisher has taken up, each with the nearest known name."""
        known = [QOS_PREFIX + name for name in self._node.get_parameters_by_prefix(QOS_PREFIX.rstrip("."))]
        return [f"{name} ({nearest_names(name, known)})" for name in self._qos_overrides if name not in known]

    def _values(self) -> dict[str, Any]:
        return {key: self._node.get_parameter(key).value for key in self._options}

    def _check(self, changes: list[Parameter[Any]]) -> SetParametersResult:
        """Say whether a set of changes may take effect (rclpy sets none of them if not), and pass on live ones."""
        wanted = {change.name: change.value for change in changes if change.name in self._options}
        if not wanted:
            return SetParametersResult(successful=True)
        state = self._state()
        fixed = [key for key in wanted if not self._options[key].live]
        if fixed and state != "unconfigured":
            reason = f"{fixed[0]}: changes only while the node is unconfigured, and it is {state}; clean it up first"
            return SetParametersResult(successful=False, reason=reason)
        try:
            config = from_flat({**self._values(), **wanted}, where="parameters")
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        for key in wanted:
            self._problems.pop(key, None)
        self._changed(config)
        return SetParametersResult(successful=True)

"""Parameters: descriptors, overrides, changes, and the shipped files made from the same options."""

from __future__ import annotations

import os
from itertools import count

import pytest
import yaml

from gemini_core.config.engine import options, to_flat
from gemini_core.config.fusion import FusionConfig, load_config
from gemini_core.errors import ConfigError
from gemini_ros.tools.parameter_tables import CONFIG, DOCUMENT, document_text, rules, yaml_text, yaml_value

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from rclpy.node import Node
from rclpy.parameter import Parameter

from gemini_ros.parameters import NodeParameters, descriptor

OPTIONS = {option.key: option for option in options(FusionConfig)}


# --------------------------------------------------------------------------------------------------------------------
# Shipped files


def test_the_shipped_configuration_loads_and_has_every_option_once():
    load_config(CONFIG)
    text = CONFIG.read_text(encoding="utf-8")
    keys = []

    def collect(node, prefix):
        for key, value in node.value:
            if isinstance(value, yaml.MappingNode):
                collect(value, f"{prefix}{key.value}.")
            else:
                keys.append(prefix + key.value)

    root = yaml.compose(text)
    parameters = root.value[0][1].value[0][1]
    collect(parameters, "")
    assert keys == list(OPTIONS)


def test_comments_and_table_are_those_of_the_options():
    assert CONFIG.read_text(encoding="utf-8") == yaml_text(load_config(CONFIG)), (
        "run python -m gemini_ros.tools.parameter_tables"
    )
    document = DOCUMENT.read_text(encoding="utf-8")
    assert document == document_text(document), "run python -m gemini_ros.tools.parameter_tables"


@pytest.mark.parametrize("value", [True, 3, 2.5, 1e-6, "", "rgb/image", "/tf", "no", "null", "a b", "0", ("x", "on", "")])
def test_values_survive_yaml(value):
    loaded = yaml.safe_load(yaml_value(value))
    if value == 1e-6:  # YAML 1.1 reads a number without a dot as text; no option has such a default
        assert float(loaded) == value
    else:
        assert (tuple(loaded) if isinstance(loaded, list) else loaded) == value


def test_rules_in_words():
    assert rules(OPTIONS["grid.height"]) == "32 to 4096"
    assert rules(OPTIONS["grid.resize"]) == "crop | stretch"
    assert rules(OPTIONS["model.weights"]) == ""


# --------------------------------------------------------------------------------------------------------------------
# Descriptors


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_descriptors_carry_description_and_range(option):
    described = descriptor(option)
    assert described.description == option.description
    ranges = [*described.integer_range, *described.floating_point_range]
    if option.minimum is None:
        assert not ranges
    else:
        assert [(entry.from_value, entry.to_value) for entry in ranges] == [(option.minimum, option.maximum)]
    assert all(choice in described.additional_constraints for choice in option.choices)


# --------------------------------------------------------------------------------------------------------------------
# On a node


@pytest.fixture(scope="module")
def context():
    made = rclpy.Context()
    rclpy.init(context=made, domain_id=1 + os.getpid() % 100)
    yield made
    rclpy.shutdown(context=made)


@pytest.fixture
def make(context):
    nodes, number = [], count()

    def build(overrides=None, state="unconfigured"):
        node = Node(
            f"parameters_{next(number)}",
            context=context,
            automatically_declare_parameters_from_overrides=True,
            parameter_overrides=[Parameter(name, value=value) for name, value in (overrides or {}).items()],
        )
        node.changed = []
        node.state = state
        node.ours = NodeParameters(node, lambda: node.state, node.changed.append)
        nodes.append(node)
        return node

    yield build
    for node in nodes:
        node.destroy_node()


def put(node, **values):
    named = [Parameter(name.replace("__", "."), value=value) for name, value in values.items()]
    return node.set_parameters_atomically(named)


pytestmark = pytest.mark.ros


def test_defaults_are_those_of_the_options(make):
    assert make().ours.config() == FusionConfig()


def test_overrides_arrive_with_the_options_type(make):
    node = make({"grid.height": 96, "depth.max_m": 30, "modalities": ["rgb", "lidar"], "use_sim_time": True})
    config = node.ours.config()
    assert (config.grid.height, config.depth.max_m, config.modalities) == (96, 30.0, ("rgb", "lidar"))
    assert node.get_parameter("use_sim_time").value is True


def test_every_option_is_declared_with_its_descriptor(make):
    node = make({"grid.height": 96})
    for key, option in OPTIONS.items():
        described = node.describe_parameter(key)
        assert described.description == option.description
        assert bool(described.integer_range or described.floating_point_range) == (option.minimum is not None)


def test_an_unknown_override_is_refused_with_the_nearest_name(make):
    with pytest.raises(ConfigError, match=r"unknown parameter 'grid.heigth' \(nearest known: grid.height"):
        make({"grid.heigth": 96}).ours.config()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("grid.height", 5, "expected a value from 32 to 4096, got 5"),
        ("grid.height", "tall", "expected a whole number, got 'tall'"),
        ("event.voxel_bins", 5, "event.voxel_bins: expected 3, got 5"),
        ("model.device", "tpu", "expected one of auto, cpu, cuda, got 'tpu'"),
        ("modalities", ["depth"], "expected 'rgb' first"),
        ("lidar.min_height_m", 9.0, "expected less than lidar.max_height_m"),
    ],
)
def test_a_wrong_override_leaves_the_node_alive_and_can_be_corrected(make, key, value, says):
    node = make({key: value})
    with pytest.raises(ConfigError, match=says):
        node.ours.config()
    default = to_flat(FusionConfig())[key]
    assert put(node, **{key.replace(".", "__"): list(default) if isinstance(default, tuple) else default}).successful
    assert node.ours.config() == FusionConfig()


def test_changes_are_validated_as_a_set(make):
    node = make()
    result = put(node, lidar__min_height_m=10.0)
    assert not result.successful
    assert "expected less than lidar.max_height_m" in result.reason
    assert put(node, lidar__min_height_m=10.0, lidar__max_height_m=20.0).successful
    assert node.ours.config().lidar.min_height_m == 10.0


def test_one_bad_change_in_a_set_changes_nothing(make):
    node = make()
    result = put(node, node__stale_after_s=5.0, model__device="tpu")
    assert not result.successful
    assert node.get_parameter("node.stale_after_s").value == 2.0
    assert node.changed == []


@pytest.mark.parametrize("state", ["inactive", "active"])
def test_only_live_options_change_once_configured(make, state):
    node = make()
    node.state = state
    result = put(node, grid__height=96)
    assert not result.successful
    assert result.reason == f"grid.height: changes only while the node is unconfigured, and it is {state}; clean it up first"
    assert put(node, node__stale_after_s=5.0).successful
    assert node.changed[-1].node.stale_after_s == 5.0


def test_autostart_is_read_only(make):
    result = put(make(), node__autostart=False)
    assert not result.successful
    assert "read-only" in result.reason


def test_ranges_are_held_by_the_descriptor(make):
    result = put(make(), node__overlay_alpha=2.0)
    assert not result.successful
    assert "node.overlay_alpha" in result.reason


def test_a_qos_override_is_no_unknown_parameter_and_is_reported_when_unused(make):
    node = make({"qos_overrides./rgb/image.subscription.reliability": "reliable"})
    assert node.ours.config() == FusionConfig()
    (unused,) = node.ours.unused_qos_overrides()
    assert unused.startswith("qos_overrides./rgb/image.subscription.reliability")

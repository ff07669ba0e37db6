"""What the launch files say, and that the files and settings they name exist.

The launch packages are part of a ROS installation and not on PyPI; without them the files are only read.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import gemini_ros
from gemini_core.config.fusion import FusionConfig
from gemini_ros.dds import (
    MALLOC_SETTINGS,
    PROFILE_VARIABLE,
    config_file,
    has_large_message_transport,
    profile_variable,
    settings,
)

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
FILES = ("fusion.launch.py", "replay.launch.py")


def strings(name: str) -> set[str]:
    tree = ast.parse((LAUNCH / name).read_text(encoding="utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def assigned(name: str, variable: str) -> object:
    tree = ast.parse((LAUNCH / name).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == variable:
            return ast.literal_eval(node.value)
    raise AssertionError(variable)


@pytest.mark.parametrize("name", FILES)
def test_launch_files_compile_and_describe_themselves(name):
    source = (LAUNCH / name).read_text(encoding="utf-8")
    tree = ast.parse(source)
    compile(tree, name, "exec")
    assert any(isinstance(node, ast.FunctionDef) and node.name == "generate_launch_description" for node in tree.body)


def test_every_input_of_the_node_can_be_remapped():
    topics = FusionConfig().topics_by_role()
    relative = {topic for topic in topics.values() if not topic.startswith("/")}
    assert set(assigned("fusion.launch.py", "INPUTS").values()) == relative


def test_the_launched_executables_are_installed_by_the_package():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert {"gemini_fusion_node", "gemini_ros"} <= strings("fusion.launch.py")
    assert '"gemini_fusion_node = gemini_ros.main:main"' in setup
    assert {"gemini_bag_play", "gemini_ros"} <= strings("replay.launch.py")
    assert '"gemini_bag_play = gemini_ros.tools.play:main"' in setup


def test_the_arguments_are_declared():
    assert {"params_file", "namespace", "use_sim_time", "log_level", "autostart"} <= strings("fusion.launch.py")
    assert {"bag", "rate"} <= strings("replay.launch.py")


@pytest.mark.parametrize("name", FILES)
def test_the_launch_description(name):
    """The descriptions come out; the real graph of actions is only there on a ROS installation."""
    pytest.importorskip("launch_ros.actions", reason="launch_ros is part of a ROS installation, not on PyPI")
    actions = importlib.import_module("launch.actions")
    nodes = importlib.import_module("launch_ros.actions")
    spec = importlib.util.spec_from_file_location("described", LAUNCH / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    entities = module.generate_launch_description().entities
    assert all(entity.description for entity in entities if isinstance(entity, actions.DeclareLaunchArgument))
    assert len([entity for entity in entities if isinstance(entity, nodes.Node)]) == 1


def test_the_dds_profile_has_what_large_messages_need():
    root = ET.parse(config_file("fastdds.xml")).getroot()  # noqa: S314 - our own file
    name = {"d": "http://www.eprosima.com"}
    shared = root.find(".//d:transport_descriptor[d:type='SHM']", name)
    assert int(shared.find("d:segment_size", name).text) == 33554432
    assert int(shared.find("d:maxMessageSize", name).text) == 16777216
    participant = root.find(".//d:participant", name)
    assert participant.get("is_default_profile") == "true"
    assert participant.find(".//d:useBuiltinTransports", name).text == "false"
    declared = {element.text for element in root.findall(".//d:transport_descriptor/d:transport_id", name)}
    assert {element.text for element in participant.findall(".//d:transport_id", name)} == declared
    kinds = {element.text for element in root.findall(".//d:transport_descriptor/d:type", name)}
    assert kinds == {"SHM", "UDPv4"}


def test_environment_adds_the_settings_and_keeps_the_users_own():
    added = gemini_ros.environment({"PATH": "/bin"})
    assert added["PATH"] == "/bin"
    assert Path(added[PROFILE_VARIABLE]).is_file()
    assert MALLOC_SETTINGS.items() <= added.items()
    assert settings().items() <= added.items()
    assert gemini_ros.environment({PROFILE_VARIABLE: "mine.xml"})[PROFILE_VARIABLE] == "mine.xml"


def test_the_profile_variable_is_the_one_that_the_distribution_reads():
    assert profile_variable("humble") == profile_variable("jazzy") == "FASTRTPS_DEFAULT_PROFILES_FILE"
    assert profile_variable("kilted") == profile_variable(None) == "FASTDDS_DEFAULT_PROFILES_FILE"


def test_whether_the_transport_is_set():
    assert not has_large_message_transport({})
    assert has_large_message_transport({PROFILE_VARIABLE: "x"})
    assert has_large_message_transport({"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"})


def test_the_package_and_its_environment_import_without_ros():
    code = "import sys, gemini_ros; gemini_ros.environment(); sys.exit('rclpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ), check=False).returncode == 0

"""What the launch files say, and that the files and settings they name exist.

The launch packages are part of a ROS installation and not on PyPI; without them the files are only read.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import gemini_ros
from gemini_core.config.engine import options
from gemini_core.config.fusion import FusionConfig
from gemini_core.errors import ConfigError
from gemini_ros import dds
from gemini_ros.dds import (
    MALLOC_SETTINGS,
    PROFILE_VARIABLE,
    config_file,
    missing_settings,
    profile_variable,
    settings,
    transport_problem,
)
from gemini_ros.launching import TOPICS, check_params_file, overrides, within
from gemini_ros.main import main

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
FILES = ("fusion.launch.py", "replay.launch.py")


def strings(name: str) -> set[str]:
    tree = ast.parse((LAUNCH / name).read_text(encoding="utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.mark.parametrize("name", FILES)
def test_launch_files_compile_and_describe_themselves(name):
    source = (LAUNCH / name).read_text(encoding="utf-8")
    tree = ast.parse(source)
    compile(tree, name, "exec")
    assert any(isinstance(node, ast.FunctionDef) and node.name == "generate_launch_description" for node in tree.body)


def test_every_input_of_the_node_has_an_argument():
    topics = FusionConfig().topics_by_role()
    relative = {role for role, topic in topics.items() if not topic.startswith("/")}
    assert {parameter.removeprefix("topics.") for parameter in TOPICS.values()} == relative


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
    actions = pytest.importorskip("launch.actions", reason="launch is part of a ROS installation, not on PyPI")
    spec = importlib.util.spec_from_file_location("described", LAUNCH / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    entities = module.generate_launch_description().entities
    arguments = [entity for entity in entities if isinstance(entity, actions.DeclareLaunchArgument)]
    assert arguments
    assert all(argument.description for argument in arguments)


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


SHM = (
    "<transport_descriptor><transport_id>a</transport_id><type>SHM</type><segment_size>{}</segment_size></transport_descriptor>"
)
PROFILE = """<dds xmlns="http://www.eprosima.com"><profiles><transport_descriptors>{descriptors}</transport_descriptors>
<participant profile_name="p" is_default_profile="{default}"><rtps>{rtps}</rtps></participant></profiles></dds>"""
OWN = "<userTransports><transport_id>a</transport_id></userTransports><useBuiltinTransports>false</useBuiltinTransports>"


def profile(size=33554432, default="true", rtps=OWN):
    return PROFILE.format(descriptors=SHM.format(size), default=default, rtps=rtps)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (profile(), ""),
        (profile(524288), "shared memory of 524288 bytes"),
        (profile("many"), "shared memory of 0 bytes"),
        (profile(default="false"), "no participant"),
        (profile(rtps=""), "built-in transports on"),  # the large segment is described and not used
        (profile(rtps="<builtinTransports>LARGE_DATA</builtinTransports>"), ""),
        (profile().replace("SHM", "UDPv4"), ""),
        ("<dds><profiles>", "is no XML"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]>" + profile(), "DOCTYPE"),
        ("<a>" * 100_000, "is no XML"),
        (None, "expected a readable profile"),
    ],
)
def test_a_profile_of_the_user_that_loses_images_is_named(tmp_path, content, said):
    path = tmp_path / "mine.xml"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    problem = transport_problem({PROFILE_VARIABLE: str(path)})
    assert said in problem
    assert bool(problem) == bool(said)
    assert not problem or (str(path) in problem and "\n" not in problem)


def test_what_fast_dds_does_by_itself_loses_images():
    assert "is not set" in transport_problem({})
    assert not transport_problem({PROFILE_VARIABLE: str(config_file("fastdds.xml"))})
    assert not transport_problem({"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA?max_msg_size=4MB"})
    assert "SHM" in transport_problem({"FASTDDS_BUILTIN_TRANSPORTS": "SHM"})


@pytest.mark.parametrize("name", ["FASTDDS_BUILTIN_TRANSPORTS", "FASTRTPS_DEFAULT_PROFILES_FILE", PROFILE_VARIABLE])
def test_what_the_user_chose_for_fast_dds_stays(name):
    added = missing_settings({name: "mine", "MALLOC_TOP_PAD_": "1"})
    assert PROFILE_VARIABLE not in added
    assert "MALLOC_TOP_PAD_" not in added
    assert "MALLOC_TRIM_THRESHOLD_" in added
    assert missing_settings({}) == settings()


def test_a_sourced_overlay_wins_over_where_pip_put_files(tmp_path, monkeypatch):
    monkeypatch.setattr(dds, "__file__", str(tmp_path / "nowhere" / "gemini_ros" / "dds.py"))
    for prefix in ("upper", "lower", "python"):
        folder = tmp_path / prefix / "share" / "gemini_ros" / "config"
        folder.mkdir(parents=True)
        (folder / "fusion.yaml").touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "python"))
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'upper'}{os.pathsep}{tmp_path / 'lower'}")
    assert config_file("fusion.yaml").is_relative_to(tmp_path / "upper")
    monkeypatch.delenv("AMENT_PREFIX_PATH")
    assert config_file("fusion.yaml").is_relative_to(tmp_path / "python")


def test_only_arguments_that_are_given_win_over_the_parameter_file():
    assert overrides(dict.fromkeys(TOPICS, "")) == {}
    assert overrides({"use_sim_time": "", "autostart": "False", "rgb_image": "/a"}) == {
        "node.autostart": False,
        "topics.rgb.image": "/a",
    }
    with pytest.raises(ConfigError, match="autostart: expected true or false, got 'maybe'"):
        overrides({"autostart": "maybe"})
    known = {option.key for option in options(FusionConfig)}
    assert set(TOPICS.values()) <= known


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("/**:\n  ros__parameters: {grid.height: 64}", ""),
        ("robot:\n  gemini_fusion:\n    ros__parameters: {}", ""),
        ("/robot/gemini_fusion: {ros__parameters: {}}", ""),
        ("other: {ros__parameters: {}}\n/a/b: {ros__parameters: {}}", "got those of: /other, /a/b"),
        ("grid: {height: 64}", "got those of: none"),
        ("", "got those of: none"),
        ("[", "YAML"),
        (None, "expected a readable configuration file"),
    ],
)
def test_a_parameter_file_that_says_nothing_to_the_node_is_refused(tmp_path, content, said):
    path = tmp_path / "robot.yaml"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with contextlib.nullcontext() if not said else pytest.raises(ConfigError, match=re.escape(said)):
        check_params_file(str(path))


def test_topics_of_a_bag_in_a_namespace():
    assert within("", "/rgb/image") == "/rgb/image"
    assert within("/", "/rgb/image") == "/rgb/image"
    assert within("robot", "/rgb/image") == within("/robot/", "/rgb/image") == "/robot/rgb/image"
    assert within("robot", "/robot/rgb/image") == "/robot/rgb/image"
    assert within("robot", "/tf_static") == "/tf_static"


@contextlib.contextmanager
def launched(*arguments, **variables):
    """What ``ros2 launch`` starts, and the process itself; where launch is installed."""
    pytest.importorskip("ros2launch", reason="ros2launch is part of a ROS installation, not on PyPI")
    command = [sys.executable, "-c", ROS2, "launch", str(LAUNCH / "fusion.launch.py"), *arguments]
    env = {**os.environ, "ROS_DOMAIN_ID": DOMAIN, **variables}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)


def parameter(name):
    """What ``ros2 param get`` says of the node in /robot."""
    command = [
        sys.executable,
        "-c",
        ROS2,
        "param",
        "get",
        "--no-daemon",
        "--spin-time",
        "2",
        "--hide-type",
        "/robot/gemini_fusion",
        name,
    ]
    env = {**os.environ, "ROS_DOMAIN_ID": DOMAIN}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False).stdout.strip()


ROS2 = "import sys; from ros2cli.cli import main; sys.exit(main())"
DOMAIN = str(100 + os.getpid() % 100)


def test_a_parameter_file_that_is_not_there_ends_the_launch():
    with launched("params_file:=/nowhere/robot.yaml") as process:
        said = process.stdout.read()
        assert process.wait(60) != 0
    assert "/nowhere/robot.yaml: expected a readable configuration file" in said


def test_the_parameter_file_wins_unless_an_argument_is_given(tmp_path):
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    if not any((Path(prefix) / "lib" / "gemini_ros").is_dir() for prefix in prefixes):
        pytest.skip("ros2 launch finds executables of packages that colcon has built; here pip has installed this one")
    path = tmp_path / "robot.yaml"
    path.write_text(
        "/**:\n  ros__parameters: {use_sim_time: true, node.autostart: false, topics.rgb.transport: compressed, "
        "topics.rgb.image: /front/image, topics.lidar.points: /top/points}",
        encoding="utf-8",
    )
    with launched(f"params_file:={path}", "namespace:=robot", "rgb_image:=/rear/image"):
        end = time.monotonic() + 60
        while not (found := parameter("topics.rgb.image")) and time.monotonic() < end:
            time.sleep(0.5)
        assert found == "/rear/image"
        assert parameter("topics.lidar.points") == "/top/points"
        assert parameter("use_sim_time") == "True"
        assert parameter("node.autostart") == "False"


def test_the_node_tells_its_use_and_does_not_start(capsys):
    assert main(["--help"]) == 0
    assert "--params-file" in capsys.readouterr().out


def test_the_package_and_its_environment_import_without_ros():
    code = "import sys, gemini_ros; gemini_ros.environment(); sys.exit('rclpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ), check=False).returncode == 0

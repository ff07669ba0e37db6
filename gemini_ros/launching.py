"""What the launch files decide, apart from launch itself: is the parameter file one for this node, and which arguments win."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gemini_core.documents import read_yaml
from gemini_core.errors import ConfigError

NODE = "gemini_fusion"

TOPICS = {
    "rgb_image": "topics.rgb.image",
    "rgb_camera_info": "topics.rgb.camera_info",
    "depth_image": "topics.depth.image",
    "depth_camera_info": "topics.depth.camera_info",
    "lidar_points": "topics.lidar.points",
    "events": "topics.event.packets",
    "events_camera_info": "topics.event.camera_info",
}
"""Launch argument -> the node's parameter that it sets."""

_SWITCHES = {"use_sim_time": "use_sim_time", "autostart": "node.autostart"}
_WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def overrides(arguments: Mapping[str, str]) -> dict[str, bool | str]:
    """Node parameters of the launch arguments that were given, those that are not empty; all others are the parameter file's.

    Raises:
        ConfigError: a switch is neither true nor false.
    """
    given = {name: value for name, value in arguments.items() if value}
    found: dict[str, bool | str] = {TOPICS[name]: value for name, value in given.items() if name in TOPICS}
    for name, parameter in _SWITCHES.items():
        if name not in given:
            continue
        if given[name].lower() not in _WORDS:
            msg = f"launch argument {name}: expected true or false, got {given[name]!r}"
            raise ConfigError(msg)
        found[parameter] = _WORDS[given[name].lower()]
    return found


def check_params_file(path: str) -> None:
    """Check that a parameter file is there and says something to this node; rcl only warns, and the node would run on defaults.

    Raises:
        ConfigError: it is no file, no YAML, or has parameters of other nodes only.
    """
    content = read_yaml(path, ConfigError)
    names = list(_nodes(content, ""))
    if not any("*" in name or name.rpartition("/")[2] == NODE for name in names):
        found = ", ".join(names) or "none"
        msg = f"{path}: expected parameters (ros__parameters) of /** or of {NODE}, got those of: {found}"
        raise ConfigError(msg)


def _nodes(content: Any, name: str) -> Iterator[str]:  # noqa: ANN401 - whatever stands in the file
    """Names of the nodes, such as /robot/gemini_fusion, that a parameter file has parameters of."""
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if key == "ros__parameters":
            yield name or "(no node)"
        else:
            yield from _nodes(value, f"{name}/{str(key).strip('/')}")


def within(namespace: str, topic: str) -> str:
    """The topic of a bag as a node in ``namespace`` subscribes to its relative name: /rgb/image is /robot/rgb/image there.

    The topics of transforms and time are absolute for every node, and a topic of that namespace stays.
    """
    prefix = "/" + namespace.strip("/")
    if prefix == "/" or topic in {"/tf", "/tf_static", "/clock"} or topic.startswith(prefix + "/"):
        return topic
    return f"{prefix}/{topic.lstrip('/')}"

"""Imports go one way, as the table of docs/architecture.md says, and the core knows nothing of ROS."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from source_imports import REPOSITORY, imported_names, imports_of_file, module_name, sources

# Rooms: the modules that they consist of (with all below them), and the rooms that they may import besides themselves.
ROOMS = {
    "contracts": ("gemini_core", "gemini_core.types", "gemini_core.errors", "gemini_core.config", "gemini_core.compiling"),
    "decode": ("gemini_core.decode",),
    "geometry": (
        "gemini_core.calibration",
        "gemini_core.geometry",
        "gemini_core.motion",
        "gemini_core.outgoing",
        "gemini_core.transform_tree",
    ),
    "synchronize": ("gemini_core.stream_time", "gemini_core.synchronize", "gemini_core.tracks"),
    "project": ("gemini_core.project",),
    "model": ("gemini_core.model",),
    "runtimes": ("gemini_core.runtimes",),
    "predictor": ("gemini_core.predictor",),
    "pipeline": ("gemini_core.pipeline",),
    "offline": (
        "gemini_core.bag",
        "gemini_core.evaluate",
        "gemini_core.labelling",
        "gemini_core.simulation",
        "gemini_core.render",
        "gemini_core.process",
        "gemini_core.replay",
    ),
    "cli": ("gemini_core.cli",),
    "node": ("gemini_ros",),
    "training": ("training",),
    "launch": ("launch",),
}
LAYERS_0_TO_2 = {"contracts", "decode", "geometry", "synchronize", "project", "model", "runtimes"}
LAYERS_0_TO_4 = LAYERS_0_TO_2 | {"predictor", "pipeline", "offline"}
MAY_IMPORT = {
    "contracts": set(),
    "decode": {"contracts"},
    "geometry": {"contracts"},
    "synchronize": {"contracts"},
    "project": {"contracts", "decode", "geometry", "synchronize"},
    "model": {"contracts"},
    "runtimes": {"contracts", "model"},
    "predictor": LAYERS_0_TO_2,
    "pipeline": LAYERS_0_TO_2 | {"predictor"},
    "offline": LAYERS_0_TO_4,
    "cli": LAYERS_0_TO_4,
    "node": LAYERS_0_TO_4 | {"cli"},
    "training": LAYERS_0_TO_4 | {"cli"},
    "launch": {"node"},
}
OURS = ("gemini_core", "gemini_ros", "training")
ROS_PACKAGE = re.compile(
    r"(rclpy|\w+_msgs|\w+_interfaces|sensor_msgs_py|cv_bridge|message_filters|launch|launch_\w+|ament_\w+|ros2\w+|tf2_\w+|rosidl_\w+)$"
)


def room_of(name: str) -> str | None:
    """The room of a dotted name: the one with the longest module that it lies in."""
    found = [
        (len(module), room) for room, modules in ROOMS.items() for module in modules if (name + ".").startswith(module + ".")
    ]
    return max(found)[1] if found else None


def violations(module: str, imported: set[str]) -> list[str]:
    """Sentences about what a module imports but may not."""
    room = room_of(module)
    wrong = []
    for name in sorted(imported):
        top = name.split(".")[0]
        if top in OURS and room_of(name) not in {room} | MAY_IMPORT[room]:
            wrong.append(f"{module} (room {room}) imports {name} (room {room_of(name)})")
        if module.startswith(("gemini_core", "training")) and ROS_PACKAGE.match(top):
            wrong.append(f"{module} imports {name}, a ROS package")
    return wrong


ALL_SOURCES = list(sources("gemini_core", "gemini_ros", "training", "launch"))


@pytest.mark.parametrize("path", ALL_SOURCES, ids=[str(path.relative_to(REPOSITORY)) for path in ALL_SOURCES])
def test_a_module_imports_only_what_its_room_may(path: Path):
    assert violations(module_name(path), imports_of_file(path)) == []


@pytest.mark.parametrize("path", list(sources("gemini_core")), ids=module_name)
def test_every_module_of_the_core_has_a_room(path: Path):
    name = module_name(path)
    known = {module for modules in ROOMS.values() for module in modules}
    assert name == "gemini_core" or ".".join(name.split(".")[:2]) in known, (
        f"{name}: give it a room in docs/architecture.md and here"
    )


def test_every_room_stands_in_the_architecture():
    table = [line for line in (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8").splitlines() if "|" in line]
    for modules in ROOMS.values():
        for module in modules:
            if module not in ("gemini_core", "launch"):
                assert any(module.split(".")[-1] in line for line in table), module


@pytest.mark.parametrize(
    ("module", "source", "imported"),
    [
        ("gemini_core.types", "from gemini_core.decode.image import decode_color", "gemini_core.decode.image.decode_color"),
        ("gemini_core.types", "from gemini_core import pipeline", "gemini_core.pipeline"),
        ("gemini_core.decode.image", "from ..project import lidar", "gemini_core.project.lidar"),
        ("gemini_core.decode.image", "def f():\n    import gemini_core.synchronize", "gemini_core.synchronize"),
        ("gemini_core.model.mit", "from gemini_core.project import projector", "gemini_core.project.projector"),
        ("gemini_core.predictor", "import gemini_core.pipeline", "gemini_core.pipeline"),
        ("gemini_core.pipeline", "from gemini_core.bag.reader import BagReader", "gemini_core.bag.reader.BagReader"),
        ("gemini_core.simulation.scene", "from gemini_core.cli import main", "gemini_core.cli.main"),
        ("gemini_core.cli", "from gemini_ros.node import FusionNode", "gemini_ros.node.FusionNode"),
        ("gemini_core.cli", "from training import train", "training.train"),
        ("gemini_core.bag.reader", "import rclpy.serialization", "rclpy.serialization"),
        ("gemini_core.bag.reader", "import importlib\nimportlib.import_module('sensor_msgs.msg')", "sensor_msgs.msg"),
        ("training.train", "from gemini_ros import node", "gemini_ros.node"),
        ("launch.fusion.launch", "from gemini_core.config import load_config", "gemini_core.config.load_config"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, imported: str):
    assert [sentence for sentence in violations(module, imported_names(source, module)) if f"imports {imported}" in sentence]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gemini_core.decode.image", "from gemini_core.types import ImageSample\nfrom . import codes\nimport numpy as np"),
        ("gemini_core.calibration", "from gemini_core.transform_tree import TransformTree"),
        ("gemini_core.cli", "from gemini_core.simulation.scene import Street"),
        ("gemini_ros.node", "import rclpy\nfrom gemini_core.pipeline import Pipeline"),
    ],
)
def test_a_right_import_passes(module: str, source: str):
    assert violations(module, imported_names(source, module)) == []


def test_the_core_imports_where_there_is_no_ros():
    program = f"""
import importlib, pkgutil, re, sys

class NoRos:
    def find_spec(self, name, path=None, target=None):
        if re.match({ROS_PACKAGE.pattern!r}, name.split(".")[0]):
            raise ModuleNotFoundError(f"no ROS here, but {{name}} is asked for", name=name)

sys.meta_path.insert(0, NoRos())
try:
    import rclpy
except ModuleNotFoundError:
    pass
else:
    sys.exit("ROS was not blocked")
import gemini_core
for module in pkgutil.walk_packages(gemini_core.__path__, "gemini_core."):
    importlib.import_module(module.name)
    print(module.name)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "gemini_core.config" in done.stdout.split()

"""Imports go one way, as the table of docs/architecture.md says, and the core knows nothing of ROS."""

from __future__ import annotations

import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from source_imports import REPOSITORY, imported_names, imports_of_file, module_name, sources

# Rooms: the modules that they consist of (with all below them), and the rooms that they may import besides themselves.
ROOMS = {
    "ground": (
        "gemini_core",
        *(f"gemini_core.{name}" for name in ("types", "errors", "files", "documents")),
        *(f"gemini_core.{name}" for name in ("extras", "tables", "compiling")),
    ),
    "config": ("gemini_core.config",),
    "decode": ("gemini_core.decode",),
    "rig": ("gemini_core.rig",),
    "synchronize": ("gemini_core.synchronize",),
    "project": ("gemini_core.project",),
    "model": ("gemini_core.model",),
    "runtimes": ("gemini_core.runtimes",),
    "predictor": ("gemini_core.predictor",),
    "pipeline": ("gemini_core.pipeline",),
    "render": ("gemini_core.render",),
    "bag": ("gemini_core.bag",),
    "replay": ("gemini_core.replay",),
    "inspection": ("gemini_core.inspection",),
    "alignment": ("gemini_core.alignment",),
    "labelling": ("gemini_core.labelling",),
    "evaluate": ("gemini_core.evaluate",),
    "simulation": ("gemini_core.simulation",),
    "cli": ("gemini_core.cli",),
    "node": ("gemini_ros",),
    "training": ("training",),
    "benchmarks": ("benchmarks",),
    "launch": ("launch",),
}
CONTRACTS = {"ground", "config"}
FRAMES = CONTRACTS | {"decode", "rig", "synchronize"}
PERCEPTION = FRAMES | {"project", "model", "runtimes", "predictor", "pipeline"}
CORE = PERCEPTION | {"render", "bag", "replay", "inspection", "alignment", "labelling", "evaluate", "simulation"}
MAY_IMPORT: dict[str, set[str]] = {
    "ground": set(),
    "config": {"ground"},
    "decode": CONTRACTS,
    "rig": CONTRACTS,
    "synchronize": CONTRACTS,
    "project": FRAMES,
    "model": {"ground"},
    "runtimes": {"ground", "model"},
    "predictor": FRAMES | {"project", "model", "runtimes"},
    "pipeline": FRAMES | {"project", "model", "runtimes", "predictor"},
    "render": {"ground"},
    "bag": FRAMES,
    "replay": PERCEPTION | {"bag"},
    "inspection": FRAMES | {"project", "bag", "replay"},
    "alignment": FRAMES | {"project", "bag", "replay"},
    "labelling": FRAMES | {"project", "render", "bag", "replay"},
    "evaluate": FRAMES | {"model", "render", "bag"},
    "simulation": CONTRACTS | {"rig", "render", "bag"},
    "cli": CORE,
    "node": CORE,
    "training": CORE,
    "benchmarks": CORE | {"cli", "node", "training"},
    "launch": {"node"},
}
OURS = ("gemini_core", "gemini_ros", "training", "benchmarks")
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


ALL_SOURCES = list(sources("gemini_core", "gemini_ros", "training", "benchmarks", "launch"))


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


def test_rooms_lie_above_one_another():
    """In a circle of rooms none could be built first."""
    assert list(graphlib.TopologicalSorter(MAY_IMPORT).static_order())


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
        (
            "gemini_core.decode.image",
            "def f():\n    import gemini_core.synchronize.synchronizer",
            "gemini_core.synchronize.synchronizer",
        ),
        ("gemini_core.model.mit", "from gemini_core.project import projector", "gemini_core.project.projector"),
        ("gemini_core.predictor", "import gemini_core.pipeline.front", "gemini_core.pipeline.front"),
        ("gemini_core.pipeline.front", "from gemini_core.bag.reader import BagReader", "gemini_core.bag.reader.BagReader"),
        ("gemini_core.simulation.scene", "from gemini_core.cli import main", "gemini_core.cli.main"),
        ("gemini_core.cli", "from gemini_ros.node import FusionNode", "gemini_ros.node.FusionNode"),
        ("gemini_core.cli", "from training import train", "training.train"),
        ("gemini_core.bag.reader", "import rclpy.serialization", "rclpy.serialization"),
        ("gemini_core.bag.reader", "import importlib\nimportlib.import_module('sensor_msgs.msg')", "sensor_msgs.msg"),
        ("training.train", "from gemini_ros import node", "gemini_ros.node"),
        ("launch.fusion.launch", "from gemini_core.config.fusion import load_config", "gemini_core.config.fusion.load_config"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, imported: str):
    assert [sentence for sentence in violations(module, imported_names(source, module)) if f"imports {imported}" in sentence]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gemini_core.decode.image", "from gemini_core.types import ImageSample\nfrom . import codes\nimport numpy as np"),
        ("gemini_core.rig.calibration", "from gemini_core.rig.transform_tree import TransformTree"),
        ("gemini_core.cli", "from gemini_core.simulation.scene import Street"),
        ("gemini_ros.node", "import rclpy\nfrom gemini_core.pipeline.front import Front"),
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

"""Installs gemini_ros: by pip, and by colcon as an ament_python package (also where setuptools is too old for [project])."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from setuptools import Distribution, find_packages, setup

NAME = "gemini_ros"
ROOT = Path(__file__).resolve().parent  # colcon build --symlink-install runs a link to this file, in its build folder
SHARE = f"share/{NAME}"


def version() -> str:
    """What package.xml says, where ROS tools look for it: the one place."""
    found = re.search("<version>(.+)</version>", (ROOT / "package.xml").read_text(encoding="utf-8"))
    if found is None:
        sys.exit("setup.py: expected a <version> in package.xml, got none")
    return found[1]


def requirements(file: str) -> list[str]:
    """The lines of one of requirements/*.in without the comments."""
    lines = (ROOT / "requirements" / file).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def shared(folder: str) -> list[tuple[str, list[str]]]:
    """The files of a folder and of the folders in it, for share/gemini_ros."""
    files = [path.relative_to(ROOT) for path in sorted((ROOT / folder).rglob("*")) if path.is_file() and path.suffix != ".pyc"]
    parents = sorted({file.parent for file in files})
    return [(f"{SHARE}/{parent}", [str(file) for file in files if file.parent == parent]) for parent in parents]


class WithData(Distribution):
    """A distribution whose data files come along in an editable install too; setuptools asks has_data() then, and has none."""

    def has_data(self) -> bool:
        return self.has_data_files()


setup(
    distclass=WithData,
    name=NAME,
    version=version(),
    description="ROS 2 perception node that fuses camera, depth camera, event camera and LiDAR with GeminiFusion",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["gemini_core", "gemini_core.*", "gemini_ros", "gemini_ros.*", "training", "training.*"]),
    package_data={
        "gemini_core": ["py.typed", "weights/*.safetensors"],
        "gemini_ros.tools": ["templates/*.html"],
        "training": ["recipes/*.yaml", "templates/*.html"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (SHARE, ["package.xml"]),
        *shared("launch"),
        *shared("config"),
        *shared("interfaces"),
    ],
    install_requires=requirements("runtime.in"),
    extras_require={
        **{
            name: requirements(f"{name}.in")
            for name in ("simulation", "openvino", "onnx", "quantization", "mvxnet", "training", "labelling", "development")
        },
        "test": [
            "pytest",
            "hypothesis",
        ],  # what colcon looks at to run the tests with pytest: the quick part, see test/conftest.py
    },
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "gemini-fusion = gemini_core.cli:main",
            "gemini_fusion_node = gemini_ros.main:main",
            "gemini_bag_play = gemini_ros.tools.play:main",
        ],
    },
)

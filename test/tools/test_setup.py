"""The package installs by pip and by colcon, says what it needs, and set-up names what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import gemini_core
from source_imports import REPOSITORY, imports_of_file, sources

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PIN = re.compile(r'[a-z0-9-]+==[^ ;]+( ; python_version == "3\.\d+"( or python_version == "3\.\d+")*)?$')
LOCKED = ("runtime.in", "simulation.in", "openvino.in", "onnx.in", "training.in", "labelling.in", "development.in", "ros.in")
SHIPPED = ("launch", "config", "interfaces")
INSTALLED_NAME = {"cv2": "opencv-python-headless", "yaml": "pyyaml"}
ROSDEP_KEY = {"cv2": "python3-opencv", "yaml": "python3-yaml"}
WITHOUT_ROSDEP_KEY = {"torch", "rosbags", "numba", "safetensors", "apsw"}
OPTIONAL = {"spconv": "mvxnet.in", "open3d": "simulation.in"}  # imported only where it is asked for


def lines(name: str) -> list[str]:
    content = (REPOSITORY / "requirements" / name).read_text(encoding="utf-8").splitlines()
    return [line for line in content if line and not line.startswith("#")]


def locked(python: str) -> dict[str, Requirement]:
    """What the lock holds for one Python, by normalized name."""
    pins = [Requirement(line) for line in lines("lock.txt")]
    environment = {"python_version": python}
    return {canonicalize_name(pin.name): pin for pin in pins if pin.marker is None or pin.marker.evaluate(environment)}


# --------------------------------------------------------------------------------------------------------------------
# The lock


def test_the_lock_holds_exact_versions_only():
    assert [line for line in lines("lock.txt") if not PIN.match(line)] == []
    assert "torch==2.13.0" in lines("lock.txt")


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_meets_every_range(python: str):
    pins = locked(python)
    for line in [line for name in LOCKED for line in lines(name)]:
        wanted = Requirement(line)
        version = next(iter(pins[canonicalize_name(wanted.name)].specifier)).version
        assert wanted.specifier.contains(version), f"{wanted} but {version} is locked for Python {python}"


def test_the_lock_names_all_that_the_requirements_bring():
    """Follows what the installed packages say they need; the accelerator libraries of torch are its own business."""
    pins = locked(f"3.{sys.version_info.minor}")
    if not Path(sys.prefix, "share", "rclpy").is_dir():
        pytest.skip("ROS comes from an installation here, so this environment was not made from the lock")
    waiting = [Requirement(line).name for line in [line for name in LOCKED for line in lines(name)]]
    seen: set[str] = set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        assert name in pins
        for text in importlib.metadata.requires(name) or []:
            needed = Requirement(text)
            if (needed.marker is None or needed.marker.evaluate({"extra": ""})) and name != "torch":
                waiting.append(needed.name)


# --------------------------------------------------------------------------------------------------------------------
# What the package says of itself


def installed_metadata() -> importlib.metadata.Distribution:
    """Of the package as set-up installed it; a stray *.egg-info in the checkout does not count."""
    found = importlib.metadata.distributions(name="gemini_ros", path=[sysconfig.get_path("purelib")])
    return next(iter(found))


def test_metadata_asks_for_ranges():
    asked = [Requirement(text) for text in installed_metadata().requires]
    runtime = {str(item) for item in asked if item.marker is None}
    assert runtime == {str(Requirement(line)) for line in lines("runtime.in")}
    assert not [item for item in asked if any(part.operator == "==" for part in item.specifier)]


def test_versions_agree():
    from catkin_pkg.package import parse_package

    package = parse_package(str(REPOSITORY / "package.xml"))
    package.validate()
    assert package.name == "gemini_ros"
    assert package.package_format == 3
    assert package.get_build_type() == "ament_python"
    assert package.version == installed_metadata().version == gemini_core.__version__


def third_party(*folders: str) -> set[str]:
    tops = {name.split(".")[0] for path in sources(*folders) for name in imports_of_file(path)}
    return tops - set(sys.stdlib_module_names) - {"gemini_core", "gemini_ros", "training", ""}


def test_every_import_is_declared():
    from catkin_pkg.package import parse_package

    declared = {item.name for item in parse_package(str(REPOSITORY / "package.xml")).exec_depends}
    by_pip = {canonicalize_name(Requirement(line).name) for line in lines("runtime.in")}
    for module, extra in OPTIONAL.items():
        assert module in {canonicalize_name(Requirement(line).name) for line in lines(extra)}
    for module in third_party("gemini_core", "training") - set(OPTIONAL):
        assert canonicalize_name(INSTALLED_NAME.get(module, module)) in by_pip, f"requirements/runtime.in lacks {module}"
    for module in third_party("gemini_core", "gemini_ros", "launch") - WITHOUT_ROSDEP_KEY - set(OPTIONAL):
        keys = {module, f"python3-{module.lower()}", ROSDEP_KEY.get(module)}
        assert keys & declared, f"package.xml lacks {module}"


def test_interfaces_name_all_their_messages():
    for cmake in (REPOSITORY / "interfaces").glob("*/CMakeLists.txt"):
        named = set(re.findall(r'"(msg/\w+\.msg)"', cmake.read_text(encoding="utf-8")))
        assert named == {f"msg/{path.name}" for path in cmake.parent.glob("msg/*.msg")}


# --------------------------------------------------------------------------------------------------------------------
# Installing


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what an installation is made from, so that builds leave nothing behind here."""
    copy = tmp_path / "src" / "gemini_ros"
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("gemini_core", "gemini_ros", "training", "requirements", "resource", *SHIPPED):
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, copy / name, ignore=unwanted)
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "package.xml", "MANIFEST.in", "LICENSE"):
        shutil.copy(REPOSITORY / name, copy)
    return copy


def run(*command: str, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("AMENT_PREFIX_PATH", "COLCON_PREFIX_PATH")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_shares_everything(prefix: Path, checkout: Path):
    """Launch files, configuration, DDS profile, message definitions, and the marker by which ROS finds the package."""
    share = prefix / "share" / "gemini_ros"
    assert (prefix / "share/ament_index/resource_index/packages/gemini_ros").is_file()
    assert (share / "package.xml").read_bytes() == (checkout / "package.xml").read_bytes()
    shipped = [path.relative_to(checkout) for folder in SHIPPED for path in (checkout / folder).rglob("*") if path.is_file()]
    assert {path.suffix for path in shipped} >= {".py", ".yaml", ".xml", ".msg"}
    for path in shipped:
        assert (share / path).read_bytes() == (checkout / path).read_bytes()


def test_pip_installs_editable_with_launch_and_config_files(checkout: Path, tmp_path: Path):
    prefix = tmp_path / "prefix"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--ignore-installed")
    run(*pip, f"--prefix={prefix}", "--editable", str(checkout), cwd=tmp_path)
    assert_shares_everything(prefix, checkout)
    assert {path.name for path in (prefix / "bin").iterdir()} >= {"gemini-fusion", "gemini_fusion_node"}


def test_colcon_builds_with_launch_and_config_files(checkout: Path, tmp_path: Path):
    pytest.importorskip("colcon_core", reason="colcon is not installed in this environment")
    run(sys.executable, "-m", "colcon", "build", "--merge-install", cwd=tmp_path)
    install = tmp_path / "install"
    assert_shares_everything(install, checkout)
    node = install / "lib" / "gemini_ros" / "gemini_fusion_node"  # where `ros2 run` looks
    assert os.access(node, os.X_OK)
    modules = next(install.glob("lib/python*/site-packages"))
    assert (modules / "gemini_core" / "py.typed").is_file()
    assert (modules / "gemini_ros" / "__init__.py").is_file()


# --------------------------------------------------------------------------------------------------------------------
# The check of the system

SETUP = str(REPOSITORY / "tools" / "setup.sh")
NEEDED_BY_SH = ("sh", "dirname", "grep", "make", "g++", "cmake")


def run_setup(
    tmp_path: Path, *arguments: str, without: tuple[str, ...] = (), libraries: str = "", python: str = sys.executable
):
    """Run the check with a PATH that holds only chosen programs and an ldconfig that knows only chosen libraries."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in set(NEEDED_BY_SH) - set(without):
        (programs / name).symlink_to(shutil.which(name) or "/bin/false")
    script(programs / "ldconfig", f"printf '{libraries}'")
    environment = {"PATH": str(programs), "PYTHON": python}
    return subprocess.run(["/bin/sh", SETUP, *arguments], env=environment, capture_output=True, text=True, check=False)


def script(path: Path, line: str) -> str:
    path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_all_that_is_missing_is_named_in_one_line(tmp_path: Path):
    python = script(tmp_path / "python", 'case "$2" in *version_info*) exit 0;; *) exit 1;; esac')
    done = run_setup(tmp_path, without=("cmake", "g++"), libraries="\\tlibgomp.so.1 (libc6,x86-64) => /x\\n", python=python)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("sudo apt-get install -y python3-venv python3-dev g++ cmake libusb-1.0-0 libgl1\n")


def test_the_missing_packages_are_listed_for_a_machine(tmp_path: Path):
    done = run_setup(tmp_path, "--missing", without=("g++",), libraries="\\tlibusb-1.0.so.0 (libc6) => /x\\n")
    assert (done.returncode, done.stdout) == (0, "g++ libgl1 libgomp1\n")


def test_a_missing_python_is_named_too(tmp_path: Path):
    done = run_setup(tmp_path, python="no-such-python")
    assert done.returncode == 1
    assert "apt-get install -y python3 python3-venv python3-dev libusb" in done.stderr


def test_a_python_out_of_range_is_refused(tmp_path: Path):
    python = script(tmp_path / "python", 'case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac')
    done = run_setup(tmp_path, python=python)
    assert done.returncode == 1
    assert done.stderr.startswith("set-up: expected Python 3.10 to 3.13, got Python 3.9.2 from")

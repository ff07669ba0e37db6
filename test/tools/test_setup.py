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
from catkin_pkg.package import parse_package
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


PACKAGE = parse_package(str(REPOSITORY / "package.xml"))
ROS_PACKAGES = {item.name for item in PACKAGE.exec_depends + PACKAGE.test_depends if not item.name.startswith("python3-")}


def test_the_ros_package_is_what_ros_expects():
    PACKAGE.validate()
    assert PACKAGE.name == "gemini_ros"
    assert PACKAGE.package_format == 3
    assert PACKAGE.get_build_type() == "ament_python"


def test_the_version_is_that_of_package_xml():
    assert gemini_core.__version__ == installed_metadata().version == PACKAGE.version


def test_an_installation_knows_its_version(tmp_path: Path):
    """Where no package.xml lies beside the code, the metadata has it."""
    shutil.copytree(REPOSITORY / "gemini_core", tmp_path / "gemini_core", ignore=shutil.ignore_patterns("[!_]*"))
    metadata = tmp_path / "gemini_ros-9.8.7.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: gemini_ros\nVersion: 9.8.7\n", encoding="utf-8")
    program = "import gemini_core; print(gemini_core.__version__, gemini_core.__file__)"
    assert run(sys.executable, "-c", program, cwd=tmp_path).startswith(f"9.8.7 {tmp_path}")


def third_party(*folders: str) -> set[str]:
    tops = {name.split(".")[0] for path in sources(*folders) for name in imports_of_file(path)}
    return tops - set(sys.stdlib_module_names) - {"gemini_core", "gemini_ros", "training", ""}


def test_every_import_is_declared():
    declared = {item.name for item in PACKAGE.exec_depends}
    by_pip = {canonicalize_name(Requirement(line).name) for line in lines("runtime.in")}
    for module, extra in OPTIONAL.items():
        assert module in {canonicalize_name(Requirement(line).name) for line in lines(extra)}
    for module in third_party("gemini_core", "training") - set(OPTIONAL):
        assert canonicalize_name(INSTALLED_NAME.get(module, module)) in by_pip, f"requirements/runtime.in lacks {module}"
    for module in third_party("gemini_core", "gemini_ros", "launch") - WITHOUT_ROSDEP_KEY - set(OPTIONAL):
        keys = {module, f"python3-{module.lower()}", ROSDEP_KEY.get(module)}
        assert keys & declared, f"package.xml lacks {module}"


def test_every_declared_ros_package_is_used():
    """Named in the node, its launch files or its tests, which import some only where they are installed."""
    code = "".join(path.read_text(encoding="utf-8") for folder in ("gemini_ros", "launch", "test") for path in sources(folder))
    imports = r"\b(import |from |(importorskip|import_module|find_spec)\(\s*\")"
    used = {name for name in ROS_PACKAGES if re.search(rf"{imports}{name}\b", code)}
    assert used == ROS_PACKAGES


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
# What only the distribution brings: apt-get, sudo, Python and the compilers are stand-ins, since a test installs nothing

TOOLS = REPOSITORY / "tools"
NEEDED_BY_SH = ("sh", "dirname", "grep", "tail", "mktemp", "rm", "env", "cat")
LIBRARIES = r"\tlibusb-1.0.so.0 (libc6) => /x\n\tlibGL.so.1 (libc6) => /x\n\tlibgomp.so.1 (libc6) => /x\n"
ROOT, USER, USER_WITH_SUDO = "root", "user", "user with sudo"


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


class Machine:
    """A machine of which a test says what is installed, who runs set-up and how its apt-get answers."""

    def __init__(
        self, folder: Path, user: str = USER, *, have: tuple[str, ...] = ("make", "g++", "cmake"), libraries: str = LIBRARIES
    ):
        self._programs, self._log = folder / "bin", folder / "log"
        self._programs.mkdir()
        self._log.touch()
        for name in NEEDED_BY_SH:
            (self._programs / name).symlink_to(str(shutil.which(name)))
        for name in have:
            script(self._programs / name, "")
        script(self._programs / "ldconfig", f"printf '{libraries}'")
        script(self._programs / "id", f"echo {0 if user == ROOT else 1000}")
        script(self._programs / "sudo", 'shift; "$@"' if user == USER_WITH_SUDO else "exit 1")
        self.python = script(folder / "python", 'case "$1" in *setup_environment.py) echo second part;; esac')

    def apt_get(self, install: str = "", update: str = "") -> None:
        """Give it an apt-get that writes down what it is asked for and whether it may ask back, then does this."""
        body = f"""
        echo "$DEBIAN_FRONTEND $*" >>{self._log}
        case "$*" in *" update") {update or ":"};; *) {install or ":"};; esac"""
        script(self._programs / "apt-get", body)

    def brings(self, *names: str) -> str:
        """What an apt-get does that installs programs."""
        return "; ".join(
            f"printf '#!/bin/sh\\n' >{self._programs / name}; /bin/chmod +x {self._programs / name}" for name in names
        )

    def asked(self) -> list[str]:
        """What apt-get was asked for, in order."""
        return self._log.read_text(encoding="utf-8").splitlines()

    def set_up(self, python: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        command = ["/bin/sh", str(TOOLS / "setup.sh")]
        environment = {"PATH": str(self._programs), "PYTHON": python or self.python, **environment}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def assert_refused(done: subprocess.CompletedProcess[str], *parts: str):
    """In one line that has these parts."""
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    for part in parts:
        assert part in done.stderr
    assert "second part" not in done.stdout


def test_all_that_is_missing_is_named_in_one_line(tmp_path: Path):
    python = script(tmp_path / "old", 'case "$2" in *version_info*) exit 0;; *) exit 1;; esac')
    machine = Machine(tmp_path, have=("make",), libraries="\\tlibgomp.so.1 (libc6,x86-64) => /x\\n")
    machine.apt_get()
    done = machine.set_up(python)
    assert_refused(done, "install -y --no-install-recommends python3-venv python3-dev g++ cmake libusb-1.0-0 libgl1\n")
    assert machine.asked() == []


def test_a_missing_python_is_named_too(tmp_path: Path):
    done = Machine(tmp_path, libraries="").set_up("no-such-python")
    assert_refused(done, "python3 python3-venv python3-dev libusb", "there is no apt-get here")


def test_a_python_out_of_range_is_refused(tmp_path: Path):
    python = script(tmp_path / "old", 'case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac')
    done = Machine(tmp_path).set_up(python)
    assert done.returncode == 1
    assert done.stderr.startswith("set-up: expected Python 3.10 to 3.13, got Python 3.9.2 from")


def test_nothing_missing_asks_nobody(tmp_path: Path):
    machine = Machine(tmp_path, ROOT)
    machine.apt_get()
    done = machine.set_up()
    assert (done.returncode, done.stdout, done.stderr, machine.asked()) == (0, "second part\n", "", [])


@pytest.mark.parametrize("user", [ROOT, USER_WITH_SUDO])
def test_what_is_missing_is_installed_after_saying_so(tmp_path: Path, user: str):
    machine = Machine(tmp_path, user, have=("make",))
    machine.apt_get(install=machine.brings("g++", "cmake"), update="exit 100")  # a source that does not answer
    done = machine.set_up()
    assert (done.returncode, done.stderr) == (0, "")
    said, second = done.stdout.splitlines()
    sudo = "sudo -n " if user == USER_WITH_SUDO else ""
    assert said.endswith(f": {sudo}apt-get install -y --no-install-recommends g++ cmake")
    assert second == "second part"
    options = "noninteractive -qq -o DPkg::Lock::Timeout=120"
    updates = f"{options} -o APT::Update::Error-Mode=any update"
    assert machine.asked() == [updates, f"{options} install -y --no-install-recommends g++ cmake"]


@pytest.mark.parametrize(("user", "environment"), [(USER, {}), (ROOT, {"SYSTEM_PACKAGES": "no"})])
def test_nothing_is_installed_where_it_may_not(tmp_path: Path, user: str, environment: dict[str, str]):
    machine = Machine(tmp_path, user, have=("make", "g++"))
    machine.apt_get(install=machine.brings("cmake"))
    assert_refused(
        machine.set_up(**environment), "please install them: sudo apt-get install -y --no-install-recommends cmake\n"
    )
    assert machine.asked() == []


def test_an_installation_that_fails_gives_its_reason(tmp_path: Path):
    reason = "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (unattended-upgr)"
    machine = Machine(tmp_path, ROOT, have=("make", "g++"))
    machine.apt_get(install=f"echo Reading; echo '{reason}' >&2; echo 'E: and more' >&2; exit 100")
    assert_refused(machine.set_up(), f"({reason})", "sudo apt-get install -y --no-install-recommends cmake\n")


def test_the_reason_is_the_first_one(tmp_path: Path):
    """Without lists, every package is unknown; that they could not be fetched says more."""
    machine = Machine(tmp_path, ROOT, have=("make", "g++"))
    machine.apt_get(
        install="echo 'E: Unable to locate package cmake'; exit 100", update="echo 'E: Failed to fetch it'; exit 100"
    )
    assert_refused(machine.set_up(), "(E: Failed to fetch it)")


def test_packages_that_do_not_help_end_it(tmp_path: Path):
    machine = Machine(tmp_path, ROOT, have=("make", "g++"))
    machine.apt_get()
    assert_refused(machine.set_up(), "expected cmake to be enough, now that apt-get has installed them")


def test_what_a_ros_installation_lacks_is_installed_too(tmp_path: Path):
    """The installation: a folder with every module but cv_bridge, which apt-get brings."""
    site = tmp_path / "ros"
    machine = Machine(tmp_path, ROOT, have=())
    machine.apt_get(install=f"/bin/mkdir {site}/cv_bridge; : >{site}/cv_bridge/__init__.py")
    environment = {"PATH": str(tmp_path / "bin"), "PYTHONPATH": f"{site}:{TOOLS}"}
    environment |= {"ROS_DISTRO": "humble", "AMENT_PREFIX_PATH": str(site)}

    for name in ROS_PACKAGES - {"cv_bridge"}:
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").touch()
    program = "import setup_environment; print(setup_environment.uses_ros_installation())"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    said, answer = done.stdout.splitlines()
    assert said.endswith(": apt-get install -y --no-install-recommends ros-humble-cv-bridge")
    assert answer == "True"

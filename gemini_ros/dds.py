"""Environment variables for large messages over DDS: Fast DDS's profile and glibc's malloc, set before a process starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from gemini_core.errors import ConfigError
from gemini_core.runtimes.process_settings import OPENMP_SETTINGS

_BEFORE_FAST_DDS_3 = ("humble", "iron", "jazzy")


def profile_variable(distribution: str | None) -> str:
    """The variable that names Fast DDS's profile file; Fast DDS 3, from ROS 2 Kilted on, has renamed it."""
    return f"{'FASTRTPS' if distribution in _BEFORE_FAST_DDS_3 else 'FASTDDS'}_DEFAULT_PROFILES_FILE"


PROFILE_VARIABLE = profile_variable(os.environ.get("ROS_DISTRO"))
TRANSPORT_VARIABLE = "FASTDDS_BUILTIN_TRANSPORTS"

# glibc hands blocks above 128 KiB back to the kernel when they are freed, so each image would pay for fresh pages; these
# thresholds let it keep them.
MALLOC_SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
}


def config_file(name: str) -> Path:
    """Find a shipped configuration file, in the checkout or where the package was installed.

    Raises:
        ConfigError: it is in neither place.
    """
    folders = [Path(__file__).resolve().parents[1] / "config", Path(sys.prefix) / "share" / "gemini_ros" / "config"]
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    folders += [Path(prefix) / "share" / "gemini_ros" / "config" for prefix in prefixes if prefix]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    msg = f"expected the shipped file {name} in one of {', '.join(map(str, folders))}, found none"
    raise ConfigError(msg)


def settings() -> dict[str, str]:
    """The variables alone: the Fast DDS profile with a large shared-memory segment, malloc's thresholds, OpenMP's patience."""
    return {PROFILE_VARIABLE: str(config_file("fastdds.xml")), **MALLOC_SETTINGS, **OPENMP_SETTINGS}


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """A child process' environment: ``base`` (this process' own by default), with what it does not set itself added."""
    return {**settings(), **(os.environ if base is None else base)}


def has_large_message_transport(variables: Mapping[str, str]) -> bool:
    """Whether Fast DDS was told anything about its transports; by default it loses images of more than about 0.5 MB."""
    return bool(variables.get(PROFILE_VARIABLE) or variables.get(TRANSPORT_VARIABLE))

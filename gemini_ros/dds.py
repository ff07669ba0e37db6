"""Environment variables for large messages over DDS: Fast DDS's profile and glibc's malloc, set before a process starts."""

from __future__ import annotations

import os
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

from gemini_core.errors import ConfigError
from gemini_core.files import read_bytes
from gemini_core.runtimes.process_settings import OPENMP_SETTINGS

_BEFORE_FAST_DDS_3 = ("humble", "iron", "jazzy")


def profile_variable(distribution: str | None) -> str:
    """The variable that names Fast DDS's profile file; Fast DDS 3, from ROS 2 Kilted on, has renamed it."""
    return f"{'FASTRTPS' if distribution in _BEFORE_FAST_DDS_3 else 'FASTDDS'}_DEFAULT_PROFILES_FILE"


PROFILE_VARIABLE = profile_variable(os.environ.get("ROS_DISTRO"))
TRANSPORT_VARIABLE = "FASTDDS_BUILTIN_TRANSPORTS"
_PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")

_MOST_PROFILE_BYTES = 1 << 20
_OWN_SEGMENT_BYTES = 512 * 1024  # of Fast DDS, where a profile names none
_LEAST_SEGMENT_BYTES = 4 << 20  # an image of 1280 x 720 in colour has 2.8 MB

# glibc hands blocks above 128 KiB back to the kernel when they are freed, so each image would pay for fresh pages; these
# thresholds let it keep them.
MALLOC_SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
}


def config_file(name: str) -> Path:
    """Find a shipped configuration file: in the checkout, in the sourced overlays of ROS (uppermost first), where pip put it.

    Raises:
        ConfigError: it is in none of them.
    """
    prefixes = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    shares = [prefix / "share" / "gemini_ros" for prefix in [*prefixes, Path(sys.prefix)]]
    folders = [folder / "config" for folder in [Path(__file__).resolve().parents[1], *shares]]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    msg = f"expected the shipped file {name} in one of {', '.join(map(str, folders))}, found none"
    raise ConfigError(msg)


def settings() -> dict[str, str]:
    """The variables alone: the Fast DDS profile with a large shared-memory segment, malloc's thresholds, OpenMP's patience."""
    return {PROFILE_VARIABLE: str(config_file("fastdds.xml")), **MALLOC_SETTINGS, **OPENMP_SETTINGS}


def missing_settings(variables: Mapping[str, str]) -> dict[str, str]:
    """Those of ``settings()`` that ``variables`` lack; no profile where the user chose one, or transports, for Fast DDS."""
    chosen = any(variables.get(name) for name in (*_PROFILE_VARIABLES, TRANSPORT_VARIABLE))
    return {
        name: value for name, value in settings().items() if name not in variables and not (chosen and name == PROFILE_VARIABLE)
    }


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """A child process' environment: ``base`` (this process' own by default), with what it does not set itself added."""
    variables = dict(os.environ if base is None else base)
    return {**variables, **missing_settings(variables)}


def transport_problem(variables: Mapping[str, str]) -> str:
    """Why Fast DDS, set up by these variables, loses large messages, in one sentence; "" where it does not.

    Its own shared-memory segment of 0.5 MB is smaller than one image, and best-effort messages that do not fit are lost without
    a word. Its transports are chosen by a profile, which wins, or by ``FASTDDS_BUILTIN_TRANSPORTS``.
    """
    remedy = "set it to this package's config/fastdds.xml, for every process that sends or receives images and clouds"
    path = variables.get(PROFILE_VARIABLE, "")
    if path:
        try:
            problem = _profile_problem(read_bytes(path, ConfigError, _MOST_PROFILE_BYTES, "profile of Fast DDS"))
        except ConfigError as error:
            return f"{PROFILE_VARIABLE}: {error}; {remedy}"
        return f"{PROFILE_VARIABLE}: {path} {problem}; {remedy}" if problem else ""
    transports = variables.get(TRANSPORT_VARIABLE, "")
    if transports:
        return _builtin_problem(transports, f"{TRANSPORT_VARIABLE}={transports}: ")
    return f"{PROFILE_VARIABLE} is not set: Fast DDS loses images and clouds of more than about 0.5 MB; {remedy}"


def _builtin_problem(transports: str, where: str) -> str:
    """What is wrong with the built-in transports of this name, such as ``LARGE_DATA?max_msg_size=4MB``."""
    if transports.upper().startswith(("LARGE_DATA", "UDP")):  # UDP cuts what is large into datagrams
        return ""
    return f"{where}expected LARGE_DATA or UDP, since Fast DDS loses messages above about 0.5 MB in its own shared memory"


def _profile_problem(content: bytes) -> str:
    """What is wrong with a profile, as the end of a sentence that begins with its path; "" for nothing."""
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:  # Fast DDS knows none, and parsers follow entities without a bound
        return "has a DOCTYPE, which profiles of Fast DDS have not"
    try:
        root = ET.fromstring(content)  # noqa: S314 - of bounded size, and without entities
    except (ET.ParseError, ValueError, LookupError, RecursionError) as error:
        return f"is no XML ({error})"
    return _transports_problem(root)


def _transports_problem(root: ET.Element) -> str:
    """What is wrong with the transports of a profile, as ``_profile_problem`` says it."""
    participants = [element for element in root.iter() if _tag(element) == "participant"]
    default = [element for element in participants if element.get("is_default_profile") == "true"]
    if not default:
        return 'has no participant with is_default_profile="true", so that it changes nothing'
    used = {(element.text or "").strip() for element in default[0].iter() if _tag(element) == "transport_id"}
    described = [
        {_tag(value): (value.text or "").strip() for value in element}
        for element in root.iter()
        if _tag(element) == "transport_descriptor"
    ]
    shared = [each for each in described if each.get("transport_id") in used and each.get("type") == "SHM"]
    sizes = [int(size) for each in shared if (size := each.get("segment_size", str(_OWN_SEGMENT_BYTES))).isdecimal()]
    if max(sizes, default=0) >= _LEAST_SEGMENT_BYTES:
        return ""
    found = {_tag(element): (element.text or "").strip() for element in default[0].iter()}
    if found.get("useBuiltinTransports", "true").lower() not in {"false", "0"}:
        return _builtin_problem(found.get("builtinTransports") or "DEFAULT", "has built-in transports on: ")
    if not shared:
        return ""  # UDP or TCP alone cut what is large into datagrams or segments
    return f"has shared memory of {max(sizes, default=0)} bytes, where images take {_LEAST_SEGMENT_BYTES} and more"


def _tag(element: ET.Element) -> str:
    """The name of an XML element without its namespace."""
    return element.tag.rpartition("}")[2]

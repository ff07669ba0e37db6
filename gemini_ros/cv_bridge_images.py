"""Images in encodings that the core does not decode, converted by ROS 2's cv_bridge where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from gemini_core.decode.color import LAYOUTS
from gemini_core.decode.image import DEPTH_ENCODINGS
from gemini_core.decode.message import Header, Message
from gemini_core.types import Count, Role


class Bridge(Protocol):
    """What is used of ``cv_bridge.CvBridge``."""

    def imgmsg_to_cv2(self, message: Message, target: str, /) -> npt.NDArray[np.generic]:
        """Give the pixels of an image in another encoding."""

    def cv2_to_imgmsg(self, pixels: npt.NDArray[np.generic], encoding: str, header: Header, /) -> Message:
        """Give pixels as an image."""


_DEPTH_TARGETS = {"16SC1": "16UC1", "64FC1": "32FC1"}
"""Encodings of depth whose numbers keep their unit in what the core decodes (REP 118); cv_bridge would scale 8-bit ones."""


def find_cv_bridge() -> Bridge | None:
    """Give ROS 2's ``CvBridge``, None where there is none that can be imported.

    PyPI's ``cv-bridge`` 1.13 is ROS 1's, and reads 16-bit images wrongly. ROS 2's alone is registered in the ament index, and
    lies in the prefix that the index names.
    """
    spec = importlib.util.find_spec("cv_bridge")
    if spec is None or spec.origin is None or importlib.util.find_spec("ament_index_python") is None:
        return None
    try:
        prefix = importlib.import_module("ament_index_python.packages").get_package_prefix("cv_bridge")
    except (LookupError, OSError):  # not in the index; no index in this environment
        return None
    if not Path(spec.origin).resolve().is_relative_to(Path(prefix).resolve()):
        return None
    try:
        return cast("Bridge", importlib.import_module("cv_bridge").CvBridge())
    except (ImportError, AttributeError):  # as where it was built for another numpy
        return None


class ImageConverter:
    """Converts what the core would refuse for its encoding.

    Args:
        bridge: a ``CvBridge``, or None: nothing is converted.
        log: takes one sentence for every encoding that is converted, once.
    """

    def __init__(self, bridge: Bridge | None, log: Callable[[str], object]) -> None:
        self._bridge = bridge
        self._log = log
        self._counts: Counter[Role] = Counter()
        self._said: set[tuple[Role, str]] = set()

    def converted(self, role: Role, message: Message) -> Message:
        """Give an image in an encoding that the core decodes; what cannot be converted, or need not be, as it is.

        The core refuses such an image, and says what is wrong.
        """
        encoding = getattr(message, "encoding", "")
        target = _target(role, encoding)
        if self._bridge is None or not target:
            return message
        try:
            pixels = self._bridge.imgmsg_to_cv2(message, target)
            image = self._bridge.cv2_to_imgmsg(pixels, target, message.header)
        except (TypeError, ValueError, RuntimeError, ImportError, AttributeError):  # CvBridgeError is a TypeError
            return message
        self._counts[role] += 1
        if (role, encoding) not in self._said:
            self._said.add((role, encoding))
            self._log(f"{role}: images in {encoding} are converted to {target} by cv_bridge")
        return image

    def counts(self) -> tuple[Count, ...]:
        """How many images of each role were converted."""
        return tuple(Count(f"{role}.converted_by_cv_bridge", number) for role, number in sorted(self._counts.items()))


def _target(role: Role, encoding: str) -> str:
    """What an image is converted to, "" where it is not."""
    if role == "rgb.image" and encoding and encoding not in LAYOUTS:
        return "rgb8"
    return _DEPTH_TARGETS.get(encoding, "") if role == "depth.image" and encoding not in DEPTH_ENCODINGS else ""

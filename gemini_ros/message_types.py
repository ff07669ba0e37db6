"""Message classes by the names that the graph and bags have for them."""

from __future__ import annotations

import importlib
from typing import Any

from gemini_core.config.fusion import FusionConfig
from gemini_core.errors import ConfigError
from gemini_core.types import Role


def message_class(type_name: str) -> type[Any]:
    """Import the class of a type such as ``sensor_msgs/msg/Image``.

    Raises:
        ConfigError: the message package is not installed, or has no such message.
    """
    package, _, name = type_name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError):
        msg = f"expected the message type {type_name} to be installed, got no package {package} that has it"
        raise ConfigError(msg) from None


def input_classes(config: FusionConfig) -> dict[Role, type[Any]]:
    """The message class of every role.

    Raises:
        ConfigError: a message package is not installed.
    """
    return {role: message_class(name) for role, name in config.types_by_role().items()}

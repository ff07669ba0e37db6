"""The live ROS 2 node around gemini_core, and the tools that run it.

``environment()`` is what a process needs to exchange large messages; it needs no ROS to be imported.
"""

from __future__ import annotations

from gemini_ros.dds import environment

__all__ = ["environment"]

"""Sort messages that waited together by their stamps before they are worked off.

rclpy's executor takes one message per topic and round. After a busy moment a fast topic would then lag behind a slow one, and
frames would close (by ``sync.max_wait_ms`` of message time) before what they need has been read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gemini_core.decode.message import Message, message_stamp_ns
from gemini_core.types import Role

_FIRST: tuple[Role, ...] = ("tf_static", "rgb.camera_info", "depth.camera_info", "event.camera_info")

Arrival = tuple[Role, Any]


class StampOrder:
    """Sorts batches of messages; remembers each topic's last stamp, to keep what came after a jump of the clock after it.

    Intrinsics and fixed transforms come first, moving transforms before sensor data: they do not move time on. Nor do stamps of
    transforms tell of a jump by themselves, since many publishers with clocks and delays of their own share one topic.
    """

    def __init__(self, reset_jump_ns: int) -> None:
        self._reset_jump_ns = reset_jump_ns
        self._last_ns: dict[Role, int] = {}
        self._epoch: dict[Role, int] = {}

    def sort(self, batch: Iterable[Arrival]) -> list[Arrival]:
        """Give the batch in the order of stamps; messages of one topic keep their order."""
        arrivals = list(batch)
        epoch_before, newest_ns = self._newest_epoch(), max(self._last_ns.values(), default=0)
        keys = {index: self._key(role, message) for index, (role, message) in enumerate(arrivals) if role != "tf"}
        for index, (role, message) in enumerate(arrivals):
            if role == "tf":
                jumped = newest_ns - _stamp_ns(message, default=newest_ns) > self._reset_jump_ns
                keys[index] = (self._newest_epoch() if jumped else epoch_before, 0, 0)
        self._meet_again()
        return [arrivals[index] for index in sorted(keys, key=lambda index: (keys[index], index))]

    def _meet_again(self) -> None:
        """A topic at the time of one that jumped back is in its epoch: it jumped too, or only the other had been wrong."""
        newest = self._newest_epoch()
        there = [self._last_ns[role] for role, epoch in self._epoch.items() if epoch == newest]
        for role, epoch in self._epoch.items():
            if epoch < newest and any(abs(self._last_ns[role] - last_ns) <= self._reset_jump_ns for last_ns in there):
                self._epoch[role] = newest

    def _newest_epoch(self) -> int:
        return max(self._epoch.values(), default=0)

    def _key(self, role: Role, message: Message) -> tuple[int, int, int]:
        if role in _FIRST:
            return (-1, 0, 0)
        # a topic that begins later begins in the newest epoch
        epoch = self._epoch.setdefault(role, self._newest_epoch())
        stamp_ns = _stamp_ns(message, default=0)
        last_ns = self._last_ns.get(role, stamp_ns)
        if last_ns - stamp_ns > self._reset_jump_ns:
            epoch = self._epoch[role] = epoch + 1
            last_ns = stamp_ns
        self._last_ns[role] = max(last_ns, stamp_ns)
        return (epoch, 1, self._last_ns[role])


def _stamp_ns(message: Message, default: int) -> int:
    if hasattr(message, "transforms"):
        message = message.transforms[0] if message.transforms else None
    stamp = message_stamp_ns(message)
    return default if stamp is None else stamp

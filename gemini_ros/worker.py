"""Worker thread with a short queue that drops the oldest item."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Worker(Generic[Item]):
    """Calls ``work`` for each item on a thread of its own, in the order of ``put``.

    When more than ``limit`` items wait, the oldest is skipped and counted: a consumer that cannot keep up loses whole items
    instead of falling behind without bound. ``work`` must not raise.
    """

    def __init__(self, work: Callable[[Item], None], limit: int) -> None:
        self._work = work
        self._limit = limit
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._skipped = 0
        self._thread = threading.Thread(target=self._run, name="gemini_fusion_worker", daemon=True)
        self._thread.start()

    @property
    def skipped(self) -> int:
        """How many items were skipped so far."""
        return self._skipped

    @property
    def waiting(self) -> int:
        """How many items wait now."""
        return len(self._items)

    def put(self, item: Item) -> None:
        """Queue one item."""
        with self._changed:
            self._items.append(item)
            if len(self._items) > self._limit:
                self._items.popleft()
                self._skipped += 1
            self._changed.notify()

    def finish(self) -> None:
        """Work off what waits, then end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._stopping)
                if not self._items:
                    return
                item = self._items.popleft()
            self._work(item)

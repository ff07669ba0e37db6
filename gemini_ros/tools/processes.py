"""Start and stop the processes of a live run: node, recorder, player."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path


class LiveProcess:
    """One child process whose output is kept line by line in a log file and can be waited on.

    Args:
        name: what people call it, for messages and the log's name.
        module: the Python module to run with this interpreter.
        arguments: its command line.
        environment: its environment.
        log: the file that keeps what it prints.
        echo: called with each line it prints.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: list[str],
        *,
        environment: dict[str, str],
        log: Path,
        echo: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.name = name
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(  # noqa: S603 - our own modules with our own arguments
            [sys.executable, "-u", "-m", module, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, args=(log, echo), daemon=True)
        self._reader.start()

    def _read(self, log: Path, echo: Callable[[str], None]) -> None:
        stream = self._process.stdout
        if stream is None:
            return
        with log.open("w", encoding="utf-8") as kept:
            for line in stream:
                kept.write(line)
                kept.flush()
                echo(line.rstrip("\n"))
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[list[str]], bool], timeout_s: float) -> bool:
        """Wait until what was printed so far fulfils the condition; False on time-out or when the process has ended."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not condition(self.lines):
                if self._process.poll() is not None and not self._reader.is_alive():
                    return condition(self.lines)
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return False
                self._changed.wait(min(left_s, 0.2))
        return True

    @property
    def process_id(self) -> int:
        """The operating system's number for it."""
        return self._process.pid

    def last_words(self) -> str:
        """The last line it printed."""
        return next((line for line in reversed(self.lines) if line.strip()), "nothing printed")

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end and give back the exit code, None when it still runs after ``timeout_s``."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(5.0)
        return code

    def stop(self, timeout_s: float = 30.0) -> int:
        """Ask it to end (SIGINT), insist after ``timeout_s`` (SIGKILL), and give back the exit code."""
        if self.running:
            self._process.send_signal(signal.SIGINT)
        code = self.wait(timeout_s)
        if code is None:
            self._process.kill()
            code = self.wait(10.0)
        return -signal.SIGKILL if code is None else code


def cpu_seconds(process_id: int) -> float:
    """CPU time, user and system, that a running process has used so far (Linux)."""
    fields = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

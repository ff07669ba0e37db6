"""How programs end: exit codes, signals (SIGINT, SIGTERM), a reader that has seen enough (SIGPIPE); never a traceback.

A program is a light module whose ``main`` hands its work to ``run_program``; what takes seconds to import (torch) is imported
in that work, so that a signal in the first seconds ends it as a later one does.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from gemini_core.errors import GeminiError, shown_path

EXIT_WRONG_INPUT = 2
EXIT_READER_GONE = 128 + signal.SIGPIPE
"""As of every tool that SIGPIPE ends: not 0, since not all was told, and a shell with ``pipefail`` is to know."""

GRACE_S = 4.0
"""What a program has to end in order after a signal; launch kills it after 5 s."""


def run_program(
    name: str, work: Callable[[], int], *, wrong_input: int = EXIT_WRONG_INPUT, interrupted: str = "interrupted"
) -> int:
    """Do the work of a program and give its exit code.

    Args:
        name: what its errors begin with.
        work: gives the exit code; it is ended by an exception where SIGINT or SIGTERM comes, and cleans up on its way.
        wrong_input: exit code of an error of ours, and of a path that the system does not take.
        interrupted: what is said after SIGINT or SIGTERM.

    Returns:
        What ``work`` gave; ``wrong_input``; 130 after SIGINT, 143 after SIGTERM, 141 where nobody reads on.
    """
    with _signals_raise():
        try:
            return _told_all(work)
        except GeminiError as error:
            _tell(f"{name}: {error}")
            return wrong_input
        except KeyboardInterrupt as signalled:
            _tell(f"{name}: {interrupted}")
            return 128 + (signalled.number if isinstance(signalled, _Signalled) else signal.SIGINT)
        except OSError as error:
            if isinstance(error, BrokenPipeError) and _reader_gone():
                return EXIT_READER_GONE
            if error.filename is None:
                raise
            _tell(f"{name}: {shown_path(os.fsdecode(error.filename))}: expected a path that can be used, got {error.strerror}")
            return wrong_input


class _Signalled(KeyboardInterrupt):
    """A signal has come. A KeyboardInterrupt itself would have Python end by SIGINT if it came out of an ``exec``."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise, so that what is half written is cleaned up; in the main thread, which alone can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        raise _Signalled(number)

    before = _handled({signal.SIGINT: stop, signal.SIGTERM: stop})
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def end_at_once() -> dict[int, Any]:
    """Let SIGINT and SIGTERM end the process there and then, with 130 or 143; gives the handlers of before."""

    def end(number: int, _frame: FrameType | None) -> None:
        os._exit(128 + number)

    return _handled({signal.SIGINT: end, signal.SIGTERM: end})


def _handled(handlers: dict[signal.Signals, Any]) -> dict[int, Any]:
    """Put handlers in place, but for signals that are ignored, as of a program in the background; gives those of before."""
    wanted = {number: handler for number, handler in handlers.items() if signal.getsignal(number) != signal.SIG_IGN}
    return {number: signal.signal(number, handler) for number, handler in wanted.items()}


@contextmanager
def starting() -> Iterator[None]:
    """Around imports that take long: SIGINT and SIGTERM end the process there and then, with 130 or 143.

    A KeyboardInterrupt in the middle of an import can come out of it as any other error.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    before = end_at_once()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _told_all(work: Callable[[], int]) -> int:
    try:
        code = work()
    except SystemExit:  # argparse, after --help
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return code


def _tell(sentence: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(f"{sentence}\n")
        sys.stderr.flush()


def _reader_gone() -> bool:
    """Whether it is our own output that nobody reads; what it still holds goes nowhere, else Python complains at its exit."""
    gone = False
    for stream in (sys.stdout, sys.stderr):
        try:
            number = stream.fileno()
        except (OSError, ValueError):  # replaced by something that is no file, as by a test
            continue
        asked = select.poll()
        asked.register(number, 0)
        if any(event & select.POLLERR for _, event in asked.poll(0)):
            gone = True
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
    return gone


class Signals:
    """SIGINT and SIGTERM of a program that ends in order, such as a node: ``stopping`` says that one has come.

    Until ``running`` is called a signal ends the process at once, with 130 or 143: there is nothing to put in order while it
    is loaded. After that it has ``GRACE_S``; what hangs then is ended with the same codes. A second signal ends it at once.
    A thread of its own sees to that, since Python's handlers wait for whatever call the main thread is in.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._running = False
        self.stopping = False
        read, write = os.pipe()
        os.set_blocking(write, False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(read,), name="signals", daemon=True).start()

    def running(self) -> None:
        """From here on the program ends in order."""
        self._running = True

    def _note(self, number: int, _frame: FrameType | None) -> None:
        del number
        self.stopping = True
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)

    def _watch(self, read: int) -> None:
        number = self._next(read)
        if self._running:
            time.sleep(GRACE_S)
            _tell(
                f"{self._name}: expected to end within {GRACE_S:g} s of {signal.Signals(number).name}, got none; ended at once"
            )
        os._exit(128 + number)

    @staticmethod
    def _next(read: int) -> int:
        while True:
            number = os.read(read, 1)[0]
            if number in (signal.SIGINT, signal.SIGTERM):
                return number

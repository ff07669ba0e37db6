"""How programs end: exit codes after signals, with a closed pipe, on paths that cannot be; no traceback for any of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gemini_core.errors import DataError
from gemini_core.runtimes.programs import EXIT_READER_GONE, run_program

ROOT = Path(__file__).parents[3]
PROGRAMS = {
    "gemini-fusion": ["gemini_core.cli", "inspect", "nowhere"],
    "training": ["training.train", "--config", "nowhere.yaml"],
    "evaluation": ["training.evaluate", "--weights", "w", "--data", "d", "--fusion", "f", "--out", "o"],
}


def started(code: str, **options: object) -> subprocess.Popen[str]:
    """Start a program of our own lines, and wait until it says that it works."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    assert process.stdout.readline() == "works\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cleans_up_and_gives_its_exit_code(tmp_path: Path, number: signal.Signals):
    code = f"""
import sys, time
from pathlib import Path
from gemini_core.runtimes.programs import run_program
def work():
    try:
        print("works", flush=True)
        exec("time.sleep(60)")
    finally:
        Path({str(tmp_path / "cleaned")!r}).touch()
    return 0
sys.exit(run_program("tool", work))
"""
    process = started(code)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (128 + number, "tool: interrupted\n")
    assert (tmp_path / "cleaned").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_signal_while_a_program_is_loaded_ends_it_without_a_traceback(program: str, number: signal.Signals):
    command = [sys.executable, "-X", "importtime", "-m", *PROGRAMS[program]]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said = ""
    for line in process.stderr:  # -X importtime says what was imported, so that no time has to be guessed
        said += line
        if line.endswith("gemini_core.runtimes.process_settings\n"):
            break
    time.sleep(0.2)
    process.send_signal(number)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 128 + number, rest[-500:]
    assert "Traceback" not in said + rest


def test_a_signal_that_is_ignored_stays_ignored():
    code = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
from gemini_core.runtimes.programs import run_program
def work():
    print("works", flush=True)
    time.sleep(0.5)
    return 7
sys.exit(run_program("tool", work))
"""
    process = started(code)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 7


HANGING = """
import sys, time
import gemini_core.runtimes.programs as programs
programs.GRACE_S = 0.5
signals = programs.Signals("node")
if {running}:
    signals.running()
print("works", flush=True)
while not ({orderly} and signals.stopping):
    time.sleep(0.01)
sys.exit(0)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("running", "orderly", "code"), [(True, True, 0), (True, False, None), (False, False, None), (False, True, None)]
)
def test_a_node_ends_in_order_or_in_time(number: signal.Signals, running: bool, orderly: bool, code: int | None):
    process = started(HANGING.format(running=running, orderly=orderly))
    began = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert time.monotonic() - began < 5.0
    assert "Traceback" not in said
    if running or not orderly:  # else it is a race of two right ends
        assert process.returncode == (128 + number if code is None else code)
    assert ("expected to end within" in said) == (running and not orderly)


@pytest.mark.timeout(20)
def test_a_node_that_hangs_in_a_system_call_ends_too(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    lines = ["import gemini_core.runtimes.programs as programs", "programs.GRACE_S = 0.5", "programs.Signals('node').running()"]
    process = started("\n".join([*lines, "print('works', flush=True)", f"open({str(tmp_path / 'fifo')!r})"]))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 143


SAYING = """
import sys
from gemini_core.runtimes.programs import run_program
def work():
    print({text})
    return 0
sys.exit(run_program("tool", work))
"""


@pytest.mark.parametrize("text", ["'few'", "'many' * 100_000", "'few', file=sys.stderr", "'many' * 100_000, file=sys.stderr"])
def test_a_reader_that_has_seen_enough_is_no_error(text: str):
    stream = "stderr" if "stderr" in text else "stdout"
    read, write = os.pipe()
    os.close(read)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: write}
    done = subprocess.run([sys.executable, "-c", SAYING.format(text=text)], cwd=ROOT, check=False, **streams)
    os.close(write)
    assert done.returncode == EXIT_READER_GONE
    assert (done.stderr or b"") + (done.stdout or b"") == b""


def test_a_path_that_the_system_refuses_is_one_sentence(capsys: pytest.CaptureFixture[str]):
    assert run_program("tool", lambda: Path("x" * 5000).stat().st_size) == 2
    error = capsys.readouterr().err
    assert error.startswith("tool: xxx")
    assert error.endswith(": expected a path that can be used, got File name too long\n")
    assert len(error) < 400


def test_our_errors_are_one_sentence(capsys: pytest.CaptureFixture[str]):
    def work() -> int:
        msg = "expected a, got b"
        raise DataError(msg)

    assert run_program("tool", work, wrong_input=1) == 1
    assert capsys.readouterr().err == "tool: expected a, got b\n"


def test_a_mistake_of_ours_is_no_user_s_path():
    def work() -> int:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_program("tool", work)

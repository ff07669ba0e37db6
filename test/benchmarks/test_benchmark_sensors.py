"""What the benchmark of the sensors measures against computes the same, and its whole frame is whole."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time

import numpy as np

from benchmarks.sensors import figures, frame
from benchmarks.sensors.timing import SHORTEST_S, in_turns, ratio
from source_imports import REPOSITORY


def test_plain_decoders_agree_on_random_streams():
    assert figures.equal_on_random_streams(5, words=1500) > 5000


def test_every_figure_compares_its_results_and_can_be_timed():
    names = []
    for figure in figures.all_figures(None):  # each compares when it is made
        assert next(iter(figure.contenders)) == "ours"
        assert len(figure.contenders) > 1
        names.append(figure.name)
    for word in ("EVT3", "voxel grid", "points", "depth registration", "bgr8", "yuyv", "bayer", "jpeg", "png", "rvl"):
        assert any(word in name for name in names)


def test_a_frame_has_every_sensor_with_its_motion_and_every_stage():
    stages = frame.stage_times((64, 48), 1)  # asserts that the frame is whole
    parts = [stage for stage in stages if stage != "whole"]
    names = {"colour", "depth", "events", "LiDAR"}
    assert {stage.removeprefix("decode ") for stage in parts if stage.startswith("decode")} == names | {"CameraInfo and TF"}
    assert {stage.removeprefix("project ") for stage in parts if stage.startswith("project")} == names
    assert stages["whole"].sum() == np.sum([stages[stage] for stage in parts])


def test_ratios_are_of_the_same_round():
    seconds = in_turns({"one": lambda: sum(range(20_000)), "ten": lambda: sum(range(200_000))}, 3)
    assert 3 < ratio(seconds["ten"], seconds["one"]) < 30


def test_threads_that_one_leaves_running_are_not_charged_to_the_next():
    left: list[threading.Thread] = []

    def work() -> None:
        began = time.thread_time()
        while time.thread_time() - began < SHORTEST_S:
            pass

    def leave_a_thread() -> None:  # as OpenBLAS does, whose threads spin for a while after a product
        work()
        left.append(threading.Thread(target=hashlib.pbkdf2_hmac, args=("sha256", b"", b"", 150_000)))
        left[-1].start()

    def see_it_end() -> None:
        work()
        left[-1].join()

    seconds = in_turns({"leaves a thread": leave_a_thread, "sees it end": see_it_end}, 5)
    assert np.median(seconds["sees it end"]) < 2 * SHORTEST_S


def test_numpy_is_measured_on_one_thread_as_the_page_says():
    product = (
        "import os, benchmarks.sensors.timing, numpy as np\n"
        "np.ones((600, 600)) @ np.ones((600, 600))\n"
        "print(len(os.listdir('/proc/self/task')))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    command = [sys.executable, "-c", product]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1", done.stderr

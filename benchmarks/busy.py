"""The network on a busy machine: OpenMP threads that sleep while they wait (what our programs set) against those that spin.

    python -m benchmarks.busy

Two processes keep two cores busy while each variant runs MiT-B0 with four modalities at 320x240, in turn, three times.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

_FRAME = """
import time, torch
from gemini_core.model.segmentation import Segmenter, SegmenterConfig
torch.manual_seed(0)
torch.set_num_threads(2)
network = Segmenter(SegmenterConfig("mit_b0", ("rgb", "depth", "event", "lidar"), 9)).eval()
inputs = [torch.rand(1, 3, 240, 320) for _ in range(4)]
with torch.inference_mode():
    network(inputs)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(5):
        network(inputs)
print((time.perf_counter() - wall) / 5, (time.process_time() - cpu) / 5)
"""
_BUSY = "while True: pass"


def seconds_a_frame(policy: str) -> tuple[float, float]:
    """Wall and CPU seconds a frame under one OMP_WAIT_POLICY, with two other processes busy."""
    others = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(2)]
    try:
        environment = {**os.environ, "OMP_WAIT_POLICY": policy}
        done = subprocess.run([sys.executable, "-c", _FRAME], env=environment, capture_output=True, text=True, check=True)
    finally:
        for other in others:
            other.kill()
            other.wait()
    wall, cpu = map(float, done.stdout.split())
    return wall, cpu


def main() -> int:
    """Measure and print."""
    found: dict[str, list[tuple[float, float]]] = {"ACTIVE": [], "PASSIVE": []}
    for _ in range(3):
        for policy, figures in found.items():
            figures.append(seconds_a_frame(policy))
    active, passive = (np.median(figures, axis=0) for figures in found.values())
    print(f"spinning: {active[0]:.2f} s a frame, {active[1]:.2f} s of CPU")
    print(f"sleeping: {passive[0]:.2f} s a frame, {passive[1]:.2f} s of CPU")
    print(f"ratio spinning / sleeping: wall {active[0] / passive[0]:.1f}, CPU {active[1] / passive[1]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

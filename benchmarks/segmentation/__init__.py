"""Benchmark of sensors and fusions on the simulated set: ``python -m benchmarks.segmentation``."""

from gemini_core.runtimes.process_settings import prepare_process

prepare_process()  # before torch is loaded

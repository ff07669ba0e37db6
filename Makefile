# make demo    set up what is missing, then run the main job on a live ROS 2 graph; the result is out/demo/index.html
# make test    set up what is missing, then check and test everything
# make train-small  in twenty minutes: simulate a small set, train on it, evaluate, hold the mean IoU against the stated one
# make coverage     the tests again, and which share of the lines they run; not of processes that they start, nor of compiled loops
# make setup lint benchmark benchmark-model benchmark-sensors clean    the parts
PYTHON ?= python3
VENV := .venv/bin
TIMED := sh tools/timed.sh

.PHONY: demo test coverage train-small setup lint benchmark benchmark-model benchmark-sensors clean

demo: setup
	@$(TIMED) demo $(VENV)/python -m gemini_ros.tools.demo --out out/demo

test: lint
	@$(TIMED) tests $(VENV)/python -m pytest

coverage: setup
	@$(TIMED) "tests, counting lines" $(VENV)/python -m pytest --cov --cov-report=
	@$(VENV)/python -m coverage report --skip-covered

lint: setup
	@$(TIMED) "ruff check" $(VENV)/python -m ruff check .
	@$(TIMED) "ruff format" $(VENV)/python -m ruff format --check .
	@$(TIMED) codespell $(VENV)/python -m codespell_lib
	@$(TIMED) "file sizes" $(VENV)/python tools/file_sizes.py
	@if $(VENV)/python -c 'import sys, numpy; sys.exit([int(part) for part in numpy.__version__.split(".")[:2]] < [2, 4])'; \
	then $(TIMED) mypy $(VENV)/python -m mypy; \
	else echo "== mypy: left out, the code is typed for numpy 2.4, which Python 3.10 and ROS installations lack"; fi

train-small: setup
	@$(TIMED) train-small $(VENV)/python -m training.small

benchmark: setup
	@$(TIMED) benchmark $(VENV)/python -m benchmarks.live

benchmark-model: setup
	@$(TIMED) "benchmark packages" sh benchmarks/model/environment.sh
	@$(TIMED) benchmark-model out/benchmark-venv/bin/python -m benchmarks.model

benchmark-sensors: setup
	@$(TIMED) benchmark-sensors $(VENV)/python -m benchmarks.sensors

setup:
	@PYTHON="$(PYTHON)" sh tools/setup.sh

clean:
	rm -rf .venv out build install log dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

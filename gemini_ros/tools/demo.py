"""``make demo``: simulate a street, run the node on it live, compare with the offline replay, write a page that shows it.

On a CPU, the node runs the network in OpenVINO on that street where that is installed, so that it keeps up with more frames; a
bag of the user's is played with the user's configuration as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gemini_core import simulation
from gemini_core.config.fusion import FusionConfig, load_config
from gemini_core.errors import GeminiError
from gemini_core.runtimes.process_settings import prepare_process
from gemini_core.simulation.record import simulate
from gemini_ros.dds import config_file
from gemini_ros.tools.live import LivePlan, LiveRun, run_live

SEED, SECONDS = 1, 10.0


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Print a stage's name and, when it is done, how long it took."""
    print(f"== {name}", flush=True)
    started = time.monotonic()
    yield
    print(f"   {name}: {time.monotonic() - started:.1f} s", flush=True)


def _hash(files: Iterable[Path], text: str = "") -> str:
    """Eight digits that change with any of the files, and with the text."""
    contents = hashlib.sha256(text.encode())
    for file in sorted(files):
        contents.update(file.read_bytes())
    return contents.hexdigest()[:8]


def simulated_bag(folder: Path, seed: int, seconds: float) -> Path:
    """The demo's recording; reused when the same simulation made it already."""
    code = _hash(Path(simulation.__file__).parent.glob("*.py"))
    bag = folder / f"street_seed{seed}_{seconds:g}s_{code}"
    if not bag.exists():
        simulate(bag, seed=seed, seconds=seconds)
    return bag


def faster_network(fusion: FusionConfig, params_file: Path, bag: Path, out: Path) -> dict[str, object]:
    """Export the network for OpenVINO and give the options by which the node uses that; what was exported before is kept.

    None are given, and torch runs the network, where the configuration chooses a runtime, a GPU or an export by itself or has
    no weights, where OpenVINO is not installed, and where the export fails, which is said.

    Args:
        fusion: the node's configuration.
        params_file: the file that it is of.
        bag: with every sensor in every frame, since the export takes frames that lack one as if they had RGB alone.
        out: where the export goes, in a folder of its own.
    """
    import torch  # noqa: PLC0415 - after prepare_process

    from gemini_core import model as network  # noqa: PLC0415 - likewise
    from gemini_core import runtimes  # noqa: PLC0415 - likewise
    from gemini_core.model import checkpoints  # noqa: PLC0415 - likewise

    model = fusion.model
    on_gpu = model.device == "cuda" or (model.device == "auto" and torch.cuda.is_available())
    left_open = model.enabled and model.weights and model.runtime == "auto" and model.precision == "fp32" and not on_gpu
    if not left_open or not (weights := checkpoints.find(model.weights)).is_file():
        return {}
    if importlib.util.find_spec("openvino") is None:
        print("   OpenVINO is not installed: torch runs the network, for fewer frames", flush=True)
        return {}
    size = f"{fusion.grid.width}x{fusion.grid.height}"
    code = [file for package in (network, runtimes) for file in Path(package.__path__[0]).glob("**/*.py")]
    versions = f"{torch.__version__} {importlib.metadata.version('openvino')}"
    folder = out / "networks" / f"openvino_{size}_{_hash([weights, *code], versions)}"
    chosen = {"model.weights": str(folder), "model.runtime": "openvino"}
    if folder.exists():
        return chosen
    with stage("export the network for OpenVINO"):
        held_against = ["--calibration", str(bag), "--frames", "1", "--config", str(params_file)]
        command = ["export", model.weights, str(folder), "--runtime", "openvino", "--size", size, *held_against]
        print(f"   gemini-fusion {shlex.join(command)}", flush=True)
        # As a user would, and so that its memory is free again when the node starts.
        done = subprocess.run([sys.executable, "-m", "gemini_core.cli", *command], check=False)  # noqa: S603 - our own module
        if done.returncode:
            print("   there is no export: torch runs the network, for fewer frames", flush=True)
            return {}
    return chosen


def judge(run: LiveRun) -> tuple[str, ...]:
    """Hold every reference frame to account: published, or skipped and counted; what is wrong, in sentences."""
    problems = []
    skipped = run.counter("frames.skipped_busy")
    unaccounted = run.frames_in - len(run.masks) - skipped
    if unaccounted:
        problems.append(
            f"{run.frames_in} reference images were played, {len(run.masks)} masks came out and {skipped} were skipped because "
            f"the network was busy: {abs(unaccounted)} {'are unaccounted for' if unaccounted > 0 else 'came out too many'}"
        )
    if not run.masks:
        problems.append("no mask came out of the node")
    if run.node_exit != 0:
        problems.append(f"the node ended with exit code {run.node_exit}")
    return tuple(problems)


def main(arguments: list[str] | None = None) -> int:
    """Run the demo.

    Gives exit code 0 when every reference frame has a mask or was skipped because the network was busy, and every mask is the
    replay's, and so are all boxes; 1 when not; 2 when a bag or a configuration cannot be used or a process fails.
    """
    parser = argparse.ArgumentParser(prog="gemini-fusion-demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for everything (default out/demo)")
    parser.add_argument("--bag", type=Path, help="play this bag instead of the simulated street")
    parser.add_argument("--config", type=Path, help="parameter file (default: the shipped demo.yaml)")
    parser.add_argument("--rate", type=float, default=1.0, help="speed of playing (default 1: as recorded)")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of the simulated street")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of the simulated street")
    options = parser.parse_args(arguments)
    prepare_process()
    try:
        return run_demo(options)
    except (GeminiError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2


def run_demo(options: argparse.Namespace) -> int:
    """Carry out `main`'s options.

    Raises:
        GeminiError: the bag or the configuration cannot be used, or a process failed.
    """
    out: Path = options.out
    bag: Path | None = options.bag
    config: Path | None = options.config
    params_file = config or config_file("demo.yaml")
    fusion = load_config(params_file)
    out.mkdir(parents=True, exist_ok=True)
    faster: dict[str, object] = {}
    if bag is None:
        with stage("simulate a street"):
            bag = simulated_bag(out / "bags", options.seed, options.seconds)
        faster = faster_network(fusion, params_file, bag, out)
        fusion = load_config(params_file, faster)
    for old in ("live", "frames"):
        shutil.rmtree(out / old, ignore_errors=True)
    with stage("node, recorder and player on a live ROS graph"):
        plan = LivePlan(bag, params_file, out / "live", faster, rate=options.rate, record_overlay=True)
        run = run_live(plan, echo=lambda line: print(f"   {line}", flush=True))
    problems = judge(run)
    with stage("replay the same bag and write the page"):
        from gemini_ros.tools.demo_page import write_page  # noqa: PLC0415 - it loads torch, after prepare_process

        differing, page = write_page(out, bag, fusion, run, problems)
    print(
        f"{run.frames_in} reference images in, {len(run.masks)} masks out, {run.counter('frames.skipped_busy')} skipped "
        f"(network busy); {len(run.masks) - differing} of {len(run.masks)} equal the replay's bit for bit, masks and boxes"
    )
    if differing:
        problems = (*problems, f"{differing} live frames differ from the replay of the same bag")
    for problem in problems:
        print(f"demo: {problem}", file=sys.stderr)
    print(f"look at {page}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

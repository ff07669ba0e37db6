"""The page of results/segmentation.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.segmentation.contenders import CONTENDERS, OWN, TITLES, budget, run_folder
from benchmarks.segmentation.results import (
    CHECKPOINT,
    DATA,
    Evaluated,
    Run,
    costs,
    gain,
    night_share,
    read_config,
    read_evaluation,
    read_runs,
    spread,
)
from gemini_core.simulation.clip import CONDITIONS, FAILURES
from training.config import load_training_config, to_flat_lists
from training.evaluate import ALL

OVERALL_GAIN, NIGHT_GAIN, LOSS, NIGHT_SHARE = 8.0, 15.0, 6.0, 80.0
"""The bars: points, points, points, percent."""

_NIGHT = "condition=night"


def page(runs: Path, recipe: str, seeds: Sequence[int]) -> str:
    """Everything that the evaluations in ``runs`` say, and what of ``seeds`` is missing.

    Raises:
        DataError: evaluations that may not be compared or cannot be read.
    """
    found, checkpoint = read_runs(runs), read_evaluation(runs / CHECKPOINT)
    parts = [_HEAD, _setting(found, runs, recipe)]
    if found:
        parts += [
            "## Sensors and fusion",
            _METHOD,
            _table(found, {"all": ALL, **{name: f"condition={name}" for name in CONDITIONS}}),
            "By what is wrong with a sensor (none: nothing):",
            _table(found, {name: f"failure={name}" for name in FAILURES}),
            _bars(found),
        ]
    if checkpoint is not None:
        parts += ["## One checkpoint with sensors taken away", _checkpoint(checkpoint)]
    missing = list(_missing(runs, seeds, found, checkpoint))
    if missing:
        parts += ["## Not there yet", "\n".join(missing)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _setting(found: Sequence[Run], runs: Path, recipe: str) -> str:
    """The budget, which ``read_runs`` has found to be the same for all, and the data."""
    said = []
    if found:
        config = found[0].config
        frames = config["optimizer.steps"] * config["optimizer.batch_size"] * config["optimizer.accumulate"]
        usual = budget(to_flat_lists(load_training_config(recipe)))
        changed = [f"{key}={_value(value)}" for key, value in budget(config).items() if usual.get(key) != value]
        ours = f" with `{' '.join(changed)}`" if changed else ""
        said.append(
            f"Same budget for each: recipe `{Path(recipe).stem}`{ours}, {config['optimizer.steps']:,} steps of "
            f"{config['optimizer.batch_size'] * config['optimizer.accumulate']} frames, {frames:,} in all; runs differ in "
            f"{', '.join(f'`{key}`' for key in OWN)} and in nothing else (their `config.yaml` are compared for this page). "
            "Weights begin at random; those with the best validation mean IoU are scored, every run's on the same test frames."
        )
    if (runs / DATA).is_file():
        splits = json.loads((runs / DATA).read_text(encoding="utf-8"))["splits"]
        sizes = [
            f"{name} {split['clips']:,} clips ({split['seconds']:,.0f} s, {split['frames']:,} frames)"
            for name, split in splits.items()
        ]
        plain = "" if any(split.get("cluttered") for split in splits.values()) else " --no-clutter"
        said.append(f"Data: `gemini-fusion simulate --set{plain}`, scenes of no two splits alike: {'; '.join(sizes)}.")
    if found and found[0].evaluated.inputs["every"] > 1:
        said.append(f"Scored on one of {found[0].evaluated.inputs['every']} test frames.")
    return "\n".join(said)


def _value(value: object) -> str:
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, list) else str(value)


def _table(found: Sequence[Run], columns: dict[str, str]) -> str:
    """Mean IoU of every contender in the groups that ``columns`` name by their headings."""
    frames = found[0].evaluated.frames
    rows = [
        ["sensors and fusion", *columns],
        ["---", *("---" for _ in columns)],
        ["test frames", *(str(frames.get(group, 0)) for group in columns.values())],
    ]
    for name in dict.fromkeys(run.name for run in found):
        cells = [spread(found, name, group) for group in columns.values()]
        rows.append([TITLES[name], *("–" if cell is None else cell.text() for cell in cells)])
    return _markdown(rows)


def _bars(found: Sequence[Run]) -> str:
    night = _NIGHT
    figures = [
        ("four sensors over RGB, all", gain(found, "rgbdel", "rgb", ALL), OVERALL_GAIN),
        ("four sensors over RGB, night", gain(found, "rgbdel", "rgb", night), NIGHT_GAIN),
        ("gemini over none, all", gain(found, "rgbdel", "rgbdel-none", ALL), 0.0),
        ("gemini over none, night", gain(found, "rgbdel", "rgbdel-none", night), None),
        ("gemini over exchange, all", gain(found, "rgbdel", "rgbdel-exchange", ALL), None),
    ]
    rows = [["gain, points", "measured", "bar", ""], ["---"] * 4]
    for what, points, bar in figures:
        if points is not None:
            reached = "" if bar is None else _verdict(points >= bar if bar else points > 0)
            rows.append([what, f"{points:+.1f}", "" if bar is None else f"at least {bar:g}" if bar else "above 0", reached])
    return _markdown(rows) if len(rows) > 2 else ""


def _checkpoint(evaluated: Evaluated) -> str:
    """What the weights lose without a sensor, by condition, and the two bars."""
    subsets = [subset for group, subset in evaluated.scores if group == ALL]
    groups = {"all": ALL, **{name: f"condition={name}" for name in CONDITIONS}}
    rows = [["sensors that are there", *groups], ["---", *("---" for _ in groups)]]
    for subset in subsets:
        cells = [evaluated.scores.get((group, subset)) for group in groups.values()]
        rows.append([subset, *("–" if cell is None else f"{cell:.1f}" for cell in cells)])
    bars = [["figure", "measured", "bar", ""], ["---"] * 4]
    for modality, points in costs(evaluated).items():
        bars.append([f"cost of losing {modality}, points", f"{points:.1f}", f"at most {LOSS:g}", _verdict(points <= LOSS)])
    share = night_share(evaluated)
    if share is not None:
        bars.append(["night, percent of day", f"{share:.0f}", f"at least {NIGHT_SHARE:g}", _verdict(share >= NIGHT_SHARE)])
    return f"{evaluated.description}. Mean IoU, %:\n\n{_markdown(rows)}\n\n{_markdown(bars)}"


def _missing(runs: Path, seeds: Sequence[int], found: Sequence[Run], checkpoint: Evaluated | None) -> Iterable[str]:
    there = {(run.name, run.seed) for run in found}
    for name in CONTENDERS:
        for seed in seeds:
            if (name, seed) not in there:
                yield f"- {TITLES[name]}, seed {seed}: {_progress(run_folder(runs, name, seed))}"
    if checkpoint is None:
        yield "- the one checkpoint with sensors taken away: not evaluated"


def _progress(folder: Path) -> str:
    log = folder / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    if not lines:
        return "not trained"
    done, steps = json.loads(lines[-1])["step"], read_config(folder)["optimizer.steps"]
    return "trained, not evaluated" if done == steps else f"{done:,} of {steps:,} steps trained"


def _verdict(reached: bool) -> str:
    return "reached" if reached else "**missed**"


def _markdown(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows)


_HEAD = """# Segmentation: what more sensors are worth, and how they are fused

`python -m benchmarks.segmentation` trains, evaluates and writes this page; what it has done already stays done
(`--report` writes the page alone, `--only NAME` does a part)."""

_METHOD = """Mean IoU, %, over all test frames of a column with one confusion matrix. Of several seeds: the mean, in brackets
the lowest and the highest. Classes that neither labels nor masks of a column have are left out; one that is predicted where
no label has it counts as 0, so columns compare contenders, not conditions: rain has no rooms."""

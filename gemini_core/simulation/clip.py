"""Clips that can be simulated, the benchmark set made of them, and how a bag says which clip it holds.

A clip is named by split, world, condition, failure and seed. The split is part of what every random number of the scene is
derived from, so no seed of one split gives a scene of another. Condition and failure are not: a seed shows the same
street at noon and at night, with good sensors and with bad ones.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from gemini_core.bag.reader import BagReader
from gemini_core.documents import parse_json
from gemini_core.errors import BagError, DataError, nearest_names, shown

Split = Literal["train", "val", "test"]
World = Literal["street", "room"]
Condition = Literal["day", "dusk", "night", "fog", "rain"]
Failure = Literal["none", "motion_blur", "over_exposure", "under_exposure", "lidar_jitter", "event_low_resolution"]

SPLITS: tuple[Split, ...] = get_args(Split)
WORLDS: tuple[World, ...] = get_args(World)
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
FAILURES: tuple[Failure, ...] = get_args(Failure)

DESCRIPTION_TOPIC = "/simulation/description"
FORMAT = 2
"""1 had no clutter, and listed no box of what the LiDAR alone sees."""
_SHARE_OF_FAILURES = 0.4
_SHARE_OF_ROOMS = 1 / 3


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording of the benchmark: what is simulated, and how long. In a room "fog" is smoke, and there is no "rain".

    ``clutter``: things of a person's size stand on the pavements of a street (gemini_core.simulation.clutter); rooms are the
    same with and without.
    """

    split: Split = "test"
    world: World = "street"
    condition: Condition = "day"
    failure: Failure = "none"
    seed: int = 0
    seconds: float = 10.0
    clutter: bool = True

    def __post_init__(self) -> None:
        """Check the names and numbers.

        Raises:
            DataError: a name that is not known, rain in a room, a negative seed, a length that is not above 0, or a ``clutter``
                that is neither true nor false.
        """
        for key, known in (("split", SPLITS), ("world", WORLDS), ("condition", CONDITIONS), ("failure", FAILURES)):
            value = getattr(self, key)
            if value not in known:
                msg = f"clip: expected a {key} out of {', '.join(known)}, got {value!r} ({nearest_names(str(value), known)})"
                raise DataError(msg)
        if self.world == "room" and self.condition == "rain":
            msg = "clip: expected day, dusk, night or fog (smoke) in a room, got rain"
            raise DataError(msg)
        if self.seed < 0:
            msg = f"clip: expected a seed of 0 or more, got {self.seed}"
            raise DataError(msg)
        if not 0 < self.seconds < float("inf"):
            msg = f"clip: expected a length above 0 seconds, got {self.seconds}"
            raise DataError(msg)
        if not isinstance(self.clutter, bool):
            msg = f"clip: expected clutter to be true or false, got {self.clutter!r}"
            raise DataError(msg)

    @property
    def name(self) -> str:
        """A name for a folder; clips of one set differ in it."""
        return f"{self.world}-{self.condition}-{self.failure}-{self.seed:04d}"

    def scene_rng(self, *stream: int) -> np.random.Generator:
        """Random numbers of the scene: by split, world, seed and ``stream``."""
        return np.random.default_rng([SPLITS.index(self.split), WORLDS.index(self.world), self.seed, *stream])

    def sensor_rng(self, *stream: int) -> np.random.Generator:
        """Random numbers of the sensors: by everything but the length and clutter."""
        what = (CONDITIONS.index(self.condition), FAILURES.index(self.failure))
        return self.scene_rng(1000, *what, *stream)


# --------------------------------------------------------------------------------------------------------------------
# The benchmark set


def plan(clips: dict[Split, int], seconds: float = 3.0, first_seed: int = 0, *, clutter: bool = True) -> list[Clip]:
    """The benchmark set with this many clips per split, in a fixed order; a larger set begins with the smaller one.

    A third of the clips are rooms; conditions take turns, so that each has its equal share of streets; two of five clips
    have a failure, which take turns too. No two clips of a split share a seed, so every clip is another scene.

    Raises:
        DataError: an unknown split, or a negative number.
    """
    wanted = []
    for split, number in clips.items():
        if number < 0:
            msg = f"plan: expected 0 or more clips of {split}, got {number}"
            raise DataError(msg)
        wanted += [replace(_planned(split, index, seconds, first_seed), clutter=clutter) for index in range(number)]
    return wanted


def _planned(split: Split, index: int, seconds: float, first_seed: int) -> Clip:
    rooms_before = round(index * _SHARE_OF_ROOMS)
    room = round((index + 1) * _SHARE_OF_ROOMS) > rooms_before
    failures_before = int(index * _SHARE_OF_FAILURES)
    failing = int((index + 1) * _SHARE_OF_FAILURES) > failures_before
    conditions = tuple(each for each in CONDITIONS if not (room and each == "rain"))
    turn = rooms_before if room else index - rooms_before
    # One step more after each round of failures, so that every failure meets every condition.
    return Clip(
        split=split,
        world="room" if room else "street",
        condition=conditions[turn % len(conditions)],
        failure=FAILURES[1 + (failures_before + failures_before // 5) % 5] if failing else "none",
        seed=first_seed + index,
        seconds=seconds,
    )


# --------------------------------------------------------------------------------------------------------------------
# What a bag says of itself


def to_json(clip: Clip) -> str:
    """What is written on DESCRIPTION_TOPIC."""
    return json.dumps({"format": FORMAT, **asdict(clip)})


def describe(bag: str | Path) -> Clip | None:
    """Say what a bag holds; None for one that the simulator did not make.

    Raises:
        BagError: the bag cannot be read, or what it says of itself cannot be understood.
    """
    described = describe_with_format(bag)
    return None if described is None else described[0]


def describe_with_format(bag: str | Path) -> tuple[Clip, int] | None:
    """Say what a bag holds, as ``describe``, and by which ``FORMAT`` it was made.

    Raises:
        BagError: as ``describe``.
    """
    with BagReader(bag) as reader:
        if DESCRIPTION_TOPIC not in {topic.name for topic in reader.topics()}:
            return None
        text = next((message.message.data for message in reader.messages([DESCRIPTION_TOPIC])), None)
    if text is None:
        return None
    try:
        values = parse_json(text, DESCRIPTION_TOPIC, BagError)
        if values["format"] == 1:
            values["clutter"] = False
        return Clip(**{field.name: values[field.name] for field in fields(Clip)}), int(values["format"])
    except (ValueError, LookupError, TypeError, OverflowError, BagError, DataError) as error:
        msg = f"{bag}: expected {DESCRIPTION_TOPIC} to say what was simulated, got {shown(text)} ({shown(str(error))[1:-1]})"
        raise BagError(msg) from None

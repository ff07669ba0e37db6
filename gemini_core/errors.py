"""The errors that a user of gemini_ros can meet.

Every message is one sentence that says what was expected, what came, and in which topic, file or key.
Code raises these or counts them, never both (docs/architecture.md, "Rules").
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from pathlib import Path


class GeminiError(Exception):
    """Base of every error that this project raises on purpose."""


class ConfigError(GeminiError):
    """A configuration key or value that cannot be used."""


class DecodeError(GeminiError):
    """A message that cannot be read; ``reason`` is a short stable key to count by, e.g. ``"unknown_encoding"``."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CalibrationError(GeminiError):
    """Intrinsics or a transform that are missing or unusable."""


class BagError(GeminiError):
    """A bag that cannot be read or written."""


class WeightsError(GeminiError):
    """Weights that do not fit the model they are asked to fill."""


class ShapeError(GeminiError, ValueError):
    """Arrays or tensors whose number or shape is not what the function takes."""


class DataError(GeminiError):
    """Data, in a folder, a file or an array, that is not what its format promises."""


MOST_SHOWN = 80
"""Characters of what came that an error shows at most."""

MOST_OF_A_PATH = 200


def shown(value: object) -> str:
    """Show what came, in at most ``MOST_SHOWN`` characters, however large or deep it is."""
    short = reprlib.Repr()
    short.maxlist = short.maxtuple = short.maxdict = short.maxset = 20
    short.maxstring = short.maxother = short.maxlong = MOST_SHOWN
    try:
        text = short.repr(value)
    except ValueError:  # a whole number of more digits than Python prints
        text = f"{type(value).__name__} too long to show"
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


def shown_path(path: str | Path) -> str:
    """A path for an error, the middle left out of one that is very long."""
    text = str(path)
    return text if len(text) <= MOST_OF_A_PATH else f"{text[: MOST_OF_A_PATH // 2]}...{text[-MOST_OF_A_PATH // 2 :]}"


def nearest_names(name: str, known: Iterable[str]) -> str:
    """Say which known names are close to a wrong one, e.g. ``"nearest known: a, b"``; all of them where none is."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return "nearest known: " + ", ".join(close)
    return "known: " + (", ".join(names) if names else "none")

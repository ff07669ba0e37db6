"""Distributions of figures, findings with their latest sentences, and tables of them for terminals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class Distribution:
    """How one quantity was spread; ``values`` all in ``unit``. Nothing measured gives count 0 and NaN."""

    name: str
    unit: str
    count: int
    median: float
    p95: float
    p99: float
    largest: float

    @staticmethod
    def of(name: str, values: Iterable[float], unit: str = "ms") -> Distribution:
        """Summarise values (linear interpolation between ranks)."""
        sample = np.fromiter(values, dtype=np.float64)
        if not sample.size:
            return Distribution(name, unit, 0, np.nan, np.nan, np.nan, np.nan)
        median, p95, p99 = (float(value) for value in np.percentile(sample, [50, 95, 99]))
        return Distribution(name, unit, int(sample.size), median, p95, p99, float(sample.max()))

    @staticmethod
    def of_ns(name: str, durations_ns: Iterable[int]) -> Distribution:
        """Summarise nanoseconds in milliseconds."""
        return Distribution.of(name, (duration / NS_PER_MS for duration in durations_ns))


@dataclass(frozen=True, slots=True)
class Finding:
    """In how many frames something was said of a modality: a stable reason, and the latest sentence, "" for none."""

    modality: str
    reason: str
    number: int
    detail: str = ""


class Findings:
    """Counts what frames say of each modality, by reason, and keeps the latest sentence of each."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Finding] = {}

    def add(self, modality: str, reason: str, detail: str) -> None:
        """Take what one frame says."""
        before = self._rows.get((modality, reason))
        self._rows[modality, reason] = Finding(modality, reason, 1 if before is None else before.number + 1, detail)

    def rows(self) -> tuple[Finding, ...]:
        """All that was said, by modality and reason."""
        return tuple(row for _, row in sorted(self._rows.items()))


def findings_text(what: str, rows: Sequence[Finding]) -> list[str]:
    """A line per modality and reason, its latest sentence below it."""
    lines = []
    for row in rows:
        lines.append(f"{what}: {row.modality} in {row.number} frame(s), {row.reason}")
        lines.extend([f"  {row.detail}"] if row.detail else [])
    return lines


def distributions_text(rows: Sequence[Distribution]) -> str:
    """A table of distributions."""
    cells = [
        (
            row.name,
            str(row.count),
            *("-" if math.isnan(value) else f"{value:.2f}" for value in (row.median, row.p95, row.largest)),
        )
        for row in rows
    ]
    return table(("", "frames", "p50 ms", "p95 ms", "max ms"), cells)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay cells out in columns; those that are numbers in every row stand to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    right = [
        bool(rows) and all(row[column].replace(".", "").replace("-", "").isdecimal() or row[column] == "-" for row in rows)
        for column in range(len(head))
    ]
    lines = []
    for row in (head, *rows):
        cells = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        )
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def without_nan(value: object) -> object:
    """Give a value out of dictionaries, lists and numbers with null for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value

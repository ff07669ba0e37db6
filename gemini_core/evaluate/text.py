"""Tables for terminals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gemini_core.evaluate.report import Distribution, Missing


def missing_text(missing: Sequence[Missing]) -> list[str]:
    """One line per modality and reason."""
    return [f"Missing: {row.modality} in {row.number} frame(s), {row.reason}" for row in missing]


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

"""Pages of benchmarks/results of which several commands each keep one section up to date, such as sensors.md."""

from __future__ import annotations

from pathlib import Path

from gemini_core.files import write_whole

PAGE = Path(__file__).resolve().parent / "results" / "sensors.md"
_TITLE = "# Sensors: what decoding and projecting cost, and what damaged messages do\n"


def replace_section(title: str, text: str, page: Path = PAGE, heading: str = _TITLE) -> None:
    """Put ``text`` under the heading ``title``, in place of what stood there; a new one goes to the end.

    A page that is not there yet begins with ``heading``.
    """
    content = page.read_text(encoding="utf-8") if page.exists() else heading
    head, *sections = content.split("\n## ")
    named = {section.partition("\n")[0]: section.partition("\n")[2].strip() for section in sections}
    named[title] = text.strip()
    write_whole(page, "\n".join([head.strip(), *(f"\n## {name}\n\n{body}" for name, body in named.items())]) + "\n")

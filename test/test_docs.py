"""Documents point at what exists: relative links with their anchors, and every path of the repository that is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from source_imports import REPOSITORY, sources
from training.config import load_training_config

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "test/golden/*.md")
    for path in REPOSITORY.glob(pattern)
    if path.name != "CHANGELOG.md"  # tells what was
)
MODULES = list(sources("gemini_core", "gemini_ros", "training", "benchmarks", "launch", "test"))
ROOMS = "gemini_core|gemini_ros|training|benchmarks|test|docs|config|launch|interfaces|requirements|tools|docker|rviz"
NAMED_FILE = re.compile(rf"(?<![\w/.<-])(?:{ROOMS})/[\w./-]*\w\.(?:py|md|yaml|xml|in|txt|sh|svg|html|jsonl)\b")
NAMED_FOLDER = re.compile(rf"`((?:{ROOMS})/(?:[\w.-]+/)*)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def wrong_links(page: Path) -> list[str]:
    wrong = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if "://" in link or link.startswith("mailto:"):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    return wrong


def wrong_paths(text: str) -> list[str]:
    named = {*NAMED_FILE.findall(text), *NAMED_FOLDER.findall(text)}
    return sorted(name for name in named if not (REPOSITORY / name).exists())


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(REPOSITORY)) for page in PAGES])
def test_links_and_paths_of_a_page_exist(page: Path) -> None:
    assert wrong_links(page) == []
    assert wrong_paths(page.read_text(encoding="utf-8")) == []


def test_documents_that_sources_name_exist() -> None:
    wrong = {}
    for path in MODULES:
        named = re.findall(r"(?<![\w/])(?:docs|test)/[\w./-]+\.(?:md|py|svg)\b", path.read_text(encoding="utf-8"))
        if missing := [name for name in named if not (REPOSITORY / name).exists()]:
            wrong[str(path.relative_to(REPOSITORY))] = missing
    assert wrong == {}


def test_where_things_are_stays_short_and_every_path_in_it_exists() -> None:
    """All that stands in backticks with a slash or a suffix, also beside a path whose folder it shares."""
    page = REPOSITORY / "docs" / "where-things-are.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 40
    for line in lines:
        folder = REPOSITORY
        for name in re.findall(r"`([\w./-]+)`", line):
            if "/" not in name and Path(name).suffix != ".py":
                continue
            path = folder / name if (folder / name).exists() else REPOSITORY / name
            assert path.exists(), line
            folder = path if path.is_dir() else path.parent
    assert len(re.findall(r"`[\w.-]+/[\w./-]*`", "\n".join(lines))) > 30


def test_a_wrong_link_and_a_wrong_path_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One thing\n[a](#one-thing) [b](page.md#one-thing) [c](#two) [d](no.md) [e](https://f)", encoding="utf-8")
    assert wrong_links(page) == ["#two", "no.md"]
    assert wrong_paths("`gemini_core/none/` and gemini_core/types.py, training/none.py") == [
        "gemini_core/none/",
        "training/none.py",
    ]


def test_the_stages_of_the_model_card_can_be_trained_again() -> None:
    """Its commands give these files to ``training.train --config``; an option that is gone would refuse them."""
    stages = sorted((REPOSITORY / "docs" / "model-card").glob("*config.yaml"))
    assert len(stages) == 5
    assert {load_training_config(str(path)).run.out for path in stages} == {
        f"out/training/simulated{stage}" for stage in ("", "-joint", "-finish", "-robust", "-clutter")
    }

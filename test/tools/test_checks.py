"""Files too large are refused, hooks are those of `make lint`, and hosted CI runs the README's commands."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml

from source_imports import REPOSITORY

FILE_SIZES = REPOSITORY / "tools" / "file_sizes.py"


def file_sizes(*paths: str, program: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, program or FILE_SIZES, *paths], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("path", "megabytes", "limit"),
    [
        ("docs/a.png", 5, None),
        ("docs/a.png", 5.1, 5),
        ("gemini_core/weights/a.safetensors", 25, None),
        ("gemini_core/weights/a.safetensors", 25.1, 25),
        ("test/gemini_core/weights/a.safetensors", 6, 5),
    ],
)
def test_large_files_are_refused(tmp_path, path: str, megabytes: float, limit: int | None):
    program = tmp_path / "tools" / "file_sizes.py"
    program.parent.mkdir()
    program.write_bytes(FILE_SIZES.read_bytes())
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    with file.open("wb") as sparse:
        sparse.truncate(int(megabytes * 1e6))
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    expected = "" if limit is None else f"{path}: expected at most {limit} MB, got {megabytes:.1f} MB\n"
    for done in (file_sizes(path, program=str(program)), file_sizes(program=str(program))):
        assert (done.returncode, done.stderr) == (bool(limit), expected)


def test_hooks_fetch_nothing_and_are_those_of_make_lint():
    repos = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    hooks = [hook for repo in repos for hook in repo["hooks"]]
    assert [repo["repo"] for repo in repos] == ["local"]
    assert {hook["language"] for hook in hooks} == {"system"}
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    lint = makefile[makefile.index("\nlint:") : makefile.index("\ntrain-small:")]
    timed = set(re.findall(r'\(TIMED\) ("[\w ]+"|\w+)', lint))
    assert {hook["name"] for hook in hooks} == {name.strip('"') for name in timed}


def test_hosted_ci_runs_the_commands_of_the_readme():
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for name in ("core", "ros"):
        runs = [step["run"].split(" && ")[-1] for step in workflow["jobs"][name]["steps"] if "run" in step]
        assert runs == ["make test", "make demo"]
        assert all(f"\n{command}   #" in readme for command in runs)
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert [name for name in used if not re.fullmatch(r"actions/[\w-]+@v\d+\.\d+\.\d+", name)] == []
    pythons = workflow["jobs"]["core"]["strategy"]["matrix"]["python"]
    assert pythons == re.findall(r"3\.\d+", (REPOSITORY / "requirements/lock.txt").read_text(encoding="utf-8").splitlines()[0])

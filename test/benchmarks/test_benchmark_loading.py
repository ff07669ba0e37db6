"""The benchmark of data loading times the loader and the training step, and holds one against the other."""

from __future__ import annotations

from benchmarks.loading import main
from labelled_bags import write_training


def test_loader_and_step_are_compared_on_a_page_of_sections(tmp_path, capsys):
    folder, page = write_training(tmp_path), tmp_path / "training.md"
    page.write_text("# Training\n\n## Another\n\nstays\n")
    options = ["--config", str(folder / "recipe.yaml"), "--batches", "6", "--steps", "2", "--page", str(page)]
    assert main(["data.workers=1", *options]) == 0
    text = page.read_text()
    assert "## Another\n\nstays" in text
    figures = {row.split(" | ")[0].strip("| "): row.split(" | ") for row in text.splitlines() if row.startswith("| ")}
    loaded = float(figures["loader, 1 process(es), frames/s"][1])
    taken = next(float(row[1]) for name, row in figures.items() if name.startswith("training step"))
    ratio = float(figures["loader / step"][1])
    assert abs(ratio - loaded / taken) <= 0.06 + 0.02 * ratio  # of rounded numbers
    assert ("reached" in figures["loader / step"][2]) == (ratio >= 3)
    assert main(["data.train=[/nowhere]", *options]) == 1
    assert "data.train: expected bags at '/nowhere', got none" in capsys.readouterr().err.splitlines()[-1]

"""The training log: ``log.jsonl``, one line per event, and TensorBoard's files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from gemini_core.documents import parse_json
from gemini_core.errors import DataError, WeightsError
from gemini_core.files import write_whole


class Log:
    """What a run says of itself. Lines after ``step``, of a killed run beyond its checkpoint, are taken out: they come again.

    Raises:
        WeightsError, DataError: on construction, the log cannot be written.
    """

    def __init__(self, out: Path, step: int) -> None:
        self._path = out / "log.jsonl"
        before = self._path.read_text(encoding="utf-8").splitlines() if self._path.is_file() else []
        whole = [line for line in before if line.startswith("{") and line.endswith("}")]
        kept = [line for line in whole if parse_json(line, str(self._path), DataError)["step"] <= step]
        write_whole(self._path, "".join(f"{line}\n" for line in kept), WeightsError)
        with self._written():
            self._board = SummaryWriter(str(out / "tensorboard"), purge_step=step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add one line, and a point to each curve.

        Raises:
            DataError: they cannot be written.
        """
        line = json.dumps({"step": step, **{key: float(f"{value:.6g}") for key, value in values.items()}})
        with self._written():
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            for key, value in values.items():
                self._board.add_scalar(key, value, step)

    def close(self) -> None:
        """Write what TensorBoard still holds back.

        Raises:
            DataError: it cannot be written.
        """
        with self._written():
            self._board.close()

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            msg = f"{self._path.parent}: expected a place to write the log to, got {error.strerror or error}"
            raise DataError(msg) from None

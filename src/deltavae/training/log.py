"""The training's log: one row of means at every log step."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger

from deltavae.run_folder import write_atomically


@final
class CSVLog(Logger):
    """Appends the training's means to log.csv; a row of a step that has one takes its place.

    A continued run goes back to the row that its checkpoint knows as the last.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._fields: list[str] | None = None
        self._step = -1  # of the last row

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "csv"

    @property
    def version(self) -> str:
        """Version of the log: there is only one."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one row."""
        row: dict[str, Any] = {"step": step, **metrics}
        later, self._step = (step or 0) > self._step, step or 0
        if later and self._fields is not None and row.keys() <= set(self._fields):
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._fields).writerow(row)
            return
        self._write([*self._before(self._step), row])  # the first row, or new columns

    @rank_zero_only
    def rewind(self, step: int, metrics: Mapping[str, float]) -> None:
        """Go back to a last row, and drop whatever was written after it.

        Args:
            step: Its step; 0: back to the beginning.
            metrics: What it held; empty: there was no row yet.
        """
        rows, self._step = self._before(step), step
        rows += [{"step": step, **metrics}] if metrics else []
        if rows:
            self._write(rows)
        else:
            self.path.unlink(missing_ok=True)

    def _before(self, step: int) -> list[Mapping[str, Any]]:
        rows = _rows(self.path) if self.path.is_file() else []
        return [row for row in rows if int(row["step"]) < step]

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        fields = list(dict.fromkeys(name for row in rows for name in row))

        def write(path: Path) -> None:
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, fields)
                writer.writeheader()
                writer.writerows(rows)

        write_atomically(self.path, write)  # what is there is all there is of a run's past
        self._fields = fields


def read_log(path: Path) -> list[dict[str, float]]:
    """Read log.csv.

    Args:
        path: The file.

    Returns:
        One mapping per log entry.
    """
    return [{k: float(v) for k, v in row.items() if v} for row in _rows(path)]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))

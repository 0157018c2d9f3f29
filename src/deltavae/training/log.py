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
    """Appends the training's means to log.csv; a continued run drops what it will write again.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._fields: list[str] | None = None

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
        if self._fields is not None and row.keys() <= set(self._fields):
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._fields).writerow(row)
            return
        kept = _rows(self.path) if self.path.is_file() else []  # the first row, or new columns
        self._write([*(old for old in kept if int(old["step"]) < (step or 0)), row])

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

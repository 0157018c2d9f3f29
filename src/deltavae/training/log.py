"""The training's log: one row of means at every log step."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger


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
        row = {"step": step, **metrics}
        if self._fields is None:
            self._fields = list(row)
            kept = read_log(self.path) if self.path.is_file() else []
            with self.path.open("w", newline="") as file:
                writer = csv.DictWriter(file, self._fields, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(old for old in kept if old["step"] < (step or 0))
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._fields, extrasaction="ignore").writerow(row)


def read_log(path: Path) -> list[dict[str, float]]:
    """Read log.csv.

    Args:
        path: The file.

    Returns:
        One mapping per log entry.
    """
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]

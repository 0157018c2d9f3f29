"""From a finished run folder to the result of its cell.

`python -m deltavae.studies.analysis` is the process that does it beside the trainings: it reads
pickled (study, cell, run folder, file, budget) from its input, and writes each result to its file.
"""

import math
import os
import pickle
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deltavae.run_folder import RunFolder, write_atomically
from deltavae.studies.base import Budget, Cell, Result, Study
from deltavae.training import read_log

LOG_ROWS = 100

# Of the provenance what says how the figures came about, and no paths.
_ORIGIN = (
    "deltavae",
    "commit",
    "data_sha256",
    "train_seconds",
    "steps",
    "python",
    "packages",
    "machine",
    "threads",
)


class Analysis(NamedTuple):
    """What is to be taken from a run, and where it goes."""

    study: Study
    cell: Cell
    run: Path
    file: Path
    budget: Budget


def has_analysis(study: Study) -> bool:
    """Whether a study takes more from a run than metrics and log: then its weights are needed."""
    return type(study).analyse is not Study.analyse


def collect(analysis: Analysis) -> None:
    """Write the result of a finished run.

    Args:
        analysis: Which run, for which study, and the file to write.

    Raises:
        ValueError: If the run has not been measured.
    """
    study, cell, folder, file, budget = analysis
    run = RunFolder(folder)
    metrics = run.read_json(run.metrics).get("test")
    if metrics is None:
        raise ValueError(f"{run.metrics}: no metrics of the test split")
    provenance = run.read_json(run.provenance)
    origin = {name: provenance.get(name) for name in _ORIGIN}
    result = Result(
        cell=cell,
        metrics=metrics,
        log=thinned(read_log(run.log)),
        analysis=study.analyse(run, cell, budget),
        origin={**origin, "processor": _processor(), "cpus": os.cpu_count()},
    )
    text = result.to_json()
    write_atomically(file, lambda path: path.write_text(text, encoding="utf-8"))


def thinned(
    rows: Sequence[Mapping[str, float]], most: int = LOG_ROWS
) -> dict[str, list[float | None]]:
    """Turn a log into columns of few rows.

    Args:
        rows: The log's rows (`training.read_log`).
        most: Rows kept at most, at least 4; first those with figures of held-out images (`val_…`),
            up to half of all, then rows at equal distances, the first and the last among them.

    Returns:
        Columns of one length, numbers to seven digits, None where a row has no such figure.
    """
    held_out = [i for i, row in enumerate(rows) if any(name.startswith("val_") for name in row)]
    kept = {held_out[i] for i in _spread(len(held_out), most // 2)}
    kept |= set(_spread(len(rows), most if len(rows) <= most else most - len(kept)))
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [_short(rows[i].get(name)) for i in sorted(kept)] for name in names}


def _spread(count: int, most: int) -> list[int]:
    # Indices into `count` things, at most `most`, the ends among them.
    places = np.linspace(0, count - 1, min(count, most))
    return sorted({round(place) for place in places.tolist()})


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.7g}")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def main() -> None:
    """Do the analyses that come in."""
    for analysis in pickle.load(sys.stdin.buffer):
        collect(analysis)


if __name__ == "__main__":
    main()

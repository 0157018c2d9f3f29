"""From a cell's training to its results.

`python -m deltavae.studies.analysis [WORDS]` is the process of a cell: it runs the command
`deltavae WORDS`, its training, where there are WORDS, then makes the results. What is wanted comes
to its input: pickled analyses, and whether foreign classes are trusted. One process for both: to
import PyTorch takes longer than a small cell's training.
"""

import math
import os
import pickle
import platform
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deltavae.evaluation import evaluate
from deltavae.run_folder import RunFolder, write_atomically
from deltavae.studies.base import Budget, Cell, Result, Study, fingerprint
from deltavae.studies.measuring import data_of
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


def collect(analysis: Analysis, *, trust: bool = False) -> None:
    """Write the result of a finished run.

    Args:
        analysis: Which run, for which study, and the file to write.
        trust: Let the run name classes from outside deltavae.

    Raises:
        ValueError: If the run has not been measured.
    """
    study, cell, folder, file, budget = analysis
    run = RunFolder(folder)
    metrics = run.read_json(run.metrics).get("test")
    if metrics is None:
        raise ValueError(f"{run.metrics}: no metrics of the test split")
    result = Result(
        cell=cell,
        metrics=metrics,
        log=thinned(read_log(run.log)),
        analysis=study.analyse(run, cell, budget),
        origin=_origin(run),
        val=_held_out(run, cell, trust),
        budget=budget,
        version=study.version,
    )
    text = result.to_json()
    write_atomically(file, lambda path: path.write_text(text, encoding="utf-8"))


def _held_out(run: RunFolder, cell: Cell, trust: bool) -> dict[str, Any]:
    # Kept in metrics.json, where `evaluate --split val` would put them: once for all studies.
    config, metrics = run.read_config(), run.read_json(run.metrics)
    if "val" not in metrics and config.get("holdout"):
        found = evaluate(
            run.load_model(trust=trust),
            data_of(run),
            split="val",
            importance_samples=cell.options.get("importance_samples", 0),
            seed=config["seed"],
            limit=config.get("limit"),
            probe=False,
        )
        seconds = run.read_json(run.provenance).get("train_seconds")
        run.write_json(run.metrics, {**metrics, "val": {**found, "train_seconds": seconds}})
    val: dict[str, Any] = run.read_json(run.metrics).get("val", {})
    return val


def _origin(run: RunFolder) -> dict[str, Any]:
    provenance = run.read_json(run.provenance)
    config = {name: value for name, value in run.read_config().items() if name != "data_dir"}
    return {
        **{name: provenance.get(name) for name in _ORIGIN},
        "config": fingerprint(config),
        "processor": _processor(),
        "cpus": os.cpu_count(),
    }


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
    """Be the process of a cell."""
    wanted, trust = pickle.load(sys.stdin.buffer)
    if len(sys.argv) > 1:
        _command()
    for analysis in wanted:
        collect(analysis, trust=trust)


def _command() -> None:
    # As `python -m deltavae` with this process's words; ends the process where it fails.
    try:
        runpy.run_module("deltavae", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code:
            raise


if __name__ == "__main__":
    main()

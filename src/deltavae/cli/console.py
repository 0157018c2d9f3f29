"""What several commands share: speaking, loading a run's data, measuring, files to write."""

import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from deltavae.data import Dataset, load_data
from deltavae.evaluation import evaluate
from deltavae.model import DeltaVAE
from deltavae.run_folder import RunFolder

Options = dict[str, Any]
Split = Literal["train", "val", "test"]


def is_main_process() -> bool:
    """Whether this is the process that writes and speaks: Lightning starts the others."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def say(text: str) -> None:
    """Tell the user on the error stream, once, whatever the number of processes."""
    if is_main_process():
        print(text, file=sys.stderr, flush=True)


class Patience:
    """Tells of long work now and then, and of short work nothing.

    Args:
        every: Seconds between two lines, and before the first.
    """

    def __init__(self, every: float = 15.0) -> None:
        self.every = every
        self._spoke = time.monotonic()

    def say(self, text: str) -> None:
        """Say where the work stands, unless something was said a moment ago."""
        if time.monotonic() - self._spoke >= self.every:
            self._spoke = time.monotonic()
            say(text)

    def drawing(self, name: str, done: int, positions: int) -> None:
        """Say how far the samples of a run are; for `build_report`."""
        self.say(f"drawing samples of {name}: position {done} of {positions}")


def check_output(path: Path, endings: Sequence[str]) -> None:
    """Refuse a file that could not be written in the end, before the work is done.

    Args:
        path: The value of --out.
        endings: Permitted endings.

    Raises:
        ValueError: If the ending is another, or the folder is missing or cannot be written to.
    """
    if path.suffix not in endings:
        raise ValueError(f"--out: must end in {' or '.join(endings)}, got {path}")
    if path.is_dir():
        raise ValueError(f"--out: must be a file, {path} is a folder")
    if not path.parent.is_dir():
        raise ValueError(f"--out: the folder of {path} does not exist")
    check_writable("--out", path.parent)


def check_writable(option: str, folder: Path) -> None:
    """Try to write into a folder, or where it is missing into what would hold it.

    Args:
        option: The option that names it, for the message.
        folder: The folder.

    Raises:
        ValueError: If nothing can be written there.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise ValueError(f"{option}: cannot write to {folder}: {error.strerror}") from error


def load_dataset(options: Mapping[str, Any], where: str = "") -> Dataset:
    """Load the data set that options or a configuration name, and say what was done to it.

    Args:
        options: With the keys data, data_dir, size, grey, levels and holdout; all but data may be
            missing.
        where: File of the configuration, for the message.

    Returns:
        The data set.

    Raises:
        ValueError: If there is no data set of this name, or it is not as required.
    """
    if not isinstance(options.get("data"), str):
        raise ValueError(f'{where}: the key "data" is missing')
    data = load_data(
        options["data"],
        size=options.get("size"),
        grey=bool(options.get("grey")),
        levels=options.get("levels"),
        data_dir=Path(options["data_dir"]) if options.get("data_dir") else None,
        holdout=options.get("holdout") or 0,
        progress=Patience().say,
    )
    for note in data.notes:
        say(f"{data.name}: {note}")
    return data


def measure(
    run: RunFolder, model: DeltaVAE, data: Dataset, split: Split, options: Mapping[str, Any]
) -> Options:
    """Measure a model, add the metrics to the run's, and show them.

    Args:
        run: The run.
        model: Its model.
        data: Its data.
        split: The split to measure on.
        options: With the keys importance_samples, limit and seed.

    Returns:
        The metrics as they are in metrics.json.
    """
    say(f"evaluating on the {split} split")
    metrics = evaluate(
        model,
        data,
        split=split,
        importance_samples=options["importance_samples"],
        limit=options["limit"],
        seed=options["seed"],
        progress=Patience().say,
    )
    seconds = run.read_json(run.provenance).get("train_seconds")
    metrics = {**metrics, "train_seconds": seconds}
    run.write_json(run.metrics, {**run.read_json(run.metrics), split: metrics})
    _show(metrics)
    written: Options = run.read_json(run.metrics)[split]
    return written


def _show(metrics: Options) -> None:
    table = Table()
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("± standard error", justify="right")
    for name, value in metrics.items():
        if isinstance(value, bool | str | list) or value is None or name.endswith("_se"):
            continue
        error = metrics.get(f"{name}_se")
        digits = 0 if isinstance(value, int) else 4
        table.add_row(name, f"{value:,.{digits}f}", "" if error is None else f"{error:.4f}")
    Console(stderr=True).print(table)
    for warning in metrics["warnings"]:
        say(f"warning: {warning}")

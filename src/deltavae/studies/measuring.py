"""What the studies need of a finished run beside its metrics."""

from functools import lru_cache
from pathlib import Path

from deltavae.data import Dataset, load_data
from deltavae.run_folder import RunFolder


def data_of(run: RunFolder) -> Dataset:
    """Load the data set that a run was trained on.

    Args:
        run: The run.

    Returns:
        The data set; the last ones are kept in memory.
    """
    config = run.read_config()
    names = ("size", "grey", "levels", "data_dir", "holdout")
    return _load(config["data"], *(config.get(name) for name in names))


@lru_cache(maxsize=2)
def _load(
    name: str,
    size: int | None,
    grey: bool | None,
    levels: int | None,
    data_dir: str | None,
    holdout: int | None,
) -> Dataset:
    return load_data(
        name,
        size=size,
        grey=bool(grey),
        levels=levels,
        data_dir=None if data_dir is None else Path(data_dir),
        holdout=holdout or 0,
    )

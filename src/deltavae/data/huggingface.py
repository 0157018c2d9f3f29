"""Data sets of the `datasets` package (the extra `hf`): `hf:NAME`.

The image column is the first whose feature is an Image, the label column the first ClassLabel. The
splits `train` and `test` (or `validation`) are taken.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from deltavae.data import pixels
from deltavae.data.dataset import Dataset, Split, hold_out

_TEST_NAMES = ("test", "validation", "valid", "val")


def load_huggingface(name: str, *, size: int | None = None, grey: bool = False) -> Dataset:
    """Load a data set with `datasets.load_dataset`.

    Args:
        name: Name of the data set, or a path that `load_dataset` takes.
        size: Height and width to which every image is resized; needed where they differ.
        grey: Convert RGB to grey.

    Returns:
        The images, 256 levels.

    Raises:
        ValueError: If the package is missing, or the data set cannot be had or has no images.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f"hf:{name} needs the package datasets: pip install 'deltavae[hf]'"
        ) from error
    try:
        splits = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"hf:{name} cannot be loaded: {pixels.one_line(error)}") from error
    return from_splits(f"hf:{name}", splits, size=size, grey=grey)


def from_splits(
    name: str, splits: Mapping[str, Any], *, size: int | None = None, grey: bool = False
) -> Dataset:
    """Convert the splits of a `datasets.DatasetDict`.

    Args:
        name: Name of the data set.
        splits: Objects with `features` (column → feature) whose columns are had by indexing.
        size: Height and width to which every image is resized; needed where they differ.
        grey: Convert RGB to grey.

    Returns:
        The images, 256 levels.

    Raises:
        ValueError: If there is no split `train`, or no column of images.
    """
    if "train" not in splits:
        raise ValueError(f"{name} must have a split 'train', it has {sorted(splits)}")
    test_name = next((key for key in _TEST_NAMES if key in splits), None)
    used = ["train"] if test_name is None else ["train", test_name]
    images, changes = pixels.stack(
        (pair for key in used for pair in _images(f"{name} {key}", splits[key])),
        sum(len(splits[key]) for key in used),
        size=size,
        grey=grey,
    )
    notes = list(changes)
    count = len(splits["train"])
    train = Split(images[:count], _labels(splits["train"]))  # views
    if test_name is None:
        train, test, note = hold_out(train)
        notes.append(note)
    else:
        test = Split(images[count:], _labels(splits[test_name]))
    return Dataset(name, train, test, notes=tuple(notes))


def _column(split: Any, feature: str) -> str | None:
    names = (column for column, kind in split.features.items() if type(kind).__name__ == feature)
    return next(names, None)


def _images(where: str, split: Any) -> Iterator[tuple[str, np.ndarray]]:
    column = _column(split, "Image")
    if column is None:
        raise ValueError(f"{where} must have a column of images, it has {list(split.features)}")
    for place, image in enumerate(split[column]):
        name = f"{where}[{place}]"
        try:
            planes = pixels.decode(image)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        yield name, planes


def _labels(split: Any) -> np.ndarray | None:
    column = _column(split, "ClassLabel")
    if column is None:
        return None
    labels = np.array(split[column], np.int64)
    return None if (labels < 0).any() else labels  # −1 stands for an unknown class

"""A folder of images: every image file below it, in the order of the paths.

    folder/a.png, folder/b.png             images without classes
    folder/cat/a.png, folder/dog/b.png     subfolders are classes, if every image lies in one
    folder/train/..., folder/test/...      subfolders are splits, if every image lies in one; each
                                           as above; valid, validation or val may stand for test

Names that begin with a dot, and files that are not images by their suffix, are left out.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath

import numpy as np

from deltavae.data import pixels
from deltavae.data.dataset import Dataset, Split, hold_out_order

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_TEST_NAMES = ("test", "valid", "validation", "val")


def load_folder(
    path: Path,
    *,
    size: int | None = None,
    grey: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Dataset:
    """Load a folder of images.

    Args:
        path: The folder.
        size: Height and width to which every image is resized; needed where they differ.
        grey: Convert RGB to grey.
        progress: Called with a line of text for every image.

    Returns:
        One channel where every image is grey by content, otherwise three; 256 levels.

    Raises:
        ValueError: If the folder is missing or has no images, an image is damaged or has more
            than 8 bits per channel, or the images are of mixed sizes and size is None.
    """
    if not path.is_dir():
        raise ValueError(f"{path} must be a folder of images, there is none")
    files = image_files(path)
    if not files:
        raise ValueError(f"{path} has no images ({', '.join(s[1:] for s in SUFFIXES)})")
    test_name = _test_name(files)
    notes: list[str] = []
    if test_name is not None:
        used = [file for file in files if file.parts[0] in ("train", test_name)]
        if len(used) < len(files):
            notes.append(
                f"only train and {test_name} are used: {len(used)} of {len(files)} images"
            )
        files = used
    # Read in the order of the splits, training images first: so no image is copied again.
    if test_name is None:
        order, count, note = hold_out_order(len(files))
    else:
        is_test = np.array([file.parts[0] != "train" for file in files])
        order, count = np.argsort(is_test, kind="stable"), int(is_test.sum())
    ordered = [files[i] for i in order]
    named = _read(path, ordered, progress)
    images, changes = pixels.stack(named, len(files), size=size, grey=grey)
    labels = _labels(ordered, skip=0 if test_name is None else 1)
    notes.extend([*changes, note] if test_name is None else changes)
    everything = Split(images, labels, order)
    cut = len(files) - count
    train, test = everything.part(0, cut), everything.part(cut, len(files))
    return Dataset(str(path), train, test, notes=tuple(notes))


def _read(
    path: Path, files: Sequence[Path], progress: Callable[[str], None] | None
) -> Iterator[tuple[str, np.ndarray]]:
    for done, file in enumerate(files):
        if progress is not None:
            progress(f"{path}: image {done:,} of {len(files):,}")
        yield str(path / file), pixels.read(path / file)


def image_files(path: Path) -> list[Path]:
    """Paths below the folder, in order, that look like images."""
    files = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
    return sorted(
        file
        for file in files
        if file.suffix.lower() in SUFFIXES and not any(p.startswith(".") for p in file.parts)
    )


def _test_name(files: Sequence[PurePath]) -> str | None:
    """Name of the subfolder with the test split; None where the subfolders are no splits."""
    tops = {file.parts[0] for file in files}
    if "train" not in tops or not tops <= {"train", *_TEST_NAMES}:
        return None
    return next((name for name in _TEST_NAMES if name in tops), None)


def _labels(files: Sequence[PurePath], skip: int) -> np.ndarray | None:
    """Classes by the subfolder after `skip` others, numbered in the order of their names."""
    names = [file.parts[skip] for file in files if len(file.parts) > skip + 1]
    classes = sorted(set(names))
    if len(names) < len(files) or len(classes) < 2:
        return None
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number[name] for name in names], np.int64)

"""A folder of images: every image file below it, in the order of the paths.

    folder/a.png, folder/b.png             images without classes
    folder/cat/a.png, folder/dog/b.png     subfolders are classes, if every image lies in one
    folder/train/..., folder/test/...      subfolders are splits, if every image lies in one; each
                                           as above; valid, validation or val may stand for test

Names that begin with a dot, and files that are not images by their suffix, are left out.
"""

from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np

from deltavae.data import pixels
from deltavae.data.dataset import Dataset, Split, hold_out

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_TEST_NAMES = ("test", "valid", "validation", "val")


def load_folder(path: Path, *, size: int | None = None, grey: bool = False) -> Dataset:
    """Load a folder of images.

    Args:
        path: The folder.
        size: Height and width to which every image is resized; needed where they differ.
        grey: Convert RGB to grey.

    Returns:
        One channel where every image is grey by content, otherwise three; 256 levels.

    Raises:
        ValueError: If the folder is missing or has no images, an image is damaged or has more
            than 8 bits per channel, or the images are of mixed sizes and size is None.
    """
    if not path.is_dir():
        raise ValueError(f"{path} must be a folder of images, there is none")
    files = _image_files(path)
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
    named = ((str(path / file), pixels.read(path / file)) for file in files)
    images, changes = pixels.stack(named, size=size, grey=grey)
    notes.extend(changes)
    everything = Split(images, _labels(files, skip=0 if test_name is None else 1))
    if test_name is None:
        train, test, note = hold_out(everything)
        notes.append(note)
    else:
        is_train = np.array([file.parts[0] == "train" for file in files])
        train, test = (everything.take(np.flatnonzero(part)) for part in (is_train, ~is_train))
    return Dataset(str(path), train, test, notes=tuple(notes))


def _image_files(path: Path) -> list[Path]:
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
    return np.array([classes.index(name) for name in names], np.int64)

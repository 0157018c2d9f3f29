"""CIFAR-10: 50,000 training and 10,000 test images, RGB, 32×32, 10 classes.

A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009,
https://www.cs.toronto.edu/~kriz/cifar.html
The official binary layout: data_batch_1.bin to data_batch_5.bin and test_batch.bin, each a row of
records of 1 label byte and 3,072 pixel bytes (the red plane, the green, the blue, row by row).
Where test_batch.bin is missing, the last 5,000 training images are the test split; a note says so.
"""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from deltavae.data.dataset import Dataset, Split, hold_out
from deltavae.data.sources import VARIABLE, data_root, download, find_folder, store

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
FOLDER = "cifar-10-batches-bin"
_SUBFOLDERS = (".", FOLDER, f"cifar10/{FOLDER}", "cifar10")
_BATCHES = 5
_HELD_OUT = 5_000
_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32


def load_cifar10(data_dir: Path | None = None, *, url: str = URL, sha256: str = SHA256) -> Dataset:
    """Load CIFAR-10 from the user's folder, or else download it there.

    Args:
        data_dir: Folder with the binary files, or with a folder cifar-10-batches-bin that has
            them; None takes $DELTAVAE_DATA or the cache.
        url: Archive to download.
        sha256: SHA-256 of the archive.

    Returns:
        Images of shape (3, 32, 32), 256 levels.
    """
    root = data_root(data_dir)
    folder = find_folder([root], _SUBFOLDERS, "data_batch_*.bin")
    if folder is None:
        folder = root / FOLDER
        _download(folder, url, sha256)
    batches = sorted(folder.glob("data_batch_*.bin"))
    notes: list[str] = []
    if len(batches) != _BATCHES:
        notes.append(f"{len(batches)} of {_BATCHES} training files found")
    train = read_records(batches)
    if (folder / "test_batch.bin").is_file():
        test = read_records([folder / "test_batch.bin"])
    else:
        count = min(_HELD_OUT, max(1, len(train) // 10))
        train, test, note = hold_out(train, count, shuffle=False)
        notes.append(note)
    return Dataset("cifar10", train, test, notes=tuple(notes))


def read_records(paths: Sequence[Path]) -> Split:
    """Read files in the official binary layout.

    Args:
        paths: The files, in order, at least one.

    Returns:
        All their images and labels.

    Raises:
        ValueError: If a file is cut short or a label is not in 0..9.
    """
    parts = []
    for path in paths:
        content = np.fromfile(path, np.uint8)
        if len(content) == 0 or len(content) % _RECORD:
            raise ValueError(
                f"{path} must be records of {_RECORD} bytes, got {len(content)} bytes: "
                "it is damaged or cut short"
            )
        parts.append(content.reshape(-1, _RECORD))
        if parts[-1][:, 0].max() > 9:
            raise ValueError(f"{path} must have labels in 0..9, got {parts[-1][:, 0].max()}")
    records = np.concatenate(parts)
    images = np.ascontiguousarray(records[:, 1:]).reshape(-1, *_SHAPE)
    return Split(images, records[:, 0].astype(np.int64))


def _download(folder: Path, url: str, sha256: str) -> None:
    instead = f"put CIFAR-10's data_batch_*.bin into {folder}, or set ${VARIABLE} to its parent"
    content = download(url, sha256, instead)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            file = archive.extractfile(member)
            name = PurePosixPath(member.name).name  # never a path: nothing lands elsewhere
            if file is not None and name.endswith(".bin"):
                store(folder / name, file.read())

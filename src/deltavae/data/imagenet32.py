"""ImageNet 32×32: 1,281,167 training and 50,000 validation images, RGB, 1,000 classes.

Chrabaszcz, Loshchilov and Hutter, A Downsampled Variant of ImageNet, 2017,
https://arxiv.org/abs/1707.08819
The official npz files, to be had after registration at https://image-net.org/download-images:
train_data_batch_1.npz to train_data_batch_10.npz and val_data.npz, with `data` (N, 3072), plane by
plane, and `labels` from 1. The validation images are the test split, as in the literature.
Deviations:
    - the figures of Gated PixelCNN and its successors are for an earlier set of the same name
      (van den Oord et al., 2016, https://arxiv.org/abs/1601.06759), made in another way and no
      longer distributed: bits/dim of the two do not compare.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from deltavae.data.arrays import open_npz, read_array
from deltavae.data.dataset import Dataset, Split, hold_out
from deltavae.data.sources import VARIABLE, data_root, find_folder

_SUBFOLDERS = (".", "imagenet32", "Imagenet32_train_npz")
_SHAPE = (3, 32, 32)
_TEST = "val_data.npz"


def load_imagenet32(
    data_dir: Path | None = None, progress: Callable[[str], None] | None = None
) -> Dataset:
    """Load ImageNet 32×32 from the user's folder; it takes 5 GB of memory.

    Args:
        data_dir: Folder with the npz files, or with a folder imagenet32 that has them; None
            takes $DELTAVAE_DATA or the cache.
        progress: Called with a line of text for every file.

    Returns:
        Images of shape (3, 32, 32), 256 levels.
    """
    files = archives(data_dir)
    train = read_batches([path for path in files if path.name != _TEST], progress)
    if files[-1].name == _TEST:
        return Dataset("imagenet32", train, read_batches(files[-1:], progress))
    train, test, note = hold_out(train)
    return Dataset("imagenet32", train, test, notes=(note,))


def archives(data_dir: Path | None = None) -> Sequence[Path]:
    """Find the npz files.

    Args:
        data_dir: As in `load_imagenet32`.

    Returns:
        The training files in order, at least one, then the validation file, where it is there.

    Raises:
        ValueError: If there are none.
    """
    root = data_root(data_dir)
    folder = find_folder([root], _SUBFOLDERS, "train_data_batch_*.npz")
    if folder is None:
        raise ValueError(
            f"imagenet32 is not in {root}: put train_data_batch_*.npz and val_data.npz of "
            f"https://image-net.org/download-images there, or set ${VARIABLE}"
        )
    test = folder / _TEST
    return [*sorted(folder.glob("train_data_batch_*.npz")), *([test] if test.is_file() else [])]


def read_batches(paths: Sequence[Path], progress: Callable[[str], None] | None = None) -> Split:
    """Read npz files with `data` (N, 3072) and `labels` from 1.

    Args:
        paths: The files, at least one.
        progress: Called with a line of text for every file.

    Returns:
        All their images, with labels from 0.
    """
    labels = np.concatenate([_read_labels(path) for path in paths])
    images = np.empty((len(labels), *_SHAPE), np.uint8)  # filled in place: memory for one copy
    start = 0
    for path in paths:
        if progress is not None:
            progress(f"imagenet32: reading {path.name}")
        batch = _read_images(path)
        images[start : start + len(batch)] = batch.reshape(-1, *_SHAPE)
        start += len(batch)
    return Split(images, labels)


def _read_images(path: Path) -> UInt8[np.ndarray, "n 3072"]:
    with open_npz(path) as archive:
        data = read_array(archive, "data", path)
        count = len(read_array(archive, "labels", path))
    if data.dtype != np.uint8 or data.shape != (count, 3072):
        raise ValueError(
            f"{path}: data must be uint8 of shape ({count}, 3072), "
            f"got {data.dtype} of shape {data.shape}"
        )
    return data


def _read_labels(path: Path) -> Int64[np.ndarray, " n"]:
    with open_npz(path) as archive:
        labels = read_array(archive, "labels", path)
    if labels.dtype.kind not in "iu" or labels.size == 0 or labels.min() < 1:
        raise ValueError(f"{path}: labels must be integers from 1, got {labels.dtype}")
    return labels.astype(np.int64).ravel() - 1

"""Arrays of uint8 images: .npy and .npz files. Nothing is ever unpickled.

An array has shape (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3; a last axis of length 1
or 3 is taken for the channels. An .npz holds the images under `images`, `x`, `train` or `x_train`,
and may hold `labels` (or `y`, `y_train`), `test` (or `test_images`, `x_test`), `test_labels` (or
`y_test`) and `levels`, the number of values where it is not 256.
"""

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from numpy.lib.npyio import NpzFile

from deltavae.data.dataset import Dataset, Split, hold_out
from deltavae.data.pixels import one_line

_IMAGES = ("images", "x", "train", "x_train")
_LABELS = ("labels", "y", "y_train")
_TEST = ("test", "test_images", "x_test")
_TEST_LABELS = ("test_labels", "y_test")
_BEGINNINGS = (b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06")  # of .npy files and of archives
_BROKEN = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error)


def load_arrays(path: Path) -> Dataset:
    """Load a .npy or .npz file of images.

    Args:
        path: The file.

    Returns:
        The images; without a test split a tenth is held out.

    Raises:
        ValueError: If the file is missing, damaged or does not hold uint8 images.
    """
    if not path.is_file():
        raise ValueError(f"{path} must be an .npy or .npz file, there is none")
    levels, test = 256, None
    if path.suffix == ".npy":
        train = Split(as_images(read_npy(path), str(path)))
    else:
        with open_npz(path) as archive:
            train = _read_split(archive, path, _IMAGES, _LABELS)
            if _first(archive, _TEST):
                test = _read_split(archive, path, _TEST, _TEST_LABELS)
            if "levels" in archive:
                levels = read_levels(archive, path)
    notes: tuple[str, ...] = ()
    if test is None:
        train, test, note = hold_out(train)
        notes = (note,)
    return Dataset(str(path), train, test, levels, notes)


def as_images(array: np.ndarray, where: str) -> UInt8[np.ndarray, "n c h w"]:
    """Check that an array is of uint8 images and bring it into the order (N, C, H, W).

    Args:
        array: Any array.
        where: File and key, for error messages.

    Returns:
        A writable array in C order: the array itself where it is one.

    Raises:
        ValueError: If type, range or shape is not as required; a NaN is named with its place.
    """
    kind = array.dtype.kind
    if kind == "f" and np.isnan(array).any():
        place = tuple(int(i) for i in np.argwhere(np.isnan(array))[0])
        raise ValueError(f"{where}: contains NaN at index {place}, uint8 0..255 expected")
    if kind not in "iu":
        hint = "; multiply and cast" if kind == "f" else ""
        raise ValueError(f"{where}: uint8 0..255 expected, got {array.dtype}{hint}")
    if array.size == 0:
        raise ValueError(f"{where}: images expected, got an empty array of shape {array.shape}")
    if array.dtype != np.uint8 and (array.min() < 0 or array.max() > 255):
        raise ValueError(
            f"{where}: uint8 0..255 expected, got {array.dtype} in {array.min()}..{array.max()}"
        )
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    elif array.ndim != 4 or array.shape[1] not in (1, 3):
        raise ValueError(
            f"{where}: shape (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3 expected, "
            f"got {array.shape}"
        )
    return np.require(array, np.uint8, ["C", "W"])


def as_labels(array: np.ndarray, count: int, where: str) -> Int64[np.ndarray, " n"]:
    """Check that an array is of one class per image.

    Args:
        array: Any array.
        count: Number of images.
        where: File and key, for error messages.

    Returns:
        Classes.

    Raises:
        ValueError: If the array is not of whole numbers from 0, one per image.
    """
    if array.dtype.kind not in "iu" or array.shape not in ((count,), (count, 1)):
        raise ValueError(
            f"{where}: integers of shape ({count},) expected, "
            f"got {array.dtype} of shape {array.shape}"
        )
    if array.min() < 0:
        raise ValueError(f"{where}: classes from 0 expected, got {array.min()}")
    return array.reshape(count).astype(np.int64)


def read_npy(path: Path) -> np.ndarray:
    """Read the array of an .npy file, mapped into memory.

    Args:
        path: The file.

    Returns:
        The array; changing it does not change the file.

    Raises:
        ValueError: If it is no such file.
    """
    array = _load(path)
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f"{path} must hold a single array, it is an .npz archive")
    return array


def open_npz(path: Path) -> NpzFile:
    """Open an .npz file.

    Args:
        path: The file.

    Returns:
        The open archive, a context manager.

    Raises:
        ValueError: If it is no such file.
    """
    archive = _load(path)
    if not isinstance(archive, NpzFile):
        raise ValueError(f"{path} must be an .npz archive, it holds a single array")
    return archive


def read_array(archive: NpzFile, key: str, path: Path) -> np.ndarray:
    """Read one array of an archive.

    Args:
        archive: An open archive.
        key: The array's name.
        path: The archive's file, for error messages.

    Returns:
        The array.

    Raises:
        ValueError: If it is missing, damaged, or holds Python objects.
    """
    if key not in archive:
        raise ValueError(f"{path} must have the array {key!r}, it has {archive.files}")
    try:
        array: np.ndarray = archive[key]
    except _BROKEN as error:
        raise ValueError(f"{path}: {key} cannot be read: {one_line(error)}") from error
    return array


def read_levels(archive: NpzFile, path: Path) -> int:
    """Read the number of levels of an archive's images.

    Args:
        archive: An open archive that holds levels.
        path: The archive's file, for error messages.

    Returns:
        The number of levels.

    Raises:
        ValueError: If it is not one integer in 2..256.
    """
    levels = read_array(archive, "levels", path)
    if levels.size != 1 or levels.dtype.kind not in "iu":
        raise ValueError(f"{path}: levels must be one integer in 2..256, got {levels.dtype}")
    number = int(levels.item())
    if not 2 <= number <= 256:
        raise ValueError(f"{path}: levels must be in 2..256, got {number}")
    return number


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            if not file.read(8).startswith(_BEGINNINGS):  # what np.load says is of pickles
                kind = "archive" if path.suffix == ".npz" else "file"
                raise ValueError(f"it is not an {path.suffix} {kind}")
        if path.suffix == ".npy":  # mapped: what is never used is never read
            return np.load(path, mmap_mode="c", allow_pickle=False)
        # From memory: np.load leaves a damaged archive open.
        return np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except _BROKEN as error:
        raise ValueError(f"{path} cannot be read: {one_line(error)}") from error


def _first(archive: NpzFile, keys: tuple[str, ...]) -> str | None:
    return next((key for key in keys if key in archive), None)


def _read_split(
    archive: NpzFile, path: Path, image_keys: tuple[str, ...], label_keys: tuple[str, ...]
) -> Split:
    key, label_key = _first(archive, image_keys), _first(archive, label_keys)
    if key is None:
        raise ValueError(
            f"{path} must have one of the arrays {', '.join(image_keys)}, it has {archive.files}"
        )
    images = as_images(read_array(archive, key, path), f"{path}: {key}")
    if label_key is None:
        return Split(images)
    labels = read_array(archive, label_key, path)
    return Split(images, as_labels(labels, len(images), f"{path}: {label_key}"))

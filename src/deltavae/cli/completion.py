"""`sample --complete-from`: the images to complete, and the picture of what came of them."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from deltavae.data import pixels
from deltavae.data.arrays import as_images, open_npz, read_array, read_levels, read_npy


def read_images(
    path: Path, shape: tuple[int, int, int], levels: int
) -> UInt8[np.ndarray, "n c h w"]:
    """Read images and bring them into the form of a run's data.

    Args:
        path: A picture, or an .npy or .npz file of uint8 images; an .npz holds them under images,
            and their number of levels under levels, where it is not 256.
        shape: Channels, height and width of the run's images.
        levels: Number of levels of the run's images.

    Returns:
        Images of this shape and these levels.

    Raises:
        ValueError: If they cannot be read or brought into this form.
    """
    if not path.is_file():
        told = "must be a file, got the folder" if path.is_dir() else "no such file:"
        raise ValueError(f"--complete-from: {told} {path}")
    try:
        images, source = _read(path, shape[0])
        return _like(images, source, shape, levels)
    except ValueError as error:
        raise ValueError(f"--complete-from: {error}") from error


def in_rows(
    images: UInt8[np.ndarray, "n c h w"],
    completed: UInt8[np.ndarray, "n k c h w"],
    rows: int,
    levels: int,
) -> UInt8[np.ndarray, "_m c h w"]:
    """Lay out for each image: itself, what was kept of it, and its completions.

    Args:
        images: Images.
        completed: Completions of each.
        rows: Rows kept.
        levels: Number of levels; what was not kept is shown in the middle one.

    Returns:
        The images, k + 2 for each.
    """
    kept = images.copy()
    kept[:, :, rows:] = levels // 2
    return np.concatenate([images[:, None], kept[:, None], completed], axis=1).reshape(
        -1, *images.shape[1:]
    )


def _read(path: Path, channels: int) -> tuple[UInt8[np.ndarray, "n c h w"], int]:
    # Images and their number of levels.
    if path.suffix not in (".npy", ".npz"):
        return pixels.read(path)[None], 256
    levels = 256
    if path.suffix == ".npy":
        array = read_npy(path)
    else:
        with open_npz(path) as archive:
            array = read_array(archive, "images", path)
            if "levels" in archive:
                levels = read_levels(archive, path)
    colours_last = array.ndim == 3 and array.shape[2] in (1, 3)
    if array.ndim == 2 or colours_last or (array.ndim == 3 and channels == 3):  # a single image
        array = array[None]
    images = as_images(array, str(path))
    if images.max() >= levels:
        raise ValueError(f"{path}: values must be in 0..{levels - 1}, got {images.max()}")
    return images, levels


def _like(
    images: UInt8[np.ndarray, "n k h0 w0"], source: int, shape: tuple[int, int, int], levels: int
) -> UInt8[np.ndarray, "n c h w"]:
    c, h, w = shape
    if c == 1 and images.shape[1] == 3:
        images = pixels.to_grey(images)
    elif c == 3 and images.shape[1] == 1:
        images = images.repeat(3, axis=1)
    if images.shape[2:] != (h, w):
        if h != w:
            raise ValueError(f"{images.shape[3]}×{images.shape[2]} pixels, the run needs {w}×{h}")
        images = pixels.resize(images, h)
    if source < levels:
        raise ValueError(f"images of {source} levels, the run needs {levels}")
    return images if source == levels else pixels.reduce_levels(images, source, levels)

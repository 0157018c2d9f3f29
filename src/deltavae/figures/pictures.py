"""Pictures of events, which are no plots: exact pixels, enlarged by whole numbers."""

import math
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from deltavae.figures.render import to_png
from deltavae.run_folder import write_atomically

_GAP = 1  # pixels between two images, before enlargement
_GAP_LEVEL = 176
_TARGET = 40  # pixels that an enlarged image should have at least


def image_grid(
    images: UInt8[np.ndarray, "rows columns c h w"], levels: int, *, enlarge: int | None = None
) -> Image.Image:
    """Lay images out in rows and columns, enlarged without smoothing.

    Args:
        images: Images of 1 or 3 channels, values in 0..levels−1; at least one.
        levels: Number of levels of a pixel, at least 2; the highest becomes white.
        enlarge: Whole factor of enlargement, at least 1; None: what makes small images visible.

    Returns:
        An RGB image with grey lines of one enlarged pixel between the images.

    Raises:
        ValueError: If images are empty or have other than 1 or 3 channels, a value is not below
            levels, or levels or enlarge are out of their range.
    """
    rows, columns, c, h, w = images.shape
    if images.size == 0 or c not in (1, 3):
        raise ValueError(f"images must be images of 1 or 3 channels, got shape {images.shape}")
    if levels < 2 or images.max() >= levels:
        raise ValueError(f"levels must be at least 2 and above {images.max()}, got {levels}")
    factor = max(1, math.ceil(_TARGET / max(h, w))) if enlarge is None else enlarge
    if factor < 1:
        raise ValueError(f"enlarge must be at least 1, got {enlarge}")
    scaled = np.rint(images * (255.0 / (levels - 1))).astype(np.uint8)
    canvas = np.full((rows, h + _GAP, columns, w + _GAP, 3), _GAP_LEVEL, np.uint8)
    canvas[:, :h, :, :w] = scaled.transpose(0, 3, 1, 4, 2)  # one channel is spread over three
    whole = canvas.reshape(rows * (h + _GAP), columns * (w + _GAP), 3)[:-_GAP, :-_GAP]
    return Image.fromarray(whole.repeat(factor, axis=0).repeat(factor, axis=1))


def wrap(images: UInt8[np.ndarray, "m c h w"], columns: int) -> UInt8[np.ndarray, "_r _k c h w"]:
    """Break a row of images into rows; places left over in the last row are black.

    Args:
        images: Images, at least one.
        columns: Images per row, at least 1.

    Returns:
        The images in rows and columns.

    Raises:
        ValueError: If there is no image or columns is below 1.
    """
    if len(images) == 0 or columns < 1:
        raise ValueError(f"images and columns must be at least 1, got {len(images)} and {columns}")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    padded = np.zeros((rows * columns, *images.shape[1:]), np.uint8)
    padded[: len(images)] = images
    return padded.reshape(rows, columns, *images.shape[1:])


def beside(*pictures: Image.Image) -> Image.Image:
    """Put images of one height side by side, a broad grey line between them.

    Args:
        *pictures: At least one image, all of the same height.

    Returns:
        The images in one.
    """
    gap = 10
    width = sum(picture.width + gap for picture in pictures) - gap
    whole = Image.new("RGB", (width, pictures[0].height), (_GAP_LEVEL,) * 3)
    left = 0
    for picture in pictures:
        whole.paste(picture, (left, 0))
        left += picture.width + gap
    return whole


def save_image_grid(
    images: UInt8[np.ndarray, "m c h w"], levels: int, path: Path, *, columns: int | None = None
) -> None:
    """Write a grid of images as PNG.

    Args:
        images: Images of 1 or 3 channels, at least one.
        levels: Number of levels of a pixel.
        path: Where to; must end in .png.
        columns: Images per row, at least 1; None: as many as make the grid nearly square.

    Raises:
        ValueError: If path has another ending, columns is below 1, or the images are not as
            `image_grid` requires.
    """
    if path.suffix.lower() != ".png":
        raise ValueError(f"path must end in .png, got {path}")
    grid = wrap(images, math.ceil(math.sqrt(len(images))) if columns is None else columns)
    data = to_png(image_grid(grid, levels))
    write_atomically(path, lambda temporary: temporary.write_bytes(data))

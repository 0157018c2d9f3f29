"""What is done to pixels: decoding, size, grey, levels. Integers in, integers out, deterministic.

Grey is ITU-R 601 luma in 16-bit fixed point, Y = (19595 R + 38470 G + 7471 B + 2¹⁵) >> 16, as in
Pillow's mode "L". Sizes change by Pillow's box filter: the mean over a new pixel, rounded once.
"""

import struct
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

GREY_NOTE = "converted to grey (ITU-R 601 luma)"
_CHUNK = 8192  # images read at a time: bounds the memory of wider integers and of mapped files
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def to_grey(images: UInt8[np.ndarray, "n 3 h w"]) -> UInt8[np.ndarray, "n 1 h w"]:
    """Convert RGB to luma, exactly as Pillow's mode "L" does."""
    n, _, h, w = images.shape
    grey = np.empty((n, 1, h, w), np.uint8)
    for start in range(0, n, _CHUNK):
        r, g, b = images[start : start + _CHUNK].astype(np.uint32).transpose(1, 0, 2, 3)
        grey[start : start + _CHUNK, 0] = (19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16
    return grey


def reduce_levels(
    images: UInt8[np.ndarray, "*shape"], source: int, levels: int
) -> UInt8[np.ndarray, "*shape"]:
    """Map every x to ⌊x·levels/source⌋."""
    table = (np.arange(256) * levels // source).astype(np.uint8)
    reduced = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), _CHUNK):  # an index takes eight bytes
        reduced[start : start + _CHUNK] = table[images[start : start + _CHUNK]]
    return reduced


def highest(images: UInt8[np.ndarray, "n ..."]) -> int:
    """The highest value of at least one image; of a mapped file a part at a time is read."""
    return max(int(images[i : i + _CHUNK].max()) for i in range(0, len(images), _CHUNK))


def resize(images: UInt8[np.ndarray, "n c h w"], size: int) -> UInt8[np.ndarray, "n c s s"]:
    """Box-average to size × size; the aspect ratio is not kept.

    Args:
        images: Images of any size.
        size: Height and width in pixels, at least 1.

    Returns:
        The resized images, in C order.

    Raises:
        ValueError: If size is below 1.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    n, c, *_ = images.shape
    resized = np.empty((n, c, size, size), np.uint8)
    for i, j in np.ndindex(n, c):
        # In float32: on bytes Pillow rounds up after each of two passes, 0.4 too high on average.
        plane = Image.fromarray(images[i, j].astype(np.float32))
        mean = np.asarray(plane.resize((size, size), Image.Resampling.BOX))
        resized[i, j] = np.rint(mean)
    return resized


def resize_note(size: int) -> str:
    """The note that a data set carries after `resize`."""
    return f"resized to {size}×{size} (box filter, aspect ratio not kept)"


def read(path: Path) -> UInt8[np.ndarray, "c h w"]:
    """Read an image file.

    Args:
        path: A file in any format that Pillow reads; of an animation the first frame counts.

    Returns:
        One channel where red, green and blue are equal in every pixel, otherwise three.

    Raises:
        ValueError: If the file is no image, is damaged or has more than 8 bits per channel.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of large images
            with Image.open(path) as image:
                return decode(image)
    except _BROKEN as error:
        raise ValueError(f"{path} cannot be read as an image: {one_line(error)}") from error


def decode(image: Image.Image) -> UInt8[np.ndarray, "c h w"]:
    """Turn a Pillow image into planes.

    The orientation in the metadata is applied and transparency laid over white.

    Args:
        image: Any image of 8 bits per channel.

    Returns:
        One channel where red, green and blue are equal in every pixel, otherwise three.

    Raises:
        ValueError: If the image has more than 8 bits per channel.
    """
    # Pillow cuts 16-bit colour to 8 bits without a word; what the file holds is in its tiles.
    if image.mode.startswith(("I", "F")) or ";16" in str(getattr(image, "tile", "")):
        raise ValueError("it must have 8 bits per channel, got more: convert it first")
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))[None].copy()
    planes = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    return planes[:1].copy() if (planes == planes[:1]).all() else planes.copy()


def stack(
    images: Iterable[tuple[str, UInt8[np.ndarray, "_c _h _w"]]],
    count: int,
    *,
    size: int | None = None,
    grey: bool = False,
) -> tuple[UInt8[np.ndarray, "n c h w"], tuple[str, ...]]:
    """Stack named images; one channel if all are grey, otherwise three.

    Args:
        images: Pairs of a name, for error messages, and planes.
        count: Number of the images, at least 1.
        size: Height and width to which each image is resized; None leaves them.
        grey: Convert RGB to grey.

    Returns:
        The images, in C order, and notes that say what was done to some of them.

    Raises:
        ValueError: If there are none, or they are of mixed sizes and size is None.
    """
    out: np.ndarray = np.empty((0, 0, 0, 0), np.uint8)
    notes: dict[str, None] = {}  # an ordered set
    first = ""
    for i, (name, planes) in enumerate(images):
        if grey and len(planes) == 3:
            planes = to_grey(planes[None])[0]
            notes[GREY_NOTE] = None
        if size is not None and planes.shape[1:] != (size, size):
            planes = resize(planes[None], size)[0]
            notes[resize_note(size)] = None
        h, w = planes.shape[1:]
        if i == 0:
            first, out = name, np.empty((count, len(planes), h, w), np.uint8)
        if (h, w) != out.shape[2:]:
            h0, w0 = out.shape[2:]
            raise ValueError(
                "images of mixed sizes need size (--size): "
                f"{first} is {w0}×{h0}, {name} is {w}×{h}"
            )
        if len(planes) > out.shape[1]:  # the first coloured one
            begun, out = out[:i], np.empty((count, len(planes), h, w), np.uint8)
            out[:i] = begun
        out[i] = planes  # a grey image among coloured ones is spread over three channels
    if not first:
        raise ValueError("at least 1 image is needed, got none")
    return out, tuple(notes)


def one_line(error: BaseException) -> str:
    """The message of an error on one line."""
    return " ".join(str(error).split()) or type(error).__name__

"""Fashion-MNIST: 60,000 training and 10,000 test images of clothes, grey, 28×28, 10 classes.

Xiao, Rasul and Vollgraf, Fashion-MNIST, 2017, https://arxiv.org/abs/1708.07747
The files are in the idx format of MNIST: two zero bytes, the type (8: unsigned byte), the number
of axes, one big-endian 32-bit length per axis, then the values; gzipped or not.
"""

import gzip
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from deltavae.data.dataset import Dataset, Split
from deltavae.data.pixels import one_line
from deltavae.data.sources import VARIABLE, data_root, download, find_folder, store

URL = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/"
    "b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion"
)
SHA256 = {
    "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist
_SUBFOLDERS = (".", "fashion_mnist", "fashion-mnist", "FashionMNIST/raw")


def load_fashion_mnist(
    data_dir: Path | None = None, *, debian: Path = DEBIAN, url: str = URL
) -> Dataset:
    """Load Fashion-MNIST with its official splits.

    Searched in this order: data_dir; Debian's package; $DELTAVAE_DATA or the cache; a download.

    Args:
        data_dir: Folder with the four idx files, or with a folder fashion_mnist that has them.
        debian: Folder of Debian's package.
        url: Folder to download from.

    Returns:
        Images of shape (1, 28, 28), 256 levels.
    """
    chosen = [] if data_dir is None else [data_root(data_dir)]
    roots = [*chosen, debian, data_root(None)]
    folder = find_folder(roots, _SUBFOLDERS, "train-images-idx3-ubyte*")
    if folder is None:
        folder = data_root(data_dir) / "fashion_mnist"
        _download(folder, url)
    train, test = (
        Split(
            read_idx(_file(folder, f"{part}-images-idx3-ubyte"), axes=3)[:, None],
            read_idx(_file(folder, f"{part}-labels-idx1-ubyte"), axes=1).astype(np.int64),
        )
        for part in ("train", "t10k")
    )
    return Dataset("fashion_mnist", train, test)


def read_idx(path: Path, axes: int) -> UInt8[np.ndarray, "..."]:
    """Read an idx file of unsigned bytes.

    Args:
        path: The file, gzipped or not.
        axes: How many axes it must have.

    Returns:
        The values, a writable array.

    Raises:
        ValueError: If the file is damaged or of another kind.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {one_line(error)}") from error
    start = 4 + 4 * axes
    if content[:4] != bytes([0, 0, 8, axes]) or len(content) < start:
        raise ValueError(f"{path} must be an idx file of unsigned bytes with {axes} axes")
    shape = tuple(int(length) for length in np.frombuffer(content[4:start], ">u4"))
    values = np.frombuffer(content, np.uint8, offset=start)
    if len(values) != np.prod(shape):
        raise ValueError(f"{path} must have {np.prod(shape)} values, got {len(values)}")
    return values.reshape(shape).copy()


def _file(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise ValueError(f"{folder} must have {name}.gz or {name}, it has neither")


def _download(folder: Path, url: str) -> None:
    instead = (
        f"put the four Fashion-MNIST files {', '.join(f'{name}.gz' for name in SHA256)} into "
        f"{folder}, set ${VARIABLE} to a folder that has them, or install Debian's "
        "dataset-fashion-mnist"
    )
    for name, sha256 in SHA256.items():
        store(folder / f"{name}.gz", download(f"{url}/{name}.gz", sha256, instead))

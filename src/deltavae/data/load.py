"""One name for every source: what `--data` means."""

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path

from deltavae.data.arrays import load_arrays
from deltavae.data.cifar10 import load_cifar10
from deltavae.data.converted import converted
from deltavae.data.dataset import Dataset
from deltavae.data.digits import load_digits
from deltavae.data.fashion_mnist import load_fashion_mnist
from deltavae.data.folder import image_files, load_folder
from deltavae.data.huggingface import load_huggingface
from deltavae.data.imagenet32 import archives, load_imagenet32
from deltavae.data.sources import data_root

BUILT_IN = ("digits", "fashion_mnist", "cifar10", "imagenet32")


def load_data(
    name: str,
    *,
    size: int | None = None,
    grey: bool = False,
    levels: int | None = None,
    data_dir: Path | None = None,
    holdout: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Dataset:
    """Load a data set, convert it to grey, resize it and reduce its levels, in this order.

    A large one is converted once and read from a mapped file from then on (`data.converted`).

    Args:
        name: One of BUILT_IN, a folder of images, an .npz or .npy file, or hf:NAME.
        size: Height and width in pixels, at least 1; None leaves the images as they are.
        grey: Convert RGB to grey.
        levels: Number of grey levels, from 2 to the source's; 2 binarises at half.
        data_dir: Folder for data sets; None takes $DELTAVAE_DATA, else a folder in the cache.
        holdout: Training images, the last ones, to set aside as `val`.
        progress: Called with a line of text while images are read or converted.

    Returns:
        Fixed splits of uint8 images; `notes` say what was done to them.

    Raises:
        ValueError: If an argument is out of range, or the data are missing or not as required.
    """
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    if levels is not None and not 2 <= levels <= 256:
        raise ValueError(f"levels must be in 2..256, got {levels}")

    def build() -> Dataset:
        dataset = _load(name, size, grey, data_dir, progress)
        if grey:
            dataset = dataset.to_grey()
        if size is not None:
            dataset = dataset.resize(size)
        return dataset if levels is None else dataset.reduce_levels(levels)

    origin, sources = _sources(name, data_dir)
    if sources:
        settings = {"size": size, "grey": grey, "levels": levels}
        roots = list(dict.fromkeys((data_root(data_dir), data_root(None))))
        dataset = converted(name, origin, sources, settings, roots, build, progress)
    else:
        dataset = build()
    return dataset.hold_out_last(holdout)


def _sources(name: str, data_dir: Path | None) -> tuple[str, Sequence[Path]]:
    # What is named, and its files where it may be large: none where a conversion gains nothing.
    if name == "imagenet32":
        return name, [path.resolve() for path in archives(data_dir)]
    if name in BUILT_IN or name.startswith("hf:"):
        return name, ()
    typed = Path(name).expanduser()
    path = typed.resolve()
    if typed.suffix in (".npy", ".npz"):
        return str(path), [path] if path.is_file() else ()
    found = image_files(path) if name and path.is_dir() else ()
    return str(path), [path / file for file in found]


def _load(
    name: str,
    size: int | None,
    grey: bool,
    data_dir: Path | None,
    progress: Callable[[str], None] | None,
) -> Dataset:
    match name:
        case "digits":
            return load_digits()
        case "fashion_mnist":
            return load_fashion_mnist(data_dir)
        case "cifar10":
            return load_cifar10(data_dir)
        case "imagenet32":
            return load_imagenet32(data_dir, progress)
    if name.startswith("hf:"):
        return load_huggingface(name.removeprefix("hf:"), size=size, grey=grey)
    path = Path(name).expanduser()
    if path.suffix in (".npy", ".npz"):
        return load_arrays(path)
    if name and path.is_dir():
        return load_folder(path, size=size, grey=grey, progress=progress)
    raise ValueError(_unknown(name, path))


def _unknown(name: str, path: Path) -> str:
    permitted = f"{', '.join(BUILT_IN)}, a folder of images, an .npz or .npy file, or hf:NAME"
    if path.is_file():
        return f"data {name!r} is a file of another kind; permitted: {permitted}"
    if len(path.parts) > 1 or path.is_absolute():
        return f"data folder {name!r} does not exist; permitted: {permitted}"
    close = difflib.get_close_matches(name.lower().replace("-", "_"), BUILT_IN, n=1)
    nearest = f", did you mean {close[0]!r}?" if close else ";"
    return f"unknown data set {name!r}{nearest} permitted: {permitted}"

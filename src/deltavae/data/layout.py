"""What a model has to know of a data set: for the published ones without their images."""

from dataclasses import dataclass
from pathlib import Path

from deltavae.data.load import load_data


@dataclass(frozen=True)
class Layout:
    """Shape and size of a data set.

    Attributes:
        shape: Shape (C, H, W) of one image.
        levels: Number L of values of a pixel, in 2..256.
        training_images: Images of the training split.
    """

    shape: tuple[int, int, int]
    levels: int
    training_images: int


PUBLISHED = {
    "digits": Layout((1, 8, 8), 17, 1_438),
    "fashion_mnist": Layout((1, 28, 28), 256, 60_000),
    "cifar10": Layout((3, 32, 32), 256, 50_000),
    "imagenet32": Layout((3, 32, 32), 256, 1_281_167),
}


def data_layout(
    name: str,
    *,
    size: int | None = None,
    grey: bool = False,
    levels: int | None = None,
    data_dir: Path | None = None,
    holdout: int = 0,
) -> Layout:
    """Tell the layout of what `load_data` would return; read the images only where it must.

    Args:
        name: One of BUILT_IN, whose published layout is told, a folder of images, an .npz or .npy
            file, or hf:NAME.
        size: Height and width in pixels, at least 1; None leaves the images as they are.
        grey: Convert RGB to grey.
        levels: Number of grey levels, from 2 to the source's.
        data_dir: Folder for data sets.
        holdout: Training images to set aside.

    Returns:
        The layout after these changes.

    Raises:
        ValueError: If an argument is out of range, or the data are missing or not as required.
    """
    if name not in PUBLISHED:
        data = load_data(
            name, size=size, grey=grey, levels=levels, data_dir=data_dir, holdout=holdout
        )
        return Layout(data.shape, data.levels, len(data.train))
    source = PUBLISHED[name]
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    if levels is not None and not 2 <= levels <= source.levels:
        raise ValueError(f"levels must be in 2..{source.levels} for {name}, got {levels}")
    if not 0 <= holdout < source.training_images:
        most = source.training_images - 1
        raise ValueError(f"holdout must be in 0..{most} for {name}, got {holdout}")
    channels, height, width = source.shape
    shape = (1 if grey else channels, size or height, size or width)
    return Layout(shape, levels or source.levels, source.training_images - holdout)

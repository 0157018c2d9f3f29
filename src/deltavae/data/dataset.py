"""A data set in memory: two fixed splits of uint8 images, from the file to the model.

x is an image of shape (C, H, W) with values in 0..levels−1. Where a source has no test split, one
is cut off the training images: a fixed number of them, either the last ones or, where the order
may mean something, the last ones after a permutation. It sorts by the raw 64-bit output of
PCG64(SPLIT_SEED), the part of NumPy's generators whose stream is promised never to change
(NEP 19, https://numpy.org/neps/nep-0019-rng-policy.html). `notes` say what was done to the images.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Int64

from deltavae.data import pixels

SPLIT_SEED = 0
MAX_HELD_OUT = 10_000


@dataclass(frozen=True, eq=False)
class Split:
    """Images and, where there are any, their classes.

    Types and shapes are checked here, at run time, since the arrays may be a user's own.

    Attributes:
        images: uint8 of shape (N, C, H, W), in C order, values in 0..levels−1.
        labels: Classes from 0, int64 of shape (N,); None where there are none.
        places: Where each image stood before `take` chose it, int64 of shape (N,); None where the
            images are in the order of their source.

    Raises:
        ValueError: If the images are not uint8 in C order, or the labels do not match them.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    places: np.ndarray | None = None

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4 or not images.flags.c_contiguous:
            raise ValueError(
                "images must be uint8 of shape (N, C, H, W) in C order, "
                f"got {images.dtype} of shape {images.shape}"
            )
        if images.size == 0:
            raise ValueError(f"images must not be empty, got shape {images.shape}")
        if labels is not None and (labels.dtype != np.int64 or labels.shape != images.shape[:1]):
            raise ValueError(
                f"labels must be int64 of shape ({len(images)},), "
                f"got {labels.dtype} of shape {labels.shape}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: Int64[np.ndarray, " m"]) -> "Split":
        """The examples at these places, copied."""
        labels = None if self.labels is None else self.labels[index]
        places = index if self.places is None else self.places[index]
        return Split(np.ascontiguousarray(self.images[index]), labels, places)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Two fixed splits of images of one shape.

    Attributes:
        name: Name or path, as the user gave it.
        train: Training images.
        test: Test images, of the same shape.
        levels: Number L of values of a pixel, in 2..256.
        notes: What was done to the source, one sentence each: a cut split, a change of size.

    Raises:
        ValueError: If the splits differ in shape or a value is not below levels.
    """

    name: str
    train: Split
    test: Split
    levels: int = 256
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= 256:
            raise ValueError(f"levels must be in 2..256, got {self.levels}")
        shapes = self.train.images.shape[1:], self.test.images.shape[1:]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{self.name}: training and test images must have one shape (C, H, W), "
                f"got {shapes[0]} and {shapes[1]}"
            )
        highest = max(int(split.images.max()) for split in (self.train, self.test))
        if highest >= self.levels:
            raise ValueError(f"{self.name}: values must be in 0..{self.levels - 1}, got {highest}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one image."""
        _, c, h, w = self.train.images.shape
        return c, h, w

    @property
    def dims(self) -> int:
        """Dimensions C·H·W of one image: the divisor of bits/dim."""
        c, h, w = self.shape
        return c * h * w

    @property
    def in_source_order(self) -> Split:
        """Both splits together: in the order of the source where one was cut off the other."""
        parts = (self.train, self.test)
        images = np.concatenate([split.images for split in parts])
        labels = [split.labels for split in parts if split.labels is not None]
        both = Split(images, np.concatenate(labels) if len(labels) == len(parts) else None)
        places = [split.places for split in parts if split.places is not None]
        if len(places) < len(parts):
            return both
        return both.take(np.argsort(np.concatenate(places)))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of levels, shapes, pixels and labels of both splits."""
        digest = hashlib.sha256(f"levels {self.levels}".encode())
        for split in (self.train, self.test):
            digest.update(f"images {split.images.shape}".encode())
            digest.update(split.images.data)
            if split.labels is not None:
                digest.update(b"labels")
                digest.update(split.labels.astype("<i8").data)
        return digest.hexdigest()

    def to_grey(self) -> "Dataset":
        """Luma (ITU-R 601) in place of RGB; images of one channel stay as they are."""
        if self.shape[0] == 1:
            return self
        return self._map(pixels.to_grey, pixels.GREY_NOTE)

    def resize(self, size: int) -> "Dataset":
        """Box-average the images to size × size.

        Args:
            size: Height and width in pixels, at least 1.

        Returns:
            The data set itself where it has this size already.
        """
        if self.shape[1:] == (size, size):
            return self
        return self._map(lambda x: pixels.resize(x, size), pixels.resize_note(size))

    def reduce_levels(self, levels: int) -> "Dataset":
        """Reduce the number of grey levels: x becomes ⌊x·levels/L⌋.

        Args:
            levels: Number of levels to keep, from 2 to the present number L.

        Returns:
            The data set itself where it has this number already.

        Raises:
            ValueError: If levels is outside 2..L.
        """
        source = self.levels
        if not 2 <= levels <= source:
            raise ValueError(f"levels must be in 2..{source} for {self.name}, got {levels}")
        if levels == source:
            return self
        note = f"reduced from {source} to {levels} levels: x*{levels}//{source}"
        if levels == 2:
            note = f"binarised: 1 where x ≥ {(source + 1) // 2}, of {source} levels"
        reduced = self._map(lambda x: pixels.reduce_levels(x, source, levels), note)
        return replace(reduced, levels=levels)

    def _map(self, change: Callable[[np.ndarray], np.ndarray], note: str) -> "Dataset":
        splits = (Split(change(s.images), s.labels, s.places) for s in (self.train, self.test))
        train, test = splits
        return replace(self, train=train, test=test, notes=(*self.notes, note))


def hold_out(
    split: Split, count: int | None = None, *, shuffle: bool = True
) -> tuple[Split, Split, str]:
    """Cut a test split off, always the same one.

    Args:
        split: All images, at least 2.
        count: Size of the test split, in 1..N−1; None takes a tenth, at least 1, at most 10,000.
        shuffle: Take a fixed permutation first; otherwise the last images are the test split.

    Returns:
        Training split, test split and a note that says what was done.

    Raises:
        ValueError: If there are fewer than 2 images.
    """
    n = len(split)
    if n < 2:
        raise ValueError(f"at least 2 images are needed to hold out a test split, got {n}")
    if count is None:
        count = min(MAX_HELD_OUT, max(1, n // 10))
    order = np.arange(n)
    if shuffle:
        order = np.argsort(np.random.PCG64(SPLIT_SEED).random_raw(n), kind="stable")
    how = "after a fixed permutation" if shuffle else "in file order"
    note = f"no test split found: the last {count:,} of {n:,} images ({how}) are held out"
    return split.take(order[: n - count]), split.take(order[n - count :]), note

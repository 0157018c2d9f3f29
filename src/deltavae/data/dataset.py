"""A data set in memory: fixed splits of uint8 images, from the file to the model.

x is an image of shape (C, H, W) with values in 0..levels−1. Where a source has no test split, one
is cut off the training images: a fixed number of them, either the last ones or, where the order
may mean something, the last ones after a permutation. It sorts by the raw 64-bit output of
PCG64(SPLIT_SEED), the part of NumPy's generators whose stream is promised never to change
(NEP 19, https://numpy.org/neps/nep-0019-rng-policy.html). `notes` say what was done to the images.

The last training images can be set aside to watch a training by (`hold_out_last`): val. The images
stay where they are, in memory or in a mapped file, and the fingerprint is the same.
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

    def part(self, start: int, stop: int) -> "Split":
        """The examples start..stop−1: views, nothing is copied."""
        here = slice(start, stop)
        labels = None if self.labels is None else self.labels[here]
        places = None if self.places is None else self.places[here]
        return Split(self.images[here], labels, places)

    def take(self, index: Int64[np.ndarray, " m"]) -> "Split":
        """The examples at these places, copied."""
        labels = None if self.labels is None else self.labels[index]
        places = index if self.places is None else self.places[index]
        return Split(np.ascontiguousarray(self.images[index]), labels, places)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Fixed splits of images of one shape.

    Attributes:
        name: Name or path, as the user gave it.
        train: Training images.
        test: Test images, of the same shape.
        levels: Number L of values of a pixel, in 2..256.
        notes: What was done to the source, one sentence each: a cut split, a change of size.
        val: Held-out training images; None where none are held out.

    Raises:
        ValueError: If the splits differ in shape or a value is not below levels.
    """

    name: str
    train: Split
    test: Split
    levels: int = 256
    notes: tuple[str, ...] = ()
    val: Split | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= 256:
            raise ValueError(f"levels must be in 2..256, got {self.levels}")
        shapes = {split.images.shape[1:] for split in self.splits}
        if len(shapes) > 1:
            raise ValueError(
                f"{self.name}: training and test images must have one shape (C, H, W), "
                f"got {' and '.join(map(str, sorted(shapes)))}"
            )
        if self.levels == 256:  # every uint8 is a level: a mapped file need not be read
            return
        highest = max(pixels.highest(split.images) for split in self.splits)
        if highest >= self.levels:
            raise ValueError(f"{self.name}: values must be in 0..{self.levels - 1}, got {highest}")

    @property
    def splits(self) -> tuple[Split, ...]:
        """Training, held-out and test images, in this order."""
        return (self.train, *([] if self.val is None else [self.val]), self.test)

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
        """All splits together: in the order of the source where one was cut off the other."""
        parts = self.splits
        images = np.concatenate([split.images for split in parts])
        labels = [split.labels for split in parts if split.labels is not None]
        both = Split(images, np.concatenate(labels) if len(labels) == len(parts) else None)
        places = [split.places for split in parts if split.places is not None]
        if len(places) < len(parts):
            return both
        return both.take(np.argsort(np.concatenate(places)))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of levels, shapes, pixels and labels of all images.

        What is held out counts as training images: the fingerprint is that of the source.
        """
        digest = hashlib.sha256(f"levels {self.levels}".encode())
        for parts in ([*self.splits[:-1]], [self.test]):
            count = sum(len(split) for split in parts)
            digest.update(f"images {(count, *self.shape)}".encode())
            for split in parts:
                digest.update(split.images.data)
            labels = [split.labels for split in parts if split.labels is not None]
            if labels:
                digest.update(b"labels")
                for classes in labels:
                    digest.update(classes.astype("<i8").data)
        return digest.hexdigest()

    def hold_out_last(self, count: int) -> "Dataset":
        """Set the last training images aside, as val.

        Args:
            count: How many, from 0 to the number of training images less 1.

        Returns:
            The data set with count fewer training images; itself where count is 0.

        Raises:
            ValueError: If count is out of its range.
        """
        n = len(self.train)
        if not 0 <= count < n:
            raise ValueError(f"holdout must be in 0..{n - 1} for {self.name}, got {count}")
        if count == 0:
            return self
        note = f"the last {count:,} of {n:,} training images are held out of training"
        train, val = self.train.part(0, n - count), self.train.part(n - count, n)
        return replace(self, train=train, val=val, notes=(*self.notes, note))

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
        def changed(split: Split) -> Split:
            return Split(change(split.images), split.labels, split.places)

        val = None if self.val is None else changed(self.val)
        notes = (*self.notes, note)
        return replace(
            self, train=changed(self.train), test=changed(self.test), val=val, notes=notes
        )


def hold_out_order(n: int, count: int | None = None) -> tuple[Int64[np.ndarray, " n"], int, str]:
    """Choose a test split, always the same one; fewer than 2 images are a ValueError.

    Args:
        n: Number of all images, at least 2.
        count: Size of the test split, in 1..n−1; None takes a tenth, at least 1, at most 10,000.

    Returns:
        A permutation of 0..n−1 whose last `count` places are the test split; count; a note.
    """
    count = _held_out(n, count)
    order = np.argsort(np.random.PCG64(SPLIT_SEED).random_raw(n), kind="stable")
    return order, count, _note(n, count, "after a fixed permutation")


def hold_out(
    split: Split, count: int | None = None, *, shuffle: bool = True
) -> tuple[Split, Split, str]:
    """Cut a test split off, always the same one; fewer than 2 images are a ValueError.

    Args:
        split: All images, at least 2.
        count: Size of the test split, in 1..N−1; None takes a tenth, at least 1, at most 10,000.
        shuffle: Take a fixed permutation first; otherwise the last images are the test split.

    Returns:
        Training split, test split and a note that says what was done.
    """
    n = len(split)
    if not shuffle:
        count = _held_out(n, count)
        note = _note(n, count, "in file order")
        return split.part(0, n - count), split.part(n - count, n), note
    order, count, note = hold_out_order(n, count)
    return split.take(order[: n - count]), split.take(order[n - count :]), note


def _held_out(n: int, count: int | None) -> int:
    if n < 2:
        raise ValueError(f"at least 2 images are needed to hold out a test split, got {n}")
    return min(MAX_HELD_OUT, max(1, n // 10)) if count is None else count


def _note(n: int, count: int, how: str) -> str:
    return f"no test split found: the last {count:,} of {n:,} images ({how}) are held out"

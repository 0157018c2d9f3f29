"""Parts of an image that latent steps stand for: boxes of whole pixels.

A pair says for every step t which part of an event it stands for, as fractions of each axis
(`Latents.extents`); of an image these are boxes (top, left, height, width). With the anti-causal
encoder z_t is made from the pixels from the first of its box on, in raster order, and the decoder
reads z_t from that pixel on. Steps come in the order of their first pixels, so that what a pixel
reads are the first so many. Boxes may be nested, as those of a tree are.

The mean of features f over a box separates: with 0/1 vectors r and c of its rows and columns

    mean_t = Σ_hw r_th f_hw c_tw / (height · width),                                         (1)

and steps share intervals, so that both sums run over distinct ones only. No pixel outside enters,
which a summed-area table could not say of its rounding.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor, nn

Boxes = Sequence[Sequence[int]]

_WHOLE = 1e-6  # pixels that a cut may lie off: the rounding of fractions


def pixel_boxes(
    extents: Float64[np.ndarray, "n axes 2"], height: int, width: int
) -> list[list[int]]:
    """Turn the parts of an event that latent steps stand for into boxes of pixels.

    Args:
        extents: For every step an interval [start, end) of each axis, as fractions in [0, 1]: of
            the rows, or of rows and columns.
        height: Rows of the image.
        width: Columns of the image.

    Returns:
        For every step top, left, height and width, in pixels.

    Raises:
        ValueError: If there are more than two axes, or a cut does not fall between two pixels.
    """
    if extents.shape[1] not in (1, 2):
        raise ValueError(f"extents of an image must have 1 or 2 axes, got {extents.shape[1]}")
    rows = _cuts(extents[:, 0], height, "rows")
    columns = [(0, width)] * len(rows)
    if extents.shape[1] == 2:
        columns = _cuts(extents[:, 1], width, "columns")
    return [
        [top, left, bottom - top, right - left]
        for (top, bottom), (left, right) in zip(rows, columns, strict=True)
    ]


def row_boxes(height: int, width: int) -> list[list[int]]:
    """Return one box per row."""
    return [[row, 0, 1, width] for row in range(height)]


def first_pixels(boxes: Boxes, height: int, width: int) -> tuple[int, ...]:
    """Return the place in raster order of every box's first pixel.

    Args:
        boxes: Top, left, height and width of the box of every step.
        height: Rows of the image.
        width: Columns of the image.

    Returns:
        Places from 0; they never decrease.

    Raises:
        ValueError: If a box is not four numbers or leaves the image, or the boxes are not in the
            order of their first pixels.
    """
    for t, box in enumerate(boxes):
        if len(box) != 4:
            raise ValueError(
                f"boxes[{t}] must be (top, left, height, width), got {len(box)} numbers"
            )
        top, left, rows, columns = box
        inside = 0 <= top < top + rows <= height and 0 <= left < left + columns <= width
        if not inside:
            raise ValueError(
                f"boxes[{t}] must lie in an image of {height} rows and {width} columns, "
                f"got {tuple(box)}"
            )
    first = tuple(top * width + left for top, left, _, _ in boxes)
    for t in range(1, len(first)):
        if first[t] < first[t - 1]:
            raise ValueError(
                "boxes must be in the raster order of their first pixels, "
                f"got {tuple(boxes[t - 1])} before {tuple(boxes[t])}"
            )
    return first


class BoxMeans(nn.Module):
    """Mean of activated features over the box of every latent step; no parameters.

    Boxes out of their range are a ValueError of `first_pixels`.

    Args:
        boxes: Top, left, height and width of the box of every step.
        height: Rows of the image.
        width: Columns of the image.

    Attributes:
        rows: Distinct intervals of rows, 1 inside and 0 outside, as a matrix (intervals, height).
        columns: The same of columns, (intervals, width).
        place: Where among all pairs of them each step's box is.
        pixels: Number of pixels of every box.
    """

    rows: Tensor
    columns: Tensor
    place: Tensor
    pixels: Tensor

    def __init__(self, boxes: Boxes, height: int, width: int) -> None:
        super().__init__()
        first_pixels(boxes, height, width)
        down = [(top, rows) for top, _, rows, _ in boxes]
        across = [(left, columns) for _, left, _, columns in boxes]
        distinct_down, distinct_across = list(dict.fromkeys(down)), list(dict.fromkeys(across))
        place = [
            distinct_down.index(rows) * len(distinct_across) + distinct_across.index(columns)
            for rows, columns in zip(down, across, strict=True)
        ]
        pixels = [[float(rows * columns)] for _, _, rows, columns in boxes]
        constants = {
            "rows": _inside(distinct_down, height),
            "columns": _inside(distinct_across, width),
            "place": torch.tensor(place),
            "pixels": torch.tensor(pixels),
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n c"]:
        """Return the mean over every box.

        Args:
            features: Features of every pixel, not activated yet.

        Returns:
            Means of ELU(features).
        """
        sums = torch.einsum("rh,bchw,qw->brqc", self.rows, F.elu(features), self.columns)
        means: Tensor = sums.flatten(1, 2).index_select(1, self.place) / self.pixels  # (1)
        return means


def _cuts(fractions: Float64[np.ndarray, "n 2"], size: int, name: str) -> list[tuple[int, int]]:
    # Start and end of every interval, in pixels.
    cuts = fractions * size
    whole = np.rint(cuts)
    off = np.abs(cuts - whole) > _WHOLE
    if off.any():
        divisors = ", ".join(str(k) for k in range(1, size + 1) if size % k == 0)
        raise ValueError(
            f"latents must stand for whole pixels: the image's {size} {name} are cut at "
            f"{cuts[off][0]:.6g}; the number of equal parts must divide {size}: {divisors}"
        )
    return [(int(start), int(end)) for start, end in whole]


def _inside(intervals: list[tuple[int, int]], size: int) -> Float[Tensor, "k size"]:
    # 1 where a pixel lies in the interval (start, length), 0 elsewhere.
    start, length = torch.tensor(intervals).unbind(1)
    pixel = torch.arange(size)
    inside = (pixel >= start[:, None]) & (pixel < (start + length)[:, None])
    return inside.to(torch.get_default_dtype())

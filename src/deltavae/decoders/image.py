"""What decoders of images share: pixels in raster order, and which latents each may see.

A latent step stands for a row of the image, or for a box of pixels (`deltavae.nn.boxes`): from the
first pixel of it on, in raster order, z_t may be read.
"""

from abc import ABC
from bisect import bisect_right
from typing import Literal

from jaxtyping import UInt8
from torch import Tensor

from deltavae.decoders.base import Decoder
from deltavae.likelihoods import Likelihood
from deltavae.nn.boxes import Boxes, first_pixels, row_boxes

LatentView = Literal["rows-above", "all"]


class ImageDecoder(Decoder, ABC):
    """An autoregressive decoder of images, pixel by pixel in raster order; abstract.

    Args:
        image_shape: Channels, rows and columns (C, H, W).
        likelihood: The conditional distribution of a pixel.
        latent_shape: Steps n and channels d of z; None: the decoder alone.
        latent_view: Which latents a pixel sees: "rows-above" those whose row, or box, has begun,
            "all" every one.
        boxes: Top, left, height and width, in pixels, of what each latent step stands for, in the
            order of their first pixels; None: one step per row.

    Raises:
        ValueError: If latent_view is unknown, or n is not the number of rows, or of boxes.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        likelihood: Likelihood,
        latent_shape: tuple[int, int] | None,
        latent_view: LatentView,
        boxes: Boxes | None = None,
    ) -> None:
        _, h, w = image_shape
        if latent_view not in ("rows-above", "all"):
            raise ValueError(f'latent_view must be "rows-above" or "all", got "{latent_view}"')
        visible_from: tuple[int, ...] = ()
        if latent_shape is not None:
            visible_from = _begins(latent_shape[0], latent_view, boxes, h, w)
        super().__init__(image_shape, h * w, likelihood, latent_shape, visible_from)

    @property
    def latents_seen(self) -> list[int]:
        """How many latents each pixel sees: the first so many."""
        return [bisect_right(self.visible_from, i) for i in range(self.positions)]

    def to_sequence(self, x: UInt8[Tensor, "b c h w"]) -> UInt8[Tensor, "b p c"]:
        """Lay the pixels out in raster order."""
        return x.flatten(2).transpose(1, 2)

    def from_sequence(self, sequence: UInt8[Tensor, "b p c"]) -> UInt8[Tensor, "b c h w"]:
        """Invert `to_sequence`."""
        return sequence.transpose(1, 2).reshape(len(sequence), *self.event_shape)


def _begins(n: int, view: LatentView, boxes: Boxes | None, h: int, w: int) -> tuple[int, ...]:
    # For every latent step the first pixel that sees it.
    if view == "all" and boxes is None:
        return (0,) * n
    first = first_pixels(row_boxes(h, w) if boxes is None else boxes, h, w)
    if n != len(first):
        part = "row" if boxes is None else "box"
        raise ValueError(f"latent_shape must have one step per {part}, {len(first)}, got {n}")
    return first if view == "rows-above" else (0,) * n

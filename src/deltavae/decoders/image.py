"""What decoders of images share: pixels in raster order, and which latents a row may see."""

from abc import ABC
from bisect import bisect_right
from typing import Literal

from jaxtyping import UInt8
from torch import Tensor

from deltavae.decoders.base import Decoder
from deltavae.likelihoods import Likelihood

LatentView = Literal["rows-above", "all"]


class ImageDecoder(Decoder, ABC):
    """An autoregressive decoder of images, pixel by pixel in raster order; abstract.

    Args:
        image_shape: Channels, rows and columns (C, H, W).
        likelihood: The conditional distribution of a pixel.
        latent_shape: Steps n (one per row) and channels d of z; None: the decoder without latents.
        latent_view: Which latents a pixel in row r sees: "rows-above" t ≤ r, "all" every t.

    Raises:
        ValueError: If latent_view is unknown, or n is not the number of rows.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        likelihood: Likelihood,
        latent_shape: tuple[int, int] | None,
        latent_view: LatentView,
    ) -> None:
        _, h, w = image_shape
        if latent_view not in ("rows-above", "all"):
            raise ValueError(f'latent_view must be "rows-above" or "all", got "{latent_view}"')
        if latent_shape is not None and latent_view == "rows-above" and latent_shape[0] != h:
            raise ValueError(
                f"latent_shape must have one step per row, {h}, got {latent_shape[0]}"
            )
        n = 0 if latent_shape is None else latent_shape[0]
        visible_from = tuple(t * w if latent_view == "rows-above" else 0 for t in range(n))
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

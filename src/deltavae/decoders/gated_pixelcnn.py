"""A gated PixelCNN that attends to the latents.

The two causal stacks of van den Oord et al. 2016 (see `deltavae.nn.gated`), with attention from
every pixel to the latents every few layers. With the anti-causal encoder a pixel in row r sees z_t
for t ≤ r, or those whose boxes have begun; with the non-causal encoder it sees all of them.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3,
https://arxiv.org/abs/1901.03416

Deviations:
    * What a pixel reads from the latents is added to the horizontal stack's features.
"""

from typing import final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from deltavae.decoders.base import State
from deltavae.decoders.gated_cache import GatedCache
from deltavae.decoders.image import ImageDecoder, LatentView
from deltavae.likelihoods import Likelihood
from deltavae.nn import GatedStack, LatentAttention, as_image, pixels, scale_image
from deltavae.nn.boxes import Boxes
from deltavae.nn.precision import as_autocast, exactly


@final
class GatedPixelCNN(ImageDecoder):
    """p(x|z) of images, pixel by pixel in raster order.

    Args:
        image_shape: Channels, rows and columns (C, H, W).
        likelihood: The conditional distribution of a pixel.
        latent_shape: Steps n and channels d of z; None: the decoder alone.
        latent_view: Which latents a pixel sees: "rows-above" those whose row, or box, has begun,
            "all" every one.
        channels: Width of either stack.
        layers: Number of gated layers.
        kernel_size: Odd kernel width.
        heads: Attention heads; must divide channels.
        attend_every: A latent attention follows every such number of layers, and the first.
        checkpointing: Compute a layer again in the backward pass instead of keeping what it needs.
        boxes: Top, left, height and width, in pixels, of what each latent step stands for, in the
            order of their first pixels; None: one step per row.

    Raises:
        ValueError: If an argument is out of its range, or n is not the number of rows, or boxes.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        likelihood: Likelihood,
        latent_shape: tuple[int, int] | None = None,
        latent_view: LatentView = "rows-above",
        channels: int = 32,
        layers: int = 6,
        kernel_size: int = 3,
        heads: int = 2,
        attend_every: int = 3,
        checkpointing: bool = False,
        boxes: Boxes | None = None,
    ) -> None:
        super().__init__(image_shape, likelihood, latent_shape, latent_view, boxes)
        if attend_every < 1:
            raise ValueError(f"attend_every must be at least 1, got {attend_every}")
        self.stack = GatedStack(image_shape[0], channels, layers, kernel_size, checkpointing)
        self.attention = nn.ModuleDict()
        self.head = nn.Sequential(
            nn.ELU(),
            nn.Conv2d(channels, channels, 1),
            nn.ELU(),
            nn.Conv2d(channels, likelihood.params_per_position, 1),
        )
        if latent_shape is not None:  # drawn last: the rest begins as in the decoder alone
            for i in range(0, layers, attend_every):
                self.attention[str(i)] = LatentAttention(channels, latent_shape, heads)

    def forward(
        self, x: UInt8[Tensor, "b c h w"], z: Float[Tensor, "b n d"] | None
    ) -> Float[Tensor, "b p k"]:
        """Return the parameters of every pixel; see `Decoder.forward`."""
        weight = self.stack.embed_vertical.weight
        z = self.or_zero(z, len(x))
        scaled = scale_image(x, self.likelihood.levels, weight.dtype)
        v, h = exactly(self.stack.embed, scaled, weight)
        v = as_autocast(v)  # rows above, seen through h: only h goes straight to the head
        for i in range(len(self.stack.layers)):
            v, h = self.stack.layer(i, v, h)
            if z is not None and str(i) in self.attention:
                h = h + as_image(self.attention[str(i)](pixels(h), z, self.visible), h)
        return pixels(exactly(self.head, h, weight))

    @torch.no_grad()
    def init_state(self, z: Float[Tensor, "b n d"] | None, batch: int) -> GatedCache:
        """Begin a batch of images with empty caches; see `Decoder.init_state`."""
        return GatedCache(
            self.stack,
            self.attention,
            self.head,
            self.or_zero(z, batch),
            seen=self.latents_seen,
            batch=batch,
            event_shape=self.event_shape,
            levels=self.likelihood.levels,
        )

    def step(
        self, state: State, previous: UInt8[Tensor, "b c"] | None
    ) -> tuple[Float[Tensor, "b k"], State]:
        """Predict the next pixel from the caches; see `Decoder.step`."""
        assert isinstance(state, GatedCache)
        return state.step(previous), state

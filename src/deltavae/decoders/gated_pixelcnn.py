"""A gated PixelCNN that attends to the latents.

The two causal stacks of van den Oord et al. 2016 (see `deltavae.nn.gated`), with attention from
every pixel to the latents every few layers. With the anti-causal encoder a pixel in row r sees z_t
for t ≤ r; with the non-causal encoder it sees all of them.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3,
https://arxiv.org/abs/1901.03416

Deviations:
    * What a pixel reads from the latents is added to the horizontal stack's features.
"""

from bisect import bisect_right
from typing import Literal, final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from deltavae.decoders.base import Decoder, State
from deltavae.decoders.gated_cache import GatedCache
from deltavae.likelihoods import Likelihood
from deltavae.nn import GatedStack, LatentAttention, scale_image


@final
class GatedPixelCNN(Decoder):
    """p(x|z) of images, pixel by pixel in raster order.

    Args:
        image_shape: Channels, rows and columns (C, H, W).
        likelihood: The conditional distribution of a pixel.
        latent_shape: Steps n (one per row) and channels d of z; None: the decoder without latents.
        latent_view: Which latents a pixel in row r sees: "rows-above" t ≤ r, "all" every t.
        channels: Width of either stack.
        layers: Number of gated layers.
        kernel_size: Odd kernel width.
        heads: Attention heads; must divide channels.
        attend_every: A latent attention follows every such number of layers, and the first.

    Raises:
        ValueError: If an argument is out of its range, or n is not the number of rows.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        likelihood: Likelihood,
        latent_shape: tuple[int, int] | None = None,
        latent_view: Literal["rows-above", "all"] = "rows-above",
        channels: int = 32,
        layers: int = 6,
        kernel_size: int = 3,
        heads: int = 2,
        attend_every: int = 3,
    ) -> None:
        c, h, w = image_shape
        if latent_view not in ("rows-above", "all"):
            raise ValueError(f'latent_view must be "rows-above" or "all", got "{latent_view}"')
        if latent_shape is not None and latent_view == "rows-above" and latent_shape[0] != h:
            raise ValueError(
                f"latent_shape must have one step per row, {h}, got {latent_shape[0]}"
            )
        if attend_every < 1:
            raise ValueError(f"attend_every must be at least 1, got {attend_every}")
        n = 0 if latent_shape is None else latent_shape[0]
        visible_from = tuple(t * w if latent_view == "rows-above" else 0 for t in range(n))
        super().__init__(image_shape, h * w, likelihood, latent_shape, visible_from)
        self.stack = GatedStack(c, channels, layers, kernel_size)
        self.attention = nn.ModuleDict()
        if latent_shape is not None:
            for i in [i for i in range(layers) if i % attend_every == 0]:
                self.attention[str(i)] = LatentAttention(channels, latent_shape, heads)
        self.head = nn.Sequential(
            nn.ELU(),
            nn.Conv2d(channels, channels, 1),
            nn.ELU(),
            nn.Conv2d(channels, likelihood.params_per_position, 1),
        )

    def forward(
        self, x: UInt8[Tensor, "b c h w"], z: Float[Tensor, "b n d"] | None
    ) -> Float[Tensor, "b p k"]:
        """Return the parameters of every pixel; see `Decoder.forward`."""
        weight = self.stack.embed_vertical.weight
        v, h = self.stack.embed(scale_image(x, self.likelihood.levels, weight.dtype))
        for i, layer in enumerate(self.stack.layers):
            v, h = layer(v, h)
            if z is not None and str(i) in self.attention:
                pixels = h.flatten(2).transpose(1, 2)  # (b, p, c)
                read = self.attention[str(i)](pixels, z, self.visible)
                h = h + read.transpose(1, 2).reshape(h.shape)
        params: Tensor = self.head(h)
        return params.flatten(2).transpose(1, 2)

    def to_sequence(self, x: UInt8[Tensor, "b c h w"]) -> UInt8[Tensor, "b p c"]:
        """Lay the pixels out in raster order."""
        return x.flatten(2).transpose(1, 2)

    def from_sequence(self, sequence: UInt8[Tensor, "b p c"]) -> UInt8[Tensor, "b c h w"]:
        """Invert `to_sequence`."""
        return sequence.transpose(1, 2).reshape(len(sequence), *self.event_shape)

    @torch.no_grad()
    def init_state(self, z: Float[Tensor, "b n d"] | None, batch: int) -> GatedCache:
        """Begin a batch of images with empty caches; see `Decoder.init_state`."""
        return GatedCache(
            self.stack,
            self.attention,
            self.head,
            z,
            seen=[bisect_right(self.visible_from, i) for i in range(self.positions)],
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

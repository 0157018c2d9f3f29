"""PixelSNAIL that attends to the latents: the decoder of the paper's strongest models.

Residual gated causal convolutions with attention over all earlier pixels (see
`deltavae.nn.snail`), and attention from every pixel to the latents. With the anti-causal encoder a
pixel in row r sees z_t for t ≤ r, or those whose boxes have begun; with the non-causal encoder it
sees all of them.

Chen et al., PixelSNAIL, ICML 2018, https://arxiv.org/abs/1712.09763; Razavi et al., Preventing
Posterior Collapse with δ-VAEs, ICLR 2019, section 3, https://arxiv.org/abs/1901.03416

Deviations:
    * What a pixel reads from the latents is added to the stream.
"""

from typing import final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from deltavae.decoders.base import State
from deltavae.decoders.image import ImageDecoder, LatentView
from deltavae.decoders.snail_cache import SnailCache
from deltavae.likelihoods import Likelihood
from deltavae.nn import (
    LatentAttention,
    SnailStack,
    as_image,
    pixels,
    scale_image,
    with_coordinates,
)
from deltavae.nn.boxes import Boxes
from deltavae.nn.precision import exactly


@final
class PixelSNAIL(ImageDecoder):
    """p(x|z) of images, pixel by pixel in raster order.

    Args:
        image_shape: Channels, rows and columns (C, H, W).
        likelihood: The conditional distribution of a pixel.
        latent_shape: Steps n and channels d of z; None: the decoder alone.
        latent_view: Which latents a pixel sees: "rows-above" those whose row, or box, has begun,
            "all" every one.
        channels: Width.
        layers: Number of residual layers.
        attention_layers: Number of attention layers, spread evenly among the residual layers.
        kernel_size: Width k of the cropped kernels, at least 2.
        heads: Heads of either attention; must divide half of channels.
        attend_every: An attention to the latents follows every such number of layers, and the
            first.
        dropout: Share of features dropped while training, in [0, 1).
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
        channels: int = 64,
        layers: int = 8,
        attention_layers: int = 2,
        kernel_size: int = 2,
        heads: int = 2,
        attend_every: int = 4,
        dropout: float = 0.0,
        checkpointing: bool = False,
        boxes: Boxes | None = None,
    ) -> None:
        super().__init__(image_shape, likelihood, latent_shape, latent_view, boxes)
        if attend_every < 1:
            raise ValueError(f"attend_every must be at least 1, got {attend_every}")
        self.stack = SnailStack(
            image_shape[0],
            channels,
            layers,
            attention_layers,
            kernel_size=kernel_size,
            heads=heads,
            dropout=dropout,
            checkpointing=checkpointing,
        )
        self.latent_attention = nn.ModuleDict()
        self.head = nn.Sequential(nn.ELU(), nn.Conv2d(channels, likelihood.params_per_position, 1))
        if latent_shape is not None:  # drawn last: the rest begins as in the decoder alone
            for i in range(0, layers, attend_every):
                self.latent_attention[str(i)] = LatentAttention(channels, latent_shape, heads)

    def forward(
        self, x: UInt8[Tensor, "b c h w"], z: Float[Tensor, "b n d"] | None
    ) -> Float[Tensor, "b p k"]:
        """Return the parameters of every pixel; see `Decoder.forward`."""
        weight = self.stack.embed_left.weight
        z = self.or_zero(z, len(x))
        scaled = scale_image(x, self.likelihood.levels, weight.dtype)
        image = with_coordinates(scaled).contiguous(memory_format=torch.channels_last)
        h = exactly(self.stack.embed, image, weight)
        for i in range(len(self.stack.layers)):
            h = self.stack.layer(i, h, image)
            if z is not None and str(i) in self.latent_attention:
                h = h + as_image(self.latent_attention[str(i)](pixels(h), z, self.visible), h)
        return pixels(exactly(self.head, h, weight))

    @torch.no_grad()
    def init_state(self, z: Float[Tensor, "b n d"] | None, batch: int) -> SnailCache:
        """Begin a batch of images with empty caches; see `Decoder.init_state`."""
        return SnailCache(
            self.stack,
            self.latent_attention,
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
        assert isinstance(state, SnailCache)
        return state.step(previous), state

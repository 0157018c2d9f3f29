"""A gated PixelCNN that attends to the latents.

The two causal stacks of van den Oord et al. 2016 (see `deltavae.nn.gated`), with attention from
every pixel to the latents every few layers. With the anti-causal encoder a pixel in row r sees z_t
for t ≤ r; with the non-causal encoder it sees all of them.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3,
https://arxiv.org/abs/1901.03416

Deviations:
    * What a pixel reads from the latents is added to the horizontal stack's features.
"""

from dataclasses import dataclass
from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from deltavae.decoders.base import Decoder, State
from deltavae.likelihoods import Likelihood
from deltavae.nn import GatedStack, LatentAttention, scale_image, with_coordinates
from deltavae.nn.gated import GatedLayer, gate


@dataclass
class Cache(State):
    """What the layers have computed so far, so that a step computes one pixel only.

    Attributes:
        image: The scaled image with coordinates, in a margin of zeros: p + 1 rows above and
            columns to the left, p to the right, p the reach of a kernel.
        rows: For every layer the last p + 1 rows that the vertical stack gave it, padded.
        above: For every layer what the current row gets from the vertical stack.
        left: For every layer the last p features of the horizontal stack in the current row.
    """

    image: Float[Tensor, "b k hp wp"]
    rows: list[Float[Tensor, "b f p1 wr"]]
    above: list[Float[Tensor, "b two_f w"]]
    left: list[Float[Tensor, "b f reach"]]


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

    def init_state(self, z: Float[Tensor, "b n d"] | None, batch: int) -> Cache:
        """Begin a batch of images with empty caches; see `Decoder.init_state`."""
        begun = super().init_state(z, batch)
        weight, p = self.stack.embed_vertical.weight, self.stack.reach
        w = self.event_shape[2]
        image = with_coordinates(weight.new_zeros(batch, *self.event_shape))
        layers, width = len(self.stack.layers), weight.shape[0]
        return Cache(
            **vars(begun),
            image=F.pad(image, (p + 1, p, p + 1, 0)),
            rows=[weight.new_zeros(batch, width, p + 1, w + 2 * p) for _ in range(layers)],
            above=[],
            left=[],
        )

    def step(
        self, state: State, previous: UInt8[Tensor, "b c"] | None
    ) -> tuple[Float[Tensor, "b k"], State]:
        """Predict the next pixel from the caches; see `Decoder.step`."""
        assert isinstance(state, Cache)
        p, (c, _, w) = self.stack.reach, self.event_shape
        if previous is not None:
            row, column = divmod(state.position - 1, w)
            scaled = scale_image(
                previous[:, :, None, None], self.likelihood.levels, state.image.dtype
            )
            state.sequence[:, state.position - 1] = previous
            state.image[:, :c, row + p + 1, column + p + 1] = scaled[:, :, 0, 0]
        row, column = divmod(state.position, w)
        if column == 0:
            self._begin_row(state, row)
        params = self._pixel(state, row, column)
        state.position += 1
        return params, state

    def _begin_row(self, state: Cache, row: int) -> None:
        # The vertical stack for one row: rows < row of the image, every column.
        p = self.stack.reach
        v = self.stack.embed_vertical(state.image[:, :, row : row + p + 1, 1:])  # (b, c, 1, w)
        state.above, state.left = [], []
        for i, layer in enumerate(self._layers()):
            current = F.pad(v, (p, p, 0, 0))
            state.rows[i] = torch.cat([state.rows[i][:, :, 1:], current], dim=2)
            above = layer.vertical(state.rows[i])
            v = v + gate(above)
            state.above.append(layer.link(above)[:, :, 0])
            state.left.append(v.new_zeros(*v.shape[:2], p))

    def _pixel(self, state: Cache, row: int, column: int) -> Float[Tensor, "b k"]:
        # The horizontal stack for one pixel: the pixels to its left, and what comes from above.
        p = self.stack.reach
        seen = state.image[:, :, row + p + 1 : row + p + 2, column : column + p + 1]
        h = self.stack.embed_horizontal(seen)  # (b, c, 1, 1)
        position = row * self.event_shape[2] + column
        for i, layer in enumerate(self._layers()):
            window = torch.cat([state.left[i], h[:, :, 0]], dim=2)  # (b, c, p + 1)
            state.left[i] = window[:, :, 1:]
            left = layer.horizontal(window[:, :, None])
            h = h + layer.out(gate(left + state.above[i][:, :, column, None, None]))
            if state.z is not None and str(i) in self.attention:
                pixel, visible = h.flatten(2).transpose(1, 2), self.visible[position, None]
                h = h + self.attention[str(i)](pixel, state.z, visible).transpose(1, 2)[..., None]
        params: Tensor = self.head(h)
        return params.flatten(1)

    def _layers(self) -> list[GatedLayer]:
        return [layer for layer in self.stack.layers if isinstance(layer, GatedLayer)]

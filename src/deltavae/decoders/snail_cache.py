"""One pixel after the other through a PixelSNAIL: every layer keeps what it has computed.

Both convolutions of layer i are linear in φ of what came before (`deltavae.nn.snail` has the
symbols). Of a row r the part of the rows above it is known when it begins, for all columns; of a
pixel the left neighbours' part is known of every layer when it begins:

    row     above_i = Σ over the rows above + biases               i = 1..L
    pixel   pre_i   = above_i + Σ_t A_it φ_i(column − t)           one batched product for all i
            pre_i  += A_i0 φ_i

Attention keeps the keys and values of the pixels before. Those of pixel i need x_i: their part of
h_i is kept until the next step brings it.

No parameter is changed or differentiated; buffers are written in place.
"""

from itertools import pairwise
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from deltavae.decoders.base import State
from deltavae.decoders.cached import Reader, bias_of, for_levels, matrix_of
from deltavae.nn import LatentAttention, with_coordinates
from deltavae.nn.snail import PixelAttention, ResidualLayer, SnailStack


@final
class Convolutions:
    """The first, or the second, convolution of every layer; columns lie before the batch.

    For every layer `inputs[column]` is where to write φ: twice the same place, as (b, 2, c) and as
    (b, 2c); `pre` what the pixel begun has from its neighbours, (b, outputs); `own` the weights of
    the pixel itself, (inputs, outputs).

    Args:
        convs: One convolution per layer, all of one shape.
        batch: Number b of images.
        width: Number w of columns.
    """

    def __init__(self, convs: list[nn.Conv2d], batch: int, width: int) -> None:
        weight = torch.stack([conv.weight.detach() for conv in convs])
        depth, outputs, inputs, k, _ = weight.shape
        p, new = k - 1, weight.new_zeros
        taps = weight.permute(3, 4, 0, 2, 1).contiguous()  # (k, k, L, inputs, outputs)
        *above, current = taps.unbind(0)
        *self.left, own = current.unbind(0)
        self.own = own.unbind(0)
        self.bias = torch.stack([bias_of(conv) for conv in convs])[:, None]  # (L, 1, outputs)
        rows = new(p, depth, width + p, batch, inputs)  # the last p, p columns of zeros first
        self.rows, self.line = rows, rows[-1]
        self.taps = [
            (rows[r, :, j : j + width].view(depth, width * batch, inputs), above[r][j])
            for r in range(p)
            for j in range(k)
        ]
        self.lefts = [[self.line[:, c + t] for t in range(p)] for c in range(width)]
        self.inputs = [
            [(u.view(batch, 2, -1), u) for u in self.line[:, p + c].unbind(0)]
            for c in range(width)
        ]
        self.known = new(depth, width * batch, outputs)
        self.above = self.known.view(depth, width, batch, outputs).unbind(1)
        self.buffer = new(depth, batch, outputs)
        self.pre = self.buffer.unbind(0)

    def begin_row(self, first: bool) -> None:
        """Go on to the next row: what its pixels get from the rows above."""
        self.known.copy_(self.bias.expand_as(self.known))
        if first:
            return
        for rows, weight in self.taps:
            self.known.baddbmm_(rows, weight)
        for earlier, later in pairwise(self.rows.unbind(0)):
            earlier.copy_(later)

    def begin_pixel(self, column: int) -> None:
        """Go on to the next pixel: what it gets from the rows above and from its left."""
        known = self.above[column]
        for left, weight in zip(self.lefts[column], self.left, strict=True):
            known = torch.baddbmm(known, left, weight, out=self.buffer)


@final
class Look:
    """Attention from a pixel to all earlier ones, with a cache of their keys and values.

    `phi` is where to write φ(h): twice the same place, as (b, 2, c) and as (b, 2c).

    Args:
        attention: Its weights.
        places: Ones and coordinates of every pixel behind zeros for the colours.
        batch: Number b of images.
        levels: Number of levels of a pixel.
    """

    def __init__(
        self, attention: PixelAttention, places: Float[Tensor, "p k"], batch: int, levels: int
    ) -> None:
        features, gate = matrix_of(attention.features), matrix_of(attention.gate)
        kv, place = matrix_of(attention.image), matrix_of(attention.place)
        heads, inner, c = attention.heads, features.shape[1] // 3, len(features)
        scale = (inner // heads) ** -0.5
        features[:, :inner] *= scale
        colours = len(kv) - 3
        kv[colours] -= kv[:colours].sum(0)  # the −1 of x̃ = 2x/(L−1) − 1
        bias_q, bias_kv = torch.split(bias_of(attention.features), [inner, 2 * inner])
        self.constant = torch.cat(  # of every pixel what depends neither on h nor on its colours
            [
                scale * (places[:, -3:] @ place + bias_q),
                places @ kv + bias_kv,
                bias_of(attention.gate).expand(len(places), -1),
            ],
            dim=1,
        ).unbind(0)
        only_h = torch.cat([features, torch.zeros_like(features)])  # ELU(h), not ELU(−h)
        self.weight = torch.cat([only_h, gate], dim=1)  # φ(h) → q, k and v, gate
        self.image = kv[:colours] * (2.0 / (levels - 1))
        self.read = matrix_of(attention.read)
        flat = features.new_zeros(batch, 2 * c)
        self.phi = flat.view(batch, 2, c), flat
        self.mixed = features.new_zeros(batch, 3 * inner + 2 * c)
        q, self.pending, self.gate = torch.split(self.mixed, [inner, 2 * inner, 2 * c], 1)
        self.query = q.view(batch, heads, 1, -1)
        self.halves = self.gate.chunk(2, dim=1)
        e = inner // heads
        self.keys = features.new_zeros(batch, heads, e, len(places))
        self.values = features.new_zeros(batch, heads, len(places), e)

    def remember(self, position: int, x: Float[Tensor, "b k"]) -> None:
        """Complete the keys and values of the last position with its values x."""
        kv = torch.addmm(self.pending, x, self.image)
        k, v = kv.view(len(x), 2, *self.keys.shape[1:3]).unbind(1)
        self.keys[:, :, :, position] = k
        self.values[:, :, position] = v

    def add_to(self, h: Float[Tensor, "b c"], position: int) -> None:
        """Add to h what it reads from the positions before, φ(h) written before."""
        torch.addmm(self.constant[position], self.phi[1], self.weight, out=self.mixed)
        if position:
            weights = (self.query @ self.keys[:, :, :, :position]).softmax(3)
            read = weights @ self.values[:, :, :position]  # (b, m, 1, e)
            self.gate.addmm_(F.elu_(read.flatten(1)), self.read)
        a, b = self.halves
        h.addcmul_(a, b.sigmoid_())


@final
class SnailCache(State):
    """The state of a `PixelSNAIL` between two pixels.

    Args:
        stack: The residual layers and their attention.
        latent_attention: Attention to the latents, by the layer that it follows.
        head: ELU, 1 × 1 convolution.
        z: Latents as the decoder reads them; None without latents.
        seen: How many latents each pixel sees.
        batch: Number b of images.
        event_shape: Channels, rows and columns (C, H, W).
        levels: Number of levels of a pixel.
    """

    def __init__(
        self,
        stack: SnailStack,
        latent_attention: nn.ModuleDict,
        head: nn.Sequential,
        z: Float[Tensor, "b n d"] | None,
        seen: list[int],
        batch: int,
        event_shape: tuple[int, ...],
        levels: int,
    ) -> None:
        super().__init__(position=0)
        self.reach, (self.channels, _, self.width), self.seen = stack.reach, event_shape, seen
        layers = [layer for layer in stack.layers if isinstance(layer, ResidualLayer)]
        self.first = Convolutions([layer.first for layer in layers], batch, self.width)
        self.second = Convolutions([layer.second for layer in layers], batch, self.width)
        self.readers = {
            int(i): Reader.of(module, z)
            for i, module in latent_attention.items()
            if z is not None and isinstance(module, LatentAttention)
        }
        p, new = self.reach, stack.embed_left.weight.detach().new_zeros
        image = with_coordinates(new(1, *event_shape))
        self.looks = {
            int(i): Look(module, image[0].flatten(1).t(), batch, levels)
            for i, module in stack.attention.items()
            if isinstance(module, PixelAttention)
        }
        above, above_bias = for_levels(stack.embed_above, self.channels, levels)
        left, left_bias = for_levels(stack.embed_left, self.channels, levels)
        above[:, :, :, :p] += left[:, :, :p]
        self.embed_rows = above.contiguous(memory_format=torch.channels_last)
        self.embed_bias = above_bias + left_bias
        self.embed_left = left[:, :, p].permute(2, 1, 0).flatten(0, 1)  # (p·k, c)
        self.head = bias_of(head[1]), matrix_of(head[1])
        self.image = F.pad(image.expand(batch, -1, -1, -1), (p, p, p, 0))
        self.image = self.image.permute(0, 2, 3, 1).contiguous()
        c = len(above)
        self.start: tuple[Tensor, ...] = ()  # a row's pixels, begun with what is above them
        self.cells: tuple[Tensor, ...] = ()  # a row's pixels, to be written
        self.windows: tuple[Tensor, ...] = ()  # what the left embedding sees of them
        self.signs = new(2, 1).copy_(torch.tensor([[1.0], [-1.0]]))
        self.h = new(batch, c)
        self.h_signed = self.h[:, None]
        self.layers = [
            (pre, pre[:, None], own, gate, *gate.chunk(2, dim=1), own_2)
            for pre, own, gate, own_2 in zip(
                self.first.pre, self.first.own, self.second.pre, self.second.own, strict=True
            )
        ]

    def step(self, previous: UInt8[Tensor, "b c"] | None) -> Float[Tensor, "b k"]:
        """Predict the next pixel; see `Decoder.step`."""
        row, column = divmod(self.position, self.width)
        if previous is not None:
            cell = self.cells[column - 1]
            cell.copy_(previous)
            for look in self.looks.values():
                look.remember(self.position - 1, cell)
        if column == 0:
            self._begin_row(row)
        params = self._pixel(column)
        self.position += 1
        return params

    def _begin_row(self, row: int) -> None:
        p = self.reach
        known = self.image[:, row : row + p].permute(0, 3, 1, 2)
        start = F.conv2d(known, self.embed_rows, self.embed_bias)  # (b, c, 1, w)
        self.start = start[:, :, 0].permute(2, 0, 1).contiguous().unbind(0)
        self.first.begin_row(row == 0)
        self.second.begin_row(row == 0)
        line = self.image[:, row + p]  # (b, columns, k)
        self.cells = line[:, p:-p, : self.channels].unbind(1)
        k = line.shape[2]
        self.windows = line.flatten(1).unfold(1, p * k, k).unbind(1)

    def _pixel(self, column: int) -> Float[Tensor, "b k"]:
        h = torch.addmm(self.start[column], self.windows[column], self.embed_left, out=self.h)
        self.first.begin_pixel(column)
        self.second.begin_pixel(column)
        firsts, seconds = self.first.inputs[column], self.second.inputs[column]
        for i, (pre, pre_signed, own, gate, a, b, own_2) in enumerate(self.layers):
            pre.addmm_(self._phi(self.h_signed, *firsts[i]), own)
            gate.addmm_(self._phi(pre_signed, *seconds[i]), own_2)
            h.addcmul_(a, b.sigmoid_())
            if i in self.looks:
                look = self.looks[i]
                self._phi(self.h_signed, *look.phi)
                look.add_to(h, self.position)
            if i in self.readers:
                self.readers[i].add_to(h, self.seen[self.position])
        bias, weight = self.head
        return torch.addmm(bias, F.elu(h), weight)

    def _phi(
        self,
        h: Float[Tensor, "b 1 c"],
        pair: Float[Tensor, "b 2 c"],
        flat: Float[Tensor, "b two_c"],
    ) -> Float[Tensor, "b two_c"]:
        # ELU([h, −h]), written where it is kept.
        torch.mul(h, self.signs, out=pair)
        return F.elu_(flat)
